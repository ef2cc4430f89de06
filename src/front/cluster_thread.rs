//! The cluster thread: accepts, reads, decides, hands over. It waits for clients, never for a member: what a
//! member answers goes to the client from the thread that reads it. And it never waits for one client: who has
//! sent nothing a moment after connecting, or only a part of a command, goes to the slow thread.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags};

use super::client::Client;
use super::connections::{CONNECTIONS_MAX, Place};
use super::slow_thread::{Slow, SlowClients};
use crate::cluster::{Cluster, Out};
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::COMMAND_MAX;
use crate::protocol::framing::{First, first};
use crate::sync::now;

/// How long a client that has connected and not yet written is watched here: SIP servers write at once.
const FRESH_FOR: Duration = Duration::from_millis(20);
/// Such clients at most; more go to the slow thread at once.
const FRESH_MAX: usize = 128;
/// Connections accepted in a row before those that are waiting to be read get their turn.
const ACCEPT_BATCH: usize = 64;
/// Commands decided in a row before what they came to is carried out: a burst wakes each member once and not once a
/// command, and the first of them waits some 100 us at most.
const SETTLE_AFTER: usize = 16;
/// How long accepting pauses when the process is out of descriptors or the cluster has too many connections.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// Between two warnings of that.
pub(super) const WARN_EVERY: Duration = Duration::from_secs(60);

/// A client that has connected and not written yet.
struct Fresh {
    stream: UnixStream,
    place: Place,
    until: Instant,
}

/// The cluster thread's state.
struct Front<'a> {
    cluster: &'a Cluster,
    listener: UnixListener,
    slow: SlowClients,
    fresh: VecDeque<Fresh>,
    out: Out,
    /// Commands decided since `out` was last carried out.
    undone: usize,
    buffer: Box<[u8]>,
    paused_until: Option<Instant>,
    warned: Option<Instant>,
}

/// Serves the control socket until the other end of `stop` is closed.
pub fn run(cluster: &Arc<Cluster>, listener: UnixListener, slow: SlowClients, stop: &UnixStream) {
    let mut front = Front {
        cluster,
        listener,
        slow,
        fresh: VecDeque::new(),
        out: Out::default(),
        undone: 0,
        // One byte more than a command may have, so that one too long is seen.
        buffer: vec![0; COMMAND_MAX + 2].into(),
        paused_until: None,
        warned: None,
    };
    while front.turn(stop) {}
}

impl Front<'_> {
    /// Waits for something to do and does it; false when told to stop.
    fn turn(&mut self, stop: &UnixStream) -> bool {
        let accepting = self.paused_until.is_none();
        let deadline = [self.fresh.front().map(|fresh| fresh.until), self.paused_until]
            .into_iter()
            .flatten()
            .min();
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(now())));
        let mut fds = Vec::with_capacity(2 + self.fresh.len());
        fds.push(PollFd::new(stop, PollFlags::IN));
        fds.push(PollFd::new(
            &self.listener,
            if accepting {
                PollFlags::IN
            } else {
                PollFlags::empty()
            },
        ));
        fds.extend(
            self.fresh
                .iter()
                .map(|fresh| PollFd::new(&fresh.stream, PollFlags::IN)),
        );
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                log::error!("cluster {}: poll: {error}", self.cluster.name);
                std::thread::sleep(PAUSE);
            }
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if fds.first().is_some_and(ready) {
            return false;
        }
        let acceptable = fds.get(1).is_some_and(ready);
        let readable: Vec<bool> = fds.iter().skip(2).map(ready).collect();
        drop(fds);
        if readable.contains(&true) {
            self.read_fresh(&readable);
        }
        if acceptable {
            self.accept();
        }
        self.settle();
        if deadline.is_some() {
            self.expire();
        }
        true
    }

    /// Sends what the commands read so far have come to.
    fn settle(&mut self) {
        if self.undone > 0 {
            self.undone = 0;
            self.cluster.settle(&mut self.out);
        }
    }

    /// Reads those of the clients accepted before that have written by now.
    fn read_fresh(&mut self, readable: &[bool]) {
        for ready in readable {
            let Some(fresh) = self.fresh.pop_front() else {
                return;
            };
            if *ready {
                self.read(fresh.stream, fresh.place, Some(fresh.until));
            } else {
                self.fresh.push_back(fresh);
            }
        }
    }

    /// Accepts who waits. Most have written already.
    fn accept(&mut self) {
        for _ in 0..ACCEPT_BATCH {
            if self.cluster.connections.count() >= CONNECTIONS_MAX {
                self.pause(&io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    "as many connections as allowed",
                ));
                return;
            }
            match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(stream) => {
                    self.cluster.front.accepted.fetch_add(1, Ordering::Relaxed);
                    let place = self.cluster.connections.enter();
                    self.read(UnixStream::from(stream), place, None);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return self.pause(&error.into()),
            }
        }
    }

    /// Takes the command that a client has written. Who has written nothing yet waits here until `until`, a
    /// moment at first.
    fn read(&mut self, stream: UnixStream, place: Place, until: Option<Instant>) {
        match rustix::net::recv(&stream, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            // It connected and left: a probe of somebody's.
            Ok((0, _)) => {}
            Ok((length, _)) => {
                let text = self.buffer.get(..length).unwrap_or_default();
                match first(text) {
                    First::Command(length) => {
                        let text = text.get(..length).unwrap_or_default();
                        let client = Client::Unix(stream, place);
                        let origin = Origin::Unix;
                        self.cluster.decide(&mut self.out, |now, core, out| {
                            core.command(now, text, origin, client, out);
                        });
                        self.undone += 1;
                        if self.undone >= SETTLE_AFTER {
                            self.settle();
                        }
                    }
                    First::More | First::TooLong => {
                        let text = text.to_vec();
                        self.put_aside(stream, place, text);
                    }
                }
            }
            Err(Errno::AGAIN | Errno::INTR) if self.fresh.len() < FRESH_MAX => {
                let until = until.unwrap_or_else(|| now() + FRESH_FOR);
                self.fresh.push_back(Fresh { stream, place, until });
            }
            Err(Errno::AGAIN | Errno::INTR) => self.put_aside(stream, place, Vec::new()),
            Err(error) => log::debug!("cluster {}: a client: {error}", self.cluster.name),
        }
    }

    fn put_aside(&mut self, stream: UnixStream, place: Place, text: Vec<u8>) {
        self.cluster.front.slow.fetch_add(1, Ordering::Relaxed);
        self.slow.take(Slow::new(stream, place, text, now()));
    }

    /// Who has still not written goes aside; a pause ends.
    fn expire(&mut self) {
        let now = now();
        while self.fresh.front().is_some_and(|fresh| fresh.until <= now) {
            if let Some(fresh) = self.fresh.pop_front() {
                self.put_aside(fresh.stream, fresh.place, Vec::new());
            }
        }
        self.paused_until = self.paused_until.filter(|until| *until > now);
    }

    /// Stops accepting for a moment: the connections wait in the kernel meanwhile.
    fn pause(&mut self, error: &io::Error) {
        let now = now();
        self.paused_until = Some(now + PAUSE);
        if self.warned.is_none_or(|warned| now >= warned + WARN_EVERY) {
            self.warned = Some(now);
            log::warn!("cluster {}: accepting pauses: {error}", self.cluster.name);
        }
    }
}

/// A span as poll(2) takes it, a little longer rather than shorter.
pub(super) fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}
