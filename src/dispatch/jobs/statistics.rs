//! `G`: asked of all members, summed. And `V` and `I`, which are answered from what is known. Pure.

use core::time::Duration;
use std::time::Instant;

use super::super::Dispatch;
use super::super::attempt::{Job, Transaction};
use super::super::event::Why;
use super::super::outbox::Outbox;
use super::{Answer, Event, Next};
use crate::protocol::command::{Command, Verb};
use crate::protocol::reply::{self, Outcome, SessionCounts, Statistics, own};

/// How long members are asked for statistics or capabilities.
pub const GATHER_FOR: Duration = Duration::from_secs(1);

impl<C, L: Clone> Dispatch<C, L> {
    pub(in crate::dispatch) fn answer_version(&mut self, client: C, out: &mut Outbox<C, L>) -> usize {
        self.outcome(Verb::Version, 0);
        out.reply(client, |bytes| bytes.extend_from_slice(b"20040107"))
    }

    /// Sums over the newest heartbeats of the online members.
    pub(in crate::dispatch) fn answer_info(
        &mut self,
        command: &Command<'_>,
        client: C,
        out: &mut Outbox<C, L>,
    ) -> usize {
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
        })
    }

    pub(in crate::dispatch) fn ask_statistics(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        self.ask_everybody(now, t, Job::Statistics, GATHER_FOR, out);
        self.statistics_unless_waiting(t, out)
    }

    /// Sends the command to every online member.
    pub(super) fn ask_everybody(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        job: Job,
        within: Duration,
        out: &mut Outbox<C, L>,
    ) {
        t.job = job;
        t.give_up = now + within;
        for id in self.online() {
            self.send(now, t, id, Why::AskedAll, out);
        }
    }

    pub(super) fn statistics_asked(
        &mut self,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        if let Event::Answer(Answer { from, text, outcome }) = event {
            if matches!(outcome, Outcome::Error(_)) {
                t.mixed |= !t.verdict.is_empty() && t.verdict != text;
                t.verdict.clear();
                t.verdict.extend_from_slice(text);
            } else if let (Some(statistics), Some(member)) = (Statistics::parse(text), self.member_mut(from))
            {
                member.set_statistics(&t.text, statistics);
            }
        }
        self.statistics_unless_waiting(t, out)
    }

    /// Sums what the members said; one that is silent or away counts with what it said last. One that refuses the
    /// command does not spoil the sum of the others; when all do, their word is the answer.
    fn statistics_unless_waiting(&mut self, t: &mut Transaction<C>, out: &mut Outbox<C, L>) -> Next {
        if t.is_waiting() {
            return Next::Waits;
        }
        let present = self.members.iter().filter(|member| member.present);
        let known = present.filter_map(|member| member.statistics(&t.text));
        if let Some(sum) = Statistics::sum(known) {
            let mut text = Vec::new();
            sum.write(&mut text);
            self.finish(t, &text, out)
        } else if t.mixed {
            self.fail_with(t, own::STATISTICS_FAILED, out)
        } else if t.verdict.is_empty() {
            self.fail_with(t, own::STATISTICS_UNKNOWN, out)
        } else {
            self.finish_with_verdict(t, out)
        }
    }
}
