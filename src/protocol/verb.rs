//! What a command asks for, and which words it has: one table for the parser. Pure.

use super::WORDS_MAX;

/// What a command asks for, by its letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `U`: creates a session or changes one.
    Update,
    /// `L`: looks a session up and completes it.
    Lookup,
    /// `D`
    Delete,
    /// `P`
    Play,
    /// `S`
    StopPlay,
    /// `R`
    Record,
    /// `N`
    StopRecord,
    /// `C`
    Copy,
    /// `Q`
    Query,
    /// `I`
    Info,
    /// `G`
    Statistics,
    /// `V`
    Version,
    /// `VF`, which asks for one capability.
    Capability,
    /// `X`
    DeleteAll,
}

/// Which words a command has.
pub(crate) struct Shape {
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// The word that is the from-tag; 0 when there is no call-id either, which is the word 1 otherwise.
    pub(crate) from_tag: usize,
    pub(crate) modifiers: bool,
    pub(crate) parts: bool,
}

impl Verb {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 14] = [
        Self::Update,
        Self::Lookup,
        Self::Delete,
        Self::Play,
        Self::StopPlay,
        Self::Record,
        Self::StopRecord,
        Self::Copy,
        Self::Query,
        Self::Info,
        Self::Statistics,
        Self::Version,
        Self::Capability,
        Self::DeleteAll,
    ];

    /// Its letter; `F` for `VF`, which no other command has.
    pub const fn letter(self) -> char {
        match self {
            Self::Update => 'U',
            Self::Lookup => 'L',
            Self::Delete => 'D',
            Self::Play => 'P',
            Self::StopPlay => 'S',
            Self::Record => 'R',
            Self::StopRecord => 'N',
            Self::Copy => 'C',
            Self::Query => 'Q',
            Self::Info => 'I',
            Self::Statistics => 'G',
            Self::Version => 'V',
            Self::Capability => 'F',
            Self::DeleteAll => 'X',
        }
    }

    /// Splits the first word of a command into the verb and its modifiers.
    pub(crate) fn split(word: &[u8]) -> Option<(Self, &[u8])> {
        let (letter, modifiers) = word.split_first()?;
        let verb = match letter.to_ascii_uppercase() {
            b'U' => Self::Update,
            b'L' => Self::Lookup,
            b'D' => Self::Delete,
            b'P' => Self::Play,
            b'S' => Self::StopPlay,
            b'R' => Self::Record,
            b'N' => Self::StopRecord,
            b'C' => Self::Copy,
            b'Q' => Self::Query,
            b'I' => Self::Info,
            b'G' => Self::Statistics,
            b'V' => match modifiers.split_first() {
                Some((b'F' | b'f', behind)) => return Some((Self::Capability, behind)),
                _ => Self::Version,
            },
            b'X' => Self::DeleteAll,
            _ => return None,
        };
        Some((verb, modifiers))
    }

    pub(crate) const fn shape(self) -> Shape {
        let (min, max, from_tag) = match self {
            Self::Update => (5, 8, 4),
            Self::Lookup | Self::Play => (5, 6, 4),
            Self::Copy => (4, 5, 3),
            Self::Delete | Self::Record | Self::StopRecord | Self::StopPlay => (3, 4, 2),
            // Four words and the names of eleven counters.
            Self::Query => (3, 15, 2),
            Self::Info | Self::Version | Self::DeleteAll => (1, 1, 0),
            Self::Capability => (2, 2, 0),
            Self::Statistics => (1, WORDS_MAX, 0),
        };
        let modifiers = !matches!(
            self,
            Self::StopPlay | Self::Version | Self::Capability | Self::DeleteAll
        );
        let parts = matches!(self, Self::Update | Self::Lookup | Self::Query);
        Shape {
            min,
            max,
            from_tag,
            modifiers,
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_name_verbs() {
        let mut letters = Vec::new();
        for verb in Verb::ALL {
            letters.push(verb.letter());
            let word = if verb == Verb::Capability {
                "vf".to_owned()
            } else {
                verb.letter().to_lowercase().collect()
            };
            assert_eq!(Verb::split(word.as_bytes()), Some((verb, &b""[..])));
        }
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), Verb::ALL.len(), "a letter a verb");
    }
}
