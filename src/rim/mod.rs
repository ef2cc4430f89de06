//! Threads and time for the rim. Every thread starts here, so that it has a name in `top -H` and an end that
//! its owner waits for; every clock reading of the program is [`now`]. A thread waits inside of [`idle`], so that the
//! watchdog can tell one that waits from one that hangs.

pub mod alarms;
pub mod backoff;
pub mod feed;
pub mod lock;
pub mod names_thread;
pub mod readiness;
pub(crate) mod sys;
pub mod throttle;

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// The monotonic clock. Only threads of the rim call this, once an event; pure code is given the value.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    Instant::now()
}

/// The wall clock, for what people read: time since the epoch of UNIX.
#[must_use]
pub fn wall() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// A running thread. Whoever holds it stops it (by closing what it waits for) and then calls [`Thread::join`].
#[derive(Debug)]
pub struct Thread {
    handle: JoinHandle<()>,
}

impl Thread {
    /// Waits until the thread has ended.
    pub fn join(self) {
        // A panic has ended the process already in a release build (`panic = "abort"`), and been printed.
        if self.handle.join().is_err() {
            log::error!("a thread panicked");
        }
    }

    /// Whether the thread has ended by itself.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Starts a thread called `name` (15 bytes of it survive in the kernel: `cluster-0`, `reply-0.3`).
///
/// # Errors
/// When the system has no more threads to give.
pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    let name = name.into();
    let pulse = Arc::new(Pulse {
        name: name.clone(),
        beats: AtomicU64::new(0),
    });
    PULSES.lock().push(Arc::downgrade(&pulse));
    let body = || {
        PULSE.set(Some(pulse));
        body();
    };
    let handle = Builder::new().name(name).spawn(body)?;
    Ok(Thread { handle })
}

/// Does `wait`, which may take any time: whatever blocks for news belongs into it, and nothing else.
pub fn idle<T>(wait: impl FnOnce() -> T) -> T {
    let beat = |waits: bool| {
        PULSE.with_borrow(|pulse| {
            if let Some(pulse) = pulse {
                // Only this thread writes it.
                let beats = pulse.beats.load(Ordering::Relaxed);
                pulse
                    .beats
                    .store((beats | 1) + u64::from(waits), Ordering::Relaxed);
            }
        });
    };
    beat(true);
    let result = wait();
    beat(false);
    result
}

/// Where a thread is: even while it waits, and odd while it works, another number each time.
#[derive(Debug)]
struct Pulse {
    name: String,
    beats: AtomicU64,
}

thread_local! {
    static PULSE: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
}

/// Of every thread that lives.
static PULSES: Mutex<Vec<Weak<Pulse>>> = Mutex::new(Vec::new());

/// What the watchdog saw when it last looked at all threads.
#[derive(Debug, Default)]
pub struct Watch {
    at_work: Vec<(Weak<Pulse>, u64)>,
}

impl Watch {
    /// The threads that are at the same piece of work as at the last look: they hang, if looks are seconds apart.
    pub fn hanging(&mut self) -> Vec<String> {
        let pulses: Vec<Arc<Pulse>> = {
            let mut pulses = PULSES.lock();
            pulses.retain(|pulse| pulse.strong_count() > 0);
            pulses.iter().filter_map(Weak::upgrade).collect()
        };
        let at_work = pulses.iter().filter_map(|pulse| {
            let beats = pulse.beats.load(Ordering::Relaxed);
            (beats % 2 == 1).then(|| (Arc::downgrade(pulse), beats))
        });
        let before = std::mem::replace(&mut self.at_work, at_work.collect());
        let is_old = |(pulse, beats): &(Weak<Pulse>, u64)| {
            before
                .iter()
                .any(|(earlier, then)| then == beats && earlier.ptr_eq(pulse))
        };
        let old = self.at_work.iter().filter(|at_work| is_old(at_work));
        old.filter_map(|(pulse, _)| Some(pulse.upgrade()?.name.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_hangs_is_told_from_those_that_wait_and_work() {
        let (go, wait) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let news = Mutex::new(wait);
        // Takes a message each time, and works on the last one for ever.
        let thread = spawn("hangs", move || {
            for _ in 0..2 {
                idle(|| news.lock().recv().unwrap());
                tell.send(()).unwrap();
            }
            news.lock().recv().ok();
        })
        .unwrap();
        let ours = |hanging: Vec<String>| hanging.iter().any(|name| name == "hangs");
        let mut watch = Watch::default();
        assert!(!ours(watch.hanging()) && !ours(watch.hanging()), "it waits");
        go.send(()).unwrap();
        told.recv().unwrap();
        assert!(!ours(watch.hanging()), "it has just been at work");
        go.send(()).unwrap();
        told.recv().unwrap();
        assert!(!ours(watch.hanging()), "at another work than before");
        assert!(
            ours(watch.hanging()) && ours(watch.hanging()),
            "at the same for long"
        );
        drop(go);
        thread.join();
        assert!(!ours(watch.hanging()), "it has ended");
    }
}
