//! Everything that a configuration file can say, once: [`ELEMENTS`] has a row for each element and attribute, with
//! how its value is read and shown. The parser, the writer, the comparison, the keys of the admin interface and its
//! JSON go through the rows, and the manual page is held to them.

use core::fmt;

use super::address::{ADDRESS, INBOUND, inbound, read as address};
use super::fields::{
    ATTEMPTS, CAPACITY, CAPACITY_LIMIT, FAILOVER_TIMEOUT, IP, MEDIA, MODE, NAME, NO_MEMBERS, NOTIFY_TCP,
    ON_MEMBER_LOSS, OWNER, POLICY, PREFIX, PROBE_INTERVAL, PROBE_TIMEOUT, PROBES, PROTOCOL, SLOW_START,
    STATUS, WEIGHT, Want, ip_or_none, media, mode, name, owner, owner_text, prefix, weight,
};
use super::model::{Cluster, Member, NotifyTcp, Pool};
use super::value::Value;

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
    pub(super) access: Access,
}

/// An attribute of an element.
pub struct Attribute {
    /// `interval`
    pub name: &'static str,
    /// What it may be.
    pub range: Range,
    /// What holds when it is left out, as text; empty where the command line says.
    pub default: &'static str,
    /// What it is for, one line.
    pub meaning: &'static str,
    /// Its key in `cluster add`, where it has one.
    pub(super) key: Option<&'static str>,
    pub(super) access: Access,
}

impl Element {
    /// What `it` says of the element; `None` where the element has no text or is not of a `T`.
    pub fn value<T: Holder>(&self, it: &T) -> Option<Value> {
        T::way(&self.access).map(|way| (way.get)(it))
    }

    /// The elements that stand in it, in the order of the table.
    pub fn children(&self) -> impl Iterator<Item = &'static Self> + use<> {
        children(self.name)
    }
}

impl Attribute {
    /// What `it` says of the attribute, also where that is the default.
    pub fn value<T: Holder>(&self, it: &T) -> Value {
        T::way(&self.access).map_or(Value::None, |way| (way.get)(it))
    }
}

/// How a value gets into a `T` and out of it.
pub struct Way<T> {
    pub(super) read: fn(&mut T, &str) -> Result<(), Want>,
    pub(super) get: fn(&T) -> Value,
}

/// Whose value it is.
pub(super) enum Access {
    Nothing,
    Cluster(Way<Cluster>),
    Member(Way<Member>),
    Pool(Way<Pool>),
}

/// A cluster, a member or a pool: what rows of the table read into and show.
pub trait Holder: Sized {
    #[doc(hidden)]
    #[expect(
        private_interfaces,
        reason = "only this room reads into a holder; others ask for its values"
    )]
    fn way(access: &Access) -> Option<&Way<Self>>;
}

macro_rules! holders {
    ($($of:ident)+) => { $(
        impl Holder for $of {
            #[expect(private_interfaces, reason = "as the trait")]
            fn way(access: &Access) -> Option<&Way<Self>> {
                match access {
                    Access::$of(way) => Some(way),
                    _ => None,
                }
            }
        }
    )+ };
}

holders!(Cluster Member Pool);

/// A row's way into a cluster: the kind of value and the field, or how to read it and how to show it.
macro_rules! of_cluster {
    ($($way:tt)+) => { Access::Cluster(way!($($way)+)) };
}

/// Likewise of a member.
macro_rules! of_member {
    ($($way:tt)+) => { Access::Member(way!($($way)+)) };
}

macro_rules! way {
    (|$it:ident, $text:ident| $read:expr, |$of:ident| $show:expr) => {
        Way {
            read: |$it, $text| {
                $read;
                Ok(())
            },
            get: |$of| $show,
        }
    };
    ($kind:ident, $($field:ident).+) => {
        way!(|it, text| it.$($field).+ = $kind.read(text)?, |it| $kind.value(it.$($field).+))
    };
}

mod pools;
mod sessions;

