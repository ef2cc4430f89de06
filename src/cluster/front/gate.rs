//! Accepts the connections of a control socket, as many as may be open, and pauses when there are too many or the system
//! has no descriptors left: those who come meanwhile wait in the kernel.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{Resource, getrlimit};

use super::door::Door;
use super::{Here, Next};
use crate::client::Place;
use crate::rim::throttle::Throttle;

/// Connections to one control socket at most.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Descriptors that clients leave to administrators, members and the log. The system gives the lowest that is free, so
/// one so close to the limit says that few are left.
const KEPT_BACK: u64 = 24;
/// How long accepting pauses before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener.
#[derive(Debug)]
pub(super) struct Gate {
    door: Door,
    /// Whether somebody may be waiting.
    knocked: bool,
    /// Until when accepting pauses.
    pause: Option<Instant>,
    warned: Throttle,
}

impl Gate {
    pub(super) fn new(door: Door) -> Self {
        Self {
            door,
            knocked: true,
            pause: None,
            warned: Throttle::default(),
        }
    }

    /// Whether connections carry more than one command.
    pub(super) fn keeps(&self) -> bool {
        self.door.keeps
    }

    /// What it listens on.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    pub(super) fn knock(&mut self) {
        self.knocked = true;
    }

    pub(super) fn next(&self) -> Next {
        if self.knocked && self.pause.is_none() {
            Next::More
        } else {
            Next::Wait
        }
    }

    /// When a pause ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pause
    }

    /// Whether accepting goes on after a pause.
    pub(super) fn resumes(&mut self, here: Here<'_>) -> bool {
        if self.pause.is_none_or(|until| until > here.now) {
            return false;
        }
        let open = here.cluster.connections.count();
        // One client is served even where there are few descriptors altogether. Whoever gave one back may have been
        // another cluster's, so that the system is asked.
        if open >= CONNECTIONS_MAX || open > 0 && self.is_short() {
            self.pause = Some(here.now + PAUSE);
            return false;
        }
        self.pause = None;
        self.knocked
    }

    /// Whether the next connection would get one of the last descriptors, or none.
    fn is_short(&self) -> bool {
        rustix::io::fcntl_dupfd_cloexec(&self.door, 0).map_or(true, |next| is_scarce(&next))
    }

    /// The next of those who wait.
    pub(super) fn accept(&mut self, here: Here<'_>) -> Option<(OwnedFd, Place)> {
        if !self.knocked || self.pause.is_some() {
            return None;
        }
        let open = here.cluster.connections.count();
        if open >= CONNECTIONS_MAX {
            self.pause(here, &"as many connections as allowed");
            return None;
        }
        loop {
            match rustix::net::accept_with(&self.door, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(stream) => {
                    here.cluster.front.accepted.fetch_add(1, Ordering::Relaxed);
                    let share = here.cluster.connections.enter();
                    if is_scarce(&stream) {
                        self.pause(here, &"few descriptors are left (LimitNOFILE=, ulimit -n)");
                    }
                    return Some((stream, share));
                }
                Err(Errno::AGAIN) => {
                    self.knocked = false;
                    return None;
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    self.pause(here, &io::Error::from(error));
                    return None;
                }
            }
        }
    }

    /// Stops accepting for a while.
    fn pause(&mut self, here: Here<'_>, why: &dyn core::fmt::Display) {
        self.pause = Some(here.now + PAUSE);
        if self.warned.hit(here.now).is_some() {
            log::warn!("cluster {}: accepting pauses: {why}", here.cluster.name);
        }
    }
}

/// Whether this descriptor is one of the last.
fn is_scarce(stream: &OwnedFd) -> bool {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u64::try_from(stream.as_raw_fd()).is_ok_and(|number| number >= limit.saturating_sub(KEPT_BACK))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::super::bench::Bench;
    use crate::config::model::Protocol;

    #[test]
    fn who_comes_while_nobody_is_told_is_accepted_when_the_socket_closes() {
        let mut bench = Bench::new();
        let path = bench.open_unix(Protocol::Unix);
        bench.turn();
        let _client = UnixStream::connect(path).unwrap();
        bench.at_work.close();
        assert_eq!(bench.cluster.connections.count(), 1);
    }
}
