//! The dispatcher of one cluster: events in, actions out. Pure: it knows no socket, no thread, no lock and no
//! clock; `cluster.rs` holds it under a lock, feeds it events and carries out what the [`Outbox`] says.
//!
//! | event | function | in |
//! |---|---|---|
//! | a client's command | [`Dispatch::command`] | `commands.rs` |
//! | a member's reply | [`Dispatch::reply`] | `answers.rs` |
//! | time passed | [`Dispatch::expire`] | `alarms.rs`, and for members that are lost `losses.rs` |
//! | a member's link or state changed | [`Dispatch::refused`], [`Dispatch::set_online`], … | `alarms.rs` |
//! | who watches over a member has learned something | [`Dispatch::counted`], [`Dispatch::capability`], … | here |
//! | an operator's change | [`Dispatch::add_member`], … | `members.rs` |
//!
//! What a command in flight is for is its job: `jobs/` has a file for each, with all that may happen to it.
//!
//! Two types come from the rim and mean nothing here: `C`, a client that waits for one reply, and `L`, the link
//! to a member. Tests use numbers for both.

pub mod alarms;
pub mod answers;
pub mod attempt;
pub mod choose;
pub mod commands;
pub mod counters;
pub mod delay;
pub mod event;
pub mod histogram;
pub mod jobs;
pub mod journal;
pub mod key;
pub mod load;
pub mod losses;
pub mod member;
pub mod members;
pub mod outbox;
pub mod pending;
pub mod random;
pub mod rewrite;
pub mod route;
pub mod session;
mod suffixes;
#[cfg(test)]
mod tests;
pub mod traced;
pub mod view;

use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use self::attempt::{Exchange, Fate, Job, Transaction};
use self::choose::{Choice, choose};
pub use self::counters::{Count, Total};
use self::event::Why;
use self::histogram::Histogram;
use self::jobs::Next;
use self::key::Key;
use self::losses::Losses;
use self::member::Member;
use self::outbox::Outbox;
use self::pending::{Pending, Slot};
use self::random::Rng;
use self::rewrite::{RelayTo, Towards};
use self::session::{MemberId, Sessions, Tick};
use self::suffixes::Suffixes;
use crate::config::model::{self, Policy};
use crate::dispatch::counters::CLUSTER_COUNTERS;
use crate::protocol::command::{self, Verb};
use crate::protocol::reply::SessionCounts;
use crate::rim::throttle::Throttle;

/// A client gets an answer after this time, whatever happens; SIP servers over UDP wait 5 s in all.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long members are asked who has a call before a U starts a new one.
pub const SEEK_FOR: Duration = Duration::from_millis(300);
/// How long members are asked for other commands of an unknown call.
pub const ASK_FOR: Duration = Duration::from_secs(1);
/// In this time the whole session table is looked through for bindings that have aged out, a part at a time.
pub const SWEEP_ROUND: Duration = Duration::from_secs(13);
/// Bindings that one such look takes at least, if there are as many: a few dozen microseconds.
pub const SWEEP_PART: usize = 4096;

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
    questions: HashMap<u64, Slot, Key>,
    /// Commands that wait for the first round of probes.
    early: Vec<Slot>,
    /// What was last said for the cluster to `VF n`.
    capabilities: Vec<(u64, bool)>,
    rng: Rng,
    epoch: Instant,
    /// When a part of the session table was last swept.
    swept: Instant,
    losses: Losses,
    suffixes: Suffixes,
    /// When the journal, if there is one, was told more.
    journal_told: Instant,
    /// When a call last found no room in the session table.
    unbound: Option<Instant>,
    /// Whether calls that other dispatchers have bound can be looked up.
    shared: bool,
    table_full: Throttle,
    overloaded: Throttle,
    two_homes: Throttle,
    totals: [u64; CLUSTER_COUNTERS.len()],
    outcomes: Outcomes,
    /// From commands to their replies.
    times: Histogram,
}

