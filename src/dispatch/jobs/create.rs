//! A new session: a member is chosen and tried, then the next best beside it; the first positive answer of any attempt
//! wins. Pure.

use std::time::Instant;

use super::super::attempt::{Job, Transaction};
use super::super::choose::Choice;
use super::super::event::Why;
use super::super::member::Member;
use super::super::outbox::{Note, Outbox};
use super::super::rewrite;
use super::super::session::{MemberId, Stage};
use super::super::{ANSWER_WITHIN, Dispatch, Total};
use super::{Answer, Event, Next};
use crate::protocol::command::{self, Command};
use crate::protocol::reply::{self, Outcome, own};

impl<C, L: Clone> Dispatch<C, L> {
    /// The first member is chosen and tried.
    pub(in crate::dispatch) fn create(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        t.job = Job::Create;
        t.give_up = (t.started + ANSWER_WITHIN).max(now + ANSWER_WITHIN / 2);
        match self.choose(now, t) {
            Choice::Member(index) => {
                if let Some(id) = self.members.get(index).map(|member| member.id) {
                    let why = Why::Chosen(self.policy_for(now, t));
                    self.try_member(now, t, id, why, out);
                }
                Next::Waits
            }
            Choice::NoneEligible => self.fail_with(t, own::NO_ONE_ONLINE, out),
            Choice::AllFull => self.fail_with(t, own::ALL_FULL, out),
        }
    }

    /// Another command of the call is on its way to `home`: this one goes there as well, and on with it.
    pub(in crate::dispatch) fn join(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        home: MemberId,
        out: &mut Outbox<C, L>,
    ) -> Next {
        t.job = Job::Create;
        self.try_member(now, t, home, Why::Joined, out);
        Next::Waits
    }

    pub(super) fn creating(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        event: Event<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        let mut failed = None;
        match event {
            Event::Answer(answer) => match answer.outcome {
                Outcome::Positive => return self.won(now, t, answer, out),
                Outcome::Error(code) if reply::is_not_here_not_now(code) => {
                    t.verdict.clear();
                    t.verdict.extend_from_slice(answer.text);
                }
                // The fault is in the command: every member would say the same.
                Outcome::Error(_) | Outcome::Zero => {
                    self.lose(now, t, out);
                    self.hand_over(t, answer, out);
                    return self.leave_late(now, t);
                }
            },
            Event::Failed(from) => failed = Some(from),
            Event::Step => return Next::Waits,
            // Only an attempt that was waited for counts: a refusal passes the call on at once.
            Event::Impatient => {
                t.attempts += 1;
                if t.attempts >= self.rules.failover.attempts {
                    return self.lost_unless_waiting(now, t, out);
                }
            }
            Event::GivenUp(silent) => {
                let next = self.lost_unless_waiting(now, t, out);
                self.undo_unanswered(now, t, silent, out);
                return next;
            }
        }
        let next = if self.create_elsewhere(now, t, out) {
            Next::Waits
        } else {
            self.lost_unless_waiting(now, t, out)
        };
        if let Some(from) = failed {
            // The call is not to be there any more, now that it has gone elsewhere or is lost.
            self.unbind_tentative(now, t, |home| home == from);
            self.undo_unanswered(now, t, &[from], out);
        }
        next
    }

    /// The next best member gets the new session too. Says whether there was one.
    fn create_elsewhere(&mut self, now: Instant, t: &mut Transaction<C>, out: &mut Outbox<C, L>) -> bool {
        // Another command of the call, a second stream say, may have been answered or gone elsewhere already: they stay
        // together.
        let known = self.sessions.find(self.tick(now), t.key.hash, t.call_id());
        let known = known.map(|binding| (binding.member, binding.stage));
        if let Some((home, Stage::Bound)) = known
            && t.has_tried(home)
            && self.member(home).is_some_and(Member::serves)
        {
            return false;
        }
        let moved = known.map(|(home, _)| home).filter(|id| !t.has_tried(*id));
        let moved = moved.filter(|id| self.member(*id).is_some_and(Member::takes_sessions));
        let next = moved.or_else(|| match self.choose(now, t) {
            Choice::Member(index) => self.members.get(index).map(|member| member.id),
            Choice::NoneEligible | Choice::AllFull => None,
        });
        if let Some(id) = next {
            self.total(Total::Failovers);
            let before = t.exchanges.last().map_or(t.started, |exchange| exchange.sent);
            let millis = now.saturating_duration_since(before).as_millis();
            let why = Why::FailedOver {
                millis: u32::try_from(millis).unwrap_or(u32::MAX),
            };
            self.try_member(now, t, id, why, out);
        }
        next.is_some()
    }

    /// Sends a new session to a member and binds the call there until an answer says otherwise.
    fn try_member(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        id: MemberId,
        why: Why,
        out: &mut Outbox<C, L>,
    ) {
        let tick = self.tick(now);
        let (hash, call_id) = (t.key.hash, t.call_id());
        let known = self
            .sessions
            .find(tick, hash, call_id)
            .map(|found| (found.member, found.stage));
        if known.is_none_or(|(home, stage)| home != id || stage == Stage::Ended) {
            // A firm binding to a member that is away is replaced as well: the call moves.
            let bound = self.sessions.bind(tick, hash, call_id, id, Stage::Tentative);
            if bound.is_ok() {
                if known.is_none_or(|(_, stage)| stage == Stage::Ended) {
                    self.total(Total::SessionsBound);
                }
            } else {
                self.total(Total::SessionsUnbound);
                self.unbound = Some(now);
                if let Some(calls) = self.table_full.hit(now) {
                    out.notes.push(Note::TableFull { calls });
                }
            }
            if let Some(member) = self.member_mut(id) {
                member.took_session(now);
            }
            self.settle_delete_all(id);
        }
        self.send(now, t, id, why, out);
    }

