//! The home of a call is not known: all members are asked, by the command itself or by a `Q` before it. Commands of the
//! same call share one question. Pure.

use core::time::Duration;
use std::time::Instant;

use super::super::attempt::{Exchange, Fate, Job, Transaction};
use super::super::choose::ranked;
use super::super::commands::Asked;
use super::super::event::Why;
use super::super::member::Member;
use super::super::outbox::Outbox;
use super::super::pending::Slot;
use super::super::session::{MemberId, Stage};
use super::super::{ANSWER_WITHIN, ASK_FOR, Dispatch, SEEK_FOR, Total};
use super::{Answer, Event, Next};
use crate::config::model::Policy;
use crate::protocol::command::Verb;
use crate::protocol::reply::{Outcome, own};

/// How long a step of a question waits for those that were asked.
pub const STEP: Duration = Duration::from_millis(50);
/// Steps that ask some; the next one asks all.
const STEPS: u32 = 2;

/// Whether a member says that it has no such session, and nothing else against the command.
fn says_unknown(reply: &[u8]) -> bool {
    matches!(reply.trim_ascii(), b"0" | b"E50")
}

impl<C, L: Clone> Dispatch<C, L> {
    /// Asks every online member: who has this call? Commands of the same call wait for the same answer.
    pub(in crate::dispatch) fn ask(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        job: Job,
        out: &mut Outbox<C, L>,
    ) -> Next {
        if self.follows(t) {
            return Next::Waits;
        }
        t.job = job;
        t.give_up = now + if job == Job::Seek { SEEK_FOR } else { ASK_FOR };
        if self.online().is_empty() {
            return self.conclude(now, t, out);
        }
        self.questions.insert(t.key.hash, t.slot);
        if self.names_homes(now) {
            let ranked = ranked(&self.members, t.call_id()).into_iter();
            let ranked = ranked
                .filter_map(|at| self.members.get(at))
                .filter(|member| member.present);
            t.unasked = ranked.map(|member| member.id).collect();
        } else {
            t.unasked = self.online().into();
            t.steps = STEPS;
        }
        self.ask_further(now, t, out);
        Next::Waits
    }

    /// Whether somebody looks for the home of this call already: then this command waits for what that finds.
    pub(super) fn follows(&mut self, t: &mut Transaction<C>) -> bool {
        let asker = self.questions.get(&t.key.hash);
        let asker = asker.and_then(|asker| self.pending.get_mut(*asker));
        if let Some(asker) = asker {
            asker.followers.push(t.slot);
            t.job = Job::Wait;
            return true;
        }
        false
    }

    /// Whether calls are, as a rule, where the hash of their call-id says: new ones are put there by the policy, or were
    /// when there was no room to bind them.
    fn names_homes(&self, now: Instant) -> bool {
        let unbound = self
            .unbound
            .is_some_and(|last| now < last + self.rules.sessions.expire);
        unbound || self.rules.policy == Policy::Hash
    }

    /// The next step of a question: of the member that the hash names, then of the next two, then of all others. Who is
    /// offline is passed over.
    fn ask_further(&mut self, now: Instant, t: &mut Transaction<C>, out: &mut Outbox<C, L>) {
        while !t.unasked.is_empty() {
            let count = match t.steps {
                0 => 1,
                1 => 2,
                _ => {
                    self.total(Total::AskedAll);
                    usize::MAX
                }
            };
            let why = if t.steps < STEPS { Why::Hash } else { Why::AskedAll };
            t.steps += 1;
            let mut asked = false;
            for id in t.unasked.drain(..count.min(t.unasked.len())).collect::<Vec<_>>() {
                if self.member(id).is_some_and(Member::serves) {
                    self.send(now, t, id, why, out);
                    asked = true;
                }
            }
            if asked {
                break;
            }
        }
        t.step = (!t.unasked.is_empty()).then(|| now + STEP);
    }

    pub(super) fn asking(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        match event {
            Event::Answer(answer) => {
                let has_it = match answer.outcome {
                    Outcome::Positive => true,
                    Outcome::Zero => t.asks() != Verb::Lookup,
                    Outcome::Error(_) => false,
                };
                if has_it {
                    return self.found(now, t, answer, out);
                }
                // Who names another fault has the session, or would say so of any.
                if t.verdict.is_empty() || says_unknown(&t.verdict) {
                    t.verdict.clear();
                    t.verdict.extend_from_slice(answer.text);
                } else if t.verdict != answer.text && !says_unknown(answer.text) {
                    t.mixed = true;
                }
            }
            Event::GivenUp(_) => return self.conclude(now, t, out),
            Event::Step => self.ask_further(now, t, out),
            Event::Failed(_) | Event::Impatient => {}
        }
        if !t.is_waiting() {
            self.ask_further(now, t, out);
        }
        if t.is_waiting() {
            Next::Waits
        } else {
            self.conclude(now, t, out)
        }
    }

