//! Time passes: what is unanswered is sent again, given to another member, or given up. And what goes wrong
//! before time is up: a socket refuses, a member goes offline. Pure.

use std::time::Instant;

use super::attempt::{Fate, Job, Transaction};
use super::counters::Count;
use super::jobs::Event;
use super::jobs::Next;
use super::outbox::Outbox;
use super::pending::Slot;
use super::session::{MemberId, SHARDS, Stage};
use super::{Dispatch, SWEEP_PART, SWEEP_ROUND, Total};
use crate::protocol::command::Verb;
use crate::protocol::cookie::Cookie;

/// Transactions handled in one event, so that nobody waits long for the lock.
const BATCH: usize = 128;

impl<C, L: Clone> Dispatch<C, L> {
    /// Does what is due at `now`. Gives the moment at which it wants to be called next, see [`Dispatch::next_alarm`].
    pub fn expire(&mut self, now: Instant, out: &mut Outbox<C, L>) -> Option<Instant> {
        for _ in 0..BATCH {
            let Some(mut t) = self.pending.next_due(now) else {
                break;
            };
            let next = self.due(now, &mut t, out);
            self.settle(now, t, next, out);
        }
        if self.next_sweep().is_some_and(|at| at <= now) {
            let tick = self.tick(now);
            let swept = self.sessions.sweep_part(tick, SWEEP_PART);
            self.total_many(Total::SessionsExpired, swept.expired as u64);
            self.swept = now;
        }
        self.tell_losses(now, out);
        self.tell_journal(now);
        self.next_alarm()
    }

    /// When [`Dispatch::expire`] has something to do next: now or in the past if it has not done all that is due. A
    /// loop asks before it waits, since any event may have changed it. `None` while nothing is in flight, bound or to
    /// be told.
    pub fn next_alarm(&self) -> Option<Instant> {
        let moments = [
            self.pending.next_alarm(),
            self.next_sweep(),
            self.next_loss(),
            self.next_tale(),
        ];
        moments.into_iter().flatten().min()
    }

    /// When the next part of the session table is swept: the fewer bindings there are, the more seldom.
    fn next_sweep(&self) -> Option<Instant> {
        let parts = self.sessions.len().div_ceil(SWEEP_PART).min(SHARDS);
        let parts = u32::try_from(parts).ok().filter(|parts| *parts > 0)?;
        Some(self.swept + SWEEP_ROUND / parts)
    }

    /// Something of this transaction is due.
    fn due(&mut self, now: Instant, t: &mut Transaction<C>, out: &mut Outbox<C, L>) -> Next {
        if t.give_up <= now {
            self.trace_giving_up(now, t, out);
            let silent = self.abandon(t);
            for id in &silent {
                if let Some(member) = self.members.get_mut(usize::from(id.index)) {
                    member.count(Count::Timeouts);
                }
                self.suspect(*id, out);
            }
            return self.next(now, t, Event::GivenUp(&silent), out);
        }
        let mut impatient = false;
        for place in 0..t.exchanges.len() {
            self.resend_if_due(now, t, place, out);
            if let Some(exchange) = t.exchanges.get_mut(place)
                && exchange.fate == Fate::Waiting
                && exchange.patience.take_if(|patience| *patience <= now).is_some()
            {
                let member = exchange.member;
                impatient = true;
                self.trace_silence(now, t, place, "not in time", out);
                self.suspect(member, out);
            }
        }
        if t.step.take_if(|step| *step <= now).is_some() {
            self.next(now, t, Event::Step, out)
        } else if impatient {
            self.next(now, t, Event::Impatient, out)
        } else {
            Next::Waits
        }
    }

    /// Whether the command would do harm if it reached that member only now, when it is sent again.
    fn is_overtaken(&self, now: Instant, t: &Transaction<C>, at: MemberId) -> bool {
        match t.job {
            // The call has been deleted since: it would be made anew, and nobody would end it.
            Job::Direct if t.key.verb == Verb::Update && !t.key.ends => {
                let home = self.sessions.peek(self.tick(now), t.key.hash, t.call_id());
                home.is_some_and(|binding| binding.stage == Stage::Ended)
            }
            // The call has come back to this member since.
            Job::Quiet => self.is_at(now, &t.text, at),
            // A call has been made there since.
            Job::DeleteAll => self.member(at).is_some_and(|member| !member.owes_delete_all),
            _ => false,
        }
    }

