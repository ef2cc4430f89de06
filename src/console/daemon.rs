//! The connection to the daemon: a command goes, the lines of its reply come. Part of the rim; it blocks, but never
//! longer than it was told to.

use core::fmt;
use core::time::Duration;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use socket2::{Domain, SockAddr, Socket, Type};

use super::options::DEFAULT_TIMEOUT;
use crate::admin::commands::{self, Kind};
use crate::admin::reply::{self, REPLY_MAX};
use crate::sync;

/// A connection.
#[derive(Debug)]
pub(super) struct Daemon {
    path: PathBuf,
    timeout: Option<Duration>,
    stream: BufReader<UnixStream>,
}

/// Why there is no reply, or no whole one.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody listens there, or we may not.
    Connect(PathBuf, io::Error),
    /// The reply ended before its last line.
    Cut(PathBuf, Option<io::Error>),
    /// It did not end in time.
    Late(PathBuf, Duration),
    /// Standard input or output failed, or the terminal did.
    Streams(io::Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(path, error) => write!(f, "cannot connect to {}: {error}", path.display()),
            Self::Cut(path, None) => write!(
                f,
                "{}: the daemon closed the connection within a reply",
                path.display()
            ),
            Self::Cut(path, Some(error)) => write!(f, "{}: the reply was cut short: {error}", path.display()),
            Self::Late(path, limit) => write!(
                f,
                "{}: no whole reply within {} s",
                path.display(),
                limit.as_secs_f64()
            ),
            Self::Streams(error) => error.fmt(f),
        }
    }
}

impl Daemon {
    /// Connects to the socket at `path`. `timeout` bounds this and each reply.
    pub(super) fn connect(path: &Path, timeout: Option<Duration>) -> Result<Self, Trouble> {
        let connect = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Bounds the wait for room in the queue of a daemon that is stopped, too.
            socket.set_write_timeout(Some(timeout.unwrap_or(DEFAULT_TIMEOUT)))?;
            socket.connect(&SockAddr::unix(path)?)?;
            Ok(UnixStream::from(OwnedFd::from(socket)))
        };
        let stream = connect().map_err(|error: io::Error| Trouble::Connect(path.to_owned(), error))?;
        Ok(Self {
            path: path.to_owned(),
            timeout,
            stream: BufReader::new(stream),
        })
    }

    /// The same connection anew, after a restart of the daemon.
    pub(super) fn reconnect(&mut self) -> Result<(), Trouble> {
        *self = Self::connect(&self.path, self.timeout)?;
        Ok(())
    }

    /// Sends one command and gives each line of the reply, its last one too, to `each`, with its end. Says whether
    /// the last one was `OK`.
    pub(super) fn ask(
        &mut self,
        command: &[u8],
        mut each: impl FnMut(&[u8], bool) -> Result<(), Trouble>,
    ) -> Result<bool, Trouble> {
        let word = String::from_utf8_lossy(command);
        let word = word.split_whitespace().next().unwrap_or_default();
        let kind = commands::forms(word).next().map(|entry| entry.kind);
        // A wait has its own limit, which the daemon keeps.
        let limit = self
            .timeout
            .or((kind != Some(Kind::Wait)).then_some(DEFAULT_TIMEOUT));
        let until = limit.map(|limit| (sync::now() + limit, limit));

        let line = [command, b"\n"].concat();
        // A daemon with no room for us has said so and closed: its line is there to read all the same.
        match self.stream.get_mut().write_all(&line) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(self.failed(error, limit)),
            _ => {}
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            self.read_line(&mut line, until)?;
            let text = String::from_utf8_lossy(&line);
            let Some(text) = text.strip_suffix('\n') else {
                if line.is_empty() && kind == Some(Kind::Quit) {
                    return Ok(true);
                }
                return Err(Trouble::Cut(self.path.clone(), None));
            };
            let is_last = reply::is_last(text);
            each(&line, is_last)?;
            if is_last {
                return Ok(text == "OK");
            }
        }
    }

    /// Appends one line with its end; without it where the connection ended.
    fn read_line(&mut self, line: &mut Vec<u8>, until: Option<(Instant, Duration)>) -> Result<(), Trouble> {
        loop {
            if let Some((until, limit)) = until {
                let left = until.saturating_duration_since(sync::now());
                if left.is_zero() {
                    return Err(Trouble::Late(self.path.clone(), limit));
                }
                self.stream
                    .get_ref()
                    .set_read_timeout(Some(left))
                    .map_err(Trouble::Streams)?;
            }
            // One document of JSON is one line, so a line may be as long as a reply.
            let room = (REPLY_MAX + 1).saturating_sub(line.len());
            let room = u64::try_from(room).unwrap_or(u64::MAX);
            match (&mut self.stream).take(room).read_until(b'\n', line) {
                Ok(_) => return Ok(()),
                // The time is looked at above; what was read so far is kept in `line`.
                Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble::Cut(self.path.clone(), Some(error))),
            }
        }
    }

    fn failed(&self, error: io::Error, limit: Option<Duration>) -> Trouble {
        match limit {
            Some(limit) if is_timeout(&error) => Trouble::Late(self.path.clone(), limit),
            _ => Trouble::Cut(self.path.clone(), Some(error)),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
