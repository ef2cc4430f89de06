//! Listening sockets on their way from a daemon to its successor, over a connection of the admin socket: neither closes
//! them meanwhile, so nobody who connects is refused. Until the successor has said that it serves, and the old one that
//! it leaves, either may give up, and the old one goes on as if nothing had been.
//!
//! ```text
//!  successor                         daemon
//!     takeover (a line of text)  ──▶
//!                                ◀── Offer, Sockets with descriptors …, PidFile with one, End
//!     Ready                      ──▶
//!                                ◀── Leaving
//!                                ◀── the connection's end: its state directory is free
//! ```

use core::time::Duration;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::rim::idle;
use crate::sockets::systemd::Given;

/// The line that asks for all of it. Its number changes with the messages below.
pub const REQUEST: &str = "takeover 1";
/// How long one waits for the next message of the other: a successor waits for its members before it serves.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a successor waits for the state directory: the old one answers what is in flight, and writes what it knows.
/// Nobody is served meanwhile.
const LEFT_WITHIN: Duration = Duration::from_secs(3);
/// Descriptors in one message. Linux takes 253.
const BATCH: usize = 64;
/// Descriptors in all: more than systemd keeps for one service.
const DESCRIPTORS_MAX: usize = 4096;
/// Bytes of one message: the names of a batch have 25,000 at most.
const MESSAGE_MAX: usize = 64 << 10;

/// What the two tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    /// The daemon: what follows is yours.
    Offer { pid: u32 },
    /// The names of the sockets that are attached, in their order.
    Sockets { names: Vec<String> },
    /// The locked pid file is attached.
    PidFile,
    /// That was all.
    End,
    /// The successor: I serve; and whether the pid file is mine now.
    Ready { pid: u32, pid_file: bool },
    /// The daemon: I answer what is in flight, and leave everything where it is.
    Leaving,
    /// The daemon gives nothing, and why.
    Refused { why: String },
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        fn put(bytes: &mut Vec<u8>, text: &str) {
            let text = text.as_bytes();
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.extend(text.iter().take(usize::from(length)));
        }
        let mut bytes = Vec::new();
        match self {
            Self::Offer { pid } => {
                bytes.push(b'O');
                bytes.extend(pid.to_be_bytes());
            }
            Self::Sockets { names } => {
                bytes.push(b'S');
                for name in names {
                    put(&mut bytes, name);
                }
            }
            Self::PidFile => bytes.push(b'P'),
            Self::End => bytes.push(b'E'),
            Self::Ready { pid, pid_file } => {
                bytes.push(b'R');
                bytes.extend(pid.to_be_bytes());
                bytes.push(u8::from(*pid_file));
            }
            Self::Leaving => bytes.push(b'L'),
            Self::Refused { why } => {
                bytes.push(b'N');
                put(&mut bytes, why);
            }
        }
        bytes
    }

    /// `None` for what no message encodes to.
    fn decode(bytes: &[u8]) -> Option<Self> {
        fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
            let (number, rest) = bytes.split_first_chunk()?;
            Some((u32::from_be_bytes(*number), rest))
        }
        fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
            let (length, rest) = bytes.split_first_chunk()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            Some((String::from_utf8(text.to_vec()).ok()?, rest))
        }
        let (kind, mut rest) = bytes.split_first()?;
        let message = match kind {
            b'O' => {
                let (pid, after) = number(rest)?;
                rest = after;
                Self::Offer { pid }
            }
            b'S' => {
                let mut names = Vec::new();
                while !rest.is_empty() {
                    let (name, after) = text(rest)?;
                    names.push(name);
                    rest = after;
                }
                Self::Sockets { names }
            }
            b'P' => Self::PidFile,
            b'E' => Self::End,
            b'R' => {
                let (pid, after) = number(rest)?;
                let (&taken, after) = after.split_first()?;
                rest = after;
                Self::Ready {
                    pid,
                    pid_file: taken != 0,
                }
            }
            b'L' => Self::Leaving,
            b'N' => {
                let (why, after) = text(rest)?;
                rest = after;
                Self::Refused { why }
            }
            _ => return None,
        };
        rest.is_empty().then_some(message)
    }
}

