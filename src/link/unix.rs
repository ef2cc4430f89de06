//! A member over UNIX: a connection carries one command, since RTPproxy closes it after the reply; one that it keeps
//! (`cunix:`) is used again. A bounded few connections carry one command each at a time; the other commands queue, and
//! those of one call are never on two connections at once, so that they reach the member in their order.

use core::hash::Hasher as _;
use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{ANSWER_WITHIN, REPLY_MAX, Refused, Sink, is_our_fault, is_plausible, reply_length};
use crate::protocol::Words;
use crate::protocol::cookie::Cookie;
use crate::rim::readiness::Spot;

/// Connections to one member at the same time.
pub const CONNECTIONS: usize = 8;
/// Commands that wait for a connection: some 60 ms of a member that takes 8 × 1 ms. More are failed over.
const QUEUE: usize = 512;

#[derive(Debug)]
struct Job {
    cookie: Cookie,
    again: bool,
    /// Who sent it has been answered by then: to carry it out later would surprise everybody.
    until: Instant,
    text: Box<[u8]>,
    /// Names the call.
    call: u64,
}

/// A connection: with a job under way, or kept by the member for the next one.
#[derive(Debug)]
struct Connection {
    socket: Socket,
    job: Option<Job>,
    read: Vec<u8>,
}

/// How one try went wrong.
enum Failure {
    /// Nobody listens.
    Refused(Refused),
    /// There is no connection to be had, and that says nothing of the member.
    Ours,
}

/// The link of one member.
#[derive(Debug)]
pub struct Unix {
    path: PathBuf,
    queue: VecDeque<Job>,
    connections: [Option<Connection>; CONNECTIONS],
    /// What failed while something was sent, to be told at the next alarm, which is at once.
    broken: Vec<(Cookie, Instant)>,
    /// Why there was no connection to be had, if that has been told.
    told: Option<Refused>,
}

