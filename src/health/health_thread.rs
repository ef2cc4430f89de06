//! The health thread, shared by all clusters: sends each member its probes over the member's own link, and posts
//! what changes to the timer thread of its cluster. It also sees to draining members, since it has their counts.

use core::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::watch::{Answer, Change, Probe, State, Watch};
use crate::cluster::{Cluster, Out};
use crate::config::model::{self, Status};
use crate::dispatch::attempt::Ask;
use crate::dispatch::outbox::Probed;
use crate::dispatch::session::MemberId;
use crate::link::timer_thread::Post;
use crate::protocol::reply::SessionCounts;
use crate::rim::{Thread, idle, now, spawn};

/// Messages that may wait: several rounds of probes of a thousand members.
const QUEUE: usize = 16_384;
/// Heartbeats in a row without a session after which a draining member goes.
const EMPTY_HEARTBEATS: u32 = 2;

/// What the health thread is told.
#[derive(Debug)]
pub enum Message {
    /// A new member, or one at a new address.
    Watch {
        /// Its cluster.
        cluster: Arc<Cluster>,
        /// The member.
        member: MemberId,
        /// How it is probed.
        rules: model::Health,
    },
    /// The members of a cluster are probed in another way.
    Rules {
        /// Number of the cluster.
        cluster: usize,
        /// How.
        rules: model::Health,
    },
    /// What became of a probe, or that a command was refused.
    Probed {
        /// Number of the cluster.
        cluster: usize,
        /// The member.
        member: MemberId,
        /// What became of it.
        result: Probed,
        /// When.
        at: Instant,
    },
    /// A member did not answer a command for as long as commands may take.
    Suspect {
        /// Number of the cluster.
        cluster: usize,
        /// The member.
        member: MemberId,
    },
    /// The daemon stops.
    Stop,
}

/// The queue to the health thread, and its end of it.
pub fn channel() -> (Sender<Message>, Receiver<Message>) {
    bounded(QUEUE)
}

/// The health thread, before and while it runs.
#[derive(Debug)]
pub struct Health {
    inbox: Option<Receiver<Message>>,
    thread: Option<Thread>,
}

impl Health {
    /// Not started yet.
    pub fn waiting(inbox: Receiver<Message>) -> Self {
        Self {
            inbox: Some(inbox),
            thread: None,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(&mut self) -> io::Result<()> {
        if let Some(inbox) = self.inbox.take() {
            self.thread = Some(spawn("health", move || run(&inbox))?);
        }
        Ok(())
    }

    /// Waits until it has ended; it has been told to stop.
    pub fn join(self) {
        if let Some(thread) = self.thread {
            thread.join();
        }
    }
}

type Key = (usize, MemberId);

/// A member under watch.
struct Watched {
    cluster: Arc<Cluster>,
    rules: model::Health,
    watch: Watch,
    /// The alarm that counts; older ones in the heap are passed over.
    due: Instant,
    /// Heartbeats in a row in which it had no session of ours, while draining.
    empty: u32,
}

#[derive(Default)]
struct Round {
    watched: HashMap<Key, Watched>,
    alarms: BinaryHeap<Reverse<(Instant, usize, MemberId)>>,
    out: Out,
}

/// Runs until it is told to stop.
fn run(inbox: &Receiver<Message>) {
    let mut round = Round::default();
    loop {
        let alarm = round.next_alarm();
        let message = idle(|| match alarm {
            Some(at) => inbox.recv_deadline(at),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        });
        match message {
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(message) => round.take(message),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Also while messages come without a pause: a busy daemon's members are probed in time.
        round.send_due();
    }
}

impl Round {
    /// When the next probe is due.
    fn next_alarm(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, cluster, member))) = self.alarms.peek().copied() {
            if self
                .watched
                .get(&(cluster, member))
                .is_some_and(|watched| watched.due == at)
            {
                return Some(at);
            }
            self.alarms.pop();
        }
        None
    }

