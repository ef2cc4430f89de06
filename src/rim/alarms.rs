//! Alarms of many things that are known by a number: the earliest of all is found at once, and setting one costs
//! nothing as long as it is not earlier than what is set. Pure.

use core::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// The alarms. One that rings asks its thing when it really wants to be called: it may be later by now, or never.
#[derive(Debug, Default)]
pub struct Alarms {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The entry of each thing that counts.
    set: Vec<Option<Instant>>,
}

impl Alarms {
    /// Rings for `thing` at `due` at the latest.
    pub fn set(&mut self, thing: usize, due: Option<Instant>) {
        let Some(due) = due else { return };
        if self.set.len() <= thing {
            self.set.resize(thing + 1, None);
        }
        let Some(set) = self.set.get_mut(thing) else {
            return;
        };
        if set.is_none_or(|set| due < set) {
            *set = Some(due);
            self.heap.push(Reverse((due, thing)));
        }
    }

    /// When the next one rings.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// A thing whose alarm has rung, which is set no longer.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        while self.next().is_some_and(|due| due <= now) {
            let Reverse((due, thing)) = self.heap.pop()?;
            if let Some(set) = self.set.get_mut(thing)
                && *set == Some(due)
            {
                *set = None;
                return Some(thing);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::now;
    use super::*;

    #[test]
    fn the_earliest_rings_first_and_once() {
        let at = |ms| now() + Duration::from_millis(ms);
        let (soon, later, last) = (at(10), at(20), at(30));
        let mut alarms = Alarms::default();
        alarms.set(3, Some(later));
        alarms.set(1, Some(last));
        alarms.set(1, Some(soon));
        alarms.set(3, Some(last));
        alarms.set(2, None);
        assert_eq!(alarms.next(), Some(soon));
        assert_eq!(alarms.pop(soon), Some(1));
        assert_eq!(alarms.pop(soon), None);
        assert_eq!(alarms.pop(last), Some(3));
        assert_eq!(
            alarms.pop(last),
            None,
            "what was put forward has no second entry that counts"
        );
        assert_eq!(alarms.next(), None);
    }
}
