//! The operator's view of a large daemon: `cargo bench --bench listing`.
//!
//! 64 clusters of 64 members, all online: how long a listing takes, what it costs the calls beside it, and what
//! such a daemon costs when nothing happens. Calls with and without an operator at work are measured in turns, in one
//! run. The exit status is 1 when a bound was missed. `--seconds N` sets the length of one turn (2), `--rounds N`
//! how often the turns are taken (6).

#![allow(unreachable_pub, reason = "a program has no callers")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a bench that cannot go on must end, and it measures with the clock"
)]

#[allow(dead_code, reason = "the other benches use the rest of it")]
mod clients;
#[allow(dead_code, reason = "the other benches use the rest of it")]
mod measure;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../integration/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use clients::Calls;
use measure::{Table, cpu_time, micros, percentile, resident};
use support::bed::listed;
use support::daemon::{Daemon, cluster, config_of};
use support::fake::FakeMember;
use support::place::Place;
use support::wait;

const CLUSTERS: usize = 64;
const MEMBERS: usize = 64;
/// Listings whose time is taken.
const LISTINGS: usize = 100;
/// Between two looks of the operator beside the calls.
const LOOK: Duration = Duration::from_millis(50);
/// Calls that are asked about.
const CALLS: u64 = 1_000;
/// How long the idle daemon is watched.
const IDLE: Duration = Duration::from_secs(10);

/// An open admin connection.
struct Admin(BufReader<UnixStream>);

impl Admin {
    fn to(daemon: &Daemon) -> Self {
        Self(BufReader::new(
            UnixStream::connect(&daemon.files().admin).expect("the admin socket"),
        ))
    }

    /// One command: how long it took to its `OK`, and how many bytes that were.
    fn ask(&mut self, command: &str) -> (Duration, usize) {
        let start = Instant::now();
        self.0
            .get_mut()
            .write_all(format!("{command}\n").as_bytes())
            .expect("a command");
        let (mut line, mut bytes) = (String::new(), 0);
        loop {
            line.clear();
            bytes += self.0.read_line(&mut line).expect("a line");
            assert!(
                !line.is_empty() && !line.starts_with("ERROR"),
                "{command}: {line:?}"
            );
            if line == "OK\n" {
                return (start.elapsed(), bytes);
            }
        }
    }
}

fn main() -> ExitCode {
    let (seconds, rounds) = match arguments() {
        Ok(found) => found,
        Err(wrong) => {
            eprintln!("listing: {wrong}; options are --seconds N, --rounds N");
            return ExitCode::from(64);
        }
    };
    let mut table = Table::default();
    let place = Place::new();
    let members: Vec<FakeMember> = (0..MEMBERS).map(|_| FakeMember::start()).collect();
    let listed = listed(&members);
    // An RTPproxy may be a member of several clusters.
    let socket = |n: usize| place.path(&format!("c{n}.sock"));
    let clusters: Vec<String> = (1..=CLUSTERS)
        .map(|n| {
            let address = socket(n).display().to_string();
            cluster(&format!("C{n}"), "UNIX", &address, &listed, "")
        })
        .collect();
    let start = Instant::now();
    let daemon = Daemon::start(&place, &config_of(&clusters));
    table.note(
        "from start to the first answer",
        micros(start.elapsed()) / 1e6,
        "s",
    );
    wait::until_true("all online", wait::LONG, || {
        daemon
            .admin("ls")
            .matches(&format!("    active members = {MEMBERS}\n"))
            .count()
            == CLUSTERS
    });
    table.note(
        "until all members were online",
        micros(start.elapsed()) / 1e6,
        "s",
    );
    resources(&daemon, &mut table);
    listings(&daemon, &mut table);
    beside_calls(&daemon, &socket(1), seconds, rounds, &mut table);
    if table.close() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn arguments() -> Result<(Duration, u32), String> {
    let (mut seconds, mut rounds) = (2, 6);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            // Cargo says it to every bench.
            "--bench" => continue,
            "--seconds" => &mut seconds,
            "--rounds" => &mut rounds,
            _ => return Err(format!("{word:?}: no such option")),
        };
        let value = words.next().unwrap_or_default();
        *place = value
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("{word} {value:?}: want a number from 1"))?;
    }
    Ok((Duration::from_secs(u64::from(seconds)), rounds))
}

