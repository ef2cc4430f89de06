//! What a predecessor knew of calls comes in, and what a successor has to know goes out. Pure.

use core::time::Duration;
use std::time::Instant;

use super::Dispatch;
use super::session::{Binding, Journal, MemberId, Stage};

/// Bindings that are told between two commands at least, if there are as many: a few dozen microseconds.
const PART: usize = 256;
/// Pause between parts: a million calls are told in some 4 s.
const PAUSE: Duration = Duration::from_millis(1);
/// How often a journal is asked whether it wants to be told all, and hands over what it has: what a `kill -9` may cost.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A call as a predecessor knew it.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The call.
    pub call_id: &'a [u8],
    /// Its member.
    pub member: MemberId,
    /// How long it has been there.
    pub born: Duration,
    /// How long ago its last command came, or it ended.
    pub used: Duration,
    /// Whether it has been deleted.
    pub ended: bool,
}

impl<C, L: Clone> Dispatch<C, L> {
    /// Makes room for a past: calls are remembered that are as old as a call may become. To be called before anything
    /// is bound.
    pub fn begin_earlier(&mut self) {
        let past = self.rules.sessions.expire.saturating_mul(2);
        self.epoch = self.epoch.checked_sub(past).unwrap_or(self.epoch);
    }

    /// How long ago the tick 0 was.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// A call is where a predecessor had it. Where the table is full it is not kept.
    pub fn restore(&mut self, now: Instant, known: Known<'_>) {
        let tick = |ago| self.tick(now.checked_sub(ago).unwrap_or(self.epoch));
        let binding = Binding {
            member: known.member,
            born: tick(known.born),
            used: tick(known.used),
            stage: if known.ended { Stage::Ended } else { Stage::Bound },
            suffix: 0,
        };
        let tick = self.tick(now);
        self.sessions.restore(tick, known.call_id, binding).ok();
    }

    /// A predecessor knew that a call is nowhere.
    pub fn restore_forgotten(&mut self, call_id: &[u8]) {
        let hash = self.sessions.hash(call_id);
        self.sessions.forget(hash, call_id);
    }

    /// A predecessor knew that what a member had so long ago is gone.
    pub fn restore_cut(&mut self, now: Instant, id: MemberId, ago: Duration) {
        let cut = self.tick(now.checked_sub(ago).unwrap_or(self.epoch));
        self.sessions.forget_before(id, cut);
    }

    /// A predecessor knew that no call is anywhere.
    pub fn restore_cleared(&mut self) {
        self.sessions.clear();
    }

    /// Has what happens from now on written down, and by and by all that is there.
    pub fn keep_journal(&mut self, now: Instant, journal: Box<dyn Journal>) {
        self.sessions.set_journal(journal);
        for member in self.members.iter().filter(|member| member.present) {
            self.sessions.name_member(member.id, &member.config);
        }
        self.journal_at = Some(now);
    }

    /// Nothing is written down any more: what happens to members and calls from now on is our own end.
    pub fn close_journal(&mut self) {
        self.sessions.close_journal();
        self.journal_at = None;
    }

    pub(super) fn tell_journal(&mut self, now: Instant) {
        if self.journal_at.is_none_or(|at| at > now) {
            return;
        }
        let more = self.sessions.tell(self.tick(now), PART);
        self.journal_at = Some(now + if more { PAUSE } else { LOOK_EVERY });
    }
}
