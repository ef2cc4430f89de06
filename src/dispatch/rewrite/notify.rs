//! Disconnect notifications: what becomes of the notify pair of a U towards one member, and the way back of what
//! that member then says to our relay. Pure.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::borrow::Cow;
use std::io::Write as _;
use std::path::PathBuf;

use crate::config::model::SOCKET_PATH_MAX;
use crate::protocol::command::NotifyArgs;
use crate::protocol::{decimal, write_decimal};

/// What a notify-socket says for the address that the command came from.
const SELF: &[u8] = b"%%CC_SELF%%";
/// Begins a suffix that is an address.
const TCP: &[u8] = b"tcp:";
/// Stands for an empty suffix in what the relay is sent.
const EMPTY_SUFFIX: &[u8] = b"-";

/// The relay of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayTo<'a> {
    /// Beginning of the paths that are relayed to.
    pub prefix: &'a str,
    /// Port on which we listen for members.
    pub port: u16,
    /// Whether it serves targets over TCP too.
    pub tcp: bool,
}

/// What becomes of a U's notify-socket and notify-tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyPlan<'a> {
    /// They stay as they are.
    Keep,
    /// They are left out: nothing could deliver the notification.
    Drop,
    /// The member tells us, and we tell the client's socket.
    Relay(RelayTo<'a>),
    /// `%%CC_SELF%%` becomes the client's address.
    Client(Ipv4Addr),
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// On this machine, on a UNIX socket.
    Unix,
    /// At that address.
    Ip(IpAddr),
}

/// What decides whether a member can deliver a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notifier {
    /// It is on this machine, reached over a UNIX socket.
    pub local: bool,
    /// It is reached over IPv4; the wildcard of RTPproxy knows no other family.
    pub ipv4: bool,
    /// What it said to `VF 20081224`: it sends notifications.
    pub sends: Option<bool>,
    /// What it said to `VF 20150617`: it knows `%%CC_SELF%%`.
    pub knows_self: Option<bool>,
}

impl Notifier {
    /// Whether it can tell our relay.
    pub fn tells_relay(&self) -> bool {
        !self.local && self.ipv4 && self.sends == Some(true) && self.knows_self == Some(true)
    }
}

/// A socket of the SIP server on which it takes notifications.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addressee {
    /// A UNIX socket of this machine.
    Path(PathBuf),
    /// Somewhere over TCP.
    Tcp(SocketAddr),
}

impl fmt::Display for Addressee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

impl Addressee {
    /// As it is written in a command.
    pub fn written(&self) -> String {
        match self {
            Self::Path(path) => format!("unix:{}", path.display()),
            Self::Tcp(address) => format!("tcp:{address}"),
        }
    }

    /// What [`Self::written`] wrote.
    pub fn read(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        match text.strip_prefix("unix:") {
            Some(path) => Some(Self::Path(path.into())),
            None => text.strip_prefix("tcp:")?.parse().ok().map(Self::Tcp),
        }
    }
}

/// One notification for the SIP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Where it goes.
    pub to: Addressee,
    /// What is written there, without a line end.
    pub text: Box<[u8]>,
}

/// Where a notification is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    /// `unix:PATH` or `PATH`.
    Path(&'a [u8]),
    /// `tcp:%%CC_SELF%%:PORT`, with or without `tcp:`.
    Asker(u16),
    /// `tcp:HOST:PORT` or `HOST:PORT`, here without `tcp:`.
    Host(&'a [u8]),
    /// Nothing that a notification could go to over a network.
    Odd,
}

impl<'a> Target<'a> {
    fn of(socket: &'a [u8]) -> Self {
        if let Some(path) = socket.strip_prefix(b"unix:") {
            return Self::Path(path);
        }
        let (tcp, inside) = match socket.strip_prefix(b"tcp:") {
            Some(inside) => (true, inside),
            None => (false, socket),
        };
        let colon = inside
            .iter()
            .rposition(|byte| *byte == b':')
            .filter(|_| !inside.starts_with(b"/"));
        let host_port = colon.and_then(|colon| Some((inside.get(..colon)?, inside.get(colon + 1..)?)));
        let host_port = host_port.and_then(|(host, port)| {
            let port = decimal(port)
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0)?;
            (!host.is_empty() && (tcp || host != b"fd")).then_some((host, port))
        });
        match host_port {
            Some((host, port)) if host == SELF => Self::Asker(port),
            Some(_) => Self::Host(inside),
            None if tcp || socket.starts_with(b"fd:") => Self::Odd,
            None => Self::Path(socket),
        }
    }
}

