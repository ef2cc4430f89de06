//! A tree of elements to a configuration, or everything that is wrong with it. What each element may hold comes
//! from the table in `elements`, what a value may be from `fields`, what must hold between values from `check`.

use std::path::Path;

use super::address;
use super::check::{At, Draft, MemberDraft, Socket, check};
use super::elements::{self, CLUSTER, Element, MEMBER, NOTIFY, ROOT, Times};
use super::fault::{Faults, Findings, Position, quoted};
use super::fields::{
    self, ATTEMPTS, CAPACITY, CAPACITY_LIMIT, FAILOVER_TIMEOUT, NO_MEMBERS, ON_MEMBER_LOSS, POLICY,
    PROBE_INTERVAL, PROBE_TIMEOUT, PROBES, PROTOCOL, SESSIONS_EXPIRE, SESSIONS_MAX, SLOW_START, STATUS, Want,
    wrong,
};
use super::model::{
    Cluster, Config, DisconnectNotify, Failover, Health, Member, Protocol, Sessions, SocketRights,
};
use super::pairs::{ip_or_none, weight};
use super::tree::{self, Node, Tree};
use super::{FILE_MAX, Parsed};

/// Reads the contents of `file`, whose name is for the messages.
///
/// # Errors
/// All faults of the text in its order.
pub fn parse(file: &Path, text: &[u8]) -> Result<Parsed, Faults> {
    let mut parser = Parser {
        faults: Findings::new(file),
        warnings: Findings::new(file),
    };
    let text = match decoded(text) {
        Ok(text) => text,
        Err((at, what)) => {
            parser.fault(at, "", what);
            return parser.finish(&String::from_utf8_lossy(text), Config::default());
        }
    };
    let Tree { root, fault, doctype } = tree::read(text);
    if let Some(at) = doctype {
        parser.warning(at, "", "the DOCTYPE is read past, no DTD is used".to_owned());
    }
    if let Some((at, what)) = fault {
        parser.fault(at, "", what);
    }
    let config = root.map(|root| parser.config(&root)).unwrap_or_default();
    parser.finish(text, config)
}

/// The text of the file, without a byte order mark.
fn decoded(text: &[u8]) -> Result<&str, (Position, String)> {
    let start = Position { line: 1, column: 1 };
    if text.len() > FILE_MAX {
        return Err((
            start,
            format!("the file has {} bytes: want at most {FILE_MAX}", text.len()),
        ));
    }
    let decoded = str::from_utf8(text).map_err(|error| {
        let (good, bad) = text.split_at(error.valid_up_to());
        let good = String::from_utf8_lossy(good);
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let byte = bad.first().copied().unwrap_or_default();
        (
            Position { line, column },
            format!("byte 0x{byte:02x} is not UTF-8: want the file in UTF-8"),
        )
    })?;
    let decoded = decoded.strip_prefix('\u{feff}').unwrap_or(decoded);
    if decoded.trim().is_empty() {
        return Err((start, format!("the file is empty: want <{ROOT}>")));
    }
    Ok(decoded)
}

struct Parser {
    faults: Findings,
    warnings: Findings,
}

impl Parser {
    fn fault(&mut self, at: Position, whose: &str, what: String) {
        self.faults.push(at, whose, what);
    }

    fn warning(&mut self, at: Position, whose: &str, what: String) {
        self.warnings.push(at, whose, what);
    }

    fn finish(self, text: &str, config: Config) -> Result<Parsed, Faults> {
        match Faults::new(self.faults.settle(text)) {
            Some(faults) => Err(faults),
            None => Ok(Parsed {
                config,
                warnings: self.warnings.settle(text),
            }),
        }
    }

