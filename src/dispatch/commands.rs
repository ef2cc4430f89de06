//! A client's command comes in: it is parsed, the home of its call looked up, and the route taken. Pure.

use core::time::Duration;
use std::time::Instant;

use super::attempt::{Job, Key};
use super::choose::Choice;
use super::member::Member;
use super::outbox::{Note, Outbox};
use super::pending::Slot;
use super::rewrite::{self, Origin};
use super::route::{Home, Route, route};
use super::session::{MemberId, Stage};
use super::{ANSWER_WITHIN, ASK_FOR, Dispatch, SEEK_FOR, Total};
use crate::config::model::NoMembers;
use crate::protocol::command::{self, Command, Verb};
use crate::protocol::reply::{own, write_error};

/// What a question for the home of a call came to, for the commands that waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nobody has asked.
    Unasked,
    /// Everybody says that it has no such call.
    Nobody,
    /// Nobody has it, and somebody is silent.
    Silent,
}

impl<C, L: Clone> Dispatch<C, L> {
    /// Takes one command of a client: its bytes, with or without a line end and without a cookie. The client's
    /// one reply is in `out` now or after a later event, within [`ANSWER_WITHIN`] and what asking took.
    pub fn command(&mut self, now: Instant, text: &[u8], origin: Origin, client: C, out: &mut Outbox<C, L>) {
        self.total(Total::Commands);
        match command::parse(text) {
            Ok(command) => self.take(now, now, &command, origin, client, Found::Unasked, out),
            Err(code) => {
                self.total(Total::RefusedCommands);
                out.reply(client, |bytes| write_error(code.0, bytes));
            }
        }
    }

    /// Takes a command that came at `started`: for the first time, or again when what it waited for is known.
    #[expect(clippy::too_many_arguments, reason = "a command with all that is known of it")]
    pub(super) fn take(
        &mut self,
        now: Instant,
        started: Instant,
        command: &Command<'_>,
        origin: Origin,
        client: C,
        found: Found,
        out: &mut Outbox<C, L>,
    ) {
        let hash = self.sessions.hash(command.call_id);
        let (home, id) = self.home(now, hash, command);
        let chosen = route(command, home);
        match chosen {
            Route::Version => return self.answer_version(client, out),
            Route::Info => return self.answer_info(command, client, out),
            Route::HomeLost => return self.answer(command.verb, client, own::HOME_SILENT, out),
            Route::Later => {
                if let Some(id) = id {
                    self.end(now, hash, command, id);
                    self.defer(now, id, command.text, out);
                }
                return self.answer_zero(command.verb, client, out);
            }
            _ => {}
        }
        let Some(slot) = self.open(now, started, command, hash, origin, client, out) else {
            return;
        };
        match (chosen, id) {
            (Route::Home, Some(id)) => {
                if command.ends_session {
                    self.end(now, hash, command, id);
                }
                if let Some(transaction) = self.pending.get_mut(slot) {
                    let undecided = matches!(home, Home::Online { tentative: true, .. });
                    transaction.follows = undecided && command.verb == Verb::Delete;
                }
                self.send(now, slot, id, None, out);
            }
            (Route::Join, Some(id)) => {
                self.set_job(slot, Job::Create);
                self.try_member(now, slot, id, out);
            }
            (Route::Seek, _) if found == Found::Unasked => self.ask(now, slot, Job::Seek, SEEK_FOR, out),
            (Route::Ask, _) if found == Found::Unasked => self.ask(now, slot, Job::Ask, ASK_FOR, out),
            (Route::Ask, _) => self.conclude_unfound(now, slot, found == Found::Silent, out),
            (Route::Move, Some(old)) => {
                // What the old home still has of the call is not to live on when it is back.
                let mut delete = Vec::new();
                rewrite::end_for(command, &mut delete);
                self.defer(now, old, &delete, out);
                self.create(now, slot, out);
            }
            (Route::Capability, _) => match command.number {
                Some(number) => self.ask_capability(now, slot, number, out),
                // RTPproxy compares texts: no other way of writing a number is known to it.
                None => self.finish(slot, b"0", out),
            },
            (Route::Statistics, _) => self.ask_statistics(now, slot, out),
            (Route::DeleteAll, _) => self.delete_all(now, slot, out),
            _ => self.create(now, slot, out),
        }
    }

