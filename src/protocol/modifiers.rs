//! The first word of a command after its letter. Pure.
//!
//! The modifiers of U and L nest by grammar, not by position: `L10.0.0.1c0,8a` is three of them. One reader,
//! [`Modifiers`], serves the check and the rewriting of addresses, so that the two cannot disagree.

use super::ErrorCode;
use super::verb::Verb;

/// What a modifier of U or L is about, as far as it concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `LADDR`, `L[ADDR]`, `L{LABEL}`: the local address.
    Local,
    /// `RADDR`, `R[ADDR]`: the local address towards that address.
    Towards,
    /// `6`: the media are IPv6.
    Ipv6,
    /// `w`: the session is weak.
    Weak,
    /// Any other.
    Other,
}

/// The modifiers of a U or an L, one after the other, with the bytes of each. Ends with the first that is wrong.
#[derive(Debug, Clone)]
pub struct Modifiers<'a> {
    rest: &'a [u8],
    legs: u8,
    codecs: bool,
}

impl<'a> Modifiers<'a> {
    /// Reads the first word of a U or an L after its letter.
    pub const fn new(modifiers: &'a [u8]) -> Self {
        Self {
            rest: modifiers,
            legs: 0,
            codecs: false,
        }
    }

    /// Kind and length of the modifier that begins with `letter` and has `argument` behind it.
    fn measure(&mut self, letter: u8, argument: &[u8]) -> Result<(Kind, usize), ErrorCode> {
        let plain = |kind| Ok((kind, 0));
        match letter {
            b'a' | b's' | b'n' => plain(Kind::Other),
            b'6' => plain(Kind::Ipv6),
            b'w' => plain(Kind::Weak),
            b'e' | b'i' => {
                // One for each leg. Whether there is another side to bridge to is the member's to know.
                self.legs += 1;
                match letter {
                    _ if self.legs <= 2 => plain(Kind::Other),
                    b'e' => Err(ErrorCode(11)),
                    _ => Err(ErrorCode(12)),
                }
            }
            b'z' => packet_time(argument)
                .map(|length| (Kind::Other, length))
                .ok_or(ErrorCode(13)),
            b'c' => {
                let length = run(argument, |byte| byte.is_ascii_digit() || byte == b',');
                let again = core::mem::replace(&mut self.codecs, true);
                if again || length == 0 {
                    Err(ErrorCode(14))
                } else {
                    Ok((Kind::Other, length))
                }
            }
            b'l' => {
                let length = label(argument).or_else(|| address(argument));
                length.map(|length| (Kind::Local, length)).ok_or(ErrorCode(15))
            }
            b'r' => address(argument)
                .map(|length| (Kind::Towards, length))
                .ok_or(ErrorCode(16)),
            _ => Err(ErrorCode(35)),
        }
    }
}

impl<'a> Iterator for Modifiers<'a> {
    type Item = Result<(Kind, &'a [u8]), ErrorCode>;

    fn next(&mut self) -> Option<Self::Item> {
        let (letter, argument) = self.rest.split_first()?;
        let measured = self.measure(letter.to_ascii_lowercase(), argument);
        let (length, found) = match measured {
            Ok((kind, length)) => (1 + length, Ok(kind)),
            Err(code) => (self.rest.len(), Err(code)),
        };
        #[cfg(test)]
        super::tally::add(length);
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(found.map(|kind| (kind, text)))
    }
}

/// Length of the bytes at the beginning of `text` that are `good`.
fn run(text: &[u8], good: impl Fn(u8) -> bool) -> usize {
    let length = text.iter().position(|byte| !good(*byte)).unwrap_or(text.len());
    #[cfg(test)]
    super::tally::add(length + 1);
    length
}

/// Length of the milliseconds of a `z`: 1 to 999, as strtol(3) reads them.
fn packet_time(argument: &[u8]) -> Option<usize> {
    let sign = usize::from(argument.first() == Some(&b'+'));
    let digits = argument.get(sign..).unwrap_or_default();
    let digits = digits
        .get(..run(digits, |byte| byte.is_ascii_digit()))
        .unwrap_or_default();
    let milliseconds = super::decimal(digits)?;
    (1..=999).contains(&milliseconds).then_some(sign + digits.len())
}

/// Length of an address: digits and dots, or hexadecimal digits and colons in brackets.
fn address(argument: &[u8]) -> Option<usize> {
    let Some(inside) = argument.strip_prefix(b"[") else {
        let length = run(argument, |byte| byte.is_ascii_digit() || byte == b'.');
        return (length > 0).then_some(length);
    };
    let length = run(inside, |byte| byte.is_ascii_hexdigit() || byte == b':');
    (length > 0 && inside.get(length) == Some(&b']')).then_some(length + 2)
}

/// Length of a label in braces.
fn label(argument: &[u8]) -> Option<usize> {
    let inside = argument.strip_prefix(b"{")?;
    let length = inside.iter().position(|byte| *byte == b'}');
    #[cfg(test)]
    super::tally::add(length.unwrap_or(inside.len()));
    let length = length?;
    (length > 0).then_some(length + 2)
}

/// What the modifiers of a command say that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Said {
    /// `w` of a U, an L or a D.
    pub(crate) weak: bool,
    /// `6` of a U or an L.
    pub(crate) ipv6: bool,
}