    fn config(&mut self, root: &Node) -> Config {
        let Some(element) = elements::find("", &root.name) else {
            self.fault(
                root.at,
                "",
                format!("the outermost element is <{}>: want <{ROOT}>", root.name),
            );
            return Config::default();
        };
        self.shape(root, element, "");
        let clusters = root.children.iter().filter(|child| child.name == CLUSTER);
        let drafts: Vec<Draft> = clusters
            .enumerate()
            .map(|(number, node)| self.cluster(node, number))
            .collect();
        if drafts.is_empty() {
            self.warning(
                root.at,
                "",
                "no cluster: nothing is served until one is added".to_owned(),
            );
        }
        for (at, whose, what) in check(&drafts) {
            self.fault(at, &whose, what);
        }
        Config {
            clusters: drafts.into_iter().filter_map(|draft| draft.cluster).collect(),
        }
    }

    fn cluster(&mut self, node: &Node, number: usize) -> Draft {
        let whose = format!("cluster {}", title(node, number));
        if let Some(element) = elements::find(ROOT, CLUSTER) {
            self.shape(node, element, &whose);
        }
        let name = self.value(node, "name", &whose, fields::name);
        let socket = self.socket(node, &whose);
        let disconnect_notify = self.disconnect_notify(node, &whose);

        let capacity_limit = self.attribute(node, "capacity_limit", "type", &whose, |text| {
            CAPACITY_LIMIT.read(text)
        });
        let policy = self.attribute(node, "balancing", "policy", &whose, |text| POLICY.read(text));
        let no_members = self.attribute(node, "no_members", "reply", &whose, |text| NO_MEMBERS.read(text));
        let (failover, health) = (self.failover(node, &whose), self.health(node, &whose));
        let (sessions, rights) = (
            self.sessions(node, &whose),
            self.rights(node, &whose, socket.as_ref()),
        );

        let members = node.children.iter().filter(|child| child.name == MEMBER);
        let mut members: Vec<MemberDraft> = members
            .enumerate()
            .map(|(number, node)| self.member(node, number, &whose))
            .collect();

        let cluster = name.as_ref().zip(socket.as_ref()).map(|(name, socket)| {
            let Socket { protocol, address } = socket.value.clone();
            Cluster {
                capacity_limit: capacity_limit.unwrap_or_default(),
                disconnect_notify: disconnect_notify.as_ref().map(|notify| notify.value.clone()),
                policy: policy.unwrap_or_default(),
                failover,
                health,
                sessions,
                socket: rights,
                no_members: no_members.unwrap_or_default(),
                members: members
                    .iter_mut()
                    .filter_map(|draft| draft.member.take())
                    .collect(),
                ..Cluster::new(name.value.clone(), protocol, address)
            }
        });
        let relay = disconnect_notify.map(|notify| At {
            value: notify.value.inbound_address,
            at: notify.at,
        });
        Draft {
            whose,
            name,
            socket,
            relay,
            members,
            cluster,
        }
    }

    fn member(&mut self, node: &Node, number: usize, cluster: &str) -> MemberDraft {
        let whose = format!("{cluster}, member {}", title(node, number));
        if let Some(element) = elements::find(CLUSTER, MEMBER) {
            self.shape(node, element, &whose);
        }
        let name = self.value(node, "name", &whose, fields::name);
        let socket = self.socket(node, &whose);
        let weight = self.value(node, "weight", &whose, weight);
        let capacity = self.value(node, "capacity", &whose, |text| CAPACITY.read(text));
        let status = self.value(node, "status", &whose, |text| STATUS.read(text));
        // The Python rtp_cluster takes an empty one of these for none.
        let wan_address = self.value(node, "wan_address", &whose, fields::media);
        let lan_address = self.value(node, "lan_address", &whose, fields::media);
        let source = self.value(node, "cmd_out_address", &whose, ip_or_none);
        let source = source.and_then(|source| {
            Some(At {
                value: source.value?,
                at: source.at,
            })
        });
        if let (Some(source), Some(socket)) = (&source, &socket)
            && socket.value.protocol.is_local()
        {
            let protocol = socket.value.protocol.as_str();
            self.warning(
                source.at,
                &whose,
                format!("cmd_out_address has no effect with protocol {protocol}"),
            );
        }
        let member = (|| {
            let Socket { protocol, address } = socket.as_ref()?.value.clone();
            Some(Member {
                name: name.as_ref()?.value.clone(),
                protocol,
                address,
                weight: weight.as_ref()?.value,
                capacity: capacity.as_ref()?.value,
                status: status.map(|status| status.value).unwrap_or_default(),
                wan_address: wan_address.map(|address| address.value).unwrap_or_default(),
                lan_address: lan_address.map(|address| address.value).unwrap_or_default(),
                cmd_out_address: source.as_ref().map(|source| source.value),
            })
        })();
        MemberDraft {
            whose,
            name,
            socket,
            source,
            member,
        }
    }

