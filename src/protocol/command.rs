//! One command of a SIP server: its bytes as a view that borrows from them, or the error that RTPproxy would give.
//! Pure.
//!
//! A command is judged as far as RTPproxy judges it before it looks for a session, with the same code where two
//! things are wrong at once. So one bad client troubles no member, and what is accepted may go to a member byte
//! for byte: no line end is inside, so that a member never receives two commands.

use core::fmt;
use core::net::Ipv6Addr;

use super::parts::{AND, PARTS_MAX, Part, Parts, Standing};
use super::{Words, decimal, is_separator, modifiers, trim_end, trim_start};

/// Longest command, its cookie and its line end not counted, in bytes. RTPproxy reads into 8 KiB, a NUL behind.
pub const COMMAND_MAX: usize = 8191;
/// Most words of a command, and of each sub-command.
pub const WORDS_MAX: usize = 23;

/// The number of an error: RTPproxy's own, or one of [`super::reply::own`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u16);

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{}", self.0)
    }
}

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

/// What a command asks for, by its letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `U`: creates a session or changes one.
    Update,
    /// `L`: looks a session up and completes it.
    Lookup,
    /// `D`
    Delete,
    /// `P`
    Play,
    /// `S`
    StopPlay,
    /// `R`
    Record,
    /// `N`
    StopRecord,
    /// `C`
    Copy,
    /// `Q`
    Query,
    /// `I`
    Info,
    /// `G`
    Statistics,
    /// `V`
    Version,
    /// `VF`, which asks for one capability.
    Capability,
    /// `X`
    DeleteAll,
}

/// Which words a command has.
struct Shape {
    min: usize,
    max: usize,
    /// The word that is the from-tag; 0 when there is no call-id either, which is the word 1 otherwise.
    from_tag: usize,
    modifiers: bool,
    parts: bool,
}

