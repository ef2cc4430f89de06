//! A configuration as a file: what loads back to the same value. Elements that would say what holds anyway are
//! left out, so that the file shows what somebody decided.

use core::fmt;

use super::elements::{CLUSTER, Element, Holder, MEMBER, POOL, ROOT, children};
use super::model::{Cluster, Config};
use super::value::Value;

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
    write_leaves(f, "    ", CLUSTER, cluster)?;
    let is_own = |element: &&Element| !element.attributes.is_empty() && element.name != POOL;
    for element in children(CLUSTER).filter(is_own) {
        let said = element
            .attributes
            .iter()
            .map(|a| (a, a.value(cluster).to_string()));
        let changed: Vec<_> = said.filter(|(a, text)| text != a.default).collect();
        let is_said = |leaf: &Element| leaf.value(cluster).is_some_and(|value| value != Value::None);
        let has_leaves = element.children().any(is_said);
        if changed.is_empty() && !has_leaves {
            continue;
        }
        write!(f, "    <{}", element.name)?;
        for (attribute, text) in changed {
            write!(f, " {}=\"{}\"", attribute.name, escaped(&text))?;
        }
        if has_leaves {
            writeln!(f, ">")?;
            write_leaves(f, "      ", element.name, cluster)?;
            writeln!(f, "    </{}>", element.name)?;
        } else {
            writeln!(f, "/>")?;
        }
    }
    for member in &cluster.members {
        writeln!(f, "    <{MEMBER}>")?;
        write_leaves(f, "      ", MEMBER, member)?;
        writeln!(f, "    </{MEMBER}>")?;
    }
    for element in children(CLUSTER).filter(|element| element.name == POOL) {
        for pool in &cluster.pools {
            write!(f, "    <{POOL}")?;
            for attribute in element.attributes {
                let value = attribute.value(pool).to_string();
                if value != attribute.default {
                    write!(f, " {}=\"{}\"", attribute.name, escaped(&value))?;
                }
            }
            writeln!(f, "/>")?;
        }
    }
    writeln!(f, "  </{CLUSTER}>")
}

