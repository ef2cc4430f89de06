//! The listening sockets of the daemon: bound, or taken over. Where the service manager keeps descriptors for us
//! (systemd's `FileDescriptorStoreMax=`) it gets each of them: it listens on while we are restarted, so that who
//! connects meanwhile is not refused but waits for our successor. A socket that it made itself (a socket unit) is
//! taken over in the same way, and so are those of a running daemon whose [successor](handover) we are. The sockets are
//! found again by what they are, not by the order of the configuration.

pub mod file;
pub mod handover;
pub mod listener;
pub(crate) mod systemd;

use core::fmt::Write as _;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use socket2::{Domain, Socket, Type};

use self::handover::{Successor, Waits};
use self::systemd::{Given, Systemd};
use crate::rim::lock::{Ranked, rank};
use crate::sockets::listener::{
    BindError, BoundUnix, Identity, Rights, adopt_unix, bind_tcp, bind_udp, bind_unix, unlink_ours,
};

/// Longest name of a kept descriptor, in bytes (sd_notify(3)). A socket whose name is longer is not kept.
const NAME_MAX: usize = 255;

/// Where every listening socket comes from.
#[derive(Debug, Default)]
pub struct Sockets {
    keeper: Arc<Keeper>,
    /// Handed to us and not asked for yet.
    handed: Ranked<Vec<Handed>, { rank::SOCKETS }>,
}

/// Who knows of every open socket, and the service manager, as who keeps descriptors.
#[derive(Debug, Default)]
struct Keeper {
    systemd: Arc<Systemd>,
    /// How many more it keeps.
    room: AtomicUsize,
    /// Whether a socket that is closed is closed for good. Before and after, we end and another will listen on it.
    serving: AtomicBool,
    /// Our predecessor goes on unless we serve: what it gave us is not ours to remove.
    inherits: AtomicBool,
    /// A successor has it all.
    given_away: AtomicBool,
    /// It has the pid file too.
    pid_file_given_away: AtomicBool,
    open: Ranked<Vec<Open>, { rank::SOCKETS }>,
    /// Each open socket has its own.
    numbers: AtomicU64,
    pid_file: Ranked<Option<OwnedFd>, { rank::SOCKETS }>,
    /// The connection to a successor that does not serve yet.
    successor: Ranked<Option<UnixStream>, { rank::SOCKETS }>,
}

/// A socket that is open, so that it can be handed over or its file removed whoever holds it.
#[derive(Debug)]
struct Open {
    number: u64,
    name: String,
    descriptor: Descriptor,
    /// Where it is, and whether the file goes when we end.
    file: Option<(PathBuf, Identity, Holder)>,
}

/// How an open socket is reached to be handed over.
#[derive(Debug)]
enum Descriptor {
    /// It is the same socket once more.
    Again(OwnedFd),
    /// Whoever serves it has shared it with us, which costs no second descriptor.
    Shared(Weak<dyn Share>),
}

/// A socket that somebody serves.
pub trait Share: AsFd + Send + Sync + core::fmt::Debug {}

impl<T: AsFd + Send + Sync + core::fmt::Debug> Share for T {}

/// Who has a socket open beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// The service manager, which made it itself: it is never ours to close.
    Manager,
    /// The service manager, for us.
    Store,
    /// Our predecessor, until we serve.
    Predecessor,
    /// Nobody.
    Nobody,
}

/// The note that a socket is open. Dropped while we serve, it is not kept by anybody any longer.
#[derive(Debug)]
pub struct Kept {
    keeper: Arc<Keeper>,
    name: String,
    holder: Holder,
    number: u64,
}

impl Kept {
    /// Whether it listens on when we close it now.
    pub fn outlives_us(&self) -> bool {
        self.keeper.outlives_us(self.holder)
    }

    /// Whoever serves the socket has it here.
    pub fn share(&self, socket: Weak<dyn Share>) {
        let mut all = self.keeper.open.lock();
        if let Some(open) = all.iter_mut().find(|open| open.number == self.number) {
            open.descriptor = Descriptor::Shared(socket);
        }
    }
}

