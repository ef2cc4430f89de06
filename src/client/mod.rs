//! Who waits for a reply: it is given by one write, once, in its turn, and over UDP kept for who asks again. What decides is in
//! `order.rs`, `fair.rs` and `repeat.rs`; [`Client`] holds what a reply goes out by.

pub mod fair;
pub mod order;
pub mod repeat;

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Somebody who waits for one reply.
#[derive(Debug)]
pub enum Client {
    /// A UNIX connection that carries one command.
    Unix(OwnedFd, Place),
    /// A command of a kept connection.
    Kept(Turn),
    /// The sender of a datagram. In a box, since clients are moved about a good deal.
    Datagram(Box<Asker>),
}

/// One command of a kept connection.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Place of the connection among those of its cluster.
    pub place: usize,
    /// Which of those that have had the place.
    pub serial: u64,
    /// Which of its commands.
    pub number: u64,
}

/// The sender of a datagram, and its cookie.
#[derive(Debug)]
pub struct Asker {
    /// What the reply leaves by.
    pub socket: Arc<UdpSocket>,
    /// Where it goes.
    pub from: SocketAddr,
    /// What it begins with.
    pub cookie: Box<[u8]>,
}

/// How many connections are open: seen by who shows the cluster.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<AtomicUsize>);

/// One connection's share; given back when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Connections {
    /// A place for one more connection.
    pub fn enter(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(&self.0))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
