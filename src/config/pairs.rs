//! The `key=value` lists of the admin interface: the same keys, values and rules as the elements of a file.

use core::net::IpAddr;

use super::address::ADDRESS;
use super::elements::{Access, CLUSTER, Holder, MEMBER, Range, Times, children};
use super::fault::quoted;
use super::fields::{CAPACITY, PROTOCOL, ip_or_none, media, weight, wrong};
use super::hints::nearest;
use super::model::{Cluster, Family, Member, Protocol};

/// A key and what it stands for.
struct Key {
    name: &'static str,
    range: Range,
    is_required: bool,
    access: &'static Access,
}

impl Key {
    /// Those of the elements in `parent`, in the order of the table.
    fn of(parent: &str) -> impl Iterator<Item = Self> {
        children(parent).filter_map(|element| {
            Some(Self {
                name: element.name,
                range: element.range?,
                is_required: element.times == Times::Once,
                access: &element.access,
            })
        })
    }

    /// Those of attributes in a cluster that have one.
    fn of_tuning() -> impl Iterator<Item = Self> {
        let attributes = children(CLUSTER).flat_map(|element| element.attributes);
        attributes.filter_map(|attribute| {
            Some(Self {
                name: attribute.key?,
                range: attribute.range,
                is_required: false,
                access: &attribute.access,
            })
        })
    }
}

/// The keys of `modify … add`.
pub fn member_keys() -> Vec<&'static str> {
    Key::of(MEMBER).map(|key| key.name).collect()
}

/// The keys of `cluster add`.
pub fn cluster_keys() -> Vec<&'static str> {
    let keys = Key::of(CLUSTER).chain(Key::of_tuning());
    keys.map(|key| key.name).collect()
}

/// The keys of `modify … set`: what has no command of its own, and needs no other member.
pub fn setting_keys() -> Vec<&'static str> {
    let mut keys = member_keys();
    keys.retain(|key| !matches!(*key, "name" | "status"));
    keys
}

/// One key of `modify C set NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// 0 to 65535.
    Weight(u16),
    /// At least 1.
    Capacity(u32),
    /// None takes it away.
    WanAddress(Family),
    /// None takes it away.
    LanAddress(Family),
    /// `None` takes it away.
    CmdOutAddress(Option<IpAddr>),
    /// Only while nothing is bound; the two are checked together.
    Protocol(Protocol),
    /// Only while nothing is bound; text as written, read with the protocol that holds after the change.
    Address(String),
}

/// A member as `modify C add` describes it. Keys are taken in any case and order; `status` is ACTIVE where it is
/// left out, and an empty `wan_address`, `lan_address` or `cmd_out_address` is none.
///
/// # Errors
/// One line that names the key, the value and what would be right.
pub fn member_from_pairs(pairs: &[(&str, &str)]) -> Result<Member, String> {
    read(Member::blank(), Key::of(MEMBER).collect(), pairs)
}

/// A cluster without members as `cluster add` describes it.
///
/// # Errors
/// One line that names the key, the value and what would be right.
pub fn cluster_from_pairs(pairs: &[(&str, &str)]) -> Result<Cluster, String> {
    let keys = Key::of(CLUSTER).chain(Key::of_tuning()).collect();
    read(Cluster::blank(), keys, pairs)
}

/// Reads `pairs` into `it`, in the order of the table: what an address may be is for the protocol to say.
fn read<T: Holder>(mut it: T, keys: Vec<Key>, pairs: &[(&str, &str)]) -> Result<T, String> {
    let names: Vec<_> = keys.iter().map(|key| key.name).collect();
    let given = given(pairs, &names)?;
    for Key {
        name,
        range,
        is_required,
        access,
    } in keys
    {
        let value = given.iter().find(|(given, _)| *given == name);
        match (value, T::way(access)) {
            (Some((_, value)), Some(way)) => {
                (way.read)(&mut it, value).map_err(|want| wrong(name, value, &want))?;
            }
            (None, _) if is_required => {
                return Err(format!("{name} is missing: want {name}= and {range}"));
            }
            _ => {}
        }
    }
    Ok(it)
}

