//! The administrator and the members: they leave when they have nothing to finish, rest, come back and change, at any
//! moment of any state.

use crate::support::bed::{Bed, answer, create, delete, listed};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, cluster, config_of};
use crate::support::fake::{FakeMember, Fault};
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{self, LONG};

/// What the verbose listing says of one member.
fn shown(daemon: &Daemon, cluster: &str, member: &str) -> Option<String> {
    let listing = daemon.admin_ok(&format!("ls -v {cluster}"));
    let mut blocks = listing.split("    RTPproxy: #");
    blocks
        .find(|block| block.contains(&format!("        name = {member}\n")))
        .map(str::to_owned)
}

fn value(daemon: &Daemon, member: &str, name: &str) -> String {
    let block = shown(daemon, "C1", member).unwrap_or_else(|| panic!("no {member}"));
    let line = block
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(&format!("{name} = ")));
    line.unwrap_or_else(|| panic!("no {name} in {block:?}"))
        .to_owned()
}

fn wait_counted(daemon: &Daemon, member: &str, sessions: &str) {
    wait::until_true(format!("{member} counts {sessions}"), LONG, || {
        value(daemon, member, "active sessions") == sessions
    });
}

#[test]
fn a_member_that_has_nothing_to_finish_goes_at_once() {
    let bed = Bed::of(3);
    for member in ["M1", "M2"] {
        wait_counted(&bed.daemon, member, "0");
    }
    // Online and without a session; offline.
    bed.daemon.admin_ok("modify C1 delete M1");
    assert!(shown(&bed.daemon, "C1", "M1").is_none());
    bed.members[1].on("", Fault::Silent);
    bed.daemon.admin_ok("wait C1 M2 offline -t 10");
    bed.daemon.admin_ok("modify C1 remove M2");
    assert!(shown(&bed.daemon, "C1", "M2").is_none());
    let log = bed.daemon.log();
    let (first, second) = (bed.members[0].control(), bed.members[1].control());
    for line in [
        format!("member M1 of C1 ({first}): it has no sessions, or is offline: removed\n"),
        format!("member M2 of C1 ({second}): it has no sessions, or is offline: removed\n"),
    ] {
        assert!(log.contains(&line), "{line}: {log}");
    }
    // The last one may go too, and the log says what that means.
    wait_counted(&bed.daemon, "M3", "0");
    bed.daemon.admin_ok("modify C1 delete M3");
    assert!(
        bed.daemon
            .log()
            .contains("cluster C1: no member is left for new sessions\n")
    );
    assert_eq!(bed.ask(&create("call")), "E999");
}

#[test]
fn a_draining_member_serves_its_calls_and_goes_by_itself_when_the_last_is_over() {
    let bed = Bed::of(2);
    let call = bed.call_on(0, "call");
    for other in (0..1_000)
        .map(|n| format!("call-{n}"))
        .take_while(|id| *id != call)
    {
        bed.ask(&delete(&other));
    }
    bed.daemon.admin_ok("modify C1 delete M1");
    assert_eq!(value(&bed.daemon, "M1", "status"), "DRAINING");
    wait_counted(&bed.daemon, "M1", "1");
    assert_eq!(value(&bed.daemon, "M1", "bound sessions"), "1");
    for number in 0..20 {
        assert_eq!(bed.call(&format!("new-{number}")).media(), bed.members[1].media());
    }
    assert_eq!(
        bed.of_reply(&bed.ask(&answer(&call))).media(),
        bed.members[0].media()
    );
    // A second delete asks for the same; the file never says DRAINING.
    bed.daemon.admin_ok("modify C1 delete M1");
    assert_eq!(
        bed.daemon.admin("diff"),
        "cluster C1, member M1: only in the file\nOK\n"
    );
    assert!(shown(&bed.daemon, "C1", "M1").is_some());
    let probes = bed.members[0].seen("Ib").len();
    assert_eq!(bed.ask(&delete(&call)), "0");
    bed.daemon.admin_ok("wait C1 M1 gone -t 10");
    assert!(
        bed.members[0].seen("Ib").len() >= probes + 2,
        "two heartbeats must agree"
    );
    let line = format!(
        "member M1 of C1 ({}): drained, removed\n",
        bed.members[0].control()
    );
    assert!(bed.daemon.log().contains(&line), "{}", bed.daemon.log());
}

