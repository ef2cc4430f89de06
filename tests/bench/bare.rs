//! The bare loop: what a relay of the cluster's shape can do at best on this machine. One thread waits by epoll for
//! the listener and all members' sockets together; a command of a UNIX client goes to the next member over UDP under
//! a cookie, the reply with that cookie goes back. No grammar, no table of calls, no failover: calls are kept together
//! by a hash of the call-id. Whatever the cluster does beyond this is what its logic costs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::member::Member;
use crate::support::process::Process;

/// Longest command and reply.
const COMMAND_MAX: usize = 8192;
/// Events taken in one turn.
const EVENTS: usize = 256;
/// Connections taken in one turn: replies free clients, so that they go first.
const ACCEPT_BATCH: usize = 64;
/// What stands for the listener; members have their indices, clients that have not written yet follow.
const LISTENER: u64 = u64::MAX;
/// Above all indices of members.
const CLIENTS: u64 = 1 << 32;

/// A bare loop's process.
pub struct Bare(Process);

impl Bare {
    /// Starts one on `socket`, in front of these members, and waits until it listens.
    pub fn start(socket: &Path, members: &[Member]) -> Self {
        let mut command = Command::new(env::current_exe().expect("a program knows its file"));
        command
            .arg("bare")
            .arg(socket)
            .args(members.iter().map(|member| &member.address))
            .stdout(Stdio::piped());
        let mut process = Process::start("bare", &mut command);
        let stdout = process.stdout.take().expect("the output is a pipe");
        let mut ready = String::new();
        BufReader::new(stdout)
            .read_line(&mut ready)
            .expect("it says where it is");
        assert!(!ready.is_empty(), "the bare loop did not start");
        Self(process)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

/// What the process of a bare loop does: `bare SOCKET MEMBER…`.
pub fn run(arguments: &[String]) -> io::Result<Infallible> {
    let [path, members @ ..] = arguments else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let members: Vec<UdpSocket> = members
        .iter()
        .map(|address| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect::<io::Result<_>>()?;
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    for (index, member) in (0_u64..).zip(&members) {
        epoll::add(&epoll, member, EventData::new_u64(index), EventFlags::IN)?;
    }
    println!("{path}");
    let mut bare = Loop {
        members,
        next: 0,
        waiting: HashMap::new(),
        buffer: vec![0; COMMAND_MAX],
        datagram: Vec::new(),
    };
    // Clients that have connected and said nothing.
    let (mut silent, mut number): (HashMap<u64, UnixStream>, u64) = (HashMap::new(), CLIENTS);
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            if let Some(member) = bare.member(event.data.u64()) {
                bare.replies(member);
            }
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => {
                    for _ in 0..ACCEPT_BATCH {
                        let Ok((stream, _)) = listener.accept() else {
                            break;
                        };
                        stream.set_nonblocking(true)?;
                        if let Some(stream) = bare.command(stream) {
                            number += 1;
                            epoll::add(&epoll, &stream, EventData::new_u64(number), EventFlags::IN)?;
                            silent.insert(number, stream);
                        }
                    }
                }
                client if client >= CLIENTS => {
                    if let Some(stream) = silent.remove(&client) {
                        epoll::delete(&epoll, &stream)?;
                        // One that has nothing to say now has hung up.
                        drop(bare.command(stream));
                    }
                }
                _ => {}
            }
        }
    }
}

struct Loop {
    members: Vec<UdpSocket>,
    /// The number of the last command, which is its cookie.
    next: u64,
    /// Who waits for the reply under which cookie.
    waiting: HashMap<u64, UnixStream>,
    buffer: Vec<u8>,
    datagram: Vec<u8>,
}

impl Loop {
    fn member(&self, data: u64) -> Option<usize> {
        usize::try_from(data)
            .ok()
            .filter(|index| *index < self.members.len())
    }

    /// Sends the command of a client on its way; gives the client back where it has not written one.
    fn command(&mut self, mut stream: UnixStream) -> Option<UnixStream> {
        let length = match stream.read(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(stream),
            Ok(0) | Err(_) => return None,
            Ok(length) => length,
        };
        let command = &self.buffer[..length];
        self.next += 1;
        self.datagram.clear();
        write!(self.datagram, "{:x} ", self.next).expect("a vector takes everything");
        self.datagram.extend_from_slice(command);
        let call = command.split(|b| *b == b' ').nth(1).unwrap_or(command);
        let hash = call.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let member = (hash >> 20) as usize % self.members.len();
        // A datagram that cannot be sent is a lost command, and its client reads an end.
        if self.members[member].send(&self.datagram).is_ok() {
            self.waiting.insert(self.next, stream);
        }
        None
    }

    /// Passes on what has come from a member.
    fn replies(&mut self, member: usize) {
        while let Ok(length) = self.members[member].recv(&mut self.buffer) {
            let datagram = &self.buffer[..length];
            let Some(space) = datagram.iter().position(|b| *b == b' ') else {
                continue;
            };
            let cookie = std::str::from_utf8(&datagram[..space]).ok();
            let cookie = cookie.and_then(|cookie| u64::from_str_radix(cookie, 16).ok());
            if let Some(mut client) = cookie.and_then(|cookie| self.waiting.remove(&cookie)) {
                // A client that has gone does without its reply.
                drop(client.write_all(&datagram[space + 1..]));
            }
        }
    }
}
