//! The listings for people, and for the scripts that have read them since the first version: their shape is a
//! contract, down to the blank lines. Pure.

use core::fmt::{Display, Write};
use core::time::Duration;

use super::commands::Entry;
use crate::dispatch::view::{
    CLUSTER_COUNTERS, ClusterView, MEMBER_COUNTERS, MemberView, SessionsView, Summary,
};

/// Blocks with a blank line between two of them, and none around.
fn separated(blocks: impl Iterator<Item = String>) -> String {
    blocks.collect::<Vec<_>>().join("\n")
}

/// One `name = value` line. Writing to a string does not fail.
fn field(text: &mut String, indent: usize, name: impl Display, value: impl Display) {
    let _ = writeln!(text, "{:indent$}{name} = {value}", "");
}

fn or_unknown(value: Option<impl Display>) -> String {
    value.map_or_else(|| "UNKNOWN".to_owned(), |value| value.to_string())
}

fn or_none(value: Option<impl Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// `ls`, with what it leaves out if `verbose`.
pub fn clusters(clusters: &[Summary], verbose: bool) -> String {
    separated(clusters.iter().enumerate().map(|(n, view)| {
        let mut text = format!("Cluster: #{n}\n");
        field(&mut text, 4, "name", &view.cluster.name);
        field(&mut text, 4, "address", &view.cluster.address);
        field(&mut text, 4, "active members", view.active);
        field(&mut text, 4, "inactive members", view.inactive);
        if verbose {
            field(&mut text, 4, "protocol", view.cluster.protocol.as_str());
            field(
                &mut text,
                4,
                "state",
                if view.draining { "draining" } else { "serving" },
            );
            field(&mut text, 4, "bound sessions", view.bound);
            field(&mut text, 4, "commands in flight", view.in_flight);
            field(&mut text, 4, "clients", view.clients);
        }
        text
    }))
}

/// `ls CLUSTER`: the cluster is number `n`. `verbose` adds lines after `status`.
pub fn members(n: usize, view: &ClusterView, verbose: bool) -> String {
    let list = |online: bool| {
        let members = view
            .members
            .iter()
            .filter(|member| member.online == online)
            .enumerate();
        separated(members.map(|(n, member)| block(n, member, verbose)))
    };
    let (active, inactive) = (list(true), list(false));
    // Each header stands alone where its list is empty; the blank line that ends an empty second list is the one
    // before `OK`.
    let end = if inactive.is_empty() { "\n" } else { "" };
    format!(
        "Active members of the cluster #{n}:\n{active}\nInactive members of the cluster #{n}:\n{inactive}{end}"
    )
}

fn block(n: usize, view: &MemberView, verbose: bool) -> String {
    let member = &view.member;
    let mut text = format!("    RTPproxy: #{n}\n");
    field(&mut text, 8, "name", &member.name);
    field(&mut text, 8, "address", &member.address);
    field(&mut text, 8, "weight", member.weight);
    field(&mut text, 8, "capacity", member.capacity);
    field(
        &mut text,
        8,
        "state",
        if view.online { "online" } else { "offline" },
    );
    field(
        &mut text,
        8,
        "active sessions",
        or_unknown(view.active_sessions.filter(|_| view.online)),
    );
    field(&mut text, 8, "status", member.status.as_str());
    if verbose {
        if let Some(pool) = &member.found_by {
            field(&mut text, 8, "found by", pool);
        }
        field(&mut text, 8, "wan_address", or_none(member.wan_address.some()));
        field(&mut text, 8, "lan_address", or_none(member.lan_address.some()));
        field(&mut text, 8, "cmd_out_address", or_none(member.cmd_out_address));
        field(&mut text, 8, "bound sessions", view.bound);
        field(
            &mut text,
            8,
            "capacity utilization",
            or_unknown(utilization(view).map(|share| format!("{share:.1}%"))),
        );
        field(
            &mut text,
            8,
            "average delay",
            or_unknown(view.delay.map(milliseconds)),
        );
        field(
            &mut text,
            8,
            "reason",
            format_args!("{}, since {}", one_line(&view.why), seconds(view.since)),
        );
        if let Some(next_try) = view.next_try {
            field(
                &mut text,
                8,
                "tried again",
                format_args!("in {:.1} s", next_try.as_secs_f64()),
            );
        }
        if let Some(lacks) = view.lacks.as_ref().filter(|lacks| !lacks.is_empty()) {
            field(&mut text, 8, "lacks", lacks.join(", "));
        }
    }
    text
}

/// Words of the system, which may be any: as one line.
fn one_line(words: &str) -> String {
    words.split(char::is_control).collect::<Vec<_>>().join(" ")
}

/// Sessions in percent of the capacity; `None` while they are not known.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact below 2⁵³ sessions, and shown with one decimal"
)]
pub fn utilization(view: &MemberView) -> Option<f64> {
    let sessions = view.active_sessions.filter(|_| view.online)?;
    Some(sessions as f64 * 100.0 / f64::from(view.member.capacity.max(1)))
}

