//! Bytes to lines. Pure, and bounded: a line may come in any number of pieces and several in one, end in LF or CR
//! LF, and is refused whole, never cut, when it is too long.

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
        } else {
            match core::str::from_utf8(line) {
                Ok(text) if !text.contains(|c: char| c.is_control() && c != '\t') => {
                    Line::Text(text.to_owned())
                }
                _ => Line::Unreadable,
            }
        };
        self.taken = end + 1;
        self.searched = self.taken;
        Some(line)
    }

    /// Where in `buffer` the next LF stands.
    fn line_end(&mut self) -> Option<usize> {
        let found = self.buffer.get(self.searched..)?.iter().position(|&b| b == b'\n');
        match found {
            // Stays there, so that the next call finds it again at once.
            Some(n) => self.searched += n,
            None => self.searched = self.buffer.len(),
        }
        found.map(|_| self.searched)
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
