//! Clients that nobody should wait for. One thread a cluster watches them all, so that they cost the others nothing:
//!
//! - of a UNIX control socket: those whose command is not whole yet, who send a byte at a time, half a command, or
//!   nothing;
//! - of kept connections: the idle ones, which go back to the cluster thread when they have something to say; those
//!   that are stalled, by too many commands in flight or replies that they do not read; and those that are over.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::client::Client;
use super::cluster_thread::wait;
use super::connections::Place;
use super::handover::{Case, Inbox, WayBack};
use super::kept::{Kept, Talk};
use crate::cluster::{Cluster, Out};
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::{COMMAND_MAX, ErrorCode, parse};
use crate::protocol::framing::{First, first};
use crate::protocol::reply::write_error;
use crate::rim::now;

/// How long a client may take for its command, all in all.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// A text that came in pieces, is a command and has no line end counts as one after this silence.
const QUIET: Duration = Duration::from_millis(20);
/// A kept connection that has never sent a command is closed after this time. One that has is never closed for being
/// idle: the SIP server would take us for dead.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// A client that takes none of its replies for so long is given up.
const UNREAD_FOR: Duration = Duration::from_secs(5);
/// How long a client whose connection is over may take to close it.
const LINGER: Duration = Duration::from_secs(5);
/// A client of a UNIX socket that has been put aside.
#[derive(Debug)]
pub struct Slow {
    stream: UnixStream,
    place: Place,
    text: Vec<u8>,
    deadline: Instant,
    /// When a text that could be a command is taken for one.
    taken_at: Option<Instant>,
}

impl Slow {
    /// A client that has sent `text` so far.
    pub fn new(stream: UnixStream, place: Place, text: Vec<u8>, now: Instant) -> Self {
        Self {
            stream,
            place,
            text,
            deadline: now + DEADLINE,
            taken_at: None,
        }
    }

    fn due(&self) -> Instant {
        self.taken_at.map_or(self.deadline, |at| at.min(self.deadline))
    }
}

/// Replies that a connection has not taken yet.
#[derive(Debug)]
struct Unread {
    kept: Arc<Kept>,
    until: Instant,
}

/// A connection that is over, and whose client has not closed it yet.
#[derive(Debug)]
struct Lingering {
    talk: Talk,
    until: Instant,
}

/// What is to become of a client of a UNIX socket.
enum Next {
    Wait,
    /// So much of its text is its command.
    Take(usize),
    /// It gets this error, or nothing, and is closed.
    Refuse(Option<ErrorCode>),
}

/// The slow thread's state. Everything in a list is watched for what stands there.
struct Desk<'a> {
    cluster: &'a Cluster,
    back: Option<WayBack>,
    /// To write.
    clients: Vec<Slow>,
    /// To write.
    idle: Vec<Talk>,
    /// To resume or be over, which somebody tells.
    stalled: Vec<Talk>,
    /// To read.
    unread: Vec<Unread>,
    /// To close.
    lingering: Vec<Lingering>,
    /// The cluster thread has ended.
    closing: bool,
    out: Out,
    buffer: Vec<u8>,
}

/// What poll(2) found, a flag each, in the order of the lists.
struct Ready {
    clients: Vec<bool>,
    idle: Vec<bool>,
    unread: Vec<bool>,
    lingering: Vec<bool>,
}

/// Serves slow clients until nobody hands any over any more, or the other end of `end` is closed. `back` is where
/// kept connections go back to.
pub fn run(cluster: &Arc<Cluster>, inbox: &Inbox, back: Option<WayBack>, end: &UnixStream) {
    let mut desk = Desk {
        cluster,
        back,
        clients: Vec::new(),
        idle: Vec::new(),
        stalled: Vec::new(),
        unread: Vec::new(),
        lingering: Vec::new(),
        closing: false,
        out: Out::default(),
        buffer: vec![0; COMMAND_MAX + 2],
    };
    while desk.turn(inbox, end) {}
    // Whatever can still be sent without waiting is.
    for unread in desk.unread {
        unread.kept.flush();
    }
}

fn is_ready(fd: &PollFd<'_>) -> bool {
    !fd.revents().is_empty()
}

/// The place of each entry in a list, from the end, so that one that is done makes room for the last one.
fn from_the_end<T>(list: &[T]) -> core::iter::Rev<core::ops::Range<usize>> {
    (0..list.len()).rev()
}

