//! A tree of elements to a configuration, or everything that is wrong with it. What each element may hold comes
//! from the table in `elements`, what a value may be from `fields`, what must hold between values from `check`.

use std::path::Path;

use super::check::{At, Draft, MemberDraft, Socket, check};
use super::doubts::doubts;
use super::elements::{self, CLUSTER, Element, Holder, MEMBER, POOL, ROOT, Times};
use super::encoding;
use super::fault::{Faults, Findings, Position, quoted};
use super::fields::{Want, wrong};
use super::hints;
use super::model::{Cluster, Config, Member, Name, Pool, SocketRights};
use super::tree::{self, Node, Tree};
use super::{FILE_MAX, Parsed};

/// Reads the contents of `file`, whose name is for the messages.
///
/// # Errors
/// All faults of the text in its order.
pub fn parse(file: &Path, text: &[u8]) -> Result<Parsed, Faults> {
    checked(file, text, |_| Ok(()))
}

/// As [`parse`]; owners of sockets are also put to `owners`.
pub(super) fn checked(file: &Path, text: &[u8], owners: Owners) -> Result<Parsed, Faults> {
    let mut parser = Parser {
        owners,
        faults: Findings::new(file),
        warnings: Findings::new(file),
    };
    let start = Position { line: 1, column: 1 };
    if text.len() > FILE_MAX {
        let what = format!("the file has {} bytes: want at most {FILE_MAX}", text.len());
        parser.fault(start, "", what);
        return parser.finish("", Config::default());
    }
    let text = match encoding::decoded(text) {
        Ok(text) => text,
        Err((at, what)) => {
            parser.fault(at, "", what);
            return parser.finish(&String::from_utf8_lossy(text), Config::default());
        }
    };
    if text.trim().is_empty() {
        parser.fault(start, "", format!("the file is empty: want <{ROOT}>"));
        return parser.finish(&text, Config::default());
    }
    let Tree { root, fault, doctype } = tree::read(&text);
    if let Some(at) = doctype {
        parser.warning(at, "", "the DOCTYPE is read past, no DTD is used".to_owned());
    }
    if let Some((at, what)) = fault {
        parser.fault(at, "", what);
    }
    let config = root.map(|root| parser.config(&root)).unwrap_or_default();
    parser.finish(&text, config)
}

/// Whether users and groups exist; what is wrong where not.
type Owners = fn(&SocketRights) -> Result<(), String>;

