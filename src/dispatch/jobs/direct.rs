//! A command for the home of its call, which alone can answer. Pure.

use std::time::Instant;

use super::super::attempt::{Job, Transaction};
use super::super::commands::Asked;
use super::super::event::Why;
use super::super::member::Member;
use super::super::outbox::Outbox;
use super::super::session::{MemberId, Stage};
use super::super::{Dispatch, Total};
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
                    self.has_updated(now, t, answer.from, out);
                }
                self.hand_over(t, answer, out);
                Next::Over
            }
            // Another member heals the call: the command is routed anew, now that its home is offline.
            Event::Failed(home)
                if t.key.verb == Verb::Update && !self.member(home).is_some_and(Member::serves) =>
            {
                self.end_with_its_call(now, t, home, out);
                Next::Again(Asked::Not)
            }
            Event::Failed(home) => self.home_failed(now, t, Some(home), out),
            Event::GivenUp(silent) => self.home_failed(now, t, silent.first().copied(), out),
            Event::Impatient | Event::Step => Next::Waits,
        }
    }

    /// A member has done a U of a call that was there when the U set out. When a delete came meanwhile, it may have got there
    /// first: what the U has made since is ended too. When the member has been restarted meanwhile, the call is there
    /// anew, whether that is known by now or not.
    fn has_updated(&mut self, now: Instant, t: &Transaction<C>, home: MemberId, out: &mut Outbox<C, L>) {
        if t.key.verb != Verb::Update || t.key.ends {
            return;
        }
        let (tick, hash) = (self.tick(now), t.key.hash);
        if self.has_ended(now, t, home) {
            self.delete_created(now, home, &t.text, out);
        } else if !self.sessions.renew(tick, hash, t.call_id(), home) {
            let bound = self.sessions.bind(tick, hash, t.call_id(), home, Stage::Bound);
            if bound.is_ok() {
                self.total(Total::SessionsBound);
            }
        }
    }

    /// Whether the call has been deleted at its home.
    fn has_ended(&self, now: Instant, t: &Transaction<C>, home: MemberId) -> bool {
        let known = self.sessions.peek(self.tick(now), t.key.hash, t.call_id());
        known.is_some_and(|known| known.member == home && known.stage == Stage::Ended)
    }

    /// A stream that its home may have made after the call's delete, and has not told of, is ended.
    fn end_with_its_call(
        &mut self,
        now: Instant,
        t: &Transaction<C>,
        home: MemberId,
        out: &mut Outbox<C, L>,
    ) {
        if t.makes_a_stream() && self.has_ended(now, t, home) {
            self.delete_created(now, home, &t.text, out);
        }
    }

    /// The home did not answer, and nobody else can. A delete is carried out when it is back; what may have been made there
    /// after its call's delete is ended.
    fn home_failed(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        home: Option<MemberId>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        if t.key.verb != Verb::Delete {
            if let Some(home) = home {
                self.end_with_its_call(now, t, home, out);
            }
            return self.fail_with(t, own::HOME_SILENT, out);
        }
        if let Some(home) = home {
            self.defer(now, home, &t.text, out);
        }
        self.finish(t, b"0", out)
    }
}
