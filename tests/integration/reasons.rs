//! Why a member is in its state: what really happened, in `ls` and in the log, and when it is tried again.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::{fs, thread};

use serde_json::Value;

use crate::support::client;
use crate::support::daemon::{Apart, Daemon, Files, Listed, config};
use crate::support::fake::{FakeMember, Fault};
use crate::support::member;
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

/// What is known of a member of `C1`.
fn known(daemon: &Daemon, name: &str) -> Value {
    let text = daemon.admin_ok("ls --json C1");
    let text = text.trim_end().strip_suffix("OK").expect("it ends with OK");
    let all: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let members = all["clusters"][0]["members"].as_array().expect("a list");
    let found = members.iter().find(|member| member["name"] == name);
    found.unwrap_or_else(|| panic!("no member {name}: {all}")).clone()
}

/// Waits until `name` is offline for a reason that begins with `reason`.
fn is_offline_since(daemon: &Daemon, name: &str, reason: &str) -> Value {
    let mut last = Value::Null;
    let what = format!("{name}: {reason}");
    wait::until(&what, LONG, || {
        last = known(daemon, name);
        let says = last["reason"].as_str().expect("a text").starts_with(reason);
        (last["state"] == "offline" && says).then(|| last.clone())
    })
}

#[test]
fn a_member_that_is_not_there_says_what_really_happened() {
    let place = Place::new();
    let unix = |name: &str, file: &str, protocol| Listed {
        protocol,
        ..Listed::udp(name, &place.path(file).display().to_string())
    };
    // Something else than an RTPproxy.
    let other = TcpListener::bind((member::own_address(), 0)).expect("a port");
    let other_at = other.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in other.incoming().flatten() {
            let mut stream = stream;
            drop(stream.write_all(b"SSH-2.0-\x1b[31mOpenSSH\r\n"));
            // It is held open for the rest of the test.
            std::mem::forget(stream);
        }
    });
    let _datagrams = UnixDatagram::bind(place.path("datagrams")).expect("a socket");
    let silent = UdpSocket::bind((member::own_address(), member::CONTROL_PORT)).expect("a socket");
    let newer = FakeMember::start();
    newer.on("V", Fault::Instead(b"20990101\n".to_vec()));
    let odd = FakeMember::start();
    odd.on("V", Fault::Instead(b"E8\n".to_vec()));
    let listed = [
        Listed::udp(
            "nobody",
            &format!("{}:{}", member::own_address(), member::CONTROL_PORT),
        ),
        Listed::udp("silent", &silent.local_addr().expect("bound").to_string()),
        unix("nowhere", "no-such", "UNIX"),
        unix("kept-nowhere", "none-such", "CUNIX"),
        unix("datagrams", "datagrams", "UNIX"),
        Listed {
            protocol: "TCP",
            ..Listed::udp("ssh", &other_at.to_string())
        },
        Listed::udp("newer", &newer.control().to_string()),
        Listed::udp("odd", &odd.control().to_string()),
    ];
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.admin_ok("modify C1 add name=nameless,protocol=udp,address=nosuch.invalid:1,capacity=10,weight=1");
    for (name, reason) in [
        ("nobody", "refused"),
        ("silent", "1 probe unanswered"),
        ("nowhere", "there is no such socket"),
        ("kept-nowhere", "there is no such socket"),
        ("datagrams", "its path is no such socket"),
        (
            "ssh",
            r#"it does not answer V with 20040107: it said "SSH-2.0-\x1b[31mOpenSSH""#,
        ),
        (
            "newer",
            r#"it does not answer V with 20040107: it said "20990101""#,
        ),
        ("odd", r#"1 probe answered with nonsense: it said "E8""#),
        ("nameless", "the name is not found: "),
    ] {
        // One that is silent has had another probe before we look.
        let reason = reason.strip_prefix("1 probe").unwrap_or(reason);
        let told = wait::until(format!("{name}: {reason}\n{}", daemon.log()), LONG, || {
            let told = known(&daemon, name);
            let says = told["reason"].as_str().expect("a text").contains(reason);
            (told["state"] == "offline" && says).then_some(told)
        });
        // When it is tried again is said, except while it is being tried.
        wait::until_true(format!("{name} is tried again: {told}"), LONG, || {
            known(&daemon, name)["tried_again_in"]
                .as_f64()
                .is_some_and(|within| within > 0.0)
        });
        assert!(daemon.log().contains(reason), "{name}: {}", daemon.log());
    }
    assert!(daemon.admin_ok("ls -v C1").contains("tried again = in "));
}

