//! What became of the packets of one way. Pure: times come in.

use core::net::SocketAddr;
use core::time::Duration;
use std::time::Instant;

/// One way, while packets flow.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sent: Vec<Instant>,
    /// By the number of the packet; `None` for one that has not come.
    delays: Vec<Option<Duration>>,
    source: Option<SocketAddr>,
    error: Option<String>,
}

/// The same, when it is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) sent: usize,
    pub(crate) arrived: usize,
    /// From one party to the other.
    pub(crate) mean: Duration,
    pub(crate) worst: Duration,
    /// Where the first packet came from.
    pub(crate) source: Option<SocketAddr>,
    /// Why the system did not send one.
    pub(crate) error: Option<String>,
}

impl Tally {
    /// The next packet was sent; its number.
    pub(crate) fn sent(&mut self, now: Instant) -> u16 {
        self.sent.push(now);
        self.delays.push(None);
        u16::try_from(self.sent.len() - 1).unwrap_or(u16::MAX)
    }

    /// The system would not send one.
    pub(crate) fn failed(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    /// Packet `number` has come; a second time counts for nothing.
    pub(crate) fn arrived(&mut self, number: u16, from: SocketAddr, now: Instant) {
        let number = usize::from(number);
        if let (Some(sent), Some(delay)) = (self.sent.get(number), self.delays.get_mut(number)) {
            delay.get_or_insert(now.saturating_duration_since(*sent));
            self.source.get_or_insert(from);
        }
    }

    /// Whether nothing is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.delays.iter().all(Option::is_some)
    }

    /// What became of it.
    pub(crate) fn flow(&self) -> Flow {
        let delays = || self.delays.iter().flatten();
        let arrived = delays().count();
        let mean = u32::try_from(arrived)
            .ok()
            .and_then(|count| delays().sum::<Duration>().checked_div(count));
        Flow {
            sent: self.sent.len(),
            arrived,
            mean: mean.unwrap_or_default(),
            worst: delays().max().copied().unwrap_or_default(),
            source: self.source,
            error: self.error.clone(),
        }
    }
}

impl Flow {
    /// Whether everything came, or nearly: a packet in fifty is lost on a good line too.
    pub(crate) fn is_good(&self) -> bool {
        self.arrived > 0 && self.lost() <= LOSS_MAX
    }

    /// Lost packets, in percent.
    pub(crate) fn lost(&self) -> usize {
        (self.sent - self.arrived.min(self.sent)) * 100 / self.sent.max(1)
    }
}

/// Lost packets in percent that are no fault yet: those who speak hardly hear it.
const LOSS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_delay_are_of_what_was_sent() {
        let now = crate::rim::now();
        let ms = Duration::from_millis;
        let from = "10.0.0.4:35000".parse().unwrap();
        let mut tally = Tally::default();
        assert_eq!(tally.flow(), Flow::default());
        for number in 0..4 {
            assert_eq!(tally.sent(now + ms(20 * number)), u16::try_from(number).unwrap());
        }
        tally.arrived(0, from, now + ms(2));
        // Twice, and one that was never sent.
        tally.arrived(0, "10.0.0.5:1".parse().unwrap(), now + ms(50));
        tally.arrived(9, from, now);
        tally.arrived(2, from, now + ms(46));
        let flow = tally.flow();
        assert_eq!((flow.sent, flow.arrived, flow.lost()), (4, 2, 50));
        assert_eq!((flow.mean, flow.worst, flow.source), (ms(4), ms(6), Some(from)));
        assert!(!flow.is_good() && !tally.is_whole());
        tally.arrived(1, from, now + ms(21));
        tally.arrived(3, from, now + ms(61));
        assert!(tally.flow().is_good() && tally.is_whole());
    }
}
