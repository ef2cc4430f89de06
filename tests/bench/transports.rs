//! The transports of a control socket, compared: `cargo bench --bench transports`.
//!
//! One daemon has a cluster for each transport, all with the same members. On each of them the same commands are in
//! flight together, 64 at a time, once in the way of a server that keeps one connection and sends all over it, and once
//! in that of 64 worker processes with a connection or socket each. UNIX knows only the second way: a connection a
//! command. All take turns, in one run, because two runs on a busy machine tell nothing about each other; a row is the
//! middle of the turns' ratios to UNIX. None may be more than one and a half times slower. The exit status is 1 when
//! one is.

#![allow(unreachable_pub, reason = "a program has no callers")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench that cannot go on must end, and it measures with the clock"
)]

#[allow(dead_code, reason = "another bench uses the rest of it")]
mod clients;
#[allow(dead_code, reason = "another bench uses the rest of it")]
mod measure;
#[allow(dead_code, reason = "another bench uses the rest of it")]
mod member;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../integration/support/mod.rs"]
mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use clients::{Calls, all_at_once, call_id, is_good};
use measure::{Table, median};
use member::Member;
use support::daemon::{Daemon, Listed, cluster, config_of};
use support::member::{CONTROL_PORT, own_address};
use support::place::Place;
use support::real::free_ipv6;
use support::wait::{self, LONG};
use support::wire::{At, Transport, Wire};

/// Commands in flight together.
const IN_FLIGHT: u64 = 64;
/// Calls that are there already.
const CALLS: u64 = 1_000;
const MEMBERS: usize = 4;
const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_millis(500);
/// A datagram that is not answered by then was lost, which does not happen on one machine with so few in flight.
const LOST_AFTER: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "member") {
        let Err(error) = member::run(&arguments[1..]);
        eprintln!("member {arguments:?}: {error}");
        return ExitCode::FAILURE;
    }
    let place = Place::new();
    let members: Vec<Member> = (1..=MEMBERS)
        .map(|number| Member::udp(0, &format!("127.0.1.{number}")))
        .collect();
    let (_daemon, clusters) = start(&place, &members);
    let mut ways = ways(&clusters);
    println!("{IN_FLIGHT} commands in flight, {ROUNDS} turns of {TURN:?} each");
    for _ in 0..ROUNDS {
        for way in &mut ways {
            let rate = way.turn() / TURN.as_secs_f64();
            way.rates.push(rate);
        }
    }
    let mut table = Table::default();
    let unix = ways[0].rates.clone();
    for way in &ways {
        table.note(&format!("{}: rate", way.name), median(way.rates.clone()), "/s");
        if way.transport != Transport::Unix {
            let ratios = way.rates.iter().zip(&unix).map(|(rate, unix)| rate / unix);
            let what = format!("{}: throughput to UNIX", way.name);
            table.at_least(&what, median(ratios.collect()), 1.0 / 1.5, "x");
        }
    }
    drop(members);
    if table.close() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The daemon, and each transport that the machine has.
fn start(place: &Place, members: &[Member]) -> (Daemon, Vec<(Transport, At)>) {
    let listed: Vec<Listed> = members
        .iter()
        .enumerate()
        .map(|(i, member)| Listed::udp(&format!("M{}", i + 1), &member.address))
        .collect();
    let clusters: Vec<(Transport, At)> = Transport::ALL
        .into_iter()
        .filter_map(|transport| {
            let at = match transport {
                Transport::Unix | Transport::Cunix => {
                    At::Path(place.path(&format!("{}.sock", transport.name())))
                }
                Transport::Udp | Transport::Tcp => At::Net((own_address(), CONTROL_PORT).into()),
                Transport::Udp6 | Transport::Tcp6 => At::Net(free_ipv6()?),
            };
            Some((transport, at))
        })
        .collect();
    let texts: Vec<String> = clusters
        .iter()
        .map(|(transport, at)| {
            let name = transport.name();
            cluster(name, name, &at.to_string(), &listed, "")
        })
        .collect();
    let daemon = Daemon::start(place, &config_of(&texts));
    let line = format!("    active members = {MEMBERS}\n");
    wait::until_true("all members online", LONG, || {
        daemon.admin("ls").matches(&line).count() == clusters.len()
    });
    for (transport, at) in &clusters {
        let mut wire = Wire::new(*transport, at.clone());
        for call in 0..CALLS {
            let command = format!("U {} 192.0.2.10 4000 from-tag;1", call_id(0, call));
            let reply = wire.ask(command.as_bytes());
            assert!(is_good(None, reply.as_bytes()), "{command} -> {reply}");
        }
    }
    (daemon, clusters)
}

/// One way to send commands to one cluster.
struct Way {
    name: String,
    transport: Transport,
    at: At,
    /// Each with a connection or socket of its own, or all over one.
    workers: bool,
    crowd: Vec<Calls>,
    rates: Vec<f64>,
}

