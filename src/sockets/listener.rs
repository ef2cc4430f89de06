//! Control sockets: bound so that nobody connects before owner and mode are right, so that a live one is never
//! taken away from its daemon, and so that their files go when we go.

use core::fmt;
use core::time::Duration;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::fs::{Mode, RawMode};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::config::model::SOCKET_PATH_MAX;
pub use crate::sockets::file::{Identity, Rights, SocketFile, unlink_ours};
use crate::sockets::file::{Turn, give};

/// Connections that wait to be accepted. Large, since a SIP server opens one a command; the kernel cuts it to
/// `somaxconn`.
const BACKLOG: i32 = 4096;
/// Room for commands that arrive faster than they are read, in bytes: 16,000 of 256. The kernel may give less.
const UDP_BUFFER: usize = 4 << 20;
/// A kept connection that is silent for so long is asked whether its other end is still there, and then so often: one
/// whose machine has gone gives up its place some minutes later, not two hours.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// Temporary names that are tried before giving up: each one taken is left by a daemon killed while it bound.
const NAMES_TRIED: u32 = 64;

/// What fails when the directory of a socket is missing or closed.
const IN_DIRECTORY: &str = "bind a socket in its directory";
/// What fails when the socket is to belong to somebody else.
const OWNER: &str = "give the socket its owner and mode";
/// What fails when a port is taken or the address is not ours.
const PORT: &str = "bind";

/// A bound UNIX socket and its file. The listener may be moved to its thread; the file is kept by who removes it.
#[derive(Debug)]
pub struct BoundUnix {
    /// Listens already.
    pub listener: UnixListener,
    /// Its place in the file system.
    pub file: SocketFile,
}

/// Why a socket could not be bound.
#[derive(Debug)]
pub enum BindError {
    /// Another process listens there, so another instance lives.
    Live {
        /// The socket.
        path: PathBuf,
        /// Who listens, where the system says.
        pid: Option<i32>,
    },
    /// There is something at the path that is no socket.
    NotASocket {
        /// What would have been replaced.
        path: PathBuf,
    },
    /// The path does not fit into a socket address.
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    System {
        /// The path or address.
        place: String,
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl BindError {
    /// The exit status of a daemon that ends with this: 75 for a live UNIX socket, else 1.
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Live { .. } => 75,
            Self::NotASocket { .. } | Self::TooLong { .. } | Self::System { .. } => 1,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live { path, pid: Some(pid) } => {
                write!(
                    f,
                    "{}: process {pid} already listens on this socket",
                    path.display()
                )
            }
            Self::Live { path, pid: None } => {
                write!(
                    f,
                    "{}: another process already listens on this socket",
                    path.display()
                )
            }
            Self::NotASocket { path } => {
                write!(
                    f,
                    "{}: exists and is no socket; remove it or choose another path",
                    path.display()
                )
            }
            Self::TooLong { path } => {
                let length = path.as_os_str().len();
                write!(
                    f,
                    "{}: {length} bytes; a socket's path has at most {SOCKET_PATH_MAX}",
                    path.display()
                )
            }
            Self::System { place, what, error } => {
                write!(f, "{place}: cannot {what}: {error}{}", remedy(what, error))
            }
        }
    }
}

/// What helps against `error`, where that is known.
fn remedy(what: &str, error: &io::Error) -> &'static str {
    match (what, error.kind()) {
        (IN_DIRECTORY, io::ErrorKind::NotFound) => "; make that directory, or choose another path",
        (IN_DIRECTORY, io::ErrorKind::PermissionDenied) => {
            "; the user that rtp_cluster runs as must be able to write there"
        }
        (OWNER, io::ErrorKind::PermissionDenied) => {
            "; only the super-user gives it to another user, and only a member of a group to that group"
        }
        (PORT, io::ErrorKind::AddrInUse) => "; another process has that port",
        (PORT, io::ErrorKind::AddrNotAvailable) => "; want an address of this machine",
        (PORT, io::ErrorKind::PermissionDenied) => "; ports below 1024 are for the super-user",
        _ => "",
    }
}

