//! The load generator: `cargo bench --bench load [-- PART…]`.
//!
//! Every part compares commands through the cluster with the same commands sent to one member directly, in turns,
//! in one run, because two runs on a busy machine tell nothing about each other. The member is a fake without media
//! (`member.rs`): one thread and one loop, so that what is measured is the way to it. The bounds stand beside the
//! numbers; the exit status is 1 when one was missed.
//!
//! Parts: `a` latency of one client, `b` 64 clients with 1,000 and 900,000 sessions bound, `c` a member stopped and
//! killed, `d` the same as a and b beside 1,000 and 5,000 silent clients, `e` memory and idle processor time, `f` a and
//! b beside the bare loop (`bare.rs`), which is the limit, `g` 64 clusters in front of 64 members (`large.rs`), `h` b
//! with a table that is full, `i` b while the status program reads the daemon's metrics (`watched.rs`). `direct` measures the member alone. Without a part: all but `direct`. `--seconds N` sets
//! the length of one turn (2), `--rounds N` how often the turns are taken (5), `--members N` how many members the
//! cluster has (4), `--sessions N` the size of the large table, `--clients N` the crowd of b.

#![allow(unreachable_pub, reason = "a program has no callers")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench that cannot go on must end, and it measures with the clock"
)]

mod bare;
mod clients;
mod field;
mod large;
mod measure;
mod member;
mod outage;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../integration/support/mod.rs"]
mod support;
mod watched;

use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

use bare::Bare;
use clients::Calls;
use field::{Direct, Field, Rates, Silent, Turns, latencies, rates};
use measure::{Table, cpu_time, median, micros, percentile, resident};
use member::Member;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::conformance;
use support::member::ask;
use support::place::Place;
use support::real::{self, RealMember};
use watched::Watched;

/// Sessions of the small table.
const FEW: u64 = 1_000;
/// Clients that connect and say nothing.
const SILENT: [usize; 2] = [1_000, 5_000];
/// Calls that the full table has room for.
const FULL: u64 = 20_000;
/// Members of the idle daemon, and how long it is watched.
const IDLE: (usize, Duration) = (16, Duration::from_secs(20));

/// What the command line asks for.
struct Options {
    parts: Vec<String>,
    turns: Turns,
    members: usize,
    sessions: u64,
    clients: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "member") {
        let Err(error) = member::run(&arguments[1..]);
        eprintln!("member {arguments:?}: {error}");
        return ExitCode::FAILURE;
    }
    if arguments.first().is_some_and(|a| a == "bare") {
        let Err(error) = bare::run(&arguments[1..]);
        eprintln!("bare {arguments:?}: {error}");
        return ExitCode::FAILURE;
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!(
                "load: {wrong}; parts are a b c d e f g h i direct, options --seconds --rounds --members --sessions --clients"
            );
            return ExitCode::from(64);
        }
    };
    let own = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: own.maximum,
        ..own
    };
    setrlimit(Resource::Nofile, most).expect("the limit may be used up");
    let mut table = Table::default();
    fake_is_true();
    if options.wants("direct") {
        direct(&options, &mut table);
    }
    let mut of_few = None;
    if ["a", "b", "d"].iter().any(|part| options.wants(part)) {
        of_few = few(&options, &mut table);
    }
    if options.wants("b") || options.wants("e") {
        let of_many = many(&options, &mut table);
        if let (Some(few), Some(many)) = (of_few, of_many) {
            same_speed("b", "the large table", &few, &many, &mut table);
        }
    }
    if options.wants("f") {
        beside_bare(&options, &mut table);
    }
    if options.wants("g") {
        large::run(&mut table);
    }
    if options.wants("h") {
        full(&options, &mut table);
    }
    if options.wants("i") {
        watched(&options, &mut table);
    }
    if options.wants("c") {
        outage::run(&mut table);
    }
    if options.wants("e") {
        idle(&mut table);
    }
    if table.close() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let turns = Turns {
            seconds: Duration::from_secs(2),
            rounds: 5,
        };
        let mut options = Self {
            parts: Vec::new(),
            turns,
            members: 4,
            sessions: 900_000,
            clients: 64,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut number = || -> Result<u32, String> {
                let value = words.next().ok_or_else(|| format!("{word} wants a number"))?;
                value
                    .parse()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or_else(|| format!("{word} {value:?}: want a number from 1"))
            };
            match word.as_str() {
                // Cargo says it to every bench.
                "--bench" => {}
                "--seconds" => options.turns.seconds = Duration::from_secs(number()?.into()),
                "--rounds" => options.turns.rounds = number()?,
                "--members" => options.members = number()? as usize,
                "--sessions" => options.sessions = u64::from(number()?).max(FEW),
                "--clients" => options.clients = number()?.into(),
                "a" | "b" | "c" | "d" | "e" | "f" | "g" | "h" | "i" | "direct" => {
                    options.parts.push(word.clone());
                }
                _ => return Err(format!("unknown word {word:?}")),
            }
        }
        if options.parts.is_empty() {
            options.parts = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
                .map(str::to_owned)
                .to_vec();
        }
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.iter().any(|p| p == part)
    }
}

