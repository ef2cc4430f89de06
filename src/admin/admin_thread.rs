//! The admin thread: accepts, reads, applies one command after another, writes. It blocks in one poll(2) over its
//! doors, its connections and the stop; nobody makes it wait, whether he sends half a line, does not read, or asks to
//! be told when a member is gone.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::apply;
use super::connection::{Connection, Desk};
use super::limits::{Limits, Warnings};
use super::places::{self, Place, Room};
use super::reply::Reply;
use super::reserve::Reserve;
use crate::admin::operator::Operator;
use crate::rim::feed::Wake;
use crate::rim::{self, Thread};

/// Bytes that all connections together have not read. Beyond it the one with the most is closed.
const UNREAD_MAX: usize = 64 * 1024 * 1024;
/// Bytes that those on read-only sockets have not read, beyond which no other of them gets any: long replies are made
/// one at a time. One reply more may be in the making.
const UNREAD_READ_ONLY_MAX: usize = 16 * 1024 * 1024;
/// Between two looks at what somebody waits for.
const WAIT_TICK: Duration = Duration::from_millis(100);
/// How long no connection is accepted after the system had nothing to give for one.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Connections accepted in a row, so that a crowd at the door does not keep us from those inside.
const ACCEPT_BATCH: usize = 16;

/// One admin socket.
#[derive(Debug)]
pub struct AdminDoor {
    /// Bound and listening.
    pub listener: UnixListener,
    /// Whether commands that change are refused.
    pub read_only: bool,
}

/// Listeners that take the place of those of the doors, each at its door's number.
type NewDoors = Arc<Mutex<Vec<Option<UnixListener>>>>;

/// The running thread.
#[derive(Debug)]
pub struct AdminHandle {
    stop: UnixStream,
    new_doors: NewDoors,
    thread: Thread,
}

impl AdminHandle {
    /// Wakes the thread to put in order what has come to its end ([`Operator::tidy`]).
    pub fn wake(&self) {
        // When the pipe is full the thread is about to look anyway.
        let _ = (&self.stop).write(b"!");
    }

    /// Has door `n` listen with `listener` from now on. Clients that are inside stay.
    pub fn replace(&self, n: usize, listener: UnixListener) {
        if let Some(place) = self.new_doors.lock().get_mut(n) {
            *place = Some(listener);
        }
        self.wake();
    }

    /// Ends the thread and waits for it. A client that waits for a member is told; the doors are closed.
    pub fn stop(self) {
        // Fails only when the thread has left already.
        let _ = self.stop.shutdown(Shutdown::Both);
        self.thread.join();
    }
}

/// Starts the admin thread on `doors`.
///
/// # Errors
/// When the system has no descriptor or no thread to give.
pub fn start(doors: Vec<AdminDoor>, operator: Arc<dyn Operator>) -> io::Result<AdminHandle> {
    start_with(doors, operator, Limits::default())
}

pub(super) fn start_with(
    doors: Vec<AdminDoor>,
    operator: Arc<dyn Operator>,
    limits: Limits,
) -> io::Result<AdminHandle> {
    for door in &doors {
        door.listener.set_nonblocking(true)?;
    }
    let (stop, stopped) = UnixStream::pair()?;
    stop.set_nonblocking(true)?;
    let new_doors: NewDoors = Arc::new(Mutex::new(doors.iter().map(|_| None).collect()));
    let (wake, woken) = Woken::new()?;
    let doors = doors.into_iter().map(|door| Entrance {
        door,
        shut_until: None,
    });
    let admin = Admin {
        doors: doors.collect(),
        new_doors: Arc::clone(&new_doors),
        operator,
        limits,
        reserve: Reserve::new(&stopped)?,
        stopped,
        wake,
        woken,
        connections: Vec::new(),
        warnings: Warnings::default(),
    };
    let thread = rim::spawn("admin", || admin.run())?;
    Ok(AdminHandle {
        stop,
        new_doors,
        thread,
    })
}

/// A door, and whether somebody may come in.
struct Entrance {
    door: AdminDoor,
    /// While it lies ahead, nobody is accepted.
    shut_until: Option<Instant>,
}

/// Tells the thread that there is news for somebody who follows. Many tellings are one until they are seen.
struct Woken {
    socket: UnixStream,
    is_pending: Arc<AtomicBool>,
}

impl Woken {
    fn new() -> io::Result<(Wake, Self)> {
        let (wake, socket) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        socket.set_nonblocking(true)?;
        let is_pending = Arc::new(AtomicBool::new(false));
        let woken = Self {
            socket,
            is_pending: Arc::clone(&is_pending),
        };
        let tell = move || {
            // One byte at a time is on its way at most, so there is room for it.
            if !is_pending.swap(true, Ordering::AcqRel) {
                let _ = (&wake).write(&[0]);
            }
        };
        Ok((Arc::new(tell), woken))
    }

    /// Before the news are looked at: what comes meanwhile wakes again.
    fn clear(&mut self) {
        let _ = self.socket.read(&mut [0; 8]);
        self.is_pending.store(false, Ordering::Release);
    }
}

