//! What may go wrong with members and with the machine that is rarer than a member's death: each is a row of
//! `tests/README.md`.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::support::bed::{Bed, answer, at_once, create, delete, listed};
use crate::support::client::{self, Datagrams, Kept};
use crate::support::daemon::{Daemon, Files, Listed, cluster, config, config_of};
use crate::support::fake::{FakeMember, Fault};
use crate::support::member::{CONTROL_PORT, own_address};
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

/// Cookies of what came to a member: a command that was sent again is one.
fn cookies(member: &FakeMember, prefix: &str) -> HashSet<String> {
    member.seen(prefix).into_iter().map(|seen| seen.cookie).collect()
}

#[test]
fn where_all_members_are_slow_calls_are_served_all_the_same() {
    for members in [1, 2] {
        let bed = Bed::of(members);
        for member in &bed.members {
            member.on("U", Fault::Late(Duration::from_millis(900)));
        }
        at_once(8, 8, |number| bed.call(&format!("call-{number}")).media());
        wait::until_true("a session a call, the others undone", LONG, || {
            bed.sessions() == 8
        });
    }
}

#[test]
fn with_three_silent_members_of_four_each_call_finds_the_fourth() {
    // They answer probes, so that nothing but the commands tells.
    let bed = Bed::of(4);
    for member in &bed.members[..3] {
        member.on("U", Fault::Silent);
    }
    at_once(8, 24, |number| {
        let call = format!("call-{number}");
        assert_eq!(bed.call(&call).media(), bed.members[3].media(), "{call}");
    });
    let tried = |member: &FakeMember| !member.seen("U").is_empty();
    assert!(bed.members[..3].iter().any(tried));
}

#[test]
fn a_third_of_all_datagrams_lost_takes_a_cluster_out_of_service_nowhere() {
    const CALLS: usize = 100;
    // Everything as it is by default.
    let bed = Bed::of(2);
    for member in &bed.members {
        member.on("", Fault::Loss(30));
    }
    let made = at_once(16, CALLS, |number| bed.ask(&create(&format!("call-{number}"))));
    for reply in &made {
        bed.of_reply(reply);
    }
    let commands: HashSet<String> = bed
        .members
        .iter()
        .flat_map(|member| member.seen("U"))
        .map(|seen| seen.cookie)
        .collect();
    let created: u64 = bed.members.iter().map(FakeMember::created).sum();
    assert!(created <= commands.len() as u64, "none runs twice");
    for member in &bed.members {
        member.recover();
    }
    bed.daemon.wait_members(2, 0);
    wait::until_true("a session a call", LONG, || bed.sessions() == CALLS as u64);
}

#[test]
fn a_member_that_flaps_must_answer_for_longer_each_time_and_keeps_its_calls() {
    const LOSSES: usize = 5;
    let bed = Bed::with(
        2,
        "<health interval=\"100ms\" timeout=\"100ms\" retry=\"100ms\"/>",
        &[],
    );
    let call = bed.call_on(0, "call");
    let flapping = &bed.members[0];
    // `V` alone decides; `VF` asks what it can do.
    let versions = |member: &FakeMember| -> HashSet<String> {
        let probes = member.seen("V").into_iter();
        probes
            .filter(|seen| seen.command.trim_end() == "V")
            .map(|seen| seen.cookie)
            .collect()
    };
    let mut answered = Vec::new();
    for _ in 0..LOSSES {
        flapping.on("", Fault::Silent);
        bed.daemon.wait_members(1, 1);
        let before = versions(flapping);
        flapping.recover();
        bed.daemon.wait_members(2, 0);
        answered.push(versions(flapping).difference(&before).count());
    }
    assert!(
        answered[LOSSES - 1] > answered[0],
        "probes before it was taken back: {answered:?}"
    );
    assert_eq!(bed.of_reply(&bed.ask(&answer(&call))).media(), flapping.media());
    // A line for each change, none more.
    let log = bed.daemon.log();
    for (change, count) in [
        ("unknown -> online", 1),
        ("online -> offline", LOSSES),
        ("offline -> online", LOSSES),
    ] {
        let lines = log
            .lines()
            .filter(|l| l.contains("member M1 ") && l.contains(change));
        assert_eq!(lines.count(), count, "{log}");
    }
}

