//! A member over UDP: a connected socket, so that the kernel keeps out datagrams of others and tells of a
//! refusal, and a thread that reads replies. Sending again is the dispatcher's business.
//!
//! What others send to our port goes to a second socket that is not connected. It is looked at now and then, to be
//! counted and for nothing else: the kernel gives it nothing that comes from the member.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::net::UdpSocket;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Condvar, Mutex, RwLock};
use rustix::net::RecvFlags;
use socket2::{Domain, Socket, Type};

use super::resolver_thread::Resolver;
use super::{Label, REPLY_MAX, Refused, Sink, bind_source};
use crate::config::model::{Address, Member};
use crate::protocol::cookie::{self, Cookie};
use crate::rim::{Thread, idle, now, spawn};

/// Kernel buffers for bursts of commands and replies, in bytes; the kernel may give less.
const BUFFER: usize = 4 << 20;
/// Room for what strangers send, in bytes. More of it is lost, and not counted.
const STRAY_BUFFER: usize = 64 << 10;
/// Between two looks at it, while replies come: the member is probed as often.
const STRAY_LOOK: Duration = Duration::from_secs(1);
/// Datagrams of strangers counted at one look.
const STRAYS: usize = 256;
/// Between two tries to open the socket of a member that cannot be reached from here, as without a route.
const RETRY: Duration = Duration::from_secs(2);

/// The link of one member.
#[derive(Debug)]
pub struct Udp {
    member: Member,
    label: Label,
    /// What commands are sent with.
    sockets: RwLock<Option<Arc<Sockets>>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Where the address is a name.
    resolver: OnceLock<Resolver>,
    thread: Mutex<Option<Thread>>,
}

/// Of one address of the member.
#[derive(Debug)]
struct Sockets {
    connected: UdpSocket,
    /// On the same port; nothing where the system gives none.
    strays: Option<Socket>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the member is, when a socket to it is still to be opened.
    wanted: Option<SocketAddr>,
    /// Where it was last connected to.
    last: Option<SocketAddr>,
    stopped: bool,
}

impl Udp {
    /// Opens the socket at once, or, where the address is a name, when that has been looked up.
    ///
    /// # Errors
    /// When there is no socket or thread to be had, or the source address is not ours.
    pub fn open(member: &Member, label: Label, sink: Arc<dyn Sink>) -> io::Result<Arc<Self>> {
        drop(bind(member)?);
        let wanted = match &member.address {
            Address::Ip(address) => Some(*address),
            _ => None,
        };
        let udp = Arc::new(Self {
            member: member.clone(),
            label,
            sockets: RwLock::new(None),
            state: Mutex::new(State {
                wanted,
                ..State::default()
            }),
            changed: Condvar::new(),
            resolver: OnceLock::new(),
            thread: Mutex::new(None),
        });
        udp.open_wanted(&mut false);
        if let Address::Host(..) = member.address {
            let link: Weak<Self> = Arc::downgrade(&udp);
            let resolver = Resolver::start(member, label, move |address| {
                if let Some(udp) = link.upgrade() {
                    udp.move_to(address);
                }
            })?;
            // It is set here alone.
            udp.resolver.set(resolver).ok();
        }
        let reader = Arc::clone(&udp);
        let name = format!("reply-{}.{}", label.cluster, label.member.index);
        *udp.thread.lock() = Some(spawn(name, move || reader.read(&*sink))?);
        Ok(udp)
    }

