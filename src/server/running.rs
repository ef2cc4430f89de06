//! A cluster with its control socket and its threads: started, moved to another socket, closed.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use core::sync::atomic::{AtomicBool, Ordering};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::config::model::{self, Address, Protocol};
use crate::daemon::options::Options;
use crate::daemon::{StartError, rights};
use crate::front::cluster_thread;
use crate::front::handover::{SlowClients, WayBack};
use crate::front::slow_thread;
use crate::health::health_thread::Message;
use crate::link::{resolve, timer_thread};
use crate::notify;
use crate::rim::{Thread, spawn};
use crate::server::upkeep_thread::Upkeep;
use crate::sockets::listener::{BoundUnix, SocketFile};
use crate::sockets::{BoundPort, Kept, Sockets};

/// A bound control socket that nobody serves yet.
#[derive(Debug)]
pub(super) struct Door {
    socket: Socket,
    held: Arc<Held>,
}

/// The socket itself.
#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Cunix(UnixListener),
    Udp(UdpSocket),
    Tcp(TcpListener),
}

impl Socket {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
            Self::Cunix(listener) => listener.try_clone().map(Self::Cunix),
            Self::Udp(socket) => socket.try_clone().map(Self::Udp),
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
        }
    }
}

/// What goes with a socket when the last cluster that serves it closes it: its file, unlinked when it is dropped; or
/// the one who keeps a port open beside us.
#[derive(Debug)]
enum Held {
    File(SocketFile),
    Port {
        #[expect(dead_code, reason = "held to be dropped")]
        kept: Kept,
    },
}

impl Door {
    /// Binds the control socket of a cluster.
    ///
    /// # Errors
    /// With the path or address, the reason, and the exit status that fits.
    pub(super) fn open(
        cluster: &model::Cluster,
        options: &Options,
        sockets: &Sockets,
    ) -> Result<Self, StartError> {
        let told = |message: String| StartError::new(1, format!("cluster {}: {message}", cluster.name));
        let rights = rights::of_control_socket(options, &cluster.socket).map_err(told)?;
        if let Address::Path(path) = &cluster.address {
            let BoundUnix { listener, file } = sockets.unix(path, &rights)?;
            let socket = match cluster.protocol {
                Protocol::Cunix => Socket::Cunix(listener),
                _ => Socket::Unix(listener),
            };
            return Ok(Self {
                socket,
                held: Arc::new(Held::File(file)),
            });
        }
        let address = resolve(cluster.protocol, &cluster.address)
            .map_err(|error| told(format!("{}: {error}", cluster.address)))?;
        let (socket, kept) = if cluster.protocol.is_datagram() {
            let BoundPort { socket, kept } = sockets.udp(address)?;
            (Socket::Udp(socket), kept)
        } else {
            let BoundPort { socket, kept } = sockets.tcp(address)?;
            (Socket::Tcp(socket), kept)
        };
        Ok(Self {
            socket,
            held: Arc::new(Held::Port { kept }),
        })
    }
}

/// The threads that serve one control socket. They wait from [`Front::start`] to [`Front::open`], so that nothing can
/// go wrong any more when a reload hands sockets from one cluster to another.
#[derive(Debug)]
pub(super) struct Front {
    /// The cluster thread, until it is stopped.
    cluster: Option<Stoppable>,
    /// The cluster thread waits for a word, or for its end.
    gate: Option<Sender<()>>,
    /// The slow thread, where there is one. It ends by itself when the cluster thread has ended and its last client
    /// is served.
    slow: Option<Stoppable>,
    /// The same socket once more, to be handed on, and what goes with it.
    socket: Option<(Socket, Arc<Held>)>,
}

/// A thread and what ends it when it is closed.
#[derive(Debug)]
struct Stoppable {
    stop: UnixStream,
    thread: Thread,
}

impl Stoppable {
    fn end(self) {
        drop(self.stop);
        self.thread.join();
    }
}

