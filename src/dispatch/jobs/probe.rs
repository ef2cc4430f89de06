//! Health probes that go the way of commands. Pure.

use core::time::Duration;
use std::time::Instant;

use super::super::Dispatch;
use super::super::attempt::{Ask, Job, Transaction};
use super::super::counters::Count;
use super::super::event::Why;
use super::super::member::Member;
use super::super::outbox::{Outbox, Probed};
use super::super::session::MemberId;
use super::{Answer, Event, Next};
use crate::protocol::command::Verb;
use crate::protocol::reply;

impl<C, L: Clone> Dispatch<C, L> {
    /// A health probe. Its result comes back in [`Outbox::probed`]. False when there is no such member any more.
    pub fn probe(
        &mut self,
        now: Instant,
        id: MemberId,
        ask: Ask,
        timeout: Duration,
        out: &mut Outbox<C, L>,
    ) -> bool {
        let Some(member) = self.member_mut(id) else {
            return false;
        };
        member.count(Count::Probes);
        let (verb, text) = match ask {
            Ask::Version => (Verb::Version, "V".to_owned()),
            Ask::Capability(number) => (Verb::Capability, format!("VF {number}")),
            Ask::Counts(_) => {
                // Its load is for the `Il` of our clients; one too old for it would refuse to be asked.
                let tells_load = member.capability(20_140_323) == Some(true);
                (Verb::Info, if tells_load { "Ibl" } else { "Ib" }.to_owned())
            }
        };
        match self.open_own(now, Job::Probe(ask), verb, timeout, text.as_bytes()) {
            Some(mut t) => {
                self.send(now, &mut t, id, Why::Probed, out);
                self.settle(now, t, Next::Waits, out);
            }
            None => out.probed.push((id, Probed::Missed)),
        }
        true
    }

    pub(super) fn probing(
        &mut self,
        now: Instant,
        t: &Transaction<C>,
        ask: Ask,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        let (id, result) = match event {
            Event::Answer(answer) => (answer.from, self.probed(now, t.started, ask, answer, out)),
            // A connection that broke says less than one that cannot be had.
            Event::Failed(id) if self.member(id).is_some_and(Member::serves) => (id, Probed::Missed),
            Event::Failed(id) => (id, Probed::Refused),
            Event::GivenUp(&[id, ..]) => (id, Probed::Missed),
            Event::GivenUp(&[]) => return Next::Over,
            Event::Impatient | Event::Step => return Next::Waits,
        };
        if matches!(result, Probed::Missed | Probed::Refused) {
            self.count(id, Count::ProbesFailed);
        }
        out.probed.push((id, result));
        Next::Over
    }

    fn probed(
        &mut self,
        now: Instant,
        asked: Instant,
        ask: Ask,
        answer: Answer<'_>,
        out: &mut Outbox<C, L>,
    ) -> Probed {
        match ask {
            Ask::Version if answer.text == b"20040107" => Probed::Version,
            Ask::Version => Probed::WrongVersion,
            Ask::Capability(number) => {
                let has = answer.text == b"1";
                self.capability(answer.from, number, has);
                Probed::Capability(number, has)
            }
            Ask::Counts(_) => {
                let counts = reply::parse_info(answer.text);
                self.counted(now, answer.from, asked, counts, out);
                counts.map_or(Probed::Odd, Probed::Counts)
            }
        }
    }
}
