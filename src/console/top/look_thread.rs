//! Asks the daemon for what the live view shows, aside from the thread of the keys: a daemon that hangs costs its
//! pictures, never a key.

use core::time::Duration;
use std::io;
use std::os::unix::net::UnixStream;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::daemon::{Daemon, Trouble};
use super::super::shown::shown;
use super::picture::{ERRORS_MAX, Replies, cluster_names};
use crate::rim::{self, Thread};

/// How long a reply may take. The largest one takes a busy daemon some 50 ms.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What the daemon says, or why it says nothing.
pub(super) type Look = Result<Replies, String>;

/// The thread.
#[derive(Debug)]
pub(super) struct Looker {
    /// What it needs to be told to end: both channels and the pipe close.
    ends: Option<(Sender<()>, Receiver<Look>, UnixStream)>,
    thread: Option<Thread>,
    /// A look is under way.
    looks: bool,
}

impl Looker {
    /// Over a connection of its own.
    pub(super) fn start(daemon: &Daemon) -> Result<Self, Trouble> {
        let start = |mut daemon: Daemon| -> io::Result<Self> {
            let (pipe, interrupt) = UnixStream::pair()?;
            daemon = daemon.interruptible(interrupt);
            // One look at a time.
            let (ask, asked) = bounded::<()>(1);
            let (tell, told) = bounded(1);
            let body = move || {
                while rim::idle(|| asked.recv()).is_ok() {
                    let look = rim::idle(|| look(&mut daemon));
                    if tell.send(look).is_err() {
                        return;
                    }
                }
            };
            Ok(Self {
                ends: Some((ask, told, pipe)),
                thread: Some(rim::spawn("look", body)?),
                looks: false,
            })
        };
        start(daemon.another(PATIENCE)?).map_err(Trouble::Streams)
    }

    /// Whether what was asked for has not come yet.
    pub(super) fn looks(&self) -> bool {
        self.looks
    }

    /// Asks for a look, unless one is under way.
    pub(super) fn ask(&mut self) {
        if let Some((ask, ..)) = &self.ends {
            self.looks |= ask.try_send(()).is_ok();
        }
    }

    /// What was asked for, when it has come.
    pub(super) fn told(&mut self) -> Option<Look> {
        let (_, told, _) = self.ends.as_ref()?;
        let look = told.try_recv().ok()?;
        self.looks = false;
        Some(look)
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.ends = None;
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

/// One look.
pub(super) fn look(daemon: &mut Daemon) -> Look {
    let replies = |daemon: &mut Daemon| {
        if daemon.has_ended() {
            daemon.reconnect()?;
        }
        let ls = reply(daemon, "ls -v")?;
        let (mut members, mut last) = (Vec::new(), Vec::new());
        for name in cluster_names(&ls) {
            members.push(reply(daemon, &format!("ls -v -- {name}"))?);
            last.push(reply(
                daemon,
                &format!("trace -- {name} last limit={ERRORS_MAX}"),
            )?);
        }
        Ok(Replies {
            stats: reply(daemon, "stats")?,
            ls,
            members,
            last,
        })
    };
    replies(daemon).map_err(|trouble: Trouble| match trouble {
        Trouble::Late(..) => "the daemon does not answer".to_owned(),
        trouble => shown(&trouble.to_string()).into_owned(),
    })
}

/// A reply as a whole. That of a cluster that has just gone is an error, which lists nothing.
fn reply(daemon: &mut Daemon, command: &str) -> Result<String, Trouble> {
    let mut reply = String::new();
    daemon.ask(command.as_bytes(), |line, _| {
        reply.push_str(&shown(&String::from_utf8_lossy(line)));
        Ok(())
    })?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::admin::fake::Place;

    #[test]
    fn a_daemon_that_hangs_holds_up_neither_the_keys_nor_the_end() {
        let place = Place::new();
        // It accepts by its queue alone and never reads.
        let _listener = UnixListener::bind(place.path("admin")).unwrap();
        let daemon = Daemon::connect(&place.path("admin"), None).unwrap();
        let mut looker = Looker::start(&daemon).unwrap();
        looker.ask();
        assert!(looker.looks() && looker.told().is_none());
        // It would wait for longer than the test may take otherwise.
        drop(looker);
    }
}
