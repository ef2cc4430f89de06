//! A member over a kept connection (CUNIX, TCP): commands go out as they come, replies come back in the same order. The
//! connection is made when there is something to send, and made anew when it breaks: what had no byte of a reply yet
//! and may be repeated goes out once more.
//!
//! - A connection that could not be made is not tried again before a pause: until then commands are refused.
//! - A reply that can be none ends the connection: which of the next replies is whose, nobody would know. So does one that
//!   comes when its command has been given up: a member that once swallowed a command would be behind by one for ever.
//! - A connection that takes no more has a member that does not read, and loses commands as the network loses
//!   datagrams. It is kept: when the member reads again, it does what it was sent in the order in which it was sent,
//!   a session and then its undoing. On another connection it might do that the other way round.

use core::mem;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    ANSWER_WITHIN, CONNECT_WITHIN, REPLY_MAX, Refused, Sink, bind_source, is_our_fault, is_plausible,
    keep_first, reply_length,
};
use crate::config::model::{Address, Member};
use crate::protocol::cookie::Cookie;
use crate::rim::backoff::Backoff;
use crate::rim::readiness::Spot;

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

#[derive(Debug)]
struct Waiting {
    cookie: Cookie,
    again: bool,
    since: Instant,
    text: Box<[u8]>,
}

/// The connection.
#[derive(Debug)]
enum Connection {
    None,
    /// The member takes no connection for the moment: tried again then, up to a deadline.
    Busy {
        again: Instant,
        until: Instant,
    },
    /// Under way up to that moment.
    Coming(Socket, Instant),
    Open(Socket),
}

/// The link of one member.
#[derive(Debug)]
pub struct Stream {
    member: Member,
    /// Where it is, over TCP; the first is used.
    at: Vec<SocketAddr>,
    connection: Connection,
    /// Commands sent and not answered, in order; without a connection: to be sent.
    waiting: VecDeque<Waiting>,
    backoff: Backoff,
    /// Why the last try to connect failed.
    failed: Refused,
    /// The rest of a command that the connection has taken in part.
    rest: Vec<u8>,
    /// What has been read and is no whole reply yet.
    read: Vec<u8>,
    told: Option<Refused>,
}

impl Stream {
    /// No connection is made before the first command.
    ///
    /// # Errors
    /// When there is no socket to be had, or the source address is not ours.
    pub fn open(member: &Member) -> io::Result<Self> {
        if !member.protocol.is_local() {
            bind_source(&socket(member)?, member)?;
        }
        let at = match member.address {
            Address::Ip(address) => vec![address],
            _ => Vec::new(),
        };
        Ok(Self {
            member: member.clone(),
            at,
            connection: Connection::None,
            waiting: VecDeque::new(),
            backoff: BACKOFF,
            failed: Refused::NOWHERE,
            rest: Vec::new(),
            read: Vec::new(),
            told: None,
        })
    }

    pub(super) fn send(
        &mut self,
        now: Instant,
        cookie: Cookie,
        again: bool,
        text: &[u8],
        spot: Spot<'_>,
    ) -> Result<(), Refused> {
        if matches!(self.connection, Connection::None) {
            if !self.backoff.is_over(now) {
                return Err(self.failed);
            }
            self.connect(now, now + CONNECT_WITHIN, spot)
                .map_err(|error| self.could_not(now, &error))?;
        }
        if self.waiting.len() >= QUEUE {
            // It waits for its time-out as if the member were silent, which it is.
            return Ok(());
        }
        if !matches!(self.connection, Connection::Open(_)) || self.put(text) {
            self.waiting.push_back(Waiting {
                cookie,
                again,
                since: now,
                text: text.into(),
            });
        }
        Ok(())
    }

    pub(super) fn ready(&mut self, now: Instant, spot: Spot<'_>, sink: &mut dyn Sink) {
        match mem::replace(&mut self.connection, Connection::None) {
            Connection::Coming(socket, until) => match came(&socket) {
                Ok(true) => self.opened(now, socket, spot, sink),
                Ok(false) => self.connection = Connection::Coming(socket, until),
                Err(error) => self.failed(now, &error, sink),
            },
            Connection::Open(socket) => {
                self.connection = Connection::Open(socket);
                self.put_rest();
                if let Some(partial) = self.read(now, sink) {
                    self.broke(now, partial, false, spot, sink);
                }
            }
            other => self.connection = other,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self.connection {
            Connection::Busy { again, .. } => Some(again),
            Connection::Coming(_, until) => Some(until),
            _ => None,
        }
    }

    pub(super) fn alarm(&mut self, now: Instant, spot: Spot<'_>, sink: &mut dyn Sink) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let result = match self.connection {
            Connection::Busy { until, .. } => self.connect(now, until, spot),
            _ => Err(io::ErrorKind::TimedOut.into()),
        };
        match result {
            Err(error) => self.failed(now, &error, sink),
            Ok(()) => self.put_waiting(sink),
        }
    }

