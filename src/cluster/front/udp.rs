//! A control socket over UDP. A datagram is `COOKIE COMMAND`, its reply `COOKIE REPLY`, from the same socket.
//!
//! - A repeat runs nothing: while its command is in flight it is dropped, afterwards it gets the reply again.
//! - The socket is read faster than commands are served, and what waits is served one sender after the other: who
//!   floods us takes nothing from the others ([`crate::client::fair`]).
//! - A sender has only so many commands in flight; those beyond wait in its line.
//! - What could be an answer is never answered: two of us, or one alone, must not be made to talk to each other.

use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::HashMap;
use std::hash::RandomState;
use std::io::IoSlice;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::door::Door;
use super::{Desk, Here, Next, who};
use crate::client::fair::Fair;
use crate::client::repeat::{self, Repeats, Seen};
use crate::client::{Asker, Client};
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::{COMMAND_MAX, parse};
use crate::protocol::{cookie, framing};
use crate::rim::throttle::Throttle;

/// Longest cookie; SIP servers' have 10 to 40 bytes.
const COOKIE_MAX: usize = 1024;
/// Datagrams read in a row before those that wait are served: far more than are served in a row, so that a flood is
/// read and sorted out before the socket's buffer is full.
const READ_BATCH: usize = 1024;
/// Between two looks at whether a sender with too many commands in flight may go on.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Between two rounds of clearing away replies that are too old, and how many are looked at in one.
const CLEAR_EVERY: Duration = Duration::from_secs(1);
const CLEAR_LOOKS: usize = 65_536;
/// Error replies to one sender in [`CLEAR_EVERY`]: whoever writes nonsense knows by then.
const ERRORS_OF_ONE: u32 = 64;
/// Senders whose errors are counted; beyond, nobody gets any until the next round.
const ERRONEOUS_MAX: usize = 4096;

/// The sockets, and the replies that they have given.
#[derive(Debug, Default)]
pub(super) struct Udp {
    open: Option<(Arc<UdpSocket>, Door)>,
    knocked: bool,
    repeats: Option<Repeats<RandomState>>,
    waiting: Fair,
    buffer: Vec<u8>,
    /// A reply that is given again.
    again: Vec<u8>,
    /// All who wait have as many commands in flight as they may: when that is looked at again.
    stuck: Option<Instant>,
    clear_at: Option<Instant>,
    errors: HashMap<SocketAddr, u32>,
    warned: Throttle,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Done,
    /// Its sender has too many commands in flight.
    Later,
}

impl Udp {
    /// Serves this socket from now on.
    pub(super) fn open(&mut self, now: Instant, socket: Arc<UdpSocket>, door: Door) {
        self.open = Some((socket, door));
        self.knocked = true;
        self.repeats
            .get_or_insert_with(|| Repeats::new(now, repeat::BUDGET, RandomState::new()));
        // A datagram that is cut off here is too long for a command, whatever its cookie.
        self.buffer = vec![0; COOKIE_MAX + COMMAND_MAX + 2];
    }

    /// Takes no further command. Those in flight are answered.
    pub(super) fn close(&mut self, here: Here<'_>) {
        if let Some((_, door)) = self.open.take() {
            here.spot(0).unwatch(&door);
        }
        self.waiting = Fair::default();
        self.buffer = Vec::new();
    }

    pub(super) fn knock(&mut self) {
        self.knocked = true;
    }

