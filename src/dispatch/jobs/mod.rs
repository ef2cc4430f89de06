//! What commands in flight are for: a file for each job says what happens when a member answers, cannot be asked, has had
//! its time, or all is given up. A handler gets the transaction itself, which nothing else reaches meanwhile, and says
//! with a [`Next`] what becomes of it. Pure.

pub mod ask;
pub mod capability;
mod create;
pub(super) mod delete_all;
mod direct;
mod late;
mod look_up;
mod quiet;
pub mod statistics;

use std::time::Instant;

use super::Dispatch;
use super::attempt::{Job, Replied, Transaction};
use super::commands::Asked;
use super::outbox::Outbox;
use super::pending::Slot;
use super::rewrite::{self, Addresses};
use super::session::MemberId;
use crate::protocol::command::{self, Verb};
use crate::protocol::reply::Outcome;

/// A member's reply to an exchange of a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    /// The member.
    pub(super) from: MemberId,
    /// Its words.
    pub(super) text: &'a [u8],
    /// What they come to.
    pub(super) outcome: Outcome,
}

/// What happens to a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// A member answers.
    Answer(Answer<'a>),
    /// A member cannot be asked: its socket refuses, its connection broke, it went offline.
    Failed(MemberId),
    /// A member has had its time. It may still answer.
    Impatient,
    /// It is time for the next step of a question.
    Step,
    /// The time of the transaction is up; these members never answered.
    GivenUp(&'a [MemberId]),
}

/// What becomes of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It waits for what is still to come.
    Waits,
    /// It is over.
    Over,
    /// Its command is routed once more, as if it came now, with its client and its deadline.
    Again(Asked),
}

impl<C, L: Clone> Dispatch<C, L> {
    /// Something happens to the transaction of that slot.
    pub(super) fn happen(&mut self, now: Instant, slot: Slot, event: Event<'_>, out: &mut Outbox<C, L>) {
        if let Some(mut t) = self.pending.take(slot) {
            let next = self.next(now, &mut t, event, out);
            self.settle(now, t, next, out);
        }
    }

    /// The job of a transaction deals with what happens to it.
    pub(super) fn next(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        match t.job {
            Job::Idle => Next::Over,
            Job::Direct => self.direct(now, t, event, out),
            Job::Create => self.creating(now, t, event, out),
            Job::Late => self.late(now, t, event, out),
            Job::Seek | Job::Ask => self.asking(now, t, event, out),
            Job::LookUp => self.looking_up(event),
            Job::Wait => self.waiting(t, event, out),
            Job::Capability => self.capability_asked(t, event, out),
            Job::Statistics => self.statistics_asked(t, event, out),
            Job::DeleteAll => self.deleting_all(t, event, out),
            Job::Quiet => self.quiet(now, t, event, out),
        }
    }

    /// Writes a member's reply to the client.
    fn hand_over(&mut self, t: &mut Transaction<C>, answer: Answer<'_>, out: &mut Outbox<C, L>) {
        let Answer { from, text, outcome } = answer;
        let config = self
            .members
            .get(usize::from(from.index))
            .map(|member| &member.config);
        let wan: Addresses = config
            .iter()
            .flat_map(|config| config.wan_address.addresses())
            .collect();
        let lan = config
            .iter()
            .flat_map(|config| config.lan_address.addresses())
            .collect();
        let verb = t.key.verb;
        if let Some(client) = t.client.take() {
            let rewrites = !wan.is_empty() && matches!(verb, Verb::Update | Verb::Lookup);
            let reply = out.reply(client, |bytes| match command::parse(&t.text) {
                Ok(command) if rewrites => rewrite::reply(&command, text, wan, lan, bytes),
                _ => bytes.extend_from_slice(text),
            });
            t.replied = Some(Replied {
                reply,
                by: Some(from),
            });
            self.outcome(verb, usize::from(matches!(outcome, Outcome::Error(_))));
        }
    }

    /// Answers with a member's word, or with `0`: it is over.
    pub(super) fn finish(&mut self, t: &mut Transaction<C>, text: &[u8], out: &mut Outbox<C, L>) -> Next {
        if let Some(client) = t.client.take() {
            let reply = out.reply(client, |bytes| bytes.extend_from_slice(text));
            t.replied = Some(Replied { reply, by: None });
            self.outcome(t.key.verb, usize::from(text.first() == Some(&b'E')));
        }
        Next::Over
    }

    /// Answers with the best that members have said so far.
    fn finish_with_verdict(&mut self, t: &mut Transaction<C>, out: &mut Outbox<C, L>) -> Next {
        let verdict = core::mem::take(&mut t.verdict);
        self.finish(t, &verdict, out)
    }

    /// Answers with one of our own codes: it is over.
    fn fail_with(&mut self, t: &mut Transaction<C>, code: u16, out: &mut Outbox<C, L>) -> Next {
        if let Some(client) = t.client.take() {
            let reply = self.answer(t.key.verb, client, code, out);
            t.replied = reply.map(|reply| Replied { reply, by: None });
        }
        Next::Over
    }
}
