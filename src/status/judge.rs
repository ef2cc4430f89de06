//! What is wrong, the worst first: an operator who opens the page is to read this and nothing else. Pure.

use serde_json::Value;

use super::document::{Document, count, float, is_active, is_online, members, number, text};
use super::history::{Rates, sessions};
use super::metrics::ratio;

/// Share of a capacity, and of the table of calls, from which it counts as nearly full.
pub(super) const NEARLY_FULL: f64 = 0.9;
/// Share of commands that fail, from which it is told, as long as there are [`FEW_ERRORS`] a second.
const MANY_ERRORS: f64 = 0.05;
/// A single caller's mistakes are nobody's concern.
const FEW_ERRORS: f64 = 1.0;
/// Delay of a member that callers notice, in seconds.
const SLOW: f64 = 0.1;

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Calls fail, or will when one more thing breaks.
    Bad,
    /// To be looked at.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trouble {
    pub(super) weight: Weight,
    pub(super) cluster: String,
    /// Empty where it is the cluster's.
    pub(super) member: String,
    /// Continues the name: `is offline: 2 probes unanswered`.
    pub(super) what: String,
    /// Seconds since then, where that is known.
    pub(super) since: Option<f64>,
}

/// Everything that is wrong. `rates` are those of the clusters, in their order.
pub(super) fn troubles(document: &Document, rates: &[Rates]) -> Vec<Trouble> {
    let unknown = Rates::default();
    let rates = rates.iter().chain(std::iter::repeat(&unknown));
    let mut found: Vec<Trouble> = document
        .clusters()
        .iter()
        .zip(rates)
        .flat_map(|(cluster, rates)| of_cluster(cluster, rates))
        .collect();
    // Within a weight in the order of the configuration.
    found.sort_by_key(|trouble| trouble.weight);
    found
}

/// Whether new calls of a cluster find a member.
pub(super) fn serves(cluster: &Value) -> bool {
    members(cluster)
        .iter()
        .any(|member| is_online(member) && is_active(member))
}

/// Whether a member is to be looked at.
pub(super) fn is_troubled(member: &Value) -> bool {
    of_member(member).is_some()
}

fn of_cluster(cluster: &Value, rates: &Rates) -> Vec<Trouble> {
    let name = text(cluster, "name");
    let trouble = |weight, member: &str, what: String, since| Trouble {
        weight,
        cluster: name.to_owned(),
        member: member.to_owned(),
        what,
        since,
    };
    let mut found = Vec::new();
    if members(cluster).is_empty() {
        found.push(trouble(Weight::Warning, "", "has no members".to_owned(), None));
    } else if !serves(cluster) {
        let what = "has no member for new calls: they are refused".to_owned();
        found.push(trouble(Weight::Bad, "", what, None));
    } else if !has_reserve(cluster) {
        let what =
            "has no reserve: the other members could not carry the calls of its largest one".to_owned();
        found.push(trouble(Weight::Warning, "", what, None));
    }
    let max = cluster
        .get("settings")
        .and_then(|settings| count(settings.get("sessions")?, "max"));
    let bound = count(cluster, "bound").unwrap_or_default();
    if let Some(max) = max.filter(|&max| ratio(bound, max) >= NEARLY_FULL) {
        let what = format!("has {bound} of {max} calls in its table");
        found.push(trouble(Weight::Warning, "", what, None));
    }
    if let (Some(errors), Some(commands)) = (rates.errors, rates.commands)
        && errors >= FEW_ERRORS
        && errors >= commands * MANY_ERRORS
    {
        let what = format!(
            "answers {:.0} % of its commands with an error",
            100.0 * errors / commands
        );
        found.push(trouble(Weight::Bad, "", what, None));
    }
    for member in members(cluster) {
        if let Some((weight, what, since)) = of_member(member) {
            found.push(trouble(weight, text(member, "name"), what, since));
        }
    }
    found
}

