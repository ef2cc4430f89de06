//! Replies kept for repeated datagrams: a client that sends a command again, because it did not hear us or we took
//! our time, gets the reply of the first, and no command runs twice. Pure.
//!
//! - A repeat is known by its sender's address and port and its cookie: two senders may use one cookie.
//! - A reply is kept for [`KEEP`] after it was given, longer than SIP servers send again, as long as there is room.
//! - What is kept has a bound in bytes. A sender may have as much of it as is left for others: alone it gets half,
//!   two that want all get a third each, and a newcomer always finds as much as any of them has. A sender that
//!   wants more loses its own oldest replies, never those of others.
//! - What finds no room is run all the same, and its repeat too: better twice than never.

use core::hash::BuildHasher;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use hashbrown::HashTable;

/// How long a reply is kept after it was given. SIP servers send a command 5 times, 1 s apart.
pub const KEEP: Duration = Duration::from_secs(10);
/// How often a reply is given again at most. Whoever asks more often talks to an echo: our reply has come back to us as
/// a repeat of its command, and would for as long as it is kept.
pub const AGAIN_MAX: u8 = 32;
/// A command in flight is answered or given up by then; what is still here was lost.
pub const FLIGHT_MAX: Duration = Duration::from_secs(30);
/// Bytes that one cluster keeps at most. Some 20,000 commands a second of one sender fill its half in 10 s.
pub const BUDGET: usize = 64 << 20;
/// Senders at most that anything is kept for.
pub const SOURCES_MAX: usize = 65_536;
/// Commands of one sender in flight at most. A SIP server's worker has one; a server that sends all from one socket
/// has as many when it sends 1,300 a second and none is answered for 3 s.
pub const IN_FLIGHT_OF_ONE: usize = 4_096;
/// Those of them that are young at most. What waits for longer waits for a member that is silent; the young ones are
/// what members work on, and more than this, from one who floods us, would fill their sockets' buffers and lose the
/// commands of others.
pub const YOUNG_OF_ONE: usize = 256;
/// A command is young for one to two times this.
const GENERATION: Duration = Duration::from_millis(125);
/// What a kept command counts for besides its cookie and its reply: its slot, its place in the index, the slack of
/// both, and the heads of two blocks of the allocator.
const OVERHEAD: usize = 168;
/// Slots that each new command looks at for what is too old: twice as many as it takes, so the old is cleared away
/// sooner than the new comes.
const LOOKS: usize = 2;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A new command, as far as one can tell: run it, then call [`Repeats::done`] or [`Repeats::cancel`].
    First,
    /// A repeat of a command that has not been answered yet: drop it, the reply is on its way.
    InFlight,
    /// A repeat of a command that was answered: send this again.
    Again(&'a [u8]),
    /// A repeat of a command whose reply was given as often as it may be: drop it.
    Enough,
    /// A new command of a sender that has as many in flight as it may. Ask again when some have been answered.
    Later,
}

/// The commands of one cluster's clients, by sender and cookie.
#[derive(Debug)]
pub struct Repeats<K> {
    index: HashTable<(u64, u32)>,
    slots: Vec<Option<Kept>>,
    free: Vec<u32>,
    sources: HashMap<SocketAddr, Source, K>,
    key: K,
    epoch: Instant,
    budget: usize,
    /// Bytes of all that is kept.
    held: usize,
    /// The slot that is looked at next for being too old.
    hand: usize,
}

/// One sender.
#[derive(Debug, Default)]
struct Source {
    /// Bytes of all that is kept for it.
    held: usize,
    /// Commands that are kept for it.
    commands: usize,
    /// Those of them that have not been answered.
    in_flight: usize,
    /// Those of them that came in this generation and in the one before.
    young: [usize; 2],
    generation: u128,
    /// Its answered commands are a list through the slots, from the oldest to the newest.
    oldest: Option<u32>,
    newest: Option<u32>,
}

