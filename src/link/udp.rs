//! A member over UDP: a connected socket, so that the kernel keeps out datagrams of others and tells of a
//! refusal, and a thread that reads replies. Sending again is the dispatcher's business.

use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, RwLock};
use socket2::{Domain, Socket, Type};

use super::{Label, REPLY_MAX, Refused, Sink, resolve, source};
use crate::config::model::{Address, Member};
use crate::protocol::cookie::{self, Cookie};
use crate::sync::{Thread, idle, spawn};

/// Kernel buffers for bursts of commands and replies, in bytes; the kernel may give less.
const BUFFER: usize = 4 << 20;
/// Between two tries to look up a name or to open a socket.
const RETRY: Duration = Duration::from_secs(2);

/// The link of one member.
#[derive(Debug)]
pub struct Udp {
    member: Member,
    label: Label,
    socket: RwLock<Option<Arc<UdpSocket>>>,
    stopped: AtomicBool,
    /// For the wait between two tries.
    idle: (Mutex<()>, Condvar),
    thread: Mutex<Option<Thread>>,
}

impl Udp {
    /// Opens the socket at once, or, where the address is a name or there is no route to it, from the reply thread.
    ///
    /// # Errors
    /// When there is no socket or thread to be had, or the source address is not ours.
    pub fn open(member: &Member, label: Label, sink: Arc<dyn Sink>) -> io::Result<Arc<Self>> {
        let socket = match &member.address {
            Address::Ip(_) => match connect(member) {
                Ok(socket) => Some(Arc::new(socket)),
                // No way to it yet, as while a machine starts: one more member that is offline.
                Err(error) if is_unreachable(&error) => None,
                Err(error) => return Err(error),
            },
            _ => None,
        };
        let udp = Arc::new(Self {
            member: member.clone(),
            label,
            socket: RwLock::new(socket),
            stopped: AtomicBool::new(false),
            idle: (Mutex::new(()), Condvar::new()),
            thread: Mutex::new(None),
        });
        let reader = Arc::clone(&udp);
        let name = format!("reply-{}.{}", label.cluster, label.member.index);
        *udp.thread.lock() = Some(spawn(name, move || reader.read(&*sink))?);
        Ok(udp)
    }

