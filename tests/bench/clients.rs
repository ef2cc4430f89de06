//! Clients as Kamailio's workers are: connect, write a command without a line end, read once, close.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A reply is read at once into this much, as SIP servers do.
const REPLY_MAX: usize = 256;

/// One client's commands: calls made, answered, another one asked about, and ended.
pub struct Calls {
    client: u64,
    call: u64,
    step: u8,
    population: u64,
    random: u64,
    command: Vec<u8>,
}

impl Calls {
    /// The commands of `client`, which asks about the `population` calls that [`bind`] has made.
    pub fn new(client: u64, population: u64) -> Self {
        let random = (client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            client,
            call: 0,
            step: 0,
            population,
            random,
            command: Vec::with_capacity(128),
        }
    }

    /// The next command and what its reply must begin with (nothing: a port).
    pub fn next(&mut self) -> (&[u8], Option<u8>) {
        let own = call_id(self.client + 1, self.call);
        self.command.clear();
        let step = self.step;
        self.step = (self.step + 1) % 4;
        let command = &mut self.command;
        let written = match step {
            0 => write!(command, "Uc8,0 {own} 192.0.2.10 4000 from-tag;1"),
            1 => write!(command, "Lc8,0 {own} 192.0.2.20 4002 from-tag;1 to-tag;1"),
            2 => {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                let other = call_id(0, self.random % self.population);
                write!(command, "Q {other} from-tag;1 to-tag;1")
            }
            _ => {
                self.call += 1;
                write!(command, "D {own} from-tag to-tag")
            }
        };
        written.expect("a vector takes everything");
        (
            &self.command,
            [None, None, Some(b'6'), Some(b'0')][usize::from(step)],
        )
    }

    /// Sends the next command and checks its reply.
    fn turn(&mut self, socket: &Path) {
        let (command, first) = self.next();
        let mut reply = [0; REPLY_MAX];
        let reply = exchange(socket, command, &mut reply)
            .unwrap_or_else(|e| panic!("{}: {}: {e}", socket.display(), String::from_utf8_lossy(command)));
        assert!(
            is_good(first, reply) && reply.ends_with(b"\n"),
            "{} -> {}",
            String::from_utf8_lossy(command),
            String::from_utf8_lossy(reply)
        );
    }
}

/// Whether a reply is what [`Calls::next`] said.
pub fn is_good(first: Option<u8>, reply: &[u8]) -> bool {
    match first {
        Some(byte) => reply[0] == byte,
        None => reply[0].is_ascii_digit() && reply[0] != b'0',
    }
}

/// The call-id of a client's call, always 40 bytes.
pub fn call_id(client: u64, call: u64) -> String {
    format!("{client:08x}-{call:012x}-bench@192.0.2.77:5060")
}

/// Sends one command over a connection of its own.
pub fn exchange<'a>(socket: &Path, command: &[u8], reply: &'a mut [u8; REPLY_MAX]) -> io::Result<&'a [u8]> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(command)?;
    match stream.read(reply)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(&reply[..length]),
    }
}

/// One client, one command at a time: how long each took.
pub fn one_by_one(socket: &Path, calls: &mut Calls, time: Duration) -> Vec<Duration> {
    let mut took = Vec::new();
    let end = Instant::now() + time;
    loop {
        let start = Instant::now();
        if start >= end {
            return took;
        }
        calls.turn(socket);
        took.push(start.elapsed());
    }
}

/// All of `crowd` at once for `time`: how many commands were answered.
pub fn all_at_once(socket: &Path, crowd: &mut [Calls], time: Duration) -> f64 {
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for calls in crowd {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                let mut mine = 0;
                while !stop.load(Ordering::Relaxed) {
                    calls.turn(socket);
                    mine += 1;
                }
                answered.fetch_add(mine, Ordering::Relaxed);
            });
        }
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    f64::from(answered.into_inner())
}

/// Makes and keeps the calls from `first` to `last`, so that later commands ask about them.
pub fn bind(socket: &Path, first: u64, last: u64) {
    const BINDERS: u64 = 32;
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        for _ in 0..BINDERS.min(last - first) {
            scope.spawn(|| {
                let mut command = Vec::new();
                loop {
                    let call = next.fetch_add(1, Ordering::Relaxed);
                    if call >= last {
                        break;
                    }
                    command.clear();
                    let id = call_id(0, call);
                    write!(command, "U {id} 192.0.2.10 4000 from-tag;1").expect("a vector takes everything");
                    let mut reply = [0; REPLY_MAX];
                    let reply = exchange(socket, &command, &mut reply)
                        .unwrap_or_else(|e| panic!("binding call {call} at {}: {e}", socket.display()));
                    assert!(
                        reply[0] != b'E',
                        "binding call {call}: {}",
                        String::from_utf8_lossy(reply)
                    );
                }
            });
        }
    });
}
