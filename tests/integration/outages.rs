//! Members that fail: nobody on another member notices, no new call is lost, nothing is left behind.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::bed::{Bed, answer, at_once, create, delete, listed};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::engine::Engine;
use crate::support::fake::{FakeMember, Fault};
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{self, LONG};

/// New calls and questions about old ones, all the time, while something happens to a member.
struct Load {
    refused: Vec<String>,
    old: Vec<String>,
}

/// Makes new calls and asks about `old` ones until `done`, with eight workers.
fn load(daemon: &Daemon, old: &[String], done: &AtomicBool) -> Load {
    let control = &daemon.files().control;
    let result = Mutex::new(Load {
        refused: Vec::new(),
        old: Vec::new(),
    });
    thread::scope(|scope| {
        for worker in 0..8 {
            let result = &result;
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    let call = format!("load-{worker}-{number}");
                    let reply = client::ask(control, &create(&call));
                    let question = client::ask(control, &format!("Q {} from to", old[number % old.len()]));
                    client::ask(control, &delete(&call));
                    let mut result = result.lock().expect("no worker has failed");
                    if reply.starts_with('E') {
                        result.refused.push(reply);
                    }
                    // Five numbers, the first of which falls: there is no media.
                    if question.split(' ').count() != 5 {
                        result.old.push(question);
                    }
                    number += 1;
                }
            });
        }
    });
    result.into_inner().expect("no worker has failed")
}

/// Three real members, a call bound to each on average, under load, while `fault` happens to the first; `repair` ends
/// it, and the load goes on until new calls reach the member again.
fn survives(fault: impl Fn(&mut RealMember), repair: impl Fn(&mut RealMember), kept: bool) {
    let place = Place::new();
    let mut members: Vec<RealMember> = (1..=3)
        .map(|n| RealMember::start(&place, &format!("r{n}")))
        .collect();
    let listed: Vec<Listed> = members
        .iter()
        .enumerate()
        .map(|(n, m)| Listed::udp(&format!("R{}", n + 1), &m.control().to_string()))
        .collect();
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(3, 0);
    let control = daemon.files().control.clone();
    let (mut theirs, mut others) = (Vec::new(), Vec::new());
    for number in 0..30 {
        let call = format!("old-{number}");
        let reply = client::ask(&control, &create(&call));
        if client::media(&reply).1 == members[0].media() {
            theirs.push(call);
        } else {
            others.push(call);
        }
    }
    assert!(
        !theirs.is_empty() && !others.is_empty(),
        "thirty calls are spread"
    );

    let done = AtomicBool::new(false);
    let load = thread::scope(|scope| {
        let load = scope.spawn(|| load(&daemon, &others, &done));
        fault(&mut members[0]);
        daemon.wait_members(2, 1);
        // Its calls: what ends is done with, what needs the member is refused.
        assert_eq!(client::ask(&control, &delete(&theirs[0])), "0");
        assert_eq!(
            client::ask(&control, &answer(theirs.last().expect("not empty"))),
            "E997"
        );
        repair(&mut members[0]);
        let mut number = 0;
        wait::until_true("new calls on the member that is back", LONG, || {
            number += 1;
            let call = format!("return-{number}");
            let reply = client::ask(&control, &create(&call));
            client::ask(&control, &delete(&call));
            client::media(&reply).1 == members[0].media()
        });
        done.store(true, Ordering::Relaxed);
        load.join().expect("the load has not failed")
    });
    assert!(load.refused.is_empty(), "new calls refused: {:?}", load.refused);
    assert!(load.old.is_empty(), "calls of other members: {:?}", load.old);
    // What was created late is undone, and what was deleted meanwhile is gone.
    let left = if kept { theirs.len() as u64 - 1 } else { 0 };
    wait::until_true(format!("{left} sessions on the member"), LONG, || {
        members[0].sessions() == left
    });
    // One line for each change, no more.
    let of_r1 = |log: &str| -> Vec<String> {
        log.lines()
            .filter(|line| line.contains("member R1 "))
            .map(str::to_owned)
            .collect()
    };
    wait::until_true("the return in the log", LONG, || of_r1(&daemon.log()).len() == 3);
    let lines = of_r1(&daemon.log());
    for (line, change) in lines
        .iter()
        .zip(["unknown -> online", "online -> offline", "offline -> online"])
    {
        assert!(line.contains(change), "{change} in {lines:?}");
    }
}