#[test]
fn counts_that_cannot_be_do_no_harm() {
    let bed = Bed::with(2, "<health interval=\"100ms\"/>", &[]);
    let most = u64::MAX;
    let lies = [
        format!("sessions created: {most}\nactive sessions: {most}\nactive streams: {most}\n"),
        "sessions created: 0\nactive sessions: -7\nactive streams: -1\n".to_owned(),
        "sessions created: 99999999999999999999999999\nactive sessions: 99999999999999999999999999\n"
            .to_owned(),
        "sessions created: 5\nactive sessions: 4294967295\nactive streams: 0\naverage load: nan\n".to_owned(),
        "sessions created: 5\nactive sessions: 0\nactive streams: 0\naverage load: -1e308\n".to_owned(),
        "active sessions: \n".to_owned(),
        "active sessions: 1\nactive sessions: 2\n".to_owned(),
    ];
    for (number, lie) in lies.iter().enumerate() {
        bed.members[0].on("I", Fault::Instead(lie.clone().into_bytes()));
        let before = cookies(&bed.members[0], "I").len();
        wait::until_true(format!("{lie:?} was heard"), LONG, || {
            cookies(&bed.members[0], "I").len() > before + 2
        });
        for call in 0..20 {
            bed.call(&format!("call-{number}-{call}"));
        }
        for command in ["ls --json", "stats --json"] {
            let reply = bed.daemon.admin_ok(command);
            let json = reply.trim_end().strip_suffix("OK").expect("the last line");
            let read: Result<serde_json::Value, _> = serde_json::from_str(json);
            assert!(read.is_ok(), "{lie:?}: {command}: {reply}");
        }
        let metrics = bed.daemon.admin_ok("stats --prometheus");
        assert!(
            !metrics.contains("NaN") && !metrics.to_lowercase().contains(" inf"),
            "{lie:?}: {metrics}"
        );
    }
    bed.members[0].recover();
    bed.daemon.wait_members(2, 0);
    bed.call_on(0, "after");
    bed.call_on(1, "after-too");
}

#[test]
fn a_member_that_is_back_gets_its_share_little_by_little() {
    const CALLS: usize = 40;
    let mut bed = Bed::with(
        2,
        "<health interval=\"100ms\" retry=\"100ms\" slow_start=\"1m\"/>",
        &[],
    );
    bed.members[0].vanish();
    bed.daemon.wait_members(1, 1);
    // The other one is ahead of it by as much as this takes.
    let before = cookies(&bed.members[1], "I").len();
    wait::until_true("heartbeats of the other", LONG, || {
        cookies(&bed.members[1], "I").len() > before + 80
    });
    bed.members[0].come_back();
    bed.daemon.wait_members(2, 0);
    at_once(8, CALLS, |number| bed.call(&format!("call-{number}")).media());
    // Half of them were its whole share.
    let its = bed.members[0].sessions();
    assert!(its < CALLS as u64 / 3, "{its} of {CALLS}");
}

