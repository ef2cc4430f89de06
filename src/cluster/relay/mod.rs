//! Disconnect notifications: an RTPproxy tells us that the media of a session has stopped, and we tell the SIP server, on
//! a UNIX socket that the RTPproxy itself cannot reach. Each cluster with a `<disconnect_notify>` has a relay: a TCP
//! socket, and connections that its loop watches with all others.
//!
//! What a member is asked to send, and how that is read again, is pure and in [`crate::dispatch::rewrite`]. The same relay
//! delivers what the dispatcher says in a member's place when that has been offline for too long.
//!
//! - Only addresses of members of the cluster may connect; whoever else does is closed at once and counted.
//! - A member's connection is never closed for being idle: RTPproxy keeps one for all its notifications. It only ever
//!   writes, so an orderly close is invisible to it and swallows its next line: ours is closed with a reset, by whomever.
//! - Whatever a member sends, memory is bounded: see the constants here, in `lines.rs` and in `outlet.rs`.

pub mod lines;
pub mod outlet;

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use mio::Registry;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use slab::Slab;
use socket2::{SockRef, TcpKeepalive};

use self::lines::Lines;
use self::outlet::Outlet;
use super::{Cluster, tokens};
use crate::dispatch::rewrite::{Addressee, Notice, split_notification};
use crate::rim::alarms::Alarms;
use crate::rim::readiness::{Ready, Spot};
use crate::rim::throttle::Throttle;
use crate::sockets::BoundPort;

/// Connections of all members at most. RTPproxy has one for each of its notification targets.
const INBOUND_MAX: usize = 1024;
/// Connections from one address at most; a new one pushes out the oldest, which its member has forgotten.
const INBOUND_PER_ADDRESS: usize = 16;
/// Sockets of the SIP server that are connected or have something waiting, at most. Each worker may have its own.
const OUTLETS_MAX: usize = 256;
/// Connections accepted in a row before the others get their turn.
const ACCEPT_BATCH: usize = 64;
/// How long accepting pauses when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes read from one member before the others get their turn.
const READ: usize = 16 * 1024;
/// Silence after which a member's host is asked whether it is still there, and then how often.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));
/// Questions to which a host may owe an answer.
const KEEPALIVE_TRIES: u32 = 3;

/// What became of notifications, for who shows the cluster.
#[derive(Debug, Default)]
pub struct Counts {
    /// Written to a socket of the SIP server.
    pub delivered: AtomicU64,
    /// Dropped: not for us to deliver, or its socket took too long to take it.
    pub dropped: AtomicU64,
}

/// A relay's socket that is bound and not served yet.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket, which may go on to another cluster.
    pub port: Arc<BoundPort<TcpListener>>,
}

/// A member's connection.
#[derive(Debug)]
struct Inbound {
    stream: TcpStream,
    from: IpAddr,
    /// Which of all: the lowest of them is the oldest.
    order: u64,
    lines: Lines,
}

/// What the loop gives to the relay for a moment.
pub(super) struct Desk<'a> {
    pub(super) now: Instant,
    pub(super) cluster: &'a Cluster,
    pub(super) registry: &'a Registry,
    /// Whether a member is at that address.
    pub(super) is_member: &'a dyn Fn(IpAddr) -> bool,
}

/// A relay at work.
#[derive(Debug)]
pub(super) struct Relay {
    door: Door,
    inbound: Slab<Inbound>,
    order: u64,
    outlets: Slab<Outlet>,
    alarms: Alarms,
    buffer: Box<[u8]>,
    paused_until: Option<Instant>,
    strangers: Throttle,
    strays: Throttle,
    failures: Throttle,
    overflows: Throttle,
    pauses: Throttle,
}

impl Relay {
    /// # Errors
    /// When the socket cannot be watched.
    pub(super) fn new(door: Door, registry: &Registry) -> io::Result<Self> {
        door.port.socket.set_nonblocking(true)?;
        Spot {
            registry,
            base: tokens::RELAY,
        }
        .watch(&door.port.socket, 0)?;
        Ok(Self {
            door,
            inbound: Slab::new(),
            order: 0,
            outlets: Slab::new(),
            alarms: Alarms::default(),
            buffer: vec![0; READ].into(),
            paused_until: None,
            strangers: Throttle::default(),
            strays: Throttle::default(),
            failures: Throttle::default(),
            overflows: Throttle::default(),
            pauses: Throttle::default(),
        })
    }