/// Decides what becomes of the notify pair of a client at `origin` towards one member. `relay` is that of the cluster's
/// `<disconnect_notify>`.
pub fn notify_plan<'a>(
    socket: &[u8],
    origin: Origin,
    relay: Option<RelayTo<'a>>,
    member: Notifier,
) -> NotifyPlan<'a> {
    let target = Target::of(socket);
    let client = match (target, origin) {
        (Target::Asker(_), Origin::Ip(address)) => Some(address.to_canonical()),
        _ => None,
    };
    let asker = match client {
        Some(IpAddr::V4(address)) => NotifyPlan::Client(address),
        // RTPproxy connects over IPv4 only.
        Some(IpAddr::V6(_)) => NotifyPlan::Drop,
        None => NotifyPlan::Keep,
    };
    if member.local {
        return asker;
    }
    if member.sends != Some(true) {
        return NotifyPlan::Drop;
    }
    let by_relay = relay.filter(|relay| member.tells_relay() && suffix(socket, *relay).is_some());
    match (target, by_relay) {
        (Target::Odd, _) => NotifyPlan::Drop,
        (Target::Asker(_), _) if client.is_some() => asker,
        (_, Some(relay)) => NotifyPlan::Relay(relay),
        (Target::Host(_), None) => NotifyPlan::Keep,
        (Target::Asker(_) | Target::Path(_), None) => NotifyPlan::Drop,
    }
}

/// What the relay is told of a socket, if it may serve it: what it is to put behind its prefix, or `tcp:` and an address.
/// A host name is left to the member.
pub fn suffix(socket: &[u8], relay: RelayTo<'_>) -> Option<Cow<'static, [u8]>> {
    match Target::of(socket) {
        Target::Asker(_) => Some(EMPTY_SUFFIX.into()),
        Target::Path(path) => match path.strip_prefix(relay.prefix.as_bytes())? {
            b"" => Some(EMPTY_SUFFIX.into()),
            // It would be taken for an empty one.
            EMPTY_SUFFIX => None,
            // Nor for an address.
            suffix if relay.tcp && suffix.starts_with(TCP) => None,
            suffix => is_inside(suffix).then(|| suffix.to_owned().into()),
        },
        Target::Host(host) if relay.tcp => {
            let address: SocketAddr = str::from_utf8(host).ok()?.parse().ok()?;
            Some(format!("tcp:{address}").into_bytes().into())
        }
        Target::Host(_) | Target::Odd => None,
    }
}

/// Whether a suffix cannot lead to a path outside the prefix.
fn is_inside(suffix: &[u8]) -> bool {
    suffix.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'/')
        && !suffix.windows(2).any(|two| two == b"..")
}

/// The notify pair with the separator before it, or nothing.
pub(super) fn write_pair(notify: &NotifyArgs<'_>, plan: NotifyPlan<'_>, out: &mut Vec<u8>) {
    match plan {
        NotifyPlan::Keep | NotifyPlan::Drop => {}
        NotifyPlan::Relay(relay) => {
            let (Some(suffix), Some(_)) = (suffix(notify.socket, relay), line(notify.tag)) else {
                return;
            };
            out.extend_from_slice(b" tcp:");
            out.extend_from_slice(SELF);
            out.push(b':');
            write_decimal(u64::from(relay.port), out);
            out.push(b' ');
            write_tag(&suffix, notify.tag, out);
        }
        NotifyPlan::Client(address) => {
            let Target::Asker(port) = Target::of(notify.socket) else {
                return;
            };
            write!(out, " tcp:{address}:{port} ").ok();
            out.extend_from_slice(notify.tag);
        }
    }
}

