//! What systemd wants to hear (sd_notify(3)): one datagram a message to the socket that it named. Without systemd
//! nothing is sent.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::sys;

/// The service manager, if one started us.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    socket: Option<UnixDatagram>,
    /// Twice in this time it wants to hear that we live.
    watchdog: Option<Duration>,
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
        Self {
            watchdog: watchdog.filter(|_| socket.is_some()),
            socket,
        }
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

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            log::debug!("systemd does not hear {message:?}: {error}");
        }
    }
}

/// A path, or `@` and a name of Linux's abstract namespace.
fn connect(place: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that is busy must not hold us up; the next tick comes soon.
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
            watchdog: None,
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
}
