//! Members with `lan_address` and `wan_address`: real RTPproxies open their ports at the one, clients are told the
//! other.

use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::member::own_address;
use crate::support::party::Party;
use crate::support::place::Place;
use crate::support::real::{RealMember, free_ipv6};

const WAN4: &str = "203.0.113.4";
const WAN6: &str = "2001:db8::4";

/// One RTPproxy behind a UNIX socket.
#[derive(Debug)]
struct Behind {
    member: RealMember,
    daemon: Daemon,
    _place: Place,
}

impl Behind {
    fn of(lan: Option<&str>, wan: Option<&str>) -> Self {
        let place = Place::new();
        let member = RealMember::start(&place, "r1");
        let element = |name: &str, value: Option<&str>| {
            value.map_or_else(String::new, |value| format!("<{name}>{value}</{name}>"))
        };
        let extra = element("lan_address", lan) + &element("wan_address", wan);
        let listed = Listed::udp("R1", &member.control().to_string()).with(&extra);
        let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &[listed], ""));
        daemon.wait_members(1, 0);
        Self {
            member,
            daemon,
            _place: place,
        }
    }

    /// What follows the port in the reply to a command, with ports of sub-commands left out.
    fn address(&self, command: &str) -> String {
        let reply = self.ask(command);
        let results = reply.split(" && ").map(|result| match result.split_once(' ') {
            Some((port, address)) => {
                assert!(
                    port.parse::<u16>().is_ok_and(|port| port > 0),
                    "{command}: {reply}"
                );
                address
            }
            None => result,
        });
        results.collect::<Vec<_>>().join(" && ")
    }

    /// The command, with `@media@` for the RTPproxy's own address.
    fn ask(&self, command: &str) -> String {
        let command = command.replace("@media@", &self.member.media());
        client::ask(&self.daemon.files().control, &format!("{command}\n"))
    }

    /// Says all of them; each with the address that the client is to get.
    fn says(&self, table: &[(&str, &str)]) {
        for (command, address) in table {
            let address = address.replace("@media@", &self.member.media());
            assert_eq!(self.address(command), address, "{command}");
        }
    }

    /// What is no port is never touched.
    fn leaves_the_rest(&self) {
        for (command, reply) in [
            ("L none 127.0.0.1 4002 from to", "0"),
            ("Q none from to", "E50"),
            ("U c 127.0.0.1 4000", "E1"),
            ("Ue c 127.0.0.1 4000 from", "E11"),
            ("D none from", "E50"),
            ("V", "20040107"),
            ("G nsess_timeout", "0"),
        ] {
            assert_eq!(self.ask(command), reply, "{command}");
        }
    }
}

#[test]
fn a_wan_address_is_what_clients_are_told() {
    let behind = Behind::of(None, Some(WAN4));
    behind.says(&[
        ("U c1 127.0.0.1 4000 from", WAN4),
        ("L c1 127.0.0.1 4002 from to", WAN4),
        (
            "U c1 127.0.0.1 4000 from to && L 127.0.0.1 4002",
            "203.0.113.4 && 203.0.113.4",
        ),
        (
            "U c1 127.0.0.1 4000 from to && S ttl=60 && L 127.0.0.1 4002 && S tos=4",
            "203.0.113.4 && 0 && 203.0.113.4",
        ),
        (
            "U c1 127.0.0.1 4000 from to && C other from to",
            "203.0.113.4 && -1",
        ),
        // Who names a local address, and no other side, wants that one.
        ("UL@media@ c2 127.0.0.1 4000 from", "@media@"),
        ("LL@media@ c2 127.0.0.1 4000 from to", "@media@"),
        ("UL@media@R127.0.0.1 c3 127.0.0.1 4000 from", WAN4),
        ("UR127.0.0.1 c4 127.0.0.1 4000 from", WAN4),
        (
            "U c5 127.0.0.1 4000 from to && LL@media@ 127.0.0.1 4002",
            "203.0.113.4 && @media@",
        ),
        (
            "UL@media@ c6 127.0.0.1 4000 from to && L 127.0.0.1 4002",
            "@media@ && 203.0.113.4",
        ),
        // It is of no use to the other family.
        ("U6 c7 ::1 4000 from", "::1 6"),
    ]);
    behind.leaves_the_rest();
}

