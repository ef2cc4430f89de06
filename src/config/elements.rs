//! Everything that a configuration file can say, once: the parser takes its elements, its ranges and its hints
//! from [`ELEMENTS`], and the manual page is held to it.

use core::fmt;

use super::address::ADDRESS;
use super::fields::{
    ATTEMPTS, CAPACITY, CAPACITY_LIMIT, FAILOVER_TIMEOUT, INBOUND, IP, MEDIA, MODE, NAME, NO_MEMBERS,
    ON_MEMBER_LOSS, OWNER, POLICY, PREFIX, PROBE_INTERVAL, PROBE_TIMEOUT, PROBES, PROTOCOL, SESSIONS_EXPIRE,
    SESSIONS_MAX, SLOW_START, STATUS, WEIGHT,
};

/// What would be right, for a reader: prints `a whole number from 0 to 65535`.
pub type Range = &'static (dyn fmt::Display + Sync);

/// How often an element stands in its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Exactly once.
    Once,
    /// Once or not at all.
    AtMostOnce,
    /// As often as wanted.
    Any,
}

/// An element of the file.
#[derive(Clone, Copy)]
pub struct Element {
    /// `weight`
    pub name: &'static str,
    /// The element that it stands in; empty for the outermost.
    pub parent: &'static str,
    /// How often it stands there.
    pub times: Times,
    /// What its text may be; `None` where it has none of its own.
    pub range: Option<Range>,
    /// What holds when it is left out, as text; empty where nothing does.
    pub default: &'static str,
    /// What it is for, one line.
    pub meaning: &'static str,
    /// Its attributes, none of them required.
    pub attributes: &'static [Attribute],
}

/// An attribute of an element.
#[derive(Clone, Copy)]
pub struct Attribute {
    /// `interval`
    pub name: &'static str,
    /// What it may be.
    pub range: Range,
    /// What holds when it is left out, as text; empty where the command line says.
    pub default: &'static str,
    /// What it is for, one line.
    pub meaning: &'static str,
}

/// The outermost element.
pub(super) const ROOT: &str = "rtp_cluster_config";
/// A cluster.
pub(super) const CLUSTER: &str = "rtp_cluster";
/// A member of a cluster.
pub(super) const MEMBER: &str = "rtpproxy";
/// The relay of media time-outs.
pub(super) const NOTIFY: &str = "disconnect_notify";

