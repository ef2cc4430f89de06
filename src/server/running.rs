//! A cluster with its control socket and its thread: started, moved to another socket, closed.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cluster::cluster_thread::{self, AtWork, ORDERS};
use crate::cluster::front::door::{Door, Held, Listens};
use crate::cluster::order::Finder;
use crate::cluster::{Cluster, relay};
use crate::config::model::{self, Address, Protocol};
use crate::daemon::options::Options;
use crate::daemon::{StartError, rights};
use crate::dispatch::event::Event;
use crate::health::health_thread::Health;
use crate::link::Link;
use crate::rim::Thread;
use crate::rim::feed::Feed;
use crate::rim::names_thread::Names;
use crate::rim::readiness::Poller;
use crate::sockets::listener::BoundUnix;
use crate::sockets::{BoundPort, Sockets};
use crate::store::{Answers, Store};

/// How long the name of a control address may take to be found: an administrator waits for it.
const NAME_WITHIN: Duration = Duration::from_secs(2);

/// Binds the control socket of a cluster.
///
/// # Errors
/// With the path or address, the reason, and the exit status that fits.
pub(super) fn open_door(
    cluster: &model::Cluster,
    options: &Options,
    sockets: &Sockets,
    names: &Names,
) -> Result<Door, StartError> {
    let told = |message: String| StartError::new(1, format!("cluster {}: {message}", cluster.name));
    let at = |error: io::Error| told(format!("{}: {error}", cluster.address));
    let rights = rights::of_control_socket(options, &cluster.socket).map_err(told)?;
    let address = match &cluster.address {
        Address::Path(path) => {
            let BoundUnix { listener, file } = sockets.unix(path, &rights)?;
            return Door::new(Listens::Unix(listener), cluster.protocol, Held::File(file)).map_err(at);
        }
        Address::Ip(address) => *address,
        Address::Host(host, port) => names
            .address(host, *port, cluster.protocol.is_v6(), NAME_WITHIN)
            .map_err(at)?,
    };
    let (listens, kept) = if cluster.protocol.is_datagram() {
        let BoundPort { socket, kept } = sockets.udp(address)?;
        (Listens::Udp(Arc::new(socket)), kept)
    } else {
        let BoundPort { socket, kept } = sockets.tcp(address)?;
        (Listens::Tcp(socket), kept)
    };
    Door::new(listens, cluster.protocol, Held::Port(kept)).map_err(at)
}

/// Binds the socket of a cluster's relay, if it has one. `known` is the same socket if some cluster serves it now: it
/// is handed on, with what waits in it, and not bound twice.
///
/// # Errors
/// With the cluster, the address and the reason.
pub(super) fn open_relay(
    cluster: &model::Cluster,
    sockets: &Sockets,
    known: impl FnOnce(core::net::SocketAddr) -> Option<Arc<BoundPort<std::net::TcpListener>>>,
) -> Result<Option<relay::Door>, StartError> {
    let notify = cluster.disconnect_notify.as_ref();
    let Some(address) = notify.map(|notify| notify.inbound_address) else {
        return Ok(None);
    };
    if let Some(port) = known(address) {
        return Ok(Some(relay::Door { address, port }));
    }
    let port = sockets.tcp(address).map(Arc::new).map_err(|error| {
        StartError::new(
            error.exit(),
            format!(
                "cluster {}: inbound_address of <disconnect_notify>: {error}",
                cluster.name
            ),
        )
    })?;
    Ok(Some(relay::Door { address, port }))
}

/// A cluster at work.
#[derive(Debug)]
pub(super) struct Running {
    /// The cluster.
    pub(super) cluster: Arc<Cluster>,
    /// Whether it closes when its members are gone.
    pub(super) draining: AtomicBool,
    /// Its control socket, which may be handed on.
    door: Mutex<Option<Door>>,
    thread: Mutex<Option<Thread>>,
    /// What it shares with other dispatchers, if it does.
    store: Mutex<Option<Store>>,
}

