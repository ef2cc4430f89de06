//! A log record as text, JSON or logfmt. The fields of a record (`cluster`, `member`, `address`, `old`, `new`,
//! `reason`, …) are told apart in the latter two; the message says all of it for people in any.

use core::fmt::Write as _;

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

use super::options::LogFormat;

/// What a field's name and the punctuation around it may take in a line that is cut, in bytes.
const FIELD_HEAD: usize = 64;
/// Bytes that one character takes at most once it is escaped, for each byte of its own.
const ESCAPED: usize = 6;

/// The line of `record` at `time`, in at most `max` bytes where texts can be cut for that. A text that was cut ends in
/// dots, so that a line of JSON stays one. As text it is the message alone, of any length.
pub(super) fn render(format: LogFormat, time: &str, record: &Record<'_>, max: usize) -> String {
    let message = record.args().to_string();
    if format == LogFormat::Text {
        return one_line(message);
    }
    let mut fields = Fields(vec![
        ("time".to_owned(), Field::Text(time.to_owned())),
        ("level".to_owned(), Field::Text(level(record.level()).to_owned())),
        (format.message().to_owned(), Field::Text(message)),
    ]);
    // Reading fields fails when their visitor does, and ours does not.
    let _ = record.key_values().visit(&mut fields);
    let line = fields.line(format);
    if line.len() <= max {
        return line;
    }
    let room = (max / fields.0.len()).saturating_sub(FIELD_HEAD) / ESCAPED;
    for (_, field) in &mut fields.0 {
        field.shorten(room);
    }
    fields.line(format)
}

/// What stands before the fields of a line that [`render`] has made, and its time. Of a text both are empty.
pub(super) fn head_of(format: LogFormat, line: &str) -> (&str, &str) {
    let (begin, end) = match format {
        LogFormat::Text => return ("", ""),
        LogFormat::Json => ("{\"time\":\"", '"'),
        LogFormat::Logfmt => ("time=", ' '),
    };
    let (head, after) = line.split_once(begin).unwrap_or_default();
    (head, after.split_once(end).map_or("", |(time, _)| time))
}

/// A level as other programs spell it.
const fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// The fields of a record in their order.
struct Fields(Vec<(String, Field)>);

enum Field {
    Text(String),
    /// A number or a truth value, as it is written.
    Bare(String),
}

impl Field {
    fn shorten(&mut self, room: usize) {
        if let Self::Text(text) = self
            && text.len() > room
        {
            let bytes = text.as_bytes().get(..room).unwrap_or_default();
            // A character that is cut in two is left out.
            let whole = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            *text = format!("{whole}...");
        }
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let is_bare = value.to_u64().is_some() || value.to_i64().is_some() || value.to_bool().is_some();
        let text = value.to_string();
        let field = if is_bare {
            Field::Bare(text)
        } else {
            Field::Text(text)
        };
        self.0.push((key.to_string(), field));
        Ok(())
    }
}

impl Fields {
    fn line(&self, format: LogFormat) -> String {
        let mut line = String::new();
        for (name, field) in &self.0 {
            let first = line.is_empty();
            if format == LogFormat::Json {
                line.push(if first { '{' } else { ',' });
                quote(&mut line, name);
                line.push(':');
            } else {
                line.push_str(if first { "" } else { " " });
                line.push_str(name);
                line.push('=');
            }
            match field {
                Field::Text(text) if format == LogFormat::Logfmt && is_word(text) => line.push_str(text),
                Field::Text(text) => quote(&mut line, text),
                Field::Bare(text) => line.push_str(text),
            }
        }
        if format == LogFormat::Json {
            line.push('}');
        }
        line
    }
}

/// Whether logfmt takes it without quotes.
fn is_word(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    !text.is_empty() && text.chars().all(plain)
}

/// A string of JSON (RFC 8259, section 7), which logfmt reads as well.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            // Writing to a string cannot fail. All control characters have four digits.
            c if c.is_control() => drop(write!(line, "\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}

/// The message with control characters escaped: whatever an outsider put into a name, he forges no next line.
fn one_line(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    message
        .split_inclusive(char::is_control)
        .fold(String::new(), |mut text, part| {
            let plain = part.trim_end_matches(char::is_control);
            text.push_str(plain);
            text.extend(
                part.chars()
                    .skip(plain.chars().count())
                    .flat_map(char::escape_default),
            );
            text
        })
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    const TIME: &str = "2026-11-25T08:00:00.123Z";

    fn line(format: LogFormat, message: &str, reason: &str, max: usize) -> String {
        let fields = [
            ("cluster", Value::from("C 1")),
            ("reason", Value::from(reason)),
            ("calls", Value::from(7)),
        ];
        let args = format_args!("{message}");
        let record = Record::builder()
            .level(Level::Warn)
            .key_values(&fields)
            .args(args)
            .build();
        render(format, TIME, &record, max)
    }

    #[test]
    fn each_format_says_the_same() {
        assert_eq!(line(LogFormat::Text, "a\nb", "x", 4096), "a\\nb");
        assert_eq!(
            line(LogFormat::Logfmt, "a\n\"b\"", "x=y", 4096),
            format!(r#"time={TIME} level=warn msg="a\n\"b\"" cluster="C 1" reason="x=y" calls=7"#)
        );
        let json: Json =
            serde_json::from_str(&line(LogFormat::Json, "a\n\"b\" \u{1b}\u{9b}\\é", "", 4096)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "time": TIME, "level": "warn", "message": "a\n\"b\" \u{1b}\u{9b}\\é",
                "cluster": "C 1", "reason": "", "calls": 7
            })
        );
    }

    #[test]
    fn a_long_line_is_cut_and_stays_one_of_its_format() {
        let long = "\u{1}é".repeat(5000);
        let cut = line(LogFormat::Json, &long, &long, 4096);
        assert!(cut.len() <= 4096, "{}", cut.len());
        let json: Json = serde_json::from_str(&cut).unwrap();
        for field in ["message", "reason"] {
            let text = json[field].as_str().unwrap();
            assert!(
                text.ends_with("...") && long.starts_with(text.trim_end_matches('.')),
                "{text}"
            );
        }
        assert_eq!((&json["time"], &json["calls"]), (&TIME.into(), &7.into()));
    }

    #[test]
    fn the_head_of_a_line_and_its_time_are_found() {
        let head = "<28>rtp_cluster[7]: ";
        for format in [LogFormat::Json, LogFormat::Logfmt] {
            let line = line(format, "m", "r", 4096);
            assert_eq!(head_of(format, &format!("{head}{line}\n")), (head, TIME));
            assert_eq!(head_of(format, "T1 INFO one"), ("", ""));
        }
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(one_line("größe 1".into()), "größe 1");
        assert_eq!(
            one_line("a\nT INFO forged\r\x1b[1mé\n".into()),
            "a\\nT INFO forged\\r\\u{1b}[1mé\\n"
        );
    }
}
