//! The administrator and the numbers: what `stats` counts, for people, programs and Prometheus.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::bed::{Bed, answer, create, delete, listed};
use crate::support::client;
use crate::support::daemon::{Daemon, cluster, config, config_of};
use crate::support::fake::{FakeMember, Fault};
use crate::support::place::Place;
use crate::support::real;
use crate::support::wait::{self, LONG};

const READER: &str = include_str!("support/metrics.py");

/// Samples by name and labels, as Prometheus reads them.
type Samples = BTreeMap<String, f64>;

/// `stats --prometheus`, read by the parser of Prometheus: types and samples.
fn scrape(daemon: &Daemon) -> (BTreeMap<String, String>, Samples) {
    let reply = daemon.admin_ok("stats --prometheus");
    let text = reply.strip_suffix("OK\n").expect("the last line");
    let mut reader = Command::new(real::python())
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the reader can be started");
    let mut stdin = reader.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = reader.wait_with_output().expect("the reader ends");
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{wrong}\n{text}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let types = found["types"].as_object().expect("types");
    let samples = found["samples"].as_object().expect("samples");
    (
        types
            .iter()
            .map(|(name, kind)| (name.clone(), kind.as_str().expect("a type").to_owned()))
            .collect(),
        samples
            .iter()
            .map(|(name, value)| (name.clone(), value.as_f64().expect("a number")))
            .collect(),
    )
}

fn value(samples: &Samples, key: &str) -> f64 {
    let key = format!("rtp_cluster_{key}");
    *samples
        .get(&key)
        .unwrap_or_else(|| panic!("no {key} in {:#?}", samples.keys()))
}

#[test]
fn the_counters_say_what_has_happened() {
    let bed = Bed::of(2);
    for n in 0..10 {
        bed.ask(&create(&format!("call-{n}")));
        bed.ask(&answer(&format!("call-{n}")));
    }
    for n in 0..5 {
        assert_eq!(bed.ask(&delete(&format!("call-{n}"))), "0");
    }
    assert_eq!(bed.ask("D nobody from to"), "E50");
    assert_eq!(bed.ask("U too few\n"), "E1");
    let result = |samples: &Samples, letter: &str, result: &str| {
        value(
            samples,
            &format!("command_results_total{{cluster=C1,command={letter},result={result}}}"),
        )
    };
    let (types, samples) = scrape(&bed.daemon);
    assert!((result(&samples, "U", "answered") - 10.0).abs() < 0.1);
    assert!((result(&samples, "L", "answered") - 10.0).abs() < 0.1);
    assert!((result(&samples, "D", "answered") - 5.0).abs() < 0.1);
    assert!((result(&samples, "D", "error") - 1.0).abs() < 0.1);
    assert!((value(&samples, "sessions_bound_total{cluster=C1}") - 10.0).abs() < 0.1);
    let bound = value(&samples, "bound_sessions{cluster=C1}");
    assert!((bound - 5.0).abs() < 0.1, "{bound}");
    assert!((value(&samples, "refused_commands_total{cluster=C1}") - 1.0).abs() < 0.1);
    assert!((value(&samples, "asked_all_total{cluster=C1}") - 1.0).abs() < 0.1);
    assert!(value(&samples, "clients_accepted_total{cluster=C1}") >= 27.0);
    let of = |samples: &Samples, name: &str| -> f64 {
        ["M1", "M2"]
            .map(|m| value(samples, &format!("{name}{{cluster=C1,member={m}}}")))
            .iter()
            .sum()
    };
    assert!((of(&samples, "member_sessions_total") - 10.0).abs() < 0.1);
    assert!((of(&samples, "member_up") - 2.0).abs() < 0.1);
    assert!(of(&samples, "member_commands_total") >= 26.0);
    assert!(of(&samples, "member_delay_seconds_count") >= 26.0);
    assert!(of(&samples, "member_delay_seconds_sum") > 0.0);
    assert_eq!(types["rtp_cluster_member_delay_seconds"], "histogram");
    // The whole table is looked through in 13 s.
    let text = config(bed.control(), &listed(&bed.members), "<sessions expire=\"1s\"/>");
    fs::write(&bed.daemon.files().config, text).expect("the configuration can be written");
    bed.daemon.admin_ok("reload");
    wait::until_true("the rest ages out", 2 * LONG, || {
        let (_, samples) = scrape(&bed.daemon);
        value(&samples, "sessions_expired_total{cluster=C1}") > 4.9
    });

    bed.members[0].on("", Fault::Silent);
    for n in 0..20 {
        bed.ask(&create(&format!("other-{n}")));
    }
    bed.daemon.admin_ok("wait C1 M1 offline -t 10");
    let (_, samples) = scrape(&bed.daemon);
    assert!(value(&samples, "failovers_total{cluster=C1}") >= 1.0);
    for (name, least) in [
        ("retransmissions_total", 1.0),
        ("probes_failed_total", 1.0),
        ("went_offline_total", 1.0),
        ("went_online_total", 1.0),
    ] {
        let count = value(&samples, &format!("member_{name}{{cluster=C1,member=M1}}"));
        assert!(count >= least, "{name}: {count}");
    }
    assert!(value(&samples, "member_up{cluster=C1,member=M1}").abs() < 0.1);
}

