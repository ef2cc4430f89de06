//! The counters that a cluster sums over its members: the lines of `I` and the words of `G`. Pure.
//!
//! Members may lie, wrap or count below zero; whatever they say, a sum is a number: values are clamped, nothing
//! is ever NaN or infinite.

use std::io::Write as _;

use super::{Words, decimal, trim_end, write_decimal};

/// Most counters in the reply of one `G`; RTPproxy takes fewer words than that.
const VALUES_MAX: usize = 64;

/// What an RTPproxy says to `I`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SessionCounts {
    /// Sessions since it started.
    pub created: u64,
    /// Sessions now.
    pub active: u64,
    /// Media streams now.
    pub streams: u64,
    /// RTP packets since it started.
    pub received: u64,
    /// RTP packets since it started, played ones included.
    pub transmitted: u64,
    /// Its own measure of its load, where it was asked for one (`Il`); finite and not below 0.
    pub load: Option<f64>,
}

/// The most sessions that a member can have or have had, for us to believe it: far more than a machine has ports for,
/// far less than a counter that went below zero says.
const SESSIONS_MAX: u64 = 1 << 48;

/// Reads a number of sessions. What is below zero or beyond belief is no number.
fn sessions(text: &[u8]) -> Option<u64> {
    decimal(text).filter(|number| *number <= SESSIONS_MAX)
}

/// Whether it is a reply to `I`, whatever its numbers.
pub fn is_info(reply: &[u8]) -> bool {
    let mut lines = reply.split(|byte| *byte == b'\n');
    lines.any(|line| line.trim_ascii_start().starts_with(b"active sessions:"))
}

/// Reads a count; one below zero is 0.
fn count(text: &[u8]) -> Option<u64> {
    match text.strip_prefix(b"-") {
        Some(digits) => decimal(digits).map(|_| 0),
        None => decimal(text),
    }
}

/// Reads a decimal fraction; one below zero is 0.
fn fraction(text: &[u8]) -> Option<f64> {
    let plain = text
        .iter()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    let number: f64 = str::from_utf8(text).ok().filter(|_| plain)?.parse().ok()?;
    number.is_finite().then(|| number.max(0.0))
}

/// Reads the reply to `I`, `Ib`, `Il`: lines `NAME: NUMBER` in any order, what else there is passed over. `None` when
/// it does not say how many sessions were created and how many are active, or says it in no number that could be: then
/// the count is not known.
pub fn parse_info(reply: &[u8]) -> Option<SessionCounts> {
    let mut counts = SessionCounts::default();
    let (mut created, mut active) = (None, None);
    for line in trim_end(reply).split(|byte| *byte == b'\n') {
        // Old versions list their sessions behind the counts.
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.get(1..)?.trim_ascii();
        match name.trim_ascii() {
            b"sessions created" => created = Some(sessions(value)?),
            b"active sessions" => active = Some(sessions(value)?),
            b"active streams" => counts.streams = count(value).unwrap_or_default(),
            b"packets received" => counts.received = count(value).unwrap_or_default(),
            b"packets transmitted" => counts.transmitted = count(value).unwrap_or_default(),
            b"average load" => counts.load = fraction(value),
            _ => {}
        }
    }
    (counts.created, counts.active) = (created?, active?);
    Some(counts)
}

/// Writes the reply to `I` as RTPproxy does, without the last line end: five lines, six with a load.
pub fn write_info(counts: &SessionCounts, out: &mut Vec<u8>) {
    let lines = [
        ("sessions created: ", counts.created),
        ("\nactive sessions: ", counts.active),
        ("\nactive streams: ", counts.streams),
        ("\npackets received: ", counts.received),
        ("\npackets transmitted: ", counts.transmitted),
    ];
    for (name, value) in lines {
        out.extend_from_slice(name.as_bytes());
        write_decimal(value, out);
    }
    if let Some(load) = counts.load {
        out.extend_from_slice(b"\naverage load: ");
        write_fraction(load, out);
    }
}

