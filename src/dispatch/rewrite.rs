//! What has to be written in another way on the way to a member and back: addresses behind NAT and the target of
//! disconnect notifications; and the commands that we make out of a client's. Pure.
//!
//! What needs no rewriting goes through byte for byte.

use core::net::{IpAddr, Ipv4Addr};
use std::io::Write as _;
use std::path::PathBuf;

use crate::config::model::SOCKET_PATH_MAX;
use crate::protocol::command::{COMMAND_MAX, Command, NotifyArgs, Verb};
use crate::protocol::modifiers::{Kind, Modifiers};
use crate::protocol::reply::{Media, Results};
use crate::protocol::{decimal, trim_end, trim_start, write_decimal};

/// What a notify-socket says for the address that the command came from.
const SELF: &[u8] = b"%%CC_SELF%%";
/// Stands for an empty suffix in what the relay is sent.
const EMPTY_SUFFIX: &[u8] = b"-";

/// How a command is to be written for one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Towards<'a> {
    /// The local address of each U and L there.
    pub lan: Option<IpAddr>,
    /// What becomes of the notify pair.
    pub notify: NotifyPlan<'a>,
}

/// What becomes of a U's notify-socket and notify-tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyPlan<'a> {
    /// They stay as they are.
    Keep,
    /// They are left out: nothing could deliver the notification.
    Drop,
    /// The member tells us, and we tell the client's UNIX socket.
    Relay {
        /// Beginning of the paths that are relayed to.
        prefix: &'a str,
        /// Port on which we listen for members.
        port: u16,
    },
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

/// Where a notification is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    /// `unix:PATH` or `PATH`.
    Path(&'a [u8]),
    /// `tcp:%%CC_SELF%%:PORT`, with or without `tcp:`.
    Asker(u16),
    /// `tcp:HOST:PORT` or `HOST:PORT`.
    Host,
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
        let colon = inside.iter().rposition(|byte| *byte == b':').filter(|_| !inside.starts_with(b"/"));
        let host_port = colon.and_then(|colon| Some((inside.get(..colon)?, inside.get(colon + 1..)?)));
        let host_port = host_port.and_then(|(host, port)| {
            let port = decimal(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
            (!host.is_empty() && (tcp || host != b"fd")).then_some((host, port))
        });
        match host_port {
            Some((host, port)) if host == SELF => Self::Asker(port),
            Some(_) => Self::Host,
            None if tcp || socket.starts_with(b"fd:") => Self::Odd,
            None => Self::Path(socket),
        }
    }
}

/// Decides what becomes of the notify pair of a client at `origin` towards one member. `relay` is the prefix and
/// the port of the cluster's `<disconnect_notify>`.
pub fn notify_plan<'a>(
    socket: &[u8],
    origin: Origin,
    relay: Option<(&'a str, u16)>,
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
    match target {
        Target::Host => NotifyPlan::Keep,
        Target::Asker(_) if client.is_some() => asker,
        Target::Odd => NotifyPlan::Drop,
        Target::Asker(_) | Target::Path(_) => match relay {
            Some((prefix, port))
                if member.ipv4 && member.knows_self == Some(true) && suffix(socket, prefix).is_some() =>
            {
                NotifyPlan::Relay { prefix, port }
            }
            _ => NotifyPlan::Drop,
        },
    }
}

/// What the relay is told to put behind its prefix, if it may serve that socket.
fn suffix<'a>(socket: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    match Target::of(socket) {
        Target::Asker(_) => Some(EMPTY_SUFFIX),
        Target::Path(path) => match path.strip_prefix(prefix.as_bytes())? {
            b"" => Some(EMPTY_SUFFIX),
            // It would be taken for an empty one.
            EMPTY_SUFFIX => None,
            suffix => is_inside(suffix).then_some(suffix),
        },
        Target::Host | Target::Odd => None,
    }
}

/// Whether a suffix cannot lead to a path outside the prefix.
fn is_inside(suffix: &[u8]) -> bool {
    suffix.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'/') && !suffix.windows(2).any(|two| two == b"..")
}

/// Appends the command as that member is to get it, without a line end. Only a U or an L is ever changed.
pub fn command(command: &Command<'_>, towards: &Towards<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    write_command(command, towards, out);
    // Rewriting makes it longer. A member would cut it off; the call matters more than the notification.
    if out.len() - start > COMMAND_MAX && towards.notify != NotifyPlan::Keep {
        out.truncate(start);
        write_command(command, &Towards { notify: NotifyPlan::Drop, ..*towards }, out);
    }
}

