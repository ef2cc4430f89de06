//! What must hold between values that are right each by themselves: no name, no socket twice. The same rules for
//! a file ([`check`], which names both lines) and for a change at run time ([`check_member_fits`],
//! [`check_cluster_fits`]).
//!
//! Two clusters may have the same member; two control sockets are the same where protocol family and address are
//! spelled alike (links and host names are not followed, that is for the file system and the resolver to say).

use core::fmt;
use core::hash::Hash;
use core::net::{IpAddr, SocketAddr};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::address;
use super::fault::{Position, quoted};
use super::fields::wrong;
use super::model::{Address, Cluster, Member, Name, Protocol};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: Position,
}

/// What is known of a cluster, right or not: enough to compare it with others.
#[derive(Debug)]
pub(super) struct Draft {
    /// `cluster C1`
    pub(super) whose: String,
    pub(super) name: Option<At<Name>>,
    pub(super) socket: Option<At<Socket>>,
    pub(super) relay: Option<At<SocketAddr>>,
    pub(super) members: Vec<MemberDraft>,
    /// What their pools are called, and whose they are.
    pub(super) pools: Vec<(String, At<Name>)>,
}

/// What is known of a member.
#[derive(Debug)]
pub(super) struct MemberDraft {
    /// `cluster C1, member RTPPROXY1`
    pub(super) whose: String,
    pub(super) name: Option<At<Name>>,
    pub(super) socket: Option<At<Socket>>,
    pub(super) source: Option<At<IpAddr>>,
}

/// What was found: where, whose, what.
pub(super) type Finding = (Position, String, String);

/// A control socket of ours or of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) protocol: Protocol,
    pub(super) address: Address,
}

impl Socket {
    /// Equal for equal sockets: a path is one with either protocol, a port is another one for TCP and for UDP.
    fn key(&self) -> Key {
        let address = match &self.address {
            Address::Host(host, port) => Address::Host(host.to_ascii_lowercase().into(), *port),
            address => address.clone(),
        };
        Key {
            datagram: self.protocol.is_datagram(),
            address,
        }
    }
}

impl From<&Cluster> for Socket {
    fn from(cluster: &Cluster) -> Self {
        Self {
            protocol: cluster.protocol,
            address: cluster.address.clone(),
        }
    }
}

