//! What the live view shows, read from the replies to `ls`, `ls -v CLUSTER` and `stats`. Pure.

use core::time::Duration;
use std::collections::{BTreeMap, HashMap};

/// A cluster with its members in the order of the listing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) bound: String,
    /// Commands a second since the last look; `None` at the first.
    pub(super) rate: Option<f64>,
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
    /// Commands a second since the last look.
    pub(super) rate: Option<f64>,
}

/// One `Cluster: #n` or `RTPproxy: #n` of a listing: its lines by their names.
type Block<'a> = BTreeMap<&'a str, &'a str>;

/// Every block of a reply, each with the word that heads it.
fn blocks(reply: &str) -> Vec<(&str, Block<'_>)> {
    let mut blocks = Vec::new();
    for line in reply.lines().map(str::trim) {
        if let Some((head, _)) = line.split_once(": #") {
            blocks.push((head, Block::new()));
        } else if let (Some((name, value)), Some((_, block))) = (line.split_once(" = "), blocks.last_mut()) {
            block.insert(name, value);
        }
    }
    blocks
}

fn text(block: &Block<'_>, name: &str) -> String {
    block.get(name).copied().unwrap_or_default().to_owned()
}

/// Names of the clusters, from `ls`.
pub(super) fn cluster_names(ls: &str) -> Vec<String> {
    blocks(ls).iter().map(|(_, block)| text(block, "name")).collect()
}

/// Commands counted at one moment, of each cluster and of each of its members.
#[derive(Debug, Default)]
pub(super) struct Counts {
    clusters: HashMap<String, u64>,
    members: HashMap<(String, String), u64>,
}

impl Counts {
    /// From `stats`.
    pub(super) fn of(stats: &str) -> Self {
        let mut counts = Self::default();
        let mut cluster = String::new();
        for (head, block) in blocks(stats) {
            let name = text(&block, "name");
            let Some(count) = block.get("commands").and_then(|count| count.parse().ok()) else {
                continue;
            };
            if head == "Cluster" {
                counts.clusters.insert(name.clone(), count);
                cluster = name;
            } else {
                counts.members.insert((cluster.clone(), name), count);
            }
        }
        counts
    }
}

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) clusters: Vec<Cluster>,
    counts: Counts,
}

impl Picture {
    /// From the replies to `ls -v`, to `ls -v CLUSTER` for each cluster in that order, and to `stats`; `earlier` was
    /// found so long `ago`.
    pub(super) fn of(ls: &str, members: &[String], stats: &str, earlier: Option<(&Self, Duration)>) -> Self {
        let counts = Counts::of(stats);
        let rate = |now: Option<&u64>, before: Option<&u64>| {
            // A daemon that was started anew counts from 0 again.
            let more = now?.checked_sub(*before?)?;
            let seconds = earlier?.1.as_secs_f64();
            (seconds > 0.0).then(|| as_float(more) / seconds)
        };
        let before = earlier.map(|(picture, _)| &picture.counts);
        let clusters = blocks(ls).into_iter().zip(members).map(|((_, block), listing)| {
            let name = text(&block, "name");
            let members = blocks(listing)
                .into_iter()
                .filter(|(head, _)| *head == "RTPproxy")
                .map(|(_, block)| {
                    let key = (name.clone(), text(&block, "name"));
                    Member {
                        rate: rate(
                            counts.members.get(&key),
                            before.and_then(|counts| counts.members.get(&key)),
                        ),
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
                rate: rate(
                    counts.clusters.get(&name),
                    before.and_then(|counts| counts.clusters.get(&name)),
                ),
                address: text(&block, "address"),
                bound: text(&block, "bound sessions"),
                name,
                members,
            }
        });
        Self {
            clusters: clusters.collect(),
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
    use crate::admin::render;
    use crate::admin::view::{ClusterView, Operator as _};

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
        Picture::of(&ls, &members, &stats, earlier)
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
        assert_eq!(first.rate, None);
        assert_eq!(first.members.len(), 2);
        let member = &first.members[1];
        assert_eq!(
            (&*member.name, &*member.weight, &*member.capacity),
            ("RTPPROXY2", "0", "1500")
        );
        assert_eq!((&*member.utilization, &*member.delay), ("0.0%", "0.312 ms"));
        assert_eq!(second.members[0].reason, "2 probes unanswered, since 90 s");
        assert_eq!(second.members[0].sessions, "UNKNOWN");
        // No field is left empty: the names are those that are printed.
        for member in picture.clusters.iter().flat_map(|cluster| &cluster.members) {
            assert!(!format!("{member:?}").contains("\"\""), "{member:?}");
        }
    }

    #[test]
    fn rates_come_with_the_second_look_and_not_across_a_restart() {
        let mut all = Fake::of_the_manual().clusters();
        let first = picture(&all, None);
        all[0].counters[0] += 30;
        all[0].members[1].counters[0] += 10;
        let second = picture(&all, Some((&first, Duration::from_secs(2))));
        assert_eq!(second.clusters[0].rate, Some(15.0));
        assert_eq!(second.clusters[0].members[0].rate, Some(0.0));
        assert_eq!(second.clusters[0].members[1].rate, Some(5.0));
        all[0].counters[0] = 0;
        let third = picture(&all, Some((&second, Duration::from_secs(2))));
        assert_eq!(third.clusters[0].rate, None);
    }
}