/// A tag that makes the relay's line: the suffix, and what the tag said.
pub(super) fn write_tag(suffix: &[u8], tag: &[u8], out: &mut Vec<u8>) {
    match line(tag) {
        Some(text) => {
            quote(suffix, out);
            quote(b" ", out);
            quote(&text, out);
        }
        None => out.extend_from_slice(tag),
    }
}

/// The notification itself that a notify-tag asks for, if it is one line. With a line end in it the rest would
/// reach us as a line of its own, for a socket that it names itself.
fn line(tag: &[u8]) -> Option<Vec<u8>> {
    unquote(tag).filter(|text| !text.is_empty() && !text.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)))
}

/// The notification that a member sends for a notify pair, as the SIP server gets it, whichever way it goes; the
/// arguments are those of [`notify_plan`]. `None` when there is none, or when its target is a host name, which
/// only the member could look up.
pub fn notice(
    notify: &NotifyArgs<'_>,
    origin: Origin,
    relay: Option<RelayTo<'_>>,
    member: Notifier,
) -> Option<Notice> {
    let path = |path: &[u8]| {
        let good = (1..=SOCKET_PATH_MAX).contains(&path.len());
        let path = str::from_utf8(path).ok().filter(|_| good)?;
        Some(Addressee::Path(PathBuf::from(path)))
    };
    let target = Target::of(notify.socket);
    let to = match (notify_plan(notify.socket, origin, relay, member), target) {
        (NotifyPlan::Relay(_) | NotifyPlan::Keep, Target::Path(socket)) => path(socket)?,
        (NotifyPlan::Relay(relay), Target::Asker(_)) => path(relay.prefix.as_bytes())?,
        (NotifyPlan::Client(address), Target::Asker(port)) => Addressee::Tcp((address, port).into()),
        (NotifyPlan::Relay(_) | NotifyPlan::Keep, Target::Host(host)) => {
            Addressee::Tcp(str::from_utf8(host).ok()?.parse().ok()?)
        }
        _ => return None,
    };
    let text = line(notify.tag)?.into();
    Some(Notice { to, text })
}

/// Appends `bytes` percent-encoded: letters, digits and `-_.~` stay.
pub fn quote(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Undoes percent-encoding as RTPproxy does, which takes `+` for a space. `None` when a `%` has no two digits.
pub fn unquote(word: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(word.len());
    let mut bytes = word.iter();
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' => b' ',
            other => *other,
        });
    }
    Some(out)
}

/// Why a line from a member is passed on to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeliverable {
    /// It has no suffix, or nothing behind it.
    Malformed,
    /// Its suffix leads outside the prefix.
    Outside,
    /// The path would be longer than a UNIX socket's may be.
    TooLong,
}

impl Undeliverable {
    /// For the log: what such a line is.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "a line without the end of a path or without a tag",
            Self::Outside => "a path outside dest_socket_prefix",
            Self::TooLong => "a path longer than that of a socket may be",
        }
    }
}

