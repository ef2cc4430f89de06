//! What the dispatcher wants done, as values: it decides under a lock, and the rim carries out afterwards,
//! when the lock is free. One box is reused for many events, so that an event allocates nothing. Pure.

use core::ops::Range;

use super::event::Traced;
use super::pending::Slot;
use super::rewrite::Notice;
use super::session::MemberId;
use crate::config::model::Name;
use crate::protocol::cookie::Cookie;

/// One command to one member: `COOKIE SP COMMAND LF`. A datagram goes without the line end, a stream without
/// the cookie; both are slices of the same bytes.
#[derive(Debug)]
pub struct Send<L> {
    /// The member's link.
    pub link: L,
    /// The member.
    pub member: MemberId,
    /// Names the exchange; its reply comes back with it.
    pub cookie: Cookie,
    /// Whether it may be sent again on a fresh connection when the first broke before a byte of its reply.
    pub again: bool,
    text: Range<usize>,
}

/// One reply to a client.
#[derive(Debug)]
struct Reply<C> {
    client: C,
    text: Range<usize>,
    /// The command came out badly.
    kept: Option<Box<Traced>>,
}

/// A call that is to be looked up among those that other dispatchers have bound.
#[derive(Debug, PartialEq, Eq)]
pub struct LookUp {
    /// Who wants to know.
    pub slot: Slot,
    /// The call.
    pub call_id: Box<[u8]>,
}

/// Something that an operator may want to read in the log; the rim writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The session table is full: new calls are served unbound.
    TableFull {
        /// How many calls since the last such note.
        calls: u64,
    },
    /// Too many commands in flight: some were refused.
    Overloaded {
        /// How many since the last such note.
        commands: u64,
    },
    /// Two members have the same call.
    TwoHomes {
        /// The one that it is bound to.
        bound: Name,
        /// The other one.
        also: Name,
        /// How many such calls since the last such note.
        calls: u64,
    },
    /// A member's reply could be no reply to its command.
    Garbage {
        /// The member.
        member: Name,
        /// Its beginning.
        excerpt: Vec<u8>,
        /// How many since the last such note.
        replies: u64,
    },
    /// No more room for what is to be told when a member is lost.
    WishesFull {
        /// Sessions of which nothing will be told, since the last such note.
        sessions: u64,
    },
    /// A member has been restarted while nobody watched: the calls that a predecessor knew there are forgotten.
    Restarted {
        /// The member.
        member: Name,
    },
    /// No more room for deletes that wait for a member: the oldest was dropped.
    DeletesDropped {
        /// The member.
        member: Name,
        /// How many since the last such note.
        deletes: u64,
    },
}

/// Work for the rim, in the order in which it is to be done: replies first, since somebody waits for them.
#[derive(Debug)]
pub struct Outbox<C, L> {
    bytes: Vec<u8>,
    sends: Vec<Send<L>>,
    replies: Vec<Reply<C>>,
    /// Whether somebody follows calls, so that [`Outbox::traced`] is filled. Set by the rim.
    pub tracing: bool,
    /// Who sends the command that is decided next; looked at while somebody follows. Set by the rim.
    pub who: String,
    /// For who follows calls; when they happened is for the rim to say.
    pub traced: Vec<Traced>,
    /// Clients that get no reply: their connection is closed, their datagram dropped.
    pub dropped: Vec<C>,
    /// Members that should be probed at once, since they are silent to commands.
    pub suspects: Vec<MemberId>,
    /// Members whose socket refused a command.
    pub refused: Vec<MemberId>,
    /// Disconnect notifications in a lost member's place.
    pub notices: Vec<Notice>,
    /// Calls to be looked up.
    pub look_ups: Vec<LookUp>,
    /// For the log.
    pub notes: Vec<Note>,
}

impl<C, L> Default for Outbox<C, L> {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(1024),
            sends: Vec::new(),
            replies: Vec::new(),
            tracing: false,
            who: String::new(),
            traced: Vec::new(),
            dropped: Vec::new(),
            suspects: Vec::new(),
            refused: Vec::new(),
            notices: Vec::new(),
            look_ups: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl<C, L> Outbox<C, L> {
    /// A reply to a client: what `write` appends, and a line end. Gives its number.
    pub fn reply(&mut self, client: C, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.bytes.push(b'\n');
        self.replies.push(Reply {
            client,
            text: start..self.bytes.len(),
            kept: None,
        });
        self.replies.len() - 1
    }

    /// The reply of that number, less its line end.
    pub fn reply_text(&self, reply: usize) -> &[u8] {
        let text = self.replies.get(reply).map(|reply| reply.text.clone());
        let text = text.and_then(|text| self.bytes.get(text)).unwrap_or_default();
        text.strip_suffix(b"\n").unwrap_or(text)
    }

    /// The command that this reply answers came out badly: it is to be kept.
    pub fn keep(&mut self, reply: usize, answer: Traced) {
        if let Some(reply) = self.replies.get_mut(reply) {
            reply.kept = Some(Box::new(answer));
        }
    }

    /// The last command that was put in, less cookie and line end.
    pub fn last_sent(&self) -> &[u8] {
        let text = self.sends.last().map(|send| send.text.clone());
        let text = text.and_then(|text| self.bytes.get(text)).unwrap_or_default();
        let text = text.get(Cookie::LEN + 1..).unwrap_or_default();
        text.strip_suffix(b"\n").unwrap_or(text)
    }

    /// A command to a member: its cookie, what `write` appends, and a line end.
    pub fn send(
        &mut self,
        link: L,
        member: MemberId,
        cookie: Cookie,
        again: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.bytes.len();
        cookie.write(&mut self.bytes);
        self.bytes.push(b' ');
        write(&mut self.bytes);
        self.bytes.push(b'\n');
        self.sends.push(Send {
            link,
            member,
            cookie,
            again,
            text: start..self.bytes.len(),
        });
    }

    /// Takes the replies out: each goes to `deliver` with its bytes, line end and all, and with what is to be kept of it.
    pub fn drain_replies(&mut self, mut deliver: impl FnMut(C, &[u8], Option<Box<Traced>>)) {
        for Reply { client, text, kept } in self.replies.drain(..) {
            deliver(client, self.bytes.get(text).unwrap_or_default(), kept);
        }
    }

    /// Takes the commands out: each goes to `deliver` with `COOKIE SP COMMAND LF`.
    pub fn drain_sends(&mut self, mut deliver: impl FnMut(Send<L>, &[u8])) {
        for send in self.sends.drain(..) {
            let text = self.bytes.get(send.text.clone()).unwrap_or_default();
            deliver(send, text);
        }
    }

    /// Forgets the bytes of what has been taken out. Call when both drains are over.
    pub fn reset(&mut self) {
        self.bytes.clear();
        // One huge reply must not hold its memory for ever.
        self.bytes.shrink_to(64 * 1024);
    }

    /// Whether there is something for the health thread or the log.
    pub fn has_news(&self) -> bool {
        !(self.suspects.is_empty() && self.refused.is_empty() && self.notes.is_empty())
    }
}
