//! A successor takes over from the running daemon: all of it, or nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::followed::Followed;
use crate::state::{asked_all, wait_written};
use crate::support::bed::{Bed, answer, create, delete, listed};
use crate::support::daemon::{Daemon, Files, cluster, config, config_of, program};
use crate::support::member::{CONTROL_PORT, own_address};
use crate::support::place::Place;
use crate::support::process::{Background, Process};
use crate::support::traffic::Traffic;
use crate::support::wait::{self, LONG};
use crate::support::wire::{At, Transport, Wire};

/// A daemon that takes over from the one of `files`.
fn successor(files: &Files) -> Command {
    let mut command = program();
    command.arg("-f").arg("-T").arg("-c").arg(&files.config);
    command.arg("-s").arg(&files.admin).arg("-P").arg(&files.pid);
    command
}

/// Starts it and waits until it has taken over from the process `pid`; its log is a file beside the other's.
fn take_over(place: &Place, files: &Files, pid: u32) -> Process {
    take_over_with(place, files, pid, &[])
}

/// The same with further arguments.
pub fn take_over_with(place: &Place, files: &Files, pid: u32, arguments: &[&str]) -> Process {
    let log = place.path(&format!("log.after.{pid}"));
    let mut command = successor(files);
    command.args(arguments);
    command.stderr(File::create(&log).expect("a file"));
    let mut new = Process::start("the successor", &mut command);
    wait::until_true("the takeover", LONG, || {
        let text = fs::read_to_string(&log).expect("a log");
        assert!(new.try_wait().expect("our child").is_none(), "{text}");
        text.contains(&format!("took over from process {pid}"))
    });
    new
}

#[test]
fn successors_take_over_while_calls_flow_and_none_is_lost() {
    let mut bed = Bed::of(2);
    let files = bed.daemon.files().clone();
    let traffic = Traffic::start(bed.control(), 100, Duration::from_millis(200));
    let more = |traffic: &Traffic| {
        let until = traffic.made() + 30;
        wait::until_true("more calls", LONG, || traffic.made() >= until);
    };
    more(&traffic);
    let mut watch = Followed::begin(&bed.daemon, "watch");
    let mut new = take_over(&bed.place, &files, bed.daemon.pid());
    let told = format!("daemon: leaving: process {} has taken over and serves", new.id());
    assert_eq!(watch.until("daemon"), told);
    assert_eq!(bed.daemon.wait_end(LONG).code(), Some(0), "{}", bed.daemon.log());
    assert!(
        bed.daemon
            .log()
            .contains(&format!("process {} has taken over", new.id()))
    );
    for _ in 0..4 {
        more(&traffic);
        let mut old = new;
        new = take_over(&bed.place, &files, old.id());
        assert_eq!(old.wait_end(LONG).code(), Some(0));
    }
    more(&traffic);
    let report = traffic.stop();
    assert_eq!(report.bad, Vec::<String>::new());
    wait::until_true("no session is left", LONG, || bed.sessions() == 0);

    let pid = fs::read_to_string(&files.pid).expect("a pid file");
    assert_eq!(pid, format!("{}\n", new.id()));
    bed.daemon.admin_ok("ls");
    let another = program()
        .arg("-f")
        .arg("-c")
        .arg(&files.config)
        .arg("-s")
        .arg(&files.admin)
        .arg("-P")
        .arg(&files.pid)
        .output()
        .expect("it runs");
    assert_eq!(
        another.status.code(),
        Some(75),
        "the lock of the pid file went along"
    );
    new.signal(Signal::TERM);
    assert_eq!(new.wait_end(LONG).code(), Some(0));
    assert!(!files.control.exists() && !files.admin.exists() && !files.pid.exists());
}