    /// Protocol and address: what the second means is for the first to say, whatever their order.
    fn socket(&mut self, node: &Node, whose: &str) -> Option<At<Socket>> {
        let protocol = self.value(node, "protocol", whose, |text| PROTOCOL.read(text));
        let address = self.value(node, "address", whose, |text| {
            protocol
                .as_ref()
                .map(|protocol| address::read(protocol.value, text))
                .transpose()
        })?;
        let (protocol, value) = protocol.map(|protocol| protocol.value).zip(address.value)?;
        Some(At {
            value: Socket {
                protocol,
                address: value,
            },
            at: address.at,
        })
    }

    /// The relay; its place is that of `inbound_address`.
    fn disconnect_notify(&mut self, cluster: &Node, whose: &str) -> Option<At<DisconnectNotify>> {
        let node = child(cluster, NOTIFY)?;
        if let Some(element) = elements::find(CLUSTER, NOTIFY) {
            self.shape(node, element, whose);
        }
        let loss = self.attribute(cluster, NOTIFY, "on_member_loss", whose, |text| {
            ON_MEMBER_LOSS.read(text)
        });
        let inbound = self.value(node, "inbound_address", whose, fields::inbound);
        let prefix = self.value(node, "dest_socket_prefix", whose, fields::prefix);
        let (inbound, prefix) = inbound.zip(prefix)?;
        let value = DisconnectNotify {
            inbound_address: inbound.value,
            dest_socket_prefix: prefix.value,
            on_member_loss: loss.flatten(),
        };
        Some(At {
            value,
            at: inbound.at,
        })
    }

    fn failover(&mut self, cluster: &Node, whose: &str) -> Failover {
        let default = Failover::default();
        let timeout = self.attribute(cluster, "failover", "timeout", whose, |text| {
            FAILOVER_TIMEOUT.read(text)
        });
        let attempts = self.attribute(cluster, "failover", "attempts", whose, |text| ATTEMPTS.read(text));
        Failover {
            timeout: timeout.unwrap_or(default.timeout),
            attempts: attempts.unwrap_or(default.attempts),
        }
    }

    fn health(&mut self, cluster: &Node, whose: &str) -> Health {
        let default = Health::default();
        let mut time = |name, range: fields::Span, otherwise| {
            self.attribute(cluster, "health", name, whose, |text| range.read(text))
                .unwrap_or(otherwise)
        };
        let interval = time("interval", PROBE_INTERVAL, default.interval);
        let timeout = time("timeout", PROBE_TIMEOUT, default.timeout);
        let retry = time("retry", PROBE_INTERVAL, default.retry);
        let slow_start = time("slow_start", SLOW_START, default.slow_start);
        let mut probes = |name, otherwise| {
            self.attribute(cluster, "health", name, whose, |text| PROBES.read(text))
                .unwrap_or(otherwise)
        };
        let (fall, rise) = (probes("fall", default.fall), probes("rise", default.rise));
        Health {
            interval,
            timeout,
            fall,
            rise,
            retry,
            slow_start,
        }
    }

    fn sessions(&mut self, cluster: &Node, whose: &str) -> Sessions {
        let default = Sessions::default();
        let max = self.attribute(cluster, "sessions", "max", whose, |text| SESSIONS_MAX.read(text));
        let expire = self.attribute(cluster, "sessions", "expire", whose, |text| {
            SESSIONS_EXPIRE.read(text)
        });
        Sessions {
            max: max.unwrap_or(default.max),
            expire: expire.unwrap_or(default.expire),
        }
    }

