//! Bytes to lines. Pure, and bounded: a line may come in any number of pieces and several in one, end in LF or CR
//! LF, and is refused whole, never cut, when it is too long.
//!
//! A telnet may be at the other end. It sends a carriage return as CR NUL, which ends a line here (with a LF behind
//! it a blank one follows, which nobody answers), and may negotiate: those bytes are no part of a line.

/// Longest line, in bytes, without its end. The longest sensible command is a few hundred bytes; this leaves room
/// for a path and a call-id of any length that the rest of the program takes.
pub const LINE_MAX: usize = 64 * 1024;

/// One line of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The text without its line end.
    Text(String),
    /// It was longer than [`LINE_MAX`]; nothing of it is kept.
    TooLong,
    /// It is not UTF-8, or has control characters other than tabs.
    Unreadable,
}

/// What has arrived and was not taken yet.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were taken already.
    taken: usize,
    /// Bytes of `buffer` that were searched for a line end already, so that a line in many pieces costs no square.
    searched: usize,
    /// The line in progress was too long: the rest of it goes unread.
    skipping: bool,
}

impl Lines {
    /// Appends what was read. The caller reads in bounded pieces and takes all lines between two of them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether [`Lines::next_line`] has something to give.
    pub fn has_line(&mut self) -> bool {
        self.line_end().is_some()
    }

    /// Whether part of a line has arrived, and its end not.
    pub fn is_half(&mut self) -> bool {
        !self.has_line() && (self.skipping || self.taken < self.buffer.len())
    }

    /// The next whole line.
    pub fn next_line(&mut self) -> Option<Line> {
        let Some(end) = self.line_end() else {
            if self.buffer.len() - self.taken > LINE_MAX {
                self.skipping = true;
            }
            if self.skipping {
                self.buffer.clear();
                (self.taken, self.searched) = (0, 0);
            }
            return None;
        };
        let line = self.buffer.get(self.taken..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = if core::mem::take(&mut self.skipping) || line.len() > LINE_MAX {
            Line::TooLong
        } else if line.contains(&telnet::IAC) {
            text(&telnet::stripped(line))
        } else {
            text(line)
        };
        self.taken = end + 1;
        self.searched = self.taken;
        Some(line)
    }

    /// Where in `buffer` the next line ends: at its LF, or at the NUL of a CR NUL.
    fn line_end(&mut self) -> Option<usize> {
        let (taken, searched) = (self.taken, self.searched);
        let ends = |&at: &usize| match self.buffer.get(at) {
            Some(b'\n') => true,
            Some(0) => at > taken && self.buffer.get(at - 1) == Some(&b'\r'),
            _ => false,
        };
        let found = (searched..self.buffer.len()).find(ends).map(|at| at - searched);
        match found {
            // Stays there, so that the next call finds it again at once.
            Some(n) => self.searched += n,
            None => self.searched = self.buffer.len(),
        }
        found.map(|_| self.searched)
    }
}

fn text(line: &[u8]) -> Line {
    match core::str::from_utf8(line) {
        Ok(text) if !text.contains(|c: char| c.is_control() && c != '\t') => Line::Text(text.to_owned()),
        _ => Line::Unreadable,
    }
}

/// What telnet says to the other side rather than to the user (RFC 854). Its first byte is in no UTF-8 text.
mod telnet {
    /// Interpret as command.
    pub(super) const IAC: u8 = 255;
    const SUBNEGOTIATION: u8 = 250;
    const SUBNEGOTIATION_END: u8 = 240;
    /// WILL, WON'T, DO, DON'T: an option follows.
    const OPTIONS: core::ops::RangeInclusive<u8> = 251..=254;
    /// The commands without more bytes behind them.
    const PLAIN: core::ops::RangeInclusive<u8> = 240..=249;

