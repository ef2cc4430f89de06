//! One command's life: what it is for, to whom it has been sent, what came back, when to do something again.
//! Pure. The decisions are taken in `jobs/`; this is what they are taken on.

use core::ops::Range;
use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant;

use super::event::Why;
use super::rewrite::Origin;
use super::session::{MemberId, Tick};
use crate::protocol::command::{self, Command, Verb};
use crate::protocol::cookie::Cookie;

/// A transaction's place and which of those that have had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Place in the slab.
    pub index: u32,
    /// Counts the uses of all places.
    pub serial: u64,
}

impl Slot {
    /// The part of the serial that a cookie carries.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    pub fn short_serial(self) -> u32 {
        self.serial as u32
    }
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// The place is free.
    Idle,
    /// To the home of its call, whose reply is the reply.
    Direct,
    /// A new session: the first positive answer of any attempt wins.
    Create,
    /// `Q` to all members, to find the home of a call for a U.
    Seek,
    /// The command itself to all members; one may have the call.
    Ask,
    /// Its call is looked up among those that other dispatchers have bound.
    LookUp,
    /// Waits for the answer that another command of the same call is looking for.
    Wait,
    /// `VF` to those members that have not said yet.
    Capability,
    /// `G` to all members.
    Statistics,
    /// `X` to all members.
    DeleteAll,
    /// A delete that nobody waits for. When unanswered, it is kept for the member.
    Quiet,
    /// The losers of a new session: a positive answer that comes late is undone.
    Late,
}

impl Job {
    /// Whether the command may reach a member twice without harm, so that a stream link may send it again when
    /// a connection breaks before a byte of the reply. A new session may too: what is created twice is undone.
    pub fn may_repeat(self, verb: Verb) -> bool {
        // A second play, record or copy starts anew; a second delete only says E50.
        !matches!(verb, Verb::Play | Verb::Record | Verb::Copy) || self == Self::Seek
    }
}

/// The reply to a transaction's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replied {
    /// Its number in the outbox.
    pub reply: usize,
    /// Whose word it is; `None` for one of our own.
    pub by: Option<MemberId>,
}

/// How one exchange with one member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// No answer yet.
    Waiting,
    /// Answered, positively or not.
    Answered,
    /// The member refused it, went offline or stayed silent for as long as it may.
    Failed,
}

/// One command sent to one member.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// To whom.
    pub member: MemberId,
    /// Its cookie's secret part.
    pub nonce: u64,
    /// First sent.
    pub sent: Instant,
    /// When it is sent again; `None` over a transport that loses nothing.
    pub resend: Option<Instant>,
    /// The wait after that.
    pub pause: Duration,
    /// Whether it has been sent again: its delay then says nothing.
    pub resent: bool,
    /// When its member has had its time: it is suspected, and a new session tried at the next one as well.
    pub patience: Option<Instant>,
    /// How it stands.
    pub fate: Fate,
    /// Why it went there.
    pub why: Why,
    /// Whether it only asked, by `Q`, who has the call: the member has not been tried as a home by it.
    pub asked: bool,
}

/// What is needed of a command on the way of its reply, without parsing it again.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its letter.
    pub verb: Verb,
    /// Where its call-id is in its text.
    pub call_id: Range<u16>,
    /// The session table's hash of the call-id.
    pub hash: u64,
    /// Whether it ends the call.
    pub ends: bool,
}

impl Key {
    /// The key of `command`, whose text starts where the transaction's text will.
    pub fn new(command: &Command<'_>, hash: u64) -> Self {
        // Both are slices of the same text, at most 8,191 bytes long.
        let start = (command.call_id.as_ptr() as usize).wrapping_sub(command.text.as_ptr() as usize);
        let start = u16::try_from(start).unwrap_or(0);
        let length = u16::try_from(command.call_id.len()).unwrap_or(0);
        Self {
            verb: command.verb,
            call_id: start..start.saturating_add(length),
            hash,
            ends: command.ends_session,
        }
    }
}

/// A command in flight.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Transaction<C> {
    /// Where it is.
    pub slot: Slot,
    /// What it is for.
    pub job: Job,
    /// Who waits for it; `None` for our own commands.
    pub client: Option<C>,
    /// Who that is, in words, if somebody followed when the command came.
    pub who: String,
    /// The reply that the client has got just now.
    pub replied: Option<Replied>,
    /// The command as the client sent it, less its line end.
    pub text: Vec<u8>,
    /// What it is, in short.
    pub key: Key,
    /// Where its client is.
    pub origin: Origin,
    /// Whether its text has something that may have to be written in another way for a member.
    pub rewritten: bool,
    /// What the relay is told of the call's socket, where a sub-command has a tag for it and the command names none.
    pub suffix: Vec<u8>,
    /// When the client's command came.
    pub started: Instant,
    /// When the client gets an answer, whatever happens.
    pub give_up: Instant,
    /// When its alarm is set.
    pub alarm: Option<Instant>,
    /// To whom it has been sent.
    pub exchanges: Vec<Exchange>,
    /// Attempts of a new session that were waited for.
    pub attempts: u32,
    /// The member, away now, at which the call was before this command moved it, and since when.
    pub moved_from: Option<(MemberId, Tick)>,
    /// Who is asked for the home of the call in further steps, the next ones first.
    pub unasked: VecDeque<MemberId>,
    /// Steps of that question so far.
    pub steps: u32,
    /// When the next step is due.
    pub step: Option<Instant>,
    /// Commands of the same call that wait for what this one finds.
    pub followers: Vec<Slot>,
    /// The best answer that is not positive.
    pub verdict: Vec<u8>,
    /// Whether the answers that are not positive differ.
    pub mixed: bool,
    /// Whether a delete came from the list of its member, whose next one is to follow.
    pub chained: bool,
    /// Whether a delete of this new session came before its answer: whoever makes it is to end it.
    pub deleted: bool,
}

