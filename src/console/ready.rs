//! `ready [CLUSTER]`: whether calls can be carried here, for whoever chooses between this host and another one: the
//! check script of keepalived, a load balancer, a monitor.

use super::daemon::{Daemon, Trouble};
use super::test_call::survey::{Cluster, Member};
use super::{Ending, batch, complain, test_call};

/// `ready [CLUSTER]`
pub(super) fn run(daemon: &mut Daemon, line: &str, quiet: bool) -> Result<Ending, Trouble> {
    let mut words = line.split_whitespace().skip(1);
    let cluster = words.next();
    if words.next().is_some() || cluster.is_some_and(|word| word.starts_with('-')) {
        complain("ready: want ready [CLUSTER]");
        return Ok(Ending::Usage);
    }
    let fault = match test_call::survey(daemon, cluster)? {
        Ok(clusters) => fault(&clusters, cluster),
        Err(verdict) => return test_call::end(&verdict, Ending::Refused),
    };
    match fault {
        Some(fault) => test_call::end(&format!("ERROR: {fault}"), Ending::Refused),
        None if quiet => Ok(Ending::Good),
        None => batch::say("OK\n").map(|()| Ending::Good),
    }
}

/// What keeps calls from being carried by one of the clusters, in one line. One that is on its way out takes no new
/// calls: it counts where it is asked for by its name.
fn fault(clusters: &[Cluster], named: Option<&str>) -> Option<String> {
    let mut counted = clusters
        .iter()
        .filter(|cluster| named.is_some() || !cluster.draining)
        .peekable();
    if counted.peek().is_none() {
        return Some("no cluster takes calls".to_owned());
    }
    let faults: Vec<String> = counted
        .filter_map(|cluster| {
            let why = if cluster.draining {
                "it is being deleted".to_owned()
            } else if cluster.members.iter().any(Member::takes_calls) {
                return None;
            } else {
                format!("none of {} members is online and ACTIVE", cluster.members.len())
            };
            Some(format!("{}: takes no calls: {why}", cluster.name))
        })
        .collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Protocol;
    use crate::console::test_call::survey::Place;

    fn cluster(name: &str, draining: bool, members: &[(bool, &str)]) -> Cluster {
        let place = Place {
            protocol: Protocol::Unix,
            address: "/run/c.sock".to_owned(),
        };
        let members = members.iter().map(|(online, status)| Member {
            name: "R".to_owned(),
            place: place.clone(),
            online: *online,
            status: (*status).to_owned(),
            reason: String::new(),
            weight: 1,
            utilization: None,
            wan: Vec::new(),
            lan: Vec::new(),
            source: None,
        });
        Cluster {
            name: name.to_owned(),
            draining,
            notifies: false,
            members: members.collect(),
            place: place.clone(),
        }
    }

    #[test]
    fn each_cluster_needs_a_member_that_takes_calls() {
        let good = cluster("good", false, &[(false, "ACTIVE"), (true, "ACTIVE")]);
        let away = cluster("away", false, &[(false, "ACTIVE"), (true, "SUSPENDED")]);
        let empty = cluster("empty", false, &[]);
        assert_eq!(fault(core::slice::from_ref(&good), None), None);
        let both = fault(&[good, away, empty], None).unwrap();
        assert_eq!(
            both,
            "away: takes no calls: none of 2 members is online and ACTIVE; \
             empty: takes no calls: none of 0 members is online and ACTIVE"
        );
    }

    #[test]
    fn a_cluster_on_its_way_out_counts_where_it_is_asked_for() {
        let good = cluster("good", false, &[(true, "ACTIVE")]);
        let out = cluster("out", true, &[(true, "ACTIVE")]);
        assert_eq!(fault(&[good, out.clone()], None), None);
        let named = fault(core::slice::from_ref(&out), Some("out")).unwrap();
        assert_eq!(named, "out: takes no calls: it is being deleted");
        for none in [&[][..], &[out]] {
            assert_eq!(fault(none, None).unwrap(), "no cluster takes calls");
        }
    }
}