#[test]
fn a_member_killed_under_load_costs_no_new_call() {
    survives(RealMember::kill, RealMember::restart, false);
}

#[test]
fn a_member_stopped_under_load_costs_no_new_call_and_keeps_no_late_session() {
    survives(|member| member.stop(), |member| member.resume(), true);
}

#[test]
fn a_member_silent_from_the_start_is_never_chosen() {
    let members = vec![FakeMember::start(), FakeMember::start()];
    members[0].on("", Fault::Silent);
    let bed = Bed::before(members, "", &[]);
    bed.daemon.wait_members(1, 1);
    for number in 0..50 {
        assert_eq!(
            bed.call(&format!("call-{number}")).media(),
            bed.members[1].media()
        );
    }
    assert!(bed.members[0].seen("U").is_empty());
}

#[test]
fn with_all_members_down_new_calls_are_refused_at_once_and_come_back_alone() {
    let bed = Bed::of(2);
    for member in &bed.members {
        member.on("", Fault::Silent);
    }
    bed.daemon.wait_members(0, 2);
    for number in 0..21 {
        assert_eq!(bed.ask(&create(&format!("call-{number}"))), "E999");
    }
    let asked = |member: &FakeMember| !member.seen("U").is_empty();
    assert!(!bed.members.iter().any(asked), "at once: nobody is asked");
    bed.members[1].recover();
    bed.daemon.wait_members(1, 1);
    assert_eq!(bed.call("after").media(), bed.members[1].media());
}

#[test]
fn the_only_member_is_taken_back_at_once_however_often_it_has_failed() {
    let mut bed = Bed::with(1, "<health interval=\"100ms\" retry=\"1s\"/>", &[]);
    // With another member online it would have to answer for longer than anybody waits here after the seventh loss.
    for loss in 1..=7 {
        bed.members[0].vanish();
        bed.daemon.wait_members(0, 1);
        assert_eq!(bed.ask(&create("nobody")), "E999");
        bed.members[0].come_back();
        bed.daemon.wait_members(1, 0);
        bed.call(&format!("after-{loss}"));
    }
}

#[test]
fn a_slow_member_loses_the_call_and_is_made_to_forget_it() {
    let bed = Bed::of(2);
    bed.members[0].on("U", Fault::Late(Duration::from_millis(900)));
    at_once(8, 24, |number| {
        let reply = bed.ask(&create(&format!("call-{number}")));
        assert_eq!(bed.of_reply(&reply).media(), bed.members[1].media());
    });
    assert!(!bed.members[0].seen("U").is_empty(), "the slow one was tried");
    wait::until_true("late sessions undone", LONG, || bed.members[0].sessions() == 0);
    assert_eq!(bed.members[1].sessions(), 24, "and none of the good ones");
}

#[test]
fn a_weak_session_that_came_late_is_undone_too() {
    let bed = Bed::of(2);
    bed.members[0].on("U", Fault::Late(Duration::from_millis(700)));
    for number in 0..12 {
        let reply = bed.ask(&format!("Uw call-{number} 127.0.0.1 4000 from;1"));
        assert_eq!(bed.of_reply(&reply).media(), bed.members[1].media());
    }
    assert!(bed.members[0].created() > 0, "the slow one was tried");
    wait::until_true("late sessions undone", LONG, || bed.members[0].sessions() == 0);
}

#[test]
fn a_refused_socket_is_noticed_without_waiting() {
    let mut bed = Bed::of(2);
    bed.members[0].vanish();
    for number in 0..20 {
        let reply = bed.ask(&create(&format!("call-{number}")));
        assert_eq!(bed.of_reply(&reply).media(), bed.members[1].media());
    }
    bed.daemon.wait_members(1, 1);
}

