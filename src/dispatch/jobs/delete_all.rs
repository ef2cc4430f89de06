//! `X`: every member forgets all, and so do we. Pure.

use std::time::Instant;

use super::super::attempt::{Fate, Job, Transaction};
use super::super::event::Why;
use super::super::outbox::Outbox;
use super::super::session::{MemberId, Tick};
use super::super::{ANSWER_WITHIN, Dispatch};
use super::{Event, Next};
use crate::protocol::command::Verb;
use crate::protocol::reply::{Outcome, own};

/// The command.
pub(in crate::dispatch) const DELETE_ALL: &[u8] = b"X";

impl<C, L: Clone> Dispatch<C, L> {
    pub(in crate::dispatch) fn delete_all(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        self.sessions.clear();
        let present = self.members.iter().filter(|member| member.present);
        for id in present.map(|member| member.id).collect::<Vec<_>>() {
            self.owe_delete_all(id);
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
        {
            self.settle_delete_all(answer.from);
        }
        self.all_deleted_unless_waiting(t, out)
    }

    /// A member has to forget all, what waits to be deleted there among it.
    pub(in crate::dispatch) fn owe_delete_all(&mut self, id: MemberId) {
        self.settle_deletes(id, None);
        if let Some(member) = self.member_mut(id) {
            member.owes_delete_all = true;
        }
        if let Some(journal) = self.sessions.journal() {
            journal.deferred(id, Tick::NEVER, DELETE_ALL);
        }
    }

    /// A member has forgotten all, or has something anew that it is to keep.
    pub(in crate::dispatch) fn settle_delete_all(&mut self, id: MemberId) {
        if let Some(member) = self.member_mut(id)
            && core::mem::take(&mut member.owes_delete_all)
            && let Some(journal) = self.sessions.journal()
        {
            journal.settled(id, Some(DELETE_ALL));
        }
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

    /// Whether an `X` is on its way to a member.
    pub(super) fn is_deleting_all(&self, id: MemberId) -> bool {
        let mut all = self.pending.iter().filter(|t| t.job == Job::DeleteAll);
        all.any(|t| {
            t.exchanges
                .iter()
                .any(|exchange| exchange.member == id && exchange.fate == Fate::Waiting)
        })
    }

    /// A member that missed an `X` is back.
    pub(in crate::dispatch) fn send_delete_all_late(
        &mut self,
        now: Instant,
        id: MemberId,
        out: &mut Outbox<C, L>,
    ) {
        if let Some(mut t) = self.open_own(now, Job::DeleteAll, Verb::DeleteAll, ANSWER_WITHIN, DELETE_ALL) {
            self.send(now, &mut t, id, Why::Kept, out);
            self.settle(now, t, Next::Waits, out);
        }
    }
}
