//! `/metrics`: what `stats --prometheus` says, from the daemon's JSON, with the state of the two processes, as Prometheus
//! text 0.0.4 or as OpenMetrics 1.0. Pure.

use core::fmt::{Display, Write};

use serde_json::Value;

use super::document::{Document, count, counter, float, is_online, members, number, text};
use super::process::Usage;
use crate::admin::render_prometheus::le;
use crate::dispatch::view::{CLUSTER_COUNTERS, MEMBER_COUNTERS};

/// How the samples are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0: a counter's family has no `_total`, units have lines, and there is an end.
    Open,
}

impl Format {
    /// What an `Accept` asks for. Who wants OpenMetrics names it; its weight is not looked at, since nobody who does
    /// prefers the older text.
    pub(super) fn of(accept: &str) -> Self {
        let names = accept
            .split(',')
            .map(|one| one.split(';').next().unwrap_or_default());
        if names
            .into_iter()
            .any(|name| name.trim() == "application/openmetrics-text")
        {
            Self::Open
        } else {
            Self::Text
        }
    }

    /// Its content type.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything: of the daemon `None` while it is away.
pub(super) fn all(
    daemon: Option<&Document>,
    daemon_usage: Option<&Usage>,
    own_usage: Option<&Usage>,
    format: Format,
) -> String {
    let mut out = Exposition {
        text: String::new(),
        format,
    };
    out.head(
        "rtp_cluster_daemon_up",
        "gauge",
        "whether the daemon answers its admin socket",
    );
    out.sample("rtp_cluster_daemon_up", &[], u8::from(daemon.is_some()));
    if let Some(document) = daemon {
        of_daemon(&mut out, document);
    }
    if let Some(usage) = daemon_usage {
        of_process(&mut out, "rtp_cluster_process", usage);
    }
    if let Some(usage) = own_usage {
        of_process(&mut out, "process", usage);
    }
    if format == Format::Open {
        out.text.push_str("# EOF\n");
    }
    out.text
}

fn of_daemon(out: &mut Exposition, document: &Document) {
    let name = "rtp_cluster_build_info";
    out.head(name, "gauge", "always 1; the version is in the label");
    out.sample(name, &[("version", document.version())], 1);
    let name = "rtp_cluster_uptime_seconds";
    out.head(name, "gauge", "time since start");
    out.sample(name, &[], document.uptime());
    of_clusters(out, document.clusters());
    of_members(out, document.clusters());
}

const CLUSTER_GAUGES: &[(&str, &str, &str)] = &[
    ("bound_sessions", "bound", "call-ids bound now"),
    ("commands_in_flight", "in_flight", "commands waiting for a member"),
    ("clients", "clients", "clients connected"),
];

fn of_clusters(out: &mut Exposition, clusters: &[Value]) {
    for (name, key, help) in CLUSTER_GAUGES {
        let name = format!("rtp_cluster_{name}");
        out.head(&name, "gauge", help);
        out.of_each(&name, of(clusters), |cluster| count(cluster, key));
    }
    let name = "rtp_cluster_sessions_max";
    out.head(name, "gauge", "call-ids that may be bound");
    out.of_each(name, of(clusters), |cluster| {
        count(cluster.get("settings")?.get("sessions")?, "max")
    });
    for (name, help) in CLUSTER_COUNTERS {
        let full = format!("rtp_cluster_{name}_total");
        out.head(&full, "counter", help);
        out.of_each(&full, of(clusters), |cluster| counter(cluster, name));
    }
    let name = "rtp_cluster_command_results_total";
    out.head(
        name,
        "counter",
        "commands by letter and by what they were answered",
    );
    for (labels, cluster) in of(clusters) {
        let letters = cluster.get("commands").and_then(Value::as_object);
        for (letter, results) in letters.into_iter().flatten() {
            for (result, key) in [
                ("answered", "answered"),
                ("error", "errors"),
                ("refused", "refused"),
            ] {
                let labels: Vec<Label<'_>> = labels
                    .iter()
                    .copied()
                    .chain([("command", &**letter), ("result", result)])
                    .collect();
                out.sample(name, &labels, count(results, key).unwrap_or_default());
            }
        }
    }
    out.histogram(
        "rtp_cluster_command_duration_seconds",
        "time from a SIP server's command to its reply",
        of(clusters),
    );
}

/// What a member is now: name, help, value; a value that is not known gives no sample.
type Gauge = (&'static str, &'static str, fn(&Value) -> Option<f64>);

const MEMBER_GAUGES: &[Gauge] = &[
    ("up", "whether the member answers probes", |member| {
        Some(f64::from(u8::from(is_online(member))))
    }),
    ("weight", "share of new sessions", |member| {
        number(member, "weight")
    }),
    (
        "capacity_sessions",
        "sessions that it should carry at most",
        |member| number(member, "capacity"),
    ),
    ("active_sessions", "sessions by its own count", |member| {
        number(member, "active_sessions")
    }),
    ("utilization_ratio", "active sessions over capacity", |member| {
        number(member, "capacity_utilization").map(|percent| percent / 100.0)
    }),
    ("bound_sessions", "call-ids bound to it now", |member| {
        number(member, "bound")
    }),
    ("commands_in_flight", "commands waiting for it", |member| {
        number(member, "in_flight")
    }),
    ("deferred_deletes", "deletes that wait for its return", |member| {
        number(member, "deferred_deletes")
    }),
    (
        "state_seconds",
        "time since it went online or offline",
        |member| number(member, "since"),
    ),
];

fn of_members(out: &mut Exposition, clusters: &[Value]) {
    for (name, help, value) in MEMBER_GAUGES {
        let name = format!("rtp_cluster_member_{name}");
        out.head(&name, "gauge", help);
        out.of_each(&name, of_all_members(clusters), *value);
    }
    let name = "rtp_cluster_member_status";
    out.head(
        name,
        "gauge",
        "always 1; what the administrator wants of the member is in the label",
    );
    for (labels, member) in of_all_members(clusters) {
        let status = [("status", text(member, "status"))];
        let labels: Vec<Label<'_>> = labels.into_iter().chain(status).collect();
        out.sample(name, &labels, 1);
    }
    for (name, help) in MEMBER_COUNTERS {
        let full = format!("rtp_cluster_member_{name}_total");
        out.head(&full, "counter", help);
        out.of_each(&full, of_all_members(clusters), |member| counter(member, name));
    }
    out.histogram(
        "rtp_cluster_member_delay_seconds",
        "time from a command to its reply",
        of_all_members(clusters),
    );
}

/// The metrics that every exporter has of its process, by their usual names.
fn of_process(out: &mut Exposition, prefix: &str, usage: &Usage) {
    let mut say = |name: &str, kind, help, value: Option<f64>| {
        if let Some(value) = value {
            let name = format!("{prefix}_{name}");
            out.head(&name, kind, help);
            out.sample(&name, &[], value);
        }
    };
    say(
        "cpu_seconds_total",
        "counter",
        "processor time of the process",
        Some(usage.cpu),
    );
    say(
        "resident_memory_bytes",
        "gauge",
        "memory of the process that is in use",
        Some(usage.resident),
    );
    say(
        "virtual_memory_bytes",
        "gauge",
        "address space of the process",
        Some(usage.virtual_size),
    );
    say("threads", "gauge", "threads of the process", Some(usage.threads));
    say(
        "start_time_seconds",
        "gauge",
        "when the process started, since 1970",
        usage.started,
    );
    say(
        "open_fds",
        "gauge",
        "files that the process has open",
        usage.open_files,
    );
    say(
        "max_fds",
        "gauge",
        "files that the process may have open",
        usage.max_files,
    );
}

type Label<'a> = (&'static str, &'a str);

/// Each cluster with its label.
fn of(clusters: &[Value]) -> impl Iterator<Item = (Vec<Label<'_>>, &Value)> {
    clusters
        .iter()
        .map(|cluster| (vec![("cluster", text(cluster, "name"))], cluster))
}

/// Each member with its labels.
fn of_all_members(clusters: &[Value]) -> impl Iterator<Item = (Vec<Label<'_>>, &Value)> {
    clusters.iter().flat_map(|cluster| {
        let name = ("cluster", text(cluster, "name"));
        members(cluster)
            .iter()
            .map(move |member| (vec![name, ("member", text(member, "name"))], member))
    })
}

struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let family = match self.format {
            Format::Text => name,
            Format::Open => name.strip_suffix("_total").unwrap_or(name),
        };
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}");
        let unit = family
            .rsplit('_')
            .next()
            .filter(|unit| matches!(*unit, "seconds" | "bytes" | "ratio"));
        if let (Format::Open, Some(unit)) = (self.format, unit) {
            let _ = writeln!(self.text, "# UNIT {family} {unit}");
        }
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.text.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }

    fn of_each<'a, T: Display>(
        &mut self,
        name: &str,
        subjects: impl Iterator<Item = (Vec<Label<'a>>, &'a Value)>,
        value: impl Fn(&Value) -> Option<T>,
    ) {
        for (labels, subject) in subjects {
            if let Some(value) = value(subject) {
                self.sample(name, &labels, value);
            }
        }
    }

    /// The `delay` of each subject that has one, cumulated: in the daemon's document a bucket counts alone.
    fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        subjects: impl Iterator<Item = (Vec<Label<'a>>, &'a Value)>,
    ) {
        let mut measured = subjects
            .filter_map(|(labels, subject)| Some((labels, subject.get("delay")?)))
            .peekable();
        if measured.peek().is_none() {
            return;
        }
        self.head(name, "histogram", help);
        for (labels, delay) in measured {
            let mut total = 0_u64;
            let buckets = delay.get("buckets").and_then(Value::as_array);
            for bucket in buckets.into_iter().flatten() {
                total = total.saturating_add(count(bucket, "count").unwrap_or_default());
                let bound = number(bucket, "up_to").map_or_else(|| "+Inf".to_owned(), le);
                let labels: Vec<Label<'_>> = labels.iter().copied().chain([("le", &*bound)]).collect();
                self.sample(&format!("{name}_bucket"), &labels, total);
            }
            let sum = number(delay, "sum").unwrap_or_default();
            self.sample(&format!("{name}_sum"), &labels, sum);
            self.sample(&format!("{name}_count"), &labels, total);
        }
    }
}