/// Ends the bench when the fake member answers otherwise than a real RTPproxy.
fn fake_is_true() {
    if !real::python().exists() {
        println!("no RTPproxy is installed (`sh tests/run.sh` does it): the fake member goes unchecked");
        return;
    }
    let (place, fake) = (Place::new(), Member::udp(0, "127.0.1.1"));
    let real = RealMember::start(&place, "real");
    let address = fake.address.parse().expect("a member says where it is");
    let truth = conformance::transcript(&real.media(), |command| ask(real.control(), command));
    let ours = conformance::transcript("127.0.1.1", |command| ask(address, command));
    assert_eq!(truth, ours, "a real RTPproxy, and the fake");
    println!(
        "the fake member answers {} commands as a real RTPproxy does",
        truth.len()
    );
}

/// The member alone: what the machine can do.
fn direct(options: &Options, table: &mut Table) {
    println!("\ndirect: one member on a UNIX socket");
    let direct = Direct::new();
    clients::bind(&direct.control, 0, FEW);
    let mut took = clients::one_by_one(&direct.control, &mut Calls::new(1, FEW), options.turns.seconds);
    table.note(
        "direct: median of one client",
        micros(percentile(&mut took, 0.5)),
        "us",
    );
    table.note(
        "direct: p99 of one client",
        micros(percentile(&mut took, 0.99)),
        "us",
    );
    let mut crowd: Vec<Calls> = (0..options.clients)
        .map(|client| Calls::new(client, FEW))
        .collect();
    let answered = clients::all_at_once(&direct.control, &mut crowd, options.turns.seconds);
    table.note(
        "direct: rate of the crowd",
        answered / options.turns.seconds.as_secs_f64(),
        "/s",
    );
}

/// Parts a, b and d with the small table; gives what b has measured.
fn few(options: &Options, table: &mut Table) -> Option<Rates> {
    let (field, near) = (Field::new(options.members), Direct::new());
    for socket in [field.control(), &near.control] {
        clients::bind(socket, 0, FEW);
    }
    if options.wants("a") {
        println!("\na: one client");
        one_client("a", &field, &near, options, table);
    }
    let mut of_few = None;
    if options.wants("b") || options.wants("d") {
        println!("\nb: {} clients, {FEW} sessions", options.clients);
        of_few = Some(crowd("b", &field, &near, FEW, options, table));
    }
    for silent in SILENT.into_iter().filter(|_| options.wants("d")) {
        println!("\nd: beside {silent} silent clients");
        let _silent = Silent::start(field.control(), silent);
        let part = format!("d, {silent} silent");
        one_client(&part, &field, &near, options, table);
        let beside = crowd(&part, &field, &near, FEW, options, table);
        if let Some(alone) = &of_few {
            same_speed("d", &format!("{silent} silent clients"), alone, &beside, table);
        }
    }
    of_few
}

