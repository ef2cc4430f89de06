//! `rtp_cluster_client test`: a call of its own, with real media where there is a real RTPproxy.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::console::{client, out, run, said, terminal};
use crate::support::bed::{Bed, at_once};
use crate::support::daemon::{Daemon, Files, Listed, cluster, config, config_of};
use crate::support::fake::Fault;
use crate::support::member::own_address;
use crate::support::place::Place;
use crate::support::real::{RealMember, free_ipv6, free_port};
use crate::support::wait::{self, LONG};
use crate::support::wire::{At, Transport};

/// `test` with these words.
fn test(admin: &Path, words: &[&str]) -> Output {
    run(admin, &[&["test"], words].concat())
}

/// The same, which has found nothing wrong.
fn good(admin: &Path, words: &[&str]) -> String {
    let output = test(admin, words);
    let text = out(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{words:?}: {text}{}",
        said(&output)
    );
    assert!(text.ends_with("\nOK\n"), "{words:?}: {text}");
    for way in ["caller to callee through ", "callee to caller through "] {
        assert!(text.contains(way), "{words:?}: {text}");
    }
    text
}

/// The last line of one that has found a fault, with this exit status.
fn fault(admin: &Path, words: &[&str], status: i32) -> String {
    let output = test(admin, words);
    let text = out(&output);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{words:?}: {text}{}",
        said(&output)
    );
    let verdict = text.lines().last().unwrap_or_default().to_owned();
    assert!(verdict.starts_with("ERROR: "), "{words:?}: {text}");
    verdict
}

#[test]
fn a_call_goes_through_clusters_and_members_of_every_transport() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let transports: Vec<Transport> = Transport::ALL
        .into_iter()
        .filter(|transport| member.at(*transport).is_some())
        .collect();
    let clusters: Vec<String> = transports
        .iter()
        .map(|transport| {
            let name = transport.name();
            let control = match transport {
                Transport::Unix | Transport::Cunix => At::Path(place.path(name)),
                Transport::Udp | Transport::Tcp => At::Net(free_port(own_address()).expect("a port")),
                Transport::Udp6 | Transport::Tcp6 => At::Net(free_ipv6().expect("IPv6")),
            };
            let at = member.at(*transport).expect("it has that transport");
            let listed = Listed {
                protocol: name,
                ..Listed::udp("R1", &at.to_string())
            };
            cluster(name, name, &control.to_string(), &[listed], "")
        })
        .collect();
    let daemon = Daemon::start(&place, &config_of(&clusters));
    wait::until_true("members online", LONG, || {
        let list = daemon.admin("ls");
        list.matches("    active members = 1\n").count() == transports.len()
    });
    let admin = &daemon.files().admin;
    at_once(4, 2 * transports.len(), |number| {
        let name = transports[number / 2].name();
        if number % 2 == 0 {
            let text = good(admin, &[name]);
            assert!(text.contains("served by R1\n"), "{text}");
        } else {
            good(admin, &[name, "R1"]);
        }
    });
    assert_eq!(member.sessions(), 0, "each session was deleted");
    // From an address that it is told, with nothing said but what is wrong.
    let from = own_address().to_string();
    let quiet = run(admin, &["-q", "test", "UDP", "R1", "--from", &from]);
    assert_eq!((quiet.status.code(), &*out(&quiet)), (Some(0), ""));
    if free_ipv6().is_some() {
        assert!(good(admin, &["UNIX", "--from", "::1"]).contains(" ::1 6 after "));
    }
    let wrong = fault(admin, &["UDP", "R1", "--from", "192.0.2.1"], 1);
    assert!(wrong.contains("no party can be at 192.0.2.1"), "{wrong}");
}

#[test]
fn members_that_take_no_calls_are_tested_all_the_same() {
    let place = Place::new();
    let members: Vec<RealMember> = ["r1", "r2", "r3", "r4"]
        .iter()
        .map(|name| RealMember::start(&place, name))
        .collect();
    let listed = |name: &str, member: &RealMember| Listed::udp(name, &member.control().to_string());
    let text = config(
        &Files::in_place(&place).control,
        &[
            listed("active", &members[0]),
            listed("standby", &members[1]).weight(0),
            listed("suspended", &members[2]).with("<status>SUSPENDED</status>"),
            listed("draining", &members[3]),
        ],
        "",
    );
    let daemon = Daemon::start(&place, &text);
    daemon.wait_members(4, 0);
    // What it has to empty itself of.
    crate::support::member::ask(members[3].control(), "U call 127.0.0.1 4000 from");
    wait::until_true("the call is counted", LONG, || {
        daemon.admin_ok("ls C1").contains("active sessions = 1\n")
    });
    daemon.admin_ok("modify C1 delete draining");
    let admin = &daemon.files().admin;
    at_once(3, 3, |number| {
        let name = ["standby", "suspended", "draining"][number];
        let text = good(admin, &["C1", name]);
        assert!(text.contains(&format!("member {name} at UDP ")), "{text}");
    });
    assert_eq!(members[3].sessions(), 1, "the call that was there");
}

#[test]
fn a_wrong_wan_address_is_told_from_a_firewall() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    // Nothing relays there.
    let wan = own_address();
    let listed =
        Listed::udp("R1", &member.control().to_string()).with(&format!("<wan_address>{wan}</wan_address>"));
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &[listed], ""));
    daemon.wait_members(1, 0);
    let admin = &daemon.files().admin;
    let want = format!(
        "wan_address is {wan}, and media flow through {}",
        member.control().ip()
    );
    for words in [&["C1", "R1"][..], &["C1"]] {
        let verdict = fault(admin, words, 1);
        assert!(verdict.contains(&want), "{verdict}");
    }
    assert_eq!(member.sessions(), 0, "each session was deleted");
    daemon.admin_ok("modify C1 set R1 wan_address=");
    good(admin, &["C1", "R1"]);
}

