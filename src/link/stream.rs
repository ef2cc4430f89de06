//! A member over a kept connection (CUNIX, TCP): commands go out as they come, replies come back in the same
//! order. The reply thread makes the connection when there is something to send, and makes it anew when it
//! breaks: what had no byte of a reply yet and may be repeated goes out once more.
//!
//! - A connection that could not be made is not tried again before a pause: until then commands are refused.
//! - A reply that can be none ends the connection: which of the next replies is whose, nobody would know.
//! - A connection that takes no more has a member that does not read, and loses commands as the network loses
//!   datagrams. It is kept: when the member reads again, it does what it was sent in the order in which it was sent,
//!   a session and then its undoing. On another connection it might do that the other way round.

use core::mem;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use socket2::{Domain, SockAddr, Socket, Type};

use super::resolver_thread::Resolver;
use super::{
    CONNECT_WITHIN, Label, REPLY_MAX, Refused, Sink, bind_source, is_our_fault, is_plausible, reply_length,
};
use crate::config::model::{Address, Member};
use crate::dispatch::ANSWER_WITHIN;
use crate::protocol::cookie::Cookie;
use crate::rim::backoff::Backoff;
use crate::rim::{Thread, idle, now, spawn};

/// Commands on the connection or waiting for it; more are failed over like those of a silent member.
const QUEUE: usize = 4096;
/// Pauses between tries to connect. The longest is well below the time in which a member that is back is to be
/// online, and the probes of an offline member are all that asks for a connection.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
/// Between two tries when the member's queue of connections is full.
const BUSY: Duration = Duration::from_millis(10);
/// What a host has not acknowledged for so long is lost, and the connection with it: without that a host that has
/// lost its power is asked again for minutes, at ever longer intervals, when it has long been back.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);
/// A connection on which the member owes a reply for so long is given up, if the member is offline.
const OWED: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Waiting {
    cookie: Cookie,
    again: bool,
    since: Instant,
    text: Box<[u8]>,
}

#[derive(Debug)]
struct State {
    /// The connection, while there is one.
    open: Option<Arc<Socket>>,
    /// The one that is being made.
    coming: Option<Arc<Socket>>,
    /// Commands sent and not answered, in order; without a connection: to be sent.
    waiting: VecDeque<Waiting>,
    backoff: Backoff,
    /// The rest of a command that the connection has taken in part.
    rest: Vec<u8>,
    /// What is on this connection is not to be sent again when it breaks.
    given_up: bool,
    stopped: bool,
}

impl State {
    /// Writes what the connection takes without waiting, and says whether the command is on its way.
    fn put(&mut self, socket: &Socket, text: &[u8]) -> bool {
        if !self.put_rest(socket) {
            return false;
        }
        match rustix::net::send(socket, text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => {
                self.rest.extend_from_slice(text.get(sent..).unwrap_or_default());
                true
            }
            Err(Errno::AGAIN | Errno::NOBUFS) => false,
            // It has broken, which the reader sees by itself.
            Err(_) => true,
        }
    }

    /// Writes the rest of a command; says whether all of it is written.
    fn put_rest(&mut self, socket: &Socket) -> bool {
        if !self.rest.is_empty()
            && let Ok(sent) = rustix::net::send(socket, &self.rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        {
            self.rest.drain(..sent.min(self.rest.len()));
        }
        self.rest.is_empty()
    }
}

/// The link of one member.
#[derive(Debug)]
pub struct Stream {
    member: Member,
    label: Label,
    state: Mutex<State>,
    wanted: Condvar,
    /// Where the address is a name.
    resolver: OnceLock<Resolver>,
    thread: Mutex<Option<Thread>>,
}

impl Stream {
    /// No connection is made before the first command.
    ///
    /// # Errors
    /// When there is no socket or thread to be had, or the source address is not ours.
    pub fn open(member: &Member, label: Label, sink: Arc<dyn Sink>) -> io::Result<Arc<Self>> {
        if !member.protocol.is_local() {
            bind_source(&socket(member)?, member)?;
        }
        let stream = Arc::new(Self {
            member: member.clone(),
            label,
            state: Mutex::new(State {
                open: None,
                coming: None,
                waiting: VecDeque::new(),
                backoff: BACKOFF,
                rest: Vec::new(),
                given_up: false,
                stopped: false,
            }),
            wanted: Condvar::new(),
            resolver: OnceLock::new(),
            thread: Mutex::new(None),
        });
        if let Address::Host(..) = member.address {
            // The next connection goes there.
            let resolver = Resolver::start(member, label, |_| ())?;
            // It is set here alone.
            stream.resolver.set(resolver).ok();
        }
        let reader = Arc::clone(&stream);
        let name = format!("reply-{}.{}", label.cluster, label.member.index);
        *stream.thread.lock() = Some(spawn(name, move || reader.run(&*sink))?);
        Ok(stream)
    }

