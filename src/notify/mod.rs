//! Disconnect notifications: an RTPproxy tells us that the media of a session has stopped, and we tell the SIP
//! server, on a UNIX socket that the RTPproxy itself cannot reach. Each cluster with a `<disconnect_notify>` has a
//! relay of its own: a TCP socket, [`Door`], and the thread that serves it, [`Relay`].
//!
//! What a member is asked to send, and how that is read again, is pure and in [`crate::dispatch::rewrite`]. The
//! same relay delivers what the dispatcher says in a member's place when that has been offline for too long.

pub mod lines;
pub mod outlet;
pub mod relay_thread;

use core::sync::atomic::AtomicU64;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::cluster::Cluster;
use crate::config::model;
use crate::daemon::StartError;
use crate::dispatch::rewrite::Notice;
use crate::rim::{Thread, spawn};
use crate::sockets::{BoundPort, Sockets};

/// Notifications from the dispatcher that may wait for the relay thread: several seconds of them, at the rate at
/// which it makes them.
const NOTICES: usize = 1024;

/// What became of notifications, counted without the lock.
#[derive(Debug, Default)]
pub struct Counts {
    /// Written to a socket of the SIP server.
    pub delivered: AtomicU64,
    /// Dropped: not for us to deliver, or its socket took too long to take it.
    pub dropped: AtomicU64,
}

/// A relay's socket that is bound and not served yet.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    port: Arc<BoundPort<TcpListener>>,
}

impl Door {
    /// Binds the relay of a cluster, if it has one. `known` is the same socket if some cluster serves it now: it
    /// is handed on, with what waits in it, and not bound twice.
    ///
    /// # Errors
    /// With the cluster, the address and the reason.
    pub fn open(
        cluster: &model::Cluster,
        sockets: &Sockets,
        known: impl FnOnce(SocketAddr) -> Option<Arc<BoundPort<TcpListener>>>,
    ) -> Result<Option<Self>, StartError> {
        let Some(address) = cluster
            .disconnect_notify
            .as_ref()
            .map(|notify| notify.inbound_address)
        else {
            return Ok(None);
        };
        if let Some(port) = known(address) {
            return Ok(Some(Self { address, port }));
        }
        match sockets.tcp(address).map(Arc::new) {
            Ok(port) => Ok(Some(Self { address, port })),
            Err(error) => Err(StartError::new(
                error.exit(),
                format!(
                    "cluster {}: inbound_address of <disconnect_notify>: {error}",
                    cluster.name
                ),
            )),
        }
    }
}

/// A relay at work.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    port: Arc<BoundPort<TcpListener>>,
    notices: Sender<Notice>,
    /// Closing it ends the thread.
    wake: UnixStream,
    thread: Thread,
}

/// The thread's end of it.
#[derive(Debug)]
pub struct Inbox {
    notices: Receiver<Notice>,
    woken: UnixStream,
}

impl Relay {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(cluster: &Arc<Cluster>, door: Door) -> io::Result<Self> {
        let Door { address, port } = door;
        port.socket.set_nonblocking(true)?;
        let served = Arc::clone(&port);
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (notices, inbox) = bounded(NOTICES);
        let inbox = Inbox {
            notices: inbox,
            woken,
        };
        let shared = Arc::clone(cluster);
        let thread = spawn(format!("relay-{}", cluster.number), move || {
            relay_thread::run(&shared, served, inbox);
        })?;
        Ok(Self {
            address,
            port,
            notices,
            wake,
            thread,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, for another relay that is to take it over.
    pub fn port(&self) -> Arc<BoundPort<TcpListener>> {
        Arc::clone(&self.port)
    }

    /// Hands over what the dispatcher says in a member's place. Says whether there was room.
    pub fn tell(&self, notice: Notice) -> bool {
        let taken = self.notices.try_send(notice).is_ok();
        // A full pipe wakes it as well.
        let _ = (&self.wake).write(&[0]);
        taken
    }

    /// Ends the thread. What waits for a socket of the SIP server is lost.
    pub fn close(self) {
        drop(self.wake);
        self.thread.join();
    }
}
