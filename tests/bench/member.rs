//! A fast member: an RTPproxy without media in a process of its own, one thread, one loop. The bench starts its own
//! program again with the argument `member`, so that a member can be stopped and killed as a real one.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, io, process, thread};

use rustix::process::Signal;

use crate::support::engine::Engine;
use crate::support::process::Process;

/// Longest command, as of an RTPproxy.
const COMMAND_MAX: usize = 8192;
/// Replies kept for repeated cookies, one a slot.
const KEPT: usize = 1 << 16;

/// A member's process.
pub struct Member {
    process: Process,
    /// Its control socket: `127.0.0.1:PORT` or a path.
    pub address: String,
    /// The media address in its replies, which tells it from the others.
    pub media: String,
}

impl Member {
    /// A member on a UDP port of 127.0.0.1; port 0 lets the system choose.
    pub fn udp(port: u16, media: &str) -> Self {
        Self::start(["udp", &format!("127.0.0.1:{port}"), media])
    }

    /// A member on a UNIX socket.
    pub fn unix(path: &Path, media: &str) -> Self {
        Self::start(["unix", &path.display().to_string(), media])
    }

    fn start(arguments: [&str; 3]) -> Self {
        let mut command = Command::new(env::current_exe().expect("a program knows its file"));
        command
            .arg("member")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start("member", &mut command);
        let mut ready = String::new();
        let stdout = process.stdout.take().expect("the output is a pipe");
        BufReader::new(stdout)
            .read_line(&mut ready)
            .expect("a member says where it is");
        let address = ready.trim().to_owned();
        assert!(!address.is_empty(), "a member did not start: {arguments:?}");
        Self {
            process,
            address,
            media: arguments[2].to_owned(),
        }
    }

    /// SIGSTOP: silent from now on.
    pub fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts a killed member again on the same address.
    pub fn restart(&mut self) {
        let again = Self::start(["udp", &self.address.clone(), &self.media.clone()]);
        *self = again;
    }
}

/// What the process of a member does: `member udp|unix ADDRESS MEDIA`.
pub fn run(arguments: &[String]) -> io::Result<Infallible> {
    let [transport, address, media] = arguments else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // The pipe closes when the bench ends, in whatever way.
    thread::spawn(|| {
        drop(io::stdin().read_to_end(&mut Vec::new()));
        process::exit(0);
    });
    let engine = Engine::new(media);
    match transport.as_str() {
        "udp" => serve_udp(engine, &UdpSocket::bind(address)?),
        _ => serve_unix(engine, address),
    }
}

/// The reply to the cookie that last fell into a slot.
#[derive(Default, Clone)]
struct Kept {
    cookie: Vec<u8>,
    from: Option<SocketAddr>,
    reply: Vec<u8>,
}

fn serve_udp(mut engine: Engine, socket: &UdpSocket) -> io::Result<Infallible> {
    println!("{}", socket.local_addr()?);
    let mut kept = vec![Kept::default(); KEPT];
    let mut datagram = [0; COMMAND_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut datagram) {
            Ok(got) => got,
            // An ICMP error of a peer that has gone.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => return Err(e),
        };
        let datagram = &datagram[..length];
        let Some(space) = datagram.iter().position(|b| *b == b' ') else {
            continue;
        };
        let (cookie, command) = (&datagram[..space], &datagram[space + 1..]);
        let slot = &mut kept[slot_of(cookie)];
        if slot.cookie != cookie || slot.from != Some(from) {
            slot.cookie.clear();
            slot.cookie.extend_from_slice(cookie);
            slot.from = Some(from);
            slot.reply.clear();
            slot.reply.extend_from_slice(&datagram[..=space]);
            engine.answer(command, &mut slot.reply);
        }
        // A reply that cannot be sent is a lost datagram.
        drop(socket.send_to(&slot.reply, from));
    }
}

fn slot_of(cookie: &[u8]) -> usize {
    let hash = cookie.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 20) as usize % KEPT
}

fn serve_unix(mut engine: Engine, path: &str) -> io::Result<Infallible> {
    let listener = UnixListener::bind(path)?;
    println!("{path}");
    let mut command = [0; COMMAND_MAX];
    let mut reply = Vec::new();
    loop {
        let (mut stream, _) = listener.accept()?;
        reply.clear();
        let length = stream.read(&mut command).unwrap_or(0);
        engine.answer(&command[..length], &mut reply);
        // A client that has gone does without its reply.
        drop(stream.write_all(&reply));
    }
}
