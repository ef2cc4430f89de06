//! What is shown of a cluster: plain values, at one moment. Pure.

use core::time::Duration;

use crate::config::model;

/// A member at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    /// Its definition as it runs now (`status` may be `Draining`).
    pub member: model::Member,
    /// Whether it answers probes.
    pub online: bool,
    /// Why it is in that state and since how long: `2 probes unanswered`, `refused`, `not probed yet`.
    pub why: String,
    /// What the system said of the last failure where `why` alone does not tell enough: the words of the resolver, of
    /// connect(2) or of a socket; `None` while there is no such thing.
    pub said: Option<String>,
    /// How long until what failed is tried again; `None` while nothing has to be.
    pub next_try: Option<Duration>,
    /// What it said that it cannot do, in our words (`session counts`, `notifications`); `None` before it was asked.
    pub lacks: Option<Vec<&'static str>>,
    /// Time since the last change between online and offline.
    pub since: Duration,
    /// Its own count at the newest heartbeat; `None` before the first and while offline.
    pub active_sessions: Option<u64>,
    /// Call-ids bound to it here.
    pub bound: u64,
    /// Smoothed round trip, `None` before the first measured exchange.
    pub delay: Option<Duration>,
    /// Deletes that wait for its return.
    pub deferred_deletes: u64,
    /// Commands in flight to it.
    pub in_flight: u64,
    /// Counters since start; the names are those of [`MEMBER_COUNTERS`], in its order.
    pub counters: [u64; MEMBER_COUNTERS.len()],
    /// Upper bounds are [`DELAY_BUCKETS`], one more for the rest; each counts alone (not cumulated).
    pub delay_histogram: [u64; DELAY_BUCKETS.len() + 1],
    /// Sum of all measured delays.
    pub delay_sum: Duration,
}

/// Names and meanings of the counters of a member.
pub const MEMBER_COUNTERS: &[(&str, &str)] = &[
    ("commands", "commands sent, first transmissions only"),
    ("retransmissions", "datagrams sent again"),
    ("replies", "replies taken"),
    ("errors", "replies that were errors"),
    ("timeouts", "commands that were not answered in time"),
    ("refused", "commands that the member's socket refused"),
    ("late_replies", "replies that came after their command was over"),
    (
        "spoofed_replies",
        "replies with an unknown cookie or from a wrong address",
    ),
    ("garbage_replies", "replies that could not be one"),
    ("sessions", "call-ids bound to it"),
    (
        "undone",
        "sessions deleted there because another member was faster",
    ),
    ("probes", "health probes sent"),
    ("probes_failed", "health probes unanswered or refused"),
    ("went_offline", "changes from online to offline"),
    ("went_online", "changes from offline to online"),
];

/// Upper bounds of the delay histogram, in microseconds.
pub const DELAY_BUCKETS: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    3_000_000,
];

/// A cluster at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterView {
    /// Its definition as it runs now; the members in `members` below, not in it.
    pub cluster: model::Cluster,
    /// Whether it is being deleted: it takes no new sessions and closes when it has none.
    pub draining: bool,
    /// In the order of the configuration, then of their addition.
    pub members: Vec<MemberView>,
    /// Bound call-ids.
    pub bound: u64,
    /// Commands waiting for a member.
    pub in_flight: u64,
    /// Clients connected.
    pub clients: u64,
    /// Counters since start; the names are those of [`CLUSTER_COUNTERS`], in its order.
    pub counters: [u64; CLUSTER_COUNTERS.len()],
    /// Commands by letter: (letter, answered positively, answered with an error, answered by us with E99x).
    pub commands: Vec<(char, u64, u64, u64)>,
}

/// What `ls` says of a cluster: little enough to be counted while calls wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its definition, less its members.
    pub cluster: model::Cluster,
    /// Whether it is being deleted.
    pub draining: bool,
    /// Members that are online.
    pub active: usize,
    /// Members that are not.
    pub inactive: usize,
    /// Bound call-ids.
    pub bound: u64,
    /// Commands waiting for a member.
    pub in_flight: u64,
    /// Clients connected.
    pub clients: u64,
}

/// Names and meanings of the counters of a cluster.
pub const CLUSTER_COUNTERS: &[(&str, &str)] = &[
    ("commands", "commands accepted from SIP servers"),
    ("refused_commands", "commands refused for their syntax"),
    (
        "repeated",
        "repeated datagrams answered from the cache or joined to the command in flight",
    ),
    ("failovers", "new sessions that went to a further member"),
    ("asked_all", "commands for which every member was asked"),
    ("sessions_bound", "call-ids bound"),
    ("sessions_expired", "bindings that aged out"),
    (
        "sessions_unbound",
        "new sessions served without a binding because the table was full",
    ),
    ("clients_accepted", "connections accepted"),
    (
        "clients_slow",
        "connections put aside because their command was not whole",
    ),
    (
        "clients_closed",
        "connections closed for slowness, length or a full buffer",
    ),
    ("notifications", "disconnect notifications relayed"),
    (
        "notifications_dropped",
        "disconnect notifications that could not be delivered",
    ),
];

/// Bound call-ids, counted and listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsView {
    /// Bound call-ids in all.
    pub bound: u64,
    /// Some of them, up to the limit that was asked for.
    pub listed: Vec<Listed>,
    /// Where in the table the next ones are; `None` after the last.
    pub next: Option<usize>,
}

/// One of them: call-id, member, time since its last command, whether it was deleted and is only remembered for the
/// other leg.
pub type Listed = (Vec<u8>, model::Name, Duration, bool);
