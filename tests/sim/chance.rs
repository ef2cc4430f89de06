//! What is decided by chance, all from one seed.

use core::time::Duration;

use rtp_cluster::dispatch::random::Rng;

pub struct Chance(Rng);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Rng::from_seed(seed))
    }

    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 to just under `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.0.below(n as u64)).expect("below n")
    }

    /// Whether something that happens this often in a thousand times happens.
    pub fn permille(&mut self, rate: u32) -> bool {
        self.0.below(1000) < u64::from(rate)
    }

    /// Anything between the two, in milliseconds, evenly.
    pub fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(1000 * from + self.0.below(1000 * (to - from) + 1))
    }

    /// As long as things that come by chance are apart, `mean` on average.
    pub fn apart(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.0.unit()).ln())
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
