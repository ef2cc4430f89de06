//! The SIP server's side of a cluster's loop: its control socket, and the clients on it.
//!
//! | control socket | in | a client is |
//! |---|---|---|
//! | UNIX | `once.rs` | a connection that carries one command |
//! | CUNIX, TCP, TCP6 | `kept.rs` | a kept connection: commands by the line, replies in their order |
//! | UDP, UDP6 | `udp.rs` | the sender of a datagram, and its cookie |
//!
//! Nobody is waited for: a client that is not done is a place in a table, its descriptor is watched, and its time is an
//! alarm.

pub mod door;
mod gate;
mod kept;
mod once;
mod udp;

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use mio::Registry;
use rustix::net::{RecvFlags, Shutdown};
use slab::Slab;

use self::door::{Door, Listens};
pub use self::gate::CONNECTIONS_MAX;
use self::gate::Gate;
use self::kept::Kept;
use self::once::Once;
use self::udp::Udp;
use super::{Cluster, Out, tokens};
use crate::client::{Client, Place};
use crate::dispatch::rewrite::Origin;
use crate::protocol::command::{COMMAND_MAX, ErrorCode, parse};
use crate::rim::alarms::Alarms;
use crate::rim::readiness::Spot;

/// Commands that are decided before what they came to is carried out: a burst wakes each member once and not once a
/// command, and the first of them waits some 100 us at most.
const BATCH: usize = 16;
/// How long a client may take for its command, all in all.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long who has connected and not written yet is given when the socket is closed: SIP servers write at once.
const PARTING: Duration = Duration::from_millis(20);
/// Bytes that are read and thrown away before a connection is closed: closing with bytes unread would reset it under its
/// last reply.
const DRAIN_MAX: usize = 64 * 1024;

/// What the loop gives to its parts for a moment.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) now: Instant,
    pub(super) cluster: &'a Cluster,
    pub(super) registry: &'a Registry,
}

impl Here<'_> {
    fn closed_one(&self) {
        self.cluster.front.closed.fetch_add(1, Ordering::Relaxed);
    }

    fn spot(&self, place: usize) -> Spot<'_> {
        Spot {
            registry: self.registry,
            base: tokens::CLIENT + place,
        }
    }
}

/// The same, for who takes commands.
pub(super) struct Desk<'a> {
    pub(super) here: Here<'a>,
    pub(super) out: &'a mut Out,
    /// Commands that have been decided and not been carried out.
    pub(super) decided: usize,
}

impl<'a> core::ops::Deref for Desk<'a> {
    type Target = Here<'a>;

    fn deref(&self) -> &Here<'a> {
        &self.here
    }
}

impl Desk<'_> {
    /// One command of a client, less its cookie.
    fn command(&mut self, text: &[u8], origin: Origin, client: Client, who: impl FnOnce(&Client) -> String) {
        if self.here.cluster.steps.is_heard() {
            self.out.who = who(&client);
        }
        self.here.cluster.trace(format_args!("command"), text);
        self.here.cluster.decide(self.out, |now, core, out| {
            core.command(now, text, origin, client, out);
        });
        self.decided += 1;
    }

    /// Whether what has been decided is to be carried out before more is.
    fn is_full(&self) -> bool {
        self.decided >= BATCH
    }
}

/// A connection.
#[derive(Debug)]
enum Conn {
    Once(Once),
    Kept(Kept),
}

/// Whether somebody wants to go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It waits for something to happen.
    Wait,
    /// There is more to do, which nobody tells again.
    More,
}

/// The control socket and its clients.
#[derive(Debug)]
pub(super) struct Front {
    gate: Option<Gate>,
    udp: Udp,
    conns: Slab<Conn>,
    serial: u64,
    alarms: Alarms,
    buffer: Box<[u8]>,
}

impl Front {
    pub(super) fn new() -> Self {
        Self {
            gate: None,
            udp: Udp::default(),
            conns: Slab::new(),
            serial: 0,
            alarms: Alarms::default(),
            // What was left of one read, less than a line, and another.
            buffer: vec![0; 2 * (COMMAND_MAX + 2)].into(),
        }
    }

    /// Serves this socket from now on.
    pub(super) fn open(&mut self, door: Door, here: Here<'_>) {
        let spot = Spot {
            registry: here.registry,
            base: tokens::DOOR,
        };
        if let Err(error) = spot.watch(&door, 0) {
            log::error!("cluster {}: its control socket: {error}", here.cluster.name);
        }
        if let Listens::Udp(socket) = &*door.listens {
            self.udp.open(here.now, Arc::clone(socket), door.clone());
        } else {
            self.gate = Some(Gate::new(door));
        }
    }

