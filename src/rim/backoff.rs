//! When a connection that failed may be tried again: the pause doubles with each failure, up to a limit. Pure.

use core::time::Duration;
use std::time::Instant;

/// The pauses between tries to reach one peer.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    /// The pause after the last failure; zero when there was none since it last worked.
    pause: Duration,
    next: Option<Instant>,
}

impl Backoff {
    /// The first pause is the `shortest`, none is longer than the `longest`.
    pub const fn new(shortest: Duration, longest: Duration) -> Self {
        Self {
            shortest,
            longest,
            pause: Duration::ZERO,
            next: None,
        }
    }

    /// When the next try may be made; `None`: at once.
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Whether it may be tried now.
    pub fn is_over(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// It failed.
    pub fn failed(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(self.shortest, self.longest);
        self.next = Some(now + self.pause);
    }

    /// It worked.
    pub fn worked(&mut self) {
        self.pause = Duration::ZERO;
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rim;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_when_it_worked() {
        let ms = Duration::from_millis;
        let now = rim::now();
        let mut backoff = Backoff::new(ms(50), ms(300));
        assert!(backoff.is_over(now));
        let pauses: Vec<Duration> = (0..5)
            .map(|_| {
                backoff.failed(now);
                backoff.due().unwrap() - now
            })
            .collect();
        assert_eq!(pauses, [ms(50), ms(100), ms(200), ms(300), ms(300)]);
        assert!(!backoff.is_over(now + ms(299)));
        assert!(backoff.is_over(now + ms(300)));
        backoff.worked();
        assert!(backoff.is_over(now));
        backoff.failed(now);
        assert_eq!(backoff.due(), Some(now + ms(50)));
    }
}
