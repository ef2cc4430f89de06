//! A working day: everything that an operator does, while calls flow.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::bed::Bed;
use crate::support::daemon::{Daemon, Listed, config};
use crate::support::fake::FakeMember;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::traffic::Traffic;
use crate::support::wait::{self, LONG};

/// Waits until so many more calls have been made.
fn some_calls(traffic: &Traffic, more: u64) {
    let until = traffic.made() + more;
    wait::until_true("more calls", LONG, || traffic.made() >= until);
}

#[test]
fn operating_the_daemon_costs_no_command_and_leaves_no_session() {
    let place = Place::new();
    let proxies: Vec<RealMember> = (1..=5)
        .map(|n| RealMember::start(&place, &format!("r{n}")))
        .collect();
    let udp = |n: usize| Listed::udp(&format!("R{n}"), &proxies[n - 1].control().to_string());
    let unix = |n: usize| Listed {
        protocol: "UNIX",
        address: proxies[n - 1].unix().display().to_string(),
        ..udp(n)
    };
    let control = place.path("c1.sock");
    let daemon = Daemon::start(&place, &config(&control, &[udp(1), udp(2), unix(3)], ""));
    daemon.wait_members(3, 0);
    let ok = |command: &str| daemon.admin_ok(command);
    let traffic = Traffic::start(&control, 200, Duration::from_millis(1_500));
    some_calls(&traffic, 200);

    // Two more.
    let address = proxies[3].control();
    ok(&format!(
        "modify C1 add name=R4,protocol=udp,address={address},capacity=5000,weight=100"
    ));
    let address = proxies[4].control();
    ok(&format!(
        "modify C1 add name=R5,protocol=tcp,address={address},capacity=5000,weight=100"
    ));
    for name in ["R4", "R5"] {
        ok(&format!("wait C1 {name} online -t 10"));
    }
    some_calls(&traffic, 100);
    assert!(
        proxies[3].sessions() > 0 && proxies[4].sessions() > 0,
        "the new ones get no calls"
    );

    // A rest for one of them.
    ok("modify C1 suspend R1");
    some_calls(&traffic, 100);
    ok("modify C1 set R1 weight=50,capacity=4000");
    ok("modify C1 resume R1");

    // Two leave when their calls are over.
    ok("modify C1 delete R2");
    ok("modify C1 delete R3");
    let listing = ok("ls C1");
    assert_eq!(listing.matches("status = DRAINING\n").count(), 2, "{listing}");
    for (name, proxy) in [("R2", &proxies[1]), ("R3", &proxies[2])] {
        ok(&format!("wait C1 {name} gone -t 15"));
        assert_eq!(proxy.sessions(), 0, "{name} was taken out too early");
    }

    // What is so far goes to the file, the file is edited, and one of those that left comes back.
    ok("save");
    let saved = fs::read_to_string(&daemon.files().config).expect("the configuration");
    let back = format!(
        "<rtpproxy><name>R2</name><protocol>UDP</protocol><address>{}</address><weight>100</weight>\
         <capacity>5000</capacity></rtpproxy></rtp_cluster>",
        proxies[1].control()
    );
    let edited = saved
        .replace("<weight>50</weight>", "<weight>150</weight>")
        .replace("</rtp_cluster>", &back);
    fs::write(&daemon.files().config, edited).expect("the configuration");
    assert_eq!(
        daemon.admin("reload"),
        "Loaded 1 clusters and 4 RTP proxies\nOK\n"
    );
    ok("wait C1 R2 online -t 10");
    some_calls(&traffic, 100);

    // A second cluster comes, works, and goes with its last call.
    let second = place.path("c2.sock");
    ok(&format!(
        "cluster add name=C2,protocol=unix,address={}",
        second.display()
    ));
    let address = proxies[2].control();
    ok(&format!(
        "modify C2 add name=R3,protocol=udp,address={address},capacity=5000,weight=1"
    ));
    ok("wait C2 R3 online -t 10");
    let beside = Traffic::start(&second, 50, Duration::from_millis(500));
    some_calls(&beside, 50);
    let of_second = beside.stop();
    ok("cluster delete C2");
    wait::until_true("C2 has closed", LONG, || !daemon.admin("ls").contains("C2"));
    assert!(!second.exists());
    some_calls(&traffic, 100);

    let report = traffic.stop();
    println!(
        "{} calls, the slowest command took {:?}",
        report.made, report.slowest
    );
    assert_eq!((report.bad, of_second.bad), (vec![], vec![]));
    assert!(!daemon.log().contains("online -> offline"), "{}", daemon.log());
    for (n, proxy) in proxies.iter().enumerate() {
        wait::until_true(format!("no session on R{}", n + 1), LONG, || {
            proxy.sessions() == 0
        });
    }
}

