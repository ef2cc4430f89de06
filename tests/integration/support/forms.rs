//! The forms of commands in `tests/corpus`, read, and the answers to them made comparable.

use std::collections::HashMap;

use super::real::RealMember;

const CORPUS: &str = include_str!("../../corpus/commands.txt");
const CONVERSATION: &str = include_str!("../../corpus/conversation.txt");

/// One line of the conversation.
#[derive(Debug)]
pub struct Row {
    /// The form, as it is written in the file.
    pub form: &'static str,
    /// Whether it is for some pairs of transports only.
    pub rare: bool,
}

/// The conversation, in its order.
pub fn conversation() -> Vec<Row> {
    let mut rare = false;
    let mut rows = Vec::new();
    for line in CONVERSATION.lines() {
        match line {
            "[pairs]" => rare = false,
            "[all]" => rare = true,
            "" => {}
            _ if line.starts_with('#') => {}
            form => rows.push(Row { form, rare }),
        }
    }
    rows
}

/// The corpus: what is expected of a form, and the form.
pub fn corpus() -> Vec<(&'static str, &'static str)> {
    let lines = CORPUS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (expected, form) = line.split_once('|').expect("EXPECTED |FORM");
            (expected.trim_end(), form)
        })
        .collect()
}

/// The letters of a form, in upper case: that of the command, `VF` for `VF`, and behind it those of its sub-commands.
pub fn letters(form: &str) -> Vec<String> {
    let firsts = form
        .split(" && ")
        .filter_map(|part| part.split_whitespace().next());
    let letters = firsts.map(str::to_ascii_uppercase);
    letters
        .map(|first| match first.as_str() {
            "VF" => first,
            _ => first.chars().take(1).collect(),
        })
        .collect()
}

/// The bytes of a form.
pub fn unescape(form: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = form.bytes();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'\\' => match rest.next().expect("something is escaped") {
                b's' => b' ',
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'0' => 0,
                b'x' => {
                    let digits: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16).expect("two hexadecimal digits")
                }
                other => other,
            },
            other => other,
        });
    }
    out
}

/// The form of some bytes.
pub fn escape(bytes: &[u8]) -> String {
    let last = bytes.len().saturating_sub(1);
    let escaped = bytes.iter().enumerate().map(|(at, byte)| match byte {
        b' ' if at == 0 || at == last => "\\s".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        other => format!("\\x{other:02x}"),
    });
    escaped.collect()
}

/// Makes answers of one RTPproxy, or of a cluster with one, comparable with those of another: ports are numbered in
/// each call as they appear, and what depends on the clock or on the probes of a cluster is left out.
#[derive(Debug, Clone)]
pub struct Mask {
    media: Vec<String>,
    inside: Vec<String>,
    /// By call-id, port and address: their numbers. Two addresses may have the same port.
    ports: HashMap<(String, String), usize>,
    /// Whether ports are numbered, or all are called alike.
    numbers: bool,
}

impl Mask {
    /// For one RTPproxy, or a cluster of some.
    pub fn new(members: &[RealMember]) -> Self {
        let inside = members.iter().filter_map(RealMember::media_inside);
        Self {
            media: members.iter().map(RealMember::media).collect(),
            inside: inside.collect(),
            ports: HashMap::new(),
            numbers: true,
        }
    }

    /// The same where many sessions come and go, so that the system may well give a port twice.
    pub fn without_numbers(self) -> Self {
        Self {
            numbers: false,
            ..self
        }
    }

    /// The answer to a form.
    pub fn apply(&mut self, form: &str, reply: &str) -> String {
        let mut words = form.split([' ', '\t']).filter(|word| !word.is_empty());
        let letter = words.next().unwrap_or_default().chars().next();
        let call = words.next().unwrap_or_default().to_owned();
        let letter = letter.unwrap_or_default().to_ascii_uppercase();
        if letter == 'I' {
            return without_load(reply);
        }
        let mut words = reply.split(' ').peekable();
        let mut masked = Vec::new();
        while let Some(word) = words.next() {
            let address = words.peek().copied().unwrap_or_default();
            masked.push(self.mask(letter, &call, form, word, address));
        }
        masked.join(" ")
    }

    /// One word of an answer, with the word behind it.
    fn mask(&mut self, letter: char, call: &str, form: &str, word: &str, behind: &str) -> String {
        match letter {
            'U' | 'L' | 'C' if self.media.iter().any(|media| word == media) => "@media@".to_owned(),
            'U' | 'L' | 'C' if self.inside.iter().any(|media| word == media) => "@inside@".to_owned(),
            'U' | 'L' | 'C' => match word.parse::<u16>() {
                Ok(port) if port >= 1024 && self.numbers => {
                    let next = self.ports.keys().filter(|(of, _)| of == call).count() + 1;
                    let port = (call.to_owned(), format!("{port} {behind}"));
                    format!("port{}", *self.ports.entry(port).or_insert(next))
                }
                Ok(port) if port >= 1024 => "a port".to_owned(),
                _ => word.to_owned(),
            },
            'Q' => without_clock(word),
            'G' if form.contains("ncmds_") => {
                // A cluster asks its members how they are, and those are commands too.
                let name = word.split_once('=').map_or("", |(name, _)| name);
                format!("{name} a number")
            }
            'G' => without_fraction(word),
            _ => word.to_owned(),
        }
    }
}

/// What depends on the time that has passed or on what else the machine does: seconds, packets a second.
fn without_fraction(word: &str) -> String {
    let (name, value) = word.split_once('=').unwrap_or(("", word));
    let is_fraction = value
        .split_once('.')
        .is_some_and(|(_, places)| places.len() == 6 && value.parse::<f64>().is_ok());
    if is_fraction {
        format!("{name} a fraction")
    } else {
        word.to_owned()
    }
}

/// The lines of `I`, the load of the machine left out.
fn without_load(reply: &str) -> String {
    let lines = reply.lines().map(|line| match line.split_once("load: ") {
        Some((name, load)) => format!("{name}load: {}", without_fraction(load)),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A time to live counts down: 60 may be 58 by now.
fn without_clock(word: &str) -> String {
    let (name, value) = match word.split_once('=') {
        Some(("ttl", value)) => ("ttl=", value),
        _ => ("", word),
    };
    let left = value.parse::<u32>().ok();
    let from = left.and_then(|left| {
        [60, 77, 90]
            .into_iter()
            .find(|full| (full - 5..=*full).contains(&left))
    });
    from.map_or_else(|| word.to_owned(), |full| format!("{name}{full}"))
}
