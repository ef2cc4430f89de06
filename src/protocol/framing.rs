//! Where a command ends in the bytes of a connection. Pure.
//!
//! SIP servers send no line end to a `unix` socket and wait with their side open, so there a text is whole as
//! soon as it is one by grammar. On a kept connection only a line end ends a command. A datagram is a command.

use super::command::{COMMAND_MAX, examine};
use super::trim_start;

/// What the bytes of a `unix` connection hold so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// A command, or what no further bytes can make one: so many bytes from the beginning, line end included. A
    /// line end is the last of them unless the client sent none.
    Command(usize),
    /// Not yet a command.
    More,
    /// More bytes than any command has.
    TooLong,
}

/// Judges what a `unix` connection has brought so far. A line end ends the command; without one it is whole when
/// it parses, and when it is wrong in a way that nothing can heal.
pub fn first(text: &[u8]) -> First {
    // RTPproxy passes over empty lines here, as over any white space.
    let body = trim_start(text);
    let lead = text.len() - body.len();
    match line(body) {
        Line::Whole(taken) => return First::Command(lead + taken),
        Line::TooLong => return First::TooLong,
        Line::More => {}
    }
    if body.is_empty() && text.contains(&b'\n') {
        return First::Command(text.len());
    }
    if text.len() > COMMAND_MAX {
        return First::TooLong;
    }
    match examine(body) {
        Err(fault) if fault.unfinished => First::More,
        Ok(_) | Err(_) => First::Command(text.len()),
    }
}

/// What the bytes of a kept connection (`cunix`, `tcp`, `tcp6`) begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A line of so many bytes, line end included. It may be empty, which is a command too: it gets E5.
    Whole(usize),
    /// Its end has not come yet.
    More,
    /// It is longer than any command.
    TooLong,
}

/// Finds the next line of a kept connection. Give it what has not been taken yet: when there is `More` to come,
/// that is at most [`COMMAND_MAX`] bytes.
pub fn line(buffer: &[u8]) -> Line {
    // A line end behind the longest command is the last place where one helps.
    let window = buffer.get(..=COMMAND_MAX).unwrap_or(buffer);
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => Line::Whole(end + 1),
        None if buffer.len() > COMMAND_MAX => Line::TooLong,
        None => Line::More,
    }
}