/// `what` costs nothing, as far as the noise of this run lets anyone see.
fn same_speed(part: &str, what: &str, without: &Rates, with: &Rates, table: &mut Table) {
    const NOISE: f64 = 0.1;
    let noise = without.spread().max(with.spread()).max(NOISE);
    table.at_least(
        &format!("{part}: rate with {what}, to without"),
        with.ratio() / without.ratio(),
        1.0 - noise,
        "x",
    );
    table.at_most(
        &format!("{part}: processor time with {what}"),
        median(with.cpu.clone()) / median(without.cpu.clone()),
        1.0 + noise,
        "x",
    );
}

/// Part h: a table at exactly its limit, beside one with room.
fn full(options: &Options, table: &mut Table) {
    println!("\nh: {FULL} sessions, and room for no other");
    let near = Direct::new();
    let (roomy, full) = (
        Field::new(options.members),
        Field::with_room(options.members, FULL),
    );
    for socket in [roomy.control(), full.control(), &near.control] {
        clients::bind(socket, 0, FULL);
    }
    let without = crowd("h, with room", &roomy, &near, FULL, options, table);
    let with = crowd("h, full", &full, &near, FULL, options, table);
    same_speed("h", "a full table", &without, &with, table);
}

/// Part i: a daemon that somebody looks at, and the same when nobody does.
fn watched(options: &Options, table: &mut Table) {
    println!("\ni: metrics read ten times a second, two pages open");
    let (field, near) = (Field::new(options.members), Direct::new());
    for socket in [field.control(), &near.control] {
        clients::bind(socket, 0, FEW);
    }
    let without = crowd("i, alone", &field, &near, FEW, options, table);
    let watched = Watched::start(&field.daemon);
    let with = crowd("i, watched", &field, &near, FEW, options, table);
    drop(watched);
    same_speed("i", "the status program", &without, &with, table);
}

fn one_client(part: &str, field: &Field, near: &Direct, options: &Options, table: &mut Table) {
    let mut taken = latencies(field, near, FEW, options.turns);
    let row = |what: &str| format!("{part}: {what}");
    for (share, name) in [(0.5, "median"), (0.99, "p99")] {
        let (direct, cluster) = (
            percentile(&mut taken.direct, share),
            percentile(&mut taken.cluster, share),
        );
        table.note(
            &row(&format!("{name} of one client, direct")),
            micros(direct),
            "us",
        );
        table.note(
            &row(&format!("{name} of one client, cluster")),
            micros(cluster),
            "us",
        );
        let ratio = cluster.as_secs_f64() / direct.as_secs_f64();
        if name == "median" {
            table.at_most(&row("median, cluster to direct"), ratio, 2.0, "x");
        } else {
            table.note(&row("p99, cluster to direct"), ratio, "x");
        }
    }
}

fn crowd(
    part: &str,
    field: &Field,
    near: &Direct,
    sessions: u64,
    options: &Options,
    table: &mut Table,
) -> Rates {
    let rates = rates(field, near, sessions, options.clients, options.turns);
    let row = |what: &str| format!("{part}: {sessions} sessions, {what}");
    table.note(&row("rate, direct"), median(rates.direct.clone()), "/s");
    table.note(&row("rate, cluster"), median(rates.cluster.clone()), "/s");
    table.note(&row("spread of the cluster's turns"), rates.spread() * 100.0, "%");
    table.at_least(&row("throughput, cluster to direct"), rates.ratio(), 0.7, "x");
    table.at_most(
        &row("processor time of a command"),
        median(rates.cpu.clone()),
        25.0,
        "us",
    );
    rates
}

