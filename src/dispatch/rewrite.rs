//! What has to be written in another way on the way to a member and back: addresses behind NAT and the target of
//! disconnect notifications; and the commands that we make out of a client's. Pure.
//!
//! What needs no rewriting goes through byte for byte.

mod notify;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::io::Write as _;

pub use self::notify::{
    Addressee, Notice, Notifier, NotifyPlan, Origin, RelayTo, Undeliverable, notice, notify_plan, quote,
    split_notification, suffix, unquote,
};
use crate::protocol::command::{COMMAND_MAX, Command, Verb};
use crate::protocol::modifiers::{Kind, Modifiers};
use crate::protocol::parts::Part;
use crate::protocol::reply::{Media, Results};
use crate::protocol::{Words, decimal, trim_end, trim_start, write_decimal};

/// The number of RTPproxy's module that catches digits.
const CATCH_DTMF: u64 = 3;

/// Addresses that take the place of others: at most one of each family, since one of the other family would be of no
/// use to whoever gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn of(&self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 {
            self.v6.map(IpAddr::V6)
        } else {
            self.v4.map(IpAddr::V4)
        }
    }
}

/// The first of each family.
impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut all = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(address) => all.v4 = all.v4.or(Some(address)),
                IpAddr::V6(address) => all.v6 = all.v6.or(Some(address)),
            }
        }
        all
    }
}

/// How a command is to be written for one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Towards<'a> {
    /// The local addresses of each U and L there.
    pub lan: Addresses,
    /// What becomes of the notify pair.
    pub notify: NotifyPlan<'a>,
    /// What the relay is told of the call's socket, where the command has no notify pair.
    pub tags: Option<&'a [u8]>,
}

/// Appends the command as that member is to get it, without a line end. Only a U or an L is ever changed.
pub fn command(command: &Command<'_>, towards: &Towards<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    write_command(command, towards, out);
    // Rewriting makes it longer. A member would cut it off; the call matters more than the notification.
    if out.len() - start > COMMAND_MAX && (towards.notify != NotifyPlan::Keep || towards.tags.is_some()) {
        out.truncate(start);
        write_command(
            command,
            &Towards {
                notify: NotifyPlan::Drop,
                tags: None,
                ..*towards
            },
            out,
        );
    }
}

fn write_command(command: &Command<'_>, towards: &Towards<'_>, out: &mut Vec<u8>) {
    let text = command.text;
    let mut done = 0;
    if !matches!(command.verb, Verb::Update | Verb::Lookup) {
        out.extend_from_slice(text);
        return;
    }
    let address = Words::new(text).nth(2).unwrap_or_default();
    if let Some(lan) = towards.lan.of(is_ipv6(command.modifiers, address)) {
        write_first(text, command.modifiers, lan, out);
        done = 1 + command.modifiers.len();
    }
    if let Some(notify) = command.notify.filter(|_| towards.notify != NotifyPlan::Keep) {
        out.extend_from_slice(text.get(done..notify.before).unwrap_or_default());
        notify::write_pair(&notify, towards.notify, out);
        done = notify.end;
    }
    let of_pair = match (command.notify, towards.notify) {
        (Some(notify), NotifyPlan::Relay(relay)) => suffix(notify.socket, relay),
        _ => None,
    };
    let suffix = of_pair
        .as_deref()
        .or(towards.tags.filter(|_| command.notify.is_none()));
    let parts_at = text.len() - command.parts.len();
    for part in command.parts() {
        let at = parts_at + part.at;
        let behind = at + part.first().len();
        if part.letter() == b'L'
            && let Some(lan) = towards.lan.of(is_ipv6(part.modifiers(), part.word(1)))
        {
            out.extend_from_slice(text.get(done..at).unwrap_or_default());
            write_first(part.first(), part.modifiers(), lan, out);
            done = behind;
        } else if let (Some(tag), Some(suffix)) = (tag_of(&part), suffix) {
            let rest = text.get(behind..).unwrap_or_default();
            let tag_at = behind + rest.len() - trim_start(rest).len();
            out.extend_from_slice(text.get(done..tag_at).unwrap_or_default());
            notify::write_tag(suffix, tag, out);
            done = tag_at + tag.len();
        }
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
}

/// The tag of a sub-command that has RTPproxy's `catch_dtmf` send what it catches to the target of the call's
/// notifications.
fn tag_of<'a>(part: &Part<'a>) -> Option<&'a [u8]> {
    let module = part
        .modifiers()
        .split(|byte| *byte == b':')
        .next()
        .and_then(decimal);
    let tag = part.word(1);
    (part.letter() == b'M' && module == Some(CATCH_DTMF) && !tag.is_empty()).then_some(tag)
}

