//! All clusters of the daemon, and the changes that signals and operators make to them. Changes come one after
//! another, under one lock that no command of a SIP server ever takes.

mod operate;
mod reload;
mod running;
pub mod upkeep_thread;

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};

use self::running::{Door, Running};
use self::upkeep_thread::{Inbox, Upkeep, UpkeepHandle};
use crate::admin::admin_thread::{self, AdminDoor, AdminHandle};
use crate::admin::operator::{Operator, Refusal};
use crate::config::{Parsed, model};
use crate::daemon::options::Options;
use crate::daemon::rights;
use crate::daemon::{Service, StartError};
use crate::health::health_thread::{self, Health, Message};
use crate::notify;
use crate::rim::now;
use crate::sockets::Sockets;
use crate::sockets::listener::BoundUnix;

/// How long commands in flight may take to be answered when the daemon stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// How long clients wait, in the queues of their sockets, for members that we know nothing of yet. Served at once
/// after a start, the first of them would be told that no member is online.
const FIRST_PROBES: Duration = Duration::from_millis(500);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// What signals, operators and the main thread share.
#[derive(Debug)]
pub struct Shared {
    clusters: RwLock<Vec<Arc<Running>>>,
    /// Held by whoever changes something; taken before any other lock.
    changes: Mutex<()>,
    health: Sender<Message>,
    upkeep: Upkeep,
    /// The file, and what it held when it was last read or written.
    file: Mutex<(PathBuf, Vec<u8>)>,
    options: Options,
    sockets: Arc<Sockets>,
    started: Instant,
    /// The next cluster's number.
    numbers: AtomicUsize,
}

/// The service that the daemon runs.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    health: Option<Health>,
    /// Taken when the upkeep thread is started.
    upkeep_inbox: Option<Inbox>,
    upkeep: Option<UpkeepHandle>,
    /// Bound, not served yet.
    doors: Vec<(model::Cluster, Door, Option<notify::Door>)>,
    admin_doors: Vec<(BoundUnix, bool)>,
    admin: Option<AdminHandle>,
    admin_files: Vec<crate::sockets::listener::SocketFile>,
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

    /// Makes a cluster that takes no command yet.
    fn make_cluster(
        &self,
        config: &model::Cluster,
        door: Door,
        relay: Option<notify::Door>,
    ) -> io::Result<Running> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        Running::start(
            number,
            config,
            (door, relay),
            self.health.clone(),
            self.upkeep.clone(),
        )
        .map_err(|error| io::Error::new(error.kind(), format!("cluster {}: {error}", config.name)))
    }

    /// One more cluster to be seen and, once it is opened, to take commands.
    fn enter(&self, running: Running) -> Arc<Running> {
        let running = Arc::new(running);
        self.clusters.write().push(Arc::clone(&running));
        running
    }
}

/// Waits until each member has been probed, or until that takes too long.
fn wait_for_first_probes<'a>(clusters: &(impl Iterator<Item = &'a Running> + Clone)) {
    let until = now() + FIRST_PROBES;
    let probed = |running: &Running| running.cluster.look(|_, core| core.round_is_over());
    while !clusters.clone().all(probed) && now() < until {
        std::thread::sleep(LOOK);
    }
}

impl Service for Server {
    fn bind(
        parsed: Parsed,
        contents: Vec<u8>,
        options: &Options,
        sockets: &Arc<Sockets>,
    ) -> Result<Self, StartError> {
        let (health, inbox) = health_thread::channel();
        let (upkeep, upkeep_inbox) = upkeep_thread::channel();
        let mut doors = Vec::new();
        let mut errors = Vec::new();
        for cluster in parsed.config.clusters {
            match (
                Door::open(&cluster, options, sockets),
                notify::Door::open(&cluster, sockets, |_| None),
            ) {
                (Ok(door), Ok(relay)) => doors.push((cluster, door, relay)),
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
        let shared = Shared {
            clusters: RwLock::default(),
            changes: Mutex::default(),
            health,
            upkeep,
            file: Mutex::new((options.config.clone(), contents)),
            options: options.clone(),
            sockets: Arc::clone(sockets),
            started: now(),
            numbers: AtomicUsize::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
            health: Some(Health::waiting(inbox)),
            upkeep_inbox: Some(upkeep_inbox),
            upkeep: None,
            doors,
            admin_doors,
            admin: None,
            admin_files: Vec::new(),
        })
    }

    fn start(&mut self) -> io::Result<()> {
        if let Some(health) = &mut self.health {
            health.start()?;
        }
        if let Some(inbox) = self.upkeep_inbox.take() {
            self.upkeep = Some(upkeep_thread::start(&self.shared, inbox)?);
        }
        for (config, door, relay) in self.doors.drain(..) {
            let running = self.shared.make_cluster(&config, door, relay)?;
            self.shared.enter(running);
        }
        let clusters = self.shared.clusters.read().clone();
        wait_for_first_probes(&clusters.iter().map(|running| &**running));
        for running in &clusters {
            running.open();
        }
        let mut doors = Vec::new();
        for (BoundUnix { listener, file }, read_only) in self.admin_doors.drain(..) {
            doors.push(AdminDoor { listener, read_only });
            self.admin_files.push(file);
        }
        let operator: Arc<dyn Operator> = Arc::<Shared>::clone(&self.shared);
        self.admin = Some(admin_thread::start(doors, operator)?);
        Ok(())
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
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
        if let Some(upkeep) = self.upkeep.take() {
            upkeep.stop();
        }
        let clusters = core::mem::take(&mut *self.shared.clusters.write());
        for running in &clusters {
            running.stop_accepting();
        }
        let until = now() + STOP_WITHIN;
        while clusters.iter().any(|running| running.cluster.is_busy()) && now() < until {
            std::thread::sleep(LOOK);
        }
        for running in &clusters {
            running.close();
        }
        if let Some(health) = self.health.take() {
            self.shared.health.send(Message::Stop).ok();
            health.join();
        }
    }
}
