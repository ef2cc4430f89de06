//! Hours of kills, takeovers, reloads and lost members under calls, with real RTPproxies: a short part of it in each run,
//! more by `tests/soak.sh`, which sets `SOAK_SECONDS`.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::life_takeover::take_over_with;
use crate::state::{asked_all, wait_written};
use crate::support::bed::{answer, create, delete};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::place::Place;
use crate::support::process::Process;
use crate::support::real::RealMember;
use crate::support::traffic::Traffic;
use crate::support::wait::{self, LONG};

/// What a member that is silent costs is known soon.
const HEALTH: &str = "<health interval=\"200ms\" timeout=\"200ms\" retry=\"200ms\"/>";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// As many as an ordinary run has time for, or all.
fn rounds(few: u64, all: u64) -> u64 {
    if number("SOAK_SECONDS").is_some() {
        all
    } else {
        few
    }
}

/// Three RTPproxies, a daemon with a state directory, or its successor, in front of them.
struct Field {
    daemon: Daemon,
    successor: Option<Process>,
    members: Vec<RealMember>,
    place: Place,
}

impl Field {
    /// Sessions without media end by themselves after so many seconds.
    fn new(short: &str) -> Self {
        let place = Place::new();
        let start = |name: &&str| RealMember::start_with(&place, name, &["-T", short, "-W", short]);
        let members: Vec<RealMember> = ["r1", "r2", "r3"].iter().map(start).collect();
        let listed: Vec<Listed> = members
            .iter()
            .zip(["R1", "R2", "R3"])
            .map(|(member, name)| Listed::udp(name, &member.control().to_string()))
            .collect();
        let text = config(&Files::in_place(&place).control, &listed, HEALTH);
        let dir = place.path("state").display().to_string();
        let daemon = Daemon::start_with(&place, &text, &["-S", &dir]);
        daemon.wait_members(3, 0);
        Self {
            daemon,
            successor: None,
            members,
            place,
        }
    }

    fn ask(&self, command: &str) -> String {
        client::ask(&self.daemon.files().control, command)
    }

    fn pid(&self) -> u32 {
        self.successor.as_ref().map_or(self.daemon.pid(), |new| new.id())
    }

    fn kill(&mut self) {
        match self.successor.take() {
            Some(mut successor) => successor.kill(),
            None => self.daemon.kill(),
        }
    }

    fn end(&mut self) {
        let status = if let Some(mut successor) = self.successor.take() {
            successor.signal(Signal::TERM);
            successor.wait_end(LONG)
        } else {
            self.daemon.signal(Signal::TERM);
            self.daemon.wait_end(LONG)
        };
        assert_eq!(status.code(), Some(0), "{}", self.daemon.log());
    }

    fn take_over(&mut self) {
        let (files, dir) = (self.daemon.files().clone(), self.place.path("state"));
        let state = dir.to_str().expect("a path");
        let new = take_over_with(&self.place, &files, self.pid(), &["-S", state]);
        let status = match self.successor.replace(new) {
            Some(mut old) => old.wait_end(LONG),
            None => self.daemon.wait_end(LONG),
        };
        assert_eq!(status.code(), Some(0));
    }

    fn asked_all(&self) -> u64 {
        asked_all(&self.daemon).parse().expect("a number")
    }

    fn sessions(&self) -> u64 {
        self.members.iter().map(RealMember::sessions).sum()
    }

    /// Descriptors, threads and memory in KiB of the daemon.
    fn size(&self) -> [u64; 3] {
        let proc = format!("/proc/{}", self.pid());
        let fds = fs::read_dir(format!("{proc}/fd")).expect("it lives").count() as u64;
        let status = fs::read_to_string(format!("{proc}/status")).expect("it lives");
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let value = line.and_then(|line| line.split_whitespace().next());
            value.and_then(|value| value.parse().ok()).expect("a number")
        };
        [fds, value("Threads:"), value("VmRSS:")]
    }
}

