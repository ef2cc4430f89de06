//! The administrator: what `ls` shows to the byte, and members that come, rest and go at run time.

use std::collections::BTreeSet;
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
fn every_command_has_its_help_in_any_case() {
    let bed = Bed::of(1);
    let all = bed.daemon.admin_ok("help");
    for (command, form) in [
        ("ls", "ls [-v|--json] [CLUSTER]"),
        (
            "modify",
            "modify CLUSTER add name=NAME,protocol=PROTOCOL,address=ADDRESS,capacity=N,weight=N",
        ),
        ("modify delete", "modify CLUSTER delete NAME [now]"),
        ("modify remove", "modify CLUSTER delete NAME [now]"),
        ("modify suspend", "modify CLUSTER suspend NAME"),
        ("modify pause", "modify CLUSTER suspend NAME"),
        ("modify resume", "modify CLUSTER resume NAME"),
        (
            "modify set",
            "modify CLUSTER set NAME KEY=VALUE[,KEY=VALUE]\u{2026}",
        ),
        (
            "cluster",
            "cluster add name=NAME,protocol=PROTOCOL,address=ADDRESS[,capacity_limit=LIMIT][,policy=POLICY]",
        ),
        ("cluster delete", "cluster delete CLUSTER [now]"),
        ("sessions", "sessions [--json] CLUSTER [NAME] [limit=N]"),
        ("locate", "locate [--json] CLUSTER CALL-ID"),
        ("reload", "reload"),
        ("check", "check FILE"),
        ("diff", "diff [--json]"),
        ("save", "save [--force] [FILE]"),
        ("wait", "wait CLUSTER NAME online|offline|gone [-t SECONDS]"),
        ("stats", "stats [--json|--prometheus] [CLUSTER]"),
        ("version", "version"),
        ("help", "help [COMMAND]"),
        ("quit", "quit"),
        ("q", "quit"),
        ("exit", "quit"),
    ] {
        assert!(all.lines().any(|line| line.starts_with(form)), "{form}: {all}");
        for typed in [
            format!("help {command}"),
            format!("HELP {}", command.to_uppercase()),
        ] {
            let help = bed.daemon.admin_ok(&typed);
            assert!(help.lines().any(|line| line.starts_with(form)), "{typed}: {help}");
            assert!(help.lines().count() >= 3, "{typed}: {help}");
        }
    }
    for word in ["quit", "Q", "EXIT"] {
        assert_eq!(bed.daemon.admin(&format!("{word}\nls")), "");
    }
}

