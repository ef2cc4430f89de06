//! Single values: text in, the value or what would be right out. A file and the admin interface read the same
//! values through here, so they take and refuse the same.
//!
//! What a reader refuses it answers with the words that follow `want `: `a whole number from 0 to 65535`. White
//! space around a value is nobody's intention and is left out before all else.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use redis::IntoConnectionInfo as _;

use super::fault::quoted;
use super::model::{
    CapacityLimit, Family, Name, NoMembers, NotifyTcp, Policy, Protocol, SOCKET_PATH_MAX, SocketRights,
    Status,
};
pub use super::value::Time;
use super::value::{UNITS, Value};

/// What would have been right; follows `want `.
pub(super) type Want = String;

/// `weight "1e3": want a whole number from 0 to 65535`, or `weight is empty: want …`.
pub(super) fn wrong(what: &str, found: &str, want: &str) -> String {
    match found.trim() {
        "" => format!("{what} is empty: want {want}"),
        found => format!("{what} {}: want {want}", quoted(found)),
    }
}

/// A whole number within bounds.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// The least.
    pub min: u32,
    /// The greatest.
    pub max: u32,
}

impl Whole {
    /// Reads it.
    pub(super) fn read(self, text: &str) -> Result<u32, Want> {
        let number = text
            .trim()
            .parse()
            .ok()
            .filter(|n| (self.min..=self.max).contains(n));
        number.ok_or_else(|| self.to_string())
    }
}

impl Whole {
    #[expect(clippy::unused_self, reason = "every kind of value shows its values alike")]
    pub(super) fn value(self, number: u32) -> Value {
        Value::Whole(number)
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {} to {}", self.min, self.max)
    }
}

/// A time within bounds: `250ms`, `1s`, `30m`, `12h`, `2d`.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Span {
    /// Reads it. A zero needs no unit.
    pub(super) fn read(self, text: &str) -> Result<Duration, Want> {
        let time = span(text.trim()).filter(|time| (self.min..=self.max).contains(time));
        time.ok_or_else(|| self.to_string())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a time from {} to {}", Time(self.min), Time(self.max))
    }
}

impl Span {
    #[expect(clippy::unused_self, reason = "every kind of value shows its values alike")]
    pub(super) fn value(self, time: Duration) -> Value {
        Value::Time(time)
    }
}

/// A time that may also be turned off.
#[derive(Debug, Clone, Copy)]
pub struct SpanOrOff(pub Span);

impl SpanOrOff {
    /// Reads it; `None` is `off`.
    pub(super) fn read(self, text: &str) -> Result<Option<Duration>, Want> {
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(None);
        }
        self.0.read(text).map(Some).map_err(|_| self.to_string())
    }
}

impl SpanOrOff {
    pub(super) fn value(self, time: Option<Duration>) -> Value {
        time.map_or(Value::Off, |time| self.0.value(time))
    }
}

impl fmt::Display for SpanOrOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or off", self.0)
    }
}

fn span(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(end);
    let count: u64 = count.parse().ok()?;
    if unit.is_empty() && count == 0 {
        return Some(Duration::ZERO);
    }
    let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    count.checked_mul(millis).map(Duration::from_millis)
}

/// One of a few words, read in any case.
#[derive(Debug, Clone, Copy)]
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Choice<T> {
    /// Reads it.
    pub(super) fn read(self, text: &str) -> Result<T, Want> {
        let text = text.trim();
        let found = self.0.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, value)| *value).ok_or_else(|| self.to_string())
    }

    /// The word for `value`; none for a value that a file cannot say (DRAINING).
    pub(super) fn value(self, value: T) -> Value {
        let found = self.0.iter().find(|(_, v)| *v == value);
        found.map_or(Value::None, |(word, _)| Value::Text((*word).to_owned()))
    }
}

impl<T> fmt::Display for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (word, _)) in self.0.iter().enumerate() {
            let before = match n {
                0 => "",
                n if n + 1 == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{before}{word}")?;
        }
        Ok(())
    }
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

