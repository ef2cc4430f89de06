//! One cluster. Its thread, `cluster-N`, does all its input and output in one loop (`cluster_thread.rs`): control socket
//! and clients (`front/`), members' links ([`crate::link`]), the relay of notifications (`relay/`), and time. What others
//! may do with a cluster is here: read and change its [`Dispatch`], which is behind a lock, and ask the loop for what
//! needs a descriptor.

#[cfg(test)]
mod bench;
pub mod cluster_thread;
pub mod front;
mod links;
mod notes;
pub mod order;
pub mod relay;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::bounded;
use parking_lot::{Condvar, Mutex};

use self::cluster_thread::AtWork;
use self::order::{Order, Watch};
use crate::client::{Client, Connections};
use crate::config::model::{self, Name, Status};
use crate::dispatch::event::{Event, Recent, Subject, Traced};
use crate::dispatch::key::Key;
use crate::dispatch::members::MEMBERS_MAX;
use crate::dispatch::outbox::Outbox;
use crate::dispatch::session::MemberId;
use crate::dispatch::view::{ClusterView, MemberView, Summary};
use crate::dispatch::{Dispatch, Total};
use crate::health::health_thread::{Follower, Health, Whose};
use crate::health::news::News;
use crate::link::Link;
use crate::protocol::command::Verb;
use crate::rim::feed::Feed;
use crate::rim::lock::{Ranked, rank};
use crate::rim::readiness::Mailbox;
use crate::rim::{idle, now, wall};
use crate::sockets::BoundPort;

/// The dispatcher as it runs.
pub type Core = Dispatch<Client, ()>;
/// Its outbox.
pub type Out = Outbox<Client, ()>;

/// The numbers by which a cluster's descriptors are known to its loop: a kind, and a place among those of the kind.
mod tokens {
    /// Bits of a place.
    const SHIFT: u32 = usize::BITS - 4;
    /// The control socket.
    pub(super) const DOOR: usize = 1 << SHIFT;
    /// Its clients.
    pub(super) const CLIENT: usize = 2 << SHIFT;
    /// Members' links, each with [`NUMBERS`] of its own.
    pub(super) const LINK: usize = 3 << SHIFT;
    /// The relay's socket.
    pub(super) const RELAY: usize = 4 << SHIFT;
    /// Members that notify.
    pub(super) const INBOUND: usize = 5 << SHIFT;
    /// Sockets of the SIP server.
    pub(super) const OUTLET: usize = 6 << SHIFT;
    /// Tokens of one link.
    pub(super) const NUMBERS: usize = 256;

    pub(super) const fn kind(token: usize) -> usize {
        token >> SHIFT << SHIFT
    }

    pub(super) const fn place(token: usize) -> usize {
        token & !(15 << SHIFT)
    }
}

/// What happened to connections, counted without the lock.
#[derive(Debug, Default)]
pub struct FrontCounts {
    /// Accepted.
    pub accepted: AtomicU64,
    /// Put aside because their command was not whole.
    pub slow: AtomicU64,
    /// Closed for slowness, length or a full buffer.
    pub closed: AtomicU64,
    /// Repeated datagrams, answered from the cache or left to the command in flight.
    pub repeated: AtomicU64,
}

/// What is called when the last member has gone.
type Emptied = Box<dyn Fn() + Send + Sync>;

/// One cluster.
pub struct Cluster {
    /// Its name.
    pub name: Name,
    /// Its number, for the name of its thread and for the health thread.
    pub number: usize,
    /// Clients of its control socket.
    pub connections: Connections,
    /// What happened to them.
    pub front: FrontCounts,
    /// What became of disconnect notifications.
    pub notify: relay::Counts,
    core: Ranked<Core, { rank::DISPATCHER }>,
    /// The relay's socket, to be handed on.
    relay: Mutex<Option<relay::Door>>,
    orders: Mailbox<Order<AtWork>>,
    health: Health,
    /// What happens to it, for who watches.
    events: Arc<Feed<Event>>,
    /// What happens to calls, for who follows them.
    pub steps: Feed<Traced>,
    /// The last commands that came out badly.
    pub recent: Ranked<Recent, { rank::RECENT }>,
    /// Watches begun so far.
    watches: AtomicU64,
    emptied: Emptied,
    /// Notified when a member has been probed for the first time.
    probed: (Mutex<()>, Condvar),
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What became of a change to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is what it was to become.
    Done,
    /// It is not in the cluster any more.
    Gone,
    /// Nothing has changed: so many calls are bound to it.
    Bound(u64),
}

