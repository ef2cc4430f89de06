//! Waiting for a condition, with a deadline. Nothing in the tests sleeps and hopes.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that has no bound of its own: long enough for a busy machine with two cores.
pub const LONG: Duration = Duration::from_secs(30);

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until `condition` gives something, and fails the test with `what` when it has not within `limit`.
pub fn until<T>(what: impl Display, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(PAUSE);
    }
}

/// As [`until`], for a condition that is true or not.
pub fn until_true(what: impl Display, limit: Duration, mut condition: impl FnMut() -> bool) {
    until(what, limit, || condition().then_some(()));
}