    fn set_alarm(&mut self, key: Key) {
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.due = watched.watch.due();
            self.alarms.push(Reverse((watched.due, key.0, key.1)));
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Watch {
                cluster,
                member,
                rules,
            } => {
                let key = (cluster.number, member);
                let now = now();
                let watch = Watch::new(now);
                self.watched.insert(
                    key,
                    Watched {
                        cluster,
                        rules,
                        watch,
                        due: now,
                        empty: 0,
                    },
                );
                self.set_alarm(key);
            }
            Message::Rules { cluster, rules } => {
                for (_, watched) in self
                    .watched
                    .iter_mut()
                    .filter(|((number, _), _)| *number == cluster)
                {
                    watched.rules = rules;
                }
            }
            Message::Suspect { cluster, member } => {
                if let Some(watched) = self.watched.get_mut(&(cluster, member)) {
                    watched.watch.suspect(now(), &watched.rules);
                    self.set_alarm((cluster, member));
                }
            }
            Message::Probed {
                cluster,
                member,
                result,
                at,
            } => self.probed((cluster, member), &result, at),
            Message::Stop => {}
        }
    }

    /// Sends the probes that are due.
    fn send_due(&mut self) {
        let now = now();
        while let Some(at) = self.next_alarm()
            && at <= now
        {
            let Some(Reverse((_, cluster, member))) = self.alarms.pop() else {
                return;
            };
            let key = (cluster, member);
            let Some(watched) = self.watched.get_mut(&key) else {
                continue;
            };
            if let Some(probe) = watched.watch.next(now, &watched.rules) {
                let ask = match probe {
                    Probe::Version => Ask::Version,
                    Probe::Capability(number) => Ask::Capability(number),
                    Probe::Counts => Ask::Counts(0),
                };
                let timeout = watched.rules.timeout;
                let is_there = watched.cluster.act(&mut self.out, |now, core, out| {
                    core.probe(now, member, ask, timeout, out)
                });
                if !is_there {
                    self.watched.remove(&key);
                    continue;
                }
            }
            self.set_alarm(key);
        }
    }

    /// A probe has ended.
    fn probed(&mut self, key: Key, result: &Probed, at: Instant) {
        let Some(watched) = self.watched.get_mut(&key) else {
            return;
        };
        let rules = watched.rules;
        let answer = match result {
            Probed::Version => Some(Answer::Version),
            Probed::WrongVersion => Some(Answer::WrongVersion),
            Probed::Capability(..) => Some(Answer::Capability),
            Probed::Counts(counts) => Some(Answer::Counts {
                created: counts.created,
            }),
            Probed::Odd => Some(Answer::Odd),
            Probed::Missed | Probed::Refused => None,
        };
        // Asked of the cluster only where it matters, and that is seldom.
        if answer == Some(Answer::Version)
            && !watched.watch.probation(&rules).is_zero()
            && !watched.cluster.look(|_, core| core.has_takers_online())
        {
            watched.watch.is_needed();
        }
        let change = match (answer, result) {
            (Some(answer), _) => watched.watch.answered(at, &rules, answer),
            (None, Probed::Refused) => watched.watch.refused(at, &rules),
            (None, _) => watched.watch.missed(at, &rules),
        };
        post(watched, key.1, change);
        if answer.is_none() && watched.watch.state() == State::Offline {
            watched.cluster.refresh_link(key.1);
        }
        self.set_alarm(key);
        if let Probed::Counts(counts) = result {
            self.look_at_drain(key, counts);
        }
    }

    /// A draining member goes when it has had no session, less those that other clusters have bound at the same
    /// address, at two heartbeats in a row. One that has been given another name in the file is another member here,
    /// with its own calls at that address.
    fn look_at_drain(&mut self, key: Key, counts: &SessionCounts) {
        let Some(watched) = self.watched.get(&key) else {
            return;
        };
        let draining = watched.cluster.look(|_, core| {
            let member = core.member_of(key.1)?;
            let definition = (member.config.status == Status::Draining).then(|| member.config.clone())?;
            Some((definition, core.is_asked(key.1)))
        });
        let Some((definition, asked)) = draining else {
            if let Some(watched) = self.watched.get_mut(&key) {
                watched.empty = 0;
            }
            return;
        };
        let elsewhere: u64 = self
            .watched
            .iter()
            .filter(|(other, _)| **other != key)
            .map(|((_, member), other)| other.cluster.bound_at(*member, &definition.address))
            .sum();
        let Some(watched) = self.watched.get_mut(&key) else {
            return;
        };
        // A command on its way may be about to make a session there.
        watched.empty = if counts.active <= elsewhere && !asked {
            watched.empty + 1
        } else {
            0
        };
        if watched.empty >= EMPTY_HEARTBEATS && watched.watch.state() == State::Online {
            let cluster = Arc::clone(&watched.cluster);
            log::info!(
                "member {} of {} ({}): drained, removed",
                definition.name,
                cluster.name,
                definition.address
            );
            self.watched.remove(&key);
            cluster.remove_member(key.1);
        }
    }
}

/// Tells the log and the cluster what has changed.
fn post(watched: &Watched, member: MemberId, change: Change) {
    let cluster = &watched.cluster;
    let tell = |from: &str, to: &str, why: &str| {
        let definition = cluster.look(|_, core| core.member_of(member).map(|member| member.config.clone()));
        if let Some(model::Member { name, address, .. }) = definition {
            log::info!(
                cluster:% = cluster.name, member:% = name, address:% = address, old = from, new = to, reason = why;
                "member {name} of {} ({address}): {from} -> {to}: {why}",
                cluster.name
            );
        }
    };
    match change {
        Change::None => {}
        Change::Online => {
            let why = watched.watch.why().to_string();
            tell("offline", "online", &why);
            cluster.post(Post::State {
                member,
                online: true,
                why,
            });
        }
        Change::Offline(why) => {
            let why = why.to_string();
            tell("online", "offline", &why);
            cluster.post(Post::State {
                member,
                online: false,
                why,
            });
        }
        Change::Absent(why) => {
            let why = why.to_string();
            tell("unknown", "offline", &why);
            cluster.post(Post::Probed { member, why });
        }
        Change::Restarted { last_good } => {
            tell(
                "online",
                "online",
                "it has been restarted; its calls are forgotten",
            );
            cluster.post(Post::Restarted { member, last_good });
        }
    }
}