    /// Sends one exchange again if it is time, under the same cookie.
    fn resend_if_due(&mut self, now: Instant, t: &mut Transaction<C>, place: usize, out: &mut Outbox<C, L>) {
        let due = t.exchanges.get(place).filter(|exchange| {
            exchange.fate == Fate::Waiting && exchange.resend.is_some_and(|resend| resend <= now)
        });
        let Some(at) = due.map(|exchange| exchange.member) else {
            return;
        };
        let overtaken = self.is_overtaken(now, t, at);
        if let Some(cookie) = t.cookie(place)
            && let Some(member) = self.members.get_mut(usize::from(at.index))
            && let Some(exchange) = t.exchanges.get_mut(place)
        {
            if overtaken {
                exchange.resend = None;
                return;
            }
            exchange.pause = member.delay.next_retransmission(exchange.pause);
            exchange.resend = Some(now + exchange.pause);
            exchange.resent = true;
            member.count(Count::Retransmissions);
            out.send(member.link.clone(), at, cookie, false, |bytes| {
                super::write_command(t, &self.rules, member, bytes);
            });
            self.trace_sent(t, place, true, out);
        }
    }

    /// The connection of one exchange broke, and it is not to be sent again.
    pub fn broken(&mut self, now: Instant, from: MemberId, cookie: Cookie, out: &mut Outbox<C, L>) {
        if let Some((slot, place)) = self.pending.find(cookie) {
            self.fail_exchange(now, slot, place, from, out);
        }
    }

    /// A member's socket refuses: whatever is in flight to it fails now, and it is offline at once.
    pub fn refused(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) {
        let Some(member) = self.member_mut(id) else { return };
        member.count(Count::Refused);
        if member.online {
            member.online = false;
            "refused".clone_into(&mut member.why);
            member.since = now;
            out.refused.push(id);
            self.losses.lost(now, id);
        }
        self.fail_all(now, id, out);
    }

    /// A member came online, or went offline for the reason given.
    pub fn set_online(
        &mut self,
        now: Instant,
        id: MemberId,
        online: bool,
        why: String,
        out: &mut Outbox<C, L>,
    ) {
        let Some(member) = self.member_mut(id) else { return };
        let before = core::mem::replace(&mut member.online, online);
        member.why = why;
        member.probed = true;
        if before != online {
            member.since = now;
        }
        if online {
            member.count(Count::WentOnline);
            member.suspect = false;
            self.losses.found(id);
            self.catch_up(now, id, out);
        } else {
            member.count(Count::WentOffline);
            self.losses.lost(now, id);
            self.fail_all(now, id, out);
        }
        self.look_at_early(now, out);
    }

    /// The first probe of a member is over and it is not online.
    pub fn set_probed(&mut self, now: Instant, id: MemberId, why: String, out: &mut Outbox<C, L>) {
        let Some(member) = self.member_mut(id) else { return };
        member.probed = true;
        member.why = why;
        // It may have calls of a predecessor's.
        self.losses.lost(now, id);
        self.look_at_early(now, out);
    }

    /// A member that is not online is tried again then.
    pub fn tried_again(&mut self, id: MemberId, at: Instant) {
        if let Some(member) = self.member_mut(id) {
            member.next_try = Some(at);
        }
    }

    /// A member has been restarted: what was bound to it before `last_good` is gone there.
    pub fn set_restarted(&mut self, id: MemberId, last_good: Instant) {
        self.sessions.forget_before(id, self.tick(last_good));
    }

    /// Everything in flight to a member fails.
    pub(super) fn fail_all(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) {
        let waits = |t: &&Transaction<C>| {
            let mut exchanges = t.exchanges.iter();
            exchanges.any(|exchange| exchange.member == id && exchange.fate == Fate::Waiting)
        };
        let asked = self.pending.iter().filter(waits);
        let slots: Vec<(Slot, usize)> = asked.map(|t| (t.slot, t.exchanges.len())).collect();
        for (slot, exchanges) in slots {
            for place in 0..exchanges {
                self.fail_exchange(now, slot, place, id, out);
            }
        }
    }

    /// One exchange has failed before its time.
    fn fail_exchange(
        &mut self,
        now: Instant,
        slot: Slot,
        place: usize,
        from: MemberId,
        out: &mut Outbox<C, L>,
    ) {
        let t = self.pending.get_mut(slot);
        let Some(exchange) = t.and_then(|t| t.exchanges.get_mut(place)) else {
            return;
        };
        if exchange.member != from || exchange.fate != Fate::Waiting {
            return;
        }
        exchange.fate = Fate::Failed;
        if let Some(member) = self.members.get_mut(usize::from(from.index)) {
            member.in_flight = member.in_flight.saturating_sub(1);
        }
        if let Some(t) = self.pending.get(slot) {
            self.trace_silence(now, t, place, "it cannot be asked", out);
        }
        self.happen(now, slot, Event::Failed(from), out);
    }
}