    /// The order of the queue must be that of the wire, so the lock is held over a send that never waits.
    pub(super) fn send(&self, cookie: Cookie, again: bool, text: &[u8]) -> Result<(), Refused> {
        let since = now();
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.stopped {
            return Err(Refused);
        }
        if state.open.is_none() && !state.backoff.is_over(since) {
            return Err(Refused);
        }
        let open = state.open.clone();
        let taken = state.waiting.len() < QUEUE && open.as_ref().is_none_or(|socket| state.put(socket, text));
        // Else it waits for its time-out as if the member were silent, which it is.
        if taken {
            state.waiting.push_back(Waiting {
                cookie,
                again,
                since,
                text: text.into(),
            });
        }
        if open.is_none() {
            self.wanted.notify_one();
        }
        Ok(())
    }

    pub(super) fn is_at(&self, address: IpAddr) -> bool {
        match &self.member.address {
            Address::Ip(member) => member.ip() == address,
            _ => self
                .resolver
                .get()
                .is_some_and(|resolver| resolver.is_at(address)),
        }
    }

    /// The member is offline. After a long while it gets another connection: there may be something wrong with
    /// this one alone.
    pub(super) fn refresh(&self) {
        if let Some(resolver) = self.resolver.get() {
            resolver.refresh();
        }
        let mut state = self.state.lock();
        let since = state.waiting.front().map(|waiting| waiting.since);
        if since.is_some_and(|since| now() > since + OWED)
            && let Some(socket) = &state.open
        {
            rustix::net::shutdown(&**socket, Shutdown::Both).ok();
            state.given_up = true;
        }
    }

    pub(super) fn stop(&self) {
        if let Some(resolver) = self.resolver.get() {
            resolver.stop();
        }
        let mut state = self.state.lock();
        state.stopped = true;
        for socket in [&state.open, &state.coming].into_iter().flatten() {
            // An error means that there is nothing to end.
            rustix::net::shutdown(&**socket, Shutdown::Both).ok();
        }
        self.wanted.notify_one();
    }

    pub(super) fn close(&self) {
        self.stop();
        if let Some(resolver) = self.resolver.get() {
            resolver.close();
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }

    fn run(&self, sink: &dyn Sink) {
        let mut told = None;
        while self.wait_for_work() {
            match self.connect() {
                Ok(socket) => {
                    told = None;
                    self.publish(&socket, sink);
                    let partial = self.read(&socket, sink);
                    self.broke(partial, sink);
                }
                Err(error) => self.failed(&error, &mut told, sink),
            }
        }
        self.broke(false, sink);
    }

    /// Waits until there is something to send; false when the link is closed.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.stopped {
            idle(|| self.wanted.wait(&mut state));
        }
        !state.stopped
    }

    fn connect(&self) -> io::Result<Arc<Socket>> {
        let until = now() + CONNECT_WITHIN;
        if let Address::Path(path) = &self.member.address {
            return self.connect_local(&SockAddr::unix(path)?, until);
        }
        let to: Option<SocketAddr> = match &self.member.address {
            Address::Ip(address) => Some(*address),
            _ => self.resolver.get().and_then(Resolver::known),
        };
        // The look-up tells why there is none.
        let to = to.ok_or(io::ErrorKind::NotFound)?;
        let socket = socket(&self.member)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        bind_source(&socket, &self.member)?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(socket);
        self.come(Some(&socket))?;
        let result = finish(&socket, socket.connect(&to.into()), until);
        self.come(None)?;
        result?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }

    /// Over a UNIX socket a connection is there at once, or the member has not taken others for too long.
    fn connect_local(&self, to: &SockAddr, until: Instant) -> io::Result<Arc<Socket>> {
        let socket = socket(&self.member)?;
        socket.set_nonblocking(true)?;
        while let Err(error) = socket.connect(to) {
            let mut state = self.state.lock();
            if error.kind() != io::ErrorKind::WouldBlock || state.stopped || now() >= until {
                return Err(error);
            }
            idle(|| self.wanted.wait_for(&mut state, BUSY));
        }
        socket.set_nonblocking(false)?;
        Ok(Arc::new(socket))
    }

