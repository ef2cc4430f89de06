//! The relay thread: takes lines from members and hands each to the socket of the SIP server that it names. It
//! waits in one poll over everybody, for nobody in particular.
//!
//! - Only addresses of members of the cluster may connect; whoever else does is closed at once and counted.
//! - A member's connection is never closed for being idle: RTPproxy keeps one for all its notifications, and the
//!   first line written to one that we had closed would be lost. Peers that are gone are found by keepalive.
//! - Whatever a member sends, memory is bounded: see the constants here, in `lines.rs` and in `outlet.rs`.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};

use super::Inbox;
use super::lines::Lines;
use super::outlet::Outlet;
use crate::cluster::Cluster;
use crate::dispatch::rewrite::{Addressee, split_notification};
use crate::rim::throttle::Throttle;
use crate::rim::{idle, now};
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

/// A member's connection.
struct Inbound {
    stream: TcpStream,
    from: IpAddr,
    lines: Lines,
    closed: bool,
}

struct Relaying<'a> {
    cluster: &'a Cluster,
    port: Arc<BoundPort<TcpListener>>,
    inbox: Inbox,
    /// Oldest first.
    inbound: Vec<Inbound>,
    outlets: Vec<Outlet>,
    buffer: Box<[u8]>,
    paused_until: Option<Instant>,
    strangers: Throttle,
    strays: Throttle,
    failures: Throttle,
    overflows: Throttle,
    pauses: Throttle,
}

/// Serves the relay until the other end of the inbox is closed.
pub fn run(cluster: &Arc<Cluster>, port: Arc<BoundPort<TcpListener>>, inbox: Inbox) {
    let mut relaying = Relaying {
        cluster,
        port,
        inbox,
        inbound: Vec::new(),
        outlets: Vec::new(),
        buffer: vec![0; READ].into(),
        paused_until: None,
        strangers: Throttle::default(),
        strays: Throttle::default(),
        failures: Throttle::default(),
        overflows: Throttle::default(),
        pauses: Throttle::default(),
    };
    while relaying.turn() {}
}

