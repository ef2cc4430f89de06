//! A cluster with its control socket and its threads: started, moved to another socket, closed.

use std::io;
use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use core::sync::atomic::{AtomicBool, Ordering};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::config::model::{self, Address, Protocol};
use crate::daemon::options::Options;
use crate::daemon::sockets::{BoundPort, Kept, Sockets};
use crate::daemon::{StartError, rights};
use crate::front::listener::{BoundUnix, SocketFile};
use crate::front::slow_thread::{self, SlowClients};
use crate::front::{cluster_thread, udp};
use crate::health::health_thread::Message;
use crate::link::{resolve, timer_thread};
use crate::notify;
use crate::server::upkeep_thread::Upkeep;
use crate::sync::{Thread, spawn};

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
    Udp(UdpSocket),
}

impl Socket {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
            Self::Udp(socket) => socket.try_clone().map(Self::Udp),
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
        kept: Option<Kept>,
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
        match (&cluster.address, cluster.protocol) {
            (Address::Path(path), Protocol::Unix) => {
                let BoundUnix { listener, file } = sockets.unix(path, &rights)?;
                Ok(Self {
                    socket: Socket::Unix(listener),
                    held: Arc::new(Held::File(file)),
                })
            }
            (address, protocol @ (Protocol::Udp | Protocol::Udp6)) => {
                let found =
                    resolve(protocol, address).map_err(|error| told(format!("{address}: {error}")))?;
                let BoundPort { socket, kept } = sockets.udp(found)?;
                Ok(Self {
                    socket: Socket::Udp(socket),
                    held: Arc::new(Held::Port { kept }),
                })
            }
            (address, protocol) => Err(told(format!(
                "{address}: a control socket over {} is not supported by this version; want UNIX",
                protocol.as_str()
            ))),
        }
    }
}

/// The threads that serve one control socket. They wait from [`Front::start`] to [`Front::open`], so that nothing can
/// go wrong any more when a reload hands sockets from one cluster to another.
#[derive(Debug)]
pub(super) struct Front {
    /// Closing it ends the cluster thread, which ends the slow thread.
    stop: UnixStream,
    /// The cluster thread waits for a word, or for its end.
    gate: Sender<()>,
    threads: Vec<Thread>,
    /// The same socket once more, to be handed on.
    socket: Socket,
    held: Arc<Held>,
}

/// A cluster at work.
#[derive(Debug)]
pub(super) struct Running {
    /// The cluster.
    pub(super) cluster: Arc<Cluster>,
    /// Whether it closes when its members are gone.
    pub(super) draining: AtomicBool,
    front: Mutex<Option<Front>>,
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

    /// The control socket for another cluster to serve, while this one still does.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub(super) fn door_again(&self) -> io::Result<Door> {
        let front = self.front.lock();
        let front = front.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Door {
            socket: front.socket.try_clone()?,
            held: Arc::clone(&front.held),
        })
    }

    /// The path of its control socket, if that is a file.
    pub(super) fn socket_path(&self) -> Option<PathBuf> {
        match &*self.front.lock().as_ref()?.held {
            Held::File(file) => Some(file.path().to_owned()),
            Held::Port { .. } => None,
        }
    }

    /// Takes no further command.
    pub(super) fn stop_accepting(&self) {
        let front = self.front.lock().take();
        if let Some(front) = front {
            front.close();
        }
    }

    /// Ends all of it: what is still in flight is answered with an error of ours.
    pub(super) fn close(&self) {
        self.stop_accepting();
        self.cluster.close();
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
        let (stop, stopped) = UnixStream::pair()?;
        let (gate, opened) = bounded(1);
        let Door { socket, held } = door;
        let mut front = Self {
            stop,
            gate,
            threads: Vec::new(),
            socket: socket.try_clone()?,
            held,
        };
        match front.spawn(cluster, socket, stopped, opened) {
            Ok(()) => Ok(front),
            Err(error) => {
                front.close();
                Err(error)
            }
        }
    }

    /// `opened` is waited for by the thread that takes commands; the others have nothing to do before it.
    fn spawn(
        &mut self,
        cluster: &Arc<Cluster>,
        socket: Socket,
        stopped: UnixStream,
        opened: Receiver<()>,
    ) -> io::Result<()> {
        let number = cluster.number;
        let shared = Arc::clone(cluster);
        match socket {
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let (slow, inbox) = SlowClients::pair()?;
                self.threads.push(spawn(format!("cluster-{number}"), move || {
                    if opened.recv().is_ok() {
                        cluster_thread::run(&shared, listener, slow, &stopped);
                    }
                })?);
                let shared = Arc::clone(cluster);
                self.threads.push(spawn(format!("slow-{number}"), move || {
                    slow_thread::run(&shared, &inbox);
                })?);
            }
            Socket::Udp(socket) => {
                let door = udp::Door::new(socket);
                self.threads.push(spawn(format!("cluster-{number}"), move || {
                    if opened.recv().is_ok() {
                        udp::run(&shared, &door, &stopped);
                    }
                })?);
            }
        }
        Ok(())
    }

    /// Takes commands from now on.
    fn open(&self) {
        // There is room for one word, and no other is ever sent.
        self.gate.try_send(()).ok();
    }

    pub(super) fn close(self) {
        drop((self.stop, self.gate));
        for thread in self.threads {
            thread.join();
        }
    }
}
