//! What a line asks for, as a value: a command with its arguments, each checked as far as it can be without the server.
//! Pure.

use core::time::Duration;
use std::path::PathBuf;

use super::commands::Entry;
use super::select::Selection;
use crate::config::{Setting, model};

/// `key=value` pairs in one command. Three times what a member has.
pub const PAIRS_MAX: usize = 32;
/// Call-ids that `sessions` lists when it is not told how many.
pub const SESSIONS_LISTED: usize = 100;
/// Call-ids that `sessions` lists at most.
pub const SESSIONS_LISTED_MAX: usize = 100_000;
/// Longest `wait`, and how long it takes without `-t`: a drain may last as long as the longest call.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A command with its arguments, each checked as far as it can be without the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// All clusters, or one by name.
    Ls {
        /// By name; `None` is the list of all.
        cluster: Option<String>,
        /// How much, and how.
        form: ListForm,
        /// Which members of the cluster.
        selection: Selection,
    },
    /// A new member.
    Add {
        /// Of this cluster.
        cluster: String,
        /// With this definition.
        member: model::Member,
    },
    /// A member leaves.
    Delete {
        /// Of this cluster.
        cluster: String,
        /// By name.
        name: String,
        /// Without waiting for its sessions.
        now: bool,
    },
    /// A member gets no new sessions.
    Suspend {
        /// Of this cluster.
        cluster: String,
        /// By name.
        name: String,
    },
    /// A member is ACTIVE again.
    Resume {
        /// Of this cluster.
        cluster: String,
        /// By name.
        name: String,
    },
    /// A member is changed in place.
    Set {
        /// Of this cluster.
        cluster: String,
        /// By name.
        name: String,
        /// At least one, each key once.
        settings: Vec<Setting>,
    },
    /// A new cluster.
    ClusterAdd(Box<model::Cluster>),
    /// A cluster closes.
    ClusterDelete {
        /// By name.
        name: String,
        /// Without waiting for its sessions.
        now: bool,
    },
    /// Bound call-ids.
    Sessions {
        /// Of this cluster.
        cluster: String,
        /// Of this member alone.
        member: Option<String>,
        /// How many are listed, at most [`SESSIONS_LISTED_MAX`].
        limit: usize,
        /// As one document.
        json: bool,
    },
    /// Who serves a call.
    Locate {
        /// In this cluster.
        cluster: String,
        /// As typed.
        call_id: String,
        /// As one document.
        json: bool,
    },
    /// The file is read again.
    Reload,
    /// A file is checked.
    Check(PathBuf),
    /// What runs is compared with the file.
    Diff {
        /// As one document.
        json: bool,
    },
    /// What runs is written.
    Save {
        /// Another file than the one that was read.
        file: Option<PathBuf>,
        /// Whatever the file holds now.
        force: bool,
    },
    /// Answered when it is so.
    Wait(Wait),
    /// Counters.
    Stats {
        /// Of this cluster alone.
        cluster: Option<String>,
        /// How.
        form: StatsForm,
    },
    /// What happens, as it happens.
    Watch {
        /// A document a line.
        json: bool,
    },
    /// What happens to calls, as it happens.
    Trace(Trace),
    /// What happened to calls that came out badly.
    TraceLast {
        /// In this cluster.
        cluster: String,
        /// A document a line.
        json: bool,
        /// How many lines at most, the newest.
        lines: u64,
    },
    /// Of the daemon.
    Version,
    /// These rows of the table.
    Help(Vec<&'static Entry>),
    /// The connection closes.
    Quit,
}

/// How `ls` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListForm {
    /// The listing that scripts read since the first version.
    Plain,
    /// With further lines.
    Verbose,
    /// All there is.
    Json,
}

/// How `stats` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsForm {
    /// For people.
    Plain,
    /// For programs.
    Json,
    /// For a scrape.
    Prometheus,
}

/// What a `wait` waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Of this cluster.
    pub cluster: String,
    /// Member by name.
    pub name: String,
    /// This state.
    pub until: Until,
    /// How long, at most [`WAIT_MAX`].
    pub limit: Duration,
}

/// What a `trace` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// In this cluster.
    pub cluster: String,
    /// Of these.
    pub calls: TracedCalls,
    /// How long, at most [`WAIT_MAX`].
    pub limit: Duration,
    /// How many lines at most.
    pub lines: u64,
    /// A document a line.
    pub json: bool,
}

/// Whose steps are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TracedCalls {
    /// Of this call-id, as typed.
    One(String),
    /// Of every call.
    All,
}

/// A state to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It answers probes.
    Online,
    /// It does not.
    Offline,
    /// It is no longer in the cluster.
    Gone,
}

impl Until {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Gone => "gone",
        }
    }
}
