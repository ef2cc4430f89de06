//! The `key=value` lists of the admin interface: the same keys, values and rules as the elements of a file.

use core::fmt;
use core::net::IpAddr;

use super::address::{self, ADDRESS};
use super::elements::nearest;
use super::fault::quoted;
use super::fields::{
    CAPACITY, CAPACITY_LIMIT, NAME, POLICY, PROTOCOL, STATUS, WEIGHT, Want, ip, media, name, wrong,
};
use super::model::{Cluster, Family, Member, Protocol};

const MEMBER_KEYS: &[&str] = &[
    "name",
    "protocol",
    "address",
    "capacity",
    "weight",
    "status",
    "wan_address",
    "lan_address",
    "cmd_out_address",
];
const CLUSTER_KEYS: &[&str] = &["name", "protocol", "address", "capacity_limit", "policy"];
const SETTING_KEYS: &[&str] = &[
    "weight",
    "capacity",
    "wan_address",
    "lan_address",
    "cmd_out_address",
    "protocol",
    "address",
];

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
    let given = Given::new(pairs, MEMBER_KEYS)?;
    let name = given.required("name", &NAME, name)?;
    let protocol = given.required("protocol", &PROTOCOL, |text| PROTOCOL.read(text))?;
    Ok(Member {
        name,
        protocol,
        address: given.required("address", &ADDRESS, |text| address::read(protocol, text))?,
        capacity: given.required("capacity", &CAPACITY, |text| CAPACITY.read(text))?,
        weight: given.required("weight", &WEIGHT, weight)?,
        status: given
            .optional("status", |text| STATUS.read(text))?
            .unwrap_or_default(),
        wan_address: given.optional("wan_address", media)?.unwrap_or_default(),
        lan_address: given.optional("lan_address", media)?.unwrap_or_default(),
        cmd_out_address: given.optional("cmd_out_address", ip_or_none)?.flatten(),
    })
}

/// A cluster without members as `cluster add` describes it.
///
/// # Errors
/// One line that names the key, the value and what would be right.
pub fn cluster_from_pairs(pairs: &[(&str, &str)]) -> Result<Cluster, String> {
    let given = Given::new(pairs, CLUSTER_KEYS)?;
    let name = given.required("name", &NAME, name)?;
    let protocol = given.required("protocol", &PROTOCOL, |text| PROTOCOL.read(text))?;
    let address = given.required("address", &ADDRESS, |text| address::read(protocol, text))?;
    Ok(Cluster {
        capacity_limit: given
            .optional("capacity_limit", |text| CAPACITY_LIMIT.read(text))?
            .unwrap_or_default(),
        policy: given
            .optional("policy", |text| POLICY.read(text))?
            .unwrap_or_default(),
        ..Cluster::new(name, protocol, address)
    })
}

/// One pair of `modify C set NAME`. The text of an address is taken as it is: what it means depends on the
/// protocol that holds after all changes.
///
/// # Errors
/// One line that names the key, the value and what would be right.
pub fn setting_from_pair(key: &str, value: &str) -> Result<Setting, String> {
    let given =
        Given::new(&[(key, value)], SETTING_KEYS).map_err(|fault| match key.to_lowercase().as_str() {
            "name" => "name: want another member, added under the new name".to_owned(),
            "status" => "status: want the commands suspend and resume".to_owned(),
            _ => fault,
        })?;
    let Some((key, value)) = given.0.first() else {
        return Err(unknown(key, SETTING_KEYS));
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

/// Reads a weight as a member has it.
pub(super) fn weight(text: &str) -> Result<u16, Want> {
    u16::try_from(WEIGHT.read(text)?).map_err(|_| WEIGHT.to_string())
}

/// Reads an address that may be none.
pub(super) fn ip_or_none(text: &str) -> Result<Option<IpAddr>, Want> {
    if text.trim().is_empty() {
        Ok(None)
    } else {
        ip(text).map(Some)
    }
}

/// Pairs with known keys, none twice, values without the blanks around them.
struct Given<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Given<'a> {
    fn new(pairs: &[(&str, &'a str)], known: &'static [&str]) -> Result<Self, String> {
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
        Ok(Self(given))
    }

    fn optional<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, Want>) -> Result<Option<T>, String> {
        let given = self.0.iter().find(|(name, _)| *name == key);
        given
            .map(|(_, value)| read(value).map_err(|want| wrong(key, value, &want)))
            .transpose()
    }

    fn required<T>(
        &self,
        key: &str,
        range: &dyn fmt::Display,
        read: impl Fn(&str) -> Result<T, Want>,
    ) -> Result<T, String> {
        self.optional(key, read)?
            .ok_or_else(|| format!("{key} is missing: want {key}= and {range}"))
    }
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
    use crate::admin::commands::{COMMANDS, Kind};

    #[test]
    fn the_usage_of_a_command_names_its_keys_and_no_others() {
        for (kind, keys) in [(Kind::Add, MEMBER_KEYS), (Kind::ClusterAdd, CLUSTER_KEYS)] {
            let entry = COMMANDS.iter().find(|entry| entry.kind == kind).unwrap();
            let pairs = entry
                .usage
                .split([' ', ',', '['])
                .filter(|word| word.contains('='));
            let named: Vec<&str> = pairs.filter_map(|pair| pair.split('=').next()).collect();
            assert_eq!(named, keys, "{}", entry.usage);
        }
        let set = COMMANDS.iter().find(|entry| entry.kind == Kind::Set).unwrap();
        for key in SETTING_KEYS {
            assert!(set.help.contains(key), "{key}: {}", set.help);
        }
    }

    const MEMBER: &[(&str, &str)] = &[
        ("name", "another_proxy"),
        ("protocol", "udp"),
        ("address", "1.2.3.4:567"),
        ("capacity", "120"),
        ("weight", "300"),
    ];

    /// The member of the tests with one pair changed, or added.
    fn member(key: &str, value: &str) -> Result<Member, String> {
        let mut pairs: Vec<_> = MEMBER.iter().copied().filter(|(k, _)| *k != key).collect();
        pairs.push((key, value));
        member_from_pairs(&pairs)
    }

    #[test]
    fn a_member_is_made_of_its_five_keys() {
        let made = member_from_pairs(MEMBER).unwrap();
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
                "unknown key \"colour\": want name, protocol, address, capacity, weight, status, \
                               wan_address, lan_address, cmd_out_address",
            ),
        ] {
            assert_eq!(member(key, value).unwrap_err(), line);
        }
        let twice = [MEMBER, &[("Weight", "1")]].concat();
        assert_eq!(
            member_from_pairs(&twice).unwrap_err(),
            "weight is given twice: want it once"
        );
        let four = MEMBER.get(..4).unwrap();
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