/// The elements of `parent` that have a text. The status of a member is written whatever it is: the Python
/// rtp_cluster needs it, and it is what an operator looks for.
fn write_leaves<T: Holder>(f: &mut fmt::Formatter<'_>, indent: &str, parent: &str, it: &T) -> fmt::Result {
    for element in children(parent) {
        let name = element.name;
        match element.value(it) {
            None | Some(Value::None) => {}
            Some(value) => writeln!(f, "{indent}<{name}>{}</{name}>", escaped(&value.to_string()))?,
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use core::time::Duration;
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::{collection, option, sample};

    use super::super::diff::diff;
    use super::super::model::{
        Address, DisconnectNotify, Failover, Family, Health, Member, Name, Pool, Protocol, Sessions,
        SocketRights, Sought,
    };
    use super::super::{Faults, Parsed, check_cluster_fits, check_member_fits, parse};
    use super::super::{address, fields, pairs};
    use super::*;

    fn read(text: &str) -> Result<Parsed, Faults> {
        parse(Path::new("f.xml"), text.as_bytes())
    }

    #[test]
    fn what_holds_anyway_is_not_written() {
        let pairs = [("name", "C1"), ("protocol", "unix"), ("address", "/run/c1.sock")];
        let config = Config {
            clusters: vec![pairs::cluster_from_pairs(&pairs).unwrap()],
        };
        let expected = format!(
            "{HEADER}<rtp_cluster_config>\n  <rtp_cluster>\n    <name>C1</name>\n    <protocol>UNIX</protocol>\n    \
             <address>/run/c1.sock</address>\n  </rtp_cluster>\n</rtp_cluster_config>\n"
        );
        assert_eq!(write(&config), expected);
    }

    #[test]
    fn an_empty_configuration_is_a_file_too() {
        assert_eq!(
            read(&write(&Config::default())).unwrap().config,
            Config::default()
        );
    }

    fn name() -> impl Strategy<Value = Name> {
        // Everything that could end an element, an attribute or the file; and anything else.
        let text = prop_oneof!["[A-Za-z0-9#_.-]{1,12}", "[<>&\"'\\]!\\[/?;-]{1,12}", "\\PC{1,20}"];
        text.prop_filter_map("no name", |text| Name::new(&text))
    }

    fn socket() -> impl Strategy<Value = (Protocol, Address)> {
        let of = |protocols: &'static [Protocol]| sample::select(protocols);
        let host = "[a-z]([a-z0-9_-]{0,9}[a-z]\\.){0,2}[a-z]{1,9}";
        let v4 = prop_oneof![any::<Ipv4Addr>().prop_map(|ip| ip.to_string()), host];
        let v6 = prop_oneof![any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]")), host];
        let port = |host: String, port: u16| format!("{host}:{port}");
        let ports = 1..=u16::MAX;
        let path = prop_oneof!["/\\PC{1,26}", "[!-~]([ -~]{0,105}[!-~])?"];
        prop_oneof![
            (of(&[Protocol::Unix, Protocol::Cunix]), path),
            (
                of(&[Protocol::Udp, Protocol::Tcp]),
                (v4, ports.clone()).prop_map(move |(h, p)| port(h, p))
            ),
            (
                of(&[Protocol::Udp6, Protocol::Tcp6]),
                (v6, ports).prop_map(move |(h, p)| port(h, p))
            ),
        ]
        .prop_filter_map("no address", |(protocol, text)| {
            Some((protocol, address::address(protocol, &text).ok()?))
        })
    }

    fn millis(range: fields::Span) -> impl Strategy<Value = Duration> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap();
        prop_oneof![millis(range.min)..=millis(range.max), Just(millis(range.max))]
            .prop_map(Duration::from_millis)
    }

    fn whole(range: fields::Whole) -> impl Strategy<Value = u32> {
        range.min..=range.max
    }

    fn media() -> impl Strategy<Value = Family> {
        any::<(Option<Ipv4Addr>, Option<Ipv6Addr>)>().prop_map(|(v4, v6)| Family { v4, v6 })
    }

    prop_compose! {
        fn member()(
            name in name(),
            (protocol, address) in socket(),
            weight in any::<u16>(),
            capacity in whole(fields::CAPACITY),
            status in sample::select(fields::STATUS.0),
            (wan_address, lan_address) in (media(), media()),
            cmd_out_address in any::<Option<IpAddr>>(),
        ) -> Member {
            let status = status.1;
            Member { name, protocol, address, weight, capacity, status, wan_address, lan_address, cmd_out_address, found_by: None }
        }
    }

    prop_compose! {
        fn health()(
            interval in millis(fields::PROBE_INTERVAL),
            timeout in millis(fields::PROBE_TIMEOUT),
            (fall, rise) in (whole(fields::PROBES), whole(fields::PROBES)),
            retry in millis(fields::PROBE_INTERVAL),
            slow_start in millis(fields::SLOW_START),
        ) -> Health {
            Health { interval, timeout, fall, rise, retry, slow_start }
        }
    }

    prop_compose! {
        fn notify()(
            ip in any::<[u8; 4]>(),
            port in 1..=u16::MAX,
            dest_socket_prefix in "/[!-~]{1,40}",
            on_member_loss in option::of(millis(fields::ON_MEMBER_LOSS.0)),
            tcp in sample::select(fields::NOTIFY_TCP.0),
        ) -> DisconnectNotify {
            DisconnectNotify { inbound_address: (ip, port).into(), dest_socket_prefix, on_member_loss, tcp: tcp.1 }
        }
    }

    prop_compose! {
        fn rights()(
            user in option::of("[a-z_$<&\"]{1,8}"),
            group in option::of("[a-z_-]{1,8}"),
            mode in option::of(0..=0o777_u32),
        ) -> SocketRights {
            SocketRights { user, group, mode }
        }
    }

    fn sought() -> impl Strategy<Value = Sought> {
        let host = ("[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", 1..=u16::MAX);
        prop_oneof![
            host.prop_map(|(host, port)| Sought::Host(host.into(), port)),
            "_[a-z]{1,9}\\._(udp|tcp)(\\.[a-z]{1,9}){1,3}".prop_map(|name| Sought::Service(name.into())),
        ]
    }

    prop_compose! {
        fn pool()(
            name in name(),
            protocol in sample::select(fields::POOL_PROTOCOL.0),
            address in sought(),
            weight in any::<u16>(),
            capacity in whole(fields::CAPACITY),
            resolver in option::of(any::<IpAddr>().prop_flat_map(|ip| (Just(ip), 1..=u16::MAX))),
        ) -> Pool {
            let resolver = resolver.map(Into::into);
            Pool { name, protocol: protocol.1, address, weight, capacity, resolver }
        }
    }

    prop_compose! {
        fn cluster()(
            name in name(),
            (protocol, address) in socket(),
            capacity_limit in sample::select(fields::CAPACITY_LIMIT.0),
            policy in sample::select(fields::POLICY.0),
            no_members in sample::select(fields::NO_MEMBERS.0),
            (timeout, attempts) in (millis(fields::FAILOVER_TIMEOUT), whole(fields::ATTEMPTS)),
            health in prop_oneof![Just(Health::default()), health()],
            (max, expire) in (whole(fields::SESSIONS_MAX), millis(fields::SESSIONS_EXPIRE)),
            (store, store_prefix) in (option::of(("[a-z]{1,9}", 0..16)), "[!-~]{1,64}"),
            disconnect_notify in option::of(notify()),
            socket in rights(),
            members in collection::vec(member(), 0..4),
            pools in collection::vec(pool(), 0..3),
        ) -> Cluster {
            let mut cluster = Cluster {
                capacity_limit: capacity_limit.1,
                policy: policy.1,
                no_members: no_members.1,
                failover: Failover { timeout, attempts },
                health,
                sessions: Sessions { max, expire },
                store: store.map(|(host, db)| format!("redis://{host}/{db}")),
                store_prefix,
                disconnect_notify,
                socket,
                ..Cluster::new(name, protocol, address)
            };
            for pool in pools {
                if cluster.pools.iter().all(|other| other.name != pool.name) {
                    cluster.pools.push(pool);
                }
            }
            for member in members {
                let known = cluster.members.iter().any(|other| other.name == member.name);
                if !known && check_member_fits(&cluster, &member).is_ok() {
                    cluster.members.push(member);
                }
            }
            cluster
        }
    }

    prop_compose! {
        fn config()(clusters in collection::vec(cluster(), 0..3)) -> Config {
            let mut config = Config::default();
            for cluster in clusters {
                let known = config.clusters.iter().any(|other| other.name == cluster.name);
                if !known && check_cluster_fits(&config.clusters, &cluster).is_ok() {
                    config.clusters.push(cluster);
                }
            }
            config
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(config in config()) {
            let text = write(&config);
            let read = read(&text);
            prop_assert_eq!(read.map(|parsed| parsed.config).map_err(|faults| faults.to_string()), Ok(config), "{}", text);
        }

        #[test]
        fn there_is_a_difference_only_where_something_differs(one in config(), mut other in config(), share in any::<bool>()) {
            if share {
                other.clusters.extend(one.clusters.first().cloned());
            }
            prop_assert_eq!(diff(&one, &one), Vec::<String>::new());
            prop_assert_eq!(diff(&one, &other).is_empty(), one == other);
            prop_assert!(diff(&one, &other).iter().all(|line| !line.contains('\n')));
        }

        /// A file with a slip anywhere loads or is refused with places within it, one line a fault.
        #[test]
        fn any_slip_is_answered(config in config(), at in any::<sample::Index>(), put in "\\PC{0,3}|[<>&/\"' ]{0,3}", cut in 0..9_usize) {
            let mut text: Vec<char> = write(&config).chars().collect();
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, put.chars());
            let text: String = text.into_iter().collect();
            if let Err(faults) = read(&text) {
                let lines = text.lines().count();
                for fault in &faults {
                    prop_assert!(fault.at().is_some_and(|at| (1..=lines + 1).contains(&at.line) && at.column > 0));
                    prop_assert!(!fault.to_string().contains('\n'));
                }
            }
        }
    }
}
