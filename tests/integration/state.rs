//! The state directory: what a daemon knew is known to the next one, however it ended.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::bed::{Bed, answer, create, delete};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::ears::{Ears, counter, element, relay};
use crate::support::fake::FakeMember;
use crate::support::member;
use crate::support::place::Place;
use crate::support::real::RealMember;
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

/// Waits until a call, or what a record has as text, is in the directory.
pub fn wait_written(dir: &Path, call_id: &str) {
    wait::until_true("it is written", LONG, || {
        written(dir)
            .windows(call_id.len())
            .any(|bytes| bytes == call_id.as_bytes())
    });
}

/// Questions to all members since the daemon's start.
pub fn asked_all(daemon: &Daemon) -> String {
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
        // It may be there once more, told with all others.
        while let Some(hit) = bytes.windows(6).position(|bytes| bytes == b"call-3") {
            bytes[hit] ^= 1;
        }
        fs::write(&path, bytes).unwrap();
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

/// Members of `C1` as they are listed: name, weight, status.
fn members(daemon: &Daemon) -> Vec<[String; 3]> {
    let list = daemon.admin_ok("ls C1");
    let values = |key: &str| {
        let key = format!("        {key} = ");
        let lines = list.lines().filter_map(move |line| line.strip_prefix(&key));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (names, weights, statuses) = (values("name"), values("weight"), values("status"));
    let all = names.into_iter().zip(weights).zip(statuses);
    let mut all: Vec<_> = all
        .map(|((name, weight), status)| [name, weight, status])
        .collect();
    all.sort();
    all
}

/// Three members with a call each are changed by an operator, who saves nothing, and one is added.
fn changed(dir: &Path) -> (Bed, FakeMember) {
    let bed = Bed::with(3, "", &["-S", dir.to_str().unwrap()]);
    let mut homes = BTreeSet::new();
    for call in 0.. {
        homes.insert(bed.call(&format!("call-{call}")).media());
        if homes.len() == 3 {
            break;
        }
    }
    let added = FakeMember::start();
    let address = added.control();
    bed.daemon.admin_ok("modify C1 delete M1");
    bed.daemon.admin_ok("modify C1 suspend M2");
    bed.daemon.admin_ok("modify C1 set M3 weight=7");
    bed.daemon.admin_ok(&format!(
        "modify C1 add name=M4,protocol=udp,address={address},weight=1,capacity=9"
    ));
    (bed, added)
}

#[test]
fn what_an_operator_changed_and_did_not_save_is_there_after_kill_9() {
    let place = Place::new();
    let (mut bed, _added) = changed(&place.path("state"));
    let before = members(&bed.daemon);
    assert_eq!(before[0], ["M1", "100", "DRAINING"]);
    for _ in 0..2 {
        bed.daemon.kill();
        bed.daemon.restart();
        bed.daemon.wait_members(4, 0);
        assert_eq!(members(&bed.daemon), before);
    }
    for call in 0..10 {
        let reply = bed.ask(&create(&format!("new-{call}")));
        let is_of = |member: &FakeMember| reply.ends_with(&format!(" {}", member.media()));
        assert!(!is_of(&bed.members[0]) && !is_of(&bed.members[1]), "{reply}");
    }
    // What is saved needs no keeping, and a reload is a way back.
    bed.daemon.admin_ok("reload");
    assert_eq!(members(&bed.daemon)[0], ["M1", "100", "ACTIVE"]);
    bed.daemon.kill();
    bed.daemon.restart();
    // The one that was added drains where it has a call.
    let [first, _, third, ..] = &*members(&bed.daemon) else {
        panic!("three are in the file")
    };
    assert_eq!(first, &["M1", "100", "ACTIVE"]);
    assert_eq!(third, &["M3", "100", "ACTIVE"]);
}

#[test]
fn a_file_that_was_edited_meanwhile_wins_and_the_log_has_what_it_undoes() {
    let place = Place::new();
    let (mut bed, _added) = changed(&place.path("state"));
    bed.daemon.kill();
    let config = bed.daemon.files().config.clone();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("<capacity>1000000<", "<capacity>5<")).unwrap();
    bed.daemon.restart();
    bed.daemon.wait_members(3, 0);
    assert_eq!(members(&bed.daemon)[1], ["M2", "100", "ACTIVE"]);
    let log = bed.daemon.log();
    for undone in [
        "cluster C1, member M1: only in the file",
        "cluster C1, member M2: status: SUSPENDED running, ACTIVE in the file",
        "cluster C1, member M3: weight: 7 running, 100 in the file",
        "cluster C1, member M4: only running",
    ] {
        let line = format!("start: unsaved change undone by the file: {undone}");
        assert_eq!(log.matches(&line).count(), 1, "{line}\n{log}");
    }
}

#[test]
fn changes_that_are_damaged_cost_themselves_and_no_call() {
    let place = Place::new();
    let dir = place.path("state");
    let (mut bed, _added) = changed(&dir);
    wait_written(&dir, "call-0");
    bed.daemon.kill();
    let file = dir.join("changes");
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    bed.daemon.restart();
    bed.daemon.wait_members(3, 0);
    assert_eq!(members(&bed.daemon)[1], ["M2", "100", "ACTIVE"]);
    bed.ask(&answer("call-0"));
    assert_eq!(asked_all(&bed.daemon), "0");
    assert_eq!(bed.daemon.log().matches("it is damaged").count(), 1);
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

/// Two RTPproxies, `R1` and `R2`, and a daemon that keeps its state.
fn real_bed(place: &Place, extra: &str, flags: [&[&str]; 2]) -> (Daemon, [RealMember; 2]) {
    let members = ["r1", "r2"]
        .iter()
        .zip(flags)
        .map(|(name, flags)| RealMember::start_with(place, name, flags));
    let members: Vec<RealMember> = members.collect();
    let listed: Vec<Listed> = members
        .iter()
        .zip(["R1", "R2"])
        .map(|(member, name)| Listed::udp(name, &member.control().to_string()))
        .collect();
    let text = config(&Files::in_place(place).control, &listed, extra);
    let dir = place.path("state");
    let daemon = Daemon::start_with(place, &text, &["-S", dir.to_str().expect("a path")]);
    daemon.wait_members(2, 0);
    (daemon, members.try_into().expect("two"))
}

#[test]
fn a_delete_that_waits_for_its_member_outlives_kill_9() {
    let place = Place::new();
    let (mut daemon, members) = real_bed(&place, "", [&[], &[]]);
    let control = daemon.files().control.clone();
    let mut calls = (0..1_000).map(|n| format!("call-{n}"));
    let theirs = |member: &RealMember, call: &String| {
        client::media(&client::ask(&control, &create(call))).1 == member.media()
    };
    let ends = calls.find(|call| theirs(&members[0], call)).expect("one of them");
    let stays = calls.find(|call| theirs(&members[0], call)).expect("another");
    let before = members[0].sessions();
    members[0].stop();
    daemon.wait_members(1, 1);
    assert_eq!(client::ask(&control, &delete(&ends)), "0");
    wait_written(&place.path("state"), &format!("D {ends} "));
    daemon.kill();
    daemon.restart();
    daemon.wait_members(1, 1);
    members[0].resume();
    // Only then it takes every datagram again.
    daemon.wait_members(2, 0);
    wait::until_true("the session is deleted", LONG, || {
        members[0].sessions() == before - 1
    });
    let reply = client::ask(&control, &answer(&stays));
    assert_eq!(client::media(&reply).1, members[0].media());
}

#[test]
fn a_member_that_is_lost_while_the_daemon_is_down_is_told_of_by_the_next_one() {
    let place = Place::new();
    let inbound = relay(member::own_address());
    let prefix = place.path("sip.");
    let element = element(inbound, &prefix, "on_member_loss='1s'");
    let target = format!("tcp:%%CC_SELF%%:{}", inbound.port());
    let flags = ["-n", &*target];
    let (mut daemon, mut members) = real_bed(&place, &element, [&flags, &flags]);
    let control = daemon.files().control.clone();
    let ears = Ears::at(&place.path("sip.1"));
    let mut theirs = Vec::new();
    for n in 0..20 {
        let path = place.path("sip.1").display().to_string();
        let command = format!("{} {path} tag-{n}", create(&format!("call-{n}")));
        if client::media(&client::ask(&control, &command)).1 == members[0].media() {
            theirs.push(format!("tag-{n}"));
        }
    }
    theirs.sort();
    wait_settled(&daemon, "first");
    daemon.kill();
    members[0].kill();
    daemon.restart();
    daemon.wait_members(1, 1);
    assert_eq!(ears.hear_all(theirs.len()), theirs);
    // What has been told is not told again.
    wait::until_true("all are counted", LONG, || {
        counter(&daemon, "notifications") == theirs.len() as u64
    });
    wait_settled(&daemon, "second");
    daemon.kill();
    daemon.restart();
    daemon.wait_members(1, 1);
    members[1].kill();
    let rest = ears.hear_all(20 - theirs.len());
    assert!(rest.iter().all(|tag| !theirs.contains(tag)), "{rest:?}");
}

/// Waits until all that has happened so far is written: a call that is made now, under this name, is written behind it.
fn wait_settled(daemon: &Daemon, marker: &str) {
    let files = daemon.files();
    client::ask(&files.control, &create(marker));
    let dir = files.config.parent().expect("a directory").join("state");
    wait_written(&dir, marker);
}

#[test]
fn a_member_that_is_restarted_while_the_daemon_is_down_is_not_believed_to_have_its_calls() {
    let place = Place::new();
    let (mut daemon, mut members) = real_bed(&place, "", [&[], &[]]);
    let control = daemon.files().control.clone();
    let homes: Vec<String> = (0..20)
        .map(|n| client::ask(&control, &create(&format!("call-{n}"))))
        .map(|reply| client::media(&reply).1.to_owned())
        .collect();
    // Its next heartbeat has counted them.
    wait::until_true("all are counted", LONG, || {
        let list = daemon.admin("ls C1");
        let counts = list
            .lines()
            .filter_map(|line| line.trim().strip_prefix("active sessions = "));
        counts.filter_map(|count| count.parse::<u64>().ok()).sum::<u64>() == 20
    });
    wait_settled(&daemon, "marker");
    daemon.kill();
    members[0].kill();
    members[0].restart();
    daemon.restart();
    daemon.wait_members(2, 0);
    wait::until_true("it is told", LONG, || {
        daemon
            .log()
            .contains("it has been restarted while this daemon was not there")
    });
    for (n, home) in homes.iter().enumerate() {
        let located = daemon.admin(&format!("locate C1 call-{n}"));
        assert_eq!(located.contains("R2"), *home == members[1].media(), "{located}");
        assert!(!located.contains("R1"), "{located}");
    }
}