impl Desk<'_> {
    /// Waits for something to do and does it; false when it is time to end.
    fn turn(&mut self, inbox: &Inbox, end: &UnixStream) -> bool {
        let patience = self.due().map(|at| at.saturating_duration_since(now()));
        let mut fds = Vec::with_capacity(
            2 + self.clients.len() + self.idle.len() + self.unread.len() + self.lingering.len(),
        );
        fds.push(PollFd::new(&inbox.woken, PollFlags::IN));
        fds.push(PollFd::new(end, PollFlags::IN));
        fds.extend(
            self.clients
                .iter()
                .map(|client| PollFd::new(&client.stream, PollFlags::IN)),
        );
        fds.extend(
            self.idle
                .iter()
                .map(|talk| PollFd::new(&*talk.kept, PollFlags::IN)),
        );
        fds.extend(
            self.unread
                .iter()
                .map(|unread| PollFd::new(&*unread.kept, PollFlags::OUT)),
        );
        fds.extend(
            self.lingering
                .iter()
                .map(|it| PollFd::new(&*it.talk.kept, PollFlags::IN)),
        );
        wait(&self.cluster.name, &mut fds, patience);
        let mut flags = fds.iter().map(is_ready);
        let (woken, ended) = (flags.next() == Some(true), flags.next() == Some(true));
        let mut of = |length| flags.by_ref().take(length).collect::<Vec<bool>>();
        let ready = Ready {
            clients: of(self.clients.len()),
            idle: of(self.idle.len()),
            unread: of(self.unread.len()),
            lingering: of(self.lingering.len()),
        };
        drop(fds);
        if ended {
            return false;
        }
        let now = now();
        let open = !woken || self.take_in(inbox, now);
        self.serve_clients(&ready.clients, now);
        self.serve_unread(&ready.unread, now);
        self.serve_idle(&ready.idle, now);
        self.serve_lingering(&ready.lingering, now);
        if woken {
            self.look_at_stalled(now);
        }
        open
    }

    /// When the next client's time is up.
    fn due(&self) -> Option<Instant> {
        let clients = self.clients.iter().map(Slow::due);
        let idle = self.idle.iter().filter_map(idle_until);
        let unread = self.unread.iter().map(|unread| unread.until);
        let lingering = self.lingering.iter().map(|it| it.until);
        clients.chain(idle).chain(unread).chain(lingering).min()
    }

    /// Takes in those who have been handed over; false when nobody will be any more.
    fn take_in(&mut self, inbox: &Inbox, now: Instant) -> bool {
        let open = !matches!(
            rustix::net::recv(&inbox.woken, &mut self.buffer[..], RecvFlags::DONTWAIT),
            Ok((0, _))
        );
        for case in inbox.cases.try_iter() {
            match case {
                Case::Slow(slow) => self.clients.push(slow),
                Case::Rest(kept) => self.unread.push(Unread {
                    kept,
                    until: now + UNREAD_FOR,
                }),
                Case::Talk(talk) if !self.closing => self.file(talk, now),
                Case::Talk(_) => {}
                Case::Closing => {
                    self.closing = true;
                    // What is in flight is held by whoever answers it, and what was not read yet is not accepted.
                    self.clients.clear();
                    self.idle.clear();
                    self.stalled.clear();
                    self.lingering.clear();
                    self.back = None;
                }
            }
        }
        open
    }

    /// Puts a kept connection where it belongs.
    fn file(&mut self, talk: Talk, now: Instant) {
        if talk.kept.is_over() {
            let until = now + LINGER;
            self.lingering.push(Lingering { talk, until });
        } else if talk.kept.is_stalled() {
            self.stalled.push(talk);
        } else if talk.more {
            self.hand_back(talk);
        } else {
            self.idle.push(talk);
        }
    }

    fn hand_back(&self, talk: Talk) {
        if let Some(back) = &self.back {
            back.take(talk);
        }
    }

    fn serve_clients(&mut self, ready: &[bool], now: Instant) {
        for place in from_the_end(&self.clients) {
            let Some(client) = self.clients.get_mut(place) else {
                continue;
            };
            // One that has just come may have written in the meantime.
            let next = if ready.get(place).copied().unwrap_or(true) {
                read(client, &mut self.buffer, now)
            } else {
                look(client, now)
            };
            match next {
                Next::Wait => {}
                Next::Take(length) => {
                    let Slow {
                        stream,
                        place: share,
                        text,
                        ..
                    } = self.clients.swap_remove(place);
                    let text = text.get(..length).unwrap_or_default();
                    let client = Client::Unix(stream, share);
                    self.cluster.trace(format_args!("command"), text);
                    self.cluster.act(&mut self.out, |now, core, out| {
                        core.command(now, text, Origin::Unix, client, out);
                    });
                }
                Next::Refuse(code) => {
                    self.cluster.front.closed.fetch_add(1, Ordering::Relaxed);
                    let Slow {
                        stream, place: share, ..
                    } = self.clients.swap_remove(place);
                    if let Some(code) = code {
                        let mut reply = Vec::new();
                        write_error(code.0, &mut reply);
                        reply.push(b'\n');
                        Client::Unix(stream, share).reply(&reply);
                    }
                }
            }
        }
    }

    fn serve_unread(&mut self, ready: &[bool], now: Instant) {
        for place in from_the_end(&self.unread) {
            let Some(unread) = self.unread.get_mut(place) else {
                continue;
            };
            if ready.get(place).copied().unwrap_or(true) {
                let (sent, left) = unread.kept.flush();
                if sent > 0 {
                    unread.until = now + UNREAD_FOR;
                }
                if !left {
                    self.unread.swap_remove(place);
                    // It may have been stalled by this alone.
                    self.look_at_stalled(now);
                    continue;
                }
            }
            if unread.until <= now {
                self.cluster.front.closed.fetch_add(1, Ordering::Relaxed);
                unread.kept.break_off();
                self.unread.swap_remove(place);
                self.look_at_stalled(now);
            }
        }
    }

    fn serve_idle(&mut self, ready: &[bool], now: Instant) {
        for place in from_the_end(&self.idle) {
            let Some(talk) = self.idle.get_mut(place) else {
                continue;
            };
            if talk.kept.is_over() {
                let talk = self.idle.swap_remove(place);
                self.file(talk, now);
            } else if ready.get(place).copied().unwrap_or(false) {
                talk.more = true;
                let talk = self.idle.swap_remove(place);
                self.hand_back(talk);
            } else if idle_until(talk).is_some_and(|until| until <= now) {
                self.cluster.front.closed.fetch_add(1, Ordering::Relaxed);
                let talk = self.idle.swap_remove(place);
                if talk.line_since.is_some() {
                    talk.kept.refuse(unfinished(&talk.text));
                    let until = now + LINGER;
                    self.lingering.push(Lingering { talk, until });
                }
            }
        }
    }

    fn serve_lingering(&mut self, ready: &[bool], now: Instant) {
        for place in from_the_end(&self.lingering) {
            let Some(it) = self.lingering.get(place) else {
                continue;
            };
            let open = !ready.get(place).copied().unwrap_or(true) || it.talk.kept.discard(&mut self.buffer);
            if !open || it.until <= now {
                self.lingering.swap_remove(place);
            }
        }
    }

    /// Those that may go on do.
    fn look_at_stalled(&mut self, now: Instant) {
        for place in from_the_end(&self.stalled) {
            let Some(talk) = self.stalled.get_mut(place) else {
                continue;
            };
            if talk.kept.is_over() || !talk.kept.is_stalled() {
                talk.more = true;
                let talk = self.stalled.swap_remove(place);
                self.file(talk, now);
            }
        }
    }
}

