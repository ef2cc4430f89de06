//! Lines to the syslog of this machine: one datagram each, never waited for.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use log::Level;

use super::options::Facility;

/// Where syslog daemons listen: Linux and OpenBSD, FreeBSD, macOS.
pub(crate) const PLACES: [&str; 3] = ["/dev/log", "/var/run/log", "/var/run/syslog"];

/// Lines for the syslog daemon, which may be started after us and be restarted.
pub(crate) struct Syslog {
    places: Vec<PathBuf>,
    facility: Facility,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// For the system's syslog; nothing is connected yet.
    pub(crate) fn new(facility: Facility) -> Self {
        Self {
            places: PLACES.map(PathBuf::from).to_vec(),
            facility,
            socket: None,
        }
    }

    /// Connects to the first place where somebody listens.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        self.socket = None;
        for place in &self.places {
            match connect(place) {
                Ok(socket) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Its number.
    pub(crate) const fn facility(&self) -> u8 {
        self.facility.0
    }

    /// Begins a line: priority and tag, as RFC 3164 has them. The time is left out, which every syslog daemon
    /// then puts in itself: it would have to be in the local time zone.
    pub(crate) fn write_head(line: &mut impl Write, facility: u8, level: Level) -> io::Result<()> {
        let priority = u16::from(facility) * 8 + u16::from(severity(level));
        write!(line, "<{priority}>rtp_cluster[{}]: ", std::process::id())
    }

    /// Sends one line, without its end.
    pub(crate) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match self.socket.as_ref().map(|socket| socket.send(line)) {
            Some(Ok(_)) => return Ok(()),
            // The daemon is busy; waiting for it would stop us with it.
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // It was started or restarted: another socket stands at the path.
            Some(Err(_)) | None => self.connect()?,
        }
        match &self.socket {
            Some(socket) => socket.send(line).map(drop),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// What syslog calls a level, and the journal after it.
pub(crate) const fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn connect(place: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(place)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn receive(daemon: &UnixDatagram) -> String {
        let mut datagram = [0; 256];
        let length = daemon.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_line_has_priority_and_tag_and_survives_a_restart_of_the_daemon() {
        let place = std::env::temp_dir().join(format!("rtpc-syslog-{}", std::process::id()));
        let _ = fs::remove_file(&place);
        let mut syslog = Syslog {
            places: vec![place.clone()],
            ..Syslog::new(Facility(3))
        };
        assert!(syslog.line(b"nobody is there yet\n").is_err());
        let daemon = UnixDatagram::bind(&place).unwrap();
        let mut line = Vec::new();
        Syslog::write_head(&mut line, syslog.facility(), Level::Warn).unwrap();
        line.extend_from_slice(b"hello\n");
        syslog.line(&line).unwrap();
        assert_eq!(
            receive(&daemon),
            format!("<28>rtp_cluster[{}]: hello", std::process::id())
        );

        drop(daemon);
        fs::remove_file(&place).unwrap();
        assert!(syslog.line(b"lost\n").is_err());
        let daemon = UnixDatagram::bind(&place).unwrap();
        syslog.line(b"back\n").unwrap();
        assert_eq!(receive(&daemon), "back");

        while syslog.line(b"flood\n").is_ok() {}
        assert_eq!(
            syslog.line(b"flood\n").unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        fs::remove_file(&place).unwrap();
    }
}