    /// Sends one datagram. A full buffer loses it, as the network might: it will be sent again.
    pub(super) fn send(&self, text: &[u8]) -> Result<(), Refused> {
        let datagram = text.strip_suffix(b"\n").unwrap_or(text);
        let guard = self.sockets.read();
        let Some(socket) = guard.as_ref().map(|sockets| &sockets.connected) else {
            return Err(Refused);
        };
        let refused = |sent: io::Result<usize>| {
            sent.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        // An earlier datagram's refusal keeps this one from being sent, and says nothing of it: the member may be
        // back. If it is not, its own refusal follows.
        if refused(socket.send(datagram)) && refused(socket.send(datagram)) {
            return Err(Refused);
        }
        Ok(())
    }

    pub(super) fn is_at(&self, address: IpAddr) -> bool {
        match &self.member.address {
            Address::Ip(member) => member.ip() == address,
            _ => self
                .resolver
                .get()
                .is_some_and(|resolver| resolver.is_at(address)),
        }
    }

    /// Looks the name up again, if it is one.
    pub(super) fn refresh(&self) {
        if let Some(resolver) = self.resolver.get() {
            resolver.refresh();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
        self.shut();
        if let Some(resolver) = self.resolver.get() {
            resolver.stop();
        }
    }

    pub(super) fn close(&self) {
        self.stop();
        if let Some(resolver) = self.resolver.get() {
            resolver.close();
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }

    /// The name has another address: commands go there from now on.
    fn move_to(&self, address: SocketAddr) {
        self.state.lock().wanted = Some(address);
        self.changed.notify_all();
        self.shut();
    }

    /// Wakes the reader out of its socket.
    fn shut(&self) {
        if let Some(sockets) = self.sockets.read().as_ref() {
            // Reads end at once; an error means that there is nothing to end.
            rustix::net::shutdown(&sockets.connected, rustix::net::Shutdown::Both).ok();
        }
    }

    /// The reply thread: opens, reads until the socket is shut, opens again.
    fn read(&self, sink: &dyn Sink) {
        let mut told = false;
        while !self.state.lock().stopped {
            let open = self.sockets.read().clone();
            if let Some(sockets) = open {
                self.read_sockets(&sockets, sink);
                // It was shut: for another address, or too late, when the other socket was there already.
                let mut state = self.state.lock();
                if state.wanted.is_none() {
                    state.wanted = state.last;
                }
                *self.sockets.write() = None;
            } else {
                self.open_wanted(&mut told);
                self.wait();
            }
        }
    }

    /// Opens a socket to where the member is. When that fails it is told once and tried again later.
    fn open_wanted(&self, told: &mut bool) {
        let Some(address) = self.state.lock().wanted else {
            return;
        };
        match connect(&self.member, address) {
            Ok(sockets) => {
                let mut state = self.state.lock();
                if state.wanted == Some(address) {
                    state.wanted = None;
                    state.last = Some(address);
                    *self.sockets.write() = Some(Arc::new(sockets));
                }
                *told = false;
            }
            Err(error) => {
                if !core::mem::replace(told, true) {
                    log::warn!("member {} ({}): {error}", self.member.name, self.member.address);
                }
            }
        }
    }

    /// Waits until there may be a socket.
    fn wait(&self) {
        let mut state = self.state.lock();
        if state.stopped || self.sockets.read().is_some() {
            return;
        }
        if state.wanted.is_some() {
            idle(|| self.changed.wait_for(&mut state, RETRY));
        } else {
            idle(|| self.changed.wait(&mut state));
        }
    }

    fn read_sockets(&self, sockets: &Sockets, sink: &dyn Sink) {
        let from = self.label.member;
        let socket = &sockets.connected;
        let mut looked = now();
        // One byte more than may come, so that a datagram that was cut off is seen as too long.
        let mut buffer = [0; REPLY_MAX + 1];
        loop {
            let received = idle(|| socket.recv(&mut buffer));
            let now = now();
            if now >= looked + STRAY_LOOK {
                looked = now;
                sockets.count_strays(|| sink.foreign(from));
            }
            match received {
                // What `shutdown` makes of a read; an empty datagram is nobody's reply either.
                Ok(0) if is_shut(socket) => return,
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
                        if is_shut(socket) {
                            return;
                        }
                    }
                },
            }
        }
    }
}

impl Sockets {
    /// Counts what has come from elsewhere.
    fn count_strays(&self, stray: impl Fn()) {
        let Some(socket) = &self.strays else { return };
        let mut first = [0; 1];
        for _ in 0..STRAYS {
            match rustix::net::recv(socket, &mut first[..], RecvFlags::DONTWAIT) {
                Ok(_) => stray(),
                Err(_) => return,
            }
        }
    }
}

/// Whether the socket was shut down rather than an empty datagram read.
fn is_shut(socket: &UdpSocket) -> bool {
    let zero = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&zero)).is_ok()
        && fds
            .first()
            .is_some_and(|fd| fd.revents().contains(rustix::event::PollFlags::HUP))
}

/// The sockets for a member at this address.
fn connect(member: &Member, address: SocketAddr) -> io::Result<Sockets> {
    let socket = bind(member)?;
    let strays = beside(&socket).ok();
    socket.connect(&address.into())?;
    let connected = socket.into();
    Ok(Sockets { connected, strays })
}

/// A second socket on the same port. The system prefers one that is connected for what comes from there. That the
/// port is shared is taken back at once: with another user's socket on it, that might be connected too.
fn beside(socket: &Socket) -> io::Result<Socket> {
    let here = socket.local_addr()?;
    let strays = Socket::new(here.domain(), Type::DGRAM, None)?;
    if here.domain() == Domain::IPV6 {
        strays.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    strays.set_reuse_address(true)?;
    strays.set_recv_buffer_size(STRAY_BUFFER)?;
    let bound = strays.bind(&here);
    strays.set_reuse_address(false)?;
    socket.set_reuse_address(false)?;
    bound?;
    Ok(strays)
}

/// A socket that commands to the member leave from.
fn bind(member: &Member) -> io::Result<Socket> {
    let domain = if member.protocol.is_v6() {
        Domain::IPV6
    } else {
        Domain::IPV4
    };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    // Best effort: the system may allow less.
    socket.set_recv_buffer_size(BUFFER).ok();
    socket.set_send_buffer_size(BUFFER).ok();
    if member.protocol.is_v6() {
        socket.set_only_v6(true)?;
    }
    if member.cmd_out_address.is_some() {
        bind_source(&socket, member)?;
    } else {
        // The port is needed before the socket is connected.
        let any: IpAddr = if member.protocol.is_v6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        socket.bind(&SocketAddr::new(any, 0).into())?;
    }
    Ok(socket)
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
            wan_address: crate::config::model::Family::default(),
            lan_address: crate::config::model::Family::default(),
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
    fn commands_go_where_the_name_is_now() {
        let sockets = [(); 2].map(|()| UdpSocket::bind("[::1]:0").unwrap());
        let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
        let udp = open(&addresses[0].to_string(), None).unwrap();
        for (socket, address) in sockets.iter().zip(addresses).chain(sockets.iter().zip(addresses)) {
            udp.move_to(address);
            let mut datagram = [0; 16];
            socket.set_nonblocking(true).unwrap();
            // Until the other socket is there it is refused, or goes to where it went before.
            while socket.recv(&mut datagram).is_err() {
                let _ = udp.send(b"V\n");
                std::thread::yield_now();
            }
            assert_eq!(&datagram[..1], b"V");
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut datagram).is_ok() {}
        }
        udp.close();
    }

    #[test]
    fn a_member_to_which_there_is_no_route_yet_keeps_nobody_from_starting() {
        // The network of documentation: routed where there is IPv6, unreachable where there is none.
        open("[2001:db8::1]:22222", None).unwrap().close();
        assert!(open("[2001:db8::1]:22222", Some("2001:db8::2")).is_err());
    }
}
