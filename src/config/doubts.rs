//! What may be meant so and hardly is: sockets that are spelled in two ways, paths that depend on where the daemon is
//! started. Each is a warning; links are not followed, and no name but `localhost` is looked up. Pure.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use super::check::{At, Draft, Finding, Socket};
use super::fault::{Position, quoted};
use super::model::{Address, Protocol};

/// A socket, whose it is, and where that stands.
struct Claim<'a> {
    whose: &'a str,
    at: Position,
    protocol: Protocol,
    address: &'a Address,
}

impl<'a> Claim<'a> {
    fn of(whose: &'a str, socket: Option<&'a At<Socket>>) -> Option<Self> {
        let At { value, at } = socket?;
        Some(Self {
            whose,
            at: *at,
            protocol: value.protocol,
            address: &value.address,
        })
    }

    /// Whether both can be one socket, though they are spelled in two ways; `listen` when both are our own.
    fn may_be(&self, other: &Self, listen: bool) -> bool {
        if self.address == other.address || self.protocol.is_datagram() != other.protocol.is_datagram() {
            return false;
        }
        let is_v6 = self.protocol.is_v6();
        match (self.address, other.address) {
            (Address::Path(one), Address::Path(other)) => plain(one) == plain(other),
            _ => match (at(self.address, is_v6), at(other.address, other.protocol.is_v6())) {
                (Some(one), Some(other)) => {
                    let wide = listen && (one.ip().is_unspecified() || other.ip().is_unspecified());
                    let is_one_family = one.is_ipv4() == other.is_ipv4();
                    one.port() == other.port() && is_one_family && (one.ip() == other.ip() || wide)
                }
                _ => false,
            },
        }
    }
}

/// A path without its detours.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
        plain
    })
}

/// Where an address is, as far as that is known without asking anybody.
fn at(address: &Address, is_v6: bool) -> Option<SocketAddr> {
    match address {
        Address::Ip(at) => Some(*at),
        Address::Host(host, port) if host.eq_ignore_ascii_case("localhost") => {
            let here: IpAddr = if is_v6 {
                Ipv6Addr::LOCALHOST.into()
            } else {
                Ipv4Addr::LOCALHOST.into()
            };
            Some(SocketAddr::new(here, *port))
        }
        _ => None,
    }
}

/// All that is doubtful.
pub(super) fn doubts(drafts: &[Draft]) -> Vec<Finding> {
    let mut found = Vec::new();
    let own: Vec<Claim<'_>> = drafts
        .iter()
        .filter_map(|draft| Claim::of(&draft.whose, draft.socket.as_ref()))
        .collect();
    twice(&own, true, &mut found);
    for draft in drafts {
        let members = draft.members.iter();
        let members: Vec<Claim<'_>> = members
            .filter_map(|member| Claim::of(&member.whose, member.socket.as_ref()))
            .collect();
        twice(&members, false, &mut found);
    }
    found
}

fn twice(claims: &[Claim<'_>], listen: bool, found: &mut Vec<Finding>) {
    for (place, claim) in claims.iter().enumerate() {
        let address = quoted(&claim.address.to_string());
        if let Address::Path(path) = claim.address
            && path.is_relative()
        {
            let more = if path.to_string_lossy().starts_with('@') {
                ", and no abstract socket"
            } else {
                ""
            };
            let what =
                format!("address {address}: a path from where the daemon is started{more}: want one from /");
            found.push((claim.at, claim.whose.to_owned(), what));
        }
        let earlier = claims.iter().take(place);
        if let Some(first) = earlier.into_iter().find(|first| claim.may_be(first, listen)) {
            let what = format!(
                "address {address}: the same socket as {} of {} (line {})",
                quoted(&first.address.to_string()),
                first.whose,
                first.at.line
            );
            found.push((claim.at, claim.whose.to_owned(), what));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse::parse;

    fn warnings(clusters: &[(&str, &str)], members: &[(&str, &str)]) -> Vec<String> {
        let member = |(number, (protocol, address)): (usize, &(&str, &str))| {
            format!(
                "<rtpproxy><name>R{number}</name><protocol>{protocol}</protocol><address>{address}</address>\
                 <weight>1</weight><capacity>1</capacity></rtpproxy>"
            )
        };
        let members: String = members.iter().enumerate().map(member).collect();
        let cluster = |(number, (protocol, address)): (usize, &(&str, &str))| {
            format!(
                "<rtp_cluster><name>C{number}</name><protocol>{protocol}</protocol><address>{address}</address>\
                 {members}</rtp_cluster>\n"
            )
        };
        let clusters: String = clusters.iter().enumerate().map(cluster).collect();
        let text = format!("<rtp_cluster_config>\n{clusters}</rtp_cluster_config>");
        let parsed = parse(Path::new("x.xml"), text.as_bytes()).unwrap();
        parsed.warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_socket_that_is_spelled_in_two_ways_is_told() {
        for (one, other) in [
            (("UNIX", "/run/b"), ("CUNIX", "/run/a/../b")),
            (("UDP", "localhost:22222"), ("UDP", "127.0.0.1:22222")),
            (("UDP6", "[::1]:22222"), ("UDP6", "LOCALHOST:22222")),
        ] {
            let told = warnings(&[one, other], &[]);
            assert!(
                told.len() == 1 && told[0].contains("the same socket as"),
                "{told:?}"
            );
            let told = warnings(&[("UDP", "10.0.0.1:1")], &[one, other]);
            assert!(
                told.len() == 1 && told[0].contains("cluster C0, member R0 (line 2)"),
                "{told:?}"
            );
        }
        let (all, here) = (("TCP", "0.0.0.0:7"), ("TCP", "127.0.0.1:7"));
        assert_eq!(warnings(&[all, here], &[]).len(), 1);
        for different in [
            ("TCP", "127.0.0.1:8"),
            ("UDP", "127.0.0.1:7"),
            ("TCP6", "[::1]:7"),
        ] {
            assert_eq!(warnings(&[all, different], &[]), [""; 0]);
        }
    }

    #[test]
    fn a_path_that_depends_on_the_directory_is_told() {
        let told = warnings(&[("UNIX", "run/a.sock")], &[("UNIX", "@rtpproxy")]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains("from where the daemon is started: want"),
            "{told:?}"
        );
        assert!(told[1].contains("and no abstract socket"), "{told:?}");
    }
}
