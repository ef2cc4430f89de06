//! One command of a SIP server: its bytes as a view that borrows from them, or the error that RTPproxy would give.
//! Pure.
//!
//! A command is judged as far as RTPproxy judges it before it looks for a session, with the same code where two
//! things are wrong at once. So one bad client troubles no member, and what is accepted may go to a member byte
//! for byte: no line end is inside, so that a member never receives two commands.

use super::address::address_is_wrong;
use super::parts::{AND, PARTS_MAX, Part, Parts, Standing};
pub use super::verb::Verb;
pub use super::{ErrorCode, WORDS_MAX};
use super::{Words, decimal, is_separator, modifiers, trim_end, trim_start};

/// Longest command, its cookie and its line end not counted, in bytes. RTPproxy reads into 8 KiB, a NUL behind.
pub const COMMAND_MAX: usize = 8191;
/// No such command.
const UNKNOWN: ErrorCode = ErrorCode(0);
/// Too few or too many words.
const WORDS: ErrorCode = ErrorCode(1);
/// Modifiers where there can be none.
const MODIFIERS: ErrorCode = ErrorCode(2);
/// A sub-command that is wrong, or is where there can be none.
const PARTS: ErrorCode = ErrorCode(3);
/// No words, far too many, or a byte that cannot be in one.
const SYNTAX: ErrorCode = ErrorCode(5);
/// A notify-tag that is not percent-encoded.
const NOTIFY_TAG: ErrorCode = ErrorCode(10);
/// A media address that is none.
const ADDRESS: ErrorCode = ErrorCode(37);

/// The last two words of a U: whom to tell when the media stop, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifyArgs<'a> {
    /// `tcp:HOST:PORT`, `HOST:PORT`, `unix:PATH` or `PATH`.
    pub socket: &'a [u8],
    /// What is sent there, percent-encoded.
    pub tag: &'a [u8],
    /// Where in the text the word before the socket ends.
    pub(crate) before: usize,
    /// Where in the text the tag ends.
    pub(crate) end: usize,
}

/// A command that RTPproxy would look for a session with. Borrows from the bytes that it was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    /// As it came, less the white space around it: at most [`COMMAND_MAX`] bytes, no NUL, no line end inside.
    pub text: &'a [u8],
    /// What it asks for.
    pub verb: Verb,
    /// The first word after the letter; after `VF` for a capability.
    pub modifiers: &'a [u8],
    /// Empty where the verb has none.
    pub call_id: &'a [u8],
    /// With its `;N`, the number of the stream; empty where the verb has none.
    pub from_tag: &'a [u8],
    /// As the from-tag.
    pub to_tag: Option<&'a [u8]>,
    /// Of a U only.
    pub notify: Option<NotifyArgs<'a>>,
    /// Whether a U, an L or a D has the modifier `w`.
    pub weak: bool,
    /// What a `VF` asks for, when it is a number in the one way of writing it; RTPproxy compares the texts.
    pub number: Option<u64>,
    /// What follows the first words: from the first `&&` to the end, or empty.
    pub parts: &'a [u8],
    /// Whether `&&` sub-commands travel with it.
    pub has_parts: bool,
    /// Whether it is a delete, or one travels with it.
    pub ends_session: bool,
}

impl<'a> Command<'a> {
    /// Its `&&` sub-commands.
    pub fn parts(&self) -> Parts<'a> {
        Parts::new(self.parts)
    }

    /// Names of the counters that a `G` asks for, separated as they came.
    pub fn names(&self) -> &'a [u8] {
        let first = self
            .text
            .iter()
            .position(|byte| is_separator(*byte))
            .unwrap_or(self.text.len());
        trim_start(self.text.get(first..).unwrap_or_default())
    }
}

/// Why a text is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What RTPproxy answers.
    pub code: ErrorCode,
    /// Whether more bytes at the end could make it a command.
    pub unfinished: bool,
}

impl Fault {
    const fn fatal(code: ErrorCode) -> Self {
        Self {
            code,
            unfinished: false,
        }
    }
}

/// Parses one command, with or without its line end.
///
/// # Errors
/// The code with which RTPproxy refuses it.
pub fn parse(text: &[u8]) -> Result<Command<'_>, ErrorCode> {
    examine(text).map_err(|fault| fault.code)
}

/// A text split into words, as far as every command needs it.
struct Scan<'a> {
    /// The longest command that is looked into has eight words.
    words: [&'a [u8]; 8],
    /// Where each of them ends.
    ends: [usize; 8],
    count: usize,
    parts: &'a [u8],
}

