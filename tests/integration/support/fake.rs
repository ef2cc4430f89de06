//! A member over UDP that misbehaves as it is told. Well, it answers as a real one (`conformance.rs` holds it to that),
//! and it remembers what it was sent.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::member::{self, CONTROL_PORT};

/// What goes wrong with a command or its reply.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing is run, nothing answered.
    Silent,
    /// Every other command, with all its repeats: nothing is run, nothing answered.
    SilentEveryOther,
    /// Run at once, answered after this time.
    Late(Duration),
    /// Run, and these bytes sent behind the cookie in place of the reply.
    Instead(Vec<u8>),
    /// These bytes sent in place of the whole datagram, cookie and all.
    Raw(Vec<u8>),
    /// Answered under another cookie.
    WrongCookie,
    /// A false reply from another address, and no true one.
    WrongSource,
    /// Answered twice.
    Twice,
    /// Not run; this error is the answer.
    Refuse(&'static str),
    /// This share of commands, and of replies, in percent, is lost.
    Loss(u64),
}

/// One datagram that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its first word.
    pub cookie: String,
    /// The rest, as it came.
    pub command: String,
}

/// A fake member.
#[derive(Debug)]
pub struct FakeMember {
    address: IpAddr,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    /// Commands that begin with the text suffer the fault; the last rule that fits counts.
    rules: Vec<(String, Fault)>,
    seen: Vec<Seen>,
    replies: HashMap<String, Vec<u8>>,
    /// Whether a command suffers what every other one does, by its cookie.
    turns: HashMap<String, bool>,
    random: u64,
    gone: bool,
}

impl FakeMember {
    /// Starts one on an address of its own.
    pub fn start() -> Self {
        let address = member::own_address();
        let shared = Shared {
            engine: Engine::new(&address.to_string()),
            rules: Vec::new(),
            seen: Vec::new(),
            replies: HashMap::new(),
            turns: HashMap::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            gone: true,
        };
        let mut member = Self {
            address,
            shared: Arc::new(Mutex::new(shared)),
            thread: None,
        };
        member.come_back();
        member
    }

    /// The address in its replies.
    pub fn media(&self) -> String {
        self.address.to_string()
    }

    /// Its control socket.
    pub fn control(&self) -> SocketAddr {
        (self.address, CONTROL_PORT).into()
    }

    /// From now on commands that begin with `prefix` (`""`: all) suffer `fault`.
    pub fn on(&self, prefix: &str, fault: Fault) {
        self.shared().rules.push((prefix.to_owned(), fault));
    }

    /// No more faults.
    pub fn recover(&self) {
        self.shared().rules.clear();
    }

    /// Its socket closes: who sends there is refused.
    pub fn vanish(&mut self) {
        self.shared().gone = true;
        if let Some(thread) = self.thread.take() {
            // Any datagram wakes it.
            let waker = UdpSocket::bind((self.address, 0)).expect("a socket");
            waker
                .send_to(b"", self.control())
                .expect("the member's socket is still there");
            thread.join().expect("the fake member has not failed");
        }
    }

    /// Serves again after [`FakeMember::vanish`], with the sessions that it had.
    pub fn come_back(&mut self) {
        let socket = UdpSocket::bind(self.control()).expect("the address is its own");
        self.shared().gone = false;
        let shared = Arc::clone(&self.shared);
        self.thread = Some(thread::spawn(move || serve(&socket, &shared)));
    }

    /// Loses its sessions and counters, as a restart does, without being away.
    pub fn forget(&self) {
        let mut shared = self.shared();
        shared.engine.restart();
        shared.replies.clear();
    }

    /// Runs a command that did not come from the cluster.
    pub fn run(&self, command: &str) -> String {
        let mut reply = Vec::new();
        self.shared().engine.answer(command.as_bytes(), &mut reply);
        String::from_utf8_lossy(&reply).trim_end().to_owned()
    }

    /// Sessions alive.
    pub fn sessions(&self) -> u64 {
        self.shared().engine.active()
    }

    /// Sessions made since its start.
    pub fn created(&self) -> u64 {
        self.shared().engine.created()
    }

    /// Whether it has a session of this call.
    pub fn has(&self, call_id: &str) -> bool {
        self.shared().engine.has(call_id)
    }

