//! A state directory in memory, for who simulates restarts: everything but the disk and the thread is the real thing.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::encode::Record;
use super::message::Message;
use super::segments::{Tally, read_segment};
use super::writer::{Disk, Writer};
use super::{Recorders, recorders};

/// Segments by their numbers.
#[derive(Debug, Default)]
struct Memory(BTreeMap<u64, Vec<u8>>);

impl Disk for Memory {
    fn newest(&self) -> io::Result<u64> {
        Ok(self.0.keys().last().copied().unwrap_or_default())
    }

    fn begin(&mut self, number: u64) -> io::Result<()> {
        self.0.insert(number, Vec::new());
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut newest = self.0.last_entry().ok_or(io::ErrorKind::NotFound)?;
        newest.get_mut().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn keep(&mut self, _changes: Option<&[u8]>) -> io::Result<()> {
        Ok(())
    }

    fn remove_before(&mut self, number: u64) -> io::Result<()> {
        self.0.retain(|old, _| *old >= number);
        Ok(())
    }
}

/// What is written, and who writes it.
#[derive(Debug)]
pub struct Tape {
    writer: Writer<Memory>,
    recorders: Recorders,
    messages: Receiver<Message>,
}

impl Tape {
    /// An empty one.
    pub fn new(now: Instant) -> Self {
        Self::on(now, Memory::default())
    }

    fn on(now: Instant, memory: Memory) -> Self {
        let (recorders, messages) = recorders();
        Self {
            writer: Writer::new(now, memory, &recorders.shared),
            recorders,
            messages,
        }
    }

    /// Who makes recorders.
    pub fn recorders(&self) -> &Recorders {
        &self.recorders
    }

    /// Writes down what was handed over.
    pub fn turn(&mut self, now: Instant) {
        while let Ok(message) = self.messages.try_recv() {
            self.writer.take(now, message, &self.recorders.shared);
        }
        self.writer.turn(now, &self.recorders.shared);
    }

    /// The writer's end, however it comes, and a successor on what it has written. What was handed over and not written
    /// is lost.
    #[must_use]
    pub fn again(self, now: Instant) -> Self {
        Self::on(now, self.writer.into_disk())
    }

    /// Shows what is written, as [`super::State::read`] does.
    pub fn read(&self, mut see: impl FnMut(&Record<'_>)) -> Tally {
        let mut tally = Tally::default();
        for bytes in self.writer.disk().0.values() {
            // Reading memory does not fail.
            let _ = read_segment(&**bytes, &mut tally, &mut see);
        }
        tally
    }
}
