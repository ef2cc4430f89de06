//! `VF`: a capability is there when every online member says so. Pure.

use core::time::Duration;
use std::time::Instant;

use super::super::Dispatch;
use super::super::attempt::{Job, Transaction};
use super::super::event::Why;
use super::super::outbox::Outbox;
use super::super::session::MemberId;
use super::statistics::GATHER_FOR;
use super::{Event, Next};
use crate::protocol::command;

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
    /// From what is known, or asked of those who have not said yet.
    pub(in crate::dispatch) fn ask_capability(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        number: u64,
        out: &mut Outbox<C, L>,
    ) -> Next {
        t.job = Job::Capability;
        if ALWAYS.contains(&number) {
            return self.finish(t, b"1", out);
        }
        if !self.round_is_over() {
            t.give_up = now + FIRST_ROUND;
            self.early.push(t.slot);
            return Next::Waits;
        }
        let unknown = self
            .members
            .iter()
            .filter(|member| member.serves() && member.capability(number).is_none());
        let unknown: Vec<MemberId> = unknown.map(|member| member.id).collect();
        if unknown.is_empty() {
            return self.conclude_capability(t, number, out);
        }
        t.give_up = now + GATHER_FOR;
        for id in unknown {
            self.send(now, t, id, Why::AskedAll, out);
        }
        Next::Waits
    }

    /// Commands that waited for the first round of probes go on when it is over.
    pub(in crate::dispatch) fn look_at_early(&mut self, now: Instant, out: &mut Outbox<C, L>) {
        if self.early.is_empty() || !self.round_is_over() {
            return;
        }
        for slot in core::mem::take(&mut self.early) {
            if let Some(mut t) = self.pending.take(slot) {
                let number = number_of(&t);
                let next = self.ask_capability(now, &mut t, number, out);
                self.settle(now, t, next, out);
            }
        }
    }

    pub(super) fn capability_asked(
        &mut self,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        let number = number_of(t);
        if let Event::Answer(answer) = event {
            self.capability(answer.from, number, answer.text == b"1");
        }
        if t.is_waiting() {
            Next::Waits
        } else {
            self.conclude_capability(t, number, out)
        }
    }

    /// A capability is there when every online member has said so; with nobody online, what was last known.
    fn conclude_capability(&mut self, t: &mut Transaction<C>, number: u64, out: &mut Outbox<C, L>) -> Next {
        self.early.retain(|early| *early != t.slot);
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
        self.finish(t, if has { b"1" } else { b"0" }, out)
    }
}

/// What a `VF` asks for; only one that has a number is asked.
fn number_of<C>(t: &Transaction<C>) -> u64 {
    let command = command::parse(&t.text).ok();
    command.and_then(|command| command.number).unwrap_or_default()
}