impl From<&Member> for Socket {
    fn from(member: &Member) -> Self {
        Self {
            protocol: member.protocol,
            address: member.address.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    datagram: bool,
    address: Address,
}

impl From<SocketAddr> for Key {
    /// The relay listens on TCP.
    fn from(relay: SocketAddr) -> Self {
        Self {
            datagram: false,
            address: Address::Ip(relay),
        }
    }
}

/// Everything that is there twice, and source addresses that cannot be used.
pub(super) fn check(drafts: &[Draft]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut names = Firsts::default();
    let mut sockets = Firsts::default();
    for draft in drafts {
        let whose = draft.whose.as_str();
        if let Some(At { value, at }) = &draft.name {
            let first = names.claim(value, *at, "another cluster");
            tell(&mut found, *at, whose, "name", value, first);
        }
        if let Some(At { value, at }) = &draft.socket {
            let first = sockets.claim(value.key(), *at, whose);
            tell(&mut found, *at, whose, "address", &value.address, first);
        }
        if let Some(At { value, at }) = &draft.relay {
            let first = sockets.claim((*value).into(), *at, whose);
            tell(&mut found, *at, whose, "inbound_address", value, first);
        }
        check_members(draft, &mut found);
        let mut pools = Firsts::default();
        for (whose, At { value, at }) in &draft.pools {
            let first = pools.claim(value, *at, "another <rtpproxies>");
            tell(&mut found, *at, whose, "name", value, first);
        }
    }
    found
}

fn check_members(draft: &Draft, found: &mut Vec<Finding>) {
    let mut names = Firsts::default();
    let mut sockets = Firsts::default();
    if let Some(own) = &draft.socket {
        sockets.claim(own.value.key(), own.at, "the cluster itself");
    }
    for member in &draft.members {
        let whose = member.whose.as_str();
        if let Some(At { value, at }) = &member.name {
            let first = names.claim(value, *at, "another member");
            tell(found, *at, whose, "name", value, first);
        }
        if let Some(At { value, at }) = &member.socket {
            let first = sockets.claim(value.key(), *at, whose);
            tell(found, *at, whose, "address", &value.address, first);
            if let Some(source) = &member.source
                && let Err(what) = source_fits(value.protocol, source.value)
            {
                found.push((source.at, whose.to_owned(), what));
            }
        }
    }
}

/// Who was the first to have something.
struct Firsts<K>(HashMap<K, (Position, String)>);

impl<K> Default for Firsts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Firsts<K> {
    /// Says who has `key` already (`cluster C1 (line 9)`), or keeps that `who` has it now.
    fn claim(&mut self, key: K, at: Position, who: &str) -> Option<String> {
        match self.0.entry(key) {
            Entry::Occupied(first) => {
                let (at, who) = first.get();
                Some(format!("{who} (line {})", at.line))
            }
            Entry::Vacant(free) => {
                free.insert((at, who.to_owned()));
                None
            }
        }
    }
}

/// Keeps a fault if somebody was `first`.
fn tell(
    found: &mut Vec<Finding>,
    at: Position,
    whose: &str,
    what: &str,
    value: &impl fmt::Display,
    first: Option<String>,
) {
    found.extend(first.map(|first| (at, whose.to_owned(), taken(what, value, &first))));
}

fn taken(what: &str, value: &impl fmt::Display, first: &str) -> String {
    format!(
        "{what} {}: taken by {first}, want one of its own",
        quoted(&value.to_string())
    )
}

/// Whether commands over `protocol` can leave from `source`. (A local socket has no source address: there it is
/// without effect, which a file is warned of.)
fn source_fits(protocol: Protocol, source: IpAddr) -> Result<(), String> {
    if protocol.is_local() || source.is_ipv6() == protocol.is_v6() {
        return Ok(());
    }
    let family = if protocol.is_v6() { "IPv6" } else { "IPv4" };
    let source = quoted(&source.to_string());
    Err(format!(
        "cmd_out_address {source}: want an {family} address, as the protocol is {}",
        protocol.as_str()
    ))
}

/// Whether `address` is one of `protocol`.
fn address_fits(socket: &Socket) -> Result<(), String> {
    let Socket { protocol, address } = socket;
    let fits = match address {
        Address::Path(_) => protocol.is_local(),
        Address::Ip(ip) => !protocol.is_local() && ip.is_ipv6() == protocol.is_v6(),
        Address::Host(..) => !protocol.is_local(),
    };
    if fits {
        return Ok(());
    }
    // Reading it says best what is wrong; but as a path nearly every text can be read.
    let text = address.to_string();
    address::address(*protocol, &text).and_then(|_| Err(wrong("address", &text, address::wanted(*protocol))))
}

/// Whether `member` can be in `cluster`, as new or in place of its member of the same name.
///
/// # Errors
/// One line with the value and what would be right.
pub fn check_member_fits(cluster: &Cluster, member: &Member) -> Result<(), String> {
    let socket = Socket::from(member);
    address_fits(&socket)?;
    if let Some(source) = member.cmd_out_address {
        source_fits(member.protocol, source)?;
    }
    let key = socket.key();
    if key == Socket::from(cluster).key() {
        return Err(taken("address", &member.address, "the cluster itself"));
    }
    let same = |other: &&Member| other.name != member.name && Socket::from(*other).key() == key;
    match cluster.members.iter().find(same) {
        Some(other) => Err(taken(
            "address",
            &member.address,
            &format!("member {}", other.name),
        )),
        None => Ok(()),
    }
}

/// Whether `cluster` can run beside `others`, as new or in place of the one of the same name.
///
/// # Errors
/// One line with the value and what would be right.
pub fn check_cluster_fits(others: &[Cluster], cluster: &Cluster) -> Result<(), String> {
    address_fits(&cluster.into())?;
    let own = sockets(cluster);
    for other in others.iter().filter(|other| other.name != cluster.name) {
        let theirs = sockets(other);
        let same = |(_, _, key): &&(&str, String, Key)| theirs.iter().any(|(_, _, their)| their == key);
        if let Some((what, value, _)) = own.iter().find(same) {
            return Err(taken(what, value, &format!("cluster {}", other.name)));
        }
    }
    Ok(())
}

/// What a cluster listens on: element, text, key.
fn sockets(cluster: &Cluster) -> Vec<(&'static str, String, Key)> {
    let relay = cluster
        .disconnect_notify
        .as_ref()
        .map(|notify| notify.inbound_address);
    let relay = relay.map(|relay| ("inbound_address", relay.to_string(), relay.into()));
    let own = (
        "address",
        cluster.address.to_string(),
        Socket::from(cluster).key(),
    );
    core::iter::once(own).chain(relay).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::DisconnectNotify;
    use super::super::pairs::{cluster_from_pairs, member_from_pairs};
    use super::*;

    fn member(name: &str, protocol: &str, address: &str) -> Member {
        let pairs = [
            ("name", name),
            ("protocol", protocol),
            ("address", address),
            ("weight", "1"),
            ("capacity", "1"),
        ];
        member_from_pairs(&pairs).unwrap()
    }

    fn cluster(name: &str, protocol: &str, address: &str) -> Cluster {
        cluster_from_pairs(&[("name", name), ("protocol", protocol), ("address", address)]).unwrap()
    }

    #[test]
    fn a_member_needs_an_address_of_its_own() {
        let mut cluster = cluster("C", "UNIX", "/run/c.sock");
        cluster.members = vec![member("A", "UDP", "10.0.0.4"), member("H", "TCP", "Media1:5000")];
        let fits = |protocol, address| check_member_fits(&cluster, &member("B", protocol, address));

        assert_eq!(fits("UDP", "10.0.0.5"), Ok(()));
        assert_eq!(
            fits("TCP", "10.0.0.4"),
            Ok(()),
            "the same port of another transport"
        );
        assert_eq!(fits("UDP", "media1:5000"), Ok(()), "likewise");
        let taken = |value: &str, who: &str| {
            Err(format!(
                "address \"{value}\": taken by {who}, want one of its own"
            ))
        };
        assert_eq!(fits("UDP", "10.0.0.4"), taken("10.0.0.4:22222", "member A"));
        assert_eq!(fits("tcp6", "media1:5000"), taken("media1:5000", "member H"));
        assert_eq!(
            fits("CUNIX", "/run//./c.sock"),
            taken("/run//./c.sock", "the cluster itself")
        );
        assert_eq!(
            check_member_fits(&cluster, &member("A", "UDP", "10.0.0.4")),
            Ok(()),
            "itself, changed"
        );
    }

    #[test]
    fn the_source_address_is_of_the_members_family() {
        let cluster = cluster("C", "UNIX", "/run/c.sock");
        let fits = |protocol, address, source: &str| {
            let source = Some(source.parse().unwrap());
            check_member_fits(
                &cluster,
                &Member {
                    cmd_out_address: source,
                    ..member("A", protocol, address)
                },
            )
        };
        assert_eq!(fits("UDP", "10.0.0.4", "10.0.0.1"), Ok(()));
        assert_eq!(fits("TCP6", "::1", "::1"), Ok(()));
        assert_eq!(fits("UNIX", "/run/r.sock", "10.0.0.1"), Ok(()));
        assert_eq!(
            fits("UDP6", "::1", "10.0.0.1").unwrap_err(),
            "cmd_out_address \"10.0.0.1\": want an IPv6 address, as the protocol is UDP6"
        );
    }

    #[test]
    fn a_protocol_changed_without_its_address_does_not_fit() {
        let cluster = cluster("C", "UNIX", "/run/c.sock");
        let changed = |to| {
            check_member_fits(
                &cluster,
                &Member {
                    protocol: to,
                    ..member("A", "UDP", "10.0.0.4")
                },
            )
        };
        assert_eq!(changed(Protocol::Tcp), Ok(()));
        assert_eq!(
            changed(Protocol::Udp6).unwrap_err(),
            "address \"10.0.0.4:22222\": want [IPv6]:port or host:port, or protocol UDP"
        );
        assert_eq!(
            changed(Protocol::Unix).unwrap_err(),
            "address \"10.0.0.4:22222\": want the path of a socket",
            "not a file of that name"
        );
    }

    #[test]
    fn a_cluster_needs_sockets_of_its_own() {
        let relay = |mut cluster: Cluster, address: &str| {
            cluster.disconnect_notify = Some(DisconnectNotify {
                inbound_address: address.parse().unwrap(),
                dest_socket_prefix: "/run/b2bua".to_owned(),
                on_member_loss: None,
                tcp: crate::config::model::NotifyTcp::default(),
            });
            cluster
        };
        let running = [relay(cluster("A", "UDP", "10.0.0.1:5000"), "10.0.0.1:12131")];
        let fits = |cluster: &Cluster| check_cluster_fits(&running, cluster);
        assert_eq!(fits(&cluster("B", "UDP", "10.0.0.1:12131")), Ok(()));
        assert_eq!(
            fits(&cluster("A", "UDP", "10.0.0.1:5000")),
            Ok(()),
            "itself, changed"
        );
        let taken = |what: &str| Err(format!("{what}: taken by cluster A, want one of its own"));
        assert_eq!(
            fits(&cluster("B", "UDP", "10.0.0.1:5000")),
            taken("address \"10.0.0.1:5000\"")
        );
        assert_eq!(
            fits(&cluster("B", "TCP", "10.0.0.1:12131")),
            taken("address \"10.0.0.1:12131\"")
        );
        let second = relay(cluster("B", "UNIX", "/run/b.sock"), "10.0.0.1:12131");
        assert_eq!(fits(&second), taken("inbound_address \"10.0.0.1:12131\""));
    }
}
