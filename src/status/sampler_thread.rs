//! The sampler: one connection to the daemon, over which it asks once a second, however many look at the page. What it
//! sees is the newest sample for all, and goes into the last hour.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::State;
use super::document::Document;
use super::process;
use super::routes::{self, Newest};
use crate::console::daemon::{Daemon, Trouble};
use crate::rim;

/// Between two samples.
const PAUSE: Duration = Duration::from_secs(1);
/// A sample is to cost the daemon less than a hundredth of a core: so many times as long as it took is waited.
const REST: u32 = 100;
/// Longest pause: within it a page shows what has happened, and no point of its plots stays empty.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long the daemon may take for an answer; one that needs more hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Samples the daemon at `socket` until `stop` is closed.
pub(super) fn run(socket: PathBuf, state: &State, stop: &Receiver<()>) {
    let mut sampler = Sampler {
        socket,
        connection: None,
        before: None,
    };
    loop {
        let pause = sampler.sample(state);
        match rim::idle(|| stop.recv_timeout(pause)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Sampler {
    socket: PathBuf,
    connection: Option<Daemon>,
    before: Option<Arc<Newest>>,
}

impl Sampler {
    /// One sample, and the time until the next one.
    fn sample(&mut self, state: &State) -> Duration {
        let begun = rim::now();
        // The time of the wall is shown; where it jumps a rate is unknown, and no more.
        let was_kept = self.connection.is_some();
        let mut answer = self.ask();
        if answer.is_err() && was_kept {
            // It may have been restarted since the last time.
            answer = self.ask();
        }
        let at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let pause = (begun.elapsed() * REST).clamp(PAUSE, PAUSE_MAX);
        let daemon = answer.and_then(Document::read);
        let before = self.before.as_deref();
        let daemon = {
            let mut history = state.history.lock();
            match daemon {
                Ok(document) => {
                    let earlier = before.and_then(|before| {
                        let daemon = before.daemon.as_ref().ok()?;
                        Some((before.at, &daemon.document))
                    });
                    if before.is_some_and(|before| before.daemon.is_err()) {
                        history.found(at);
                    }
                    let rates = history.saw(at, &document, earlier);
                    Ok((document, rates))
                }
                Err(why) => {
                    if before.is_none_or(|before| before.daemon.is_ok()) {
                        history.lost(at, &why);
                    }
                    Err(why)
                }
            }
        };
        tell(before, daemon.as_ref().err());
        let daemon = daemon.map(|(document, rates)| routes::Daemon {
            document,
            rates,
            usage: self
                .connection
                .as_ref()
                .and_then(Daemon::peer)
                .and_then(process::of_daemon),
        });
        let newest = Arc::new(Newest {
            at,
            daemon,
            pause: pause.as_secs_f64(),
        });
        *state.newest.lock() = Arc::clone(&newest);
        self.before = Some(newest);
        pause
    }

    /// The document of `ls --json`, over the kept connection where there is one.
    fn ask(&mut self) -> Result<String, String> {
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.has_ended() => connection,
            _ => rim::idle(|| Daemon::connect(&self.socket, Some(ANSWER_WITHIN)))
                .map_err(|trouble| trouble.to_string())?,
        };
        let mut lines = Vec::new();
        let is_good = rim::idle(|| {
            connection.ask(b"ls --json", |line, is_last| {
                // What is refused is told in the last line.
                if !is_last || lines.is_empty() {
                    lines.extend_from_slice(line);
                }
                Ok(())
            })
        })
        .map_err(|trouble: Trouble| trouble.to_string())?;
        let text = String::from_utf8(lines).map_err(|error| error.to_string())?;
        if !is_good {
            return Err(format!("the daemon says: {}", text.trim_end()));
        }
        self.connection = Some(connection);
        Ok(text)
    }
}

/// Logs a change, once.
fn tell(before: Option<&Newest>, why: Option<&String>) {
    match (before.map(|before| before.daemon.is_ok()), why) {
        (Some(true), None) | (Some(false), Some(_)) => {}
        (_, None) => log::info!("the daemon answers"),
        (_, Some(why)) => log::warn!("the daemon does not answer: {why}"),
    }
}
