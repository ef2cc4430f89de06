//! What names a datagram: the first word of a client's, which we give back with the reply, and our own towards
//! members, which must be hard to guess and quick to look up. Pure.

use super::{is_separator, trim_start};

/// Names one command sent to one member. On the wire it is [`Cookie::LEN`] lower-case hexadecimal digits: slot
/// (6), serial (8), index (4), nonce (16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookie {
    /// Place of the command among those in flight; 24 bits go over the wire.
    pub slot: u32,
    /// Which of the commands that have had the place.
    pub serial: u32,
    /// Which of the members that it was sent to.
    pub index: u16,
    /// What makes it hard to guess.
    pub nonce: u64,
}

/// Widths of the four numbers, in digits.
const WIDTHS: [usize; 4] = [6, 8, 4, 16];
const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Cookie {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 34;

    /// Appends it as it goes over the wire.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut text = [0; Self::LEN];
        let numbers = [
            u64::from(self.slot),
            u64::from(self.serial),
            u64::from(self.index),
            self.nonce,
        ];
        let mut rest = &mut text[..];
        for (mut number, width) in numbers.into_iter().zip(WIDTHS) {
            let Some((digits, behind)) = rest.split_at_mut_checked(width) else {
                return;
            };
            for digit in digits.iter_mut().rev() {
                *digit = DIGITS.get((number & 15) as usize).copied().unwrap_or_default();
                number >>= 4;
            }
            rest = behind;
        }
        out.extend_from_slice(&text);
    }

    /// Reads one back: exactly what [`Cookie::write`] makes, or nothing.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::LEN {
            return None;
        }
        let mut numbers = [0_u64; 4];
        let mut rest = text;
        for (number, width) in numbers.iter_mut().zip(WIDTHS) {
            let (digits, behind) = rest.split_at_checked(width)?;
            for digit in digits {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return None,
                };
                *number = *number << 4 | u64::from(value);
            }
            rest = behind;
        }
        let [slot, serial, index, nonce] = numbers;
        Some(Self {
            slot: u32::try_from(slot).ok()?,
            serial: u32::try_from(serial).ok()?,
            index: u16::try_from(index).ok()?,
            nonce,
        })
    }
}

/// Splits a datagram into its cookie and what follows, a command or (from a member) a reply, separators and all.
/// What follows may be empty: RTPproxy answers that with `COOKIE E5`. `None` when there is no cookie, or a NUL in
/// it; RTPproxy answers that with a bare `E5`.
pub fn split(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = trim_start(datagram);
    let length = text
        .iter()
        .position(|byte| is_separator(*byte))
        .unwrap_or(text.len());
    let (cookie, rest) = text.split_at_checked(length)?;
    (!cookie.is_empty() && !cookie.contains(&0)).then_some((cookie, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(cookie: Cookie) -> Vec<u8> {
        let mut out = Vec::new();
        cookie.write(&mut out);
        out
    }

    #[test]
    fn the_wire_form_is_fixed() {
        let cookie = Cookie {
            slot: 0xab,
            serial: 0x1234,
            index: 3,
            nonce: 0x0123_4567_89ab_cdef,
        };
        assert_eq!(text(cookie), b"0000ab0000123400030123456789abcdef");
    }

    #[test]
    fn what_we_did_not_write_is_refused() {
        let good = b"0000ab0000123400030123456789abcdef";
        assert!(Cookie::parse(good).is_some());
        assert_eq!(Cookie::parse(&good[1..]), None);
        assert_eq!(Cookie::parse(&[&good[..], b"0"].concat()), None);
        assert_eq!(Cookie::parse(&good.to_ascii_uppercase()), None);
        assert_eq!(Cookie::parse(b"0000ab000012340003+123456789abcdef"), None);
    }

    #[test]
    fn datagrams_are_split_as_rtpproxy_does() {
        assert_eq!(split(b"c1 V"), Some((&b"c1"[..], &b" V"[..])));
        assert_eq!(split(b"  c1\tV\n"), Some((&b"c1"[..], &b"\tV\n"[..])));
        assert_eq!(split(b"c1"), Some((&b"c1"[..], &b""[..])));
        assert_eq!(split(b"c1\n"), Some((&b"c1"[..], &b"\n"[..])));
        for nothing in [&b""[..], b" ", b"\r\n", b"c\0 V"] {
            assert_eq!(split(nothing), None);
        }
    }

    proptest! {
        #[test]
        fn written_cookies_are_read_back(
            slot in 0..0x100_0000_u32, serial: u32, index: u16, nonce: u64,
        ) {
            let cookie = Cookie { slot, serial, index, nonce };
            prop_assert_eq!(Cookie::parse(&text(cookie)), Some(cookie));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            if let Some(cookie) = Cookie::parse(&bytes) {
                prop_assert_eq!(text(cookie), bytes.clone());
            }
            let _ = split(&bytes);
        }
    }
}