/// One pair of `modify C set NAME`. The text of an address is taken as it is: what it means depends on the
/// protocol that holds after all changes.
///
/// # Errors
/// One line that names the key, the value and what would be right.
pub fn setting_from_pair(key: &str, value: &str) -> Result<Setting, String> {
    let keys = setting_keys();
    let given = given(&[(key, value)], &keys).map_err(|fault| match key.to_lowercase().as_str() {
        "name" => "name: want another member, added under the new name".to_owned(),
        "status" => "status: want the commands suspend and resume".to_owned(),
        _ => fault,
    })?;
    let Some((key, value)) = given.first() else {
        return Err(unknown(key, &keys));
    };
    let setting = match *key {
        "weight" => weight(value).map(Setting::Weight),
        "capacity" => CAPACITY.read(value).map(Setting::Capacity),
        "wan_address" => media(value).map(Setting::WanAddress),
        "lan_address" => media(value).map(Setting::LanAddress),
        "cmd_out_address" => ip_or_none(value).map(Setting::CmdOutAddress),
        "protocol" => PROTOCOL.read(value).map(Setting::Protocol),
        _ if value.is_empty() => Err(ADDRESS.to_owned()),
        _ => Ok(Setting::Address((*value).to_owned())),
    };
    setting.map_err(|want| wrong(key, value, &want))
}

