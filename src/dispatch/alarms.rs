//! Time passes: what is unanswered is sent again, given to another member, or given up. And what goes wrong
//! before time is up: a socket refuses, a member goes offline. Pure.

use std::time::Instant;

use super::answers::says_unknown;
use super::attempt::{Fate, Job};
use super::commands::Found;
use super::counters::Count;
use super::member::Member;
use super::outbox::{Outbox, Probed};
use super::pending::Slot;
use super::session::{MemberId, SHARDS};
use super::{Dispatch, SWEEP_PART, SWEEP_ROUND, Total};
use crate::protocol::command::{self, Verb};
use crate::protocol::cookie::Cookie;
use crate::protocol::reply::own;

/// Transactions handled in one event, so that nobody waits long for the lock.
const BATCH: usize = 128;
/// Deletes on their way to a member that came back, at the same time.
const CHAINS: usize = 32;

impl<C, L: Clone> Dispatch<C, L> {
    /// Does what is due at `now`. Gives the moment at which it wants to be called next; earlier moments that
    /// come up in between are told by [`Outbox::wake_timer`].
    pub fn expire(&mut self, now: Instant, out: &mut Outbox<C, L>) -> Option<Instant> {
        for _ in 0..BATCH {
            let Some(slot) = self.pending.next_due(now) else {
                break;
            };
            self.due(now, slot, out);
        }
        if self.next_sweep().is_some_and(|at| at <= now) {
            let tick = self.tick(now);
            let swept = self.sessions.sweep_part(tick, SWEEP_PART);
            self.total_many(Total::SessionsExpired, swept.expired as u64);
            self.swept = now;
        }
        self.tell_losses(now, out);
        self.timer_at = self.next_alarm();
        self.timer_at
    }

    /// When [`Dispatch::expire`] has something to do next: now or in the past if it has not done all that is due. A
    /// loop asks before it waits, since any event may have changed it. `None` while nothing is in flight, bound or to
    /// be told.
    pub fn next_alarm(&self) -> Option<Instant> {
        let moments = [self.pending.next_alarm(), self.next_sweep(), self.next_loss()];
        moments.into_iter().flatten().min()
    }

    /// When the next part of the session table is swept: the fewer bindings there are, the more seldom.
    fn next_sweep(&self) -> Option<Instant> {
        let parts = self.sessions.len().div_ceil(SWEEP_PART).min(SHARDS);
        let parts = u32::try_from(parts).ok().filter(|parts| *parts > 0)?;
        Some(self.swept + SWEEP_ROUND / parts)
    }

    /// Something of this transaction is due.
    fn due(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        if transaction.give_up <= now {
            self.give_up(now, slot, out);
            return;
        }
        let mut impatient = false;
        for place in 0..transaction.exchanges.len() {
            impatient |= self.resend_if_due(now, slot, place, out);
        }
        if impatient && !self.create_elsewhere(now, slot, out) {
            self.lost_unless_waiting(now, slot, out);
        }
        self.arm(slot, out);
    }