    /// Where the call of a command is, and with whom. The table itself
    /// forgets bindings to members that have left or been restarted.
    fn home(&mut self, now: Instant, hash: u64, command: &Command<'_>) -> (Home, Option<MemberId>) {
        if command.call_id.is_empty() {
            return (Home::Unknown, None);
        }
        let tick = self.tick(now);
        let Some(mut binding) = self.sessions.find(tick, hash, command.call_id) else {
            return (Home::Unknown, None);
        };
        binding.touch(tick);
        let id = binding.member;
        let Some(member) = self
            .members
            .get(usize::from(id.index))
            .filter(|m| m.present && m.id == id)
        else {
            return (Home::Unknown, None);
        };
        if !member.online {
            return (Home::Offline, Some(id));
        }
        let ended = binding.stage == Stage::Ended;
        let home = Home::Online {
            active: member.takes_sessions(),
            ended,
            tentative: binding.stage == Stage::Tentative,
        };
        // The other leg's delete leaves it as it is; whoever goes on talking makes it whole again.
        let revives = matches!(command.verb, Verb::Update | Verb::Lookup) && !command.ends_session;
        if ended && revives && (member.takes_sessions() || command.verb == Verb::Lookup) {
            self.sessions
                .bind(tick, hash, command.call_id, id, Stage::Bound)
                .ok();
            if let Some(member) = self.member_mut(id) {
                member.took_session(now);
            }
        }
        (home, Some(id))
    }

    /// A call has been deleted: its binding is remembered a while for the other leg.
    fn end(&mut self, now: Instant, hash: u64, command: &Command<'_>, id: MemberId) {
        self.sessions
            .bind(self.tick(now), hash, command.call_id, id, Stage::Ended)
            .ok();
        self.forget_wishes(hash, command);
    }

    /// A place in flight for a client's command. When there is none, the client is told so.
    #[expect(clippy::too_many_arguments, reason = "a command with all that is known of it")]
    fn open(
        &mut self,
        now: Instant,
        started: Instant,
        command: &Command<'_>,
        hash: u64,
        origin: Origin,
        client: C,
        out: &mut Outbox<C, L>,
    ) -> Option<Slot> {
        let Some(slot) = self.pending.open(started) else {
            if let Some(commands) = self.overloaded.hit(now) {
                out.notes.push(Note::Overloaded { commands });
            }
            self.answer(command.verb, client, own::HOME_SILENT, out);
            return None;
        };
        let transaction = self.pending.get_mut(slot)?;
        transaction.job = Job::Direct;
        transaction.client = Some(client);
        transaction.origin = origin;
        transaction.rewritten = command.notify.is_some();
        transaction.key = Key::new(command, hash);
        transaction.give_up = (started + ANSWER_WITHIN).max(now);
        transaction.text.extend_from_slice(command.text);
        Some(slot)
    }

    pub(super) fn set_job(&mut self, slot: Slot, job: Job) {
        if let Some(transaction) = self.pending.get_mut(slot) {
            transaction.job = job;
        }
    }

    /// A new session: the first member is chosen and tried.
    pub(super) fn create(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        transaction.job = Job::Create;
        transaction.give_up = (transaction.started + ANSWER_WITHIN).max(now + ANSWER_WITHIN / 2);
        let call_id = core::mem::take(&mut transaction.text);
        let range = usize::from(transaction.key.call_id.start)..usize::from(transaction.key.call_id.end);
        let choice = self.choose(now, Some(slot), call_id.get(range).unwrap_or_default());
        if let Some(transaction) = self.pending.get_mut(slot) {
            transaction.text = call_id;
        }
        match choice {
            Choice::Member(index) => {
                if let Some(id) = self.members.get(index).map(|member| member.id) {
                    self.try_member(now, slot, id, out);
                }
            }
            Choice::NoneEligible => self.fail_with(slot, own::NO_ONE_ONLINE, out),
            Choice::AllFull => self.fail_with(slot, own::ALL_FULL, out),
        }
    }

    /// The next best member gets the new session too. Says whether there was one.
    pub(super) fn create_elsewhere(&mut self, now: Instant, slot: Slot, out: &mut Outbox<C, L>) -> bool {
        let tick = self.tick(now);
        let attempts_max = self.rules.failover.attempts;
        let Some(transaction) = self.pending.get_mut(slot) else {
            return false;
        };
        if transaction.attempts >= attempts_max {
            return false;
        }
        let (hash, text) = (transaction.key.hash, core::mem::take(&mut transaction.text));
        let range = usize::from(transaction.key.call_id.start)..usize::from(transaction.key.call_id.end);
        let call_id = text.get(range).unwrap_or_default();
        // Another command of the call, a second stream say, may have gone elsewhere already: they stay together.
        let moved = self
            .sessions
            .find(tick, hash, call_id)
            .map(|binding| binding.member);
        let moved = moved.filter(|id| self.member(*id).is_some_and(Member::takes_sessions));
        let tried =
            |id: MemberId, this: &mut Self| this.pending.get_mut(slot).is_none_or(|t| t.has_tried(id));
        let next = match moved {
            Some(id) if !tried(id, self) => Some(id),
            _ => match self.choose(now, Some(slot), call_id) {
                Choice::Member(index) => self.members.get(index).map(|member| member.id),
                Choice::NoneEligible | Choice::AllFull => None,
            },
        };
        if let Some(transaction) = self.pending.get_mut(slot) {
            transaction.text = text;
        }
        let Some(id) = next else { return false };
        self.total(Total::Failovers);
        self.try_member(now, slot, id, out);
        true
    }