impl<'a> Scan<'a> {
    fn of(text: &'a [u8]) -> Result<Self, Fault> {
        #[cfg(test)]
        super::tally::add(text.len());
        // Every byte is looked at, with no early end: the compiler makes vector code of it.
        let odd = text.iter().fold(0, |odd, byte| {
            odd | u8::from(*byte == 0) | u8::from(*byte == b'\n')
        }) != 0;
        if odd || text.len() > COMMAND_MAX {
            return Err(Fault::fatal(SYNTAX));
        }
        let mut scan = Self {
            words: [&[]; 8],
            ends: [0; 8],
            count: 0,
            parts: &[],
        };
        let mut words = Words::new(text);
        while let Some(word) = words.next() {
            let end = text.len() - words.left();
            if word == AND {
                scan.parts = text.get(end - AND.len()..).unwrap_or_default();
                break;
            }
            if scan.count == WORDS_MAX {
                return Err(Fault::fatal(SYNTAX));
            }
            if let (Some(place), Some(at)) = (scan.words.get_mut(scan.count), scan.ends.get_mut(scan.count)) {
                (*place, *at) = (word, end);
            }
            scan.count += 1;
        }
        scan.check_parts()?;
        if scan.count == 0 {
            return Err(Fault {
                code: SYNTAX,
                unfinished: text.is_empty(),
            });
        }
        Ok(scan)
    }

    /// Counts sub-commands and their words.
    fn check_parts(&self) -> Result<(), Fault> {
        let (mut parts, mut count) = (0, 1);
        for word in Words::new(self.parts) {
            if word == AND {
                parts += 1;
                // Nothing between two of them.
                if count == 0 || parts > PARTS_MAX {
                    return Err(Fault::fatal(SYNTAX));
                }
                count = 0;
            } else if count == WORDS_MAX {
                return Err(Fault::fatal(SYNTAX));
            } else {
                count += 1;
            }
        }
        if count > 0 {
            return Ok(());
        }
        let takes_parts = Verb::split(self.word(0)).is_some_and(|(verb, _)| verb.shape().parts);
        Err(Fault {
            code: SYNTAX,
            unfinished: takes_parts && self.count > 0,
        })
    }

    fn word(&self, index: usize) -> &'a [u8] {
        self.words.get(index).copied().unwrap_or_default()
    }

    fn end(&self, index: usize) -> usize {
        self.ends.get(index).copied().unwrap_or_default()
    }

    /// The word, if the text has it.
    fn optional(&self, index: usize) -> Option<&'a [u8]> {
        (index < self.count).then(|| self.word(index))
    }
}

/// Parses one command as [`parse`] does, and says of a text that is none whether it may become one.
///
/// # Errors
/// The first thing that RTPproxy finds wrong.
pub fn examine(text: &[u8]) -> Result<Command<'_>, Fault> {
    let text = trim_end(trim_start(text));
    let scan = Scan::of(text)?;
    let Some((verb, modifiers)) = Verb::split(scan.word(0)) else {
        return Err(Fault::fatal(UNKNOWN));
    };
    let shape = verb.shape();
    let has_parts = !scan.parts.is_empty();
    if scan.count < shape.min {
        // A first word that stands alone may go on with modifiers.
        let sound = scan.count == 1 || modifiers::check(verb, modifiers).is_ok();
        return Err(Fault {
            code: WORDS,
            unfinished: sound && !has_parts,
        });
    }
    if scan.count > shape.max {
        return Err(Fault::fatal(WORDS));
    }
    if !shape.modifiers && !modifiers.is_empty() {
        return Err(Fault::fatal(MODIFIERS));
    }
    if !shape.parts && has_parts {
        return Err(Fault::fatal(PARTS));
    }
    let mut command = Command {
        text,
        verb,
        modifiers,
        call_id: &[],
        from_tag: &[],
        to_tag: None,
        notify: None,
        weak: false,
        number: None,
        parts: scan.parts,
        has_parts,
        ends_session: verb == Verb::Delete,
    };
    if shape.from_tag > 0 {
        command.call_id = scan.word(1);
        command.from_tag = scan.word(shape.from_tag);
        command.to_tag = scan.optional(shape.from_tag + 1);
    }
    if verb == Verb::Update {
        take_notify(&scan, &mut command)?;
    }
    let said = modifiers::check(verb, modifiers).map_err(Fault::fatal)?;
    command.weak = said.weak;
    if matches!(verb, Verb::Update | Verb::Lookup) && address_is_wrong(scan.word(2), scan.word(3), said.ipv6)
    {
        return Err(Fault::fatal(ADDRESS));
    }
    if verb == Verb::Capability {
        let word = scan.word(1);
        command.number = decimal(word).filter(|_| word == b"0" || !word.starts_with(b"0"));
    }
    if has_parts {
        take_parts(&mut command)?;
    }
    Ok(command)
}

