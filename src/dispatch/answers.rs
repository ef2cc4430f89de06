//! A member's reply comes in: it is matched to its exchange, judged, and passed on, bound, undone or counted.
//! Pure.

use std::time::Instant;

use super::attempt::{Ask, Fate, Job};
use super::member::{Count, Member};
use super::outbox::{Note, Outbox, Probed};
use super::pending::Slot;
use super::rewrite;
use super::session::{MemberId, Stage};
use super::{ANSWER_WITHIN, Dispatch, TELL_EVERY};
use crate::protocol::command::{self, Verb};
use crate::protocol::cookie::Cookie;
use crate::protocol::reply::{self, Outcome, own};

/// Whether a member says that it has no such session, and nothing else against the command.
pub(super) fn says_unknown(reply: &[u8]) -> bool {
    matches!(reply.trim_ascii(), b"0" | b"E50")
}

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
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let verb = transaction.asks();
        let Some(exchange) = transaction.exchanges.get_mut(place) else {
            return;
        };
        let Some(member) = self.members.get_mut(usize::from(from.index)) else {
            return;
        };
        if exchange.member != from {
            member.count(Count::SpoofedReplies);
            return;
        }
        if exchange.fate != Fate::Waiting {
            member.count(Count::LateReplies);
            return;
        }
        let Some(outcome) = reply::judge(verb, text) else {
            garbage(now, member, text, out);
            return;
        };
        exchange.fate = Fate::Answered;
        member.in_flight = member.in_flight.saturating_sub(1);
        member.count(Count::Replies);
        if matches!(outcome, Outcome::Error(_)) {
            member.count(Count::Errors);
        }
        // After a second transmission nobody knows which of the two was answered.
        if exchange.resent {
            member.delay.resent(exchange.pause);
        } else {
            member.delay.sample(now.saturating_duration_since(exchange.sent));
        }
        match transaction.job {
            Job::Direct => self.pass_on(now, slot, from, text, outcome, out),
            Job::Create => self.created(now, slot, from, text, outcome, out),
            Job::Seek | Job::Ask => self.found(now, slot, from, text, outcome, out),
            Job::Late => self.came_late(now, slot, from, outcome, out),
            Job::Quiet => self.quietly_done(now, slot, from, out),
            Job::Probe(ask) => self.probed(now, slot, from, ask, text, out),
            Job::Capability => self.capability_said(slot, from, text, out),
            Job::Statistics => self.statistics_said(slot, from, text, outcome, out),
            Job::DeleteAll => self.all_deleted(slot, from, outcome, out),
            Job::Wait | Job::Idle => {}
        }
    }

    /// Something came from a member's address that carries no cookie of ours.
    pub fn foreign(&mut self, from: MemberId) {
        if let Some(member) = self.member_mut(from) {
            member.count(Count::SpoofedReplies);
        }
    }

    /// The reply of the one member that could answer.
    fn pass_on(
        &mut self,
        now: Instant,
        slot: Slot,
        from: MemberId,
        text: &[u8],
        outcome: Outcome,
        out: &mut Outbox<C, L>,
    ) {
        if outcome == Outcome::Positive {
            self.remember_wish(now, slot, from, out);
        }
        self.hand_over(slot, from, text, outcome, out);
        self.follow_call(now, slot, from, out);
        self.close(slot);
    }

    /// A delete that came before its call had found a member has been at `from`. If the call is elsewhere by now, it
    /// goes there as well: nobody else will end that session.
    pub(super) fn follow_call(&mut self, now: Instant, slot: Slot, from: MemberId, out: &mut Outbox<C, L>) {
        let tick = self.tick(now);
        let Some(transaction) = self.pending.get_mut(slot).filter(|t| t.follows) else {
            return;
        };
        let hash = transaction.key.hash;
        let home = self.sessions.find(tick, hash, transaction.call_id());
        let Some(home) = home.map(|binding| binding.member).filter(|home| *home != from) else {
            return;
        };
        self.sessions
            .bind(tick, hash, transaction.call_id(), home, Stage::Ended)
            .ok();
        let text = transaction.text.clone();
        self.send_quietly(now, home, &text, false, out);
    }

    /// Writes a member's reply to the client.
    fn hand_over(
        &mut self,
        slot: Slot,
        from: MemberId,
        text: &[u8],
        outcome: Outcome,
        out: &mut Outbox<C, L>,
    ) {
        let Some(member) = self.members.get(usize::from(from.index)) else {
            return;
        };
        let (wan, has_lan) = (
            member.config.wan_address.first(),
            !member.config.lan_address.is_none(),
        );
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let verb = transaction.key.verb;
        let Some(client) = transaction.client.take() else {
            return;
        };
        let rewrites = wan.is_some() && matches!(verb, Verb::Update | Verb::Lookup);
        out.reply(client, |bytes| match command::parse(&transaction.text) {
            Ok(command) if rewrites => rewrite::reply(&command, text, wan, has_lan, bytes),
            _ => bytes.extend_from_slice(text),
        });
        self.outcome(verb, usize::from(matches!(outcome, Outcome::Error(_))));
    }

    /// An answer to a new session.
    fn created(
        &mut self,
        now: Instant,
        slot: Slot,
        from: MemberId,
        text: &[u8],
        outcome: Outcome,
        out: &mut Outbox<C, L>,
    ) {
        match outcome {
            Outcome::Positive => self.won(now, slot, from, text, out),
            Outcome::Error(code) if reply::is_not_here_not_now(code) => {
                if let Some(transaction) = self.pending.get_mut(slot) {
                    transaction.verdict.clear();
                    transaction.verdict.extend_from_slice(text);
                }
                if !self.create_elsewhere(now, slot, out) {
                    self.lost_unless_waiting(now, slot, out);
                }
            }
            // The fault is in the command: every member would say the same.
            Outcome::Error(_) | Outcome::Zero => {
                self.unbind_tentative(now, slot);
                self.hand_over(slot, from, text, outcome, out);
                self.leave_late(now, slot, out);
            }
        }
    }

    /// The first positive answer to a new session.
    fn won(&mut self, now: Instant, slot: Slot, winner: MemberId, text: &[u8], out: &mut Outbox<C, L>) {
        let tick = self.tick(now);
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let (hash, ends) = (transaction.key.hash, transaction.key.ends);
        let call_id = transaction.call_id();
        let known = self
            .sessions
            .find(tick, hash, call_id)
            .map(|binding| (binding.member, binding.stage));
        let serves = |home: MemberId| {
            let member = self.members.get(usize::from(home.index));
            member.is_some_and(|member| member.id == home && member.serves())
        };
        if let Some((home, Stage::Bound)) = known
            && home != winner
            && serves(home)
        {
            // Another command of the call was faster elsewhere. All of a call is on one member.
            let Some(transaction) = self.pending.get_mut(slot) else {
                return;
            };
            let command = transaction.text.clone();
            transaction.job = Job::Direct;
            transaction.give_up = now + ANSWER_WITHIN / 2;
            self.undo(now, winner, &command, out);
            self.send(now, slot, home, None, out);
            return;
        }
        let stage = if ends { Stage::Ended } else { Stage::Bound };
        if known != Some((winner, stage)) {
            // A full table has been told when the member was chosen.
            self.sessions.bind(tick, hash, call_id, winner, stage).ok();
        }
        if let Some(member) = self.members.get_mut(usize::from(winner.index))
            && !member.deferred.is_empty()
        {
            // An older delete of this call would now end it.
            let call_id = call_id.to_owned();
            member.deferred.retain(|deferred| {
                command::parse(&deferred.text).is_ok_and(|command| command.call_id != call_id)
            });
        }
        self.remember_wish(now, slot, winner, out);
        self.hand_over(slot, winner, text, Outcome::Positive, out);
        self.leave_late(now, slot, out);
    }

    /// The client has its answer. Attempts that are still unanswered are watched for a while longer.
    fn leave_late(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        if !transaction.is_waiting() {
            self.close(slot);
            return;
        }
        transaction.job = Job::Late;
        transaction.give_up = now + ANSWER_WITHIN;
        for exchange in &mut transaction.exchanges {
            exchange.resend = None;
            exchange.patience = None;
        }
        let hash = transaction.key.hash;
        if self.questions.get(&hash) == Some(&slot) {
            self.questions.remove(&hash);
        }
        self.arm(slot, out);
    }

    /// A member that lost answers.
    fn came_late(
        &mut self,
        now: Instant,
        slot: Slot,
        from: MemberId,
        outcome: Outcome,
        out: &mut Outbox<C, L>,
    ) {
        let tick = self.tick(now);
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        if outcome == Outcome::Positive {
            let home = self
                .sessions
                .find(tick, transaction.key.hash, transaction.call_id());
            let home = home.map(|binding| binding.member);
            if transaction.asks() == Verb::Update && home != Some(from) {
                let text = transaction.text.clone();
                self.undo(now, from, &text, out);
            } else if let Some(home) = home.filter(|home| *home != from) {
                let name = |id| self.member(id).map(|member| member.config.name.clone());
                if let (Some(bound), Some(also)) = (name(home), name(from)) {
                    out.notes.push(Note::TwoHomes { bound, also });
                }
            }
        }
        if self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| !transaction.is_waiting())
        {
            self.close(slot);
        }
    }

    /// Forgets that a call was to be at one of the members that this command tried.
    pub(super) fn unbind_tentative(&mut self, now: Instant, slot: Slot) {
        let tick = self.tick(now);
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let hash = transaction.key.hash;
        let call_id = transaction.call_id();
        let tentative = self.sessions.find(tick, hash, call_id).is_some_and(|binding| {
            binding.stage == Stage::Tentative && transaction.has_tried(binding.member)
        });
        if tentative {
            self.sessions.forget(hash, call_id);
        }
    }

    /// A new session has no further member to go to: it is over unless one of those tried may still answer.
    pub(super) fn lost_unless_waiting(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        if transaction.is_waiting() {
            // They have until the end now.
            for exchange in &mut transaction.exchanges {
                exchange.patience = None;
            }
            self.arm(slot, out);
            return;
        }
        self.unbind_tentative(now, slot);
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        if transaction.verdict.is_empty() {
            self.fail_with(slot, own::HOME_SILENT, out);
            return;
        }
        let verb = transaction.key.verb;
        if let Some(client) = transaction.client.take() {
            out.reply(client, |bytes| bytes.extend_from_slice(&transaction.verdict));
            self.outcome(verb, 1);
        }
        self.close(slot);
    }

    /// An answer to the question who has a call.
    fn found(
        &mut self,
        now: Instant,
        slot: Slot,
        from: MemberId,
        text: &[u8],
        outcome: Outcome,
        out: &mut Outbox<C, L>,
    ) {
        let tick = self.tick(now);
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let has_it = match outcome {
            Outcome::Positive => true,
            Outcome::Zero => transaction.asks() != Verb::Lookup,
            Outcome::Error(_) => false,
        };
        if !has_it {
            // Who names another fault has the session, or would say so of any.
            if transaction.verdict.is_empty() || says_unknown(&transaction.verdict) {
                transaction.verdict.clear();
                transaction.verdict.extend_from_slice(text);
            } else if transaction.verdict != text && !says_unknown(text) {
                transaction.mixed = true;
            }
            if !transaction.is_waiting() {
                self.conclude(now, slot, out);
            }
            return;
        }
        let hash = transaction.key.hash;
        let stage = if transaction.key.ends {
            Stage::Ended
        } else {
            Stage::Bound
        };
        let fresh = self.sessions.find(tick, hash, transaction.call_id()).is_none();
        self.sessions
            .bind(tick, hash, transaction.call_id(), from, stage)
            .ok();
        if fresh {
            self.total(super::Total::SessionsBound);
        }
        let followers = self.end_question(slot);
        if self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| transaction.job == Job::Ask)
        {
            self.hand_over(slot, from, text, outcome, out);
            self.leave_late(now, slot, out);
        } else {
            self.go_home(now, slot, from, out);
        }
        self.wake_followers(now, followers, super::commands::Found::Unasked, out);
    }

    /// The home of a U has been found: the question is over, the command itself goes there.
    fn go_home(&mut self, now: Instant, slot: Slot, home: MemberId, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        transaction.job = Job::Direct;
        transaction.verdict.clear();
        transaction.give_up = now + ANSWER_WITHIN;
        // The exchanges stay in the list, since their cookies must never be used again.
        for exchange in transaction
            .exchanges
            .iter_mut()
            .filter(|exchange| exchange.fate == Fate::Waiting)
        {
            exchange.fate = Fate::Failed;
            if let Some(member) = self.members.get_mut(usize::from(exchange.member.index)) {
                member.in_flight = member.in_flight.saturating_sub(1);
            }
        }
        self.send(now, slot, home, None, out);
    }

    /// A delete that nobody waits for has been answered; the next that waits for the same member follows.
    fn quietly_done(&mut self, now: Instant, slot: Slot, from: MemberId, out: &mut Outbox<C, L>) {
        let chained = self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| transaction.chained);
        self.close(slot);
        if chained {
            self.send_deferred(now, from, out);
        }
    }

    fn probed(
        &mut self,
        now: Instant,
        slot: Slot,
        from: MemberId,
        ask: Ask,
        text: &[u8],
        out: &mut Outbox<C, L>,
    ) {
        self.close(slot);
        let Some(member) = self.member_mut(from) else {
            return;
        };
        let result = match ask {
            Ask::Version if text == b"20040107" => Probed::Version,
            Ask::Version => Probed::WrongVersion,
            Ask::Capability(number) => {
                let has = text == b"1";
                member.set_capability(number, has);
                Probed::Capability(number, has)
            }
            Ask::Counts(counted_at) => match reply::parse_info(text) {
                Some(counts) => {
                    member.heartbeat(counts, counted_at);
                    Probed::Counts(counts)
                }
                None => Probed::Odd,
            },
        };
        let answers = matches!(result, Probed::Counts(_));
        out.probed.push((from, result));
        if answers {
            // What went unanswered while nobody knew it was away.
            self.send_all_deferred(now, from, out);
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
