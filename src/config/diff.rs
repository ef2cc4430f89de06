//! Where a running configuration and a file differ, in words for the one who is about to `reload` or `save`.

use core::fmt;
use std::collections::{HashMap, HashSet};

use super::elements::{ELEMENTS, Element, Holder};
use super::model::Config;

/// One line a difference, in the order of the file, then what only runs; none when both are equal.
///
/// ```text
/// cluster C1: health interval: 1s running, 5s in the file
/// cluster C1, member RTPPROXY2: weight: 100 running, 50 in the file
/// cluster C1, member RTPPROXY3: only running
/// ```
pub fn diff(running: &Config, file: &Config) -> Vec<String> {
    differences(running, file)
        .map(|difference| difference.to_string())
        .collect()
}

/// Those lines of [`diff`] that undo what was changed at run time: where `running` also differs from `before`, what
/// the file held when it was last read.
pub fn undone(running: &Config, before: &Config, file: &Config) -> Vec<String> {
    let unsaved: HashSet<_> = differences(running, before).map(Difference::place).collect();
    differences(running, file)
        .filter(|difference| unsaved.contains(&difference.clone().place()))
        .map(|difference| difference.to_string())
        .collect()
}

/// One difference: whose, of what, and how.
#[derive(Debug, Clone)]
struct Difference {
    whose: String,
    /// The value that differs; empty where the whole differs.
    label: String,
    how: String,
}

impl Difference {
    fn whole(whose: &str, how: &str) -> Self {
        Self {
            whose: whose.to_owned(),
            label: String::new(),
            how: how.to_owned(),
        }
    }

    fn place(self) -> (String, String) {
        (self.whose, self.label)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whose, label, how } = self;
        match (&**whose, &**label) {
            ("", _) => f.write_str(how),
            (_, "") => write!(f, "{whose}: {how}"),
            _ => write!(f, "{whose}: {label}: {how}"),
        }
    }
}

fn differences(running: &Config, file: &Config) -> impl Iterator<Item = Difference> + use<> {
    let (running, file) = (Side::new(running), Side::new(file));
    let mut found = Vec::new();
    for (whose, values) in &file.items {
        match running.get(whose) {
            None if running.has_parent(whose) => found.push(Difference::whole(whose, "only in the file")),
            // The members of a cluster that is not there go without saying.
            None => {}
            Some(others) => {
                for ((label, ours), (_, theirs)) in
                    values.iter().zip(others).filter(|(ours, theirs)| ours != theirs)
                {
                    found.push(Difference {
                        whose: whose.clone(),
                        label: label.clone(),
                        how: format!("{} running, {} in the file", shown(theirs), shown(ours)),
                    });
                }
            }
        }
    }
    let only_running = running
        .items
        .iter()
        .filter(|(whose, _)| file.get(whose).is_none() && file.has_parent(whose));
    found.extend(only_running.map(|(whose, _)| Difference::whole(whose, "only running")));
    if running.common(&file).ne(file.common(&running)) {
        found.push(Difference::whole("", "clusters or members are in another order"));
    }
    found.into_iter()
}

type Values = Vec<(String, String)>;

/// A configuration as a list: whose, and what is said of it.
struct Side {
    items: Vec<(String, Values)>,
    index: HashMap<String, usize>,
}

impl Side {
    fn new(config: &Config) -> Self {
        let mut items = Vec::new();
        for cluster in &config.clusters {
            let whose = format!("cluster {}", cluster.name);
            items.push((whose.clone(), values_of(cluster)));
            for member in &cluster.members {
                items.push((format!("{whose}, member {}", member.name), values_of(member)));
            }
            for pool in &cluster.pools {
                items.push((format!("{whose}, members {}", pool.name), values_of(pool)));
            }
        }
        let index = items
            .iter()
            .enumerate()
            .map(|(n, (whose, _))| (whose.clone(), n))
            .collect();
        Self { items, index }
    }

    fn get(&self, whose: &str) -> Option<&Values> {
        self.index
            .get(whose)
            .and_then(|n| self.items.get(*n))
            .map(|(_, values)| values)
    }

    /// Whether `whose` is a cluster, or a member of a cluster that is here. (No name has a comma.)
    fn has_parent(&self, whose: &str) -> bool {
        whose
            .split_once(',')
            .is_none_or(|(cluster, _)| self.index.contains_key(cluster))
    }

    /// What both sides have, in this one's order.
    fn common<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a String> {
        self.items
            .iter()
            .map(|(whose, _)| whose)
            .filter(|whose| other.index.contains_key(*whose))
    }
}

