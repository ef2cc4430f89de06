//! What an element or attribute says, as a value that prints as in a file. Pure.

use core::fmt;
use core::time::Duration;

/// What one element or attribute says; prints as in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing; prints as the empty text.
    None,
    /// A number.
    Whole(u32),
    /// A time.
    Time(Duration),
    /// Instead of a time.
    Off,
    /// Anything else.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Time(time) => write!(f, "{}", Time(*time)),
            Self::Off => f.write_str("off"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Prints a time as [`Span`] reads it, in the longest unit that loses nothing; what is finer than a millisecond
/// is left out.
#[derive(Debug, Clone, Copy)]
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let unit = UNITS
            .iter()
            .find(|(_, unit)| millis != 0 && millis.is_multiple_of(u128::from(*unit)));
        let (name, unit) = unit.copied().unwrap_or(("s", 1_000));
        write!(f, "{}{name}", millis / u128::from(unit))
    }
}

/// The units of a time and their milliseconds, the longest first.
pub(super) const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
