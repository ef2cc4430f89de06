//! A cluster with its control socket and its threads: started, moved to another socket, closed.

use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use core::sync::atomic::{AtomicBool, Ordering};
use crossbeam_channel::Sender;
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
use crate::sync::{Thread, spawn};

/// A bound control socket that nobody serves yet.
#[derive(Debug)]
pub(super) enum Door {
    Unix(BoundUnix),
    Udp(BoundPort<UdpSocket>),
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
            (Address::Path(path), Protocol::Unix) => Ok(Self::Unix(sockets.unix(path, &rights)?)),
            (address, protocol @ (Protocol::Udp | Protocol::Udp6)) => {
                let found =
                    resolve(protocol, address).map_err(|error| told(format!("{address}: {error}")))?;
                Ok(Self::Udp(sockets.udp(found)?))
            }
            (address, protocol) => Err(told(format!(
                "{address}: a control socket over {} is not supported by this version; want UNIX",
                protocol.as_str()
            ))),
        }
    }
}

/// The threads that serve one control socket.
#[derive(Debug)]
struct Front {
    /// Closing it ends the cluster thread, which ends the slow thread.
    stop: UnixStream,
    threads: Vec<Thread>,
    /// What else goes with the socket when it is closed.
    _held: Held,
}

/// The file of a socket, unlinked when it is dropped; or the one who keeps a port open beside us.
#[derive(Debug)]
#[expect(dead_code, reason = "held to be dropped")]
enum Held {
    File(SocketFile),
    Port(Option<Kept>),
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
    /// Starts the threads of a cluster and adds its members; nobody is served yet.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub(super) fn start(number: usize, config: &model::Cluster, health: Sender<Message>) -> io::Result<Self> {
        let (cluster, posts) = Cluster::new(number, config, health);
        let shared = Arc::clone(&cluster);
        let timer = spawn(format!("timer-{number}"), move || {
            timer_thread::run(&shared, &posts);
        })?;
        for member in &config.members {
            cluster.add_member(member.clone())?;
        }
        Ok(Self {
            cluster,
            draining: AtomicBool::new(false),
            front: Mutex::new(None),
            timer: Mutex::new(Some(timer)),
        })
    }

    /// Serves this control socket from now on, and none that it served before.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors; then the old one is served on.
    pub(super) fn serve_at(&self, door: Door) -> io::Result<()> {
        let front = serve(&self.cluster, door)?;
        let old = self.front.lock().replace(front);
        if let Some(old) = old {
            old.close();
        }
        Ok(())
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
    fn close(self) {
        drop(self.stop);
        for thread in self.threads {
            thread.join();
        }
    }
}

fn serve(cluster: &Arc<Cluster>, door: Door) -> io::Result<Front> {
    let (stop, stopped) = UnixStream::pair()?;
    let number = cluster.number;
    let mut threads = Vec::new();
    let shared = Arc::clone(cluster);
    let held = match door {
        Door::Unix(BoundUnix { listener, file }) => {
            listener.set_nonblocking(true)?;
            let (slow, inbox) = SlowClients::pair()?;
            threads.push(spawn(format!("cluster-{number}"), move || {
                cluster_thread::run(&shared, listener, slow, &stopped);
            })?);
            let shared = Arc::clone(cluster);
            threads.push(spawn(format!("slow-{number}"), move || {
                slow_thread::run(&shared, &inbox);
            })?);
            Held::File(file)
        }
        Door::Udp(BoundPort { socket, kept }) => {
            let door = udp::Door::new(socket);
            threads.push(spawn(format!("cluster-{number}"), move || {
                udp::run(&shared, &door, &stopped);
            })?);
            Held::Port(kept)
        }
    };
    Ok(Front {
        stop,
        threads,
        _held: held,
    })
}