/// Pairs with known keys, none twice, values without the blanks around them.
fn given<'a>(
    pairs: &[(&str, &'a str)],
    known: &[&'static str],
) -> Result<Vec<(&'static str, &'a str)>, String> {
    let mut given: Vec<(&'static str, &'a str)> = Vec::new();
    for (key, value) in pairs {
        let key = key.trim();
        let name = known
            .iter()
            .find(|name| name.eq_ignore_ascii_case(key))
            .ok_or_else(|| unknown(key, known))?;
        if given.iter().any(|(before, _)| before == name) {
            return Err(format!("{name} is given twice: want it once"));
        }
        given.push((name, value.trim()));
    }
    Ok(given)
}

fn unknown(key: &str, known: &[&str]) -> String {
    let want = match nearest(key, known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("want {}", known.join(", ")),
    };
    format!("unknown key {}: {want}", quoted(key))
}

#[cfg(test)]
mod tests {
    use super::super::model::{CapacityLimit, Policy, Protocol, Status};
    use super::*;

    const PAIRS: &[(&str, &str)] = &[
        ("name", "another_proxy"),
        ("protocol", "udp"),
        ("address", "1.2.3.4:567"),
        ("capacity", "120"),
        ("weight", "300"),
    ];

    /// The member of the tests with one pair changed, or added.
    fn member(key: &str, value: &str) -> Result<Member, String> {
        let mut pairs: Vec<_> = PAIRS.iter().copied().filter(|(k, _)| *k != key).collect();
        pairs.push((key, value));
        member_from_pairs(&pairs)
    }

    #[test]
    fn a_member_is_made_of_its_five_keys() {
        let made = member_from_pairs(PAIRS).unwrap();
        assert_eq!(made.name.as_str(), "another_proxy");
        assert_eq!(made.protocol, Protocol::Udp);
        assert_eq!(made.address.to_string(), "1.2.3.4:567");
        assert_eq!(
            (made.capacity, made.weight, made.status),
            (120, 300, Status::Active)
        );
        assert_eq!(
            (made.wan_address, made.lan_address, made.cmd_out_address),
            (Family::default(), Family::default(), None)
        );
    }

    #[test]
    fn keys_come_in_any_case_and_order_and_the_optional_ones_where_wanted() {
        let made = member_from_pairs(&[
            (" WEIGHT ", " 0 "),
            ("Capacity", "1"),
            ("address", "/run/r.sock"),
            ("PROTOCOL", "Unix"),
            ("Name", "R"),
            ("status", "suspended"),
            ("wan_address", "203.0.113.4"),
            ("lan_address", ""),
        ])
        .unwrap();
        assert_eq!((made.weight, made.status), (0, Status::Suspended));
        assert_eq!(made.wan_address, [203, 0, 113, 4].into());
        assert_eq!(made.lan_address, Family::default());
    }

    #[test]
    fn each_refusal_says_what_would_be_right() {
        for (key, value, line) in [
            (
                "weight",
                "1e3",
                r#"weight "1e3": want a whole number from 0 to 65535"#,
            ),
            (
                "capacity",
                "0",
                r#"capacity "0": want a whole number from 1 to 2147483647"#,
            ),
            (
                "protocol",
                "sctp",
                r#"protocol "sctp": want UNIX, CUNIX, UDP, UDP6, TCP or TCP6"#,
            ),
            (
                "address",
                "[::1]",
                r#"address "[::1]": want IPv4:port or host:port, or protocol UDP6"#,
            ),
            (
                "name",
                "",
                "name is empty: want a name of 1 to 255 bytes without white space, comma, = or control character",
            ),
            (
                "status",
                "DRAINING",
                r#"status "DRAINING": want ACTIVE or SUSPENDED"#,
            ),
            (
                "wan_address",
                "media",
                r#"wan_address "media": want an IPv4 or IPv6 address, or one of each with white space between them"#,
            ),
            ("wieght", "1", r#"unknown key "wieght": did you mean weight?"#),
            (
                "colour",
                "red",
                "unknown key \"colour\": want name, protocol, address, weight, capacity, status, \
                               wan_address, lan_address, cmd_out_address",
            ),
        ] {
            assert_eq!(member(key, value).unwrap_err(), line);
        }
        let twice = [PAIRS, &[("Weight", "1")]].concat();
        assert_eq!(
            member_from_pairs(&twice).unwrap_err(),
            "weight is given twice: want it once"
        );
        let four = PAIRS.get(..4).unwrap();
        let missing = "weight is missing: want weight= and a whole number from 0 to 65535";
        assert_eq!(member_from_pairs(four).unwrap_err(), missing);
        assert!(
            member_from_pairs(&[])
                .unwrap_err()
                .starts_with("name is missing: ")
        );
    }

    #[test]
    fn a_cluster_is_made_of_three_keys_and_has_defaults_for_the_rest() {
        let pairs = [("name", "C"), ("protocol", "UDP6"), ("address", "::1")];
        let made = cluster_from_pairs(&pairs).unwrap();
        assert_eq!(made.address.to_string(), "[::1]:22222");
        assert_eq!(
            (made.capacity_limit, made.policy, made.members.len()),
            (CapacityLimit::Soft, Policy::Weighted, 0)
        );
        let more = [&pairs[..], &[("capacity_limit", "HARD"), ("policy", "hash")]].concat();
        let made = cluster_from_pairs(&more).unwrap();
        assert_eq!(
            (made.capacity_limit, made.policy),
            (CapacityLimit::Hard, Policy::Hash)
        );
        let line = cluster_from_pairs(&[("name", "C"), ("protocol", "UDP"), ("adress", "::1")]).unwrap_err();
        assert_eq!(line, r#"unknown key "adress": did you mean address?"#);
    }

    #[test]
    fn a_setting_changes_what_can_be_changed_in_place() {
        assert_eq!(setting_from_pair("WEIGHT", " 7 "), Ok(Setting::Weight(7)));
        assert_eq!(setting_from_pair("capacity", "9"), Ok(Setting::Capacity(9)));
        assert_eq!(
            setting_from_pair("wan_address", ""),
            Ok(Setting::WanAddress(Family::default()))
        );
        assert_eq!(
            setting_from_pair("lan_address", "::1"),
            Ok(Setting::LanAddress("::1".parse::<IpAddr>().unwrap().into()))
        );
        assert_eq!(
            setting_from_pair("cmd_out_address", ""),
            Ok(Setting::CmdOutAddress(None))
        );
        assert_eq!(
            setting_from_pair("protocol", "tcp"),
            Ok(Setting::Protocol(Protocol::Tcp))
        );
        assert_eq!(
            setting_from_pair("address", " ::1 "),
            Ok(Setting::Address("::1".to_owned()))
        );
        for (key, value, line) in [
            (
                "weight",
                "",
                "weight is empty: want a whole number from 0 to 65535",
            ),
            (
                "weight",
                "65536",
                r#"weight "65536": want a whole number from 0 to 65535"#,
            ),
            (
                "address",
                "",
                "address is empty: want a path, host:port or [IPv6]:port, as the protocol asks",
            ),
            ("Name", "x", "name: want another member, added under the new name"),
            ("status", "ACTIVE", "status: want the commands suspend and resume"),
            ("adress", "x", r#"unknown key "adress": did you mean address?"#),
        ] {
            assert_eq!(setting_from_pair(key, value).unwrap_err(), line);
        }
    }
}