impl Relaying<'_> {
    /// Waits for something to do and does it; false when told to stop.
    fn turn(&mut self) -> bool {
        let due = self.outlets.iter().filter_map(Outlet::due);
        let timeout = due.chain(self.paused_until).min().map(|at| {
            let span = at.saturating_duration_since(now());
            Timespec {
                tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(span.subsec_nanos()),
            }
        });
        let accepting = if self.paused_until.is_none() {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = vec![
            PollFd::new(&self.inbox.woken, PollFlags::IN),
            PollFd::new(&self.port.socket, accepting),
        ];
        fds.extend(
            self.inbound
                .iter()
                .map(|inbound| PollFd::new(&inbound.stream, PollFlags::IN)),
        );
        let polled: Vec<usize> = (0..self.outlets.len())
            .filter(|place| self.outlets.get(*place).is_some_and(|o| o.interest().is_some()))
            .collect();
        fds.extend(
            self.outlets
                .iter()
                .filter_map(Outlet::interest)
                .map(|(socket, flags)| PollFd::new(socket, flags)),
        );
        match idle(|| poll(&mut fds, timeout.as_ref())) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                log::error!("cluster {}: notifications: poll: {error}", self.cluster.name);
                std::thread::sleep(PAUSE);
            }
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let (woken, acceptable) = (ready.next() == Some(true), ready.next() == Some(true));
        let readable: Vec<bool> = ready.by_ref().take(self.inbound.len()).collect();
        let mut outlets = vec![false; self.outlets.len()];
        for (place, ready) in polled.into_iter().zip(ready) {
            if let Some(outlet) = outlets.get_mut(place) {
                *outlet = ready;
            }
        }
        drop(fds);
        let now = now();
        if woken && !self.take_notices(now) {
            return false;
        }
        for (place, ready) in readable.into_iter().enumerate() {
            if ready {
                self.read(now, place);
            }
        }
        self.inbound.retain(|inbound| !inbound.closed);
        // What is new in the queues goes out at once.
        for place in 0..self.outlets.len() {
            self.serve_outlet(now, place, outlets.get(place) == Some(&true));
        }
        self.paused_until = self.paused_until.filter(|until| *until > now);
        if acceptable {
            self.accept(now);
        }
        true
    }

    /// Takes what the dispatcher says in a member's place; false when the other end is closed.
    fn take_notices(&mut self, now: Instant) -> bool {
        let mut bytes = [0; 512];
        loop {
            match rustix::net::recv(&self.inbox.woken, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        while let Ok(notice) = self.inbox.notices.try_recv() {
            self.queue(now, notice.to, &notice.text);
        }
        true
    }

    /// Accepts who waits, if it is a member.
    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPT_BATCH {
            match self.port.socket.accept() {
                Ok((stream, peer)) => self.admit(now, stream, peer.ip().to_canonical()),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.paused_until = Some(now + PAUSE);
                        if self.pauses.hit(now).is_some() {
                            log::warn!(
                                "cluster {}: notifications: accepting pauses: {error}",
                                self.cluster.name
                            );
                        }
                        return;
                    }
                },
            }
        }
    }

    fn admit(&mut self, now: Instant, stream: TcpStream, from: IpAddr) {
        if !self.cluster.is_member_address(from) {
            return self.turn_away(now, from);
        }
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE.0)
            .with_interval(KEEPALIVE.1)
            .with_retries(KEEPALIVE_TRIES);
        let socket = SockRef::from(&stream);
        if let Err(error) = stream
            .set_nonblocking(true)
            .and_then(|()| socket.set_tcp_keepalive(&keepalive))
        {
            log::debug!(
                "cluster {}: notifications from {from}: {error}",
                self.cluster.name
            );
            return;
        }
        let theirs = self.inbound.iter().filter(|inbound| inbound.from == from).count();
        let pushed_out = if theirs >= INBOUND_PER_ADDRESS {
            self.inbound.iter().position(|inbound| inbound.from == from)
        } else {
            (self.inbound.len() >= INBOUND_MAX).then_some(0)
        };
        if let Some(place) = pushed_out {
            self.inbound.remove(place);
        }
        self.inbound.push(Inbound {
            stream,
            from,
            lines: Lines::default(),
            closed: false,
        });
    }

    fn turn_away(&mut self, now: Instant, from: IpAddr) {
        if let Some(connections) = self.strangers.hit(now) {
            log::warn!(
                "cluster {}: {connections} connection(s) for notifications refused, such as one from {from}, \
                 which is no member's address",
                self.cluster.name
            );
        }
    }

    /// Reads what a member has sent.
    fn read(&mut self, now: Instant, place: usize) {
        let Some(inbound) = self.inbound.get_mut(place) else {
            return;
        };
        let from = inbound.from;
        let length = match rustix::net::recv(&inbound.stream, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => 0,
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(error) => {
                log::debug!(
                    "cluster {}: notifications from {from}: {error}",
                    self.cluster.name
                );
                0
            }
        };
        if length == 0 {
            inbound.closed = true;
            if inbound.lines.has_begun() {
                self.stray(now, from, "half a line");
            }
            return;
        }
        // It may have been taken out of the cluster since it connected.
        if !self.cluster.is_member_address(from) {
            inbound.closed = true;
            return self.turn_away(now, from);
        }
        let Some(prefix) = self.cluster.notify_prefix() else {
            return;
        };
        let mut taken: Vec<Result<(Addressee, Vec<u8>), &'static str>> = Vec::new();
        inbound
            .lines
            .feed(self.buffer.get(..length).unwrap_or_default(), |line| {
                taken.push(match line.map(|line| split_notification(line, &prefix)) {
                    None => Err("a line that is too long"),
                    Some(Err(why)) => Err(why.as_str()),
                    Some(Ok((path, text))) => Ok((Addressee::Path(path), text.to_vec())),
                });
            });
        for line in taken {
            match line {
                Ok((to, text)) => self.queue(now, to, &text),
                Err(what) => self.stray(now, from, what),
            }
        }
    }

    /// A member sent something that can be passed on to nobody.
    fn stray(&mut self, now: Instant, from: IpAddr, what: &str) {
        count(&self.cluster.notify.dropped, 1);
        if let Some(lines) = self.strays.hit(now) {
            log::warn!(
                "cluster {}: {lines} notification(s) that can be delivered to nobody, such as {what} from {from}",
                self.cluster.name
            );
        }
    }

    /// Queues a notification for its socket.
    fn queue(&mut self, now: Instant, to: Addressee, text: &[u8]) {
        let place = self.outlets.iter().position(|outlet| outlet.to == to);
        let place = place.or_else(|| self.open_outlet(now, to));
        let dropped = match place.and_then(|place| self.outlets.get_mut(place)) {
            Some(outlet) => outlet.push(now, text),
            None => 1,
        };
        if dropped == 0 {
            return;
        }
        count(&self.cluster.notify.dropped, dropped);
        self.overflows.count_many(dropped - 1);
        if let Some(dropped) = self.overflows.hit(now) {
            log::warn!(
                "cluster {}: {dropped} notification(s) dropped, the SIP server does not take them",
                self.cluster.name
            );
        }
    }

    /// A place for one more socket; when there are too many, that of one for which nothing waits.
    fn open_outlet(&mut self, now: Instant, to: Addressee) -> Option<usize> {
        if self.outlets.len() >= OUTLETS_MAX {
            let idle = self
                .outlets
                .iter()
                .enumerate()
                .filter(|(_, outlet)| outlet.is_idle());
            let place = idle
                .min_by_key(|(_, outlet)| outlet.used)
                .map(|(place, _)| place)?;
            *self.outlets.get_mut(place)? = Outlet::new(to, now);
            return Some(place);
        }
        self.outlets.push(Outlet::new(to, now));
        Some(self.outlets.len() - 1)
    }

    fn serve_outlet(&mut self, now: Instant, place: usize, ready: bool) {
        let Some(outlet) = self.outlets.get_mut(place) else {
            return;
        };
        let outcome = outlet.turn(now, ready);
        count(&self.cluster.notify.delivered, outcome.written);
        if let Some(error) = outcome.failed
            && let Some(tries) = self.failures.hit(now)
        {
            log::warn!(
                "cluster {}: notifications wait for {}: {error} ({tries} tries in the last minute)",
                self.cluster.name,
                outlet.to
            );
        }
    }
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
