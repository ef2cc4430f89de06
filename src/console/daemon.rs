//! The connection to the daemon: a command goes, the lines of its reply come. Part of the rim; it blocks, but never
//! longer than it was told to.

use core::fmt;
use core::time::Duration;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, Socket, Type};

use super::options::DEFAULT_TIMEOUT;
use crate::admin::commands::{self, Kind};
use crate::admin::reply::{self, REPLY_MAX};
use crate::rim;

/// A connection.
#[derive(Debug)]
pub(crate) struct Daemon {
    path: PathBuf,
    timeout: Option<Duration>,
    stream: BufReader<UnixStream>,
    /// A reply did not come in time. If it still does, it would be taken for that of the next command.
    gave_up: bool,
}

/// Why there is no reply, or no whole one.
#[derive(Debug)]
pub(crate) enum Trouble {
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
            Self::Connect(path, error) => {
                let remedy = match error.kind() {
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                        "; is rtp_cluster running? -s names another socket"
                    }
                    ErrorKind::PermissionDenied => {
                        "; want the right to write to it, as its owner or with sudo"
                    }
                    _ => "",
                };
                write!(f, "cannot connect to {}: {error}{remedy}", path.display())
            }
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
    pub(crate) fn connect(path: &Path, timeout: Option<Duration>) -> Result<Self, Trouble> {
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
            gave_up: false,
        })
    }

    /// The same connection anew, after a restart of the daemon.
    pub(crate) fn reconnect(&mut self) -> Result<(), Trouble> {
        *self = Self::connect(&self.path, self.timeout)?;
        Ok(())
    }

    /// Whether we no longer wait for a reply that may still come.
    pub(crate) fn has_given_up(&self) -> bool {
        self.gave_up
    }

    /// Whether the other side has closed the connection, or said something that was not asked for, or may still say
    /// so: in each case no command should go over it any more.
    pub(crate) fn has_ended(&self) -> bool {
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let silent = rustix::net::recv(self.stream.get_ref(), &mut byte, flags) == Err(Errno::AGAIN);
        self.gave_up || !silent || !self.stream.buffer().is_empty()
    }

    /// The process that listens there, where the system says.
    pub(crate) fn peer(&self) -> Option<i32> {
        #[cfg(target_os = "linux")]
        return rustix::net::sockopt::socket_peercred(self.stream.get_ref())
            .ok()
            .map(|peer| peer.pid.as_raw_nonzero().get());
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Sends one command and gives each line of the reply, its last one too, to `each`, with its end. Says whether
    /// the last one was `OK`.
    pub(crate) fn ask(
        &mut self,
        command: &[u8],
        each: impl FnMut(&[u8], bool) -> Result<(), Trouble>,
    ) -> Result<bool, Trouble> {
        let answer = self.exchange(command, each);
        self.gave_up |= matches!(answer, Err(Trouble::Late(..)));
        answer
    }

    fn exchange(
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
        let until = limit.map(|limit| (rim::now() + limit, limit));

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
                let left = until.saturating_duration_since(rim::now());
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::admin::fake::Place;

    /// A daemon that serves one client by `serve`, and a connection to it.
    fn with<T: Send + 'static>(
        timeout: Option<Duration>,
        serve: impl FnOnce(UnixStream) -> T + Send + 'static,
    ) -> (Place, Daemon, std::thread::JoinHandle<T>) {
        let place = Place::new();
        let listener = UnixListener::bind(place.path("admin")).unwrap();
        let body = move || serve(listener.accept().unwrap().0);
        let thread = std::thread::Builder::new().spawn(body).unwrap();
        let daemon = Daemon::connect(&place.path("admin"), timeout).unwrap();
        (place, daemon, thread)
    }

    /// The reply as it came, and how it ended.
    fn asked(daemon: &mut Daemon, command: &str) -> (String, Result<bool, String>) {
        let mut reply = String::new();
        let ending = daemon.ask(command.as_bytes(), |line, _| {
            reply.push_str(core::str::from_utf8(line).unwrap());
            Ok(())
        });
        (reply, ending.map_err(|trouble| trouble.to_string()))
    }

    /// Reads up to a line end, as a daemon does.
    fn command(socket: &UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn a_reply_ends_with_its_last_line() {
        let (_place, mut daemon, thread) = with(None, |mut socket| {
            let first = command(&socket);
            socket.write_all(b"    name = OK\nOK\n").unwrap();
            let second = command(&socket);
            for byte in b"half\nERROR: no\n" {
                socket.write_all(&[*byte]).unwrap();
            }
            (first, second)
        });
        assert_eq!(
            asked(&mut daemon, "ls"),
            ("    name = OK\nOK\n".to_owned(), Ok(true))
        );
        assert_eq!(
            asked(&mut daemon, "reload"),
            ("half\nERROR: no\n".to_owned(), Ok(false))
        );
        assert_eq!(thread.join().unwrap(), ("ls\n".to_owned(), "reload\n".to_owned()));
    }

    #[test]
    fn a_reply_that_is_cut_short_is_told_from_a_whole_one() {
        for (sent, shown) in [("", ""), ("a\n", "a\n"), ("a\nO", "a\n"), ("OK", "")] {
            let (place, mut daemon, thread) = with(None, move |mut socket| {
                command(&socket);
                socket.write_all(sent.as_bytes()).unwrap();
            });
            let (reply, ending) = asked(&mut daemon, "ls");
            assert_eq!(reply, shown);
            let path = place.path("admin").display().to_string();
            assert_eq!(
                ending,
                Err(format!("{path}: the daemon closed the connection within a reply"))
            );
            thread.join().unwrap();
            assert!(daemon.has_ended());
        }
    }

    #[test]
    fn a_quit_is_answered_by_the_end() {
        let (_place, mut daemon, thread) = with(None, |socket| command(&socket));
        assert_eq!(asked(&mut daemon, "Exit"), (String::new(), Ok(true)));
        assert_eq!(thread.join().unwrap(), "Exit\n");
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_left_in_time() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (_place, mut daemon, thread) = with(Some(Duration::from_millis(50)), move |mut socket| {
            socket.write_all(b"a line and no end\n").unwrap();
            // Until the client has given up.
            let _ = wait.recv();
        });
        let (reply, ending) = asked(&mut daemon, "ls");
        assert_eq!(reply, "a line and no end\n");
        assert!(
            ending
                .as_ref()
                .is_err_and(|why| why.ends_with(": no whole reply within 0.05 s")),
            "{ending:?}"
        );
        drop(done);
        thread.join().unwrap();
    }

    #[test]
    fn who_is_refused_at_the_door_reads_why() {
        let (_place, mut daemon, thread) =
            with(None, |mut socket| socket.write_all(b"ERROR: full\n").unwrap());
        thread.join().unwrap();
        assert_eq!(asked(&mut daemon, "ls"), ("ERROR: full\n".to_owned(), Ok(false)));
    }

    #[test]
    fn nobody_there_is_told_with_the_path() {
        let place = Place::new();
        let path = place.path("nowhere");
        let trouble = Daemon::connect(&path, None).unwrap_err().to_string();
        assert!(
            trouble.starts_with(&format!("cannot connect to {}: No such file", path.display())),
            "{trouble}"
        );
    }
}
