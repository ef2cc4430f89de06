//! A member over UNIX: a connection carries one command, since RTPproxy closes it after the reply; one that it
//! keeps (`cunix:`) is used again. A bounded few workers, started as they are needed, do one command each at a
//! time; the other commands queue.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Label, REPLY_MAX, Refused, Sink, is_our_fault, is_plausible, reply_length};
use crate::dispatch::ANSWER_WITHIN;
use crate::protocol::cookie::Cookie;
use crate::rim::{Thread, idle, now, spawn};

/// Connections to one member at the same time.
pub const WORKERS: usize = 8;
/// Commands that wait for a worker: some 60 ms of a member that takes 8 × 1 ms. More are failed over.
const QUEUE: usize = 512;

struct Job {
    cookie: Cookie,
    again: bool,
    since: Instant,
    text: Box<[u8]>,
}

/// The link of one member.
#[derive(Debug)]
pub struct Unix {
    shared: Arc<Shared>,
    jobs: Mutex<Option<Sender<Job>>>,
    /// Closing this end wakes every worker out of its connection.
    leash: Mutex<Option<UnixStream>>,
    threads: Mutex<Vec<Thread>>,
}

struct Shared {
    path: PathBuf,
    label: Label,
    sink: Arc<dyn Sink>,
    queue: Receiver<Job>,
    idle: AtomicUsize,
    leash: Option<UnixStream>,
    stopped: AtomicBool,
    /// Whether it has been told why there is no connection to be had.
    told: AtomicBool,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// How one try went wrong.
enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection broke; whether a byte of the reply had come.
    Broken(bool),
    /// We are to stop, or the time is up.
    Over,
}

impl Unix {
    /// No connection is made before the first command.
    pub fn open(path: &Path, label: Label, sink: Arc<dyn Sink>) -> Self {
        let (sender, queue) = bounded(QUEUE);
        // Without the pair workers are waited for until their command times out.
        let (ours, theirs) =
            UnixStream::pair().map_or((None, None), |(ours, theirs)| (Some(ours), Some(theirs)));
        let idle = AtomicUsize::new(0);
        let shared = Arc::new(Shared {
            path: path.into(),
            label,
            sink,
            queue,
            idle,
            leash: theirs,
            stopped: AtomicBool::new(false),
            told: AtomicBool::new(false),
        });
        Self {
            shared,
            jobs: Mutex::new(Some(sender)),
            leash: Mutex::new(ours),
            threads: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn send(&self, cookie: Cookie, again: bool, text: &[u8]) -> Result<(), Refused> {
        let Some(jobs) = self.jobs.lock().clone() else {
            return Err(Refused);
        };
        if self.shared.idle.load(Ordering::Acquire) <= jobs.len() {
            self.start_worker();
        }
        match jobs.try_send(Job {
            cookie,
            again,
            since: now(),
            text: text.into(),
        }) {
            // With a full queue the command waits for its time-out as if the member were silent, which it is.
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(Refused),
        }
    }

    fn start_worker(&self) {
        let mut threads = self.threads.lock();
        if threads.len() >= WORKERS {
            return;
        }
        let Label { cluster, member } = self.shared.label;
        let shared = Arc::clone(&self.shared);
        match spawn(format!("reply-{cluster}.{}", member.index), move || shared.work()) {
            Ok(thread) => threads.push(thread),
            Err(error) => log::error!("{}: no thread for a member: {error}", self.shared.path.display()),
        }
    }

    pub(super) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        drop(self.jobs.lock().take());
        drop(self.leash.lock().take());
    }

    pub(super) fn close(&self) {
        self.stop();
        let threads = core::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.join();
        }
    }
}

impl Shared {
    /// A worker: takes a command, sees it through, keeps the connection while the member does.
    fn work(&self) {
        let mut kept = None;
        let mut buffer = vec![0; REPLY_MAX + 1];
        loop {
            self.idle.fetch_add(1, Ordering::AcqRel);
            let job = idle(|| self.queue.recv());
            self.idle.fetch_sub(1, Ordering::AcqRel);
            let Ok(job) = job else { return };
            self.serve(&job, &mut kept, &mut buffer);
        }
    }

