//! One cluster at work: its [`Dispatch`] under a lock, the links of its members, its clients' connections.
//! Every event of every thread goes through [`Cluster::act`]: decide under the lock, carry out after it.

use core::cell::RefCell;
use core::fmt;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::config::model::{self, Name, Status};
use crate::dispatch::key::Key;
use crate::dispatch::members::MEMBERS_MAX;
use crate::dispatch::outbox::{Note, Outbox, Probed};
use crate::dispatch::session::MemberId;
use crate::dispatch::view::{ClusterView, MemberView, Summary};
use crate::dispatch::{Dispatch, Total};
use crate::front::client::Client;
use crate::front::connections::Connections;
use crate::health::health_thread::Message;
use crate::link::timer_thread::{POSTS, Post};
use crate::link::{Label, Link, Sink};
use crate::notify::{self, Relay};
use crate::protocol::command::Verb;
use crate::protocol::cookie::Cookie;
use crate::rim::now;
use crate::server::upkeep_thread::Upkeep;
use crate::sockets::BoundPort;

/// The dispatcher as it runs.
pub type Core = Dispatch<Client, Arc<Link>>;
/// Its outbox.
pub type Out = Outbox<Client, Arc<Link>>;

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

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its name.
    pub name: Name,
    /// Its number, for the names of its threads and the health thread's list.
    pub number: usize,
    /// Clients of its control socket.
    pub connections: Connections,
    /// What happened to them.
    pub front: FrontCounts,
    /// What became of disconnect notifications.
    pub notify: notify::Counts,
    core: Mutex<Core>,
    /// Where there is a `<disconnect_notify>`.
    relay: Mutex<Option<Relay>>,
    posts: Sender<Post>,
    health: Sender<Message>,
    upkeep: Upkeep,
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

thread_local! {
    /// The outbox of a thread that belongs to a link, which knows nothing of clusters.
    static OUT: RefCell<Out> = RefCell::default();
}

impl Cluster {
    /// A cluster without members, and what its timer thread is to read.
    pub fn new(
        number: usize,
        rules: &model::Cluster,
        health: Sender<Message>,
        upkeep: Upkeep,
    ) -> (Arc<Self>, Receiver<Post>) {
        let (posts, receiver) = bounded(POSTS);
        let random = RandomState::new();
        let [seed, first, second] = [0, 1, 2].map(|n| random.hash_one(n));
        let key = Key::new([first, second]);
        let core = Dispatch::new(now(), rules.clone(), seed, key);
        let cluster = Self {
            name: rules.name.clone(),
            number,
            connections: Connections::default(),
            front: FrontCounts::default(),
            notify: notify::Counts::default(),
            core: Mutex::new(core),
            relay: Mutex::new(None),
            posts,
            health,
            upkeep,
        };
        (Arc::new(cluster), receiver)
    }

    /// Takes one event: `event` decides under the lock, what it put into `out` is carried out after it.
    pub fn act<R>(&self, out: &mut Out, event: impl FnOnce(Instant, &mut Core, &mut Out) -> R) -> R {
        let result = self.decide(out, event);
        self.settle(out);
        result
    }

    /// Takes one event as [`Cluster::act`] does, and leaves what is to be done in `out` for [`Cluster::settle`].
    pub fn decide<R>(&self, out: &mut Out, event: impl FnOnce(Instant, &mut Core, &mut Out) -> R) -> R {
        let now = now();
        event(now, &mut self.core.lock(), out)
    }

    /// Carries out what several events have left in `out`.
    pub fn settle(&self, out: &mut Out) {
        let now = now();
        while self.carry_out(now, out) {}
    }

    /// Reads something under the lock.
    pub fn look<R>(&self, look: impl FnOnce(Instant, &mut Core) -> R) -> R {
        let now = now();
        look(now, &mut self.core.lock())
    }

    /// Tells of a command or a reply, for `-vv`; at any other level this costs one comparison. A member is told by
    /// its place, as in the name of its thread.
    pub fn trace(&self, what: fmt::Arguments<'_>, text: &[u8]) {
        log::trace!(
            "cluster {}: {what}: {}",
            self.name,
            text.trim_ascii_end().escape_ascii()
        );
    }

