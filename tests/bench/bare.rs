//! The bare loop: what a relay of the cluster's shape can do at best on this machine. One thread waits by epoll for
//! the listener and all members' sockets together; a command of a UNIX client goes to the next member over UDP under
//! a cookie, the reply with that cookie goes back. No grammar, no table of calls, no failover: calls are kept together
//! by a hash of the call-id. Whatever the cluster does beyond this is what its logic costs.

use std::convert::Infallible;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{SocketFlags, accept_with};

use crate::member::Member;
use crate::support::process::Process;

/// Longest command and reply.
const COMMAND_MAX: usize = 8192;
/// Hexadecimal digits of a client's slot in a cookie, and as many of the command's number.
const HALF: usize = 8;
/// A cookie and the blank behind it, at the same place before every command: nothing is moved to make room for it.
const HEAD: usize = 2 * HALF + 1;
/// Events taken in one turn.
const EVENTS: usize = 256;
/// Connections, and replies of a member, taken in one turn at most.
const BATCH: usize = 64;
/// What stands for the listener; members have their indices, clients that have not written yet their slots behind
/// those.
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
        reads: vec![Batch(1); members.len()],
        members,
        clients: Vec::with_capacity(EVENTS),
        free: Vec::with_capacity(EVENTS),
        used: 0,
        buffer: [0; HEAD + COMMAND_MAX],
    };
    let mut accepts = Batch(1);
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
                    let batch = accepts.begin();
                    for _ in 0..batch {
                        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                        let Ok(stream) = accept_with(&listener, flags) else {
                            accepts.run_dry();
                            break;
                        };
                        let slot = bare.seat(stream.into());
                        if let Some(stream) = bare.command(slot) {
                            // It is told of once, so that nothing has to be undone when it speaks.
                            let flags = EventFlags::IN | EventFlags::ONESHOT;
                            epoll::add(&epoll, stream, EventData::new_u64(CLIENTS + slot as u64), flags)?;
                        }
                    }
                }
                client => {
                    let slot = client.checked_sub(CLIENTS).map(usize::try_from);
                    // One that has nothing to say now has hung up.
                    if let Some(Ok(slot)) = slot
                        && bare.command(slot).is_some()
                    {
                        bare.leave(slot);
                    }
                }
            }
        }
    }
}

/// How many are taken in a row from one socket: one where few come, so that nobody waits for a look at whether there are
/// more, and twice as many each time that there were. What is left is told of again by the next wait.
#[derive(Clone)]
struct Batch(usize);

impl Batch {
    fn begin(&mut self) -> usize {
        let batch = self.0;
        self.0 = (batch * 2).min(BATCH);
        batch
    }

    fn run_dry(&mut self) {
        self.0 = 1;
    }
}

/// Clients sit in slots, and a command's cookie names its client's: nothing is allocated for a command, or looked up.
struct Loop {
    members: Vec<UdpSocket>,
    reads: Vec<Batch>,
    /// Each with the number of its command while that is at a member.
    clients: Vec<Option<(UnixStream, u32)>>,
    free: Vec<usize>,
    /// Commands so far: a cookie is never used twice.
    used: u32,
    /// A command with the cookie before it, or a reply.
    buffer: [u8; HEAD + COMMAND_MAX],
}

impl Loop {
    fn member(&self, data: u64) -> Option<usize> {
        usize::try_from(data)
            .ok()
            .filter(|index| *index < self.members.len())
    }

    fn seat(&mut self, stream: UnixStream) -> usize {
        if let Some(slot) = self.free.pop() {
            self.clients[slot] = Some((stream, 0));
            return slot;
        }
        self.clients.push(Some((stream, 0)));
        self.clients.len() - 1
    }

    /// Closes the connection.
    fn leave(&mut self, slot: usize) {
        if self.clients[slot].take().is_some() {
            self.free.push(slot);
        }
    }

    /// Sends the command of a client on its way; gives the client where it has not written one.
    fn command(&mut self, slot: usize) -> Option<&UnixStream> {
        let (stream, number) = self.clients[slot].as_mut()?;
        let length = match stream.read(&mut self.buffer[HEAD..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return self.clients[slot].as_ref().map(|(stream, _)| stream);
            }
            Ok(0) | Err(_) => {
                self.leave(slot);
                return None;
            }
            Ok(length) => length,
        };
        self.used = self.used.wrapping_add(1);
        *number = self.used;
        write_hex(&mut self.buffer[..HALF], slot as u64);
        write_hex(&mut self.buffer[HALF..2 * HALF], self.used.into());
        self.buffer[2 * HALF] = b' ';
        let command = &self.buffer[HEAD..HEAD + length];
        let call = command.split(|b| *b == b' ').nth(1).unwrap_or(command);
        let hash = call.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let member = (hash >> 20) as usize % self.members.len();
        if self.members[member].send(&self.buffer[..HEAD + length]).is_err() {
            // A datagram that cannot be sent is a lost command, and its client reads an end.
            self.leave(slot);
        }
        None
    }

    /// Passes on what has come from a member.
    fn replies(&mut self, member: usize) {
        for _ in 0..self.reads[member].begin() {
            let Ok(length) = self.members[member].recv(&mut self.buffer) else {
                self.reads[member].run_dry();
                return;
            };
            let Some((head, reply)) = self.buffer[..length].split_at_checked(HEAD) else {
                continue;
            };
            let slot = read_hex(&head[..HALF]) as usize;
            let number = read_hex(&head[HALF..2 * HALF]);
            let client = self.clients.get_mut(slot).and_then(Option::as_mut);
            if let Some((stream, waits_for)) = client
                && *waits_for == number
            {
                // A client that has gone does without its reply.
                drop(stream.write_all(reply));
                self.leave(slot);
            }
        }
    }
}

fn write_hex(to: &mut [u8], number: u64) {
    for (digit, place) in to.iter_mut().rev().enumerate() {
        *place = b"0123456789abcdef"[((number >> (4 * digit)) & 15) as usize];
    }
}

fn read_hex(from: &[u8]) -> u32 {
    from.iter().fold(0, |number, byte| {
        (number << 4) | char::from(*byte).to_digit(16).unwrap_or(0)
    })
}
