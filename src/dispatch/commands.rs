//! A client's command comes in: it is parsed, the home of its call looked up, and the route taken. Pure.

use std::time::Instant;

use super::attempt::{Job, Key, Transaction};
use super::event::Why;
use super::outbox::{Note, Outbox};
use super::rewrite::{self, Origin};
use super::route::{Home, Route, route};
use super::session::{MemberId, Stage};
use super::{ANSWER_WITHIN, Dispatch, Total, traced};
use crate::config::model::NoMembers;
use crate::protocol::command::{self, Command, Verb};
use crate::protocol::reply::{is_error, own, write_error};

/// What asking for the home of a call has come to, for the commands that waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nobody has asked.
    Not,
    /// Other dispatchers may have bound it, and that has been looked up, or took too long.
    LookedUp,
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
        // An error reply that comes over a network was made by somebody who took ours for a command: an answer to it would
        // go to and fro for ever.
        if origin != Origin::Unix && is_error(text) {
            self.total(Total::RefusedCommands);
            out.dropped.push(client);
            return;
        }
        match command::parse(text) {
            Ok(command) => {
                out.trace_received(text, command.call_id);
                self.route(now, now, &command, origin, client, Asked::Not, out);
            }
            Err(code) => {
                self.total(Total::RefusedCommands);
                out.trace_received(text, b"");
                let reply = out.reply(client, |bytes| write_error(code.0, bytes));
                let refused = traced::Command {
                    started: now,
                    call_id: b"",
                    text,
                };
                self.answered_at_once(now, refused, Some(reply), out);
            }
        }
    }

    /// Takes a command that came at `started`: for the first time, or again when what it waited for is known.
    #[expect(clippy::too_many_arguments, reason = "a command with all that is known of it")]
    pub(super) fn route(
        &mut self,
        now: Instant,
        started: Instant,
        command: &Command<'_>,
        origin: Origin,
        client: C,
        asked: Asked,
        out: &mut Outbox<C, L>,
    ) {
        let hash = self.sessions.hash(command.call_id);
        let (home, id) = self.home(now, hash, command);
        let chosen = route(command, home);
        let told = traced::Command {
            started,
            call_id: command.call_id,
            text: command.text,
        };
        match chosen {
            Route::Version => {
                let reply = self.answer_version(client, out);
                return self.answered_at_once(now, told, Some(reply), out);
            }
            Route::Info => {
                let reply = self.answer_info(command, client, out);
                return self.answered_at_once(now, told, Some(reply), out);
            }
            Route::HomeLost => {
                let reply = self.answer(command.verb, client, own::HOME_SILENT, out);
                return self.answered_at_once(now, told, reply, out);
            }
            Route::Later => {
                if let Some(id) = id {
                    self.end(now, hash, command, id);
                    self.defer(now, id, command.text, out);
                }
                let reply = self.answer_zero(command.verb, client, out);
                return self.answered_at_once(now, told, Some(reply), out);
            }
            _ => {}
        }
        let Some(mut t) = self.open(now, started, command, hash, origin) else {
            if let Some(commands) = self.overloaded.hit(now) {
                out.notes.push(Note::Overloaded { commands });
            }
            let reply = self.answer(command.verb, client, own::HOME_SILENT, out);
            return self.answered_at_once(now, told, reply, out);
        };
        if out.tracing {
            t.who.clone_from(&out.who);
        }
        t.client = Some(client);
        let is_unasked = matches!(asked, Asked::Not | Asked::LookedUp);
        let next = match (chosen, id) {
            (Route::Seek | Route::Ask | Route::Create, _)
                if asked == Asked::Not && home == Home::Unknown && self.looks_up(command) =>
            {
                self.look_up(now, &mut t, out)
            }
            (Route::Home, Some(id)) => {
                if command.ends_session {
                    self.end(now, hash, command, id);
                }
                let tick = self.tick(now);
                let born = self
                    .sessions
                    .peek(tick, hash, command.call_id)
                    .map(|known| known.born);
                // What the call began with is answered, or given up and forgotten, in twice the time of a command.
                let is_young = born.is_some_and(|born| tick.since(born) <= 2 * ANSWER_WITHIN);
                if command.verb == Verb::Delete
                    && matches!(home, Home::Online { ended, tentative, .. } if ended || tentative || is_young)
                {
                    self.delete_those_on_their_way(hash, command);
                }
                self.send_home(now, &mut t, id, Why::Bound, out)
            }
            (Route::Join, Some(id)) => self.join(now, &mut t, id, out),
            (Route::Seek, _) if is_unasked => self.ask(now, &mut t, Job::Seek, out),
            (Route::Ask, _) if is_unasked => {
                if command.verb == Verb::Delete {
                    self.delete_those_on_their_way(hash, command);
                }
                self.ask(now, &mut t, Job::Ask, out)
            }
            (Route::Ask, _) => self.conclude_unfound(now, &mut t, asked == Asked::Silent, out),
            (Route::Move, Some(old)) => {
                let known = self.sessions.peek(self.tick(now), hash, command.call_id);
                t.moved_from = known.map(|binding| (old, binding.born));
                self.create(now, &mut t, out)
            }
            (Route::Capability, _) => match command.number {
                Some(number) => self.ask_capability(now, &mut t, number, out),
                // RTPproxy compares texts: no other way of writing a number is known to it.
                None => self.finish(&mut t, b"0", out),
            },
            (Route::Statistics, _) => self.ask_statistics(now, &mut t, out),
            (Route::DeleteAll, _) => self.delete_all(now, &mut t, out),
            _ => self.create(now, &mut t, out),
        };
        self.settle(now, t, next, out);
    }

    /// Where the call of a command is, and with whom. The table itself
    /// forgets bindings to members that have left or been restarted.
    fn home(&mut self, now: Instant, hash: u64, command: &Command<'_>) -> (Home, Option<MemberId>) {
        if command.call_id.is_empty() {
            return (Home::Unknown, None);
        }
        let tick = self.tick(now);
        let Some(binding) = self.sessions.touch(tick, hash, command.call_id) else {
            return (Home::Unknown, None);
        };
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
        let goes_on =
            command.verb == Verb::Lookup || command.verb == Verb::Update && command.to_tag.is_some();
        let revives = goes_on && !command.ends_session;
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

    /// A place in flight for a client's command.
    fn open(
        &mut self,
        now: Instant,
        started: Instant,
        command: &Command<'_>,
        hash: u64,
        origin: Origin,
    ) -> Option<Box<Transaction<C>>> {
        let mut t = self.pending.open(started)?;
        t.origin = origin;
        t.rewritten = command.notify.is_some();
        t.key = Key::new(command, hash);
        t.give_up = (started + ANSWER_WITHIN).max(now);
        t.text.extend_from_slice(command.text);
        if command.notify.is_none() && rewrite::has_tags(command) {
            self.recall_suffix(now, &mut t);
        }
        Some(t)
    }

    /// One of our own codes to a client; the number of the reply, if it gets one.
    pub(super) fn answer(
        &mut self,
        verb: Verb,
        client: C,
        code: u16,
        out: &mut Outbox<C, L>,
    ) -> Option<usize> {
        self.outcome(verb, 2);
        if code == own::NO_ONE_ONLINE && self.rules.no_members == NoMembers::Silent {
            out.dropped.push(client);
            None
        } else {
            Some(out.reply(client, |bytes| write_error(code, bytes)))
        }
    }

    fn answer_zero(&mut self, verb: Verb, client: C, out: &mut Outbox<C, L>) -> usize {
        self.outcome(verb, 0);
        out.reply(client, |bytes| bytes.push(b'0'))
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
}