fn of_member(member: &Value) -> Option<(Weight, String, Option<f64>)> {
    if !is_online(member) {
        // Who is suspended may well be shut down: that is what one suspends for.
        let weight = if is_active(member) {
            Weight::Bad
        } else {
            Weight::Warning
        };
        let what = format!("is offline: {}", text(member, "reason"));
        return Some((weight, what, number(member, "since")));
    }
    let load = ratio(
        sessions(member).unwrap_or_default(),
        count(member, "capacity").unwrap_or_default(),
    );
    if load >= NEARLY_FULL {
        let what = format!("carries {:.0} % of its capacity", load * 100.0);
        return Some((Weight::Warning, what, None));
    }
    let delay = number(member, "average_delay").filter(|&delay| delay >= SLOW)?;
    let what = format!("is slow: it answers after {:.0} ms", delay * 1e3);
    Some((Weight::Warning, what, None))
}

/// Whether the members that take calls could carry them without the largest one. A cluster that was given one member
/// alone was not meant to.
fn has_reserve(cluster: &Value) -> bool {
    if members(cluster).len() < 2 {
        return true;
    }
    let serving = || {
        members(cluster)
            .iter()
            .filter(|member| is_online(member) && is_active(member))
    };
    let capacity = |member: &Value| count(member, "capacity").unwrap_or_default();
    let all: u64 = serving().map(capacity).sum();
    let largest = serving().map(capacity).max().unwrap_or_default();
    let carried: u64 = serving().filter_map(sessions).sum();
    all > largest && float(carried) <= float(all - largest)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::admin::fake::{cluster, member};
    use crate::config::model::Status;
    use crate::dispatch::view::MemberView;
    use crate::status::fake::document;

    fn well(name: &str) -> MemberView {
        let mut view = member(name, 1, 100, 100);
        (view.online, view.active_sessions) = (true, Some(10));
        view.delay = Some(Duration::from_millis(1));
        view
    }

    fn said(members: Vec<MemberView>, rates: Rates) -> Vec<String> {
        let document = document(&[cluster("C", "/c", members)]);
        troubles(&document, &[rates])
            .iter()
            .map(|found| format!("{:?} {} {}", found.weight, found.member, found.what))
            .collect()
    }

    #[test]
    fn where_all_is_well_nothing_is_said() {
        assert!(said(vec![well("a"), well("b")], Rates::default()).is_empty());
        assert!(
            said(vec![well("a")], Rates::default()).is_empty(),
            "one alone is what was wanted"
        );
    }

    #[test]
    fn the_worst_comes_first() {
        let mut gone = well("gone");
        (gone.online, gone.active_sessions, gone.why) = (false, None, "refused".into());
        let mut slow = well("slow");
        slow.delay = Some(Duration::from_millis(250));
        assert_eq!(
            said(vec![slow, gone], Rates::default()),
            [
                "Bad gone is offline: refused",
                "Warning  has no reserve: the other members could not carry the calls of its largest one",
                "Warning slow is slow: it answers after 250 ms",
            ]
        );
    }

    #[test]
    fn a_member_that_was_suspended_and_shut_down_is_no_alarm() {
        let mut away = well("away");
        away.online = false;
        away.member.status = Status::Suspended;
        let found = said(vec![well("a"), well("b"), away], Rates::default());
        assert!(
            found.len() == 1 && found[0].starts_with("Warning away is offline"),
            "{found:?}"
        );
    }

    #[test]
    fn a_cluster_that_refuses_all_calls_is_told_so() {
        let mut suspended = well("a");
        suspended.member.status = Status::Suspended;
        let found = said(vec![suspended], Rates::default());
        assert_eq!(found, ["Bad  has no member for new calls: they are refused"]);
    }

    #[test]
    fn errors_count_where_they_are_many() {
        let rates = |errors, commands| Rates {
            calls: None,
            errors: Some(errors),
            commands: Some(commands),
        };
        let both = || vec![well("a"), well("b")];
        assert!(said(both(), rates(0.5, 0.5)).is_empty() && said(both(), rates(3.0, 100.0)).is_empty());
        assert_eq!(
            said(both(), rates(10.0, 100.0)),
            ["Bad  answers 10 % of its commands with an error"]
        );
    }

    #[test]
    fn what_is_nearly_full_is_told() {
        let mut full = well("full");
        full.active_sessions = Some(95);
        let found = said(vec![full, well("b"), well("c")], Rates::default());
        assert_eq!(found, ["Warning full carries 95 % of its capacity"]);
    }
}
