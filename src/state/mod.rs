//! The state directory: what outlives the process. Who has which call is written down as it happens, in
//! [`encode`]'s records, by a thread that no command waits for, and so is what operators have [changed](changes) and not
//! saved; a successor reads both.
//!
//! | file | does |
//! |---|---|
//! | `encode.rs` | records to bytes and back |
//! | `changes.rs` | what operators have changed and not saved, as bytes |
//! | `message.rs` | what the writer is told |
//! | `past.rs` | what was read, put into the clusters that there are now |
//! | `recorder.rs` | a cluster's side: what happens becomes records, and batches of them are handed over |
//! | `writer.rs` | when what is written, and what is done about a disk that fails |
//! | `segments.rs` | the files |
//! | `state_thread.rs` | the thread that writes |
//! | `tape.rs` | the same in memory, for the simulation |

pub mod changes;
pub mod encode;
mod message;
pub mod past;
mod recorder;
mod segments;
mod state_thread;
pub mod tape;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use self::changes::Changes;
use self::encode::Record;
use self::message::Message;
pub use self::recorder::{Recorder, Recorders, print};
use self::segments::Directory;
pub use self::segments::Tally;
use self::writer::{Shared, Writer};
use crate::rim::{self, Thread};

/// Batches that wait for the disk at most; with those of [`recorder::BATCH`] some 8 MiB. When it is full a batch is
/// dropped, and all is told again.
const QUEUE: usize = 256;

fn recorders() -> (Recorders, Receiver<Message>) {
    let (to, messages) = crossbeam_channel::bounded(QUEUE);
    let shared = Arc::new(Shared::default());
    (Recorders { to, shared }, messages)
}

/// A state directory that is ours, before anything is written.
#[derive(Debug)]
pub struct State {
    directory: Directory,
    name: String,
    recorders: Recorders,
    messages: Receiver<Message>,
}

impl State {
    /// Takes a directory; makes it where it is absent.
    ///
    /// # Errors
    /// `WouldBlock` when another daemon has it; or it cannot be made or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (recorders, messages) = recorders();
        Ok(Self {
            directory: Directory::open(path)?,
            name: path.display().to_string(),
            recorders,
            messages,
        })
    }

    /// Shows what was written before, in the order in which it happened: of what several records tell of, the last
    /// one counts. Damage costs what it has hit.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn read(&self, see: impl FnMut(&Record<'_>)) -> io::Result<Tally> {
        self.directory.read(see)
    }

    /// Who makes a recorder for each cluster; those that there are before [`State::start`] are waited for before
    /// what was read is removed.
    pub fn recorders(&self) -> &Recorders {
        &self.recorders
    }

    /// Starts to write.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(self) -> io::Result<Store> {
        let Self {
            directory,
            name,
            recorders,
            messages,
        } = self;
        let shared = Arc::clone(&recorders.shared);
        let thread = rim::spawn("state", move || {
            let writer = Writer::new(rim::now(), directory, &shared);
            state_thread::run(writer, &messages, &shared, &name);
        })?;
        Ok(Store { recorders, thread })
    }
}

/// What operators had changed and not saved, if a daemon has left that in a state directory.
///
/// # Errors
/// `InvalidData` where it is damaged, or of another version; and those of the file system.
pub fn read_changes(path: &Path) -> io::Result<Option<Changes>> {
    let Some(bytes) = segments::read_changes(path)? else {
        return Ok(None);
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged, or of another version");
    Changes::decode(&bytes).map(Some).ok_or_else(damaged)
}

/// A state directory that is written.
#[derive(Debug)]
pub struct Store {
    recorders: Recorders,
    thread: Thread,
}

impl Store {
    /// Who makes recorders for further clusters.
    pub fn recorders(&self) -> &Recorders {
        &self.recorders
    }

    /// Writes down what there is and ends. What recorders hand over later is lost.
    pub fn stop(self) {
        self.recorders.to.send(Message::Stop).ok();
        self.thread.join();
    }
}

#[cfg(test)]
mod restarts;
#[cfg(test)]
mod tests;