#[test]
fn what_could_be_an_answer_is_not_answered() {
    let place = Place::new();
    let member = FakeMember::start();
    let one = SocketAddr::new(own_address(), CONTROL_PORT);
    let text = cluster(
        "C1",
        "UDP",
        &one.to_string(),
        &listed(std::slice::from_ref(&member)),
        "",
    );
    let daemon = Daemon::start(&place, &config_of(&[text]));
    daemon.wait_members(1, 0);
    let client = Datagrams::to(one);
    for text in ["c1 E5", "c2 E0\n", "c3 e999\r\n", "E5", "E5\n", "c4  E5 "] {
        client.send(text.as_bytes());
    }
    // Datagrams of one sender are answered in order: what has no answer by now gets none.
    assert_eq!(client.ask("last", "V"), "20040107");
    // Another dispatcher, which answers whatever comes: it is not spoken to without end.
    for first in ["x1 V", "x2 Z", "x3 nonsense", "U"] {
        let echo = Datagrams::to(one);
        echo.send(first.as_bytes());
        let mut bounces = 0;
        while let Some(reply) = echo.receive_within(Duration::from_millis(500)) {
            bounces += 1;
            assert!(bounces < 1_000, "{first}: it goes on and on: {reply:?}");
            echo.send(reply.as_bytes());
        }
        assert!(bounces > 0, "{first} was a question");
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_when_its_member_is_gone() {
    let place = Place::new();
    let mut members = [FakeMember::start(), FakeMember::start()];
    let hosts = place.path("hosts");
    let lead_to = |member: &FakeMember| {
        // In place: what is mounted is this very file.
        let line = format!("127.0.0.1 localhost\n{} member.test\n", member.media());
        fs::write(&hosts, line).expect("the names");
    };
    lead_to(&members[0]);
    let files = Files::in_place(&place);
    let listed = [Listed::udp("M1", &format!("member.test:{CONTROL_PORT}"))];
    let text = config(
        &files.control,
        &listed,
        "<health interval=\"100ms\" retry=\"100ms\"/>",
    );
    let Some(daemon) = Daemon::start_with_names(&place, &text, &hosts) else {
        println!("names cannot be changed for one process here: that wants mount namespaces");
        return;
    };
    daemon.wait_members(1, 0);
    let ask = |command: &str| client::ask(&files.control, command);
    assert_eq!(client::media(&ask(&create("first"))).1, members[0].media());
    members[0].vanish();
    daemon.wait_members(0, 1);
    assert_eq!(ask(&create("nobody")), "E999");
    lead_to(&members[1]);
    daemon.wait_members(1, 0);
    assert_eq!(client::media(&ask(&create("second"))).1, members[1].media());
}

#[test]
fn a_slow_reader_sees_each_listing_as_it_was_in_one_moment() {
    const MEMBERS: u16 = 1_000;
    const LISTINGS: usize = 20;
    let place = Place::new();
    let member = FakeMember::start();
    let nobody = own_address();
    // Nobody listens there: they are all offline.
    let with_weight = |weight: u16| {
        let mut members = listed(std::slice::from_ref(&member));
        members.extend((1..=MEMBERS).map(|port| {
            Listed::udp(&format!("N{port}"), &SocketAddr::new(nobody, port).to_string()).weight(weight)
        }));
        members[0].weight = weight;
        config(
            &Files::in_place(&place).control,
            &members,
            "<health retry=\"1h\"/>",
        )
    };
    let daemon = Daemon::start(&place, &with_weight(1));
    daemon.wait_members(1, usize::from(MEMBERS));
    let mut slow = UnixStream::connect(&daemon.files().admin).expect("the admin socket");
    slow.write_all("ls C1\n".repeat(LISTINGS).as_bytes())
        .expect("open");
    for weight in 2..8 {
        fs::write(&daemon.files().config, with_weight(weight)).expect("the configuration");
        daemon.admin_ok("reload");
        for number in 0..20 {
            let reply = client::ask(
                &daemon.files().control,
                &create(&format!("call-{weight}-{number}")),
            );
            assert_eq!(client::media(&reply).1, member.media());
        }
    }
    // Now it reads.
    let mut lines = BufReader::new(slow).lines().map_while(Result::ok);
    for listing in 0..LISTINGS {
        let mut count = 0;
        let weights: BTreeSet<String> = lines
            .by_ref()
            .take_while(|line| line != "OK")
            .filter(|line| line.trim_start().starts_with("weight = "))
            .inspect(|_| count += 1)
            .collect();
        assert_eq!(
            (weights.len(), count),
            (1, usize::from(MEMBERS) + 1),
            "{listing}: {weights:?}"
        );
    }
}

#[test]
fn a_save_without_room_leaves_the_old_file_and_is_told() {
    let bed = Bed::of(2);
    let file = bed.daemon.files().config.clone();
    let old = fs::read(&file).expect("the configuration");
    let names = || -> BTreeSet<_> {
        let files = fs::read_dir(bed.place.dir()).expect("a directory");
        files.flatten().map(|file| file.file_name()).collect()
    };
    let before = names();
    bed.daemon.admin_ok("modify C1 set M1 weight=7");
    // No file may grow beyond this, as on a full disk.
    let pid = i32::try_from(bed.daemon.pid()).ok().and_then(Pid::from_raw);
    let limit = |bytes| {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(pid, Resource::Fsize, limit).expect("a limit of our own child");
    };
    limit(Some(64));
    let told = bed.daemon.admin("save");
    assert!(
        told.starts_with("ERROR: ") && told.contains(&file.display().to_string()),
        "{told}"
    );
    assert_eq!(fs::read(&file).expect("the configuration"), old);
    assert_eq!(names(), before, "nothing half-written is left");
    bed.call("beside");
    limit(None);
    bed.daemon.admin_ok("save");
    let saved = fs::read_to_string(&file).expect("the configuration");
    assert!(saved.contains("<weight>7</weight>"), "{saved}");
}

#[test]
fn a_daemon_that_stood_still_takes_nobody_offline() {
    // The first unanswered probe takes a member offline, and there is always one under way.
    let rules = "<health interval=\"200ms\" timeout=\"1s\" fall=\"1\"/>";
    let bed = Bed::with(3, rules, &[]);
    for member in &bed.members {
        member.on("I", Fault::Late(Duration::from_millis(150)));
    }
    let calls: Vec<String> = (0..3).map(|n| bed.call_on(n, &format!("call-{n}"))).collect();
    let asked = || -> Vec<usize> {
        let members = bed.members.iter();
        members.map(|member| cookies(member, "I").len()).collect()
    };
    for _ in 0..5 {
        // The last of those that were under way has been answered when the one behind it comes.
        let before = asked();
        wait::until_true("probes, and one under way", LONG, || {
            asked().iter().zip(&before).all(|(now, before)| *now > before + 2)
        });
        bed.daemon.stop();
        // Its probes time out and more while it stands; nothing else could be waited for.
        wait::pass(Duration::from_millis(2_500));
        bed.daemon.signal(Signal::CONT);
        for (call, member) in calls.iter().zip(&bed.members) {
            assert_eq!(bed.of_reply(&bed.ask(&answer(call))).media(), member.media());
        }
    }
    bed.daemon.wait_members(3, 0);
    let log = bed.daemon.log();
    assert!(!log.contains("online -> offline"), "{log}");
}

#[test]
fn memory_grows_with_the_calls_and_no_more() {
    const FEW: usize = 2_000;
    const MANY: usize = 20_000;
    /// For a call: 100,000 of them stay far below 256 MiB.
    const MOST: usize = 600;
    let place = Place::new();
    let member = FakeMember::start();
    let socket = place.path("kept.sock");
    let text = cluster(
        "C1",
        "CUNIX",
        &socket.display().to_string(),
        &listed(std::slice::from_ref(&member)),
        "",
    );
    let daemon = Daemon::start(&place, &config_of(&[text]));
    daemon.wait_members(1, 0);
    let resident = || -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it lives");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("memory");
        let kib = line
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse::<usize>().ok());
        kib.expect("a number") * 1024
    };
    let mut kept = Kept::unix(&socket);
    let mut bind = |calls: std::ops::Range<usize>| {
        for call in calls {
            let reply = kept.ask(&create(&format!("{call:020}@memory.example.net")));
            assert!(reply.ends_with(&member.media()), "{reply}");
        }
    };
    bind(0..FEW);
    let before = resident();
    bind(FEW..FEW + MANY);
    let grown = resident().saturating_sub(before);
    assert!(grown < MANY * MOST, "{} bytes a call", grown / MANY);
}