/// Share of new sessions.
pub const WEIGHT: Whole = Whole { min: 0, max: 65_535 };
/// Sessions of a member; its upper end is what a signed counter of 32 bits holds.
pub const CAPACITY: Whole = Whole {
    min: 1,
    max: i32::MAX.unsigned_abs(),
};
/// Attempts for a new session.
pub const ATTEMPTS: Whole = Whole { min: 1, max: 16 };
/// The longest that an attempt may take.
pub const FAILOVER_TIMEOUT: Span = Span {
    min: millis(10),
    max: millis(3_000),
};
/// Between two probes.
pub const PROBE_INTERVAL: Span = Span {
    min: millis(100),
    max: hours(1),
};
/// How long a probe may take.
pub const PROBE_TIMEOUT: Span = Span {
    min: millis(10),
    max: millis(60_000),
};
/// Probes in a row that change a member's state.
pub const PROBES: Whole = Whole { min: 1, max: 100 };
/// How long the share of a member that came back grows.
pub const SLOW_START: Span = Span {
    min: Duration::ZERO,
    max: hours(1),
};
/// Bound call-ids.
pub const SESSIONS_MAX: Whole = Whole {
    min: 1,
    max: 100_000_000,
};
/// Age at which a binding goes.
pub const SESSIONS_EXPIRE: Span = Span {
    min: millis(1_000),
    max: hours(30 * 24),
};
/// Time offline after which the SIP server is told of a member's sessions.
pub const ON_MEMBER_LOSS: SpanOrOff = SpanOrOff(Span {
    min: millis(1_000),
    max: hours(24),
});

/// How a control socket is spoken to.
pub const PROTOCOL: Choice<Protocol> = Choice(&[
    (Protocol::Unix.as_str(), Protocol::Unix),
    (Protocol::Cunix.as_str(), Protocol::Cunix),
    (Protocol::Udp.as_str(), Protocol::Udp),
    (Protocol::Udp6.as_str(), Protocol::Udp6),
    (Protocol::Tcp.as_str(), Protocol::Tcp),
    (Protocol::Tcp6.as_str(), Protocol::Tcp6),
]);
/// How those are spoken to that a name leads to.
pub const POOL_PROTOCOL: Choice<Protocol> = Choice(&[
    (Protocol::Udp.as_str(), Protocol::Udp),
    (Protocol::Udp6.as_str(), Protocol::Udp6),
    (Protocol::Tcp.as_str(), Protocol::Tcp),
    (Protocol::Tcp6.as_str(), Protocol::Tcp6),
]);
/// What a file may say of a member; `DRAINING` is a command, not a definition.
pub const STATUS: Choice<Status> = Choice(&[
    (Status::Active.as_str(), Status::Active),
    (Status::Suspended.as_str(), Status::Suspended),
]);
/// What happens at capacity.
pub const CAPACITY_LIMIT: Choice<CapacityLimit> =
    Choice(&[("soft", CapacityLimit::Soft), ("hard", CapacityLimit::Hard)]);
/// How a member is chosen.
pub const POLICY: Choice<Policy> = Choice(&[
    ("weighted", Policy::Weighted),
    ("least-loaded", Policy::LeastLoaded),
    ("hash", Policy::Hash),
]);
/// What becomes of notification sockets over TCP.
pub const NOTIFY_TCP: Choice<NotifyTcp> = Choice(&[("relay", NotifyTcp::Relay), ("pass", NotifyTcp::Pass)]);
/// What a command gets when nobody is online.
pub const NO_MEMBERS: Choice<NoMembers> =
    Choice(&[("error", NoMembers::Error), ("silent", NoMembers::Silent)]);

/// What a name is.
pub(super) const NAME: &str = "a name of 1 to 255 bytes without white space, comma, = or control character";
/// What an address of our commands is.
pub(super) const IP: &str = "an IPv4 or IPv6 address";
/// What an address of media is.
pub(super) const MEDIA: &str = "an IPv4 or IPv6 address, or one of each with white space between them";
/// What the prefix of notification sockets is.
pub(super) const PREFIX: &str = "the beginning of a socket's path, at most 107 bytes without white space";
/// Where a store is.
pub(super) const STORE: &str = "redis://HOST[:PORT][/DB] or unix:///PATH[?db=DB]";
/// What its keys begin with.
pub(super) const STORE_KEY: &str = "1 to 64 bytes without white space";
/// What the owner of a socket is.
pub(super) const OWNER: &str = "USER, USER:GROUP or :GROUP";
/// What the mode of a socket is.
pub(super) const MODE: &str = "an octal mode from 0 to 0777";

/// Reads the name of a cluster or a member.
pub(super) fn name(text: &str) -> Result<Name, Want> {
    Name::new(text.trim()).ok_or_else(|| NAME.to_owned())
}

/// Reads a literal address; brackets around IPv6 do no harm.
pub(super) fn ip(text: &str) -> Result<IpAddr, Want> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|bare| bare.contains(':'));
    bare.unwrap_or(text).parse().map_err(|_| IP.to_owned())
}

/// Reads a weight as a member has it.
pub(super) fn weight(text: &str) -> Result<u16, Want> {
    u16::try_from(WEIGHT.read(text)?).map_err(|_| WEIGHT.to_string())
}

/// Reads an address that may be none; the Python rtp_cluster takes an empty one for none.
pub(super) fn ip_or_none(text: &str) -> Result<Option<IpAddr>, Want> {
    if text.trim().is_empty() {
        Ok(None)
    } else {
        ip(text).map(Some)
    }
}