/// When an idle connection is closed; never, where nothing is amiss.
fn idle_until(talk: &Talk) -> Option<Instant> {
    let line = talk.line_since.map(|since| since + DEADLINE);
    line.or_else(|| (!talk.spoke).then(|| talk.heard + SILENT_FOR))
}

/// What is wrong with a command that was not finished in time.
pub(super) fn unfinished(text: &[u8]) -> ErrorCode {
    parse(text).err().unwrap_or(ErrorCode(1))
}

fn read(client: &mut Slow, buffer: &mut [u8], now: Instant) -> Next {
    let fresh = client.text.is_empty();
    match rustix::net::recv(&client.stream, &mut *buffer, RecvFlags::DONTWAIT) {
        // It has ended its text: what there is, is the command.
        Ok((0, _)) if fresh => Next::Refuse(None),
        Ok((0, _)) => match parse(&client.text) {
            Ok(_) => Next::Take(client.text.len()),
            Err(code) => Next::Refuse(Some(code)),
        },
        Ok((length, _)) => {
            client
                .text
                .extend_from_slice(buffer.get(..length).unwrap_or_default());
            judge(client, fresh, now)
        }
        Err(Errno::AGAIN | Errno::INTR) => look(client, now),
        Err(_) => Next::Refuse(None),
    }
}

/// What the text is, now that there is more of it. Only a first read is taken for whole without a line end: what
/// comes in pieces may have another piece.
fn judge(client: &mut Slow, fresh: bool, now: Instant) -> Next {
    match first(&client.text) {
        First::TooLong => Next::Refuse(Some(ErrorCode(5))),
        First::Command(length)
            if fresh
                || client
                    .text
                    .get(..length)
                    .is_some_and(|text| text.contains(&b'\n')) =>
        {
            Next::Take(length)
        }
        First::Command(_) => {
            client.taken_at = Some(now + QUIET);
            Next::Wait
        }
        First::More => {
            client.taken_at = None;
            look(client, now)
        }
    }
}

/// Whether a client's time is up.
fn look(client: &mut Slow, now: Instant) -> Next {
    if client.text.len() > COMMAND_MAX {
        return Next::Refuse(Some(ErrorCode(5)));
    }
    if client.taken_at.is_some_and(|at| at <= now) {
        return Next::Take(client.text.len());
    }
    if client.deadline > now {
        return Next::Wait;
    }
    if client.text.is_empty() {
        return Next::Refuse(None);
    }
    Next::Refuse(Some(unfinished(&client.text)))
}
