//! The thread that writes the state directory. It alone waits for the disk.

use core::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::writer::{Batch, Disk, News, Shared, Writer};
use crate::rim;

/// How often it looks whether something is due.
const TURN: Duration = Duration::from_millis(250);

/// What it is told.
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
    /// Nothing more will come.
    Stop,
}

/// Writes until it is told to stop.
pub(super) fn run<D: Disk>(mut writer: Writer<D>, messages: &Receiver<Message>, shared: &Shared, name: &str) {
    loop {
        let message = rim::idle(|| messages.recv_timeout(TURN));
        let now = rim::now();
        match message {
            Ok(Message::Write(batch)) => writer.write(now, &batch, shared),
            Ok(Message::Keep { bytes, done }) => {
                writer.keep(now, bytes);
                drop(done);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                writer.finish(now);
                return;
            }
        }
        writer.turn(now, shared);
        for news in writer.take_news() {
            match news {
                News::Failed(error) => log::warn!(
                    "state directory {name}: {error}; calls are served, but a restart now would not know all of them"
                ),
                News::Whole => log::info!("state directory {name}: whole again"),
            }
        }
    }
}
