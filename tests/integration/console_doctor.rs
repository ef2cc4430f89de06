//! `rtp_cluster_client doctor`: what is wrong, as a list with remedies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::console::{out, run, said};
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::fake::{FakeMember, Fault};
use crate::support::member::own_address;
use crate::support::place::Place;
use crate::support::real::{RealMember, free_port};

/// The list, which ends with this status.
fn doctor(admin: &Path, words: &[&str], status: i32) -> String {
    let output = run(admin, words);
    let text = out(&output);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{words:?}: {text}{}",
        said(&output)
    );
    text
}

/// Fails the test unless a line begins so and has this in it.
fn has(list: &str, beginning: &str, part: &str) {
    let mut lines = list.lines().filter(|line| line.starts_with(beginning));
    assert!(
        lines.any(|line| line.contains(part)),
        "{beginning}…{part}: {list}"
    );
}

#[test]
fn where_nothing_is_wrong_there_is_no_fault() {
    let place = Place::new();
    let members = ["r1", "r2"].map(|name| RealMember::start(&place, name));
    let listed = [
        Listed::udp("R1", &members[0].control().to_string()),
        Listed {
            protocol: "UNIX",
            ..Listed::udp("R2", &members[1].unix().display().to_string())
        },
    ];
    let text = config(&Files::in_place(&place).control, &listed, "");
    let read_only = place.path("ro.sock");
    let read_only_text = read_only.to_str().expect("a path");
    let daemon = Daemon::start_with(&place, &text, &["-r", read_only_text]);
    daemon.wait_members(2, 0);
    // The read-only socket is enough.
    for admin in [&daemon.files().admin, &read_only] {
        let list = doctor(admin, &["doctor"], 0);
        assert!(list.ends_with(" 0 faults\nOK\n"), "{list}");
        for (beginning, part) in [
            ("ok      daemon: ", "version "),
            ("ok      configuration ", "1 clusters and 2 RTP proxies"),
            ("ok      configuration: ", "what runs is what the file says"),
            ("ok      admin socket: ", "mode 0660"),
            ("ok      cluster C1: ", "2 of 2 members take new calls"),
            ("ok      cluster C1: ", "test call: caller to callee through "),
            ("ok      member R1 of C1: ", "online, ACTIVE"),
            ("ok      member R1 of C1: ", "version 20040107"),
            (
                "ok      member R2 of C1: ",
                "test call: caller to callee through ",
            ),
        ] {
            has(&list, beginning, part);
        }
        assert!(list.contains(" descriptors\n"), "{list}");
        // As this machine is.
        let has_clock = list.contains("ok      clock: ") != list.contains("remark  clock: ");
        assert_eq!(has_clock, cfg!(target_os = "linux"), "{list}");
    }
    let quiet = doctor(&daemon.files().admin, &["-q", "doctor", "C1"], 0);
    assert!(!quiet.contains("ok "), "{quiet}");
    assert_eq!(members.iter().map(RealMember::sessions).sum::<u64>(), 0);
}

#[test]
fn each_fault_has_its_place_and_its_remedy() {
    let place = Place::new();
    let full = FakeMember::start();
    full.on("U", Fault::Refuse("E72"));
    full.on("VF 20081224", Fault::Instead(b"0\n".to_vec()));
    let notify = format!(
        "<disconnect_notify><inbound_address>{}</inbound_address>\
         <dest_socket_prefix>{}</dest_socket_prefix></disconnect_notify>",
        free_port(own_address()).expect("a port"),
        place.path("b2bua.sock").display()
    );
    let listed = [
        Listed::udp("full", &full.control().to_string()),
        Listed::udp("gone", &free_port(own_address()).expect("a port").to_string()),
    ];
    let text = config(&Files::in_place(&place).control, &listed, &notify);
    let daemon = Daemon::start_with(&place, &text, &["-m", "0666"]);
    daemon.wait_members(1, 1);
    daemon.admin_ok("modify C1 set full weight=7");
    let list = doctor(&daemon.files().admin, &["doctor"], 1);
    for (beginning, part) in [
        (
            "remark  configuration: ",
            "what runs differs from the file in 1 places",
        ),
        ("remark  cluster C1: ", "1 of 2 members take new calls"),
        ("remark  cluster C1: ", "has mode 0666"),
        ("FAULT   cluster C1: ", "no ports left"),
        ("FAULT   member full of C1: ", "without disconnect notification"),
        (
            "FAULT   member full of C1: ",
            "test call: the U was refused with E72: no ports left",
        ),
        ("FAULT   member gone of C1: ", "offline, ACTIVE, refused"),
        ("        -> ", "start it with -n tcp:%%CC_SELF%%:PORT"),
    ] {
        has(&list, beginning, part);
    }
    assert!(
        list.lines()
            .last()
            .is_some_and(|line| line.starts_with("ERROR: ")),
        "{list}"
    );
    // A file that a restart would not survive, and a socket that is anybody's.
    fs::write(&daemon.files().config, "<rtp_cluster_config>\n  <rtp_cluster/>\n").expect("a file");
    let admin = &daemon.files().admin;
    fs::set_permissions(admin, fs::Permissions::from_mode(0o666)).expect("a mode");
    let list = doctor(admin, &["-q", "doctor"], 1);
    has(&list, "FAULT   configuration ", "rtp_cluster.xml");
    has(&list, "remark  admin socket: ", "has mode 0666");
    assert!(doctor(admin, &["doctor", "Nobody"], 1).contains("Nobody: cluster not found"));
    assert_eq!(run(admin, &["doctor", "C1", "M1"]).status.code(), Some(64));
    assert_eq!(run(&place.path("nowhere"), &["doctor"]).status.code(), Some(2));
}
