//! The dispatcher of one cluster: events in, actions out. Pure: it knows no socket, no thread, no lock and no
//! clock; `cluster.rs` holds it under a lock, feeds it events and carries out what the [`Outbox`] says.
//!
//! | event | function | in |
//! |---|---|---|
//! | a client's command | [`Dispatch::command`] | `commands.rs` |
//! | a member's reply | [`Dispatch::reply`] | `answers.rs` |
//! | time passed | [`Dispatch::expire`] | `alarms.rs`, and for members that are lost `losses.rs` |
//! | a member's link or state changed | [`Dispatch::refused`], [`Dispatch::set_online`], … | here |
//! | the health thread wants to know | [`Dispatch::probe`] | here |
//! | an operator's change | [`Dispatch::add_member`], … | `members.rs` |
//!
//! Two types come from the rim and mean nothing here: `C`, a client that waits for one reply, and `L`, the link
//! to a member. Tests use numbers for both.

pub mod alarms;
pub mod answers;
pub mod attempt;
pub mod choose;
pub mod commands;
pub mod delay;
pub mod gather;
pub mod losses;
pub mod member;
pub mod members;
pub mod outbox;
pub mod pending;
pub mod random;
pub mod repeat;
pub mod rewrite;
pub mod route;
pub mod session;
#[cfg(test)]
mod tests;
pub mod view;

use core::time::Duration;
use std::collections::HashMap;
use std::hash::RandomState;
use std::time::Instant;

use self::attempt::{Ask, Exchange, Fate, Job, Transaction};
use self::choose::{Choice, choose};
use self::losses::Losses;
use self::member::{Count, Member};
use self::outbox::{Note, Outbox, Probed};
use self::pending::{Pending, Slot};
use self::random::Rng;
use self::rewrite::Towards;
use self::session::{MemberId, Sessions, Tick};
use crate::config::model;
use crate::dispatch::view::CLUSTER_COUNTERS;
use crate::protocol::command::{self, Verb};
use crate::protocol::cookie::Cookie;

/// A client gets an answer after this time, whatever happens; SIP servers over UDP wait 5 s in all.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long members are asked who has a call before a U starts a new one.
pub const SEEK_FOR: Duration = Duration::from_millis(300);
/// How long members are asked for other commands of an unknown call.
pub const ASK_FOR: Duration = Duration::from_secs(1);
/// Between two looks at a part of the session table for bindings that have aged out: 256 parts in 13 s.
pub const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// What may repeat with every call is told so often at most.
pub const TELL_EVERY: Duration = Duration::from_secs(60);

/// The counters of a cluster, in the order of [`CLUSTER_COUNTERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described in CLUSTER_COUNTERS")]
pub enum Total {
    Commands,
    RefusedCommands,
    Repeated,
    Failovers,
    AskedAll,
    SessionsBound,
    SessionsExpired,
    SessionsUnbound,
    ClientsAccepted,
    ClientsSlow,
    ClientsClosed,
    Notifications,
    NotificationsDropped,
}

/// Counts what would be told too often, and says when it is time.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    told: Option<Instant>,
    count: u64,
}

impl Throttle {
    /// One more; gives how many there were since the last telling when it is time to tell.
    pub(crate) fn hit(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(core::mem::take(&mut self.count))
    }

    /// `n` more that are told with the next hit.
    pub(crate) fn count_many(&mut self, n: u64) {
        self.count += n;
    }
}

/// Outcomes of commands by letter: positive, error of a member, error of ours.
pub type Outcomes = [[u64; 3]; Verb::ALL.len()];

/// The dispatcher of one cluster.
#[derive(Debug)]
pub struct Dispatch<C, L> {
    rules: model::Cluster,
    members: Vec<Member<L>>,
    orders: u64,
    generation: u16,
    sessions: Sessions,
    pending: Pending<C>,
    /// Who is looking for the home of a call, by the call-id's hash.
    questions: HashMap<u64, Slot>,
    /// Commands that wait for the first round of probes.
    early: Vec<Slot>,
    /// What was last said for the cluster to `VF n`.
    capabilities: Vec<(u64, bool)>,
    rng: Rng,
    epoch: Instant,
    next_sweep: Instant,
    losses: Losses,
    timer_at: Option<Instant>,
    table_full: Throttle,
    overloaded: Throttle,
    totals: [u64; CLUSTER_COUNTERS.len()],
    outcomes: Outcomes,
}

