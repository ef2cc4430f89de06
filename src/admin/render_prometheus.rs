//! The counters in the Prometheus text exposition format, version 0.0.4. Pure. Names follow its conventions: base
//! units, `_total` for what only grows; all samples of one name stand together below its help and type.

use core::fmt::{Display, Write};
use core::time::Duration;

use super::render::utilization;
use crate::dispatch::histogram::{DELAY_BUCKETS, Histogram};
use crate::dispatch::view::{CLUSTER_COUNTERS, ClusterView, MEMBER_COUNTERS, MemberView};

/// `stats --prometheus`
pub fn stats(clusters: &[(usize, ClusterView)], uptime: Duration) -> String {
    let mut out = Exposition::default();
    out.head("build_info", "gauge", "always 1; the version is in the label");
    out.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.head("uptime_seconds", "gauge", "time since start");
    out.sample("uptime_seconds", &[], uptime.as_secs_f64());
    of_clusters(&mut out, clusters);
    of_members(&mut out, clusters);
    out.text
}

fn of_clusters(out: &mut Exposition, clusters: &[(usize, ClusterView)]) {
    out.gauge("bound_sessions", "call-ids bound now", clusters, |view| {
        view.bound
    });
    out.gauge(
        "commands_in_flight",
        "commands waiting for a member",
        clusters,
        |view| view.in_flight,
    );
    out.gauge("clients", "clients connected", clusters, |view| view.clients);
    for (n, (name, help)) in CLUSTER_COUNTERS.iter().enumerate() {
        let name = format!("{name}_total");
        out.head(&name, "counter", help);
        for (_, view) in clusters {
            if let Some(count) = view.counters.get(n) {
                out.sample(&name, &[("cluster", view.cluster.name.as_str())], count);
            }
        }
    }
    let name = "command_duration_seconds";
    let help = "time from a SIP server's command to its reply";
    out.head(name, "histogram", help);
    for (_, view) in clusters {
        out.histogram(name, &[("cluster", view.cluster.name.as_str())], &view.times);
    }
    let name = "command_results_total";
    out.head(
        name,
        "counter",
        "commands by letter and by what they were answered",
    );
    for (_, view) in clusters {
        for (letter, answered, errors, ours) in &view.commands {
            let letter = letter.to_string();
            for (result, count) in [("answered", answered), ("error", errors), ("refused", ours)] {
                let cluster = view.cluster.name.as_str();
                out.sample(
                    name,
                    &[("cluster", cluster), ("command", &letter), ("result", result)],
                    count,
                );
            }
        }
    }
}

/// What a member is now: name, help, value; a value that is not known gives no sample.
type MemberGauge = (&'static str, &'static str, fn(&MemberView) -> Option<f64>);

const MEMBER_GAUGES: &[MemberGauge] = &[
    ("up", "whether the member answers probes", |view| {
        Some(f64::from(u8::from(view.online)))
    }),
    ("weight", "share of new sessions", |view| {
        Some(f64::from(view.member.weight))
    }),
    (
        "capacity_sessions",
        "sessions that it should carry at most",
        |view| Some(f64::from(view.member.capacity)),
    ),
    ("active_sessions", "sessions by its own count", |view| {
        view.active_sessions.map(float)
    }),
    ("utilization_ratio", "active sessions over capacity", |view| {
        utilization(view).map(|percent| percent / 100.0)
    }),
    ("bound_sessions", "call-ids bound to it now", |view| {
        Some(float(view.bound))
    }),
    ("commands_in_flight", "commands waiting for it", |view| {
        Some(float(view.in_flight))
    }),
    ("deferred_deletes", "deletes that wait for its return", |view| {
        Some(float(view.deferred_deletes))
    }),
    ("state_seconds", "time since it went online or offline", |view| {
        Some(view.since.as_secs_f64())
    }),
];

