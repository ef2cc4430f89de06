//! What systemd wants to hear (sd_notify(3)): one datagram a message to the socket that it named; and the descriptors
//! that it gives (sd_listen_fds(3)) and keeps. Without systemd nothing is sent.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::rim::throttle::Throttle;
use crate::rim::{self, sys};

/// Descriptors that are taken from systemd at most; its own limit for a service is as high.
const DESCRIPTORS_MAX: u32 = 4096;
/// How long a message waits for a place in systemd's queue. While it is reloaded, systemd reads nothing.
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// The service manager, if one started us.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    socket: Option<UnixDatagram>,
    /// Twice in this time it wants to hear that we live.
    watchdog: Option<Duration>,
    /// How many descriptors it keeps for us.
    store: usize,
    /// Messages that it did not hear.
    unheard: Mutex<Throttle>,
}

/// A descriptor that systemd handed us, and what it is called there.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) descriptor: OwnedFd,
    pub(crate) name: String,
}

/// What `LISTEN_FDS` promises. To be called once, before anything is opened.
pub(crate) fn given() -> Vec<Given> {
    let read = |name| env::var(name).ok();
    let count = listen_fds(
        read("LISTEN_FDS").as_deref(),
        read("LISTEN_PID").as_deref(),
        std::process::id(),
    );
    let names = read("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').chain(std::iter::repeat(""));
    let descriptors = sys::take_descriptors(count).into_iter();
    descriptors
        .zip(names)
        .filter_map(|(descriptor, name)| {
            Some(Given {
                descriptor: descriptor?,
                name: name.to_owned(),
            })
        })
        .collect()
}

impl Systemd {
    /// Connects to the socket of `NOTIFY_SOCKET`.
    pub(crate) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|place| match connect(&place) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("cannot reach systemd at {}: {error}", Path::new(&place).display());
                None
            }
        });
        let watchdog = watchdog(
            env::var("WATCHDOG_USEC").ok().as_deref(),
            env::var("WATCHDOG_PID").ok().as_deref(),
            std::process::id(),
        );
        // systemd 254 and later say how many descriptors they keep. For those before, the unit says it.
        let store = env::var("FDSTORE").ok().and_then(|count| count.parse().ok());
        Self {
            watchdog: watchdog.filter(|_| socket.is_some()),
            store: store.filter(|_| socket.is_some()).unwrap_or_default(),
            socket,
            unheard: Mutex::default(),
        }
    }

    /// Whether one started us.
    pub(crate) const fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// How many descriptors it keeps for us.
    pub(crate) const fn store(&self) -> usize {
        self.store
    }

    /// Has it keep a descriptor under that name, and hand it to whom it starts next; says whether it heard.
    pub(crate) fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> bool {
        // A listening socket never hangs up: it need not be watched.
        self.tell_with(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), Some(descriptor))
    }

    /// Has it close the descriptors that it keeps under that name.
    pub(crate) fn forget(&self, name: &str) {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    /// How often [`Self::alive`] is due: twice as often as the watchdog bites.
    pub(crate) fn tick(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// All sockets are open and threads run. We may have forked since systemd started us, so our pid goes along.
    pub(crate) fn ready(&self) {
        self.tell(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub(crate) fn reloading(&self) {
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}",
            sys::monotonic().as_micros()
        ));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// For the watchdog.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// One that is listened to at the other end of `socket`.
    #[cfg(test)]
    pub(crate) fn of(socket: UnixDatagram, store: usize) -> Self {
        Self {
            socket: Some(socket),
            watchdog: None,
            store,
            unheard: Mutex::default(),
        }
    }

    fn tell(&self, message: &str) {
        self.tell_with(message, None);
    }

    fn tell_with(&self, message: &str, descriptor: Option<BorrowedFd<'_>>) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        let sent = send(socket, message, descriptor);
        if let Err(error) = &sent {
            let unheard = self.unheard.lock().hit(rim::now());
            if let Some(count) = unheard {
                log::warn!(
                    "systemd does not hear {message:?}, nor {} before: {error}",
                    count - 1
                );
            }
        }
        sent.is_ok()
    }
}

/// Sends one datagram, after a while if need be.
fn send(socket: &UnixDatagram, message: &str, descriptor: Option<BorrowedFd<'_>>) -> rustix::io::Result<()> {
    let text = [IoSlice::new(message.as_bytes())];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = SendAncillaryBuffer::new(&mut room);
    if let Some(descriptor) = &descriptor {
        // There is room for one.
        attached.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
    }
    let mut attempt = || sendmsg(socket, &text, &mut attached, SendFlags::NOSIGNAL).map(drop);
    match attempt() {
        Err(rustix::io::Errno::AGAIN) => {
            poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&PATIENCE))?;
            attempt()
        }
        sent => sent,
    }
}