/// Whether `after` is another RTPproxy than `before`.
fn is_elsewhere(before: &model::Member, after: &model::Member) -> bool {
    (before.protocol, &before.address) != (after.protocol, &after.address)
}

/// Whether a member that becomes `after` wants another link.
pub fn needs_link(before: &model::Member, after: &model::Member) -> bool {
    is_elsewhere(before, after) || before.cmd_out_address != after.cmd_out_address
}

impl Cluster {
    /// A cluster without members. `emptied` is called when its last member has gone.
    pub fn new(
        number: usize,
        rules: &model::Cluster,
        orders: Mailbox<Order<AtWork>>,
        health: Health,
        events: Arc<Feed<Event>>,
        emptied: Emptied,
    ) -> Arc<Self> {
        let random = RandomState::new();
        let [seed, first, second] = [0_u8, 1, 2].map(|n| random.hash_one(n));
        let core = Dispatch::new(now(), rules.clone(), seed, Key::new([first, second]));
        Arc::new(Self {
            name: rules.name.clone(),
            number,
            connections: Connections::default(),
            front: FrontCounts::default(),
            notify: relay::Counts::default(),
            core: Ranked::new(core),
            relay: Mutex::new(None),
            orders,
            health,
            events,
            steps: Feed::default(),
            recent: Ranked::default(),
            watches: AtomicU64::new(0),
            emptied,
            probed: Default::default(),
        })
    }

    /// Takes one event: `event` decides under the lock. What it put into `out` is for the loop to carry out.
    fn decide<R>(&self, out: &mut Out, event: impl FnOnce(Instant, &mut Core, &mut Out) -> R) -> R {
        let now = now();
        out.tracing = self.steps.is_heard();
        event(now, &mut self.core.lock(), out)
    }

    /// Reads something under the lock, or changes what needs nothing carried out.
    pub fn look<R>(&self, look: impl FnOnce(Instant, &mut Core) -> R) -> R {
        let now = now();
        look(now, &mut self.core.lock())
    }

