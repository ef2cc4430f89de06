//! What a predecessor knew of calls and members comes in, and what a successor has to know goes out. Pure.

use core::time::Duration;
use std::time::Instant;

use super::attempt::Job;
use super::jobs::delete_all::DELETE_ALL;
use super::member::{Created, DEFERRED_FOR, DEFERRED_MAX, Deferred};
use super::outbox::{Note, Outbox};
use super::rewrite::Notice;
use super::session::{Binding, Journal, MemberId, Session, Stage, Tick, Wants};
use super::{Dispatch, Member};

/// Things that are told between two commands at least, if there are as many: a few dozen microseconds.
const PART: usize = 256;
/// Pause between parts: a million calls are told in some 4 s.
const PAUSE: Duration = Duration::from_millis(1);
/// How often a journal hands over what it has, if there is anything: what a `kill -9` may cost.
const TURN_EVERY: Duration = Duration::from_millis(25);

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

    /// What a session wished to be told when its member is lost, or that it is nothing any more.
    pub fn restore_wish(&mut self, session: Session<'_>, notice: Option<&Notice>) {
        if self.gives_up_after().is_some() {
            let hash = self.sessions.hash(session.call_id);
            // Who wishes too much is told so when he wishes it.
            self.sessions.set_wish(hash, session, notice).ok();
        }
    }

    /// These sessions wished nothing any more.
    pub fn restore_unwished(&mut self, session: Session<'_>) {
        let hash = self.sessions.hash(session.call_id);
        self.sessions.delete_wishes(hash, session);
    }

    /// A delete waited for its member; there is nothing left to delete after that time.
    pub fn restore_deferred(&mut self, now: Instant, id: MemberId, left: Duration, text: &[u8]) {
        let Some(member) = self.member_mut(id).filter(|_| !left.is_zero()) else {
            return;
        };
        if text == DELETE_ALL {
            member.owes_delete_all = true;
        } else if !member.deferred.iter().any(|known| *known.text == *text) {
            // What happened and what was there at some time after it tell of the same.
            if member.deferred.len() >= DEFERRED_MAX {
                member.deferred.pop_front();
            }
            member.deferred.push_back(Deferred {
                // Where the wall clock was put back it would wait for longer.
                expires: now + left.min(DEFERRED_FOR),
                text: text.into(),
            });
        }
    }

    /// A delete waited no longer; without a text, none of the member's did.
    pub fn restore_settled(&mut self, id: MemberId, text: Option<&[u8]>) {
        let Some(member) = self.member_mut(id) else { return };
        if text.is_none_or(|text| text == DELETE_ALL) {
            member.owes_delete_all = false;
        }
        member
            .deferred
            .retain(|deferred| text.is_some_and(|text| *deferred.text != *text));
    }

    /// A member had made so many sessions, as it said that long ago first. When it says that they are fewer, it has been
    /// restarted.
    pub fn restore_created(&mut self, now: Instant, id: MemberId, count: u64, ago: Duration) {
        let at = self.tick(now.checked_sub(ago).unwrap_or(self.epoch));
        if let Some(member) = self.member_mut(id) {
            member.created = Some(Created {
                count,
                at,
                of_predecessor: true,
            });
        }
    }

    /// Has what happens from now on written down, and by and by all that is there.
    pub fn keep_journal(&mut self, now: Instant, journal: Box<dyn Journal>) {
        self.sessions.set_journal(journal);
        for member in self.members.iter().filter(|member| member.present) {
            self.sessions.name_member(member.id, &member.config);
        }
        self.journal_told = now;
    }

    /// Has what happens told to other dispatchers, and by and by all that is there; or not any more.
    pub fn share(&mut self, now: Instant, journal: Option<Box<dyn Journal>>) {
        self.sessions.share(journal);
        for member in self.members.iter().filter(|member| member.present) {
            self.sessions.name_member(member.id, &member.config);
        }
        self.journal_told = now;
    }

    /// Nothing is written down any more: what happens to members and calls from now on is our own end.
    pub fn close_journal(&mut self) {
        self.sessions.close_journal();
    }

    /// A member says how many sessions it has made since its start.
    pub(super) fn note_created(&mut self, now: Instant, id: MemberId, count: u64, out: &mut Outbox<C, L>) {
        let at = self.tick(now);
        let Some(member) = self.member_mut(id) else { return };
        let before = member.created;
        if before.is_some_and(|before| before.count == count && !before.of_predecessor) {
            return;
        }
        member.created = Some(Created {
            count,
            at,
            of_predecessor: false,
        });
        // Who watches over it tells of a restart that happens while we are there.
        if let Some(before) = before
            && before.of_predecessor
            && count < before.count
        {
            out.notes.push(Note::Restarted {
                member: member.config.name.clone(),
            });
            self.sessions.forget_before(id, before.at);
        }
        if let Some(journal) = self.sessions.journal() {
            journal.counted(id, count, at);
        }
    }

    /// When the journal is told more.
    pub(super) fn next_tale(&self) -> Option<Instant> {
        match self.sessions.journal_wants() {
            Wants::Nothing => None,
            Wants::Turn => Some(self.journal_told + TURN_EVERY),
            Wants::Part => Some(self.journal_told + PAUSE),
        }
    }

    pub(super) fn tell_journal(&mut self, now: Instant) {
        if self.next_tale().is_none_or(|at| at > now) {
            return;
        }
        self.journal_told = now;
        let tick = self.tick(now);
        let Self {
            sessions,
            members,
            pending,
            epoch,
            ..
        } = self;
        let tick_of = |at: Instant| Tick::from_elapsed(at.saturating_duration_since(*epoch));
        // Behind the parts of each member come deletes that are on their way, and may have to wait again.
        sessions.tell(tick, PART, members.len() + 1, |part, journal| {
            if let Some(member) = members.get(part) {
                return tell_member(member, tick_of, journal);
            }
            let mut told = 0;
            for t in pending.iter().filter(|t| t.job == Job::Quiet) {
                for exchange in &t.exchanges {
                    journal.deferred(exchange.member, tick_of(now + DEFERRED_FOR), &t.text);
                    told += 1;
                }
            }
            told
        });
    }
}

/// Tells what is kept for a member; gives how much that was.
fn tell_member<L>(member: &Member<L>, tick_of: impl Fn(Instant) -> Tick, journal: &mut dyn Journal) -> usize {
    if !member.present {
        return 0;
    }
    if let Some(created) = member.created {
        journal.counted(member.id, created.count, created.at);
    }
    if member.owes_delete_all {
        journal.deferred(member.id, Tick::NEVER, DELETE_ALL);
    }
    for deferred in &member.deferred {
        journal.deferred(member.id, tick_of(deferred.expires), &deferred.text);
    }
    member.deferred.len()
}
