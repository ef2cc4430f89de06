//! A party of a call, as far as its media go: one socket that speaks and hears RTP.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::client;
use super::wait::LONG;

/// A packet of G.711 with four samples.
const RTP: [u8; 16] = [0x80, 8, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0xd5, 0xd5, 0xd5, 0xd5];

/// Somebody who has a telephone.
#[derive(Debug)]
pub struct Party {
    socket: UdpSocket,
}

impl Party {
    /// At 127.0.0.1.
    pub fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket
            .set_read_timeout(Some(LONG))
            .expect("a time-out can be set");
        Self { socket }
    }

    /// Where it wants to hear.
    pub fn port(&self) -> u16 {
        self.socket.local_addr().expect("bound").port()
    }

    /// Speaks to the port that `reply` names, and fails the test unless `other` hears it from there; from which
    /// address that is.
    pub fn is_heard_by(&self, other: &Self, reply: &str, from: &str) -> IpAddr {
        let (port, address) = client::media(reply);
        let at: SocketAddr = (address.parse::<IpAddr>().expect("an address"), port).into();
        self.socket.send_to(&RTP, at).expect("a packet can be sent");
        let mut heard = [0; 100];
        let (length, source) = other
            .socket
            .recv_from(&mut heard)
            .unwrap_or_else(|e| panic!("{from}: nothing is heard through {reply:?}: {e}"));
        assert_eq!(&heard[..length], RTP, "{from}");
        source.ip()
    }
}