    /// The first positive answer.
    fn won(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        answer: Answer<'_>,
        out: &mut Outbox<C, L>,
    ) -> Next {
        let winner = answer.from;
        let tick = self.tick(now);
        let (hash, call_id) = (t.key.hash, t.call_id());
        let known = self
            .sessions
            .find(tick, hash, call_id)
            .map(|found| (found.member, found.stage));
        if let Some((home, Stage::Bound)) = known
            && home != winner
            && self.member(home).is_some_and(Member::serves)
        {
            // Another command of the call was faster elsewhere. All of a call is on one member.
            self.end_at_old_home(now, t, Some(home), out);
            t.give_up = now + ANSWER_WITHIN / 2;
            self.undo(now, winner, &t.text, out);
            return self.send_home(now, t, home, Why::Bound, out);
        }
        let stage = if t.key.ends || t.deleted {
            Stage::Ended
        } else {
            Stage::Bound
        };
        if known != Some((winner, stage)) {
            // A full table has been told when the member was chosen.
            self.sessions.bind(tick, hash, call_id, winner, stage).ok();
        }
        if let Some(member) = self.members.get_mut(usize::from(winner.index))
            && !member.deferred.is_empty()
        {
            // An older delete of this call would now end it.
            member.deferred.retain(|deferred| {
                command::parse(&deferred.text).is_ok_and(|command| command.call_id != call_id)
            });
        }
        if let Some((home, Stage::Bound)) = known
            && home != winner
        {
            // It could not move with another command of the call, and has moved with this one.
            t.moved_from.get_or_insert((home, tick));
        }
        self.end_at_old_home(now, t, Some(winner), out);
        if t.deleted {
            // Its delete has been answered already, by a member that did not have it then.
            self.delete_created(now, winner, &t.text, out);
        } else {
            self.remember_wish(now, t, winner, out);
            self.remember_suffix(now, t, winner);
        }
        self.hand_over(t, answer, out);
        self.leave_late(now, t)
    }

    /// Nobody has taken the session: the call is at none of the members that this command tried. One that was to move is
    /// still at its old home, unless it has been deleted or has moved meanwhile.
    fn lose(&mut self, now: Instant, t: &mut Transaction<C>, out: &mut Outbox<C, L>) {
        self.unbind_tentative(now, t, |home| t.has_tried(home));
        if t.deleted {
            return self.end_at_old_home(now, t, None, out);
        }
        let (tick, hash) = (self.tick(now), t.key.hash);
        let known = self.sessions.peek(tick, hash, t.call_id());
        if let Some(home) = known.filter(|known| known.stage == Stage::Bound) {
            // It has moved with another command of the call.
            let home = home.member;
            return self.end_at_old_home(now, t, Some(home), out);
        }
        if let Some((old, born)) = t.moved_from
            && self.member(old).is_some()
            && known.is_none()
        {
            // As old as it was: if the member comes back restarted, the call is not there.
            self.sessions
                .bind(born, hash, t.call_id(), old, Stage::Bound)
                .ok();
            self.sessions.touch(tick, hash, t.call_id());
        }
    }

    /// The call has moved to `home`: what the old one still has of it is not to live on when it is back.
    fn end_at_old_home(
        &mut self,
        now: Instant,
        t: &mut Transaction<C>,
        home: Option<MemberId>,
        out: &mut Outbox<C, L>,
    ) {
        if let Some((old, _)) = t.moved_from.take()
            && Some(old) != home
            && let Ok(command) = command::parse(&t.text)
        {
            for delete in rewrite::ends_for(&command) {
                self.send_quietly(now, old, &delete, false, out);
            }
        }
    }

    /// A delete came for a call that may not have reached its member yet, or may go on to another one: whoever makes
    /// the session is to end it.
    pub(in crate::dispatch) fn delete_those_on_their_way(&mut self, hash: u64, delete: &Command<'_>) {
        let tags = [Some(delete.from_tag), delete.to_tag];
        // One without a stream's number ends all streams.
        let ends = |tag: &[u8]| {
            tags.into_iter().flatten().any(|ended| {
                let rest = tag.strip_prefix(ended);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b";"))
            })
        };
        for t in self.pending.iter_mut() {
            if t.job == Job::Create && t.key.hash == hash && t.call_id() == delete.call_id {
                t.deleted |= command::parse(&t.text).is_ok_and(|created| ends(created.from_tag));
            }
        }
    }

    /// Forgets that a call was to be at such a member.
    fn unbind_tentative(&mut self, now: Instant, t: &Transaction<C>, is_such: impl Fn(MemberId) -> bool) {
        let (tick, hash, call_id) = (self.tick(now), t.key.hash, t.call_id());
        let tentative = self
            .sessions
            .find(tick, hash, call_id)
            .is_some_and(|found| found.stage == Stage::Tentative && is_such(found.member));
        if tentative {
            self.sessions.forget(hash, call_id);
        }
    }

    /// There is no further member to go to: it is over unless one of those tried may still answer.
    fn lost_unless_waiting(&mut self, now: Instant, t: &mut Transaction<C>, out: &mut Outbox<C, L>) -> Next {
        if t.is_waiting() {
            // They have until the end now.
            for exchange in &mut t.exchanges {
                exchange.patience = None;
            }
            return Next::Waits;
        }
        self.lose(now, t, out);
        if t.verdict.is_empty() {
            return self.fail_with(t, own::HOME_SILENT, out);
        }
        self.finish_with_verdict(t, out)
    }
}
