//! The delay of one member, from a command to its reply: the smoothed estimate, the pauses before a datagram is
//! sent again, and how long a new session may wait before the next member gets it. Pure.
//!
//! Only an exchange that was sent once is measured: of one that was sent again nobody knows which copy the reply
//! answers. A member that became slower than the first pause would thus never be measured again, so a pause that
//! had to grow is kept until a measurement succeeds (the rule of TCP, RFC 6298); and not for ever, see [`Delay::resent`].

use core::time::Duration;

use crate::dispatch::histogram::Histogram;

/// A datagram is never sent again sooner.
pub const PAUSE_MIN: Duration = Duration::from_millis(10);
/// A datagram is never sent again later: 14 times in the 3 s of a command.
pub const PAUSE_MAX: Duration = Duration::from_millis(250);
/// The first pause towards a member that has not been measured yet.
pub const PAUSE_UNKNOWN: Duration = Duration::from_millis(50);
/// How long an attempt may take at a member that has not been measured yet.
pub const IN_TIME_UNKNOWN: Duration = Duration::from_millis(250);
/// An attempt is never given up sooner.
pub const IN_TIME_MIN: Duration = Duration::from_millis(100);
/// Replies to commands that had been sent again, in a row, that say nothing.
pub const UNSURE_MAX: u32 = 3;
/// The new sample's part of the estimate is 1 in so many: 0.95 old, 0.05 new.
const SMOOTHING: u64 = 20;

/// What is known of a member's delay. Starts as unknown.
#[derive(Debug, Clone, Default)]
pub struct Delay {
    /// In nanoseconds.
    smoothed: Option<u64>,
    /// The pause that was reached when a reply came to a command that had been sent again.
    backed_off: Option<Duration>,
    /// Replies in a row to commands that had been sent again.
    unsure: u32,
    times: Histogram,
}

impl Delay {
    /// A command that was sent once has been answered after `delay`.
    pub fn sample(&mut self, delay: Duration) {
        let new = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.smoothed = Some(match self.smoothed {
            None => new,
            Some(old) if new >= old => old + (new - old) / SMOOTHING,
            Some(old) => old - (old - new) / SMOOTHING,
        });
        (self.backed_off, self.unsure) = (None, 0);
        self.times.add(delay);
    }

    /// A command that had been sent again has been answered `delay` after its first copy, while `pause` was running
    /// before the next one. A member that is slower than the longest pause would never be measured, so after
    /// [`UNSURE_MAX`] such replies in a row the time from the first copy is taken for the delay: it is no less.
    pub fn resent(&mut self, pause: Duration, delay: Duration) {
        let pause = pause.min(PAUSE_MAX);
        let backed_off = self.backed_off.map_or(pause, |before| before.max(pause));
        let unsure = self.unsure.saturating_add(1);
        if unsure > UNSURE_MAX {
            self.sample(delay);
        }
        (self.backed_off, self.unsure) = (Some(backed_off), unsure);
    }

    /// The member is another RTPproxy from now on: its delay is not known. What was measured stays counted, since a
    /// counter never goes back.
    pub fn forget(&mut self) {
        (self.smoothed, self.backed_off, self.unsure) = (None, None, 0);
    }