    /// Sends a new session to a member and binds the call there until an answer says otherwise.
    fn try_member(&mut self, now: Instant, slot: Slot, id: MemberId, out: &mut Outbox<C, L>) {
        let failover = self.rules.failover;
        let tick = self.tick(now);
        let Some(member) = self.member(id) else { return };
        let in_time: Duration = member.delay.in_time(failover.timeout);
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        transaction.attempts += 1;
        let patience = (transaction.attempts < failover.attempts).then_some(in_time);
        let hash = transaction.key.hash;
        let call_id = transaction.call_id();
        let known = self
            .sessions
            .find(tick, hash, call_id)
            .map(|binding| (binding.member, binding.stage));
        if known.is_none_or(|(home, stage)| home != id || stage == Stage::Ended) {
            // A firm binding to a member that is away is replaced as well: the call moves.
            let bound = self.sessions.bind(tick, hash, call_id, id, Stage::Tentative);
            if bound.is_ok() {
                if known.is_none_or(|(_, stage)| stage == Stage::Ended) {
                    self.total(Total::SessionsBound);
                }
            } else {
                self.total(Total::SessionsUnbound);
                if let Some(calls) = self.table_full.hit(now) {
                    out.notes.push(Note::TableFull { calls });
                }
            }
            if let Some(member) = self.member_mut(id) {
                member.took_session(now);
                member.owes_delete_all = false;
            }
        }
        self.send(now, slot, id, patience, out);
    }

    /// Asks every online member: who has this call? Commands of the same call share one question.
    fn ask(&mut self, now: Instant, slot: Slot, job: Job, within: Duration, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let hash = transaction.key.hash;
        if let Some(&asker) = self.questions.get(&hash)
            && let Some(other) = self.pending.get_mut(asker)
        {
            other.followers.push(slot);
            self.set_job(slot, Job::Wait);
            self.arm(slot, out);
            return;
        }
        self.total(Total::AskedAll);
        let online = self.online();
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        transaction.job = job;
        transaction.give_up = now + within;
        if online.is_empty() {
            self.conclude(now, slot, out);
            return;
        }
        self.questions.insert(hash, slot);
        for id in online {
            self.send(now, slot, id, None, out);
        }
    }

    /// One of our own codes, to a client whose command is in flight nowhere.
    pub(super) fn answer(&mut self, verb: Verb, client: C, code: u16, out: &mut Outbox<C, L>) {
        self.outcome(verb, 2);
        if code == own::NO_ONE_ONLINE && self.rules.no_members == NoMembers::Silent {
            out.dropped.push(client);
        } else {
            out.reply(client, |bytes| write_error(code, bytes));
        }
    }

    fn answer_zero(&mut self, verb: Verb, client: C, out: &mut Outbox<C, L>) {
        self.outcome(verb, 0);
        out.reply(client, |bytes| bytes.push(b'0'));
    }

    /// Counts how a command came out: 0 positively, 1 an error of a member, 2 an error of ours.
    pub(super) fn outcome(&mut self, verb: Verb, how: usize) {
        if let Some(counter) = self
            .outcomes
            .get_mut(verb as usize)
            .and_then(|outcomes| outcomes.get_mut(how))
        {
            *counter += 1;
        }
    }

    /// A reply that carries one of our own codes.
    pub(super) fn fail_with(&mut self, slot: Slot, code: u16, out: &mut Outbox<C, L>) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let verb = transaction.key.verb;
        if let Some(client) = transaction.client.take() {
            self.answer(verb, client, code, out);
        }
        self.close(slot);
    }

    /// The transaction is over; whatever is still unanswered counts for nobody.
    pub(super) fn close(&mut self, slot: Slot) {
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        for exchange in transaction
            .exchanges
            .iter()
            .filter(|e| e.fate == super::Fate::Waiting)
        {
            if let Some(member) = self.members.get_mut(usize::from(exchange.member.index)) {
                member.in_flight = member.in_flight.saturating_sub(1);
            }
        }
        let hash = transaction.key.hash;
        if self.questions.get(&hash) == Some(&slot) {
            self.questions.remove(&hash);
        }
        self.pending.close(slot);
    }
}
