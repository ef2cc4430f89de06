//! A cluster's side of the state directory: what happens in its session table becomes records, and those batches.
//! Nobody waits here: where the queue has no room a batch is dropped, and all is told again when it has.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Sender, bounded};

use super::changes::Changes;
use super::encode::{self, Bound, Moment, Print, Record, Tags};
use super::message::{Batch, Message};
use super::writer::Shared;
use crate::config::model;
use crate::dispatch::rewrite::Addressee;
use crate::dispatch::session::{Binding, Journal, MemberId, Session, Stage, Tick, Wants};
use crate::rim;

/// A batch with so many bytes is handed over at once.
pub(super) const BATCH: usize = 32 * 1024;

/// An operator waits so long for his change to be on the disk: what he was told is done outlives a crash, and a disk
/// that hangs does not keep him from the next command.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

const TICK: Duration = Duration::from_millis(100);

/// Who writes down what happens in one cluster.
#[derive(Debug)]
pub struct Recorder {
    name: String,
    cluster: Print,
    /// The wall clock's time at the tick 0.
    epoch: Moment,
    /// What members are called on disk. Those that nobody named are not written down.
    members: HashMap<MemberId, Print>,
    bytes: Vec<u8>,
    /// The pass that is under way or over, and its next part while it is not over.
    pass: u64,
    next: Option<usize>,
    to: Sender<Message>,
    shared: Arc<Shared>,
}

/// Makes recorders, and keeps what operators change.
#[derive(Debug, Clone)]
pub struct Recorders {
    pub(super) to: Sender<Message>,
    pub(super) shared: Arc<Shared>,
}

impl Recorders {
    /// One for the cluster of that name, whose tick 0 is at `epoch`. From now on a state directory is whole only
    /// when it has told all; `wake` is called when it is to tell all anew.
    pub fn recorder(
        &self,
        cluster: &str,
        epoch: Moment,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Recorder {
        let name = cluster.to_owned();
        let cluster = Print::cluster(cluster);
        self.shared.recorders.lock().insert(cluster, Box::new(wake));
        Recorder {
            name,
            cluster,
            epoch,
            members: HashMap::new(),
            bytes: Vec::new(),
            pass: 0,
            next: None,
            to: self.to.clone(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Keeps what operators have changed, or that it is nothing.
    pub fn keep(&self, changes: Option<&Changes>) {
        let (done, kept) = bounded(1);
        let bytes = changes.map(Changes::encode);
        let sent = self.to.send_timeout(Message::Keep { bytes, done }, KEPT_WITHIN);
        if sent.is_ok() {
            rim::idle(|| kept.recv_timeout(KEPT_WITHIN)).ok();
        }
    }

    /// A cluster is gone for good: nobody waits for its recorder any more. One that only ends is waited for, so that
    /// what it had not told yet is not removed.
    pub fn retire(&self, cluster: &str) {
        self.shared.recorders.lock().remove(&Print::cluster(cluster));
        // All others may have told all. Where there is no room, somebody looks soon.
        self.to.try_send(Message::Look).ok();
    }
}

/// What a member is called on disk.
pub fn print(cluster: &str, member: &model::Member) -> Print {
    Print::member(cluster, member.name.as_str(), &member.socket())
}

impl Recorder {
    fn moment(&self, tick: Tick) -> Moment {
        self.epoch.after(tick.since(Tick::default()))
    }

    fn tags<'a>(&self, session: Session<'a>) -> Tags<'a> {
        Tags {
            cluster: self.cluster,
            call_id: session.call_id,
            from: session.from,
            to: session.to,
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        // What is too long is asked for after a restart, as any call that is not known.
        let _ = encode::write(record, &mut self.bytes);
        if self.bytes.len() >= BATCH {
            self.hand_over(None);
        }
    }

    fn hand_over(&mut self, passed: Option<u64>) {
        let batch = Batch {
            recorder: self.cluster,
            bytes: core::mem::take(&mut self.bytes),
            passed,
        };
        if self.to.try_send(Message::Write(batch)).is_err() {
            self.shared.gap.store(true, Ordering::Release);
        }
    }
}

impl Journal for Recorder {
    fn named(&mut self, member: MemberId, config: &model::Member) {
        self.members.insert(member, print(&self.name, config));
    }

    fn bound(&mut self, call_id: &[u8], binding: &Binding) {
        if let Some(&member) = self.members.get(&binding.member) {
            self.record(&Record::Bound(Bound {
                member,
                born: self.moment(binding.born),
                used: self.moment(binding.used),
                ended: binding.stage == Stage::Ended,
                call_id,
            }));
        }
    }

    fn forgotten(&mut self, call_id: &[u8]) {
        let cluster = self.cluster;
        self.record(&Record::Forgotten { cluster, call_id });
    }

    fn cut(&mut self, member: MemberId, cut: Tick) {
        if let Some(&member) = self.members.get(&member) {
            let before = self.moment(cut);
            self.record(&Record::Cut { member, before });
        }
    }

    fn left(&mut self, member: MemberId, now: Tick) {
        if let Some(member) = self.members.remove(&member) {
            // In the next tick somebody may be there under this name again.
            let before = self.moment(now).after(TICK);
            self.record(&Record::Cut { member, before });
        }
    }

    fn cleared(&mut self) {
        let cluster = self.cluster;
        self.record(&Record::Cleared { cluster });
    }

    fn wished(&mut self, session: Session<'_>, wish: Option<(&Addressee, &[u8])>) {
        let (to, text) = wish.map(|(to, text)| (to.written(), text)).unwrap_or_default();
        let session = self.tags(session);
        self.record(&Record::Wish {
            session,
            to: to.as_bytes(),
            text,
        });
    }

    fn unwished(&mut self, session: Session<'_>) {
        let session = self.tags(session);
        self.record(&Record::WishTaken { session });
    }

    fn deferred(&mut self, member: MemberId, expires: Tick, text: &[u8]) {
        if let Some(&member) = self.members.get(&member) {
            let expires = self.moment(expires);
            self.record(&Record::Deferred {
                member,
                expires,
                text,
            });
        }
    }

    fn settled(&mut self, member: MemberId, text: Option<&[u8]>) {
        if let Some(&member) = self.members.get(&member) {
            self.record(&Record::Settled { member, text });
        }
    }

    fn counted(&mut self, member: MemberId, created: u64, at: Tick) {
        if let Some(&member) = self.members.get(&member) {
            let at = self.moment(at);
            self.record(&Record::Created {
                member,
                at,
                count: created,
            });
        }
    }

    fn next_part(&mut self, parts: usize) -> Option<usize> {
        let wanted = self.shared.wanted.load(Ordering::Acquire);
        if wanted != self.pass {
            (self.pass, self.next) = (wanted, Some(0));
        }
        let part = self.next?;
        self.next = (part < parts).then_some(part + 1);
        if self.next.is_none() {
            self.hand_over(Some(self.pass));
        }
        (part < parts).then_some(part)
    }

    fn wants(&self) -> Wants {
        if self.next.is_some() || self.pass != self.shared.wanted.load(Ordering::Acquire) {
            Wants::Part
        } else if self.bytes.is_empty() {
            Wants::Nothing
        } else {
            Wants::Turn
        }
    }

    fn turn(&mut self) {
        if !self.bytes.is_empty() {
            self.hand_over(None);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.hand_over(None);
    }
}
