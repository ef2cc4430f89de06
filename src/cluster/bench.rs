//! A cluster whose loop is turned by a test, with sockets of the test for its clients and members.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;

use super::Cluster;
use super::cluster_thread::{AtWork, ORDERS};
use super::front::door::{Door, Held, Listens};
use super::order::Order;
use crate::config::model::{self, Address, Member, Name, Protocol};
use crate::dispatch::session::MemberId;
use crate::health::health_thread::HealthHandle;
use crate::health::news::News;
use crate::link::Link;
use crate::rim::now;
use crate::rim::readiness::Poller;
use crate::sockets::Sockets;
use crate::sockets::listener::{BoundUnix, Rights};

/// How long a test waits for what it wants to see.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Bench {
    pub(super) at_work: AtWork,
    pub(super) cluster: Arc<Cluster>,
    /// Never started: what it is told waits.
    _health: HealthHandle,
    pub(super) directory: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

fn sockets() -> Sockets {
    Sockets::new(&Arc::default(), Vec::new())
}

impl Bench {
    pub(super) fn new() -> Self {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("rtpc-bench-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let health = HealthHandle::new().unwrap();
        let poller = Poller::new().unwrap();
        let (mailbox, orders) = poller.mailbox(ORDERS).unwrap();
        let rules = model::Cluster::new(
            Name::new("C1").unwrap(),
            Protocol::Unix,
            Address::Path("/run/c1".into()),
        );
        let cluster = Cluster::new(
            0,
            &rules,
            mailbox,
            health.way(),
            std::sync::Arc::default(),
            Box::new(|| {}),
        );
        Self {
            at_work: AtWork::new(&cluster, poller, orders),
            cluster,
            _health: health,
            directory,
        }
    }

    /// Serves a UNIX socket by this protocol, at the path that is given back.
    pub(super) fn open_unix(&mut self, protocol: Protocol) -> PathBuf {
        let path = self.directory.join("control");
        let rights = Rights {
            uid: None,
            gid: None,
            mode: 0o600,
        };
        let BoundUnix { listener, file } = sockets().unix(&path, &rights).unwrap();
        let door = Door::new(Listens::Unix(listener), protocol, Held::File(file)).unwrap();
        self.at_work.open(door);
        path
    }

    /// Serves a UDP socket, at the address that is given back.
    pub(super) fn open_udp(&mut self) -> SocketAddr {
        let bound = sockets().udp(([127, 0, 0, 1], 0).into()).unwrap();
        let address = bound.socket.local_addr().unwrap();
        let listens = Listens::Udp(Arc::new(bound.socket));
        self.at_work
            .open(Door::new(listens, Protocol::Udp, Held::Port(bound.kept)).unwrap());
        address
    }

    pub(super) fn add_member(&mut self, protocol: Protocol, address: Address) -> MemberId {
        let member = Member::new(Name::new("M1").unwrap(), protocol, address, 100, 1000);
        let id = self.cluster.places(1).unwrap()[0];
        self.cluster.add_member(id, &member, Link::open(&member).unwrap());
        id
    }

    /// A member over UDP that is online, and the socket of it.
    pub(super) fn udp_member(&mut self) -> (MemberId, UdpSocket) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let id = self.add_member(Protocol::Udp, Address::Ip(socket.local_addr().unwrap()));
        self.online(id);
        (id, socket)
    }

    pub(super) fn online(&mut self, id: MemberId) {
        let why = "a test".to_owned();
        self.tell(id, News::State { online: true, why });
    }

    pub(super) fn tell(&mut self, id: MemberId, news: News) {
        let watch = self.cluster.watches.load(Ordering::Relaxed) - 1;
        self.cluster.orders.post(Order::News(id, watch, news));
        self.turn();
    }

    pub(super) fn is_online(&self, id: MemberId) -> bool {
        self.cluster
            .look(|_, core| core.member_of(id).is_some_and(|member| member.online))
    }

    /// One turn that waits for nothing.
    pub(super) fn turn(&mut self) -> bool {
        self.cluster.order(|_| {});
        self.at_work.turn()
    }

    /// Lets the loop go on by itself until `is_so`.
    pub(super) fn run_until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let end = now() + PATIENCE;
        while !is_so(self) {
            assert!(now() < end, "it never comes");
            self.turn();
        }
    }
}
