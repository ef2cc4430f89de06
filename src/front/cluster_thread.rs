//! The cluster thread: takes commands from the control socket, decides, hands over. It waits for clients, never for a
//! member: what a member answers goes to the client from the thread that reads it. And it never waits for one client:
//! those who are slow, or idle, are watched by the slow thread.
//!
//! | control socket | in | a client is |
//! |---|---|---|
//! | UNIX | `unix.rs` | a connection that carries one command |
//! | CUNIX, TCP, TCP6 | `stream.rs` | a kept connection: commands by the line, replies in their order |
//! | UDP, UDP6 | `udp.rs` | the sender of a datagram, and its cookie |

use core::time::Duration;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;

use super::client::Client;
use super::gate::PAUSE;
use super::handover::{Case, Returned, SlowClients};
use super::{stream, udp, unix};
use crate::cluster::{Cluster, Out};
use crate::config::model::Name;
use crate::dispatch::rewrite::Origin;
use crate::rim::idle;

/// A control socket that is bound.
#[derive(Debug)]
pub enum Door {
    /// UNIX, one command a connection.
    Unix(UnixListener, Arc<SlowClients>),
    /// CUNIX, TCP and TCP6.
    Kept(OwnedFd, Arc<SlowClients>, Returned),
    /// UDP and UDP6.
    Udp(UdpSocket),
}

/// Commands of a burst, behind its first one, that are decided before what they came to is carried out: a burst wakes
/// each member once and not once a command, and the first of them waits some 100 us at most.
const SETTLE_AFTER: usize = 16;

/// Takes commands, and carries out together what several have come to.
pub(super) struct Burst<'a> {
    cluster: &'a Cluster,
    out: Out,
    /// Whether a command of this burst has been carried out: the first one waits for nobody.
    begun: bool,
    /// Commands decided since `out` was last carried out.
    undone: usize,
}

impl<'a> Burst<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            out: Out::default(),
            begun: false,
            undone: 0,
        }
    }

    /// One command of a client, less its cookie.
    pub(super) fn command(&mut self, text: &[u8], origin: Origin, client: Client) {
        self.cluster.trace(format_args!("command"), text);
        self.cluster.decide(&mut self.out, |now, core, out| {
            core.command(now, text, origin, client, out);
        });
        self.undone += 1;
        if !self.begun || self.undone >= SETTLE_AFTER {
            self.settle();
            self.begun = true;
        }
    }

    /// Ends the burst: sends what its commands have come to.
    pub(super) fn settle(&mut self) {
        self.begun = false;
        if self.undone > 0 {
            self.undone = 0;
            self.cluster.settle(&mut self.out);
        }
    }
}

/// Serves the control socket until the other end of `stop` is closed. What is in flight then is answered all the same.
pub fn run(cluster: &Arc<Cluster>, door: Door, stop: &UnixStream) {
    let slow = match door {
        Door::Unix(listener, slow) => {
            unix::run(cluster, listener, Arc::clone(&slow), stop);
            slow
        }
        Door::Kept(listener, slow, returned) => {
            stream::run(cluster, listener, &slow, &returned, stop);
            slow
        }
        Door::Udp(socket) => return udp::run(cluster, &udp::Door::new(socket), stop),
    };
    slow.take(Case::Closing);
}

/// Waits until one of `fds` is ready, `patience` at most.
pub(super) fn wait(cluster: &Name, fds: &mut [PollFd<'_>], patience: Option<Duration>) {
    match idle(|| poll(fds, patience.map(timespec).as_ref())) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => {
            log::error!("cluster {cluster}: poll: {error}");
            std::thread::sleep(PAUSE);
        }
    }
}

/// A span as poll(2) takes it, a little longer rather than shorter.
fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}