/// Reads the addresses of media, one of each family at most; as with the Python rtp_cluster empty is none.
pub(super) fn media(text: &str) -> Result<Family, Want> {
    let mut family = Family::default();
    for word in text.split_whitespace() {
        if !ip(word).is_ok_and(|address| family.add(address)) {
            return Err(MEDIA.to_owned());
        }
    }
    Ok(family)
}

/// Reads the prefix of the SIP server's notification sockets, which may be written with `unix:` before it.
pub(super) fn prefix(text: &str) -> Result<String, Want> {
    let text = text.trim();
    let path = text.strip_prefix("unix:").unwrap_or(text);
    // The prefix begins a word of a command: with white space in it none would ever match.
    let good = |c: char| !c.is_whitespace() && !c.is_control();
    let fits = (1..=SOCKET_PATH_MAX).contains(&path.len()) && path.chars().all(good);
    if fits {
        Ok(path.to_owned())
    } else {
        Err(PREFIX.to_owned())
    }
}

/// Reads where a store is.
pub(super) fn store(text: &str) -> Result<String, Want> {
    let text = text.trim();
    let known = ["redis://", "unix:///"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    let url = redis::parse_redis_url(text);
    if known && url.is_some_and(|url| url.into_connection_info().is_ok()) {
        Ok(text.to_owned())
    } else {
        Err(STORE.to_owned())
    }
}

/// Reads what the keys of a store begin with.
pub(super) fn store_prefix(text: &str) -> Result<String, Want> {
    let text = text.trim();
    let good = |c: char| !c.is_whitespace() && !c.is_control();
    if (1..=64).contains(&text.len()) && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err(STORE_KEY.to_owned())
    }
}

/// The user and the group of `USER`, `USER:`, `USER:GROUP` or `:GROUP`; `None` for anything else.
pub fn user_and_group(text: &str) -> Option<(Option<String>, Option<String>)> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let good = |name: &str| !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':');
    let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let names = (some(user), some(group));
    (good(user) && good(group) && names != (None, None)).then_some(names)
}

/// Reads the owner of a socket into `rights`.
pub(super) fn owner(text: &str, rights: &mut SocketRights) -> Result<(), Want> {
    (rights.user, rights.group) = user_and_group(text.trim()).ok_or(OWNER)?;
    Ok(())
}

/// The text that [`owner`] reads as the owner in `rights`.
pub(super) fn owner_text(rights: &SocketRights) -> Option<String> {
    match (&rights.user, &rights.group) {
        (user, None) => user.clone(),
        (user, Some(group)) => Some(format!("{}:{group}", user.as_deref().unwrap_or(""))),
    }
}

