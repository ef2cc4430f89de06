//! What a member answered: good, `0`, an error, or something that can be no reply; and our own errors. Pure.

use super::parts::{AND, PARTS_MAX};
use super::verb::Verb;
use super::{Words, decimal, trim_end, trim_start, write_decimal};

pub use super::counts::{SessionCounts, Statistics, is_info, parse_info, write_info};

/// Error codes that we make ourselves. They are those of rtp_cluster in Python, far above RTPproxy's, so that a
/// SIP server never takes them for a fault of its RTPproxy (OpenSIPS disables it on 7 to 10).
pub mod own {
    /// Statistics: every member answered with an error, and they differ.
    pub const STATISTICS_FAILED: u16 = 993;
    /// Statistics: nobody answered, and nothing is known from before.
    pub const STATISTICS_UNKNOWN: u16 = 994;
    /// Members name different faults of a command for a session that is not known.
    pub const NOBODY_HAS_IT: u16 = 995;
    /// No member that answered has the session; others are silent.
    pub const SOME_SILENT: u16 = 996;
    /// The member that has the session is silent or offline.
    pub const HOME_SILENT: u16 = 997;
    /// Members are online, and none may take the session.
    pub const ALL_FULL: u16 = 998;
    /// No ACTIVE member is online.
    pub const NO_ONE_ONLINE: u16 = 999;
}

/// Appends `E999`, without a line end.
pub fn write_error(code: u16, out: &mut Vec<u8>) {
    out.push(b'E');
    write_decimal(u64::from(code), out);
}

/// The longest reply to anything but `I` and `G`, without line end and cookie. SIP servers read it once into 256 bytes,
/// and take what is cut off for whatever it looks like.
pub const REPLY_MAX: usize = 254;
/// The longest address in a reply: that of a host name.
const ADDRESS_MAX: usize = 253;

/// How a reply is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done; here is what was asked for. The `0` with which D, P, S, R, N, C and X say so is one of these.
    Positive,
    /// The `0` of a U or an L (no such session), or of a `VF` (no such capability).
    Zero,
    /// `E` and a number.
    Error(u16),
}

/// Whether it is an error reply, `E` and a number, whatever it may be to.
pub fn is_error(text: &[u8]) -> bool {
    let text = trim_end(trim_start(text));
    let number = text.strip_prefix(b"E").or(text.strip_prefix(b"e"));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Whether that error of a new session means "not here, not now": no ports (71, 72), no memory (81 to 89),
/// overloaded (98), shutting down (99). Another member may take the session.
pub const fn is_not_here_not_now(code: u16) -> bool {
    matches!(code, 71 | 72 | 81..=89 | 98 | 99)
}

/// Judges a member's reply, with or without its line end. `None` when it could never be a reply to `verb`.
pub fn judge(verb: Verb, reply: &[u8]) -> Option<Outcome> {
    let reply = trim_end(trim_start(reply));
    if reply.len() > REPLY_MAX && !matches!(verb, Verb::Info | Verb::Statistics) {
        return None;
    }
    if let Some(number) = reply.strip_prefix(b"E").or(reply.strip_prefix(b"e")) {
        return small_number(number).map(Outcome::Error);
    }
    // A counter has no name of control characters, and neither has an address. Only `I` has lines.
    let printable = |byte: &u8| {
        matches!(byte, b' '..=b'~' | b'\t') || (verb == Verb::Info && matches!(byte, b'\r' | b'\n'))
    };
    if !reply.iter().all(printable) {
        return None;
    }
    let when = |good: bool| good.then_some(Outcome::Positive);
    match verb {
        Verb::Update | Verb::Lookup => judge_media(reply),
        Verb::Delete | Verb::Play | Verb::StopPlay | Verb::Record | Verb::StopRecord | Verb::DeleteAll => {
            when(reply == b"0")
        }
        // With `p` it says where the copy comes from.
        Verb::Copy => when(reply == b"0" || Media::parse(reply).is_some_and(|media| media.port > 0)),
        Verb::Query => when(reply.iter().any(u8::is_ascii_digit) && parts_are_sound(reply)),
        Verb::Info => when(is_info(reply)),
        Verb::Statistics => when(Statistics::parse(reply).is_some()),
        Verb::Version => when(decimal(reply).is_some()),
        Verb::Capability => match reply {
            b"0" => Some(Outcome::Zero),
            b"1" => Some(Outcome::Positive),
            _ => None,
        },
    }
}

fn judge_media(reply: &[u8]) -> Option<Outcome> {
    let mut results = Results::new(reply);
    let media = Media::parse(results.next()?)?;
    let outcome = if media.port == 0 {
        Outcome::Zero
    } else {
        Outcome::Positive
    };
    parts_are_sound(reply).then_some(outcome)
}

/// Whether each ` && RESULT` of a reply has a result, and there are no more than a command can ask for.
fn parts_are_sound(reply: &[u8]) -> bool {
    let (mut results, mut empty) = (0, false);
    for result in Results::new(reply) {
        results += 1;
        empty |= result.is_empty();
    }
    !empty && results <= 1 + PARTS_MAX
}

/// The port in the reply to a U or an L, 0 for a session that is not there; `None` when it is no such reply.
pub fn port(reply: &[u8]) -> Option<u16> {
    Results::new(reply)
        .next()
        .and_then(Media::parse)
        .map(|media| media.port)
}

/// `PORT`, `PORT ADDRESS` or `PORT ADDRESS 6`: where the media of a session go. Some servers write `4` after an address of
/// IPv4, and SIP servers read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Media<'a> {
    pub(crate) port: u16,
    /// An address, or the name that the member was told to give in its place.
    pub(crate) address: Option<&'a [u8]>,
    /// Whether it says that they are IPv6.
    pub(crate) ipv6: bool,
}