#[test]
fn sessions_that_another_cluster_has_at_the_same_member_do_not_hold_a_drain_up() {
    let place = Place::new();
    let files = Files::in_place(&place);
    let member = FakeMember::start();
    let listed = listed(std::slice::from_ref(&member));
    let other = place.path("c2.sock");
    let clusters = [
        cluster("C1", "UNIX", &files.control.display().to_string(), &listed, ""),
        cluster("C2", "UNIX", &other.display().to_string(), &listed, ""),
    ];
    let daemon = Daemon::start(&place, &config_of(&clusters));
    wait::until_true("online in both", LONG, || {
        daemon.admin("ls").matches(" active members = 1\n").count() == 2
    });
    for id in ["a", "b"] {
        client::ask(&other, &create(id));
    }
    client::ask(&files.control, &create("c"));
    daemon.admin_ok("modify C1 delete M1");
    let late = daemon.admin("wait C1 M1 gone -t 3");
    assert!(
        late.starts_with("ERROR: M1: not gone after 3 s"),
        "its own call is not over: {late}"
    );
    client::ask(&files.control, &delete("c"));
    daemon.admin_ok("wait C1 M1 gone -t 10");
    assert_eq!(member.sessions(), 2);
    assert_eq!(
        client::media(&client::ask(&other, &answer("a"))).1,
        member.media()
    );
}

#[test]
fn sessions_from_before_our_time_hold_a_drain_up() {
    let place = Place::new();
    let proxy = RealMember::start(&place, "r1");
    // Made by a dispatcher that is no more.
    client::ask(proxy.unix(), &create("old"));
    let files = Files::in_place(&place);
    let listed = [crate::support::daemon::Listed::udp(
        "R1",
        &proxy.control().to_string(),
    )];
    let clusters = [cluster(
        "C1",
        "UNIX",
        &files.control.display().to_string(),
        &listed,
        "",
    )];
    let daemon = Daemon::start(&place, &config_of(&clusters));
    daemon.admin_ok("wait C1 R1 online -t 10");
    wait_counted(&daemon, "R1", "1");
    daemon.admin_ok("modify C1 delete R1");
    assert_eq!(value(&daemon, "R1", "status"), "DRAINING");
    assert_eq!(value(&daemon, "R1", "bound sessions"), "0");
    let late = daemon.admin("wait C1 R1 gone -t 3");
    assert!(late.starts_with("ERROR: "), "{late}");
    // Its end comes through us.
    assert_eq!(client::ask(&files.control, &delete("old")), "0");
    daemon.admin_ok("wait C1 R1 gone -t 10");
    assert_eq!(proxy.sessions(), 0);
}

#[test]
fn a_member_changes_its_mind_at_any_moment() {
    let bed = Bed::of(2);
    let call = bed.call_on(0, "call");
    let status = || value(&bed.daemon, "M1", "status");
    for (command, wanted) in [
        ("suspend", "SUSPENDED"),
        ("pause", "SUSPENDED"),
        ("resume", "ACTIVE"),
        ("delete", "DRAINING"),
        ("suspend", "SUSPENDED"),
        ("delete", "DRAINING"),
        ("resume", "ACTIVE"),
    ] {
        bed.daemon.admin_ok(&format!("modify C1 {command} M1"));
        assert_eq!(status(), wanted, "{command}");
        assert_eq!(
            bed.of_reply(&bed.ask(&answer(&call))).media(),
            bed.members[0].media()
        );
    }
    bed.call_on(0, "again");
    // And while it is away.
    bed.members[0].on("", Fault::Silent);
    bed.daemon.admin_ok("wait C1 M1 offline -t 10");
    bed.daemon.admin_ok("modify C1 suspend M1");
    bed.daemon
        .admin_ok("modify C1 set M1 weight=5,capacity=6,wan_address=203.0.113.9");
    bed.members[0].recover();
    bed.daemon.admin_ok("wait C1 M1 online -t 10");
    assert_eq!(
        (status().as_str(), value(&bed.daemon, "M1", "weight").as_str()),
        ("SUSPENDED", "5")
    );
    bed.daemon.admin_ok("modify C1 resume M1");
    assert_eq!(client::media(&bed.ask(&answer(&call))).1, "203.0.113.9");
    bed.daemon.admin_ok("modify C1 set M1 wan_address=");
    assert_eq!(client::media(&bed.ask(&answer(&call))).1, bed.members[0].media());
}

