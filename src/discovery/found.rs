//! Which members an answer means, and what that changes of those that are there. Pure.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::message::Target;
use crate::config::model::{Address, Member, Name, Pool, Protocol, Sought, Status};

/// Members of one name at most.
pub const MEMBERS_MAX: usize = 256;
/// A name is looked up again after that time at the earliest, and at the latest, whatever its time to live.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Where an RTPproxy is, and its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Of its control socket.
    pub address: SocketAddr,
    /// Share of new sessions; 0 is standby.
    pub weight: u16,
}

/// What a name has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In the order of their addresses, each once, [`MEMBERS_MAX`] at most.
    pub places: Vec<Place>,
    /// Whether there are more.
    pub is_cut: bool,
    /// When to look again.
    pub again: Duration,
}

impl Found {
    /// Of a host, whose addresses are these.
    pub fn of_host(pool: &Pool, port: u16, addresses: Vec<IpAddr>, ttl: Duration) -> Self {
        let weight = pool.weight;
        let place = |ip| Place {
            address: SocketAddr::new(ip, port),
            weight,
        };
        Self::new(pool, addresses.into_iter().map(place).collect(), ttl)
    }

    /// Of a service, whose targets have these addresses. Those of the best priority are in service, with the weights of
    /// their records where these say anything; the others are standby.
    pub fn of_service(pool: &Pool, targets: &[(Target, Vec<IpAddr>)], ttl: Duration) -> Self {
        let best = targets.iter().map(|(target, _)| target.priority).min();
        let first = targets.iter().filter(|(target, _)| Some(target.priority) == best);
        let weighted = first.clone().any(|(target, _)| target.weight > 0);
        let mut places = Vec::new();
        for (target, addresses) in targets {
            let weight = match (Some(target.priority) == best, weighted) {
                (false, _) => 0,
                // A weight of 0 means a small share, where others have one.
                (true, true) => target.weight.max(1),
                (true, false) => pool.weight,
            };
            places.extend(addresses.iter().map(|ip| Place {
                address: SocketAddr::new(*ip, target.port),
                weight,
            }));
        }
        // Where one is there with several priorities the best one counts.
        places.sort_by_key(|place| (place.address, u16::MAX - place.weight));
        Self::new(pool, places, ttl)
    }

    fn new(pool: &Pool, mut places: Vec<Place>, ttl: Duration) -> Self {
        places
            .retain(|place| place.address.port() != 0 && (place.address.is_ipv6() || !pool.protocol.is_v6()));
        places.sort_by_key(|place| place.address);
        places.dedup_by_key(|place| place.address);
        let is_cut = places.len() > MEMBERS_MAX;
        places.truncate(MEMBERS_MAX);
        Self {
            places,
            is_cut,
            again: ttl.clamp(AGAIN.0, AGAIN.1),
        }
    }
}

/// The member at a place. It is called by its pool and address, so that it is the same one when it comes back.
pub fn member(pool: &Pool, place: Place) -> Option<Member> {
    let ip = place.address.ip();
    let name = match &pool.address {
        Sought::Host(..) => format!("{}-{ip}", pool.name),
        Sought::Service(_) => format!("{}-{ip}-{}", pool.name, place.address.port()),
    };
    let protocol = match (pool.protocol.is_datagram(), ip.is_ipv6()) {
        (true, false) => Protocol::Udp,
        (true, true) => Protocol::Udp6,
        (false, false) => Protocol::Tcp,
        (false, true) => Protocol::Tcp6,
    };
    let address = Address::Ip(place.address);
    let member = Member::new(Name::new(&name)?, protocol, address, place.weight, pool.capacity);
    Some(Member {
        found_by: Some(pool.name.clone()),
        ..member
    })
}

/// The place of a member that was found.
pub fn place_of(member: &Member) -> Option<Place> {
    match member.address {
        Address::Ip(address) => Some(Place {
            address,
            weight: member.weight,
        }),
        Address::Host(..) | Address::Path(_) => None,
    }
}

/// One change that an answer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The name leads to a new one.
    Add(Member),
    /// It leads to one again that was on its way out.
    Back(Name),
    /// The record of this one has another weight.
    Weigh(Name, u16),
    /// It leads no longer to this one.
    Leave(Name),
}

