//! What the state directory holds, as bytes: a record for each thing that a successor has to know. Pure.
//!
//! ```text
//! file    MAGIC (8) version (2), then records one behind the other
//! record  SYNC (1) length (2) checksum (4) kind (1) fields, as many bytes as the length says, kind among them
//! ```
//!
//! Numbers are big-endian. The checksum is CRC-32 over length, kind and fields. A reader that meets what is no record
//! goes on from the next one that is: damage costs what it has hit. This framing is the same in every version; a
//! record of a kind that is not known is passed over, so that files of an older or newer version are read as far as
//! they can be.
//!
//! A member is named by a fingerprint of its cluster, name and address and not by a number in a table, which would
//! take all its calls along when it is damaged. A binding is 62 bytes long with a call-id of 40.

use core::time::Duration;

/// The first bytes of a file.
const MAGIC: &[u8; 8] = b"rtpcstat";
/// What this program writes.
const VERSION: u16 = 1;
/// Bytes before the first record.
pub const HEADER: usize = MAGIC.len() + 2;
/// Begins a record: what a reader looks for after damage. No byte of UTF-8, so rare in call-ids and tags.
const SYNC: u8 = 0xfe;
/// Sync, length and checksum.
const FRAME: usize = 7;
/// Kind and fields at most. A longer thing is not kept: a command has 64 KiB at most but an ordinary one 300 bytes, and
/// a reader looks this far ahead after damage.
pub const RECORD_MAX: usize = 8 * 1024;

/// A moment of the wall clock, in steps of 100 ms since 1970, in 40 bits. What is later than now is taken for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Moment(u64);

impl Moment {
    const MAX: u64 = (1 << 40) - 1;

    /// That long after 1970 began.
    pub fn from_unix(time: Duration) -> Self {
        Self(u64::try_from(time.as_millis() / 100).map_or(Self::MAX, |steps| steps.min(Self::MAX)))
    }

    /// So much later; stops at the end of its time.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        let later = u128::from(self.0) + time.as_millis() / 100;
        Self(u64::try_from(later).map_or(Self::MAX, |steps| steps.min(Self::MAX)))
    }

    /// The time from `earlier` to here; zero where that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0) * 100)
    }
}

/// A cluster or a member, by what makes it the same one after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Print(pub u64);

impl Print {
    /// The cluster of that name.
    pub fn cluster(name: &str) -> Self {
        Self::of(&[name])
    }

    /// The member of that cluster, by name and address: one that got another address is another RTPproxy.
    pub fn member(cluster: &str, name: &str, address: &str) -> Self {
        Self::of(&[cluster, name, address])
    }

    /// FNV-1a of 64 bits, the same in every build; with 10,000 members two are alike once in 10^11 clusters.
    fn of(parts: &[&str]) -> Self {
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
        Self(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }
}

/// A call that is bound to a member, or was until it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound<'a> {
    /// Who has it.
    pub member: Print,
    /// When it came there.
    pub born: Moment,
    /// When its last command came, or when it ended.
    pub used: Moment,
    /// Whether it has been deleted.
    pub ended: bool,
    /// Its name.
    pub call_id: &'a [u8],
}

/// The sessions of a call that a tag names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tags<'a> {
    /// The call's cluster.
    pub cluster: Print,
    /// The call.
    pub call_id: &'a [u8],
    /// From-tag of the command.
    pub from: &'a [u8],
    /// Its to-tag.
    pub to: Option<&'a [u8]>,
}

/// One thing to know. Of what several tell of, the last one tells the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// Where a call is.
    Bound(Bound<'a>),
    /// A call is nowhere.
    Forgotten {
        /// Its cluster.
        cluster: Print,
        /// The call.
        call_id: &'a [u8],
    },
    /// What a member had before is not there any more: it was restarted, or has left.
    Cut {
        /// The member.
        member: Print,
        /// What was born earlier is gone.
        before: Moment,
    },
    /// A cluster has no calls any more.
    Cleared {
        /// The cluster.
        cluster: Print,
    },
    /// Somebody wishes to be told when the member of a session is lost.
    Wish {
        /// The session.
        session: Tags<'a>,
        /// Who, as it is written in a command; empty where the session's last U wished nothing.
        to: &'a [u8],
        /// What.
        text: &'a [u8],
    },
    /// Nobody wishes to be told of these sessions any more.
    WishTaken {
        /// The sessions.
        session: Tags<'a>,
    },
    /// A delete waits for its member.
    Deferred {
        /// The member.
        member: Print,
        /// When there is nothing left to delete.
        expires: Moment,
        /// The command.
        text: &'a [u8],
    },
    /// A delete waits no longer; without a text, none of the member's does.
    Settled {
        /// The member.
        member: Print,
        /// The command.
        text: Option<&'a [u8]>,
    },
    /// A member has made sessions since its start.
    Created {
        /// The member.
        member: Print,
        /// When it said so first.
        at: Moment,
        /// How many.
        count: u64,
    },
}

