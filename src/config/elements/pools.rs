//! The row of `<rtpproxies>`, which is attributes only. Pure.

use super::super::address::{RESOLVER, SOUGHT, resolver, sought};
use super::super::fields::{CAPACITY, NAME, POOL_PROTOCOL, WEIGHT, name, weight};
use super::super::value::Value;
use super::{Access, Attribute, CLUSTER, Element, POOL, Times, Way, attribute, group, maybe, text};

/// A row's way into a pool.
macro_rules! of_pool {
    ($($way:tt)+) => { Access::Pool(way!($($way)+)) };
}

pub(super) const ELEMENT: Element = Element {
    attributes: ATTRIBUTES,
    ..group(
        POOL,
        CLUSTER,
        Times::Any,
        "Members that are found by a name: an RTPproxy at each of its addresses.",
    )
};

const ATTRIBUTES: &[Attribute] = &[
    attribute(
        "name",
        &NAME,
        "",
        "What the names of its members begin with, unique among such elements of the cluster.",
        of_pool!(|p, text| p.name = name(text)?, |p| text(&p.name)),
    ),
    attribute(
        "protocol",
        &POOL_PROTOCOL,
        "UDP",
        "How the RTPproxies' control sockets are spoken to; UDP6 and TCP6 take addresses of IPv6 alone.",
        of_pool!(POOL_PROTOCOL, protocol),
    ),
    attribute(
        "address",
        &SOUGHT,
        "",
        "The name that is looked up: of a host with all its addresses, or of a service.",
        of_pool!(|p, text| p.address = sought(text)?, |p| text(&p.address)),
    ),
    attribute(
        "weight",
        &WEIGHT,
        "100",
        "Share of new sessions of each; an SRV record's own wins.",
        of_pool!(|p, text| p.weight = weight(text)?, |p| Value::Whole(
            p.weight.into()
        )),
    ),
    attribute(
        "capacity",
        &CAPACITY,
        "2500",
        "Sessions that each should carry at most.",
        of_pool!(CAPACITY, capacity),
    ),
    attribute(
        "resolver",
        &RESOLVER,
        "",
        "The name server that is asked; otherwise those of the system.",
        of_pool!(|p, text| p.resolver = Some(resolver(text)?), |p| maybe(
            p.resolver
        )),
    ),
];
