//! The state directory: what a daemon knew is known to the next one, however it ended.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::bed::{Bed, answer, delete};
use crate::support::daemon::Daemon;
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

/// Everything in the segments of a state directory.
fn written(dir: &Path) -> Vec<u8> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let segments = files.filter(|file| file.file_name().to_string_lossy().starts_with("sessions."));
    // One may go meanwhile: then all is in the next one.
    segments
        .filter_map(|file| fs::read(file.path()).ok())
        .flatten()
        .collect()
}

fn wait_written(dir: &Path, call_id: &str) {
    wait::until_true("the call is written", LONG, || {
        written(dir)
            .windows(call_id.len())
            .any(|bytes| bytes == call_id.as_bytes())
    });
}

/// Questions to all members since the daemon's start.
fn asked_all(daemon: &Daemon) -> String {
    let metrics = daemon.admin("stats --prometheus");
    let line = metrics.lines().find(|line| line.contains("asked_all_total{"));
    line.and_then(|line| line.split(' ').next_back())
        .expect("there is such a counter")
        .to_owned()
}

#[test]
fn calls_of_living_members_are_found_without_a_question_after_kill_9() {
    let place = Place::new();
    let dir = place.path("state");
    let mut bed = Bed::with(3, "", &["-S", dir.to_str().unwrap()]);
    for round in 0..3 {
        let calls: Vec<String> = (0..30).map(|call| format!("round-{round}-call-{call}")).collect();
        let homes: Vec<String> = calls.iter().map(|call| bed.call(call).media()).collect();
        for call in &calls {
            wait_written(&dir, call);
        }
        let away = bed.members[0].media();
        bed.daemon.kill();
        bed.members[0].vanish();
        bed.daemon.restart();
        bed.daemon.wait_members(2, 1);
        for (call, home) in calls.iter().zip(&homes).filter(|(_, home)| **home != away) {
            assert_eq!(bed.of_reply(&bed.ask(&answer(call))).media(), *home);
            assert_eq!(bed.ask(&delete(call)), "0");
        }
        assert_eq!(asked_all(&bed.daemon), "0");
        bed.members[0].come_back();
        bed.daemon.wait_members(3, 0);
    }
}

#[test]
fn an_orderly_end_loses_nothing_and_no_member_is_taken_for_gone() {
    let place = Place::new();
    let dir = place.path("state");
    let mut bed = Bed::with(3, "", &["-S", dir.to_str().unwrap()]);
    let homes: Vec<String> = (0..20).map(|n| bed.call(&format!("call-{n}")).media()).collect();
    for _ in 0..2 {
        bed.daemon.signal(Signal::TERM);
        assert!(bed.daemon.wait_end(LONG).success());
        bed.daemon.restart();
        bed.daemon.wait_members(3, 0);
    }
    for (n, home) in homes.iter().enumerate() {
        assert_eq!(
            bed.of_reply(&bed.ask(&answer(&format!("call-{n}")))).media(),
            *home
        );
    }
    assert_eq!(asked_all(&bed.daemon), "0");
}

#[test]
fn damage_is_told_once_and_costs_a_question_for_what_it_hit() {
    let place = Place::new();
    let dir = place.path("state");
    let mut bed = Bed::with(2, "", &["-S", dir.to_str().unwrap()]);
    let homes: Vec<String> = (0..10).map(|n| bed.call(&format!("call-{n}")).media()).collect();
    bed.daemon.signal(Signal::TERM);
    assert!(bed.daemon.wait_end(LONG).success());
    for file in fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let hit = bytes.windows(6).position(|bytes| bytes == b"call-3");
        if let Some(hit) = hit {
            bytes[hit] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    bed.daemon.restart();
    bed.daemon.wait_members(2, 0);
    for (n, home) in homes.iter().enumerate() {
        assert_eq!(
            bed.of_reply(&bed.ask(&answer(&format!("call-{n}")))).media(),
            *home
        );
    }
    assert_eq!(asked_all(&bed.daemon), "1");
    assert_eq!(bed.daemon.log().matches("damaged piece").count(), 1);
}

#[test]
fn a_directory_that_cannot_be_had_costs_the_state_and_no_call() {
    let place = Place::new();
    let file = place.write("file", "");
    let dir = file.join("state");
    let bed = Bed::with(1, "", &["-S", dir.to_str().unwrap()]);
    bed.call("call");
    assert_eq!(
        bed.daemon.log().matches("a restart will not know them").count(),
        1
    );
}