/// A cluster at work.
#[derive(Debug)]
pub(super) struct Running {
    /// The cluster.
    pub(super) cluster: Arc<Cluster>,
    /// Whether it closes when its members are gone.
    pub(super) draining: AtomicBool,
    front: Mutex<Option<Front>>,
    /// Those that take no commands any more, as long as somebody there waits for a reply.
    leaving: Mutex<Vec<Front>>,
    timer: Mutex<Option<Thread>>,
}

impl Running {
    /// A cluster with its threads and its members, all at work, but taking no command before [`Running::open`].
    ///
    /// # Errors
    /// When the system has no more threads or descriptors, or an address is not one of this machine.
    pub(super) fn start(
        number: usize,
        config: &model::Cluster,
        (door, relay): (Door, Option<notify::Door>),
        health: Sender<Message>,
        upkeep: Upkeep,
    ) -> io::Result<Self> {
        let (cluster, posts) = Cluster::new(number, config, health, upkeep);
        let shared = Arc::clone(&cluster);
        let timer = spawn(format!("timer-{number}"), move || {
            timer_thread::run(&shared, &posts);
        })?;
        let running = Self {
            cluster,
            draining: AtomicBool::new(false),
            front: Mutex::default(),
            leaving: Mutex::default(),
            timer: Mutex::new(Some(timer)),
        };
        match running.fill(config, door, relay) {
            Ok(()) => Ok(running),
            Err(error) => {
                running.close();
                Err(error)
            }
        }
    }

    fn fill(&self, config: &model::Cluster, door: Door, relay: Option<notify::Door>) -> io::Result<()> {
        let cluster = &self.cluster;
        for (member, id) in config.members.iter().zip(cluster.places(config.members.len())?) {
            let link = cluster.open_link(member, id).map_err(|error| {
                let (name, address) = (&member.name, &member.address);
                io::Error::new(error.kind(), format!("member {name} ({address}): {error}"))
            })?;
            cluster.add_member(id, member.clone(), link);
        }
        cluster.put_relay(cluster.start_relay(relay)?);
        *self.front.lock() = Some(Front::start(cluster, door)?);
        Ok(())
    }

    /// Takes commands from now on.
    pub(super) fn open(&self) {
        if let Some(front) = self.front.lock().as_ref() {
            front.open();
        }
    }

    /// Threads for another control socket, for [`Running::move_to`].
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub(super) fn front_for(&self, door: Door) -> io::Result<Front> {
        Front::start(&self.cluster, door)
    }

    /// Serves another control socket from now on; [`Running::stop_accepting`] has ended the old one.
    pub(super) fn move_to(&self, front: Front) {
        front.open();
        *self.front.lock() = Some(front);
    }

    /// The control socket for another cluster, or over another protocol, while it is still served here.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub(super) fn door_again(&self, protocol: Protocol) -> io::Result<Door> {
        let front = self.front.lock();
        let socket = front.as_ref().and_then(|front| front.socket.as_ref());
        let (socket, held) = socket.ok_or(io::ErrorKind::NotConnected)?;
        Ok(Door {
            socket: match (socket.try_clone()?, protocol) {
                (Socket::Unix(listener), Protocol::Cunix) => Socket::Cunix(listener),
                (Socket::Cunix(listener), Protocol::Unix) => Socket::Unix(listener),
                (socket, _) => socket,
            },
            held: Arc::clone(held),
        })
    }

    /// Whether its control socket is where it was bound: a file of ours may have been removed.
    pub(super) fn socket_is_there(&self) -> bool {
        let front = self.front.lock();
        let socket = front.as_ref().and_then(|front| front.socket.as_ref());
        socket.is_none_or(|(_, held)| match &**held {
            Held::File(file) => file.is_there(),
            Held::Port { .. } => true,
        })
    }

    /// The path of its control socket, if that is a file.
    pub(super) fn socket_path(&self) -> Option<PathBuf> {
        let front = self.front.lock();
        let (_, held) = front.as_ref()?.socket.as_ref()?;
        match &**held {
            Held::File(file) => Some(file.path().to_owned()),
            Held::Port { .. } => None,
        }
    }

    /// Takes no further command. What is in flight is answered; the threads that do that are waited for later.
    pub(super) fn stop_accepting(&self) {
        let front = self.front.lock().take();
        let Some(mut front) = front else { return };
        front.stop();
        let mut leaving = self.leaving.lock();
        let (ended, mut going) = leaving.drain(..).partition::<Vec<_>, _>(Front::has_ended);
        going.push(front);
        *leaving = going;
        drop(leaving);
        for front in ended {
            front.close();
        }
    }

    /// Ends all of it: what is still in flight is answered with an error of ours.
    pub(super) fn close(&self) {
        self.stop_accepting();
        self.cluster.close();
        let leaving = core::mem::take(&mut *self.leaving.lock());
        for front in leaving {
            front.close();
        }
        let timer = self.timer.lock().take();
        if let Some(timer) = timer {
            timer.join();
        }
    }

    /// Whether it is being deleted.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