#[test]
fn a_successor_has_the_state_directory_and_knows_every_call() {
    let place = Place::new();
    let dir = place.path("state");
    let keeps = ["-S", dir.to_str().expect("a path")];
    let mut bed = Bed::with(3, "", &keeps);
    let files = bed.daemon.files().clone();
    let calls: Vec<String> = (0..40).map(|n| format!("call-{n}")).collect();
    let homes: Vec<String> = calls.iter().map(|call| bed.call(call).media()).collect();
    let found = |bed: &Bed, calls: &[String], homes: &[String]| {
        for (call, home) in calls.iter().zip(homes) {
            assert_eq!(bed.of_reply(&bed.ask(&answer(call))).media(), *home);
        }
        assert_eq!(asked_all(&bed.daemon), "0");
    };

    let mut one = take_over_with(&bed.place, &files, bed.daemon.pid(), &keeps);
    assert_eq!(bed.daemon.wait_end(LONG).code(), Some(0), "{}", bed.daemon.log());
    found(&bed, &calls, &homes);
    bed.ask(&delete("call-0"));
    let mut other = take_over_with(&bed.place, &files, one.id(), &keeps);
    assert_eq!(one.wait_end(LONG).code(), Some(0));
    let late = bed.of_reply(&bed.ask(&create("late"))).media();
    wait_written(&dir, "late");
    other.kill();

    bed.daemon.restart();
    bed.daemon.wait_members(3, 0);
    found(&bed, &calls[1..], &homes[1..]);
    found(&bed, &["late".to_owned()], &[late]);
    assert!(
        !bed.daemon.log().contains("will not know them"),
        "{}",
        bed.daemon.log()
    );
}

#[test]
fn a_successor_that_cannot_serve_leaves_the_state_directory_to_the_daemon() {
    let place = Place::new();
    let dir = place.path("state");
    let keeps = ["-S", dir.to_str().expect("a path")];
    let mut bed = Bed::with(1, "", &keeps);
    let files = bed.daemon.files().clone();
    bed.call("before");
    let nowhere = cluster(
        "C9",
        "UNIX",
        &bed.place.path("no/c.sock").display().to_string(),
        &[],
        "",
    );
    let good = fs::read_to_string(&files.config).expect("a file");
    let two = good.replace(
        "</rtp_cluster_config>",
        &format!("{nowhere}</rtp_cluster_config>"),
    );
    fs::write(&files.config, two).expect("a file");
    let output = successor(&files).args(keeps).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    fs::write(&files.config, good).expect("a file");
    bed.call("after");
    wait_written(&dir, "after");
    bed.daemon.kill();
    bed.daemon.restart();
    bed.daemon.wait_members(1, 0);
    for call in ["before", "after"] {
        bed.ask(&answer(call));
    }
    assert_eq!(asked_all(&bed.daemon), "0");
}

#[test]
fn a_daemon_in_the_background_is_taken_over_by_one() {
    in_the_background(&[]);
}

#[test]
fn one_with_a_user_of_its_own_is_taken_over_by_the_super_user_that_becomes_it() {
    if rustix::process::geteuid().is_root() {
        in_the_background(&["-u", "60991"]);
    }
}

fn in_the_background(flags: &[&str]) {
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    if !flags.is_empty() {
        std::os::unix::fs::chown(place.dir(), Some(60_991), Some(60_991)).expect("we are root");
    }
    let mut daemons = Vec::new();
    for takeover in [&[][..], &["-T"]] {
        let log = place.path(&format!("daemon.log.{}", daemons.len()));
        let mut command = program();
        command.arg("-c").arg(&files.config).arg("-s").arg(&files.admin);
        command.arg("-P").arg(&files.pid).arg("-L").arg(&log);
        let output = command.args(flags).args(takeover).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        daemons.push(Background::of(&files.pid));
    }
    let gone = |daemon: &Background| !fs::exists(format!("/proc/{}", daemon.pid())).unwrap_or(false);
    wait::until_true("the old one has left", LONG, || gone(&daemons[0]));
    assert!(!gone(&daemons[1]) && files.control.exists() && files.admin.exists());
    daemons[1].signal(Signal::TERM);
    wait::until_true("the end", LONG, || !files.pid.exists());
    assert!(!files.control.exists() && !files.admin.exists());
}