/// All that the table knows of a cluster or a member, also what holds anyway.
fn values_of<T: Holder>(it: &T) -> Values {
    let said = |access, label: String| T::way(access).map(|way| (label, (way.get)(it).to_string()));
    let row = |element: &'static Element| {
        let attributes = element.attributes.iter();
        let attributes =
            attributes.filter_map(move |a| said(&a.access, format!("{} {}", element.name, a.name)));
        said(&element.access, element.name.to_owned())
            .into_iter()
            .chain(attributes)
    };
    ELEMENTS.iter().flat_map(row).collect()
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Cluster, DisconnectNotify, Member};
    use super::super::pairs::{cluster_from_pairs, member_from_pairs};
    use super::*;
    use core::time::Duration;

    fn member(name: &str) -> Member {
        let address = format!("/run/{name}.sock");
        let pairs = [
            ("name", name),
            ("protocol", "UNIX"),
            ("address", &address),
            ("weight", "100"),
            ("capacity", "9"),
        ];
        member_from_pairs(&pairs).unwrap()
    }

    fn cluster(name: &str, members: &[&str]) -> Cluster {
        let address = format!("/run/{name}.sock");
        let cluster =
            cluster_from_pairs(&[("name", name), ("protocol", "UNIX"), ("address", &address)]).unwrap();
        Cluster {
            members: members.iter().map(|name| member(name)).collect(),
            ..cluster
        }
    }

    fn config(clusters: &[Cluster]) -> Config {
        Config {
            clusters: clusters.to_vec(),
        }
    }

    #[test]
    fn equal_configurations_do_not_differ() {
        let same = config(&[cluster("C1", &["A", "B"]), cluster("C2", &["A"])]);
        assert_eq!(diff(&same, &same), Vec::<String>::new());
        assert_eq!(diff(&Config::default(), &Config::default()), Vec::<String>::new());
    }

    #[test]
    fn each_changed_value_is_told_with_both_sides() {
        let running = config(&[cluster("C1", &["A", "B"])]);
        let mut file = running.clone();
        let c1 = &mut file.clusters[0];
        c1.health.interval = Duration::from_secs(5);
        c1.disconnect_notify = Some(DisconnectNotify {
            inbound_address: "192.0.2.1:12131".parse().unwrap(),
            dest_socket_prefix: "/run/b2bua".to_owned(),
            on_member_loss: Some(Duration::from_secs(30)),
            tcp: crate::config::model::NotifyTcp::default(),
        });
        c1.members[1].weight = 50;
        c1.members[1].wan_address = [203, 0, 113, 4].into();
        let lines = [
            "cluster C1: disconnect_notify on_member_loss: off running, 30s in the file",
            "cluster C1: inbound_address: none running, 192.0.2.1:12131 in the file",
            "cluster C1: dest_socket_prefix: none running, /run/b2bua in the file",
            "cluster C1: health interval: 1s running, 5s in the file",
            "cluster C1, member B: weight: 100 running, 50 in the file",
            "cluster C1, member B: wan_address: none running, 203.0.113.4 in the file",
        ];
        assert_eq!(diff(&running, &file), lines);
    }

    #[test]
    fn a_file_undoes_what_it_does_not_agree_with() {
        let before = config(&[cluster("C1", &["A", "B", "C", "D"]), cluster("C2", &[])]);
        // At run time two weights were changed, a member was added, one was deleted, and so was a cluster.
        let mut running = before.clone();
        running.clusters[0].members[0].weight = 7;
        running.clusters[0].members[1].weight = 7;
        running.clusters[0].members[3] = member("X");
        running.clusters.truncate(1);
        // The file has been given one of the weights, and a capacity of its own.
        let mut file = before.clone();
        file.clusters[0].members[0].weight = 7;
        file.clusters[0].members[2].capacity = 5;
        let lines = [
            "cluster C1, member B: weight: 7 running, 100 in the file",
            "cluster C1, member D: only in the file",
            "cluster C2: only in the file",
            "cluster C1, member X: only running",
        ];
        assert_eq!(undone(&running, &before, &file), lines);
        assert_eq!(undone(&before, &before, &file), Vec::<String>::new());
    }

    #[test]
    fn what_only_one_side_has_is_told_without_its_details() {
        let running = config(&[cluster("C1", &["A", "X"]), cluster("C2", &["A", "B"])]);
        let file = config(&[cluster("C1", &["Y", "A"]), cluster("C3", &["A"])]);
        let lines = [
            "cluster C1, member Y: only in the file",
            "cluster C3: only in the file",
            "cluster C1, member X: only running",
            "cluster C2: only running",
        ];
        assert_eq!(diff(&running, &file), lines);
    }

    #[test]
    fn another_order_is_a_difference() {
        let order = ["clusters or members are in another order"];
        assert_eq!(
            diff(
                &config(&[cluster("C1", &["A", "B"])]),
                &config(&[cluster("C1", &["B", "A"])])
            ),
            order
        );
        let [c1, c2] = [cluster("C1", &[]), cluster("C2", &[])];
        assert_eq!(
            diff(&config(&[c1.clone(), c2.clone()]), &config(&[c2, c1])),
            order
        );
    }
}
