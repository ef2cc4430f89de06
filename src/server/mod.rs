//! All clusters of the daemon, and the changes that signals and operators make to them. Changes come one after
//! another, under one lock that no command of a SIP server ever takes.

mod changes;
mod finder_thread;
mod operate;
mod reload;
mod restore;
mod running;
mod takeover_thread;

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use self::finder_thread::Finder;
use self::running::{Running, open_door, open_relay};
use crate::admin::admin_thread::{self, AdminDoor, AdminHandle};
use crate::admin::operator::{Operator, Refusal};
use crate::cluster::front::door::Door;
use crate::cluster::relay;
use crate::config::{Parsed, model};
use crate::daemon::options::Options;
use crate::daemon::rights;
use crate::daemon::{Service, StartError};
use crate::dispatch::event::{Event, Subject};
use crate::health::health_thread::{Health, HealthHandle};
use crate::rim::feed::Feed;
use crate::rim::lock::{Ranked, rank};
use crate::rim::names_thread::Names;
use crate::rim::{Thread, now, wall};
use crate::sockets::Sockets;
use crate::sockets::handover::Waits;
use crate::sockets::listener::{BoundUnix, SocketFile};
use crate::state::Store;

/// How long commands in flight may take to be answered when the daemon stops, or their cluster.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// How long clients wait, in the queues of their sockets, for members that we know nothing of yet. Served at once
/// after a start, the first of them would be told that no member is online.
const FIRST_PROBES: Duration = Duration::from_millis(500);
/// The same for a member whose name has to be looked up before it can be probed.
const FIRST_NAMES: Duration = Duration::from_secs(2);
/// The same where our predecessor serves them meanwhile: a member that is not there is known to be lost by then.
const FIRST_PROBES_OF_A_SUCCESSOR: Duration = Duration::from_secs(10);

/// What signals, operators and the main thread share.
#[derive(Debug)]
pub struct Shared {
    this: Weak<Shared>,
    clusters: RwLock<Vec<Arc<Running>>>,
    /// Held by whoever changes something; taken before any other lock.
    changes: Ranked<(), { rank::CHANGES }>,
    health: Health,
    /// What happens, for who watches.
    events: Arc<Feed<Event>>,
    names: Arc<Names>,
    /// The file, and what it held when it was last read or written.
    file: Ranked<(PathBuf, Vec<u8>), { rank::FILE }>,
    options: Options,
    sockets: Arc<Sockets>,
    started: Instant,
    /// The next cluster's number.
    numbers: AtomicUsize,
    /// Once there is a name that leads to members.
    finder: Mutex<Option<Finder>>,
    /// While a successor takes over.
    takeover: Mutex<Option<Thread>>,
    /// Once the admin thread runs, and until it is told to end.
    admin: Mutex<Option<Admin>>,
    /// The state directory, if there is one.
    state: Mutex<Option<Store>>,
    /// Who gets the state directory when we have written all.
    successor: Mutex<Option<Waits>>,
}

/// The admin thread, and the files of its doors in their order.
#[derive(Debug)]
struct Admin {
    thread: AdminHandle,
    files: Vec<SocketFile>,
}

/// The service that the daemon runs.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    health: Option<HealthHandle>,
    /// Bound, not served yet.
    doors: Vec<(model::Cluster, Door, Option<relay::Door>)>,
    admin_doors: Vec<(BoundUnix, bool)>,
    /// Clusters that were being deleted when our predecessor ended.
    deleted: Vec<model::Name>,
}

impl Shared {
    /// The running cluster of that name.
    fn find(&self, name: &str) -> Result<Arc<Running>, Refusal> {
        let clusters = self.clusters.read();
        let found = clusters
            .iter()
            .find(|running| running.cluster.name.as_str() == name);
        found.cloned().ok_or_else(|| Refusal::NoCluster(name.to_owned()))
    }

    /// Tells who watches.
    fn tell(&self, subject: Subject, new: &'static str, why: &str) {
        self.events.tell(&Event {
            at: wall(),
            subject,
            old: None,
            new: new.into(),
            why: why.to_owned(),
        });
    }

    fn tell_cluster(&self, running: &Running, new: &'static str, why: &str) {
        self.tell(Subject::Cluster(running.cluster.name.clone()), new, why);
    }