/// Reads the end of a U: 5 words are without a to-tag, 6 with one, 7 with a notify pair, 8 with both.
fn take_notify<'a>(scan: &Scan<'a>, command: &mut Command<'a>) -> Result<(), Fault> {
    let Some(socket) = scan.count.checked_sub(2).filter(|socket| *socket >= 5) else {
        return Ok(());
    };
    if socket == 5 {
        command.to_tag = None;
    }
    let tag = scan.word(socket + 1);
    if let Err(cut) = escapes_are_sound(tag) {
        // With seven words, an eighth would make the tag a socket.
        let unfinished = command.parts.is_empty() && (cut || socket == 5);
        return Err(Fault {
            code: NOTIFY_TAG,
            unfinished,
        });
    }
    command.notify = Some(NotifyArgs {
        socket: scan.word(socket),
        tag,
        before: scan.end(socket - 1),
        end: scan.end(socket + 1),
    });
    Ok(())
}

/// Whether each `%` of a percent-encoded word has two hexadecimal digits behind it; if not, whether that is only
/// because the word ends too early.
fn escapes_are_sound(word: &[u8]) -> Result<(), bool> {
    #[cfg(test)]
    super::tally::add(word.len());
    let mut rest = word;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let behind = rest.get(at + 1..).unwrap_or_default();
        let digits = behind
            .iter()
            .take(2)
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if digits < 2 {
            return Err(digits == behind.len());
        }
        rest = behind.get(2..).unwrap_or_default();
    }
    Ok(())
}

