//! The listening sockets of the daemon: bound, or taken over. Where the service manager keeps descriptors for us
//! (systemd's `FileDescriptorStoreMax=`) it gets each of them: it listens on while we are restarted, so that who
//! connects meanwhile is not refused but waits for our successor. A socket that it made itself (a socket unit) is
//! taken over in the same way. The sockets are found again by what they are, not by the order of the configuration.

pub mod file;
pub mod listener;
pub(crate) mod systemd;

use core::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use socket2::{Domain, Socket, Type};

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
    /// The files of our UNIX sockets, of some that were removed too.
    files: Ranked<Vec<OurFile>, { rank::SOCKETS }>,
}

/// A file that goes when we end.
#[derive(Debug)]
struct OurFile {
    path: PathBuf,
    identity: Identity,
    /// Unless somebody listens on there.
    is_kept: bool,
}

/// The service manager, as who keeps descriptors.
#[derive(Debug, Default)]
struct Keeper {
    systemd: Arc<Systemd>,
    /// How many more it keeps.
    room: AtomicUsize,
    /// Whether a socket that is closed is closed for good. Before and after, we end and another will listen on it.
    serving: AtomicBool,
}

/// A socket that somebody keeps open beside us. Dropped while we serve, it is not kept any longer.
#[derive(Debug)]
pub struct Kept {
    keeper: Arc<Keeper>,
    /// What we called it; `None` for one that is not ours to close.
    name: Option<String>,
}

