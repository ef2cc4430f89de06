//! Kept connections, by CUNIX and TCP: a command a line, many in flight together, replies in the order of the
//! commands. The connections in use are watched here; one that is idle, stalled or over goes to the slow thread, which
//! gives it back when it has something to say. So the cost of a turn does not grow with the connections that are open.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::client::Client;
use super::cluster_thread::{Burst, wait};
use super::gate::{ACCEPT_BATCH, Gate};
use super::handover::{Case, Returned, SlowClients};
use super::kept::Talk;
use super::slow_thread::{DEADLINE, unfinished};
use crate::cluster::Cluster;
use crate::protocol::command::{COMMAND_MAX, ErrorCode};
use crate::protocol::framing::{Line, line};
use crate::rim::now;

/// Connections that are watched here at most.
const IN_USE_MAX: usize = 128;
/// How long a connection that has said nothing stays here.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// The same for one in the middle of a line: the rest mostly comes at once, or is a long time coming.
const HALF_AFTER: Duration = Duration::from_millis(20);
/// Commands of one connection that are served in a row before the others get their turn.
const SERVE_BATCH: usize = 64;

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is watched on.
    Wait,
    /// There is more to do, at once.
    More,
    /// It has said nothing for a while: it goes to the slow thread.
    Idle,
    /// It may say nothing more, for the moment or at all: it goes to the slow thread.
    Stalled,
    /// It is closed when the last reply is out.
    Gone,
}

/// The cluster thread's state.
struct Front<'a> {
    cluster: &'a Cluster,
    gate: Gate,
    slow: &'a Arc<SlowClients>,
    returned: &'a Returned,
    in_use: Vec<Talk>,
    /// More have come back than were served in one turn.
    behind: bool,
    burst: Burst<'a>,
    buffer: Box<[u8]>,
}

/// Serves the control socket until the other end of `stop` is closed.
pub(super) fn run(
    cluster: &Cluster,
    listener: OwnedFd,
    slow: &Arc<SlowClients>,
    returned: &Returned,
    stop: &UnixStream,
) {
    let mut front = Front {
        cluster,
        gate: Gate::new(listener),
        slow,
        returned,
        in_use: Vec::new(),
        behind: false,
        burst: Burst::new(cluster),
        // What was left of one read, less than a line, and another.
        buffer: vec![0; 2 * (COMMAND_MAX + 1)].into(),
    };
    while front.turn(stop) {}
}

impl Front<'_> {
    /// Waits for something to do and does it; false when told to stop.
    fn turn(&mut self, stop: &UnixStream) -> bool {
        let mut fds = Vec::with_capacity(3 + self.in_use.len());
        fds.push(PollFd::new(stop, PollFlags::IN));
        fds.push(self.gate.watch());
        fds.push(PollFd::new(&self.returned.woken, PollFlags::IN));
        fds.extend(
            self.in_use
                .iter()
                .map(|talk| PollFd::new(&*talk.kept, PollFlags::IN)),
        );
        wait(&self.cluster.name, &mut fds, self.patience());
        let mut flags = fds.iter().map(|fd| !fd.revents().is_empty());
        let [stopped, acceptable, returned] = [(); 3].map(|()| flags.next() == Some(true));
        let readable: Vec<bool> = flags.collect();
        drop(fds);
        if stopped {
            return false;
        }
        let now = now();
        self.serve(&readable, now);
        if returned || self.behind {
            self.take_back(now);
        }
        if acceptable {
            self.accept(now);
        }
        self.burst.settle();
        self.gate.resume(now);
        true
    }

    /// How long to wait for something to do.
    fn patience(&self) -> Option<Duration> {
        if self.behind || self.in_use.iter().any(|talk| talk.more) {
            return Some(Duration::ZERO);
        }
        let idle = self.in_use.iter().map(idle_at).min();
        let until = [idle, self.gate.paused_until()].into_iter().flatten().min();
        until.map(|at| at.saturating_duration_since(now()))
    }

    /// Serves the connections that have something to say, and puts those aside that have not for a while.
    fn serve(&mut self, readable: &[bool], now: Instant) {
        // From the end, since one that goes makes room for the last one.
        for place in (0..self.in_use.len()).rev() {
            let Some(talk) = self.in_use.get_mut(place) else {
                continue;
            };
            let next = if talk.more || readable.get(place) == Some(&true) {
                let mut buffer = core::mem::take(&mut self.buffer);
                let next = serve(self.cluster, &mut self.burst, talk, &mut buffer, now);
                self.buffer = buffer;
                next
            } else if idle_at(talk) <= now {
                Next::Idle
            } else {
                Next::Wait
            };
            self.place(place, next);
        }
    }

    /// Leaves one of the connections in use where it is, or puts it where it belongs now.
    fn place(&mut self, place: usize, next: Next) {
        let Some(talk) = self.in_use.get_mut(place) else {
            return;
        };
        talk.more = matches!(next, Next::More | Next::Stalled);
        match next {
            Next::Wait | Next::More => {}
            Next::Idle | Next::Stalled => {
                let talk = self.in_use.swap_remove(place);
                self.put_aside(talk);
            }
            Next::Gone => drop(self.in_use.swap_remove(place)),
        }
    }

    /// Serves those that the slow thread has seen something of, and watches them here from now on. The one that has
    /// been silent longest makes room.
    fn take_back(&mut self, now: Instant) {
        while let Ok((1.., _)) =
            rustix::net::recv(&self.returned.woken, &mut self.buffer[..], RecvFlags::DONTWAIT)
        {}
        for _ in 0..ACCEPT_BATCH {
            let Ok(mut talk) = self.returned.talks.try_recv() else {
                self.behind = false;
                return;
            };
            let mut buffer = core::mem::take(&mut self.buffer);
            let next = serve(self.cluster, &mut self.burst, &mut talk, &mut buffer, now);
            self.buffer = buffer;
            if next == Next::Gone {
                continue;
            }
            let quiet = |talk: &Talk| (!talk.more).then_some(talk.heard);
            if self.in_use.len() >= IN_USE_MAX
                && let Some((_, oldest)) = (0..self.in_use.len())
                    .filter_map(|place| Some((self.in_use.get(place).and_then(quiet)?, place)))
                    .min()
            {
                let oldest = self.in_use.swap_remove(oldest);
                self.put_aside(oldest);
            }
            self.in_use.push(talk);
            self.place(self.in_use.len() - 1, next);
        }
        self.behind = !self.returned.talks.is_empty();
    }

    /// Accepts who waits. Who has not written yet is watched here as long as there is room.
    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPT_BATCH {
            let Some((stream, place)) = self.gate.accept(self.cluster) else {
                return;
            };
            let mut talk = Talk::new(stream, place, self.slow, now);
            if self.in_use.len() < IN_USE_MAX {
                talk.more = true;
                self.in_use.push(talk);
            } else {
                self.put_aside(talk);
            }
        }
    }

    fn put_aside(&self, talk: Talk) {
        self.slow.take(Case::Talk(talk));
    }
}

