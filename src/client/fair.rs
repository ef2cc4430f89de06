//! Datagrams that have been read and wait for their turn: each sender has a line of its own, and the lines are
//! served in turn. Pure.
//!
//! A socket that is read faster than it fills loses nothing, and what comes too fast is dropped here, where one can
//! tell whose it is: a sender may have as much waiting as is left for others, so that a flood drops its own
//! datagrams alone. They come again when they are wanted: clients over UDP repeat.

use core::net::SocketAddr;
use std::collections::{HashMap, VecDeque};

/// Bytes that may wait in one cluster: some 25,000 commands, half of them of one sender.
pub const BUDGET: usize = 4 << 20;
/// What a datagram counts for besides its text.
const OVERHEAD: usize = 64;

/// The lines of all senders that have something waiting.
#[derive(Debug)]
pub struct Fair {
    lines: HashMap<SocketAddr, Line>,
    /// Whose turn it is: each sender once.
    ring: VecDeque<SocketAddr>,
    held: usize,
    budget: usize,
}

#[derive(Debug, Default)]
struct Line {
    texts: VecDeque<Box<[u8]>>,
    held: usize,
}

fn cost(text: &[u8]) -> usize {
    OVERHEAD + text.len()
}

impl Default for Fair {
    fn default() -> Self {
        Self::new(BUDGET)
    }
}

impl Fair {
    /// Nobody waits; `budget` bytes may later, [`BUDGET`] by default.
    pub fn new(budget: usize) -> Self {
        Self {
            lines: HashMap::new(),
            ring: VecDeque::new(),
            held: 0,
            budget,
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Puts a datagram at the end of its sender's line. Says no when there is no room for it.
    pub fn push(&mut self, from: SocketAddr, text: &[u8]) -> bool {
        let cost = cost(text);
        let own = self.lines.get(&from).map_or(0, |line| line.held);
        if own.saturating_add(cost) > self.budget.saturating_sub(self.held) {
            return false;
        }
        let line = self.lines.entry(from).or_default();
        if line.texts.is_empty() {
            self.ring.push_back(from);
        }
        line.texts.push_back(text.into());
        line.held += cost;
        self.held += cost;
        true
    }

    /// The first datagram of the next sender that `may` have its turn; the others keep their places.
    pub fn next(&mut self, mut may: impl FnMut(SocketAddr) -> bool) -> Option<(SocketAddr, Box<[u8]>)> {
        for _ in 0..self.ring.len() {
            let from = self.ring.pop_front()?;
            if may(from) {
                return self.take(from);
            }
            self.ring.push_back(from);
        }
        None
    }

    /// The first datagram of a sender that has left the ring for it.
    fn take(&mut self, from: SocketAddr) -> Option<(SocketAddr, Box<[u8]>)> {
        let line = self.lines.get_mut(&from)?;
        let text = line.texts.pop_front()?;
        line.held -= cost(&text);
        self.held -= cost(&text);
        if line.texts.is_empty() {
            self.lines.remove(&from);
        } else {
            self.ring.push_back(from);
        }
        Some((from, text))
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    fn from(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    fn order(fair: &mut Fair) -> Vec<(u16, String)> {
        core::iter::from_fn(|| fair.next(|_| true))
            .map(|(from, text)| (from.port(), String::from_utf8(text.into()).unwrap()))
            .collect()
    }

    #[test]
    fn senders_take_turns_and_each_keeps_its_order() {
        let mut fair = Fair::new(BUDGET);
        for (port, text) in [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (2, "e"), (3, "f")] {
            assert!(fair.push(from(port), text.as_bytes()));
        }
        let served = order(&mut fair);
        let ports: Vec<u16> = served.iter().map(|(port, _)| *port).collect();
        let texts: String = served.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!((ports, texts.as_str()), (vec![1, 2, 3, 1, 2, 1], "adfbec"));
        assert!(fair.is_empty() && fair.lines.is_empty());
        assert_eq!(fair.held, 0);
    }

    #[test]
    fn a_flood_drops_its_own_datagrams_alone() {
        let mut fair = Fair::new(1_000 * cost(b"1234"));
        let taken = (0..5_000).filter(|_| fair.push(from(1), b"1234")).count();
        assert_eq!(taken, 500, "alone it gets half");
        assert!((0..250).all(|_| fair.push(from(2), b"1234")));
        assert!(!fair.push(from(1), b"1234"));
        assert!(fair.push(from(3), b"1234"));
        assert_eq!(order(&mut fair).len(), 751);
    }

    #[test]
    fn who_may_not_have_its_turn_keeps_its_place() {
        let mut fair = Fair::new(BUDGET);
        for port in [1, 1, 2, 2] {
            assert!(fair.push(from(port), b""));
        }
        for _ in 0..2 {
            assert_eq!(fair.next(|who| who == from(2)).map(|(who, _)| who), Some(from(2)));
        }
        assert_eq!(fair.next(|who| who == from(2)), None);
        assert_eq!(order(&mut fair).len(), 2);
    }
}
