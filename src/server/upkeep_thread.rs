//! The upkeep thread: what must be done later, by somebody who may wait. It closes a cluster that is being deleted
//! when its last member has gone, and a link that was replaced when no reply can come over it any more; and it hands
//! everything over to a successor.

use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Shared;
use crate::dispatch::ANSWER_WITHIN;
use crate::link::Link;
use crate::rim::{Thread, idle, now, spawn};

/// Messages that may wait. Each makes the thread look at everything, so one that finds no place is not missed,
/// and a link that finds none is closed at once: commands on their way over it are sent again or fail over.
const QUEUE: usize = 256;
/// How long a link that was replaced is kept. Every command that went over it is answered or given up by then.
const RETIRED_FOR: Duration = ANSWER_WITHIN.saturating_mul(2);

#[derive(Debug)]
enum Message {
    /// A cluster has no members any more.
    Emptied,
    /// A member has another link; this was its old one.
    Retired(Arc<Link>),
    /// A successor asks for everything.
    TakeOver(UnixStream),
    /// The daemon stops.
    Stop,
}

/// The way to the upkeep thread.
#[derive(Debug, Clone)]
pub struct Upkeep(Sender<Message>);

impl Upkeep {
    /// A cluster has no members any more: it may be one that closes then.
    pub fn emptied(&self) {
        self.0.try_send(Message::Emptied).ok();
    }

    /// A link has been replaced. Replies that are on their way to it are taken, then it is closed.
    pub fn retire(&self, link: Arc<Link>) {
        if let Err(error) = self.0.try_send(Message::Retired(link))
            && let Message::Retired(link) = error.into_inner()
        {
            link.close();
        }
    }
}

impl Upkeep {
    /// A successor asks for everything over `stream`; closed, it knows that it gets nothing.
    pub fn take_over(&self, stream: UnixStream) {
        self.0.try_send(Message::TakeOver(stream)).ok();
    }
}

/// What the thread is told, until it is started.
#[derive(Debug)]
pub(super) struct Inbox(Receiver<Message>);

/// The running thread.
#[derive(Debug)]
pub(super) struct UpkeepHandle {
    stop: Sender<Message>,
    thread: Thread,
}

impl UpkeepHandle {
    /// Ends the thread and waits for it; links that it keeps are closed.
    pub(super) fn stop(self) {
        self.stop.send(Message::Stop).ok();
        self.thread.join();
    }
}

/// The way to the thread, and its end of it.
pub(super) fn channel() -> (Upkeep, Inbox) {
    let (sender, receiver) = bounded(QUEUE);
    (Upkeep(sender), Inbox(receiver))
}

/// Starts the thread over the clusters of `shared`.
///
/// # Errors
/// When the system has no thread to give.
pub(super) fn start(shared: &Arc<Shared>, inbox: Inbox) -> io::Result<UpkeepHandle> {
    let stop = shared.upkeep.0.clone();
    let shared = Arc::downgrade(shared);
    let thread = spawn("upkeep", move || run(&shared, &inbox.0))?;
    Ok(UpkeepHandle { stop, thread })
}

fn run(shared: &Weak<Shared>, inbox: &Receiver<Message>) {
    // The oldest first.
    let mut retired: VecDeque<(Instant, Arc<Link>)> = VecDeque::new();
    loop {
        let message = idle(|| match retired.front() {
            Some((due, _)) => inbox.recv_deadline(*due),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        });
        match message {
            Ok(Message::Emptied) => {
                if let Some(shared) = shared.upgrade() {
                    shared.close_drained();
                }
            }
            Ok(Message::TakeOver(stream)) => {
                if let Some(shared) = shared.upgrade() {
                    shared.hand_over(stream);
                }
            }
            Ok(Message::Retired(link)) => retired.push_back((now() + RETIRED_FOR, link)),
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, link)) = retired.pop_front() {
                    link.close();
                }
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for (_, link) in retired {
        link.close();
    }
}
