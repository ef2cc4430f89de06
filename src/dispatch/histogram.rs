//! Times, counted by size. Pure.

use core::time::Duration;

/// Upper bounds of the buckets of times, in microseconds.
pub const DELAY_BUCKETS: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    3_000_000, 5_000_000,
];

/// How many times fell into each bucket, and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// Each up to its bound in [`DELAY_BUCKETS`] and above the one before, then the rest; each counts alone.
    pub buckets: [u64; DELAY_BUCKETS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.sum = self.sum.saturating_add(time);
        let bucket = DELAY_BUCKETS.partition_point(|&bound| u128::from(bound) * 1_000 < time.as_nanos());
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let mut times = Histogram::default();
        for micros in [0, 50, 51, 5_000_000, 5_000_001] {
            times.add(Duration::from_micros(micros));
        }
        assert_eq!(times.buckets[..3], [2, 1, 0]);
        assert_eq!(times.buckets[DELAY_BUCKETS.len() - 1..], [1, 1]);
        assert_eq!(times.buckets.iter().sum::<u64>(), 5);
        assert_eq!(times.sum, Duration::from_micros(10_000_102));
        times.add(Duration::MAX);
        assert_eq!(times.sum, Duration::MAX);
    }
}