impl Unix {
    /// No connection is made before the first command.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            queue: VecDeque::new(),
            connections: [const { None }; CONNECTIONS],
            broken: Vec::new(),
            told: None,
        }
    }

    pub(super) fn send(
        &mut self,
        now: Instant,
        cookie: Cookie,
        again: bool,
        text: &[u8],
        spot: Spot<'_>,
    ) -> Result<(), Refused> {
        // With a full queue the command waits for its time-out as if the member were silent, which it is.
        if self.queue.len() < QUEUE {
            self.queue.push_back(Job {
                cookie,
                again,
                until: now + ANSWER_WITHIN,
                text: text.into(),
                call: call_of(text),
            });
        }
        self.pump(now, spot)
    }

    pub(super) fn ready(&mut self, now: Instant, number: usize, spot: Spot<'_>, sink: &mut dyn Sink) {
        self.read(now, number, spot, sink);
        self.go_on(now, spot, sink);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let under_way = self.connections.iter().flatten();
        let jobs = under_way.filter_map(|connection| connection.job.as_ref());
        let jobs = jobs.chain(self.queue.front()).map(|job| job.until);
        jobs.chain(self.broken.first().map(|(_, since)| *since)).min()
    }

    pub(super) fn alarm(&mut self, now: Instant, spot: Spot<'_>, sink: &mut dyn Sink) {
        for place in &mut self.connections {
            let job = place.as_ref().and_then(|connection| connection.job.as_ref());
            if let Some(job) = job.filter(|job| job.until <= now) {
                sink.broken(job.cookie);
                *place = None;
            }
        }
        while let Some(job) = self.queue.front().filter(|job| job.until <= now) {
            sink.broken(job.cookie);
            self.queue.pop_front();
        }
        self.go_on(now, spot, sink);
    }

    /// Gives connections to those who wait, as far as there are any.
    fn go_on(&mut self, now: Instant, spot: Spot<'_>, sink: &mut dyn Sink) {
        if let Err(refused) = self.pump(now, spot) {
            sink.refused(refused);
        }
        for (cookie, _) in self.broken.drain(..) {
            sink.broken(cookie);
        }
    }

    /// # Errors
    /// When nobody listens: all that waits has failed then.
    fn pump(&mut self, now: Instant, spot: Spot<'_>) -> Result<(), Refused> {
        while let Some((number, job)) = self.next_job() {
            if let Err((failure, job)) = self.begin(now, number, job, spot) {
                match failure {
                    Failure::Ours => self.broken.push((job.cookie, now)),
                    Failure::Refused(refused) => {
                        self.queue.clear();
                        return Err(refused);
                    }
                }
            }
        }
        Ok(())
    }

    /// The first command of a call that has none under way, and the number of a connection for it.
    fn next_job(&mut self) -> Option<(usize, Job)> {
        let is_free = |connection: &Option<Connection>| connection.as_ref().is_none_or(|it| it.job.is_none());
        // One that is kept first.
        let kept = self
            .connections
            .iter()
            .position(|connection| connection.is_some() && is_free(connection));
        let number = kept.or_else(|| self.connections.iter().position(is_free))?;
        let under_way = |call: u64| {
            let mut jobs = self.connections.iter().flatten().filter_map(|it| it.job.as_ref());
            jobs.any(|job| job.call == call)
        };
        let place = self.queue.iter().position(|job| !under_way(job.call))?;
        Some((number, self.queue.remove(place)?))
    }

    /// Sends a command over a connection that the member has kept, or over a new one.
    fn begin(&mut self, now: Instant, number: usize, job: Job, spot: Spot<'_>) -> Result<(), (Failure, Job)> {
        let Some(place) = self.connections.get_mut(number) else {
            return Err((Failure::Ours, job));
        };
        if job.until <= now {
            return Err((Failure::Ours, job));
        }
        // An RTPproxy that closes after a reply may be about to, with the next command unread. What must not run twice
        // could not be sent again then, so it gets a connection of its own.
        let usable = place
            .take()
            .filter(|kept| job.again && is_open(&kept.socket))
            .map(|kept| kept.socket);
        // Between that look and this it may have closed all the same.
        let socket = match usable.filter(|socket| takes(socket, &job.text)) {
            Some(socket) => socket,
            None => match connect(&self.path, spot, number) {
                Ok(socket) if takes(&socket, &job.text) => socket,
                Ok(_) => return Err((Failure::Ours, job)),
                Err(error) => {
                    let failure = self.could_not(&error);
                    return Err((failure, job));
                }
            },
        };
        self.told = None;
        *place = Some(Connection {
            socket,
            job: Some(job),
            read: Vec::new(),
        });
        Ok(())
    }

    /// That nobody listens is told as the member's state. Anything else is worth a line, once.
    fn could_not(&mut self, error: &io::Error) -> Failure {
        let why = Refused::from_io(error);
        let is_full = error.kind() == io::ErrorKind::WouldBlock;
        let is_plain = is_full || [Errno::CONNREFUSED, Errno::NOENT].contains(&why.0);
        if !is_plain && self.told.replace(why) != Some(why) {
            log::warn!("member at {}: {why}", self.path.display());
        }
        // A member whose queue of connections is full counts as silent.
        if is_full || is_our_fault(error) {
            Failure::Ours
        } else {
            Failure::Refused(why)
        }
    }

    /// Reads a reply.
    fn read(&mut self, now: Instant, number: usize, spot: Spot<'_>, sink: &mut dyn Sink) {
        let mut buffer = [0; REPLY_MAX + 1];
        loop {
            let Some(place) = self.connections.get_mut(number) else {
                return;
            };
            let Some(connection) = place else { return };
            let received = rustix::net::recv(&connection.socket, &mut buffer[..], RecvFlags::DONTWAIT);
            let length = match received {
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Ok((length, _)) => length,
                Err(_) => 0,
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            // Closed, or something that nobody asked for.
            let Some(job) = connection.job.take_if(|_| length == 0) else {
                if connection.job.is_none() {
                    *place = None;
                    return;
                }
                connection.read.extend_from_slice(bytes);
                self.take_reply(number, sink);
                continue;
            };
            // Half a reply is none.
            let untouched = connection.read.is_empty();
            *place = None;
            if untouched && job.again {
                // Once more, on a fresh connection.
                let retry = Job { again: false, ..job };
                match self.begin(now, number, retry, spot) {
                    Ok(()) => {}
                    Err((Failure::Refused(refused), _)) => sink.refused(refused),
                    Err((Failure::Ours, job)) => sink.broken(job.cookie),
                }
            } else {
                sink.broken(job.cookie);
            }
            return;
        }
    }

    /// Hands the reply out, when it is whole.
    fn take_reply(&mut self, number: usize, sink: &mut dyn Sink) {
        let Some(place) = self.connections.get_mut(number) else {
            return;
        };
        let Some(Connection {
            job: job @ Some(_),
            read,
            ..
        }) = place
        else {
            return;
        };
        let text = job.as_ref().map_or(&[][..], |job| &job.text);
        let length = match reply_length(text, read) {
            Some(length) if length <= REPLY_MAX => length,
            // Too long to be a reply: an empty text is judged as garbage.
            Some(_) => 0,
            None if read.len() > REPLY_MAX => 0,
            None => return,
        };
        let reply = read.get(..length).unwrap_or_default();
        // After more than a reply, or none, nobody knows what the next bytes are.
        let keeps = length == read.len() && is_plausible(text, reply);
        if let Some(job) = job.take() {
            sink.reply(job.cookie, reply.trim_ascii_end());
        }
        read.clear();
        if !keeps {
            *place = None;
        }
    }
}

/// Connects without waiting.
fn connect(path: &Path, spot: Spot<'_>, number: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    spot.watch(&socket, number)?;
    Ok(socket)
}