    /// Sends one datagram. A full buffer loses it, as the network might: it will be sent again.
    pub(super) fn send(&self, text: &[u8]) -> Result<(), Refused> {
        let datagram = text.strip_suffix(b"\n").unwrap_or(text);
        let guard = self.socket.read();
        let Some(socket) = guard.as_ref() else {
            return Err(Refused);
        };
        match socket.send(datagram) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Refused),
            _ => Ok(()),
        }
    }

    pub(super) fn is_at(&self, address: IpAddr) -> bool {
        let peer = self
            .socket
            .read()
            .as_ref()
            .and_then(|socket| socket.peer_addr().ok());
        peer.is_some_and(|peer| peer.ip() == address)
    }

    /// Looks the name up again, if it is one.
    pub(super) fn refresh(&self) {
        if matches!(self.member.address, Address::Host(..)) {
            self.shut();
        }
    }

    pub(super) fn close(&self) {
        self.stopped.store(true, Ordering::Release);
        self.shut();
        {
            let _guard = self.idle.0.lock();
            self.idle.1.notify_all();
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }

    /// Wakes the reader out of its socket.
    fn shut(&self) {
        if let Some(socket) = self.socket.read().as_ref() {
            // Reads end at once; an error means that there is nothing to end.
            rustix::net::shutdown(socket, rustix::net::Shutdown::Both).ok();
        }
    }

    /// The reply thread: opens, reads until the socket is shut, opens again.
    fn read(&self, sink: &dyn Sink) {
        let mut told = false;
        while !self.stopped.load(Ordering::Acquire) {
            let open = self.socket.read().clone();
            let Some(socket) = open else {
                match connect(&self.member) {
                    Ok(socket) => {
                        *self.socket.write() = Some(Arc::new(socket));
                        told = false;
                    }
                    Err(error) => {
                        if !core::mem::replace(&mut told, true) {
                            log::warn!("member {} ({}): {error}", self.member.name, self.member.address);
                        }
                        self.wait();
                    }
                }
                continue;
            };
            self.read_socket(&socket, sink);
            if matches!(self.member.address, Address::Host(..)) {
                *self.socket.write() = None;
            }
        }
    }

    fn wait(&self) {
        let mut guard = self.idle.0.lock();
        if !self.stopped.load(Ordering::Acquire) {
            idle(|| self.idle.1.wait_for(&mut guard, RETRY));
        }
    }

    fn read_socket(&self, socket: &UdpSocket, sink: &dyn Sink) {
        let from = self.label.member;
        // One byte more than may come, so that a datagram that was cut off is seen as too long.
        let mut buffer = [0; REPLY_MAX + 1];
        loop {
            match idle(|| socket.recv(&mut buffer)) {
                // What `shutdown` makes of a read; an empty datagram is nobody's reply either.
                Ok(0) if self.is_shut(socket) => return,
                Ok(0) => sink.foreign(from),
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    let split = cookie::split(datagram);
                    match split.and_then(|(cookie, text)| Some((Cookie::parse(cookie)?, text))) {
                        // Too long to be a reply: an empty text is judged as garbage.
                        Some((cookie, _)) if length > REPLY_MAX => sink.reply(from, cookie, b""),
                        Some((cookie, text)) => sink.reply(from, cookie, text.trim_ascii()),
                        None => sink.foreign(from),
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::ConnectionRefused => sink.refused(from),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                    // Unreachable networks and the like: the probes will see that nothing comes back.
                    _ => {
                        log::debug!("member {} ({}): {error}", self.member.name, self.member.address);
                        if self.is_shut(socket) {
                            return;
                        }
                    }
                },
            }
        }
    }

    /// Whether the socket was shut down rather than an empty datagram read.
    fn is_shut(&self, socket: &UdpSocket) -> bool {
        let zero = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
        self.stopped.load(Ordering::Acquire)
            || rustix::event::poll(&mut fds, Some(&zero)).is_ok()
                && fds
                    .first()
                    .is_some_and(|fd| fd.revents().contains(rustix::event::PollFlags::HUP))
    }
}

/// Whether the network may let us through another time.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkDown
    )
}

fn connect(member: &Member) -> io::Result<UdpSocket> {
    let to = resolve(member.protocol, &member.address)?;
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
    // Best effort: the system may allow less.
    socket.set_recv_buffer_size(BUFFER).ok();
    socket.set_send_buffer_size(BUFFER).ok();
    socket.bind(&source(member.protocol, member.cmd_out_address).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Name, Protocol, Status};
    use crate::dispatch::session::MemberId;

    /// Nobody is told.
    struct Nobody;

    impl Sink for Nobody {
        fn reply(&self, _: MemberId, _: Cookie, _: &[u8]) {}
        fn foreign(&self, _: MemberId) {}
        fn refused(&self, _: MemberId) {}
        fn broken(&self, _: MemberId, _: Cookie) {}
    }

    fn open(address: &str, source: Option<&str>) -> io::Result<Arc<Udp>> {
        let member = Member {
            name: Name::new("R1").unwrap(),
            protocol: Protocol::Udp6,
            address: Address::Ip(address.parse().unwrap()),
            weight: 1,
            capacity: 1,
            status: Status::Active,
            wan_address: None,
            lan_address: None,
            cmd_out_address: source.map(|source| source.parse().unwrap()),
        };
        let label = Label {
            cluster: 0,
            member: MemberId {
                index: 0,
                generation: 0,
            },
        };
        Udp::open(&member, label, Arc::new(Nobody))
    }

    #[test]
    fn a_member_to_which_there_is_no_route_yet_keeps_nobody_from_starting() {
        // The network of documentation: routed where there is IPv6, unreachable where there is none.
        open("[2001:db8::1]:22222", None).unwrap().close();
        assert!(open("[2001:db8::1]:22222", Some("2001:db8::2")).is_err());
    }
}
