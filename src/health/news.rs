//! What those that follow an RTPproxy are told of it.

use core::net::SocketAddr;
use core::time::Duration;
use std::time::Instant;

use super::watch::Change;
use crate::protocol::reply::SessionCounts;

/// What the followers of a target are told.
#[derive(Debug, Clone)]
pub enum News {
    /// Its name has these addresses.
    At(Vec<SocketAddr>),
    /// It came online, or went offline for the reason given.
    State {
        /// Which of both.
        online: bool,
        /// Why.
        why: String,
    },
    /// It is offline still, or at its first probe, for this reason.
    Absent(String),
    /// It is not online, and is tried again then.
    TriedAgain(Instant),
    /// It has been restarted and lost what it had at its last good heartbeat, which was then.
    Restarted(Instant),
    /// It said so to `VF n`.
    Capability(u64, bool),
    /// A probe that decides has ended: answered or not.
    Probed(bool),
    /// It was asked then how many sessions it has, and said so, or that it does not count.
    Counted {
        /// When it was asked.
        asked: Instant,
        /// What it said.
        counts: Option<SessionCounts>,
        /// How long it took, where that could be measured.
        delay: Option<Duration>,
    },
}

impl News {
    /// What a change is to the followers; `why` the target is in its state.
    pub fn of(change: &Change, why: String) -> Option<Self> {
        match change {
            Change::None => None,
            Change::Online => Some(Self::State { online: true, why }),
            Change::Offline(_) => Some(Self::State { online: false, why }),
            Change::Absent(_) | Change::Still(_) => Some(Self::Absent(why)),
            Change::Restarted { last_good } => Some(Self::Restarted(*last_good)),
        }
    }
}
