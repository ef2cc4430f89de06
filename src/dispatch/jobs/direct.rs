//! A command for the home of its call, which alone can answer. Pure.

use std::time::Instant;

use super::super::Dispatch;
use super::super::attempt::{Job, Transaction};
use super::super::commands::Asked;
use super::super::event::Why;
use super::super::member::Member;
use super::super::outbox::Outbox;
use super::super::session::{MemberId, Stage};
use super::{Event, Next};
use crate::protocol::command::Verb;
use crate::protocol::reply::{Outcome, own};

impl<C, L: Clone> Dispatch<C, L> {
    /// Sends a command to the home of its call.
    pub(in crate::dispatch) fn send_home(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        home: MemberId,
        why: Why,
        out: &mut Outbox<C, L>,
    ) -> Next {
        t.job = Job::Direct;
        self.send(now, t, home, why, out);
        Next::Waits
    }

    pub(super) fn direct(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        match event {
            Event::Answer(answer) => {
                if answer.outcome == Outcome::Positive {
                    self.remember_wish(now, t, answer.from, out);
                    self.remember_suffix(now, t, answer.from);
                    self.end_if_overtaken(now, t, answer.from, out);
                }
                self.hand_over(t, answer, out);
                Next::Over
            }
            // Another member heals the call: the command is routed anew, now that its home is offline.
            Event::Failed(home)
                if t.key.verb == Verb::Update && !self.member(home).is_some_and(Member::serves) =>
            {
                Next::Again(Asked::Not)
            }
            Event::Failed(home) => self.home_failed(now, t, Some(home), out),
            Event::GivenUp(silent) => self.home_failed(now, t, silent.first().copied(), out),
            Event::Impatient | Event::Step => Next::Waits,
        }
    }

    /// A delete of the call came while this command was on its way, and may have got there first: what the command has made
    /// since is ended too.
    fn end_if_overtaken(&mut self, now: Instant, t: &Transaction<C>, home: MemberId, out: &mut Outbox<C, L>) {
        let known = self.sessions.peek(self.tick(now), t.key.hash, t.call_id());
        let is_over = known.is_some_and(|binding| binding.member == home && binding.stage == Stage::Ended);
        if t.key.verb == Verb::Update && !t.key.ends && is_over {
            self.delete_created(now, home, &t.text, out);
        }
    }

    /// The home did not answer, and nobody else can. A delete is carried out when it is back.
    fn home_failed(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        home: Option<MemberId>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        if t.key.verb != Verb::Delete {
            return self.fail_with(t, own::HOME_SILENT, out);
        }
        if let Some(home) = home {
            self.defer(now, home, &t.text, out);
        }
        self.finish(t, b"0", out)
    }
}