fn of_members(out: &mut Exposition, clusters: &[(usize, ClusterView)]) {
    for (name, help, value) in MEMBER_GAUGES {
        let name = format!("member_{name}");
        out.head(&name, "gauge", help);
        for (labels, view) in members(clusters) {
            if let Some(value) = value(view) {
                out.sample(&name, &labels, value);
            }
        }
    }
    let name = "member_status";
    out.head(
        name,
        "gauge",
        "always 1; what the administrator wants of the member is in the label",
    );
    for ([cluster, member], view) in members(clusters) {
        out.sample(
            name,
            &[cluster, member, ("status", view.member.status.as_str())],
            1,
        );
    }
    for (n, (name, help)) in MEMBER_COUNTERS.iter().enumerate() {
        let name = format!("member_{name}_total");
        out.head(&name, "counter", help);
        for (labels, view) in members(clusters) {
            if let Some(count) = view.counters.get(n) {
                out.sample(&name, &labels, count);
            }
        }
    }
    delays(out, clusters);
}

/// The histogram of each member.
fn delays(out: &mut Exposition, clusters: &[(usize, ClusterView)]) {
    let name = "member_delay_seconds";
    out.head(name, "histogram", "time from a command to its reply");
    for (labels, view) in members(clusters) {
        out.histogram(name, &labels, &view.times);
    }
}

/// An upper bound as every library writes it: `1.0`, `0.00025`, `5e-05`. Another spelling is another series.
pub(crate) fn le(seconds: f64) -> String {
    if seconds < 1e-4 {
        let text = format!("{seconds:e}");
        let (digits, exponent) = text.split_once("e-").unwrap_or((&text, "0"));
        return format!("{digits}e-{exponent:0>2}");
    }
    format!("{seconds:?}")
}

type Label<'a> = (&'static str, &'a str);

/// Each member with its labels.
fn members(clusters: &[(usize, ClusterView)]) -> impl Iterator<Item = ([Label<'_>; 2], &MemberView)> {
    clusters.iter().flat_map(|(_, view)| {
        let cluster = ("cluster", view.cluster.name.as_str());
        view.members
            .iter()
            .map(move |view| ([cluster, ("member", view.member.name.as_str())], view))
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the format's values are 64-bit floats; exact below 2⁵³"
)]
fn float(count: u64) -> f64 {
    count as f64
}

#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.text,
            "# HELP rtp_cluster_{name} {help}\n# TYPE rtp_cluster_{name} {kind}"
        );
    }

    /// Buckets are cumulated here: a view counts each alone.
    fn histogram(&mut self, name: &str, labels: &[Label<'_>], times: &Histogram) {
        let mut count = 0_u64;
        let bounds = DELAY_BUCKETS
            .iter()
            .map(|&bound| le(Duration::from_micros(bound).as_secs_f64()));
        for (bound, in_bucket) in bounds.chain(["+Inf".to_owned()]).zip(&times.buckets) {
            count = count.saturating_add(*in_bucket);
            let labels = [labels, &[("le", &*bound)]].concat();
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, times.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), labels, count);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "rtp_cluster_{name}");
        for (n, (label, text)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(text));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        clusters: &[(usize, ClusterView)],
        value: impl Fn(&ClusterView) -> u64,
    ) {
        self.head(name, "gauge", help);
        for (_, view) in clusters {
            self.sample(name, &[("cluster", view.cluster.name.as_str())], value(view));
        }
    }
}

