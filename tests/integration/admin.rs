//! The administrator: what `ls` shows to the byte, and members that come, rest and go at run time.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::bed::{Bed, answer, create, delete, listed};
use crate::support::client;
use crate::support::daemon::{Daemon, Listed, cluster, config_of};
use crate::support::fake::{FakeMember, Fault};
use crate::support::member::own_address;
use crate::support::place::Place;
use crate::support::process::Process;
use crate::support::wait::{self, LONG};

/// `rtp_cluster_client` with these words.
fn console(socket: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtp_cluster_client"));
    command.arg("-s").arg(socket).args(words).stdin(Stdio::null());
    command.output().expect("the client can be started")
}

#[test]
fn the_two_listings_are_those_of_the_manual() {
    let place = Place::new();
    let members = [FakeMember::start(), FakeMember::start()];
    let away = [FakeMember::start(), FakeMember::start()];
    for member in &away {
        member.on("", Fault::Silent);
    }
    let name = |member: Listed, name: &str, weight, capacity| Listed {
        name: name.to_owned(),
        weight,
        capacity,
        ..member
    };
    let [first, second] = [0, 1].map(|n| listed(&members)[n].clone());
    let (one, two) = (place.path("rtpproxy.sock"), place.path("rtpproxy1.sock"));
    let (one, two) = (one.display(), two.display());
    let good = [
        name(first, "RTPPROXY1", 100, 2500),
        name(second, "RTPPROXY2", 0, 1500),
    ];
    let clusters = [
        cluster("Supercluster#1", "UNIX", &one.to_string(), &good, ""),
        cluster("Supercluster#2", "unix", &two.to_string(), &listed(&away), ""),
    ];
    let daemon = Daemon::start(&place, &config_of(&clusters));
    let clusters = format!(
        "Cluster: #0\n    name = Supercluster#1\n    address = {one}\n    active members = 2\n    inactive members = 0\n\n\
         Cluster: #1\n    name = Supercluster#2\n    address = {two}\n    active members = 0\n    inactive members = 2\nOK\n"
    );
    wait::until_true("both online and both others offline", LONG, || {
        daemon.admin("ls").contains("    active members = 2\n")
            && daemon.admin("ls").contains("    inactive members = 2\n")
            && !daemon.admin("ls Supercluster#1").contains("UNKNOWN")
    });
    let (a, b) = (members[0].control(), members[1].control());
    let detail = format!(
        "Active members of the cluster #0:
    RTPproxy: #0
        name = RTPPROXY1
        address = {a}
        weight = 100
        capacity = 2500
        state = online
        active sessions = 0
        status = ACTIVE

    RTPproxy: #1
        name = RTPPROXY2
        address = {b}
        weight = 0
        capacity = 1500
        state = online
        active sessions = 0
        status = ACTIVE

Inactive members of the cluster #0:

OK
"
    );
    let (c, d) = (away[0].control(), away[1].control());
    let offline = format!(
        "Active members of the cluster #1:

Inactive members of the cluster #1:
    RTPproxy: #0
        name = M1
        address = {c}
        weight = 100
        capacity = 1000000
        state = offline
        active sessions = UNKNOWN
        status = ACTIVE

    RTPproxy: #1
        name = M2
        address = {d}
        weight = 100
        capacity = 1000000
        state = offline
        active sessions = UNKNOWN
        status = ACTIVE
OK
"
    );
    let admin = &daemon.files().admin;
    for (words, listing) in [
        ("ls", &clusters),
        ("ls Supercluster#1", &detail),
        ("LS Supercluster#2", &offline),
    ] {
        assert_eq!(&daemon.admin(words), listing);
        // One argument or several, and with `unix:` or without.
        let ours = console(admin, &words.split(' ').collect::<Vec<_>>());
        assert_eq!(&String::from_utf8_lossy(&ours.stdout), listing);
        assert_eq!(ours.status.code(), Some(0));
        let socket = format!("unix:{}", admin.display());
        assert_eq!(console(Path::new(&socket), &[words]).stdout, listing.as_bytes());
    }
}