const BOUND: u8 = 1;
const ENDED: u8 = 2;
const FORGOTTEN: u8 = 3;
const CUT: u8 = 4;
const CLEARED: u8 = 5;
const WISH: u8 = 6;
const WISH_TAKEN: u8 = 7;
const DEFERRED: u8 = 8;
const SETTLED: u8 = 9;
const SETTLED_ALL: u8 = 10;
const CREATED: u8 = 11;

/// What a file begins with.
pub fn header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (magic, version) = header.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    version.copy_from_slice(&VERSION.to_be_bytes());
    header
}

/// Whether a file begins as ours do, of whatever version. What does not is read all the same.
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER && bytes.starts_with(MAGIC)
}

/// Puts a record behind others; says no to one that is longer than [`RECORD_MAX`], and leaves it out.
#[must_use]
pub fn write(record: &Record<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(&[SYNC, 0, 0, 0, 0, 0, 0]);
    body(record, out);
    let length = out.len() - start - FRAME;
    let Some(frame) = u16::try_from(length)
        .ok()
        .filter(|_| length <= RECORD_MAX)
        .map(u16::to_be_bytes)
    else {
        out.truncate(start);
        return false;
    };
    let sum = checksum(frame, out.get(start + FRAME..).unwrap_or_default());
    if let Some(place) = out.get_mut(start + 1..start + FRAME) {
        let bytes = frame.into_iter().chain(sum.to_be_bytes());
        place
            .iter_mut()
            .zip(bytes)
            .for_each(|(place, byte)| *place = byte);
    }
    true
}

fn checksum(length: [u8; 2], body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length);
    sum.update(body);
    sum.finalize()
}

fn body(record: &Record<'_>, out: &mut Vec<u8>) {
    match *record {
        Record::Bound(bound) => {
            put_kind(out, if bound.ended { ENDED } else { BOUND }, bound.member);
            put_moment(out, bound.used);
            put_number(out, bound.used.0.saturating_sub(bound.born.0));
            out.extend_from_slice(bound.call_id);
        }
        Record::Forgotten { cluster, call_id } => {
            put_kind(out, FORGOTTEN, cluster);
            out.extend_from_slice(call_id);
        }
        Record::Cut { member, before } => {
            put_kind(out, CUT, member);
            put_moment(out, before);
        }
        Record::Cleared { cluster } => put_kind(out, CLEARED, cluster),
        Record::Wish { session, to, text } => {
            put_tags(out, WISH, &session);
            put_text(out, to);
            out.extend_from_slice(text);
        }
        Record::WishTaken { session } => put_tags(out, WISH_TAKEN, &session),
        Record::Deferred {
            member,
            expires,
            text,
        } => {
            put_kind(out, DEFERRED, member);
            put_moment(out, expires);
            out.extend_from_slice(text);
        }
        Record::Settled {
            member,
            text: Some(text),
        } => {
            put_kind(out, SETTLED, member);
            out.extend_from_slice(text);
        }
        Record::Settled { member, text: None } => put_kind(out, SETTLED_ALL, member),
        Record::Created { member, at, count } => {
            put_kind(out, CREATED, member);
            put_moment(out, at);
            put_number(out, count);
        }
    }
}

fn put_kind(out: &mut Vec<u8>, kind: u8, whose: Print) {
    out.push(kind);
    out.extend_from_slice(&whose.0.to_be_bytes());
}

fn put_moment(out: &mut Vec<u8>, moment: Moment) {
    out.extend(moment.0.to_be_bytes().into_iter().skip(3));
}

