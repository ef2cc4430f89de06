//! The cluster thread: one loop that does all input and output of its cluster. It blocks in one place, until something is
//! ready or the next alarm is due. Whatever is not finished is state, not a thread.
//!
//! In one turn: replies of members first, since they free clients; then alarms; then what other threads want; then
//! notifications; then new commands, in batches, so that nobody starves. What several events of a turn come to is carried
//! out together.

use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, never};

use super::front::door::Door;
use super::front::{Desk, Front, Here, Next};
use super::links::Links;
use super::order::{Finder, Order, Watch};
use super::relay::{self, Relay};
use super::{Changed, Cluster, Out, is_elsewhere, notes, tokens};
use crate::config::model::{self, Status};
use crate::dispatch::counters::Count;
use crate::dispatch::pending::Slot;
use crate::dispatch::session::MemberId;
use crate::health::health_thread::Whose;
use crate::health::news::News;
use crate::link::Link;
use crate::rim::readiness::{Poller, Ready};
use crate::rim::{Thread, now, spawn, wall};

/// Messages from other threads that may wait.
pub const ORDERS: usize = 4096;
/// Those that are taken in one turn.
const ORDERS_BATCH: usize = 256;
/// What has time to be heard is heard after that at the latest.
const HEAR_EVERY: Duration = Duration::from_secs(1);
/// Batches of new commands, and of replies, in one turn.
const BATCHES: usize = 4;

/// A cluster at work: what belongs to its thread alone.
#[derive(Debug)]
pub struct AtWork {
    cluster: Arc<Cluster>,
    poller: Poller,
    orders: Receiver<Order<AtWork>>,
    out: Out,
    front: Front,
    links: Links,
    relay: Option<Relay>,
    /// How calls are looked up that other dispatchers may have bound.
    pub finder: Finder,
    /// What has more to do and is not told again.
    again: Vec<Ready>,
    /// The control socket has more.
    door_again: bool,
    /// When the loop ends, at the latest.
    end: Option<Instant>,
    /// Members that have gone, which the health thread had no room to be told of.
    gone: Vec<Whose>,
}

/// Starts the thread of a cluster; `poller` and `orders` are those that its mailbox was made of.
///
/// # Errors
/// When the system has no more threads.
pub fn start(cluster: &Arc<Cluster>, poller: Poller, orders: Receiver<Order<AtWork>>) -> io::Result<Thread> {
    let mut at_work = AtWork::new(cluster, poller, orders);
    spawn(format!("cluster-{}", cluster.number), move || {
        while at_work.turn() {}
        at_work.finish();
    })
}