    /// Has the loop do something, and waits for it, which takes a turn of the loop. `None` when the cluster is over.
    pub fn ask<R: Send + 'static>(&self, act: impl FnOnce(&mut AtWork) -> R + Send + 'static) -> Option<R> {
        let (tell, told) = bounded(1);
        let order = Order::Do(Box::new(move |at_work| {
            tell.try_send(act(at_work)).ok();
        }));
        if !self.orders.post(order) {
            return None;
        }
        idle(|| told.recv()).ok()
    }

    /// Has the loop do something at its next turn.
    pub fn order(&self, act: impl FnOnce(&mut AtWork) + Send + 'static) {
        self.orders.post(Order::Do(Box::new(act)));
    }

    /// Has the loop take a turn.
    pub fn wake(&self) {
        self.orders.wake();
    }

    /// Tells who watches what has become of a member.
    pub fn tell(
        &self,
        member: &model::Member,
        old: Option<&'static str>,
        new: impl Into<Cow<'static, str>>,
        why: &str,
    ) {
        if self.events.is_heard() {
            self.events.tell(&Event {
                at: wall(),
                subject: Subject::Member {
                    cluster: self.name.clone(),
                    member: member.name.clone(),
                    address: member.address.to_string(),
                },
                old: old.map(Cow::Borrowed),
                new: new.into(),
                why: why.to_owned(),
            });
        }
    }

    /// Tells of a command or a reply, for `-vv`; at any other level this costs one comparison. A member is told by
    /// its place.
    fn trace(&self, what: fmt::Arguments<'_>, text: &[u8]) {
        log::trace!(
            "cluster {}: {what}: {}",
            self.name,
            text.trim_ascii_end().escape_ascii()
        );
    }

    /// How the health thread knows a member.
    fn whose(&self, id: MemberId) -> Whose {
        (self.number, u32::from(id.index) << 16 | u32::from(id.generation))
    }

    /// Places for `count` new members. Operators' changes come one after another, so the places stay free.
    ///
    /// # Errors
    /// When there would be too many members.
    pub fn places(&self, count: usize) -> io::Result<Vec<MemberId>> {
        self.look(|_, core| core.next_members(count)).ok_or_else(|| {
            let full = format!("a cluster has at most {MEMBERS_MAX} members");
            io::Error::new(io::ErrorKind::StorageFull, full)
        })
    }

    /// A new member at one of [`Cluster::places`], with its link; probed at once.
    pub fn add_member(self: &Arc<Self>, id: MemberId, member: &model::Member, link: Link) {
        // The loop has the link before it can hear that the member is online.
        let watch = self.next_watch();
        self.order(move |at_work| at_work.put_link(id, link, watch));
        let rules = self.look(|now, core| {
            core.add_member(now, id, member.clone(), ());
            core.rules().health
        });
        self.tell(member, None, "added", "");
        self.watch(id, watch, member, rules);
    }

    fn next_watch(&self) -> Watch {
        self.watches.fetch_add(1, Ordering::Relaxed)
    }

    fn watch(self: &Arc<Self>, id: MemberId, watch: Watch, member: &model::Member, rules: model::Health) {
        let follower = Arc::new(MemberOf {
            cluster: Arc::clone(self),
            id,
            watch,
        });
        self.health.watch(self.whose(id), member, rules, follower);
    }

    /// Makes a member what `after` says, in one step. `link` is the new one where [`needs_link`] wants one: to another
    /// RTPproxy, which is probed at once, and for which what was bound to the old one is forgotten (or the change
    /// refused, if `only_unbound`); or to the same one from another source address, which keeps everything, and
    /// takes the replies that are still on their way to the old one.
    pub fn change_member(
        self: &Arc<Self>,
        id: MemberId,
        after: &model::Member,
        link: Option<Link>,
        only_unbound: bool,
    ) -> Changed {
        let (is_new, watch) = (link.is_some(), self.next_watch());
        let link = link.map(|link| (link, watch));
        let wanted = after.clone();
        let done = self.ask(move |at_work| at_work.change_member(id, &wanted, link, only_unbound));
        match done {
            None => Changed::Gone,
            Some(Err(why)) => why,
            Some(Ok((before, rules))) => {
                self.tell_change(&before, after);
                if is_new {
                    self.watch(id, watch, after, rules);
                }
                Changed::Done
            }
        }
    }

    /// Tells who watches of a member that an operator or the file has made another.
    fn tell_change(&self, before: &model::Member, after: &model::Member) {
        if before.status != after.status {
            self.tell(after, Some(before.status.as_str()), after.status.as_str(), "");
        }
        let same_status = model::Member {
            status: after.status,
            ..before.clone()
        };
        if same_status != *after {
            self.tell(after, None, "changed", "");
        }
    }

    /// No new sessions for a member, or again. False when it has left.
    pub fn set_status(&self, id: MemberId, status: Status) -> bool {
        let changed = self.look(|_, core| {
            let before = core.member_of(id)?.config.clone();
            core.change_member(id, |member| member.status = status);
            Some(before)
        });
        if let Some(before) = &changed {
            self.tell_change(
                before,
                &model::Member {
                    status,
                    ..before.clone()
                },
            );
        }
        changed.is_some()
    }

    /// Other rules from now on; the health thread gets its part.
    pub fn set_rules(&self, rules: &model::Cluster) {
        self.look(|_, core| core.set_rules(rules));
        self.health.set_rules(self.number, rules.health);
    }

    /// Members leave: each at once where it is offline or has nothing to finish, else it gets no new sessions and
    /// is taken out when it has none left. Gives those that are out.
    pub fn delete_members(&self, ids: Vec<MemberId>) -> Vec<MemberId> {
        self.ask(move |at_work| at_work.delete_members(ids))
            .unwrap_or_default()
    }

    /// Takes a member out at once.
    pub fn remove_member(&self, id: MemberId) {
        self.ask(move |at_work| at_work.remove_members(&[id]));
    }

    /// Says so when new sessions have nowhere to go.
    pub fn warn_if_nobody_takes(&self) {
        if !self.look(|_, core| core.has_takers()) {
            log::warn!("cluster {}: no member is left for new sessions", self.name);
        }
    }

    /// Waits until each member has been probed, or `until` then; with one whose name is being looked up, up to
    /// `or_named`.
    pub fn await_first_probes(&self, until: Instant, or_named: Instant) {
        let mut guard = self.probed.0.lock();
        loop {
            let (over, named) = self.look(|_, core| (core.round_is_over(), core.awaits_name()));
            let until = if named { or_named } else { until };
            if over || now() >= until {
                return;
            }
            idle(|| self.probed.1.wait_until(&mut guard, until));
        }
    }

    fn tell_probed(&self) {
        let _guard = self.probed.0.lock();
        self.probed.1.notify_all();
    }

    /// Has this relay from now on, in the place of the one before.
    pub fn put_relay(&self, door: Option<relay::Door>) {
        self.relay.lock().clone_from(&door);
        self.order(move |at_work| at_work.put_relay(door));
    }

    /// Where disconnect notifications are taken.
    pub fn relay_address(&self) -> Option<SocketAddr> {
        self.relay.lock().as_ref().map(|door| door.address)
    }

    /// The socket of the relay, if it is at that address, to be handed on.
    pub fn relay_port(&self, address: SocketAddr) -> Option<Arc<BoundPort<TcpListener>>> {
        let relay = self.relay.lock();
        let door = relay.as_ref().filter(|door| door.address == address);
        door.map(|door| Arc::clone(&door.port))
    }

    /// Beginning of the paths of the SIP server's sockets for notifications, and whether it may have them over TCP too.
    fn notify_prefix(&self) -> Option<(String, bool)> {
        self.look(|_, core| {
            let notify = core.rules().disconnect_notify.as_ref();
            notify.map(|notify| {
                (
                    notify.dest_socket_prefix.clone(),
                    notify.tcp == model::NotifyTcp::Relay,
                )
            })
        })
    }

    /// Where connections to the SIP server leave from: the address by which it knows us.
    fn own_address(&self) -> Option<IpAddr> {
        self.look(|_, core| match core.rules().address {
            model::Address::Ip(address) if !address.ip().is_unspecified() => Some(address.ip()),
            _ => None,
        })
    }

    /// The cluster at this moment, counted.
    pub fn summary(&self) -> Summary {
        let clients = self.connections.count() as u64;
        self.look(|_, core| {
            let (active, inactive) = core.count_members();
            Summary {
                cluster: core.rules().clone(),
                draining: false,
                active,
                inactive,
                bound: core.bound(),
                in_flight: core.in_flight() as u64,
                clients,
            }
        })
    }

    /// The cluster at this moment.
    pub fn view(&self) -> ClusterView {
        let (mut view, members): (ClusterView, Vec<MemberView>) = self.look(|now, core| {
            let letters = Verb::ALL.iter().zip(core.outcomes());
            let commands = letters
                .map(|(verb, [good, bad, ours])| (verb.letter(), *good, *bad, *ours))
                .collect();
            let view = ClusterView {
                times: *core.times(),
                cluster: core.rules().clone(),
                draining: false,
                members: Vec::new(),
                bound: core.bound(),
                in_flight: core.in_flight() as u64,
                clients: 0,
                counters: *core.totals(),
                commands,
            };
            (view, core.member_views(now))
        });
        view.members = members;
        view.clients = self.connections.count() as u64;
        let counts = [
            (Total::ClientsAccepted, &self.front.accepted),
            (Total::ClientsSlow, &self.front.slow),
            (Total::ClientsClosed, &self.front.closed),
            (Total::Repeated, &self.front.repeated),
            (Total::Notifications, &self.notify.delivered),
            (Total::NotificationsDropped, &self.notify.dropped),
        ];
        for (total, counter) in counts {
            if let Some(place) = view.counters.get_mut(total as usize) {
                *place = counter.load(Ordering::Relaxed);
            }
        }
        view
    }
}

/// One of a cluster's members, as the health thread knows it.
#[derive(Debug)]
struct MemberOf {
    cluster: Arc<Cluster>,
    id: MemberId,
    watch: Watch,
}

impl Follower for MemberOf {
    fn tell(&self, news: News) {
        self.cluster.orders.post(Order::News(self.id, self.watch, news));
    }

    fn leave(&self, news: News) {
        self.cluster.orders.leave(Order::News(self.id, self.watch, news));
    }

    fn draining(&self) -> Option<bool> {
        self.cluster.look(|_, core| {
            let member = core.member_of(self.id)?;
            (member.config.status == Status::Draining).then(|| core.is_asked(self.id))
        })
    }

    fn bound(&self) -> u64 {
        self.cluster.look(|_, core| core.bound_to(self.id))
    }

    fn has_takers(&self) -> bool {
        self.cluster.look(|_, core| core.has_takers_online())
    }

    fn drained(&self) {
        let id = self.id;
        self.cluster.order(move |at_work| at_work.drained(id));
    }
}
