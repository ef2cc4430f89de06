//! Calls that flow beside a story: so many a second, each with its U, its L and, a while later, its D, and every
//! reply looked at.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::bed::{answer, create, delete};
use super::client;

/// Workers that begin calls, and as many that end them: enough for some to wait while the others go on.
const WORKERS: usize = 16;
/// Between two looks at an empty queue.
const LOOK: Duration = Duration::from_millis(2);

/// Calls under way, from [`Traffic::start`] to [`Traffic::stop`].
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    /// Workers that still begin calls.
    beginning: AtomicU64,
    /// Calls that have begun, and when they end.
    under_way: Mutex<VecDeque<(Instant, String)>>,
    bad: Mutex<Vec<String>>,
    /// Commands that were not answered, where that is nothing bad.
    broken: Option<AtomicU64>,
    slowest: Mutex<Duration>,
}

/// What became of the calls.
#[derive(Debug)]
pub struct Report {
    /// How many there were.
    pub made: u64,
    /// Replies that were none of a success, each with its command.
    pub bad: Vec<String>,
    /// Commands that were not answered or refused, where that is nothing bad.
    pub broken: u64,
    /// The longest that a command took.
    pub slowest: Duration,
}

impl Traffic {
    /// Makes `rate` calls a second at `socket`, each of which lasts for `hold`.
    pub fn start(socket: &Path, rate: u32, hold: Duration) -> Self {
        Self::start_as(socket, rate, hold, Shared::default())
    }

    /// The same past a daemon and members that are killed now and then: what is not answered then is nothing bad, but
    /// what is answered is right.
    pub fn start_through_kills(socket: &Path, rate: u32, hold: Duration) -> Self {
        let shared = Shared {
            broken: Some(AtomicU64::new(0)),
            ..Shared::default()
        };
        Self::start_as(socket, rate, hold, shared)
    }

    fn start_as(socket: &Path, rate: u32, hold: Duration, shared: Shared) -> Self {
        let shared = Arc::new(shared);
        let begin = Instant::now();
        shared.beginning.store(WORKERS as u64, Ordering::Relaxed);
        let worker = |work: fn(&Shared, &Path, Instant, u32, Duration)| {
            let (shared, socket) = (Arc::clone(&shared), socket.to_owned());
            thread::spawn(move || work(&shared, &socket, begin, rate, hold))
        };
        let threads = (0..WORKERS).flat_map(|_| [worker(Shared::begin_calls), worker(Shared::end_calls)]);
        Self {
            threads: threads.collect(),
            shared: Arc::clone(&shared),
        }
    }

    /// Calls begun so far.
    pub fn made(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Begins no further call and waits until the last is over.
    pub fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a worker of the traffic");
        }
        let take = |bad: &Mutex<Vec<String>>| std::mem::take(&mut *bad.lock().expect("no worker has failed"));
        Report {
            made: self.shared.next.load(Ordering::Relaxed),
            bad: take(&self.shared.bad),
            broken: self
                .shared
                .broken
                .as_ref()
                .map_or(0, |broken| broken.load(Ordering::Relaxed)),
            slowest: *self.shared.slowest.lock().expect("no worker has failed"),
        }
    }
}

impl Shared {
    fn begin_calls(&self, socket: &Path, begin: Instant, rate: u32, hold: Duration) {
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = begin + Duration::from_secs(1) / rate * u32::try_from(number).expect("a short story");
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let id = format!("traffic-{number}");
            let media = |reply: &str| reply.split_once(' ').map(|(_, address)| address.to_owned());
            let first = self.ask(socket, &create(&id));
            if self.broken.is_some() && first.is_empty() {
                // There is no such call, as far as a SIP server knows.
                continue;
            }
            let second = self.ask(socket, &answer(&id));
            let is_good = media(&first).is_some() && media(&first) == media(&second);
            if !is_good && !self.may_be(&[&first, &second]) {
                self.note(&id, &[first, second]);
            }
            let mut under_way = self.under_way.lock().expect("no worker has failed");
            under_way.push_back((due + hold, id));
        }
        self.beginning.fetch_sub(1, Ordering::Release);
    }

    fn end_calls(&self, socket: &Path, _: Instant, _: u32, _: Duration) {
        loop {
            let is_last = self.beginning.load(Ordering::Acquire) == 0;
            let first = self.under_way.lock().expect("no worker has failed").pop_front();
            match first {
                Some((due, id)) => {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let reply = self.ask(socket, &delete(&id));
                    if reply != "0" && !self.may_be(&[&reply]) {
                        self.note(&id, &reply);
                    }
                }
                None if is_last => return,
                None => thread::sleep(LOOK),
            }
        }
    }

    fn ask(&self, socket: &Path, command: &str) -> String {
        let start = Instant::now();
        let reply = match &self.broken {
            None => client::ask(socket, command),
            Some(broken) => client::try_ask(socket, command).unwrap_or_else(|| {
                broken.fetch_add(1, Ordering::Relaxed);
                String::new()
            }),
        };
        let mut slowest = self.slowest.lock().expect("no worker has failed");
        *slowest = slowest.max(start.elapsed());
        reply
    }

    /// Whether such replies are nothing bad: one is missing, an error or a no, and nothing is wrong with the others.
    fn may_be(&self, replies: &[&str]) -> bool {
        let is_none = |reply: &&str| reply.is_empty() || *reply == "0" || reply.starts_with('E');
        self.broken.is_some() && replies.iter().any(is_none)
    }

    fn note(&self, id: &str, replies: &(impl Debug + ?Sized)) {
        let mut bad = self.bad.lock().expect("no worker has failed");
        bad.push(format!("{id}: {replies:?}"));
    }
}