    fn rights(&mut self, cluster: &Node, whose: &str, socket: Option<&At<Socket>>) -> SocketRights {
        let mode = self.attribute(cluster, "socket", "mode", whose, fields::mode);
        let mut rights = SocketRights {
            mode,
            ..SocketRights::default()
        };
        self.attribute(cluster, "socket", "owner", whose, |text| {
            fields::owner(text, &mut rights)
        });
        let protocol = socket.map(|socket| socket.value.protocol);
        if let Some(node) = child(cluster, "socket")
            && let Some(protocol) = protocol.filter(|protocol: &Protocol| !protocol.is_local())
        {
            self.warning(
                node.at,
                whose,
                format!("<socket> has no effect with protocol {}", protocol.as_str()),
            );
        }
        rights
    }

    /// Reads the text of the child `name`. `None` when there is none or it is wrong, which has been told then.
    fn value<T>(
        &mut self,
        parent: &Node,
        name: &str,
        whose: &str,
        read: impl FnOnce(&str) -> Result<T, Want>,
    ) -> Option<At<T>> {
        let node = child(parent, name)?;
        if let Some(element) = elements::find(&parent.name, name) {
            self.shape(node, element, whose);
        }
        // The text of a torn element may be torn itself.
        if !node.whole {
            return None;
        }
        let at = if node.text.trim().is_empty() {
            node.at
        } else {
            node.text_at
        };
        match read(&node.text) {
            Ok(value) => Some(At { value, at }),
            Err(want) => {
                self.fault(at, whose, wrong(name, &node.text, &want));
                None
            }
        }
    }

    /// Reads the attribute `name` of the cluster's child `element`; as [`Parser::value`].
    fn attribute<T>(
        &mut self,
        cluster: &Node,
        element: &str,
        name: &str,
        whose: &str,
        read: impl FnOnce(&str) -> Result<T, Want>,
    ) -> Option<T> {
        let attribute = child(cluster, element)?
            .attributes
            .iter()
            .find(|attribute| attribute.name == name)?;
        match read(&attribute.value) {
            Ok(value) => Some(value),
            Err(want) => {
                self.fault(
                    attribute.at,
                    whose,
                    wrong(&format!("{element} {name}"), &attribute.value, &want),
                );
                None
            }
        }
    }

    /// Whether `node` holds what the table says of its `element`: no unknown attribute or child, none too often,
    /// none missing.
    fn shape(&mut self, node: &Node, element: &Element, whose: &str) {
        for attribute in &node.attributes {
            if !element
                .attributes
                .iter()
                .any(|known| known.name == attribute.name)
            {
                self.fault(
                    attribute.at,
                    whose,
                    elements::unknown_attribute(element, &attribute.name),
                );
            }
        }
        let mut seen: Vec<(&str, usize)> = Vec::new();
        for child in &node.children {
            let Some(known) = elements::find(element.name, &child.name) else {
                self.fault(child.at, whose, elements::unknown_element(element, &child.name));
                continue;
            };
            if let Some((_, line)) = seen.iter().find(|(name, _)| *name == child.name) {
                if known.times != Times::Any {
                    let what = format!(
                        "<{}> stands twice, first in line {line}: want it once",
                        child.name
                    );
                    self.fault(child.at, whose, what);
                }
                continue;
            }
            seen.push((&child.name, child.at.line));
            // The children that hold nothing but attributes; the others are looked at where they are read.
            if known.range.is_none() && known.times == Times::AtMostOnce && known.name != NOTIFY {
                self.shape(child, known, whose);
            }
        }
        for known in elements::children(element.name) {
            if node.whole && known.times == Times::Once && !seen.iter().any(|(name, _)| *name == known.name) {
                let want = known
                    .range
                    .map_or_else(|| format!("<{}>", known.name), ToString::to_string);
                self.fault(node.at, whose, format!("{} is missing: want {want}", known.name));
            }
        }
        if element.range.is_none() && !node.text.trim().is_empty() {
            let text = quoted(node.text.trim());
            self.warning(
                node.at,
                whose,
                format!("text {text} in <{}> means nothing", node.name),
            );
        }
    }
}