/// Seven bits a byte, the low ones first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or_default());
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn put_tags(out: &mut Vec<u8>, kind: u8, session: &Tags<'_>) {
    put_kind(out, kind, session.cluster);
    put_text(out, session.call_id);
    put_text(out, session.from);
    out.push(u8::from(session.to.is_some()));
    put_text(out, session.to.unwrap_or_default());
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A record, and how many bytes it takes.
    Record(Record<'a>, usize),
    /// A whole record that says nothing to us, of a newer version, and how many bytes it takes.
    Unknown(usize),
    /// So many bytes are no record.
    Damage(usize),
    /// Nobody can say before there are more bytes.
    More,
}

/// Looks at the beginning of `bytes`; `last` where nothing follows them. It goes forward at each call unless it wants
/// more, and it wants no more of [`RECORD_MAX`] bytes and a frame.
pub fn read(bytes: &[u8], last: bool) -> Found<'_> {
    let next_sync = bytes.iter().position(|byte| *byte == SYNC);
    match next_sync {
        None if bytes.is_empty() => return Found::More,
        None => return Found::Damage(bytes.len()),
        Some(0) => {}
        Some(skip) => return Found::Damage(skip),
    }
    let short = if last { Found::Damage(1) } else { Found::More };
    let Some((&[_, high, low, a, b, c, d], rest)) = bytes.split_first_chunk::<FRAME>() else {
        return short;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > RECORD_MAX {
        return Found::Damage(1);
    }
    let Some(body) = rest.get(..length) else {
        return short;
    };
    if checksum([high, low], body) != u32::from_be_bytes([a, b, c, d]) {
        return Found::Damage(1);
    }
    match parse(body) {
        Some(record) => Found::Record(record, FRAME + length),
        None => Found::Unknown(FRAME + length),
    }
}

fn parse(body: &[u8]) -> Option<Record<'_>> {
    let mut rest = body;
    let kind = take_byte(&mut rest)?;
    let whose = Print(u64::from_be_bytes(take_array(&mut rest)?));
    let record = match kind {
        BOUND | ENDED => {
            let used = take_moment(&mut rest)?;
            let born = Moment(used.0.checked_sub(take_number(&mut rest)?)?);
            Record::Bound(Bound {
                member: whose,
                born,
                used,
                ended: kind == ENDED,
                call_id: core::mem::take(&mut rest),
            })
        }
        FORGOTTEN => Record::Forgotten {
            cluster: whose,
            call_id: core::mem::take(&mut rest),
        },
        CUT => Record::Cut {
            member: whose,
            before: take_moment(&mut rest)?,
        },
        CLEARED => Record::Cleared { cluster: whose },
        WISH => Record::Wish {
            session: take_tags(&mut rest, whose)?,
            to: take_text(&mut rest)?,
            text: core::mem::take(&mut rest),
        },
        WISH_TAKEN => Record::WishTaken {
            session: take_tags(&mut rest, whose)?,
        },
        DEFERRED => Record::Deferred {
            member: whose,
            expires: take_moment(&mut rest)?,
            text: core::mem::take(&mut rest),
        },
        SETTLED => Record::Settled {
            member: whose,
            text: Some(core::mem::take(&mut rest)),
        },
        SETTLED_ALL => Record::Settled {
            member: whose,
            text: None,
        },
        CREATED => Record::Created {
            member: whose,
            at: take_moment(&mut rest)?,
            count: take_number(&mut rest)?,
        },
        _ => return None,
    };
    rest.is_empty().then_some(record)
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, behind) = rest.split_first()?;
    *rest = behind;
    Some(*byte)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*array)
}