#[test]
fn sockets_of_every_kind_go_along_and_one_that_is_gone_from_the_file_is_removed() {
    let place = Place::new();
    let files = Files::in_place(&place);
    let port = SocketAddr::new(own_address(), CONTROL_PORT);
    let clusters = |first: bool| {
        let control = files.control.display().to_string();
        let unix = first.then(|| cluster("C1", "UNIX", &control, &[], ""));
        let kept = place.path("kept.sock").display().to_string();
        let others = [
            cluster("C2", "UDP", &port.to_string(), &[], ""),
            cluster("C3", "TCP", &port.to_string(), &[], ""),
            cluster("C4", "CUNIX", &kept, &[], ""),
        ];
        config_of(&unix.into_iter().chain(others).collect::<Vec<_>>())
    };
    let old = Daemon::start(&place, &clusters(true));
    fs::write(&files.config, clusters(false)).expect("a file");
    let _new = take_over(&place, &files, old.pid());
    // The old one may still answer who has just connected.
    wait::until_true("the new one's clusters", LONG, || {
        old.admin("ls").matches("name = C").count() == 3
    });
    wait::until_true("a socket that nobody serves is removed", LONG, || {
        !files.control.exists()
    });
    for (transport, at) in [
        (Transport::Udp, At::Net(port)),
        (Transport::Tcp, At::Net(port)),
        (Transport::Cunix, At::Path(place.path("kept.sock"))),
    ] {
        assert_eq!(Wire::new(transport, at).ask(b"V"), "20040107");
    }
}

#[test]
fn a_successor_that_cannot_serve_leaves_the_daemon_as_it_is() {
    let bed = Bed::of(1);
    let files = bed.daemon.files().clone();
    let nowhere = cluster(
        "C9",
        "UNIX",
        &bed.place.path("no/c.sock").display().to_string(),
        &[],
        "",
    );
    let good = config(&files.control, &listed(&bed.members), "");
    let refused = |text: &str, exit: i32, why: &str| {
        fs::write(&files.config, text).expect("a file");
        let output = successor(&files).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(exit) && said.contains(why), "{said}");
        assert_eq!(
            fs::read_to_string(&files.pid).expect("a pid file"),
            format!("{}\n", bed.daemon.pid())
        );
        bed.daemon.admin_ok("ls");
        assert_eq!(bed.call("still-here").media(), bed.members[0].media());
    };
    refused("<rtp_cluster_config><rtp_cluster>", 78, ":1:");
    assert!(
        !bed.daemon.log().contains("asks to take over"),
        "it looks at its own file first"
    );
    let two = good.replace(
        "</rtp_cluster_config>",
        &format!("{nowhere}</rtp_cluster_config>"),
    );
    refused(&two, 1, "no/c.sock");
    wait::until_true("it is told", LONG, || {
        bed.daemon
            .log()
            .contains("a takeover has come to nothing, serving on")
    });
}

#[test]
fn a_successor_that_falls_silent_neither_stops_calls_nor_the_end() {
    let mut bed = Bed::of(1);
    let files = bed.daemon.files().clone();
    let mut silent = UnixStream::connect(&files.admin).expect("the admin socket");
    silent.write_all(b"takeover 1\n").expect("it is sent");
    silent.read_exact(&mut [0; 4]).expect("an offer");
    assert_eq!(bed.call("meanwhile").media(), bed.members[0].media());
    bed.daemon.admin_ok("ls");
    bed.daemon.signal(Signal::TERM);
    // Less than the patience with a successor.
    assert_eq!(bed.daemon.wait_end(LONG).code(), Some(0));
    assert!(!files.control.exists() && !files.admin.exists() && !files.pid.exists());
}

#[test]
fn without_a_daemon_there_is_nothing_to_take_over() {
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    let output = successor(&files).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("no daemon is there"),
        "{said}"
    );
    assert!(!files.control.exists() && !files.pid.exists());
}

#[test]
fn another_user_takes_over_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bed = Bed::with(1, "", &["--admin-mode", "0666"]);
    let files = bed.daemon.files();
    let mut command = successor(files);
    let output = command.uid(60_991).gid(60_991).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("user 60991 may not"),
        "{said}"
    );
    assert_eq!(bed.call("still-here").media(), bed.members[0].media());
}