/// What makes `there`, the pool's members as they run, what the name says `now`; `before` is what it said last. What an
/// operator has set since stays as long as the name says the same of that member.
pub fn steps(pool: &Pool, before: &[Place], now: &[Place], there: &[Member]) -> Vec<Step> {
    let mut steps = Vec::new();
    for place in now {
        let Some(wanted) = member(pool, *place) else {
            continue;
        };
        let said = before.iter().find(|known| known.address == place.address);
        match there.iter().find(|known| known.name == wanted.name) {
            None => steps.push(Step::Add(wanted)),
            Some(known) => {
                if known.status == Status::Draining {
                    steps.push(Step::Back(wanted.name.clone()));
                }
                if known.weight != place.weight && said.is_none_or(|said| said.weight != place.weight) {
                    steps.push(Step::Weigh(wanted.name, place.weight));
                }
            }
        }
    }
    let leads_to = |known: &&Member| {
        now.iter()
            .any(|place| known.address == Address::Ip(place.address))
    };
    let leaving = there
        .iter()
        .filter(|known| known.status != Status::Draining && !leads_to(known));
    steps.extend(leaving.map(|known| Step::Leave(known.name.clone())));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(address: Sought) -> Pool {
        Pool {
            name: Name::new("media").unwrap(),
            protocol: Protocol::Udp,
            address,
            weight: 100,
            capacity: 50,
            resolver: None,
        }
    }

    fn host() -> Pool {
        pool(Sought::Host("media.test".into(), 22222))
    }

    fn found(addresses: &[&str]) -> Vec<Place> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Found::of_host(&host(), 22222, addresses, Duration::ZERO).places
    }

    fn members(places: &[Place]) -> Vec<Member> {
        places
            .iter()
            .map(|place| member(&host(), *place).unwrap())
            .collect()
    }

    #[test]
    fn each_address_is_a_member_of_its_own() {
        let places = found(&["10.0.0.5", "2001:db8::1", "10.0.0.4", "10.0.0.5"]);
        let all = members(&places);
        let shown: Vec<String> = all
            .iter()
            .map(|member| format!("{} {} {}", member.name, member.protocol.as_str(), member.address))
            .collect();
        assert_eq!(
            shown,
            [
                "media-10.0.0.4 UDP 10.0.0.4:22222",
                "media-10.0.0.5 UDP 10.0.0.5:22222",
                "media-2001:db8::1 UDP6 [2001:db8::1]:22222"
            ]
        );
        assert!(
            all.iter()
                .all(|member| member.capacity == 50 && member.weight == 100)
        );
        assert!(all.iter().all(|member| member.found_by == Some(host().name)));
        let six = Pool {
            protocol: Protocol::Udp6,
            ..host()
        };
        let both = vec!["10.0.0.4".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(Found::of_host(&six, 1, both, Duration::ZERO).places.len(), 1);
    }

    #[test]
    fn a_name_with_too_many_addresses_has_as_many_members_as_there_may_be() {
        let all = (0..1000_u32).map(|n| IpAddr::V4(n.into())).collect();
        let found = Found::of_host(&host(), 1, all, Duration::ZERO);
        assert_eq!((found.places.len(), found.is_cut), (MEMBERS_MAX, true));
    }

    #[test]
    fn it_is_looked_up_again_when_its_time_is_over_within_bounds() {
        let again = |ttl| Found::of_host(&host(), 1, Vec::new(), Duration::from_secs(ttl)).again;
        assert_eq!([0, 30, 86_400].map(|ttl| again(ttl).as_secs()), [5, 30, 300]);
    }

    #[test]
    fn a_service_has_its_own_ports_and_weights_and_the_worse_priorities_stand_by() {
        let pool = pool(Sought::Service("_rtpproxy._udp.test".into()));
        let target = |priority, weight, port| Target {
            priority,
            weight,
            port,
            host: "h.test.".to_owned(),
        };
        let at = |ip: &str| vec![ip.parse::<IpAddr>().unwrap()];
        let of = |targets: &[(Target, Vec<IpAddr>)]| -> Vec<(String, u16)> {
            let found = Found::of_service(&pool, targets, Duration::ZERO);
            let members = found.places.iter().map(|place| member(&pool, *place).unwrap());
            members
                .map(|member| (member.name.to_string(), member.weight))
                .collect()
        };
        let name = |text: &str, weight| (text.to_owned(), weight);
        assert_eq!(
            of(&[
                (target(10, 60, 5000), at("10.0.0.1")),
                (target(10, 0, 5001), at("10.0.0.1")),
                (target(20, 90, 5000), at("10.0.0.2")),
                (target(20, 90, 5000), at("10.0.0.1")),
            ]),
            [
                name("media-10.0.0.1-5000", 60),
                name("media-10.0.0.1-5001", 1),
                name("media-10.0.0.2-5000", 0)
            ]
        );
        assert_eq!(
            of(&[(target(1, 0, 5000), at("10.0.0.1"))]),
            [name("media-10.0.0.1-5000", 100)],
            "records without weights leave it to the pool"
        );
    }

    #[test]
    fn what_comes_is_added_and_what_goes_drains() {
        let before = found(&["10.0.0.1", "10.0.0.2"]);
        let now = found(&["10.0.0.2", "10.0.0.3"]);
        let there = members(&before);
        let names = |steps: Vec<Step>| -> Vec<String> {
            steps
                .into_iter()
                .map(|step| match step {
                    Step::Add(member) => format!("add {}", member.name),
                    Step::Back(name) => format!("back {name}"),
                    Step::Weigh(name, weight) => format!("weigh {name} {weight}"),
                    Step::Leave(name) => format!("leave {name}"),
                })
                .collect()
        };
        assert_eq!(
            names(steps(&host(), &before, &now, &there)),
            ["add media-10.0.0.3", "leave media-10.0.0.1"]
        );
        assert!(steps(&host(), &before, &before, &there).is_empty());
        // What leaves already does so once, and comes back.
        let mut leaving = there.clone();
        leaving[0].status = Status::Draining;
        assert!(steps(&host(), &now, &found(&["10.0.0.2"]), &leaving).is_empty());
        assert_eq!(
            names(steps(&host(), &now, &before, &leaving)),
            ["back media-10.0.0.1"]
        );
    }

    #[test]
    fn an_operators_weight_holds_until_the_record_changes() {
        let before = found(&["10.0.0.1"]);
        let mut there = members(&before);
        there[0].weight = 7;
        assert!(steps(&host(), &before, &before, &there).is_empty());
        let now = [Place {
            weight: 30,
            ..before[0]
        }];
        assert_eq!(
            steps(&host(), &before, &now, &there),
            [Step::Weigh(there[0].name.clone(), 30)]
        );
    }
}