/// Binds the UNIX stream socket `path` and listens on it. A stale file, where nobody listens, is replaced.
///
/// The socket comes to be under a temporary name, gets its owner and mode, listens, and is only then renamed:
/// at no moment may somebody connect whom `rights` shut out, and a stale path is never absent.
///
/// # Errors
/// [`BindError::Live`] when a process listens there, and the others as they say; then nothing has changed.
pub fn bind_unix(path: &Path, rights: &Rights) -> Result<BoundUnix, BindError> {
    let failed = |what: &'static str| move |error| system(path.display(), what, error);
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(BindError::TooLong { path: path.into() });
    }
    // Also to tell who may not write there that somebody listens.
    judge_existing(path)?;
    let _turn = Turn::take(path).map_err(failed(IN_DIRECTORY))?;
    judge_existing(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make a socket"))?;
    let temporary = bind_temporary(&socket, path, rights.mode).map_err(failed(IN_DIRECTORY))?;
    let placed = give(&temporary, rights)
        .map_err(failed(OWNER))
        .and_then(|identity| {
            socket.listen(BACKLOG).map_err(failed("listen"))?;
            fs::rename(&temporary, path).map_err(failed("put the socket in its place"))?;
            Ok(identity)
        });
    match placed {
        Ok(identity) => Ok(BoundUnix {
            listener: std::os::fd::OwnedFd::from(socket).into(),
            file: SocketFile::new(path, identity),
        }),
        Err(error) => {
            // The first error is the one to tell; a temporary name that stays does no harm.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// Takes over a socket that listens at `path` already; its file gets `rights` where it has others.
///
/// # Errors
/// [`BindError::System`] when there is no such file or it is not ours to change; it stays then, as it was.
pub fn adopt_unix(listener: UnixListener, path: &Path, rights: &Rights) -> Result<BoundUnix, BindError> {
    let identity = give(path, rights).map_err(|error| system(path.display(), OWNER, error))?;
    Ok(BoundUnix {
        listener,
        file: SocketFile::new(path, identity),
    })
}

/// Binds a UDP control socket. An IPv6 one takes IPv6 alone, so that both families may have the same port.
///
/// # Errors
/// [`BindError::System`], as when the port is taken or the address is not of this machine.
pub fn bind_udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let bind = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // Forced past the system's limit where we may; a smaller buffer loses bursts that the client sends again.
        if sockopt::set_socket_recv_buffer_size_force(&socket, UDP_BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        }
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bind().map_err(|error| system(format_args!("udp {address}"), PORT, error))
}

/// Binds a TCP control socket and listens. What is accepted sends without delay and notices a dead peer: both
/// are inherited from the listener.
///
/// # Errors
/// [`BindError::System`], as when the port is taken or the address is not of this machine.
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of our predecessor that linger must not keep us from starting.
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE_AFTER)
                .with_interval(KEEPALIVE_EVERY),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| system(format_args!("tcp {address}"), PORT, error))
}

fn system(place: impl fmt::Display, what: &'static str, error: io::Error) -> BindError {
    BindError::System {
        place: place.to_string(),
        what,
        error,
    }
}

/// Whether what stands at `path` may be replaced: nothing, or a socket on which nobody listens.
fn judge_existing(path: &Path) -> Result<(), BindError> {
    let failed = |error| system(path.display(), "see whether somebody listens there", error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A daemon that is alive but too busy to accept must not hold us up.
    probe.set_nonblocking(true).map_err(failed)?;
    let live = |pid| {
        Err(BindError::Live {
            path: path.into(),
            pid,
        })
    };
    match probe.connect(&SockAddr::unix(path).map_err(failed)?) {
        Ok(()) => live(listener_pid(&UnixStream::from(std::os::fd::OwnedFd::from(probe)))),
        Err(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ENOENT) => Ok(()),
            // Its queue is full; or it is bound as another type of socket, which is as alive.
            Some(libc::EAGAIN | libc::EINPROGRESS | libc::EPROTOTYPE) => live(None),
            _ => Err(failed(error)),
        },
    }
}

/// Who called listen(2) at the other end.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn listener_pid(stream: &UnixStream) -> Option<i32> {
    sockopt::socket_peercred(stream)
        .ok()
        .map(|peer| peer.pid.as_raw_nonzero().get())
}

/// Other systems have other calls for this, and the message reads well without the number.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const fn listener_pid(_stream: &UnixStream) -> Option<i32> {
    None
}