/// Whether a U or an L has a tag of that kind.
pub fn has_tags(command: &Command<'_>) -> bool {
    matches!(command.verb, Verb::Update | Verb::Lookup) && command.parts().any(|part| tag_of(&part).is_some())
}

/// Whether a U or an L is about media over IPv6.
fn is_ipv6(modifiers: &[u8], address: &[u8]) -> bool {
    let mut kinds = Modifiers::new(modifiers).flatten();
    address.contains(&b':') || kinds.any(|(kind, _)| kind == Kind::Ipv6)
}

/// The first word of a U or an L with that local address and no other. It comes last, in brackets when it is
/// IPv6: a `6` behind `L10.0.0.1` would belong to the address.
fn write_first(word: &[u8], modifiers: &[u8], lan: IpAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(word.get(..1).unwrap_or_default());
    for (kind, text) in Modifiers::new(modifiers).flatten() {
        if !matches!(kind, Kind::Local | Kind::Towards) {
            out.extend_from_slice(text);
        }
    }
    // A vector takes any bytes.
    match lan {
        IpAddr::V4(lan) => write!(out, "L{lan}").ok(),
        IpAddr::V6(lan) => write!(out, "L[{lan}]").ok(),
    };
}

/// Appends the reply as the client is to get it, without a line end. `command` is what the client sent; `wan` are
/// the member's public addresses: that of its family takes the place of the address in the reply to a U or an L, unless
/// the member has no `lan` address and the client itself named a local one (`L…`) and none to be reached (`R…`).
pub fn reply(command: &Command<'_>, reply: &[u8], wan: Addresses, lan: Addresses, out: &mut Vec<u8>) {
    let reply = trim_end(trim_start(reply));
    let media = |result| Media::parse(result).filter(|media| media.port > 0);
    let is_media = matches!(command.verb, Verb::Update | Verb::Lookup)
        && Results::new(reply).next().and_then(media).is_some();
    if !is_media {
        out.extend_from_slice(reply);
        return;
    }
    let address = Words::new(command.text).nth(2).unwrap_or_default();
    let mut parts = command.parts();
    for (index, result) in Results::new(reply).enumerate() {
        let asked = if index == 0 {
            Some((command.modifiers, address))
        } else {
            out.extend_from_slice(b" && ");
            let part = parts.next().filter(|part| part.letter() == b'L');
            part.map(|part| (part.modifiers(), part.word(1)))
        };
        let new = asked.zip(media(result)).and_then(|((modifiers, asked), media)| {
            let ipv6 = match media.address {
                Some(address) => media.ipv6 || address.contains(&b':'),
                None => is_ipv6(modifiers, asked),
            };
            let wan = wan.of(ipv6)?;
            replaces(modifiers, lan.of(ipv6).is_some()).then_some((media.port, wan))
        });
        match new {
            Some((port, wan)) => write_media(port, wan, out),
            None => out.extend_from_slice(result),
        }
    }
}