struct Admin {
    doors: Vec<Entrance>,
    new_doors: NewDoors,
    operator: Arc<dyn Operator>,
    limits: Limits,
    stopped: UnixStream,
    /// Given to whoever tells what somebody follows.
    wake: Wake,
    woken: Woken,
    reserve: Reserve,
    connections: Vec<Connection>,
    warnings: Warnings,
}

/// What one poll(2) found, in the order of what it was asked.
struct Ready {
    /// The end, new doors, or something to be put in order.
    stop: bool,
    /// Something for who follows.
    news: bool,
    doors: Vec<bool>,
    connections: Vec<PollFlags>,
}

impl Admin {
    fn run(mut self) {
        let mut waits_seen = rim::now();
        loop {
            let ready = match self.poll(rim::now(), waits_seen) {
                Ok(ready) => ready,
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
            if ready.stop {
                if !self.take_new_doors() {
                    return self.farewell();
                }
                self.operator.tidy();
                // Connections may have come and gone: what is ready is asked anew.
                continue;
            }
            if ready.news {
                self.woken.clear();
            }
            let now = rim::now();
            for (connection, flags) in self.connections.iter_mut().zip(ready.connections) {
                if !flags.is_empty() {
                    connection.ready(now, flags, &mut self.warnings);
                }
            }
            for n in 0..self.connections.len() {
                let not_read = self.unread(Connection::is_read_only);
                if let Some(connection) = self.connections.get_mut(n) {
                    connection.hold_if(not_read > UNREAD_READ_ONLY_MAX);
                    let mut desk = Desk {
                        operator: &*self.operator,
                        wake: &self.wake,
                        warnings: &mut self.warnings,
                    };
                    connection.run(now, &mut desk);
                    connection.expire(now, &self.limits);
                }
            }
            if now.duration_since(waits_seen) >= WAIT_TICK {
                waits_seen = now;
                self.look_at_waits(now);
            }
            self.close_who_does_not_read(now);
            for over in self.connections.extract_if(.., |connection| connection.is_over()) {
                self.reserve.close(over);
            }
            for (n, ready) in ready.doors.into_iter().enumerate() {
                if ready {
                    self.accept(now, n);
                }
            }
        }
    }

    fn poll(&mut self, now: Instant, waits_seen: Instant) -> io::Result<Ready> {
        let timeout = self.timeout(now, waits_seen);
        let interests: Vec<PollFlags> = self.connections.iter_mut().map(Connection::interest).collect();

        let mut polled = vec![
            PollFd::new(&self.stopped, PollFlags::IN),
            PollFd::new(&self.woken.socket, PollFlags::IN),
        ];
        polled.extend(self.doors.iter().map(|entrance| {
            let is_open = entrance.shut_until.is_none_or(|until| now >= until);
            let flags = if is_open {
                PollFlags::IN
            } else {
                PollFlags::empty()
            };
            PollFd::new(&entrance.door.listener, flags)
        }));
        let asked = self.connections.iter().zip(interests);
        polled.extend(asked.map(|(connection, flags)| PollFd::new(connection.socket(), flags)));
        match rim::idle(|| poll(&mut polled, timeout.as_ref())) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }

        let mut found = polled.iter().map(PollFd::revents);
        let stop = found.next().is_some_and(|flags| !flags.is_empty());
        let news = found.next().is_some_and(|flags| !flags.is_empty());
        let doors = found.by_ref().take(self.doors.len());
        let doors = doors.map(|flags| !flags.is_empty()).collect();
        Ok(Ready {
            stop,
            news,
            doors,
            connections: found.collect(),
        })
    }

    /// Listens where it is told to; `false` when it is told to end.
    fn take_new_doors(&mut self) -> bool {
        if !matches!(self.stopped.read(&mut [0; 16]), Ok(1..)) {
            return false;
        }
        let new: Vec<_> = self.new_doors.lock().iter_mut().map(Option::take).collect();
        for (n, listener) in new.into_iter().enumerate() {
            let Some(listener) = listener else { continue };
            if let Err(error) = listener.set_nonblocking(true) {
                log::error!("admin: cannot listen with a new socket: {error}");
                continue;
            }
            // Who waits at the old one would be closed with it.
            self.accept(rim::now(), n);
            if let Some(entrance) = self.doors.get_mut(n) {
                entrance.door.listener = listener;
            }
        }
        true
    }

    /// How long nothing is due, if no descriptor becomes ready.
    fn timeout(&mut self, now: Instant, waits_seen: Instant) -> Option<Timespec> {
        if self.connections.iter_mut().any(Connection::can_run) {
            return Some(Timespec::default());
        }
        let waiting = self
            .connections
            .iter()
            .any(|connection| connection.parked().is_some());
        let (limits, stalled_at) = (self.limits, self.stalled_at());
        let deadlines = self
            .connections
            .iter_mut()
            .filter_map(|connection| connection.deadline(&limits));
        let doors = self.doors.iter().filter_map(|entrance| entrance.shut_until);
        let due = deadlines
            .chain(waiting.then(|| waits_seen + WAIT_TICK))
            .chain(stalled_at)
            .chain(doors.filter(|until| *until > now))
            .min()?;
        // A deadline that passes between two reads of the clock waits no time, and never a negative one.
        Timespec::try_from(due.saturating_duration_since(now)).ok()
    }