    /// Makes a cluster that takes no command yet.
    fn make_cluster(
        &self,
        config: &model::Cluster,
        door: Door,
        relay: Option<relay::Door>,
    ) -> io::Result<Running> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let shared = Weak::clone(&self.this);
        // A cluster that is being deleted goes with its last member: the admin thread sees to it.
        let emptied = move || {
            if let Some(shared) = shared.upgrade()
                && let Some(admin) = &*shared.admin.lock()
            {
                admin.thread.wake();
            }
        };
        let (health, events) = (self.health.clone(), Arc::clone(&self.events));
        Running::start(number, config, (door, relay), health, events, emptied)
            .map_err(|error| io::Error::new(error.kind(), format!("cluster {}: {error}", config.name)))
    }

    /// Brings back what is known of calls, and has it kept from now on, where that is wanted.
    fn open_state(&self) {
        if let Some(path) = &self.options.state_dir {
            let clusters = self.clusters.read().clone();
            *self.state.lock() = restore::open(path, &clusters);
        }
    }

    /// One more cluster to be seen and, once it is opened, to take commands.
    fn enter(&self, running: Running) -> Arc<Running> {
        let running = Arc::new(running);
        self.tell_cluster(&running, "added", "");
        if let Some(store) = &*self.state.lock() {
            restore::keep(store.recorders(), &running);
        }
        let rules = running.cluster.look(|_, core| core.rules().clone());
        running.share(&rules);
        self.clusters.write().push(Arc::clone(&running));
        running
    }
}

fn names_of(config: &model::Config) -> Vec<model::Name> {
    config
        .clusters
        .iter()
        .map(|cluster| cluster.name.clone())
        .collect()
}

/// Waits until each member has been probed, or until that takes too long.
fn await_first_probes<'a>(clusters: impl Iterator<Item = &'a Running>, at_most: Duration) {
    let begun = now();
    for running in clusters {
        let named = begun + at_most.max(FIRST_NAMES);
        running.cluster.await_first_probes(begun + at_most, named);
    }
}

impl Service for Server {
    fn bind(
        parsed: Parsed,
        contents: Vec<u8>,
        options: &Options,
        sockets: &Arc<Sockets>,
    ) -> Result<Self, StartError> {
        let health = HealthHandle::new().map_err(|error| StartError::new(1, format!("health: {error}")))?;
        let names = Arc::new(Names::default());
        let mut doors = Vec::new();
        let mut errors = Vec::new();
        let in_file: Vec<model::Name> = names_of(&parsed.config);
        let (config, deleted) = match &options.state_dir {
            Some(dir) => changes::bring_back(dir, &options.config, &contents, parsed.config),
            None => (parsed.config, Vec::new()),
        };
        for cluster in config.clusters {
            match (
                open_door(&cluster, options, sockets, &names),
                open_relay(&cluster, sockets, |_| None),
            ) {
                (Ok(door), Ok(relay)) => doors.push((cluster, door, relay)),
                // What an operator added is no reason not to start.
                (door, relay) if !in_file.contains(&cluster.name) => {
                    for error in door.err().into_iter().chain(relay.err()) {
                        log::warn!("{}: left out: it is not in the file", error.messages.join("; "));
                    }
                }
                (door, relay) => errors.extend(door.err().into_iter().chain(relay.err())),
            }
        }
        let mut admin_doors = Vec::new();
        let paths = [
            (Some(&options.admin_socket), false),
            (options.readonly_socket.as_ref(), true),
        ];
        for (path, read_only) in paths {
            let Some(path) = path else { continue };
            let rights =
                rights::of_admin_socket(options, read_only).map_err(|error| StartError::new(1, error))?;
            match sockets.unix(path, &rights) {
                Ok(bound) => admin_doors.push((bound, read_only)),
                Err(error) => errors.push(error.into()),
            }
        }
        if let Some(first) = errors.first() {
            // Whatever else is wrong, another instance is the reason that helps most.
            let exit = if errors.iter().any(|error| error.exit == 75) {
                75
            } else {
                first.exit
            };
            return Err(StartError {
                exit,
                messages: errors.into_iter().flat_map(|error| error.messages).collect(),
            });
        }
        let shared = Arc::new_cyclic(|this| Shared {
            this: Weak::clone(this),
            clusters: RwLock::default(),
            changes: Ranked::default(),
            health: health.way(),
            events: Arc::default(),
            names,
            file: Ranked::new((options.config.clone(), contents)),
            options: options.clone(),
            sockets: Arc::clone(sockets),
            started: now(),
            numbers: AtomicUsize::new(0),
            finder: Mutex::default(),
            takeover: Mutex::default(),
            admin: Mutex::default(),
            state: Mutex::default(),
            successor: Mutex::default(),
        });
        Ok(Self {
            shared,
            health: Some(health),
            doors,
            admin_doors,
            deleted,
        })
    }