/// Judges the sub-commands. Only the last one can be unfinished.
fn take_parts(command: &mut Command<'_>) -> Result<(), Fault> {
    let has_to_tag = command.to_tag.is_some();
    let mut parts = command.parts().peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match Part::standing(&part, command.verb, has_to_tag) {
            Standing::Whole => command.ends_session |= part.letter() == b'D',
            Standing::Short => {
                return Err(Fault {
                    code: PARTS,
                    unfinished: is_last,
                });
            }
            Standing::Wrong => return Err(Fault::fatal(PARTS)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::framing::first;
    use super::super::tally;
    use super::*;

    /// Forms with what a real RTPproxy says to them; see the head of the file.
    const CORPUS: &str = include_str!("../../tests/corpus/commands.txt");

    /// What a SIP server may say, a form a line.
    const CONVERSATION: &str = include_str!("../../tests/corpus/conversation.txt");

    fn unescape(form: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = form.bytes();
        while let Some(byte) = rest.next() {
            out.push(match byte {
                b'\\' => match rest.next().unwrap() {
                    b's' => b' ',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b'0' => 0,
                    b'x' => {
                        let digits = [rest.next().unwrap(), rest.next().unwrap()];
                        u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    other => other,
                },
                other => other,
            });
        }
        out
    }

    #[test]
    fn every_form_of_the_corpus_is_judged_as_rtpproxy_judges_it() {
        let mut forms = 0;
        for line in CORPUS
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (expected, form) = line.split_once('|').unwrap();
            let text = unescape(form);
            let found = match parse(&text) {
                Ok(command) => {
                    assert_eq!(command.text, trim_end(trim_start(&text)), "{form}");
                    "accepted".to_owned()
                }
                Err(code) => code.to_string(),
            };
            let expected = match expected.trim_end() {
                "ok" | "member" => "accepted",
                code => code,
            };
            assert_eq!(found, expected, "{form}");
            forms += 1;
        }
        assert!(forms > 200, "only {forms} forms in the corpus");
    }

    /// Bytes looked at for each byte of a text, at most: to find its end, its words, its sub-commands twice and their
    /// words, its modifiers.
    const LOOKS: usize = 8;

    /// Both ways of reading a text that has come: whether it is whole, and what it is.
    fn cost(text: &[u8]) -> usize {
        tally::of(|| {
            let _ = first(text);
            let _ = parse(text);
        })
    }

    #[test]
    fn no_text_costs_more_than_its_length() {
        let repeated: &[(&str, &str, &str)] = &[
            ("", " ", ""),
            ("", "\r\n", "V"),
            ("V", "\t", "x"),
            ("", "x", ""),
            ("G", " x", ""),
            ("G", "     a", ""),
            ("D c f ", "t", ""),
            ("", "&& ", "D"),
            ("U c 1.2.3.4 5 f", " && D", ""),
            ("U c 1.2.3.4 5 f", " && S ttl=5", ""),
            ("U c 1.2.3.4 5 f t", " && L 1.2.3.4 5", ""),
            ("U c 1.2.3.4 5 f && M1:1", " x", ""),
            ("U c 1.2.3.4 5 f && L", "a", " 1.2.3.4 5"),
            ("U c 1.2.3.4 5 f && S ttl=", "0", "5"),
            ("U", "a", " c 1.2.3.4 5 f"),
            ("U", "L{x}", " c 1.2.3.4 5 f"),
            ("U", "L{", " c 1.2.3.4 5 f"),
            ("U", "L[:", " c 1.2.3.4 5 f"),
            ("U", "R1", " c 1.2.3.4 5 f"),
            ("UL", "1", " c 1.2.3.4 5 f"),
            ("Uz", "0", "1 c 1.2.3.4 5 f"),
            ("U", "z20", " c 1.2.3.4 5 f"),
            ("Uc", ",", " c 1.2.3.4 5 f"),
            ("D", "w", " c f"),
            ("R", "s", " c f"),
            ("P", "1", " c p 0 f"),
            ("U c ", "1.", " 5 f"),
            ("U c 1.2.3.4 -", "0", "1 f"),
            ("U c 1.2.3.4 5 f s ", "%20", ""),
            ("U c 1.2.3.4 5 f s ", "%", ""),
            ("VF ", "9", ""),
            ("Q c f t", " ttl", ""),
        ];
        for (before, again, after) in repeated {
            let mut costs = Vec::new();
            for size in [500, 1_000, 2_000, 4_000, 8_000] {
                let middle = again.repeat(size / again.len());
                let text = format!("{before}{middle}{after}");
                let cost = cost(text.as_bytes());
                assert!(
                    cost <= 2 * LOOKS * (text.len() + 8),
                    "{before}{again}…{after}: {cost} for {} bytes",
                    text.len()
                );
                costs.push(cost);
            }
            assert!(costs.iter().all(|cost| *cost > 0), "nothing was counted");
        }
    }

    #[test]
    fn what_is_said_to_a_real_rtpproxy_is_read() {
        let mut read = 0;
        for form in CONVERSATION
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(['#', '[']))
        {
            let text = unescape(form);
            if let Ok(command) = parse(&text) {
                assert_eq!(command.text, trim_end(trim_start(&text)), "{form}");
                read += 1;
            }
        }
        assert!(read > 100, "only {read} forms");
    }

    fn view(text: &str) -> Command<'_> {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn call_id_and_tags_are_found() {
        for (text, to_tag) in [
            ("Uz20 c;x 1.2.3.4 5 f;2", None),
            ("U c;x 1.2.3.4 5 f;2 t;2", Some("t;2")),
            ("U c;x 1.2.3.4 5 f;2 unix:/s tag", None),
            ("U c;x 1.2.3.4 5 f;2 t unix:/s tag", Some("t")),
            ("L c;x 1.2.3.4 5 f;2 t", Some("t")),
            ("D c;x f;2", None),
            ("D c;x f;2 t", Some("t")),
            ("P3 c;x prompt 0 f;2 t", Some("t")),
            ("S c;x f;2 t", Some("t")),
            ("R c;x f;2 t", Some("t")),
            ("N c;x f;2", None),
            ("C c;x target f;2 t", Some("t")),
            ("Qv c;x f;2 t ttl", Some("t")),
        ] {
            let command = view(text);
            assert_eq!(
                (command.call_id, command.from_tag),
                (&b"c;x"[..], &b"f;2"[..]),
                "{text}"
            );
            assert_eq!(command.to_tag, to_tag.map(str::as_bytes), "{text}");
        }
        for text in ["V", "VF 1", "I", "G a b", "X"] {
            let command = view(text);
            assert_eq!(
                (command.call_id, command.from_tag, command.to_tag),
                (&b""[..], &b""[..], None),
                "{text}"
            );
        }
    }

    #[test]
    fn the_notify_pair_is_found() {
        let text = "U c 1.2.3.4 5 f \t unix:/s  a%20b && D";
        let notify = view(text).notify.unwrap();
        assert_eq!((notify.socket, notify.tag), (&b"unix:/s"[..], &b"a%20b"[..]));
        assert_eq!(
            (&text[..notify.before], &text[notify.end..]),
            ("U c 1.2.3.4 5 f", " && D")
        );
        assert_eq!(view("U c 1.2.3.4 5 f t").notify, None);
        assert_eq!(
            view("U c 1.2.3.4 5 f t s n").notify.map(|notify| notify.socket),
            Some(&b"s"[..])
        );
    }

    #[test]
    fn what_else_is_said_is_seen() {
        assert!(view("Uaw c 1.2.3.4 5 f").weak && view("DW c f").weak && !view("U c 1.2.3.4 5 f").weak);
        assert!(view("D c f").ends_session && view("L c 1.2.3.4 5 f && d").ends_session);
        assert!(!view("U c 1.2.3.4 5 f t && L 1.2.3.4 5").ends_session);
        let with_parts = view("U c 1.2.3.4 5 f t && L 1.2.3.4 5 && S ttl=5");
        assert!(with_parts.has_parts && with_parts.parts.starts_with(b"&& L"));
        assert_eq!(with_parts.parts().count(), 2);
        assert_eq!(view("VF 20050322").number, Some(20_050_322));
        for other in ["VF 020050322", "VF abc", "VF +1"] {
            assert_eq!(view(other).number, None, "RTPproxy compares the texts: {other}");
        }
        assert_eq!(view("vf 0").number, Some(0));
        assert_eq!(view("Gv a  b ").names(), b"a  b");
        assert_eq!(view("G").names(), b"");
    }

    #[test]
    fn bounds_hold() {
        let words = |count: usize| format!("G{}", " x".repeat(count - 1));
        assert!(parse(words(WORDS_MAX).as_bytes()).is_ok());
        assert_eq!(parse(words(WORDS_MAX + 1).as_bytes()), Err(SYNTAX));
        let mut text = format!("{:<width$}", "D c f", width = COMMAND_MAX + 100).into_bytes();
        assert_eq!(
            parse(&text).map(|command| command.text.len()),
            Ok(5),
            "white space around it does not count"
        );
        text.push(b't');
        assert_eq!(parse(&text), Err(SYNTAX));
        assert_eq!(parse(b"D c\nf"), Err(SYNTAX), "never two lines");
    }

    /// Prints a command from what was found in it. Where words begin is the text's affair, so it is taken from there.
    fn print(command: &Command<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        // The next of what was found, with what is before it.
        let mut take = |found: &[u8]| {
            let start = found.as_ptr() as usize - command.text.as_ptr() as usize;
            out.extend_from_slice(&command.text[out.len()..start]);
            out.extend_from_slice(found);
        };
        take(command.modifiers);
        if command.verb.shape().from_tag > 0 {
            take(command.call_id);
            take(command.from_tag);
        }
        for found in command
            .to_tag
            .into_iter()
            .chain(command.notify.iter().flat_map(|n| [n.socket, n.tag]))
        {
            take(found);
        }
        for part in command.parts() {
            take(part.first());
        }
        out.extend_from_slice(&command.text[out.len()..]);
        out
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            prop_assert!(cost(&bytes) <= 2 * LOOKS * (bytes.len() + 8));
        }

        /// Bytes that are nearly a command get further into the parser than any bytes.
        #[test]
        fn nothing_like_a_command_panics(
            text in "[ULDPSRNCQIGVXuvz][a-zF6{}\\[\\]0-9.,]{0,6}([ \t\r]{1,2}(&&|[DSLMC]|[a-z0-9.:;%&=/]{1,8})){0,10}",
        ) {
            prop_assert!(cost(text.as_bytes()) <= 2 * LOOKS * (text.len() + 8));
            if let Ok(command) = parse(text.as_bytes()) {
                prop_assert_eq!(command.text, text.as_bytes());
                prop_assert_eq!(print(&command), text.as_bytes());
            }
        }

        #[test]
        fn a_command_is_a_view_of_its_text(
            before in "[ \t\r\n]{0,2}",
            text in "[UuLl][aswn]{0,2} {1,2}c@x 1[.]2[.]3[.]4\t5 f( t)?( && (D|S tos=4|M2:1)){0,3}\
                |[DRNS] c@x \r f( t)?|P[1-9]? c@x p 0 f( t)?|Cs? c@x x f( t)?|Qv? c@x f( t( ttl){0,3})?",
            after in "[ \t\r\n]{0,2}",
        ) {
            let sent = format!("{before}{text}{after}");
            let command = parse(sent.as_bytes()).unwrap();
            prop_assert_eq!(command.text, text.as_bytes());
            prop_assert_eq!((command.call_id, command.from_tag), (&b"c@x"[..], &b"f"[..]));
            prop_assert_eq!(command.to_tag.is_some(), Words::new(text.as_bytes()).any(|word| word == b"t"));
            prop_assert_eq!(command.has_parts, text.contains("&&"));
            prop_assert_eq!(parse(command.text), Ok(command));
        }
    }
}
