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
use super::{BATCH, Here, Next};
use crate::client::Place;
use crate::rim::throttle::Throttle;

/// Connections to one control socket at most.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Descriptors that clients leave to administrators, members and the log. The system gives the lowest that is free, so
/// one so close to the limit says that few are left.
const KEPT_BACK: u64 = 24;
/// How long the limit of descriptors is known: somebody may change it.
const LIMIT_FOR: Duration = Duration::from_millis(100);
/// How long accepting pauses before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener.
#[derive(Debug)]
pub(super) struct Gate {
    door: Door,
    /// Whether somebody may be waiting.
    knocked: bool,
    /// Connections that are accepted in a row next time: one where few come, so that its command waits for no further
    /// look, and twice as many each time that there were more.
    batch: usize,
    /// Descriptors that we may have, and when that was last asked.
    limit: (u64, Option<Instant>),
    /// Until when accepting pauses.
    pause: Option<Instant>,
    warned: Throttle,
}

impl Gate {
    pub(super) fn new(door: Door) -> Self {
        Self {
            door,
            knocked: true,
            batch: 1,
            limit: (u64::MAX, None),
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

    /// How many are accepted before what they want is carried out.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    pub(super) fn next(&mut self) -> Next {
        if self.knocked && self.pause.is_none() {
            self.batch = (self.batch * 2).min(BATCH);
            Next::More
        } else {
            self.batch = 1;
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
        if open >= CONNECTIONS_MAX || open > 0 && self.is_short(here.now) {
            self.pause = Some(here.now + PAUSE);
            return false;
        }
        self.pause = None;
        self.knocked
    }

    /// Whether the next connection would get one of the last descriptors, or none.
    fn is_short(&mut self, now: Instant) -> bool {
        rustix::io::fcntl_dupfd_cloexec(&self.door, 0).map_or(true, |next| self.is_scarce(&next, now))
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
                    if self.is_scarce(&stream, here.now) {
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

    /// Whether this descriptor is one of the last.
    fn is_scarce(&mut self, stream: &OwnedFd, now: Instant) -> bool {
        let (limit, asked) = &mut self.limit;
        if asked.is_none_or(|asked| now >= asked + LIMIT_FOR) {
            *limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            *asked = Some(now);
        }
        u64::try_from(stream.as_raw_fd()).is_ok_and(|number| number >= limit.saturating_sub(KEPT_BACK))
    }

    /// Stops accepting for a while.
    fn pause(&mut self, here: Here<'_>, why: &dyn core::fmt::Display) {
        self.pause = Some(here.now + PAUSE);
        if self.warned.hit(here.now).is_some() {
            log::warn!("cluster {}: accepting pauses: {why}", here.cluster.name);
        }
    }
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