/// One command.
#[derive(Debug)]
struct Kept {
    from: SocketAddr,
    hash: u64,
    cookie: Box<[u8]>,
    /// `None` while it is in flight.
    reply: Option<Box<[u8]>>,
    /// How often that was given again.
    again: u8,
    /// When it came or, once it is answered, when that was.
    at: Instant,
    /// The sender's next older and next newer answered command.
    older: Option<u32>,
    newer: Option<u32>,
}

impl Kept {
    fn cost(&self) -> usize {
        OVERHEAD + self.cookie.len() + self.reply.as_deref().map_or(0, <[u8]>::len)
    }

    /// It has come once more.
    fn repeat(&mut self) -> Seen<'_> {
        let Some(reply) = &self.reply else {
            return Seen::InFlight;
        };
        self.again = self.again.saturating_add(1);
        if self.again <= AGAIN_MAX {
            Seen::Again(reply)
        } else {
            Seen::Enough
        }
    }

    fn is_old(&self, now: Instant) -> bool {
        let limit = if self.reply.is_some() { KEEP } else { FLIGHT_MAX };
        now.saturating_duration_since(self.at) > limit
    }
}

impl Source {
    /// Time has passed: who was young may be so no longer.
    fn age(&mut self, generation: u128) {
        self.young = match generation.saturating_sub(self.generation) {
            0 => self.young,
            1 => [0, self.young[0]],
            _ => [0, 0],
        };
        self.generation = self.generation.max(generation);
    }

    fn may_begin(&self) -> bool {
        self.in_flight < IN_FLIGHT_OF_ONE && self.young[0] + self.young[1] < YOUNG_OF_ONE
    }

    /// A command of that generation has begun.
    fn begins(&mut self, generation: u128) {
        self.age(generation);
        self.in_flight += 1;
        self.young[0] += 1;
    }

    /// A command of that generation is no longer in flight.
    fn ends(&mut self, generation: u128) {
        self.in_flight -= 1;
        match self.generation.saturating_sub(generation) {
            0 => self.young[0] -= 1,
            1 => self.young[1] -= 1,
            _ => {}
        }
    }
}

impl<K: BuildHasher + Clone> Repeats<K> {
    /// Nothing kept yet, and `budget` bytes at most later, [`BUDGET`] by default. `key` hashes cookies: they come
    /// from outside, it must not be known there.
    pub fn new(now: Instant, budget: usize, key: K) -> Self {
        // Room for all that the budget lets in is asked for at once; the system gives it page by page, as it is
        // used. What would grow would stand still for milliseconds while it does.
        let most = budget / OVERHEAD;
        Self {
            index: HashTable::with_capacity(most),
            slots: Vec::with_capacity(most),
            free: Vec::with_capacity(most),
            sources: HashMap::with_hasher(key.clone()),
            key,
            epoch: now,
            budget,
            held: 0,
            hand: 0,
        }
    }

