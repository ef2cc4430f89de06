//! The workers: each takes a connection, reads one request, answers and closes. There are few of them and none waits long
//! for a client, so what many slow clients can take is bounded; who finds all busy waits in the system's queue.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use socket2::Socket;

use super::State;
use super::http::{self, HEAD_MAX, Request, Response};
use crate::rim;

/// Connections that are served at a time.
pub const WORKERS: usize = 16;
/// Time for the head of a request to be whole.
pub const HEAD_WITHIN: Duration = Duration::from_secs(3);
/// Time for an answer to be taken, of some megabytes over a slow line.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// After an answer: what a client still sends is read that long, since a close with unread bytes takes the answer away
/// from it (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_millis(500);
/// Between two tries when the system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until it is shut down and `stop` closed.
pub(super) fn run(listener: &Socket, state: &State, stop: &Receiver<()>) {
    loop {
        match rim::idle(|| listener.accept()) {
            Ok((client, _)) => serve(client, state),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            // Shut down, or out of descriptors.
            Err(_) => match rim::idle(|| stop.recv_timeout(PAUSE)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            },
        }
    }
}

/// One connection. A client that goes away meanwhile has nobody to be told of it.
fn serve(mut client: Socket, state: &State) {
    let (response, head_only) = match request(&mut client) {
        None => return,
        Some(Ok(request)) => (state.answer(&request), request.head_only),
        Some(Err(refusal)) => (refusal, false),
    };
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let bytes = response.bytes(now.as_secs(), head_only);
    if write(&mut client, &bytes, rim::now() + ANSWER_WITHIN) && client.shutdown(Shutdown::Write).is_ok() {
        drain(&mut client, rim::now() + LINGER);
    }
}

/// The request, or what is answered in its place; `None` where nothing came.
fn request(client: &mut Socket) -> Option<Result<Request, Response>> {
    let until = rim::now() + HEAD_WITHIN;
    let mut head = Vec::new();
    loop {
        let mut part = [0; HEAD_MAX];
        let length = match read(client, &mut part, until) {
            Ok(0) | Err(ErrorKind::ConnectionReset) => return None,
            Ok(length) => length,
            Err(_) if head.is_empty() => return None,
            Err(_) => return Some(Err(Response::refusal(408, "the request did not come in time"))),
        };
        head.extend_from_slice(part.get(..length).unwrap_or_default());
        match http::read(&head) {
            Ok(None) => {}
            Ok(Some(request)) => return Some(Ok(request)),
            Err(refusal) => return Some(Err(refusal)),
        }
    }
}

/// What there is to read, waiting until then for it.
fn read(client: &mut Socket, part: &mut [u8], until: Instant) -> Result<usize, ErrorKind> {
    loop {
        let left = until.saturating_duration_since(rim::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut);
        }
        client
            .set_read_timeout(Some(left))
            .map_err(|error| error.kind())?;
        match rim::idle(|| client.read(part)) {
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            other => return other.map_err(|error| error.kind()),
        }
    }
}

/// Whether all was taken in time.
fn write(client: &mut Socket, mut bytes: &[u8], until: Instant) -> bool {
    while !bytes.is_empty() {
        let left = until.saturating_duration_since(rim::now());
        if left.is_zero() || client.set_write_timeout(Some(left)).is_err() {
            return false;
        }
        match rim::idle(|| client.write(bytes)) {
            Ok(0) => return false,
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Reads and forgets until the client closes, a little while at most.
fn drain(client: &mut Socket, until: Instant) {
    let mut part = [0; HEAD_MAX];
    while matches!(read(client, &mut part, until), Ok(1..)) {}
}
