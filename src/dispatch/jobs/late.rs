//! The client has its answer; attempts that are still unanswered are watched for a while, so that what they make is
//! undone. Pure.

use std::time::Instant;

use super::super::attempt::{Job, Transaction};
use super::super::outbox::{Note, Outbox};
use super::super::session::{MemberId, Stage};
use super::super::{ANSWER_WITHIN, Dispatch};
use super::{Answer, Event, Next};
use crate::protocol::command::Verb;
use crate::protocol::reply::Outcome;

impl<C, L: Clone> Dispatch<C, L> {
    /// The client has its answer.
    pub(super) fn leave_late(&mut self, now: Instant, t: &mut Transaction<C>) -> Next {
        if !t.is_waiting() {
            return Next::Over;
        }
        t.job = Job::Late;
        t.give_up = now + ANSWER_WITHIN;
        for exchange in &mut t.exchanges {
            exchange.resend = None;
            exchange.patience = None;
        }
        self.end_question(t);
        Next::Waits
    }

    pub(super) fn late(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        match event {
            Event::Answer(answer) => self.came_late(now, t, answer, out),
            Event::Failed(from) => self.undo_unanswered(now, t, &[from], out),
            Event::GivenUp(silent) => self.undo_unanswered(now, t, silent, out),
            Event::Impatient | Event::Step => {}
        }
        if t.is_waiting() { Next::Waits } else { Next::Over }
    }

    /// A member that lost answers.
    fn came_late(&mut self, now: Instant, t: &Transaction<C>, answer: Answer<'_>, out: &mut Outbox<C, L>) {
        if answer.outcome != Outcome::Positive {
            return;
        }
        let (tick, from) = (self.tick(now), answer.from);
        let home = self.sessions.find(tick, t.key.hash, t.call_id());
        let home = home.map(|binding| binding.member);
        if home == Some(from) {
            return;
        }
        if t.asks() == Verb::Update {
            // Without a binding, for which there was no room, it is where the first answer came from.
            if home.is_some() || !t.may_have_been_at(from) {
                self.undo(now, from, &t.text, out);
            }
        } else if let Some(home) = home {
            let name = |id| self.member(id).map(|member| member.config.name.clone());
            if let (Some(bound), Some(also)) = (name(home), name(from))
                && let Some(calls) = self.two_homes.hit(now)
            {
                out.notes.push(Note::TwoHomes { bound, also, calls });
            }
        }
    }

    /// A U that was never answered may have created a session all the same. That is undone unless the call is there, or may
    /// have been there before.
    pub(super) fn undo_unanswered(
        &mut self,
        now: Instant,
        t: &Transaction<C>,
        silent: &[MemberId],
        out: &mut Outbox<C, L>,
    ) {
        if t.asks() != Verb::Update {
            return;
        }
        for id in silent {
            let known = self.sessions.peek(self.tick(now), t.key.hash, t.call_id());
            let known = known.filter(|known| known.stage != Stage::Ended);
            let stays = known.map_or(t.may_have_been_at(*id), |home| home.member == *id);
            if !stays {
                self.undo(now, *id, &t.text, out);
            }
        }
    }
}