/// Sends a whole command. A connection with nothing under way takes the longest; one that does not is broken.
fn takes(socket: &Socket, text: &[u8]) -> bool {
    let sent = rustix::net::send(socket, text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    sent == Ok(text.len())
}

/// A kept connection that the member has closed in the meantime, or on which it says something, can be read.
fn is_open(socket: &Socket) -> bool {
    let mut byte = [0];
    let peeked = rustix::net::recv(socket, &mut byte[..], RecvFlags::DONTWAIT | RecvFlags::PEEK);
    matches!(peeked, Err(Errno::AGAIN))
}

/// A number for the call of a command, by its call-id. Two calls of one number take turns, and nothing else.
fn call_of(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(Words::new(text).nth(1).unwrap_or_default());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::bench::{Bench, path};
    use super::*;
    use crate::config::model::{Address, Protocol};
    use crate::rim;

    fn bench(test: &str) -> (UnixListener, Bench) {
        Bench::listening(Protocol::Unix, test)
    }

    fn asked(listener: &UnixListener) -> (UnixStream, String) {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).unwrap();
        (stream, String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn commands_of_one_call_take_turns_and_those_of_others_do_not_wait() {
        let (listener, mut bench) = bench("turns");
        bench.send(1, false, "U call a").unwrap();
        bench.send(2, false, "D call a").unwrap();
        bench.send(3, false, "U other a").unwrap();
        let (mut first, text) = asked(&listener);
        assert_eq!(text, "U call a\n");
        assert_eq!(asked(&listener).1, "U other a\n");
        first.write_all(b"35000\n").unwrap();
        drop(first);
        bench.run_until(|bench| !bench.heard.replies.is_empty());
        assert_eq!(bench.heard.replies, [(1, "35000".into())]);
        assert_eq!(asked(&listener).1, "D call a\n");
    }

    #[test]
    fn what_was_closed_unread_goes_out_once_more_and_half_a_reply_is_none() {
        let (listener, mut bench) = bench("again");
        bench.send(1, true, "V").unwrap();
        drop(asked(&listener));
        bench.run_until(|_| {
            listener.set_nonblocking(true).unwrap();
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.write_all(b"2004").unwrap();
                    true
                }
                Err(_) => false,
            }
        });
        bench.run_until(|bench| !bench.heard.broken.is_empty());
        assert_eq!((bench.heard.broken.len(), bench.heard.replies.len()), (1, 0));
    }

    #[test]
    fn a_connection_that_closes_just_as_it_is_used_again_costs_no_command() {
        let (listener, mut bench) = bench("closes");
        bench.send(1, true, "D call a").unwrap();
        let (mut first, _) = asked(&listener);
        first.write_all(b"0\n").unwrap();
        bench.run_until(|bench| bench.heard.replies.len() == 1);
        // As it is to us between the look and the send: nothing tells, and nothing is taken.
        first.shutdown(std::net::Shutdown::Read).unwrap();
        bench.send(2, true, "U other a").unwrap();
        assert!(
            bench.link.due().is_some_and(|due| due > rim::now()),
            "it is not told as broken"
        );
        let (mut second, text) = asked(&listener);
        assert_eq!(text, "U other a\n");
        second.write_all(b"35000\n").unwrap();
        bench.run_until(|bench| bench.heard.replies.len() == 2);
    }

    #[test]
    fn more_than_it_has_connections_wait_and_the_silent_are_given_up() {
        let (listener, mut bench) = bench("wait");
        let many = u32::try_from(CONNECTIONS).unwrap() + 2;
        for n in 0..many {
            bench.send(n, false, &format!("D call{n} a")).unwrap();
        }
        let members: Vec<_> = (0..CONNECTIONS).map(|_| asked(&listener)).collect();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "the others wait");
        bench.alarm(rim::now() + ANSWER_WITHIN);
        bench.heard.broken.sort_unstable();
        assert_eq!(bench.heard.broken, (0..many).collect::<Vec<u32>>());
        assert_eq!(bench.link.due(), None);
        drop(members);
    }

    #[test]
    fn a_full_queue_of_connections_fails_the_command_and_says_nothing_of_the_member() {
        let path = path("full");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let mut bench = Bench::new(Protocol::Unix, Address::Path(path));
        bench.send(1, true, "V").unwrap();
        assert!(
            bench.link.due().is_some_and(|due| due <= rim::now()),
            "told at once"
        );
        bench.run_until(|bench| !bench.heard.broken.is_empty());
        assert_eq!((bench.heard.broken.len(), bench.heard.refused.len()), (1, 0));
        assert_eq!(bench.link.due(), None);
    }

    #[test]
    fn nobody_there_is_told_by_the_send_itself() {
        let mut bench = Bench::new(Protocol::Unix, Address::Path(path("nobody")));
        assert_eq!(bench.send(1, true, "V"), Err(Refused(Errno::NOENT)));
        assert_eq!(bench.link.due(), None);
    }
}