impl<C> Transaction<C> {
    /// A free place.
    pub fn idle(now: Instant) -> Self {
        Self {
            slot: Slot { index: 0, serial: 0 },
            job: Job::Idle,
            client: None,
            who: String::new(),
            replied: None,
            text: Vec::new(),
            key: Key {
                verb: Verb::Version,
                call_id: 0..0,
                hash: 0,
                ends: false,
            },
            origin: Origin::Unix,
            rewritten: false,
            suffix: Vec::new(),
            started: now,
            give_up: now,
            alarm: None,
            exchanges: Vec::new(),
            attempts: 0,
            moved_from: None,
            unasked: VecDeque::new(),
            steps: 0,
            step: None,
            followers: Vec::new(),
            verdict: Vec::new(),
            mixed: false,
            chained: false,
            deleted: false,
        }
    }

    /// Takes the place for a command that came at `now`.
    pub fn open(&mut self, slot: Slot, now: Instant) {
        self.slot = slot;
        self.started = now;
        self.give_up = now;
    }

    /// Whether it is in use.
    pub fn is_open(&self) -> bool {
        self.job != Job::Idle
    }

    /// Frees the place and keeps its buffers, unless they have grown large.
    pub fn reset(&mut self) {
        self.slot.serial = 0;
        self.job = Job::Idle;
        self.client = None;
        self.who.clear();
        self.replied = None;
        self.alarm = None;
        self.attempts = 0;
        self.moved_from = None;
        self.rewritten = false;
        self.suffix.clear();
        self.mixed = false;
        self.chained = false;
        self.deleted = false;
        self.text.clear();
        self.text.shrink_to(512);
        self.exchanges.clear();
        self.exchanges.shrink_to(8);
        self.unasked.clear();
        self.steps = 0;
        self.step = None;
        self.followers.clear();
        self.followers.shrink_to(8);
        self.verdict.clear();
        self.verdict.shrink_to(64);
    }

    /// Its call-id.
    pub fn call_id(&self) -> &[u8] {
        let range = usize::from(self.key.call_id.start)..usize::from(self.key.call_id.end);
        self.text.get(range).unwrap_or_default()
    }

    /// The cookie of one of its exchanges.
    pub fn cookie(&self, place: usize) -> Option<Cookie> {
        Some(Cookie {
            slot: self.slot.index,
            serial: self.slot.short_serial(),
            index: u16::try_from(place).ok()?,
            nonce: self.exchanges.get(place)?.nonce,
        })
    }

    /// Whether somebody has still to answer.
    pub fn is_waiting(&self) -> bool {
        self.exchanges
            .iter()
            .any(|exchange| exchange.fate == Fate::Waiting)
    }

    /// Whether `member` has been tried as the home of the call.
    pub fn has_tried(&self, member: MemberId) -> bool {
        self.exchanges
            .iter()
            .any(|exchange| exchange.member == member && !exchange.asked)
    }

    /// Whether it makes a new stream: a U without the other side's tag.
    pub fn makes_a_stream(&self) -> bool {
        let command = command::parse(&self.text);
        self.key.verb == Verb::Update
            && !self.key.ends
            && command.is_ok_and(|command| command.to_tag.is_none())
    }

    /// Whether `member` was asked for the call and has not said: it may have had it before this command came.
    pub fn may_have_been_at(&self, member: MemberId) -> bool {
        let mut exchanges = self.exchanges.iter();
        exchanges
            .any(|exchange| exchange.member == member && exchange.asked && exchange.fate != Fate::Answered)
    }

    /// The letter of what is sent to members, which is that of the command unless they are asked for its home.
    pub fn asks(&self) -> Verb {
        if self.job == Job::Seek {
            Verb::Query
        } else {
            self.key.verb
        }
    }

    /// The earliest moment at which something is to be done.
    pub fn due(&self) -> Instant {
        let mut due = self.step.map_or(self.give_up, |step| step.min(self.give_up));
        for exchange in self
            .exchanges
            .iter()
            .filter(|exchange| exchange.fate == Fate::Waiting)
        {
            for moment in [exchange.resend, exchange.patience].into_iter().flatten() {
                due = due.min(moment);
            }
        }
        due
    }
}
