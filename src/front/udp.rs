//! A control socket over UDP. A datagram is `COOKIE COMMAND`, its reply `COOKIE REPLY`, from the same socket.
//!
//! - A repeat runs nothing: while its command is in flight it is dropped, afterwards it gets the reply again.
//! - The socket is read faster than commands are served, and what waits is served one sender after the other: who
//!   floods us takes nothing from the others ([`super::fair`]).
//! - A sender has only so many commands in flight; those beyond wait in its line.

use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::hash::RandomState;
use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::client::Client;
use super::cluster_thread::{Burst, wait};
use super::fair::{self, Fair};
use super::gate::{PAUSE, WARN_EVERY};
use crate::cluster::Cluster;
use crate::dispatch::repeat::{self, Repeats, Seen};
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::COMMAND_MAX;
use crate::protocol::{cookie, framing};
use crate::rim::now;

/// Longest cookie; SIP servers' have 10 to 40 bytes.
const COOKIE_MAX: usize = 1024;
/// Datagrams read in a row before those that wait are served: far more than are served in a row, so that a flood is
/// read and sorted out before the socket's buffer is full.
const READ_BATCH: usize = 1024;
/// Datagrams of a turn that are served as they are read, as long as nobody waits.
const STRAIGHT: usize = 64;
/// Datagrams that are served in a row before the socket is read again.
const SERVE_BATCH: usize = 64;
/// Between two looks at whether a sender with too many commands in flight may go on.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Between two rounds of clearing away replies that are too old, and how many are looked at in one.
const CLEAR_EVERY: Duration = Duration::from_secs(1);
const CLEAR_LOOKS: usize = 65_536;

/// The socket and the replies that it has given.
#[derive(Debug)]
pub struct Door {
    socket: UdpSocket,
    repeats: Mutex<Repeats>,
}

/// Who sent a datagram and waits for the reply. Dropped without one, its repeat is a new command.
#[derive(Debug)]
pub struct Asker {
    door: Arc<Door>,
    from: SocketAddr,
    cookie: Box<[u8]>,
    answered: bool,
}

impl Door {
    /// Behind a bound socket.
    pub fn new(socket: UdpSocket) -> Arc<Self> {
        Arc::new(Self {
            socket,
            repeats: Mutex::new(Repeats::new(now(), repeat::BUDGET, RandomState::new())),
        })
    }

    /// A reply that the system does not take is lost, as datagrams may be: the client asks again.
    fn send(&self, to: SocketAddr, cookie: &[u8], text: &[u8]) {
        let parts = [IoSlice::new(cookie), IoSlice::new(b" "), IoSlice::new(text)];
        // What has no cookie has no blank either.
        let parts = parts
            .get(if cookie.is_empty() { 2 } else { 0 }..)
            .unwrap_or_default();
        rustix::net::sendmsg_addr(
            &self.socket,
            &to,
            parts,
            &mut SendAncillaryBuffer::default(),
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )
        .ok();
    }
}

impl Asker {
    /// Sends the reply and keeps it for repeats, which may come before it is out.
    pub(super) fn reply(mut self, text: &[u8]) {
        self.answered = true;
        self.door
            .repeats
            .lock()
            .done(now(), self.from, &self.cookie, text);
        self.door.send(self.from, &self.cookie, text);
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if !self.answered {
            self.door.repeats.lock().cancel(self.from, &self.cookie);
        }
    }
}

/// The cluster thread's state.
struct Front<'a> {
    cluster: &'a Cluster,
    door: &'a Arc<Door>,
    waiting: Fair,
    burst: Burst<'a>,
    buffer: Box<[u8]>,
    /// A reply that is given again.
    again: Vec<u8>,
    /// All who wait have as many commands in flight as they may.
    stuck: bool,
    clear_at: Option<Instant>,
    warned: Option<Instant>,
    dropped: u64,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Done,
    /// Its sender has too many commands in flight.
    Later,
}

/// Serves the control socket until the other end of `stop` is closed.
pub(super) fn run(cluster: &Cluster, door: &Arc<Door>, stop: &UnixStream) {
    let mut front = Front {
        cluster,
        door,
        waiting: Fair::new(fair::BUDGET),
        burst: Burst::new(cluster),
        // A datagram that is cut off here is too long for a command, whatever its cookie.
        buffer: vec![0; COOKIE_MAX + COMMAND_MAX + 2].into(),
        again: Vec::new(),
        stuck: false,
        clear_at: None,
        warned: None,
        dropped: 0,
    };
    while front.turn(stop) {}
}

