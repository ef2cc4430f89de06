//! The replies of one kept connection: commands are answered in the order in which they came, whatever the order in
//! which members answer. Pure: what sends bytes comes in.
//!
//! What can go out goes out in one write: a reply and those behind it that were early. What the connection does not
//! take stays, up to [`REST_MAX`]; until that is gone, and while [`IN_FLIGHT_MAX`] commands are unanswered, no
//! further command is taken.

use std::collections::VecDeque;

/// Commands of one connection that are taken and not answered. With replies of 255 bytes, the longest that SIP
/// servers read, all of them together fit into [`REST_MAX`].
pub const IN_FLIGHT_MAX: u64 = 256;
/// A connection that had too many in flight goes on with so many.
const IN_FLIGHT_LOW: u64 = IN_FLIGHT_MAX / 2;
/// Bytes of replies that a connection does not take; with more it is closed.
pub const REST_MAX: usize = 64 * 1024;

/// Whether a command may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Its reply is the one of this number.
    Number(u64),
    /// Not now; [`After::Resume`] tells when.
    Stalled,
    /// No further command is taken.
    Over,
}

/// What is to be done after replies went out or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Done,
    /// The connection has not taken all: [`Replies::flush`] when it takes more.
    Rest,
    /// Whoever found it stalled may take commands again.
    Resume,
    /// Its last reply is out.
    Over,
    /// It failed, or took too little for too long.
    Broken,
}

/// A reply whose turn has not come.
#[derive(Debug)]
enum Reply {
    Awaited,
    Text(Box<[u8]>),
    /// There is none: the connection ends here.
    End,
}

/// The replies of one connection.
#[derive(Debug, Default)]
pub struct Replies {
    /// Number of the next command.
    taken: u64,
    /// Number of the next reply.
    next: u64,
    /// Replies from `next` on, as far as any has come.
    early: VecDeque<Reply>,
    /// What the connection has not taken.
    rest: Vec<u8>,
    stalled: bool,
    /// No command is taken any more.
    over: bool,
    /// The last reply is among `rest`.
    ends: bool,
}

impl Replies {
    /// A command has come.
    pub fn take(&mut self) -> Take {
        if self.over {
            return Take::Over;
        }
        if self.taken - self.next >= IN_FLIGHT_MAX || !self.rest.is_empty() {
            self.stalled = true;
            return Take::Stalled;
        }
        self.taken += 1;
        Take::Number(self.taken - 1)
    }

    /// The number of a last reply: it is ours, and the connection ends behind it.
    pub fn take_last(&mut self) -> u64 {
        let number = self.taken;
        self.taken += 2;
        self.over = true;
        number
    }

    /// Whether somebody found it [`Take::Stalled`] and was not told to resume.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether no further command will be taken.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// A command has its reply. `send` says how many bytes the connection takes, or that it has failed.
    pub fn reply(&mut self, number: u64, text: &[u8], send: impl FnMut(&[u8]) -> Result<usize, ()>) -> After {
        if self.next != number {
            self.put(number, Reply::Text(text.into()));
            return After::Done;
        }
        let alone = self.rest.is_empty() && matches!(self.early.get(1), None | Some(Reply::Awaited));
        if !alone {
            self.put(number, Reply::Text(text.into()));
            return self.advance(send);
        }
        self.next += 1;
        self.early.pop_front();
        self.write(text, send)
    }

    /// A command gets no reply: the connection ends in its place.
    pub fn end(&mut self, number: u64, send: impl FnMut(&[u8]) -> Result<usize, ()>) -> After {
        self.over = true;
        self.put(number, Reply::End);
        self.advance(send)
    }

    /// The connection may take more.
    pub fn flush(&mut self, mut send: impl FnMut(&[u8]) -> Result<usize, ()>) -> After {
        if self.rest.is_empty() {
            return After::Done;
        }
        let Ok(taken) = send(&self.rest) else {
            return self.broken();
        };
        drop(self.rest.drain(..taken.min(self.rest.len())));
        if self.rest.is_empty() {
            // A moment of slowness must not hold its memory for ever.
            self.rest = Vec::new();
            return self.all_taken();
        }
        if self.rest.len() > REST_MAX {
            return self.broken();
        }
        After::Done
    }

    fn put(&mut self, number: u64, reply: Reply) {
        // What comes twice, or for a command that was never taken, has no place.
        let place = number.checked_sub(self.next).filter(|_| number < self.taken);
        let Some(place) = place.and_then(|place| usize::try_from(place).ok()) else {
            return;
        };
        while self.early.len() <= place {
            self.early.push_back(Reply::Awaited);
        }
        if let Some(slot) = self.early.get_mut(place) {
            *slot = reply;
        }
    }