/// A label's value: backslash, quote and line end are escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::admin::fake::{Fake, cluster, member};

    fn text() -> String {
        stats(&Fake::of_the_manual().numbered(), Duration::from_millis(1500))
    }

    #[test]
    fn samples_carry_the_names_of_cluster_and_member() {
        let text = text();
        for line in [
            "rtp_cluster_uptime_seconds 1.5",
            "rtp_cluster_failovers_total{cluster=\"Supercluster#1\"} 5",
            "rtp_cluster_command_results_total{cluster=\"Supercluster#2\",command=\"U\",result=\"answered\"} 10",
            "rtp_cluster_member_up{cluster=\"Supercluster#1\",member=\"RTPPROXY2\"} 1",
            "rtp_cluster_member_up{cluster=\"Supercluster#2\",member=\"RTPPROXY3\"} 0",
            "rtp_cluster_member_spoofed_replies_total{cluster=\"Supercluster#1\",member=\"RTPPROXY1\"} 7",
            "rtp_cluster_member_delay_seconds_bucket{cluster=\"Supercluster#1\",member=\"RTPPROXY1\",le=\"0.0001\"} 2",
            "rtp_cluster_member_delay_seconds_bucket{cluster=\"Supercluster#1\",member=\"RTPPROXY1\",le=\"+Inf\"} 17",
            "rtp_cluster_member_delay_seconds_sum{cluster=\"Supercluster#1\",member=\"RTPPROXY1\"} 0.04",
            "rtp_cluster_member_delay_seconds_count{cluster=\"Supercluster#1\",member=\"RTPPROXY1\"} 17",
            "rtp_cluster_command_duration_seconds_bucket{cluster=\"Supercluster#1\",le=\"5e-05\"} 1",
            "rtp_cluster_command_duration_seconds_count{cluster=\"Supercluster#1\"} 17",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        // What is not known has no sample.
        assert!(!text.contains("rtp_cluster_member_active_sessions{cluster=\"Supercluster#2\""));
    }

    /// The rules of the format: every sample follows the head of its own metric, no head and no sample comes twice.
    #[test]
    fn the_text_keeps_the_rules_of_the_format() {
        let text = text();
        let (mut heads, mut series) = (HashSet::new(), HashSet::new());
        let mut metric = ("", "");
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                metric = head.split_once(' ').unwrap();
                assert!(heads.insert(metric.0), "{line} comes twice");
                assert!(["counter", "gauge", "histogram"].contains(&metric.1), "{line}");
                assert_eq!(metric.1 == "counter", metric.0.ends_with("_total"), "{line}");
            } else if let Some(help) = line.strip_prefix("# HELP ") {
                assert!(help.split_once(' ').unwrap().1.len() > 5, "{line}");
            } else {
                let (key, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(key), "{line} comes twice");
                let name = key.split('{').next().unwrap();
                let of_histogram = ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|end| name.strip_suffix(end) == Some(metric.0));
                assert!(
                    name == metric.0 || (metric.1 == "histogram" && of_histogram),
                    "{line} below {metric:?}"
                );
                assert!(
                    name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                    "{line}"
                );
            }
        }
        let names = CLUSTER_COUNTERS
            .iter()
            .map(|(name, _)| format!("rtp_cluster_{name}_total"));
        let names = names.chain(
            MEMBER_COUNTERS
                .iter()
                .map(|(name, _)| format!("rtp_cluster_member_{name}_total")),
        );
        for name in names {
            assert!(heads.contains(&*name), "{name}");
        }
    }

    #[test]
    fn bounds_are_spelt_as_everybody_spells_them() {
        for (seconds, text) in [
            (0.00005, "5e-05"),
            (0.0001, "0.0001"),
            (0.00025, "0.00025"),
            (1.0, "1.0"),
            (2.5, "2.5"),
        ] {
            assert_eq!(le(seconds), text);
        }
    }

    #[test]
    fn labels_are_escaped() {
        let all = [(0, cluster("a\"b\\c", "/c", vec![member("d\\", 1, 1, 1)]))];
        let text = stats(&all, Duration::ZERO);
        assert!(
            text.contains("rtp_cluster_member_up{cluster=\"a\\\"b\\\\c\",member=\"d\\\\\"} 1\n"),
            "{text}"
        );
        assert_eq!(escaped("a\nb"), "a\\nb");
    }
}
