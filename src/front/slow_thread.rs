//! Clients of a UNIX control socket whose command is not whole yet: they send a byte at a time, half a command,
//! or nothing. One thread a cluster watches them all under one deadline, so that they cost nobody anything.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::client::Client;
use super::cluster_thread::timespec;
use super::connections::{CONNECTIONS_MAX, Place};
use crate::cluster::{Cluster, Out};
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::{COMMAND_MAX, ErrorCode, parse};
use crate::protocol::framing::{First, first};
use crate::protocol::reply::write_error;
use crate::sync::now;

/// How long a client may take for its command, all in all.
const DEADLINE: Duration = Duration::from_secs(5);
/// A text that came in pieces, is a command and has no line end counts as one after this silence.
const QUIET: Duration = Duration::from_millis(20);

/// A client that has been put aside.
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

/// The cluster thread's end: hands clients over.
#[derive(Debug)]
pub struct SlowClients {
    queue: Sender<Slow>,
    wake: UnixStream,
}

impl SlowClients {
    /// The two ends: what the cluster thread keeps, and what [`run`] takes.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn pair() -> std::io::Result<(Self, Inbox)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (queue, clients) = bounded(CONNECTIONS_MAX);
        Ok((Self { queue, wake }, Inbox { clients, woken }))
    }

    /// Hands a client over. The queue has room for every connection that may be open.
    pub fn take(&mut self, slow: Slow) {
        self.queue.try_send(slow).ok();
        // A full pipe wakes it as well.
        let _ = self.wake.write(&[0]);
    }
}

/// The slow thread's end. It ends when the other is dropped.
#[derive(Debug)]
pub struct Inbox {
    clients: Receiver<Slow>,
    woken: UnixStream,
}

/// What is to become of a client.
enum Next {
    Wait,
    /// So much of its text is its command.
    Take(usize),
    /// It gets this error, or nothing, and is closed.
    Refuse(Option<ErrorCode>),
}

/// Serves slow clients until the cluster thread has ended.
pub fn run(cluster: &Arc<Cluster>, inbox: &Inbox) {
    let mut clients: Vec<Slow> = Vec::new();
    let mut out = Out::default();
    let mut buffer = vec![0; COMMAND_MAX + 2];
    loop {
        let deadline = clients.iter().map(Slow::due).min();
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(now())));
        let mut fds = Vec::with_capacity(1 + clients.len());
        fds.push(PollFd::new(&inbox.woken, PollFlags::IN));
        fds.extend(
            clients
                .iter()
                .map(|client| PollFd::new(&client.stream, PollFlags::IN)),
        );
        poll(&mut fds, timeout.as_ref()).ok();
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let now = now();
        let known = clients.len();
        if ready.first() == Some(&true) && !take_in(inbox, &mut buffer, &mut clients) {
            return;
        }
        // From the end, since a client that is done makes room for the last one.
        for place in (0..clients.len()).rev() {
            let Some(client) = clients.get_mut(place) else {
                continue;
            };
            // One that has just come may have written in the meantime.
            let readable = place >= known || ready.get(place + 1) == Some(&true);
            let next = if readable {
                read(client, &mut buffer, now)
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
                    } = clients.swap_remove(place);
                    let text = text.get(..length).unwrap_or_default();
                    let client = Client::Unix(stream, share);
                    cluster.act(&mut out, |now, core, out| {
                        core.command(now, text, Origin::Unix, client, out);
                    });
                }
                Next::Refuse(code) => {
                    cluster.front.closed.fetch_add(1, Ordering::Relaxed);
                    let Slow {
                        stream, place: share, ..
                    } = clients.swap_remove(place);
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
}

/// Takes in those who have been handed over; false when nobody will be any more.
fn take_in(inbox: &Inbox, buffer: &mut [u8], clients: &mut Vec<Slow>) -> bool {
    let open = !matches!(
        rustix::net::recv(&inbox.woken, &mut *buffer, RecvFlags::DONTWAIT),
        Ok((0, _))
    );
    clients.extend(inbox.clients.try_iter());
    open
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
    Next::Refuse(Some(parse(&client.text).err().unwrap_or(ErrorCode(1))))
}