/// How many descriptors are ours to take: none unless the process `us` is meant. What is no number is as if absent.
fn listen_fds(count: Option<&str>, pid: Option<&str>, us: u32) -> u32 {
    if pid.and_then(|pid| pid.parse().ok()) != Some(us) {
        return 0;
    }
    let count: Option<u32> = count.and_then(|count| count.parse().ok());
    count.map_or(0, |count| count.min(DESCRIPTORS_MAX))
}

/// A path, or `@` and a name of Linux's abstract namespace.
fn connect(place: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that is busy must not hold us up for long.
    socket.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = place.as_bytes().strip_prefix(b"@") {
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
            return Ok(socket);
        }
    }
    socket.connect(place)?;
    Ok(socket)
}

/// The watchdog's time, when it is set and meant for the process `us`. What is no number is as if absent.
fn watchdog(microseconds: Option<&str>, pid: Option<&str>, us: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(us)) {
        return None;
    }
    let time = Duration::from_micros(microseconds?.parse().ok()?);
    (time >= Duration::from_millis(1)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Systemd, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        (
            Systemd {
                socket: Some(ours),
                watchdog: Some(Duration::from_secs(30)),
                store: 0,
                unheard: Mutex::default(),
            },
            theirs,
        )
    }

    fn heard(theirs: &UnixDatagram) -> String {
        let mut message = [0; 256];
        let length = theirs.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    #[test]
    fn systemd_hears_each_step() {
        let (systemd, theirs) = pair();
        systemd.ready();
        assert_eq!(heard(&theirs), format!("READY=1\nMAINPID={}", std::process::id()));
        systemd.reloading();
        let reloading = heard(&theirs);
        let time: u128 = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap()
            .parse()
            .unwrap();
        assert!(time > 0 && time <= sys::monotonic().as_micros());
        systemd.stopping();
        assert_eq!(heard(&theirs), "STOPPING=1");
        systemd.alive();
        assert_eq!(heard(&theirs), "WATCHDOG=1");
        assert_eq!(systemd.tick(), Some(Duration::from_secs(15)));
        drop(theirs);
        systemd.alive();
        Systemd::default().ready();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_socket_may_have_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("rtpc-systemd-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let theirs = UnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
        Systemd {
            socket: Some(socket),
            ..Systemd::default()
        }
        .stopping();
        assert_eq!(heard(&theirs), "STOPPING=1");
    }

    #[test]
    fn the_watchdog_is_ours_only_when_it_names_us() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), None, 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("7"), 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("8"), 7), None);
        assert_eq!(watchdog(Some("0"), None, 7), None);
        assert_eq!(watchdog(Some("soon"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn a_message_waits_for_a_place_in_the_queue() {
        let (systemd, theirs) = pair();
        systemd.socket.as_ref().unwrap().set_nonblocking(true).unwrap();
        let full = |systemd: &Systemd| systemd.socket.as_ref().unwrap().send(b"x").is_err();
        while !full(&systemd) {}
        let reader = std::thread::scope(|scope| {
            let ready = scope.spawn(|| systemd.ready());
            while heard(&theirs) == "x" {}
            ready.join()
        });
        reader.unwrap();
    }

    #[test]
    fn a_descriptor_goes_along_with_its_name() {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        let (systemd, theirs) = pair();
        let (kept, other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(systemd.keep("unix,1.2,/s", std::os::fd::AsFd::as_fd(&kept)));
        drop(kept);
        let mut text = [0; 256];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut attached = RecvAncillaryBuffer::new(&mut room);
        let mut into = [io::IoSliceMut::new(&mut text)];
        let length = recvmsg(&theirs, &mut into, &mut attached, RecvFlags::empty())
            .unwrap()
            .bytes;
        assert_eq!(&text[..length], b"FDSTORE=1\nFDPOLL=0\nFDNAME=unix,1.2,/s");
        let Some(RecvAncillaryMessage::ScmRights(mut rights)) = attached.drain().next() else {
            panic!("no descriptor");
        };
        let mut received = std::os::unix::net::UnixStream::from(rights.next().unwrap());
        io::Write::write_all(&mut received, b"!").unwrap();
        io::Read::read_exact(&mut { other }, &mut [0]).unwrap();
        systemd.forget("unix,1.2,/s");
        assert_eq!(heard(&theirs), "FDSTOREREMOVE=1\nFDNAME=unix,1.2,/s");
        assert!(!Systemd::default().keep("x", std::os::fd::AsFd::as_fd(&theirs)));
    }

    #[test]
    fn descriptors_are_ours_only_when_we_are_named() {
        assert_eq!(listen_fds(Some("2"), Some("7"), 7), 2);
        assert_eq!(listen_fds(Some("2"), Some("8"), 7), 0);
        assert_eq!(listen_fds(Some("2"), None, 7), 0);
        assert_eq!(listen_fds(None, Some("7"), 7), 0);
        assert_eq!(listen_fds(Some("-1"), Some("7"), 7), 0);
        assert_eq!(listen_fds(Some("4000000000"), Some("7"), 7), DESCRIPTORS_MAX);
    }
}