struct Parser {
    owners: Owners,
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
        let (drafts, clusters): (Vec<Draft>, Vec<Cluster>) = clusters
            .enumerate()
            .map(|(number, node)| self.cluster(node, number))
            .unzip();
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
        for (at, whose, what) in doubts(&drafts) {
            self.warning(at, &whose, what);
        }
        Config { clusters }
    }

    /// What is wrong has been told; the cluster counts only where nothing is.
    fn cluster(&mut self, node: &Node, number: usize) -> (Draft, Cluster) {
        let whose = format!("cluster {}", title(node, number));
        let mut cluster = Cluster::blank();
        let places = self.row(node, elements::find(ROOT, CLUSTER), &mut cluster, &whose);
        let protocol = places.of("protocol", cluster.protocol);
        if let Some(rights) = child(node, "socket")
            && let Some(At { value, .. }) = protocol.filter(|protocol| !protocol.value.is_local())
        {
            let what = format!("<socket> has no effect with protocol {}", value.as_str());
            self.warning(rights.at, &whose, what);
        }
        let owner = child(node, "socket").and_then(|rights| {
            rights
                .attributes
                .iter()
                .find(|attribute| attribute.name == "owner")
        });
        if let Some(owner) = owner
            && let Err(what) = (self.owners)(&cluster.socket)
        {
            self.fault(owner.at, &whose, what);
        }
        let members = node.children.iter().filter(|child| child.name == MEMBER);
        let (members, values) = members
            .enumerate()
            .map(|(number, node)| self.member(node, number, &whose))
            .unzip();
        cluster.members = values;
        let pools = node.children.iter().filter(|child| child.name == POOL);
        let (pools, values) = pools.map(|node| self.pool(node, &whose)).unzip();
        cluster.pools = values;
        let relay = cluster.disconnect_notify.as_ref();
        let draft = Draft {
            name: places.of("name", cluster.name.clone()),
            socket: places.of("address", Socket::from(&cluster)),
            relay: relay.and_then(|relay| places.of("inbound_address", relay.inbound_address)),
            members,
            pools,
            whose,
        };
        (draft, cluster)
    }

    /// As [`Parser::cluster`].
    fn pool(&mut self, node: &Node, cluster: &str) -> ((String, At<Name>), Pool) {
        let said = |name: &str| node.attributes.iter().find(|attribute| attribute.name == name);
        let called = said("name").map_or("", |name| name.value.trim());
        let whose = if called.is_empty() {
            cluster.to_owned()
        } else {
            format!("{cluster}, members {called}")
        };
        let mut pool = Pool::blank();
        self.row(node, elements::find(CLUSTER, POOL), &mut pool, &whose);
        for needed in ["name", "address"] {
            if said(needed).is_none() {
                let what = format!("<{POOL}> has no {needed}: want <{POOL} name=\"…\" address=\"…\"/>");
                self.fault(node.at, &whose, what);
            }
        }
        let at = said("name").map_or(node.at, |name| name.at);
        let name = pool.name.clone();
        ((whose, At { value: name, at }), pool)
    }

    /// As [`Parser::cluster`].
    fn member(&mut self, node: &Node, number: usize, cluster: &str) -> (MemberDraft, Member) {
        let whose = format!("{cluster}, member {}", title(node, number));
        let mut member = Member::blank();
        let places = self.row(node, elements::find(CLUSTER, MEMBER), &mut member, &whose);
        let socket = places.of("address", Socket::from(&member));
        let source = member.cmd_out_address;
        let source = source.and_then(|source| places.of("cmd_out_address", source));
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
        let draft = MemberDraft {
            name: places.of("name", member.name.clone()),
            socket,
            source,
            whose,
        };
        (draft, member)
    }

    /// Reads what the table has of `node` into `it`: attributes, and children in the order of the table, so that the
    /// protocol is known before the address whatever their order in the file. Says where each text stands that was
    /// right; the others have been told.
    fn row<T: Holder>(&mut self, node: &Node, element: Option<&Element>, it: &mut T, whose: &str) -> Places {
        let mut places = Places::default();
        let Some(element) = element else {
            return places;
        };
        self.shape(node, element, whose);
        for known in element.attributes {
            let attribute = node
                .attributes
                .iter()
                .find(|attribute| attribute.name == known.name);
            if let (Some(attribute), Some(way)) = (attribute, T::way(&known.access)) {
                let label = format!("{} {}", element.name, known.name);
                self.value(attribute.at, &label, &attribute.value, whose, |text| {
                    (way.read)(it, text)
                });
            }
        }
        for known in element.children().filter(|known| known.times != Times::Any) {
            let Some(node) = child(node, known.name) else {
                continue;
            };
            places.0.extend(self.row(node, Some(known), it, whose).0);
            // The text of a torn element may be torn itself; of what protocol an address is must be known.
            let unread = !node.whole || (known.name == "address" && places.at("protocol").is_none());
            let Some(way) = T::way(&known.access).filter(|_| !unread) else {
                continue;
            };
            let at = if node.text.trim().is_empty() {
                node.at
            } else {
                node.text_at
            };
            if self.value(at, known.name, &node.text, whose, |text| (way.read)(it, text)) {
                places.0.push((known.name, at));
            }
        }
        places
    }

    /// Whether `read` takes `text`, the value of `label` at `at`; tells it where not.
    fn value(
        &mut self,
        at: Position,
        label: &str,
        text: &str,
        whose: &str,
        read: impl FnOnce(&str) -> Result<(), Want>,
    ) -> bool {
        let result = read(text);
        if let Err(want) = &result {
            self.fault(at, whose, wrong(label, text, want));
        }
        result.is_ok()
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
                    hints::unknown_attribute(element, &attribute.name),
                );
            }
        }
        let mut seen: Vec<(&str, usize)> = Vec::new();
        for child in &node.children {
            let Some(known) = elements::find(element.name, &child.name) else {
                self.fault(child.at, whose, hints::unknown_element(element, &child.name));
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

/// Where the texts of a cluster or a member stand, those that were right.
#[derive(Default)]
struct Places(Vec<(&'static str, Position)>);

impl Places {
    fn at(&self, name: &str) -> Option<Position> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, at)| *at)
    }

    /// `value` with the place of the element `name`.
    fn of<T>(&self, name: &str, value: T) -> Option<At<T>> {
        self.at(name).map(|at| At { value, at })
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

    use super::super::elements::{ELEMENTS, NOTIFY};
    use super::super::fields::STATUS;
    use super::super::model::{
        Address, CapacityLimit, DisconnectNotify, Failover, Health, NoMembers, NotifyTcp, Policy, Protocol,
        Sessions, SocketRights, Status,
    };
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
            found_by: None,
        };
        let name = Name::new("Supercluster#1").unwrap();
        let cluster = Cluster {
            disconnect_notify: Some(DisconnectNotify {
                inbound_address: "192.0.2.1:12131".parse().unwrap(),
                dest_socket_prefix: "/var/run/b2bua.sock".to_owned(),
                on_member_loss: None,
                tcp: NotifyTcp::Pass,
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
        let others = [NOTIFY, POOL];
        let elements =
            elements::children(CLUSTER).filter(|e| !e.attributes.is_empty() && !others.contains(&e.name));
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
        let pools = cluster("<rtpproxies name='m' address='m.test'/>").pools;
        for attribute in elements::find(CLUSTER, POOL).unwrap().attributes {
            if !["name", "address"].contains(&attribute.name) {
                assert_eq!(attribute.value(&pools[0]).to_string(), attribute.default);
            }
        }
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
             <disconnect_notify on_member_loss='30s' tcp='relay'><inbound_address>:9</inbound_address>\
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
                tcp: NotifyTcp::Relay,
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
