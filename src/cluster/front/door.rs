//! A control socket that is bound: what the loop listens on, and what goes with it when the last cluster that serves it
//! closes it.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::config::model::Protocol;
use crate::sockets::Kept;
use crate::sockets::listener::SocketFile;

/// The socket itself.
#[derive(Debug)]
pub enum Listens {
    /// Connections, by path.
    Unix(UnixListener),
    /// Connections, by port.
    Tcp(TcpListener),
    /// Datagrams.
    Udp(Arc<UdpSocket>),
}

/// What goes with it: its file, unlinked when it is dropped; or the one who keeps a port open beside us.
#[derive(Debug)]
pub enum Held {
    /// Its file.
    File(SocketFile),
    /// Who keeps the port.
    Port(Kept),
}

/// A bound control socket. Whoever serves it, and whoever may hand it on, holds one of these.
#[derive(Debug, Clone)]
pub struct Door {
    /// The socket.
    pub listens: Arc<Listens>,
    /// Whether its connections carry more than one command.
    pub keeps: bool,
    held: Arc<Held>,
}

impl Door {
    /// # Errors
    /// When the socket cannot be made one that is not waited for.
    pub fn new(listens: Listens, protocol: Protocol, held: Held) -> io::Result<Self> {
        match &listens {
            Listens::Unix(listener) => listener.set_nonblocking(true),
            Listens::Tcp(listener) => listener.set_nonblocking(true),
            Listens::Udp(socket) => socket.set_nonblocking(true),
        }?;
        let listens = Arc::new(listens);
        let keeper = match &held {
            Held::File(file) => file.keeper(),
            Held::Port(kept) => Some(kept),
        };
        if let Some(kept) = keeper {
            let shared: Weak<Listens> = Arc::downgrade(&listens);
            kept.share(shared);
        }
        Ok(Self {
            listens,
            keeps: protocol != Protocol::Unix,
            held: Arc::new(held),
        })
    }

    /// The same socket, for a cluster that is to serve it over `protocol`.
    #[must_use]
    pub fn over(&self, protocol: Protocol) -> Self {
        Self {
            keeps: protocol != Protocol::Unix,
            ..self.clone()
        }
    }

    /// Whether it is where it was bound: its file may have been removed.
    pub fn is_there(&self) -> bool {
        match &*self.held {
            Held::File(file) => file.is_there(),
            Held::Port(_) => true,
        }
    }

    /// The path of its file, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match &*self.held {
            Held::File(file) => Some(file.path()),
            Held::Port(_) => None,
        }
    }
}

impl AsFd for Listens {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listens.as_fd()
    }
}
