//! The threads that look names up: a few for the whole daemon, started as they are needed. A look-up takes as long as
//! the system likes and cannot be ended from outside, so nobody waits for one but these.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::{Thread, idle, now, spawn};

/// Threads at most: as many names as can be in trouble before the others wait for them.
const THREADS: usize = 4;
/// Look-ups that may wait; more are refused, and asked for again by whoever wanted them.
const QUEUE: usize = 4096;
/// How long the threads are waited for at the end: they are there at once unless they are in a look-up.
const END_WITHIN: Duration = Duration::from_millis(50);

/// Looks a name up and tells whoever wants to know, or tells that it is not looked up.
type Request = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The pool.
pub struct Names {
    /// Nothing when it has been closed.
    requests: Mutex<Option<Sender<Request>>>,
    queue: Receiver<Request>,
    threads: Mutex<Vec<Thread>>,
    idle: Arc<AtomicUsize>,
    /// Each thread says when it ends.
    ended: (Sender<()>, Receiver<()>),
}

impl core::fmt::Debug for Names {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Default for Names {
    fn default() -> Self {
        let (requests, queue) = bounded(QUEUE);
        Self {
            requests: Mutex::new(Some(requests)),
            queue,
            threads: Mutex::default(),
            idle: Arc::default(),
            ended: bounded(THREADS),
        }
    }
}

impl Names {
    /// Looks `host` up: `done` gets its addresses of one family with that port, one at least, or the reason why there are
    /// none.
    pub fn look_up(
        &self,
        host: &str,
        port: u16,
        is_v6: bool,
        done: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static,
    ) {
        let host = host.to_owned();
        self.run(move |turn| done(turn.and_then(|()| idle(|| resolve(&host, port, is_v6)))));
    }

    /// Does something else that waits for a name server in a thread of the pool; an error says that there is no room for it.
    pub fn run(&self, work: impl FnOnce(io::Result<()>) + Send + 'static) {
        if self.idle.load(Ordering::Acquire) <= self.queue.len() {
            self.start_thread();
        }
        let request: Request = Box::new(work);
        let requests = self.requests.lock().clone();
        let refused = match requests {
            Some(requests) => requests.try_send(request).err().map(TrySendError::into_inner),
            None => Some(request),
        };
        if let Some(request) = refused {
            let busy = io::Error::new(
                io::ErrorKind::WouldBlock,
                "too many names wait for the name server",
            );
            request(Err(busy));
        }
    }

    /// The first address of `host`, when it is known `within` that time.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn address(&self, host: &str, port: u16, is_v6: bool, within: Duration) -> io::Result<SocketAddr> {
        let (tell, told) = bounded(1);
        self.look_up(host, port, is_v6, move |found| {
            tell.try_send(found).ok();
        });
        let found = idle(|| told.recv_timeout(within)).map_err(|_| {
            let what = format!("the name server did not answer within {} s", within.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, what)
        })??;
        found
            .first()
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn start_thread(&self) {
        let mut threads = self.threads.lock();
        if threads.len() >= THREADS {
            return;
        }
        let (queue, waiting, ended) = (self.queue.clone(), Arc::clone(&self.idle), self.ended.0.clone());
        let started = spawn(format!("names-{}", threads.len()), move || {
            serve(&queue, &waiting);
            ended.try_send(()).ok();
        });
        match started {
            Ok(thread) => threads.push(thread),
            Err(error) => log::error!("no thread to look names up: {error}"),
        }
    }

    /// Ends the threads, or leaves them to their last look-up.
    pub fn close(&self) {
        drop(self.requests.lock().take());
        // What waits is told nothing: whoever asked has ended before.
        while self.queue.try_recv().is_ok() {}
        let threads = core::mem::take(&mut *self.threads.lock());
        let until = now() + END_WITHIN;
        let have_ended = threads
            .iter()
            .all(|_| idle(|| self.ended.1.recv_deadline(until)).is_ok());
        if have_ended {
            for thread in threads {
                thread.join();
            }
        }
    }
}

fn serve(queue: &Receiver<Request>, waiting: &AtomicUsize) {
    loop {
        waiting.fetch_add(1, Ordering::AcqRel);
        let request = idle(|| queue.recv());
        waiting.fetch_sub(1, Ordering::AcqRel);
        let Ok(request) = request else { return };
        request(Ok(()));
    }
}

/// All addresses of a name, one at least.
fn resolve(host: &str, port: u16, is_v6: bool) -> io::Result<Vec<SocketAddr>> {
    let all: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let found: Vec<SocketAddr> = all
        .iter()
        .copied()
        .filter(|found| found.is_ipv6() == is_v6)
        .collect();
    if found.is_empty() {
        let (family, other) = if is_v6 { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
        let what = if all.is_empty() {
            "it has no address".to_owned()
        } else {
            format!("it has no {family} address, only {other}")
        };
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_the_family_that_is_asked_for() {
        let names = Names::default();
        let within = Duration::from_secs(30);
        let found = names.address("localhost", 7, false, within).unwrap();
        assert_eq!(found.to_string(), "127.0.0.1:7");
        let error = names.address("127.0.0.1", 7, true, within).unwrap_err();
        assert_eq!(error.to_string(), "it has no IPv6 address, only IPv4");
        assert!(names.address("a name.invalid", 7, false, within).is_err());
        names.close();
    }

    #[test]
    fn every_request_is_answered_and_the_threads_end() {
        let names = Names::default();
        let (tell, told) = bounded(64);
        for port in 1..=64 {
            let tell = tell.clone();
            names.look_up("127.0.0.1", port, false, move |found| {
                tell.send(found.unwrap()[0].port()).unwrap();
            });
        }
        let mut ports: Vec<u16> = told.iter().take(64).collect();
        ports.sort_unstable();
        assert_eq!(ports, (1..=64).collect::<Vec<u16>>());
        names.close();
    }
}