    /// Sends what is next, as far as it is there.
    fn advance(&mut self, send: impl FnMut(&[u8]) -> Result<usize, ()>) -> After {
        let mut ready = Vec::new();
        while let Some(reply) = self.early.pop_front() {
            match reply {
                Reply::Text(text) => ready.extend_from_slice(&text),
                Reply::Awaited => {
                    self.early.push_front(reply);
                    break;
                }
                Reply::End => {
                    self.ends = true;
                    self.early = VecDeque::new();
                    self.next = self.taken;
                    break;
                }
            }
            self.next += 1;
        }
        if ready.is_empty() && !self.ends {
            return After::Done;
        }
        self.write(&ready, send)
    }

    /// Sends `text`, or puts it behind what is left from before, which is somebody else's to flush.
    fn write(&mut self, text: &[u8], mut send: impl FnMut(&[u8]) -> Result<usize, ()>) -> After {
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(text);
            if self.rest.len() > REST_MAX {
                return self.flush(send);
            }
            return After::Done;
        }
        // Nothing is copied as long as the connection takes what it is given.
        let taken = if text.is_empty() { Ok(0) } else { send(text) };
        let Ok(taken) = taken else {
            return self.broken();
        };
        let rest = text.get(taken..).unwrap_or_default();
        if rest.len() > REST_MAX {
            return self.broken();
        }
        self.rest.extend_from_slice(rest);
        if self.rest.is_empty() {
            self.all_taken()
        } else {
            After::Rest
        }
    }

    /// Nothing is left.
    fn all_taken(&mut self) -> After {
        if self.ends {
            return After::Over;
        }
        if self.stalled && self.taken - self.next <= IN_FLIGHT_LOW {
            self.stalled = false;
            return After::Resume;
        }
        After::Done
    }

    /// Nobody reads any more: what is still to come goes nowhere.
    fn broken(&mut self) -> After {
        self.over = true;
        self.stalled = false;
        self.rest = Vec::new();
        self.early = VecDeque::new();
        // No reply has a place from now on.
        self.next = self.taken;
        After::Broken
    }

    /// Bytes that the connection has not taken.
    pub fn rest(&self) -> usize {
        self.rest.len()
    }

    /// Whether every command that was taken has had its reply, and the connection has taken it.
    pub fn is_idle(&self) -> bool {
        self.taken == self.next && self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A connection that takes so many bytes in all.
    struct Wire {
        text: Vec<u8>,
        room: usize,
    }

    impl Wire {
        fn new(room: usize) -> Self {
            Self {
                text: Vec::new(),
                room,
            }
        }

        fn send(&mut self) -> impl FnMut(&[u8]) -> Result<usize, ()> {
            |bytes: &[u8]| {
                let taken = bytes.len().min(self.room);
                self.room -= taken;
                self.text.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
        }
    }

    fn take(replies: &mut Replies) -> u64 {
        match replies.take() {
            Take::Number(number) => number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_go_out_in_the_order_of_their_commands() {
        let (mut replies, mut wire) = (Replies::default(), Wire::new(usize::MAX));
        for number in 0..4 {
            assert_eq!(take(&mut replies), number);
        }
        for (number, so_far) in [(2, ""), (1, ""), (0, "0\n1\n2\n"), (3, "0\n1\n2\n3\n")] {
            assert_eq!(
                replies.reply(number, format!("{number}\n").as_bytes(), wire.send()),
                After::Done
            );
            assert_eq!(wire.text, so_far.as_bytes());
        }
        // A reply is given once.
        assert_eq!(replies.reply(3, b"again\n", wire.send()), After::Done);
        assert_eq!(wire.text, b"0\n1\n2\n3\n");
    }

    #[test]
    fn no_command_is_taken_while_too_many_are_in_flight() {
        let (mut replies, mut wire) = (Replies::default(), Wire::new(usize::MAX));
        for _ in 0..IN_FLIGHT_MAX {
            take(&mut replies);
        }
        assert_eq!(replies.take(), Take::Stalled);
        let mut resumed_at = None;
        for number in 0..IN_FLIGHT_MAX {
            if replies.reply(number, b"0\n", wire.send()) == After::Resume {
                assert_eq!(resumed_at.replace(number), None, "told once");
            }
        }
        assert_eq!(resumed_at, Some(IN_FLIGHT_LOW - 1));
        assert!(!replies.is_stalled());
        take(&mut replies);
    }

    #[test]
    fn what_is_not_read_waits_and_no_command_is_taken_meanwhile() {
        let (mut replies, mut wire) = (Replies::default(), Wire::new(3));
        for number in 0..3 {
            take(&mut replies);
            let after = replies.reply(number, b"12\n", wire.send());
            let want = if number == 1 { After::Rest } else { After::Done };
            assert_eq!(after, want, "{number}");
            if number > 0 {
                break;
            }
        }
        assert_eq!(replies.take(), Take::Stalled);
        assert_eq!(replies.flush(wire.send()), After::Done);
        wire.room = 1;
        assert_eq!(replies.flush(wire.send()), After::Done);
        assert_eq!(replies.rest(), 2);
        wire.room = usize::MAX;
        assert_eq!(replies.flush(wire.send()), After::Resume);
        assert_eq!(wire.text, b"12\n12\n");
        take(&mut replies);
    }

    #[test]
    fn who_does_not_read_at_all_is_given_up_at_the_limit() {
        let (mut replies, mut wire) = (Replies::default(), Wire::new(0));
        for _ in 0..IN_FLIGHT_MAX {
            take(&mut replies);
        }
        let reply = [b'x'; 1024];
        let mut number = 0;
        let after = loop {
            let after = replies.reply(number, &reply, wire.send());
            assert!(replies.rest() <= REST_MAX);
            number += 1;
            if after == After::Broken {
                break number;
            }
        };
        assert_eq!(after, REST_MAX as u64 / 1024 + 1);
        assert_eq!(replies.take(), Take::Over);
        assert_eq!(replies.reply(number, &reply, wire.send()), After::Done);
        assert_eq!(replies.rest(), 0);
    }

    #[test]
    fn all_that_may_be_in_flight_fits_whatever_the_order() {
        let (mut replies, mut wire) = (Replies::default(), Wire::new(0));
        for _ in 0..IN_FLIGHT_MAX {
            take(&mut replies);
        }
        for number in (1..IN_FLIGHT_MAX).rev() {
            assert_eq!(replies.reply(number, &[b'x'; 255], wire.send()), After::Done);
        }
        assert_eq!(replies.reply(0, &[b'x'; 255], wire.send()), After::Rest);
    }

    #[test]
    fn a_last_reply_comes_behind_the_others_and_then_it_is_over() {
        let (mut replies, mut wire) = (Replies::default(), Wire::new(3));
        take(&mut replies);
        let last = replies.take_last();
        assert_eq!(replies.take(), Take::Over);
        assert_eq!(replies.reply(last, b"E5\n", wire.send()), After::Done);
        assert_eq!(replies.end(last + 1, wire.send()), After::Done);
        assert_eq!(replies.reply(0, b"0\n", wire.send()), After::Rest);
        wire.room = usize::MAX;
        assert_eq!(replies.flush(wire.send()), After::Over);
        assert_eq!(wire.text, b"0\nE5\n");
    }

    #[test]
    fn a_command_without_reply_ends_the_connection_in_its_place() {
        let (mut replies, mut wire) = (Replies::default(), Wire::new(usize::MAX));
        for _ in 0..3 {
            take(&mut replies);
        }
        assert_eq!(replies.end(1, wire.send()), After::Done);
        assert_eq!(replies.reply(2, b"2\n", wire.send()), After::Done);
        assert_eq!(replies.reply(0, b"0\n", wire.send()), After::Over);
        assert_eq!(wire.text, b"0\n");
        assert!(replies.is_over());
    }

    #[test]
    fn a_connection_that_failed_takes_nothing_more() {
        let mut replies = Replies::default();
        take(&mut replies);
        take(&mut replies);
        assert_eq!(replies.reply(0, b"0\n", |_| Err(())), After::Broken);
        assert_eq!(
            replies.reply(1, b"1\n", |_| panic!("nothing is sent any more")),
            After::Done
        );
        assert_eq!(replies.take(), Take::Over);
    }

    proptest! {
        /// In whatever order replies come and however the connection takes them, what it gets is the beginning of
        /// all replies in order, and in the end all of it.
        #[test]
        fn no_reply_is_lost_doubled_or_misplaced(
            order in Just((0..40_u64).collect::<Vec<_>>()).prop_shuffle(),
            rooms in proptest::collection::vec(0..60_usize, 40),
        ) {
            let (mut replies, mut wire) = (Replies::default(), Wire::new(0));
            let all = (0..40).map(|number| format!("reply {number}\n")).collect::<Vec<_>>().concat();
            for _ in 0..40 {
                take(&mut replies);
            }
            for (number, room) in order.into_iter().zip(rooms) {
                wire.room = room;
                replies.reply(number, format!("reply {number}\n").as_bytes(), wire.send());
                prop_assert!(all.as_bytes().starts_with(&wire.text));
            }
            wire.room = usize::MAX;
            replies.flush(wire.send());
            prop_assert_eq!(&wire.text[..], all.as_bytes());
            prop_assert_eq!(replies.rest(), 0);
        }
    }
}
