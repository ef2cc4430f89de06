//! A link under test, with a poller of its own and a sink that notes what comes back.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use super::{Link, Refused, Sink};
use crate::config::model::{Address, Member, Name, Protocol};
use crate::protocol::cookie::Cookie;
use crate::rim::now;
use crate::rim::readiness::{Poller, Ready, Spot};

/// How long a test waits for what it wants to see.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came back, by the numbers of the commands.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Heard {
    pub(super) replies: Vec<(u32, String)>,
    pub(super) foreign: u32,
    pub(super) refused: Vec<Refused>,
    pub(super) broken: Vec<u32>,
}

impl Sink for Heard {
    fn reply(&mut self, cookie: Cookie, text: &[u8]) {
        self.replies
            .push((cookie.serial, String::from_utf8_lossy(text).into_owned()));
    }

    fn foreign(&mut self) {
        self.foreign += 1;
    }

    fn refused(&mut self, why: Refused) {
        self.refused.push(why);
    }

    fn broken(&mut self, cookie: Cookie) {
        self.broken.push(cookie.serial);
    }
}

pub(super) fn cookie(number: u32) -> Cookie {
    Cookie {
        slot: 0,
        serial: number,
        index: 0,
        nonce: 0,
    }
}

pub(super) struct Bench {
    pub(super) link: Link,
    pub(super) heard: Heard,
    poller: Poller,
}

impl Bench {
    pub(super) fn new(protocol: Protocol, address: Address) -> Self {
        let member = Member::new(Name::new("M1").unwrap(), protocol, address, 1, 1);
        let mut bench = Self {
            link: Link::open(&member).unwrap(),
            heard: Heard::default(),
            poller: Poller::new().unwrap(),
        };
        bench.with(|link, spot, _| link.start(spot));
        bench
    }

    /// A link over a UNIX socket named after `test`, and who listens there.
    pub(super) fn listening(protocol: Protocol, test: &str) -> (UnixListener, Self) {
        let path = path(test);
        let listener = UnixListener::bind(&path).unwrap();
        (listener, Self::new(protocol, Address::Path(path)))
    }

    pub(super) fn with<R>(&mut self, act: impl FnOnce(&mut Link, Spot<'_>, &mut Heard) -> R) -> R {
        let spot = Spot {
            registry: self.poller.registry(),
            base: 0,
        };
        act(&mut self.link, spot, &mut self.heard)
    }

    pub(super) fn send(&mut self, number: u32, again: bool, command: &str) -> Result<(), Refused> {
        let mut text = Vec::new();
        cookie(number).write(&mut text);
        text.extend_from_slice(format!(" {command}\n").as_bytes());
        self.with(|link, spot, _| link.send(now(), cookie(number), again, &text, spot))
    }

    /// Time passes, up to that moment.
    pub(super) fn alarm(&mut self, at: Instant) {
        self.with(|link, spot, heard| link.alarm(at, spot, heard));
    }

    pub(super) fn run_until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let end = now() + PATIENCE;
        while !is_so(self) {
            let at = now();
            assert!(at < end, "it never comes: {:?}", self.heard);
            let mut ready: Vec<Ready> = Vec::new();
            let soon = at + Duration::from_millis(2);
            self.poller.wait(Some(soon), &mut ready).unwrap();
            for event in ready {
                while self.with(|link, spot, heard| link.ready(now(), event.token, spot, heard)) {}
            }
            if self.link.due().is_some_and(|due| due <= now()) {
                self.alarm(now());
            }
        }
    }
}

/// A path for the socket of one test.
pub(super) fn path(test: &str) -> std::path::PathBuf {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("rtpc-link-{test}-{}-{serial}", std::process::id()));
    std::fs::remove_file(&path).ok();
    path
}