impl AtWork {
    pub(super) fn new(cluster: &Arc<Cluster>, poller: Poller, orders: Receiver<Order<AtWork>>) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            poller,
            orders,
            out: Out::default(),
            front: Front::new(),
            links: Links::default(),
            relay: None,
            finder: Finder::default(),
            again: Vec::new(),
            door_again: false,
            end: None,
            gone: Vec::new(),
        }
    }

    /// Waits for something to do and does it; false when it is over.
    pub(super) fn turn(&mut self) -> bool {
        let is_behind = self.door_again || !self.again.is_empty() || !self.orders.is_empty();
        let until = if is_behind { Some(now()) } else { self.due() };
        let mut ready = core::mem::take(&mut self.again);
        if let Err(error) = self.poller.wait(until, &mut ready) {
            log::error!("cluster {}: waiting: {error}", self.cluster.name);
            return false;
        }
        let at = now();
        let links = ready
            .iter()
            .filter(|event| tokens::kind(event.token) == tokens::LINK);
        let mut links: Vec<Ready> = links.copied().collect();
        for _ in 0..BATCHES {
            if links.is_empty() {
                break;
            }
            links.retain(|event| {
                let registry = self.poller.registry();
                self.links
                    .ready(at, event.token, &self.cluster, &mut self.out, registry)
            });
            // Who waits for these does not wait for those that may still come.
            self.settle();
        }
        self.again.extend(links);
        self.alarms();
        self.take_orders();
        self.tell_gone();
        for event in &ready {
            match tokens::kind(event.token) {
                tokens::RELAY | tokens::INBOUND | tokens::OUTLET => self.relay_ready(*event),
                tokens::DOOR => {
                    self.front.knock();
                    self.door_again = true;
                }
                _ => {}
            }
        }
        for event in &ready {
            if tokens::kind(event.token) == tokens::CLIENT {
                self.client_ready(*event);
            }
        }
        for _ in 0..BATCHES {
            if !self.door_again {
                break;
            }
            self.door_again = self.with_front(Front::serve) == Next::More;
            self.settle();
        }
        !self.is_over()
    }

    /// When there is something to do though nothing happens.
    fn due(&self) -> Option<Instant> {
        let at = now();
        let core = self.cluster.look(|_, core| core.next_alarm());
        let relay = self.relay.as_ref().and_then(Relay::due);
        let hears = (!self.links.is_empty() || !self.gone.is_empty()).then(|| at + HEAR_EVERY);
        [core, self.links.due(), self.front.due(at), relay, hears, self.end]
            .into_iter()
            .flatten()
            .min()
    }

    fn with_front<R>(&mut self, act: impl FnOnce(&mut Front, &mut Desk<'_>) -> R) -> R {
        let mut desk = Desk {
            here: Here {
                now: now(),
                cluster: &self.cluster,
                registry: self.poller.registry(),
            },
            out: &mut self.out,
            decided: 0,
        };
        act(&mut self.front, &mut desk)
    }

    fn client_ready(&mut self, event: Ready) {
        let place = tokens::place(event.token);
        let next = self.with_front(|front, desk| front.client(place, event.readable, event.writable, desk));
        self.settle();
        if next == Next::More {
            self.again.push(Ready {
                writable: false,
                ..event
            });
        }
    }

    /// Time has passed.
    fn alarms(&mut self) {
        let at = now();
        let due = self.cluster.look(|_, core| core.next_alarm());
        if due.is_some_and(|due| due <= at) {
            self.cluster.decide(&mut self.out, |now, core, out| {
                core.expire(now, out);
            });
        }
        self.links
            .alarm(at, &self.cluster, &mut self.out, self.poller.registry());
        self.with_relay(Relay::alarm);
        if self.with_front(Front::alarm) == Next::More {
            self.door_again = true;
        }
        if self.front.due(at).is_some_and(|due| due <= at) {
            self.door_again = true;
        }
        self.settle();
    }

    fn with_relay(&mut self, act: impl FnOnce(&mut Relay, &relay::Desk<'_>)) {
        if let Some(relay) = &mut self.relay {
            let desk = relay::Desk {
                now: now(),
                cluster: &self.cluster,
                registry: self.poller.registry(),
                is_member: &|address| self.links.is_at(address),
            };
            act(relay, &desk);
        }
    }

    fn relay_ready(&mut self, event: Ready) {
        let mut more = false;
        self.with_relay(|relay, desk| more = relay.ready(event, desk));
        if more {
            self.again.push(event);
        }
    }

    fn take_orders(&mut self) {
        for _ in 0..ORDERS_BATCH {
            let Ok(order) = self.orders.try_recv() else {
                return;
            };
            match order {
                Order::News(id, watch, news) => {
                    if self.links.watch_of(id) == Some(watch) {
                        self.hear(id, news);
                    }
                }
                Order::Do(act) => act(self),
            }
            self.settle();
        }
    }

    /// What the health thread has to say of a member.
    fn hear(&mut self, id: MemberId, news: News) {
        let before = self.links.tell(id, &news);
        let is_online = self
            .cluster
            .look(|_, core| core.member_of(id).is_some_and(|member| member.online));
        let news = match news {
            // It is followed at another target than before, which has not met it online.
            News::Absent(why) if is_online => News::State { online: false, why },
            // The same, of one that has.
            News::State { online: true, .. } if is_online => return self.cluster.tell_probed(),
            other => other,
        };
        let absent = if before.is_none() { "unknown" } else { "offline" };
        match &news {
            News::State { online: true, why } => self.say(id, absent, "online", why),
            News::State { online: false, why } => self.say(id, "online", "offline", why),
            News::Absent(why) => self.say(id, absent, "offline", why),
            News::Restarted(_) => {
                self.say(
                    id,
                    "online",
                    "online",
                    "it has been restarted; its calls are forgotten",
                );
            }
            _ => {}
        }
        let first = matches!(news, News::State { .. } | News::Absent(_));
        match news {
            News::At(addresses) => {
                let moved = self.links.move_to(now(), id, &addresses, self.poller.registry());
                self.say_moved(id, moved);
            }
            other => self.cluster.decide(&mut self.out, |now, core, out| match other {
                News::State { online, why } => core.set_online(now, id, online, why, out),
                News::Absent(why) => core.set_probed(now, id, why, out),
                News::TriedAgain(at) => core.tried_again(id, at),
                News::Restarted(last_good) => core.set_restarted(id, last_good),
                News::Capability(number, has) => core.capability(id, number, has),
                News::Probed(answered) => {
                    core.count(id, Count::Probes);
                    if !answered {
                        core.count(id, Count::ProbesFailed);
                    }
                }
                News::Counted { asked, counts, delay } => {
                    core.counted(now, id, asked, counts, out);
                    if let Some(delay) = delay {
                        core.measured(id, delay);
                    }
                }
                News::At(_) => {}
            }),
        }
        if first {
            self.cluster.tell_probed();
        }
    }

    fn definition(&self, id: MemberId) -> Option<model::Member> {
        self.cluster
            .look(|_, core| core.member_of(id).map(|member| member.config.clone()))
    }

    /// Tells the log and who watches that a member's state has changed.
    fn say(&self, id: MemberId, from: &'static str, to: &'static str, why: &str) {
        if let Some(member) = self.definition(id) {
            let model::Member { name, address, .. } = &member;
            log::info!(
                cluster:% = self.cluster.name, member:% = name, address:% = address, old = from, new = to, reason = why;
                "member {name} of {} ({address}): {from} -> {to}: {why}",
                self.cluster.name
            );
            self.cluster.tell(&member, Some(from), to, why);
        }
    }

    /// Tells the log and who watches that the name of a member leads somewhere, or elsewhere.
    fn say_moved(&self, id: MemberId, moved: Option<(Option<SocketAddr>, SocketAddr)>) {
        let (Some(member), Some((before, after))) = (self.definition(id), moved) else {
            return;
        };
        let model::Member { name, address, .. } = &member;
        let why = before.map_or_else(String::new, |before| format!("it was at {before}"));
        self.cluster.tell(&member, None, format!("at {after}"), &why);
        let cluster = &self.cluster.name;
        match before {
            Some(before) => log::warn!(
                "member {name} of {cluster} ({address}): it is at {after} now, and was at {before}"
            ),
            None => log::info!("member {name} of {cluster} ({address}): it is at {after}"),
        }
    }

    /// Carries out what has been decided: replies first, since somebody waits for them.
    fn settle(&mut self) {
        loop {
            let here = Here {
                now: now(),
                cluster: &self.cluster,
                registry: self.poller.registry(),
            };
            let (front, again) = (&mut self.front, &mut self.again);
            self.out.drain_replies(|client, text, kept| {
                if let Some(mut answer) = kept {
                    (answer.at, answer.client) = (wall(), front.who(&client));
                    here.cluster.recent.lock().keep(*answer);
                }
                here.cluster.trace(format_args!("reply"), text);
                again.extend(front.reply(client, text, here).map(|place| Ready {
                    token: tokens::CLIENT + place,
                    readable: true,
                    writable: false,
                }));
            });
            for client in self.out.dropped.drain(..) {
                front.forsake(client, here);
            }
            let links = &mut self.links;
            self.out.drain_sends(|send, text| {
                here.cluster
                    .trace(format_args!("to member {}", send.member.index), text);
                links.send(here.now, &send, text, here.registry);
            });
            self.finder.ask(self.out.look_ups.drain(..));
            self.out.reset();
            for mut step in self.out.traced.drain(..) {
                step.at = wall();
                self.cluster.steps.tell(&step);
            }
            self.tell_news();
            if self.links.refused.is_empty() {
                return;
            }
            let mut refused = core::mem::take(&mut self.links.refused);
            refused.dedup();
            for (id, why) in refused {
                self.cluster
                    .decide(&mut self.out, |now, core, out| core.refused(now, id, out));
                self.cluster.health.refused(self.cluster.whose(id), why);
            }
            self.out.refused.clear();
        }
    }

    /// What the relay, the health thread and the operator should know.
    fn tell_news(&mut self) {
        if !self.out.notices.is_empty() {
            let notices = core::mem::take(&mut self.out.notices);
            let count = notices.len() as u64;
            if self.relay.is_some() {
                self.with_relay(|relay, desk| {
                    for notice in notices {
                        relay.tell(desk, notice);
                    }
                });
            } else {
                self.cluster
                    .notify
                    .dropped
                    .fetch_add(count, core::sync::atomic::Ordering::Relaxed);
            }
        }
        if !self.out.has_news() {
            return;
        }
        for member in self.out.suspects.drain(..) {
            self.cluster.health.suspect(self.cluster.whose(member));
        }
        for note in self.out.notes.drain(..) {
            notes::log(&self.cluster, &note);
        }
    }

    /// Serves this control socket, in the place of the one before.
    pub fn open(&mut self, door: Door) {
        self.with_front(|front, desk| {
            front.close(desk);
            front.open(door, desk.here);
        });
        self.door_again = true;
    }

    /// Takes no further command, and closes the control socket.
    pub fn close(&mut self) {
        self.with_front(Front::close);
        self.door_again = false;
    }

    /// Ends the loop when everybody has been answered, `within` that time.
    pub fn end(&mut self, within: Duration) {
        self.close();
        self.end = Some(now() + within);
    }

    fn is_over(&self) -> bool {
        let Some(end) = self.end else { return false };
        let is_busy = || self.front.is_busy() || self.cluster.look(|_, core| core.clients_waiting());
        now() >= end || !is_busy()
    }

    /// What is still in flight is answered with an error of ours, and all is closed.
    fn finish(&mut self) {
        // That members go now is not what a successor is to know.
        self.cluster.look(|_, core| core.close_journal());
        let members: Vec<MemberId> = self
            .cluster
            .look(|_, core| core.members_in_order().iter().map(|member| member.id).collect());
        self.remove_members(&members);
        // The health thread may be waiting for room here, which there is when nobody takes anything any more.
        self.orders = never();
        for whose in self.gone.drain(..) {
            self.cluster.health.forget(whose);
        }
    }

    /// Tells the health thread of members that have gone, as far as it has room: it may be waiting for room here.
    fn tell_gone(&mut self) {
        let health = &self.cluster.health;
        self.gone.retain(|whose| !health.try_forget(*whose));
    }

    /// A member has this link from now on, and is followed by this watch.
    pub fn put_link(&mut self, id: MemberId, link: Link, watch: Watch) {
        self.links.put(now(), id, link, watch, self.poller.registry());
    }

    /// See [`Cluster::change_member`].
    pub(super) fn change_member(
        &mut self,
        id: MemberId,
        after: &model::Member,
        link: Option<(Link, Watch)>,
        only_unbound: bool,
    ) -> Result<(model::Member, model::Health), Changed> {
        let done = self.cluster.decide(&mut self.out, |now, core, out| {
            let Some(before) = core.member_of(id).map(|member| member.config.clone()) else {
                return Err(Changed::Gone);
            };
            let moves = is_elsewhere(&before, after);
            let bound = core.bound_to(id);
            if moves && only_unbound && bound > 0 {
                return Err(Changed::Bound(bound));
            }
            if moves && core.member_of(id).is_some_and(|member| member.online) {
                core.set_online(now, id, false, "its address has changed".to_owned(), out);
            }
            if link.is_some() {
                core.replace_link(now, id, (), moves);
            }
            core.change_member(id, |member| member.clone_from(after));
            Ok((before, core.rules().health))
        })?;
        if let Some((link, watch)) = link {
            self.put_link(id, link, watch);
        }
        Ok(done)
    }

    /// See [`Cluster::delete_members`].
    pub(super) fn delete_members(&mut self, ids: Vec<MemberId>) -> Vec<MemberId> {
        let (mut free, mut busy) = (Vec::new(), Vec::new());
        self.cluster.look(|_, core| {
            for id in ids {
                let online = core.member_of(id).is_some_and(|member| member.online);
                if !online || core.is_free(id) {
                    free.push(id);
                } else {
                    busy.push(id);
                }
            }
        });
        for id in busy {
            self.cluster.set_status(id, Status::Draining);
        }
        self.remove_members(&free);
        free
    }

    /// Takes members out at once.
    pub(super) fn remove_members(&mut self, ids: &[MemberId]) {
        for id in ids {
            if let Some(member) = self.definition(*id) {
                self.cluster
                    .tell(&member, Some(member.status.as_str()), "gone", "");
            }
            self.cluster.decide(&mut self.out, |now, core, out| {
                core.remove_member(now, *id, out);
            });
            self.gone.push(self.cluster.whose(*id));
        }
        self.tell_gone();
        // What is said to them on the way out goes over their links.
        self.settle();
        for id in ids {
            self.links.remove(*id);
        }
        if self.cluster.look(|_, core| core.members_in_order().is_empty()) {
            (self.cluster.emptied)();
        }
    }

    /// A draining member has no session left.
    pub(super) fn drained(&mut self, id: MemberId) {
        let definition = self.definition(id);
        // It may have been taken back meanwhile.
        let Some(model::Member { name, address, .. }) =
            definition.filter(|member| member.status == Status::Draining)
        else {
            return;
        };
        log::info!(
            "member {name} of {} ({address}): drained, removed",
            self.cluster.name
        );
        self.remove_members(&[id]);
    }

    /// A call was looked up.
    pub fn looked_up(&mut self, slot: Slot, found: Option<&[u8]>) {
        self.cluster.decide(&mut self.out, |now, core, out| {
            core.looked_up(now, slot, found, out);
        });
    }

    /// Has this relay from now on.
    pub(super) fn put_relay(&mut self, door: Option<relay::Door>) {
        if let Some(old) = self.relay.take() {
            old.close(self.poller.registry());
        }
        let Some(door) = door else { return };
        match Relay::new(door, self.poller.registry()) {
            Ok(relay) => self.relay = Some(relay),
            Err(error) => log::error!("cluster {}: notifications: {error}", self.cluster.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;

    #[test]
    fn one_that_was_online_is_offline_when_it_is_absent_at_another_target() {
        let mut bench = Bench::new();
        let (id, _member) = bench.udp_member();
        assert!(bench.is_online(id));
        bench.tell(id, News::Absent("1 probe unanswered".into()));
        assert!(!bench.is_online(id));
        bench.online(id);
        let went = |bench: &Bench| {
            let counted = |core: &mut super::super::Core| {
                core.member_of(id)
                    .map(|member| member.counters()[Count::WentOnline as usize])
            };
            bench.cluster.look(|_, core| counted(core))
        };
        assert_eq!(went(&bench), Some(2));
        bench.online(id);
        assert_eq!(went(&bench), Some(2), "it has been told before");
    }

    #[test]
    fn what_is_said_of_the_rtpproxy_that_a_member_was_before_is_not_believed() {
        let mut bench = Bench::new();
        let (id, _member) = bench.udp_member();
        let cluster = Arc::clone(&bench.cluster);
        let mut after = cluster.look(|_, core| core.member_of(id).unwrap().config.clone());
        after.address = model::Address::Ip(([127, 0, 0, 1], 9).into());
        let link = (Link::open(&after).unwrap(), 77);
        bench
            .at_work
            .change_member(id, &after, Some(link), false)
            .unwrap();
        bench.online(id);
        assert!(!bench.is_online(id), "that was the old one");
    }

    #[test]
    fn a_member_goes_though_the_health_thread_takes_nothing() {
        let mut bench = Bench::new();
        let (id, _member) = bench.udp_member();
        let whose = bench.cluster.whose(id);
        while bench.cluster.health.try_forget(whose) {}
        bench.at_work.remove_members(&[id]);
        assert_eq!(bench.at_work.gone, [whose], "to be told later");
    }

    #[test]
    fn a_cluster_ends_when_all_are_answered_and_those_who_are_not_get_an_error_of_ours() {
        use std::io::{Read as _, Write as _};
        let mut bench = Bench::new();
        let (_, member) = bench.udp_member();
        let path = bench.open_unix(model::Protocol::Unix);
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        client.write_all(b"D call a b\n").unwrap();
        bench.run_until(|bench| bench.cluster.look(|_, core| core.in_flight()) > 0);
        bench.at_work.end(Duration::from_secs(60));
        assert!(bench.turn(), "somebody waits");
        let mut buffer = [0; 1024];
        let (length, from) = member.recv_from(&mut buffer).unwrap();
        let cookie = buffer[..length].split(|byte| *byte == b' ').next().unwrap();
        member.send_to(&[cookie, b" 0"].concat(), from).unwrap();
        while bench.turn() {}
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "0\n");

        let mut bench = Bench::new();
        let (_, _member) = bench.udp_member();
        let path = bench.open_unix(model::Protocol::Unix);
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        client.write_all(b"D call a b\n").unwrap();
        bench.run_until(|bench| bench.cluster.look(|_, core| core.in_flight()) > 0);
        bench.at_work.end(Duration::ZERO);
        while bench.turn() {}
        bench.at_work.finish();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert!(reply.ends_with('\n') && reply != "\n", "{reply}");
    }
}
