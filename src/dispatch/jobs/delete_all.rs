//! `X`: every member forgets all, and so do we. Pure.

use std::time::Instant;

use super::super::attempt::{Fate, Job, Transaction};
use super::super::event::Why;
use super::super::outbox::Outbox;
use super::super::session::MemberId;
use super::super::{ANSWER_WITHIN, Dispatch};
use super::{Event, Next};
use crate::protocol::command::Verb;
use crate::protocol::reply::{Outcome, own};

impl<C, L: Clone> Dispatch<C, L> {
    pub(in crate::dispatch) fn delete_all(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        self.sessions.clear();
        for member in self.members.iter_mut().filter(|member| member.present) {
            member.deferred.clear();
            member.owes_delete_all = true;
        }
        self.ask_everybody(now, t, Job::DeleteAll, ANSWER_WITHIN, out);
        self.all_deleted_unless_waiting(t, out)
    }

    pub(super) fn deleting_all(
        &mut self,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        if let Event::Answer(answer) = event
            && !matches!(answer.outcome, Outcome::Error(_))
            && let Some(member) = self.member_mut(answer.from)
        {
            member.owes_delete_all = false;
        }
        self.all_deleted_unless_waiting(t, out)
    }

    fn all_deleted_unless_waiting(&mut self, t: &mut Transaction<C>, out: &mut Outbox<C, L>) -> Next {
        if t.is_waiting() {
            return Next::Waits;
        }
        let owed = self
            .members
            .iter()
            .any(|member| member.serves() && member.owes_delete_all);
        if owed || t.exchanges.iter().any(|exchange| exchange.fate != Fate::Answered) {
            self.fail_with(t, own::HOME_SILENT, out)
        } else {
            self.finish(t, b"0", out)
        }
    }

    /// A member that missed an `X` is back.
    pub(in crate::dispatch) fn send_delete_all_late(
        &mut self,
        now: Instant,
        id: MemberId,
        out: &mut Outbox<C, L>,
    ) {
        if let Some(mut t) = self.open_own(now, Job::DeleteAll, Verb::DeleteAll, ANSWER_WITHIN, b"X") {
            self.send(now, &mut t, id, Why::Kept, out);
            self.settle(now, t, Next::Waits, out);
        }
    }
}
