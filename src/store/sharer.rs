//! A cluster's side: what happens in its session table becomes messages. Nobody waits here.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::store_thread::Message;
use super::{QUEUE, Shared};
use crate::config::model;
use crate::dispatch::rewrite::Addressee;
use crate::dispatch::session::{Binding, Journal, MemberId, Session, Stage, Tick, Wants};

/// Tells other dispatchers who has which call.
#[derive(Debug)]
pub struct Sharer {
    key: String,
    expire: Duration,
    members: HashMap<MemberId, Arc<str>>,
    /// The pass that is under way or over, and its next part.
    pass: u64,
    next: Option<usize>,
    to: Sender<Message>,
    shared: Arc<Shared>,
}

impl Sharer {
    pub(super) fn new(key: String, expire: Duration, to: Sender<Message>, shared: Arc<Shared>) -> Self {
        Self {
            key,
            expire,
            members: HashMap::new(),
            pass: 0,
            next: None,
            to,
            shared,
        }
    }

    fn tell(&self, call_id: &[u8], home: Option<Arc<str>>) {
        if !self.shared.here.load(Ordering::Acquire) {
            return;
        }
        let key = [self.key.as_bytes(), call_id].concat();
        let message = match home {
            Some(value) => Message::Set {
                key,
                value,
                expire: self.expire,
            },
            None => Message::Delete { key },
        };
        if self.to.try_send(message).is_err() {
            self.shared.gap.store(true, Ordering::Release);
        }
    }
}

/// Only who has a call is shared. What a restarted or removed member had stays there until it expires: who finds it gets
/// the answer that asking all would give.
impl Journal for Sharer {
    fn named(&mut self, member: MemberId, config: &model::Member) {
        self.members.insert(member, config.identity().into());
    }

    fn bound(&mut self, call_id: &[u8], binding: &Binding) {
        match self.members.get(&binding.member) {
            Some(home) if binding.stage == Stage::Bound => self.tell(call_id, Some(Arc::clone(home))),
            _ => self.tell(call_id, None),
        }
    }

    fn forgotten(&mut self, call_id: &[u8]) {
        self.tell(call_id, None);
    }

    fn left(&mut self, member: MemberId, _now: Tick) {
        self.members.remove(&member);
    }

    fn cut(&mut self, _member: MemberId, _cut: Tick) {}
    fn cleared(&mut self) {}
    fn wished(&mut self, _session: Session<'_>, _wish: Option<(&Addressee, &[u8])>) {}
    fn unwished(&mut self, _session: Session<'_>) {}
    fn deferred(&mut self, _member: MemberId, _expires: Tick, _text: &[u8]) {}
    fn settled(&mut self, _member: MemberId, _text: Option<&[u8]>) {}
    fn counted(&mut self, _member: MemberId, _created: u64, _at: Tick) {}

    fn next_part(&mut self, parts: usize) -> Option<usize> {
        let wanted = self.shared.wanted.load(Ordering::Acquire);
        if wanted != self.pass {
            self.pass = wanted;
            self.next = Some(0);
        }
        // Half of the room is left to what happens meanwhile.
        let part = self.next.filter(|_| self.to.len() < QUEUE / 2)?;
        self.next = Some(part + 1).filter(|next| *next < parts);
        Some(part)
    }

    fn wants(&self) -> Wants {
        if self.next.is_some() || self.shared.wanted.load(Ordering::Acquire) != self.pass {
            Wants::Part
        } else {
            Wants::Nothing
        }
    }

    fn turn(&mut self) {}
}