/// Writes as `%f` of printf(3) does.
fn write_fraction(number: f64, out: &mut Vec<u8>) {
    // A vector takes any bytes.
    write!(out, "{number:.6}").ok();
}

/// A counter of `G`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Count(u64),
    Fraction(f64),
}

impl Value {
    fn parse(text: &[u8]) -> Option<Self> {
        if text.contains(&b'.') {
            fraction(text).map(Self::Fraction)
        } else {
            count(text).map(Self::Count)
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a member that counts in fractions gets a sum in fractions"
    )]
    fn plus(self, other: Self) -> Self {
        let sum = match (self, other) {
            (Self::Count(a), Self::Count(b)) => return Self::Count(a.saturating_add(b)),
            (Self::Fraction(a), Self::Fraction(b)) => a + b,
            (Self::Fraction(a), Self::Count(b)) | (Self::Count(b), Self::Fraction(a)) => a + b as f64,
        };
        Self::Fraction(sum.min(f64::MAX))
    }
}

/// What an RTPproxy says to `G` or `Gv` with some names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Statistics {
    /// The name is there where the member was asked with `v`.
    values: Vec<(Option<Box<[u8]>>, Value)>,
}

impl Statistics {
    /// Reads the reply to `G` (`VALUE VALUE …`) or `Gv` (`NAME=VALUE NAME=VALUE …`). An empty reply is one too:
    /// `G` without names gets it. `None` when a word is no counter.
    pub fn parse(reply: &[u8]) -> Option<Self> {
        let mut values = Vec::new();
        for word in Words::new(reply) {
            let (name, value) = match word.iter().position(|byte| *byte == b'=') {
                Some(equals) => (word.get(..equals).map(Into::into), word.get(equals + 1..)?),
                None => (None, word),
            };
            if values.len() == VALUES_MAX {
                return None;
            }
            values.push((name, Value::parse(value)?));
        }
        Some(Self { values })
    }

    /// Adds what another member says to the same command. Gives `false`, and changes nothing, when that has other
    /// counters.
    #[must_use]
    pub fn add(&mut self, other: &Self) -> bool {
        let names = |statistics: &Self| -> Vec<Option<Box<[u8]>>> {
            statistics.values.iter().map(|(name, _)| name.clone()).collect()
        };
        if names(self) != names(other) {
            return false;
        }
        for ((_, sum), (_, value)) in self.values.iter_mut().zip(&other.values) {
            *sum = sum.plus(*value);
        }
        true
    }