/// A ratio of two counts.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    float(part) / float(whole.max(1))
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::admin::fake::{Fake, cluster, member};
    use crate::admin::render_prometheus;
    use crate::status::fake::{document, of_the_manual};

    fn usage() -> Usage {
        Usage {
            cpu: 1.5,
            resident: 4096.0,
            virtual_size: 8192.0,
            threads: 3.0,
            started: Some(1e9),
            open_files: Some(12.0),
            max_files: None,
        }
    }

    fn shown(format: Format) -> String {
        all(Some(&of_the_manual()), Some(&usage()), Some(&usage()), format)
    }

    /// A scraper may go from the one to the other: same names, labels, help and values.
    #[test]
    fn all_that_the_daemon_exposes_is_there_word_for_word() {
        let ours = shown(Format::Text);
        let theirs = render_prometheus::stats(&Fake::of_the_manual().numbered(), Duration::from_secs(3600));
        for line in theirs.lines() {
            assert!(ours.lines().any(|own| own == line), "{line} is not in\n{ours}");
        }
    }

    #[test]
    fn a_daemon_that_is_away_leaves_its_own_state() {
        let text = all(None, None, Some(&usage()), Format::Text);
        assert!(
            text.contains("\nrtp_cluster_daemon_up 0\n")
                && text.contains("\nprocess_cpu_seconds_total 1.5\n")
        );
        assert!(!text.contains("member") && !text.contains("build_info"));
    }

    #[test]
    fn openmetrics_has_its_units_its_families_and_an_end() {
        let text = shown(Format::Open);
        for line in [
            "# TYPE rtp_cluster_failovers counter",
            "rtp_cluster_failovers_total{cluster=\"Supercluster#1\"} 5",
            "# UNIT rtp_cluster_member_delay_seconds seconds",
            "# UNIT process_cpu_seconds seconds",
            "# UNIT rtp_cluster_process_resident_memory_bytes bytes",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n") && !text.contains("_total counter"));
    }

    #[test]
    fn the_time_of_commands_is_told_where_the_daemon_tells_it() {
        let name = "rtp_cluster_command_duration_seconds";
        let text = shown(Format::Text);
        let labels = "cluster=\"Supercluster#1\"";
        for line in [
            format!("{name}_bucket{{{labels},le=\"5e-05\"}} 1"),
            format!("{name}_bucket{{{labels},le=\"+Inf\"}} 17"),
            format!("{name}_sum{{{labels}}} 0.04"),
            format!("{name}_count{{{labels}}} 17"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let old = of_the_manual().text.replace("\"delay\":", "\"unknown\":");
        let text = all(Some(&Document::read(old).unwrap()), None, None, Format::Text);
        assert!(!text.contains(name), "a daemon of before");
    }

    #[test]
    fn labels_are_escaped() {
        let all_of = document(&[cluster("a\"b\\c", "/c", vec![member("d\\", 1, 1, 1)])]);
        let text = all(Some(&all_of), None, None, Format::Text);
        assert!(
            text.contains("rtp_cluster_member_up{cluster=\"a\\\"b\\\\c\",member=\"d\\\\\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn who_names_openmetrics_gets_it() {
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain;version=0.0.4;q=0.5", Format::Text),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4,*/*;q=0.1",
                Format::Open,
            ),
            ("text/html, application/openmetrics-text", Format::Open),
        ] {
            assert_eq!(Format::of(accept), format, "{accept}");
        }
    }
}
