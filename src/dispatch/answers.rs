//! A member's reply comes in: it is matched to its exchange and judged; what it means is its job's matter. Pure.

use std::time::Instant;

use super::Dispatch;
use super::attempt::Fate;
use super::counters::Count;
use super::jobs::{Answer, Event};
use super::member::Member;
use super::outbox::{Note, Outbox};
use super::pending::Slot;
use super::session::MemberId;
use crate::protocol::cookie::Cookie;
use crate::protocol::reply::{self, Outcome};
use crate::rim::throttle::TELL_EVERY;

/// How much of a garbage reply a note shows, in bytes.
const EXCERPT: usize = 64;

impl<C, L: Clone> Dispatch<C, L> {
    /// Takes a reply of a member to the exchange that `cookie` names: its bytes without cookie and line end.
    pub fn reply(
        &mut self,
        now: Instant,
        from: MemberId,
        cookie: Cookie,
        text: &[u8],
        out: &mut Outbox<C, L>,
    ) {
        let found = self.pending.find(cookie);
        let ours = found.is_some() || self.pending.is_ours(cookie);
        let Some(member) = self.member_mut(from) else {
            return;
        };
        let Some((slot, place)) = found else {
            member.count(if ours {
                Count::LateReplies
            } else {
                Count::SpoofedReplies
            });
            return;
        };
        if let Some(outcome) = self.take_reply(now, from, slot, place, text, out) {
            if let Some(t) = self.pending.get(slot) {
                self.trace_reply(now, t, place, text, out);
            }
            let answer = Answer { from, text, outcome };
            self.happen(now, slot, Event::Answer(answer), out);
        }
    }

    /// Closes the exchange that a reply is to. `None` when it is not that member's, comes too late or can be no reply.
    fn take_reply(
        &mut self,
        now: Instant,
        from: MemberId,
        slot: Slot,
        place: usize,
        text: &[u8],
        out: &mut Outbox<C, L>,
    ) -> Option<Outcome> {
        let t = self.pending.get_mut(slot)?;
        let verb = t.asks();
        let exchange = t.exchanges.get_mut(place)?;
        let member = self.members.get_mut(usize::from(from.index))?;
        if exchange.member != from {
            member.count(Count::SpoofedReplies);
            return None;
        }
        if exchange.fate != Fate::Waiting {
            member.count(Count::LateReplies);
            return None;
        }
        let Some(outcome) = reply::judge(verb, text) else {
            garbage(now, member, text, out);
            return None;
        };
        exchange.fate = Fate::Answered;
        member.in_flight = member.in_flight.saturating_sub(1);
        member.count(Count::Replies);
        member.suspect = false;
        if matches!(outcome, Outcome::Error(_)) {
            member.count(Count::Errors);
        }
        // After a second transmission nobody knows which of the two was answered.
        let delay = now.saturating_duration_since(exchange.sent);
        if exchange.resent {
            member.delay.resent(exchange.pause, delay);
        } else {
            member.delay.sample(delay);
        }
        Some(outcome)
    }

    /// Something came from a member's address that carries no cookie of ours.
    pub fn foreign(&mut self, from: MemberId) {
        if let Some(member) = self.member_mut(from) {
            member.count(Count::SpoofedReplies);
        }
    }
}

/// A reply that could be none is counted, told once a minute, and the command goes on waiting.
fn garbage<C, L>(now: Instant, member: &mut Member<L>, text: &[u8], out: &mut Outbox<C, L>) {
    member.count(Count::GarbageReplies);
    member.garbage += 1;
    if member.garbage_told.is_some_and(|told| now < told + TELL_EVERY) {
        return;
    }
    member.garbage_told = Some(now);
    out.notes.push(Note::Garbage {
        member: member.config.name.clone(),
        excerpt: text.iter().take(EXCERPT).copied().collect(),
        replies: core::mem::take(&mut member.garbage),
    });
}