/// Whether the address in the reply to a request with those modifiers is replaced.
fn replaces(modifiers: &[u8], has_lan: bool) -> bool {
    let has = |wanted| {
        Modifiers::new(modifiers)
            .flatten()
            .any(|(kind, _)| kind == wanted)
    };
    has_lan || !has(Kind::Local) || has(Kind::Towards)
}

fn write_media(port: u16, address: IpAddr, out: &mut Vec<u8>) {
    write_decimal(u64::from(port), out);
    // A vector takes any bytes.
    match address {
        IpAddr::V4(address) => write!(out, " {address}").ok(),
        IpAddr::V6(address) => write!(out, " {address} 6").ok(),
    };
}

/// Appends the command that undoes a U at a member where it has created a session that nobody wants.
pub fn delete_for(command: &Command<'_>, out: &mut Vec<u8>) {
    if command.weak {
        // A plain D leaves a weak session alive. The leg that creates it is matched by the second tag only, and
        // the first one must not match.
        let nobody = if command.from_tag.starts_with(b"-") {
            b"+"
        } else {
            b"-"
        };
        write_words(b"Dw", [command.call_id, nobody, command.from_tag], out);
    } else {
        write_words(b"D", [command.call_id, command.from_tag], out);
    }
}

/// The commands that end a call at a member, all its streams, whichever side the command came from.
pub fn ends_for(command: &Command<'_>) -> Vec<Vec<u8>> {
    let from = without_stream(command.from_tag);
    let to = command.to_tag.map(without_stream);
    let written = |first: &[u8], from, to: Option<&[u8]>| {
        let mut text = Vec::new();
        write_words(first, [command.call_id, from].into_iter().chain(to), &mut text);
        text
    };
    match to {
        // Each party holds a weak session for itself.
        Some(to) if command.weak => vec![written(b"Dw", from, Some(to)), written(b"Dw", to, Some(from))],
        None if command.weak => {
            let mut undo = Vec::new();
            let of_all = Command {
                from_tag: from,
                ..*command
            };
            delete_for(&of_all, &mut undo);
            vec![undo]
        }
        _ => vec![written(b"D", from, to)],
    }
}

/// A tag without the number of its stream.
fn without_stream(tag: &[u8]) -> &[u8] {
    let end = tag.iter().position(|byte| *byte == b';');
    // A tag that is nothing else would mean none.
    end.filter(|end| *end > 0)
        .and_then(|end| tag.get(..end))
        .unwrap_or(tag)
}

/// Appends the command that asks for the session of a command and changes nothing.
pub fn query_for(command: &Command<'_>, out: &mut Vec<u8>) {
    write_words(
        b"Q",
        [command.call_id, command.from_tag]
            .into_iter()
            .chain(command.to_tag),
        out,
    );
}