impl<C, L: Clone> Dispatch<C, L> {
    /// A cluster without members; `rules.members` is not looked at. `seed` decides every choice, `key` hashes
    /// call-ids and makes cookies unpredictable.
    pub fn new(now: Instant, mut rules: model::Cluster, seed: u64, key: Key) -> Self {
        rules.members.clear();
        Self {
            members: Vec::new(),
            orders: 0,
            generation: 0,
            sessions: Sessions::new(rules.sessions, key),
            pending: Pending::new(key),
            questions: HashMap::with_hasher(key),
            early: Vec::new(),
            capabilities: Vec::new(),
            rng: Rng::from_seed(seed),
            epoch: now,
            swept: now,
            losses: Losses::default(),
            suffixes: Suffixes::new(key),
            journal_told: now,
            unbound: None,
            shared: false,
            table_full: Throttle::default(),
            overloaded: Throttle::default(),
            two_homes: Throttle::default(),
            totals: [0; CLUSTER_COUNTERS.len()],
            outcomes: Outcomes::default(),
            times: Histogram::default(),
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

    /// How a member is chosen for a new session. What cannot be bound is kept together by its name alone.
    fn policy_for(&self, now: Instant, t: &Transaction<C>) -> Policy {
        let unbound = self.sessions.is_full()
            && self
                .sessions
                .peek(self.tick(now), t.key.hash, t.call_id())
                .is_none();
        if unbound { Policy::Hash } else { self.rules.policy }
    }

    /// Chooses a member for a new session, one that has not been tried for it.
    fn choose(&mut self, now: Instant, t: &Transaction<C>) -> Choice {
        let ramp = self.rules.health.slow_start;
        for member in &mut self.members {
            if !ramp.is_zero() {
                member.share = slow_share(now.saturating_duration_since(member.since), ramp);
            }
            if member.load.counts().is_none() {
                member.bound = self.sessions.bound(member.id);
            }
        }
        let policy = self.policy_for(now, t);
        let mut choose = |suspects: bool| {
            choose(
                policy,
                self.rules.capacity_limit,
                &self.members,
                |_, member| {
                    member.takes_sessions() && (suspects || !member.suspect) && !t.has_tried(member.id)
                },
                t.call_id(),
                &mut self.rng,
            )
        };
        // One that has missed an answer is passed over while others are there.
        match choose(false) {
            Choice::Member(index) => Choice::Member(index),
            Choice::NoneEligible | Choice::AllFull => choose(true),
        }
    }

    /// A member has not answered for as long as it may take: it is passed over while others are there, and whoever
    /// watches over it is told when that is new.
    fn suspect(&mut self, id: MemberId, out: &mut Outbox<C, L>) {
        if let Some(member) = self.member_mut(id)
            && !core::mem::replace(&mut member.suspect, true)
        {
            out.suspects.push(id);
        }
    }

    /// Sends the text of a transaction to one member, as the next exchange.
    fn send(&mut self, now: Instant, t: &mut Transaction<C>, to: MemberId, why: Why, out: &mut Outbox<C, L>) {
        let Ok(index) = u16::try_from(t.exchanges.len()) else {
            return;
        };
        let Some(member) = self.members.get_mut(usize::from(to.index)).filter(|m| m.id == to) else {
            return;
        };
        let pause = member.delay.first_retransmission();
        let datagram = member.config.protocol.is_datagram();
        t.exchanges.push(Exchange {
            member: to,
            nonce: self.pending.nonce(t.slot, index),
            sent: now,
            resend: datagram.then(|| now + pause),
            pause,
            resent: false,
            patience: Some(now + member.delay.in_time(self.rules.failover.timeout)),
            fate: Fate::Waiting,
            why,
            asked: t.job == Job::Seek,
        });
        member.in_flight += 1;
        member.count(Count::Commands);
        let again = t.job.may_repeat(t.key.verb);
        if let Some(cookie) = t.cookie(usize::from(index)) {
            out.send(member.link.clone(), to, cookie, again, |bytes| {
                write_command(t, &self.rules, member, bytes);
            });
            self.trace_sent(t, usize::from(index), false, out);
        }
    }

    /// A transaction was worked on: it goes on, is over, or its command is routed anew.
    fn settle(&mut self, now: Instant, mut t: Box<Transaction<C>>, next: Next, out: &mut Outbox<C, L>) {
        if let Some(how) = t.replied.take() {
            self.answered(now, &t, how, out);
        }
        match next {
            Next::Waits => {
                self.pending.put_back(t);
            }
            Next::Over => self.close(t),
            Next::Again(asked) => {
                let text = core::mem::take(&mut t.text);
                out.who.clone_from(&t.who);
                let (started, origin, client) = (t.started, t.origin, t.client.take());
                let followers = self.end_question(&mut t);
                self.close(t);
                if let (Ok(command), Some(client)) = (command::parse(&text), client) {
                    self.route(now, started, &command, origin, client, asked, out);
                }
                // Behind it: a delete finds the session that it is to end.
                self.wake_followers(now, followers, asked, out);
            }
        }
    }

    /// The transaction is over; whatever is still unanswered counts for nobody.
    fn close(&mut self, mut t: Box<Transaction<C>>) {
        self.end_question(&mut t);
        self.abandon(&mut t);
        self.pending.close(t);
    }

    /// What has not been answered is not waited for any more. Its exchanges stay in the list, since their cookies must
    /// never be used again.
    fn abandon(&mut self, t: &mut Transaction<C>) -> Vec<MemberId> {
        let mut silent = Vec::new();
        for exchange in t.exchanges.iter_mut().filter(|e| e.fate == Fate::Waiting) {
            exchange.fate = Fate::Failed;
            if let Some(member) = self.members.get_mut(usize::from(exchange.member.index)) {
                member.in_flight = member.in_flight.saturating_sub(1);
            }
            silent.push(exchange.member);
        }
        silent
    }

    /// Opens a transaction of our own, with no client behind it.
    fn open_own(
        &mut self,
        now: Instant,
        job: Job,
        verb: Verb,
        within: Duration,
        text: &[u8],
    ) -> Option<Box<Transaction<C>>> {
        let mut t = self.pending.open(now)?;
        t.job = job;
        t.key.verb = verb;
        t.key.ends = false;
        t.give_up = now + within;
        t.text.extend_from_slice(text);
        Some(t)
    }

    /// A heartbeat that was sent when `asked` has been answered: the member has so many sessions, or refuses to be
    /// counted (`None`), and then what is bound to it is its load. What went unanswered while nobody knew that it was
    /// away is sent now. Whether it is online is told by [`Dispatch::set_online`].
    pub fn counted(
        &mut self,
        now: Instant,
        id: MemberId,
        asked: Instant,
        counts: Option<SessionCounts>,
        out: &mut Outbox<C, L>,
    ) {
        if let Some(member) = self.member_mut(id) {
            member.load.counted(asked, counts);
            member.suspect = false;
            if let Some(counts) = counts {
                self.note_created(now, id, counts.created, out);
            }
            self.catch_up(now, id, out);
        }
    }

    /// A member said, asked by who watches over it, whether it has a capability.
    pub fn capability(&mut self, id: MemberId, number: u64, has: bool) {
        if let Some(member) = self.member_mut(id) {
            member.set_capability(number, has);
        }
    }

    /// A health probe that was sent once was answered after `delay`.
    pub fn measured(&mut self, id: MemberId, delay: Duration) {
        if let Some(member) = self.member_mut(id) {
            member.delay.sample(delay);
        }
    }

    /// Counts one more `what` of a member, of what others do for it: probes.
    pub fn count(&mut self, id: MemberId, what: Count) {
        if let Some(member) = self.member_mut(id) {
            member.count(what);
        }
    }

    /// Whether a member that has not been probed yet may still wait for its name.
    pub fn awaits_name(&self) -> bool {
        let mut unprobed = self
            .members
            .iter()
            .filter(|member| member.present && !member.probed);
        unprobed.any(|member| matches!(member.config.address, model::Address::Host(..)))
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

/// A cluster's relay.
fn relay_of(rules: &model::Cluster) -> Option<RelayTo<'_>> {
    let relay = rules.disconnect_notify.as_ref()?;
    Some(RelayTo {
        prefix: &relay.dest_socket_prefix,
        port: relay.inbound_address.port(),
        tcp: relay.tcp == model::NotifyTcp::Relay,
    })
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
            let notifier = member.notifier();
            let notify = rewrite::notify_plan(socket, transaction.origin, relay, notifier);
            let recalled = !transaction.suffix.is_empty() && notifier.tells_relay();
            rewrite::command(
                &command,
                &Towards {
                    lan: member.config.lan_address.addresses().collect(),
                    notify,
                    tags: recalled.then_some(&transaction.suffix),
                },
                bytes,
            );
        }
        // Only what has been parsed gets here.
        Err(_) => bytes.extend_from_slice(text),
    }
}
