//! The session table: which member has which call. Pure: one call at a time, the caller holds the lock.
//!
//! - Finding, binding and forgetting cost the same at a hundred calls and at a million. The table is cut into
//!   [`SHARDS`] by the hash of the call-id, so that growing moves one part in so many at a time.
//! - What has aged out is never found, whenever it is swept away: [`Sessions::sweep`] only gives memory back.
//! - Whatever makes, moves, ends or drops a binding keeps the count of its member, see [`Sessions::bound`].
//! - A call costs at most 200 bytes with a call-id of 40 bytes. What its sessions wish to be told when their member
//!   is lost comes on top of that, where it is wanted.

mod journal;
mod ledger;
mod shard;
mod wishes;

use core::fmt;
use core::hash::BuildHasher;
use core::time::Duration;
use std::collections::VecDeque;

use self::journal::Both;
pub use self::journal::{Journal, PARTS, Session, Wants};
use self::ledger::Ledger;
use self::shard::Shard;
pub use self::wishes::NoRoom;
use self::wishes::Wishes;
use crate::config::model;
use crate::dispatch::key::Key;
use crate::dispatch::rewrite::Notice;

/// Parts of the table. At a million calls each has 4,000 and grows in a fraction of a millisecond.
pub const SHARDS: usize = 256;
/// How often the journal is told that a call goes on, while it would age out once.
const TOLD_PER_LIFE: u32 = 8;
/// How long the binding of a deleted call is remembered, for the other leg's delete and for retransmissions.
pub const ENDED_GRACE: Duration = Duration::from_secs(60);

/// A member of a cluster: its place, and which of the members that have had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId {
    /// Place in the cluster's list of members; free places are used again.
    pub index: u16,
    /// Differs from that of the place's members before.
    pub generation: u16,
}

/// A moment, in steps of 100 ms since the daemon's start; stops at 13 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(u32);

impl Tick {
    /// Ticks in a second.
    pub const PER_SECOND: u32 = 10;
    /// Behind all others.
    pub(super) const NEVER: Self = Self(u32::MAX);

    /// The tick that `elapsed` after the start falls into.
    pub fn from_elapsed(elapsed: Duration) -> Self {
        let step = 1_000 / u128::from(Self::PER_SECOND);
        Self(u32::try_from(elapsed.as_millis() / step).unwrap_or(u32::MAX))
    }

    /// The time from `earlier` to here; zero where that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0))) / Self::PER_SECOND
    }

    /// Whether more than `span` has passed since `earlier`. As a tick is rounded down, the one in which `span`
    /// ends does not count yet: nothing ends early, and late by 100 ms at most.
    fn is_past(self, earlier: Self, span: Duration) -> bool {
        self.since(earlier) > span
    }
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A member has been chosen for it and has not answered yet.
    Tentative,
    /// A member has it.
    Bound,
    /// It has been deleted; remembered for [`ENDED_GRACE`].
    Ended,
}

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The member that it is bound to.
    pub member: MemberId,
    /// When it was bound to that member.
    pub born: Tick,
    /// When its last command came; of an ended one, when it ended.
    pub used: Tick,
    /// How far it has come.
    pub stage: Stage,
    /// A number that its owner remembers with it; 0 at first.
    pub suffix: u16,
}

/// A binding that was found. Read it as a [`Binding`]; it changes only through the table, which keeps counts.
#[derive(Debug)]
pub struct Found<'a>(&'a mut Binding);

impl Found<'_> {
    /// Remembers a number with it, for as long as the call is bound anywhere.
    pub fn set_suffix(&mut self, suffix: u16) {
        self.0.suffix = suffix;
    }
}

impl core::ops::Deref for Found<'_> {
    type Target = Binding;

    fn deref(&self) -> &Binding {
        self.0
    }
}

/// The table has as many calls as it may; this one is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session table is full")
    }
}

impl core::error::Error for Full {}

/// What a sweep dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Calls that aged out without a delete.
    pub expired: usize,
    /// Calls that ended long enough ago, or whose member has forgotten them.
    pub done: usize,
}

/// The session table of one cluster.
#[derive(Debug)]
pub struct Sessions {
    shards: Vec<Shard>,
    /// Calls in all shards, ended ones and those not swept yet among them.
    stored: usize,
    ledger: Ledger,
    limits: model::Sessions,
    key: Key,
    /// The shard that is swept next.
    next: usize,
    /// Hashes of calls in the order in which they ended: in a full table the first make room.
    ended: VecDeque<u64>,
    wishes: Wishes,
    /// Who writes down what happens here.
    journal: Option<Both>,
}