#[test]
fn a_member_without_ports_passes_the_call_on() {
    let bed = Bed::of(2);
    for error in ["E71", "E72", "E81", "E98", "E99"] {
        bed.members[0].on("U", Fault::Refuse(error));
        for number in 0..10 {
            let reply = bed.ask(&create(&format!("{error}-{number}")));
            assert_eq!(bed.of_reply(&reply).media(), bed.members[1].media());
        }
    }
    // An error is an answer, not a silence: nothing was sent again.
    let sent: HashSet<String> = bed.members[0]
        .seen("U")
        .into_iter()
        .map(|seen| seen.cookie)
        .collect();
    assert_eq!(sent.len(), bed.members[0].seen("U").len());
    // An error of the command itself is the client's.
    for member in &bed.members {
        member.on("U", Fault::Refuse("E31"));
    }
    assert_eq!(bed.ask(&create("wrong")), "E31");
}

#[test]
fn what_is_no_reply_is_never_passed_on() {
    let nonsense: Vec<(&str, Fault)> = vec![
        ("binary", Fault::Instead(b"\xff\xfe\x00\x01\n".to_vec())),
        ("empty", Fault::Instead(Vec::new())),
        ("a word", Fault::Instead(b"hello\n".to_vec())),
        ("a negative port", Fault::Instead(b"-5 192.0.2.1\n".to_vec())),
        (
            "a port above all ports",
            Fault::Instead(b"70000 192.0.2.1\n".to_vec()),
        ),
        (
            "too long",
            Fault::Instead([b"4000 ".as_slice(), &[b'1'; 9_000]].concat()),
        ),
        ("no cookie", Fault::Raw(b"4000 192.0.2.66\n".to_vec())),
        ("another cookie", Fault::WrongCookie),
        ("another sender", Fault::WrongSource),
    ];
    let bed = Bed::of(2);
    for (what, fault) in nonsense {
        bed.members[0].recover();
        bed.members[0].on("U", fault);
        let tried = bed.members[0].seen("U").len();
        let mut number = 0;
        wait::until_true(format!("{what}: the bad member is tried"), LONG, || {
            number += 1;
            let reply = bed.ask(&create(&format!("{}-{number}", what.replace(' ', "-"))));
            assert_eq!(
                bed.of_reply(&reply).media(),
                bed.members[1].media(),
                "{what}: {reply:?}"
            );
            bed.members[0].seen("U").len() > tried
        });
    }
}

#[test]
fn a_doubled_reply_is_one_reply() {
    let bed = Bed::of(1);
    bed.members[0].on("", Fault::Twice);
    for number in 0..50 {
        let call = format!("call-{number}");
        assert_eq!(bed.call(&call).media(), bed.members[0].media());
        assert_eq!(
            bed.ask(&format!("Q {call} from to")),
            "60 0 0 0 0",
            "not what was left of the U"
        );
        assert_eq!(bed.ask(&delete(&call)), "0");
    }
}

#[test]
fn thirty_percent_loss_each_way_loses_no_command_and_runs_none_twice() {
    const CALLS: usize = 200;
    let bed = Bed::with(2, "<health fall=\"10\"/>", &[]);
    for member in &bed.members {
        member.on("", Fault::Loss(30));
    }
    let answers = at_once(16, CALLS, |number| {
        let call = format!("call-{number}");
        let made = bed.ask(&create(&call));
        [
            made,
            bed.ask(&answer(&call)),
            bed.ask(&format!("Q {call} from to")),
        ]
    });
    let lost = answers
        .iter()
        .flatten()
        .filter(|reply| reply.starts_with('E'))
        .count();
    // One in ten thousand is lost by chance alone.
    assert!(lost <= 1, "{lost} of {} commands", CALLS * 3);
    wait::until_true("one session a call", LONG, || bed.sessions() == CALLS as u64);
    for member in &bed.members {
        member.recover();
    }
    let ended = at_once(16, CALLS, |number| bed.ask(&delete(&format!("call-{number}"))));
    assert!(ended.iter().all(|reply| reply == "0"), "{ended:?}");
    wait::until_true("no session left", LONG, || bed.sessions() == 0);
}

