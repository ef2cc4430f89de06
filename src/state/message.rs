//! What the writer is told.

use crossbeam_channel::Sender;

use super::encode::Print;

/// Records of one recorder.
#[derive(Debug)]
pub(super) struct Batch {
    /// Whose they are.
    pub(super) recorder: Print,
    /// The records.
    pub(super) bytes: Vec<u8>,
    /// The pass that ends with them.
    pub(super) passed: Option<u64>,
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Records to be written.
    Write(Batch),
    /// What operators have changed, in the place of what they had before.
    Keep {
        /// Nothing where there is nothing.
        bytes: Option<Vec<u8>>,
        /// Dropped when it is done, or could not be.
        done: Sender<()>,
    },
    /// Something may be due that was not before.
    Look,
    /// Nothing more will come.
    Stop,
}
