//! The main thread, once all serve: it waits for signals and does what they ask. SIGTERM and SIGINT end it, and the
//! daemon with it; a second one is the [ending thread's](super::ending_thread). SIGQUIT ends the process in the handler
//! itself, whatever any thread waits for. SIGPIPE is ignored by Rust's runtime.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::Service;
use super::logfile::Log;
use crate::rim;
use crate::sockets::systemd::Systemd;

/// Between two reloads, or two status dumps: a storm of signals costs one a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Exit status of a process that is told to end at once.
pub(super) const AT_ONCE: i32 = 1;

/// Signals as they arrive. What arrives before [`Self::wait`] is kept for it.
pub(crate) struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// From now on no signal ends the process by itself. To be called after the last fork.
    pub(crate) fn register() -> io::Result<Self> {
        register_conditional_shutdown(SIGQUIT, AT_ONCE, Arc::new(AtomicBool::new(true)))?;
        let (read, write) = UnixStream::pair()?;
        let signals = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];
        Ok(Self {
            delivery: SignalDelivery::with_pipe(read, write, SignalOnly, signals)?,
        })
    }

    /// Signals that have arrived, each once; an empty list after `at_most`, and now and then before.
    pub(crate) fn wait(&mut self, at_most: Option<Duration>) -> Vec<i32> {
        let mut polled = [PollFd::new(self.delivery.get_read(), PollFlags::IN)];
        let at_most = at_most.map(|time| time.try_into().unwrap_or_default());
        // Interrupted, or an error that the next round meets again: what has arrived is looked at in any case.
        let _ = poll(&mut polled, at_most.as_ref());
        self.delivery.pending().collect()
    }
}

/// Does what signals ask until one asks for the end. `wait` is [`Signals::wait`].
pub(crate) fn run(
    service: &impl Service,
    mut wait: impl FnMut(Option<Duration>) -> Vec<i32>,
    log: &Log,
    systemd: &Systemd,
) {
    let mut reload = Rarely::default();
    let mut dump = Rarely::default();
    let mut watch = rim::Watch::default();
    let mut tick = systemd.tick().map(|_| rim::now());
    loop {
        let now = rim::now();
        let next = [reload.due(), dump.due(), tick].into_iter().flatten().min();
        for signal in wait(next.map(|due| due.saturating_duration_since(now))) {
            match signal {
                SIGTERM | SIGINT => {
                    log::info!(
                        "{} received, stopping",
                        if signal == SIGTERM { "SIGTERM" } else { "SIGINT" }
                    );
                    return;
                }
                // The log as well: whoever rotates it may send this one.
                SIGHUP => {
                    log.reopen();
                    reload.ask(rim::now());
                }
                SIGUSR1 => log.reopen(),
                SIGUSR2 => dump.ask(rim::now()),
                _ => {}
            }
        }
        if reload.take(rim::now()) {
            systemd.reloading();
            tell_reload(service.reload());
            systemd.ready();
        }
        if dump.take(rim::now()) {
            service
                .dump()
                .lines()
                .for_each(|line| log::info!("status: {line}"));
        }
        let now = rim::now();
        if let (Some(due), Some(every)) = (tick, systemd.tick())
            && due <= now
        {
            let hanging = watch.hanging();
            if hanging.is_empty() {
                systemd.alive();
            } else {
                log::error!(
                    "watchdog: {} not back from work for {every:?}: systemd is not told that we live",
                    hanging.join(", ")
                );
            }
            tick = Some(now + every);
        }
    }
}

fn tell_reload(result: Result<String, String>) {
    match result {
        Ok(done) => log::info!("reload: {done}"),
        Err(faults) => {
            log::error!("reload refused, nothing has changed");
            faults.lines().for_each(|fault| log::error!("{fault}"));
        }
    }
}

/// Something asked for at any rate and done once in [`PAUSE`]; what is asked for in between is done at its end.
#[derive(Debug, Default)]
struct Rarely {
    due: Option<Instant>,
    not_before: Option<Instant>,
}

impl Rarely {
    fn ask(&mut self, now: Instant) {
        let due = self.not_before.map_or(now, |free| free.max(now));
        self.due.get_or_insert(due);
    }

    const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is to be done now; then it is no longer asked for.
    fn take(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.due = None;
        self.not_before = Some(now + PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::Parsed;
    use crate::daemon::StartError;
    use crate::daemon::options::Options;
    use crate::sockets::Sockets;

    #[derive(Default)]
    struct Counting {
        reloads: AtomicU32,
        dumps: AtomicU32,
    }

    impl Service for Counting {
        fn bind(_: Parsed, _: Vec<u8>, _: &Options, _: &Arc<Sockets>) -> Result<Self, StartError> {
            Ok(Self::default())
        }

        fn start(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn reload(&self) -> Result<String, String> {
            self.reloads.fetch_add(1, Ordering::Relaxed);
            Err("file:1:1: bad\nfile:2:2: worse".into())
        }

        fn dump(&self) -> String {
            self.dumps.fetch_add(1, Ordering::Relaxed);
            "one\ntwo".into()
        }

        fn serve(&self) {}
        fn stop(self) {}
    }

    #[test]
    fn each_signal_has_its_work_and_term_ends_it() {
        let service = Counting::default();
        let batches = [
            vec![SIGUSR2, SIGHUP],
            vec![],
            vec![SIGUSR1],
            vec![SIGHUP, SIGUSR2],
            vec![SIGTERM],
        ];
        let mut batches = VecDeque::from(batches);
        let mut waits = Vec::new();
        let wait = |at_most| {
            waits.push(at_most);
            batches.pop_front().expect("nobody waits after the end")
        };
        run(&service, wait, &Log::to_stderr(), &Systemd::default());
        // The second of each comes within a second of the first: it waits for its time, and the end overtakes it.
        assert_eq!((service.reloads.into_inner(), service.dumps.into_inner()), (1, 1));
        assert_eq!(waits[..4], [None; 4]);
        assert!(waits[4].unwrap() <= PAUSE);
    }

    #[test]
    fn a_storm_is_answered_once_a_second_and_the_last_of_it_is_not_lost() {
        let start = rim::now();
        let mut reload = Rarely::default();
        let mut taken = Vec::new();
        for millisecond in 0..=3000 {
            let now = start + Duration::from_millis(millisecond);
            if millisecond <= 2500 {
                reload.ask(now);
            }
            if reload.take(now) {
                taken.push(millisecond);
            }
        }
        assert_eq!(taken, [0, 1000, 2000, 3000]);
        assert_eq!(reload.due(), None);
    }

    #[test]
    fn signals_reach_the_thread_that_waits() {
        let mut signals = Signals::register().unwrap();
        for wanted in [SIGHUP, SIGUSR1, SIGUSR2, SIGTERM] {
            signal_hook::low_level::raise(wanted).unwrap();
            assert_eq!(signals.wait(None), [wanted]);
        }
        assert_eq!(signals.wait(Some(Duration::ZERO)), [0; 0]);
    }
}
