//! A call that is not known here may be known to another dispatcher of the same members: it is looked up where they share
//! what they have bound. Who cannot be told in time asks the members. Pure.

use core::time::Duration;
use std::time::Instant;

use super::super::attempt::{Job, Transaction};
use super::super::outbox::{LookUp, Outbox};
use super::super::pending::Slot;
use super::super::session::Stage;
use super::super::{ANSWER_WITHIN, Dispatch, Total};
use super::{Asked, Event, Next};
use crate::protocol::command::Command;

/// A look-up that takes longer is not waited for.
pub(super) const LOOK_UP_FOR: Duration = Duration::from_millis(30);

impl<C, L: Clone> Dispatch<C, L> {
    /// Calls that other dispatchers have bound can be looked up from now on, or not any more: then no command waits for it.
    pub fn set_shared(&mut self, shared: bool) {
        self.shared = shared;
    }

    /// Whether the call of a command may be looked up.
    pub(in crate::dispatch) fn looks_up(&self, command: &Command<'_>) -> bool {
        self.shared && !command.call_id.is_empty()
    }

    /// Has a call looked up. Further commands of it wait for the same answer.
    pub(in crate::dispatch) fn look_up(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        if !self.follows(t) {
            t.job = Job::LookUp;
            t.give_up = now + ANSWER_WITHIN;
            t.step = Some(now + LOOK_UP_FOR);
            self.questions.insert(t.key.hash, t.slot);
            self.total(Total::LookUps);
            out.look_ups.push(LookUp {
                slot: t.slot,
                call_id: t.call_id().into(),
            });
        }
        Next::Waits
    }

    /// A call was looked up: what stands there, if anything does. A member that is not one of ours is no answer.
    pub fn looked_up(&mut self, now: Instant, slot: Slot, found: Option<&[u8]>, out: &mut Outbox<C, L>) {
        let Some(t) = self.pending.get(slot).filter(|t| t.job == Job::LookUp) else {
            return;
        };
        let home = found.and_then(|found| {
            let mut members = self.members.iter().filter(|member| member.present);
            members.find(|member| member.config.identity().as_bytes() == found)
        });
        if let Some(home) = home.map(|member| member.id) {
            let tick = self.tick(now);
            let (hash, call_id) = (t.key.hash, t.call_id());
            if self
                .sessions
                .bind(tick, hash, call_id, home, Stage::Bound)
                .is_ok()
            {
                self.total(Total::SessionsBound);
            }
            self.total(Total::LookUpsFound);
        }
        if let Some(t) = self.pending.take(slot) {
            self.settle(now, t, Next::Again(Asked::LookedUp), out);
        }
    }

    /// The answer is late.
    pub(super) fn looking_up(&mut self, event: Event<'_>) -> Next {
        match event {
            Event::Step | Event::GivenUp(_) => {
                self.total(Total::LookUpsOvertaken);
                Next::Again(Asked::LookedUp)
            }
            Event::Answer(_) | Event::Failed(_) | Event::Impatient => Next::Waits,
        }
    }
}
