//! What `packaging/monitoring/` gives to Prometheus and Grafana, held to what the real program exposes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::bed::{Bed, answer, at_once, create, delete};
use crate::support::client;
use crate::support::fake::Fault;
use crate::support::place::Place;
use crate::support::wait::{self, LONG};
use crate::support::web::{Status, promtool};

fn monitoring(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/monitoring")
        .join(name)
}

/// The value of each series of a scrape.
type Scrape = BTreeMap<String, f64>;

fn scrape(status: &Status) -> Scrape {
    let text = status.get("/metrics").body;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// `before`, with those series as in `after` that are what a story is about: how busy this machine was is not.
fn only(before: &Scrape, after: &Scrape, is_told: impl Fn(&str) -> bool) -> Scrape {
    let now = |(series, value): (&String, &f64)| {
        let changed = after.get(series).filter(|_| is_told(series));
        (series.clone(), *changed.unwrap_or(value))
    };
    before.iter().map(now).collect()
}

/// The series as Prometheus stores them.
fn stored(series: &str) -> String {
    let of_target = "instance=\"a:9433\",job=\"rtp_cluster\"";
    match series.split_once('{') {
        Some((name, labels)) => format!("{name}{{{of_target},{labels}"),
        None => format!("{series}{{{of_target}}}"),
    }
}

/// Only grows, and so is told by its rate.
fn is_counter(series: &str) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    ["_total", "_bucket", "_count", "_sum"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// A unit test for promtool: half an hour as in `before`, and then as from `before` to `after` every 15 seconds. `firing` are
/// alert, cluster and member that ring a quarter of an hour after the change, and none does before it.
fn rule_test(before: &Scrape, after: &Scrape, firing: &[(&str, &str, &str)]) -> String {
    let mut text = format!(
        "rule_files: [{}]\nevaluation_interval: 15s\ntests:\n- interval: 15s\n  input_series:\n",
        monitoring("rtp_cluster.rules.yml").display()
    );
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let first = before.get(name);
        let is_clock = name == "rtp_cluster_uptime_seconds";
        let pace = if is_clock { "15" } else { "0" };
        let half_an_hour = first.map_or("_x120".to_owned(), |value| format!("{value}+{pace}x120"));
        let then = match (first, after.get(name)) {
            (_, None) => "_x120".to_owned(),
            (Some(first), Some(last)) if is_clock && last >= first => format!("{}+15x120", first + 1815.0),
            (Some(first), Some(last)) if is_counter(name) => {
                // What was counted between the two goes on at that pace.
                format!("{last}+{}x120", (last - first).max(0.0))
            }
            (_, Some(last)) => format!("{last}+0x120"),
        };
        let series = stored(name);
        writeln!(
            text,
            "  - series: '{series}'\n    values: '{half_an_hour} {then}'"
        )
        .expect("a string");
    }
    let query = "count by (alertname, cluster, member) (ALERTS{alertstate=\"firing\"})";
    writeln!(
        text,
        "  promql_expr_test:\n  - expr: '{query}'\n    eval_time: 29m\n    exp_samples: []\n  - expr: '{query}'\n    eval_time: 45m\n    exp_samples:"
    )
    .expect("a string");
    for (alert, cluster, member) in firing {
        let mut labels = format!("alertname=\"{alert}\"");
        for (label, value) in [("cluster", cluster), ("member", member)] {
            if !value.is_empty() {
                write!(labels, ",{label}=\"{value}\"").expect("a string");
            }
        }
        writeln!(text, "    - labels: '{{{labels}}}'\n      value: 1").expect("a string");
    }
    text
}

fn assert_rings(place: &Place, name: &str, before: &Scrape, after: &Scrape, firing: &[(&str, &str, &str)]) {
    let file = place.write(name, rule_test(before, after, firing));
    promtool(&["test", "rules", file.to_str().expect("a name")], "");
}

#[test]
fn promtool_takes_the_rules_and_the_scrape_configuration() {
    let rules = monitoring("rtp_cluster.rules.yml");
    promtool(&["check", "rules", rules.to_str().expect("a name")], "");
    let scrape = monitoring("prometheus.yml");
    promtool(&["check", "config", scrape.to_str().expect("a name")], "");
}

#[test]
fn alerts_ring_for_what_was_recorded_from_the_real_program_and_for_nothing_else() {
    let place = Place::new();
    let mut bed = Bed::with(2, "<sessions max=\"100\"/>", &[]);
    let status = Status::start(&place, &bed.daemon.files().admin);
    // Series are there from the first sample that has both members' counts.
    let seen = |text: &str| {
        status.wait("/metrics", |answer| answer.body.contains(text));
    };
    seen("rtp_cluster_member_active_sessions{cluster=\"C1\",member=\"M2\"}");
    seen("rtp_cluster_member_active_sessions{cluster=\"C1\",member=\"M1\"}");
    let well = scrape(&status);

    // A caller who deletes what nobody knows, a table that fills, and a member that is late.
    let control = bed.control().to_owned();
    at_once(8, 60, |n| client::ask(&control, &delete(&format!("nobody-{n}"))));
    at_once(8, 95, |n| client::ask(&control, &create(&format!("call-{n}"))));
    bed.members[0].on("L", Fault::Late(Duration::from_millis(150)));
    at_once(8, 95, |n| client::ask(&control, &answer(&format!("call-{n}"))));
    seen("rtp_cluster_bound_sessions{cluster=\"C1\"} 95\n");
    let busy = only(&well, &scrape(&status), |series| {
        !(series.contains("failovers") || series.contains("delay") && series.contains("M2"))
    });
    assert_rings(
        &place,
        "busy.yml",
        &well,
        &busy,
        &[
            ("RtpClusterErrors", "C1", ""),
            ("RtpClusterMemberSlow", "C1", "M1"),
            ("RtpClusterTableNearlyFull", "C1", ""),
        ],
    );

    // A member that goes, and then the daemon.
    bed.members[1].vanish();
    seen("rtp_cluster_member_up{cluster=\"C1\",member=\"M2\"} 0\n");
    let alone = scrape(&status);
    let alone = only(&well, &alone, |series| {
        series.contains("_up{") || series.contains("active_sessions")
    });
    assert_rings(
        &place,
        "alone.yml",
        &well,
        &alone,
        &[
            ("RtpClusterMemberDown", "C1", "M2"),
            ("RtpClusterWithoutReserve", "C1", ""),
        ],
    );
    bed.members[0].vanish();
    seen("rtp_cluster_member_up{cluster=\"C1\",member=\"M1\"} 0\n");
    let nobody: Scrape = scrape(&status)
        .into_iter()
        .filter(|(name, _)| name.contains("_up") || name.contains("_status"))
        .collect();
    assert_rings(
        &place,
        "nobody.yml",
        &well,
        &nobody,
        &[
            ("RtpClusterMemberDown", "C1", "M1"),
            ("RtpClusterMemberDown", "C1", "M2"),
            ("RtpClusterServesNobody", "C1", ""),
        ],
    );
    bed.daemon.kill();
    seen("rtp_cluster_daemon_up 0\n");
    assert_rings(
        &place,
        "away.yml",
        &well,
        &scrape(&status),
        &[("RtpClusterAway", "", "")],
    );
    bed.daemon.restart();
    seen("rtp_cluster_daemon_up 1\n");
    let young: Scrape = scrape(&status)
        .into_iter()
        .filter(|(name, _)| name.starts_with("rtp_cluster_uptime") || name.starts_with("rtp_cluster_daemon"))
        .collect();
    let mut old = well;
    old.insert("rtp_cluster_uptime_seconds".to_owned(), 1000.0);
    assert_rings(
        &place,
        "restarted.yml",
        &old,
        &young,
        &[("RtpClusterRestarted", "", "")],
    );
}

#[test]
fn failovers_ring_too() {
    let place = Place::new();
    let bed = Bed::of(2);
    let status = Status::start(&place, &bed.daemon.files().admin);
    status.wait("/metrics", |answer| {
        answer.body.contains("rtp_cluster_failovers_total{")
    });
    let before = scrape(&status);
    // It answers probes, and no calls.
    bed.members[1].on("U", Fault::Silent);
    let control = bed.control().to_owned();
    let name = "rtp_cluster_failovers_total{cluster=\"C1\"}";
    let mut round = 0;
    let after = wait::until("calls that fail over", LONG, || {
        round += 1;
        at_once(8, 40, |n| {
            client::ask(&control, &create(&format!("over-{round}-{n}")))
        });
        let after = scrape(&status);
        (after.get(name)? - before.get(name)? > 20.0).then_some(after)
    });
    let after = only(&before, &after, |series| series == name);
    assert_rings(
        &place,
        "failovers.yml",
        &before,
        &after,
        &[("RtpClusterFailovers", "C1", "")],
    );
}

#[test]
fn the_rules_and_the_dashboard_name_only_what_is_exposed() {
    let place = Place::new();
    let bed = Bed::of(1);
    let status = Status::start(&place, &bed.daemon.files().admin);
    let scraped = status.wait("/metrics", |answer| {
        answer.body.contains("rtp_cluster_member_up{")
    });
    let known: BTreeSet<&str> = scraped
        .body
        .lines()
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for file in ["rtp_cluster.rules.yml", "dashboard.json"] {
        let text = fs::read_to_string(monitoring(file)).expect("it is there");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        let metrics: BTreeSet<&str> = words
            .filter(|word| word.starts_with("rtp_cluster_") && !word.contains(':'))
            .filter(|word| {
                ![
                    "rtp_cluster_records",
                    "rtp_cluster_alerts",
                    "rtp_cluster_client",
                    "rtp_cluster_status",
                ]
                .contains(word)
            })
            .collect();
        assert!(metrics.len() > 5, "{file}: {metrics:?}");
        for metric in metrics {
            // A number that is not known yet has no sample.
            assert!(
                known.contains(metric) || metric == "rtp_cluster_member_active_sessions",
                "{file}: {metric}"
            );
        }
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let text = fs::read_to_string(monitoring("rtp_cluster.rules.yml")).expect("it is there");
    let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 8);
    for alert in alerts {
        for part in ["severity: ", "summary: ", "remedy: "] {
            assert!(alert.contains(part), "no {part} in {alert}");
        }
    }
}