#[test]
fn a_call_whose_client_hung_up_leaves_no_descriptor_and_can_be_ended() {
    let bed = Bed::of(2);
    for member in &bed.members {
        member.on("U", Fault::Late(Duration::from_millis(100)));
    }
    let descriptors = || {
        let directory = fs::read_dir(format!("/proc/{}/fd", bed.daemon.pid())).expect("it lives");
        directory.count()
    };
    let before = descriptors();
    for number in 0..50 {
        let mut stream = client::connect(bed.control());
        stream
            .write_all(create(&format!("gone-{number}")).as_bytes())
            .expect("open");
    }
    let made = || -> HashSet<String> {
        bed.members
            .iter()
            .flat_map(|member| cookies(member, "U"))
            .collect()
    };
    wait::until_true("all are at the members", LONG, || made().len() >= 50);
    wait::until_true("nothing is kept for them", LONG, || descriptors() <= before);
    for member in &bed.members {
        member.recover();
    }
    // Its worker that comes again for the same call finds the session, and can end it.
    at_once(8, 50, |number| {
        let call = format!("gone-{number}");
        let again = bed.ask(&create(&call));
        assert!(bed.of_reply(&again).has(&call), "{call}: {again}");
        assert_eq!(bed.ask(&delete(&call)), "0", "{call}");
    });
    wait::until_true("no session left", LONG, || bed.sessions() == 0);
}