#[test]
fn queues_have_a_depth() {
    let bed = Bed::of(1);
    bed.call("one");
    bed.call("two");
    let depths = || {
        let (_, samples) = scrape(&bed.daemon);
        [
            "commands_in_flight{cluster=C1}",
            "clients{cluster=C1}",
            "member_deferred_deletes{cluster=C1,member=M1}",
        ]
        .map(|gauge| format!("{:.0}", value(&samples, gauge).abs()))
    };
    wait::until_true("nothing waits", LONG, || depths() == ["0", "0", "0"]);
    // A question on its way, with the client that asks.
    bed.members[0].on("Q", Fault::Late(Duration::from_millis(1_500)));
    std::thread::scope(|scope| {
        scope.spawn(|| bed.ask("Q one from to"));
        wait::until_true("a question on its way", LONG, || depths() == ["1", "1", "0"]);
    });
    // Deletes that wait for their member.
    bed.members[0].on("", Fault::Silent);
    bed.daemon.admin_ok("wait C1 M1 offline -t 10");
    for call in ["one", "two"] {
        assert_eq!(bed.ask(&delete(call)), "0");
    }
    wait::until_true("two deletes wait", LONG, || depths() == ["0", "0", "2"]);
}

#[test]
fn no_counter_goes_back_over_a_reload() {
    let bed = Bed::of(3);
    for n in 0..50 {
        bed.ask(&create(&format!("call-{n}")));
        bed.ask(&answer(&format!("call-{n}")));
    }
    let counted = |samples: Samples| -> Samples {
        let is_count = |name: &String| {
            let name = name.split('{').next().unwrap_or_default();
            ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        samples.into_iter().filter(|(name, _)| is_count(name)).collect()
    };
    let mut before = counted(scrape(&bed.daemon).1);
    assert!(before.len() > 100, "{}", before.len());
    let moved = FakeMember::start();
    let mut members = listed(&bed.members);
    for turn in 0..4 {
        // One changes its weight, one moves to another RTPproxy, the rules change, the order too.
        members[0].weight += 1;
        if turn == 1 {
            members[1].address = moved.control().to_string();
        }
        if turn == 2 {
            members.reverse();
        }
        let extra = format!("<health interval=\"{}ms\"/>", 500 + turn * 100);
        let text = config(bed.control(), &members, &extra);
        fs::write(&bed.daemon.files().config, text).expect("the configuration");
        bed.daemon.admin_ok("reload");
        bed.daemon.wait_members(3, 0);
        let after = counted(scrape(&bed.daemon).1);
        for (name, count) in &before {
            let now = after.get(name).unwrap_or_else(|| panic!("{name} is gone"));
            assert!(now >= count, "{name}: {count} -> {now}");
        }
        before = after;
    }
}

#[test]
fn names_that_need_it_are_escaped_and_many_members_are_no_trouble() {
    let place = Place::new();
    let odd = "back\\slash\"quote{}#é";
    let members: Vec<FakeMember> = (0..2).map(|_| FakeMember::start()).collect();
    let mut listed = listed(&members);
    odd.clone_into(&mut listed[0].name);
    let address = place.path("o.sock").display().to_string();
    let mut clusters = vec![cluster(
        "C1",
        "UNIX",
        &place.path("c1.sock").display().to_string(),
        &listed,
        "",
    )];
    clusters.push(cluster(odd, "UNIX", &address, &listed, ""));
    let daemon = Daemon::start(&place, &config_of(&clusters));
    daemon.wait_members(2, 0);
    let (_, samples) = scrape(&daemon);
    for (cluster, member) in [("C1", odd), (odd, odd), (odd, "M2")] {
        assert!(
            value(
                &samples,
                &format!("member_weight{{cluster={cluster},member={member}}}")
            ) > 99.0
        );
    }
    client::ask(&place.path("c1.sock"), &create("call"));
    wait::until_true("a scrape after the call", LONG, || {
        value(&scrape(&daemon).1, "bound_sessions{cluster=C1}") > 0.9
    });
}
