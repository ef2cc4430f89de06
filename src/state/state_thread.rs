//! The thread that writes the state directory. It alone waits for the disk.

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::message::Message;
use super::writer::{Disk, News, Shared, Writer};
use crate::rim;

/// Writes until it is told to stop.
pub(super) fn run<D: Disk>(mut writer: Writer<D>, messages: &Receiver<Message>, shared: &Shared, name: &str) {
    loop {
        let due = writer.due(shared);
        let message = rim::idle(|| match due {
            Some(due) => messages.recv_deadline(due),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        });
        let now = rim::now();
        let message = match message {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => Message::Look,
            Err(RecvTimeoutError::Disconnected) => Message::Stop,
        };
        if writer.take(now, message, shared) {
            return;
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
