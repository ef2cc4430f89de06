//! What `ls --json` tells that a test needs: control sockets, and what is announced in place of a member's address.
//! Pure.

use core::fmt;
use core::net::IpAddr;

use serde_json::Value;

use crate::config::model::Protocol;

/// A control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) protocol: Protocol,
    /// A path, `host:port` or `[IPv6]:port`.
    pub(crate) address: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol.as_str(), self.address)
    }
}

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) draining: bool,
    /// Whether it relays disconnect notifications.
    pub(crate) notifies: bool,
    pub(crate) members: Vec<Member>,
}

/// A member.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) online: bool,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) weight: u64,
    /// Active sessions over capacity, in percent, where it is known.
    pub(crate) utilization: Option<f64>,
    /// Announced in place of its own, one a family.
    pub(crate) wan: Vec<IpAddr>,
    /// Asked of it, one a family.
    pub(crate) lan: Vec<IpAddr>,
    /// Where commands to it leave from.
    pub(crate) source: Option<IpAddr>,
}

impl Member {
    /// Whether it is used for new calls.
    pub(crate) fn takes_calls(&self) -> bool {
        self.online && self.status == "ACTIVE"
    }

    /// That of the family.
    pub(crate) fn of_family(addresses: &[IpAddr], v6: bool) -> Option<IpAddr> {
        addresses.iter().find(|address| address.is_ipv6() == v6).copied()
    }
}

/// The clusters of a document.
///
/// # Errors
/// What is wrong with it: the daemon is of a version that we do not know.
pub(crate) fn clusters(document: &str) -> Result<Vec<Cluster>, String> {
    let document: Value = serde_json::from_str(document).map_err(|error| format!("ls --json: {error}"))?;
    let clusters = document.get("clusters").and_then(Value::as_array);
    let clusters: Option<Vec<Cluster>> = clusters.and_then(|list| list.iter().map(cluster).collect());
    clusters.ok_or_else(|| "ls --json: want clusters with name, protocol, address and members".to_owned())
}

fn cluster(value: &Value) -> Option<Cluster> {
    let members = value.get("members")?.as_array()?.iter().map(member);
    Some(Cluster {
        name: text(value, "name")?,
        place: place(value)?,
        draining: value.get("draining").and_then(Value::as_bool).unwrap_or_default(),
        notifies: value
            .pointer("/settings/disconnect_notify")
            .is_some_and(Value::is_object),
        members: members.collect::<Option<_>>()?,
    })
}

fn member(value: &Value) -> Option<Member> {
    Some(Member {
        name: text(value, "name")?,
        place: place(value)?,
        online: text(value, "state")? == "online",
        status: text(value, "status")?,
        reason: text(value, "reason").unwrap_or_default(),
        weight: value.get("weight").and_then(Value::as_u64).unwrap_or_default(),
        utilization: value.get("capacity_utilization").and_then(Value::as_f64),
        wan: addresses(value, "wan_address"),
        lan: addresses(value, "lan_address"),
        source: addresses(value, "cmd_out_address").first().copied(),
    })
}

fn place(value: &Value) -> Option<Place> {
    Some(Place {
        protocol: Protocol::from_name(&text(value, "protocol")?)?,
        address: text(value, "address")?,
    })
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}

/// The addresses under a key: none, one, or one a family, as a text or a list.
fn addresses(value: &Value, key: &str) -> Vec<IpAddr> {
    let texts: Vec<&str> = match value.get(key) {
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::Fake;
    use crate::admin::operator::Operator as _;
    use crate::admin::render_json;

    #[test]
    fn what_the_daemon_renders_is_understood() {
        let all = Fake::of_the_manual().clusters();
        let document = render_json::clusters(
            all.iter().enumerate(),
            crate::admin::select::Selection::default(),
            core::time::Duration::from_secs(1),
        );
        let clusters = clusters(&document).unwrap();
        assert_eq!(clusters.len(), 2);
        let first = &clusters[0];
        assert_eq!(
            (&*first.name, &*first.place.to_string()),
            ("Supercluster#1", "UNIX /var/run/rtpproxy.sock")
        );
        let member = &first.members[0];
        assert_eq!(
            (&*member.name, &*member.place.to_string(), member.online),
            ("RTPPROXY1", "UDP 127.0.0.1:22222", true)
        );
        assert!(!clusters[1].members[1].online);
    }

    #[test]
    fn addresses_are_one_a_family() {
        let value = serde_json::json!({"a": "203.0.113.4 2001:db8::4", "b": ["::1"], "c": null});
        let wan = addresses(&value, "a");
        assert_eq!(
            Member::of_family(&wan, true),
            Some("2001:db8::4".parse().unwrap())
        );
        assert_eq!(
            Member::of_family(&wan, false),
            Some("203.0.113.4".parse().unwrap())
        );
        assert_eq!(addresses(&value, "b").len(), 1);
        assert_eq!(
            (addresses(&value, "c").len(), addresses(&value, "d").len()),
            (0, 0)
        );
    }

    #[test]
    fn a_document_of_another_kind_is_no_empty_list() {
        for wrong in ["", "{}", "{\"clusters\":[{}]}"] {
            assert!(clusters(wrong).unwrap_err().starts_with("ls --json: "), "{wrong}");
        }
    }
}