impl Sessions {
    /// An empty table; `key` hashes call-ids. They come from outside: it must not be known there.
    pub fn new(limits: model::Sessions, key: Key) -> Self {
        let shards = core::iter::repeat_with(Shard::default).take(SHARDS).collect();
        Self {
            shards,
            stored: 0,
            ledger: Ledger::default(),
            limits,
            key,
            next: 0,
            ended: VecDeque::new(),
            wishes: Wishes::default(),
            journal: None,
        }
    }

    /// The hash of a call-id, made once a command for all calls about it.
    pub fn hash(&self, call_id: &[u8]) -> u64 {
        self.key.hash_one(call_id)
    }

    /// Takes other limits. What is in the table beyond a lower maximum stays until it ages out.
    pub fn set_limits(&mut self, limits: model::Sessions) {
        self.limits = limits;
    }

    /// The binding of a call, unless it has aged out or its member has forgotten it.
    pub fn find(&mut self, now: Tick, hash: u64, call_id: &[u8]) -> Option<Found<'_>> {
        let (ledger, expire) = (&mut self.ledger, self.limits.expire);
        let good = |binding: &Binding| ledger.honours(binding) && !expired(now, binding, expire);
        match self.shards.get_mut(shard_of(hash))?.find(hash, call_id, good) {
            Ok(binding) => Some(Found(binding)),
            Err(dropped) => {
                if let Some(binding) = dropped {
                    self.stored -= 1;
                    ledger.remove(&binding);
                }
                None
            }
        }
    }

    /// A command of a call came: its binding, which ages from `now`. One that has ended ages from its end all the same.
    /// The journal hears of it now and then: over a restart a call ages earlier by a [`TOLD_PER_LIFE`]th of its life at
    /// most.
    pub fn touch(&mut self, now: Tick, hash: u64, call_id: &[u8]) -> Option<Binding> {
        let part = self.limits.expire.as_millis() / u128::from(TOLD_PER_LIFE);
        let Found(binding) = self.find(now, hash, call_id)?;
        if binding.stage == Stage::Ended {
            return Some(*binding);
        }
        let before = core::mem::replace(&mut binding.used, now);
        let binding = *binding;
        let part_of = |tick: Tick| tick.since(Tick::default()).as_millis() / part.max(1);
        if part_of(before) != part_of(now) {
            self.write_down(call_id, &binding);
        }
        Some(binding)
    }

    /// The binding of a call as [`Sessions::find`] would give it, only to be read.
    pub fn peek(&self, now: Tick, hash: u64, call_id: &[u8]) -> Option<&Binding> {
        let binding = self.shards.get(shard_of(hash))?.peek(hash, call_id)?;
        let good = self.ledger.honours(binding) && !expired(now, binding, self.limits.expire);
        good.then_some(binding)
    }

    /// Binds a call to a member, whether it was bound before or not. Its last command came `now`; it counts as
    /// born `now` too, unless it was alive at that member already. An ended one that ends again ended the first time.
    ///
    /// # Errors
    /// [`Full`] when the table is: then nothing has changed. Calls that have ended make room for new ones.
    pub fn bind(
        &mut self,
        now: Tick,
        hash: u64,
        call_id: &[u8],
        member: MemberId,
        stage: Stage,
    ) -> Result<(), Full> {
        let mut binding = Binding {
            member,
            born: now,
            used: now,
            stage,
            suffix: 0,
        };
        let mut ends = stage == Stage::Ended;
        if let Some(Found(before)) = self.find(now, hash, call_id) {
            let old = *before;
            ends &= old.stage != Stage::Ended;
            binding.suffix = old.suffix;
            let ends_again = old.stage == Stage::Ended && stage == Stage::Ended;
            if old.member == member && (old.stage != Stage::Ended || ends_again) {
                binding.born = old.born;
            }
            if old.member == member && ends_again {
                binding.used = old.used;
            }
            *before = binding;
            self.ledger.remove(&old);
        } else {
            if self.is_full() && !self.make_room() {
                return Err(Full);
            }
            let shard = self.shards.get_mut(shard_of(hash)).ok_or(Full)?;
            if !shard.insert(hash, call_id, binding) {
                return Err(Full);
            }
            self.stored += 1;
        }
        self.ledger.add(&binding);
        if ends {
            self.note_end(hash);
        }
        self.write_down(call_id, &binding);
        Ok(())
    }

    /// A member has just made a session of this call, or still had it: if it is bound there, it is as if it had been bound
    /// now, so that what is known later of an earlier restart leaves it. Says whether it is bound anywhere.
    pub fn renew(&mut self, now: Tick, hash: u64, call_id: &[u8], home: MemberId) -> bool {
        let Some(Found(binding)) = self.find(now, hash, call_id) else {
            return false;
        };
        if binding.member == home && binding.stage == Stage::Bound {
            binding.born = now;
        }
        true
    }

    /// Forgets a call.
    pub fn forget(&mut self, hash: u64, call_id: &[u8]) {
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else {
            return;
        };
        if let Err(Some(binding)) = shard.find(hash, call_id, |_| false) {
            self.stored -= 1;
            self.ledger.remove(&binding);
            if let Some(journal) = &mut self.journal {
                journal.forgotten(call_id);
            }
        }
    }

    /// Forgets all calls of a member that leaves for good, at once; sweeps drop them later. Nothing is bound to its
    /// id from now on; only after this may another member have its place.
    pub fn forget_member(&mut self, now: Tick, id: MemberId) {
        self.ledger.leave(id);
        if let Some(journal) = &mut self.journal {
            journal.left(id, now);
        }
    }

    /// Forgets the calls that were bound to a member before `cut`, at once: it has been restarted. Sweeps drop
    /// them later, and only then does [`Sessions::bound`] count them no more.
    pub fn forget_before(&mut self, id: MemberId, cut: Tick) {
        self.ledger.cut(id, cut);
        if let Some(journal) = &mut self.journal {
            journal.cut(id, cut);
        }
    }

    /// Forgets all calls of all members, and gives their memory back.
    pub fn clear(&mut self) {
        self.shards.fill_with(Shard::default);
        self.stored = 0;
        self.ended = VecDeque::new();
        self.ledger.clear();
        self.wishes.clear();
        if let Some(journal) = &mut self.journal {
            journal.cleared();
        }
    }

    /// A session's last U: what the SIP server is to be told when its member is lost, or nothing. It is found again
    /// while its call is bound.
    ///
    /// # Errors
    /// When it is too long, or there are as many wishes as there may be bound calls: then it is not kept.
    pub fn set_wish(
        &mut self,
        hash: u64,
        session: Session<'_>,
        notice: Option<&Notice>,
    ) -> Result<(), NoRoom> {
        let max = self.max();
        let set = self.wishes.set(hash, session.from, session.to, notice, max);
        if let Some(journal) = &mut self.journal
            && set != Ok(false)
        {
            let wish = notice.filter(|_| set.is_ok());
            journal.wished(session, wish.map(|notice| (&notice.to, &*notice.text)));
        }
        set.map(|_| ())
    }

    /// Sessions of a call have been deleted: that of the tag, and those of its streams unless it names one.
    pub fn delete_wishes(&mut self, hash: u64, session: Session<'_>) {
        let had_some = self.wishes.delete(hash, session.from, session.to);
        if let Some(journal) = &mut self.journal
            && had_some
        {
            journal.unwished(session);
        }
    }

    /// Takes what is to be told for calls of a member, of one shard of [`SHARDS`], some `max` of it, and says whether
    /// that was all.
    pub fn take_wishes(
        &mut self,
        now: Tick,
        id: MemberId,
        shard: usize,
        max: usize,
        mut tell: impl FnMut(Notice),
    ) -> bool {
        let Some(calls) = self.shards.get(shard) else {
            return true;
        };
        let (ledger, expire) = (&self.ledger, self.limits.expire);
        let is_lost = |hash| {
            calls.by_hash(hash).is_some_and(|(_, binding)| {
                binding.member == id
                    && binding.stage != Stage::Ended
                    && ledger.honours(binding)
                    && !expired(now, binding, expire)
            })
        };
        let journal = &mut self.journal;
        self.wishes.take(shard, max, is_lost, |hash, tag, notice| {
            if let Some(journal) = journal
                && let Some((call_id, _)) = calls.by_hash(hash)
            {
                journal.unwished(Session {
                    call_id,
                    from: tag,
                    to: None,
                });
            }
            tell(notice);
        })
    }

    /// Forgets all wishes, and gives their memory back.
    pub fn clear_wishes(&mut self) {
        self.wishes.clear();
    }

    /// Calls in the table: ended ones and those that have aged out but were not swept yet among them.
    pub fn len(&self) -> usize {
        self.stored
    }

    /// Whether nothing is in the table.
    pub fn is_empty(&self) -> bool {
        self.stored == 0
    }

    /// Whether there are as many calls as there may be: a further one may find no room.
    pub fn is_full(&self) -> bool {
        self.stored >= self.max()
    }

    /// Calls that are bound to a member, tentatively or firmly; those that aged out count until they are swept.
    pub fn bound(&self, id: MemberId) -> u64 {
        self.ledger.bound(id)
    }

    /// Calls that are bound to any member.
    pub fn bound_in_all(&self) -> u64 {
        self.ledger.bound_in_all()
    }

    /// Drops what has aged out of one shard, the next one at each call, and gives memory back where most of it is
    /// not needed any more. With [`SHARDS`] calls it has been everywhere.
    pub fn sweep(&mut self, now: Tick) -> Swept {
        let at = self.next;
        self.next = (at + 1) % SHARDS;
        self.sweep_shard(at, now)
    }

    /// Sweeps shards, from the next one on, until `min` bindings have been looked at or every shard was.
    pub fn sweep_part(&mut self, now: Tick, min: usize) -> Swept {
        let mut all = Swept::default();
        let mut seen = 0;
        for _ in 0..SHARDS {
            seen += self.shards.get(self.next).map_or(0, Shard::len);
            let swept = self.sweep(now);
            all.expired += swept.expired;
            all.done += swept.done;
            if seen >= min {
                break;
            }
        }
        all
    }

    /// Shows live bindings, in no order, until `see` says no.
    #[cfg(test)]
    fn for_each(&self, now: Tick, mut see: impl FnMut(&[u8], &Binding) -> bool) {
        for shard in 0..SHARDS {
            if !self.visit(now, shard, &mut see) {
                return;
            }
        }
    }

    /// Shows the live bindings of one shard, of [`SHARDS`], until `see` says no, and gives what it said last: going
    /// shard by shard, a caller can let others have the table in between.
    pub fn visit(&self, now: Tick, shard: usize, mut see: impl FnMut(&[u8], &Binding) -> bool) -> bool {
        let live =
            |binding: &Binding| self.ledger.honours(binding) && !expired(now, binding, self.limits.expire);
        let mut calls = self
            .shards
            .get(shard)
            .into_iter()
            .flat_map(Shard::iter)
            .filter(|(_, binding)| live(binding));
        calls.all(|(call_id, binding)| see(call_id, binding))
    }

    fn max(&self) -> usize {
        usize::try_from(self.limits.max).unwrap_or(usize::MAX)
    }

    /// Remembers that a call has ended. What has not ended any more, or is gone, leaves the list meanwhile.
    fn note_end(&mut self, hash: u64) {
        for _ in 0..2 {
            match self.ended.front() {
                Some(&first) if !self.has_ended(first) => self.ended.pop_front(),
                _ => break,
            };
        }
        self.ended.push_back(hash);
    }

    fn has_ended(&self, hash: u64) -> bool {
        let call = self
            .shards
            .get(shard_of(hash))
            .and_then(|shard| shard.by_hash(hash));
        call.is_some_and(|(_, binding)| binding.stage == Stage::Ended)
    }

    /// Tries to make room in a full table: the call that ended first goes. Nothing is searched for; what has aged out is
    /// swept away anyway.
    fn make_room(&mut self) -> bool {
        while let Some(hash) = self.ended.pop_front() {
            let shard = self.shards.get_mut(shard_of(hash));
            let gone = shard.and_then(|shard| shard.remove_if(hash, |binding| binding.stage == Stage::Ended));
            if let Some(binding) = gone {
                self.stored -= 1;
                self.ledger.remove(&binding);
                if !self.is_full() {
                    return true;
                }
            }
        }
        false
    }

    fn sweep_shard(&mut self, at: usize, now: Tick) -> Swept {
        let mut swept = Swept::default();
        let Some(shard) = self.shards.get_mut(at) else {
            return swept;
        };
        let (ledger, expire) = (&mut self.ledger, self.limits.expire);
        shard.retain(|binding| {
            let honoured = ledger.honours(binding);
            let ended = binding.stage == Stage::Ended;
            if honoured && !expired(now, binding, expire) {
                return true;
            }
            if honoured && !ended {
                swept.expired += 1;
            } else {
                swept.done += 1;
            }
            ledger.remove(binding);
            false
        });
        self.stored -= swept.expired + swept.done;
        if self.stored == 0 {
            self.ended = VecDeque::new();
        }
        if self.wishes.len() > 0 {
            self.wishes.sweep(at, |hash| shard.by_hash(hash).is_some());
        }
        swept
    }
}