impl<C, L: Clone> Dispatch<C, L> {
    /// A cluster without members; `rules.members` is not looked at. `seed` decides every choice, `key` hashes
    /// call-ids and makes cookies unpredictable.
    pub fn new(now: Instant, mut rules: model::Cluster, seed: u64, key: RandomState) -> Self {
        rules.members.clear();
        Self {
            members: Vec::new(),
            orders: 0,
            generation: 0,
            sessions: Sessions::new(rules.sessions, key.clone()),
            pending: Pending::new(key),
            questions: HashMap::new(),
            early: Vec::new(),
            capabilities: Vec::new(),
            rng: Rng::from_seed(seed),
            epoch: now,
            next_sweep: now,
            losses: Losses::default(),
            timer_at: None,
            table_full: Throttle::default(),
            overloaded: Throttle::default(),
            totals: [0; CLUSTER_COUNTERS.len()],
            outcomes: Outcomes::default(),
            rules,
        }
    }

    /// Counts one more `what` of the cluster.
    pub fn total(&mut self, what: Total) {
        self.total_many(what, 1);
    }

    fn total_many(&mut self, what: Total, n: u64) {
        if let Some(counter) = self.totals.get_mut(what as usize) {
            *counter += n;
        }
    }

    fn tick(&self, now: Instant) -> Tick {
        Tick::from_elapsed(now.saturating_duration_since(self.epoch))
    }

    fn member(&self, id: MemberId) -> Option<&Member<L>> {
        self.members
            .get(usize::from(id.index))
            .filter(|member| member.present && member.id == id)
    }

    fn member_mut(&mut self, id: MemberId) -> Option<&mut Member<L>> {
        self.members
            .get_mut(usize::from(id.index))
            .filter(|member| member.present && member.id == id)
    }

    /// Members that can be asked.
    fn online(&self) -> Vec<MemberId> {
        self.members
            .iter()
            .filter(|member| member.serves())
            .map(|member| member.id)
            .collect()
    }

    /// Chooses a member for a new session, one that `slot` has not tried.
    fn choose(&mut self, now: Instant, slot: Option<Slot>, call_id: &[u8]) -> Choice {
        let ramp = self.rules.health.slow_start;
        if !ramp.is_zero() {
            for member in &mut self.members {
                member.share = slow_share(now.saturating_duration_since(member.since), ramp);
            }
        }
        let tried = slot
            .and_then(|slot| self.pending.get_mut(slot))
            .map_or(&[][..], |t| &t.exchanges[..]);
        choose(
            self.rules.policy,
            self.rules.capacity_limit,
            &self.members,
            |_, member| {
                member.takes_sessions()
                    && !tried
                        .iter()
                        .any(|tried| tried.member == member.id && !tried.asked)
            },
            call_id,
            &mut self.rng,
        )
    }

    /// Sends the text of a transaction to one member, as the next exchange.
    fn send(
        &mut self,
        now: Instant,
        slot: Slot,
        to: MemberId,
        patience: Option<Duration>,
        out: &mut Outbox<C, L>,
    ) {
        let Some(index) = self
            .pending
            .get_mut(slot)
            .and_then(|t| u16::try_from(t.exchanges.len()).ok())
        else {
            return;
        };
        let nonce = self.pending.nonce(slot, index);
        let rules = &self.rules;
        let Some(member) = self.members.get_mut(usize::from(to.index)).filter(|m| m.id == to) else {
            return;
        };
        let Some(transaction) = self.pending.get_mut(slot) else {
            return;
        };
        let pause = member.delay.first_retransmission();
        let datagram = member.config.protocol.is_datagram();
        transaction.exchanges.push(Exchange {
            member: to,
            nonce,
            sent: now,
            resend: datagram.then(|| now + pause),
            pause,
            resent: false,
            patience: patience.map(|patience| now + patience),
            fate: Fate::Waiting,
            asked: transaction.job == Job::Seek,
        });
        member.in_flight += 1;
        member.count(Count::Commands);
        let cookie = Cookie {
            slot: slot.index,
            serial: slot.short_serial(),
            index,
            nonce,
        };
        let again = transaction.job.may_repeat(transaction.key.verb);
        out.send(member.link.clone(), to, cookie, again, |bytes| {
            write_command(transaction, rules, member, bytes);
        });
        self.arm(slot, out);
    }

    /// Sets the alarm of a transaction, and wakes the timer thread if it sleeps longer than that.
    fn arm(&mut self, slot: Slot, out: &mut Outbox<C, L>) {
        if let Some(due) = self.pending.set_alarm(slot)
            && self.timer_at.is_none_or(|at| due < at)
        {
            self.timer_at = Some(due);
            out.wake_timer = true;
        }
    }

