//! What the admin interface may ask of the server: one trait. Pure: the server implements [`Operator`], the tests of
//! this room a fake of it.

use core::time::Duration;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::config::Setting;
use crate::config::model;
use crate::dispatch::event::{Event, Traced};
use crate::dispatch::view::{ClusterView, SessionsView, Summary};
use crate::rim::feed::{Subscription, Wake};

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
    /// Something has come to its end, such as the last member of a cluster that is being deleted.
    fn tidy(&self) {}
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
    /// A part of the bound call-ids of a cluster or of one member: at most `limit` of them, from part `from` of the
    /// table on. The first part is 0; each says where the next one begins.
    fn sessions(
        &self,
        cluster: &str,
        member: Option<&str>,
        from: usize,
        limit: usize,
    ) -> Result<SessionsView, Refusal>;
    /// The member that serves a call, the age of its last command.
    fn locate(&self, cluster: &str, call_id: &[u8]) -> Result<Option<(model::Name, Duration)>, Refusal>;
    /// What happens from now on; `wake` is called when there is news.
    fn watch(&self, wake: Wake) -> Result<Subscription<Event>, Refusal>;
    /// What happens from now on to a call of a cluster, or to all.
    fn trace(
        &self,
        cluster: &str,
        call_id: Option<Vec<u8>>,
        wake: Wake,
    ) -> Result<Subscription<Traced>, Refusal>;
    /// What has happened to the last commands of a cluster that came out badly, oldest first.
    fn traced_last(&self, cluster: &str) -> Result<Vec<Traced>, Refusal>;
    /// Reads the configuration file again and applies the difference. `Refusal::Other` may hold several lines,
    /// one a fault.
    fn reload(&self) -> Result<Loaded, Refusal>;
    /// The running configuration as a file would say it (DRAINING members left out).
    fn running(&self) -> model::Config;
    /// The configuration file that `reload` reads and `save` writes, and what it held when it was last read.
    fn file(&self) -> (PathBuf, Vec<u8>);
    /// Another process asks to take over from the daemon, and goes on over this connection.
    fn take_over(&self, successor: OwnedFd);
    /// Files that the daemon writes itself, which nothing is saved over.
    fn own_files(&self) -> Vec<PathBuf>;
    /// Told by `save` when it has written the file: what it holds now.
    fn saved(&self, contents: Vec<u8>);
}