    /// Takes no further command, and closes the socket. What has been written by now is answered, also of those who had
    /// connected and were not accepted yet; who carries one command and writes in this moment is served.
    pub(super) fn close(&mut self, desk: &mut Desk<'_>) {
        self.udp.close(desk.here);
        if let Some(mut gate) = self.gate.take() {
            // Of who came in this moment nobody has been told yet.
            gate.knock();
            while let Some((stream, place)) = gate.accept(desk.here) {
                self.admit(&gate, stream, place, desk);
            }
            // Others may have it as well, so that it is not closed by this.
            desk.spot(0).unwatch(gate.door());
        }
        let until = desk.now + PARTING;
        let places: Vec<usize> = self.conns.iter().map(|(place, _)| place).collect();
        for place in places {
            let stays = match self.conns.get_mut(place) {
                Some(Conn::Once(once)) => once.leave_by(until),
                Some(Conn::Kept(kept)) => {
                    kept.knock();
                    let mut next = Some(Next::More);
                    // As much as one may have in flight: with more it is stalled.
                    while next == Some(Next::More) {
                        desk.decided = 0;
                        next = kept.serve(desk, place, &mut self.buffer);
                    }
                    next.is_some() && kept.end()
                }
                None => true,
            };
            self.settle_place(place, stays);
        }
    }

    /// Whether somebody is still to be answered, or may still write.
    pub(super) fn is_busy(&self) -> bool {
        self.conns.iter().any(|(_, conn)| match conn {
            Conn::Once(once) => once.is_waiting(),
            Conn::Kept(kept) => kept.is_waiting(),
        })
    }