impl<'a> Media<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let mut words = Words::new(text);
        let port = small_number(words.next()?)?;
        let address = words.next();
        let named = |byte: &u8| byte.is_ascii_alphanumeric() || b".:-_%[]".contains(byte);
        if !address.is_none_or(|address| address.len() <= ADDRESS_MAX && address.iter().all(named)) {
            return None;
        }
        match (words.next(), words.next()) {
            (None | Some(b"4"), None) => Some(Self {
                port,
                address,
                ipv6: false,
            }),
            (Some(b"6"), None) => Some(Self {
                port,
                address,
                ipv6: true,
            }),
            _ => None,
        }
    }
}

/// The results in a reply, one for the command and one for each `&&` sub-command, trimmed.
#[derive(Debug, Clone)]
pub(crate) struct Results<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Results<'a> {
    pub(crate) const fn new(reply: &'a [u8]) -> Self {
        Self { rest: Some(reply) }
    }
}

impl<'a> Iterator for Results<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut words = Words::new(rest);
        let mut end = rest.len();
        while let Some(word) = words.next() {
            if word == AND {
                let behind = words.left();
                end = rest.len() - behind - AND.len();
                self.rest = rest.get(rest.len() - behind..);
                break;
            }
        }
        rest.get(..end).map(|result| trim_end(trim_start(result)))
    }
}