impl Keeper {
    fn outlives_us(&self, holder: Holder) -> bool {
        self.given_away.load(Ordering::Acquire)
            || match holder {
                Holder::Manager => true,
                Holder::Store => !self.serving.load(Ordering::Acquire),
                Holder::Predecessor => self.inherits.load(Ordering::Acquire),
                Holder::Nobody => false,
            }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.open.lock().retain(|open| open.number != self.number);
        if self.holder == Holder::Store && !self.outlives_us() {
            self.keeper.systemd.forget(&self.name);
            self.keeper.room.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// An open socket of a port, and whether somebody keeps it.
#[derive(Debug)]
pub struct BoundPort<S> {
    /// The socket.
    pub socket: S,
    /// To be dropped when it is closed.
    pub kept: Kept,
}

/// A socket that was handed to us.
#[derive(Debug)]
struct Handed {
    socket: Socket,
    name: String,
    place: HandedAt,
    holder: Holder,
}

/// Where it listens.
#[derive(Debug, PartialEq, Eq)]
enum HandedAt {
    File { path: PathBuf, identity: Identity },
    Port(SocketAddr),
}

impl Handed {
    /// `None` for what is no listening socket, or whose file is gone: nobody can connect to that.
    fn new(Given { descriptor, name }: Given, holder: Holder) -> Option<Self> {
        let socket = Socket::from(descriptor);
        let address = socket.local_addr().ok()?;
        let kind = socket.r#type().ok()?;
        let place = if address.domain() == Domain::UNIX && socket.is_listener().ok()? {
            // A socket of our own was renamed after it was bound: the system knows the old name only.
            let (path, identity) = if let Some(file) = file_of(&name) {
                file
            } else {
                let path = address.as_pathname()?;
                (path.to_owned(), Identity::of(path).ok()?)
            };
            HandedAt::File { path, identity }
        } else if kind == Type::DGRAM || socket.is_listener().ok()? {
            HandedAt::Port(address.as_socket()?)
        } else {
            return None;
        };
        // Its name is one of those that we give, unless the manager made it.
        let is_ours = name == name_of(socket.r#type().ok(), &place);
        Some(Self {
            socket,
            name,
            place,
            holder: if is_ours { holder } else { Holder::Manager },
        })
    }
}

impl Sockets {
    /// With what the service manager handed us.
    pub(super) fn new(systemd: &Arc<Systemd>, given: Vec<Given>) -> Self {
        let mut handed = Vec::new();
        for given in given {
            let name = given.name.clone();
            if let Some(socket) = Handed::new(given, Holder::Store) {
                handed.push(socket);
            } else {
                log::warn!("descriptor \"{name}\" of systemd is no socket that we listen on: closed");
                systemd.forget(&name);
            }
        }
        let ours = handed
            .iter()
            .filter(|socket| socket.holder == Holder::Store)
            .count();
        Self {
            keeper: Arc::new(Keeper {
                systemd: Arc::clone(systemd),
                room: AtomicUsize::new(systemd.store().saturating_sub(ours)),
                ..Keeper::default()
            }),
            handed: Ranked::new(handed),
        }
    }

    /// With what a daemon has given us, which goes on with it until [`Self::serve`].
    pub(super) fn inherit(&self, given: Vec<Given>) {
        self.keeper.inherits.store(true, Ordering::Release);
        let sockets = given
            .into_iter()
            .filter_map(|given| Handed::new(given, Holder::Predecessor));
        self.handed.lock().extend(sockets);
    }

    /// A successor gets this pid file too.
    pub(super) fn share_pid_file(&self, file: OwnedFd) {
        *self.keeper.pid_file.lock() = Some(file);
    }

    /// Gives every open socket to the successor that asks over `stream`, and waits until it can serve; then nothing is
    /// removed any more when it is closed. Returns the successor's pid, and what it waits for still.
    ///
    /// # Errors
    /// When it does not come to that; then all is as before.
    pub fn hand_over(&self, stream: UnixStream) -> io::Result<(u32, Waits)> {
        let keeper = &self.keeper;
        *keeper.successor.lock() = Some(stream.try_clone()?);
        // Looked at after that, as who stops does it the other way round: one of the two sees the other.
        let why_not = if keeper.systemd.is_there() {
            // It would take the end of its main process for the end of the service, and end the successor with it.
            Some("the daemon is systemd's: want systemctl restart, which refuses nobody either")
        } else if keeper.serving.load(Ordering::Acquire) {
            None
        } else {
            Some("the daemon is about to start or to stop")
        };
        let given = match why_not {
            None => self.give_all(stream),
            Some(why) => {
                handover::refuse(stream, why);
                Err(io::Error::other(why))
            }
        };
        *keeper.successor.lock() = None;
        given
    }

    fn give_all(&self, stream: UnixStream) -> io::Result<(u32, Waits)> {
        let keeper = &self.keeper;
        let sockets = keeper
            .open
            .lock()
            .iter()
            .map(Open::again)
            .collect::<io::Result<Vec<_>>>()?;
        let pid_file = keeper
            .pid_file
            .lock()
            .as_ref()
            .map(OwnedFd::try_clone)
            .transpose()?;
        let successor = Successor::of(stream, &sockets, pid_file.as_ref())?;
        let (pid, has_pid_file) = (successor.pid, successor.has_pid_file);
        // Before it knows: from then on what we remove would be its own.
        keeper.given_away.store(true, Ordering::Release);
        keeper.pid_file_given_away.store(has_pid_file, Ordering::Release);
        let waits = successor.leave_to().inspect_err(|_| {
            keeper.given_away.store(false, Ordering::Release);
            keeper.pid_file_given_away.store(false, Ordering::Release);
        })?;
        Ok((pid, waits))
    }

    /// Whether a successor has the pid file as well.
    pub(super) fn pid_file_is_given_away(&self) -> bool {
        self.keeper.pid_file_given_away.load(Ordering::Acquire)
    }

    /// Listens on a UNIX socket.
    ///
    /// # Errors
    /// As those of [`bind_unix`].
    pub fn unix(&self, path: &Path, rights: &Rights) -> Result<BoundUnix, BindError> {
        let here = Identity::of(path).ok();
        let is_it = |at: &HandedAt| matches!(at, HandedAt::File { identity, .. } if Some(*identity) == here);
        let (BoundUnix { listener, file }, found) =
            if let Some((socket, name, holder)) = self.take(Type::STREAM, is_it) {
                let listener = OwnedFd::from(socket).into();
                (adopt_unix(listener, path, rights)?, Some((name, holder)))
            } else {
                (bind_unix(path, rights)?, None)
            };
        let place = HandedAt::File {
            path: path.to_owned(),
            identity: file.identity(),
        };
        let kept = self.keep(&listener, Type::STREAM, &place, found);
        let file = file.kept(kept);
        Ok(BoundUnix { listener, file })
    }

    /// Removes the files of our sockets, for a process that ends before those who hold them let them go.
    pub(super) fn remove_files(&self) {
        let open = core::mem::take(&mut *self.keeper.open.lock());
        for (path, identity, holder) in open.into_iter().filter_map(|open| open.file) {
            // What systemd keeps it keeps until our unit is stopped.
            if holder != Holder::Store && !self.keeper.outlives_us(holder) {
                remove(&path, identity);
            }
        }
    }

    /// Opens a UDP socket.
    ///
    /// # Errors
    /// As those of [`bind_udp`].
    pub fn udp(&self, address: SocketAddr) -> Result<BoundPort<UdpSocket>, BindError> {
        self.port(address, Type::DGRAM, bind_udp)
    }

    /// Listens on a TCP port.
    ///
    /// # Errors
    /// As those of [`bind_tcp`].
    pub fn tcp(&self, address: SocketAddr) -> Result<BoundPort<TcpListener>, BindError> {
        self.port(address, Type::STREAM, bind_tcp)
    }

    fn port<S: From<Socket> + AsFd>(
        &self,
        address: SocketAddr,
        kind: Type,
        bind: impl FnOnce(SocketAddr) -> Result<S, BindError>,
    ) -> Result<BoundPort<S>, BindError> {
        let place = HandedAt::Port(address);
        let (socket, found) = match self.take(kind, |at| *at == place) {
            Some((socket, name, holder)) => (socket.into(), Some((name, holder))),
            None => (bind(address)?, None),
        };
        let kept = self.keep(&socket, kind, &place, found);
        Ok(BoundPort { socket, kept })
    }

    /// All is bound: from now on, what is closed is closed for good. What was handed to us and is not in the
    /// configuration any more is the first of that.
    pub(super) fn serve(&self) {
        self.keeper.serving.store(true, Ordering::Release);
        self.keeper.inherits.store(false, Ordering::Release);
        let unused = core::mem::take(&mut *self.handed.lock());
        for socket in unused {
            log::info!(
                "socket \"{}\" was handed to us and is not in the configuration: closed",
                socket.name
            );
            if socket.holder == Holder::Manager {
                continue;
            }
            if socket.holder == Holder::Store {
                self.keeper.systemd.forget(&socket.name);
            }
            if let HandedAt::File { path, identity } = &socket.place {
                remove(path, *identity);
            }
        }
    }

    /// We end: sockets that are kept are left to whom will be started next. A successor that does not serve yet gets
    /// nothing.
    pub(super) fn leave(&self) {
        self.keeper.serving.store(false, Ordering::Release);
        let successor = self.keeper.successor.lock().take();
        if let Some(stream) = successor {
            // It fails when the other end has gone.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The socket of that type among those handed to us, its name, and who has it beside us.
    fn take(&self, kind: Type, is_it: impl Fn(&HandedAt) -> bool) -> Option<(Socket, String, Holder)> {
        let mut handed = self.handed.lock();
        let place = handed
            .iter()
            .position(|socket| is_it(&socket.place) && socket.socket.r#type().is_ok_and(|t| t == kind))?;
        let found = handed.swap_remove(place);
        drop(handed);
        log::info!(
            "listening on with socket \"{}\", which was handed to us",
            found.name
        );
        Some((found.socket, found.name, found.holder))
    }

    /// Notes a socket as open. One that nobody has beside us is kept, if somebody does that and has room.
    fn keep(&self, socket: impl AsFd, kind: Type, place: &HandedAt, found: Option<(String, Holder)>) -> Kept {
        let keeper = &self.keeper;
        let (name, holder) = found.unwrap_or_else(|| {
            let name = name_of(Some(kind), place);
            let holder = self.store(&name, socket.as_fd());
            (name, holder)
        });
        let number = keeper.numbers.fetch_add(1, Ordering::Relaxed);
        let file = match place {
            HandedAt::File { path, identity } => Some((path.clone(), *identity, holder)),
            HandedAt::Port(_) => None,
        };
        match socket.as_fd().try_clone_to_owned() {
            Ok(descriptor) => keeper.open.lock().push(Open {
                number,
                name: name.clone(),
                descriptor: Descriptor::Again(descriptor),
                file,
            }),
            Err(error) => log::warn!("socket \"{name}\" cannot be handed over later: {error}"),
        }
        Kept {
            keeper: Arc::clone(keeper),
            name,
            holder,
            number,
        }
    }

    /// Who has a new socket from now on.
    fn store(&self, name: &str, socket: BorrowedFd<'_>) -> Holder {
        let room = &self.keeper.room;
        let has_room = room
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |room| room.checked_sub(1))
            .is_ok();
        if has_room && name.len() <= NAME_MAX && self.keeper.systemd.keep(name, socket) {
            return Holder::Store;
        }
        if has_room {
            room.fetch_add(1, Ordering::AcqRel);
        }
        Holder::Nobody
    }
}

impl Open {
    /// Its name and the socket once more.
    fn again(&self) -> io::Result<(String, OwnedFd)> {
        let descriptor = match &self.descriptor {
            Descriptor::Again(descriptor) => descriptor.try_clone()?,
            Descriptor::Shared(socket) => {
                let socket = socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
                socket.as_fd().try_clone_to_owned()?
            }
        };
        Ok((self.name.clone(), descriptor))
    }
}

fn remove(path: &Path, identity: Identity) {
    if let Err(error) = unlink_ours(path, identity) {
        log::warn!("{}: cannot remove our socket: {error}", path.display());
    }
}

/// What a socket is called where it is kept: what it is, so that it is found again, and for people to read.
fn name_of(kind: Option<Type>, place: &HandedAt) -> String {
    match place {
        HandedAt::File { path, identity } => {
            format!("unix,{identity},{}", escape(path.as_os_str().as_bytes()))
        }
        HandedAt::Port(address) => {
            let kind = if kind == Some(Type::DGRAM) { "udp" } else { "tcp" };
            format!("{kind},{}", escape(address.to_string().as_bytes()))
        }
    }
}

/// The file of a socket that we called so.
fn file_of(name: &str) -> Option<(PathBuf, Identity)> {
    let (identity, path) = name.strip_prefix("unix,")?.split_once(',')?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(path)?));
    Some((path, Identity::parse(identity)?))
}

/// Names have no colon and no control characters; whatever else may be misread is escaped as well.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"/._-[]".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (number, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(number, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    const RIGHTS: Rights = Rights {
        uid: None,
        gid: None,
        mode: 0o660,
    };

    /// A directory of a test's own.
    struct Room(PathBuf);

    impl Room {
        fn new() -> Self {
            static SERIAL: AtomicUsize = AtomicUsize::new(0);
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("rtpc-kept-{}-{serial}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Sockets of a daemon that was given `given`, and what its manager hears.
    fn sockets(store: usize, given: Vec<Given>) -> (Sockets, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let systemd = Systemd::of(ours, store);
        (Sockets::new(&Arc::new(systemd), given), theirs)
    }

    fn heard(theirs: &UnixDatagram) -> Option<String> {
        let mut text = [0; 512];
        let length = theirs.recv(&mut text).ok()?;
        String::from_utf8(text[..length].to_vec()).ok()
    }

    fn name_in(message: &str) -> String {
        message.split_once("FDNAME=").unwrap().1.to_owned()
    }

    /// A socket that listens at `path`, as the manager gives it to the next process.
    fn left_behind(path: &Path) -> Given {
        let (sockets, manager) = sockets(8, Vec::new());
        let bound = sockets.unix(path, &RIGHTS).unwrap();
        let name = name_in(&heard(&manager).unwrap());
        let descriptor = bound.listener.try_clone().unwrap().into();
        Given { descriptor, name }
    }

    #[test]
    fn a_socket_is_kept_over_a_restart_and_found_again() {
        let room = Room::new();
        let path = room.0.join("c 1.sock");
        let (first, manager) = sockets(8, Vec::new());
        let bound = first.unix(&path, &RIGHTS).unwrap();
        let name = name_in(&heard(&manager).unwrap());
        assert!(
            name.starts_with("unix,") && name.ends_with("c%201.sock"),
            "{name}"
        );
        let descriptor: OwnedFd = bound.listener.try_clone().unwrap().into();
        first.serve();
        first.leave();
        drop(bound);
        assert!(path.exists());
        let mut waiting = UnixStream::connect(&path).expect("it listens on");

        let (second, manager) = sockets(
            8,
            vec![Given {
                descriptor,
                name: name.clone(),
            }],
        );
        let rights = Rights {
            mode: 0o600,
            ..RIGHTS
        };
        let bound = second.unix(&path, &rights).unwrap();
        second.serve();
        assert_eq!(heard(&manager), None, "it is kept already");
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777,
            0o600
        );
        let (mut served, _) = bound.listener.accept().unwrap();
        io_write(&mut served);
        std::io::Read::read_exact(&mut waiting, &mut [0]).unwrap();
        // Its cluster is deleted while we serve: gone for good.
        drop(bound);
        assert!(!path.exists());
        assert_eq!(
            heard(&manager).unwrap(),
            format!("FDSTOREREMOVE=1\nFDNAME={name}")
        );
    }

    fn io_write(stream: &mut UnixStream) {
        std::io::Write::write_all(stream, b"0").unwrap();
    }

    #[test]
    fn what_systemd_runs_goes_to_no_successor() {
        let room = Room::new();
        let (sockets, _manager) = sockets(0, Vec::new());
        let bound = sockets.unix(&room.0.join("s"), &RIGHTS).unwrap();
        sockets.serve();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let refused = sockets.hand_over(ours).unwrap_err();
        assert!(refused.to_string().contains("systemctl restart"), "{refused}");
        drop(bound);
        assert!(!room.0.join("s").exists(), "it is ours as before");
    }

    #[test]
    fn without_a_store_nothing_is_kept() {
        let room = Room::new();
        let path = room.0.join("s");
        let (sockets, manager) = sockets(0, Vec::new());
        let bound = sockets.unix(&path, &RIGHTS).unwrap();
        sockets.serve();
        sockets.leave();
        drop(bound);
        assert_eq!(heard(&manager), None);
        assert!(!path.exists());
    }

    #[test]
    fn a_full_store_has_room_again_for_what_was_removed() {
        let room = Room::new();
        let (sockets, manager) = sockets(1, Vec::new());
        let first = sockets.unix(&room.0.join("1"), &RIGHTS).unwrap();
        let second = sockets.unix(&room.0.join("2"), &RIGHTS).unwrap();
        sockets.serve();
        assert!(heard(&manager).unwrap().starts_with("FDSTORE=1"));
        assert_eq!(heard(&manager), None);
        drop(second);
        assert_eq!(heard(&manager), None);
        drop(first);
        assert!(heard(&manager).unwrap().starts_with("FDSTOREREMOVE=1"));
        let _third = sockets.unix(&room.0.join("3"), &RIGHTS).unwrap();
        assert!(heard(&manager).unwrap().starts_with("FDSTORE=1"));
    }

    #[test]
    fn a_socket_whose_file_was_replaced_is_not_taken_over() {
        let room = Room::new();
        let path = room.0.join("s");
        let given = left_behind(&path);
        fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());

        let name = given.name.clone();
        let (second, manager) = sockets(8, vec![given]);
        let _bound = second.unix(&path, &RIGHTS).unwrap();
        assert!(heard(&manager).unwrap().starts_with("FDSTORE=1"));
        second.serve();
        assert_eq!(
            heard(&manager).unwrap(),
            format!("FDSTOREREMOVE=1\nFDNAME={name}")
        );
        UnixStream::connect(&path).expect("the new one stays");
    }

    #[test]
    fn a_socket_that_is_no_longer_configured_is_closed_and_its_file_removed() {
        let room = Room::new();
        let path = room.0.join("s");
        let given = left_behind(&path);
        let (second, manager) = sockets(8, vec![given]);
        assert!(path.exists());
        second.serve();
        assert!(!path.exists());
        assert!(heard(&manager).unwrap().starts_with("FDSTOREREMOVE=1"));
    }

    #[test]
    fn a_socket_unit_is_served_and_never_removed() {
        let room = Room::new();
        let path = room.0.join("s");
        let unit = UnixListener::bind(&path).unwrap();
        let given = |listener: &UnixListener| Given {
            descriptor: listener.try_clone().unwrap().into(),
            name: "rtp_cluster.socket".to_owned(),
        };
        let (sockets, manager) = sockets(8, vec![given(&unit)]);
        let bound = sockets.unix(&path, &RIGHTS).unwrap();
        sockets.serve();
        drop(bound);
        assert_eq!(heard(&manager), None);
        UnixStream::connect(&path).expect("the unit listens on");
    }

    #[test]
    fn ports_are_found_by_address_and_type() {
        let (first, manager) = sockets(8, Vec::new());
        let any = "127.0.0.1:0".parse().unwrap();
        let udp = bind_udp(any).unwrap();
        let tcp = bind_tcp(any).unwrap();
        let address = udp.local_addr().unwrap();
        let name = name_of(Some(Type::DGRAM), &HandedAt::Port(address));
        assert_eq!(name, format!("udp,127.0.0.1%3a{}", address.port()));
        drop(first);
        drop(manager);
        let given = vec![
            Given {
                descriptor: tcp.try_clone().unwrap().into(),
                name: "web".to_owned(),
            },
            Given {
                descriptor: udp.try_clone().unwrap().into(),
                name,
            },
            Given {
                descriptor: UnixStream::pair().unwrap().0.into(),
                name: "stray".to_owned(),
            },
        ];
        let (second, manager) = sockets(8, given);
        assert_eq!(heard(&manager).unwrap(), "FDSTOREREMOVE=1\nFDNAME=stray");
        assert_eq!(second.udp(address).unwrap().socket.local_addr().unwrap(), address);
        let listener = second.tcp(tcp.local_addr().unwrap()).unwrap();
        assert!(listener.kept.outlives_us());
        assert!(second.tcp(tcp.local_addr().unwrap()).is_err(), "it is taken once");
    }

    #[test]
    fn names_survive_their_way() {
        for path in ["/run/x.sock", "/a:b,c\n%41", "/größe"] {
            let place = HandedAt::File {
                path: path.into(),
                identity: Identity::parse("1f.2").unwrap(),
            };
            let name = name_of(None, &place);
            assert!(
                name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'),
                "{name}"
            );
            let (path, identity) = file_of(&name).unwrap();
            assert_eq!(HandedAt::File { path, identity }, place);
        }
        assert!(file_of("unix,1.2,/x%4").is_none() && file_of("unix,1,/x").is_none());
    }
}