/// Reads the modifiers of any command.
///
/// # Errors
/// The code that RTPproxy gives before it looks for a session. Q is not judged: its modifiers are read when the
/// session has been found.
pub(crate) fn check(verb: Verb, modifiers: &[u8]) -> Result<Said, ErrorCode> {
    let mut said = Said::default();
    // Most commands have none.
    let Some((first, behind)) = modifiers.split_first() else {
        return Ok(said);
    };
    #[cfg(test)]
    super::tally::add(modifiers.len());
    let only = |letters: &[u8], code| {
        let known = modifiers
            .iter()
            .all(|byte| letters.contains(&byte.to_ascii_lowercase()));
        if known { Ok(()) } else { Err(ErrorCode(code)) }
    };
    match verb {
        Verb::Update | Verb::Lookup => {
            for modifier in Modifiers::new(modifiers) {
                match modifier?.0 {
                    Kind::Weak => said.weak = true,
                    Kind::Ipv6 => said.ipv6 = true,
                    Kind::Local | Kind::Towards | Kind::Other => {}
                }
            }
        }
        Verb::Delete => {
            only(b"w", 8)?;
            said.weak = true;
        }
        Verb::Play => {
            let digits = modifiers
                .strip_prefix(b"+")
                .or(modifiers.strip_prefix(b"-"))
                .unwrap_or(modifiers);
            super::decimal(digits).ok_or(ErrorCode(17))?;
        }
        Verb::Record => {
            // The first wrong one decides: `p` is for copies only.
            match modifiers
                .iter()
                .map(u8::to_ascii_lowercase)
                .find(|letter| *letter != b's')
            {
                Some(b'p') => return Err(ErrorCode(6)),
                Some(_) => return Err(ErrorCode(7)),
                None => {}
            }
        }
        Verb::Copy => only(b"sp", 7)?,
        Verb::StopRecord => match (first.to_ascii_lowercase(), behind) {
            (b'a', []) => {}
            (b'a', _) => return Err(ErrorCode(6)),
            _ => return Err(ErrorCode(7)),
        },
        Verb::Info => only(b"bl", 18)?,
        Verb::Statistics => only(b"v", 9)?,
        Verb::Query => {}
        Verb::StopPlay | Verb::Version | Verb::Capability | Verb::DeleteAll => return Err(ErrorCode(2)),
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(modifiers: &str) -> Vec<(Kind, &str)> {
        Modifiers::new(modifiers.as_bytes())
            .map(|modifier| modifier.unwrap())
            .map(|(kind, text)| (kind, str::from_utf8(text).unwrap()))
            .collect()
    }

    #[test]
    fn modifiers_nest_by_grammar() {
        use Kind::{Ipv6, Local, Other, Towards, Weak};
        assert_eq!(
            read("L10.0.0.1c0,8a"),
            [(Local, "L10.0.0.1"), (Other, "c0,8"), (Other, "a")]
        );
        assert_eq!(
            read("r[2001:DB8::1]6W"),
            [(Towards, "r[2001:DB8::1]"), (Ipv6, "6"), (Weak, "W")]
        );
        assert_eq!(
            read("z20sL{out side}n"),
            [(Other, "z20"), (Other, "s"), (Local, "L{out side}"), (Other, "n")]
        );
        // Without brackets the 6 belongs to the address.
        assert_eq!(read("L10.0.0.16"), [(Local, "L10.0.0.16")]);
        assert_eq!(read("ei"), [(Other, "e"), (Other, "i")]);
    }

    #[test]
    fn the_first_wrong_modifier_decides() {
        for (modifiers, code) in [
            ("aqz", 35),
            ("zq", 13),
            ("c1c2", 14),
            ("LrL", 15),
            ("aeie", 11),
            ("eei", 12),
        ] {
            let last = Modifiers::new(modifiers.as_bytes()).last();
            assert_eq!(last, Some(Err(ErrorCode(code))), "{modifiers}");
        }
    }

    proptest! {
        #[test]
        fn the_modifiers_are_the_word(
            modifiers in "[aSn6W]{0,3}([Ll]10[.]0[.]0[.]1|[Rr]\\[::1\\]|[Zz]20e|c0,8e|l\\{x y\\})?[anw6]{0,3}",
        ) {
            let mut all = Vec::new();
            for modifier in Modifiers::new(modifiers.as_bytes()) {
                all.extend_from_slice(modifier.unwrap().1);
            }
            prop_assert_eq!(all, modifiers.as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            prop_assert!(Modifiers::new(&bytes).count() <= bytes.len());
            for verb in Verb::ALL {
                let _ = check(verb, &bytes);
            }
        }
    }
}
