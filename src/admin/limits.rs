//! How long who does what keeps its place, and what is told of who does not.

use core::time::Duration;

use crate::rim::throttle::Throttle;

/// How long a silent client keeps its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// After the beginning of a line that does not end, however many bytes of it come meanwhile.
    pub(super) half_line: Duration,
    /// After whole lines, or none at all: a prompt may stay open over night.
    pub(super) idle: Duration,
    /// While it does not read what others wait for.
    pub(super) unread: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            half_line: Duration::from_secs(60),
            idle: Duration::from_secs(24 * 60 * 60),
            unread: Duration::from_secs(1),
        }
    }
}

/// What anybody who may connect can cause, told once a minute.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    pub(super) no_descriptors: Throttle,
    pub(super) unread: Throttle,
    /// Changes that a read-only socket does not take.
    pub(super) refused: Throttle,
    /// Commands behind a `wait` whose client has gone.
    pub(super) lost: Throttle,
}
