//! The load of one member: what it counted itself at its newest heartbeat, and what has been bound to it since that
//! heartbeat was asked for, so that a burst between two heartbeats spreads like a slow arrival does. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use crate::protocol::reply::SessionCounts;

/// Moments that are remembered. With more sessions than this between two heartbeats the moments stand apart evenly,
/// so that the error stays under a fiftieth of what has been bound since.
const CHECKPOINTS_MAX: usize = 256;

/// What is known of a member's load. Starts as unknown.
#[derive(Debug, Clone, Default)]
pub struct Load {
    counts: Option<SessionCounts>,
    /// When the newest heartbeat that was answered was sent.
    asked: Option<Instant>,
    /// Sessions bound to it ever.
    bound: u64,
    /// How many of those were bound when `asked`.
    counted: u64,
    /// When sessions were bound since `asked`, and how many there had been ever by then.
    checkpoints: VecDeque<(Instant, u64)>,
}

impl Load {
    /// A session is bound to the member.
    pub fn bind(&mut self, now: Instant) {
        self.bound += 1;
        if self.checkpoints.len() >= CHECKPOINTS_MAX {
            let stride = (self.bound - self.counted) / (CHECKPOINTS_MAX as u64 / 2);
            let mut last = self.counted;
            self.checkpoints.retain(|&(_, bound)| {
                let keep = bound - last >= stride;
                if keep {
                    last = bound;
                }
                keep
            });
        }
        self.checkpoints.push_back((now, self.bound));
    }

    /// A heartbeat that was sent when `asked` says this; `None`: the member refuses to be counted. One that was
    /// overtaken by a later one says nothing any more.
    pub fn counted(&mut self, asked: Instant, counts: Option<SessionCounts>) {
        if self.asked.is_some_and(|newest| newest > asked) {
            return;
        }
        while let Some(&(when, bound)) = self.checkpoints.front()
            && when < asked
        {
            self.counted = bound;
            self.checkpoints.pop_front();
        }
        self.asked = Some(asked);
        self.counts = counts;
    }

    /// The member is another one from now on, not counted yet.
    pub fn forget(&mut self) {
        (self.counts, self.asked) = (None, None);
    }

    /// Its newest heartbeat, unless it refused to be counted.
    pub fn counts(&self) -> Option<&SessionCounts> {
        self.counts.as_ref()
    }

    /// Whether a heartbeat has been answered, be it by a refusal.
    pub fn is_known(&self) -> bool {
        self.asked.is_some()
    }

    /// The sessions that it has by all that is known, where `bound_now` are bound to it: those alone count for a
    /// member that has not been or will not be counted.
    pub fn sessions(&self, bound_now: u64) -> u64 {
        let since = self.bound.saturating_sub(self.counted);
        match &self.counts {
            Some(counts) => counts.active.saturating_add(since),
            None => bound_now,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn active(active: u64) -> SessionCounts {
        SessionCounts {
            active,
            ..SessionCounts::default()
        }
    }

    #[test]
    fn what_was_bound_while_a_heartbeat_was_on_its_way_counts_beside_it() {
        let now = crate::rim::now();
        let second = |n| now + Duration::from_secs(n);
        let mut load = Load::default();
        for n in [1, 2, 3, 5] {
            load.bind(second(n));
        }
        load.counted(second(3), Some(active(100)));
        assert_eq!(
            load.sessions(4),
            102,
            "that of the very moment may be in it or not"
        );
        load.counted(second(4), Some(active(100)));
        assert_eq!(load.sessions(4), 101);
        load.counted(second(2), Some(active(7)));
        assert_eq!(load.sessions(4), 101, "an answer that was overtaken");
        load.counted(second(6), Some(active(104)));
        assert_eq!(load.sessions(4), 104);
    }

    #[test]
    fn who_is_not_counted_has_what_is_bound_to_it() {
        let now = crate::rim::now();
        let mut load = Load::default();
        load.bind(now);
        assert_eq!((load.sessions(1), load.is_known()), (1, false));
        load.counted(now, None);
        assert_eq!((load.sessions(3), load.is_known()), (3, true));
        load.counted(now, Some(active(9)));
        load.forget();
        assert_eq!((load.sessions(2), load.is_known()), (2, false));
    }

    #[test]
    fn a_flood_between_two_heartbeats_costs_bounded_memory_and_little_truth() {
        let start = crate::rim::now();
        let at = |n: u64| start + Duration::from_micros(n * 10);
        let mut load = Load::default();
        for n in 0..100_000 {
            load.bind(at(n));
            assert!(load.checkpoints.len() <= CHECKPOINTS_MAX);
        }
        load.counted(at(50_000), Some(active(0)));
        let since = load.sessions(0);
        assert!((50_000..=52_000).contains(&since), "{since}");
    }
}
