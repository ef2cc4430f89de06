//! Lines out of a stream of bytes that comes in pieces, each of bounded length. Pure.

/// Longest line, in bytes: as long as a command, in which its text was once sent.
pub const LINE_MAX: usize = crate::protocol::command::COMMAND_MAX;

/// What came of one connection and is no whole line yet.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    /// The line that has begun is too long; its end is still to come.
    skipping: bool,
}

impl Lines {
    /// Takes the next bytes: `take` gets each line that is whole with them, without its line end, or `None` for
    /// one that was too long. Empty lines are passed over.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Option<&[u8]>)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        // The last piece has no line end behind it.
        let rest = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.add(piece);
            if self.skipping {
                take(None);
            } else {
                let line = self.begun.strip_suffix(b"\r").unwrap_or(&self.begun);
                if !line.is_empty() {
                    take(Some(line));
                }
            }
            self.skipping = false;
            self.begun.clear();
        }
        self.add(rest);
        // One long line must not hold its memory for ever.
        self.begun.shrink_to(1024);
    }

    /// Whether a line has begun and not ended.
    pub fn has_begun(&self) -> bool {
        self.skipping || !self.begun.is_empty()
    }

    fn add(&mut self, piece: &[u8]) {
        if self.skipping || self.begun.len() + piece.len() > LINE_MAX {
            self.skipping = true;
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(pieces: &[&[u8]]) -> (Vec<Option<String>>, bool) {
        let mut lines = Lines::default();
        let mut taken = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| {
                taken.push(line.map(|line| String::from_utf8_lossy(line).into_owned()));
            });
        }
        (taken, lines.has_begun())
    }

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        assert_eq!(
            fed(&[b"a b\nc", b"d\r\n", b"\n\r\n"]),
            (vec![Some("a b".to_owned()), Some("cd".to_owned())], false)
        );
        assert_eq!(fed(&[b"", b"a", b"\nb"]), (vec![Some("a".to_owned())], true));
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let long = vec![b'x'; LINE_MAX];
        let (taken, begun) = fed(&[&long, b"\n", &long, b"y", &long, &long, b"z\nnext\n", &long, b"x"]);
        assert_eq!(taken, [Some("x".repeat(LINE_MAX)), None, Some("next".to_owned())]);
        assert!(begun);
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(
            text in "([a-c]{0,3}(\n|\r\n)?){0,6}",
            cuts in proptest::collection::vec(0..40_usize, 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
            prop_assert_eq!(fed(&pieces), fed(&[bytes]));
        }
    }
}
