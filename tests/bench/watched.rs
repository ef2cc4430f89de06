//! A daemon that is watched: its metrics are read ten times a second, and two pages of the status program are open.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::place::Place;
use crate::support::web::Status;

/// What a Prometheus reads, ten times as often as anybody has it.
const METRICS: (&[&str], Duration) = (&["/metrics"], Duration::from_millis(100));
/// What a page asks for.
const PAGE: (&[&str], Duration) = (&["/api/v1/page", "/api/v1/history"], Duration::from_secs(1));

/// Watched for as long as this lives.
pub struct Watched {
    stop: Vec<Sender<()>>,
    readers: Vec<JoinHandle<()>>,
    _place: Place,
}

impl Watched {
    /// Starts the status program in front of a daemon, and who reads it.
    pub fn start(daemon: &Daemon) -> Self {
        let place = Place::new();
        let status = Arc::new(Status::start(&place, &daemon.files().admin));
        let (mut stop, mut readers) = (Vec::new(), Vec::new());
        for (paths, pause) in [METRICS, PAGE, PAGE] {
            let (sender, stopped) = mpsc::channel::<()>();
            let status = Arc::clone(&status);
            stop.push(sender);
            readers.push(thread::spawn(move || {
                while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    for path in paths {
                        assert_eq!(status.get(path).status, 200, "{path}");
                    }
                }
            }));
        }
        Self {
            stop,
            readers,
            _place: place,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.clear();
        for reader in self.readers.drain(..) {
            reader.join().expect("each answer was one");
        }
    }
}