    /// Opens a transaction of our own, with no client behind it.
    fn open_own(
        &mut self,
        now: Instant,
        job: Job,
        verb: Verb,
        within: Duration,
        text: &[u8],
    ) -> Option<Slot> {
        let slot = self.pending.open(now)?;
        let transaction = self.pending.get_mut(slot)?;
        transaction.job = job;
        transaction.key.verb = verb;
        transaction.key.ends = false;
        transaction.give_up = now + within;
        transaction.text.extend_from_slice(text);
        Some(slot)
    }

    /// Sends a delete that nobody waits for; when it stays unanswered, it is kept for the member.
    fn send_quietly(
        &mut self,
        now: Instant,
        to: MemberId,
        text: &[u8],
        chained: bool,
        out: &mut Outbox<C, L>,
    ) {
        let online = self.member(to).is_some_and(Member::serves);
        let slot = online
            .then(|| self.open_own(now, Job::Quiet, Verb::Delete, ANSWER_WITHIN, text))
            .flatten();
        let Some(slot) = slot else {
            self.defer(now, to, text, out);
            return;
        };
        if let Some(transaction) = self.pending.get_mut(slot) {
            transaction.chained = chained;
        }
        self.send(now, slot, to, None, out);
    }

    /// Keeps a delete for a member until it is back.
    fn defer(&mut self, now: Instant, to: MemberId, text: &[u8], out: &mut Outbox<C, L>) {
        if let Some(member) = self.member_mut(to) {
            let deletes = member.defer(now, text);
            if deletes > 0 {
                out.notes.push(Note::DeletesDropped {
                    member: member.config.name.clone(),
                    deletes,
                });
            }
        }
    }

    /// Undoes what a U may have created at a member that lost.
    fn undo(&mut self, now: Instant, at: MemberId, text: &[u8], out: &mut Outbox<C, L>) {
        let mut delete = Vec::new();
        let Ok(command) = command::parse(text) else { return };
        rewrite::delete_for(&command, &mut delete);
        if let Some(member) = self.member_mut(at) {
            member.count(Count::Undone);
        }
        self.send_quietly(now, at, &delete, false, out);
    }

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
        let mut ask = ask;
        let (verb, text) = match &mut ask {
            Ask::Version => (Verb::Version, "V".to_owned()),
            Ask::Capability(number) => (Verb::Capability, format!("VF {number}")),
            Ask::Counts(counted_at) => {
                *counted_at = member.bound_ever();
                // Its load is for the `Il` of our clients; one too old for it would refuse to be asked.
                let tells_load = member.capability(20_140_323) == Some(true);
                (Verb::Info, if tells_load { "Ibl" } else { "Ib" }.to_owned())
            }
        };
        match self.open_own(now, Job::Probe(ask), verb, timeout, text.as_bytes()) {
            Some(slot) => self.send(now, slot, id, None, out),
            None => out.probed.push((id, Probed::Missed)),
        }
        true
    }

    /// Whether every member has been probed once.
    pub fn round_is_over(&self) -> bool {
        self.members.iter().all(|member| !member.present || member.probed)
    }
}

/// Share of its weight that a member gets `back` after it came back, with a ramp of `ramp`: it grows evenly, from
/// a hundredth, since 0 would be standby.
fn slow_share(back: Duration, ramp: Duration) -> f64 {
    (back.as_secs_f64() / ramp.as_secs_f64()).clamp(0.01, 1.0)
}

/// Prefix and port of a cluster's relay.
fn relay_of(rules: &model::Cluster) -> Option<(&str, u16)> {
    let relay = rules.disconnect_notify.as_ref()?;
    Some((relay.dest_socket_prefix.as_str(), relay.inbound_address.port()))
}

/// Writes the command of a transaction as one member is to get it.
fn write_command<C, L>(
    transaction: &Transaction<C>,
    rules: &model::Cluster,
    member: &Member<L>,
    bytes: &mut Vec<u8>,
) {
    let text = &transaction.text;
    let asking = transaction.job == Job::Seek;
    if !asking && !transaction.rewritten && member.config.lan_address.is_none() {
        bytes.extend_from_slice(text);
        return;
    }
    match command::parse(text) {
        Ok(command) if asking => rewrite::query_for(&command, bytes),
        Ok(command) => {
            let socket = command.notify.map_or(&b""[..], |notify| notify.socket);
            let relay = relay_of(rules);
            let notify = rewrite::notify_plan(socket, transaction.origin, relay, member.notifier());
            rewrite::command(
                &command,
                &Towards {
                    lan: member.config.lan_address.first(),
                    notify,
                },
                bytes,
            );
        }
        // Only what has been parsed gets here.
        Err(_) => bytes.extend_from_slice(text),
    }
}
