//! The daemon as a service of systemd: what it tells, and its sockets, which listen on while it is restarted.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::support::bed::{answer, create, delete};
use crate::support::client::{self, PATIENCE};
use crate::support::daemon::{Listed, config};
use crate::support::fake::FakeMember;
use crate::support::manager::Manager;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{self, LONG};

/// A manager with a daemon in front of `member`, which is online.
fn serving(place: Place, address: &str) -> Manager {
    let mut manager = Manager::new(place);
    let text = config(&manager.files().control, &[Listed::udp("M1", address)], "");
    manager.configure(&text);
    manager.start();
    wait_online(&manager);
    manager
}

fn admin(manager: &Manager, command: &str) -> String {
    let mut stream = UnixStream::connect(&manager.files().admin).expect("the admin socket listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
        .write_all(format!("{command}\nquit\n").as_bytes())
        .expect("it is sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    reply
}

fn wait_online(manager: &Manager) {
    wait::until_true("the member is online", LONG, || {
        admin(manager, "ls").contains("    active members = 1\n")
    });
}

/// One command of a client; an error says why it got no reply.
fn try_ask(socket: &Path, command: &str) -> Result<String, String> {
    let failed = |error| format!("{command}: {error}");
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(command.as_bytes()).map_err(failed)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).map_err(failed)?;
    Ok(reply)
}

#[test]
fn a_restart_refuses_nobody_and_calls_go_on() {
    let place = Place::new();
    let member = RealMember::start(&place, "m1");
    let mut manager = serving(place, &member.control().to_string());
    let control = manager.files().control.clone();
    let port = |reply: String| client::media(&reply).0;
    let kept = port(client::ask(&control, &create("kept")));
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let troubles = thread::scope(|scope| {
        let calling = |worker: usize| {
            let (control, over, served) = (&control, &over, &served);
            move || {
                let mut troubles = Vec::new();
                for number in 0.. {
                    if over.load(Ordering::Acquire) {
                        return troubles;
                    }
                    let call_id = format!("{worker}-{number}");
                    for command in [create(&call_id), answer(&call_id), delete(&call_id)] {
                        match try_ask(control, &command) {
                            Ok(reply) if !reply.is_empty() && !reply.starts_with('E') => {}
                            other => troubles.push(format!("{command} -> {other:?}")),
                        }
                    }
                    served.fetch_add(1, Ordering::AcqRel);
                }
                troubles
            }
        };
        let callers: Vec<_> = (0..4).map(|worker| scope.spawn(calling(worker))).collect();
        let more_calls = |what: &str| {
            let seen = served.load(Ordering::Acquire);
            wait::until_true(format!("calls after {what}"), LONG, || {
                served.load(Ordering::Acquire) > seen + 20
            });
        };
        more_calls("the start");
        for round in 0..3 {
            assert_eq!(manager.stop(), Some(0), "{}", manager.log());
            assert_eq!(
                manager.store.len(),
                2,
                "the sockets of the cluster and of the operators"
            );
            manager.start();
            more_calls(&format!("restart {round}"));
        }
        over.store(true, Ordering::Release);
        callers
            .into_iter()
            .flat_map(|caller| caller.join().expect("a caller"))
            .collect::<Vec<_>>()
    });
    assert!(troubles.is_empty(), "{troubles:#?}\n{}", manager.log());
    assert_eq!(
        port(client::ask(&control, &create("kept"))),
        kept,
        "the call is where it was"
    );
    assert_eq!(member.sessions(), 1, "and no other is left");
}

#[test]
fn a_killed_daemon_is_restarted_without_a_refusal() {
    let place = Place::new();
    let member = FakeMember::start();
    let mut manager = serving(place, &member.control().to_string());
    let control = manager.files().control.clone();
    manager.kill();
    let mut waiting = UnixStream::connect(&control).expect("it listens on");
    waiting.write_all(b"V").expect("it is sent");
    manager.start();
    let mut reply = String::new();
    waiting.read_to_string(&mut reply).expect("a reply");
    assert_eq!(reply, "20040107\n");
}

#[test]
fn what_is_not_configured_any_more_is_kept_no_longer() {
    let place = Place::new();
    let member = FakeMember::start();
    let mut manager = serving(place, &member.control().to_string());
    let first = manager.files().control.clone();
    // At run time: a cluster moves to another socket, and its old one goes at once.
    let second = manager.path("c2.sock");
    let member = Listed::udp("M1", &member.control().to_string());
    manager.configure(&config(&second, std::slice::from_ref(&member), ""));
    manager.service().signal(Signal::HUP);
    let reloading = manager.hear("RELOADING=1");
    assert!(
        reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")),
        "{reloading:?}"
    );
    manager.hear("READY=1");
    assert!(!first.exists() && second.exists());
    assert!(
        manager.store.iter().any(|(name, _)| name.ends_with("c2.sock")),
        "{:?}",
        manager.store
    );
    assert_eq!(manager.store.len(), 2);
    // Between two runs.
    manager.stop();
    assert!(second.exists());
    manager.configure(&config(&first, &[member], ""));
    manager.store.retain(|(name, _)| name.ends_with("c2.sock"));
    manager.start();
    assert!(first.exists() && !second.exists());
    assert_eq!(client::ask(&first, "V"), "20040107");
}

#[test]
fn the_watchdog_hears_that_we_live() {
    let mut manager = Manager::new(Place::new()).environment("WATCHDOG_USEC", "100000");
    manager.configure(&config(&manager.files().control, &[], ""));
    manager.start();
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
}