impl Verb {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 14] = [
        Self::Update,
        Self::Lookup,
        Self::Delete,
        Self::Play,
        Self::StopPlay,
        Self::Record,
        Self::StopRecord,
        Self::Copy,
        Self::Query,
        Self::Info,
        Self::Statistics,
        Self::Version,
        Self::Capability,
        Self::DeleteAll,
    ];

    /// Its letter; `F` for `VF`, which no other command has.
    pub const fn letter(self) -> char {
        match self {
            Self::Update => 'U',
            Self::Lookup => 'L',
            Self::Delete => 'D',
            Self::Play => 'P',
            Self::StopPlay => 'S',
            Self::Record => 'R',
            Self::StopRecord => 'N',
            Self::Copy => 'C',
            Self::Query => 'Q',
            Self::Info => 'I',
            Self::Statistics => 'G',
            Self::Version => 'V',
            Self::Capability => 'F',
            Self::DeleteAll => 'X',
        }
    }

    /// Splits the first word of a command into the verb and its modifiers.
    fn split(word: &[u8]) -> Option<(Self, &[u8])> {
        let (letter, modifiers) = word.split_first()?;
        let verb = match letter.to_ascii_uppercase() {
            b'U' => Self::Update,
            b'L' => Self::Lookup,
            b'D' => Self::Delete,
            b'P' => Self::Play,
            b'S' => Self::StopPlay,
            b'R' => Self::Record,
            b'N' => Self::StopRecord,
            b'C' => Self::Copy,
            b'Q' => Self::Query,
            b'I' => Self::Info,
            b'G' => Self::Statistics,
            b'V' => match modifiers.split_first() {
                Some((b'F' | b'f', behind)) => return Some((Self::Capability, behind)),
                _ => Self::Version,
            },
            b'X' => Self::DeleteAll,
            _ => return None,
        };
        Some((verb, modifiers))
    }

    const fn shape(self) -> Shape {
        let (min, max, from_tag) = match self {
            Self::Update => (5, 8, 4),
            Self::Lookup | Self::Play => (5, 6, 4),
            Self::Copy => (4, 5, 3),
            Self::Delete | Self::Record | Self::StopRecord | Self::StopPlay => (3, 4, 2),
            // Four words and the names of eleven counters.
            Self::Query => (3, 15, 2),
            Self::Info | Self::Version | Self::DeleteAll => (1, 1, 0),
            Self::Capability => (2, 2, 0),
            Self::Statistics => (1, WORDS_MAX, 0),
        };
        let modifiers = !matches!(self, Self::StopPlay | Self::Version | Self::Capability | Self::DeleteAll);
        let parts = matches!(self, Self::Update | Self::Lookup | Self::Query);
        Shape { min, max, from_tag, modifiers, parts }
    }
}

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
        let first = self.text.iter().position(|byte| is_separator(*byte)).unwrap_or(self.text.len());
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
    const fn final_(code: ErrorCode) -> Self {
        Self { code, unfinished: false }
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
        // Every byte is looked at, with no early end: the compiler makes vector code of it.
        let odd = text.iter().fold(false, |odd, byte| odd | (*byte == 0) | (*byte == b'\n'));
        if odd || text.len() > COMMAND_MAX {
            return Err(Fault::final_(SYNTAX));
        }
        let mut scan = Self { words: [&[]; 8], ends: [0; 8], count: 0, parts: &[] };
        let mut words = Words::new(text);
        while let Some(word) = words.next() {
            let end = text.len() - words.left();
            if word == AND {
                scan.parts = text.get(end - AND.len()..).unwrap_or_default();
                break;
            }
            if scan.count == WORDS_MAX {
                return Err(Fault::final_(SYNTAX));
            }
            if let (Some(place), Some(at)) = (scan.words.get_mut(scan.count), scan.ends.get_mut(scan.count)) {
                (*place, *at) = (word, end);
            }
            scan.count += 1;
        }
        scan.check_parts()?;
        if scan.count == 0 {
            return Err(Fault { code: SYNTAX, unfinished: text.is_empty() });
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
                    return Err(Fault::final_(SYNTAX));
                }
                count = 0;
            } else if count == WORDS_MAX {
                return Err(Fault::final_(SYNTAX));
            } else {
                count += 1;
            }
        }
        if count > 0 {
            return Ok(());
        }
        let takes_parts = Verb::split(self.word(0)).is_some_and(|(verb, _)| verb.shape().parts);
        Err(Fault { code: SYNTAX, unfinished: takes_parts && self.count > 0 })
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
    let Some((verb, modifiers)) = Verb::split(scan.word(0)) else { return Err(Fault::final_(UNKNOWN)) };
    let shape = verb.shape();
    let has_parts = !scan.parts.is_empty();
    if scan.count < shape.min {
        // A first word that stands alone may go on with modifiers.
        let sound = scan.count == 1 || modifiers::check(verb, modifiers).is_ok();
        return Err(Fault { code: WORDS, unfinished: sound && !has_parts });
    }
    if scan.count > shape.max {
        return Err(Fault::final_(WORDS));
    }
    if !shape.modifiers && !modifiers.is_empty() {
        return Err(Fault::final_(MODIFIERS));
    }
    if !shape.parts && has_parts {
        return Err(Fault::final_(PARTS));
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
    let said = modifiers::check(verb, modifiers).map_err(Fault::final_)?;
    command.weak = said.weak;
    if matches!(verb, Verb::Update | Verb::Lookup) && address_is_wrong(scan.word(2), scan.word(3), said.ipv6) {
        return Err(Fault::final_(ADDRESS));
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
    let Some(socket) = scan.count.checked_sub(2).filter(|socket| *socket >= 5) else { return Ok(()) };
    if socket == 5 {
        command.to_tag = None;
    }
    let tag = scan.word(socket + 1);
    if let Err(cut) = escapes_are_sound(tag) {
        // With seven words, an eighth would make the tag a socket.
        let unfinished = command.parts.is_empty() && (cut || socket == 5);
        return Err(Fault { code: NOTIFY_TAG, unfinished });
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
    let mut rest = word;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let behind = rest.get(at + 1..).unwrap_or_default();
        let digits = behind.iter().take(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
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
            Standing::Short => return Err(Fault { code: PARTS, unfinished: is_last }),
            Standing::Wrong => return Err(Fault::final_(PARTS)),
        }
    }
    Ok(())
}

/// Whether a media address is one that RTPproxy refuses (E37). What is too short or too long for an address is
/// not looked at there, and neither is it here; service names in place of a port depend on the member's system.
pub(crate) fn address_is_wrong(address: &[u8], port: &[u8], ipv6: bool) -> bool {
    let lengths = if ipv6 { 2..=45 } else { 7..=15 };
    // A program that has RTPproxy built in may name a queue of its own in place of an address.
    if !lengths.contains(&address.len()) || address.starts_with(b"RTQ:") {
        return false;
    }
    let sound = if ipv6 { is_ipv6(address) } else { is_ipv4(address) };
    !sound || port.starts_with(b"-")
}

fn is_ipv6(address: &[u8]) -> bool {
    // A zone behind `%` is a name of the member's own.
    let zone = address.iter().position(|byte| *byte == b'%').unwrap_or(address.len());
    let address = address.get(..zone).unwrap_or_default();
    str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Whether inet_aton(3) takes it: one to four numbers, decimal, octal or hexadecimal; the last fills the rest.
fn is_ipv4(address: &[u8]) -> bool {
    let mut left = 4_u32;
    let mut last = 0_u64;
    for number in address.split(|byte| *byte == b'.') {
        if left == 0 || last > 0xff {
            return false;
        }
        let hexadecimal = number.strip_prefix(b"0x").or(number.strip_prefix(b"0X"));
        let (digits, base) = match (hexadecimal, number) {
            (Some(digits), _) => (digits, 16),
            (None, [b'0', _, ..]) => (number, 8),
            (None, _) => (number, 10),
        };
        let value = str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
        let Some(value) = value.and_then(|text| u64::from_str_radix(text, base).ok()) else { return false };
        last = value;
        left -= 1;
    }
    // The last number fills what the others have left.
    last < 1_u64 << (8 * (left + 1))
}
