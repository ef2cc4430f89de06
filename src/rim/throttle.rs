//! Once a minute: what may repeat, or what an outsider can cause, is counted and told so often at most. Pure.

use core::time::Duration;
use std::time::Instant;

/// Between two tellings of one thing.
pub const TELL_EVERY: Duration = Duration::from_secs(60);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_by_number() {
        let start = crate::rim::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.hit(start), Some(1));
        for second in 1..60 {
            assert_eq!(throttle.hit(start + Duration::from_secs(second)), None);
        }
        throttle.count_many(5);
        assert_eq!(throttle.hit(start + TELL_EVERY), Some(65));
        assert_eq!(throttle.hit(start + TELL_EVERY), None);
        assert_eq!(throttle.hit(start + 3 * TELL_EVERY), Some(2));
    }
}