#[test]
fn a_member_whose_socket_is_not_for_us_says_so() {
    // Rights stop everybody but root.
    let place = Place::new();
    fs::set_permissions(place.dir(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    let path = place.path("closed");
    fs::create_dir(&path).expect("a directory");
    let socket = path.join("r.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("it is ours");
    let listed = [Listed {
        protocol: "UNIX",
        ..Listed::udp("R1", &socket.display().to_string())
    }];
    let is_root = rustix::process::geteuid().is_root();
    let arguments: &[&str] = if is_root { &["-u", "65534:65534"] } else { &[] };
    let text = config(&Files::in_place(&place).control, &listed, "");
    let daemon = Daemon::start_with(&place, &text, arguments);
    is_offline_since(&daemon, "R1", "no rights to its socket or its directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("it is ours");
}

#[test]
fn a_machine_without_a_way_to_a_member_says_so() {
    let place = Place::new();
    let tcp = Listed {
        protocol: "TCP",
        ..Listed::udp("tcp", "192.0.2.1:22222")
    };
    let listed = [Listed::udp("udp", "192.0.2.1:22222"), tcp];
    let text = config(&Files::in_place(&place).control, &listed, "");
    let Some(daemon) = Daemon::start_apart(&place, &text, Apart::without_network()) else {
        println!("one process cannot be without a network here: that wants network namespaces");
        return;
    };
    for name in ["udp", "tcp"] {
        is_offline_since(&daemon, name, "no route to it");
    }
}

#[test]
fn a_name_of_the_other_family_says_so() {
    let place = Place::new();
    let names = place.path("hosts");
    fs::write(&names, "127.0.0.1 localhost\n::1 six.test\n127.0.0.1 four.test\n").expect("the names");
    let listed = [
        Listed::udp("four", "six.test:22222"),
        Listed {
            protocol: "UDP6",
            ..Listed::udp("six", "four.test:22222")
        },
    ];
    let text = config(&Files::in_place(&place).control, &listed, "");
    let Some(daemon) = Daemon::start_with_names(&place, &text, &names) else {
        println!("names cannot be changed for one process here: that wants mount namespaces");
        return;
    };
    is_offline_since(
        &daemon,
        "four",
        "the name is not found: it has no IPv4 address, only IPv6",
    );
    is_offline_since(
        &daemon,
        "six",
        "the name is not found: it has no IPv6 address, only IPv4",
    );
}

#[test]
fn a_member_that_does_not_count_serves_and_says_what_it_lacks() {
    let place = Place::new();
    let member = FakeMember::start();
    member.on("Ib", Fault::Refuse("E8"));
    for number in ["20150617", "20140323"] {
        member.on(&format!("VF {number}"), Fault::Refuse("E0"));
    }
    member.on("U", Fault::Instead(b"40002 127.0.0.1 4\n".to_vec()));
    let listed = [Listed::udp("R1", &member.control().to_string())];
    let control = Files::in_place(&place).control;
    let health = "<health interval='200ms' timeout='150ms' fall='2'/>";
    let daemon = Daemon::start(&place, &config(&control, &listed, health));
    daemon.wait_members(1, 0);
    let probes = || {
        let mut cookies: Vec<String> = member.seen("Ib").into_iter().map(|seen| seen.cookie).collect();
        cookies.dedup();
        cookies.len()
    };
    let before = probes();
    wait::until_true("it is asked for more than it may refuse", LONG, || {
        probes() > before + 5
    });
    daemon.wait_members(1, 0);
    assert!(!daemon.log().contains("-> offline"), "{}", daemon.log());
    // Some servers write a 4 after an address of IPv4.
    assert_eq!(
        client::ask(&control, "U call 127.0.0.1 4000 from"),
        "40002 127.0.0.1 4"
    );
    let told = known(&daemon, "R1");
    assert_eq!(told["active_sessions"], Value::Null);
    let lacks = serde_json::json!(["session counts", "notifications", "load"]);
    wait::until_true("what it lacks is known", LONG, || {
        known(&daemon, "R1")["lacks"] == lacks
    });
    let list = daemon.admin_ok("ls -v C1");
    assert!(
        list.contains("lacks = session counts, notifications, load\n"),
        "{list}"
    );
    assert!(list.contains("active sessions = UNKNOWN\n"), "{list}");
}

#[test]
fn a_count_that_is_no_number_is_unknown() {
    let place = Place::new();
    let wrong = ["-5", "18446744073709551616", "many"];
    let members = wrong.map(|count| {
        let member = FakeMember::start();
        let text = format!(
            "sessions created: 7\nactive sessions: {count}\nactive streams: 0\npackets received: 0\n\
             packets transmitted: 0\n"
        );
        member.on("Ib", Fault::Instead(text.into_bytes()));
        member
    });
    let control = Files::in_place(&place).control;
    let listed = crate::support::bed::listed(&members);
    let daemon = Daemon::start(&place, &config(&control, &listed, ""));
    daemon.wait_members(wrong.len(), 0);
    for name in ["M1", "M2", "M3"] {
        wait::until_true("it has been asked", LONG, || {
            known(&daemon, name)["lacks"] == serde_json::json!(["session counts"])
        });
        assert_eq!(known(&daemon, name)["active_sessions"], Value::Null);
    }
    let sum = client::ask(&control, "Ib");
    assert!(
        sum.contains("active sessions: 0\n"),
        "nobody's count is added: {sum}"
    );
}

#[test]
fn a_slow_member_is_online_at_its_first_answer() {
    let place = Place::new();
    let member = FakeMember::start();
    member.on("", Fault::Late(std::time::Duration::from_millis(900)));
    let listed = [Listed::udp("R1", &member.control().to_string())];
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(1, 0);
    let mut asked: Vec<String> = member
        .seen("V")
        .into_iter()
        .filter(|seen| seen.command.trim() == "V")
        .map(|seen| seen.cookie)
        .collect();
    asked.dedup();
    assert_eq!(asked.len(), 1, "{asked:?}");
}

#[test]
fn a_member_that_is_silent_every_other_time_goes_offline() {
    let place = Place::new();
    let members = [FakeMember::start(), FakeMember::start()];
    let listed = crate::support::bed::listed(&members);
    let health = "<health interval='200ms' timeout='100ms' fall='3' rise='2'/>";
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, health));
    daemon.wait_members(2, 0);
    // By default a row of answers would be over with one.
    members[0].on("Ib", Fault::SilentEveryOther);
    daemon.wait_members(1, 1);
}

#[test]
fn a_name_is_known_before_the_first_call_is_refused() {
    // What the network test of the Python rtp_cluster asks: a member by host name counts at once.
    let place = Place::new();
    let [first, second, third] = [(); 3].map(|()| {
        let at = crate::support::real::free_port(Ipv4Addr::LOCALHOST.into()).expect("a port");
        let name = format!("r{}", at.port());
        (
            at,
            crate::support::real::RealMember::start_at(&place, &name, at, &[]),
        )
    });
    let host = |at: std::net::SocketAddr| format!("localhost:{}", at.port());
    let control = Files::in_place(&place).control;
    let text = config(&control, &[Listed::udp("R1", &host(first.0))], "");
    let daemon = Daemon::start(&place, &text);
    let active = |count: usize| {
        let list = daemon.admin_ok("ls");
        assert!(
            list.contains(&format!("    active members = {count}\n")),
            "{list}"
        );
    };
    // At once: no wait for a condition here.
    for number in ["20081224", "20150617"] {
        assert_eq!(client::ask(&control, &format!("VF {number}")), "1");
    }
    client::media(&client::ask(&control, "U a 127.0.0.1 4000 ft"));
    active(1);
    daemon.admin_ok(&format!(
        "modify C1 add name=R2,protocol=udp,address={},capacity=10,weight=1",
        host(second.0)
    ));
    active(2);
    let both = [
        Listed::udp("R1", &host(first.0)),
        Listed::udp("R3", &host(third.0)),
    ];
    fs::write(&daemon.files().config, config(&control, &both, "")).expect("it can be written");
    daemon.admin_ok("reload");
    active(2);
}
