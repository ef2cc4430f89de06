//! Accepts the connections of a control socket, as many as may be open, and pauses when there are too many or the
//! system has no descriptors left: those who come meanwhile wait in the kernel.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::connections::{CONNECTIONS_MAX, Place};
use crate::cluster::Cluster;
use crate::rim::now;

/// Connections accepted in a row before those that are waiting to be read get their turn.
pub(super) const ACCEPT_BATCH: usize = 64;
/// How long accepting pauses.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// Between two warnings of that.
pub(super) const WARN_EVERY: Duration = Duration::from_secs(60);

/// A listener.
#[derive(Debug)]
pub(super) struct Gate {
    listener: OwnedFd,
    paused_until: Option<Instant>,
    warned: Option<Instant>,
}

impl Gate {
    pub(super) fn new(listener: OwnedFd) -> Self {
        Self {
            listener,
            paused_until: None,
            warned: None,
        }
    }

    /// What poll(2) is to watch: nothing but errors while accepting pauses.
    pub(super) fn watch(&self) -> PollFd<'_> {
        let accepting = self.paused_until.is_none();
        let events = if accepting {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        PollFd::new(&self.listener, events)
    }

    /// When accepting goes on.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Ends a pause whose time is over.
    pub(super) fn resume(&mut self, now: Instant) {
        self.paused_until = self.paused_until.filter(|until| *until > now);
    }

    /// The next of those who wait.
    pub(super) fn accept(&mut self, cluster: &Cluster) -> Option<(OwnedFd, Place)> {
        if cluster.connections.count() >= CONNECTIONS_MAX {
            self.pause(
                cluster,
                &io::Error::new(io::ErrorKind::QuotaExceeded, "as many connections as allowed"),
            );
            return None;
        }
        loop {
            match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(stream) => {
                    cluster.front.accepted.fetch_add(1, Ordering::Relaxed);
                    return Some((stream, cluster.connections.enter()));
                }
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    self.pause(cluster, &error.into());
                    return None;
                }
            }
        }
    }

    /// Stops accepting for a moment.
    fn pause(&mut self, cluster: &Cluster, error: &io::Error) {
        let now = now();
        self.paused_until = Some(now + PAUSE);
        if self.warned.is_none_or(|warned| now >= warned + WARN_EVERY) {
            self.warned = Some(now);
            log::warn!("cluster {}: accepting pauses: {error}", cluster.name);
        }
    }
}