/// Makes one line of a datagram's command. RTPproxy takes a line end in a datagram for white space; a member that
/// is reached over a connection would take what is behind it for a second command.
pub fn unfold(datagram: &mut [u8]) {
    for byte in datagram {
        if *byte == b'\n' {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::command::parse;
    use super::*;

    #[test]
    fn a_whole_command_needs_no_line_end() {
        for text in [
            "V",
            "VF 20050322",
            "U c 1.2.3.4 5 f",
            "D c f t",
            "U c 1.2.3.4 5 f t && L 1.2.3.4 6",
            "Ib",
            "x",
        ] {
            assert_eq!(first(text.as_bytes()), First::Command(text.len()), "{text}");
        }
    }

    #[test]
    fn what_may_still_become_a_command_is_waited_for() {
        let texts = [
            "",
            " ",
            "\t",
            "VF",
            "U",
            "Uz",
            "UL[",
            "U c",
            "U c 1.2.3.4 5",
            "D c",
            "P c p 0",
            "U c 1.2.3.4 5 f &&",
            "U c 1.2.3.4 5 f t && L",
            "U c 1.2.3.4 5 f t && Lz",
            "U c 1.2.3.4 5 f t && L 1.2.3.4",
            "U c 1.2.3.4 5 f && S ttl=",
            "U c 1.2.3.4 5 f && D && M1:",
            "U c 1.2.3.4 5 f unix:/x a%2",
            "U c 1.2.3.4 5 t%1 f%zz",
            "U c 1.2.3.4 5 f %t x%zz",
            "Q c f &&",
        ];
        for text in texts {
            let want = if parse(text.as_bytes()).is_ok() {
                First::Command(text.len())
            } else {
                First::More
            };
            assert_eq!(first(text.as_bytes()), want, "{text}");
        }
        assert_eq!(
            first(b"U c 1.2.3.4 5 f %t x%zz"),
            First::More,
            "an eighth word would heal it"
        );
    }

    #[test]
    fn what_nothing_can_heal_is_answered_at_once() {
        let texts = [
            "Z",
            "Z 1 2",
            "V x",
            "Vx",
            "Xx",
            "U\0",
            "&&",
            "Uq c",
            "D c f t x",
            "V &&",
            "V && D",
            "D c f && D",
            "U c 1.2.3.4 5 f && && D",
            "U c 1.2.3.4 5 f && Z",
            "U c 1.2.3.4 5 f && D x",
            "U c 1.2.3.4 5 f && L",
            "U c 1.2.3.4 5 f && S && D",
            "U c 1.2.3.x 5 f",
            "U c 1.2.3.4 5 f t s x%zz",
            "U a && D",
        ];
        for text in texts {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
            assert_eq!(first(text.as_bytes()), First::Command(text.len()), "{text}");
        }
    }

    #[test]
    fn a_line_end_ends_the_command_whatever_it_is() {
        assert_eq!(first(b"U c\n"), First::Command(4));
        assert_eq!(first(b"V\r\nX\n"), First::Command(3));
        assert_eq!(
            first(b"\n \nV\nX"),
            First::Command(5),
            "empty lines are passed over"
        );
        assert_eq!(
            first(b"\n"),
            First::Command(1),
            "nothing but empty lines is an empty command"
        );
        assert_eq!(first(b" \n "), First::Command(3));
    }

    #[test]
    fn the_longest_command_is_taken_and_no_longer_one() {
        let mut text = b"D c f ".to_vec();
        text.resize(COMMAND_MAX, b't');
        assert_eq!(first(&text), First::Command(COMMAND_MAX));
        assert!(parse(&text).is_ok());
        text.push(b'\n');
        assert_eq!(first(&text), First::Command(COMMAND_MAX + 1));
        assert_eq!(line(&text), Line::Whole(COMMAND_MAX + 1));
        text.insert(6, b't');
        assert_eq!(first(&text), First::TooLong);
        assert_eq!(line(&text), Line::TooLong);
        assert_eq!(parse(&text).map_err(|code| code.0), Err(5));
        assert_eq!(first(&[b' '; COMMAND_MAX + 1]), First::TooLong);
        assert_eq!(line(&[b' '; COMMAND_MAX]), Line::More);
    }

    #[test]
    fn kept_connections_go_line_by_line() {
        assert_eq!(line(b"V\nX\n"), Line::Whole(2));
        assert_eq!(line(b"\nV\n"), Line::Whole(1));
        assert_eq!(line(b"V"), Line::More);
        assert_eq!(line(b""), Line::More);
    }

    #[test]
    fn a_datagram_of_two_lines_is_one_command() {
        let mut datagram = *b"D c\nf\nt\n";
        assert_eq!(parse(&datagram).map_err(|code| code.0), Err(5));
        unfold(&mut datagram);
        assert_eq!(parse(&datagram).map(|command| command.text), Ok(&b"D c f t"[..]));
    }

    proptest! {
        /// However slowly a command is written, it is never answered with an error on the way to being whole, and
        /// once it is taken at a word's end it is the command or a shorter one by the same grammar.
        #[test]
        fn no_beginning_of_a_command_is_refused(
            text in "U(w|z20|c8,0|L10[.]0[.]0[.]1)? c 1[.]2[.]3[.]4 5 f( t( && L 1[.]2[.]3[.]4 7)?( && D)?)?\
                |L c 1[.]2[.]3[.]4 5 f( t( && D)?)?|D c f t|VF 1",
        ) {
            let text = text.as_bytes();
            for end in 0..=text.len() {
                match first(&text[..end]) {
                    First::More => prop_assert!(end < text.len()),
                    First::TooLong => prop_assert!(false),
                    First::Command(taken) => {
                        prop_assert_eq!(taken, end);
                        let cut = parse(&text[..end]);
                        // A word that is cut can be wrong where the whole word is not: an address or a value.
                        let at_word = text.get(end).is_none_or(u8::is_ascii_whitespace);
                        prop_assert!(cut.is_ok() || !at_word, "{:?}", &text[..end]);
                    }
                }
            }
        }

        #[test]
        fn no_bytes_panic_and_what_is_taken_is_there(bytes: Vec<u8>) {
            if let First::Command(taken) = first(&bytes) {
                prop_assert!((1..=bytes.len()).contains(&taken));
            }
            if let Line::Whole(taken) = line(&bytes) {
                prop_assert_eq!(bytes[taken - 1], b'\n');
            }
        }
    }
}
