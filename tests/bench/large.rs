//! Part g: 64 clusters in front of 64 members, all online, and nothing to do. What such a daemon takes from the machine,
//! and how soon after its start each cluster has answered a call.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::exchange;
use crate::measure::{Table, cpu_time, resident};
use crate::member::Member;
use crate::support::daemon::{Daemon, Listed, cluster, config_of};
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

const CLUSTERS: usize = 64;
const MEMBERS: usize = 64;
/// How long the idle daemon is watched.
const IDLE: Duration = Duration::from_secs(20);

/// Measures it.
pub fn run(table: &mut Table) {
    println!("\ng: {CLUSTERS} clusters, {MEMBERS} members in each");
    let place = Place::new();
    let members: Vec<Member> = (1..=MEMBERS)
        .map(|number| Member::udp(0, &format!("127.0.3.{number}")))
        .collect();
    let listed: Vec<Listed> = (1..)
        .zip(&members)
        .map(|(number, member)| Listed::udp(&format!("M{number}"), &member.address))
        .collect();
    let controls: Vec<PathBuf> = (1..=CLUSTERS)
        .map(|n| place.path(&format!("c{n}.sock")))
        .collect();
    let texts: Vec<String> = (1..)
        .zip(&controls)
        .map(|(n, control)| {
            cluster(
                &format!("C{n}"),
                "UNIX",
                &control.display().to_string(),
                &listed,
                "",
            )
        })
        .collect();
    let text = config_of(&texts);
    let start = Instant::now();
    let daemon = Daemon::start(&place, &text);
    for control in &controls {
        wait::until_true("a first answer", LONG, || {
            let mut reply = [0; 256];
            exchange(control, b"U first 192.0.2.10 4000 from-tag;1", &mut reply)
                .is_ok_and(|reply| !reply.starts_with(b"E"))
        });
    }
    let ready = start.elapsed();
    let online = format!("    active members = {MEMBERS}\n");
    wait::until_true("all members online everywhere", LONG, || {
        daemon.admin("ls").matches(&online).count() == CLUSTERS
    });
    let entries = |of: &str| {
        let directory = fs::read_dir(format!("/proc/{}/{of}", daemon.pid())).expect("the daemon lives");
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let count = directory.count() as f64;
        count
    };
    table.at_most(
        "g: from the start to an answer of each cluster",
        ready.as_secs_f64() * 1e3,
        300.0,
        "ms",
    );
    table.at_most("g: threads", entries("task"), 80.0, "");
    table.at_most("g: descriptors", entries("fd"), 4_400.0, "");
    let before = cpu_time(daemon.pid());
    thread::sleep(IDLE);
    let share = cpu_time(daemon.pid()).saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
    table.at_most("g: processor time when idle, of a core", share * 100.0, 2.0, "%");
    #[expect(clippy::cast_precision_loss, reason = "a figure for the eye")]
    let mebibytes = resident(daemon.pid()) as f64 / f64::from(1 << 20);
    table.at_most("g: resident memory", mebibytes, 48.0, "MiB");
}
