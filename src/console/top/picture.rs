//! What the live view shows, read from the replies to `ls`, `ls -v CLUSTER` and `stats`. Pure.

use core::time::Duration;
use std::collections::HashMap;

use crate::dispatch::view::MEMBER_COUNTERS;

/// Commands that came out badly which are asked for, of a whole cluster: more than one screen has room for.
pub(super) const ERRORS_MAX: usize = 64;

/// What one look brings.
#[derive(Debug)]
pub(super) struct Replies {
    /// To `ls -v`.
    pub(super) ls: String,
    /// To `ls -v CLUSTER`, for each cluster in that order.
    pub(super) members: Vec<String>,
    /// To `trace CLUSTER last`, in the same order.
    pub(super) last: Vec<String>,
    /// To `stats`.
    pub(super) stats: String,
}

/// A cluster with its members in the order of the listing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) bound: String,
    /// `serving` or `draining`.
    pub(super) state: String,
    /// New calls and commands a second since the last look.
    pub(super) rates: Rates,
    pub(super) members: Vec<Member>,
}

/// A member; what it is called in the listing is what it is called here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) weight: String,
    pub(super) capacity: String,
    pub(super) state: String,
    pub(super) status: String,
    pub(super) sessions: String,
    pub(super) utilization: String,
    pub(super) delay: String,
    pub(super) bound: String,
    pub(super) reason: String,
    /// New calls and commands a second since the last look.
    pub(super) rates: Rates,
    /// All that its listing says, in that order.
    pub(super) facts: Vec<(String, String)>,
    /// What it has counted since the start of the daemon.
    pub(super) counters: Vec<Counter>,
    /// The last commands that came out badly there, newest first, a line each.
    pub(super) errors: Vec<String>,
}

/// One counter of a member.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Counter {
    pub(super) name: String,
    pub(super) count: u64,
    /// How many a second since the last look.
    pub(super) rate: Option<f64>,
    /// Whether it counts what should not be.
    pub(super) is_bad: bool,
}

impl Member {
    /// Its load in percent, where it is known.
    pub(super) fn load(&self) -> Option<f64> {
        self.utilization.strip_suffix('%')?.parse().ok()
    }

    /// What an operator wants to see first: that it is away, or else what has been done to it.
    pub(super) fn condition(&self) -> &str {
        match (&*self.state, &*self.status) {
            ("online", "ACTIVE") => "online",
            ("online", status) => status,
            (state, _) => state,
        }
    }
}

/// What happens each second; `None` at the first look.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) calls: Option<f64>,
    pub(super) commands: Option<f64>,
}

/// One `Cluster: #n` or `RTPproxy: #n` of a listing: its lines by their names.
type Block<'a> = Vec<(&'a str, &'a str)>;

/// Every block of a reply, each with the word that heads it.
fn blocks(reply: &str) -> Vec<(&str, Block<'_>)> {
    let mut blocks = Vec::new();
    for line in reply.lines().map(str::trim) {
        if let Some((head, _)) = line.split_once(": #") {
            blocks.push((head, Block::new()));
        } else if let (Some((name, value)), Some((_, block))) = (line.split_once(" = "), blocks.last_mut()) {
            block.push((name, value));
        }
    }
    blocks
}

fn find<'a>(block: &Block<'a>, name: &str) -> Option<&'a str> {
    block
        .iter()
        .find_map(|(key, value)| (*key == name).then_some(*value))
}

fn text(block: &Block<'_>, name: &str) -> String {
    find(block, name).unwrap_or_default().to_owned()
}

/// Names of the clusters, from `ls`.
pub(super) fn cluster_names(ls: &str) -> Vec<String> {
    blocks(ls).iter().map(|(_, block)| text(block, "name")).collect()
}

/// Calls and commands counted at one moment, of each cluster and of each of its members.
#[derive(Debug, Default)]
pub(super) struct Counts {
    clusters: HashMap<String, Counted>,
    members: HashMap<(String, String), Counted>,
}

#[derive(Debug, Clone, Default)]
struct Counted {
    calls: Option<u64>,
    commands: Option<u64>,
    /// Those of a member, by their names.
    all: Vec<(String, u64)>,
}

/// Counters of a member that stay as they are while all is well.
const BAD: &[&str] = &[
    "retransmissions",
    "errors",
    "timeouts",
    "refused",
    "late replies",
    "spoofed replies",
    "garbage replies",
    "undone",
    "probes failed",
    "went offline",
];

impl Counts {
    /// From `stats`.
    pub(super) fn of(stats: &str) -> Self {
        let mut counts = Self::default();
        let mut cluster = String::new();
        for (head, block) in blocks(stats) {
            let name = text(&block, "name");
            let count = |key: &str| -> Option<u64> { find(&block, key)?.parse().ok() };
            if head == "Cluster" {
                let (calls, commands) = (count("sessions bound"), count("commands"));
                let all = Vec::new();
                counts
                    .clusters
                    .insert(name.clone(), Counted { calls, commands, all });
                cluster = name;
            } else {
                let (calls, commands) = (count("sessions"), count("commands"));
                // What is counted, as opposed to what is so now.
                let counters = MEMBER_COUNTERS.iter().map(|(name, _)| name.replace('_', " "));
                let all = counters.filter_map(|name| count(&name).map(|count| (name, count)));
                let all = all.collect();
                counts
                    .members
                    .insert((cluster.clone(), name), Counted { calls, commands, all });
            }
        }
        counts
    }
}

