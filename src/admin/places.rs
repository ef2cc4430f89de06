//! Who has a place at the admin sockets, and who gives his to the next one. Pure.
//!
//! The administrator comes in however many connections stand around: with all places taken, the connection that has
//! been idle longest gives way. One that we owe something (a `wait`, a reply that is being read) goes only when there
//! is none that we do not. A connection keeps its place for a moment at least, so that a crowd at the door cannot
//! push out somebody before he has said a word.

use core::time::Duration;
use std::time::Instant;

/// Connections at once, on all admin sockets. Each costs a descriptor and at most a few kilobytes while it is silent.
pub const CONNECTIONS_MAX: usize = 64;
/// Of these, connections to read-only sockets: monitoring must not push the administrator out.
pub const READ_ONLY_CONNECTIONS_MAX: usize = 48;
/// How long a connection is safe after it came, or did something. A program that connects to ask has asked by then;
/// a crowd of any size lets the next one in within this time for every 64 that stand before it.
pub const SAFE_FOR: Duration = Duration::from_millis(100);

/// A place that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// At a read-only socket.
    pub read_only: bool,
    /// It waits for something of ours, or has not read all of it.
    pub is_owed: bool,
    /// When it last began a line, ended one, or read something. Half a line typed is idleness.
    pub active: Instant,
}

/// What there is for the next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// A free place.
    Free,
    /// The place of the connection with this index, which has been idle longest.
    Of(usize),
    /// None, before then.
    From(Instant),
}

/// Looks for a place for a connection that comes in by a read-only socket, or another one.
pub fn room(now: Instant, read_only: bool, taken: &[Place]) -> Room {
    let watching = taken.iter().filter(|place| place.read_only).count();
    let crowded = read_only && watching >= READ_ONLY_CONNECTIONS_MAX;
    if taken.len() < CONNECTIONS_MAX && !crowded {
        return Room::Free;
    }
    idlest(now, crowded, taken)
}

/// The place of the connection, of read-only ones or of all, that has been idle longest.
pub fn idlest(now: Instant, read_only: bool, taken: &[Place]) -> Room {
    let numbered = taken.iter().enumerate();
    let asked = numbered.filter(|(_, place)| !read_only || place.read_only);
    let idlest = asked
        .clone()
        .filter(|(_, place)| place.active + SAFE_FOR <= now)
        .min_by_key(|(_, place)| (place.is_owed, place.active));
    let safe_until = asked.map(|(_, place)| place.active + SAFE_FOR).min();
    match (idlest, safe_until) {
        (Some((n, _)), _) => Room::Of(n),
        (None, Some(until)) => Room::From(until),
        (None, None) => Room::Free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// `count` places at the administrator's socket; the first has been idle longest.
    fn house(start: Instant, count: u32) -> Vec<Place> {
        let place = |n| Place {
            read_only: false,
            is_owed: false,
            active: start + MS * n,
        };
        (0..count).map(place).collect()
    }

    #[test]
    fn the_one_that_has_been_idle_longest_gives_way_in_a_full_house() {
        let start = crate::rim::now();
        let mut taken = house(start, 63);
        let later = start + Duration::from_secs(9);
        assert_eq!(room(later, false, &taken), Room::Free);
        taken.push(Place {
            active: start,
            ..taken[9]
        });
        taken[0].active = later;
        assert_eq!(room(later, false, &taken), Room::Of(63));
        assert_eq!(room(later, true, &taken), Room::Of(63));
    }

    #[test]
    fn whom_we_owe_something_goes_last() {
        let start = crate::rim::now();
        let mut taken = house(start, 64);
        let later = start + Duration::from_secs(9);
        for place in taken.iter_mut().take(63) {
            place.is_owed = true;
        }
        assert_eq!(room(later, false, &taken), Room::Of(63));
        taken[63].is_owed = true;
        assert_eq!(room(later, false, &taken), Room::Of(0));
    }

    #[test]
    fn who_has_just_come_is_safe_for_a_moment() {
        let start = crate::rim::now();
        let taken = house(start, 64);
        assert_eq!(room(start, false, &taken), Room::From(start + SAFE_FOR));
        assert_eq!(room(start + SAFE_FOR, false, &taken), Room::Of(0));
    }

    #[test]
    fn monitoring_pushes_out_monitoring_alone() {
        let start = crate::rim::now();
        let later = start + Duration::from_secs(9);
        let mut taken = house(start, 49);
        for place in taken.iter_mut().skip(1) {
            place.read_only = true;
        }
        assert_eq!(room(later, true, &taken), Room::Of(1));
        assert_eq!(room(later, false, &taken), Room::Free);
    }
}