/// Splits a line that a member has sent to the relay, `SUFFIX REST`, into the socket that it is for and what is
/// to be written there, without a line end. `tcp` says whether targets over TCP are served.
///
/// # Errors
/// When there is no such socket inside the prefix, nor such an address.
pub fn split_notification<'a>(
    line: &'a [u8],
    prefix: &str,
    tcp: bool,
) -> Result<(Addressee, &'a [u8]), Undeliverable> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let space = line
        .iter()
        .position(|byte| *byte == b' ')
        .ok_or(Undeliverable::Malformed)?;
    let (suffix, rest) = line.split_at_checked(space).ok_or(Undeliverable::Malformed)?;
    let rest = rest.get(1..).unwrap_or_default();
    if suffix.is_empty() || rest.is_empty() {
        return Err(Undeliverable::Malformed);
    }
    if let Some(address) = suffix.strip_prefix(TCP).filter(|_| tcp) {
        let address = str::from_utf8(address)
            .ok()
            .and_then(|address| address.parse().ok());
        return address
            .map(|address| (Addressee::Tcp(address), rest))
            .ok_or(Undeliverable::Malformed);
    }
    if !is_inside(suffix) {
        return Err(Undeliverable::Outside);
    }
    let suffix = if suffix == EMPTY_SUFFIX { &[] } else { suffix };
    // Graphic ASCII only, as was just checked.
    let suffix = str::from_utf8(suffix).map_err(|_| Undeliverable::Outside)?;
    if prefix.len() + suffix.len() > SOCKET_PATH_MAX {
        return Err(Undeliverable::TooLong);
    }
    Ok((Addressee::Path(format!("{prefix}{suffix}").into()), rest))
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    const PREFIX: &str = "/var/run/b2bua.sock";
    const TO: RelayTo<'_> = RelayTo {
        prefix: PREFIX,
        port: 12131,
        tcp: false,
    };
    const RELAY: NotifyPlan<'_> = NotifyPlan::Relay(TO);

    const REMOTE: Notifier = Notifier {
        local: false,
        ipv4: true,
        sends: Some(true),
        knows_self: Some(true),
    };
    const LOCAL: Notifier = Notifier {
        local: true,
        ipv4: false,
        sends: Some(true),
        knows_self: Some(true),
    };
    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    fn plan(socket: &str, origin: Origin, relay: bool, member: Notifier) -> NotifyPlan<'static> {
        notify_plan(socket.as_bytes(), origin, relay.then_some(TO), member)
    }

    #[test]
    fn the_plan_follows_what_can_deliver() {
        use NotifyPlan::{Drop, Keep};
        let over_udp = Origin::Ip(CLIENT.into());
        let mapped = Origin::Ip(CLIENT.to_ipv6_mapped().into());
        let over_udp6 = Origin::Ip(Ipv6Addr::LOCALHOST.into());
        let client = NotifyPlan::Client(CLIENT);
        let mute = Notifier {
            sends: Some(false),
            ..REMOTE
        };
        let unasked = Notifier {
            sends: None,
            ..REMOTE
        };
        let old = Notifier {
            knows_self: Some(false),
            ..REMOTE
        };
        let ipv6 = Notifier {
            ipv4: false,
            ..REMOTE
        };
        let path = "/var/run/b2bua.sock.1";
        for (socket, origin, relay, member, want) in [
            (path, Origin::Unix, true, REMOTE, RELAY),
            ("unix:/var/run/b2bua.sock", Origin::Unix, true, REMOTE, RELAY),
            (path, over_udp, true, REMOTE, RELAY),
            (path, Origin::Unix, true, LOCAL, Keep),
            (path, Origin::Unix, false, LOCAL, Keep),
            (path, Origin::Unix, false, REMOTE, Drop),
            (path, Origin::Unix, true, mute, Drop),
            (path, Origin::Unix, true, unasked, Drop),
            (path, Origin::Unix, true, old, Drop),
            (path, Origin::Unix, true, ipv6, Drop),
            ("/var/run/other.sock", Origin::Unix, true, REMOTE, Drop),
            ("/var/run/b2bua.sock/../x", Origin::Unix, true, REMOTE, Drop),
            ("/var/run/b2bua.sock..", Origin::Unix, true, REMOTE, Drop),
            ("/var/run/b2bua.sock-", Origin::Unix, true, REMOTE, Drop),
            ("tcp:192.0.2.1:9000", Origin::Unix, true, REMOTE, Keep),
            ("192.0.2.1:9000", Origin::Unix, false, old, Keep),
            ("192.0.2.1:9000", Origin::Unix, false, ipv6, Keep),
            ("192.0.2.1:9000", Origin::Unix, true, mute, Drop),
            ("tcp:192.0.2.1", Origin::Unix, true, REMOTE, Drop),
            ("tcp:192.0.2.1:0", Origin::Unix, true, REMOTE, Drop),
            ("fd:3", Origin::Unix, true, REMOTE, Drop),
            ("tcp:%%CC_SELF%%:9000", over_udp, true, REMOTE, client),
            ("%%CC_SELF%%:9000", over_udp, false, old, client),
            ("tcp:%%CC_SELF%%:9000", mapped, false, REMOTE, client),
            ("tcp:%%CC_SELF%%:9000", over_udp, false, LOCAL, client),
            ("tcp:%%CC_SELF%%:9000", over_udp6, true, REMOTE, Drop),
            ("tcp:%%CC_SELF%%:9000", over_udp, true, mute, Drop),
            ("tcp:%%CC_SELF%%:9000", Origin::Unix, true, REMOTE, RELAY),
            ("tcp:%%CC_SELF%%:9000", Origin::Unix, false, REMOTE, Drop),
            ("tcp:%%CC_SELF%%:9000", Origin::Unix, true, LOCAL, Keep),
        ] {
            assert_eq!(
                plan(socket, origin, relay, member),
                want,
                "{socket} {origin:?} {relay} {member:?}"
            );
        }
    }

    #[test]
    fn notifications_find_their_way_back() {
        let split = |line: &'static str| split_notification(line.as_bytes(), PREFIX, false);
        let path = |suffix: &str| Addressee::Path(format!("{PREFIX}{suffix}").into());
        assert_eq!(split(".7 a/b c\n"), Ok((path(".7"), &b"a/b c"[..])));
        assert_eq!(split("- tag\r\n"), Ok((path(""), &b"tag"[..])));
        for malformed in ["", "\n", "tag", "tag\n", " tag", "tag "] {
            assert_eq!(split(malformed), Err(Undeliverable::Malformed), "{malformed:?}");
        }
        for outside in ["/x tag", "a/../b tag", "..x tag", "a\u{e4} tag", "a\0 tag"] {
            assert_eq!(split(outside), Err(Undeliverable::Outside), "{outside:?}");
        }
        let long = format!("{} tag", "x".repeat(SOCKET_PATH_MAX));
        assert_eq!(
            split_notification(long.as_bytes(), PREFIX, false),
            Err(Undeliverable::TooLong)
        );
    }

    #[test]
    fn targets_over_tcp_are_relayed_to_where_that_is_wanted() {
        let relay = RelayTo { tcp: true, ..TO };
        let plan = |socket: &str, member| notify_plan(socket.as_bytes(), Origin::Unix, Some(relay), member);
        let old = Notifier {
            knows_self: Some(false),
            ..REMOTE
        };
        for (socket, member, want) in [
            ("tcp:192.0.2.1:9000", REMOTE, NotifyPlan::Relay(relay)),
            ("192.0.2.1:9000", REMOTE, NotifyPlan::Relay(relay)),
            ("tcp:[2001:db8::1]:9000", REMOTE, NotifyPlan::Relay(relay)),
            // One that cannot tell us tells the SIP server itself, as does one that has to look up a name.
            ("192.0.2.1:9000", old, NotifyPlan::Keep),
            ("tcp:sip.example:9000", REMOTE, NotifyPlan::Keep),
            ("tcp:192.0.2.1:9000", LOCAL, NotifyPlan::Keep),
            ("/var/run/b2bua.socktcp:192.0.2.1:9", REMOTE, NotifyPlan::Drop),
        ] {
            assert_eq!(plan(socket, member), want, "{socket}");
        }
        let mut tag = Vec::new();
        write_tag(&suffix(b"tcp:192.0.2.1:9000", relay).unwrap(), b"a%20b", &mut tag);
        let text = unquote(&tag).unwrap();
        let address = Addressee::Tcp("192.0.2.1:9000".parse().unwrap());
        assert_eq!(
            split_notification(&text, PREFIX, true),
            Ok((address, &b"a b"[..]))
        );
        let path = Addressee::Path(format!("{PREFIX}tcp:192.0.2.1:9000").into());
        assert_eq!(split_notification(&text, PREFIX, false), Ok((path, &b"a b"[..])));
        assert_eq!(
            split_notification(b"tcp:sip.example:1 a", PREFIX, true),
            Err(Undeliverable::Malformed)
        );
    }

    #[test]
    fn the_notice_is_what_the_sip_server_would_get() {
        let over_udp = Origin::Ip(CLIENT.into());
        let path = |path: &str| Some(Addressee::Path(path.into()));
        let tcp = |address: &str| Some(Addressee::Tcp(address.parse().unwrap()));
        let mute = Notifier {
            sends: Some(false),
            ..REMOTE
        };
        let to = |socket: &str, origin, member| {
            let notify = NotifyArgs {
                socket: socket.as_bytes(),
                tag: b"a%20b+c",
                before: 0,
                end: 0,
            };
            let notice = notice(&notify, origin, Some(TO), member)?;
            assert_eq!(*notice.text, *b"a b c");
            Some(notice.to)
        };
        assert_eq!(
            to("unix:/var/run/b2bua.sock.1", Origin::Unix, REMOTE),
            path("/var/run/b2bua.sock.1")
        );
        assert_eq!(to("/run/any.sock", Origin::Unix, LOCAL), path("/run/any.sock"));
        assert_eq!(to("/run/any.sock", Origin::Unix, REMOTE), None);
        assert_eq!(to("/var/run/b2bua.sock", Origin::Unix, mute), None);
        assert_eq!(to("tcp:192.0.2.1:9", Origin::Unix, REMOTE), tcp("192.0.2.1:9"));
        assert_eq!(to("192.0.2.1:9", Origin::Unix, LOCAL), tcp("192.0.2.1:9"));
        assert_eq!(to("tcp:sip.example:9", Origin::Unix, REMOTE), None);
        assert_eq!(to("tcp:%%CC_SELF%%:9", over_udp, REMOTE), tcp("192.0.2.7:9"));
        assert_eq!(to("tcp:%%CC_SELF%%:9", Origin::Unix, REMOTE), path(PREFIX));
        assert_eq!(to("tcp:%%CC_SELF%%:9", Origin::Unix, LOCAL), None);
        assert_eq!(to(&"p".repeat(108), Origin::Unix, LOCAL), None);
    }

    #[test]
    fn a_tag_is_one_line() {
        assert_eq!(line(b"a%20b"), Some(b"a b".to_vec()));
        for tag in ["a%0A.2%20b", "a%0d", "a%00", "", "a%"] {
            assert_eq!(line(tag.as_bytes()), None, "{tag}");
        }
    }

    proptest! {
        #[test]
        fn quoting_is_undone(bytes: Vec<u8>) {
            let mut quoted = Vec::new();
            quote(&bytes, &mut quoted);
            prop_assert!(quoted.iter().all(u8::is_ascii_graphic));
            prop_assert_eq!(unquote(&quoted), Some(bytes));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = unquote(&bytes);
            let _ = split_notification(&bytes, PREFIX, true);
            let _ = notify_plan(&bytes, Origin::Unix, Some(TO), REMOTE);
            let notify = NotifyArgs { socket: &bytes, tag: &bytes, before: 0, end: 0 };
            for member in [LOCAL, REMOTE] {
                let _ = notice(&notify, Origin::Unix, Some(TO), member);
            }
        }
    }
}