#[test]
fn a_member_that_lost_its_sessions_is_not_believed_to_have_them() {
    let bed = Bed::of(2);
    let call = bed.call_on(0, "call");
    // The counters must have been seen before they can fall.
    let beats = bed.members[0].seen("I").len();
    wait::until_true("a heartbeat", LONG, || bed.members[0].seen("I").len() > beats + 1);
    bed.members[0].forget();
    // The SIP server has moved the call to the other one by itself.
    bed.members[1].run(&create(&call));
    wait::until_true("the call at its new home", LONG, || {
        let reply = bed.ask(&answer(&call));
        reply != "0" && bed.of_reply(&reply).media() == bed.members[1].media()
    });
}

#[test]
fn an_unknown_call_is_found_though_one_member_is_silent() {
    let bed = Bed::with(4, "<health fall=\"10\"/>", &[]);
    bed.members[0].on("", Fault::Silent);
    for number in 0..10 {
        let call = format!("call-{number}");
        bed.members[2].run(&create(&call));
        let reply = bed.ask(&answer(&call));
        assert_eq!(bed.of_reply(&reply).media(), bed.members[2].media());
    }
}

#[test]
fn of_two_members_that_claim_a_call_one_keeps_it() {
    let bed = Bed::of(3);
    for member in &bed.members[..2] {
        member.run(&create("call"));
    }
    let home = bed.of_reply(&bed.ask(&answer("call"))).media();
    for _ in 0..10 {
        assert_eq!(bed.of_reply(&bed.ask(&answer("call"))).media(), home);
    }
}

#[test]
fn a_call_whose_member_died_is_healed_by_a_re_invite() {
    let bed = Bed::of(2);
    let call = bed.call_on(0, "call");
    bed.members[0].on("", Fault::Silent);
    bed.daemon.wait_members(1, 1);
    assert_eq!(bed.ask(&answer(&call)), "E997");
    let reply = bed.ask(&format!("U {call} 127.0.0.1 4000 from to"));
    assert_eq!(bed.of_reply(&reply).media(), bed.members[1].media());
    assert_eq!(
        bed.of_reply(&bed.ask(&answer(&call))).media(),
        bed.members[1].media()
    );
    // The old home comes back, and is told.
    bed.members[0].recover();
    wait::until_true("the old session deleted", LONG, || !bed.members[0].has(&call));
    assert!(bed.members[1].has(&call));
}

#[test]
fn half_a_reply_of_a_stream_is_no_reply() {
    let place = Place::new();
    let bad = place.path("bad.sock");
    let listener = UnixListener::bind(&bad).expect("a socket");
    let half = AtomicBool::new(false);
    let good = FakeMember::start();
    let mut members = listed(std::slice::from_ref(&good));
    members.push(Listed {
        protocol: "UNIX",
        ..Listed::udp("bad", &bad.display().to_string())
    });
    let control = Files::in_place(&place).control;
    thread::scope(|scope| {
        let half = &half;
        let path = &bad;
        let server = scope.spawn(move || {
            let mut engine = Engine::new("192.0.2.66");
            let mut halved = 0;
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut command = [0; 8192];
                let length = stream.read(&mut command).unwrap_or(0);
                let command = &command[..length];
                if command == b"end" {
                    return halved;
                }
                let mut reply = Vec::new();
                engine.answer(command, &mut reply);
                if half.load(Ordering::Relaxed) && command.starts_with(b"U") {
                    reply.truncate(reply.len() / 2);
                    halved += 1;
                }
                // Whoever has gone does without.
                drop(stream.write_all(&reply));
            }
            halved
        });
        let daemon = Daemon::start(&place, &config(&control, &members, ""));
        daemon.wait_members(2, 0);
        half.store(true, Ordering::Relaxed);
        for number in 0..20 {
            let reply = client::ask(&control, &create(&format!("call-{number}")));
            assert_eq!(client::media(&reply).1, good.media());
        }
        drop(daemon);
        client::connect(path)
            .write_all(b"end")
            .expect("the member listens");
        assert!(
            server.join().expect("the member has not failed") > 0,
            "the bad member was tried"
        );
    });
}
