//! What the admin interface is shown and what it may ask for: plain values and one trait. Pure: the server
//! implements [`Operator`], the tests of this room a fake of it.

use core::net::IpAddr;
use core::time::Duration;
use std::path::PathBuf;

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
    /// Up to the limit that was asked for.
    pub listed: Vec<Listed>,
}

/// One of them: call-id, member, time since its last command, whether it was deleted and is only remembered for the
/// other leg.
pub type Listed = (Vec<u8>, model::Name, Duration, bool);

/// One key of `modify C set NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// 0 to 65535.
    Weight(u16),
    /// At least 1.
    Capacity(u32),
    /// `None` takes it away.
    WanAddress(Option<IpAddr>),
    /// `None` takes it away.
    LanAddress(Option<IpAddr>),
    /// `None` takes it away.
    CmdOutAddress(Option<IpAddr>),
    /// Only while nothing is bound; the two are checked together.
    Protocol(model::Protocol),
    /// Only while nothing is bound; text as written, read with the protocol that holds after the change.
    Address(String),
}

/// Why the server would not do it; the text that follows `ERROR: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `NAME: cluster not found`
    NoCluster(String),
    /// `NAME: RTPproxy not found`
    NoMember(String),
    /// `NAME: RTPproxy already exists`
    MemberExists(String),
    /// `NAME: cluster already exists`, also while it is being deleted
    ClusterExists(String),
    /// Anything else: one line that says what would be right.
    Other(String),
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoCluster(name) => write!(f, "{name}: cluster not found"),
            Self::NoMember(name) => write!(f, "{name}: RTPproxy not found"),
            Self::MemberExists(name) => write!(f, "{name}: RTPproxy already exists"),
            Self::ClusterExists(name) => write!(f, "{name}: cluster already exists"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What a reload found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Clusters in the file.
    pub clusters: usize,
    /// Members in the file.
    pub members: usize,
}

/// The server as an operator sees it. Each call happens wholly or not at all; calls come one after another from
/// the admin thread, but may come at any moment of any state.
#[expect(
    clippy::missing_errors_doc,
    reason = "every refusal is a `Refusal`, described there"
)]
pub trait Operator: Send + Sync {
    /// All clusters, counted.
    fn summaries(&self) -> Vec<Summary>;
    /// All clusters with their members, a consistent snapshot of each cluster.
    fn clusters(&self) -> Vec<ClusterView>;
    /// One cluster with its members, and its number: its place among all.
    fn cluster(&self, name: &str) -> Result<(usize, ClusterView), Refusal>;
    /// Whether a member is online.
    fn is_online(&self, cluster: &str, name: &str) -> Result<bool, Refusal>;
    /// Time since the daemon started.
    fn uptime(&self) -> Duration;
    /// A new member, probed at once.
    fn add_member(&self, cluster: &str, member: model::Member) -> Result<(), Refusal>;
    /// Drains a member, or takes it out `now`.
    fn delete_member(&self, cluster: &str, name: &str, now: bool) -> Result<(), Refusal>;
    /// No new sessions.
    fn suspend(&self, cluster: &str, name: &str) -> Result<(), Refusal>;
    /// Back to ACTIVE.
    fn resume(&self, cluster: &str, name: &str) -> Result<(), Refusal>;
    /// Changes a member in place, all settings or none.
    fn set(&self, cluster: &str, name: &str, settings: &[Setting]) -> Result<(), Refusal>;
    /// A new cluster with its own socket and thread.
    fn add_cluster(&self, cluster: model::Cluster) -> Result<(), Refusal>;
    /// Drains and closes a cluster, or closes it `now`.
    fn delete_cluster(&self, name: &str, now: bool) -> Result<(), Refusal>;
    /// Bound call-ids of a cluster or of one member.
    fn sessions(&self, cluster: &str, member: Option<&str>, limit: usize) -> Result<SessionsView, Refusal>;
    /// The member that serves a call, the age of its last command.
    fn locate(&self, cluster: &str, call_id: &[u8]) -> Result<Option<(model::Name, Duration)>, Refusal>;
    /// Reads the configuration file again and applies the difference. `Refusal::Other` may hold several lines,
    /// one a fault.
    fn reload(&self) -> Result<Loaded, Refusal>;
    /// The running configuration as a file would say it (DRAINING members left out).
    fn running(&self) -> model::Config;
    /// The configuration file that `reload` reads and `save` writes, and what it held when it was last read.
    fn file(&self) -> (PathBuf, Vec<u8>);
    /// Told by `save` when it has written the file: what it holds now.
    fn saved(&self, contents: Vec<u8>);
}