/// The first child of that name.
fn child<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    node.children.iter().find(|child| child.name == name)
}

/// What a cluster or member is called in a message: its name, or its number from 0 as in a listing.
fn title(node: &Node, number: usize) -> String {
    match child(node, "name").map(|name| name.text.trim()) {
        None | Some("") => format!("#{number}"),
        Some(name) if name.chars().count() > 60 => format!("{}…", name.chars().take(60).collect::<String>()),
        Some(name) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::elements::ELEMENTS;
    use super::super::model::{Address, CapacityLimit, Name, NoMembers, Policy, Status};
    use super::*;

    fn config(text: &str) -> Config {
        parse(Path::new("f.xml"), text.as_bytes())
            .unwrap_or_else(|faults| panic!("{faults}"))
            .config
    }

    /// The one cluster of a file that says `elements` of it beside what it must.
    fn cluster(elements: &str) -> Cluster {
        let text = format!(
            "<rtp_cluster_config><rtp_cluster><name>C1</name><protocol>UNIX</protocol>\
             <address>/run/c1.sock</address>{elements}</rtp_cluster></rtp_cluster_config>"
        );
        config(&text).clusters.remove(0)
    }

    fn bare() -> Cluster {
        Cluster::new(
            Name::new("C1").unwrap(),
            Protocol::Unix,
            Address::Path("/run/c1.sock".into()),
        )
    }

    #[test]
    fn the_elements_of_a_file_become_values() {
        let text = include_str!("../../tests/corpus/config/good/all-elements.xml");
        let member = Member {
            name: Name::new("RTPPROXY1").unwrap(),
            protocol: Protocol::Udp,
            address: Address::Ip("127.0.0.1:22222".parse().unwrap()),
            weight: 100,
            capacity: 2_500,
            status: Status::Active,
            wan_address: [203, 0, 113, 4].into(),
            lan_address: [10, 0, 0, 4].into(),
            cmd_out_address: Some([10, 0, 0, 1].into()),
        };
        let name = Name::new("Supercluster#1").unwrap();
        let cluster = Cluster {
            disconnect_notify: Some(DisconnectNotify {
                inbound_address: "192.0.2.1:12131".parse().unwrap(),
                dest_socket_prefix: "/var/run/b2bua.sock".to_owned(),
                on_member_loss: None,
            }),
            members: vec![member],
            ..Cluster::new(
                name,
                Protocol::Unix,
                Address::Path("/var/run/rtpproxy.sock".into()),
            )
        };
        assert_eq!(
            config(text),
            Config {
                clusters: vec![cluster]
            }
        );
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(cluster(""), bare());
        assert_eq!(
            cluster("<failover/><health/><sessions/><socket/><capacity_limit/><balancing/>"),
            bare()
        );
    }

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_values() {
        let elements = elements::children(CLUSTER).filter(|e| !e.attributes.is_empty() && e.name != NOTIFY);
        let said: String = elements
            .map(|element| {
                let attributes = element
                    .attributes
                    .iter()
                    .filter(|attribute| !attribute.default.is_empty());
                let said: Vec<_> = attributes
                    .map(|a| format!("{}=\"{}\"", a.name, a.default))
                    .collect();
                format!("<{} {}/>", element.name, said.join(" "))
            })
            .collect::<Vec<_>>()
            .concat();
        assert!(said.contains("<health interval=\"1s\""), "{said}");
        assert_eq!(cluster(&said), bare());
        let status = ELEMENTS.iter().find(|element| element.name == "status").unwrap();
        assert_eq!(STATUS.read(status.default), Ok(Status::default()));
    }

    #[test]
    fn all_tuning_is_read() {
        let tuned = cluster(
            "<capacity_limit type='hard'/><balancing policy='least-loaded'/>\
             <failover timeout='3s' attempts='16'/>\
             <health interval='100ms' timeout='60s' fall='100' rise='3' retry='1h' slow_start='30m'/>\
             <sessions max='1' expire='30d'/><socket owner='kamailio:sip' mode='0600'/><no_members reply='silent'/>\
             <disconnect_notify on_member_loss='30s'><inbound_address>:9</inbound_address>\
             <dest_socket_prefix>/p</dest_socket_prefix></disconnect_notify>",
        );
        let expected = Cluster {
            capacity_limit: CapacityLimit::Hard,
            policy: Policy::LeastLoaded,
            failover: Failover {
                timeout: Duration::from_secs(3),
                attempts: 16,
            },
            health: Health {
                interval: Duration::from_millis(100),
                timeout: Duration::from_secs(60),
                fall: 100,
                rise: 3,
                retry: Duration::from_secs(3_600),
                slow_start: Duration::from_secs(1_800),
            },
            sessions: Sessions {
                max: 1,
                expire: Duration::from_secs(30 * 86_400),
            },
            socket: SocketRights {
                user: Some("kamailio".to_owned()),
                group: Some("sip".to_owned()),
                mode: Some(0o600),
            },
            no_members: NoMembers::Silent,
            disconnect_notify: Some(DisconnectNotify {
                inbound_address: "0.0.0.0:9".parse().unwrap(),
                dest_socket_prefix: "/p".to_owned(),
                on_member_loss: Some(Duration::from_secs(30)),
            }),
            ..bare()
        };
        assert_eq!(tuned, expected);
    }

    /// Every order of the children that a member must have: whatever comes first, the address is read by the
    /// protocol.
    #[test]
    fn the_order_of_elements_means_nothing() {
        let children = [
            "<name>A</name>",
            "<protocol>UDP</protocol>",
            "<address>10.0.0.4</address>",
            "<weight>1</weight>",
            "<capacity>2</capacity>",
        ];
        let expected = cluster(&format!("<rtpproxy>{}</rtpproxy>", children.concat()));
        let mut orders = 0;
        permute(&mut children.to_vec(), 0, &mut |order| {
            orders += 1;
            assert_eq!(
                cluster(&format!("<rtpproxy>{}</rtpproxy>", order.concat())),
                expected,
                "{order:?}"
            );
        });
        assert_eq!(orders, 120);
    }

    fn permute<'a>(items: &mut Vec<&'a str>, from: usize, each: &mut impl FnMut(&[&'a str])) {
        if from == items.len() {
            return each(items);
        }
        for n in from..items.len() {
            items.swap(from, n);
            permute(items, from + 1, each);
            items.swap(from, n);
        }
    }

    #[test]
    fn a_bad_file_gives_nothing_but_its_faults() {
        let text = "<rtp_cluster_config><rtp_cluster><name>C 1</name><protocol>x</protocol>\
                    <address>y</address></rtp_cluster></rtp_cluster_config>";
        let faults = parse(Path::new("/etc/f.xml"), text.as_bytes()).unwrap_err();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("/etc/f.xml:1:40: cluster C 1: name \"C 1\": want a name of 1 to 255 bytes")
        );
        assert!(lines[1].starts_with("/etc/f.xml:1:60: cluster C 1: protocol \"x\": want UNIX, CUNIX"));
    }

    #[test]
    fn more_than_a_file_may_hold_is_refused_unread() {
        let faults = parse(Path::new("f.xml"), &vec![b' '; FILE_MAX + 1]).unwrap_err();
        assert_eq!(
            faults.to_string(),
            "f.xml:1:1: the file has 4194305 bytes: want at most 4194304"
        );
    }

    #[test]
    fn a_long_name_is_cut_in_messages() {
        let long = "n".repeat(300);
        let text = format!(
            "<rtp_cluster_config><rtp_cluster><name>{long}</name></rtp_cluster></rtp_cluster_config>"
        );
        let faults = parse(Path::new("f.xml"), text.as_bytes()).unwrap_err();
        assert!(
            faults.iter().all(|fault| fault.to_string().len() < 300),
            "{faults}"
        );
    }
}
