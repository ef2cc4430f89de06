//! Deletes that nobody waits for: of calls that ended while their member was away, and of sessions that were made twice.
//! Pure.

use std::time::Instant;

use super::super::attempt::{Job, Transaction};
use super::super::counters::Count;
use super::super::event::Why;
use super::super::member::{DEFERRED_FOR, Member};
use super::super::outbox::{Note, Outbox};
use super::super::rewrite;
use super::super::session::{MemberId, Stage};
use super::super::{ANSWER_WITHIN, Dispatch};
use super::{Event, Next};
use crate::protocol::command::{self, Verb};

/// Deletes on their way to a member that came back, at the same time.
const CHAINS: usize = 32;

impl<C, L: Clone> Dispatch<C, L> {
    /// Sends a delete that nobody waits for; when it stays unanswered, it is kept for the member. One that is `chained`
    /// has been kept, and is followed by the next that waits there.
    pub(super) fn send_quietly(
        &mut self,
        now: Instant,
        to: MemberId,
        text: &[u8],
        chained: bool,
        out: &mut Outbox<C, L>,
    ) {
        if !chained {
            self.write_down_delete(now, to, text);
        }
        let online = self.member(to).is_some_and(Member::serves);
        let t = online.then(|| self.open_own(now, Job::Quiet, Verb::Delete, ANSWER_WITHIN, text));
        let Some(mut t) = t.flatten() else {
            self.keep_delete(now, to, text, out);
            return;
        };
        t.chained = chained;
        let why = if chained { Why::Kept } else { Why::Undone };
        self.send(now, &mut t, to, why, out);
        self.settle(now, t, Next::Waits, out);
    }

    pub(super) fn quiet(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        match event {
            Event::Answer(answer) => {
                self.settle_deletes(answer.from, Some(&t.text));
                if t.chained {
                    self.send_deferred(now, answer.from, out);
                }
            }
            Event::Failed(at) => self.keep_delete(now, at, &t.text, out),
            Event::GivenUp(silent) => {
                for at in silent {
                    self.keep_delete(now, *at, &t.text, out);
                }
            }
            Event::Impatient | Event::Step => return Next::Waits,
        }
        Next::Over
    }

    /// Keeps a client's delete for a member until it is back.
    pub(in crate::dispatch) fn defer(
        &mut self,
        now: Instant,
        to: MemberId,
        text: &[u8],
        out: &mut Outbox<C, L>,
    ) {
        self.write_down_delete(now, to, text);
        self.keep_delete(now, to, text, out);
    }

    /// A successor is to know of a delete that a member has not answered.
    fn write_down_delete(&mut self, now: Instant, to: MemberId, text: &[u8]) {
        let expires = self.tick(now + DEFERRED_FOR);
        if let Some(journal) = self.sessions.journal() {
            journal.deferred(to, expires, text);
        }
    }

    fn keep_delete(&mut self, now: Instant, to: MemberId, text: &[u8], out: &mut Outbox<C, L>) {
        if let Some(member) = self.member_mut(to)
            && member.defer(now, text)
            && let Some(deletes) = member.deletes_dropped.hit(now)
        {
            out.notes.push(Note::DeletesDropped {
                member: member.config.name.clone(),
                deletes,
            });
        }
    }

    /// A member answers: it gets what it has missed, or of the deletes a few at a time, each followed by another one.
    pub(in crate::dispatch) fn catch_up(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) {
        if self.member(id).is_some_and(|member| member.owes_delete_all) && !self.is_deleting_all(id) {
            self.owe_delete_all(id);
            self.send_delete_all_late(now, id, out);
        }
        for _ in 0..CHAINS {
            self.send_deferred(now, id, out);
        }
    }

    /// The next delete that waits for a member.
    fn send_deferred(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) {
        while let Some(member) = self.member_mut(id).filter(|member| member.online)
            && let Some(text) = member.next_deferred(now)
        {
            // A call that is there again must not be ended by a delete of before.
            if !self.is_at(now, &text, id) {
                return self.send_quietly(now, id, &text, true, out);
            }
            self.settle_deletes(id, Some(&text));
        }
    }

    /// A delete is not to be remembered for a member any more; without a text, none is.
    pub(in crate::dispatch) fn settle_deletes(&mut self, id: MemberId, text: Option<&[u8]>) {
        if text.is_none()
            && let Some(member) = self.member_mut(id)
        {
            member.deferred.clear();
        }
        if let Some(journal) = self.sessions.journal() {
            journal.settled(id, text);
        }
    }

    /// Undoes what a U may have created at a member that lost.
    pub(super) fn undo(&mut self, now: Instant, at: MemberId, text: &[u8], out: &mut Outbox<C, L>) {
        if let Some(member) = self.member_mut(at) {
            member.count(Count::Undone);
        }
        self.delete_created(now, at, text, out);
    }

    /// Ends what a U has created at a member.
    pub(in crate::dispatch) fn delete_created(
        &mut self,
        now: Instant,
        at: MemberId,
        text: &[u8],
        out: &mut Outbox<C, L>,
    ) {
        if let Ok(command) = command::parse(text) {
            let mut delete = Vec::new();
            rewrite::delete_for(&command, &mut delete);
            self.send_quietly(now, at, &delete, false, out);
        }
    }

    /// Whether the call of a delete is at that member now: alive, and made after the delete was.
    pub(in crate::dispatch) fn is_at(&self, now: Instant, text: &[u8], id: MemberId) -> bool {
        command::parse(text).is_ok_and(|command| {
            let hash = self.sessions.hash(command.call_id);
            let home = self.sessions.peek(self.tick(now), hash, command.call_id);
            home.is_some_and(|binding| binding.member == id && binding.stage != Stage::Ended)
        })
    }
}