/// A connection between the two, each of which the other may trust.
#[derive(Debug)]
struct Channel(UnixStream);

impl Channel {
    /// # Errors
    /// When at its other end is neither the super-user nor our own user.
    fn new(stream: UnixStream) -> io::Result<Self> {
        let peer = peer_uid(&stream)?;
        if peer != 0 && peer != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("user {peer} may not: only the super-user and the daemon's own user take over"),
            ));
        }
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends a message with what is attached to it.
    fn send(&mut self, message: &Message, attached: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = message.encode();
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let bytes = [&length.to_be_bytes(), &*body].concat();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut rights = SendAncillaryBuffer::new(&mut room);
        if !attached.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(attached)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let sent = idle(|| {
            rustix::io::retry_on_intr(|| {
                sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut rights, SendFlags::NOSIGNAL)
            })
        })?;
        // What is attached went with the first byte.
        idle(|| self.0.write_all(bytes.get(sent..).unwrap_or_default()))
    }

    /// The next message and what is attached to it.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the other has gone; and for what is no message.
    fn receive(&mut self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut attached = Vec::new();
        let mut length = [0; 4];
        self.fill(&mut length, &mut attached)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let no_message = || io::Error::new(io::ErrorKind::InvalidData, "it answers something else");
        if length > MESSAGE_MAX {
            return Err(no_message());
        }
        let mut body = vec![0; length];
        self.fill(&mut body, &mut attached)?;
        let message = Message::decode(&body).ok_or_else(no_message)?;
        let wanted = match &message {
            Message::Sockets { names } => names.len(),
            Message::PidFile => 1,
            _ => 0,
        };
        if attached.len() != wanted {
            return Err(io::Error::other(format!(
                "{} descriptors came where {wanted} were to come",
                attached.len()
            )));
        }
        Ok((message, attached))
    }

    fn fill(&self, mut bytes: &mut [u8], attached: &mut Vec<OwnedFd>) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut rights = RecvAncillaryBuffer::new(&mut room);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = idle(|| {
                rustix::io::retry_on_intr(|| {
                    recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], &mut rights, flags)
                })
            })?;
            for message in rights.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    attached.extend(descriptors);
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                return Err(io::Error::other("descriptors were lost: too many are open"));
            }
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes = bytes.get_mut(received.bytes..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Who is at the other end.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

/// Nobody, where nothing is known of it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn peer_uid(_stream: &UnixStream) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A successor to which everything was given.
#[derive(Debug)]
pub(super) struct Successor {
    channel: Channel,
    pub(super) pid: u32,
    /// Whether it has the pid file, which is another's otherwise.
    pub(super) has_pid_file: bool,
}

impl Successor {
    /// Gives sockets, with their names, and the pid file to who asks over `stream`, and waits until it serves.
    ///
    /// # Errors
    /// When it may not have them, does not get so far, or takes longer than half a minute for a step.
    pub(super) fn of(
        stream: UnixStream,
        sockets: &[(String, OwnedFd)],
        pid_file: Option<&OwnedFd>,
    ) -> io::Result<Self> {
        let to_refuse = stream.try_clone()?;
        let mut channel = Channel::new(stream).inspect_err(|error| refuse(to_refuse, &error.to_string()))?;
        let pid = std::process::id();
        channel.send(&Message::Offer { pid }, &[])?;
        for batch in sockets.chunks(BATCH) {
            let names = batch.iter().map(|(name, _)| name.clone()).collect();
            let attached: Vec<BorrowedFd<'_>> = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
            channel.send(&Message::Sockets { names }, &attached)?;
        }
        if let Some(file) = pid_file {
            channel.send(&Message::PidFile, &[file.as_fd()])?;
        }
        channel.send(&Message::End, &[])?;
        match channel.receive()? {
            (Message::Ready { pid, pid_file }, _) => Ok(Self {
                channel,
                pid,
                has_pid_file: pid_file,
            }),
            (message, _) => Err(out_of_turn(&message)),
        }
    }

    /// Leaves it all to it; what it waits for then is to be dropped when the state directory is free.
    ///
    /// # Errors
    /// When it has gone meanwhile.
    pub(super) fn leave_to(mut self) -> io::Result<Waits> {
        self.channel.send(&Message::Leaving, &[])?;
        Ok(Waits(self.channel))
    }
}

/// A successor that waits for the state directory. Whatever ends us ends its wait.
#[derive(Debug)]
pub struct Waits(#[expect(dead_code, reason = "its end is what the other waits for")] Channel);

/// Tells who asks over `stream` that it gets nothing, and why.
pub(super) fn refuse(stream: UnixStream, why: &str) {
    let why = why.to_owned();
    // A line fits into the buffer of a socket that was just read from; one that does not is as if it were closed.
    drop(Channel(stream).send(&Message::Refused { why }, &[]));
}

/// The daemon that runs, and what it has given us. Dropped before [`Predecessor::ready`], it goes on as before.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: Channel,
    pub(crate) pid: u32,
    pub(crate) sockets: Vec<Given>,
    /// Its pid file, locked.
    pub(crate) pid_file: Option<File>,
}

impl Predecessor {
    /// Asks the daemon of this admin socket for everything.
    ///
    /// # Errors
    /// When there is none, or it gives nothing.
    pub(crate) fn ask(admin_socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(admin_socket)?;
        stream.write_all(format!("{REQUEST}\n").as_bytes())?;
        let mut channel = Channel::new(stream)?;
        let pid = match channel.receive()? {
            (Message::Offer { pid }, _) => pid,
            (message, _) => return Err(out_of_turn(&message)),
        };
        let mut sockets = Vec::new();
        let mut pid_file = None;
        loop {
            let (message, attached) = channel.receive()?;
            match message {
                Message::Sockets { names } if sockets.len() + names.len() <= DESCRIPTORS_MAX => {
                    let given = attached.into_iter().zip(names);
                    sockets.extend(given.map(|(descriptor, name)| Given { descriptor, name }));
                }
                Message::PidFile => pid_file = attached.into_iter().next().map(File::from),
                Message::End => break,
                message => return Err(out_of_turn(&message)),
            }
        }
        Ok(Self {
            channel,
            pid,
            sockets,
            pid_file,
        })
    }

    /// Tells it that we can serve, and whether its pid file is ours; when this returns without an error, it leaves.
    ///
    /// # Errors
    /// When it does not answer: then it has not left.
    pub(crate) fn ready(&mut self, pid_file: bool) -> io::Result<()> {
        let pid = std::process::id();
        let answer = self
            .channel
            .send(&Message::Ready { pid, pid_file }, &[])
            .and_then(|()| self.channel.receive());
        match answer {
            Ok((Message::Leaving, _)) => Ok(()),
            Ok((message, _)) => Err(out_of_turn(&message)),
            // It has ended in this moment: there is nobody but us.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until it has written down all it knows, or has ended; not for ever.
    pub(crate) fn wait_left(self) {
        let Channel(mut stream) = self.channel;
        if stream.set_read_timeout(Some(LEFT_WITHIN)).is_ok() {
            // Nothing comes but the end, and whoever opens the directory sees whether it is free.
            let _ = idle(|| stream.read(&mut [0]));
        }
    }
}

fn out_of_turn(message: &Message) -> io::Error {
    match message {
        Message::Refused { why } => io::Error::other(why.clone()),
        other => io::Error::other(format!("{other:?} comes out of turn")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn messages_survive_their_way_and_nothing_else_is_one() {
        let messages = [
            Message::Offer { pid: 4711 },
            Message::Sockets {
                names: vec!["unix,1.2,/s".into(), String::new()],
            },
            Message::PidFile,
            Message::End,
            Message::Ready {
                pid: u32::MAX,
                pid_file: true,
            },
            Message::Leaving,
            Message::Refused {
                why: "größe".into()
            },
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Some(message.clone()));
            for cut in 0..bytes.len() {
                // A list of names may end after each of them.
                let part = Message::decode(bytes.get(..cut).unwrap());
                assert!(
                    part.is_none() || matches!(part, Some(Message::Sockets { .. })),
                    "{part:?}"
                );
            }
            assert_eq!(Message::decode(&[&*bytes, b"\0"].concat()), None, "{message:?}");
        }
        assert_eq!(Message::decode(b"?"), None);
        assert_eq!(Message::decode(b"S\0\x01\xff"), None, "a name is text");
    }

    /// A socket that is known by its port.
    fn socket() -> (String, OwnedFd) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        (socket.local_addr().unwrap().to_string(), socket.into())
    }

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[test]
    fn sockets_arrive_with_their_names_in_several_messages() {
        let sockets: Vec<_> = (0..BATCH + 3).map(|_| socket()).collect();
        let (mut ours, mut theirs) = pair();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for batch in sockets.chunks(BATCH) {
                    let names = batch.iter().map(|(name, _)| name.clone()).collect();
                    let attached: Vec<_> = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
                    ours.send(&Message::Sockets { names }, &attached).unwrap();
                    ours.send(&Message::End, &[]).unwrap();
                }
            });
            for wanted in [BATCH, 3] {
                let (message, attached) = theirs.receive().unwrap();
                let Message::Sockets { names } = message else {
                    panic!("{message:?}");
                };
                assert_eq!((names.len(), attached.len()), (wanted, wanted));
                for (name, descriptor) in names.iter().zip(attached) {
                    let socket = UdpSocket::from(descriptor);
                    assert_eq!(socket.local_addr().unwrap().to_string(), *name);
                }
                assert_eq!(theirs.receive().unwrap().0, Message::End);
            }
        });
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (ours, mut theirs) = pair();
        (&ours.0).write_all(b"ERROR: unknown command\n").unwrap();
        assert_eq!(theirs.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (mut ours, mut theirs) = pair();
        let name = vec!["one".to_owned()];
        ours.send(&Message::Sockets { names: name }, &[]).unwrap();
        assert!(
            theirs
                .receive()
                .unwrap_err()
                .to_string()
                .contains("0 descriptors")
        );
        drop(ours);
        assert_eq!(theirs.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn who_is_refused_hears_why() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        refuse(ours, "not now");
        let (message, _) = Channel::new(theirs).unwrap().receive().unwrap();
        assert_eq!(out_of_turn(&message).to_string(), "not now");
    }

    #[test]
    fn a_daemon_that_ends_in_the_last_moment_has_left() {
        let (ours, theirs) = pair();
        let mut predecessor = Predecessor {
            channel: ours,
            pid: 1,
            sockets: Vec::new(),
            pid_file: None,
        };
        drop(theirs);
        predecessor.ready(true).unwrap();
        predecessor.wait_left();
    }

    #[test]
    fn a_successor_waits_until_the_state_directory_is_free() {
        let (ours, theirs) = pair();
        let (told, tells) = std::sync::mpsc::channel();
        let old = Successor {
            channel: ours,
            pid: 2,
            has_pid_file: true,
        };
        let mut predecessor = Predecessor {
            channel: theirs,
            pid: 1,
            sockets: Vec::new(),
            pid_file: None,
        };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let waits = old.leave_to().unwrap();
                told.send("it is free").unwrap();
                drop(waits);
            });
            predecessor.ready(true).unwrap();
            predecessor.wait_left();
            assert_eq!(tells.try_recv(), Ok("it is free"));
        });
    }
}
