//! A mutex with a rank. A thread that holds one takes only those of a higher rank; two of the same rank are never held
//! together. So no two threads can wait for each other. Debug builds assert it with each lock that is taken, whether
//! another thread is there or not; in a release build nothing is left of it.

use core::fmt;
use core::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};

/// Ranks of the locks that are taken while others may be held, lowest first. A lock belongs here with the first other
/// one that it may be held together with.
pub mod rank {
    /// One change of the configuration at a time: held from its beginning to its end.
    pub const CHANGES: u8 = 10;
    /// The configuration file as it was read last.
    pub const FILE: u8 = 20;
    /// The dispatcher of a cluster; so nobody holds two of them.
    pub const DISPATCHER: u8 = 100;
    /// The newest commands of a cluster, for who looks.
    pub const RECENT: u8 = 110;
    /// The files and handed descriptors of `sockets`: asked for by who opens a socket, whatever he holds.
    pub const SOCKETS: u8 = 200;
    /// The log, which may be written to under any other.
    pub const LOG: u8 = 255;
}

/// A mutex of rank `RANK`.
#[derive(Default)]
pub struct Ranked<T, const RANK: u8> {
    mutex: Mutex<T>,
}

impl<T, const RANK: u8> Ranked<T, RANK> {
    /// An unlocked one.
    pub const fn new(value: T) -> Self {
        Self {
            mutex: Mutex::new(value),
        }
    }

    /// Waits for it. In a debug build this panics, instead of waiting, where the thread holds one that it must not.
    pub fn lock(&self) -> Guard<'_, T, RANK> {
        // Before the wait: a deadlock is told, not met.
        let held = Held::take();
        Guard {
            guard: self.mutex.lock(),
            _held: held,
        }
    }
}

impl<T: fmt::Debug, const RANK: u8> fmt::Debug for Ranked<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mutex.fmt(f)
    }
}

/// A locked [`Ranked`]; dropped, it is free again.
#[must_use = "it is free again at once if this is dropped"]
pub struct Guard<'a, T, const RANK: u8> {
    guard: MutexGuard<'a, T>,
    _held: Held<RANK>,
}

impl<T, const RANK: u8> Deref for Guard<'_, T, RANK> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, const RANK: u8> DerefMut for Guard<'_, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(debug_assertions)]
std::thread_local! {
    /// Ranks of the locks that this thread holds, in the order in which it took them.
    static HELD: core::cell::RefCell<Vec<u8>> = const { core::cell::RefCell::new(Vec::new()) };
}

/// The note of this thread that it holds a lock of that rank.
struct Held<const RANK: u8>;

#[cfg(debug_assertions)]
impl<const RANK: u8> Held<RANK> {
    fn take() -> Self {
        HELD.with_borrow_mut(|held| {
            let highest = held.iter().copied().max();
            assert!(
                highest.is_none_or(|highest| highest < RANK),
                "a lock of rank {RANK} is asked for by a thread that holds ranks {held:?}"
            );
            held.push(RANK);
        });
        Self
    }
}

#[cfg(debug_assertions)]
impl<const RANK: u8> Drop for Held<RANK> {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            if let Some(place) = held.iter().rposition(|rank| *rank == RANK) {
                held.remove(place);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
impl<const RANK: u8> Held<RANK> {
    const fn take() -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_in_rising_rank_and_given_back_in_any_order() {
        let (low, middle, high) = (
            Ranked::<_, 1>::new(1),
            Ranked::<_, 2>::new(2),
            Ranked::<_, 3>::new(3),
        );
        let first = low.lock();
        let mut second = middle.lock();
        *second += *first;
        drop(first);
        let third = high.lock();
        drop(second);
        assert_eq!((*middle.mutex.lock(), *third), (3, 3));
        drop(third);
        assert_eq!((*low.lock(), *middle.lock()), (1, 3), "each is free again");
    }

    #[test]
    fn another_threads_locks_are_its_own() {
        let (low, high) = (Ranked::<_, 1>::new(()), Ranked::<_, 2>::new(()));
        let _held = high.lock();
        std::thread::scope(|scope| scope.spawn(|| drop(low.lock())).join().unwrap());
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "a lock of rank 1 is asked for by a thread that holds ranks [2]")]
    fn a_lower_rank_is_refused() {
        let (low, high) = (Ranked::<_, 1>::new(()), Ranked::<_, 2>::new(()));
        let _held = high.lock();
        let _ = low.lock();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "a lock of rank 1 is asked for by a thread that holds ranks [1]")]
    fn two_of_a_rank_are_refused() {
        let (one, other) = (Ranked::<_, 1>::new(()), Ranked::<_, 1>::new(()));
        let _held = one.lock();
        let _ = other.lock();
    }

    #[cfg(not(debug_assertions))]
    #[test]
    fn a_release_build_pays_nothing() {
        assert_eq!(size_of::<Guard<'_, u64, 1>>(), size_of::<MutexGuard<'_, u64>>());
    }
}
