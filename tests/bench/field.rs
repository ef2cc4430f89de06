//! What the parts measure on: a daemon with members over UDP, a member to be asked directly, and silent clients.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clients::{self, Calls};
use crate::measure::{cpu_time, median, micros};
use crate::member::Member;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::place::Place;

/// More calls than the largest part binds, and those of a minute that have ended but are still known.
const SESSIONS_MAX: u64 = 4_000_000;

/// A daemon and its members, which end before their directory goes.
pub struct Field {
    pub daemon: Daemon,
    pub members: Vec<Member>,
    _place: Place,
}

impl Field {
    /// Starts `count` members and a daemon in front of them, and waits until all are online.
    pub fn new(count: usize) -> Self {
        Self::with_room(count, SESSIONS_MAX)
    }

    /// The same with a table of so many calls.
    pub fn with_room(count: usize, sessions_max: u64) -> Self {
        let place = Place::new();
        let members: Vec<Member> = (1..=count)
            .map(|number| Member::udp(0, &format!("127.0.1.{number}")))
            .collect();
        let listed: Vec<Listed> = members
            .iter()
            .enumerate()
            .map(|(i, member)| Listed::udp(&format!("M{}", i + 1), &member.address))
            .collect();
        let extra = format!("<sessions max=\"{sessions_max}\"/>");
        let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, &extra));
        daemon.wait_members(count, 0);
        Self {
            daemon,
            members,
            _place: place,
        }
    }

    /// The cluster's control socket.
    pub fn control(&self) -> &Path {
        &self.daemon.files().control
    }
}

/// One member on a UNIX socket, asked without a cluster.
pub struct Direct {
    _member: Member,
    /// Its socket.
    pub control: PathBuf,
    _place: Place,
}

impl Direct {
    /// Starts it.
    pub fn new() -> Self {
        let place = Place::new();
        let control = place.path("direct.sock");
        Self {
            _member: Member::unix(&control, "127.0.1.9"),
            control,
            _place: place,
        }
    }
}

/// Latencies of one client, one command at a time.
#[derive(Default)]
pub struct Latencies {
    pub direct: Vec<Duration>,
    pub cluster: Vec<Duration>,
}

/// Throughput of many clients at once; one figure a turn.
#[derive(Default)]
pub struct Rates {
    pub direct: Vec<f64>,
    pub cluster: Vec<f64>,
    /// Processor time of the daemon for a command, in microseconds.
    pub cpu: Vec<f64>,
}

impl Rates {
    /// The middle of the turns' ratios, cluster to direct.
    pub fn ratio(&self) -> f64 {
        median(
            self.cluster
                .iter()
                .zip(&self.direct)
                .map(|(cluster, direct)| cluster / direct)
                .collect(),
        )
    }

    /// How far the cluster's turns lie apart, as a share of their middle.
    pub fn spread(&self) -> f64 {
        let middle = median(self.cluster.clone());
        let (low, high) = self
            .cluster
            .iter()
            .fold((f64::MAX, 0.0_f64), |(l, h), r| (l.min(*r), h.max(*r)));
        (high - low) / middle
    }
}

/// How long and how often is measured.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    pub seconds: Duration,
    pub rounds: u32,
}

/// One client, in turns: direct, cluster, direct, …
pub fn latencies(field: &Field, direct: &Direct, population: u64, turns: Turns) -> Latencies {
    let mut calls = Calls::new(1_000, population);
    let mut direct_calls = Calls::new(1_000, population);
    let mut taken = Latencies::default();
    for _ in 0..turns.rounds {
        taken.direct.extend(clients::one_by_one(
            &direct.control,
            &mut direct_calls,
            turns.seconds,
        ));
        taken
            .cluster
            .extend(clients::one_by_one(field.control(), &mut calls, turns.seconds));
    }
    taken
}

/// `count` clients at once, in turns.
pub fn rates(field: &Field, direct: &Direct, population: u64, count: u64, turns: Turns) -> Rates {
    let crowd = || {
        (0..count)
            .map(|client| Calls::new(client, population))
            .collect::<Vec<_>>()
    };
    let (mut near, mut far) = (crowd(), crowd());
    let mut rates = Rates::default();
    let seconds = turns.seconds.as_secs_f64();
    for _ in 0..turns.rounds {
        rates
            .direct
            .push(clients::all_at_once(&direct.control, &mut near, turns.seconds) / seconds);
        let before = cpu_time(field.daemon.pid());
        let answered = clients::all_at_once(field.control(), &mut far, turns.seconds);
        rates
            .cpu
            .push(micros(cpu_time(field.daemon.pid()).saturating_sub(before)) / answered);
        rates.cluster.push(answered / seconds);
    }
    rates
}

/// Clients that connect and say nothing, for as long as this lives; one that is thrown out comes back.
pub struct Silent {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Silent {
    /// Connects `count` of them; returns when all are connected.
    pub fn start(socket: &Path, count: usize) -> Self {
        const LOOK: Duration = Duration::from_millis(50);
        let socket = socket.to_owned();
        let (stop, stopped) = mpsc::channel::<()>();
        let connect = move || {
            let stream = UnixStream::connect(&socket).expect("the cluster accepts");
            stream
                .set_nonblocking(true)
                .expect("a socket can be made non-blocking");
            stream
        };
        let mut held: Vec<UnixStream> = (0..count).map(|_| connect()).collect();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                for stream in &mut held {
                    let waits = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
                    if !stream.read(&mut [0; 64]).is_err_and(|e| waits(&e)) {
                        *stream = connect();
                    }
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; the bench fails by what it measures.
            drop(thread.join());
        }
    }
}