    /// Its socket goes on to another cluster, or is closed.
    pub(super) fn close(&self, registry: &Registry) {
        Spot { registry, base: 0 }.unwatch(&self.door.port.socket);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        [self.alarms.next(), self.paused_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub(super) fn alarm(&mut self, desk: &Desk<'_>) {
        while let Some(place) = self.alarms.pop(desk.now) {
            self.serve_outlet(desk, place, false);
        }
        if self.paused_until.is_some_and(|until| until <= desk.now) {
            self.paused_until = None;
            self.accept(desk);
        }
    }

    /// One of its descriptors is ready. Says whether there is more to do, which is not told again.
    pub(super) fn ready(&mut self, ready: Ready, desk: &Desk<'_>) -> bool {
        let place = tokens::place(ready.token);
        match tokens::kind(ready.token) {
            tokens::RELAY => {
                self.accept(desk);
                false
            }
            tokens::INBOUND => self.read(desk, place),
            _ => {
                self.serve_outlet(desk, place, true);
                false
            }
        }
    }

    /// Says something in a member's place.
    pub(super) fn tell(&mut self, desk: &Desk<'_>, notice: Notice) {
        self.queue(desk, notice.to, &notice.text);
    }

    /// Accepts who waits, if it is a member.
    fn accept(&mut self, desk: &Desk<'_>) {
        for _ in 0..ACCEPT_BATCH {
            if self.paused_until.is_some() {
                return;
            }
            match self.door.port.socket.accept() {
                Ok((stream, peer)) => self.admit(desk, stream, peer.ip().to_canonical()),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.paused_until = Some(desk.now + PAUSE);
                        if self.pauses.hit(desk.now).is_some() {
                            log::warn!(
                                "cluster {}: notifications: accepting pauses: {error}",
                                desk.cluster.name
                            );
                        }
                    }
                },
            }
        }
        // Who is still waiting has its turn after the others.
        self.paused_until = Some(desk.now);
    }