/// Commands that are refused, and what the error says. OTHER is a free address, SAME that of `M1`.
const WRONG: &[(&str, &[&str])] = &[
    ("dance", &["ERROR: unknown command"]),
    ("ls Nobody", &["ERROR: Nobody: cluster not found"]),
    ("ls -v Nobody", &["ERROR: Nobody: cluster not found"]),
    ("ls --yaml", &["--yaml", "want ls [-v|--json] [CLUSTER]"]),
    (
        "ls C1 state=gone",
        &["ls: state \"gone\"", "want online or offline"],
    ),
    (
        "ls C1 sort=age",
        &["ls: sort \"age\"", "want load, name, delay or sessions"],
    ),
    ("ls sort=load", &["CLUSTER is missing"]),
    ("ls C1 M1", &["unexpected \"M1\"", "want ls"]),
    (
        "modify",
        &["modify: CLUSTER", "want one of add, delete, suspend, resume, set"],
    ),
    ("modify C1", &["what to do is missing", "want one of add, delete"]),
    ("modify C1 juggle M1", &["ERROR: unsupported action: \"juggle\""]),
    (
        "modify Nobody add name=M9,protocol=udp,address=127.0.0.1:9,capacity=1,weight=1",
        &["ERROR: Nobody: cluster not found"],
    ),
    (
        "modify C1 add",
        &["KEY=VALUE is missing", "want modify CLUSTER add name=NAME"],
    ),
    ("modify C1 add M9", &["\"M9\"", "want KEY=VALUE"]),
    (
        "modify C1 add name=M1,protocol=udp,address=OTHER,capacity=1,weight=1",
        &["ERROR: M1: RTPproxy already exists"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=SAME,capacity=1,weight=1",
        &["address", "member M1"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,capacity=1",
        &["weight"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=1",
        &["capacity"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=1,capacity=0",
        &["capacity", "\"0\"", "2147483647"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=1,capacity=2147483648",
        &["capacity", "2147483647"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=65536,capacity=1",
        &["weight", "\"65536\"", "0 to 65535"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=-1,capacity=1",
        &["weight", "\"-1\"", "65535"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=1,capacity=1,colour=red",
        &["colour"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=1,capacity=1,weight=2",
        &["weight \"2\"", "want each key once"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=1,capacity=1,status=DRAINING",
        &["status", "DRAINING", "SUSPENDED"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=1,capacity=1,wan_address=here",
        &["wan_address", "\"here\""],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=OTHER,weight=1,capacity=1,cmd_out_address=192.0.2.1",
        &["M9", "assign requested address"],
    ),
    (
        "modify C1 add name=M9,protocol=pigeon,address=127.0.0.1:9,capacity=1,weight=1",
        &["protocol", "\"pigeon\"", "UDP"],
    ),
    (
        "modify C1 add name=M9,protocol=udp,address=127.0.0.1:0,capacity=1,weight=1",
        &["address", "127.0.0.1:0"],
    ),
    (
        "modify C1 add name=M 9,protocol=udp,address=127.0.0.1:9,capacity=1,weight=1",
        &["name", "\"M 9\""],
    ),
    (
        "modify C1 delete",
        &["NAME is missing", "want modify CLUSTER delete NAME [now]"],
    ),
    ("modify C1 delete Nobody", &["ERROR: Nobody: RTPproxy not found"]),
    ("modify C1 delete m1", &["ERROR: m1: RTPproxy not found"]),
    ("modify C1 delete M1 later", &["unexpected \"later\""]),
    ("modify C1 suspend", &["NAME is missing"]),
    ("modify C1 suspend Nobody", &["ERROR: Nobody: RTPproxy not found"]),
    ("modify C1 resume M1 M2", &["unexpected \"M2\""]),
    ("modify C1 set M1", &["KEY=VALUE is missing"]),
    ("modify C1 set M1 weight=1e3", &["weight", "\"1e3\"", "65535"]),
    ("modify C1 set M1 weight=5,capacity=0", &["capacity", "\"0\""]),
    ("modify C1 set M1 colour=red", &["colour"]),
    ("modify C1 set M1 name=M2", &["name"]),
    (
        "modify C1 set M1 weight=5,cmd_out_address=192.0.2.1",
        &["M1", "assign requested address"],
    ),
    (
        "modify C1 set Nobody weight=1",
        &["ERROR: Nobody: RTPproxy not found"],
    ),
    ("cluster", &["what to do is missing", "add, delete"]),
    ("cluster explode C1", &["ERROR: unsupported action: \"explode\""]),
    (
        "cluster add",
        &["KEY=VALUE is missing", "want cluster add name=NAME"],
    ),
    ("cluster delete", &["CLUSTER is missing"]),
    ("cluster delete Nobody", &["ERROR: Nobody: cluster not found"]),
    ("sessions", &["CLUSTER is missing"]),
    ("sessions Nobody", &["ERROR: Nobody: cluster not found"]),
    ("sessions C1 Nobody", &["ERROR: Nobody: RTPproxy not found"]),
    ("sessions C1 limit=many", &["limit \"many\"", "from 0 to 100000"]),
    ("locate C1", &["CALL-ID is missing"]),
    (
        "locate C1 nobody@home",
        &["ERROR: nobody@home: call-id not bound"],
    ),
    ("locate Nobody x", &["ERROR: Nobody: cluster not found"]),
    ("reload now", &["unexpected \"now\"", "want reload"]),
    ("check", &["FILE is missing"]),
    ("check rtp.xml", &["\"rtp.xml\"", "starts with /"]),
    ("check /nowhere.xml", &["ERROR: /nowhere.xml: "]),
    ("diff C1", &["unexpected \"C1\""]),
    ("save --harder", &["--harder"]),
    ("save here.xml", &["\"here.xml\"", "starts with /"]),
    ("wait C1 M1", &["online, offline or gone is missing"]),
    ("wait C1 M1 happy", &["\"happy\"", "want online, offline or gone"]),
    ("wait C1 M1 gone -t soon", &["\"soon\"", "from 0 to 86400"]),
    ("wait C1 M1 gone -t", &["SECONDS is missing"]),
    ("stats --xml", &["--xml", "want stats"]),
    ("stats --json --prometheus", &["exclude each other"]),
    ("stats Nobody", &["ERROR: Nobody: cluster not found"]),
    ("version 2", &["unexpected \"2\""]),
    (
        "help dance",
        &["\"dance\" is no command", "want one of ls, modify"],
    ),
    ("quit now", &["unexpected \"now\""]),
];

#[test]
fn each_wrong_word_is_named_with_what_would_be_right_and_changes_nothing() {
    let bed = Bed::of(1);
    let other = FakeMember::start().control().to_string();
    let same = bed.members[0].control().to_string();
    let before = [bed.daemon.admin("ls"), bed.daemon.admin("ls C1")];
    let version = bed.daemon.admin("version");
    for (command, parts) in WRONG {
        let command = command.replace("OTHER", &other).replace("SAME", &same);
        // The connection stays: what comes behind is answered.
        let reply = bed.daemon.admin(&format!("{command}\nversion"));
        let reply = reply
            .strip_suffix(&version)
            .unwrap_or_else(|| panic!("{command}: {reply}"));
        let last = reply.lines().last().unwrap_or_default();
        assert!(last.starts_with("ERROR: "), "{command}: {reply}");
        assert_eq!(reply.matches("ERROR").count(), 1, "{command}: {reply}");
        assert!(
            parts.iter().all(|part| last.contains(part)),
            "{command}: {parts:?} in {reply}"
        );
    }
    assert_eq!([bed.daemon.admin("ls"), bed.daemon.admin("ls C1")], before);
    assert!(bed.daemon.admin_ok("ls C1").contains("weight = 100\n"));
}

#[test]
fn bound_calls_are_counted_listed_and_located() {
    let bed = Bed::of(2);
    let homes: Vec<String> = (0..6)
        .map(|n| {
            let media = bed.call(&format!("call-{n}@host")).media();
            let place = bed.members.iter().position(|member| member.media() == media);
            format!("M{}", place.expect("a member") + 1)
        })
        .collect();
    let all = bed.daemon.admin_ok("sessions C1");
    assert!(
        all.starts_with("bound sessions = 6\n") && all.ends_with("\nlisted = 6\nOK\n"),
        "{all}"
    );
    for (n, home) in homes.iter().enumerate() {
        let line = format!("    RTPproxy = {home}, age = ");
        let listed = all
            .lines()
            .find(|line| line.ends_with(&format!(", call-id = call-{n}@host")));
        assert!(
            listed.is_some_and(|listed| listed.starts_with(&line)),
            "{line}: {all}"
        );
        let located = bed.daemon.admin_ok(&format!("locate C1 call-{n}@host"));
        assert!(
            located.starts_with(&format!("RTPproxy = {home}\nage = ")),
            "{located}"
        );
    }
    let of_first = homes.iter().filter(|home| *home == "M1").count();
    let first = bed.daemon.admin_ok("SESSIONS C1 M1 LIMIT=0");
    assert_eq!(first, format!("bound sessions = {of_first}\nlisted = 0\nOK\n"));
    let some = bed.daemon.admin_ok("sessions C1 limit=2");
    assert!(
        some.starts_with("bound sessions = 6\n") && some.ends_with("\nlisted = 2\nOK\n"),
        "{some}"
    );
    bed.ask(&delete("call-3@host"));
    let after = bed.daemon.admin_ok("sessions C1");
    assert!(
        after.starts_with("bound sessions = 5\n") && after.contains(", deleted, call-id = call-3@host\n"),
        "{after}"
    );
}

/// It is made part by part, as it is read.
#[test]
fn a_long_listing_names_each_call_once() {
    let bed = Bed::of(1);
    let calls: BTreeSet<String> = (0..3_000).map(|n| format!("call-{n}@host")).collect();
    for call in &calls {
        bed.ask(&create(call));
    }
    let json = bed.daemon.admin_ok("sessions --json C1 limit=100000");
    let json: serde_json::Value =
        serde_json::from_str(json.strip_suffix("\nOK\n").expect("one document")).expect("JSON");
    assert_eq!(json["bound"], 3_000);
    let listed = json["sessions"].as_array().expect("calls");
    let ids: BTreeSet<String> = listed
        .iter()
        .map(|call| call["call_id"].as_str().expect("a call-id").to_owned())
        .collect();
    assert_eq!((listed.len(), ids), (calls.len(), calls));
    // A limit beyond one part is kept to the call.
    let some = bed.daemon.admin_ok("sessions C1 M1 limit=2345");
    assert_eq!(some.matches(", call-id = ").count(), 2_345);
    assert!(some.ends_with("\nlisted = 2345\nOK\n"));
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