/// A number of at most five digits and at most 65535.
fn small_number(text: &[u8]) -> Option<u16> {
    let number = decimal(text).filter(|_| text.len() <= 5)?;
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(verb: Verb, reply: &str) -> Option<Outcome> {
        judge(verb, reply.as_bytes())
    }

    #[test]
    fn replies_of_a_real_rtpproxy_are_understood() {
        use Outcome::{Error, Positive, Zero};
        let replies = [
            (Verb::Update, "36690 127.0.0.1\n", Positive),
            (Verb::Update, "36038 ::1 6\n", Positive),
            (Verb::Update, "36038", Positive),
            (Verb::Update, "36038 127.0.0.1 4\n", Positive),
            (Verb::Update, "36038 media.example.org", Positive),
            (Verb::Update, "36130 127.0.0.1 && -1", Positive),
            (Verb::Update, "41032 127.0.0.1 && 0 && 41128 127.0.0.1", Positive),
            (Verb::Update, "E72\n", Error(72)),
            (Verb::Lookup, "0\n", Zero),
            (Verb::Lookup, "0 && -1", Zero),
            (Verb::Delete, "0\n", Positive),
            (Verb::Delete, "E50\n", Error(50)),
            (Verb::Copy, "36100 127.0.0.1", Positive),
            (Verb::Copy, "0", Positive),
            (Verb::Query, "60 0 0 0 0", Positive),
            (
                Verb::Query,
                "ttl=60 npkts_ina=0 rtpa_javg=0.000000 && 0",
                Positive,
            ),
            (Verb::Info, "sessions created: 1\nactive sessions: 0\n", Positive),
            (Verb::Statistics, "\n", Positive),
            (Verb::Statistics, "nsess_created=1 pps_in=0.000000", Positive),
            (Verb::Statistics, "E68", Error(68)),
            (Verb::Version, "20040107\n", Positive),
            (Verb::Capability, "1\n", Positive),
            (Verb::Capability, "0\n", Zero),
            (Verb::DeleteAll, "0\n", Positive),
        ];
        for (verb, reply, want) in replies {
            assert_eq!(of(verb, reply), Some(want), "{verb:?} {reply:?}");
        }
    }

    #[test]
    fn what_can_be_no_reply_is_garbage() {
        let garbage = [
            "",
            "\n",
            "garbage",
            "-1 127.0.0.1",
            "65536 127.0.0.1",
            "123456 1.2.3.4",
            "+5 1.2.3.4",
            "40000 a!b",
            "\u{1}\u{2}",
            "40000 1.2.3.4 6 6",
            "40000 1.2.3.4 7",
            "40000 1.2.3.4 &&",
            "40000 1.2.3.4 && && 0",
            "&& 0",
            "E",
            "Ex",
            "E-1",
            "E65536",
            "E5 5",
            "40000 1.2.3.4\nX",
            "40000 \u{e4}",
        ];
        for reply in garbage {
            assert_eq!(of(Verb::Update, reply), None, "{reply:?}");
            assert_eq!(of(Verb::Version, reply), None, "{reply:?}");
            assert_eq!(of(Verb::Capability, reply), None, "{reply:?}");
            assert_eq!(of(Verb::Delete, reply), None, "{reply:?}");
        }
        assert_eq!(of(Verb::Update, &format!("1 a{}", " && 0".repeat(16))), None);
        let long = "1".repeat(248);
        assert!(of(Verb::Query, &long).is_some());
        for verb in [Verb::Update, Verb::Query, Verb::Lookup] {
            assert_eq!(
                of(verb, &format!("35000 {long}1")),
                None,
                "no SIP server reads it"
            );
        }
        assert_eq!(of(Verb::Delete, "1"), None);
        assert_eq!(of(Verb::Capability, "2"), None);
        assert_eq!(of(Verb::Query, "a b"), None);
        assert_eq!(of(Verb::Info, "0"), None);
    }

    #[test]
    fn only_passing_troubles_let_another_member_try() {
        let codes: Vec<u16> = (0..200).filter(|code| is_not_here_not_now(*code)).collect();
        assert_eq!(codes, [71, 72, 81, 82, 83, 84, 85, 86, 87, 88, 89, 98, 99]);
    }

    #[test]
    fn ports_are_read() {
        assert_eq!(port(b"36690 127.0.0.1 && 0\n"), Some(36690));
        assert_eq!(port(b"0"), Some(0));
        assert_eq!(port(b"E72"), None);
    }

    #[test]
    fn our_errors_are_written_as_rtpproxy_writes_its_own() {
        let mut out = Vec::new();
        write_error(own::NO_ONE_ONLINE, &mut out);
        assert_eq!(out, b"E999");
        assert_eq!(judge(Verb::Update, &out), Some(Outcome::Error(999)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            for verb in Verb::ALL {
                let _ = judge(verb, &bytes);
            }
            let _ = port(&bytes);
            prop_assert!(Results::new(&bytes).count() >= 1);
        }
    }
}
