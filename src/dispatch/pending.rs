//! Commands in flight: a bounded slab of transactions, found by the slot and the nonce in a cookie, and their
//! alarms, earliest first. Pure.
//!
//! A slot is used again for the next command, its buffers with it, so that a command allocates nothing once
//! the slab is warm. Alarms are not taken out of the middle of the heap when a command ends: an alarm whose serial is
//! no longer that of its slot is dropped when it comes to the head, which is cheaper than finding it.

use core::cmp::Reverse;
use core::hash::BuildHasher;
use std::collections::BinaryHeap;
use std::time::Instant;

pub use super::attempt::Slot;
use super::attempt::Transaction;
use super::key::Key;
use crate::protocol::cookie::Cookie;

/// Commands in flight in one cluster at most. At 20,000 commands a second these are three seconds of a cluster
/// whose members are all silent; a slot in use holds some 500 bytes.
pub const IN_FLIGHT_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Alarm {
    at: Instant,
    index: u32,
    serial: u64,
}

/// The slab. Who works on a transaction takes it out, and puts it back or ends it: nothing else can reach it meanwhile.
#[derive(Debug)]
pub struct Pending<C> {
    /// An empty place is that of a transaction that is taken out.
    slots: Vec<Option<Box<Transaction<C>>>>,
    free: Vec<u32>,
    alarms: BinaryHeap<Reverse<Alarm>>,
    serial: u64,
    key: Key,
}

impl<C> Pending<C> {
    /// An empty slab; `key` makes the cookies unpredictable.
    pub fn new(key: Key) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            alarms: BinaryHeap::new(),
            serial: 0,
            key,
        }
    }

    /// Transactions in flight.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A fresh transaction, taken out, or none when all places are taken.
    pub fn open(&mut self, now: Instant) -> Option<Box<Transaction<C>>> {
        self.serial += 1;
        let (index, mut transaction) = if let Some(index) = self.free.pop() {
            (index, self.slots.get_mut(index as usize)?.take()?)
        } else {
            if self.slots.len() >= IN_FLIGHT_MAX {
                return None;
            }
            self.slots.push(None);
            let index = u32::try_from(self.slots.len() - 1).ok()?;
            (index, Box::new(Transaction::idle(now)))
        };
        let slot = Slot {
            index,
            serial: self.serial,
        };
        transaction.open(slot, now);
        Some(transaction)
    }

    /// Takes a transaction out, if it is there.
    pub fn take(&mut self, slot: Slot) -> Option<Box<Transaction<C>>> {
        let place = self.slots.get_mut(slot.index as usize)?;
        place.take_if(|transaction| transaction.slot == slot)
    }

    /// Puts a transaction back and sets its alarm to the earliest of what it waits for. Gives the moment if it is
    /// earlier than what was set before.
    pub fn put_back(&mut self, mut transaction: Box<Transaction<C>>) -> Option<Instant> {
        let (slot, due) = (transaction.slot, transaction.due());
        let earlier = transaction.alarm.is_none_or(|at| due < at);
        if earlier {
            transaction.alarm = Some(due);
            self.alarms.push(Reverse(Alarm {
                at: due,
                index: slot.index,
                serial: slot.serial,
            }));
        }
        if let Some(place) = self.slots.get_mut(slot.index as usize) {
            *place = Some(transaction);
        }
        earlier.then_some(due)
    }

    /// Ends a transaction; its place is free.
    pub fn close(&mut self, mut transaction: Box<Transaction<C>>) {
        let index = transaction.slot.index;
        transaction.reset();
        if let Some(place) = self.slots.get_mut(index as usize) {
            *place = Some(transaction);
            self.free.push(index);
        }
        self.drop_stale();
    }

    /// The transaction of that slot, if it still is and is not taken out.
    pub fn get(&self, slot: Slot) -> Option<&Transaction<C>> {
        let place = self.slots.get(slot.index as usize)?.as_deref();
        place.filter(|transaction| transaction.slot == slot)
    }

    /// As [`Pending::get`], to be changed.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Transaction<C>> {
        let place = self.slots.get_mut(slot.index as usize)?.as_deref_mut();
        place.filter(|transaction| transaction.slot == slot)
    }

    /// The transaction and the place of the exchange that a cookie names, if it is waited for.
    pub fn find(&self, cookie: Cookie) -> Option<(Slot, usize)> {
        let transaction = self.slots.get(cookie.slot as usize)?.as_deref()?;
        let place = usize::from(cookie.index);
        let exchange = transaction.exchanges.get(place)?;
        (exchange.nonce == cookie.nonce).then_some((transaction.slot, place))
    }

    /// The unpredictable part of the cookie of one exchange. It can be computed again, so that a reply which
    /// comes late or twice is told from a forged one without remembering it.
    pub fn nonce(&self, slot: Slot, index: u16) -> u64 {
        self.key.hash_one((slot.index, slot.short_serial(), index))
    }

    /// Whether we ever made this cookie.
    pub fn is_ours(&self, cookie: Cookie) -> bool {
        self.key.hash_one((cookie.slot, cookie.serial, cookie.index)) == cookie.nonce
    }

    /// All transactions in flight.
    pub fn iter(&self) -> impl Iterator<Item = &Transaction<C>> {
        let places = self.slots.iter().filter_map(Option::as_deref);
        places.filter(|transaction| transaction.is_open())
    }

    /// All transactions in flight, to be changed; none may be ended in this way.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Transaction<C>> {
        let places = self.slots.iter_mut().filter_map(Option::as_deref_mut);
        places.filter(|transaction| transaction.is_open())
    }

    /// The next transaction of which something is due at `now`, taken out.
    pub fn next_due(&mut self, now: Instant) -> Option<Box<Transaction<C>>> {
        self.drop_stale();
        while let Some(Reverse(alarm)) = self.alarms.peek().copied().filter(|alarm| alarm.0.at <= now) {
            self.alarms.pop();
            let slot = Slot {
                index: alarm.index,
                serial: alarm.serial,
            };
            if let Some(mut transaction) = self.take(slot) {
                transaction.alarm = None;
                if transaction.due() <= now {
                    return Some(transaction);
                }
                // What it was set for is over; it waits for something later.
                self.put_back(transaction);
            }
            self.drop_stale();
        }
        None
    }

    /// When [`Pending::next_due`] will have something next.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse(alarm)| alarm.at)
    }

    /// Takes alarms that nobody waits for from the head of the heap, so that [`Pending::next_alarm`] is one that is
    /// waited for: who sleeps until it is not woken for nothing.
    fn drop_stale(&mut self) {
        while let Some(Reverse(alarm)) = self.alarms.peek() {
            let place = self.slots.get(alarm.index as usize);
            // One that is taken out is looked at when it is back.
            let live = place.is_some_and(|place| {
                place.as_ref().is_none_or(|transaction| {
                    transaction.slot.serial == alarm.serial && transaction.alarm == Some(alarm.at)
                })
            });
            if live {
                return;
            }
            self.alarms.pop();
        }
    }
}