impl Front<'_> {
    /// Waits for something to do and does it; false when told to stop.
    fn turn(&mut self, stop: &UnixStream) -> bool {
        let mut fds = [
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(&self.door.socket, PollFlags::IN),
        ];
        wait(&self.cluster.name, &mut fds, self.patience());
        let [stopped, readable] = fds.map(|fd| !fd.revents().is_empty());
        if stopped {
            return false;
        }
        if readable {
            self.read();
        }
        self.serve_waiting();
        self.burst.settle();
        self.clear();
        true
    }

    /// How long to wait for a datagram.
    fn patience(&self) -> Option<Duration> {
        if !self.waiting.is_empty() {
            return Some(if self.stuck { LOOK_AGAIN } else { Duration::ZERO });
        }
        self.clear_at.map(|at| at.saturating_duration_since(now()))
    }

    /// Reads what has come. The first are served at once, unless somebody waits already.
    fn read(&mut self) {
        let mut buffer = core::mem::take(&mut self.buffer);
        for read in 0..READ_BATCH {
            match rustix::net::recvfrom(&self.door.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _, Some(from))) => {
                    let Ok(from) = SocketAddr::try_from(from) else {
                        continue;
                    };
                    let datagram = buffer.get_mut(..length).unwrap_or_default();
                    let straight = read < STRAIGHT && self.waiting.is_empty();
                    if straight && self.serve(from, datagram) == Served::Done {
                        continue;
                    }
                    // Who has been served already does not wait for what others have sent.
                    self.burst.settle();
                    if !self.waiting.push(from, datagram) {
                        self.drop_one();
                    }
                }
                Ok(_) | Err(Errno::INTR | Errno::CONNREFUSED) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    self.warn(&format!("reading fails: {error}"));
                    std::thread::sleep(PAUSE);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Serves some of those who wait, one sender after the other.
    fn serve_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (now, door) = (now(), self.door);
        for _ in 0..SERVE_BATCH {
            let may_begin = |from| door.repeats.lock().may_begin(now, from);
            let Some((from, mut datagram)) = self.waiting.next(may_begin) else {
                self.stuck = !self.waiting.is_empty();
                return;
            };
            self.serve(from, &mut datagram);
        }
        self.stuck = false;
    }

    /// Runs a datagram's command, or gives the reply that it has had already.
    fn serve(&mut self, from: SocketAddr, datagram: &mut [u8]) -> Served {
        framing::unfold(datagram);
        let Some((cookie, text)) = cookie::split(datagram).filter(|(cookie, _)| cookie.len() <= COOKIE_MAX)
        else {
            // As RTPproxy says it.
            self.door.send(from, b"", b"E5\n");
            return Served::Done;
        };
        let now = now();
        self.clear_at.get_or_insert(now + CLEAR_EVERY);
        let mut repeats = self.door.repeats.lock();
        match repeats.begin(now, from, cookie) {
            Seen::First => drop(repeats),
            Seen::InFlight => {
                drop(repeats);
                self.cluster.front.repeated.fetch_add(1, Ordering::Relaxed);
                return Served::Done;
            }
            Seen::Again(reply) => {
                self.again.clear();
                self.again.extend_from_slice(reply);
                drop(repeats);
                self.cluster.front.repeated.fetch_add(1, Ordering::Relaxed);
                self.door.send(from, cookie, &self.again);
                return Served::Done;
            }
            Seen::Later => return Served::Later,
        }
        let client = Client::Datagram(Box::new(Asker {
            door: Arc::clone(self.door),
            from,
            cookie: cookie.into(),
            answered: false,
        }));
        self.burst.command(text, Origin::Ip(from.ip()), client);
        Served::Done
    }

    /// Clears old replies away now and then, so that a cluster which has gone quiet keeps nothing.
    fn clear(&mut self) {
        let Some(at) = self.clear_at else { return };
        let now = now();
        if at > now {
            return;
        }
        let mut repeats = self.door.repeats.lock();
        repeats.clear_old(now, CLEAR_LOOKS);
        self.clear_at = (!repeats.is_empty()).then_some(now + CLEAR_EVERY);
    }

    fn drop_one(&mut self) {
        self.dropped += 1;
        let dropped = self.dropped;
        if self.warn(&format!(
            "commands come faster than they can be served: {dropped} dropped"
        )) {
            self.dropped = 0;
        }
    }

    /// Tells the operator, once a minute at most; says whether it did.
    fn warn(&mut self, what: &str) -> bool {
        let now = now();
        let tells = self.warned.is_none_or(|warned| now >= warned + WARN_EVERY);
        if tells {
            self.warned = Some(now);
            log::warn!("cluster {}: {what}", self.cluster.name);
        }
        tells
    }
}
