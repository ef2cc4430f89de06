//! Where a reply goes: one write, once. A client that is dropped without a reply finds its connection closed,
//! or, over UDP, may ask again.

use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, SendFlags};

use super::connections::Place;
use super::kept::Turn;
use super::udp::Asker;

/// Somebody who waits for one reply.
#[derive(Debug)]
pub enum Client {
    /// A UNIX connection that carries one command.
    Unix(UnixStream, Place),
    /// The sender of a datagram. In a box, since clients are moved about a good deal.
    Datagram(Box<Asker>),
    /// A kept connection, and which of its commands.
    Kept(Turn),
    /// Nobody: the command is the program's own.
    Nobody,
}

impl Client {
    /// Sends the reply, line end and all, and is done.
    pub fn reply(self, text: &[u8]) {
        match self {
            Self::Unix(stream, _place) => {
                // A client that has gone, or takes nothing, is no concern of the others.
                rustix::net::send(&stream, text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).ok();
                // Closing with bytes unread would reset the connection under the reply.
                let mut unread = [0; 512];
                while rustix::net::recv(&stream, &mut unread, RecvFlags::DONTWAIT)
                    .is_ok_and(|(n, _)| n == 512)
                {}
            }
            Self::Datagram(asker) => asker.reply(text),
            Self::Kept(turn) => turn.reply(text),
            Self::Nobody => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_small() {
        // It is moved into the outbox, into its transaction and out again.
        assert!(size_of::<Client>() <= 32);
    }
}
