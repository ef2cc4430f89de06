//! Commands that mean the whole cluster: `V`, `VF`, `I`, `G` and `X`. Some are answered from what is known,
//! the others asked of every member and put together. Pure.

use core::time::Duration;
use std::time::Instant;

use super::attempt::{Fate, Job};
use super::outbox::Outbox;
use super::pending::Slot;
use super::session::MemberId;
use super::{ANSWER_WITHIN, Dispatch};
use crate::protocol::command::{Command, Verb};
use crate::protocol::reply::{self, Outcome, SessionCounts, Statistics, own};

/// How long members are asked for statistics or capabilities.
pub const GATHER_FOR: Duration = Duration::from_secs(1);
/// How long `VF` waits for the first round of probes: a `0` would stick at the SIP server for a minute.
pub const FIRST_ROUND: Duration = Duration::from_secs(2);
/// What we serve whoever the members are.
const ALWAYS: [u64; 2] = [20_040_107, 20_050_322];
/// What RTPproxies of today can do, for when nobody is online to ask; the two kinds of notification need a
/// member that says so.
const USUAL: [u64; 17] = [
    20_060_704, 20_071_116, 20_071_218, 20_080_403, 20_081_102, 20_090_810, 20_140_323, 20_141_004,
    20_150_330, 20_150_420, 20_191_015, 20_200_226, 20_230_314, 20_251_015, 20_260_306, 20_260_308,
    20_260_309,
];
/// Capabilities whose last answer is remembered.
const REMEMBERED: usize = 64;

impl<C, L: Clone> Dispatch<C, L> {
    pub(super) fn answer_version(&mut self, client: C, out: &mut Outbox<C, L>) {
        self.outcome(Verb::Version, 0);
        out.reply(client, |bytes| bytes.extend_from_slice(b"20040107"));
    }

    /// Sums over the newest heartbeats of the online members.
    pub(super) fn answer_info(&mut self, command: &Command<'_>, client: C, out: &mut Outbox<C, L>) {
        let mut sum = SessionCounts::default();
        let mut loads = 0.0;
        let mut weights = 0.0;
        for counts in self
            .members
            .iter()
            .filter(|member| member.serves())
            .filter_map(|m| m.load.counts())
        {
            sum.created = sum.created.saturating_add(counts.created);
            sum.active = sum.active.saturating_add(counts.active);
            sum.streams = sum.streams.saturating_add(counts.streams);
            sum.received = sum.received.saturating_add(counts.received);
            sum.transmitted = sum.transmitted.saturating_add(counts.transmitted);
            #[expect(clippy::cast_precision_loss, reason = "a weight in a mean")]
            let weight = counts.active as f64;
            loads += counts.load.unwrap_or(0.0) * weight;
            weights += weight;
        }
        let wants_load = command
            .modifiers
            .iter()
            .any(|letter| letter.eq_ignore_ascii_case(&b'l'));
        sum.load = wants_load.then_some(if weights > 0.0 { loads / weights } else { 0.0 });
        self.outcome(Verb::Info, 0);
        // The last line end is the reply's own.
        out.reply(client, |bytes| {
            reply::write_info(&sum, bytes);
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
        });
    }

    /// `VF n`: from what is known, or asked of those who have not said yet.
    pub(super) fn ask_capability(&mut self, now: Instant, slot: Slot, number: u64, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        transaction.job = Job::Capability;
        if ALWAYS.contains(&number) {
            self.finish(slot, b"1", out);
            return;
        }
        if !self.round_is_over() {
            if let Some(transaction) = self.pending.get_mut(slot) {
                transaction.give_up = now + FIRST_ROUND;
            }
            self.early.push(slot);
            self.arm(slot, out);
            return;
        }
        let unknown: Vec<MemberId> = self
            .members
            .iter()
            .filter(|member| member.serves() && member.capability(number).is_none())
            .map(|member| member.id)
            .collect();
        if unknown.is_empty() {
            self.conclude_capability(slot, out);
            return;
        }
        if let Some(transaction) = self.pending.get_mut(slot) {
            transaction.give_up = now + GATHER_FOR;
        }
        for id in unknown {
            self.send(now, slot, id, None, out);
        }
    }

    /// Commands that waited for the first round of probes go on when it is over.
    pub(super) fn look_at_early(&mut self, now: Instant, out: &mut Outbox<C, L>) {
        if self.early.is_empty() || !self.round_is_over() {
            return;
        }
        for slot in core::mem::take(&mut self.early) {
            if let Some(number) = self.capability_asked(slot) {
                self.ask_capability(now, slot, number, out);
            }
        }
    }

    fn capability_asked(&mut self, slot: Slot) -> Option<u64> {
        let transaction = self.pending.get_mut(slot)?;
        crate::protocol::command::parse(&transaction.text).ok()?.number
    }

