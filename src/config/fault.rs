//! What is wrong with a configuration, for the one who has to put it right: where it stands, whose it is, what
//! was found and what would be right. A file is read to its end, so there is a list of them.

use core::fmt;
use std::path::Path;
use std::sync::Arc;

/// Faults of one file that are told; the rest is only mentioned. A file with more is not a configuration with
/// slips but another kind of file, and the list goes through the admin interface and the log.
pub const FAULTS_MAX: usize = 1_000;

/// Characters of a value that a message shows.
const VALUE_SHOWN: usize = 80;
/// Characters of a source line that [`Fault::explain`] shows.
const SOURCE_SHOWN: usize = 100;

/// Columns up to which it does: a line is gone through for each fault in it.
const COLUMN_MAX: usize = 10_000;

/// A place in a file, both from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Character in the line.
    pub column: usize,
}

/// One fault: `FILE:17:21: cluster C1, member RTPPROXY2: weight "1e3": want a whole number from 0 to 65535`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    file: Arc<Path>,
    at: Option<Position>,
    /// `cluster C1, member RTPPROXY2`; empty where it is nobody's.
    whose: String,
    what: String,
    /// The line it stands in, cut to what a terminal shows, and the characters before the caret.
    source: Option<(String, usize)>,
}

impl Fault {
    /// A fault of the file as a whole: `FILE: is a directory: want a file`.
    pub fn of_file(file: &Path, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            at: None,
            whose: String::new(),
            what: what.into(),
            source: None,
        }
    }

    /// Line and column; `None` when the file could not be read at all.
    pub fn at(&self) -> Option<Position> {
        self.at
    }

    /// The message and, where there is one, the source line below it with a caret under the place:
    ///
    /// ```text
    /// rtp_cluster.xml:17:21: cluster C1, member RTPPROXY2: weight "1e3": want a whole number from 0 to 65535
    ///    17 |       <weight>1e3</weight>
    ///       |               ^
    /// ```
    pub fn explain(&self) -> String {
        match (&self.source, self.at) {
            (Some((line, before)), Some(at)) => {
                format!("{self}\n{:>6} | {line}\n       | {:before$}^", at.line, "")
            }
            _ => self.to_string(),
        }
    }

    /// Keeps what [`Fault::explain`] shows of line `at.line` of the file.
    fn quote(&mut self, line: &str) {
        let Some(at) = self.at.filter(|at| at.column <= COLUMN_MAX) else {
            return;
        };
        let before = at.column.saturating_sub(1);
        // The window ends a little after the place, so that what stands there is in it.
        let skipped = before.saturating_sub(SOURCE_SHOWN * 3 / 4);
        let shown = line.chars().skip(skipped).take(SOURCE_SHOWN);
        // One column each, so that the caret stands under its character.
        let shown = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.source = Some((shown, before - skipped));
    }
}

impl fmt::Display for Fault {
    /// One line, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        one_line(f, &self.file.to_string_lossy())?;
        if let Some(Position { line, column }) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if !self.whose.is_empty() {
            one_line(f, &self.whose)?;
            f.write_str(": ")?;
        }
        one_line(f, &self.what)
    }
}

impl core::error::Error for Fault {}

/// All faults of a file in its order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// None of them is no fault.
    pub(super) fn new(list: Vec<Fault>) -> Option<Self> {
        (!list.is_empty()).then_some(Self(list))
    }

    /// Each of them.
    pub fn iter(&self) -> core::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// All of them with their source lines, see [`Fault::explain`]. Ends without a line end.
    pub fn explain(&self) -> String {
        let each: Vec<String> = self.iter().map(Fault::explain).collect();
        each.join("\n")
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = core::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    /// One a line, no line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Faults {}

/// Faults or warnings while a file is read: the first [`FAULTS_MAX`] found are kept, the others counted.
#[derive(Debug)]
pub(super) struct Findings {
    file: Arc<Path>,
    list: Vec<Fault>,
    dropped: usize,
}

impl Findings {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.into(),
            list: Vec::new(),
            dropped: 0,
        }
    }

    pub(super) fn push(&mut self, at: Position, whose: &str, what: String) {
        if self.list.len() == FAULTS_MAX {
            self.dropped += 1;
            return;
        }
        let (file, whose) = (Arc::clone(&self.file), whose.to_owned());
        self.list.push(Fault {
            file,
            at: Some(at),
            whose,
            what,
            source: None,
        });
    }

    /// All of them in the order of the file, each with its line of `text`.
    pub(super) fn settle(mut self, text: &str) -> Vec<Fault> {
        self.list.sort_by_key(Fault::at);
        let mut lines = (1..).zip(text.lines());
        let mut line = lines.next();
        for fault in &mut self.list {
            let Some(at) = fault.at else { continue };
            while line.is_some_and(|(number, _)| number < at.line) {
                line = lines.next();
            }
            if let Some((_, line)) = line {
                fault.quote(line);
            }
        }
        if self.dropped > 0 {
            self.list.push(Fault::of_file(
                &self.file,
                format!("{} more, not shown", self.dropped),
            ));
        }
        self.list
    }
}

