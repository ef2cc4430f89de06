//! Text from elsewhere, as a terminal may get it. Pure. What would move the cursor, change colours, answer for the
//! user or turn the reading direction around is shown by its number.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with nothing in it that a terminal would act upon but line ends and tabs.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(is_acted_upon) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_acted_upon(c) => shown.push(c),
            // As the daemon writes the bytes of a call-id.
            c if c.is_ascii() => {
                let _ = write!(shown, "\\x{:02x}", u32::from(c));
            }
            c => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    Cow::Owned(shown)
}

/// Control characters of ASCII and of ISO 6429's second set, marks of direction, and what has no width.
fn is_acted_upon(c: char) -> bool {
    let is_harmless = matches!(c, '\n' | '\t');
    let is_invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    (c.is_control() && !is_harmless) || is_invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_shown() {
        for (text, want) in [
            ("plain\n\tåß日\n", "plain\n\tåß日\n"),
            ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
            ("a\rb\x08\x7f", "a\\x0db\\x08\\x7f"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("R1\u{202e}1R\u{200b}", "R1\\u{202e}1R\\u{200b}"),
        ] {
            assert_eq!(shown(text), want);
        }
    }
}