impl Kept {
    /// Whether it listens on when we close it now.
    pub fn outlives_us(&self) -> bool {
        self.name.is_none() || !self.keeper.serving.load(Ordering::Acquire)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let (Some(name), false) = (&self.name, self.outlives_us()) {
            self.keeper.systemd.forget(name);
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
    pub kept: Option<Kept>,
}

/// A socket that was handed to us.
#[derive(Debug)]
struct Handed {
    socket: Socket,
    name: String,
    place: HandedAt,
}

/// Where it listens.
#[derive(Debug, PartialEq, Eq)]
enum HandedAt {
    File { path: PathBuf, identity: Identity },
    Port(SocketAddr),
}

impl Handed {
    /// `None` for what is no listening socket, or whose file is gone: nobody can connect to that.
    fn new(Given { descriptor, name }: Given) -> Option<Self> {
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
        Some(Self { socket, name, place })
    }

    /// Whether its name is one of those that we give.
    fn is_ours(&self) -> bool {
        self.name == name_of(self.socket.r#type().ok(), &self.place)
    }
}

impl Sockets {
    /// With what the service manager handed us.
    pub(super) fn new(systemd: &Arc<Systemd>, given: Vec<Given>) -> Self {
        let mut handed = Vec::new();
        for given in given {
            let name = given.name.clone();
            if let Some(socket) = Handed::new(given) {
                handed.push(socket);
            } else {
                log::warn!("descriptor \"{name}\" of systemd is no socket that we listen on: closed");
                systemd.forget(&name);
            }
        }
        let ours = handed.iter().filter(|socket| socket.is_ours()).count();
        Self {
            keeper: Arc::new(Keeper {
                systemd: Arc::clone(systemd),
                room: AtomicUsize::new(systemd.store().saturating_sub(ours)),
                serving: AtomicBool::new(false),
            }),
            handed: Ranked::new(handed),
            files: Ranked::default(),
        }
    }

    /// Listens on a UNIX socket.
    ///
    /// # Errors
    /// As those of [`bind_unix`].
    pub fn unix(&self, path: &Path, rights: &Rights) -> Result<BoundUnix, BindError> {
        let here = Identity::of(path).ok();
        let is_it = |at: &HandedAt| matches!(at, HandedAt::File { identity, .. } if Some(*identity) == here);
        let (bound, kept) = if let Some((socket, kept)) = self.take(Type::STREAM, is_it) {
            let listener = OwnedFd::from(socket).into();
            (adopt_unix(listener, path, rights)?, Some(kept))
        } else {
            let bound = bind_unix(path, rights)?;
            let place = HandedAt::File {
                path: path.to_owned(),
                identity: bound.file.identity(),
            };
            let kept = self.keep(&bound.listener, Type::STREAM, &place);
            (bound, kept)
        };
        let BoundUnix { listener, file } = bound;
        let mut files = self.files.lock();
        files.retain(|ours| Identity::of(&ours.path).is_ok_and(|found| found == ours.identity));
        files.push(OurFile {
            path: path.to_owned(),
            identity: file.identity(),
            is_kept: kept.is_some(),
        });
        drop(files);
        let file = file.kept(kept);
        Ok(BoundUnix { listener, file })
    }

    /// Removes the files of our sockets, for a process that ends before those who hold them let them go.
    pub(super) fn remove_files(&self) {
        let files = core::mem::take(&mut *self.files.lock());
        for OurFile { path, identity, .. } in files.into_iter().filter(|ours| !ours.is_kept) {
            if let Err(error) = unlink_ours(&path, identity) {
                log::warn!("{}: cannot remove our socket: {error}", path.display());
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
        if let Some((socket, kept)) = self.take(kind, |at| *at == place) {
            return Ok(BoundPort {
                socket: socket.into(),
                kept: Some(kept),
            });
        }
        let socket = bind(address)?;
        let kept = self.keep(&socket, kind, &place);
        Ok(BoundPort { socket, kept })
    }

    /// All is bound: from now on, what is closed is closed for good. What was handed to us and is not in the
    /// configuration any more is the first of that.
    pub(super) fn serve(&self) {
        self.keeper.serving.store(true, Ordering::Release);
        let unused = core::mem::take(&mut *self.handed.lock());
        for socket in unused {
            log::info!(
                "socket \"{}\" of systemd is not in the configuration: closed",
                socket.name
            );
            if !socket.is_ours() {
                continue;
            }
            self.keeper.systemd.forget(&socket.name);
            if let HandedAt::File { path, identity } = &socket.place
                && let Err(error) = unlink_ours(path, *identity)
            {
                log::warn!("{}: cannot remove our socket: {error}", path.display());
            }
        }
    }

    /// We end: sockets that are kept are left to whom will be started next.
    pub(super) fn leave(&self) {
        self.keeper.serving.store(false, Ordering::Release);
    }

    /// The socket of that type among those handed to us.
    fn take(&self, kind: Type, is_it: impl Fn(&HandedAt) -> bool) -> Option<(Socket, Kept)> {
        let mut handed = self.handed.lock();
        let place = handed
            .iter()
            .position(|socket| is_it(&socket.place) && socket.socket.r#type().is_ok_and(|t| t == kind))?;
        let found = handed.swap_remove(place);
        drop(handed);
        log::info!("listening on with socket \"{}\" of systemd", found.name);
        let kept = Kept {
            keeper: Arc::clone(&self.keeper),
            name: found.is_ours().then_some(found.name),
        };
        Some((found.socket, kept))
    }

    /// Has a socket kept, if somebody does that and has room.
    fn keep(&self, socket: impl AsFd, kind: Type, place: &HandedAt) -> Option<Kept> {
        let name = name_of(Some(kind), place);
        let room = &self.keeper.room;
        room.fetch_update(Ordering::AcqRel, Ordering::Acquire, |room| room.checked_sub(1))
            .ok()?;
        if name.len() > NAME_MAX || !self.keeper.systemd.keep(&name, socket.as_fd()) {
            room.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        Some(Kept {
            keeper: Arc::clone(&self.keeper),
            name: Some(name),
        })
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
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

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
        let (first, manager) = sockets(8, Vec::new());
        let bound = first.unix(&path, &RIGHTS).unwrap();
        let name = name_in(&heard(&manager).unwrap());
        let descriptor: OwnedFd = bound.listener.try_clone().unwrap().into();
        drop(bound);
        fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());

        let (second, manager) = sockets(
            8,
            vec![Given {
                descriptor,
                name: name.clone(),
            }],
        );
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
        let (first, manager) = sockets(8, Vec::new());
        let bound = first.unix(&path, &RIGHTS).unwrap();
        let name = name_in(&heard(&manager).unwrap());
        let descriptor: OwnedFd = bound.listener.try_clone().unwrap().into();
        drop(bound);
        let (second, manager) = sockets(8, vec![Given { descriptor, name }]);
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
        assert!(listener.kept.is_some_and(|kept| kept.outlives_us()));
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