#[test]
fn delete_now_forgets_what_is_bound_and_fails_what_is_on_its_way() {
    let bed = Bed::of(2);
    let call = bed.call_on(0, "call");
    bed.members[0].on("L", Fault::Silent);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bed.ask(&answer(&call)));
        wait::until_true("the command is on its way", LONG, || {
            !bed.members[0].seen("L").is_empty()
        });
        bed.daemon.admin_ok("modify C1 delete M1 NOW");
        assert_eq!(waiting.join().expect("a client"), "E997");
    });
    assert!(shown(&bed.daemon, "C1", "M1").is_none());
    assert_eq!(
        bed.daemon.admin(&format!("locate C1 {call}")),
        format!("ERROR: {call}: call-id not bound\n")
    );
    assert!(bed.daemon.log().contains(&format!(
        "member M1 of C1 ({}): removed\n",
        bed.members[0].control()
    )));
    // The name is free for another one.
    let added = FakeMember::start();
    let address = added.control();
    bed.daemon.admin_ok(&format!(
        "modify C1 add name=M1,protocol=udp,address={address},capacity=9,weight=9"
    ));
    bed.daemon.admin_ok("wait C1 M1 online -t 10");
}

#[test]
fn address_and_protocol_change_only_while_nothing_is_bound() {
    let bed = Bed::of(2);
    let other = FakeMember::start();
    let call = bed.call_on(0, "call");
    for id in (0..1_000)
        .map(|n| format!("call-{n}"))
        .take_while(|id| *id != call)
    {
        bed.ask(&delete(&id));
    }
    let measured = || {
        let stats = bed.daemon.admin_ok("stats --prometheus");
        let count = stats.lines().find_map(|line| {
            line.strip_prefix("rtp_cluster_member_delay_seconds_count{cluster=\"C1\",member=\"M1\"} ")
        });
        count
            .and_then(|count| count.parse::<u64>().ok())
            .expect("a count")
    };
    let measured_before = measured();
    assert!(measured_before > 0);
    let before = bed.daemon.admin_ok("ls C1");
    let set = format!("modify C1 set M1 address={},weight=9", other.control());
    let refused = bed.daemon.admin(&set);
    let wanted = format!("ERROR: M1: 1 call(s) are bound to {}: ", bed.members[0].control());
    assert!(refused.starts_with(&wanted), "{refused}");
    let place = bed.daemon.admin("modify C1 set M1 protocol=unix");
    assert!(
        place.starts_with("ERROR: ") && place.contains("address"),
        "{place}"
    );
    assert!(
        !bed.daemon.admin_ok("ls C1").contains("weight = 9"),
        "half of it was done: {before}"
    );
    bed.ask(&delete(&call));
    bed.daemon.admin_ok(&set);
    bed.daemon.admin_ok("wait C1 M1 online -t 10");
    bed.daemon.admin_ok("modify C1 suspend M2");
    assert_eq!(client::media(&bed.ask(&create("new"))).1, other.media());
    // Its counters go on, whoever it is.
    assert!(measured() >= measured_before);
}

#[test]
fn a_member_may_come_by_any_protocol_and_name() {
    let bed = Bed::of(1);
    let proxy = RealMember::start(&bed.place, "r1");
    let (udp, unix, kept) = (proxy.control(), proxy.unix().display(), proxy.cunix().display());
    for (name, protocol, address) in [
        ("over-tcp", "TCP", udp.to_string()),
        ("over-unix", "unix", unix.to_string()),
        ("over-cunix", "cUnix", kept.to_string()),
        // A name that must be looked up; the address of the others is told apart by its port's protocol.
        ("über#1", "UDP", format!("localhost:{}", udp.port())),
    ] {
        bed.daemon.admin_ok(&format!(
            "MODIFY C1 ADD Name={name},PROTOCOL={protocol},address={address},Capacity=10,weight=0,status=suspended"
        ));
        let block = shown(&bed.daemon, "C1", name).expect("the new member");
        assert!(
            block.contains(&format!("        address = {address}\n")),
            "{block}"
        );
        assert!(block.contains("        status = SUSPENDED\n"), "{block}");
    }
    for name in ["over-tcp", "over-unix", "over-cunix"] {
        bed.daemon.admin_ok(&format!("wait C1 {name} online -t 10"));
    }
}