    pub(super) fn capability_said(
        &mut self,
        slot: Slot,
        from: MemberId,
        text: &[u8],
        out: &mut Outbox<C, L>,
    ) {
        let number = self.capability_asked(slot);
        if let (Some(number), Some(member)) = (number, self.member_mut(from)) {
            member.set_capability(number, text == b"1");
        }
        if self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| !transaction.is_waiting())
        {
            self.conclude_capability(slot, out);
        }
    }

    /// A capability is there when every online member has said so; with nobody online, what was last known.
    pub(super) fn conclude_capability(&mut self, slot: Slot, out: &mut Outbox<C, L>) {
        self.early.retain(|early| *early != slot);
        let Some(number) = self.capability_asked(slot) else {
            return;
        };
        let mut online = self.members.iter().filter(|member| member.serves()).peekable();
        let has = if online.peek().is_some() {
            let has = online.all(|member| member.capability(number) == Some(true));
            self.capabilities.retain(|(known, _)| *known != number);
            if self.capabilities.len() >= REMEMBERED {
                self.capabilities.remove(0);
            }
            self.capabilities.push((number, has));
            has
        } else {
            let known = self.capabilities.iter().find(|(known, _)| *known == number);
            known.map_or_else(|| USUAL.contains(&number), |(_, has)| *has)
        };
        self.finish(slot, if has { b"1" } else { b"0" }, out);
    }

    pub(super) fn ask_statistics(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) {
        self.ask_everybody(now, slot, Job::Statistics, GATHER_FOR, out);
        if self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| !transaction.is_waiting())
        {
            self.conclude_statistics(slot, out);
        }
    }

    fn ask_everybody(
        &mut self,
        now: Instant,
        slot: Slot,
        job: Job,
        within: Duration,
        out: &mut Outbox<C, L>,
    ) {
        if let Some(transaction) = self.pending.get_mut(slot) {
            transaction.job = job;
            transaction.give_up = now + within;
        }
        for id in self.online() {
            self.send(now, slot, id, None, out);
        }
    }

    pub(super) fn statistics_said(
        &mut self,
        slot: Slot,
        from: MemberId,
        text: &[u8],
        outcome: Outcome,
        out: &mut Outbox<C, L>,
    ) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        if matches!(outcome, Outcome::Error(_)) {
            transaction.mixed |= !transaction.verdict.is_empty() && transaction.verdict != text;
            transaction.verdict.clear();
            transaction.verdict.extend_from_slice(text);
        } else if let Some(statistics) = Statistics::parse(text) {
            let names = core::mem::take(&mut transaction.text);
            if let Some(member) = self.member_mut(from) {
                member.set_statistics(&names, statistics);
            }
            if let Some(transaction) = self.pending.get_mut(slot) {
                transaction.text = names;
            }
        }
        if self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| !transaction.is_waiting())
        {
            self.conclude_statistics(slot, out);
        }
    }

    /// Sums what the members said; one that is silent or away counts with what it said last. One that refuses the
    /// command does not spoil the sum of the others; when all do, their word is the answer.
    pub(super) fn conclude_statistics(&mut self, slot: Slot, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let known = self
            .members
            .iter()
            .filter(|m| m.present)
            .filter_map(|m| m.statistics(&transaction.text));
        let sum = Statistics::sum(known);
        let mut text = Vec::new();
        if let Some(sum) = sum {
            sum.write(&mut text);
        } else if transaction.mixed {
            self.fail_with(slot, own::STATISTICS_FAILED, out);
            return;
        } else if !transaction.verdict.is_empty() {
            text.clone_from(&transaction.verdict);
        } else {
            self.fail_with(slot, own::STATISTICS_UNKNOWN, out);
            return;
        }
        self.finish(slot, &text, out);
    }

    /// `X`: every member forgets all, and so do we.
    pub(super) fn delete_all(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) {
        self.sessions.clear();
        for member in self.members.iter_mut().filter(|member| member.present) {
            member.deferred.clear();
            member.owes_delete_all = true;
        }
        self.ask_everybody(now, slot, Job::DeleteAll, ANSWER_WITHIN, out);
        if self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| !transaction.is_waiting())
        {
            self.conclude_delete_all(slot, out);
        }
    }

    pub(super) fn all_deleted(
        &mut self,
        slot: Slot,
        from: MemberId,
        outcome: Outcome,
        out: &mut Outbox<C, L>,
    ) {
        if !matches!(outcome, Outcome::Error(_))
            && let Some(member) = self.member_mut(from)
        {
            member.owes_delete_all = false;
        }
        if self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| !transaction.is_waiting())
        {
            self.conclude_delete_all(slot, out);
        }
    }

    pub(super) fn conclude_delete_all(&mut self, slot: Slot, out: &mut Outbox<C, L>) {
        let owed = self
            .members
            .iter()
            .any(|member| member.serves() && member.owes_delete_all);
        let unanswered = self
            .pending
            .get_mut(slot)
            .is_some_and(|transaction| transaction.exchanges.iter().any(|e| e.fate != Fate::Answered));
        if owed || unanswered {
            self.fail_with(slot, own::HOME_SILENT, out);
        } else {
            self.finish(slot, b"0", out);
        }
    }

    /// A member that missed an `X` is back.
    pub(super) fn send_delete_all_late(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) {
        if let Some(slot) = self.open_own(now, Job::DeleteAll, Verb::DeleteAll, ANSWER_WITHIN, b"X") {
            self.send(now, slot, id, None, out);
        }
    }
}
