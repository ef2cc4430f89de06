//! The RTPproxy control protocol: bytes to values and back. Pure, and without an allocation on the way of a
//! command: what is parsed borrows from the bytes that came.
//!
//! | file | holds |
//! |---|---|
//! | [`framing`] | where a command ends: whole, more, or too long? |
//! | [`command`] | one command: its call-id, tags, and what is wrong with it |
//! | [`verb`] | its letter, and which words it has |
//! | [`modifiers`] | the first word after its letter |
//! | [`parts`] | the `&&` sub-commands behind it |
//! | [`address`] | media addresses that RTPproxy refuses |
//! | [`reply`] | what a member answered, and our own error codes |
//! | [`counts`] | the sums of `I` and `G` |
//! | [`cookie`] | what names a datagram: theirs and ours |
//!
//! The real RTPproxy (3.x) is the reference for every error code: `tests/corpus/commands.txt` holds what it
//! says, and both it and this room are held to that file. Where its answer depends on its configuration (an
//! address that it has, a module that it has loaded, bridging), the command is passed on and the member judges.

pub mod address;
pub mod command;
pub mod cookie;
pub mod counts;
pub mod framing;
pub mod modifiers;
pub mod parts;
pub mod reply;
pub mod verb;

use core::fmt;

/// Most words of a command, and of each sub-command.
pub const WORDS_MAX: usize = 23;

/// The number of an error: RTPproxy's own, or one of [`reply::own`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u16);

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{}", self.0)
    }
}

/// How many bytes the parser looks at, for the tests: an attacker's text must not cost more than its length.
#[cfg(test)]
pub(crate) mod tally {

    use core::cell::Cell;

    thread_local! {
        static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }

    /// So many bytes more.
    pub(crate) fn add(bytes: usize) {
        LOOKED_AT.set(LOOKED_AT.get() + bytes);
    }

    /// How many `work` looks at.
    pub(crate) fn of(work: impl FnOnce()) -> usize {
        LOOKED_AT.set(0);
        work();
        LOOKED_AT.get()
    }
}

/// Whether a byte separates words: space, tab, CR or LF.
pub(crate) const fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// `text` without the separators at its end.
pub(crate) fn trim_end(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|byte| !is_separator(*byte))
        .map_or(0, |last| last + 1);
    #[cfg(test)]
    tally::add(text.len() - end + 1);
    text.get(..end).unwrap_or_default()
}

/// `text` without the separators at its beginning.
pub(crate) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|byte| !is_separator(*byte))
        .unwrap_or(text.len());
    #[cfg(test)]
    tally::add(start + 1);
    text.get(start..).unwrap_or_default()
}

/// The words of a text, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// How many bytes are behind the word that came last.
    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = trim_start(self.rest);
        let length = rest
            .iter()
            .position(|byte| is_separator(*byte))
            .unwrap_or(rest.len());
        #[cfg(test)]
        tally::add(length + 1);
        let (word, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// The number that `text` writes in decimal digits and nothing else. What is too large for 64 bits is the
/// largest number that is not.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    #[cfg(test)]
    tally::add(text.len());
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// Appends `number` in decimal digits.
pub(crate) fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    // u64::MAX has 20 digits.
    let mut digits = [b'0'; 20];
    let mut length = 0;
    for place in digits.iter_mut().rev() {
        // A remainder of ten fits a byte.
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        length += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - length..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_any_run_of_separators() {
        let words: Vec<&[u8]> = Words::new(b" \tU  a\r\nb ").collect();
        assert_eq!(words, [&b"U"[..], b"a", b"b"]);
        assert_eq!(Words::new(b" \n").next(), None);
        assert_eq!(Words::new(b"").next(), None);
    }

    #[test]
    fn decimals_are_read_and_written() {
        assert_eq!(decimal(b"0042"), Some(42));
        assert_eq!(decimal(b"99999999999999999999999"), Some(u64::MAX));
        for wrong in [&b""[..], b"-1", b"+1", b"1 ", b"1e3"] {
            assert_eq!(decimal(wrong), None);
        }
        for number in [0, 7, 10, 65535, u64::MAX] {
            let mut out = b"x".to_vec();
            write_decimal(number, &mut out);
            assert_eq!(out, format!("x{number}").into_bytes());
        }
    }
}
