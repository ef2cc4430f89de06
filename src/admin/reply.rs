//! What a command gets: any number of lines, the last of them `OK` or `ERROR: …`. Pure. No other line of a reply
//! reads like a last one, whatever a name or a path in it is, so a client knows where it ends.

use core::fmt::Display;

/// Longest reply, in bytes. `stats --prometheus` of 4,096 members has 20 MB, `ls -v` of 10,000 a fifth of that.
pub const REPLY_MAX: usize = 32 * 1024 * 1024;

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Zero or more lines, each with its LF.
    body: String,
    /// What follows `ERROR: `; `None` is `OK`.
    error: Option<String>,
}

impl Reply {
    /// `OK` alone.
    pub fn ok() -> Self {
        Self {
            body: String::new(),
            error: None,
        }
    }

    /// Some lines, then `OK`.
    pub fn text(lines: impl AsRef<str>) -> Self {
        let mut reply = Self::ok();
        reply.push_lines(lines.as_ref());
        reply
    }

    /// `ERROR: why`. Where `why` has several lines the first is the error and the others go before it, so that the
    /// error still ends the reply.
    pub fn error(why: impl Display) -> Self {
        let why = why.to_string();
        let (first, rest) = why.split_once('\n').unwrap_or((&why, ""));
        let mut reply = Self::text(rest);
        reply.error = Some(match rest.lines().count() {
            0 => first.trim_end().to_owned(),
            more => format!("{} (and {more} more, above)", first.trim_end()),
        });
        reply
    }

    /// Puts lines that help before the last one.
    #[must_use]
    pub fn with(mut self, lines: impl AsRef<str>) -> Self {
        self.push_lines(lines.as_ref());
        self
    }

    /// Whether it ends with `OK`.
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }

    /// The last line, without its end.
    pub fn verdict(&self) -> String {
        self.error
            .as_ref()
            .map_or_else(|| "OK".to_owned(), |why| format!("ERROR: {why}"))
    }

    /// Appends the bytes that go to the client, at most [`REPLY_MAX`]: a longer one becomes an error that says so.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let verdict = self.verdict();
        let length = self.body.len() + verdict.len() + 1;
        if length > REPLY_MAX {
            let error = format!(
                "ERROR: the reply is {length} bytes long, at most {REPLY_MAX} are sent: ask for less\n"
            );
            out.extend_from_slice(error.as_bytes());
            return;
        }
        out.reserve(length);
        out.extend_from_slice(self.body.as_bytes());
        out.extend_from_slice(verdict.as_bytes());
        out.push(b'\n');
    }

    fn push_lines(&mut self, lines: &str) {
        // The usual text is appended as it is, without a look at each line for its own sake.
        if !lines.lines().any(is_last) {
            self.body.push_str(lines);
            if !lines.is_empty() && !lines.ends_with('\n') {
                self.body.push('\n');
            }
            return;
        }
        for line in lines.lines() {
            if is_last(line) {
                self.body.push(' ');
            }
            self.body.push_str(line);
            self.body.push('\n');
        }
    }
}

/// Whether a line of a reply (without its end) is the last one: the rule by which clients read.
pub fn is_last(line: &str) -> bool {
    line == "OK" || line.starts_with("ERROR:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reply_ends_with_ok_or_one_error() {
        assert_eq!(sent(&Reply::ok()), "OK\n");
        assert_eq!(sent(&Reply::text("a\nb")), "a\nb\nOK\n");
        assert_eq!(sent(&Reply::text("a\n")), "a\nOK\n");
        assert_eq!(
            sent(&Reply::error("X: cluster not found")),
            "ERROR: X: cluster not found\n"
        );
    }

    #[test]
    fn many_faults_make_one_error_line_at_the_end() {
        let reply = Reply::error("f.xml:1:2: a\nf.xml:3:4: b\nERROR: c\n");
        assert_eq!(
            sent(&reply),
            "f.xml:3:4: b\n ERROR: c\nERROR: f.xml:1:2: a (and 2 more, above)\n"
        );
        assert!(!reply.is_ok());
    }

    #[test]
    fn no_other_line_reads_like_the_last() {
        assert_eq!(
            sent(&Reply::text("OK\nERROR: x\nfine\n")),
            " OK\n ERROR: x\nfine\nOK\n"
        );
    }

    #[test]
    fn a_reply_beyond_the_bound_is_an_error_instead() {
        let huge = Reply::text("x\n".repeat(REPLY_MAX / 2));
        let sent = sent(&huge);
        assert!(
            sent.starts_with("ERROR: the reply is 33554435 bytes long"),
            "{sent}"
        );
        assert_eq!(sent.lines().count(), 1);
    }
}
