//! The connection to the daemon: a command goes, the lines of its reply come. Part of the rim; it blocks, but never
//! longer than it was told to, nor after it was told to give up.

use core::fmt;
use core::time::Duration;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
    /// Whatever comes here ends the wait for a reply: a byte of a signal, or the end of who asked for it.
    interrupt: Option<UnixStream>,
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
    /// The user has given up waiting for it.
    GivenUp,
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
                "{}: the daemon does not answer: no whole reply within {} s",
                path.display(),
                limit.as_secs_f64()
            ),
            Self::GivenUp => f.write_str("given up; a change that was asked for may still be made"),
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
            interrupt: None,
        })
    }

    /// The same, whose waits for a reply end when something comes over `interrupt`, or its other end closes.
    pub(super) fn interruptible(self, interrupt: UnixStream) -> Self {
        let interrupt = Some(interrupt);
        Self { interrupt, ..self }
    }

    /// Of the admin socket.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What ends its waits, where something does.
    pub(super) fn interrupt(&self) -> io::Result<Option<UnixStream>> {
        self.interrupt.as_ref().map(UnixStream::try_clone).transpose()
    }

    /// A further connection to the same daemon.
    pub(super) fn another(&self, timeout: Duration) -> Result<Self, Trouble> {
        Self::connect(&self.path, Some(timeout))
    }

    /// The same connection anew, after a restart of the daemon.
    pub(super) fn reconnect(&mut self) -> Result<(), Trouble> {
        let anew = Self::connect(&self.path, self.timeout)?;
        let interrupt = self.interrupt.take();
        *self = Self { interrupt, ..anew };
        Ok(())
    }

    /// Whether we no longer wait for a reply that may still come.
    pub(super) fn has_given_up(&self) -> bool {
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
        self.forget_interrupts();
        let answer = self.exchange(command, each);
        if matches!(answer, Err(Trouble::Late(..) | Trouble::GivenUp)) {
            self.gave_up = true;
            // So that the daemon no longer waits on our behalf. It fails where the connection is gone already.
            let _ = self.stream.get_ref().shutdown(Shutdown::Both);
        }
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
        // What waits for something to happen has its own limit, which the daemon keeps.
        let waits = matches!(kind, Some(Kind::Wait | Kind::Watch | Kind::Trace));
        let limit = self.timeout.or((!waits).then_some(DEFAULT_TIMEOUT));
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
            if self.stream.buffer().is_empty() {
                self.wait(until)?;
            }
            let come = match self.stream.fill_buf() {
                Ok(come) => come,
                Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Trouble::Cut(self.path.clone(), Some(error))),
            };
            let end = come.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(come.len(), |end| end + 1);
            line.extend_from_slice(come.get(..taken).unwrap_or(come));
            self.stream.consume(taken);
            // One document of JSON is one line, so a line may be as long as a reply.
            if taken == 0 || end.is_some() || line.len() > REPLY_MAX {
                return Ok(());
            }
        }
    }

    /// Returns when there is something to read.
    fn wait(&self, until: Option<(Instant, Duration)>) -> Result<(), Trouble> {
        loop {
            let left = until.map(|(until, limit)| (until.saturating_duration_since(rim::now()), limit));
            if let Some((left, limit)) = left
                && left.is_zero()
            {
                return Err(Trouble::Late(self.path.clone(), limit));
            }
            let left = left.and_then(|(left, _)| Timespec::try_from(left).ok());
            let socket = self.stream.get_ref();
            // Without an interrupt the socket stands in its place, too.
            let interrupt = self.interrupt.as_ref().unwrap_or(socket);
            let mut polled = [
                PollFd::new(socket, PollFlags::IN),
                PollFd::new(interrupt, PollFlags::IN),
            ];
            match poll(&mut polled, left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Trouble::Streams(error.into())),
            }
            let [socket, interrupt] = polled.map(|polled| !polled.revents().is_empty());
            if self.interrupt.is_some() && interrupt {
                return Err(Trouble::GivenUp);
            }
            if socket {
                return Ok(());
            }
        }
    }

    /// Waits for that long; whether an interrupt has ended the wait.
    #[cfg(feature = "console")]
    pub(super) fn pause(&self, time: Duration) -> bool {
        let Some(interrupt) = &self.interrupt else {
            std::thread::sleep(time);
            return false;
        };
        let mut polled = [PollFd::new(interrupt, PollFlags::IN)];
        // A signal ends the wait with an error, and its byte has come before.
        let interrupted = poll(&mut polled, Timespec::try_from(time).ok().as_ref()) != Ok(0);
        self.forget_interrupts();
        interrupted
    }

    /// An interrupt that came while nothing was asked is none of the next reply.
    fn forget_interrupts(&self) {
        let mut bytes = [0_u8; 64];
        if let Some(interrupt) = &self.interrupt {
            while matches!(
                rustix::net::recv(interrupt, &mut bytes, RecvFlags::DONTWAIT),
                Ok((1.., _))
            ) {}
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
    fn a_wait_for_a_reply_can_be_given_up() {
        let (_place, daemon, thread) = with(None, |mut socket| {
            command(&socket);
            // Until the client has given up, which closes the connection.
            std::io::Read::read_to_end(&mut socket, &mut Vec::new()).unwrap()
        });
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut daemon = daemon.interruptible(theirs);
        ours.write_all(b"x").unwrap();
        daemon.forget_interrupts();
        ours.write_all(b"x").unwrap();
        let given_up = daemon.exchange(b"wait C R gone", |_, _| Ok(()));
        assert!(matches!(given_up, Err(Trouble::GivenUp)), "{given_up:?}");
        drop(daemon);
        assert_eq!(thread.join().unwrap(), 0);
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