/// The outermost element.
pub(super) const ROOT: &str = "rtp_cluster_config";
/// A cluster.
pub const CLUSTER: &str = "rtp_cluster";
/// A member of a cluster.
pub const MEMBER: &str = "rtpproxy";
/// Members that are found by a name.
pub const POOL: &str = "rtpproxies";
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
        "Name of the cluster, unique in the file.",
        of_cluster!(|c, text| c.name = name(text)?, |c| text(&c.name)),
    ),
    leaf(
        "protocol",
        CLUSTER,
        Times::Once,
        &PROTOCOL,
        "How SIP servers speak to the cluster.",
        of_cluster!(PROTOCOL, protocol),
    ),
    leaf(
        "address",
        CLUSTER,
        Times::Once,
        &ADDRESS,
        "Where SIP servers reach the cluster.",
        of_cluster!(|c, text| c.address = address(c.protocol, text)?, |c| text(
            &c.address
        )),
    ),
    Element {
        attributes: &[
            attribute(
                "on_member_loss",
                &ON_MEMBER_LOSS,
                "off",
                "After a member was offline that long, the SIP server is told of its sessions.",
                of_cluster!(
                    |c, text| c.notify().on_member_loss = ON_MEMBER_LOSS.read(text)?,
                    |c| ON_MEMBER_LOSS.value(c.disconnect_notify.as_ref().and_then(|n| n.on_member_loss))
                ),
            ),
            attribute(
                "tcp",
                &NOTIFY_TCP,
                "pass",
                "Whether a notification socket over TCP is relayed to as well.",
                of_cluster!(|c, text| c.notify().tcp = NOTIFY_TCP.read(text)?, |c| NOTIFY_TCP
                    .value(
                        c.disconnect_notify
                            .as_ref()
                            .map_or(NotifyTcp::default(), |n| n.tcp)
                    )),
            ),
        ],
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
        "Where members reach the relay over TCP.",
        of_cluster!(|c, text| c.notify().inbound_address = inbound(text)?, |c| maybe(
            c.disconnect_notify.as_ref().map(|n| n.inbound_address)
        )),
    ),
    leaf(
        "dest_socket_prefix",
        NOTIFY,
        Times::Once,
        &PREFIX,
        "What the SIP server's own sockets begin with.",
        of_cluster!(
            |c, text| c.notify().dest_socket_prefix = prefix(text)?,
            |c| maybe(c.disconnect_notify.as_ref().map(|n| &n.dest_socket_prefix))
        ),
    ),
    tuning(
        "capacity_limit",
        "What happens when every member is at its capacity.",
        &[Attribute {
            key: Some("capacity_limit"),
            ..attribute(
                "type",
                &CAPACITY_LIMIT,
                "soft",
                "soft: the least overloaded member takes the session; hard: it is refused.",
                of_cluster!(CAPACITY_LIMIT, capacity_limit),
            )
        }],
    ),
    tuning(
        "balancing",
        "How a member is chosen for a new session.",
        &[Attribute {
            key: Some("policy"),
            ..attribute(
                "policy",
                &POLICY,
                "weighted",
                "By chance and weight, by the lowest load, or by a hash of the call-id.",
                of_cluster!(POLICY, policy),
            )
        }],
    ),
    tuning(
        "failover",
        "When a new session goes to the next best member.",
        &[
            attribute(
                "timeout",
                &FAILOVER_TIMEOUT,
                "250ms",
                "The longest that one attempt but the last may take.",
                of_cluster!(FAILOVER_TIMEOUT, failover.timeout),
            ),
            attribute(
                "attempts",
                &ATTEMPTS,
                "4",
                "All attempts for one session, the first among them.",
                of_cluster!(ATTEMPTS, failover.attempts),
            ),
        ],
    ),
    tuning(
        "health",
        "How members are probed.",
        &[
            attribute(
                "interval",
                &PROBE_INTERVAL,
                "1s",
                "Between two probes of an online member.",
                of_cluster!(PROBE_INTERVAL, health.interval),
            ),
            attribute(
                "timeout",
                &PROBE_TIMEOUT,
                "1s",
                "How long the answer to a probe may take.",
                of_cluster!(PROBE_TIMEOUT, health.timeout),
            ),
            attribute(
                "fall",
                &PROBES,
                "2",
                "Failed probes in a row that take a member offline.",
                of_cluster!(PROBES, health.fall),
            ),
            attribute(
                "rise",
                &PROBES,
                "1",
                "Answered probes in a row that bring it back.",
                of_cluster!(PROBES, health.rise),
            ),
            attribute(
                "retry",
                &PROBE_INTERVAL,
                "2s",
                "Between two probes of an offline member.",
                of_cluster!(PROBE_INTERVAL, health.retry),
            ),
            attribute(
                "slow_start",
                &SLOW_START,
                "0s",
                "Over how long the share of a member that came back grows to the whole.",
                of_cluster!(SLOW_START, health.slow_start),
            ),
        ],
    ),
    sessions::ELEMENT,
    tuning(
        "socket",
        "Rights of the cluster's UNIX or CUNIX control socket.",
        &[
            attribute(
                "owner",
                &OWNER,
                "",
                "User and group that own it; otherwise those of the command line.",
                of_cluster!(|c, text| owner(text, &mut c.socket)?, |c| maybe(owner_text(
                    &c.socket
                ))),
            ),
            attribute(
                "mode",
                &MODE,
                "",
                "Its permission bits; otherwise those of the command line.",
                of_cluster!(|c, text| c.socket.mode = Some(mode(text)?), |c| maybe(
                    c.socket.mode.map(|mode| format!("{mode:04o}"))
                )),
            ),
        ],
    ),
    tuning(
        "no_members",
        "What a command gets when no member is online.",
        &[attribute(
            "reply",
            &NO_MEMBERS,
            "error",
            "error: E999; silent: the connection is closed, a datagram dropped.",
            of_cluster!(NO_MEMBERS, no_members),
        )],
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
        "Name of the member, unique in its cluster.",
        of_member!(|m, text| m.name = name(text)?, |m| text(&m.name)),
    ),
    leaf(
        "protocol",
        MEMBER,
        Times::Once,
        &PROTOCOL,
        "How the RTPproxy's control socket is spoken to.",
        of_member!(PROTOCOL, protocol),
    ),
    leaf(
        "address",
        MEMBER,
        Times::Once,
        &ADDRESS,
        "Where the RTPproxy's control socket is.",
        of_member!(|m, text| m.address = address(m.protocol, text)?, |m| text(
            &m.address
        )),
    ),
    leaf(
        "weight",
        MEMBER,
        Times::Once,
        &WEIGHT,
        "Share of new sessions; 0 is standby.",
        of_member!(|m, text| m.weight = weight(text)?, |m| Value::Whole(
            m.weight.into()
        )),
    ),
    leaf(
        "capacity",
        MEMBER,
        Times::Once,
        &CAPACITY,
        "Sessions that it should carry at most.",
        of_member!(CAPACITY, capacity),
    ),
    Element {
        default: "ACTIVE",
        ..leaf(
            "status",
            MEMBER,
            Times::AtMostOnce,
            &STATUS,
            "Whether it takes new sessions.",
            of_member!(STATUS, status),
        )
    },
    leaf(
        "wan_address",
        MEMBER,
        Times::AtMostOnce,
        &MEDIA,
        "Replaces the address in its replies.",
        of_member!(|m, text| m.wan_address = media(text)?, |m| maybe(
            m.wan_address.some()
        )),
    ),
    leaf(
        "lan_address",
        MEMBER,
        Times::AtMostOnce,
        &MEDIA,
        "Goes to it as the local address of each session.",
        of_member!(|m, text| m.lan_address = media(text)?, |m| maybe(
            m.lan_address.some()
        )),
    ),
    leaf(
        "cmd_out_address",
        MEMBER,
        Times::AtMostOnce,
        &IP,
        "Source address of our commands to it.",
        of_member!(|m, text| m.cmd_out_address = ip_or_none(text)?, |m| maybe(
            m.cmd_out_address
        )),
    ),
    pools::ELEMENT,
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
        access: Access::Nothing,
    }
}