    /// A datagram with this cookie came from this sender.
    pub fn begin(&mut self, now: Instant, from: SocketAddr, cookie: &[u8]) -> Seen<'_> {
        let hash = self.key.hash_one((from, cookie));
        if let Some(at) = self.find(hash, from, cookie) {
            if self.slot(at).is_some_and(|kept| !kept.is_old(now)) {
                return self.slot_mut(at).map_or(Seen::InFlight, Kept::repeat);
            }
            self.remove(at);
        }
        self.clear_old(now, LOOKS);
        if !self.may_begin(now, from) {
            return Seen::Later;
        }
        let is_known = self.sources.contains_key(&from);
        let kept = Kept {
            from,
            hash,
            cookie: cookie.into(),
            reply: None,
            again: 0,
            at: now,
            older: None,
            newer: None,
        };
        if (is_known || self.sources.len() < SOURCES_MAX) && self.make_room(from, kept.cost()) {
            self.insert(kept);
        }
        Seen::First
    }

    /// A command has been answered.
    pub fn done(&mut self, now: Instant, from: SocketAddr, cookie: &[u8], reply: &[u8]) {
        let hash = self.key.hash_one((from, cookie));
        let Some(at) = self.find(hash, from, cookie) else {
            return;
        };
        let waiting = self.slot(at).filter(|kept| kept.reply.is_none());
        let Some(began) = waiting.map(|kept| self.generation(kept.at)) else {
            return;
        };
        if !self.make_room(from, reply.len()) {
            self.remove(at);
            return;
        }
        let Some(source) = self.sources.get_mut(&from) else {
            return;
        };
        source.held += reply.len();
        source.ends(began);
        self.held += reply.len();
        let older = source.newest.replace(at);
        source.oldest.get_or_insert(at);
        if let Some(kept) = self.slot_mut(at) {
            kept.reply = Some(reply.into());
            kept.at = now;
            kept.older = older;
        }
        if let Some(older) = older.and_then(|older| self.slot_mut(older)) {
            older.newer = Some(at);
        }
    }

    /// A command will not be answered: its repeat is a new command.
    pub fn cancel(&mut self, from: SocketAddr, cookie: &[u8]) {
        let hash = self.key.hash_one((from, cookie));
        if let Some(at) = self.find(hash, from, cookie)
            && self.slot(at).is_some_and(|kept| kept.reply.is_none())
        {
            self.remove(at);
        }
    }

    /// Drops what is too old among the next `looks` commands. New commands do that on their way; called now and
    /// then it also empties the store of a cluster that has gone quiet.
    pub fn clear_old(&mut self, now: Instant, looks: usize) {
        for _ in 0..looks.min(self.slots.len()) {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            if self
                .slots
                .get(at)
                .and_then(Option::as_ref)
                .is_some_and(|kept| kept.is_old(now))
                && let Ok(at) = u32::try_from(at)
            {
                self.remove(at);
            }
        }
    }

    /// Commands that are kept, in flight or answered.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether a new command of this sender would be run now.
    pub fn may_begin(&mut self, now: Instant, from: SocketAddr) -> bool {
        let generation = self.generation(now);
        self.sources.get_mut(&from).is_none_or(|source| {
            source.age(generation);
            source.may_begin()
        })
    }

    fn generation(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.epoch).as_nanos() / GENERATION.as_nanos()
    }

    /// Bytes that count against the budget.
    pub fn held(&self) -> usize {
        self.held
    }

    fn slot(&self, at: u32) -> Option<&Kept> {
        self.slots.get(usize::try_from(at).ok()?)?.as_ref()
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Kept> {
        self.slots.get_mut(usize::try_from(at).ok()?)?.as_mut()
    }

    fn find(&self, hash: u64, from: SocketAddr, cookie: &[u8]) -> Option<u32> {
        let same = |kept: &Kept| kept.from == from && *kept.cookie == *cookie;
        let found = self.index.find(hash, |&(known, at)| {
            known == hash && self.slot(at).is_some_and(same)
        });
        found.map(|&(_, at)| at)
    }

    /// Drops replies of a sender, oldest first, until it may have `more` bytes. Says no when there is none left to
    /// drop.
    fn make_room(&mut self, from: SocketAddr, more: usize) -> bool {
        loop {
            let source = self.sources.get(&from);
            let own = source.map_or(0, |source| source.held);
            if own.saturating_add(more) <= self.budget.saturating_sub(self.held) {
                return true;
            }
            let oldest = source.and_then(|source| source.oldest);
            if !oldest.is_some_and(|oldest| self.remove(oldest)) {
                return false;
            }
        }
    }

    /// A command that has just begun.
    fn insert(&mut self, kept: Kept) {
        let (hash, cost) = (kept.hash, kept.cost());
        let generation = self.generation(kept.at);
        let source = self.sources.entry(kept.from).or_default();
        source.held += cost;
        source.commands += 1;
        source.begins(generation);
        self.held += cost;
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // The budget keeps their number far below 2³².
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| self.slots.get_mut(at)) {
            *slot = Some(kept);
        }
        self.index.insert_unique(hash, (hash, at), |&(hash, _)| hash);
    }

    /// Says whether there was something to remove.
    fn remove(&mut self, at: u32) -> bool {
        let slot = usize::try_from(at).ok().and_then(|at| self.slots.get_mut(at));
        let Some(kept) = slot.and_then(Option::take) else {
            return false;
        };
        if let Ok(place) = self.index.find_entry(kept.hash, |&(_, other)| other == at) {
            place.remove();
        }
        self.free.push(at);
        self.held -= kept.cost();
        let began = self.generation(kept.at);
        let (older, newer) = (kept.older, kept.newer);
        if let Some(older) = older.and_then(|older| self.slot_mut(older)) {
            older.newer = newer;
        }
        if let Some(newer) = newer.and_then(|newer| self.slot_mut(newer)) {
            newer.older = older;
        }
        if let Some(source) = self.sources.get_mut(&kept.from) {
            source.held -= kept.cost();
            source.commands -= 1;
            if kept.reply.is_none() {
                source.ends(began);
            }
            if source.oldest == Some(at) {
                source.oldest = newer;
            }
            if source.newest == Some(at) {
                source.newest = older;
            }
            if source.commands == 0 {
                self.sources.remove(&kept.from);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::dispatch::random::Rng;

    fn start() -> Instant {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test needs some instant to count from"
        )]
        Instant::now()
    }

    fn from(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    fn repeats(budget: usize) -> Repeats<std::hash::RandomState> {
        Repeats::new(start(), budget, std::hash::RandomState::new())
    }

    /// Runs a new command to its end.
    fn run(repeats: &mut Repeats<std::hash::RandomState>, now: Instant, port: u16, cookie: &str) {
        assert_eq!(
            repeats.begin(now, from(port), cookie.as_bytes()),
            Seen::First,
            "{cookie}"
        );
        repeats.done(
            now,
            from(port),
            cookie.as_bytes(),
            format!("{cookie} 0\n").as_bytes(),
        );
    }

    fn is_kept(repeats: &mut Repeats<std::hash::RandomState>, port: u16, cookie: &str) -> bool {
        let hash = repeats.key.hash_one((from(port), cookie.as_bytes()));
        repeats.find(hash, from(port), cookie.as_bytes()).is_some()
    }

    #[test]
    fn a_command_runs_once_and_its_reply_is_given_again() {
        let (now, mut repeats) = (start(), repeats(BUDGET));
        assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::First);
        assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::InFlight);
        repeats.done(now, from(1), b"c1", b"c1 35000 127.0.0.1\n");
        for _ in 0..3 {
            assert_eq!(
                repeats.begin(now, from(1), b"c1"),
                Seen::Again(b"c1 35000 127.0.0.1\n")
            );
        }
        // Only the first reply was sent.
        repeats.done(now, from(1), b"c1", b"c1 E7\n");
        assert_eq!(
            repeats.begin(now, from(1), b"c1"),
            Seen::Again(b"c1 35000 127.0.0.1\n")
        );
    }

    #[test]
    fn a_reply_that_comes_back_as_its_command_is_not_given_for_ever() {
        let (now, mut repeats) = (start(), repeats(BUDGET));
        run(&mut repeats, now, 1, "c1");
        for _ in 0..AGAIN_MAX {
            assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::Again(b"c1 0\n"));
        }
        for _ in 0..1_000 {
            assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::Enough);
        }
        // The cookie is free again when the reply is not kept any more.
        let later = now + KEEP + Duration::from_millis(1);
        assert_eq!(repeats.begin(later, from(1), b"c1"), Seen::First);
    }

    #[test]
    fn one_cookie_of_two_senders_is_two_commands() {
        let (now, mut repeats) = (start(), repeats(BUDGET));
        run(&mut repeats, now, 1, "c1");
        assert_eq!(repeats.begin(now, from(2), b"c1"), Seen::First);
        assert_eq!(
            repeats.begin(now, SocketAddr::new([127, 0, 0, 2].into(), 1), b"c1"),
            Seen::First
        );
        assert_eq!(repeats.begin(now, from(1), b"c"), Seen::First);
        assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::Again(b"c1 0\n"));
    }

    #[test]
    fn a_reply_is_kept_for_its_time_from_the_answer() {
        let (now, mut repeats) = (start(), repeats(BUDGET));
        assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::First);
        let answered = now + Duration::from_secs(3);
        repeats.done(answered, from(1), b"c1", b"c1 0\n");
        assert_eq!(
            repeats.begin(answered + KEEP, from(1), b"c1"),
            Seen::Again(b"c1 0\n")
        );
        let later = answered + KEEP + Duration::from_millis(1);
        assert_eq!(repeats.begin(later, from(1), b"c1"), Seen::First);
        assert_eq!(repeats.begin(later, from(1), b"c1"), Seen::InFlight);
        assert_eq!(repeats.len(), 1);
    }

    #[test]
    fn a_cancelled_command_is_new_again_but_an_answered_one_is_not() {
        let (now, mut repeats) = (start(), repeats(BUDGET));
        assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::First);
        repeats.cancel(from(1), b"c1");
        assert!(repeats.is_empty());
        run(&mut repeats, now, 1, "c1");
        repeats.cancel(from(1), b"c1");
        assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::Again(b"c1 0\n"));
    }

    #[test]
    fn a_command_that_was_lost_in_flight_is_forgotten() {
        let (now, mut repeats) = (start(), repeats(BUDGET));
        assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::First);
        assert_eq!(repeats.begin(now + FLIGHT_MAX, from(1), b"c1"), Seen::InFlight);
        assert_eq!(repeats.begin(now + FLIGHT_MAX * 2, from(1), b"c1"), Seen::First);
        repeats.done(now, from(9), b"unheard of", b"0\n");
        assert_eq!(repeats.len(), 1);
    }

    #[test]
    fn old_replies_go_without_being_asked_for() {
        let (now, mut repeats) = (start(), repeats(BUDGET));
        for n in 0..100 {
            run(&mut repeats, now, n % 7, &format!("a{n}"));
        }
        // As many commands as there were clear all of them away, and then themselves remain.
        let later = now + KEEP * 2;
        for n in 0..100 {
            run(&mut repeats, later, 1, &format!("b{n}"));
        }
        assert_eq!(repeats.len(), 100);
        repeats.clear_old(later + KEEP * 2, usize::MAX);
        assert!(repeats.is_empty());
        assert_eq!(repeats.held(), 0);
        assert!(repeats.sources.is_empty());
    }

    #[test]
    fn one_sender_alone_gets_half_and_loses_its_oldest() {
        let (now, budget) = (start(), 1_000 * OVERHEAD);
        let mut repeats = repeats(budget);
        for n in 0..10_000 {
            run(&mut repeats, now, 1, &format!("{n:08}"));
            assert!(repeats.held() <= budget / 2, "{}", repeats.held());
        }
        let kept = repeats.len();
        assert!(kept > 400, "{kept}");
        for n in 0..10_000 {
            assert_eq!(
                is_kept(&mut repeats, 1, &format!("{n:08}")),
                n >= 10_000 - kept,
                "{n}"
            );
        }
    }

    #[test]
    fn a_flood_from_one_sender_costs_another_nothing() {
        let (mut now, mut repeats) = (start(), repeats(1_000 * OVERHEAD));
        for n in 0..20_000_u32 {
            now += Duration::from_micros(500);
            run(&mut repeats, now, 1, &format!("flood{n}"));
            if n % 100 == 0 {
                run(&mut repeats, now, 2, &format!("call{}", n / 100));
            }
        }
        // 20 commands a second, for all of 10 s.
        for n in 0..200 {
            let call = format!("call{n}");
            assert_eq!(
                repeats.begin(now, from(2), call.as_bytes()),
                Seen::Again(format!("{call} 0\n").as_bytes())
            );
        }
    }

    #[test]
    fn a_flood_that_is_never_answered_costs_another_nothing() {
        let (mut now, mut repeats) = (start(), repeats(1_000 * OVERHEAD));
        for n in 0..20_000 {
            now += Duration::from_millis(1);
            assert_eq!(
                repeats.begin(now, from(1), format!("flood{n}").as_bytes()),
                Seen::First
            );
        }
        for n in 0..100 {
            run(&mut repeats, now, 2, &format!("call{n}"));
        }
        for n in 0..100 {
            assert!(is_kept(&mut repeats, 2, &format!("call{n}")), "{n}");
        }
    }

    /// New commands of one sender that are taken at this moment, answered or not.
    fn begun(repeats: &mut Repeats<std::hash::RandomState>, now: Instant, name: &str) -> usize {
        (0..=IN_FLIGHT_OF_ONE)
            .take_while(|n| repeats.begin(now, from(1), format!("{name}{n}").as_bytes()) == Seen::First)
            .count()
    }

    #[test]
    fn a_sender_with_too_many_young_ones_goes_on_when_one_is_answered_or_given_up_or_old() {
        let mut repeats = repeats(BUDGET);
        let now = repeats.epoch;
        assert_eq!(begun(&mut repeats, now, "a"), YOUNG_OF_ONE);
        assert!(!repeats.may_begin(now, from(1)));
        assert_eq!(
            repeats.begin(now, from(1), b"a7"),
            Seen::InFlight,
            "a repeat is no command"
        );
        assert_eq!(repeats.begin(now, from(2), b"a7"), Seen::First);
        repeats.done(now, from(1), b"a0", b"0\n");
        repeats.cancel(from(1), b"a1");
        assert_eq!(begun(&mut repeats, now, "b"), 2);
        let next = now + GENERATION;
        assert_eq!(begun(&mut repeats, next, "c"), 0);
        repeats.done(next, from(1), b"a2", b"0\n");
        assert_eq!(begun(&mut repeats, next, "d"), 1);
        // In the generation after next all but one are old, and their answers make nobody young.
        let later = next + GENERATION;
        assert_eq!(begun(&mut repeats, later, "e"), YOUNG_OF_ONE - 1);
        repeats.done(later, from(1), b"a3", b"0\n");
        assert_eq!(begun(&mut repeats, later, "f"), 0);
    }

    #[test]
    fn a_sender_whose_commands_stay_unanswered_stops_at_the_bound() {
        let mut repeats = repeats(BUDGET);
        let mut now = repeats.epoch;
        let mut all = 0;
        for turn in 0..100 {
            all += begun(&mut repeats, now, &format!("{turn}-"));
            now += GENERATION * 2;
        }
        assert_eq!(all, IN_FLIGHT_OF_ONE);
    }

    #[test]
    fn greedy_senders_end_with_equal_parts() {
        let (now, mut repeats, mut rng) = (start(), repeats(4_000 * OVERHEAD), Rng::from_seed(1));
        for n in 0..40_000 {
            run(
                &mut repeats,
                now,
                u16::try_from(rng.below(3)).unwrap(),
                &format!("{n:08}"),
            );
        }
        for port in 0..3 {
            let held = repeats.sources[&from(port)].held / OVERHEAD;
            assert!((970..=1_030).contains(&held), "{port}: {held}");
        }
    }

    #[test]
    fn senders_beyond_their_bound_are_served_and_not_kept() {
        let (now, mut repeats) = (start(), repeats(BUDGET));
        let sender = |n: usize| SocketAddr::from((Ipv4Addr::from_bits(u32::try_from(n).unwrap()), 5060));
        for n in 0..SOURCES_MAX {
            assert_eq!(repeats.begin(now, sender(n), b"c"), Seen::First);
        }
        for _ in 0..2 {
            assert_eq!(repeats.begin(now, sender(SOURCES_MAX), b"c"), Seen::First);
        }
        repeats.done(now, sender(SOURCES_MAX), b"c", b"c 0\n");
        assert_eq!(repeats.len(), SOURCES_MAX);
        assert_eq!(repeats.begin(now, sender(0), b"c"), Seen::InFlight);
    }

    #[test]
    fn a_reply_that_finds_no_room_is_not_kept() {
        let (now, mut repeats) = (start(), repeats(1_000));
        assert_eq!(repeats.begin(now, from(1), b"c1"), Seen::First);
        repeats.done(now, from(1), b"c1", &[b'x'; 2_000]);
        assert!(repeats.is_empty());
        assert_eq!(repeats.held(), 0);
        // Nor is a command, where there is room for none.
        let mut none = super::tests::repeats(0);
        assert_eq!(none.begin(now, from(1), b"c1"), Seen::First);
        assert_eq!(none.begin(now, from(1), b"c1"), Seen::First);
        none.clear_old(now, 5);
    }

    #[test]
    fn a_slot_is_no_larger_than_it_is_counted_for() {
        // The slot, its place in an index that is half full, its place in the free list, two heads of blocks.
        assert!(size_of::<Option<Kept>>() + 2 * 17 + 4 + 2 * 8 <= OVERHEAD);
    }

    proptest! {
        /// Whatever comes in whatever order: no command runs twice while it is kept, the sums are right, and the
        /// budget holds.
        #[test]
        fn the_books_balance(deeds in proptest::collection::vec((0..5_u8, 0..4_u16, 0..30_u8, 0..400_usize), 1..300)) {
            let budget = 4_000;
            let (mut now, mut repeats) = (start(), repeats(budget));
            let mut in_flight = HashSet::new();
            for (deed, port, cookie, size) in deeds {
                let key = (port, cookie);
                match deed {
                    0 | 1 => {
                        let was_kept = {
                            let hash = repeats.key.hash_one((from(port), &[cookie][..]));
                            repeats.find(hash, from(port), &[cookie]).is_some_and(|at| !repeats.slot(at).unwrap().is_old(now))
                        };
                        let seen = repeats.begin(now, from(port), &[cookie]);
                        prop_assert_eq!(seen == Seen::First, !was_kept);
                        if seen == Seen::InFlight {
                            prop_assert!(in_flight.contains(&key));
                        }
                        if seen == Seen::First {
                            in_flight.insert(key);
                        }
                    }
                    2 => {
                        repeats.done(now, from(port), &[cookie], &vec![cookie; size]);
                        in_flight.remove(&key);
                    }
                    3 => {
                        repeats.cancel(from(port), &[cookie]);
                        in_flight.remove(&key);
                    }
                    _ => now += Duration::from_millis(u64::try_from(size).unwrap() * 10),
                }
                let kept: Vec<&Kept> = repeats.slots.iter().flatten().collect();
                prop_assert_eq!(repeats.held, kept.iter().map(|kept| kept.cost()).sum::<usize>());
                prop_assert!(repeats.held <= budget);
                prop_assert_eq!(repeats.len(), kept.len());
                prop_assert_eq!(repeats.sources.values().map(|source| source.commands).sum::<usize>(), kept.len());
                for (address, source) in &repeats.sources {
                    let mut answered = Vec::new();
                    let mut next = source.oldest;
                    while let Some(at) = next {
                        let kept = repeats.slot(at).unwrap();
                        prop_assert!(kept.from == *address && kept.reply.is_some() && kept.older == answered.last().copied());
                        answered.push(at);
                        next = kept.newer;
                    }
                    prop_assert_eq!(source.newest, answered.last().copied());
                    let own = kept.iter().filter(|kept| kept.from == *address);
                    prop_assert_eq!(own.clone().filter(|kept| kept.reply.is_some()).count(), answered.len());
                    prop_assert_eq!(own.clone().count() - answered.len(), source.in_flight);
                    let waiting = own.filter(|kept| kept.reply.is_none());
                    let young = |age: u128| {
                        waiting.clone().filter(|kept| repeats.generation(kept.at) + age == source.generation).count()
                    };
                    prop_assert_eq!([young(0), young(1)], source.young);
                }
            }
        }
    }
}
