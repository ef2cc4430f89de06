//! A member over UDP: a connected socket, so that the kernel keeps out datagrams of others and tells of a refusal.
//! Sending again is the business of who sends.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Socket, Type};

use super::{REPLY_MAX, Refused, Sink, bind_source, keep_first};
use crate::config::model::{Address, Member};
use crate::protocol::cookie::{self, Cookie};
use crate::rim::readiness::Spot;

/// Kernel buffers for bursts of commands and replies, in bytes; the kernel may give less.
const BUFFER: usize = 4 << 20;
/// Datagrams read in a row, at most, before what they came to is carried out.
const READ_BATCH: usize = 256;
/// Between two tries to open the socket of a member that cannot be reached from here, as without a route.
const RETRY: Duration = Duration::from_secs(2);

/// The link of one member.
#[derive(Debug)]
pub struct Udp {
    member: Member,
    /// Where it is; the first is used.
    at: Vec<SocketAddr>,
    socket: Result<Socket, Refused>,
    /// Datagrams that are read in a row next time: one where few come, so that its reply waits for no further look, and
    /// twice as many each time that there were more.
    batch: usize,
    /// When a socket that could not be had is tried again.
    retry: Option<Instant>,
    told: bool,
}

impl Udp {
    /// Opens the socket at once, or, where the address is a name, when that has been looked up. One that cannot be
    /// connected, as without a route, is tried again later.
    ///
    /// # Errors
    /// When there is no socket to be had, or the source address is not ours.
    pub fn open(member: &Member) -> io::Result<Self> {
        let socket = bind(member)?;
        let mut udp = Self {
            member: member.clone(),
            at: Vec::new(),
            socket: Err(Refused::NOWHERE),
            batch: 1,
            retry: None,
            told: false,
        };
        if let Address::Ip(address) = member.address {
            udp.at.push(address);
            udp.take(socket.connect(&address.into()).map(|()| socket));
        }
        Ok(udp)
    }

    pub(super) fn start(&mut self, spot: Spot<'_>) {
        match &self.socket {
            Ok(socket) => {
                if let Err(error) = spot.watch(socket, 0) {
                    self.take(Err(error));
                }
            }
            // It is tried again at the first alarm.
            Err(_) if !self.at.is_empty() => self.retry = Some(crate::rim::now() + RETRY),
            Err(_) => {}
        }
    }

    /// Sends one datagram. A full buffer loses it, as the network might: it will be sent again.
    pub(super) fn send(&self, text: &[u8]) -> Result<(), Refused> {
        let datagram = text.strip_suffix(b"\n").unwrap_or(text);
        let socket = self.socket.as_ref().map_err(|refused| *refused)?;
        let put = || rustix::net::send(socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        // An earlier datagram's refusal keeps this one from being sent, and says nothing of it: the member may be
        // back. If it is not, its own refusal follows.
        if put() == Err(Errno::CONNREFUSED) && put() == Err(Errno::CONNREFUSED) {
            return Err(Refused(Errno::CONNREFUSED));
        }
        Ok(())
    }

    pub(super) fn ready(&mut self, sink: &mut dyn Sink) -> bool {
        // One byte more than may come, so that a datagram that was cut off is seen as too long.
        let mut buffer = [0; REPLY_MAX + 1];
        let Ok(socket) = &self.socket else { return false };
        for _ in 0..self.batch {
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    let split = cookie::split(datagram);
                    match split.and_then(|(cookie, text)| Some((Cookie::parse(cookie)?, text))) {
                        // Too long to be a reply: an empty text is judged as garbage.
                        Some((cookie, _)) if length > REPLY_MAX => sink.reply(cookie, b""),
                        Some((cookie, text)) => sink.reply(cookie, text.trim_ascii()),
                        None => sink.foreign(),
                    }
                }
                Err(Errno::AGAIN) => {
                    self.batch = 1;
                    return false;
                }
                Err(Errno::CONNREFUSED) => sink.refused(Refused(Errno::CONNREFUSED)),
                Err(Errno::INTR) => {}
                // Unreachable networks and the like: the probes will see that nothing comes back.
                Err(error) => log::debug!("member {} ({}): {error}", self.member.name, self.member.address),
            }
        }
        self.batch = (self.batch * 2).min(READ_BATCH);
        true
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.retry
    }

    pub(super) fn alarm(&mut self, now: Instant, spot: Spot<'_>) {
        if self.retry.is_some_and(|retry| retry <= now) {
            self.reopen(now, spot);
        }
    }

    pub(super) fn move_to(&mut self, now: Instant, addresses: &[SocketAddr], spot: Spot<'_>) {
        if keep_first(&mut self.at, addresses) {
            self.reopen(now, spot);
        }
    }

    pub(super) fn at(&self) -> &[SocketAddr] {
        &self.at
    }

    /// A socket to where the member is now.
    fn reopen(&mut self, now: Instant, spot: Spot<'_>) {
        let Some(to) = self.at.first().copied() else {
            return;
        };
        let opened = bind(&self.member).and_then(|socket| {
            socket.connect(&to.into())?;
            spot.watch(&socket, 0)?;
            Ok(socket)
        });
        self.take(opened);
        self.retry = self.socket.is_err().then(|| now + RETRY);
    }

    /// Has this socket from now on, or knows why there is none, which is told once.
    fn take(&mut self, opened: io::Result<Socket>) {
        match opened {
            Ok(socket) => {
                self.socket = Ok(socket);
                self.told = false;
            }
            Err(error) => {
                self.socket = Err(Refused::from_io(&error));
                if !core::mem::replace(&mut self.told, true) {
                    log::warn!("member {} ({}): {error}", self.member.name, self.member.address);
                }
            }
        }
    }
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
    bind_source(&socket, member)?;
    Ok(socket)
}
