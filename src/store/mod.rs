//! What dispatchers over the same members share: who has which call, in a Redis or Valkey server. Bindings are written
//! behind the calls, and calls that are not known here are looked up, by a thread for each cluster that no command waits
//! for. Without the server calls go on as if there were none.
//!
//! | file | does |
//! |---|---|
//! | `sharer.rs` | a cluster's side: what happens becomes messages, and where there is no room all is told again |
//! | `store_thread.rs` | the thread that speaks with the server |

mod sharer;
mod store_thread;

use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

pub use self::sharer::Sharer;
pub use self::store_thread::Answers;
use self::store_thread::Message;
use crate::config::model;
use crate::dispatch::outbox::LookUp;
use crate::rim::{self, Thread};

/// Messages that wait at most: a few megabytes. When there is no room what is bound is told again later, and a look-up
/// is not made.
const QUEUE: usize = 16_384;

/// What the thread and the cluster know of each other.
#[derive(Debug, Default)]
struct Shared {
    /// Whether the server answers: else nothing is handed over.
    here: AtomicBool,
    /// The number of the newest pass over all that is there; none is wanted before the first.
    wanted: AtomicU64,
    /// Something was not written: another pass is due.
    gap: AtomicBool,
}

/// A cluster's way to what dispatchers share.
#[derive(Debug)]
pub struct Store {
    url: String,
    key: String,
    expire: Duration,
    to: Sender<Message>,
    shared: Arc<Shared>,
    thread: Thread,
}

impl Store {
    /// Speaks with the server that a cluster names, if it does.
    ///
    /// # Errors
    /// When there is no thread to be had, or the URL is none.
    pub fn start(number: usize, config: &model::Cluster, answers: Answers) -> io::Result<Option<Self>> {
        let Some(url) = config.store.clone() else {
            return Ok(None);
        };
        let client = redis::Client::open(&*url).map_err(io::Error::other)?;
        let (to, messages) = crossbeam_channel::bounded(QUEUE);
        let shared = Arc::new(Shared::default());
        let (of_thread, name) = (Arc::clone(&shared), config.name.clone());
        let thread = rim::spawn(format!("store-{number}"), move || {
            store_thread::run(&client, &messages, &of_thread, &name, &answers);
        })?;
        Ok(Some(Self {
            url,
            key: key(config),
            expire: config.sessions.expire,
            to,
            shared,
            thread,
        }))
    }

    /// Whether it is what a cluster names.
    pub fn is_for(&self, config: &model::Cluster) -> bool {
        Some(&self.url) == config.store.as_ref()
            && self.key == key(config)
            && self.expire == config.sessions.expire
    }

    /// Who tells of what happens in the cluster.
    pub fn sharer(&self) -> Sharer {
        Sharer::new(
            self.key.clone(),
            self.expire,
            self.to.clone(),
            Arc::clone(&self.shared),
        )
    }

    /// How calls are looked up. Nobody waits: what there is no room for is not answered.
    pub fn finder(&self) -> impl Fn(LookUp) + Send + 'static {
        let (to, key) = (self.to.clone(), self.key.clone());
        move |LookUp { slot, call_id }| {
            let key = [key.as_bytes(), &call_id].concat();
            to.try_send(Message::Get { slot, key }).ok();
        }
    }

    /// Ends it. What is still to be written is written, if the server takes it.
    pub fn stop(self) {
        self.to.send(Message::Stop).ok();
        self.thread.join();
    }
}

/// What the keys of a cluster begin with: only clusters of the same name share.
fn key(config: &model::Cluster) -> String {
    format!("{}{}:", config.store_prefix, config.name)
}