/// Part b with the large table, and part e's memory, which wants a daemon that has not worked yet.
fn many(options: &Options, table: &mut Table) -> Option<Rates> {
    let sessions = options.sessions;
    println!("\nb, e: {sessions} sessions");
    let (field, near) = (Field::new(options.members), Direct::new());
    clients::bind(field.control(), 0, FEW);
    // Threads, buffers and pools have their size before memory is compared.
    let mut warm: Vec<Calls> = (0..options.clients)
        .map(|client| Calls::new(client, FEW))
        .collect();
    clients::all_at_once(field.control(), &mut warm, Duration::from_secs(1));
    let (before, start) = (resident(field.daemon.pid()), Instant::now());
    clients::bind(field.control(), FEW, sessions);
    println!("  bound in {:.1?}", start.elapsed());
    if options.wants("e") {
        let grown = resident(field.daemon.pid()).saturating_sub(before);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for the eye")]
        let each = grown as f64 / (sessions - FEW).max(1) as f64;
        table.at_most(
            "e: memory of a session with a call-id of 40 bytes",
            each,
            200.0,
            "bytes",
        );
    }
    options.wants("b").then(|| {
        clients::bind(&near.control, 0, sessions);
        crowd("b", &field, &near, sessions, options, table)
    })
}

/// Part f: the cluster, the bare loop and the member alone, in turns.
fn beside_bare(options: &Options, table: &mut Table) {
    println!("\nf: beside the bare loop");
    let (field, near) = (Field::new(options.members), Direct::new());
    let place = Place::new();
    let socket = place.path("bare.sock");
    // Members of its own: the calls that it binds are where its hash wants them.
    let members: Vec<Member> = (1..=options.members)
        .map(|number| Member::udp(0, &format!("127.0.2.{number}")))
        .collect();
    let bare = Bare::start(&socket, &members);
    for control in [field.control(), &near.control, &socket] {
        clients::bind(control, 0, FEW);
    }
    let one = || Calls::new(1_000, FEW);
    let (mut far_one, mut bare_one) = (one(), one());
    let crowd = || -> Vec<Calls> {
        (0..options.clients)
            .map(|client| Calls::new(client, FEW))
            .collect()
    };
    let (mut far, mut beside, mut direct) = (crowd(), crowd(), crowd());
    let (mut took, mut bare_took) = (Vec::new(), Vec::new());
    let (mut to_bare, mut to_direct, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.turns.rounds {
        took.extend(clients::one_by_one(
            field.control(),
            &mut far_one,
            options.turns.seconds,
        ));
        bare_took.extend(clients::one_by_one(&socket, &mut bare_one, options.turns.seconds));
        let [cluster, limit] = [
            (field.daemon.pid(), field.control(), &mut far),
            (bare.id(), socket.as_path(), &mut beside),
        ]
        .map(|(pid, socket, crowd)| {
            let before = cpu_time(pid);
            let answered = clients::all_at_once(socket, crowd, options.turns.seconds);
            let each = micros(cpu_time(pid).saturating_sub(before)) / answered;
            (answered, each)
        });
        let alone = clients::all_at_once(&near.control, &mut direct, options.turns.seconds);
        to_bare.push(cluster.0 / limit.0);
        to_direct.push(cluster.0 / alone);
        cpu.push(cluster.1 / limit.1);
    }
    let ratio = percentile(&mut took, 0.5).as_secs_f64() / percentile(&mut bare_took, 0.5).as_secs_f64();
    table.at_most("f: median of one client, cluster to bare loop", ratio, 1.15, "x");
    table.at_least(
        "f: throughput of the crowd, cluster to bare loop",
        median(to_bare),
        0.9,
        "x",
    );
    table.at_most(
        "f: processor time of a command, to bare loop",
        median(cpu),
        1.2,
        "x",
    );
    table.at_least(
        "f: throughput of the crowd, cluster to direct",
        median(to_direct),
        0.7,
        "x",
    );
}

/// Part e's idle daemon.
fn idle(table: &mut Table) {
    let (members, time) = IDLE;
    println!("\ne: {members} members, nothing to do");
    let field = Field::new(members);
    let before = cpu_time(field.daemon.pid());
    thread::sleep(time);
    let share = cpu_time(field.daemon.pid()).saturating_sub(before).as_secs_f64() / time.as_secs_f64();
    table.at_most(
        "e: processor time of an idle daemon, of a core",
        share * 100.0,
        0.5,
        "%",
    );
}