    fn serve(&self, job: &Job, kept: &mut Option<UnixStream>, buffer: &mut [u8]) {
        let from = self.label.member;
        let until = job.since + ANSWER_WITHIN;
        for last in [false, true] {
            // Whoever sent it has been answered: to carry it out now would surprise everybody.
            if self.stopped.load(Ordering::Acquire) || now() >= until {
                return self.sink.broken(from, job.cookie);
            }
            // An RTPproxy that closes after a reply may be about to, with the next command unread. What must not run
            // twice could not be sent again then, so it gets a connection of its own.
            let usable = kept.take().filter(|kept| job.again && still_open(kept));
            let stream = usable.map_or_else(|| self.connect(), Ok);
            let outcome = stream.and_then(|mut stream| {
                let (reply, all) = self.exchange(&mut stream, &job.text, until, buffer)?;
                // After more than a reply, or none, nobody knows what the next bytes are.
                let text = buffer.get(..reply).unwrap_or_default();
                if reply == all && is_plausible(&job.text, text) {
                    *kept = Some(stream);
                }
                Ok(reply)
            });
            match outcome {
                Ok(length) => {
                    let reply = buffer.get(..length).unwrap_or_default();
                    return self.sink.reply(from, job.cookie, reply.trim_ascii_end());
                }
                Err(Failure::Refused) => return self.sink.refused(from),
                Err(Failure::Broken(false)) if job.again && !last => {}
                Err(Failure::Broken(_) | Failure::Over) => return self.sink.broken(from, job.cookie),
            }
        }
    }

    /// A connection. A member whose queue of connections is full counts as silent.
    fn connect(&self) -> Result<UnixStream, Failure> {
        let error = match connect(&self.path) {
            Ok(stream) => {
                self.told.store(false, Ordering::Relaxed);
                return Ok(stream);
            }
            Err(error) => error,
        };
        // That nobody listens is told as the member's state. Anything else is worth a line, once.
        let plain = [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::NotFound,
            io::ErrorKind::WouldBlock,
        ];
        if !plain.contains(&error.kind()) && !self.told.swap(true, Ordering::Relaxed) {
            log::warn!("member at {}: {error}", self.path.display());
        }
        Err(
            if error.kind() == io::ErrorKind::WouldBlock || is_our_fault(&error) {
                Failure::Over
            } else {
                Failure::Refused
            },
        )
    }

    /// Writes the command and reads all of its reply; gives the reply's length, and that of all that came. One
    /// that is too long has length 0, and is judged as garbage.
    fn exchange(
        &self,
        stream: &mut UnixStream,
        text: &[u8],
        until: Instant,
        buffer: &mut [u8],
    ) -> Result<(usize, usize), Failure> {
        stream.write_all(text).map_err(|_| Failure::Broken(false))?;
        let mut length = 0;
        loop {
            if length > REPLY_MAX {
                return Ok((0, length));
            }
            self.wait_readable(stream, until)?;
            match stream.read(buffer.get_mut(length..).unwrap_or_default()) {
                // Half a reply is none.
                Ok(0) => return Err(Failure::Broken(length > 0)),
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Failure::Broken(length > 0)),
            }
            if let Some(reply) = reply_length(text, buffer.get(..length).unwrap_or_default()) {
                return Ok((if reply > REPLY_MAX { 0 } else { reply }, length));
            }
        }
    }

    fn wait_readable(&self, stream: &UnixStream, until: Instant) -> Result<(), Failure> {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return Err(Failure::Over);
        }
        let timeout = timespec(left);
        let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
        if let Some(leash) = &self.leash {
            fds.push(PollFd::new(leash, PollFlags::IN));
        }
        match idle(|| poll(&mut fds, Some(&timeout))) {
            Ok(_) if fds.get(1).is_some_and(|leash| !leash.revents().is_empty()) => Err(Failure::Over),
            _ => Ok(()),
        }
    }
}

/// Connects without waiting.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
}

/// A span as poll(2) takes it.
fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}

/// A kept connection that the member has closed in the meantime is readable.
fn still_open(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&zero)), Ok(0))
}