fn take_moment(rest: &mut &[u8]) -> Option<Moment> {
    let bytes: [u8; 5] = take_array(rest)?;
    let steps = bytes.iter().fold(0, |steps, byte| steps << 8 | u64::from(*byte));
    Some(Moment(steps))
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    // What has more than 63 bits is no number of ours.
    for shift in (0..63).step_by(7) {
        let byte = take_byte(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (text, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(text)
}

fn take_tags<'a>(rest: &mut &'a [u8], cluster: Print) -> Option<Tags<'a>> {
    let (call_id, from) = (take_text(rest)?, take_text(rest)?);
    let has_to = take_byte(rest)?;
    let to = take_text(rest)?;
    Some(Tags {
        cluster,
        call_id,
        from,
        to: (has_to == 1).then_some(to),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALL: &[u8] = b"a84b4c76e66710-3848276298220188511@10.0.";

    fn session() -> Tags<'static> {
        Tags {
            cluster: Print::cluster("C1"),
            call_id: CALL,
            from: b"from;1",
            to: Some(b"to;1"),
        }
    }

    /// One of each kind.
    fn each_kind() -> Vec<Record<'static>> {
        let member = Print::member("C1", "RTPPROXY1", "udp:10.0.0.1:22222");
        let bound = Bound {
            member,
            born: Moment(17_000_000_000),
            used: Moment(17_000_000_300),
            ended: false,
            call_id: CALL,
        };
        let cluster = Print::cluster("C1");
        vec![
            Record::Bound(bound),
            Record::Bound(Bound { ended: true, ..bound }),
            Record::Forgotten {
                cluster,
                call_id: CALL,
            },
            Record::Cut {
                member,
                before: Moment(5),
            },
            Record::Cleared { cluster },
            Record::Wish {
                session: session(),
                to: b"unix:/run/a",
                text: b"tag",
            },
            Record::WishTaken {
                session: Tags {
                    to: None,
                    ..session()
                },
            },
            Record::Deferred {
                member,
                expires: Moment(9),
                text: b"D c f t",
            },
            Record::Settled {
                member,
                text: Some(b"D c f t"),
            },
            Record::Settled { member, text: None },
            Record::Created {
                member,
                at: Moment(7),
                count: 300,
            },
        ]
    }

    fn written(records: &[Record<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records {
            assert!(write(record, &mut bytes));
        }
        bytes
    }

    /// All records of some bytes, and how many pieces of them were none.
    fn all(bytes: &[u8]) -> (Vec<Record<'_>>, usize) {
        let (mut records, mut damage, mut rest) = (Vec::new(), 0, bytes);
        while !rest.is_empty() {
            let length = match read(rest, true) {
                Found::Record(record, length) => {
                    records.push(record);
                    length
                }
                Found::Unknown(length) | Found::Damage(length) => {
                    damage += 1;
                    length
                }
                Found::More => panic!("there is no more"),
            };
            assert!(length > 0);
            rest = &rest[length..];
        }
        (records, damage)
    }

    #[test]
    fn what_is_written_is_read() {
        let records = each_kind();
        assert_eq!(all(&written(&records)), (records, 0));
    }

    #[test]
    fn a_binding_takes_less_than_sixty_four_bytes() {
        let bind = Bound {
            member: Print(u64::MAX),
            born: Moment(Moment::MAX),
            used: Moment(Moment::MAX),
            ended: false,
            call_id: CALL,
        };
        assert_eq!((CALL.len(), written(&[Record::Bound(bind)]).len()), (40, 62));
    }

    #[test]
    fn a_flipped_bit_costs_its_record_alone() {
        let records = each_kind();
        let bytes = written(&records);
        let mut whose = Vec::new();
        for (place, record) in records.iter().enumerate() {
            whose.resize(whose.len() + written(&[*record]).len(), place);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (found, damage) = all(&flipped);
            let mut left = records.clone();
            left.remove(whose[bit / 8]);
            assert_eq!(found, left, "bit {bit}");
            assert!(damage > 0);
        }
    }

    #[test]
    fn a_file_that_is_cut_short_has_what_comes_before() {
        let records = each_kind();
        let bytes = written(&records);
        for length in 0..bytes.len() {
            let (found, _) = all(&bytes[..length]);
            assert_eq!(found, records[..found.len()]);
            let next = written(&records[..=found.len()]).len();
            assert!(length < next, "a whole record is found");
        }
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let mut bytes = written(&each_kind());
        let before = bytes.clone();
        let call_id = &[b'a'; RECORD_MAX];
        let cluster = Print(1);
        assert!(!write(&Record::Forgotten { cluster, call_id }, &mut bytes));
        assert_eq!(bytes, before);
    }

    #[test]
    fn a_kind_of_a_newer_version_is_passed_over() {
        let mut bytes = vec![SYNC, 0, 2, 0, 0, 0, 0, 200, 1];
        bytes[3..7].copy_from_slice(&checksum([0, 2], &[200, 1]).to_be_bytes());
        assert_eq!(read(&bytes, false), Found::Unknown(9));
        let next = each_kind();
        bytes.extend(written(&next));
        assert_eq!(all(&bytes), (next, 1));
    }

    #[test]
    fn the_same_name_at_another_address_is_another_member() {
        let member = Print::member("C", "A", "udp:10.0.0.1:1");
        assert_eq!(member, Print::member("C", "A", "udp:10.0.0.1:1"));
        for other in [
            ("C", "A", "udp:10.0.0.2:1"),
            ("C", "B", "udp:10.0.0.1:1"),
            ("D", "A", "udp:10.0.0.1:1"),
        ] {
            assert_ne!(member, Print::member(other.0, other.1, other.2));
        }
        // Files outlive the program that wrote them.
        assert_eq!(Print::cluster("C1"), Print(0x0c8f_1319_ab27_eedb));
    }

    proptest! {
        /// Garbage is never more than damage, and good records behind it are found.
        #[test]
        fn a_record_behind_garbage_is_found(garbage in proptest::collection::vec(prop_oneof![Just(SYNC), any::<u8>()], 0..200)) {
            let records = each_kind();
            let mut bytes = garbage.clone();
            bytes.extend(written(&records));
            let (found, _) = all(&bytes);
            prop_assert!(found.ends_with(&records));
        }

        /// A binding comes back as it was, with whatever numbers.
        #[test]
        fn any_binding_comes_back(
            print: u64, born in 0..=Moment::MAX, age in 0..1_u64 << 39, ended: bool,
            call_id in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let used = Moment((born + age).min(Moment::MAX));
            let bound = Bound { member: Print(print), born: Moment(born), used, ended, call_id: &call_id };
            let bytes = written(&[Record::Bound(bound)]);
            prop_assert_eq!(all(&bytes), (vec![Record::Bound(bound)], 0));
        }
    }
}
