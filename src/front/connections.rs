//! Counts the open connections of a cluster, so that their number has a bound.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Connections to one control socket at most; beyond, accepting pauses.
pub const CONNECTIONS_MAX: usize = 10_000;

/// How many connections are open.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<AtomicUsize>);

/// One connection's share; given back when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Connections {
    /// A place for one more connection.
    pub fn enter(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(&self.0))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
