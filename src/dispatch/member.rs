//! A member of a cluster as the dispatcher knows it: its definition, whether it is online, its load, its delay,
//! what it can do, and the deletes that wait for it. Pure.

use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant;

use super::Throttle;
use super::choose::Candidate;
use super::delay::Delay;
use super::load::Load;
use super::rewrite::Notifier;
use super::session::{MemberId, Tick};
use crate::config::model::{self, Status};
use crate::dispatch::counters::{Count, MEMBER_COUNTERS};
use crate::protocol::reply::Statistics;

/// Deletes that wait for one member at most. Each is a call that ended while the member was away: at 100 calls
/// a second, more than a minute and a half of them, after which the sessions time out by themselves.
pub const DEFERRED_MAX: usize = 10_000;
/// How long a delete waits. RTPproxy forgets a session without media after 60 s unless told otherwise (`-T`);
/// ten minutes leave room for the larger values in use.
pub const DEFERRED_FOR: Duration = Duration::from_secs(600);
/// Sets of statistic names remembered for a member that falls silent.
const STATISTICS_MAX: usize = 16;
/// Capabilities remembered; RTPproxy has some twenty.
const CAPABILITIES_MAX: usize = 64;

/// Capabilities that are missed when they are not there, and what they are for.
const WORTH_SAYING: &[(u64, &str)] = &[
    (20_050_322, "streams"),
    (20_071_218, "copies"),
    (20_080_403, "statistics"),
    (20_081_102, "codecs"),
    (20_081_224, "notifications"),
    (20_150_617, "notifications"),
    (20_090_810, "bridging"),
    (20_140_323, "load"),
];

/// A delete that waits for its member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// After this moment nothing is left to delete.
    pub expires: Instant,
    /// The command.
    pub text: Box<[u8]>,
}

/// Sessions that a member has made since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Created {
    /// How many.
    pub(super) count: u64,
    /// When it said so first.
    pub(super) at: Tick,
    /// Whether it said so to a predecessor, and nothing yet to us.
    pub(super) of_predecessor: bool,
}

/// One RTPproxy.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Member<L> {
    /// Its place in the cluster, and which of those that have had it.
    pub id: MemberId,
    /// Whether it is in the cluster; a free place is kept for the next one.
    pub present: bool,
    /// Rank in listings: order of the configuration, then of addition.
    pub order: u64,
    /// Its definition.
    pub config: model::Member,
    /// Its link.
    pub link: L,
    /// Whether it answers probes.
    pub online: bool,
    /// Whether the first round of probes is over, with whatever result.
    pub probed: bool,
    /// Why it is in that state.
    pub why: String,
    /// When it is tried again, if it was not online when that was said.
    pub next_try: Option<Instant>,
    /// When it came to that state.
    pub since: Instant,
    /// Its delay.
    pub delay: Delay,
    /// Its newest heartbeat and what has been bound to it since; kept while it is offline.
    pub load: Load,
    /// Calls bound to it when a member was last chosen: its load, while nothing else is known.
    pub bound: u64,
    /// Share of its weight that it gets while it comes back slowly, above 0 to 1.
    pub share: f64,
    /// What it said to `VF`.
    capabilities: Vec<(u64, bool)>,
    /// What it last said to `G`, by the names asked for.
    statistics: VecDeque<(Box<[u8]>, Statistics)>,
    /// Whether a command has gone unanswered for as long as one may take, and nothing has been answered since.
    pub suspect: bool,
    /// Deletes that wait for its return.
    pub deferred: VecDeque<Deferred>,
    /// Those that were dropped for want of room.
    pub(super) deletes_dropped: Throttle,
    /// Whether it missed an `X`.
    pub owes_delete_all: bool,
    /// What it last said of the sessions that it has made since its start.
    pub(super) created: Option<Created>,
    /// Commands in flight to it.
    pub in_flight: u32,
    /// Garbage replies since the last note.
    pub garbage: u64,
    /// When the last note on garbage was made.
    pub garbage_told: Option<Instant>,
    counters: [u64; MEMBER_COUNTERS.len()],
}

impl<L> Member<L> {
    /// A member that has not been probed yet.
    pub fn new(id: MemberId, order: u64, config: model::Member, link: L, now: Instant) -> Self {
        Self {
            id,
            present: true,
            order,
            config,
            link,
            online: false,
            probed: false,
            why: "not probed yet".to_owned(),
            next_try: None,
            since: now,
            delay: Delay::default(),
            load: Load::default(),
            bound: 0,
            share: 1.0,
            capabilities: Vec::new(),
            statistics: VecDeque::new(),
            suspect: false,
            deferred: VecDeque::new(),
            deletes_dropped: Throttle::default(),
            owes_delete_all: false,
            created: None,
            in_flight: 0,
            garbage: 0,
            garbage_told: None,
            counters: [0; MEMBER_COUNTERS.len()],
        }
    }