#[test]
fn the_client_tells_by_its_exit_status() {
    let bed = Bed::of(1);
    let admin = &bed.daemon.files().admin;
    assert_eq!(console(admin, &["version"]).status.code(), Some(0));
    let refused = console(admin, &["ls", "Nobody"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&refused.stdout).trim_end(),
        "ERROR: Nobody: cluster not found"
    );
    let nowhere = bed.place.path("nowhere.sock");
    let alone = console(&nowhere, &["ls"]);
    assert_eq!(alone.status.code(), Some(2));
    let said = String::from_utf8_lossy(&alone.stderr);
    assert!(said.contains(&nowhere.display().to_string()), "{said}");
}

#[test]
fn other_tools_speak_to_the_admin_socket_too() {
    let bed = Bed::of(1);
    let admin = bed.daemon.files().admin.display().to_string();
    let list = bed.daemon.admin("ls");
    let script = format!("printf 'ls\\r\\nls Nobody\\nLS\\r\\nquit\\n' | socat -t5 - UNIX-CONNECT:{admin}");
    let said = Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("sh")
        .stdout;
    assert_eq!(
        String::from_utf8_lossy(&said),
        format!("{list}ERROR: Nobody: cluster not found\n{list}")
    );
}

#[test]
fn telnet_speaks_to_it_where_a_port_leads_there() {
    let bed = Bed::of(1);
    let admin = bed.daemon.files().admin.display().to_string();
    let port = SocketAddr::new(own_address(), 2323);
    let mut bridge = Command::new("socat");
    bridge
        .arg(format!("TCP-LISTEN:{},bind={},fork", port.port(), port.ip()))
        .arg(format!("UNIX-CONNECT:{admin}"));
    let _bridge = Process::start("socat", &mut bridge);
    wait::until_true("socat listens", LONG, || TcpStream::connect(port).is_ok());
    let mut telnet = Command::new("telnet");
    telnet
        .args([port.ip().to_string(), port.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut telnet = Process::start("telnet", &mut telnet);
    // Its input stays open: telnet leaves at the end of it, with what has not come yet.
    let mut keys = telnet.stdin.take().expect("a pipe");
    keys.write_all(b"ls\r\nquit\r\n").expect("telnet reads");
    let mut said = String::new();
    telnet
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut said)
        .expect("text");
    drop(keys);
    assert!(said.replace('\r', "").contains(&bed.daemon.admin("ls")), "{said}");
}

#[test]
fn errors_name_what_is_wrong_and_change_nothing() {
    let bed = Bed::of(1);
    let before = bed.daemon.admin("ls C1");
    for (command, error) in [
        ("ls Nobody", "ERROR: Nobody: cluster not found"),
        ("modify Nobody suspend M1", "ERROR: Nobody: cluster not found"),
        ("modify C1 suspend Nobody", "ERROR: Nobody: RTPproxy not found"),
        ("modify C1 juggle M1", "ERROR: unsupported action: \"juggle\""),
        ("dance", "ERROR: unknown command"),
        (
            "modify C1 add name=M1,protocol=udp,address=127.0.0.1:1,capacity=1,weight=1",
            "ERROR: M1: RTPproxy already exists",
        ),
    ] {
        let reply = bed.daemon.admin(command);
        assert_eq!(reply.lines().last(), Some(error), "{command}: {reply:?}");
    }
    for (command, word) in [
        ("modify C1 add", "name"),
        (
            "modify C1 add name=M9,protocol=udp,address=127.0.0.1:1,capacity=1",
            "weight",
        ),
        (
            "modify C1 add name=M9,protocol=udp,address=127.0.0.1:1,capacity=0,weight=1",
            "capacity",
        ),
        (
            "modify C1 add name=M9,protocol=pigeon,address=127.0.0.1:1,capacity=1,weight=1",
            "pigeon",
        ),
        ("modify C1 set M1 weight=1e3", "1e3"),
        ("modify C1 set M1 colour=red", "colour"),
    ] {
        let reply = bed.daemon.admin(command);
        let last = reply.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("ERROR: ") && last.contains(word),
            "{command}: {reply:?}"
        );
    }
    assert_eq!(bed.daemon.admin("ls C1"), before);
}