/// What the daemon holds and uses when nobody calls.
fn resources(daemon: &Daemon, table: &mut Table) {
    println!("\n{CLUSTERS} clusters of {MEMBERS} members, nothing to do");
    let before = cpu_time(daemon.pid());
    thread::sleep(IDLE);
    let share = cpu_time(daemon.pid()).saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
    // 4,096 probes a second, with both ends and their threads on this machine.
    table.at_most(
        "processor time of the daemon, of a core",
        share * 100.0,
        40.0,
        "%",
    );
    let count = |what: &str| {
        let path: PathBuf = format!("/proc/{}/{what}", daemon.pid()).into();
        let entries = fs::read_dir(path).expect("the process lives").count();
        f64::from(u32::try_from(entries).unwrap_or(u32::MAX))
    };
    table.note("threads", count("task"), "");
    table.note("descriptors", count("fd"), "");
    let mib = resident(daemon.pid()) >> 20;
    table.at_most(
        "memory",
        f64::from(u32::try_from(mib).unwrap_or(u32::MAX)),
        256.0,
        "MiB",
    );
}

fn listings(daemon: &Daemon, table: &mut Table) {
    println!("\nhow long a listing takes");
    let mut admin = Admin::to(daemon);
    for (command, bound) in [
        ("ls", Some(20.0)),
        ("ls C1", Some(20.0)),
        ("ls -v C1", None),
        ("ls --json", None),
        ("stats --prometheus", None),
    ] {
        let mut took = Vec::new();
        let mut bytes = 0;
        for _ in 0..if bound.is_some() { LISTINGS } else { LISTINGS / 10 } {
            let (time, length) = admin.ask(command);
            took.push(time);
            bytes = length;
        }
        let [middle, slowest] = [0.5, 0.99].map(|share| micros(percentile(&mut took, share)) / 1e3);
        let what = format!("{command} ({} kB), median", bytes / 1000);
        match bound {
            Some(bound) => table.at_most(&what, middle, bound, "ms"),
            None => table.note(&what, middle, "ms"),
        }
        table.note(&format!("{command}, p99"), slowest, "ms");
    }
}

/// One client's calls, in turns alone and beside an operator who looks at all clusters and at that of the calls.
fn beside_calls(daemon: &Daemon, control: &Path, seconds: Duration, rounds: u32, table: &mut Table) {
    println!("\ncalls, and an operator who looks every {LOOK:?}");
    clients::bind(control, 0, CALLS);
    let mut calls = Calls::new(1, CALLS);
    // The first turn warms up.
    clients::one_by_one(control, &mut calls, seconds);
    let (mut alone, mut beside, mut looks) = (Vec::new(), Vec::new(), 0_u32);
    let (mut quiet_turns, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut quiet = clients::one_by_one(control, &mut calls, seconds);
        let stop = AtomicBool::new(false);
        let mut busy = thread::scope(|scope| {
            let operator = scope.spawn(|| {
                let (mut admin, mut looks) = (Admin::to(daemon), 0);
                while !stop.load(Ordering::Relaxed) {
                    admin.ask("ls");
                    admin.ask("ls -v C1");
                    looks += 1;
                    thread::sleep(LOOK);
                }
                looks
            });
            let busy = clients::one_by_one(control, &mut calls, seconds);
            stop.store(true, Ordering::Relaxed);
            looks += operator.join().unwrap();
            busy
        });
        let (one, other) = (percentile(&mut quiet, 0.99), percentile(&mut busy, 0.99));
        quiet_turns.push(micros(one));
        ratios.push(other.as_secs_f64() / one.as_secs_f64());
        alone.extend(quiet);
        beside.extend(busy);
    }
    table.note("looks", f64::from(looks), "");
    for (share, name) in [(0.5, "median"), (0.99, "p99"), (0.999, "p999")] {
        let (alone, beside) = (percentile(&mut alone, share), percentile(&mut beside, share));
        table.note(&format!("{name} of a command, alone"), micros(alone), "us");
        table.note(&format!("{name} of a command, beside"), micros(beside), "us");
    }
    let (least, most) = quiet_turns
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), turn| {
            (least.min(*turn), most.max(*turn))
        });
    let middle = measure::median(quiet_turns.clone());
    // Turns that had no operator differ as well: nobody can see less than that.
    let noise = ((most - least) / middle / 2.0).max(0.05);
    table.note("noise of the turns alone", noise * 100.0, "%");
    table.at_most(
        "p99 beside to alone, middle of the turns",
        measure::median(ratios),
        1.0 + noise,
        "x",
    );
}
