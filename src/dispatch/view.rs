//! What is shown of a cluster: plain values, at one moment. Pure.

use core::time::Duration;

pub use super::counters::{CLUSTER_COUNTERS, MEMBER_COUNTERS};
use super::histogram::Histogram;
use crate::config::model;

/// A member at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    /// Its definition as it runs now (`status` may be `Draining`).
    pub member: model::Member,
    /// Whether it answers probes.
    pub online: bool,
    /// Why it is in that state, with the words of the resolver, of the system or of whoever answers at its address:
    /// `2 probes unanswered`, `refused`, `not probed yet`.
    pub why: String,
    /// How long until it is tried again; `None` while nothing has to be, or it is being tried.
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
    /// All measured delays.
    pub times: Histogram,
}

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
    /// From a command to its reply, of all.
    pub times: Histogram,
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
