//! The admin thread: accepts, reads, applies one command after another, writes. It blocks in one poll(2) over its
//! doors, its clients and the stop; no client makes it wait, whether it sends half a line, does not read, or asks to
//! be told when a member is gone.

use core::time::Duration;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::apply;
use super::connection::Connection;
use super::reply::Reply;
use super::view::Operator;
use crate::sync::{self, Thread};

/// Clients at once, on all doors. Each costs a descriptor and at most a few kilobytes while it is silent.
pub const CLIENTS_MAX: usize = 128;
/// Of these, clients of read-only doors: monitoring must not lock the administrator out.
pub const READ_ONLY_CLIENTS_MAX: usize = 96;
/// Bytes that all clients together have not read. Beyond it the one with the most is closed.
const UNREAD_MAX: usize = 64 * 1024 * 1024;
/// Between two looks at what somebody waits for.
const WAIT_TICK: Duration = Duration::from_millis(100);
/// How long no client is accepted after the system had no descriptor for one.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// One admin socket.
#[derive(Debug)]
pub struct AdminDoor {
    /// Bound and listening.
    pub listener: UnixListener,
    /// Whether commands that change are refused.
    pub read_only: bool,
}

/// The running thread.
#[derive(Debug)]
pub struct AdminHandle {
    stop: UnixStream,
    thread: Thread,
}

impl AdminHandle {
    /// Ends the thread and waits for it. A client that waits for a member is told; the doors are closed.
    pub fn stop(self) {
        // Fails only when the thread has left already.
        let _ = self.stop.shutdown(Shutdown::Both);
        self.thread.join();
    }
}

/// How long a silent client keeps its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// After part of a line.
    pub(super) half_line: Duration,
    /// After whole lines, or none at all: a prompt may stay open over night.
    pub(super) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            half_line: Duration::from_secs(60),
            idle: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Starts the admin thread on `doors`.
///
/// # Errors
/// When the system has no descriptor or no thread to give.
pub fn start(doors: Vec<AdminDoor>, operator: Arc<dyn Operator>) -> io::Result<AdminHandle> {
    start_with(doors, operator, Limits::default())
}

fn start_with(doors: Vec<AdminDoor>, operator: Arc<dyn Operator>, limits: Limits) -> io::Result<AdminHandle> {
    for door in &doors {
        door.listener.set_nonblocking(true)?;
    }
    let (stop, stopped) = UnixStream::pair()?;
    let admin = Admin {
        doors,
        operator,
        limits,
        stopped,
        clients: Vec::new(),
        accept_from: None,
    };
    let thread = sync::spawn("admin", || admin.run())?;
    Ok(AdminHandle { stop, thread })
}

struct Admin {
    doors: Vec<AdminDoor>,
    operator: Arc<dyn Operator>,
    limits: Limits,
    stopped: UnixStream,
    clients: Vec<Connection>,
    /// While it lies ahead, nobody is accepted.
    accept_from: Option<Instant>,
}

/// What one poll(2) found, in the order of what it was asked.
struct Found {
    stop: bool,
    doors: Vec<bool>,
    clients: Vec<PollFlags>,
}