/// The shard of a hash. The table inside goes by the lowest and the highest bits; these are in between.
fn shard_of(hash: u64) -> usize {
    usize::from((hash >> 40).to_le_bytes()[0]) % SHARDS
}

fn expired(now: Tick, binding: &Binding, expire: Duration) -> bool {
    let span = if binding.stage == Stage::Ended {
        ENDED_GRACE
    } else {
        expire
    };
    now.is_past(binding.used, span)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const A: MemberId = MemberId {
        index: 0,
        generation: 1,
    };
    const B: MemberId = MemberId {
        index: 3,
        generation: 7,
    };
    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Tick {
        Tick::from_elapsed(Duration::from_secs(seconds))
    }

    fn table(max: u32) -> Sessions {
        Sessions::new(model::Sessions { max, expire: HOUR }, Key::from_seed(1))
    }

    fn bind(
        sessions: &mut Sessions,
        now: Tick,
        call_id: &str,
        id: MemberId,
        stage: Stage,
    ) -> Result<(), Full> {
        let hash = sessions.hash(call_id.as_bytes());
        sessions.bind(now, hash, call_id.as_bytes(), id, stage)
    }

    fn find(sessions: &mut Sessions, now: Tick, call_id: &str) -> Option<Binding> {
        let hash = sessions.hash(call_id.as_bytes());
        sessions.find(now, hash, call_id.as_bytes()).map(|found| *found)
    }

    fn sweep_all(sessions: &mut Sessions, now: Tick) -> Swept {
        let mut all = Swept::default();
        for _ in 0..SHARDS {
            let swept = sessions.sweep(now);
            all.expired += swept.expired;
            all.done += swept.done;
        }
        all
    }

    #[test]
    fn ticks_round_down_and_saturate() {
        assert_eq!(Tick::from_elapsed(Duration::from_millis(199)), Tick(1));
        assert_eq!(Tick::from_elapsed(Duration::MAX), Tick(u32::MAX));
        assert_eq!(Tick(25).since(Tick(10)), Duration::from_millis(1500));
        assert_eq!(Tick(10).since(Tick(25)), Duration::ZERO);
    }

    #[test]
    fn a_bound_call_is_found_until_it_is_forgotten() {
        let mut sessions = table(10);
        bind(&mut sessions, at(5), "call", A, Stage::Tentative).unwrap();
        let binding = find(&mut sessions, at(6), "call").unwrap();
        assert_eq!(
            binding,
            Binding {
                member: A,
                born: at(5),
                used: at(5),
                stage: Stage::Tentative,
                suffix: 0
            }
        );
        assert_eq!(find(&mut sessions, at(6), "cal"), None);
        assert_eq!(find(&mut sessions, at(6), ""), None);
        assert_eq!((sessions.len(), sessions.bound(A), sessions.bound(B)), (1, 1, 0));
        let hash = sessions.hash(b"call");
        sessions.forget(hash, b"call");
        sessions.forget(hash, b"call");
        assert_eq!(find(&mut sessions, at(6), "call"), None);
        assert_eq!((sessions.len(), sessions.bound(A)), (0, 0));
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_call_ages_from_its_last_command() {
        let mut sessions = table(10);
        bind(&mut sessions, at(0), "call", A, Stage::Bound).unwrap();
        let hash = sessions.hash(b"call");
        sessions.touch(at(3600), hash, b"call");
        assert!(find(&mut sessions, at(7200), "call").is_some());
        assert_eq!(find(&mut sessions, Tick(72_001), "call"), None);
        assert_eq!(
            (sessions.len(), sessions.bound(A)),
            (0, 0),
            "what aged out is dropped when it is met"
        );
    }

    #[test]
    fn an_ended_call_is_remembered_for_a_minute_from_its_end() {
        let mut sessions = table(10);
        bind(&mut sessions, at(0), "call", A, Stage::Bound).unwrap();
        bind(&mut sessions, at(100), "call", A, Stage::Ended).unwrap();
        assert_eq!((sessions.len(), sessions.bound(A)), (1, 0));
        // Neither another command nor the other leg's delete makes that longer.
        let hash = sessions.hash(b"call");
        sessions.touch(at(130), hash, b"call");
        bind(&mut sessions, at(140), "call", A, Stage::Ended).unwrap();
        let binding = find(&mut sessions, at(160), "call").unwrap();
        assert_eq!(
            (binding.born, binding.used, binding.stage),
            (at(0), at(100), Stage::Ended)
        );
        assert_eq!(find(&mut sessions, Tick(1601), "call"), None);
    }

    #[test]
    fn an_ended_call_can_come_back() {
        let mut sessions = table(10);
        bind(&mut sessions, at(0), "call", A, Stage::Ended).unwrap();
        bind(&mut sessions, at(30), "call", A, Stage::Bound).unwrap();
        assert_eq!(find(&mut sessions, at(3000), "call").unwrap().born, at(30));
        assert_eq!(sessions.bound(A), 1);
    }

    #[test]
    fn a_call_moves_with_its_count() {
        let mut sessions = table(10);
        bind(&mut sessions, at(0), "call", A, Stage::Tentative).unwrap();
        bind(&mut sessions, at(1), "call", A, Stage::Bound).unwrap();
        assert_eq!(
            find(&mut sessions, at(1), "call").unwrap().born,
            at(0),
            "it was there all the time"
        );
        bind(&mut sessions, at(2), "call", B, Stage::Bound).unwrap();
        assert_eq!(
            find(&mut sessions, at(2), "call").unwrap(),
            Binding {
                member: B,
                born: at(2),
                used: at(2),
                stage: Stage::Bound,
                suffix: 0
            }
        );
        assert_eq!((sessions.bound(A), sessions.bound(B), sessions.len()), (0, 1, 1));
        assert_eq!(sessions.bound_in_all(), 1);
    }

    #[test]
    fn a_member_that_leaves_takes_its_calls_along() {
        let mut sessions = table(10);
        bind(&mut sessions, at(0), "a", A, Stage::Bound).unwrap();
        bind(&mut sessions, at(0), "b", B, Stage::Bound).unwrap();
        sessions.forget_member(at(1), A);
        assert_eq!((sessions.bound(A), sessions.bound(B)), (0, 1));
        // Its place goes to another, whose calls are its own.
        let next = MemberId {
            generation: A.generation + 1,
            ..A
        };
        bind(&mut sessions, at(1), "c", next, Stage::Bound).unwrap();
        assert_eq!(sweep_all(&mut sessions, at(1)), Swept { expired: 0, done: 1 });
        assert_eq!(find(&mut sessions, at(1), "a"), None);
        assert_eq!(
            (sessions.bound(A), sessions.bound(next), sessions.len()),
            (0, 1, 2)
        );
        // The same call at its new home.
        bind(&mut sessions, at(1), "a", B, Stage::Bound).unwrap();
        assert_eq!((sessions.bound(next), sessions.bound(B)), (1, 2));
    }

    #[test]
    fn an_id_of_old_neither_gets_a_call_nor_pushes_anybody_out() {
        let mut sessions = table(10);
        bind(&mut sessions, at(0), "a", A, Stage::Bound).unwrap();
        sessions.forget_member(at(1), A);
        bind(&mut sessions, at(1), "late", A, Stage::Bound).unwrap();
        assert_eq!(find(&mut sessions, at(1), "late"), None);
        let next = MemberId {
            generation: A.generation + 1,
            ..A
        };
        bind(&mut sessions, at(2), "b", next, Stage::Bound).unwrap();
        bind(&mut sessions, at(2), "late", A, Stage::Bound).unwrap();
        assert_eq!(find(&mut sessions, at(2), "late"), None);
        assert!(find(&mut sessions, at(2), "b").is_some());
        assert_eq!((sessions.bound(A), sessions.bound(next)), (0, 1));
    }

    #[test]
    fn a_restarted_member_forgets_what_is_older_than_its_last_heartbeat() {
        let mut sessions = table(10);
        bind(&mut sessions, at(10), "old", A, Stage::Bound).unwrap();
        bind(&mut sessions, at(20), "new", A, Stage::Bound).unwrap();
        bind(&mut sessions, at(20), "again", A, Stage::Bound).unwrap();
        bind(&mut sessions, at(10), "elsewhere", B, Stage::Bound).unwrap();
        sessions.forget_before(A, at(15));
        sessions.forget_before(A, at(12));
        assert_eq!(find(&mut sessions, at(21), "old"), None);
        for call_id in ["new", "again", "elsewhere"] {
            assert!(find(&mut sessions, at(21), call_id).is_some(), "{call_id}");
        }
        assert_eq!(sessions.bound(A), 2);
        // Bound anew it lives.
        bind(&mut sessions, at(22), "old", A, Stage::Bound).unwrap();
        assert!(find(&mut sessions, at(22), "old").is_some());
        assert_eq!(sessions.bound(A), 3);
    }

    #[test]
    fn a_binding_over_one_that_is_forgotten_is_a_new_one() {
        let mut sessions = table(10);
        bind(&mut sessions, at(10), "call", A, Stage::Bound).unwrap();
        sessions.forget_before(A, at(15));
        bind(&mut sessions, at(16), "call", A, Stage::Tentative).unwrap();
        assert_eq!(find(&mut sessions, at(16), "call").unwrap().born, at(16));
        assert_eq!(sessions.bound(A), 1);
    }

    #[test]
    fn a_full_table_takes_no_more_but_keeps_what_it_has() {
        let mut sessions = table(3);
        for call_id in ["a", "b", "c"] {
            bind(&mut sessions, at(0), call_id, A, Stage::Bound).unwrap();
        }
        assert_eq!(bind(&mut sessions, at(1), "d", A, Stage::Bound), Err(Full));
        assert_eq!((sessions.len(), sessions.bound(A)), (3, 3));
        bind(&mut sessions, at(1), "a", B, Stage::Bound).unwrap();
        assert_eq!(find(&mut sessions, at(1), "a").unwrap().member, B);
        sessions.set_limits(model::Sessions { max: 4, expire: HOUR });
        bind(&mut sessions, at(1), "d", A, Stage::Bound).unwrap();
        sessions.set_limits(model::Sessions { max: 1, expire: HOUR });
        assert!(find(&mut sessions, at(1), "b").is_some());
        assert_eq!(bind(&mut sessions, at(2), "e", A, Stage::Bound), Err(Full));
    }

    #[test]
    fn the_call_that_ended_first_makes_room_for_a_new_one() {
        let mut sessions = table(3);
        for call_id in ["a", "b", "c"] {
            bind(&mut sessions, at(0), call_id, A, Stage::Bound).unwrap();
        }
        assert_eq!(bind(&mut sessions, at(1), "d", B, Stage::Bound), Err(Full));
        for call_id in ["b", "a", "c"] {
            bind(&mut sessions, at(1), call_id, A, Stage::Ended).unwrap();
        }
        // Whole again: it is no call that has ended.
        bind(&mut sessions, at(2), "b", A, Stage::Bound).unwrap();
        bind(&mut sessions, at(2), "d", B, Stage::Bound).unwrap();
        assert_eq!(find(&mut sessions, at(2), "a"), None);
        bind(&mut sessions, at(2), "e", B, Stage::Bound).unwrap();
        assert_eq!(find(&mut sessions, at(2), "c"), None);
        assert_eq!(bind(&mut sessions, at(2), "f", B, Stage::Bound), Err(Full));
        bind(&mut sessions, at(3), "b", A, Stage::Ended).unwrap();
        bind(&mut sessions, at(3), "f", B, Stage::Bound).unwrap();
        assert_eq!((sessions.len(), sessions.bound(A), sessions.bound(B)), (3, 0, 3));
    }

    #[test]
    fn the_list_of_ended_calls_is_no_longer_than_there_are_such_calls() {
        let mut sessions = table(1_000);
        for n in 0..5_000_u64 {
            let now = at(n);
            bind(&mut sessions, now, &format!("call-{n}"), A, Stage::Bound).unwrap();
            for _ in 0..3 {
                bind(&mut sessions, now, &format!("call-{n}"), A, Stage::Ended).unwrap();
            }
            sweep_all(&mut sessions, now);
            assert!(sessions.ended.len() <= sessions.len() + 1);
        }
        sweep_all(&mut sessions, at(6_000));
        assert_eq!(sessions.ended.capacity(), 0);
    }

    #[test]
    fn a_sweep_drops_what_aged_out_and_says_so() {
        let mut sessions = table(1000);
        for call in 0..100 {
            bind(&mut sessions, at(0), &format!("a{call}"), A, Stage::Bound).unwrap();
            bind(&mut sessions, at(3000), &format!("b{call}"), B, Stage::Tentative).unwrap();
            bind(&mut sessions, at(3500), &format!("e{call}"), B, Stage::Ended).unwrap();
        }
        assert_eq!(
            sweep_all(&mut sessions, at(3601)),
            Swept {
                expired: 100,
                done: 100
            }
        );
        assert_eq!(
            (sessions.len(), sessions.bound(A), sessions.bound(B)),
            (100, 0, 100)
        );
    }

    #[test]
    fn clearing_forgets_all_and_the_table_goes_on() {
        let mut sessions = table(100);
        for call in 0..100 {
            bind(&mut sessions, at(0), &call.to_string(), A, Stage::Bound).unwrap();
        }
        sessions.clear();
        assert_eq!((sessions.len(), sessions.bound(A)), (0, 0));
        bind(&mut sessions, at(0), "7", A, Stage::Bound).unwrap();
        assert_eq!((sessions.len(), sessions.bound(A)), (1, 1));
    }

    #[test]
    fn a_visit_shows_each_live_call_once() {
        let mut sessions = table(1000);
        for call in 0..500 {
            bind(&mut sessions, at(call), &call.to_string(), A, Stage::Bound).unwrap();
        }
        sessions.forget_before(A, at(100));
        let now = at(3600 + 199);
        let mut seen = Vec::new();
        sessions.for_each(now, |call_id, binding| {
            assert_eq!(binding.member, A);
            seen.push(
                String::from_utf8(call_id.to_vec())
                    .unwrap()
                    .parse::<u64>()
                    .unwrap(),
            );
            true
        });
        seen.sort_unstable();
        assert_eq!(seen, (199..500).collect::<Vec<u64>>());
        let mut few = 0;
        sessions.for_each(now, |_, _| {
            few += 1;
            few < 10
        });
        assert_eq!(few, 10);
        assert!(sessions.visit(now, SHARDS, |_, _| panic!("there is no such shard")));
    }

    /// Bytes that the table has from the allocator.
    fn memory(sessions: &Sessions) -> usize {
        size_of_val(&sessions.shards[..]) + sessions.shards.iter().map(Shard::memory).sum::<usize>()
    }

    fn fill(sessions: &mut Sessions, calls: usize) {
        for call in sessions.len()..calls {
            bind(sessions, at(0), &format!("{call:040}"), A, Stage::Bound).unwrap();
        }
    }

    #[test]
    fn a_session_costs_two_hundred_bytes_at_most_and_gives_them_back() {
        let mut sessions = table(1_000_000);
        // Just above a doubling is the worst, just below one the best.
        for calls in [14_000, 29_000, 35_000, 58_000, 65_000] {
            fill(&mut sessions, calls);
            let each = memory(&sessions) / calls;
            assert!(each <= 200, "{each} bytes a session at {calls}");
        }
        let peak = memory(&sessions);
        sweep_all(&mut sessions, at(4000));
        assert!(sessions.is_empty());
        assert!(
            memory(&sessions) < peak / 20,
            "{} of {peak} bytes are still in use",
            memory(&sessions)
        );
    }

    #[test]
    fn calls_spread_over_the_shards() {
        let mut sessions = table(1_000_000);
        fill(&mut sessions, 20_000);
        let fullest = sessions.shards.iter().map(Shard::len).max().unwrap();
        // 78 on average, with a standard deviation of 9.
        assert!(fullest < 140, "{fullest}");
    }

    #[derive(Debug, Clone)]
    enum Deed {
        Bind(u8, bool, u8),
        Touch(u8),
        Forget(u8),
        Cut(bool),
        Leave(bool),
        Sweep,
        Clear,
        Wait(u16),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            12 => (any::<u8>(), any::<bool>(), 0..3_u8).prop_map(|(call, to, stage)| Deed::Bind(call % 40, to, stage)),
            6 => any::<u8>().prop_map(|call| Deed::Touch(call % 40)),
            3 => any::<u8>().prop_map(|call| Deed::Forget(call % 40)),
            1 => any::<bool>().prop_map(Deed::Cut),
            1 => any::<bool>().prop_map(Deed::Leave),
            3 => Just(Deed::Sweep),
            1 => Just(Deed::Clear),
            4 => (0..900_u16).prop_map(Deed::Wait),
        ];
        proptest::collection::vec(deed, 1..200)
    }

    proptest! {
        /// Whatever happens in whatever order, the table says what a plain map with plain rules says.
        #[test]
        fn the_table_does_what_a_plain_map_does(deeds in deeds()) {
            let mut sessions = table(1000);
            let mut plain: HashMap<u8, Binding> = HashMap::new();
            let mut ids = [A, B];
            let mut now = Tick(0);
            for deed in deeds {
                plain.retain(|_, binding| !expired(now, binding, HOUR));
                match deed {
                    Deed::Bind(call, to, stage) => {
                        let member = ids[usize::from(to)];
                        let stage = [Stage::Tentative, Stage::Bound, Stage::Ended][usize::from(stage)];
                        bind(&mut sessions, now, &call.to_string(), member, stage).unwrap();
                        let fresh = Binding { member, born: now, used: now, stage, suffix: 0 };
                        let before = plain.get(&call).copied().filter(|before| before.member == member);
                        let after = match before {
                            Some(before) if before.stage == Stage::Ended && stage == Stage::Ended => before,
                            Some(before) if before.stage != Stage::Ended => Binding { born: before.born, ..fresh },
                            _ => fresh,
                        };
                        plain.insert(call, after);
                    }
                    Deed::Touch(call) => {
                        let hash = sessions.hash(call.to_string().as_bytes());
                        sessions.touch(now, hash, call.to_string().as_bytes());
                        if let Some(binding) = plain.get_mut(&call).filter(|binding| binding.stage != Stage::Ended) {
                            binding.used = now;
                        }
                    }
                    Deed::Forget(call) => {
                        let hash = sessions.hash(call.to_string().as_bytes());
                        sessions.forget(hash, call.to_string().as_bytes());
                        plain.remove(&call);
                    }
                    Deed::Cut(whose) => {
                        let id = ids[usize::from(whose)];
                        sessions.forget_before(id, now);
                        plain.retain(|_, binding| binding.member != id || binding.born >= now);
                    }
                    Deed::Leave(whose) => {
                        let id = &mut ids[usize::from(whose)];
                        sessions.forget_member(now, *id);
                        plain.retain(|_, binding| binding.member != *id);
                        id.generation += 1;
                    }
                    Deed::Sweep => { sweep_all(&mut sessions, now); }
                    Deed::Clear => { sessions.clear(); plain.clear(); }
                    Deed::Wait(ticks) => now = Tick(now.0 + u32::from(ticks) * 10),
                }
            }
            plain.retain(|_, binding| !expired(now, binding, HOUR));
            for call in 0..40 {
                prop_assert_eq!(find(&mut sessions, now, &call.to_string()), plain.get(&call).copied());
            }
            sweep_all(&mut sessions, now);
            prop_assert_eq!(sessions.len(), plain.len());
            for id in ids {
                let bound = plain.values().filter(|b| b.member == id && b.stage != Stage::Ended).count() as u64;
                prop_assert_eq!(sessions.bound(id), bound);
            }
        }
    }
}