/// What `trace CLUSTER last` has of a member, newest first.
fn errors(last: &str, member: &str) -> Vec<String> {
    let of_member = format!(", RTPproxy = {member}, ");
    let theirs = last.lines().rev().filter(|line| line.contains(&of_member));
    theirs.filter_map(error).collect()
}

/// One of them, in short: when, the reply, how long it took, the command.
fn error(line: &str) -> Option<String> {
    let time = line.get("2026-11-26T".len().."2026-11-26T03:02:14.131".len())?;
    let (rest, reply) = line.rsplit_once(", text = ")?;
    let (rest, command) = rest.split_once(", command = ").unwrap_or((rest, ""));
    let (_, delay) = rest.rsplit_once(", delay = ")?;
    let delay = delay.split(", ").next()?;
    let colon = if command.is_empty() { "" } else { ": " };
    Some(format!("{time} {reply} after {delay}{colon}{command}"))
}

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) clusters: Vec<Cluster>,
    /// How long the daemon has been running.
    pub(super) uptime: Option<Duration>,
    counts: Counts,
}

impl Picture {
    /// From what a look brought; `earlier` was found so long `ago`.
    pub(super) fn of(replies: &Replies, earlier: Option<(&Self, Duration)>) -> Self {
        let Replies {
            ls,
            members,
            last,
            stats,
        } = replies;
        let counts = Counts::of(stats);
        let rate = |now: Option<u64>, before: Option<u64>| {
            // A daemon that was started anew counts from 0 again.
            let more = now?.checked_sub(before?)?;
            let seconds = earlier?.1.as_secs_f64();
            (seconds > 0.0).then(|| as_float(more) / seconds)
        };
        let rates = |now: Option<&Counted>, before: Option<&Counted>| {
            let of = |counted: Option<&Counted>, which: fn(&Counted) -> Option<u64>| counted.and_then(which);
            Rates {
                calls: rate(of(now, |c| c.calls), of(before, |c| c.calls)),
                commands: rate(of(now, |c| c.commands), of(before, |c| c.commands)),
            }
        };
        let counters = |now: Option<&Counted>, before: Option<&Counted>| {
            let now = now.map_or(&[][..], |counted| &counted.all);
            let before = before.map_or(&[][..], |counted| &counted.all);
            let earlier = |name: &str| {
                before
                    .iter()
                    .find_map(|(key, count)| (key == name).then_some(*count))
            };
            let counters = now.iter().map(|(name, count)| Counter {
                name: name.clone(),
                count: *count,
                rate: rate(Some(*count), earlier(name)),
                is_bad: BAD.contains(&name.as_str()),
            });
            counters.collect::<Vec<_>>()
        };
        let uptime = stats.lines().find_map(|line| line.strip_prefix("uptime = "));
        let uptime = uptime.and_then(|text| text.strip_suffix(" s")?.parse().ok());
        let before = earlier.map(|(picture, _)| &picture.counts);
        let listings = members.iter().zip(last);
        let clusters = blocks(ls)
            .into_iter()
            .zip(listings)
            .map(|((_, block), (listing, last))| {
                let name = text(&block, "name");
                let members = blocks(listing)
                    .into_iter()
                    .filter(|(head, _)| *head == "RTPproxy")
                    .map(|(_, block)| {
                        let key = (name.clone(), text(&block, "name"));
                        let now = counts.members.get(&key);
                        let before = before.and_then(|counts| counts.members.get(&key));
                        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
                        Member {
                            rates: rates(now, before),
                            counters: counters(now, before),
                            errors: errors(last, &key.1),
                            facts: block.iter().map(owned).collect(),
                            name: key.1,
                            address: text(&block, "address"),
                            weight: text(&block, "weight"),
                            capacity: text(&block, "capacity"),
                            state: text(&block, "state"),
                            status: text(&block, "status"),
                            sessions: text(&block, "active sessions"),
                            utilization: text(&block, "capacity utilization"),
                            delay: text(&block, "average delay"),
                            bound: text(&block, "bound sessions"),
                            reason: text(&block, "reason"),
                        }
                    });
                let members = members.collect();
                Cluster {
                    rates: rates(
                        counts.clusters.get(&name),
                        before.and_then(|counts| counts.clusters.get(&name)),
                    ),
                    address: text(&block, "address"),
                    bound: text(&block, "bound sessions"),
                    state: text(&block, "state"),
                    name,
                    members,
                }
            });
        Self {
            clusters: clusters.collect(),
            uptime: uptime.map(Duration::from_secs),
            counts,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{Fake, summary};
    use crate::admin::operator::Operator as _;
    use crate::admin::render;
    use crate::dispatch::view::ClusterView;

    const LAST: &str = "\
        2026-11-26T03:02:14.131Z answered, call-id = a, client = UNIX process 1, RTPproxy = RTPPROXY1, attempt = 1, \
        delay = 0.300 ms, why = bound, command = U a 10.0.0.1 4000 f, text = E7\n\
        2026-11-26T03:02:15.000Z answered, client = UNIX process 1, delay = 0.010 ms, why = by rtp_cluster, \
        command = Z, text = E0\n\
        2026-11-26T03:02:16.000Z answered, call-id = b, client = UNIX process 1, RTPproxy = RTPPROXY1, attempt = 1, \
        delay = 200.000 ms, why = bound, command = D b f t, text = 0\nOK\n";

    #[test]
    fn a_member_has_its_own_errors_newest_first() {
        let picture = picture(&Fake::of_the_manual().clusters(), None);
        let members = &picture.clusters[0].members;
        assert_eq!(
            members[0].errors,
            [
                "03:02:16.000 0 after 200.000 ms: D b f t",
                "03:02:14.131 E7 after 0.300 ms: U a 10.0.0.1 4000 f"
            ]
        );
        assert!(members[1].errors.is_empty());
    }

    fn picture(clusters: &[ClusterView], earlier: Option<(&Picture, Duration)>) -> Picture {
        let members: Vec<_> = clusters
            .iter()
            .enumerate()
            .map(|(n, view)| render::members(n, view, true))
            .collect();
        let ls = render::clusters(&clusters.iter().map(summary).collect::<Vec<_>>(), true);
        let stats = render::stats(
            &clusters.iter().cloned().enumerate().collect::<Vec<_>>(),
            Duration::ZERO,
        );
        let last = clusters.iter().map(|_| LAST.to_owned()).collect();
        let replies = Replies {
            ls,
            members,
            last,
            stats,
        };
        Picture::of(&replies, earlier)
    }

    #[test]
    fn the_listings_are_read_back() {
        let all = Fake::of_the_manual().clusters();
        assert_eq!(
            cluster_names(&render::clusters(&Fake::of_the_manual().summaries(), false)),
            ["Supercluster#1", "Supercluster#2"]
        );
        let picture = picture(&all, None);
        let [first, second] = &*picture.clusters else {
            panic!("{picture:?}")
        };
        assert_eq!(
            (&*first.name, &*first.address, &*first.bound),
            ("Supercluster#1", "/var/run/rtpproxy.sock", "3")
        );
        assert_eq!((first.rates, &*first.state), (Rates::default(), "serving"));
        assert_eq!(picture.uptime, Some(Duration::ZERO));
        assert_eq!(first.members.len(), 2);
        let member = &first.members[1];
        assert_eq!(
            (&*member.name, &*member.weight, &*member.capacity),
            ("RTPPROXY2", "0", "1500")
        );
        assert_eq!((&*member.utilization, &*member.delay), ("0.0%", "0.312 ms"));
        assert_eq!((member.load(), member.condition()), (Some(0.0), "online"));
        assert_eq!(
            (second.members[0].load(), second.members[0].condition()),
            (None, "offline")
        );
        assert_eq!(second.members[0].reason, "2 probes unanswered, since 90 s");
        assert_eq!(second.members[0].sessions, "UNKNOWN");
        assert_eq!(member.facts[0], ("name".to_owned(), "RTPPROXY2".to_owned()));
        assert_eq!(member.counters.len(), MEMBER_COUNTERS.len());
        let known: Vec<&str> = member.counters.iter().map(|counter| &*counter.name).collect();
        assert!(BAD.iter().all(|name| known.contains(name)), "{known:?}");
        // No field is left empty: the names are those that are printed.
        for member in picture.clusters.iter().flat_map(|cluster| &cluster.members) {
            assert!(!format!("{member:?}").contains("\"\""), "{member:?}");
        }
    }

    #[test]
    fn rates_come_with_the_second_look_and_not_across_a_restart() {
        let mut all = Fake::of_the_manual().clusters();
        let first = picture(&all, None);
        // Commands, calls bound, and the calls of one member.
        (all[0].counters[0], all[0].counters[5]) = (35, 25);
        all[0].members[1].counters[0] += 10;
        all[0].members[1].counters[9] += 4;
        let second = picture(&all, Some((&first, Duration::from_secs(2))));
        let rates = |calls, commands| Rates {
            calls: Some(calls),
            commands: Some(commands),
        };
        assert_eq!(second.clusters[0].rates, rates(10.0, 15.0));
        assert_eq!(second.clusters[0].members[0].rates, rates(0.0, 0.0));
        assert_eq!(second.clusters[0].members[1].rates, rates(2.0, 5.0));
        let commands = &second.clusters[0].members[1].counters[0];
        assert_eq!((&*commands.name, commands.rate), ("commands", Some(5.0)));
        all[0].counters.fill(0);
        let third = picture(&all, Some((&second, Duration::from_secs(2))));
        assert_eq!(third.clusters[0].rates, Rates::default());
    }
}