    pub(super) fn move_to(&mut self, addresses: &[SocketAddr]) {
        // The next connection goes there.
        keep_first(&mut self.at, addresses);
    }

    pub(super) fn at(&self) -> &[SocketAddr] {
        &self.at
    }

    pub(super) fn renew(&mut self, now: Instant, owed: Duration, spot: Spot<'_>, sink: &mut dyn Sink) {
        let since = self.waiting.front().map(|waiting| waiting.since);
        if matches!(self.connection, Connection::Open(_)) && since.is_some_and(|since| now >= since + owed) {
            self.broke(now, false, true, spot, sink);
        }
    }

    /// Begins a connection. One over a UNIX socket is there at once, unless the member's queue of connections is full.
    fn connect(&mut self, now: Instant, until: Instant, spot: Spot<'_>) -> io::Result<()> {
        let to = match (&self.member.address, self.at.first()) {
            (Address::Path(path), _) => SockAddr::unix(path)?,
            (_, Some(address)) => SockAddr::from(*address),
            (_, None) => return Err(io::Error::from(Refused::NOWHERE.0)),
        };
        self.connection = match self.dial(&to, until, spot) {
            // Its queue of connections is full, or we have no descriptor to give: that may be over in a moment.
            Err(error)
                if now < until && (error.kind() == io::ErrorKind::WouldBlock || is_our_fault(&error)) =>
            {
                Connection::Busy {
                    again: now + BUSY,
                    until,
                }
            }
            dialled => dialled?,
        };
        Ok(())
    }

