//! The thread that speaks with the server. It alone waits for it, and for a quarter of a second at most.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use redis::{Client, Connection, ConnectionLike as _, Pipeline, RedisError, Value};

use super::Shared;
use crate::config::model::Name;
use crate::dispatch::pending::Slot;
use crate::rim;
use crate::rim::throttle::Throttle;

/// The server has so long to connect, and for an answer.
const WITHIN: Duration = Duration::from_millis(250);
/// How often it looks whether something is due: a server that is away is tried again, what was not written is told again.
const TURN: Duration = Duration::from_secs(1);
/// Where something was not written all is told again so often at most: a pass over a million calls takes less.
const PASS_EVERY: Duration = Duration::from_secs(10);
/// Messages that go out together.
const BATCH: usize = 256;

/// What it is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A call is there.
    Set {
        /// The call.
        key: Vec<u8>,
        /// Its member.
        value: Arc<str>,
        /// The server forgets it after that.
        expire: Duration,
    },
    /// A call is nowhere.
    Delete {
        /// The call.
        key: Vec<u8>,
    },
    /// Where is this call?
    Get {
        /// Who wants to know.
        slot: Slot,
        /// The call.
        key: Vec<u8>,
    },
    /// Nothing more will come.
    Stop,
}

/// What the cluster is told.
pub struct Answers {
    /// Whether the server answers.
    pub is_here: Box<dyn Fn(bool) + Send>,
    /// What stands there of a call that was looked up.
    pub found: Box<dyn Fn(Slot, Option<Vec<u8>>) + Send>,
}

/// Speaks with the server until it is told to stop.
pub(super) fn run(
    client: &Client,
    messages: &Receiver<Message>,
    shared: &Shared,
    name: &Name,
    answers: &Answers,
) {
    let mut server: Option<Connection> = None;
    let (mut due, mut refused) = (rim::now(), Throttle::default());
    let mut told = due;
    loop {
        let now = rim::now();
        if due <= now {
            due = now + TURN;
            let is_new = server.is_none();
            if is_new {
                server = connect(client)
                    .map_err(|error| warn(&mut refused, now, name, &error))
                    .ok();
            }
            // All that is there is told again to a server that is back, and where something was not written.
            let again = || told + PASS_EVERY <= now && shared.gap.load(Ordering::Acquire);
            if server.is_some() && (is_new || again()) {
                told = now;
                shared.gap.store(false, Ordering::Release);
                shared.here.store(true, Ordering::Release);
                shared.wanted.fetch_add(1, Ordering::AcqRel);
                if is_new {
                    log::info!("cluster {name}: the store of sessions is connected");
                }
                (answers.is_here)(true);
            }
        }
        let first = match rim::idle(|| messages.recv_timeout(due.saturating_duration_since(rim::now()))) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let batch: Vec<Message> = [first]
            .into_iter()
            .chain(messages.try_iter().take(BATCH))
            .collect();
        let is_over = batch.iter().any(|message| matches!(message, Message::Stop));
        if let Some(connection) = &mut server {
            match carry_out(connection, &batch, answers) {
                Ok(None) => {}
                Ok(Some(error)) => {
                    shared.gap.store(true, Ordering::Release);
                    warn(&mut refused, now, name, &error);
                }
                Err(error) => {
                    server = None;
                    shared.here.store(false, Ordering::Release);
                    (answers.is_here)(false);
                    warn(&mut refused, now, name, &error);
                }
            }
        }
        if is_over {
            return;
        }
    }
}

fn warn(refused: &mut Throttle, now: Instant, name: &Name, error: &RedisError) {
    if let Some(times) = refused.hit(now) {
        log::warn!(
            "cluster {name}: the store of sessions: {error} ({times} time(s)); calls go on without it"
        );
    }
}

fn connect(client: &Client) -> Result<Connection, RedisError> {
    let connection = rim::idle(|| client.get_connection_with_timeout(WITHIN))?;
    connection.set_read_timeout(Some(WITHIN))?;
    connection.set_write_timeout(Some(WITHIN))?;
    Ok(connection)
}

/// Sends a batch and takes its answers. Gives what the server did not do, if there is something; an error is of the
/// connection, which is over then.
fn carry_out(
    server: &mut Connection,
    batch: &[Message],
    answers: &Answers,
) -> Result<Option<RedisError>, RedisError> {
    let mut pipe = Pipeline::new();
    let mut asked = VecDeque::new();
    for message in batch {
        match message {
            Message::Set { key, value, expire } => {
                let millis = u64::try_from(expire.as_millis()).unwrap_or(u64::MAX);
                pipe.cmd("SET").arg(key).arg(&**value).arg("PX").arg(millis);
            }
            Message::Delete { key } => {
                pipe.cmd("DEL").arg(key);
            }
            Message::Get { key, .. } => {
                pipe.cmd("GET").arg(key);
            }
            Message::Stop => continue,
        }
        asked.push_back(message);
    }
    if asked.is_empty() {
        return Ok(None);
    }
    let values = rim::idle(|| server.req_packed_commands(&pipe.get_packed_pipeline(), 0, asked.len()))?;
    let mut fault = None;
    for (message, value) in asked.into_iter().zip(values) {
        if let Message::Get { slot, .. } = message {
            let found = match &value {
                Value::BulkString(bytes) => Some(bytes.clone()),
                _ => None,
            };
            (answers.found)(*slot, found);
        }
        fault = value.extract_error().err().or(fault);
    }
    Ok(fault)
}