impl Admin {
    fn run(mut self) {
        let mut waits_seen = sync::now();
        loop {
            let found = match self.poll(sync::now(), waits_seen) {
                Ok(found) => found,
                Err(error) => {
                    // Memory for the call is all that can be missing.
                    log::warn!(
                        "admin: poll: {error}: trying again in {} s",
                        ACCEPT_PAUSE.as_secs()
                    );
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            if found.stop {
                return self.farewell();
            }
            let now = sync::now();
            for (client, flags) in self.clients.iter_mut().zip(found.clients) {
                if !flags.is_empty() {
                    client.ready(now, flags);
                }
            }
            for (n, ready) in found.doors.into_iter().enumerate() {
                if ready {
                    self.accept(now, n);
                }
            }
            for client in &mut self.clients {
                client.run(now, &*self.operator);
                client.expire(now, &self.limits);
            }
            if now.duration_since(waits_seen) >= WAIT_TICK {
                waits_seen = now;
                self.look_at_waits(now);
            }
            self.close_the_fullest();
            self.clients.retain(|client| !client.is_over());
        }
    }

    fn poll(&mut self, now: Instant, waits_seen: Instant) -> io::Result<Found> {
        let timeout = self.timeout(now, waits_seen);
        let accepting = self.accept_from.is_none_or(|from| now >= from);
        let interests: Vec<PollFlags> = self.clients.iter_mut().map(Connection::interest).collect();

        let mut polled = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        if accepting {
            polled.extend(
                self.doors
                    .iter()
                    .map(|door| PollFd::new(&door.listener, PollFlags::IN)),
            );
        }
        let asked = self.clients.iter().zip(interests);
        polled.extend(asked.map(|(client, flags)| PollFd::new(client.socket(), flags)));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }

        let mut found = polled.iter().map(PollFd::revents);
        let stop = found.next().is_some_and(|flags| !flags.is_empty());
        let doors = found.by_ref().take(if accepting { self.doors.len() } else { 0 });
        let doors = doors.map(|flags| !flags.is_empty()).collect();
        Ok(Found {
            stop,
            doors,
            clients: found.collect(),
        })
    }

    /// How long nothing is due, if no descriptor becomes ready.
    fn timeout(&mut self, now: Instant, waits_seen: Instant) -> Option<Timespec> {
        if self.clients.iter_mut().any(Connection::can_run) {
            return Some(Timespec::default());
        }
        let waiting = self.clients.iter().any(|client| client.parked().is_some());
        let limits = self.limits;
        let deadlines = self
            .clients
            .iter_mut()
            .filter_map(|client| client.deadline(&limits));
        let due = deadlines
            .chain(waiting.then(|| waits_seen + WAIT_TICK))
            .chain(self.accept_from)
            .min()?;
        // A deadline that passes between two reads of the clock waits no time, and never a negative one.
        Timespec::try_from(due.saturating_duration_since(now)).ok()
    }

    /// Takes every client that stands at door `n`.
    fn accept(&mut self, now: Instant, n: usize) {
        let Some(door) = self.doors.get(n) else { return };
        loop {
            let (socket, _) = match door.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The client left, or a signal came: the next is tried.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(error) => {
                    log::warn!(
                        "admin: accept: {error}: trying again in {} s",
                        ACCEPT_PAUSE.as_secs()
                    );
                    self.accept_from = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            let watching = self.clients.iter().filter(|client| client.is_read_only()).count();
            let full =
                self.clients.len() >= CLIENTS_MAX || (door.read_only && watching >= READ_ONLY_CLIENTS_MAX);
            if full {
                refuse(socket);
                continue;
            }
            match Connection::new(now, socket, door.read_only) {
                Ok(client) => self.clients.push(client),
                Err(error) => log::warn!("admin: a client was lost: {error}"),
            }
        }
        self.accept_from = None;
    }

    /// Answers the waits that are over. Each cluster is looked at once, however many wait for it.
    fn look_at_waits(&mut self, now: Instant) {
        let mut views = HashMap::new();
        for client in &mut self.clients {
            let Some(parked) = client.parked() else { continue };
            let wait = &parked.wait;
            let view = views
                .entry(wait.cluster.clone())
                .or_insert_with(|| self.operator.cluster(&wait.cluster));
            let reply = apply::check_wait(wait, view, true);
            let reply = reply.or_else(|| (now >= parked.until).then(|| apply::late_wait(wait)));
            if let Some(reply) = reply {
                client.unpark(now, &reply);
            }
        }
    }

    /// Holds the bound on what is written and not read.
    fn close_the_fullest(&mut self) {
        let total: usize = self.clients.iter().map(Connection::unread).sum();
        if total <= UNREAD_MAX {
            return;
        }
        if let Some((n, client)) = self
            .clients
            .iter()
            .enumerate()
            .max_by_key(|(_, client)| client.unread())
        {
            log::warn!(
                "admin: a client that does not read is closed, with {} bytes unread",
                client.unread()
            );
            self.clients.swap_remove(n);
        }
    }

    /// The daemon ends: whoever waits is told, as far as it reads at once.
    fn farewell(mut self) {
        let now = sync::now();
        for client in &mut self.clients {
            if client.parked().is_some() {
                client.unpark(now, &Reply::error("the daemon stops"));
            }
        }
    }
}

/// Tells a client that there is no room. It has not sent anything that would be lost.
fn refuse(mut socket: UnixStream) {
    let mut text = Vec::new();
    Reply::error("too many admin connections: want another one closed first").write_to(&mut text);
    // The buffer of a new socket takes one line at once; if not, closing says as much.
    let _ = socket
        .set_nonblocking(true)
        .and_then(|()| socket.write_all(&text));
}