    /// The sum over members; of those that do not fit the first, nothing. `None` over nobody.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let mut sum = all.next()?.clone();
        for other in all {
            // Members of different versions may differ; the rest still counts.
            let _ = sum.add(other);
        }
        Some(sum)
    }

    /// Writes it as RTPproxy does, without the line end: one space between, six places behind the point.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (index, (name, value)) in self.values.iter().enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            if let Some(name) = name {
                out.extend_from_slice(name);
                out.push(b'=');
            }
            match value {
                Value::Count(count) => write_decimal(*count, out),
                Value::Fraction(fraction) => write_fraction(*fraction, out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a real RTPproxy prints it for `Il`.
    const INFO: &str = "sessions created: 7\nactive sessions: 3\nactive streams: 12\npackets received: 100\n\
                        packets transmitted: 99\naverage load: 0.012500";

    fn info(counts: &SessionCounts) -> String {
        let mut out = Vec::new();
        write_info(counts, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn info_is_read_and_printed_as_rtpproxy_prints_it() {
        let counts = parse_info(format!("{INFO}\n").as_bytes()).unwrap();
        assert_eq!((counts.created, counts.active, counts.load), (7, 3, Some(0.0125)));
        assert_eq!(info(&counts), INFO);
        let five = SessionCounts { load: None, ..counts };
        assert_eq!(info(&five), INFO.rsplit_once('\n').unwrap().0);
    }

    #[test]
    fn lies_are_clamped() {
        let text =
            b"sessions created: 1\nactive sessions: 3\nactive streams: -3\npackets received: x\naverage load: nan\nnew: thing\n\tand more";
        let counts = parse_info(text).unwrap();
        assert_eq!(
            counts,
            SessionCounts {
                created: 1,
                active: 3,
                ..SessionCounts::default()
            }
        );
        let load = |text: &str| {
            parse_info(format!("sessions created: 1\nactive sessions: 1\naverage load: {text}").as_bytes())
        };
        assert_eq!(load("-0.5").unwrap().load, Some(0.0));
        assert_eq!(load("inf").unwrap().load, None);
        assert_eq!(load(&format!("{}.0", "9".repeat(400))).unwrap().load, None);
    }

    #[test]
    fn sessions_in_a_number_that_is_none_are_not_known() {
        for number in [
            "-5",
            "18446744073709551616",
            "18446744073709551611",
            "some",
            "",
            "1.5",
        ] {
            let text = format!("sessions created: 1\nactive sessions: {number}");
            assert_eq!(parse_info(text.as_bytes()), None, "{number}");
            assert!(is_info(text.as_bytes()), "{number}");
        }
        assert!(!is_info(b"E8") && !is_info(b"0") && !is_info(b""));
    }

    #[test]
    fn what_is_no_info_is_refused() {
        for text in [
            "",
            "E1",
            "sessions created: 1",
            "active sessions: 1",
            "sessions created: x\nactive sessions: 1",
        ] {
            assert_eq!(parse_info(text.as_bytes()), None, "{text}");
        }
    }

    fn statistics(text: &str) -> Statistics {
        Statistics::parse(text.as_bytes()).unwrap()
    }

    fn printed(statistics: &Statistics) -> String {
        let mut out = Vec::new();
        statistics.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn statistics_are_summed_in_their_format() {
        for (a, b, sum) in [
            ("1 59.924930 0.000000\n", "2 0.075070 3.5", "3 60.000000 3.500000"),
            (
                "nsess_created=1 pps_in=0.5",
                "nsess_created=2 pps_in=1",
                "nsess_created=3 pps_in=1.500000",
            ),
            ("18446744073709551615", "1", "18446744073709551615"),
            ("-4", "1", "1"),
            ("", "", ""),
        ] {
            let mut total = statistics(a);
            assert!(total.add(&statistics(b)));
            assert_eq!(printed(&total), sum);
        }
    }

    #[test]
    fn statistics_of_other_counters_are_left_out() {
        let (one, two, odd) = (statistics("a=1"), statistics("a=2"), statistics("b=4"));
        assert_eq!(printed(&Statistics::sum([&one, &odd, &two]).unwrap()), "a=3");
        assert!(!statistics("1 2").add(&statistics("1")));
        assert_eq!(Statistics::sum([]), None);
    }

    #[test]
    fn what_is_no_counter_is_refused() {
        let many = "1 ".repeat(VALUES_MAX + 1);
        for text in ["E68", "1 x", "a=", "1e5", "nan", "inf", "1.2.3", "0x10", &many] {
            assert_eq!(Statistics::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_counts_are_read_back(created in 0..=SESSIONS_MAX, active in 0..=SESSIONS_MAX, streams: u64, received: u64, transmitted: u64) {
            let counts = SessionCounts { created, active, streams, received, transmitted, load: None };
            prop_assert_eq!(parse_info(info(&counts).as_bytes()), Some(counts));
        }

        #[test]
        fn sums_are_numbers(values in proptest::collection::vec("-?[0-9]{1,25}([.][0-9]{1,9})?", 1..9)) {
            let all: Vec<Statistics> = values.iter().map(|value| statistics(value)).collect();
            let sum = printed(&Statistics::sum(&all).unwrap());
            prop_assert!(sum.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{}", sum);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse_info(&bytes);
            let _ = Statistics::parse(&bytes);
        }
    }
}