/// A value as a message shows it: in quotes, one line, cut when it is long.
pub(super) fn quoted(value: &str) -> String {
    let mut out = String::from('"');
    for c in value.chars().take(VALUE_SHOWN) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push_str(if value.chars().nth(VALUE_SHOWN).is_some() {
        "\"…"
    } else {
        "\""
    });
    out
}

/// Writes `text`, which may come from outside, such that it can neither end the line nor steer a terminal.
fn one_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(f, "{}", c.escape_default())?;
        } else {
            write!(f, "{c}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults of cluster C1 at these lines and columns, in a file that holds `text`.
    fn faults(places: &[(usize, usize, &str)], text: &str) -> Option<Faults> {
        let mut found = Findings::new(Path::new("f.xml"));
        for (line, column, what) in places {
            found.push(
                Position {
                    line: *line,
                    column: *column,
                },
                "cluster C1",
                (*what).to_owned(),
            );
        }
        Faults::new(found.settle(text))
    }

    #[test]
    fn faults_come_in_the_order_of_the_file_one_a_line() {
        let faults_of_two = faults(&[(2, 4, "b"), (1, 9, "a")], "one\ntwo\n").unwrap();
        assert_eq!(
            faults_of_two.to_string(),
            "f.xml:1:9: cluster C1: a\nf.xml:2:4: cluster C1: b"
        );
        assert_eq!(faults(&[], ""), None);
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        let faults = faults(&[(2, 3, "b"), (2, 5, "c")], "one\n\ttwo\n").unwrap();
        let rows = [
            "f.xml:2:3: cluster C1: b",
            "     2 |  two",
            "       |   ^",
            "f.xml:2:5: cluster C1: c",
            "     2 |  two",
            "       |     ^",
        ];
        assert_eq!(faults.explain(), rows.join("\n"));
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_shown() {
        let line = format!("{}HERE{}", "a".repeat(5_000), "b".repeat(5_000));
        let explained = faults(&[(1, 5_001, "x")], &line).unwrap().explain();
        let rows: Vec<&str> = explained.lines().collect();
        assert_eq!(rows[1].chars().count(), "     1 | ".len() + SOURCE_SHOWN);
        let caret = rows[2].find('^').unwrap();
        assert_eq!(&rows[1][caret..caret + 4], "HERE");
    }

    #[test]
    fn a_place_past_the_text_has_no_source_line() {
        for place in [(9, 1, "x"), (1, COLUMN_MAX + 1, "x")] {
            let faults = faults(&[place], "one\n").unwrap();
            assert_eq!(faults.explain(), faults.to_string());
        }
    }

    #[test]
    fn a_thousand_faults_are_shown_and_the_rest_is_counted() {
        let many: Vec<_> = (1..=FAULTS_MAX + 7).map(|line| (line, 1, "x")).collect();
        let faults = faults(&many, "").unwrap();
        assert_eq!(faults.iter().count(), FAULTS_MAX + 1);
        assert_eq!(
            faults.iter().last().unwrap().to_string(),
            "f.xml: 7 more, not shown"
        );
    }

    #[test]
    fn no_value_breaks_its_line_or_fills_the_screen() {
        assert_eq!(quoted("a\"b\\\n\u{1b}[2J"), r#""a\"b\\\n\u{1b}[2J""#);
        assert_eq!(
            quoted(&"é".repeat(VALUE_SHOWN)),
            format!("\"{}\"", "é".repeat(VALUE_SHOWN))
        );
        assert_eq!(
            quoted(&"é".repeat(VALUE_SHOWN + 1)),
            format!("\"{}\"…", "é".repeat(VALUE_SHOWN))
        );
        assert_eq!(
            Fault::of_file(Path::new("a\nb"), "c\rd").to_string(),
            r"a\nb: c\rd"
        );
    }
}
