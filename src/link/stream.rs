//! A member over a kept connection (CUNIX, TCP): commands go out as they come, replies come back in the same
//! order. The reply thread makes the connection when there is something to send, and makes it anew when it
//! breaks: what had no byte of a reply yet and may be repeated goes out once more.

use core::mem;
use core::net::IpAddr;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::net::{SendFlags, Shutdown};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{CONNECT_WITHIN, Label, REPLY_MAX, Refused, Sink, is_whole, resolve, source};
use crate::config::model::{Address, Member};
use crate::protocol::cookie::Cookie;
use crate::sync::{Thread, idle, spawn};

/// Commands on the connection or waiting for it; more are failed over like those of a silent member.
const QUEUE: usize = 4096;

#[derive(Debug)]
struct Waiting {
    cookie: Cookie,
    again: bool,
    text: Box<[u8]>,
}

#[derive(Debug, Default)]
struct State {
    /// The connection, while there is one.
    open: Option<Arc<Socket>>,
    /// Commands sent and not answered, in order; without a connection: to be sent.
    waiting: VecDeque<Waiting>,
    stopped: bool,
}

/// The link of one member.
#[derive(Debug)]
pub struct Stream {
    member: Member,
    label: Label,
    state: Mutex<State>,
    wanted: Condvar,
    thread: Mutex<Option<Thread>>,
}

impl Stream {
    /// No connection is made before the first command.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn open(member: &Member, label: Label, sink: Arc<dyn Sink>) -> io::Result<Arc<Self>> {
        let stream = Arc::new(Self {
            member: member.clone(),
            label,
            state: Mutex::default(),
            wanted: Condvar::new(),
            thread: Mutex::new(None),
        });
        let reader = Arc::clone(&stream);
        let name = format!("reply-{}.{}", label.cluster, label.member.index);
        *stream.thread.lock() = Some(spawn(name, move || reader.run(&*sink))?);
        Ok(stream)
    }

    /// The order of the queue must be that of the wire, so the lock is held over a send that never waits.
    pub(super) fn send(&self, cookie: Cookie, again: bool, text: &[u8]) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(Refused);
        }
        if state.waiting.len() >= QUEUE {
            // It waits for its time-out as if the member were silent, which it is.
            return Ok(());
        }
        state.waiting.push_back(Waiting {
            cookie,
            again,
            text: text.into(),
        });
        match &state.open {
            Some(socket) => put(socket, text),
            None => {
                self.wanted.notify_one();
            }
        }
        Ok(())
    }

    pub(super) fn is_at(&self, address: IpAddr) -> bool {
        match &self.member.address {
            Address::Ip(member) => member.ip() == address,
            _ => false,
        }
    }

    pub(super) fn close(&self) {
        {
            let mut state = self.state.lock();
            state.stopped = true;
            if let Some(socket) = &state.open {
                rustix::net::shutdown(&**socket, Shutdown::Both).ok();
            }
            self.wanted.notify_one();
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }

    fn run(&self, sink: &dyn Sink) {
        while self.wait_for_work() {
            let Ok(socket) = self.connect() else {
                let failed = mem::take(&mut self.state.lock().waiting);
                if !failed.is_empty() {
                    sink.refused(self.label.member);
                }
                continue;
            };
            self.publish(&socket);
            self.read(&socket, sink);
            self.broke(sink);
        }
    }

    /// Waits until there is something to send; false when the link is closed.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.stopped {
            idle(|| self.wanted.wait(&mut state));
        }
        !state.stopped
    }

    fn connect(&self) -> io::Result<Arc<Socket>> {
        let protocol = self.member.protocol;
        let socket = if let Address::Path(path) = &self.member.address {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.connect_timeout(&SockAddr::unix(path)?, CONNECT_WITHIN)?;
            socket
        } else {
            let to = resolve(protocol, &self.member.address)?;
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_tcp_nodelay(true)?;
            socket.bind(&source(protocol, self.member.cmd_out_address).into())?;
            socket.connect_timeout(&to.into(), CONNECT_WITHIN)?;
            socket
        };
        socket.set_nonblocking(false)?;
        Ok(Arc::new(socket))
    }

    /// The connection is there: what waited for it goes out, and what comes goes straight.
    fn publish(&self, socket: &Arc<Socket>) {
        let mut state = self.state.lock();
        for waiting in &state.waiting {
            put(socket, &waiting.text);
        }
        state.open = Some(Arc::clone(socket));
        if state.stopped {
            rustix::net::shutdown(&**socket, Shutdown::Both).ok();
        }
    }

    /// Reads replies until the connection breaks.
    fn read(&self, socket: &Socket, sink: &dyn Sink) {
        let mut buffer = vec![0; 2 * REPLY_MAX];
        let mut filled = 0;
        loop {
            let mut reader = socket;
            let read = match idle(|| reader.read(buffer.get_mut(filled..).unwrap_or_default())) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            filled += read;
            let Some(taken) = self.hand_out(buffer.get(..filled).unwrap_or_default(), sink) else {
                return;
            };
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
    }

    /// Hands out the whole replies at the start of `bytes`; gives how many bytes they were. `None` when the
    /// member says something that is no reply: the connection cannot be trusted any more.
    fn hand_out(&self, bytes: &[u8], sink: &dyn Sink) -> Option<usize> {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..)?;
            if rest.is_empty() {
                return Some(taken);
            }
            let mut state = self.state.lock();
            let length = reply_length(&state.waiting.front()?.text, rest);
            let Some(length) = length else {
                return (rest.len() <= REPLY_MAX).then_some(taken);
            };
            let waiting = state.waiting.pop_front()?;
            drop(state);
            let reply = rest.get(..length).unwrap_or_default().trim_ascii_end();
            sink.reply(self.label.member, waiting.cookie, reply);
            taken += length;
        }
    }

    /// The connection is gone. What may be repeated stays for the next one, once; the rest has failed.
    fn broke(&self, sink: &dyn Sink) {
        let mut state = self.state.lock();
        state.open = None;
        let mut failed = Vec::new();
        let mut kept = VecDeque::new();
        for waiting in state.waiting.drain(..) {
            if waiting.again {
                kept.push_back(Waiting {
                    again: false,
                    ..waiting
                });
            } else {
                failed.push(waiting.cookie);
            }
        }
        if state.stopped {
            failed.extend(kept.drain(..).map(|waiting| waiting.cookie));
        }
        state.waiting = kept;
        drop(state);
        for cookie in failed {
            sink.broken(self.label.member, cookie);
        }
    }
}

/// Length of the whole reply to `command` at the start of `bytes`, line end and all.
fn reply_length(command: &[u8], bytes: &[u8]) -> Option<usize> {
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1);
    ends.into_iter()
        .find(|end| is_whole(command, bytes.get(..*end).unwrap_or_default()))
}

/// Writes without waiting. A connection that does not take a whole command is shut down: the reader sees it and
/// makes another.
fn put(socket: &Socket, text: &[u8]) {
    let sent = rustix::net::send(socket, text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    if sent != Ok(text.len()) {
        rustix::net::shutdown(socket, Shutdown::Both).ok();
    }
}