/// Sends `count` commands over one admin connection, a thousand a second or as many as there can be: those that were
/// not answered with OK.
fn storm(admin: &Path, count: u32, mut command: impl FnMut(u32) -> String) -> Vec<String> {
    let mut stream = BufReader::new(UnixStream::connect(admin).expect("the admin socket"));
    let (start, mut bad, mut reply) = (Instant::now(), Vec::new(), String::new());
    for number in 0..count {
        let due = start + Duration::from_millis(1) * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let command = command(number);
        stream
            .get_mut()
            .write_all(format!("{command}\n").as_bytes())
            .expect("a command");
        reply.clear();
        stream.read_line(&mut reply).expect("a reply");
        if reply != "OK\n" {
            bad.push(format!("{command}: {reply:?}"));
        }
    }
    bad
}

#[test]
fn a_thousand_changes_a_second_cost_no_call_and_lead_none_astray() {
    const CHANGES: u32 = 4_000;
    let bed = Bed::of(4);
    let traffic = Traffic::start(bed.control(), 200, Duration::from_millis(300));
    // M4 always takes calls; the others come and go, and change what they are.
    let refused = storm(&bed.daemon.files().admin, CHANGES, |number| {
        let name = ["M1", "M2", "M3"][number as usize % 3];
        match number / 3 % 6 {
            0 => format!("modify C1 suspend {name}"),
            1 => format!("modify C1 resume {name}"),
            2 => format!(
                "modify C1 set {name} weight={},capacity={}",
                number % 7,
                number % 1_000 + 1
            ),
            3 => format!("modify C1 set {name} cmd_out_address=127.0.0.{}", number % 5 + 1),
            4 => format!("modify C1 set {name} wan_address=,lan_address="),
            _ => format!("modify C1 set {name} cmd_out_address=,weight=100,capacity=1000000"),
        }
    });
    let report = traffic.stop();
    println!(
        "{CHANGES} changes, {} calls, the slowest command took {:?}",
        report.made, report.slowest
    );
    assert_eq!((refused, report.bad), (vec![], vec![]));
    // Every call has ended where it began, or something is left.
    wait::until_true("no session anywhere", LONG, || bed.sessions() == 0);
    assert!(
        !bed.daemon.log().contains("online -> offline"),
        "{}",
        bed.daemon.log()
    );
}

#[test]
fn members_come_and_go_by_the_hundred_while_calls_flow() {
    let bed = Bed::of(2);
    let spare: Vec<_> = (0..4).map(|_| FakeMember::start()).collect();
    let traffic = Traffic::start(bed.control(), 200, Duration::from_millis(200));
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(5) {
        for (n, member) in spare.iter().enumerate() {
            let address = member.control();
            let add =
                format!("modify C1 add name=S{n},protocol=udp,address={address},capacity=100,weight=100");
            bed.daemon.admin_ok(&add);
        }
        for n in 0..spare.len() {
            bed.daemon.admin_ok(&format!("wait C1 S{n} online -t 10"));
            bed.daemon.admin_ok(&format!("modify C1 delete S{n}"));
        }
        for n in 0..spare.len() {
            bed.daemon.admin_ok(&format!("wait C1 S{n} gone -t 10"));
        }
        rounds += 1;
    }
    let report = traffic.stop();
    println!(
        "{rounds} rounds, {} calls, the slowest command took {:?}",
        report.made, report.slowest
    );
    assert_eq!(report.bad, Vec::<String>::new());
    wait::until_true("no session anywhere", LONG, || {
        bed.sessions() + spare.iter().map(FakeMember::sessions).sum::<u64>() == 0
    });
    bed.daemon.wait_members(2, 0);
}
