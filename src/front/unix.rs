//! A control socket over UNIX, one command a connection: accept, read, decide, hand over. Who has sent nothing a
//! moment after connecting, or only a part of a command, goes to the slow thread.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::VecDeque;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::client::Client;
use super::cluster_thread::{Burst, wait};
use super::connections::Place;
use super::gate::{ACCEPT_BATCH, Gate};
use super::handover::{Case, SlowClients};
use super::slow_thread::Slow;
use crate::cluster::Cluster;
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::COMMAND_MAX;
use crate::protocol::framing::{First, first};
use crate::rim::now;

/// How long a client that has connected and not yet written is watched here: SIP servers write at once.
const FRESH_FOR: Duration = Duration::from_millis(20);
/// Such clients at most; more go to the slow thread at once.
const FRESH_MAX: usize = 128;

/// A client that has connected and not written yet.
struct Fresh {
    stream: UnixStream,
    place: Place,
    until: Instant,
}

/// The cluster thread's state.
struct Front<'a> {
    cluster: &'a Cluster,
    gate: Gate,
    slow: Arc<SlowClients>,
    fresh: VecDeque<Fresh>,
    burst: Burst<'a>,
    buffer: Box<[u8]>,
}

/// Serves the control socket until the other end of `stop` is closed.
pub(super) fn run(cluster: &Cluster, listener: UnixListener, slow: Arc<SlowClients>, stop: &UnixStream) {
    let mut front = Front {
        cluster,
        gate: Gate::new(listener.into()),
        slow,
        fresh: VecDeque::new(),
        burst: Burst::new(cluster),
        // One byte more than a command may have, so that one too long is seen.
        buffer: vec![0; COMMAND_MAX + 2].into(),
    };
    while front.turn(stop) {}
    front.finish();
}

impl Front<'_> {
    /// Waits for something to do and does it; false when told to stop.
    fn turn(&mut self, stop: &UnixStream) -> bool {
        let deadline = [
            self.fresh.front().map(|fresh| fresh.until),
            self.gate.paused_until(),
        ]
        .into_iter()
        .flatten()
        .min();
        let mut fds = Vec::with_capacity(2 + self.fresh.len());
        fds.push(PollFd::new(stop, PollFlags::IN));
        fds.push(self.gate.watch());
        fds.extend(
            self.fresh
                .iter()
                .map(|fresh| PollFd::new(&fresh.stream, PollFlags::IN)),
        );
        let patience = deadline.map(|at| at.saturating_duration_since(now()));
        wait(&self.cluster.name, &mut fds, patience);
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
        self.burst.settle();
        if deadline.is_some() {
            self.expire();
        }
        true
    }

    /// Takes the commands of those who had connected before the stop: they write in this moment, and closing would
    /// reset them.
    fn finish(&mut self) {
        while let Some(until) = self.fresh.front().map(|fresh| fresh.until) {
            let mut fds: Vec<PollFd<'_>> = self
                .fresh
                .iter()
                .map(|fresh| PollFd::new(&fresh.stream, PollFlags::IN))
                .collect();
            let patience = until.saturating_duration_since(now());
            wait(&self.cluster.name, &mut fds, Some(patience));
            let readable: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            self.read_fresh(&readable);
            let now = now();
            self.fresh.retain(|fresh| fresh.until > now);
        }
        self.burst.settle();
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
            let Some((stream, place)) = self.gate.accept(self.cluster) else {
                return;
            };
            self.read(UnixStream::from(stream), place, None);
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
                        self.burst.command(text, Origin::Unix, client);
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
        self.slow.take(Case::Slow(Slow::new(stream, place, text, now())));
    }

    /// Who has still not written goes aside; a pause ends.
    fn expire(&mut self) {
        let now = now();
        while self.fresh.front().is_some_and(|fresh| fresh.until <= now) {
            if let Some(fresh) = self.fresh.pop_front() {
                self.put_aside(fresh.stream, fresh.place, Vec::new());
            }
        }
        self.gate.resume(now);
    }
}