    /// When [`Front::alarm`] is to be called.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let gate = self.gate.as_ref().and_then(Gate::due);
        [self.alarms.next(), gate, self.udp.due(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub(super) fn alarm(&mut self, desk: &mut Desk<'_>) -> Next {
        while let Some(place) = self.alarms.pop(desk.now) {
            let stays = match self.conns.get_mut(place) {
                Some(Conn::Once(_)) => {
                    self.look_once(place, desk);
                    continue;
                }
                Some(Conn::Kept(kept)) => kept.alarm(desk.here, place),
                None => true,
            };
            self.settle_place(place, stays);
        }
        self.udp.clear(desk.now);
        if self.gate.as_mut().is_some_and(|gate| gate.resumes(desk.here)) {
            Next::More
        } else {
            Next::Wait
        }
    }

    /// The socket is ready: takes a batch of commands. `More` when there are more.
    pub(super) fn serve(&mut self, desk: &mut Desk<'_>) -> Next {
        if let Some(mut gate) = self.gate.take() {
            let mut accepted = 0;
            while accepted < gate.batch()
                && !desk.is_full()
                && let Some((stream, place)) = gate.accept(desk.here)
            {
                self.admit(&gate, stream, place, desk);
                accepted += 1;
            }
            let next = gate.next();
            self.gate = Some(gate);
            return next;
        }
        self.udp.serve(desk)
    }

    /// The socket has something, which is told once.
    pub(super) fn knock(&mut self) {
        if let Some(gate) = &mut self.gate {
            gate.knock();
        }
        self.udp.knock();
    }

    /// A client that has just connected. Most have written already.
    fn admit(&mut self, gate: &Gate, stream: OwnedFd, share: Place, desk: &mut Desk<'_>) {
        if !gate.keeps() {
            self.read_once(Once::new(stream, share, desk.now), None, desk);
            return;
        }
        self.serial += 1;
        let kept = Kept::new(stream, share, self.serial, desk.now);
        let place = self.conns.insert(Conn::Kept(kept));
        let watched = match self.conns.get(place) {
            Some(Conn::Kept(kept)) => desk.spot(place).watch(kept, 0),
            _ => Ok(()),
        };
        if let Err(error) = watched {
            log::debug!("cluster {}: a client: {error}", desk.cluster.name);
            self.conns.remove(place);
            return;
        }
        // What it has written by now is told by the first event.
        self.settle_place(place, true);
    }

    /// A client is ready.
    pub(super) fn client(
        &mut self,
        place: usize,
        readable: bool,
        writable: bool,
        desk: &mut Desk<'_>,
    ) -> Next {
        match self.conns.get_mut(place) {
            Some(Conn::Once(_)) => {
                self.look_once(place, desk);
                Next::Wait
            }
            Some(Conn::Kept(kept)) => {
                let mut stays = true;
                if writable {
                    stays = kept.flush(desk.here, place);
                }
                if readable {
                    kept.knock();
                }
                let next = if stays {
                    kept.serve(desk, place, &mut self.buffer)
                } else {
                    None
                };
                self.settle_place(place, next.is_some());
                next.unwrap_or(Next::Wait)
            }
            None => Next::Wait,
        }
    }

    /// Reads on from a client that carries one command, or looks at its time.
    fn look_once(&mut self, place: usize, desk: &mut Desk<'_>) {
        if let Some(Conn::Once(once)) = self.conns.try_remove(place) {
            self.read_once(once, Some(place), desk);
        }
    }

    /// Takes the command of a client, or puts it among those that are waited for.
    fn read_once(&mut self, mut once: Once, watched: Option<usize>, desk: &mut Desk<'_>) {
        match once.read(desk.here, &mut self.buffer) {
            once::Next::Wait(due) => {
                let place = self.conns.insert(Conn::Once(once));
                if let Some(Conn::Once(once)) = self.conns.get(place)
                    && watched != Some(place)
                    && let Err(error) = desk.spot(place).watch(once, 0)
                {
                    log::debug!("cluster {}: a client: {error}", desk.cluster.name);
                    self.conns.remove(place);
                    return;
                }
                self.alarms.set(place, Some(due));
            }
            once::Next::Take(length) => {
                if watched.is_some() {
                    desk.spot(0).unwatch(&once);
                }
                let (stream, share, text) = once.into_parts();
                // What was read in one piece is still in the buffer.
                let text = if text.is_empty() {
                    self.buffer.get(..length)
                } else {
                    text.get(..length)
                };
                desk.command(
                    text.unwrap_or_default(),
                    Origin::Unix,
                    Client::Unix(stream, share),
                    who,
                );
            }
            once::Next::Refuse(code) => {
                desk.closed_one();
                if let Some(code) = code {
                    once.refuse(code, desk.now);
                    self.read_once(once, watched, desk);
                }
            }
            once::Next::Gone => {}
        }
    }

    /// A connection stays, with its next alarm, or goes.
    fn settle_place(&mut self, place: usize, stays: bool) {
        if !stays {
            // Its descriptor is watched no more when it is closed.
            self.conns.try_remove(place);
            return;
        }
        let due = match self.conns.get(place) {
            Some(Conn::Kept(kept)) => kept.due(),
            Some(Conn::Once(once)) => Some(once.due()),
            None => None,
        };
        self.alarms.set(place, due);
    }

    /// Gives a client its reply, line end and all. `Some` of a kept connection that goes on by that.
    pub(super) fn reply(&mut self, client: Client, text: &[u8], here: Here<'_>) -> Option<usize> {
        match client {
            Client::Unix(stream, _share) => {
                // A client that has gone, or takes nothing, is no concern of the others.
                rustix::net::send(&stream, text, kept::SEND).ok();
                drain(&stream, 512);
                None
            }
            Client::Datagram(asker) => {
                self.udp.reply(here.now, &asker, text);
                None
            }
            Client::Kept(turn) => {
                let Some(Conn::Kept(kept)) = self.conns.get_mut(turn.place) else {
                    return None;
                };
                if kept.serial != turn.serial {
                    return None;
                }
                let (stays, resumes) = kept.reply(here, turn, text);
                if !resumes {
                    self.settle_place(turn.place, stays);
                }
                (stays && resumes).then_some(turn.place)
            }
        }
    }

    /// Who a client is, as people are told.
    pub(super) fn who(&self, client: &Client) -> String {
        match client {
            Client::Kept(turn) => match self.conns.get(turn.place) {
                Some(Conn::Kept(kept)) if kept.serial == turn.serial => kept.who(),
                _ => "gone".to_owned(),
            },
            Client::Unix(..) | Client::Datagram(_) => who(client),
        }
    }

    /// A client gets no reply: its connection is closed, its datagram may be sent again.
    pub(super) fn forsake(&mut self, client: Client, here: Here<'_>) {
        match client {
            Client::Unix(stream, _share) => drain(&stream, 512),
            Client::Datagram(asker) => self.udp.forsake(&asker),
            Client::Kept(turn) => {
                if let Some(Conn::Kept(kept)) = self.conns.get_mut(turn.place)
                    && kept.serial == turn.serial
                {
                    let stays = kept.forsake(here, turn);
                    self.settle_place(turn.place, stays);
                }
            }
        }
    }
}

/// Who a client is that needs no look at its connection.
fn who(client: &Client) -> String {
    match client {
        Client::Unix(stream, _) => format!("UNIX {}", process(stream)),
        Client::Datagram(asker) => format!("UDP {}", asker.from),
        Client::Kept(_) => String::new(),
    }
}

/// Whose the other end of a UNIX connection is.
fn process(stream: &OwnedFd) -> String {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    peer.map_or_else(
        |_| "process unknown".to_owned(),
        |peer| format!("process {}", peer.pid.as_raw_nonzero()),
    )
}

/// What is wrong with a command that was not finished in time.
fn unfinished(text: &[u8]) -> ErrorCode {
    parse(text).err().unwrap_or(ErrorCode(1))
}

/// Reads and throws away what nobody will read, `piece` bytes at a time.
fn drain(stream: &OwnedFd, piece: usize) {
    let mut unread = [0; 4096];
    let piece = unread.get_mut(..piece).unwrap_or_default();
    let mut drained = 0;
    while drained < DRAIN_MAX
        && let Ok((length, _)) = rustix::net::recv(stream, &mut *piece, RecvFlags::DONTWAIT)
        && length == piece.len()
    {
        drained += length;
    }
}

/// Ends our side of a connection and closes it, without a reset.
fn part(stream: &OwnedFd) {
    rustix::net::shutdown(stream, Shutdown::Write).ok();
    drain(stream, 4096);
}