    /// `line` without negotiation; what only looks like it stays, and is no text.
    pub(super) fn stripped(mut line: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(line.len());
        while let Some((&byte, rest)) = line.split_first() {
            line = match rest {
                [command, _, after @ ..] if byte == IAC && OPTIONS.contains(command) => after,
                [SUBNEGOTIATION, after @ ..] if byte == IAC => {
                    let end = after.windows(2).position(|two| two == [IAC, SUBNEGOTIATION_END]);
                    end.and_then(|end| after.get(end + 2..)).unwrap_or_default()
                }
                [command, after @ ..] if byte == IAC && PLAIN.contains(command) => after,
                _ => {
                    text.push(byte);
                    rest
                }
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the tests read better")]
    fn text(s: &str) -> Option<Line> {
        Some(Line::Text(s.into()))
    }

    #[test]
    fn several_lines_in_one_piece() {
        let mut lines = Lines::default();
        lines.push(b"ls\r\nls C\n\nqu");
        assert_eq!(lines.next_line(), text("ls"));
        assert_eq!(lines.next_line(), text("ls C"));
        assert!(lines.has_line());
        assert_eq!(lines.next_line(), text(""));
        assert_eq!(lines.next_line(), None);
        assert!(lines.is_half());
        lines.push(b"it\n");
        assert_eq!(lines.next_line(), text("quit"));
        assert!(!lines.is_half());
    }

    #[test]
    fn one_line_in_many_pieces() {
        let mut lines = Lines::default();
        for byte in b"modify C resume R1\r" {
            lines.push(&[*byte]);
            assert_eq!(lines.next_line(), None);
            assert!(lines.is_half());
        }
        lines.push(b"\n");
        assert_eq!(lines.next_line(), text("modify C resume R1"));
    }

    #[test]
    fn a_telnet_is_understood() {
        let mut lines = Lines::default();
        // A carriage return is CR NUL there, with a line feed behind it or not; the NUL may come later.
        lines.push(b"ls\r\0\nls C\r\0quit\r");
        assert_eq!(lines.next_line(), text("ls"));
        assert_eq!(lines.next_line(), text(""));
        assert_eq!(lines.next_line(), text("ls C"));
        assert_eq!(lines.next_line(), None);
        lines.push(b"\0");
        assert_eq!(lines.next_line(), text("quit"));
        assert!(!lines.is_half());
        // Will 31, do 3, a subnegotiation, a break: none of it is part of a line.
        lines.push(b"\xff\xfb\x1f\xff\xfd\x03ver\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0si\xff\xf3on\r\n");
        assert_eq!(lines.next_line(), text("version"));
        lines.push(b"a\0b\nls \xff\xff\nls \xff\n");
        for _ in 0..3 {
            assert_eq!(lines.next_line(), Some(Line::Unreadable));
        }
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        let mut lines = Lines::default();
        let mut piece = vec![b'x'; LINE_MAX];
        piece.push(b'\n');
        lines.push(&piece);
        assert_eq!(lines.next_line(), text(&"x".repeat(LINE_MAX)));
        piece.insert(0, b'x');
        lines.push(&piece);
        assert_eq!(lines.next_line(), Some(Line::TooLong));
        assert_eq!(lines.next_line(), None);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_harms_no_other() {
        let mut lines = Lines::default();
        for _ in 0..1_000 {
            lines.push(&[b'x'; 4096]);
            assert_eq!(lines.next_line(), None);
            assert!(lines.buffer.len() <= LINE_MAX + 4096, "{}", lines.buffer.len());
            assert!(lines.is_half());
        }
        lines.push(b"\nls\n");
        assert_eq!(lines.next_line(), Some(Line::TooLong));
        assert_eq!(lines.next_line(), text("ls"));
        assert_eq!(lines.next_line(), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_told_apart() {
        let mut lines = Lines::default();
        lines.push(b"ls \xff\nls\0\nls\tC\n");
        assert_eq!(lines.next_line(), Some(Line::Unreadable));
        assert_eq!(lines.next_line(), Some(Line::Unreadable));
        assert_eq!(lines.next_line(), text("ls\tC"));
    }
}