fn write_command(command: &Command<'_>, towards: &Towards<'_>, out: &mut Vec<u8>) {
    let text = command.text;
    let mut done = 0;
    if !matches!(command.verb, Verb::Update | Verb::Lookup) {
        out.extend_from_slice(text);
        return;
    }
    if let Some(lan) = towards.lan {
        write_first(text, command.modifiers, lan, out);
        done = 1 + command.modifiers.len();
    }
    if let Some(notify) = command.notify.filter(|_| towards.notify != NotifyPlan::Keep) {
        out.extend_from_slice(text.get(done..notify.before).unwrap_or_default());
        write_notify(&notify, towards.notify, out);
        done = notify.end;
    }
    if let Some(lan) = towards.lan {
        let parts_at = text.len() - command.parts.len();
        for part in command.parts().filter(|part| part.letter() == b'L') {
            let at = parts_at + part.at;
            out.extend_from_slice(text.get(done..at).unwrap_or_default());
            write_first(part.first(), part.modifiers(), lan, out);
            done = at + part.first().len();
        }
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
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

/// The notify pair with the separator before it, or nothing.
fn write_notify(notify: &NotifyArgs<'_>, plan: NotifyPlan<'_>, out: &mut Vec<u8>) {
    match plan {
        NotifyPlan::Keep | NotifyPlan::Drop => {}
        NotifyPlan::Relay { prefix, port } => {
            let tag = unquote(notify.tag);
            let (Some(suffix), Some(tag)) = (suffix(notify.socket, prefix), tag) else { return };
            out.extend_from_slice(b" tcp:");
            out.extend_from_slice(SELF);
            out.push(b':');
            write_decimal(u64::from(port), out);
            out.push(b' ');
            quote(suffix, out);
            quote(b" ", out);
            quote(&tag, out);
        }
        NotifyPlan::Client(address) => {
            let Target::Asker(port) = Target::of(notify.socket) else { return };
            write!(out, " tcp:{address}:{port} ").ok();
            out.extend_from_slice(notify.tag);
        }
    }
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

/// Splits a line that a member has sent to the relay, `SUFFIX REST`, into the socket that it is for and what is
/// to be written there, without a line end.
///
/// # Errors
/// When there is no such socket inside the prefix.
pub fn split_notification<'a>(line: &'a [u8], prefix: &str) -> Result<(PathBuf, &'a [u8]), Undeliverable> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let space = line.iter().position(|byte| *byte == b' ').ok_or(Undeliverable::Malformed)?;
    let (suffix, rest) = line.split_at_checked(space).ok_or(Undeliverable::Malformed)?;
    let rest = rest.get(1..).unwrap_or_default();
    if suffix.is_empty() || rest.is_empty() {
        return Err(Undeliverable::Malformed);
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
    Ok((PathBuf::from(format!("{prefix}{suffix}")), rest))
}

/// Appends the reply as the client is to get it, without a line end. `command` is what the client sent; `wan` is
/// the member's public address, which takes the place of the address in the reply to a U or an L, unless the
/// member `has_lan` not and the client itself named a local address (`L…`) and none to be reached (`R…`).
pub fn reply(command: &Command<'_>, reply: &[u8], wan: Option<IpAddr>, has_lan: bool, out: &mut Vec<u8>) {
    let reply = trim_end(trim_start(reply));
    let wan = wan.filter(|_| matches!(command.verb, Verb::Update | Verb::Lookup));
    let media = |result: &[u8]| Media::parse(result).map(|media| media.port).filter(|port| *port > 0);
    let is_media = Results::new(reply).next().and_then(media).is_some();
    let Some(wan) = wan.filter(|_| is_media) else {
        out.extend_from_slice(reply);
        return;
    };
    let mut parts = command.parts();
    for (index, result) in Results::new(reply).enumerate() {
        let modifiers = if index == 0 {
            Some(command.modifiers)
        } else {
            out.extend_from_slice(b" && ");
            parts.next().filter(|part| part.letter() == b'L').map(|part| part.modifiers())
        };
        match modifiers.filter(|modifiers| replaces(modifiers, has_lan)).and_then(|_| media(result)) {
            Some(port) => write_media(port, wan, out),
            None => out.extend_from_slice(result),
        }
    }
}

/// Whether the address in the reply to a request with those modifiers is replaced.
fn replaces(modifiers: &[u8], has_lan: bool) -> bool {
    let has = |wanted| Modifiers::new(modifiers).flatten().any(|(kind, _)| kind == wanted);
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
        let nobody = if command.from_tag.starts_with(b"-") { b"+" } else { b"-" };
        write_words(b"Dw", [command.call_id, nobody, command.from_tag], out);
    } else {
        write_words(b"D", [command.call_id, command.from_tag], out);
    }
}

/// Appends the command that ends the whole session of a command, whichever side it came from.
pub fn end_for(command: &Command<'_>, out: &mut Vec<u8>) {
    write_words(b"D", [command.call_id, command.from_tag].into_iter().chain(command.to_tag), out);
}

/// Appends the command that asks for the session of a command and changes nothing.
pub fn query_for(command: &Command<'_>, out: &mut Vec<u8>) {
    write_words(b"Q", [command.call_id, command.from_tag].into_iter().chain(command.to_tag), out);
}

fn write_words<'a>(first: &[u8], words: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(first);
    for word in words {
        out.push(b' ');
        out.extend_from_slice(word);
    }
}