impl Front {
    /// Starts the threads of a socket.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    fn start(cluster: &Arc<Cluster>, door: Door) -> io::Result<Self> {
        let (gate, opened) = bounded(1);
        let Door { socket, held } = door;
        let mut front = Self {
            cluster: None,
            gate: Some(gate),
            slow: None,
            socket: Some((socket.try_clone()?, held)),
        };
        match front.spawn(cluster, socket, opened) {
            Ok(()) => Ok(front),
            Err(error) => {
                front.close();
                Err(error)
            }
        }
    }

    /// `opened` is waited for by the thread that takes commands; the others have nothing to do before it.
    fn spawn(&mut self, cluster: &Arc<Cluster>, socket: Socket, opened: Receiver<()>) -> io::Result<()> {
        let door = match socket {
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                cluster_thread::Door::Unix(listener, self.spawn_slow(cluster, None)?)
            }
            Socket::Cunix(listener) => {
                listener.set_nonblocking(true)?;
                let (back, returned) = WayBack::pair()?;
                let slow = self.spawn_slow(cluster, Some(back))?;
                cluster_thread::Door::Kept(listener.into(), slow, returned)
            }
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let (back, returned) = WayBack::pair()?;
                let slow = self.spawn_slow(cluster, Some(back))?;
                cluster_thread::Door::Kept(listener.into(), slow, returned)
            }
            Socket::Udp(socket) => cluster_thread::Door::Udp(socket),
        };
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::clone(cluster);
        let thread = spawn(format!("cluster-{}", cluster.number), move || {
            if opened.recv().is_ok() {
                cluster_thread::run(&shared, door, &stopped);
            }
        })?;
        self.cluster = Some(Stoppable { stop, thread });
        Ok(())
    }

    /// The thread of slow clients.
    fn spawn_slow(&mut self, cluster: &Arc<Cluster>, back: Option<WayBack>) -> io::Result<Arc<SlowClients>> {
        let (clients, inbox) = SlowClients::pair()?;
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::clone(cluster);
        let thread = spawn(format!("slow-{}", cluster.number), move || {
            slow_thread::run(&shared, &inbox, back, &stopped);
        })?;
        self.slow = Some(Stoppable { stop, thread });
        Ok(clients)
    }

    /// Takes commands from now on.
    fn open(&self) {
        // There is room for one word, and no other is ever sent.
        if let Some(gate) = &self.gate {
            gate.try_send(()).ok();
        }
    }

    /// Takes no further command, and closes the socket.
    fn stop(&mut self) {
        self.gate = None;
        if let Some(cluster) = self.cluster.take() {
            cluster.end();
        }
        self.socket = None;
    }

    /// Whether its threads have ended by themselves.
    fn has_ended(&self) -> bool {
        self.cluster.is_none() && self.slow.as_ref().is_none_or(|slow| slow.thread.is_finished())
    }

    /// Ends all of it.
    pub(super) fn close(mut self) {
        self.stop();
        if let Some(slow) = self.slow.take() {
            slow.end();
        }
    }
}