    /// Everything that came and whose command begins with `prefix`.
    pub fn seen(&self, prefix: &str) -> Vec<Seen> {
        self.shared()
            .seen
            .iter()
            .filter(|seen| seen.command.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("the fake member has not failed")
    }
}

impl Drop for FakeMember {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.vanish();
        }
    }
}

/// A datagram to send later.
struct Due {
    at: Instant,
    to: SocketAddr,
    reply: Vec<u8>,
}

fn serve(socket: &UdpSocket, shared: &Mutex<Shared>) {
    let liar = UdpSocket::bind((socket.local_addr().expect("bound").ip(), 0)).expect("a socket");
    let mut due: Vec<Due> = Vec::new();
    let mut datagram = vec![0; 65_536];
    loop {
        let now = Instant::now();
        due.retain(|Due { at, to, reply }| {
            let waits = *at > now;
            if !waits {
                send(socket, reply, *to);
            }
            waits
        });
        let next = due
            .iter()
            .map(|d| d.at.saturating_duration_since(now).max(Duration::from_millis(1)))
            .min();
        socket.set_read_timeout(next).expect("a time-out above zero");
        // A time-out, or an ICMP error of a client that has gone.
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        let mut shared = shared.lock().expect("the test has not failed");
        if shared.gone {
            return;
        }
        let (replies, fault) = shared.take(&datagram[..length]);
        drop(shared);
        for reply in replies {
            match fault {
                Some(Fault::Late(delay)) => due.push(Due {
                    at: Instant::now() + delay,
                    to: from,
                    reply,
                }),
                Some(Fault::WrongSource) => send(&liar, &reply, from),
                _ => send(socket, &reply, from),
            }
        }
    }
}

fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    // A reply that cannot be sent is a lost datagram.
    drop(socket.send_to(reply, to));
}

impl Shared {
    /// Runs what a datagram says: the datagrams that answer it, and the fault that it met.
    fn take(&mut self, datagram: &[u8]) -> (Vec<Vec<u8>>, Option<Fault>) {
        let text = String::from_utf8_lossy(datagram).into_owned();
        let Some((cookie, command)) = text.split_once(' ') else {
            return (Vec::new(), None);
        };
        let fault = self
            .rules
            .iter()
            .rev()
            .find(|(prefix, _)| command.starts_with(prefix))
            .map(|(_, f)| f.clone());
        if let Some(Fault::Loss(share)) = fault
            && self.roll() < share
        {
            return (Vec::new(), fault);
        }
        self.seen.push(Seen {
            cookie: cookie.to_owned(),
            command: command.to_owned(),
        });
        let is_silent = match fault {
            Some(Fault::Silent) => true,
            Some(Fault::SilentEveryOther) => {
                let is_odd = self.turns.len() % 2 == 1;
                *self.turns.entry(cookie.to_owned()).or_insert(is_odd)
            }
            _ => false,
        };
        if is_silent {
            return (Vec::new(), fault);
        }
        let reply = self.reply(cookie, command, fault.as_ref());
        let under = |cookie: &str, reply: &[u8]| [cookie.as_bytes(), b" ", reply].concat();
        let replies = match &fault {
            Some(Fault::Loss(share)) if self.roll() < *share => Vec::new(),
            Some(Fault::Instead(bytes)) => vec![under(cookie, bytes)],
            Some(Fault::Raw(bytes)) => vec![bytes.clone()],
            Some(Fault::WrongCookie) => vec![under(&format!("{cookie}x"), &reply)],
            Some(Fault::WrongSource) => vec![under(cookie, b"6666 192.0.2.66\n")],
            Some(Fault::Twice) => vec![under(cookie, &reply), under(cookie, &reply)],
            _ => vec![under(cookie, &reply)],
        };
        (replies, fault)
    }

    fn reply(&mut self, cookie: &str, command: &str, fault: Option<&Fault>) -> Vec<u8> {
        if let Some(Fault::Refuse(error)) = fault {
            return format!("{error}\n").into_bytes();
        }
        if let Some(kept) = self.replies.get(cookie) {
            return kept.clone();
        }
        let mut reply = Vec::new();
        self.engine.answer(command.as_bytes(), &mut reply);
        self.replies.insert(cookie.to_owned(), reply.clone());
        reply
    }

    /// A number below 100, the same ones in every run.
    fn roll(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100
    }
}