/// When a connection goes to the slow thread if nothing comes.
fn idle_at(talk: &Talk) -> Instant {
    let after = if talk.text.is_empty() {
        IDLE_AFTER
    } else {
        HALF_AFTER
    };
    talk.heard + after
}

/// Serves the lines that a connection has brought, after reading more if there is no whole one.
fn serve(cluster: &Cluster, burst: &mut Burst<'_>, talk: &mut Talk, buffer: &mut [u8], now: Instant) -> Next {
    let mut filled = talk.text.len();
    if let Some(start) = buffer.get_mut(..filled) {
        start.copy_from_slice(&talk.text);
    }
    if !matches!(line(&talk.text), Line::Whole(_)) {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        match rustix::net::recv(&talk.kept, room, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Next::Gone,
            Ok((length, _)) => filled += length,
            Err(Errno::AGAIN | Errno::INTR) => return Next::Wait,
            Err(error) => {
                log::debug!("cluster {}: a client: {error}", cluster.name);
                return Next::Gone;
            }
        }
        talk.heard = now;
    }
    let (mut taken, mut served) = (0, 0);
    let next = loop {
        let rest = buffer.get(taken..filled).unwrap_or_default();
        match line(rest) {
            Line::Whole(_) if served == SERVE_BATCH => break Next::More,
            Line::Whole(length) => {
                let Ok(turn) = talk.kept.take() else {
                    break Next::Stalled;
                };
                let text = rest.get(..length).unwrap_or_default();
                let origin = talk.kept.origin();
                burst.command(text, origin, Client::Kept(turn));
                talk.spoke = true;
                taken += length;
                served += 1;
            }
            Line::More => break Next::Wait,
            Line::TooLong => {
                refuse(cluster, talk, ErrorCode(5));
                return Next::Stalled;
            }
        }
    };
    talk.text.clear();
    talk.text
        .extend_from_slice(buffer.get(taken..filled).unwrap_or_default());
    // Few clients write a line in pieces: the others hold no memory for it.
    talk.text.shrink_to(0);
    if next != Next::Wait || talk.text.is_empty() {
        talk.line_since = None;
        return next;
    }
    let since = talk.line_since.filter(|_| served == 0).unwrap_or(now);
    talk.line_since = Some(since);
    if since + DEADLINE <= now {
        refuse(cluster, talk, unfinished(&talk.text));
        return Next::Stalled;
    }
    next
}

/// Ends a connection with an error.
fn refuse(cluster: &Cluster, talk: &Talk, code: ErrorCode) {
    cluster.front.closed.fetch_add(1, Ordering::Relaxed);
    talk.kept.refuse(code);
}