#[test]
fn a_lan_address_that_is_none_of_the_member_s_is_named() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let listed =
        Listed::udp("R1", &member.control().to_string()).with("<lan_address>192.0.2.7</lan_address>");
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &[listed], ""));
    daemon.wait_members(1, 0);
    let admin = &daemon.files().admin;
    let verdict = fault(admin, &["C1", "R1"], 1);
    assert!(
        verdict.contains("E72: no ports left") && verdict.contains("lan_address is none of its own"),
        "{verdict}"
    );
    daemon.admin_ok(&format!("modify C1 set R1 lan_address={}", member.media()));
    for words in [&["C1", "R1"][..], &["C1"]] {
        good(admin, words);
    }
    if free_ipv6().is_some() {
        daemon.admin_ok("modify C1 set R1 lan_address=::1");
        good(admin, &["C1", "R1", "--from", "::1"]);
    }
}

#[test]
fn a_member_that_answers_and_relays_nothing_is_no_success() {
    // A fake gives ports that nobody relays between, as behind a firewall.
    let bed = Bed::of(1);
    let admin = &bed.daemon.files().admin;
    for words in [&["C1"][..], &["C1", "M1"]] {
        let verdict = fault(admin, words, 1);
        assert!(verdict.contains("it answers, but relays nothing: "), "{verdict}");
    }
    // What it has counted tells which way is closed.
    let address = bed.members[0].media();
    bed.members[0].on("Q", Fault::Instead(b"60 0 0 0 0\n".to_vec()));
    let verdict = fault(admin, &["C1", "M1"], 1);
    assert!(verdict.contains("no packet reached it"), "{verdict}");
    bed.members[0].on("Q", Fault::Instead(b"60 50 50 100 0\n".to_vec()));
    let verdict = fault(admin, &["C1", "M1"], 1);
    let want = format!(
        "received 100 packets and sent 100 on, which do not arrive: a firewall between drops UDP from {address}"
    );
    assert!(verdict.contains(&want), "{verdict}");
    assert_eq!(bed.sessions(), 0, "each session was deleted");
}

#[test]
fn what_a_member_refuses_is_explained() {
    let bed = Bed::of(1);
    let admin = &bed.daemon.files().admin;
    bed.members[0].on("U", Fault::Refuse("E71"));
    for words in [&["C1"][..], &["C1", "M1"]] {
        let verdict = fault(admin, words, 1);
        assert!(
            verdict.contains("refused with E71: no ports left; widen"),
            "{verdict}"
        );
    }
    bed.daemon.admin_ok("modify C1 suspend M1");
    let verdict = fault(admin, &["C1"], 1);
    assert!(verdict.contains("E999: no ACTIVE member is online"), "{verdict}");
    for (words, named) in [
        (&["Nobody"][..], "Nobody: cluster not found"),
        (&["C1", "Nobody"], "Nobody: RTPproxy not found"),
    ] {
        assert!(fault(admin, words, 1).contains(named));
    }
    assert_eq!(test(admin, &["C1", "M1", "M2"]).status.code(), Some(64));
}

#[test]
fn a_member_that_cannot_be_reached_is_told_from_one_with_a_fault() {
    let place = Place::new();
    let silent = crate::support::fake::FakeMember::start();
    silent.on("", Fault::Silent);
    let missing = place.path("missing.sock");
    let listed = [
        Listed::udp("silent", &silent.control().to_string()),
        Listed::udp("refused", &free_port(own_address()).expect("a port").to_string()),
        Listed {
            protocol: "UNIX",
            ..Listed::udp("missing", &missing.display().to_string())
        },
    ];
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    let admin = &daemon.files().admin;
    at_once(3, 3, |number| {
        let (name, named) = [
            ("silent", "no answer within 6 s"),
            ("refused", "nobody listens there"),
            ("missing", "no such socket"),
        ][number];
        let verdict = fault(admin, &["C1", name], 2);
        assert!(verdict.contains(named), "{verdict}");
    });
}

#[test]
fn a_test_that_is_interrupted_deletes_its_session() {
    let bed = Bed::of(1);
    for signal in [Signal::INT, Signal::TERM] {
        let child = client(&bed.daemon.files().admin)
            .args(["test", "C1", "M1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client can be started");
        wait::until_true("a session", LONG, || bed.sessions() == 1);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("it is there");
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(ended.status.code(), Some(1));
        assert!(
            out(&ended).ends_with("ERROR: interrupted; the session is deleted\n"),
            "{}",
            out(&ended)
        );
        assert_eq!(bed.sessions(), 0);
    }
}

#[test]
fn at_the_prompt_ctrl_c_ends_a_test_and_not_the_prompt() {
    let bed = Bed::of(1);
    let asked = bed.place.path("asked");
    let pause = format!("@{}", asked.display());
    let steps = [
        "<rtp_cluster> ",
        ">test C1 M1\\r",
        &pause,
        ">\\x03",
        "<ERROR: interrupted; the session is deleted\r\n",
        "<rtp_cluster> ",
        ">version\\r",
        "<OK\r\n",
        ">quit\\r",
    ];
    let mut prompt = terminal(&bed, &[], &[], &steps).spawn().expect("a terminal");
    wait::until_true("a session", LONG, || asked.exists() && bed.sessions() == 1);
    fs::remove_file(asked).expect("a file");
    assert_eq!(prompt.wait().expect("it ends").code(), Some(0));
    assert_eq!(bed.sessions(), 0);
}