#[test]
fn kills_lose_no_call_of_a_living_member() {
    let mut field = Field::new("600");
    let control = field.daemon.files().control.clone();
    let traffic = Traffic::start_through_kills(&control, 50, Duration::from_millis(300));
    let dir = field.place.path("state");
    let rounds = rounds(4, 100);
    let (mut checked, mut asked) = (0, 0);
    for round in 0..rounds {
        let calls: Vec<String> = (0..20).map(|n| format!("kept-{round}-{n}")).collect();
        let place = |call: &String| client::media(&field.ask(&create(call))).1.to_owned();
        let homes: Vec<String> = calls.iter().map(place).collect();
        for call in &calls {
            wait_written(&dir, call);
        }
        let victim = usize::try_from(round).expect("few") % field.members.len();
        field.members[victim].stop();
        asked += field.asked_all();
        field.kill();
        field.daemon.restart();
        field.daemon.wait_members(2, 1);
        let away = field.members[victim].media();
        for (call, home) in calls.iter().zip(&homes) {
            if *home != away {
                let reply = field.ask(&answer(call));
                assert_eq!(client::media(&reply).1, *home, "{call}");
                checked += 1;
            }
            assert_eq!(field.ask(&delete(call)), "0", "{call}");
        }
        field.members[victim].resume();
        field.daemon.wait_members(3, 0);
    }
    asked += field.asked_all();
    let report = traffic.stop();
    let calls = report.made + 20 * rounds;
    println!(
        "{rounds} kills under {calls} calls: {checked} calls of living members found, {} commands broken off, \
         asked of all {asked} times ({} of a thousand calls)",
        report.broken,
        1_000 * asked / calls
    );
    assert_eq!(report.bad, Vec::<String>::new());
    assert!(asked * 20 <= calls, "{asked} questions for {calls} calls");
}

#[test]
fn takeovers_under_load_refuse_nobody_and_keep_the_state() {
    let mut field = Field::new("600");
    let control = field.daemon.files().control.clone();
    let traffic = Traffic::start(&control, 100, Duration::from_millis(300));
    let rounds = rounds(3, 20);
    let mut asked = 0;
    for _ in 0..rounds {
        let until = traffic.made() + 50;
        wait::until_true("more calls", LONG, || traffic.made() >= until);
        asked += field.asked_all();
        field.take_over();
    }
    let report = traffic.stop();
    asked += field.asked_all();
    println!(
        "{rounds} takeovers under {} calls: {} bad, {asked} times asked of all, the slowest command {:?}",
        report.made,
        report.bad.len(),
        report.slowest
    );
    assert_eq!(report.bad, Vec::<String>::new());
    wait::until_true("no session is left", LONG, || field.sessions() == 0);
}

/// What may happen next.
fn happens(field: &mut Field, dice: u64) {
    let member = usize::try_from(dice / 100).unwrap_or_default() % field.members.len();
    let name = format!("R{}", member + 1);
    match dice % 10 {
        0 => {
            field.kill();
            field.daemon.restart();
        }
        1 => {
            field.end();
            field.daemon.restart();
        }
        2 | 3 => field.take_over(),
        4 => {
            field.members[member].kill();
            field.daemon.wait_members(2, 1);
            field.members[member].restart();
        }
        5 => {
            field.members[member].stop();
            field.daemon.wait_members(2, 1);
            field.members[member].resume();
        }
        6 => drop(field.daemon.admin_ok("reload")),
        7 => drop(field.daemon.admin_ok(&format!("modify C1 suspend {name}"))),
        8 => drop(field.daemon.admin_ok(&format!("modify C1 resume {name}"))),
        _ => drop(
            field
                .daemon
                .admin_ok(&format!("modify C1 set {name} weight={}", 1 + dice % 99)),
        ),
    }
    field.daemon.wait_members(3, 0);
}

#[test]
fn after_all_that_happens_nothing_is_left_and_nothing_has_grown() {
    let seconds = number("SOAK_SECONDS").unwrap_or(10);
    let seed = number("SEED").unwrap_or(1);
    let mut field = Field::new("30");
    let control = field.daemon.files().control.clone();
    let before = field.size();
    let traffic = Traffic::start_through_kills(&control, 30, Duration::from_millis(500));
    let (start, mut dice, mut happened) = (Instant::now(), seed, 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        // Knuth's generator; its high bits are the good ones.
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        happens(&mut field, dice >> 33);
        happened += 1;
        let until = traffic.made() + 20;
        wait::until_true("more calls", LONG, || traffic.made() >= until);
    }
    field.daemon.admin_ok("reload");
    let report = traffic.stop();
    assert_eq!(report.bad, Vec::<String>::new());
    // What was cut off by a kill ends by itself.
    wait::until_true("no session is left", 3 * LONG, || field.sessions() == 0);
    let after = field.size();
    println!(
        "{happened} things in {seconds} s (SEED={seed}) under {} calls, {} commands broken off; descriptors, threads and \
         KiB: {before:?} before, {after:?} after",
        report.made, report.broken
    );
    let [fds, threads, memory] = after;
    assert!(
        fds <= before[0] + 4 && threads <= before[1],
        "{before:?} {after:?}"
    );
    assert!(memory <= before[2] + 16 * 1024, "{before:?} {after:?}");
}