#[test]
fn a_member_added_at_run_time_gets_calls_and_one_suspended_gets_none() {
    let bed = Bed::of(1);
    let added = FakeMember::start();
    let (name, address) = ("late", added.control());
    bed.daemon.admin_ok(&format!(
        "modify C1 add name={name},protocol=udp,address={address},capacity=120,weight=300"
    ));
    bed.daemon.admin_ok(&format!("wait C1 {name} online -t 10"));
    bed.daemon.admin_ok("modify C1 suspend M1");
    let created = |member: &FakeMember, prefix: &str| {
        let before = member.created();
        for number in 0..40 {
            bed.ask(&create(&format!("{prefix}-{number}")));
        }
        member.created() - before
    };
    assert_eq!(created(&added, "all"), 40);
    bed.daemon.admin_ok("modify C1 resume M1");
    bed.daemon.admin_ok(&format!("modify C1 suspend {name}"));
    assert_eq!(created(&added, "none"), 0);
    // Its calls are served as before.
    let reply = bed.ask(&answer("all-7"));
    assert_eq!(client::media(&reply).1, added.media());
}

#[test]
fn a_deleted_member_leaves_when_its_last_call_is_over() {
    let bed = Bed::of(2);
    let call = bed.call_on(0, "call");
    for other in (0..200)
        .map(|n| format!("call-{n}"))
        .take_while(|other| *other != call)
    {
        bed.ask(&delete(&other));
    }
    bed.daemon.admin_ok("modify C1 delete M1");
    let listing = bed.daemon.admin_ok("ls C1");
    assert!(listing.contains("status = DRAINING"), "{listing}");
    for number in 0..40 {
        assert_eq!(bed.call(&format!("new-{number}")).media(), bed.members[1].media());
    }
    assert_eq!(
        bed.of_reply(&bed.ask(&answer(&call))).media(),
        bed.members[0].media()
    );
    let reply = bed.daemon.admin("wait C1 M1 gone -t 3");
    assert!(reply.starts_with("ERROR: "), "gone with a call on it: {reply:?}");
    assert_eq!(bed.ask(&delete(&call)), "0");
    bed.daemon.admin_ok("wait C1 M1 gone -t 10");
    assert!(!bed.daemon.admin_ok("ls C1").contains("name = M1\n"));
    // The last one may go as well: then nobody takes new calls.
    bed.daemon.admin_ok("modify C1 delete M2 now");
    assert_eq!(bed.ask(&create("nobody")), "E999");
}

#[test]
fn what_was_changed_at_run_time_can_be_saved_and_read_again() {
    let bed = Bed::of(2);
    bed.daemon.admin_ok("modify C1 set M1 weight=7,capacity=77");
    bed.daemon.admin_ok("modify C1 suspend M2");
    let listing = bed.daemon.admin_ok("ls C1");
    bed.daemon.admin_ok("save");
    let file = fs::read_to_string(&bed.daemon.files().config).expect("the configuration");
    assert!(
        file.contains("<weight>7</weight>") && file.contains("<status>SUSPENDED</status>"),
        "{file}"
    );
    let reply = bed.daemon.admin_ok("reload");
    assert!(reply.contains("Loaded 1 clusters and 2 RTP proxies"), "{reply}");
    assert_eq!(bed.daemon.admin("ls C1"), listing);
}

#[test]
fn a_hundred_administrators_at_once_are_served_one_after_another() {
    let bed = Bed::of(1);
    let weights = crate::support::bed::at_once(20, 100, |number| {
        bed.daemon.admin_ok(&format!(
            "modify C1 set M1 weight={},capacity={}",
            number + 1,
            number + 1
        ));
        let listing = bed.daemon.admin_ok("ls C1");
        let value = |key: &str| {
            let line = listing
                .lines()
                .find_map(|line| line.trim_start().strip_prefix(key))
                .expect("a line");
            line.to_owned()
        };
        (value("weight = "), value("capacity = "))
    });
    assert!(
        weights.iter().all(|(weight, capacity)| weight == capacity),
        "half a change was seen: {weights:?}"
    );
}