/// All elements, each after its parent.
pub const ELEMENTS: &[Element] = &[
    group(ROOT, "", Times::Once, "The whole file."),
    group(
        CLUSTER,
        ROOT,
        Times::Any,
        "A cluster: one control socket for SIP servers, and the members behind it.",
    ),
    leaf(
        "name",
        CLUSTER,
        Times::Once,
        &NAME,
        "",
        "Name of the cluster, unique in the file.",
    ),
    leaf(
        "protocol",
        CLUSTER,
        Times::Once,
        &PROTOCOL,
        "",
        "How SIP servers speak to the cluster.",
    ),
    leaf(
        "address",
        CLUSTER,
        Times::Once,
        &ADDRESS,
        "",
        "Where SIP servers reach the cluster.",
    ),
    Element {
        attributes: &[Attribute {
            name: "on_member_loss",
            range: &ON_MEMBER_LOSS,
            default: "off",
            meaning: "After a member was offline that long, the SIP server is told of its sessions.",
        }],
        ..group(
            NOTIFY,
            CLUSTER,
            Times::AtMostOnce,
            "Relay of media time-outs from remote members to the SIP server.",
        )
    },
    leaf(
        "inbound_address",
        NOTIFY,
        Times::Once,
        &INBOUND,
        "",
        "Where members reach the relay over TCP.",
    ),
    leaf(
        "dest_socket_prefix",
        NOTIFY,
        Times::Once,
        &PREFIX,
        "",
        "What the SIP server's own sockets begin with.",
    ),
    tuning(
        "capacity_limit",
        "What happens when every member is at its capacity.",
        &[Attribute {
            name: "type",
            range: &CAPACITY_LIMIT,
            default: "soft",
            meaning: "soft: the least overloaded member takes the session; hard: it is refused.",
        }],
    ),
    tuning(
        "balancing",
        "How a member is chosen for a new session.",
        &[Attribute {
            name: "policy",
            range: &POLICY,
            default: "weighted",
            meaning: "By chance and weight, by the lowest load, or by a hash of the call-id.",
        }],
    ),
    tuning(
        "failover",
        "When a new session goes to the next best member.",
        &[
            Attribute {
                name: "timeout",
                range: &FAILOVER_TIMEOUT,
                default: "250ms",
                meaning: "The longest that one attempt but the last may take.",
            },
            Attribute {
                name: "attempts",
                range: &ATTEMPTS,
                default: "2",
                meaning: "All attempts for one session, the first among them.",
            },
        ],
    ),
    tuning(
        "health",
        "How members are probed.",
        &[
            Attribute {
                name: "interval",
                range: &PROBE_INTERVAL,
                default: "1s",
                meaning: "Between two probes of an online member.",
            },
            Attribute {
                name: "timeout",
                range: &PROBE_TIMEOUT,
                default: "1s",
                meaning: "How long the answer to a probe may take.",
            },
            Attribute {
                name: "fall",
                range: &PROBES,
                default: "2",
                meaning: "Failed probes in a row that take a member offline.",
            },
            Attribute {
                name: "rise",
                range: &PROBES,
                default: "1",
                meaning: "Answered probes in a row that bring it back.",
            },
            Attribute {
                name: "retry",
                range: &PROBE_INTERVAL,
                default: "2s",
                meaning: "Between two probes of an offline member.",
            },
            Attribute {
                name: "slow_start",
                range: &SLOW_START,
                default: "0s",
                meaning: "Over how long the share of a member that came back grows to the whole.",
            },
        ],
    ),
    tuning(
        "sessions",
        "Bounds of the session table.",
        &[
            Attribute {
                name: "max",
                range: &SESSIONS_MAX,
                default: "1000000",
                meaning: "Call-ids that are remembered at most; further calls are served without.",
            },
            Attribute {
                name: "expire",
                range: &SESSIONS_EXPIRE,
                default: "12h",
                meaning: "A call-id is forgotten so long after its last command.",
            },
        ],
    ),
    tuning(
        "socket",
        "Rights of the cluster's UNIX or CUNIX control socket.",
        &[
            Attribute {
                name: "owner",
                range: &OWNER,
                default: "",
                meaning: "User and group that own it; otherwise those of the command line.",
            },
            Attribute {
                name: "mode",
                range: &MODE,
                default: "",
                meaning: "Its permission bits; otherwise those of the command line.",
            },
        ],
    ),
    tuning(
        "no_members",
        "What a command gets when no member is online.",
        &[Attribute {
            name: "reply",
            range: &NO_MEMBERS,
            default: "error",
            meaning: "error: E999; silent: the connection is closed, a datagram dropped.",
        }],
    ),
    group(
        MEMBER,
        CLUSTER,
        Times::Any,
        "A member of the cluster: one RTPproxy.",
    ),
    leaf(
        "name",
        MEMBER,
        Times::Once,
        &NAME,
        "",
        "Name of the member, unique in its cluster.",
    ),
    leaf(
        "protocol",
        MEMBER,
        Times::Once,
        &PROTOCOL,
        "",
        "How the RTPproxy's control socket is spoken to.",
    ),
    leaf(
        "address",
        MEMBER,
        Times::Once,
        &ADDRESS,
        "",
        "Where the RTPproxy's control socket is.",
    ),
    leaf(
        "weight",
        MEMBER,
        Times::Once,
        &WEIGHT,
        "",
        "Share of new sessions; 0 is standby.",
    ),
    leaf(
        "capacity",
        MEMBER,
        Times::Once,
        &CAPACITY,
        "",
        "Sessions that it should carry at most.",
    ),
    leaf(
        "status",
        MEMBER,
        Times::AtMostOnce,
        &STATUS,
        "ACTIVE",
        "Whether it takes new sessions.",
    ),
    leaf(
        "wan_address",
        MEMBER,
        Times::AtMostOnce,
        &MEDIA,
        "",
        "Replaces the address in its replies.",
    ),
    leaf(
        "lan_address",
        MEMBER,
        Times::AtMostOnce,
        &MEDIA,
        "",
        "Goes to it as the local address of each session.",
    ),
    leaf(
        "cmd_out_address",
        MEMBER,
        Times::AtMostOnce,
        &IP,
        "",
        "Source address of our commands to it.",
    ),
];

const fn group(name: &'static str, parent: &'static str, times: Times, meaning: &'static str) -> Element {
    Element {
        name,
        parent,
        times,
        range: None,
        default: "",
        meaning,
        attributes: &[],
    }
}

const fn leaf(
    name: &'static str,
    parent: &'static str,
    times: Times,
    range: Range,
    default: &'static str,
    meaning: &'static str,
) -> Element {
    Element {
        name,
        parent,
        times,
        range: Some(range),
        default,
        meaning,
        attributes: &[],
    }
}

const fn tuning(name: &'static str, meaning: &'static str, attributes: &'static [Attribute]) -> Element {
    Element {
        attributes,
        ..group(name, CLUSTER, Times::AtMostOnce, meaning)
    }
}

/// The elements that may stand in `parent`, in the order of the table.
pub(super) fn children(parent: &str) -> impl Iterator<Item = &'static Element> {
    ELEMENTS.iter().filter(move |element| element.parent == parent)
}

