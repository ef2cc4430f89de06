//! Two parties that speak RTP to each other through the ports that they were told. Part of the rim.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;

use super::control::any_of;
use super::interrupt::{Interrupt, Wait};
use super::rtp;
use super::tally::{Flow, Tally};
use crate::rim;

/// Packets that each of them sends: a second of speech.
const PACKETS: usize = 50;
/// Between two packets.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long after the last packet one may still come.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// One party.
#[derive(Debug)]
pub(crate) struct Party {
    socket: UdpSocket,
    /// Names its packets.
    source: u64,
    address: SocketAddr,
}

impl Party {
    /// At a free port of `address`.
    pub(crate) fn at(address: IpAddr, source: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            source,
            address,
        })
    }

    /// Where it hears.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes everything that has come of `other`'s packets.
    fn hear(&self, other: &Self, tally: &mut Tally) {
        let mut packet = [0; 2 * rtp::LENGTH];
        while let Ok((length, from)) = self.socket.recv_from(&mut packet) {
            let number = rtp::number(other.source, packet.get(..length).unwrap_or_default());
            if let Some(number) = number {
                tally.arrived(number, from, rim::now());
            }
        }
    }

    fn speak(&self, to: SocketAddr, tally: &mut Tally) {
        let number = tally.sent(rim::now());
        if let Err(error) = self.socket.send_to(&rtp::packet(self.source, number), to) {
            tally.failed(error.to_string());
        }
    }
}

/// Both ways: what the caller said and the callee heard, and the reverse. Each sends to where it is told. `None` when
/// a signal has come.
pub(crate) fn talk(
    [one, other]: [&Party; 2],
    [ones_port, others_port]: [SocketAddr; 2],
    interrupt: &Interrupt,
) -> Option<[Flow; 2]> {
    let (mut forth, mut back) = (Tally::default(), Tally::default());
    let mut next = rim::now();
    let mut spoken = 0;
    loop {
        let now = rim::now();
        if now >= next && spoken < PACKETS {
            one.speak(ones_port, &mut forth);
            other.speak(others_port, &mut back);
            spoken += 1;
            next += if spoken < PACKETS { INTERVAL } else { STRAGGLERS };
        } else if now >= next || (spoken == PACKETS && forth.is_whole() && back.is_whole()) {
            return Some([forth.flow(), back.flow()]);
        }
        if interrupt.wait(&[one.socket.as_fd(), other.socket.as_fd()], next) == Wait::Interrupted {
            return None;
        }
        other.hear(one, &mut forth);
        one.hear(other, &mut back);
    }
}

/// The address of this machine from which packets to `target` leave.
pub(crate) fn address_towards(target: IpAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(any_of(target))?;
    // Sends nothing: it asks for the way.
    socket.connect((target, 9))?;
    Ok(socket.local_addr()?.ip())
}