/// Binds `socket` to a name of its own beside `path`, and returns that.
fn bind_temporary(socket: &Socket, path: &Path, mode: u32) -> io::Result<PathBuf> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..NAMES_TRIED {
        let temporary = temporary_name(path, std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        match bind_with_mode(socket, &SockAddr::unix(&temporary)?, mode) {
            Ok(()) => return Ok(temporary),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Binds `socket` so that its file has `mode` from its first moment: Linux gives it the mode of the socket, less the
/// mask of the process. Elsewhere it may be narrower or wider until [`give`]; nobody listens before.
fn bind_with_mode(socket: &Socket, name: &SockAddr, mode: u32) -> io::Result<()> {
    /// The mask is the process's, for a moment; every other file of ours is made with a mode that it does not narrow.
    static MASK: Mutex<()> = Mutex::new(());
    let mode = Mode::from_raw_mode(RawMode::try_from(mode).unwrap_or_default());
    // Refused where sockets have no mode.
    let _ = rustix::fs::fchmod(socket, mode);
    let _alone = MASK.lock();
    let before = rustix::process::umask(Mode::empty());
    let bound = socket.bind(name);
    rustix::process::umask(before);
    bound
}

/// A name in the directory of `path` that fits into a socket address whenever `path` does.
fn temporary_name(path: &Path, pid: u32, serial: u32) -> PathBuf {
    let name = path.file_name().map_or(0, OsStr::len);
    let directory = path.as_os_str().len().saturating_sub(name);
    let mut temporary = format!("{serial:x}.{pid:x}.rtp_cluster");
    temporary.truncate(SOCKET_PATH_MAX.saturating_sub(directory).max(1));
    path.with_file_name(temporary)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixDatagram;
    use std::sync::Barrier;

    use super::*;

    const OURS: Rights = Rights {
        uid: None,
        gid: None,
        mode: 0o600,
    };

    /// A directory of its own for each test, removed with it.
    struct Room(PathBuf);

    impl Room {
        fn new() -> Self {
            static SERIAL: AtomicU32 = AtomicU32::new(0);
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("rtpc-l-{}-{serial}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            fs::read_dir(&self.0).unwrap().map(name).collect()
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_socket_listens_with_the_mode_asked_for_and_goes_with_its_file() {
        let room = Room::new();
        let path = room.0.join("c.sock");
        let bound = bind_unix(&path, &Rights { mode: 0o612, ..OURS }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o612);
        assert_eq!(room.names(), ["c.sock"]);
        let mut client = UnixStream::connect(&path).unwrap();
        let (mut served, _) = bound.listener.accept().unwrap();
        served.write_all(b"0").unwrap();
        drop(served);
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "0");
        drop(bound);
        assert_eq!(room.names(), [""; 0]);
    }

    #[test]
    fn a_live_socket_is_left_alone_and_its_owner_named() {
        let room = Room::new();
        let path = room.0.join("c.sock");
        let first = bind_unix(&path, &OURS).unwrap();
        let refused = bind_unix(&path, &OURS).unwrap_err();
        assert_eq!(refused.exit(), 75);
        assert!(
            refused
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        // The refusal's own visit, and then a client's: the first daemon still serves.
        first.listener.accept().unwrap();
        UnixStream::connect(&path).unwrap();
        first.listener.accept().unwrap();
        assert_eq!(room.names(), ["c.sock"]);
    }

    #[test]
    fn a_live_socket_whose_queue_is_full_or_of_another_type_is_live() {
        let room = Room::new();
        let path = room.0.join("full.sock");
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        // A queue of 0 holds one that waits.
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(
            bind_unix(&path, &OURS),
            Err(BindError::Live { pid: None, .. })
        ));

        let path = room.0.join("datagram.sock");
        let _other = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(
            bind_unix(&path, &OURS),
            Err(BindError::Live { pid: None, .. })
        ));
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let room = Room::new();
        let path = room.0.join("c.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let bound = bind_unix(&path, &OURS).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(bound.file.path(), path);
        assert_eq!(room.names(), ["c.sock"]);
    }

    #[test]
    fn of_several_who_find_a_stale_socket_one_gets_it() {
        const AT_ONCE: usize = 4;
        let room = Room::new();
        let path = room.0.join("c.sock");
        for round in 0..100 {
            drop(UnixListener::bind(&path).unwrap());
            let start = Barrier::new(AT_ONCE);
            let mut bound = std::thread::scope(|scope| {
                let bind = || {
                    start.wait();
                    bind_unix(&path, &OURS)
                };
                let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(bind)).collect();
                let results = threads.into_iter().map(|thread| thread.join().unwrap());
                results.filter_map(Result::ok).collect::<Vec<_>>()
            });
            assert_eq!(bound.len(), 1, "round {round}");
            assert!(bound.remove(0).file.is_there());
            assert_eq!(room.names(), [""; 0], "round {round}");
        }
    }

    #[test]
    fn one_who_stops_does_not_remove_the_socket_of_one_who_starts() {
        let room = Room::new();
        let path = room.0.join("c.sock");
        for round in 0..100 {
            let BoundUnix { listener, file } = bind_unix(&path, &OURS).unwrap();
            let start = Barrier::new(2);
            let next = std::thread::scope(|scope| {
                scope.spawn(|| {
                    drop(listener);
                    start.wait();
                    drop(file);
                });
                start.wait();
                bind_unix(&path, &OURS).unwrap()
            });
            assert!(next.file.is_there(), "round {round}");
        }
    }

    #[test]
    fn a_turn_that_a_killed_daemon_left_is_taken() {
        let room = Room::new();
        let path = room.0.join("c.sock");
        fs::write(room.0.join(".c.sock.lock"), "").unwrap();
        let _bound = bind_unix(&path, &OURS).unwrap();
        assert_eq!(room.names(), ["c.sock"]);
    }

    #[test]
    fn a_socket_has_its_mode_before_anybody_touches_its_file() {
        let room = Room::new();
        let path = room.0.join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        bind_with_mode(&socket, &SockAddr::unix(&path).unwrap(), 0o626).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o626);
        }
        give(&path, &Rights { mode: 0o612, ..OURS }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o612);
    }

    #[test]
    fn rights_are_given_to_no_other_file_through_a_link() {
        let room = Room::new();
        let (file, link) = (room.0.join("shadow"), room.0.join("s"));
        fs::write(&file, "").unwrap();
        let before = fs::metadata(&file).unwrap().mode();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for place in [&file, &link] {
            give(place, &Rights { mode: 0o666, ..OURS }).unwrap_err();
        }
        assert_eq!(fs::metadata(&file).unwrap().mode(), before);
    }

    #[test]
    fn what_is_no_socket_stays() {
        let room = Room::new();
        let path = room.0.join("file");
        fs::write(&path, "precious").unwrap();
        let link = room.0.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for place in [&path, &link, &room.0] {
            let refused = bind_unix(place, &OURS).unwrap_err();
            assert!(matches!(refused, BindError::NotASocket { .. }), "{refused}");
            assert_eq!(refused.exit(), 1);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_missing_directory_is_told_with_the_path_and_what_the_system_said() {
        let refused = bind_unix(Path::new("/nonexistent-rtpc/c.sock"), &OURS)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("/nonexistent-rtpc/c.sock") && refused.contains("os error 2"),
            "{refused}"
        );
    }

    #[test]
    fn a_path_has_107_bytes_at_most() {
        let room = Room::new();
        let fill = SOCKET_PATH_MAX - room.0.as_os_str().len() - 1;
        let long = |extra| room.0.join("x".repeat(fill + extra));
        assert!(matches!(
            bind_unix(&long(1), &OURS),
            Err(BindError::TooLong { .. })
        ));
        let _bound = bind_unix(&long(0), &OURS).unwrap();
        // A deep directory and a short name: the temporary name is cut to what fits.
        let deep = room.0.join("d".repeat(fill - 2));
        fs::create_dir(&deep).unwrap();
        let _also = bind_unix(&deep.join("s"), &OURS).unwrap();
        UnixStream::connect(deep.join("s")).unwrap();
    }

    #[test]
    fn the_file_of_a_successor_is_not_removed() {
        let room = Room::new();
        let path = room.0.join("c.sock");
        let first = bind_unix(&path, &OURS).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind_unix(&path, &OURS).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        second.file.leave();
        assert_eq!(room.names(), ["c.sock"]);
    }

    #[test]
    fn a_taken_port_is_an_error_that_names_it() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let any: SocketAddr = host.parse().unwrap();
            let udp = bind_udp(any).unwrap();
            let taken = bind_udp(udp.local_addr().unwrap()).unwrap_err();
            assert_eq!(taken.exit(), 1);
            assert!(
                taken.to_string().contains(&udp.local_addr().unwrap().to_string()),
                "{taken}"
            );
            let tcp = bind_tcp(any).unwrap();
            assert_eq!(bind_tcp(tcp.local_addr().unwrap()).unwrap_err().exit(), 1);
        }
    }

    #[test]
    fn accepted_connections_send_without_delay() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        assert!(served.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&served).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&served).unwrap(), KEEPALIVE_AFTER);
    }
}