    fn start(&mut self) -> io::Result<()> {
        if let Some(health) = &mut self.health {
            health.start(Arc::clone(&self.shared.names))?;
        }
        let clusters = self.doors.iter_mut().map(|(cluster, ..)| cluster);
        self.shared.find_first(clusters);
        for (config, door, relay) in self.doors.drain(..) {
            let running = self.shared.make_cluster(&config, door, relay)?;
            let running = self.shared.enter(running);
            let is_deleted = self.deleted.contains(&config.name);
            running.draining.store(is_deleted, Ordering::Release);
        }
        let clusters = self.shared.clusters.read().clone();
        let at_most = if self.shared.options.takeover {
            FIRST_PROBES_OF_A_SUCCESSOR
        } else {
            // Read while members are probed. A predecessor that still serves has more to write.
            self.shared.open_state();
            FIRST_PROBES
        };
        await_first_probes(clusters.iter().map(|running| &**running), at_most);
        let (mut doors, mut files) = (Vec::new(), Vec::new());
        for (BoundUnix { listener, file }, read_only) in self.admin_doors.drain(..) {
            doors.push(AdminDoor { listener, read_only });
            files.push(file);
        }
        let operator: Arc<dyn Operator> = Arc::<Shared>::clone(&self.shared);
        let thread = admin_thread::start(doors, operator)?;
        *self.shared.admin.lock() = Some(Admin { thread, files });
        Ok(())
    }

    fn serve(&self) {
        let change = self.shared.changes.lock();
        if self.shared.options.takeover {
            self.shared.open_state();
        }
        for running in &*self.shared.clusters.read() {
            running.open();
        }
        self.shared.keep_changes();
        drop(change);
        self.shared.watch_pools();
        // One may have been emptied before.
        self.shared.close_drained();
    }

    fn reload(&self) -> Result<String, String> {
        match self.shared.reload() {
            Ok(loaded) => Ok(format!(
                "Loaded {} clusters and {} RTP proxies",
                loaded.clusters, loaded.members
            )),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    fn dump(&self) -> String {
        let mut text = String::new();
        for view in self.shared.clusters() {
            let online = view.members.iter().filter(|member| member.online).count();
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "cluster {}: {} of {} members online, {} calls bound, {} commands in flight, {} clients",
                view.cluster.name,
                online,
                view.members.len(),
                view.bound,
                view.in_flight,
                view.clients
            );
            for member in &view.members {
                let state = if member.online { "online" } else { "offline" };
                let delay = member.delay.unwrap_or_default().as_secs_f64() * 1000.0;
                let _ = writeln!(
                    text,
                    "  member {} ({}): {state} {} s ({}), {}, {} bound, {} in flight, delay {delay:.1} ms",
                    member.member.name,
                    member.member.address,
                    member.since.as_secs(),
                    member.why,
                    member.member.status.as_str(),
                    member.bound,
                    member.in_flight
                );
            }
        }
        text
    }

    fn stop(mut self) {
        // Joined without the lock: a reload that it is at wants that.
        let admin = self.shared.admin.lock().take();
        if let Some(Admin { thread, files }) = admin {
            thread.stop();
            drop(files);
        }
        // Joined without the lock: it may be at a change.
        let finder = self.shared.finder.lock().take();
        if let Some(finder) = finder {
            finder.stop();
        }
        // Its connection has been shut.
        let takeover = self.shared.takeover.lock().take();
        if let Some(takeover) = takeover {
            takeover.join();
        }
        let clusters = core::mem::take(&mut *self.shared.clusters.write());
        for running in &clusters {
            running.end(STOP_WITHIN);
        }
        for running in &clusters {
            running.join();
        }
        let store = self.shared.state.lock().take();
        if let Some(store) = store {
            store.stop();
        }
        drop(self.shared.successor.lock().take());
        if let Some(health) = self.health.take() {
            health.stop();
        }
        self.shared.names.close();
    }
}
