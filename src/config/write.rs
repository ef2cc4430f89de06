//! A configuration as a file: what loads back to the same value. Elements that would say what holds anyway are
//! left out, so that the file shows what somebody decided.

use core::fmt;
use core::net::IpAddr;

use super::elements::{CLUSTER, MEMBER, NOTIFY, ROOT, children};
use super::fields::{CAPACITY_LIMIT, NO_MEMBERS, POLICY, STATUS, Time};
use super::model::{Cluster, Config, Member};

const HEADER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <!-- Written by rtp_cluster. The elements are described in rtp_cluster.xml(5). -->\n";

/// `config` as the text of a file.
pub fn write(config: &Config) -> String {
    File(config).to_string()
}

struct File<'a>(&'a Config);

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}<{ROOT}>")?;
        for cluster in &self.0.clusters {
            write_cluster(f, cluster)?;
        }
        writeln!(f, "</{ROOT}>")
    }
}

fn write_cluster(f: &mut fmt::Formatter<'_>, cluster: &Cluster) -> fmt::Result {
    writeln!(f, "  <{CLUSTER}>")?;
    for (name, text) in cluster_values(cluster) {
        writeln!(f, "    <{name}>{}</{name}>", escaped(&text))?;
    }
    let attributes = attribute_values(cluster);
    for element in children(CLUSTER) {
        let changed = |value: &&Value| value.element == element.name && value.text != value.default();
        let changed: Vec<&Value> = attributes.iter().filter(changed).collect();
        let notify = cluster
            .disconnect_notify
            .as_ref()
            .filter(|_| element.name == NOTIFY);
        if changed.is_empty() && notify.is_none() {
            continue;
        }
        write!(f, "    <{}", element.name)?;
        for value in changed {
            write!(f, " {}=\"{}\"", value.attribute, escaped(&value.text))?;
        }
        let Some(notify) = notify else {
            writeln!(f, "/>")?;
            continue;
        };
        writeln!(f, ">")?;
        writeln!(
            f,
            "      <inbound_address>{}</inbound_address>",
            notify.inbound_address
        )?;
        writeln!(
            f,
            "      <dest_socket_prefix>{}</dest_socket_prefix>",
            escaped(&notify.dest_socket_prefix)
        )?;
        writeln!(f, "    </{NOTIFY}>")?;
    }
    for member in &cluster.members {
        writeln!(f, "    <{MEMBER}>")?;
        for (name, text) in member_values(member).iter().filter(|(_, text)| !text.is_empty()) {
            writeln!(f, "      <{name}>{}</{name}>", escaped(text))?;
        }
        writeln!(f, "    </{MEMBER}>")?;
    }
    writeln!(f, "  </{CLUSTER}>")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// What the elements of a cluster say, in their order.
pub(super) fn cluster_values(cluster: &Cluster) -> [(&'static str, String); 3] {
    [
        ("name", cluster.name.to_string()),
        ("protocol", cluster.protocol.as_str().to_owned()),
        ("address", cluster.address.to_string()),
    ]
}

/// What the elements of a member say, in their order; empty where one is left out. The status is always written:
/// the Python rtp_cluster needs it, and it is what an operator looks for.
pub(super) fn member_values(member: &Member) -> [(&'static str, String); 9] {
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
    [
        ("name", member.name.to_string()),
        ("protocol", member.protocol.as_str().to_owned()),
        ("address", member.address.to_string()),
        ("weight", member.weight.to_string()),
        ("capacity", member.capacity.to_string()),
        ("status", STATUS.word(member.status).to_owned()),
        ("wan_address", text(member.wan_address)),
        ("lan_address", text(member.lan_address)),
        ("cmd_out_address", text(member.cmd_out_address)),
    ]
}

/// What an attribute of one of a cluster's elements says.
pub(super) struct Value {
    pub(super) element: &'static str,
    pub(super) attribute: &'static str,
    pub(super) text: String,
}

impl Value {
    /// What holds where the attribute is left out.
    fn default(&self) -> &'static str {
        let element = children(CLUSTER).find(|element| element.name == self.element);
        let attribute =
            element.and_then(|element| element.attributes.iter().find(|a| a.name == self.attribute));
        attribute.map_or("", |attribute| attribute.default)
    }
}

/// What all attributes of the elements of a cluster say, also those that are left out in a file.
pub(super) fn attribute_values(cluster: &Cluster) -> Vec<Value> {
    let Cluster {
        failover,
        health,
        sessions,
        socket,
        ..
    } = cluster;
    let loss = cluster
        .disconnect_notify
        .as_ref()
        .and_then(|notify| notify.on_member_loss);
    let owner = match (&socket.user, &socket.group) {
        (user, None) => user.clone().unwrap_or_default(),
        (user, Some(group)) => format!("{}:{group}", user.as_deref().unwrap_or("")),
    };
    let values = [
        (
            NOTIFY,
            "on_member_loss",
            loss.map_or_else(|| "off".to_owned(), |loss| Time(loss).to_string()),
        ),
        (
            "capacity_limit",
            "type",
            CAPACITY_LIMIT.word(cluster.capacity_limit).to_owned(),
        ),
        ("balancing", "policy", POLICY.word(cluster.policy).to_owned()),
        ("failover", "timeout", Time(failover.timeout).to_string()),
        ("failover", "attempts", failover.attempts.to_string()),
        ("health", "interval", Time(health.interval).to_string()),
        ("health", "timeout", Time(health.timeout).to_string()),
        ("health", "fall", health.fall.to_string()),
        ("health", "rise", health.rise.to_string()),
        ("health", "retry", Time(health.retry).to_string()),
        ("health", "slow_start", Time(health.slow_start).to_string()),
        ("sessions", "max", sessions.max.to_string()),
        ("sessions", "expire", Time(sessions.expire).to_string()),
        ("socket", "owner", owner),
        (
            "socket",
            "mode",
            socket.mode.map_or_else(String::new, |mode| format!("{mode:04o}")),
        ),
        (
            "no_members",
            "reply",
            NO_MEMBERS.word(cluster.no_members).to_owned(),
        ),
    ];
    values
        .into_iter()
        .map(|(element, attribute, text)| Value {
            element,
            attribute,
            text,
        })
        .collect()
}