    /// Sends one exchange again if it is time, under the same cookie. Says whether its member has had its time.
    fn resend_if_due(&mut self, now: Instant, slot: Slot, place: usize, out: &mut Outbox<C, L>) -> bool {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return false;
        };
        let Some(exchange) = transaction.exchanges.get_mut(place) else {
            return false;
        };
        if exchange.fate != Fate::Waiting {
            return false;
        }
        let impatient = exchange.patience.is_some_and(|patience| patience <= now);
        if impatient {
            exchange.patience = None;
        }
        if exchange.resend.is_some_and(|resend| resend <= now) {
            let Some(member) = self.members.get_mut(usize::from(exchange.member.index)) else {
                return impatient;
            };
            exchange.pause = member.delay.next_retransmission(exchange.pause);
            exchange.resend = Some(now + exchange.pause);
            exchange.resent = true;
            member.count(Count::Retransmissions);
            let cookie = Cookie {
                slot: slot.index,
                serial: slot.short_serial(),
                index: u16::try_from(place).unwrap_or(u16::MAX),
                nonce: exchange.nonce,
            };
            out.send(member.link.clone(), member.id, cookie, false, |bytes| {
                super::write_command(transaction, &self.rules, member, bytes);
            });
        }
        impatient
    }

    /// The time of a transaction is up.
    fn give_up(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let job = transaction.job;
        let mut silent = Vec::new();
        for exchange in transaction
            .exchanges
            .iter_mut()
            .filter(|e| e.fate == Fate::Waiting)
        {
            exchange.fate = Fate::Failed;
            silent.push(exchange.member);
        }
        for id in &silent {
            if let Some(member) = self.members.get_mut(usize::from(id.index)) {
                member.in_flight = member.in_flight.saturating_sub(1);
                member.count(Count::Timeouts);
                if matches!(job, Job::Probe(_)) {
                    member.count(Count::ProbesFailed);
                }
            }
            if !matches!(job, Job::Probe(_)) {
                out.suspects.push(*id);
            }
        }
        match job {
            Job::Idle => {}
            Job::Probe(_) => {
                self.close(slot);
                out.probed
                    .extend(silent.into_iter().map(|id| (id, Probed::Missed)));
            }
            Job::Direct => self.home_failed(now, slot, silent.first().copied(), out),
            Job::Create => {
                self.undo_unanswered(now, slot, &silent, out);
                self.lost_unless_waiting(now, slot, out);
            }
            Job::Late => {
                self.undo_unanswered(now, slot, &silent, out);
                self.close(slot);
            }
            Job::Seek | Job::Ask => self.conclude(now, slot, out),
            Job::Wait => self.fail_with(slot, own::SOME_SILENT, out),
            Job::Quiet => self.keep_delete(now, slot, silent.first().copied(), out),
            Job::Capability => self.conclude_capability(slot, out),
            Job::Statistics => self.conclude_statistics(slot, out),
            Job::DeleteAll => self.conclude_delete_all(slot, out),
        }
    }

    /// A U that was never answered may have created a session all the same.
    fn undo_unanswered(&mut self, now: Instant, slot: Slot, silent: &[MemberId], out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        if transaction.asks() != Verb::Update || silent.is_empty() {
            return;
        }
        let text = transaction.text.clone();
        for id in silent {
            self.undo(now, *id, &text, out);
        }
    }

    /// The home of a call did not answer, and nobody else can.
    fn home_failed(&mut self, now: Instant, slot: Slot, home: Option<MemberId>, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        if transaction.key.verb != Verb::Delete {
            self.fail_with(slot, own::HOME_SILENT, out);
            return;
        }
        let text = transaction.text.clone();
        if let Some(client) = transaction.client.take() {
            out.reply(client, |bytes| bytes.push(b'0'));
            self.outcome(Verb::Delete, 0);
        }
        if let Some(home) = home {
            self.follow_call(now, slot, home, out);
        }
        self.close(slot);
        if let Some(home) = home {
            self.defer(now, home, &text, out);
        }
    }

    /// A delete that nobody waits for was not answered: it waits for its member.
    fn keep_delete(&mut self, now: Instant, slot: Slot, at: Option<MemberId>, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let text = core::mem::take(&mut transaction.text);
        self.close(slot);
        if let Some(at) = at {
            self.defer(now, at, &text, out);
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
        self.fail_all(now, id, true, out);
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
            if core::mem::take(&mut member.owes_delete_all) {
                member.deferred.clear();
                self.send_delete_all_late(now, id, out);
            }
            self.losses.found(id);
            self.send_all_deferred(now, id, out);
        } else {
            member.count(Count::WentOffline);
            self.losses.lost(now, id);
            self.fail_all(now, id, false, out);
        }
        self.look_at_early(now, out);
    }

    /// The first probe of a member is over and it is not online.
    pub fn set_probed(&mut self, now: Instant, id: MemberId, why: String, out: &mut Outbox<C, L>) {
        let Some(member) = self.member_mut(id) else { return };
        member.probed = true;
        member.why = why;
        self.look_at_early(now, out);
    }

    /// A member has been restarted: what was bound to it before `last_good` is gone there.
    pub fn set_restarted(&mut self, id: MemberId, last_good: Instant) {
        self.sessions.forget_before(id, self.tick(last_good));
    }

    /// The deletes that wait for a member, a few at a time: each is followed by another one.
    pub(super) fn send_all_deferred(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) {
        for _ in 0..CHAINS {
            self.send_deferred(now, id, out);
        }
    }

    /// The next delete that waits for a member.
    pub(super) fn send_deferred(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) {
        let next = self
            .member_mut(id)
            .filter(|member| member.online)
            .and_then(|member| member.next_deferred(now));
        if let Some(text) = next {
            self.send_quietly(now, id, &text, true, out);
        }
    }

    /// Everything in flight to a member fails; probes too when its socket refused them.
    pub(super) fn fail_all(&mut self, now: Instant, id: MemberId, probes: bool, out: &mut Outbox<C, L>) {
        let slots: Vec<Slot> = self.pending.slots().collect();
        for slot in slots {
            let Some(transaction) = self.pending.get_mut(slot) else {
                continue;
            };
            if matches!(transaction.job, Job::Probe(_)) && !probes {
                continue;
            }
            for place in 0..transaction.exchanges.len() {
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
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let Some(exchange) = transaction.exchanges.get_mut(place) else {
            return;
        };
        if exchange.member != from || exchange.fate != Fate::Waiting {
            return;
        }
        exchange.fate = Fate::Failed;
        if let Some(member) = self.members.get_mut(usize::from(from.index)) {
            member.in_flight = member.in_flight.saturating_sub(1);
        }
        let waiting = transaction.is_waiting();
        let verb = transaction.key.verb;
        let job = transaction.job;
        let gone = !self.member(from).is_some_and(Member::serves);
        match job {
            Job::Probe(_) => {
                self.close(slot);
                if let Some(member) = self.member_mut(from) {
                    member.count(Count::ProbesFailed);
                }
                // A connection that broke says less than one that cannot be had.
                let result = if gone { Probed::Refused } else { Probed::Missed };
                out.probed.push((from, result));
            }
            // Another member heals the call: the command is routed anew, now that its home is offline.
            Job::Direct if verb == Verb::Update && gone => {
                self.take_again(now, slot, Found::Unasked, out);
            }
            Job::Direct => self.home_failed(now, slot, Some(from), out),
            Job::Create => {
                self.undo_unanswered(now, slot, &[from], out);
                if !self.create_elsewhere(now, slot, out) {
                    self.lost_unless_waiting(now, slot, out);
                }
            }
            Job::Late => {
                self.undo_unanswered(now, slot, &[from], out);
                if !waiting {
                    self.close(slot);
                }
            }
            Job::Quiet => self.keep_delete(now, slot, Some(from), out),
            Job::Seek | Job::Ask if !waiting => self.conclude(now, slot, out),
            Job::Capability if !waiting => self.conclude_capability(slot, out),
            Job::Statistics if !waiting => self.conclude_statistics(slot, out),
            Job::DeleteAll if !waiting => self.conclude_delete_all(slot, out),
            // The others may still answer.
            Job::Seek
            | Job::Ask
            | Job::Capability
            | Job::Statistics
            | Job::DeleteAll
            | Job::Idle
            | Job::Wait => {}
        }
    }

    /// Nobody who was asked has the call.
    pub(super) fn conclude(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let silent = transaction
            .exchanges
            .iter()
            .any(|exchange| exchange.fate != Fate::Answered);
        let job = transaction.job;
        let followers = self.end_question(slot);
        if job == Job::Seek {
            if let Some(transaction) = self.pending.get_mut(slot) {
                transaction.verdict.clear();
            }
            self.create(now, slot, out);
        } else {
            self.conclude_unfound(now, slot, silent, out);
        }
        let found = if silent { Found::Silent } else { Found::Nobody };
        self.wake_followers(now, followers, found, out);
    }

    /// The answer to a command whose call nobody has.
    pub(super) fn conclude_unfound(
        &mut self,
        now: Instant,
        slot: Slot,
        silent: bool,
        out: &mut Outbox<C, L>,
    ) {
        let offline: Vec<MemberId> = self
            .members
            .iter()
            .filter(|member| member.present && !member.online)
            .map(|member| member.id)
            .collect();
        let nobody = self.online().is_empty();
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let verb = transaction.key.verb;
        let code = if nobody {
            own::NO_ONE_ONLINE
        } else if silent {
            own::SOME_SILENT
        } else {
            own::NOBODY_HAS_IT
        };
        match verb {
            Verb::Delete if silent || !offline.is_empty() => {
                let unanswered = transaction.exchanges.iter().filter(|e| e.fate != Fate::Answered);
                let mut late: Vec<MemberId> = unanswered.map(|exchange| exchange.member).collect();
                late.extend(offline);
                late.sort_unstable_by_key(|id| id.index);
                late.dedup();
                let text = transaction.text.clone();
                for id in late {
                    self.defer(now, id, &text, out);
                }
                self.finish(slot, b"0", out);
            }
            // An error is about the command, and so is everybody's; `0` is about the call.
            Verb::Lookup if !nobody && (transaction.mixed || transaction.verdict.first() != Some(&b'E')) => {
                self.finish(slot, b"0", out);
            }
            Verb::Lookup if !nobody => {
                let verdict = transaction.verdict.clone();
                self.finish(slot, &verdict, out);
            }
            // Who names a fault has the session; the silent ones would say nothing else than that they have not.
            _ if !transaction.verdict.is_empty()
                && !transaction.mixed
                && (!silent || !says_unknown(&transaction.verdict)) =>
            {
                let verdict = transaction.verdict.clone();
                self.finish(slot, &verdict, out);
            }
            // A follower of somebody else's question: what that found is what a member would say.
            _ if transaction.exchanges.is_empty() && !nobody && !silent => self.finish(slot, b"E50", out),
            _ => self.fail_with(slot, code, out),
        }
    }

    /// Answers with a member's word, or with `0`, and closes.
    pub(super) fn finish(&mut self, slot: Slot, text: &[u8], out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let verb = transaction.key.verb;
        if let Some(client) = transaction.client.take() {
            out.reply(client, |bytes| bytes.extend_from_slice(text));
            self.outcome(verb, usize::from(text.first() == Some(&b'E')));
        }
        self.close(slot);
    }

    /// Nobody may join this question any more. Gives who has.
    pub(super) fn end_question(&mut self, slot: Slot) -> Vec<Slot> {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return Vec::new();
        };
        let hash = transaction.key.hash;
        let followers = core::mem::take(&mut transaction.followers);
        if self.questions.get(&hash) == Some(&slot) {
            self.questions.remove(&hash);
        }
        followers
    }

    /// Commands that waited for a question are routed with what it found.
    pub(super) fn wake_followers(
        &mut self,
        now: Instant,
        followers: Vec<Slot>,
        found: Found,
        out: &mut Outbox<C, L>,
    ) {
        for slot in followers {
            if self
                .pending
                .get_mut(slot)
                .is_some_and(|transaction| transaction.job == Job::Wait)
            {
                self.take_again(now, slot, found, out);
            }
        }
    }

    /// Routes a command once more, as if it came now, with its client and its deadline.
    pub(super) fn take_again(&mut self, now: Instant, slot: Slot, found: Found, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let text = core::mem::take(&mut transaction.text);
        let (started, origin, client) = (transaction.started, transaction.origin, transaction.client.take());
        self.close(slot);
        if let (Ok(command), Some(client)) = (command::parse(&text), client) {
            self.take(now, started, &command, origin, client, found, out);
        }
    }
}