    /// The smoothed delay; `None` before the first measurement.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(Duration::from_nanos)
    }

    /// The pause between the first copy of a datagram and the second: four times the delay.
    pub fn first_retransmission(&self) -> Duration {
        let pause = match self.smoothed() {
            None => PAUSE_UNKNOWN,
            Some(delay) => delay.saturating_mul(4).clamp(PAUSE_MIN, PAUSE_MAX),
        };
        self.backed_off.map_or(pause, |backed_off| backed_off.max(pause))
    }

    /// The pause that follows the pause `before`: twice as long, up to [`PAUSE_MAX`].
    pub fn next_retransmission(&self, before: Duration) -> Duration {
        before.saturating_mul(2).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    /// How long this member may take over a new session before the next one gets it too: [`IN_TIME_UNKNOWN`] at
    /// first, then eight times its delay, but never under [`IN_TIME_MIN`] nor before its second retransmission,
    /// and never above `timeout`.
    pub fn in_time(&self, timeout: Duration) -> Duration {
        let wanted = self
            .smoothed()
            .map_or(IN_TIME_UNKNOWN, |delay| delay.saturating_mul(8));
        let first = self.first_retransmission();
        let second = first.saturating_add(self.next_retransmission(first));
        wanted.max(IN_TIME_MIN).max(second).min(timeout)
    }

    /// All measured delays.
    pub fn times(&self) -> &Histogram {
        &self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn measured(delay: Duration) -> Delay {
        let mut known = Delay::default();
        known.sample(delay);
        known
    }

    #[test]
    fn an_unknown_member_gets_the_defaults() {
        let delay = Delay::default();
        assert_eq!(delay.smoothed(), None);
        assert_eq!(delay.first_retransmission(), ms(50));
        assert_eq!(delay.in_time(LONG), ms(250));
        assert_eq!(delay.in_time(ms(80)), ms(80));
    }

    #[test]
    fn the_first_sample_counts_whole_and_later_ones_a_twentieth() {
        let mut delay = measured(ms(20));
        assert_eq!(delay.smoothed(), Some(ms(20)));
        delay.sample(ms(120));
        assert_eq!(delay.smoothed(), Some(ms(25)));
        delay.sample(ms(5));
        assert_eq!(delay.smoothed(), Some(ms(24)));
    }

    #[test]
    fn the_estimate_comes_down_to_a_delay_that_lasts() {
        let mut delay = measured(ms(400));
        for _ in 0..400 {
            delay.sample(Duration::from_micros(100));
        }
        assert!(delay.smoothed().unwrap() < Duration::from_micros(101));
    }

    #[test]
    fn the_first_pause_is_four_delays_within_its_bounds() {
        assert_eq!(
            measured(Duration::from_micros(200)).first_retransmission(),
            ms(10)
        );
        assert_eq!(measured(ms(15)).first_retransmission(), ms(60));
        assert_eq!(measured(ms(900)).first_retransmission(), ms(250));
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_make_fourteen_tries_in_three_seconds() {
        let delay = measured(ms(1));
        let mut pause = delay.first_retransmission();
        let (mut pauses, mut tries, mut at) = (vec![pause], 1, pause);
        while at < LONG {
            tries += 1;
            pause = delay.next_retransmission(pause);
            pauses.push(pause);
            at += pause;
        }
        assert_eq!(
            pauses[..7],
            [ms(10), ms(20), ms(40), ms(80), ms(160), ms(250), ms(250)]
        );
        assert!(tries >= 14, "{tries}");
    }

    #[test]
    fn a_new_session_waits_eight_delays_or_for_the_second_retransmission() {
        // Far below the floor of both.
        assert_eq!(measured(ms(1)).in_time(LONG), ms(100));
        // 4 × 10 + 8 × 10: the second retransmission is later than 8 × 10.
        assert_eq!(measured(ms(10)).in_time(LONG), ms(120));
        // The pauses have reached their bound: 8 × 100 is later than 250 + 250.
        assert_eq!(measured(ms(100)).in_time(LONG), ms(800));
        assert_eq!(measured(ms(100)).in_time(ms(250)), ms(250));
    }

    #[test]
    fn a_member_that_became_slow_is_measured_again() {
        let truth = ms(31);
        let mut delay = measured(Duration::from_micros(500));
        for _ in 0..200 {
            let mut pause = delay.first_retransmission();
            let (mut copies, mut next) = (1, pause);
            while next < truth {
                copies += 1;
                pause = delay.next_retransmission(pause);
                next += pause;
            }
            if copies == 1 {
                delay.sample(truth);
            } else {
                delay.resent(pause, truth);
            }
        }
        let smoothed = delay.smoothed().unwrap();
        assert!(
            smoothed > ms(25),
            "{smoothed:?}: measured only if sent once, it must still come near {truth:?}"
        );
        assert!(delay.first_retransmission() > truth);
    }

    #[test]
    fn a_member_that_is_slower_than_every_pause_is_measured_all_the_same() {
        let mut delay = Delay::default();
        for _ in 0..UNSURE_MAX {
            delay.resent(ms(250), ms(900));
            assert_eq!(delay.smoothed(), None);
        }
        delay.resent(ms(250), ms(900));
        assert_eq!(delay.smoothed(), Some(ms(900)));
        assert_eq!(
            delay.in_time(ms(1_500)),
            ms(1_500),
            "it is waited for as long as may be"
        );
        assert_eq!(delay.first_retransmission(), ms(250));
    }

    #[test]
    fn a_pause_that_grew_is_given_up_at_the_next_measurement() {
        let mut delay = measured(ms(1));
        delay.resent(ms(40), ms(50));
        delay.resent(ms(20), ms(50));
        assert_eq!(delay.first_retransmission(), ms(40));
        delay.resent(ms(4000), ms(50));
        assert_eq!(delay.first_retransmission(), ms(250));
        delay.sample(ms(1));
        assert_eq!(delay.first_retransmission(), ms(10));
    }

    #[test]
    fn absurd_values_do_no_harm() {
        let mut delay = measured(Duration::MAX);
        delay.sample(Duration::ZERO);
        delay.sample(Duration::MAX);
        assert_eq!(delay.times().sum, Duration::MAX);
        assert_eq!(
            delay.in_time(Duration::MAX),
            delay.smoothed().unwrap().saturating_mul(8)
        );
        assert_eq!(delay.in_time(Duration::ZERO), Duration::ZERO);
    }
}