    /// Whether new sessions may go to it.
    pub fn takes_sessions(&self) -> bool {
        self.present && self.online && self.config.status == Status::Active
    }

    /// Whether commands may go to it.
    pub fn serves(&self) -> bool {
        self.present && self.online
    }

    /// Counts one more `what`.
    pub fn count(&mut self, what: Count) {
        self.count_many(what, 1);
    }

    /// Counts `n` more `what`.
    pub fn count_many(&mut self, what: Count, n: u64) {
        if let Some(counter) = self.counters.get_mut(what as usize) {
            *counter = counter.saturating_add(n);
        }
    }

    /// All counters, in the order of [`MEMBER_COUNTERS`].
    pub fn counters(&self) -> &[u64; MEMBER_COUNTERS.len()] {
        &self.counters
    }

    /// A session is bound to it from now on.
    pub fn took_session(&mut self, now: Instant) {
        self.load.bind(now);
        self.count(Count::Sessions);
    }

    /// What it said to `VF n`, if it has been asked since it came back.
    pub fn capability(&self, number: u64) -> Option<bool> {
        self.capabilities
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, has)| *has)
    }

    /// Remembers what it said to `VF n`.
    pub fn set_capability(&mut self, number: u64, has: bool) {
        if let Some(known) = self.capabilities.iter_mut().find(|(n, _)| *n == number) {
            known.1 = has;
        } else if self.capabilities.len() < CAPABILITIES_MAX {
            self.capabilities.push((number, has));
        }
    }

    /// What it said that it cannot do, in words for people; `None` before it has said anything.
    pub fn lacks(&self) -> Option<Vec<&'static str>> {
        if self.capabilities.is_empty() && !self.load.is_known() {
            return None;
        }
        let is_uncounted = self.load.is_known() && self.load.counts().is_none();
        let mut lacks: Vec<_> = is_uncounted.then_some("session counts").into_iter().collect();
        for (number, what) in WORTH_SAYING {
            if self.capability(*number) == Some(false) && !lacks.contains(what) {
                lacks.push(what);
            }
        }
        Some(lacks)
    }

    /// What decides whether it can deliver a notification.
    pub fn notifier(&self) -> Notifier {
        let protocol = self.config.protocol;
        Notifier {
            local: protocol.is_local(),
            ipv4: !protocol.is_local() && !protocol.is_v6(),
            sends: self.capability(20_081_224),
            knows_self: self.capability(20_150_617),
        }
    }

    /// Remembers what it said to a `G` for `names`.
    pub fn set_statistics(&mut self, names: &[u8], statistics: Statistics) {
        self.statistics.retain(|(known, _)| **known != *names);
        if self.statistics.len() >= STATISTICS_MAX {
            self.statistics.pop_front();
        }
        self.statistics.push_back((names.into(), statistics));
    }

    /// What it last said to a `G` for `names`.
    pub fn statistics(&self, names: &[u8]) -> Option<&Statistics> {
        self.statistics
            .iter()
            .find(|(known, _)| **known == *names)
            .map(|(_, statistics)| statistics)
    }

    /// Keeps a delete until the member is back. Says whether the oldest one had to go for it.
    pub fn defer(&mut self, now: Instant, text: &[u8]) -> bool {
        while self.deferred.front().is_some_and(|first| first.expires <= now) {
            self.deferred.pop_front();
        }
        let full = self.deferred.len() >= DEFERRED_MAX;
        if full {
            self.deferred.pop_front();
        }
        self.deferred.push_back(Deferred {
            expires: now + DEFERRED_FOR,
            text: text.into(),
        });
        full
    }

    /// The next delete that still makes sense.
    pub fn next_deferred(&mut self, now: Instant) -> Option<Box<[u8]>> {
        while let Some(first) = self.deferred.pop_front() {
            if first.expires > now {
                return Some(first.text);
            }
        }
        None
    }
}

impl<L> Candidate for Member<L> {
    fn name(&self) -> &str {
        self.config.name.as_str()
    }

    fn weight(&self) -> u16 {
        self.config.weight
    }

    fn capacity(&self) -> u32 {
        self.config.capacity
    }

    fn sessions(&self) -> u64 {
        self.load.sessions(self.bound)
    }

    fn share(&self) -> f64 {
        self.share
    }
}