/// `0.312 ms`
fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// `35 s`, whole seconds: what it is used for lasts minutes and hours.
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

/// A part of `sessions`: before the first one how many calls are bound, a line each, and after the last one how many
/// were `listed` in all.
pub fn sessions(part: &SessionsView, first: bool, listed: Option<usize>) -> String {
    let mut text = String::new();
    if first {
        field(&mut text, 0, "bound sessions", part.bound);
    }
    for (call_id, member, age, deleted) in &part.listed {
        let deleted = if *deleted { ", deleted" } else { "" };
        let _ = writeln!(
            text,
            "    RTPproxy = {member}, age = {}{deleted}, call-id = {}",
            seconds(*age),
            call_id_text(call_id)
        );
    }
    if let Some(listed) = listed {
        field(&mut text, 0, "listed", listed);
    }
    text
}

/// `locate`: the member, and how long ago the last command of the call was.
pub fn located(member: impl Display, age: Duration) -> String {
    format!("RTPproxy = {member}\nage = {}\n", seconds(age))
}

/// A call-id as it is shown and typed: printable ASCII as it is, any other byte as `\xNN`.
pub fn call_id_text(call_id: &[u8]) -> String {
    let mut text = String::with_capacity(call_id.len());
    for &byte in call_id {
        if byte.is_ascii_graphic() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The bytes of a call-id that was typed as [`call_id_text`] shows it.
pub fn call_id_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        if let Some(byte) = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.extend_from_slice(b"\\x");
            rest = after;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// `stats`: every counter of every cluster and member.
pub fn stats(clusters: &[(usize, ClusterView)], uptime: Duration) -> String {
    let mut text = format!("uptime = {}\n", seconds(uptime));
    for (n, view) in clusters {
        let _ = write!(text, "\nCluster: #{n}\n");
        field(&mut text, 4, "name", &view.cluster.name);
        field(&mut text, 4, "bound sessions", view.bound);
        field(&mut text, 4, "commands in flight", view.in_flight);
        field(&mut text, 4, "clients", view.clients);
        for ((name, _), count) in CLUSTER_COUNTERS.iter().zip(&view.counters) {
            field(&mut text, 4, name.replace('_', " "), count);
        }
        for (letter, answered, errors, ours) in &view.commands {
            let counts =
                format_args!("{answered} answered, {errors} with an error, {ours} refused by rtp_cluster");
            field(&mut text, 4, format_args!("command {letter}"), counts);
        }
        for (n, member) in view.members.iter().enumerate() {
            let _ = write!(text, "\n    RTPproxy: #{n}\n");
            field(&mut text, 8, "name", &member.member.name);
            field(&mut text, 8, "bound sessions", member.bound);
            field(&mut text, 8, "commands in flight", member.in_flight);
            field(&mut text, 8, "deferred deletes", member.deferred_deletes);
            for ((name, _), count) in MEMBER_COUNTERS.iter().zip(&member.counters) {
                field(&mut text, 8, name.replace('_', " "), count);
            }
            field(
                &mut text,
                8,
                "average delay",
                or_unknown(member.delay.map(milliseconds)),
            );
        }
    }
    text
}

/// `help`: each form and what it does.
pub fn help(rows: &[&Entry]) -> String {
    rows.iter().fold(String::new(), |mut text, entry| {
        let _ = writeln!(text, "{}\n    {}", entry.usage, entry.help);
        text
    })
}

/// `version`
pub fn version() -> String {
    format!("rtp_cluster {}\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{Fake, cluster, member};
    use crate::admin::operator::Operator;

    #[test]
    fn the_list_of_clusters_is_that_of_the_manual() {
        let manual = "\
Cluster: #0
    name = Supercluster#1
    address = /var/run/rtpproxy.sock
    active members = 2
    inactive members = 0

Cluster: #1
    name = Supercluster#2
    address = /var/run/rtpproxy1.sock
    active members = 0
    inactive members = 2
";
        assert_eq!(clusters(&Fake::of_the_manual().summaries(), false), manual);
        assert_eq!(clusters(&[], false), "");
    }

    #[test]
    fn the_list_of_members_is_that_of_the_manual() {
        let manual = "\
Active members of the cluster #0:
    RTPproxy: #0
        name = RTPPROXY1
        address = 127.0.0.1:22222
        weight = 100
        capacity = 2500
        state = online
        active sessions = 0
        status = ACTIVE

    RTPproxy: #1
        name = RTPPROXY2
        address = 127.0.0.1:22223
        weight = 0
        capacity = 1500
        state = online
        active sessions = 0
        status = ACTIVE

Inactive members of the cluster #0:

";
        assert_eq!(
            members(
                0,
                &Fake::of_the_manual().cluster("Supercluster#1").unwrap().1,
                false
            ),
            manual
        );
    }

    #[test]
    fn an_empty_first_list_is_followed_by_its_blank_line_alone() {
        let listing = "\
Active members of the cluster #1:

Inactive members of the cluster #1:
    RTPproxy: #0
        name = RTPPROXY3
        address = 127.0.0.1:22224
        weight = 100
        capacity = 2500
        state = offline
        active sessions = UNKNOWN
        status = ACTIVE

    RTPproxy: #1
        name = RTPPROXY4
        address = 127.0.0.1:22225
        weight = 100
        capacity = 2500
        state = offline
        active sessions = UNKNOWN
        status = ACTIVE
";
        assert_eq!(
            members(
                1,
                &Fake::of_the_manual().cluster("Supercluster#2").unwrap().1,
                false
            ),
            listing
        );
        let empty = "Active members of the cluster #2:\n\nInactive members of the cluster #2:\n\n";
        assert_eq!(members(2, &cluster("C", "/c", vec![]), false), empty);
    }

    #[test]
    fn each_list_numbers_from_zero() {
        let mut all = vec![member("A", 1, 1, 1), member("B", 2, 1, 1), member("C", 3, 1, 1)];
        all[1].online = false;
        let listing = members(0, &cluster("C", "/c", all), false);
        let heads: Vec<_> = listing
            .lines()
            .filter(|line| line.contains("RTPproxy: ") || line.contains("name"))
            .collect();
        assert_eq!(
            heads,
            [
                "    RTPproxy: #0",
                "        name = A",
                "    RTPproxy: #1",
                "        name = C",
                "    RTPproxy: #0",
                "        name = B"
            ]
        );
    }

    #[test]
    fn sessions_of_a_member_are_unknown_before_the_first_count_and_while_offline() {
        let mut view = member("A", 1, 1, 1);
        view.active_sessions = None;
        assert!(block(0, &view, false).contains("active sessions = UNKNOWN\n"));
        (view.online, view.active_sessions) = (false, Some(9));
        assert!(block(0, &view, true).contains("active sessions = UNKNOWN\n"));
        assert!(block(0, &view, true).contains("capacity utilization = UNKNOWN\n"));
    }

    #[test]
    fn the_verbose_lines_come_after_the_status() {
        let mut view = member("A", 1, 100, 2500);
        (view.active_sessions, view.bound) = (Some(25), 24);
        view.member.wan_address = [203, 0, 113, 4].into();
        let (plain, verbose) = (block(0, &view, false), block(0, &view, true));
        let more = verbose.strip_prefix(&plain).unwrap();
        let want = [
            "wan_address = 203.0.113.4",
            "lan_address = none",
            "cmd_out_address = none",
            "bound sessions = 24",
            "capacity utilization = 1.0%",
            "average delay = 0.312 ms",
            "reason = answers, since 90 s",
        ];
        let more: Vec<_> = more
            .lines()
            .map(|line| line.strip_prefix("        ").unwrap())
            .collect();
        assert_eq!(more, want);
    }

    #[test]
    fn an_offline_member_says_in_one_line_why_and_when_it_is_tried_again() {
        let mut view = member("A", 1, 100, 2500);
        view.online = false;
        view.why = "the name is not found: Name or service\nnot known".into();
        view.next_try = Some(Duration::from_millis(29_960));
        view.lacks = Some(vec!["session counts", "notifications"]);
        let text = block(0, &view, true);
        let want = "        reason = the name is not found: Name or service not known, since 90 s\n        \
                    tried again = in 30.0 s\n        \
                    lacks = session counts, notifications\n";
        assert!(text.ends_with(want), "{text}");
        assert!(!block(0, &view, false).contains("tried again"));
    }

    #[test]
    fn call_ids_survive_being_shown_and_typed() {
        for bytes in [&b"a1@host"[..], b"a\\b", b"\n\xff\0", b"\\xzz", b"\\"] {
            assert_eq!(call_id_bytes(&call_id_text(bytes)), bytes, "{bytes:?}");
        }
        assert_eq!(call_id_text(b"b\n2"), "b\\x0a2");
    }

    #[test]
    fn every_counter_is_shown() {
        let text = stats(&Fake::of_the_manual().numbered(), Duration::from_secs(5));
        for (name, _) in CLUSTER_COUNTERS {
            assert_eq!(
                text.matches(&format!("\n    {} = 5\n", name.replace('_', " ")))
                    .count(),
                2,
                "{name}"
            );
        }
        for (name, _) in MEMBER_COUNTERS {
            assert_eq!(
                text.matches(&format!("\n        {} = 7\n", name.replace('_', " ")))
                    .count(),
                4,
                "{name}"
            );
        }
        assert!(text.contains("    command U = 10 answered, 1 with an error, 2 refused by rtp_cluster\n"));
    }
}