    /// Does what is in `out`. Says whether that gave more to do.
    fn carry_out(&self, now: Instant, out: &mut Out) -> bool {
        out.drain_replies(|client, text| {
            self.trace(format_args!("reply"), text);
            client.reply(text);
        });
        let mut refused: Vec<MemberId> = Vec::new();
        out.drain_sends(|send, text| {
            self.trace(format_args!("to member {}", send.member.index), text);
            if send.link.send(send.cookie, send.again, text).is_err() {
                refused.push(send.member);
            }
        });
        if out.wake_timer {
            // A full queue wakes it as well.
            self.posts.try_send(Post::Wake).ok();
        }
        out.reset();
        out.dropped.clear();
        if !out.notices.is_empty() {
            self.tell_notices(out);
        }
        if out.has_news() {
            self.tell_news(now, out);
        }
        if refused.is_empty() {
            return false;
        }
        let mut core = self.core.lock();
        refused.dedup();
        for id in refused {
            core.refused(now, id, out);
        }
        true
    }

    /// Hands what is said in a lost member's place to the relay.
    fn tell_notices(&self, out: &mut Out) {
        let relay = self.relay.lock();
        let mut dropped = 0;
        for notice in out.notices.drain(..) {
            let taken = relay.as_ref().is_some_and(|relay| relay.tell(notice));
            dropped += u64::from(!taken);
        }
        self.notify.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    /// What the health thread and the operator should know.
    fn tell_news(&self, at: Instant, out: &mut Out) {
        let cluster = self.number;
        for (member, result) in out.probed.drain(..) {
            self.tell_health(Message::Probed {
                cluster,
                member,
                result,
                at,
            });
        }
        for member in out.suspects.drain(..) {
            self.tell_health(Message::Suspect { cluster, member });
        }
        for member in out.refused.drain(..) {
            self.tell_health(Message::Probed {
                cluster,
                member,
                result: Probed::Refused,
                at,
            });
        }
        for note in out.notes.drain(..) {
            self.log(&note);
        }
    }

    /// The queue holds several rounds of all probes; when it is full all the same, a probe goes missing and is
    /// sent again.
    fn tell_health(&self, message: Message) {
        if self.health.try_send(message).is_err() {
            log::debug!("{}: the health thread is behind", self.name);
        }
    }

    fn log(&self, note: &Note) {
        let name = &self.name;
        match note {
            Note::TableFull { calls } => log::warn!(
                "cluster {name}: the session table is full: {calls} new call(s) served unbound; \
                 <sessions max=…/> allows more"
            ),
            Note::WishesFull { sessions } => log::warn!(
                "cluster {name}: {sessions} session(s) of which nothing will be told when their member is lost: \
                 <sessions max=…/> allows more, 1,024 bytes of tags are the most for one"
            ),
            Note::Overloaded { commands } => {
                log::warn!("cluster {name}: too many commands in flight: {commands} refused");
            }
            Note::TwoHomes { bound, also, calls } => log::warn!(
                "cluster {name}: a call bound to {bound} is at {also} too; {calls} such call(s) in all"
            ),
            Note::Garbage {
                member,
                excerpt,
                replies,
            } => log::warn!(
                "member {member} of {name}: {replies} reply(s) that can be none, such as \"{}\"",
                excerpt.escape_ascii()
            ),
            Note::DeletesDropped { member, deletes } => log::warn!(
                "member {member} of {name}: too many deletes wait for it; {deletes} dropped, \
                 those sessions will time out there"
            ),
        }
    }

    /// Something for the timer thread, from the health thread.
    pub fn post(&self, post: Post) {
        // The timer thread always comes back to its queue; a state must not be lost.
        self.posts.send(post).ok();
    }

    /// Places for `count` new members, each for a link that [`Cluster::open_link`] makes. Operators' changes come one
    /// after another, so the places stay free.
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
    pub fn add_member(self: &Arc<Self>, id: MemberId, member: model::Member, link: Arc<Link>) {
        let rules = self.look(|now, core| {
            core.add_member(now, id, member, link);
            core.rules().health
        });
        self.watch(id, rules);
    }

    /// A link for a member, not used yet. Nothing is waited for.
    ///
    /// # Errors
    /// When the system has no socket or thread to give, or the source address is not one of this machine.
    pub fn open_link(self: &Arc<Self>, member: &model::Member, id: MemberId) -> io::Result<Arc<Link>> {
        let label = Label {
            cluster: self.number,
            member: id,
        };
        let sink: Arc<dyn Sink> = Arc::<Self>::clone(self);
        Link::open(member, label, sink).map(Arc::new)
    }

    fn watch(self: &Arc<Self>, member: MemberId, rules: model::Health) {
        self.health
            .send(Message::Watch {
                cluster: Arc::clone(self),
                member,
                rules,
            })
            .ok();
    }

    /// Makes a member what `after` says, in one step. `link` is the new one where [`needs_link`] wants one: to another
    /// RTPproxy, which is probed at once, and for which what was bound to the old one is forgotten (or the change
    /// refused, if `only_unbound`); or to the same one from another source address, which keeps everything, and
    /// takes the replies that are still on their way to the old one.
    pub fn change_member(
        self: &Arc<Self>,
        id: MemberId,
        after: &model::Member,
        link: Option<Arc<Link>>,
        only_unbound: bool,
    ) -> Changed {
        let mut out = Out::default();
        let done = self.act(&mut out, |now, core, out| {
            let Some(before) = core.member_of(id).map(|member| member.config.clone()) else {
                return Err((Changed::Gone, link));
            };
            let moves = is_elsewhere(&before, after);
            let bound = core.bound_to(id);
            if moves && only_unbound && bound > 0 {
                return Err((Changed::Bound(bound), link));
            }
            if moves && core.member_of(id).is_some_and(|member| member.online) {
                core.set_online(now, id, false, "its address has changed".to_owned(), out);
            }
            let old = link.and_then(|link| core.replace_link(now, id, link, moves));
            core.change_member(id, |member| member.clone_from(after));
            Ok((old, moves, core.rules().health))
        });
        match done {
            Err((why, unused)) => {
                if let Some(unused) = unused {
                    unused.close();
                }
                return why;
            }
            Ok((old, true, rules)) => {
                if let Some(old) = old {
                    old.close();
                }
                self.watch(id, rules);
            }
            Ok((Some(old), false, _)) => self.upkeep.retire(old),
            Ok((None, false, _)) => {}
        }
        Changed::Done
    }

    /// Other rules from now on; the health thread gets its part.
    pub fn set_rules(&self, rules: &model::Cluster) {
        self.look(|_, core| core.set_rules(rules));
        self.health
            .send(Message::Rules {
                cluster: self.number,
                rules: rules.health,
            })
            .ok();
    }

    /// Members leave: each at once where it is offline or has nothing to finish, else it gets no new sessions and the
    /// health thread takes it out when it has none left. Gives those that are out.
    pub fn delete_members(&self, ids: impl IntoIterator<Item = MemberId>) -> Vec<MemberId> {
        let mut out = Out::default();
        let (mut free, mut links) = (Vec::new(), Vec::new());
        for id in ids {
            let link = self.act(&mut out, |now, core, out| {
                let online = core.member_of(id).is_some_and(|member| member.online);
                if !online || core.is_free(id) {
                    free.push(id);
                    return core.remove_member(now, id, out);
                }
                core.change_member(id, |member| member.status = Status::Draining);
                None
            });
            links.extend(link);
        }
        self.taken_out(&links);
        free
    }

    /// Says so when new sessions have nowhere to go.
    pub fn warn_if_nobody_takes(&self) {
        if !self.look(|_, core| core.has_takers()) {
            log::warn!("cluster {}: no member is left for new sessions", self.name);
        }
    }

    /// A member is offline and does not answer: see [`Link::refresh`].
    pub fn refresh_link(&self, id: MemberId) {
        if let Some(link) = self.look(|_, core| core.member_of(id).map(|member| Arc::clone(&member.link))) {
            link.refresh();
        }
    }

    /// Calls bound to a member, if it is at `address`.
    pub fn bound_at(&self, id: MemberId, address: &model::Address) -> u64 {
        self.look(|_, core| {
            let there = core
                .member_of(id)
                .is_some_and(|member| member.config.address == *address);
            if there { core.bound_to(id) } else { 0 }
        })
    }

    /// A relay of disconnect notifications on that socket, for [`Cluster::put_relay`].
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start_relay(self: &Arc<Self>, door: Option<notify::Door>) -> io::Result<Option<Relay>> {
        door.map(|door| Relay::start(self, door)).transpose()
    }

    /// Has this relay from now on, and closes the one before.
    pub fn put_relay(&self, relay: Option<Relay>) {
        let old = core::mem::replace(&mut *self.relay.lock(), relay);
        if let Some(old) = old {
            old.close();
        }
    }

    /// Where disconnect notifications are taken.
    pub fn relay_address(&self) -> Option<SocketAddr> {
        self.relay.lock().as_ref().map(Relay::address)
    }

    /// The socket of the relay, if it is at that address, to be handed on.
    pub fn relay_port(&self, address: SocketAddr) -> Option<Arc<BoundPort<TcpListener>>> {
        let relay = self.relay.lock();
        relay
            .as_ref()
            .filter(|relay| relay.address() == address)
            .map(Relay::port)
    }

    /// Whether a member is at that address, whatever its port.
    pub fn is_member_address(&self, address: IpAddr) -> bool {
        self.look(|_, core| {
            let mut members = core.members_in_order().into_iter();
            members.any(|member| member.link.is_at(address))
        })
    }

    /// Beginning of the paths of the SIP server's sockets for notifications, and whether it may have them over TCP too.
    pub fn notify_prefix(&self) -> Option<(String, bool)> {
        self.look(|_, core| {
            let notify = core.rules().disconnect_notify.as_ref();
            notify.map(|notify| (notify.dest_socket_prefix.clone(), notify.relays_tcp))
        })
    }

    /// Whether a client still waits for a reply.
    pub fn is_busy(&self) -> bool {
        self.connections.count() > 0 || self.look(|_, core| core.clients_waiting())
    }

    /// Takes a member out at once. The health thread finds it gone when its next probe is due.
    pub fn remove_member(&self, id: MemberId) {
        let mut out = Out::default();
        let link = self.act(&mut out, |now, core, out| core.remove_member(now, id, out));
        self.taken_out(link.as_slice());
    }

    /// What is left to do when members have been taken out of the dispatcher.
    fn taken_out(&self, links: &[Arc<Link>]) {
        // All at once, then one after the other: each may take a moment.
        for link in links {
            link.stop();
        }
        for link in links {
            link.close();
        }
        if self.look(|_, core| core.members_in_order().is_empty()) {
            self.upkeep.emptied();
        }
    }

    /// Ends the relay, the timer thread and all links. The cluster thread has ended before.
    pub fn close(&self) {
        let relay = self.relay.lock().take();
        if let Some(relay) = relay {
            relay.close();
        }
        let members: Vec<(MemberId, Arc<Link>)> = self.look(|_, core| {
            let members = core.members_in_order().into_iter();
            members
                .map(|member| (member.id, Arc::clone(&member.link)))
                .collect()
        });
        // All at once, then one after the other: each may take a moment.
        for (_, link) in &members {
            link.stop();
        }
        for (id, _) in members {
            self.remove_member(id);
        }
        self.posts.send(Post::Stop).ok();
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

impl Sink for Cluster {
    fn reply(&self, from: MemberId, cookie: Cookie, text: &[u8]) {
        self.trace(format_args!("from member {}", from.index), text);
        OUT.with_borrow_mut(|out| self.act(out, |now, core, out| core.reply(now, from, cookie, text, out)));
    }

    fn foreign(&self, from: MemberId) {
        self.look(|_, core| core.foreign(from));
    }

    fn refused(&self, from: MemberId) {
        OUT.with_borrow_mut(|out| self.act(out, |now, core, out| core.refused(now, from, out)));
    }

    fn broken(&self, from: MemberId, cookie: Cookie) {
        OUT.with_borrow_mut(|out| self.act(out, |now, core, out| core.broken(now, from, cookie, out)));
    }
}
