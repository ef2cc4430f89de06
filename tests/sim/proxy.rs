//! An RTPproxy and the network before it: the engine of the integration tests, which conformance holds to the real one,
//! the replies that it keeps for repeated datagrams, and all that may be wrong with it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rtp_cluster::dispatch::session::MemberId;
use rtp_cluster::protocol::cookie::{self, Cookie};

use super::chance::Chance;
use super::engine::Engine;

/// How long a reply is kept for a repeat of its datagram.
pub const REMEMBERS: Duration = Duration::from_secs(10);
/// Datagrams that wait for one that is stopped; the socket's buffer drops more.
const BACKLOG: usize = 400;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Stopped: what comes waits until it goes on.
    Stopped,
    /// Nothing gets through to it or back.
    Cut,
    /// Nobody listens.
    Down,
}

/// Whose socket something is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Dispatcher(MemberId),
    Prober(MemberId),
}

impl Way {
    pub fn id(self) -> MemberId {
        match self {
            Self::Dispatcher(id) | Self::Prober(id) => id,
        }
    }
}

/// How bad the network and the process are, in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    pub loss: u32,
    pub doubles: u32,
    pub garbage: u32,
    pub refuses: u32,
    /// Milliseconds that a way takes at most.
    pub slow: u64,
}

/// A command on a connection that has not been answered.
#[derive(Debug, Clone)]
pub struct Open {
    pub way: Way,
    pub cookie: Cookie,
    pub again: bool,
    pub text: Vec<u8>,
}

pub struct Proxy {
    pub name: String,
    pub address: String,
    pub engine: Engine,
    pub is_datagram: bool,
    pub mode: Mode,
    pub trouble: Trouble,
    /// As what it is a member now.
    pub id: Option<MemberId>,
    pub backlog: VecDeque<(Way, Vec<u8>)>,
    kept: HashMap<Vec<u8>, (Duration, Vec<u8>)>,
    /// On its connections, in order.
    pub open: Vec<Open>,
    /// Counts its connections: what is on the way on one that has broken is gone.
    pub connection: u32,
    /// What is on the way since before that is for a daemon that was killed.
    pub ours_since: u32,
    /// Until when it answers probes and no command.
    pub deaf_until: Duration,
    /// When the last thing on a connection gets there, and back.
    pub last: [Duration; 2],
    /// Since when nothing at all is wrong with it.
    pub well_since: Duration,
    /// When it last lost its sessions.
    pub restarted: Duration,
    /// When the dispatcher last had a reason to take its calls elsewhere.
    pub unwell: Duration,
}

impl Proxy {
    pub fn new(number: usize, is_datagram: bool) -> Self {
        let address = format!("10.0.0.{number}");
        Self {
            name: format!("P{number}"),
            engine: Engine::new(&address),
            address,
            is_datagram,
            mode: Mode::Up,
            trouble: Trouble::default(),
            id: None,
            backlog: VecDeque::new(),
            kept: HashMap::new(),
            open: Vec::new(),
            connection: 0,
            ours_since: 0,
            deaf_until: Duration::ZERO,
            last: [Duration::ZERO; 2],
            well_since: Duration::ZERO,
            restarted: Duration::ZERO,
            unwell: Duration::ZERO,
        }
    }

    /// It loses its sessions, and what it remembered.
    pub fn restart(&mut self, now: Duration) {
        self.engine.restart();
        self.kept.clear();
        self.backlog.clear();
        self.restarted = now;
        self.unwell = now;
        self.well_since = now;
    }

    /// Something comes in: the reply that goes back, if it is there to give one.
    pub fn takes(
        &mut self,
        now: Duration,
        way: Way,
        text: &[u8],
        chance: &mut Chance,
        ran: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Option<Vec<u8>> {
        match self.mode {
            Mode::Down => return None,
            Mode::Cut if self.is_datagram => return None,
            Mode::Stopped | Mode::Cut => {
                if self.backlog.len() < BACKLOG || !self.is_datagram {
                    self.backlog.push_back((way, text.to_vec()));
                }
                return None;
            }
            Mode::Up => {}
        }
        let (cookie, command) = cookie::split(text)?;
        let command = command.trim_ascii();
        let known = self.kept.get(cookie).filter(|_| self.is_datagram);
        if let Some((_, reply)) = known.filter(|(at, _)| now < *at + REMEMBERS) {
            return Some(reply.clone());
        }
        let mut reply = cookie.to_vec();
        reply.push(b' ');
        let creates = command.first() == Some(&b'U') && !self.has(command);
        if creates && chance.permille(self.trouble.refuses) {
            reply.extend_from_slice(b"E71\n");
        } else {
            let start = reply.len();
            self.engine.answer(command, &mut reply);
            ran(command, &reply[start..]);
        }
        if self.is_datagram {
            self.kept.retain(|_, (at, _)| now < *at + REMEMBERS);
            self.kept.insert(cookie.to_vec(), (now, reply.clone()));
        }
        Some(reply)
    }

    fn has(&self, command: &[u8]) -> bool {
        let id = command.split(|b| *b == b' ').nth(1).unwrap_or_default();
        self.engine.has(&String::from_utf8_lossy(id))
    }
}