    /// A command that waits for another one's question.
    pub(super) fn waiting(
        &mut self,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        match event {
            Event::GivenUp(_) => self.fail_with(t, own::SOME_SILENT, out),
            Event::Answer(_) | Event::Failed(_) | Event::Impatient | Event::Step => Next::Waits,
        }
    }

    /// A member has the call.
    fn found(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        answer: Answer<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        let (tick, hash, from) = (self.tick(now), t.key.hash, answer.from);
        let stage = if t.key.ends { Stage::Ended } else { Stage::Bound };
        let fresh = self.sessions.find(tick, hash, t.call_id()).is_none();
        self.sessions.bind(tick, hash, t.call_id(), from, stage).ok();
        if fresh {
            self.total(Total::SessionsBound);
        }
        (t.step, t.steps) = (None, 0);
        t.unasked.clear();
        let followers = self.end_question(t);
        let next = if t.job == Job::Ask {
            self.hand_over(t, answer, out);
            self.leave_late(now, t)
        } else {
            self.go_home(now, t, from, out)
        };
        self.wake_followers(now, followers, Asked::Not, out);
        next
    }

    /// The home of a U has been found: the question is over, the command itself goes there.
    fn go_home(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        home: MemberId,
        out: &mut Outbox<C, L>,
    ) -> Next {
        t.verdict.clear();
        t.give_up = now + ANSWER_WITHIN;
        self.abandon(t);
        self.send_home(now, t, home, Why::Found, out)
    }

    /// Nobody who was asked has the call.
    fn conclude(&mut self, now: Instant, t: &mut Transaction<C>, out: &mut Outbox<C, L>) -> Next {
        let silent = t.exchanges.iter().any(|exchange| exchange.fate != Fate::Answered);
        t.step = None;
        let followers = self.end_question(t);
        let next = if t.job == Job::Seek {
            t.verdict.clear();
            self.create(now, t, out)
        } else {
            self.conclude_unfound(now, t, silent, out)
        };
        let asked = if silent { Asked::Silent } else { Asked::Nobody };
        self.wake_followers(now, followers, asked, out);
        next
    }

    /// The answer to a command whose call nobody has.
    pub(in crate::dispatch) fn conclude_unfound(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        silent: bool,
        out: &mut Outbox<C, L>,
    ) -> Next {
        // Who has not said that it has no such call may have it: also one that has come back since others were asked. A
        // follower of somebody else's question does not know who was silent.
        let may_have_it = |member: &&Member<L>| {
            let answered = |e: &Exchange| e.member == member.id && e.fate == Fate::Answered;
            let unheard = if t.exchanges.is_empty() {
                silent || !member.online
            } else {
                !t.exchanges.iter().any(answered)
            };
            member.present && unheard
        };
        let late: Vec<MemberId> = self.members.iter().filter(may_have_it).map(|m| m.id).collect();
        let nobody = self.online().is_empty();
        let code = if nobody {
            own::NO_ONE_ONLINE
        } else if silent {
            own::SOME_SILENT
        } else {
            own::NOBODY_HAS_IT
        };
        match t.key.verb {
            Verb::Delete if !late.is_empty() => {
                for id in late {
                    self.defer(now, id, &t.text, out);
                }
                self.finish(t, b"0", out)
            }
            // An error is about the command, and so is everybody's; `0` is about the call.
            Verb::Lookup if !nobody && (t.mixed || t.verdict.first() != Some(&b'E')) => {
                self.finish(t, b"0", out)
            }
            Verb::Lookup if !nobody => self.finish_with_verdict(t, out),
            // Who names a fault has the session; the silent ones would say nothing else than that they have not.
            _ if !t.verdict.is_empty() && !t.mixed && (!silent || !says_unknown(&t.verdict)) => {
                self.finish_with_verdict(t, out)
            }
            // A follower of somebody else's question: what that found is what a member would say.
            _ if t.exchanges.is_empty() && !nobody && !silent => self.finish(t, b"E50", out),
            _ => self.fail_with(t, code, out),
        }
    }

    /// Nobody may join this question any more. Gives who has.
    pub(in crate::dispatch) fn end_question(&mut self, t: &mut Transaction<C>) -> Vec<Slot> {
        if self.questions.get(&t.key.hash) == Some(&t.slot) {
            self.questions.remove(&t.key.hash);
        }
        core::mem::take(&mut t.followers)
    }

    /// Commands that waited for a question are routed with what it found.
    pub(in crate::dispatch) fn wake_followers(
        &mut self,
        now: Instant,
        followers: Vec<Slot>,
        asked: Asked,
        out: &mut Outbox<C, L>,
    ) {
        for slot in followers {
            if self.pending.get(slot).is_some_and(|t| t.job == Job::Wait)
                && let Some(t) = self.pending.take(slot)
            {
                self.settle(now, t, Next::Again(asked), out);
            }
        }
    }
}