fn ways(clusters: &[(Transport, At)]) -> Vec<Way> {
    let mut ways: Vec<Way> = Vec::new();
    for (transport, at) in clusters {
        for workers in [true, false] {
            if *transport == Transport::Unix && !workers {
                continue;
            }
            // Each way has calls of its own: the members are the same.
            let first = ways.len() as u64 * IN_FLIGHT;
            let name = transport.name();
            let how = if workers { "64 workers" } else { "all over one" };
            ways.push(Way {
                name: format!("{name}, {how}"),
                transport: *transport,
                at: at.clone(),
                workers,
                crowd: (first..first + IN_FLIGHT)
                    .map(|client| Calls::new(client, CALLS))
                    .collect(),
                rates: Vec::new(),
            });
        }
    }
    ways
}

impl Way {
    /// Commands answered in one turn.
    fn turn(&mut self) -> f64 {
        let end = Instant::now() + TURN;
        let (at, transport) = (&self.at, self.transport);
        if let (Transport::Unix, At::Path(path)) = (transport, at) {
            return all_at_once(path, &mut self.crowd, TURN);
        }
        let answered = AtomicU64::new(0);
        thread::scope(|scope| {
            let each = if self.workers { 1 } else { self.crowd.len() };
            for calls in self.crowd.chunks_mut(each) {
                let answered = &answered;
                scope.spawn(move || {
                    let count = match at {
                        At::Path(path) => lines(UnixStream::connect(path).unwrap(), calls, end),
                        At::Net(address) if matches!(transport, Transport::Udp | Transport::Udp6) => {
                            datagrams(*address, calls, end)
                        }
                        At::Net(address) => {
                            let stream = TcpStream::connect(address).unwrap();
                            stream.set_nodelay(true).unwrap();
                            lines(stream, calls, end)
                        }
                    };
                    answered.fetch_add(count, Ordering::Relaxed);
                });
            }
        });
        #[expect(clippy::cast_precision_loss, reason = "far below the limit")]
        let answered = answered.into_inner() as f64;
        answered
    }
}

/// The commands of some clients over one kept connection, one of each in flight, until `end`: how many were answered.
fn lines(mut stream: impl Read + Write, crowd: &mut [Calls], end: Instant) -> u64 {
    let mut out = Vec::new();
    // Who waits, in the order of the replies, and for what.
    let mut waiting = VecDeque::new();
    for (client, calls) in crowd.iter_mut().enumerate() {
        put_line(client, calls, &mut out, &mut waiting);
    }
    stream.write_all(&out).unwrap();
    let mut answered = 0;
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    while !waiting.is_empty() {
        let read = stream.read(&mut buffer[filled..]).unwrap();
        assert!(read > 0, "the connection was closed");
        filled += read;
        out.clear();
        let open = Instant::now() < end;
        let mut taken = 0;
        while let Some(length) = buffer[taken..filled].iter().position(|byte| *byte == b'\n') {
            let reply = &buffer[taken..=taken + length];
            taken += length + 1;
            let (client, first): (usize, Option<u8>) = waiting.pop_front().expect("one reply a command");
            assert!(is_good(first, reply), "{}", String::from_utf8_lossy(reply));
            answered += 1;
            // A client ends with its last command answered, so that its next turn begins where this one ends.
            if open {
                put_line(client, &mut crowd[client], &mut out, &mut waiting);
            }
        }
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        stream.write_all(&out).unwrap();
    }
    answered
}

fn put_line(
    client: usize,
    calls: &mut Calls,
    out: &mut Vec<u8>,
    waiting: &mut VecDeque<(usize, Option<u8>)>,
) {
    let (command, first) = calls.next();
    out.extend_from_slice(command);
    out.push(b'\n');
    waiting.push_back((client, first));
}

/// The same over one UDP socket.
fn datagrams(address: SocketAddr, crowd: &mut [Calls], end: Instant) -> u64 {
    // A port may be another client's of a moment ago, whose replies are still kept: no cookie is used again.
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let here = if address.is_ipv6() {
        "[::1]:0"
    } else {
        "127.0.0.1:0"
    };
    let socket = UdpSocket::bind(here).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(LOST_AFTER)).unwrap();
    let mut out = Vec::new();
    let mut send = |client: usize, calls: &mut Calls| {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let (command, first) = calls.next();
        out.clear();
        write!(out, "{client}.{serial} ").unwrap();
        out.extend_from_slice(command);
        socket.send(&out).unwrap();
        first
    };
    let mut waiting: Vec<Option<u8>> = Vec::new();
    for (client, calls) in crowd.iter_mut().enumerate() {
        waiting.push(send(client, calls));
    }
    let mut in_flight = waiting.len();
    let mut answered = 0;
    let mut datagram = [0; 1024];
    while in_flight > 0 {
        let length = socket.recv(&mut datagram).expect("no datagram is lost");
        let datagram = &datagram[..length];
        let space = datagram.iter().position(|byte| *byte == b' ').expect("a cookie");
        let (cookie, reply) = (&datagram[..space], &datagram[space + 1..]);
        let client = cookie.iter().take_while(|byte| **byte != b'.');
        let client = client.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
        assert!(
            is_good(waiting[client], reply),
            "{}",
            String::from_utf8_lossy(reply)
        );
        answered += 1;
        if Instant::now() < end {
            waiting[client] = send(client, &mut crowd[client]);
        } else {
            in_flight -= 1;
        }
    }
    answered
}