    fn admit(&mut self, desk: &Desk<'_>, stream: TcpStream, from: IpAddr) {
        if !(desk.is_member)(from) {
            return self.turn_away(desk, from);
        }
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE.0)
            .with_interval(KEEPALIVE.1)
            .with_retries(KEEPALIVE_TRIES);
        let socket = SockRef::from(&stream);
        let theirs = self.inbound.iter().filter(|(_, inbound)| inbound.from == from);
        let oldest_of = |all: &mut dyn Iterator<Item = (usize, &Inbound)>| {
            all.min_by_key(|(_, inbound)| inbound.order)
                .map(|(place, _)| place)
        };
        let pushed_out = if theirs.clone().count() >= INBOUND_PER_ADDRESS {
            oldest_of(&mut theirs.clone())
        } else if self.inbound.len() >= INBOUND_MAX {
            oldest_of(&mut self.inbound.iter())
        } else {
            None
        };
        if let Some(place) = pushed_out {
            self.inbound.remove(place);
        }
        let entry = self.inbound.vacant_entry();
        let spot = Spot {
            registry: desk.registry,
            base: tokens::INBOUND + entry.key(),
        };
        // Whoever closes it, the system for one that was killed, resets it.
        let made = stream
            .set_nonblocking(true)
            .and_then(|()| socket.set_linger(Some(Duration::ZERO)))
            .and_then(|()| socket.set_tcp_keepalive(&keepalive))
            .and_then(|()| spot.watch(&stream, 0));
        if let Err(error) = made {
            log::debug!(
                "cluster {}: notifications from {from}: {error}",
                desk.cluster.name
            );
            return;
        }
        self.order += 1;
        entry.insert(Inbound {
            stream,
            from,
            order: self.order,
            lines: Lines::default(),
        });
    }

    fn turn_away(&mut self, desk: &Desk<'_>, from: IpAddr) {
        if let Some(connections) = self.strangers.hit(desk.now) {
            log::warn!(
                "cluster {}: {connections} connection(s) for notifications refused, such as one from {from}, \
                 which is no member's address",
                desk.cluster.name
            );
        }
    }

    /// Reads what a member has sent. Says whether there may be more.
    fn read(&mut self, desk: &Desk<'_>, place: usize) -> bool {
        let Some(inbound) = self.inbound.get_mut(place) else {
            return false;
        };
        let from = inbound.from;
        let length = match rustix::net::recv(&inbound.stream, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => length,
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => return true,
            Err(error) => {
                log::debug!(
                    "cluster {}: notifications from {from}: {error}",
                    desk.cluster.name
                );
                0
            }
        };
        if length == 0 {
            let is_half = inbound.lines.has_begun();
            self.inbound.remove(place);
            if is_half {
                self.stray(desk, from, "half a line");
            }
            return false;
        }
        // It may have been taken out of the cluster since it connected.
        if !(desk.is_member)(from) {
            self.inbound.remove(place);
            self.turn_away(desk, from);
            return false;
        }
        let Some((prefix, tcp)) = desk.cluster.notify_prefix() else {
            return true;
        };
        let mut taken: Vec<Result<(Addressee, Vec<u8>), &'static str>> = Vec::new();
        inbound
            .lines
            .feed(self.buffer.get(..length).unwrap_or_default(), |line| {
                taken.push(match line.map(|line| split_notification(line, &prefix, tcp)) {
                    None => Err("a line that is too long"),
                    Some(Err(why)) => Err(why.as_str()),
                    Some(Ok((to, text))) => Ok((to, text.to_vec())),
                });
            });
        for line in taken {
            match line {
                Ok((to, text)) => self.queue(desk, to, &text),
                Err(what) => self.stray(desk, from, what),
            }
        }
        true
    }

    /// A member sent something that can be passed on to nobody.
    fn stray(&mut self, desk: &Desk<'_>, from: IpAddr, what: &str) {
        count(&desk.cluster.notify.dropped, 1);
        if let Some(lines) = self.strays.hit(desk.now) {
            log::warn!(
                "cluster {}: {lines} notification(s) that can be delivered to nobody, such as {what} from {from}",
                desk.cluster.name
            );
        }
    }

    /// Queues a notification for its socket, and sends it if it takes it.
    fn queue(&mut self, desk: &Desk<'_>, to: Addressee, text: &[u8]) {
        let known = self.outlets.iter().find(|(_, outlet)| outlet.to == to);
        let place = known.map(|(place, _)| place);
        let place = place.unwrap_or_else(|| self.open_outlet(desk, to));
        if let Some(outlet) = self.outlets.get_mut(place) {
            let dropped = outlet.push(desk.now, text);
            self.dropped(desk, dropped);
        }
        self.serve_outlet(desk, place, false);
    }

    fn dropped(&mut self, desk: &Desk<'_>, dropped: u64) {
        if dropped == 0 {
            return;
        }
        count(&desk.cluster.notify.dropped, dropped);
        self.overflows.count_many(dropped - 1);
        if let Some(dropped) = self.overflows.hit(desk.now) {
            log::warn!(
                "cluster {}: {dropped} notification(s) dropped, the SIP server does not take them",
                desk.cluster.name
            );
        }
    }

    /// A place for one more socket. When there are too many, that of the one that is worth least.
    fn open_outlet(&mut self, desk: &Desk<'_>, to: Addressee) -> usize {
        let least = self.outlets.iter().min_by_key(|(_, outlet)| outlet.worth());
        if let Some((place, _)) = least.filter(|_| self.outlets.len() >= OUTLETS_MAX) {
            let gone = self.outlets.remove(place);
            self.dropped(desk, gone.waiting());
        }
        let from = desk.cluster.own_address();
        self.outlets.insert(Outlet::new(to, from, desk.now))
    }

    fn serve_outlet(&mut self, desk: &Desk<'_>, place: usize, ready: bool) {
        let Some(outlet) = self.outlets.get_mut(place) else {
            return;
        };
        let spot = Spot {
            registry: desk.registry,
            base: tokens::OUTLET + place,
        };
        let outcome = outlet.turn(desk.now, ready, spot);
        count(&desk.cluster.notify.delivered, outcome.written);
        if let Some(error) = outcome.failed
            && let Some(tries) = self.failures.hit(desk.now)
        {
            log::warn!(
                "cluster {}: notifications wait for {}: {error} ({tries} tries in the last minute)",
                desk.cluster.name,
                outlet.to
            );
        }
        if outlet.is_given_up(desk.now) {
            let gone = self.outlets.remove(place);
            self.dropped(desk, gone.waiting());
            return;
        }
        self.alarms.set(place, outlet.due());
    }
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
