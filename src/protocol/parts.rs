//! The `&&` sub-commands of a U, an L or a Q: they belong to the command before them and travel with it. Pure.
//!
//! Whatever they hold goes to the member as it came; they are read to refuse what RTPproxy refuses (E3), to see
//! that one ends the session, and to find the `L` whose address may have to be rewritten.

use super::address::address_is_wrong;
use super::verb::Verb;
use super::{Words, decimal, modifiers};

/// Most sub-commands of one command.
pub const PARTS_MAX: usize = 15;
/// What separates them, as a word of its own.
pub(crate) const AND: &[u8] = b"&&";

/// One sub-command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part<'a> {
    /// Its words; the longest sub-command has four.
    words: [&'a [u8]; 4],
    /// How many words it has, those included that `words` has no room for.
    count: usize,
    /// Where its first word begins, counted from the first `&&`.
    pub at: usize,
}

/// How a sub-command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// RTPproxy takes it, or decides by what it has loaded.
    Whole,
    /// More bytes behind it could make it whole.
    Short,
    /// E3, whatever follows.
    Wrong,
}

impl<'a> Part<'a> {
    /// Its first word: a letter and modifiers.
    pub const fn first(&self) -> &'a [u8] {
        let [first, ..] = self.words;
        first
    }

    /// One of its words, of the first four; the letter's is 0. Empty where there is none.
    pub fn word(&self, at: usize) -> &'a [u8] {
        self.words.get(at).copied().unwrap_or_default()
    }

    /// Its letter, in upper case; 0 when it is empty.
    pub const fn letter(&self) -> u8 {
        match self.first() {
            [letter, ..] => letter.to_ascii_uppercase(),
            [] => 0,
        }
    }

    /// Its first word after the letter.
    pub fn modifiers(&self) -> &'a [u8] {
        self.first().get(1..).unwrap_or_default()
    }

    /// Judges it as a part of `verb`, with or without a to-tag.
    pub(crate) fn standing(&self, verb: Verb, has_to_tag: bool) -> Standing {
        let [first, second, third, _] = self.words;
        // C and L are for both legs of a U.
        let both_legs = verb == Verb::Update && has_to_tag;
        match self.letter() {
            b'D' if modifiers::check(Verb::Delete, self.modifiers()).is_ok() => self.expect(1),
            b'S' if first.len() <= 2 => match self.expect(2) {
                Standing::Whole => setting(second),
                other => other,
            },
            b'C' if both_legs && first.len() == 1 => self.expect(4),
            b'L' if both_legs => match (self.expect(3), modifiers::check(Verb::Lookup, self.modifiers())) {
                (Standing::Whole, Ok(said)) if address_is_wrong(second, third, said.ipv6) => Standing::Wrong,
                (Standing::Short, Err(_)) if self.count == 1 => Standing::Short,
                (standing, Ok(_)) => standing,
                (_, Err(_)) => Standing::Wrong,
            },
            b'M' => module(self.modifiers()),
            _ => Standing::Wrong,
        }
    }

    fn expect(&self, words: usize) -> Standing {
        match self.count.cmp(&words) {
            core::cmp::Ordering::Less => Standing::Short,
            core::cmp::Ordering::Equal => Standing::Whole,
            core::cmp::Ordering::Greater => Standing::Wrong,
        }
    }
}

/// Judges the second word of an `S`: `ttl=` or `tos=` and a number above 0.
fn setting(word: &[u8]) -> Standing {
    let names: [&[u8]; 2] = [b"ttl=", b"tos="];
    if names.iter().any(|name| name.starts_with(word)) {
        return Standing::Short;
    }
    let value = names.iter().find_map(|name| word.strip_prefix(*name));
    let value = value.map(|value| value.strip_prefix(b"+").unwrap_or(value));
    match value.and_then(decimal) {
        Some(1..) => Standing::Whole,
        _ => Standing::Wrong,
    }
}

/// Judges an `M` after its letter: the numbers of a module and of its instance, both above 0. Whether the member
/// has that module is the member's to know, and so is how many words the module takes.
fn module(numbers: &[u8]) -> Standing {
    let mut numbers = numbers.splitn(2, |byte| *byte == b':');
    let mut next = || match numbers.next() {
        None | Some([]) => Standing::Short,
        Some(number) => match decimal(number) {
            Some(1..) => Standing::Whole,
            _ => Standing::Wrong,
        },
    };
    match next() {
        Standing::Whole => next(),
        other => other,
    }
}

/// The sub-commands of a command, in their order.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    words: Words<'a>,
    length: usize,
}

impl<'a> Parts<'a> {
    /// Reads `text`, which begins with the first `&&` or is empty.
    pub fn new(text: &'a [u8]) -> Self {
        let mut words = Words::new(text);
        // The first `&&` opens the first sub-command; every other one ends one and opens the next.
        words.next();
        Self {
            words,
            length: text.len(),
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let mut part = Part::default();
        while let Some(word) = self.words.next() {
            if word == AND {
                break;
            }
            if part.count == 0 {
                part.at = self.length - self.words.left() - word.len();
            }
            if let Some(place) = part.words.get_mut(part.count) {
                *place = word;
            }
            part.count += 1;
        }
        (part.count > 0).then_some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(part: &str) -> Standing {
        let text = format!("&& {part}");
        Parts::new(text.as_bytes())
            .next()
            .unwrap_or_default()
            .standing(Verb::Update, true)
    }

    #[test]
    fn parts_are_found_with_their_places() {
        let text = b"&& D  &&\tL10.0.0.1 1.2.3.4 5 && C a b c";
        let found: Vec<(u8, usize)> = Parts::new(text).map(|part| (part.letter(), part.at)).collect();
        assert_eq!(found, [(b'D', 3), (b'L', 9), (b'C', 32)]);
        assert_eq!(Parts::new(b"").next(), None);
    }

    #[test]
    fn whole_short_and_wrong_are_told_apart() {
        for whole in [
            "D",
            "dw",
            "S ttl=60",
            "Sr tos=+184",
            "C a b c",
            "L 1.2.3.4 5",
            "La6 ::1 5",
            "M1:2",
            "m1:2 x y",
        ] {
            assert_eq!(standing(whole), Standing::Whole, "{whole}");
        }
        for short in [
            "S",
            "S ttl=",
            "S t",
            "C",
            "C a b",
            "L",
            "Lz",
            "L 1.2.3.4",
            "M",
            "M1",
            "M1:",
        ] {
            assert_eq!(standing(short), Standing::Short, "{short}");
        }
        let wrong = [
            "Dx",
            "D x",
            "Srr ttl=60",
            "S ttl=0",
            "S TTL=5",
            "S ttl=5x",
            "S ttl=5 x",
            "Cp a b c",
            "C a b c d",
            "Lq 1.2.3.4",
            "L 1.2.3.x 5",
            "L 1.2.3.4 5 6",
            "Mx",
            "M0:1",
            "M1:0",
            "M1:x",
            "Z",
            "&",
        ];
        for wrong in wrong {
            assert_eq!(standing(wrong), Standing::Wrong, "{wrong}");
        }
    }

    #[test]
    fn both_legs_are_needed_for_copy_and_lookup() {
        let parts = |text: &'static str| Parts::new(text.as_bytes()).next().unwrap();
        for text in ["&& L 1.2.3.4 5", "&& C a b c"] {
            assert_eq!(parts(text).standing(Verb::Update, false), Standing::Wrong);
            assert_eq!(parts(text).standing(Verb::Lookup, true), Standing::Wrong);
        }
        assert_eq!(parts("&& D").standing(Verb::Query, false), Standing::Whole);
    }
}
