//! What the relay of notifications is told of the socket of a call, its suffix: remembered with the call, since a later
//! command of it may have RTPproxy send something there too (a digit that was pressed) without naming the socket. Pure.

use std::collections::HashMap;
use std::time::Instant;

use super::Dispatch;
use super::attempt::Transaction;
use super::key::Key;
use super::rewrite::{self, NotifyPlan};
use super::session::MemberId;
use crate::protocol::command::{self, Verb};

/// Suffixes remembered at most. A SIP server has one for each of its processes, and new ones when it is restarted; when
/// all places are taken the oldest is forgotten.
const SUFFIXES_MAX: usize = 4_096;

/// Suffixes by a number that a binding has room for; 0 is none.
#[derive(Debug)]
pub(super) struct Suffixes {
    texts: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u16, Key>,
    /// The place that is used again next.
    next: usize,
}

impl Suffixes {
    pub(super) fn new(key: Key) -> Self {
        Self {
            texts: Vec::new(),
            numbers: HashMap::with_hasher(key),
            next: 0,
        }
    }

    /// The number of a suffix, a new one for a new suffix.
    fn number(&mut self, text: &[u8]) -> u16 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let place = self.next;
        self.next = (place + 1) % SUFFIXES_MAX;
        let number = u16::try_from(place + 1).unwrap_or(0);
        match self.texts.get_mut(place) {
            Some(oldest) => {
                let oldest = core::mem::replace(oldest, text.into());
                self.numbers.remove(&oldest);
            }
            None => self.texts.push(text.into()),
        }
        self.numbers.insert(text.into(), number);
        number
    }

    fn text(&self, number: u16) -> Option<&[u8]> {
        let place = usize::from(number).checked_sub(1)?;
        self.texts.get(place).map(|text| &**text)
    }
}

impl<C, L: Clone> Dispatch<C, L> {
    /// A member has done a U: where its notifications go is remembered with the call.
    pub(super) fn remember_suffix(&mut self, now: Instant, t: &Transaction<C>, at: MemberId) {
        if t.key.verb != Verb::Update || !t.rewritten || self.rules.disconnect_notify.is_none() {
            return;
        }
        let (Ok(command), Some(member)) = (command::parse(&t.text), self.member(at)) else {
            return;
        };
        let Some(notify) = command.notify else { return };
        let relay = super::relay_of(&self.rules);
        let plan = rewrite::notify_plan(notify.socket, t.origin, relay, member.notifier());
        let suffix = match plan {
            NotifyPlan::Relay(relay) => rewrite::suffix(notify.socket, relay),
            NotifyPlan::Keep | NotifyPlan::Drop | NotifyPlan::Client(_) => None,
        };
        let number = suffix.map_or(0, |suffix| self.suffixes.number(&suffix));
        let tick = self.tick(now);
        if let Some(mut binding) = self.sessions.find(tick, t.key.hash, command.call_id) {
            binding.set_suffix(number);
        }
    }

    /// The suffix of a call, for a command that has RTPproxy send something to the call's socket and names none.
    pub(super) fn recall_suffix(&self, now: Instant, t: &mut Transaction<C>) {
        let binding = self.sessions.peek(self.tick(now), t.key.hash, t.call_id());
        if let Some(suffix) = binding.and_then(|binding| self.suffixes.text(binding.suffix)) {
            t.suffix.extend_from_slice(suffix);
            t.rewritten = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_keeps_its_number_until_the_places_are_used_up() {
        let mut suffixes = Suffixes::new(Key::from_seed(1));
        assert_eq!(
            (
                suffixes.number(b".1"),
                suffixes.number(b".2"),
                suffixes.number(b".1")
            ),
            (1, 2, 1)
        );
        assert_eq!(
            (suffixes.text(2), suffixes.text(0), suffixes.text(9)),
            (Some(&b".2"[..]), None, None)
        );
        for n in 0..SUFFIXES_MAX * 3 {
            let text = format!("-{n}");
            let number = suffixes.number(text.as_bytes());
            assert_eq!(
                suffixes.text(number),
                Some(text.as_bytes()),
                "the newest are served at once"
            );
        }
        assert_eq!(suffixes.texts.len(), SUFFIXES_MAX);
        assert_eq!(suffixes.numbers.len(), SUFFIXES_MAX);
    }
}