    /// When there is something to do though nothing happens.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let waiting = (!self.waiting.is_empty()).then(|| self.stuck.unwrap_or(now));
        [waiting, self.clear_at].into_iter().flatten().min()
    }

    /// Reads what has come, and serves a batch of it.
    pub(super) fn serve(&mut self, desk: &mut Desk<'_>) -> Next {
        let Some(socket) = self.open.as_ref().map(|(socket, _)| Arc::clone(socket)) else {
            return Next::Wait;
        };
        let mut buffer = core::mem::take(&mut self.buffer);
        for _ in 0..READ_BATCH {
            if !self.knocked {
                break;
            }
            match rustix::net::recvfrom(&socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _, Some(from))) => {
                    let Ok(from) = SocketAddr::try_from(from) else {
                        continue;
                    };
                    let datagram = buffer.get_mut(..length).unwrap_or_default();
                    // The first are served at once, unless somebody waits already.
                    let straight = !desk.is_full() && self.waiting.is_empty();
                    if straight && self.take(&socket, from, datagram, desk) == Served::Done {
                        continue;
                    }
                    if !self.waiting.push(from, datagram)
                        && let Some(dropped) = self.warned.hit(desk.now)
                    {
                        log::warn!(
                            "cluster {}: commands come faster than they can be served: {dropped} dropped",
                            desk.cluster.name
                        );
                    }
                }
                Ok(_) | Err(Errno::INTR | Errno::CONNREFUSED) => {}
                Err(Errno::AGAIN) => self.knocked = false,
                Err(error) => {
                    if self.warned.hit(desk.now).is_some() {
                        log::warn!("cluster {}: reading fails: {error}", desk.cluster.name);
                    }
                    self.knocked = false;
                }
            }
        }
        self.buffer = buffer;
        self.serve_waiting(&socket, desk);
        if self.knocked || !(self.waiting.is_empty() || self.stuck.is_some()) {
            Next::More
        } else {
            Next::Wait
        }
    }

    /// Serves some of those who wait, one sender after the other.
    fn serve_waiting(&mut self, socket: &Arc<UdpSocket>, desk: &mut Desk<'_>) {
        self.stuck = None;
        while !desk.is_full() && !self.waiting.is_empty() {
            let Some(repeats) = &mut self.repeats else { return };
            let now = desk.now;
            let Some((from, mut datagram)) = self.waiting.next(|from| repeats.may_begin(now, from)) else {
                self.stuck = Some(now + LOOK_AGAIN);
                return;
            };
            self.take(socket, from, &mut datagram, desk);
        }
    }

    /// Runs a datagram's command, or gives the reply that it has had already.
    fn take(
        &mut self,
        socket: &Arc<UdpSocket>,
        from: SocketAddr,
        datagram: &mut [u8],
        desk: &mut Desk<'_>,
    ) -> Served {
        framing::unfold(datagram);
        let is_own = socket.local_addr().is_ok_and(|own| own == from);
        let split = cookie::split(datagram).filter(|(cookie, _)| cookie.len() <= COOKIE_MAX);
        let text = split.map_or(&datagram[..], |(_, text)| text).trim_ascii();
        if is_own || is_error(text) || is_error(datagram) {
            return Served::Done;
        }
        if split.is_none_or(|(_, text)| parse(text).is_err()) && !self.may_err(desk.now, from) {
            return Served::Done;
        }
        let Some((cookie, text)) = split else {
            // As RTPproxy says it.
            send(socket, from, b"", b"E5\n");
            return Served::Done;
        };
        self.clear_at.get_or_insert(desk.now + CLEAR_EVERY);
        let Some(repeats) = &mut self.repeats else {
            return Served::Done;
        };
        match repeats.begin(desk.now, from, cookie) {
            Seen::First => {}
            Seen::InFlight => {
                desk.cluster.front.repeated.fetch_add(1, Ordering::Relaxed);
                return Served::Done;
            }
            Seen::Again(reply) => {
                self.again.clear();
                self.again.extend_from_slice(reply);
                desk.cluster.front.repeated.fetch_add(1, Ordering::Relaxed);
                send(socket, from, cookie, &self.again);
                return Served::Done;
            }
            Seen::Later => return Served::Later,
        }
        let asker = Asker {
            socket: Arc::clone(socket),
            from,
            cookie: cookie.into(),
        };
        desk.command(
            text,
            Origin::Ip(from.ip()),
            Client::Datagram(Box::new(asker)),
            who,
        );
        Served::Done
    }

    /// Whether this sender gets one more error.
    fn may_err(&mut self, now: Instant, from: SocketAddr) -> bool {
        self.clear_at.get_or_insert(now + CLEAR_EVERY);
        if self.errors.len() >= ERRONEOUS_MAX && !self.errors.contains_key(&from) {
            return false;
        }
        let errors = self.errors.entry(from).or_default();
        *errors += 1;
        *errors <= ERRORS_OF_ONE
    }

    /// Sends a reply and keeps it for repeats, which may come before it is out.
    pub(super) fn reply(&mut self, now: Instant, asker: &Asker, text: &[u8]) {
        if let Some(repeats) = &mut self.repeats {
            repeats.done(now, asker.from, &asker.cookie, text);
        }
        send(&asker.socket, asker.from, &asker.cookie, text);
    }

    /// A command gets no reply: its repeat is a new command.
    pub(super) fn forsake(&mut self, asker: &Asker) {
        if let Some(repeats) = &mut self.repeats {
            repeats.cancel(asker.from, &asker.cookie);
        }
    }

    /// Clears old replies away now and then, so that a cluster which has gone quiet keeps nothing.
    pub(super) fn clear(&mut self, now: Instant) {
        if self.clear_at.is_none_or(|at| at > now) {
            return;
        }
        self.errors.clear();
        self.clear_at = None;
        if let Some(repeats) = &mut self.repeats {
            repeats.clear_old(now, CLEAR_LOOKS);
            self.clear_at = (!repeats.is_empty()).then_some(now + CLEAR_EVERY);
        }
    }
}

/// Whether a text is an error reply: `E` and a number.
fn is_error(text: &[u8]) -> bool {
    let code = text.trim_ascii().strip_prefix(b"E").unwrap_or_default();
    !code.is_empty() && code.iter().all(u8::is_ascii_digit)
}

/// A reply that the system does not take is lost, as datagrams may be: the client asks again.
fn send(socket: &UdpSocket, to: SocketAddr, cookie: &[u8], text: &[u8]) {
    let parts = [IoSlice::new(cookie), IoSlice::new(b" "), IoSlice::new(text)];
    // What has no cookie has no blank either.
    let parts = parts
        .get(if cookie.is_empty() { 2 } else { 0 }..)
        .unwrap_or_default();
    rustix::net::sendmsg_addr(
        socket,
        &to,
        parts,
        &mut SendAncillaryBuffer::default(),
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )
    .ok();
}

#[cfg(test)]
mod tests {
    use super::super::super::bench::Bench;
    use super::*;

    #[test]
    fn who_had_too_many_in_flight_goes_on_though_nobody_sends_another() {
        let mut bench = Bench::new();
        let (_, member) = bench.udp_member();
        member.set_nonblocking(true).unwrap();
        let address = bench.open_udp();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        let all = repeat::YOUNG_OF_ONE + 20;
        for n in 0..all {
            let command = format!("{n} D call{n} a b");
            client.send_to(command.as_bytes(), address).unwrap();
            if n % 64 == 0 {
                bench.turn();
            }
        }
        // The last of them is asked for at the member, sooner or later.
        let last = format!("call{}", all - 1);
        let mut buffer = [0; 1024];
        bench.run_until(|_| {
            while let Ok(length) = member.recv(&mut buffer) {
                if String::from_utf8_lossy(&buffer[..length]).contains(&last) {
                    return true;
                }
            }
            false
        });
    }

    #[test]
    fn what_could_be_an_answer_is_known() {
        assert!(is_error(b" E5\n") && is_error(b"E999"));
        assert!(!is_error(b"E") && !is_error(b"E5x") && !is_error(b"V"));
    }
}