    /// Says which connection is being made, so that the link's end finds it.
    fn come(&self, socket: Option<&Arc<Socket>>) -> io::Result<()> {
        let mut state = self.state.lock();
        state.coming = socket.cloned();
        if state.stopped {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// There is no connection to be had. What waits for one has failed.
    fn failed(&self, error: &io::Error, told: &mut Option<io::ErrorKind>, sink: &dyn Sink) {
        let (failed, stopped) = {
            let mut state = self.state.lock();
            state.backoff.failed(now());
            (mem::take(&mut state.waiting), state.stopped)
        };
        // That nobody listens is told as the member's state. Anything else is worth a line, once.
        let plain = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&error.kind());
        if told.replace(error.kind()) != Some(error.kind()) && !plain && !stopped {
            log::warn!("member {} ({}): {error}", self.member.name, self.member.address);
        }
        let from = self.label.member;
        if is_our_fault(error) {
            for waiting in failed {
                sink.broken(from, waiting.cookie);
            }
        } else if !failed.is_empty() {
            sink.refused(from);
        }
    }

    /// The connection is there: what waited for it goes out, and what comes goes straight.
    fn publish(&self, socket: &Arc<Socket>, sink: &dyn Sink) {
        let mut failed = Vec::new();
        {
            let mut state = self.state.lock();
            state.rest.clear();
            for waiting in mem::take(&mut state.waiting) {
                if failed.is_empty() && state.put(socket, &waiting.text) {
                    state.waiting.push_back(waiting);
                } else {
                    failed.push(waiting.cookie);
                }
            }
            state.open = Some(Arc::clone(socket));
            if state.stopped {
                rustix::net::shutdown(&**socket, Shutdown::Both).ok();
            }
        }
        for cookie in failed {
            sink.broken(self.label.member, cookie);
        }
    }

    /// Reads replies until the connection breaks; says whether it broke within a reply.
    fn read(&self, socket: &Socket, sink: &dyn Sink) -> bool {
        let mut buffer = vec![0; 2 * REPLY_MAX];
        let mut filled = 0;
        let mut works = false;
        loop {
            let mut reader = socket;
            let read = match idle(|| reader.read(buffer.get_mut(filled..).unwrap_or_default())) {
                Ok(0) => {
                    // It has ended and may be starting again. RTPproxy binds its port without SO_REUSEADDR, and could
                    // not for a minute if this connection were closed in the usual way, which it would remember.
                    socket.set_linger(Some(Duration::ZERO)).ok();
                    return filled > 0;
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return filled > 0,
            };
            {
                let mut state = self.state.lock();
                if !mem::replace(&mut works, true) {
                    state.backoff.worked();
                }
                // It reads again.
                state.put_rest(socket);
            }
            filled += read;
            let Some(taken) = self.hand_out(buffer.get(..filled).unwrap_or_default(), sink) else {
                return false;
            };
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
    }

    /// Hands out the whole replies at the start of `bytes`; gives how many bytes they were. `None` when the
    /// member says something that is no reply: the connection cannot be trusted any more.
    fn hand_out(&self, bytes: &[u8], sink: &dyn Sink) -> Option<usize> {
        let from = self.label.member;
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..)?;
            if rest.is_empty() {
                return Some(taken);
            }
            let mut state = self.state.lock();
            let Some(first) = state.waiting.front() else {
                drop(state);
                sink.foreign(from);
                return None;
            };
            let length = reply_length(&first.text, rest);
            if length.is_none() && rest.len() <= REPLY_MAX {
                return Some(taken);
            }
            let waiting = state.waiting.pop_front()?;
            drop(state);
            // Too long to be a reply: an empty text is judged as garbage.
            let length = length.filter(|length| *length <= REPLY_MAX).unwrap_or(0);
            let reply = rest.get(..length).unwrap_or_default().trim_ascii_end();
            sink.reply(from, waiting.cookie, reply);
            if length == 0 || !is_plausible(&waiting.text, reply) {
                return None;
            }
            taken += length;
        }
    }

    /// The connection is gone. What may be repeated stays for the next one, once; the rest has failed. A reply of
    /// which a part had come is not asked for again.
    fn broke(&self, partial: bool, sink: &dyn Sink) {
        let now = now();
        let mut failed = Vec::new();
        {
            let mut state = self.state.lock();
            state.open = None;
            let given_up = mem::take(&mut state.given_up) || state.stopped;
            let waiting = mem::take(&mut state.waiting);
            for (place, waiting) in waiting.into_iter().enumerate() {
                let cut = partial && place == 0;
                // One that is older has been answered for by others.
                let fresh = now < waiting.since + ANSWER_WITHIN;
                if waiting.again && fresh && !cut && !given_up {
                    state.waiting.push_back(Waiting {
                        again: false,
                        ..waiting
                    });
                } else {
                    failed.push(waiting.cookie);
                }
            }
        }
        for cookie in failed {
            sink.broken(self.label.member, cookie);
        }
    }
}

fn socket(member: &Member) -> io::Result<Socket> {
    let domain = match (member.protocol.is_local(), member.protocol.is_v6()) {
        (true, _) => Domain::UNIX,
        (false, true) => Domain::IPV6,
        (false, false) => Domain::IPV4,
    };
    Socket::new(domain, Type::STREAM, None)
}

/// Waits for a connection that has begun.
fn finish(socket: &Socket, begun: io::Result<()>, until: Instant) -> io::Result<()> {
    let under_way = |error: &io::Error| error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error());
    match begun {
        Err(error) if under_way(&error) => {}
        done => return done,
    }
    loop {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(socket, PollFlags::OUT)];
        match idle(|| poll(&mut fds, Some(&timeout))) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => {
                return match socket.take_error()? {
                    Some(error) => Err(error),
                    None => socket.peer_addr().map(|_| ()),
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
}