#[test]
fn a_wan_address_of_ipv6_is_told_with_its_family() {
    let behind = Behind::of(None, Some(WAN6));
    behind.says(&[
        ("U6 c1 ::1 4000 from", "2001:db8::4 6"),
        ("L6 c1 ::1 4002 from to", "2001:db8::4 6"),
        (
            "U6 c1 ::1 4000 from to && L6 ::1 4002",
            "2001:db8::4 6 && 2001:db8::4 6",
        ),
        ("U c2 127.0.0.1 4000 from", "@media@"),
    ]);
    behind.leaves_the_rest();
}

#[test]
fn a_lan_address_is_where_the_member_opens_its_ports() {
    let lan = own_address().to_string();
    let behind = Behind::of(Some(&lan), None);
    behind.says(&[
        ("U c1 127.0.0.1 4000 from", &lan),
        ("L c1 127.0.0.1 4002 from to", &lan),
        ("UaSz20c0,8n c2 127.0.0.1 4000 from", &lan),
        ("UL@media@ c3 127.0.0.1 4000 from", &lan),
        ("UR127.0.0.1 c4 127.0.0.1 4000 from", &lan),
        ("UL{first}a c5 127.0.0.1 4000 from", &lan),
        (
            "U c6 127.0.0.1 4000 from to && L 127.0.0.1 4002 && S ttl=60",
            &format!("{lan} && {lan}"),
        ),
        (
            "U c7 127.0.0.1 4000 from to && LR127.0.0.1 127.0.0.1 4002",
            &format!("{lan} && {lan}"),
        ),
    ]);
    // And there it hears: what is sent to the port of one side arrives at the other.
    let (one, other) = (Party::new(), Party::new());
    let for_other = behind.ask(&format!("U call 127.0.0.1 {} from", one.port()));
    let for_one = behind.ask(&format!("L call 127.0.0.1 {} from to", other.port()));
    assert_eq!(one.is_heard_by(&other, &for_one, "the caller").to_string(), lan);
    assert_eq!(other.is_heard_by(&one, &for_other, "the callee").to_string(), lan);
    behind.leaves_the_rest();
}

#[test]
fn with_both_the_member_is_at_one_and_clients_are_told_the_other() {
    let lan = own_address().to_string();
    let behind = Behind::of(Some(&lan), Some(WAN4));
    behind.says(&[
        ("U c1 127.0.0.1 4000 from", WAN4),
        ("L c1 127.0.0.1 4002 from to", WAN4),
        // No client can name a local address of a member behind NAT.
        ("UL@media@ c2 127.0.0.1 4000 from", WAN4),
        ("UL10.9.9.9 c3 127.0.0.1 4000 from", WAN4),
        ("LL@media@ c3 127.0.0.1 4000 from to", WAN4),
        (
            "U c1 127.0.0.1 4000 from to && LL10.9.9.9 127.0.0.1 4002",
            "203.0.113.4 && 203.0.113.4",
        ),
    ]);
    behind.leaves_the_rest();
}

#[test]
fn a_lan_address_of_ipv6_is_taken_in_brackets() {
    if free_ipv6().is_none() {
        return;
    }
    let behind = Behind::of(Some("::1"), None);
    behind.says(&[
        ("U6 c1 ::1 4000 from", "::1 6"),
        ("L6 c1 ::1 4002 from to", "::1 6"),
        ("U c2 127.0.0.1 4000 from", "@media@"),
        ("U6z20 c3 ::1 4000 from to && L6 ::1 4002", "::1 6 && ::1 6"),
    ]);
    behind.leaves_the_rest();
    let behind = Behind::of(Some("::1"), Some(WAN4));
    behind.says(&[
        ("U6 c1 ::1 4000 from", "::1 6"),
        ("L6 c1 ::1 4002 from to", "::1 6"),
        ("U c2 127.0.0.1 4000 from", WAN4),
    ]);
}