impl Running {
    /// A cluster with its thread and its members, all at work, but taking no command before [`Running::open`].
    ///
    /// # Errors
    /// When the system has no more threads or descriptors, or an address is not one of this machine.
    pub(super) fn start(
        number: usize,
        config: &model::Cluster,
        (door, relay): (Door, Option<relay::Door>),
        health: Health,
        events: Arc<Feed<Event>>,
        emptied: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mut links = Vec::new();
        for member in &config.members {
            links.push(open_link(member)?);
        }
        let poller = Poller::new()?;
        let (mailbox, orders) = poller.mailbox(ORDERS)?;
        let cluster = Cluster::new(number, config, mailbox, health, events, Box::new(emptied));
        let thread = cluster_thread::start(&cluster, poller, orders)?;
        let running = Self {
            cluster,
            draining: AtomicBool::new(false),
            door: Mutex::new(Some(door)),
            thread: Mutex::new(Some(thread)),
            store: Mutex::default(),
        };
        let cluster = &running.cluster;
        match cluster.places(config.members.len()) {
            Ok(ids) => {
                for ((member, id), link) in config.members.iter().zip(ids).zip(links) {
                    cluster.add_member(id, member, link);
                }
                cluster.put_relay(relay);
                Ok(running)
            }
            Err(error) => {
                running.close();
                Err(error)
            }
        }
    }

    /// Shares what is bound with other dispatchers where `config` says, or not any more. What is shared there already
    /// goes on.
    pub(super) fn share(&self, config: &model::Cluster) {
        let mut store = self.store.lock();
        if store
            .as_ref()
            .map_or(config.store.is_none(), |store| store.is_for(config))
        {
            return;
        }
        self.unshare(store.take());
        let (told, asked) = (Arc::downgrade(&self.cluster), Arc::downgrade(&self.cluster));
        let answers = Answers {
            is_here: Box::new(move |is_here| {
                if let Some(cluster) = told.upgrade() {
                    cluster.look(|_, core| core.set_shared(is_here));
                }
            }),
            found: Box::new(move |slot, found| {
                if let Some(cluster) = asked.upgrade() {
                    cluster.order(move |at_work| at_work.looked_up(slot, found.as_deref()));
                }
            }),
        };
        match Store::start(self.cluster.number, config, answers) {
            Ok(Some(new)) => {
                let finder = Finder::new(new.finder());
                self.cluster.order(move |at_work| at_work.finder = finder);
                let sharer = Box::new(new.sharer());
                self.cluster.look(|now, core| core.share(now, Some(sharer)));
                *store = Some(new);
            }
            Ok(None) => {}
            Err(error) => log::warn!("cluster {}: the store of sessions: {error}", self.cluster.name),
        }
    }

    fn unshare(&self, store: Option<Store>) {
        if let Some(store) = store {
            self.cluster.look(|now, core| core.share(now, None));
            store.stop();
            self.cluster.look(|_, core| core.set_shared(false));
            self.cluster.order(|at_work| at_work.finder = Finder::default());
        }
    }

    /// Takes commands from now on.
    pub(super) fn open(&self) {
        let door = self.door.lock().clone();
        if let Some(door) = door {
            self.cluster.order(move |at_work| at_work.open(door));
        }
    }

    /// Serves another control socket from now on; [`Running::stop_accepting`] has ended the old one.
    pub(super) fn move_to(&self, door: Door) {
        *self.door.lock() = Some(door);
        self.open();
    }

    /// The control socket for another cluster, or over another protocol, while it is still served here.
    pub(super) fn door_over(&self, protocol: Protocol) -> Option<Door> {
        self.door.lock().as_ref().map(|door| door.over(protocol))
    }

    /// Whether its control socket is where it was bound: a file of ours may have been removed.
    pub(super) fn socket_is_there(&self) -> bool {
        self.door.lock().as_ref().is_none_or(Door::is_there)
    }

    /// The path of its control socket, if that is a file.
    pub(super) fn socket_path(&self) -> Option<PathBuf> {
        let door = self.door.lock();
        door.as_ref()?.path().map(Into::into)
    }

    /// Takes no further command. What is in flight is answered.
    pub(super) fn stop_accepting(&self) {
        let door = self.door.lock().take();
        self.cluster.ask(AtWork::close);
        // The last to hold it closes it.
        drop(door);
    }

    /// Begins to end it: what is in flight is answered, `within` that time.
    pub(super) fn end(&self, within: Duration) {
        self.cluster.order(move |at_work| at_work.end(within));
    }

    /// Waits until it has ended. Its control socket is closed then.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
        drop(self.door.lock().take());
        let store = self.store.lock().take();
        self.unshare(store);
    }

    /// Ends all of it: what is still in flight is answered with an error of ours.
    pub(super) fn close(&self) {
        self.end(Duration::ZERO);
        self.join();
    }

    /// Whether it is being deleted.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// A link for a member, not used yet. Nothing is waited for.
///
/// # Errors
/// With the member: when the system has no socket to give, or the source address is not one of this machine.
pub(super) fn open_link(member: &model::Member) -> io::Result<Link> {
    Link::open(member).map_err(|error| {
        let (name, address) = (&member.name, &member.address);
        io::Error::new(error.kind(), format!("member {name} ({address}): {error}"))
    })
}