const fn leaf(
    name: &'static str,
    parent: &'static str,
    times: Times,
    range: Range,
    meaning: &'static str,
    access: Access,
) -> Element {
    Element {
        range: Some(range),
        access,
        ..group(name, parent, times, meaning)
    }
}

const fn tuning(name: &'static str, meaning: &'static str, attributes: &'static [Attribute]) -> Element {
    Element {
        attributes,
        ..group(name, CLUSTER, Times::AtMostOnce, meaning)
    }
}

const fn attribute(
    name: &'static str,
    range: Range,
    default: &'static str,
    meaning: &'static str,
    access: Access,
) -> Attribute {
    Attribute {
        name,
        range,
        default,
        meaning,
        key: None,
        access,
    }
}

fn text(value: &impl fmt::Display) -> Value {
    Value::Text(value.to_string())
}

fn maybe(value: Option<impl fmt::Display>) -> Value {
    value.map_or(Value::None, |value| text(&value))
}

/// The elements that may stand in `parent`, in the order of the table.
pub fn children(parent: &str) -> impl Iterator<Item = &'static Element> {
    ELEMENTS.iter().filter(move |element| element.parent == parent)
}

/// The element `name` of `parent`.
pub(super) fn find(parent: &str, name: &str) -> Option<&'static Element> {
    children(parent).find(|element| element.name == name)
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
}