    fn dial(&self, to: &SockAddr, until: Instant, spot: Spot<'_>) -> io::Result<Connection> {
        let socket = socket(&self.member)?;
        socket.set_nonblocking(true)?;
        if !self.member.protocol.is_local() {
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
            bind_source(&socket, &self.member)?;
        }
        match socket.connect(to) {
            Ok(()) => {
                spot.watch(&socket, 0)?;
                Ok(Connection::Open(socket))
            }
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
                spot.watch_both(&socket, 0)?;
                Ok(Connection::Coming(socket, until))
            }
            Err(error) => Err(error),
        }
    }

    /// The connection is there.
    fn opened(&mut self, now: Instant, socket: Socket, spot: Spot<'_>, sink: &mut dyn Sink) {
        if let Err(error) = spot.rewatch(&socket, 0, false) {
            return self.failed(now, &error, sink);
        }
        self.connection = Connection::Open(socket);
        self.put_waiting(sink);
    }

    /// What waited for the connection goes out.
    fn put_waiting(&mut self, sink: &mut dyn Sink) {
        if !matches!(self.connection, Connection::Open(_)) {
            return;
        }
        self.told = None;
        let mut full = false;
        for waiting in mem::take(&mut self.waiting) {
            full = full || !self.put(&waiting.text);
            if full {
                sink.broken(waiting.cookie);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    /// There is no connection to be had: says how that is told, once unless it is told as the member's state.
    fn could_not(&mut self, now: Instant, error: &io::Error) -> Refused {
        let why = Refused::from_io(error);
        self.connection = Connection::None;
        self.failed = why;
        // What is short here says nothing of the member: the next command tries again.
        if !is_our_fault(error) {
            self.backoff.failed(now);
        }
        let is_plain = [Errno::CONNREFUSED, Errno::NOENT, Refused::NOWHERE.0].contains(&why.0);
        if self.told.replace(why) != Some(why) && !is_plain {
            log::warn!("member {} ({}): {why}", self.member.name, self.member.address);
        }
        why
    }

    /// What waits for a connection has failed with it.
    fn failed(&mut self, now: Instant, error: &io::Error, sink: &mut dyn Sink) {
        let why = self.could_not(now, error);
        let failed = mem::take(&mut self.waiting);
        if is_our_fault(error) {
            for waiting in failed {
                sink.broken(waiting.cookie);
            }
        } else if !failed.is_empty() {
            sink.refused(why);
        }
    }

    /// Writes what the connection takes without waiting, and says whether the command is on its way.
    fn put(&mut self, text: &[u8]) -> bool {
        if !self.put_rest() {
            return false;
        }
        let Connection::Open(socket) = &self.connection else {
            return false;
        };
        match rustix::net::send(socket, text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => {
                self.rest.extend_from_slice(text.get(sent..).unwrap_or_default());
                true
            }
            Err(Errno::AGAIN | Errno::NOBUFS) => false,
            // It has broken, which its next event says.
            Err(_) => true,
        }
    }

    /// Writes the rest of a command; says whether all of it is written.
    fn put_rest(&mut self) -> bool {
        if !self.rest.is_empty()
            && let Connection::Open(socket) = &self.connection
            && let Ok(sent) = rustix::net::send(socket, &self.rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        {
            self.rest.drain(..sent.min(self.rest.len()));
        }
        self.rest.is_empty()
    }

    /// Reads replies. `Some` when the connection is over: whether it broke within a reply.
    fn read(&mut self, now: Instant, sink: &mut dyn Sink) -> Option<bool> {
        let mut buffer = [0; 2 * REPLY_MAX];
        loop {
            let Connection::Open(socket) = &self.connection else {
                return None;
            };
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    // It has ended and may be starting again. RTPproxy binds its port without SO_REUSEADDR, and could
                    // not for a minute if this connection were closed in the usual way, which it would remember.
                    socket.set_linger(Some(Duration::ZERO)).ok();
                    return Some(!self.read.is_empty());
                }
                Ok((length, _)) => {
                    self.backoff.worked();
                    self.read
                        .extend_from_slice(buffer.get(..length).unwrap_or_default());
                    if !self.hand_out(now, sink) {
                        return Some(false);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => return Some(!self.read.is_empty()),
            }
        }
    }

    /// Hands out the whole replies that have been read. Says no when the connection cannot be trusted any more.
    fn hand_out(&mut self, now: Instant, sink: &mut dyn Sink) -> bool {
        let mut taken = 0;
        let is_sound = loop {
            let rest = self.read.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break true;
            }
            let Some(first) = self.waiting.front() else {
                sink.foreign();
                break false;
            };
            let length = reply_length(&first.text, rest);
            if length.is_none() && rest.len() <= REPLY_MAX {
                break true;
            }
            // Too long to be a reply: an empty text is judged as garbage.
            let length = length.filter(|length| *length <= REPLY_MAX).unwrap_or(0);
            let reply = rest.get(..length).unwrap_or_default().trim_ascii_end();
            let in_time = now < first.since + ANSWER_WITHIN;
            let is_sound = length > 0 && in_time && is_plausible(&first.text, reply);
            sink.reply(first.cookie, reply);
            self.waiting.pop_front();
            if !is_sound {
                break false;
            }
            taken += length;
        };
        self.read.drain(..taken);
        is_sound
    }

    /// The connection is gone. What may be repeated goes out on the next one, once; the rest has failed. A reply of
    /// which a part had come is not asked for again.
    fn broke(&mut self, now: Instant, partial: bool, given_up: bool, spot: Spot<'_>, sink: &mut dyn Sink) {
        self.connection = Connection::None;
        self.rest.clear();
        self.read.clear();
        for (place, waiting) in mem::take(&mut self.waiting).into_iter().enumerate() {
            let cut = partial && place == 0;
            // One that is older has been answered for by others.
            let fresh = now < waiting.since + ANSWER_WITHIN;
            if waiting.again && fresh && !cut && !given_up {
                self.waiting.push_back(Waiting {
                    again: false,
                    ..waiting
                });
            } else {
                sink.broken(waiting.cookie);
            }
        }
        if self.waiting.is_empty() {
            return;
        }
        match self.connect(now, now + CONNECT_WITHIN, spot) {
            Ok(()) => self.put_waiting(sink),
            Err(error) => self.failed(now, &error, sink),
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

/// Whether a connection that was under way is there.
fn came(socket: &Socket) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::Link;
    use super::super::bench::{Bench, Heard, path};
    use super::*;
    use crate::config::model::Protocol;
    use crate::rim;

    fn bench(test: &str) -> (UnixListener, Bench) {
        Bench::listening(Protocol::Cunix, test)
    }

    fn accepted(listener: &UnixListener) -> BufReader<UnixStream> {
        BufReader::new(listener.accept().unwrap().0)
    }

    fn line(member: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        member.read_line(&mut line).unwrap();
        line
    }

    fn say(member: &mut BufReader<UnixStream>, text: &str) {
        member.get_mut().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn replies_are_those_of_the_commands_in_their_order() {
        let (listener, mut bench) = bench("order");
        bench.send(1, true, "V").unwrap();
        bench.send(2, true, "Ib").unwrap();
        let mut member = accepted(&listener);
        assert_eq!(
            (line(&mut member), line(&mut member)),
            ("V\n".into(), "Ib\n".into())
        );
        say(&mut member, "20040107\na: 1\nb: 1\nc: 1\n");
        bench.run_until(|bench| bench.heard.replies.len() == 1);
        say(&mut member, "d: 1\ne: 1\n");
        bench.run_until(|bench| bench.heard.replies.len() == 2);
        assert_eq!(
            bench.heard.replies,
            [(1, "20040107".into()), (2, "a: 1\nb: 1\nc: 1\nd: 1\ne: 1".into())]
        );
    }

    #[test]
    fn what_may_be_repeated_goes_out_once_more_on_a_fresh_connection() {
        let (listener, mut bench) = bench("again");
        bench.send(1, true, "V").unwrap();
        bench.send(2, false, "U call").unwrap();
        drop(accepted(&listener));
        bench.run_until(|bench| !bench.heard.broken.is_empty());
        assert_eq!(bench.heard.broken, [2]);
        let mut member = accepted(&listener);
        assert_eq!(line(&mut member), "V\n");
        drop(member);
        bench.run_until(|bench| bench.heard.broken.len() == 2);
        assert_eq!(bench.heard.broken, [2, 1], "and never a third time");
    }

    #[test]
    fn half_a_reply_is_none_and_is_not_asked_for_again() {
        let (listener, mut bench) = bench("half");
        bench.send(1, true, "V").unwrap();
        let mut member = accepted(&listener);
        line(&mut member);
        say(&mut member, "2004");
        drop(member);
        bench.run_until(|bench| !bench.heard.broken.is_empty());
        assert_eq!(bench.heard.replies, []);
    }

    #[test]
    fn a_connection_on_which_a_command_was_swallowed_is_given_up() {
        let (listener, mut bench) = bench("swallow");
        bench.send(1, true, "V").unwrap();
        let mut first = accepted(&listener);
        line(&mut first);
        let late = rim::now() + CONNECT_WITHIN;
        bench.with(|link, spot, heard| link.renew(late, CONNECT_WITHIN * 2, spot, heard));
        assert!(bench.heard.broken.is_empty(), "it may still come");
        let later = late + CONNECT_WITHIN;
        bench.with(|link, spot, heard| link.renew(later, CONNECT_WITHIN, spot, heard));
        assert_eq!(bench.heard.broken, [1]);
        bench.send(2, true, "V").unwrap();
        let mut second = accepted(&listener);
        assert_eq!(line(&mut second), "V\n");
    }

    #[test]
    fn a_member_whose_queue_is_full_is_connected_when_it_takes_one() {
        let path = path("full");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
        let _first = UnixStream::connect(&path).unwrap();
        let mut bench = Bench::new(Protocol::Cunix, Address::Path(path));
        bench.send(1, true, "V").unwrap();
        assert!(bench.link.due().is_some_and(|due| due + BUSY > rim::now()));
        drop(accepted(&listener));
        listener.set_nonblocking(true).unwrap();
        let mut member = None;
        bench.run_until(|_| {
            member = member.take().or_else(|| listener.accept().ok());
            member.is_some()
        });
        let mut member = BufReader::new(member.unwrap().0);
        member.get_ref().set_nonblocking(false).unwrap();
        assert_eq!(line(&mut member), "V\n");
        assert_eq!(bench.heard, Heard::default());
        assert_eq!(bench.link.due(), None);
    }

    #[test]
    fn that_we_are_out_of_descriptors_is_not_held_against_the_member() {
        let (listener, mut bench) = bench("ours");
        let full = io::Error::from(Errno::MFILE);
        bench.with(|link, _, heard| {
            let Link::Stream(stream) = link else { return };
            stream.failed(rim::now(), &full, heard);
        });
        assert_eq!(bench.heard.refused, []);
        // The next command is not refused for a pause.
        bench.send(2, true, "V").unwrap();
        assert_eq!(line(&mut accepted(&listener)), "V\n");
    }

    #[test]
    fn nobody_there_is_told_at_once_and_not_asked_again_before_a_pause() {
        let path = path("nobody");
        let mut bench = Bench::new(Protocol::Cunix, Address::Path(path.clone()));
        assert_eq!(bench.send(1, true, "V"), Err(Refused(Errno::NOENT)));
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(bench.send(2, true, "V"), Err(Refused(Errno::NOENT)));
        bench.run_until(|bench| bench.send(3, true, "V").is_ok());
    }
}