/// Reads permission bits.
pub(super) fn mode(text: &str) -> Result<u32, Want> {
    let text = text.trim();
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| MODE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_knows_its_bounds() {
        let good = [
            ("0", 0),
            (" 100 ", 100),
            ("\n65535\t", 65_535),
            ("+7", 7),
            ("007", 7),
        ];
        for (text, value) in good {
            assert_eq!(WEIGHT.read(text), Ok(value), "{text:?}");
        }
        let huge = "9".repeat(4_000);
        for text in [
            "", " ", "-1", "65536", "1e3", "1.0", "0x10", "1_000", "1 0", "٣", "NaN", &huge,
        ] {
            assert_eq!(
                WEIGHT.read(text),
                Err("a whole number from 0 to 65535".to_owned()),
                "{text:?}"
            );
        }
        assert_eq!(CAPACITY.read("2147483647"), Ok(2_147_483_647));
        for text in ["0", "2147483648", "18446744073709551616"] {
            assert_eq!(
                CAPACITY.read(text).unwrap_err(),
                "a whole number from 1 to 2147483647",
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_time_has_a_unit_and_prints_as_it_reads() {
        let any = Span {
            min: Duration::ZERO,
            max: Duration::MAX,
        };
        let good = [
            ("250ms", 250),
            ("1s", 1_000),
            ("30m", 1_800_000),
            ("12h", 43_200_000),
            ("2d", 172_800_000),
        ];
        for (text, value) in good {
            assert_eq!(any.read(text), Ok(millis(value)), "{text:?}");
            assert_eq!(Time(millis(value)).to_string(), text);
        }
        assert_eq!(any.read("0"), Ok(Duration::ZERO));
        assert_eq!(
            any.read("60s").map(|time| Time(time).to_string()),
            Ok("1m".to_owned())
        );
        assert_eq!(Time(Duration::ZERO).to_string(), "0s");
        for text in [
            "",
            "s",
            "10",
            "1.5s",
            "-1s",
            "1 s",
            "1S",
            "1us",
            "1ss",
            "99999999999999999999s",
            "213503982335d",
        ] {
            assert!(any.read(text).is_err(), "{text:?}");
        }
        assert_eq!(
            FAILOVER_TIMEOUT.read("9ms").unwrap_err(),
            "a time from 10ms to 3s"
        );
        assert_eq!(FAILOVER_TIMEOUT.read("3s"), Ok(millis(3_000)));
        assert_eq!(
            FAILOVER_TIMEOUT.read("3001ms").unwrap_err(),
            "a time from 10ms to 3s"
        );
        assert_eq!(ON_MEMBER_LOSS.read("OFF"), Ok(None));
        assert_eq!(ON_MEMBER_LOSS.read("30s"), Ok(Some(millis(30_000))));
        assert_eq!(
            ON_MEMBER_LOSS.read("0").unwrap_err(),
            "a time from 1s to 1d, or off"
        );
    }

    #[test]
    fn a_word_is_read_in_any_case() {
        assert_eq!(PROTOCOL.read(" cUnix "), Ok(Protocol::Cunix));
        assert_eq!(
            PROTOCOL.read("sctp").unwrap_err(),
            "UNIX, CUNIX, UDP, UDP6, TCP or TCP6"
        );
        assert_eq!(PROTOCOL.0.len(), Protocol::ALL.len());
        assert_eq!(STATUS.read("draining").unwrap_err(), "ACTIVE or SUSPENDED");
        assert_eq!(POLICY.value(Policy::LeastLoaded).to_string(), "least-loaded");
    }

    #[test]
    fn a_name_can_be_typed_in_a_command() {
        assert_eq!(name(" Supercluster#1\n").unwrap().as_str(), "Supercluster#1");
        assert_eq!(name(&"é".repeat(127)).unwrap().as_str().len(), 254);
        for text in [
            "",
            " ",
            "a b",
            "a,b",
            "a=b",
            "a\u{7}",
            "a\u{ffff}",
            "a\u{2003}b",
            "a\u{202e}b",
            "a\u{200b}",
            "\u{feff}a",
            &"é".repeat(128),
        ] {
            assert_eq!(name(text).unwrap_err(), NAME, "{text:?}");
        }
    }

    #[test]
    fn an_address_of_media_is_a_literal() {
        assert_eq!(ip(" 203.0.113.4 "), Ok([203, 0, 113, 4].into()));
        assert_eq!(ip("[2001:db8::4]"), ip("2001:db8::4"));
        for text in [
            "",
            "host",
            "10.0.0.1:5060",
            "[10.0.0.1]",
            "[::1",
            "010.0.0.1",
            "1.2.3",
        ] {
            assert_eq!(ip(text).unwrap_err(), IP, "{text:?}");
        }
    }

    #[test]
    fn media_have_an_address_of_each_family() {
        assert_eq!(media(" \n"), Ok(Family::default()));
        assert_eq!(media("203.0.113.4"), Ok([203, 0, 113, 4].into()));
        for both in ["203.0.113.4 2001:db8::4", "[2001:db8::4]\n\t203.0.113.4 "] {
            assert_eq!(media(both).unwrap().to_string(), "203.0.113.4 2001:db8::4");
        }
        for text in ["host", "10.0.0.1 10.0.0.2", "::1 10.0.0.1 ::1", "10.0.0.1 x"] {
            assert_eq!(media(text).unwrap_err(), MEDIA, "{text:?}");
        }
    }

    #[test]
    fn the_prefix_of_sockets_is_one_word_that_fits_a_socket() {
        assert_eq!(
            prefix(" unix:/var/run/b2bua.sock ").unwrap(),
            "/var/run/b2bua.sock"
        );
        assert_eq!(prefix(&"p".repeat(107)).unwrap().len(), 107);
        for text in ["", "unix:", "/var/run/my sock", &"p".repeat(108)] {
            assert_eq!(prefix(text).unwrap_err(), PREFIX, "{text:?}");
        }
    }

    #[test]
    fn rights_are_an_owner_and_an_octal_mode() {
        let read = |text| {
            let mut rights = SocketRights::default();
            owner(text, &mut rights).map(|()| (rights.user, rights.group))
        };
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(read("kamailio"), Ok((some("kamailio"), None)));
        assert_eq!(read("kamailio:"), Ok((some("kamailio"), None)));
        assert_eq!(read("kamailio:sip"), Ok((some("kamailio"), some("sip"))));
        assert_eq!(read(":sip"), Ok((None, some("sip"))));
        for text in ["", ":", "a:b:c", "a b", "a:b c"] {
            assert_eq!(read(text), Err(OWNER.to_owned()), "{text:?}");
        }
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("777"), Ok(0o777));
        for text in ["", "0o660", "+660", "888", "1777", "00660", "rw"] {
            assert_eq!(mode(text), Err(MODE.to_owned()), "{text:?}");
        }
    }
}