/// The element `name` of `parent`.
pub(super) fn find(parent: &str, name: &str) -> Option<&'static Element> {
    children(parent).find(|element| element.name == name)
}

/// What to say of an element that is unknown in `parent`.
pub(super) fn unknown_element(parent: &Element, name: &str) -> String {
    let start = format!("unknown element <{name}>");
    if parent.attributes.iter().any(|attribute| attribute.name == name) {
        return format!("{start}: want an attribute, <{} {name}=\"…\"/>", parent.name);
    }
    if let Some(known) = ELEMENTS.iter().find(|element| element.name == name) {
        let place = if known.parent.is_empty() {
            "outermost".to_owned()
        } else {
            format!("in <{}>", known.parent)
        };
        return format!("<{name}> does not belong in <{}>: want it {place}", parent.name);
    }
    let known: Vec<_> = children(parent.name).map(|element| element.name).collect();
    match nearest(name, &known) {
        Some(near) => format!("{start}: did you mean <{near}>?"),
        None if known.is_empty() => format!("{start}: want no element in <{}>", parent.name),
        None => format!("{start}: want <{}>", known.join(">, <")),
    }
}

/// What to say of an attribute that `element` does not have.
pub(super) fn unknown_attribute(element: &Element, name: &str) -> String {
    let start = format!("<{}> has no attribute {name}", element.name);
    if find(element.name, name).is_some() {
        return format!("{start}: want an element, <{name}>…</{name}>");
    }
    let known: Vec<_> = element
        .attributes
        .iter()
        .map(|attribute| attribute.name)
        .collect();
    match nearest(name, &known) {
        Some(near) => format!("{start}: did you mean {near}?"),
        None if known.is_empty() => format!("{start}: want none"),
        None => format!("{start}: want {}", known.join(", ")),
    }
}

/// Longest word that is compared; the cost grows with the square.
const WORD_MAX: usize = 64;

/// The word of `known` that `word` was probably meant to be: at most a third of it is different.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let far = |candidate: &&&str| distance(&word, candidate);
    let near = known.iter().min_by_key(far)?;
    (distance(&word, near) <= near.len().div_ceil(3)).then_some(*near)
}

/// Insertions, deletions and replacements that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    // A row of the usual table: how far the beginning of `a` so far is from each beginning of `b`.
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (n, x) in a.chars().enumerate() {
        let mut left = n + 1;
        let mut next = vec![left];
        for ((y, &diagonal), &above) in b.chars().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.pop().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_stands_after_its_parent_once() {
        for (n, element) in ELEMENTS.iter().enumerate() {
            let before = &ELEMENTS[..n];
            assert!(
                n == 0 || before.iter().any(|e| e.name == element.parent),
                "<{}>",
                element.name
            );
            assert!(
                !before
                    .iter()
                    .any(|e| (e.name, e.parent) == (element.name, element.parent)),
                "<{}>",
                element.name
            );
        }
    }

    #[test]
    fn the_distance_of_words() {
        for (a, b, far) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("wieght", "weight", 2),
        ] {
            assert_eq!(distance(a, b), far);
            assert_eq!(distance(b, a), far);
        }
    }

    #[test]
    fn a_slip_is_answered_with_the_word_that_was_meant() {
        let known = ["name", "weight", "capacity", "wan_address", "lan_address"];
        for (slip, meant) in [
            ("wieght", "weight"),
            ("WEIGHT", "weight"),
            ("wanaddress", "wan_address"),
        ] {
            assert_eq!(nearest(slip, &known), Some(meant));
        }
        assert_eq!(nearest("priority", &known), None);
        assert_eq!(nearest(&"weight".repeat(1_000), &known), None);
        assert_eq!(nearest("weight", &[]), None);
    }

    #[test]
    fn what_stands_in_the_wrong_place_is_sent_to_the_right_one() {
        let element = |parent, name| find(parent, name).unwrap();
        let (cluster, health) = (element(ROOT, CLUSTER), element(CLUSTER, "health"));
        assert_eq!(
            unknown_element(cluster, "weight"),
            "<weight> does not belong in <rtp_cluster>: want it in <rtpproxy>"
        );
        assert_eq!(
            unknown_element(health, "fall"),
            "unknown element <fall>: want an attribute, <health fall=\"…\"/>"
        );
        assert_eq!(
            unknown_element(health, "x"),
            "unknown element <x>: want no element in <health>"
        );
        assert_eq!(
            unknown_attribute(cluster, "name"),
            "<rtp_cluster> has no attribute name: want an element, <name>…</name>"
        );
        assert_eq!(
            unknown_attribute(health, "intervall"),
            "<health> has no attribute intervall: did you mean interval?"
        );
        assert_eq!(
            unknown_attribute(cluster, "id"),
            "<rtp_cluster> has no attribute id: want none"
        );
    }
}
