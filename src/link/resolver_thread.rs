//! Looks the host name of a member up, in a thread of its own: a look-up may take as long as the system likes, and
//! nobody may wait for it, neither a command nor the start of the daemon. The last good addresses are kept until a
//! look-up gives others; while there are none it is tried again and again.
//!
//! A look-up cannot be ended from outside. A thread that is in one when its link is closed is not waited for: it
//! has nothing of the link any more, and ends when the system lets it go.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;
use std::{io, mem};

use parking_lot::{Condvar, Mutex};

use super::{Label, resolve_all};
use crate::config::model::Member;
use crate::rim::{Thread, idle, now, spawn};

/// Between two look-ups of one name, however often it is asked for.
const RETRY: Duration = Duration::from_secs(2);
/// How long the thread is waited for at the end: it is there at once unless it is in a look-up, and a cluster may
/// have many that are.
const END_WITHIN: Duration = Duration::from_millis(10);

/// One member's name.
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
    thread: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Shared {
    member: Member,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last good addresses; the first is the one that is used.
    known: Vec<SocketAddr>,
    asked: bool,
    stopped: bool,
    ended: bool,
}

impl Resolver {
    /// Begins to look the name up. `found` is told the address to use, when there is one and whenever it is
    /// another one.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        member: &Member,
        label: Label,
        found: impl Fn(SocketAddr) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            member: member.clone(),
            state: Mutex::new(State {
                asked: true,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let looking = Arc::clone(&shared);
        let thread = spawn(
            format!("dns-{}.{}", label.cluster, label.member.index),
            move || {
                looking.run(found);
            },
        )?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The address to use.
    pub fn known(&self) -> Option<SocketAddr> {
        self.shared.state.lock().known.first().copied()
    }

    /// Whether the name has that address.
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.shared
            .state
            .lock()
            .known
            .iter()
            .any(|known| known.ip() == address)
    }

    /// Looks it up again, soon.
    pub fn refresh(&self) {
        self.shared.state.lock().asked = true;
        self.shared.changed.notify_all();
    }

    /// Begins to end the thread.
    pub fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_all();
    }

    /// Ends the thread, or leaves it to its last look-up.
    pub fn close(&self) {
        self.stop();
        {
            let mut state = self.shared.state.lock();
            let until = now() + END_WITHIN;
            while !state.ended && now() < until {
                self.shared.changed.wait_until(&mut state, until);
            }
            if !state.ended {
                return;
            }
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }
}

impl Shared {
    fn run(&self, found: impl Fn(SocketAddr)) {
        let mut told = false;
        while self.wait_until_asked() {
            let begun = now();
            let result = resolve_all(self.member.protocol, &self.member.address);
            match result {
                Ok(addresses) => {
                    told = false;
                    if let Some(address) = self.take(addresses) {
                        found(address);
                    }
                }
                Err(error) => self.failed(&error, &mut told),
            }
            self.pause(begun);
        }
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Takes what was found; gives the address to use if it is another one.
    fn take(&self, addresses: Vec<SocketAddr>) -> Option<SocketAddr> {
        let mut state = self.state.lock();
        if state.stopped {
            return None;
        }
        let before = mem::replace(&mut state.known, addresses).first().copied();
        // Servers of names give several addresses in any order: one that is still among them is used on.
        let place = state.known.iter().position(|address| Some(*address) == before);
        if let Some(place) = place {
            state.known.swap(0, place);
            return None;
        }
        let address = state.known.first().copied()?;
        drop(state);
        let Member {
            name, address: host, ..
        } = &self.member;
        match before {
            Some(before) => log::warn!("member {name} ({host}): it is at {address} now, and was at {before}"),
            None => log::info!("member {name} ({host}): it is at {address}"),
        }
        Some(address)
    }

    fn failed(&self, error: &io::Error, told: &mut bool) {
        let kept = {
            let mut state = self.state.lock();
            // Without an address it goes on by itself.
            state.asked |= state.known.is_empty();
            state.known.first().copied()
        };
        if mem::replace(told, true) {
            return;
        }
        let Member { name, address, .. } = &self.member;
        match kept {
            Some(kept) => {
                log::warn!("member {name} ({address}): the name is not found, {kept} is kept: {error}");
            }
            None => log::warn!("member {name} ({address}): the name is not found: {error}"),
        }
    }

    /// False when it is to end.
    fn wait_until_asked(&self) -> bool {
        let mut state = self.state.lock();
        while !state.asked && !state.stopped {
            idle(|| self.changed.wait(&mut state));
        }
        state.asked = false;
        !state.stopped
    }

    /// Lets some time pass before the next look-up.
    fn pause(&self, begun: Instant) {
        let mut state = self.state.lock();
        let until = begun + RETRY;
        while !state.stopped && now() < until {
            idle(|| self.changed.wait_until(&mut state, until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Address, Name, Protocol, Status};

    #[test]
    fn an_address_is_used_for_as_long_as_the_name_has_it() {
        let member = Member {
            name: Name::new("R1").unwrap(),
            protocol: Protocol::Udp,
            address: Address::Host("media1.example".into(), 22222),
            weight: 1,
            capacity: 1,
            status: Status::Active,
            wan_address: crate::config::model::Family::default(),
            lan_address: crate::config::model::Family::default(),
            cmd_out_address: None,
        };
        let shared = Arc::new(Shared {
            member,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let resolver = Resolver {
            shared: Arc::clone(&shared),
            thread: Mutex::new(None),
        };
        let [a, b, c]: [SocketAddr; 3] =
            ["192.0.2.1:22222", "192.0.2.2:22222", "192.0.2.3:22222"].map(|text| text.parse().unwrap());
        assert_eq!(resolver.known(), None);
        assert_eq!(shared.take(vec![a, b]), Some(a));
        assert_eq!(shared.take(vec![b, a]), None, "the order says nothing");
        assert_eq!(resolver.known(), Some(a));
        assert!(resolver.is_at(b.ip()) && !resolver.is_at(c.ip()));
        shared.failed(&io::ErrorKind::TimedOut.into(), &mut false);
        assert_eq!(resolver.known(), Some(a), "the last good one");
        assert!(!shared.state.lock().asked, "it is looked up when it is asked for");
        assert_eq!(shared.take(vec![c, b]), Some(c));
        assert_eq!(resolver.known(), Some(c));
    }
}