    /// Takes those who stand at door `n`, in the place of others where all are taken.
    fn accept(&mut self, now: Instant, n: usize) {
        for _ in 0..ACCEPT_BATCH {
            let places = self.places();
            let Some(entrance) = self.doors.get_mut(n) else {
                return;
            };
            let read_only = entrance.door.read_only;
            let leaving = match places::room(now, read_only, &places) {
                Room::Free => None,
                Room::Of(n) => Some(n),
                Room::From(then) => {
                    entrance.shut_until = Some(then);
                    return;
                }
            };
            match entrance.door.listener.accept() {
                Ok((socket, _)) => {
                    if let Some(n) = leaving {
                        self.show_out(now, n);
                    }
                    match Connection::new(now, socket, read_only) {
                        Ok(connection) => self.connections.push(connection),
                        Err(error) => log::warn!("admin: a client was lost: {error}"),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client left, or a signal came: the next is tried.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    let shut_until = match self.find_descriptor(now, &error, &places) {
                        Room::Free => continue,
                        Room::Of(n) => {
                            self.show_out(now, n);
                            continue;
                        }
                        Room::From(then) => then,
                    };
                    if let Some(entrance) = self.doors.get_mut(n) {
                        entrance.shut_until = Some(shut_until);
                    }
                    return;
                }
            }
        }
    }

    /// Where descriptors are what was missing one of those kept back is given up, or else a connection is named that
    /// gives its own.
    fn find_descriptor(&mut self, now: Instant, missing: &io::Error, places: &[Place]) -> Room {
        let numbers = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        let are_descriptors = numbers.contains(&missing.raw_os_error());
        if are_descriptors && self.reserve.give_up() {
            return Room::Free;
        }
        if are_descriptors && !places.is_empty() {
            return places::idlest(now, false, places);
        }
        if self.warnings.no_descriptors.hit(now).is_some() {
            log::warn!("admin: accept: {missing}: trying again each second");
        }
        Room::From(now + ACCEPT_PAUSE)
    }

    fn places(&mut self) -> Vec<Place> {
        self.connections.iter_mut().map(Connection::place).collect()
    }

    /// Closes a connection in favour of another one.
    fn show_out(&mut self, now: Instant, n: usize) {
        if n < self.connections.len() {
            let mut leaving = self.connections.swap_remove(n);
            leaving.give_way(now);
            self.reserve.close(leaving);
        }
    }

    /// Answers the waits that are over.
    fn look_at_waits(&mut self, now: Instant) {
        for connection in &mut self.connections {
            let Some(parked) = connection.parked() else {
                continue;
            };
            let wait = &parked.wait;
            let online = self.operator.is_online(&wait.cluster, &wait.name);
            let reply = apply::check_wait(wait, &online, true);
            let reply = reply.or_else(|| (now >= parked.until).then(|| apply::late_wait(wait)));
            if let Some(reply) = reply {
                connection.unpark(now, &reply);
            }
        }
    }

    /// Bytes that some connections have not read.
    fn unread(&self, of: impl Fn(&Connection) -> bool) -> usize {
        let these = self.connections.iter().filter(|connection| of(connection));
        these.map(Connection::unread).sum()
    }

    /// When the first of those whom others wait for is closed.
    fn stalled_at(&mut self) -> Option<Instant> {
        let somebody_waits = self.connections.iter_mut().any(Connection::is_held);
        let stalled = self.connections.iter();
        let stalled = stalled.filter_map(|connection| connection.stalled_at(&self.limits));
        stalled.min().filter(|_| somebody_waits)
    }

    /// Holds the bounds on what is written and not read: the connection with the most of it is closed.
    fn close_who_does_not_read(&mut self, now: Instant) {
        let is_stalled = self.stalled_at().is_some_and(|at| at <= now);
        if !is_stalled && self.unread(|_| true) <= UNREAD_MAX {
            return;
        }
        let numbered = self.connections.iter().enumerate();
        let candidates = numbered.filter(|(_, connection)| {
            !is_stalled || connection.stalled_at(&self.limits).is_some_and(|at| at <= now)
        });
        if let Some((n, connection)) = candidates.max_by_key(|(_, connection)| connection.unread()) {
            if let Some(count) = self.warnings.unread.hit(now) {
                log::warn!(
                    "admin: {count} client(s) that do not read are closed, the last with {} bytes unread",
                    connection.unread()
                );
            }
            self.reserve.close(self.connections.swap_remove(n));
        }
        for connection in &mut self.connections {
            connection.hold_if(false);
        }
    }

    /// The daemon ends: whoever waits is told, as far as it reads at once.
    fn farewell(mut self) {
        let now = rim::now();
        for connection in &mut self.connections {
            connection.catch_up(now, &*self.operator);
            if connection.is_open_ended() {
                connection.unpark(now, &Reply::error("the daemon stops"));
            }
        }
    }
}