fn write_words<'a>(first: &[u8], words: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(first);
    for word in words {
        out.push(b' ');
        out.extend_from_slice(word);
    }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::command::parse;

    const LAN4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 4));
    const LAN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 4));
    const WAN4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 4));
    const WAN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 4));
    const PREFIX: &str = "/var/run/b2bua.sock";
    const RELAY: NotifyPlan<'_> = NotifyPlan::Relay(RelayTo {
        prefix: PREFIX,
        port: 12131,
        tcp: false,
    });

    fn written(text: &str, lan: Option<IpAddr>, notify: NotifyPlan<'_>) -> String {
        let mut out = b"before ".to_vec();
        command(
            &parse(text.as_bytes()).unwrap(),
            &Towards {
                lan: lan.into_iter().collect(),
                notify,
                tags: None,
            },
            &mut out,
        );
        String::from_utf8(out)
            .unwrap()
            .strip_prefix("before ")
            .unwrap()
            .to_owned()
    }

    fn made(text: &str, make: fn(&Command<'_>, &mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        make(&parse(text.as_bytes()).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_lan_address_comes_last_and_alone() {
        for (text, want) in [
            ("U c 1.2.3.4 5 f", "UL10.0.0.4 c 1.2.3.4 5 f"),
            // It is of no use to the other family.
            ("u6 c ::1 5 f", "u6 c ::1 5 f"),
            ("UR[::2] c ::1 5 f", "UR[::2] c ::1 5 f"),
            (
                "U c 1.2.3.4 5 f t && L6 ::1 6",
                "UL10.0.0.4 c 1.2.3.4 5 f t && L6 ::1 6",
            ),
            (
                "Uz20R192.0.2.9wc0,8 c 1.2.3.4 5  f",
                "Uz20wc0,8L10.0.0.4 c 1.2.3.4 5  f",
            ),
            (
                "LL192.0.2.1r[::1]a c 1.2.3.4 5 f t",
                "LaL10.0.0.4 c 1.2.3.4 5 f t",
            ),
            ("Ul{outside} c 1.2.3.4 5 f", "UL10.0.0.4 c 1.2.3.4 5 f"),
            (
                "Ua c 1.2.3.4 5 f t && LR1.2.3.4a 1.2.3.4 6 && S ttl=60 && D",
                "UaL10.0.0.4 c 1.2.3.4 5 f t && LaL10.0.0.4 1.2.3.4 6 && S ttl=60 && D",
            ),
            ("D c f t", "D c f t"),
            ("Q c f t", "Q c f t"),
        ] {
            assert_eq!(written(text, Some(LAN4), NotifyPlan::Keep), want);
        }
        assert_eq!(
            written("U6 c ::1 5 f", Some(LAN6), NotifyPlan::Keep),
            "U6L[fd00::4] c ::1 5 f"
        );
    }

    #[test]
    fn each_family_has_its_own_address() {
        let both: Addresses = [LAN6, LAN4, WAN4].into_iter().collect();
        let towards = Towards {
            lan: both,
            notify: NotifyPlan::Keep,
            tags: None,
        };
        for (text, want) in [
            ("U c 1.2.3.4 5 f", "UL10.0.0.4 c 1.2.3.4 5 f"),
            ("U6 c ::1 5 f", "U6L[fd00::4] c ::1 5 f"),
            ("U c ::1 5 f", "UL[fd00::4] c ::1 5 f"),
        ] {
            let mut out = Vec::new();
            command(&parse(text.as_bytes()).unwrap(), &towards, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn the_notify_pair_is_kept_dropped_or_redirected() {
        let text = "U c 1.2.3.4 5 f t  unix:/var/run/b2bua.sock.7  a%2fb+c && D";
        assert_eq!(written(text, None, NotifyPlan::Keep), text);
        assert_eq!(written(text, None, NotifyPlan::Drop), "U c 1.2.3.4 5 f t && D");
        assert_eq!(
            written(text, None, RELAY),
            "U c 1.2.3.4 5 f t tcp:%%CC_SELF%%:12131 .7%20a%2Fb%20c && D"
        );
        assert_eq!(
            written("U c 1.2.3.4 5 f /var/run/b2bua.sock tag", Some(LAN4), RELAY),
            "UL10.0.0.4 c 1.2.3.4 5 f tcp:%%CC_SELF%%:12131 -%20tag"
        );
        let to_self = "U c 1.2.3.4 5 f tcp:%%CC_SELF%%:9000 tag";
        assert_eq!(
            written(to_self, None, RELAY),
            "U c 1.2.3.4 5 f tcp:%%CC_SELF%%:12131 -%20tag"
        );
        let client = NotifyPlan::Client(Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(
            written(to_self, None, client),
            "U c 1.2.3.4 5 f tcp:192.0.2.7:9000 tag"
        );
        assert_eq!(
            written("U c 1.2.3.4 5 f t", None, NotifyPlan::Drop),
            "U c 1.2.3.4 5 f t"
        );
    }

    #[test]
    fn a_tag_for_the_same_socket_gets_its_suffix_too() {
        let text = "Uc0,101 c1 127.0.0.1 4000 ft;1 /var/run/b2bua.sock.9 T1.1 && M3:1  Dd1.1 && M1:1 Dx";
        assert_eq!(
            written(text, Some(LAN4), RELAY),
            "Uc0,101L10.0.0.4 c1 127.0.0.1 4000 ft;1 tcp:%%CC_SELF%%:12131 .9%20T1.1 && M3:1  .9%20Dd1.1 && M1:1 Dx"
        );
        for plan in [NotifyPlan::Keep, NotifyPlan::Client(Ipv4Addr::LOCALHOST)] {
            assert!(written(text, None, plan).ends_with(" && M3:1  Dd1.1 && M1:1 Dx"));
        }
        let mut out = Vec::new();
        let towards = Towards {
            lan: Addresses::default(),
            notify: NotifyPlan::Drop,
            tags: Some(b".9"),
        };
        let text = "L c1 127.0.0.1 4000 ft tt && M3:1 Dd1.1 96 && D";
        command(&parse(text.as_bytes()).unwrap(), &towards, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "L c1 127.0.0.1 4000 ft tt && M3:1 .9%20Dd1.1 96 && D"
        );
    }

    #[test]
    fn a_pair_that_has_become_too_long_is_left_out() {
        let tag = "/".repeat(3000);
        let text = format!("U c 1.2.3.4 5 f {PREFIX} {tag}");
        assert_eq!(written(&text, None, RELAY), "U c 1.2.3.4 5 f");
    }

    fn replied(text: &str, answer: &str, wan: Option<IpAddr>, has_lan: bool) -> String {
        let mut out = Vec::new();
        reply(
            &parse(text.as_bytes()).unwrap(),
            answer.as_bytes(),
            wan.into_iter().collect(),
            has_lan.then_some(LAN4).into_iter().collect(),
            &mut out,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_wan_address_takes_the_place_of_the_members() {
        let plain = "U c 1.2.3.4 5 f";
        for (text, answer, wan, has_lan, want) in [
            (plain, "40000 10.0.0.4\n", Some(WAN4), false, "40000 203.0.113.4"),
            (plain, "40000 10.0.0.4", Some(WAN6), false, "40000 10.0.0.4"),
            (plain, "40000 fd00::4 6\n", Some(WAN4), true, "40000 fd00::4 6"),
            (
                plain,
                "40000 fd00::4 6\n",
                Some(WAN6),
                false,
                "40000 2001:db8::4 6",
            ),
            ("U6 c ::1 5 f", "40000", Some(WAN4), true, "40000"),
            ("U6 c ::1 5 f", "40000", Some(WAN6), true, "40000 2001:db8::4 6"),
            (plain, "40000", Some(WAN4), false, "40000 203.0.113.4"),
            (plain, "40000 10.0.0.4\n", None, true, "40000 10.0.0.4"),
            (plain, "E72\n", Some(WAN4), true, "E72"),
            ("L c 1.2.3.4 5 f t", "0\n", Some(WAN4), true, "0"),
            (
                "L c 1.2.3.4 5 f t",
                "40000 10.0.0.4\n",
                Some(WAN4),
                true,
                "40000 203.0.113.4",
            ),
            ("D c f", "0\n", Some(WAN4), true, "0"),
            ("Q c f", "60 0 0 0 0\n", Some(WAN4), true, "60 0 0 0 0"),
            // Who names a local address gets it, unless the member's is always the LAN's.
            (
                "UL10.0.0.4 c 1.2.3.4 5 f",
                "40000 10.0.0.4",
                Some(WAN4),
                false,
                "40000 10.0.0.4",
            ),
            (
                "UL10.0.0.4 c 1.2.3.4 5 f",
                "40000 10.0.0.4",
                Some(WAN4),
                true,
                "40000 203.0.113.4",
            ),
            (
                "UL10.0.0.4R1.2.3.4 c 1.2.3.4 5 f",
                "40000 10.0.0.4",
                Some(WAN4),
                false,
                "40000 203.0.113.4",
            ),
            (
                "UR1.2.3.4 c 1.2.3.4 5 f",
                "40000 10.0.0.4",
                Some(WAN4),
                false,
                "40000 203.0.113.4",
            ),
        ] {
            assert_eq!(replied(text, answer, wan, has_lan), want, "{text} {answer}");
        }
    }

    #[test]
    fn the_wan_address_stands_in_looked_up_parts_too() {
        let text = "U c 1.2.3.4 5 f t && S ttl=60 && L 1.2.3.4 6 && M1:1 && LL10.0.0.4 1.2.3.4 7";
        for (answer, want) in [
            ("40000 10.0.0.4", "40000 203.0.113.4"),
            ("40000 10.0.0.4 && -1", "40000 203.0.113.4 && -1"),
            (
                "40000 10.0.0.4 && 0 && 40002 10.0.0.4 && 40004 10.0.0.4 && 40006 10.0.0.4\n",
                "40000 203.0.113.4 && 0 && 40002 203.0.113.4 && 40004 10.0.0.4 && 40006 10.0.0.4",
            ),
            ("40000 10.0.0.4 && 0 && -1", "40000 203.0.113.4 && 0 && -1"),
            ("0 && -1", "0 && -1"),
        ] {
            assert_eq!(replied(text, answer, Some(WAN4), false), want);
        }
    }

    #[test]
    fn commands_are_made_of_a_command() {
        for (text, undo, query) in [
            ("Uz20 c 1.2.3.4 5 f;2", "D c f;2", "Q c f;2"),
            ("U c 1.2.3.4 5 f;2 t;2 s n", "D c f;2", "Q c f;2 t;2"),
            ("Uw c 1.2.3.4 5 f;2", "Dw c - f;2", "Q c f;2"),
            ("UW c 1.2.3.4 5 -;2 t", "Dw c + -;2", "Q c -;2 t"),
            ("D c f t", "D c f", "Q c f t"),
        ] {
            assert_eq!(made(text, delete_for), undo);
            assert_eq!(made(text, query_for), query);
        }
    }

    #[test]
    fn a_call_ends_with_all_its_streams_and_parties() {
        for (text, ends) in [
            ("U c 1.2.3.4 5 f;2", &["D c f"][..]),
            ("U c 1.2.3.4 5 f;2 t;2 s n", &["D c f t"]),
            ("U c 1.2.3.4 5 ;2 t", &["D c ;2 t"]),
            ("Uw c 1.2.3.4 5 f", &["Dw c - f"]),
            ("Uw c 1.2.3.4 5 f;2 t;2", &["Dw c f t", "Dw c t f"]),
        ] {
            let made = ends_for(&parse(text.as_bytes()).unwrap());
            let made: Vec<&str> = made.iter().map(|text| str::from_utf8(text).unwrap()).collect();
            assert_eq!(made, ends, "{text}");
        }
    }

    prop_compose! {
        /// A U or an L with any modifiers, tags and parts.
        fn media_command()(
            letter in "[ULul]",
            modifiers in "(a|S|w|6|z20|c0,8)?(L127[.]0[.]0[.]1|R\\[::1\\]|l\\{x\\})?(n|A)?",
            to_tag in "( {1,2}t;1)?",
            notify in "( (unix:)?/var/run/b2bua[.]sock([.][0-9])? ([a-z+]|%[2F][0-9A-F]){1,3})?",
            looked_up in "( && L(a|R1[.]2[.]3[.]4)? 1[.]2[.]3[.]4 5)?",
            parts in "( && (D|S ttl=60|M1:1)){0,3}",
        ) -> String {
            let address = if modifiers.contains('6') { "::1" } else { "192.0.2.1" };
            let updates = letter.eq_ignore_ascii_case("u");
            let notify = if updates { notify } else { String::new() };
            let looked_up = if updates && !to_tag.is_empty() { looked_up } else { String::new() };
            format!("{letter}{modifiers} call {address} 4000 f;1{to_tag}{notify}{looked_up}{parts}{looked_up}")
        }
    }

    proptest! {
        #[test]
        fn nothing_to_rewrite_changes_nothing(text in media_command()) {
            prop_assert!(parse(text.as_bytes()).is_ok());
            prop_assert_eq!(written(&text, None, NotifyPlan::Keep), text);
        }

        /// What is written for a member says the same in all but what was to be rewritten.
        #[test]
        fn what_is_rewritten_reads_as_it_should(text in media_command(), ipv6: bool, relay: bool) {
            let before = parse(text.as_bytes()).unwrap();
            let lan = if ipv6 { LAN6 } else { LAN4 };
            let written = written(&text, Some(lan), if relay { RELAY } else { NotifyPlan::Drop });
            let after = parse(written.as_bytes()).map_err(|code| TestCaseError::fail(format!("{written}: {code}")))?;
            prop_assert_eq!(
                (after.verb, after.call_id, after.from_tag, after.to_tag, after.weak, after.ends_session),
                (before.verb, before.call_id, before.from_tag, before.to_tag, before.weak, before.ends_session)
            );
            let firsts = |command: Command<'_>| -> Vec<(String, bool)> {
                let parts = command.parts().filter(|part| part.letter() == b'L');
                let parts = parts.map(|part| (part.modifiers().to_vec(), part.word(1).to_vec()));
                let address = Words::new(command.text).nth(2).unwrap().to_vec();
                let all = core::iter::once((command.modifiers.to_vec(), address)).chain(parts);
                all.map(|(modifiers, address)| {
                    let v6 = is_ipv6(&modifiers, &address);
                    (String::from_utf8(modifiers).unwrap(), v6)
                }).collect()
            };
            for ((modifiers, v6), (was, _)) in firsts(after).into_iter().zip(firsts(before)) {
                if v6 != ipv6 {
                    prop_assert_eq!(modifiers, was);
                    continue;
                }
                let local: Vec<_> = Modifiers::new(modifiers.as_bytes()).flatten()
                    .filter(|(kind, _)| matches!(kind, Kind::Local | Kind::Towards)).collect();
                prop_assert_eq!(local.len(), 1);
                let want = if ipv6 { "L[fd00::4]" } else { "L10.0.0.4" };
                prop_assert!(modifiers.ends_with(want));
            }
            prop_assert_eq!(firsts(after).len(), firsts(before).len());
            let rest = |command: Command<'_>| Modifiers::new(command.modifiers).flatten()
                .filter(|(kind, _)| !matches!(kind, Kind::Local | Kind::Towards))
                .map(|(_, text)| text.to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(rest(after), rest(before));
            match (before.notify.filter(|_| relay), after.notify) {
                (Some(before), Some(after)) => {
                    prop_assert_eq!(after.socket, b"tcp:%%CC_SELF%%:12131");
                    // What the member will send us leads to the socket that the client named.
                    let line = unquote(after.tag).unwrap();
                    let (path, rest) = split_notification(&line, PREFIX, false).unwrap();
                    let socket = before.socket.strip_prefix(b"unix:").unwrap_or(before.socket);
                    prop_assert_eq!(path, Addressee::Path(str::from_utf8(socket).unwrap().into()));
                    prop_assert_eq!(rest.to_vec(), unquote(before.tag).unwrap());
                }
                (None, None) => {}
                (before, after) => prop_assert!(false, "{:?} {:?}", before, after),
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in media_command()) {
            reply(&parse(text.as_bytes()).unwrap(), &bytes, [WAN6].into_iter().collect(), [LAN6].into_iter().collect(), &mut Vec::new());
        }
    }
}
