//! The world: its clock, its network, and the loop of the cluster that carries out what the dispatcher decides, as
//! `cluster_thread.rs` and `health_thread.rs` do.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::RandomState;
use std::time::{Duration, Instant};

use rtp_cluster::client::repeat::{Repeats, Seen};
use rtp_cluster::config::model::Status;
use rtp_cluster::dispatch::Dispatch;
use rtp_cluster::dispatch::counters::Count;
use rtp_cluster::dispatch::key::Key;
use rtp_cluster::dispatch::outbox::Outbox;
use rtp_cluster::dispatch::rewrite::Origin;
use rtp_cluster::dispatch::session::MemberId;
use rtp_cluster::health::news::News;
use rtp_cluster::health::watch::Ended;
use rtp_cluster::link::Refused;
use rtp_cluster::protocol::cookie::{self, Cookie};
use rtp_cluster::protocol::reply::is_error;
use rustix::io::Errno;

use super::books::Books;
use super::calls::{Call, Kind, Phase};
use super::chance::Chance;
use super::prober::{Prober, Said};
use super::proxy::{Mode, Open, Proxy, Way};
use super::restarts::Restarts;

/// SIP servers; the first ones speak UDP.
pub const SERVERS: usize = 5;
pub const OVER_UDP: usize = 2;
/// A SIP server over UDP sends a command again after this, so many times in all.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u8 = 5;
/// Replies that are kept for repeats, in bytes.
pub const KEPT: usize = 1 << 20;
/// Heartbeats in a row in which one that drains has nothing left.
const EMPTY: u32 = 2;

/// What comes to the loop of the cluster, or to that of health.
#[derive(Debug)]
pub enum In {
    Command(usize),
    Reply(Way, Vec<u8>),
    Refused(Way),
    Broken(Way, Cookie),
    News(MemberId, News),
    Wake,
    ProbeDue(MemberId),
}

#[derive(Debug)]
pub enum Event {
    In(In),
    /// Something gets to a proxy, on that connection.
    Out(usize, u32, Way, Vec<u8>),
    /// Something of a proxy gets to us, on that connection.
    Back(usize, u32, Way, Vec<u8>),
    /// A reply gets to a SIP server.
    Told(usize),
    /// A SIP server sends a command again, or gives up.
    Retry(usize),
    /// A SIP server goes on with a call.
    Call(usize),
    Arrival,
    /// A fault, or an operator.
    Chaos,
    /// The daemon is killed.
    Kill,
    /// It is started again.
    Start,
    Heal(usize, u32),
}

struct Planned {
    at: Duration,
    order: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A command of a SIP server.
#[derive(Debug)]
pub struct Command {
    pub call: Option<usize>,
    pub kind: Kind,
    pub text: String,
    pub server: usize,
    pub tries: u8,
    /// When the dispatcher got it, and how long it had not been there by then.
    pub arrived: Option<(Duration, Duration)>,
    pub emitted: Option<Duration>,
    pub is_told: bool,
}

impl Command {
    pub fn is_datagram(&self) -> bool {
        self.server < OVER_UDP
    }
}

pub struct World {
    pub seed: u64,
    pub step: u64,
    pub now: Duration,
    base: Instant,
    pub chance: Chance,
    queue: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    pub core: Dispatch<u32, usize>,
    pub out: Outbox<u32, usize>,
    pub repeats: Repeats<RandomState>,
    pub proxies: Vec<Proxy>,
    pub probers: Vec<Prober>,
    pub calls: Vec<Call>,
    pub commands: Vec<Command>,
    pub books: Books,
    /// The loop is not there until then, and has not been for so long in all.
    pub stalled_until: Duration,
    pub stalled: Duration,
    wake: Option<Duration>,
    /// When the era ends, after which all is to come to rest.
    pub era: u64,
    pub is_calm: bool,
    pub rest_at: Option<Duration>,
    pub restarts: Option<Restarts>,
    trace: Option<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "after {:?}: SEED={} STEPS={} {}cargo test --test sim",
                self.now,
                self.seed,
                self.step,
                if self.restarts.is_some() {
                    "RESTARTS=1 "
                } else {
                    ""
                }
            );
        }
    }
}

impl World {
    /// Of that seed; with `restarts` the daemon is killed now and then.
    pub fn new(seed: u64, restarts: bool) -> Self {
        let mut chance = Chance::new(seed);
        let base = rtp_cluster::rim::now();
        let rules = super::chaos::rules(&mut chance);
        let proxies: Vec<Proxy> = (0..3 + chance.below(3))
            .map(|n| Proxy::new(n, chance.permille(700)))
            .collect();
        let mut world = Self {
            seed,
            step: 0,
            now: Duration::ZERO,
            base,
            queue: BinaryHeap::new(),
            planned: 0,
            core: Dispatch::new(base, rules, chance.bits(), Key::from_seed(chance.bits())),
            chance,
            out: Outbox::default(),
            repeats: Repeats::new(base, KEPT, RandomState::new()),
            proxies,
            probers: Vec::new(),
            calls: Vec::new(),
            commands: Vec::new(),
            books: Books::default(),
            stalled_until: Duration::ZERO,
            stalled: Duration::ZERO,
            wake: None,
            era: 6_000,
            is_calm: false,
            rest_at: None,
            restarts: None,
            trace: std::env::var("TRACE").ok(),
        };
        for n in 0..world.proxies.len() {
            world.add_member(n);
        }
        world.plan(Duration::from_millis(100), Event::Arrival);
        world.plan(Duration::from_secs(5), Event::Chaos);
        if restarts {
            world.restarts = Some(Restarts::new(&mut world));
            world.keep_journal();
        }
        world
    }

    /// What is on its way to a daemon that was killed gets nowhere, but for commands.
    pub fn forget_what_comes(&mut self) {
        self.wake = None;
        self.queue.retain(|Reverse(planned)| match &planned.event {
            Event::In(what) => matches!(what, In::Command(_)),
            Event::Back(..) => false,
            _ => true,
        });
    }

    pub fn at(&self) -> Instant {
        self.base + self.now
    }

    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.base)
    }

    pub fn plan(&mut self, after: Duration, event: Event) {
        self.plan_at(self.now + after, event);
    }

    fn plan_at(&mut self, at: Duration, event: Event) {
        self.planned += 1;
        self.queue.push(Reverse(Planned {
            at,
            order: self.planned,
            event,
        }));
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        if let Some(wanted) = &self.trace {
            let text = what();
            if text.starts_with('!') || text.contains(wanted.as_str()) {
                println!("{:>12.6} {} {text}", self.now.as_secs_f64(), self.step);
            }
        }
    }

    /// The next thing happens.
    pub fn turn(&mut self) {
        let Some(Reverse(Planned { at, event, .. })) = self.queue.pop() else {
            panic!("nothing happens any more")
        };
        self.now = self.now.max(at);
        if matches!(event, Event::In(_)) && self.now < self.stalled_until {
            // The loop reads before it looks at its alarms.
            let late = Duration::from_micros(u64::from(matches!(event, Event::In(In::Wake))));
            self.plan_at(self.stalled_until + late, event);
            return;
        }
        self.step += 1;
        self.mark();
        match event {
            Event::In(what) if self.misses(&what) => {}
            Event::In(what) => self.daemon(what),
            Event::Out(proxy, connection, way, text) => self.reaches(proxy, connection, way, &text),
            Event::Back(proxy, connection, way, text) => self.comes_back(proxy, connection, way, text),
            Event::Told(id) => self.told(id),
            Event::Retry(id) => self.retry(id),
            Event::Call(call) => self.go_on(call),
            Event::Arrival => self.arrival(),
            Event::Chaos => self.chaos(),
            Event::Kill => self.kill(),
            Event::Start => self.start(),
            Event::Heal(proxy, what) => self.heal(proxy, what),
        }
        if !self.is_down() {
            self.look_after();
            self.write();
            self.check();
        }
    }

    // --- the loop of the cluster ---

    fn daemon(&mut self, what: In) {
        let now = self.at();
        match what {
            In::Command(id) => self.command(id),
            In::Reply(Way::Dispatcher(id), bytes) => {
                self.books.fed(id);
                if let Some((cookie, text)) = parse_reply(&bytes) {
                    self.core.reply(now, id, cookie, text, &mut self.out);
                } else {
                    self.core.foreign(id);
                }
            }
            In::Reply(Way::Prober(id), bytes) => {
                if let Some((cookie, text)) = parse_reply(&bytes) {
                    self.probe(id, |prober, said| prober.reply(now, cookie, text, said));
                }
            }
            In::Refused(way) => {
                let id = way.id();
                if matches!(way, Way::Dispatcher(_)) {
                    self.core.refused(now, id, &mut self.out);
                }
                self.probe(id, |_, _| Some(Ended::Refused(Refused(Errno::CONNREFUSED))));
            }
            In::Broken(Way::Dispatcher(id), cookie) => self.core.broken(now, id, cookie, &mut self.out),
            In::Broken(Way::Prober(id), cookie) => self.probe(id, |prober, _| prober.broken(cookie)),
            In::News(id, news) => self.hear(id, news),
            In::Wake => {
                self.wake = None;
                if self.core.next_alarm().is_some_and(|at| at <= now) {
                    self.core.expire(now, &mut self.out);
                }
            }
            In::ProbeDue(id) => {
                self.probe(id, |prober, said| {
                    prober.noted = None;
                    prober.alarm(now, said)
                });
                self.probe(id, |prober, said| {
                    prober.turn(now, said);
                    None
                });
            }
        }
        self.settle();
    }

    fn command(&mut self, id: usize) {
        let now = self.at();
        let command = &self.commands[id];
        let (text, server, is_datagram) = (command.text.clone(), command.server, command.is_datagram());
        let mut origin = Origin::Unix;
        if is_datagram {
            let from = address_of(server);
            origin = Origin::Ip(from.ip());
            if is_error(text.as_bytes()) {
                return;
            }
            match self.repeats.begin(now, from, id.to_string().as_bytes()) {
                Seen::First => {}
                Seen::InFlight | Seen::Enough => return,
                Seen::Again(reply) => {
                    assert!(!reply.is_empty(), "{id}: an empty reply is kept");
                    let late = self.chance.ms(0, 3);
                    self.plan(late, Event::Told(id));
                    return;
                }
                Seen::Later => {
                    self.plan(Duration::from_millis(20), Event::In(In::Command(id)));
                    return;
                }
            }
        }
        assert!(self.commands[id].arrived.is_none(), "{text}: run twice");
        self.commands[id].arrived = Some((self.now, self.stalled));
        if let Some(call) = self.commands[id].call {
            let (call, kind) = (&mut self.calls[call], self.commands[id].kind);
            call.used = self.now;
            call.is_deleted |= kind == Kind::Delete;
            // The network has turned them round: it would be made anew.
            call.is_lost |= call.is_deleted && matches!(kind, Kind::Update(_));
        }
        self.books.commands += 1;
        self.books.open.insert(id);
        self.note(|| format!("{text} <- {id} from server {server}"));
        let client = u32::try_from(id).expect("few");
        self.core
            .command(now, text.as_bytes(), origin, client, &mut self.out);
    }

    fn hear(&mut self, id: MemberId, news: News) {
        let now = self.at();
        if matches!(news, News::State { .. } | News::Restarted(_)) {
            let name = self.core.member_of(id).map(|m| m.config.name.to_string());
            self.note(|| format!("!{name:?}: {news:?}"));
        }
        match news {
            News::State { online, why } => self.core.set_online(now, id, online, why, &mut self.out),
            News::Absent(why) => self.core.set_probed(now, id, why, &mut self.out),
            News::Restarted(last_good) => {
                if let Some(proxy) = self.proxies.iter_mut().find(|p| p.id == Some(id)) {
                    proxy.unwell = self.now;
                }
                self.core.set_restarted(id, last_good);
            }
            News::Capability(number, has) => self.core.capability(id, number, has),
            News::Probed(answered) => {
                self.core.count(id, Count::Probes);
                if !answered {
                    self.core.count(id, Count::ProbesFailed);
                }
            }
            News::Counted { asked, counts, delay } => {
                self.core.counted(now, id, asked, counts, &mut self.out);
                if let Some(delay) = delay {
                    self.core.measured(id, delay);
                }
            }
            News::At(_) | News::TriedAgain(_) => {}
        }
    }

    /// Something happens to who watches over a member.
    fn probe(&mut self, id: MemberId, act: impl FnOnce(&mut Prober, &mut Said) -> Option<Ended>) {
        let now = self.at();
        let is_lonely = !self.core.has_takers_online();
        let Some(prober) = self.probers.iter_mut().find(|p| p.id == id) else {
            return;
        };
        let mut said = Said::default();
        if let Some(ended) = act(prober, &mut said) {
            prober.ended(now, ended, is_lonely, &mut said);
        }
        let (proxy, is_online, active) = (prober.proxy, prober.is_online(), said.active());
        for (cookie, text) in said.sends {
            self.transmit(proxy, Way::Prober(id), cookie, false, &text);
        }
        for news in said.news {
            self.plan(Duration::from_micros(50), Event::In(In::News(id, news)));
        }
        if let Some(active) = active {
            let draining = self
                .core
                .member_of(id)
                .is_some_and(|m| m.config.status == Status::Draining);
            let is_empty = draining && active == 0 && !self.core.is_asked(id);
            if let Some(prober) = self.probers.iter_mut().find(|p| p.id == id) {
                prober.empty = if is_empty { prober.empty + 1 } else { 0 };
                if prober.empty >= EMPTY && is_online {
                    self.remove_member(id);
                }
            }
        }
    }

    /// Something of the dispatcher that has to be carried out.
    pub fn with_core<R>(
        &mut self,
        act: impl FnOnce(&mut Dispatch<u32, usize>, &mut Outbox<u32, usize>) -> R,
    ) -> R {
        act(&mut self.core, &mut self.out)
    }

    /// Carries out what has been decided.
    pub fn settle(&mut self) {
        let mut replies = Vec::new();
        self.out
            .drain_replies(|client, text, _| replies.push((client as usize, text.to_vec())));
        let dropped = core::mem::take(&mut self.out.dropped);
        let mut sends = Vec::new();
        self.out.drain_sends(|send, text| {
            sends.push((send.link, send.member, send.cookie, send.again, text.to_vec()));
        });
        self.out.reset();
        for (id, text) in replies {
            self.emit(id, &text);
        }
        assert!(dropped.is_empty(), "{dropped:?}: clients without a reply");
        for (proxy, member, cookie, again, text) in sends {
            self.books.sent(member);
            self.saw_cookie(proxy, cookie, &text);
            if self.proxies[proxy].id == Some(member) || self.books.leaving == Some(member) {
                self.transmit(proxy, Way::Dispatcher(member), cookie, again, &text);
            }
        }
        let now = self.at();
        for id in core::mem::take(&mut self.out.suspects) {
            if let Some(prober) = self.probers.iter_mut().find(|p| p.id == id) {
                let rules = prober.rules;
                prober.watch.suspect(now, &rules);
            }
        }
        self.out.refused.clear();
        self.out.notes.clear();
        self.out.notices.clear();
    }

    /// A reply leaves for a SIP server.
    fn emit(&mut self, id: usize, text: &[u8]) {
        self.books.answered += 1;
        self.answered(id, text);
        let command = &mut self.commands[id];
        command.emitted = Some(self.now);
        let (is_datagram, server) = (command.is_datagram(), command.server);
        if is_datagram {
            let now = self.at();
            self.repeats
                .done(now, address_of(server), id.to_string().as_bytes(), text);
            if self.chance.permille(self.books.loss) {
                return;
            }
        }
        let late = self.chance.ms(0, 3);
        self.plan(late, Event::Told(id));
    }

    /// Sees to it that the loops wake up in time.
    fn look_after(&mut self) {
        if let Some(at) = self.core.next_alarm() {
            let at = self.since_start(at).max(self.now);
            if self.wake.is_none_or(|wake| at < wake) {
                self.wake = Some(at);
                let late = Duration::from_micros(self.chance.bits() % 1000);
                self.plan_at(at + late, Event::In(In::Wake));
            }
        }
        for n in 0..self.probers.len() {
            let prober = &mut self.probers[n];
            let due = prober.due();
            if prober.noted.is_none_or(|noted| due < noted) {
                prober.noted = Some(due);
                let (id, at) = (prober.id, self.since_start(due).max(self.now));
                let late = Duration::from_micros(self.chance.bits() % 500);
                self.plan_at(at + late, Event::In(In::ProbeDue(id)));
            }
        }
    }

    // --- the network ---

    fn transmit(&mut self, to: usize, way: Way, cookie: Cookie, again: bool, text: &[u8]) {
        let text = text.trim_ascii_end().to_vec();
        self.note(|| format!("{} -> P{to} {way:?}", String::from_utf8_lossy(&text)));
        let proxy = &mut self.proxies[to];
        if proxy.mode == Mode::Down {
            // Over UDP the refusal is a datagram too.
            if !proxy.is_datagram || self.chance.permille(800) {
                let late = self.chance.ms(0, 5);
                self.plan(late, Event::In(In::Refused(way)));
            }
            return;
        }
        let (connection, slow) = (proxy.connection, proxy.trouble.slow);
        let late = self.chance.ms(0, 2 + slow);
        if proxy.is_datagram {
            let trouble = proxy.trouble;
            if self.chance.permille(trouble.loss) {
                return;
            }
            if self.chance.permille(trouble.doubles) {
                let later = self.chance.ms(0, 100 + slow);
                self.plan(later, Event::Out(to, connection, way, text.clone()));
            }
            self.plan(late, Event::Out(to, connection, way, text));
        } else {
            let at = (self.now + late).max(proxy.last[0]);
            proxy.last[0] = at;
            proxy.open.push(Open {
                way,
                cookie,
                again,
                text: text.clone(),
            });
            self.plan_at(at, Event::Out(to, connection, way, text));
        }
    }

    fn reaches(&mut self, to: usize, connection: u32, way: Way, text: &[u8]) {
        let now = self.now;
        let proxy = &mut self.proxies[to];
        if !proxy.is_datagram && proxy.connection != connection {
            return;
        }
        if matches!(way, Way::Dispatcher(_)) && now < proxy.deaf_until {
            return;
        }
        let mut ran = Vec::new();
        let reply = proxy.takes(now, way, text, &mut self.chance, &mut |command, reply| {
            ran.push((command.to_vec(), reply.to_vec()));
        });
        if let Way::Dispatcher(_) = way {
            for (command, reply) in ran {
                self.executed(to, &command, &reply);
            }
        }
        let Some(mut reply) = reply else { return };
        let (trouble, is_datagram) = (self.proxies[to].trouble, self.proxies[to].is_datagram);
        let late = self.chance.ms(0, 2 + trouble.slow);
        if is_datagram {
            if self.chance.permille(trouble.garbage) {
                reply.truncate(Cookie::LEN + 1);
                reply.extend_from_slice(b"\x01nonsense");
            }
            if self.chance.permille(trouble.loss) {
                return;
            }
            if self.chance.permille(trouble.doubles) {
                let later = self.chance.ms(0, 100 + trouble.slow);
                self.plan(later, Event::Back(to, connection, way, reply.clone()));
            }
            self.plan(late, Event::Back(to, connection, way, reply));
        } else {
            let at = (self.now + late).max(self.proxies[to].last[1]);
            self.proxies[to].last[1] = at;
            self.plan_at(at, Event::Back(to, connection, way, reply));
        }
    }

    fn comes_back(&mut self, from: usize, connection: u32, way: Way, text: Vec<u8>) {
        let proxy = &mut self.proxies[from];
        if proxy.is_datagram {
            if proxy.mode == Mode::Cut || connection < proxy.ours_since {
                return;
            }
        } else {
            if proxy.connection != connection {
                return;
            }
            let cookie = text.get(..Cookie::LEN).and_then(Cookie::parse);
            proxy
                .open
                .retain(|open| open.way != way || Some(open.cookie) != cookie);
        }
        self.note(|| format!("{} <- P{from} {way:?}", String::from_utf8_lossy(&text)));
        self.plan(Duration::ZERO, Event::In(In::Reply(way, text)));
    }

    /// The connections of a proxy break; what may be sent again is sent on a fresh one.
    pub fn break_connections(&mut self, of: usize) {
        let proxy = &mut self.proxies[of];
        proxy.connection += 1;
        proxy.backlog.clear();
        let open = core::mem::take(&mut proxy.open);
        for Open {
            way,
            cookie,
            again,
            text,
        } in open
        {
            if again {
                self.transmit(of, way, cookie, false, &text);
            } else {
                self.plan(Duration::from_millis(1), Event::In(In::Broken(way, cookie)));
            }
        }
    }

    /// It goes on after it was stopped or cut off.
    pub fn flush(&mut self, of: usize) {
        let connection = self.proxies[of].connection;
        for (way, text) in core::mem::take(&mut self.proxies[of].backlog) {
            self.plan(Duration::from_micros(100), Event::Out(of, connection, way, text));
        }
    }

    // --- SIP servers ---

    pub fn say(&mut self, call: Option<usize>, kind: Kind, text: String, server: usize) {
        let id = self.commands.len();
        self.commands.push(Command {
            call,
            kind,
            text,
            server,
            tries: 0,
            arrived: None,
            emitted: None,
            is_told: false,
        });
        if let Some(call) = call {
            self.calls[call].open += 1;
        }
        self.retry(id);
    }

    fn retry(&mut self, id: usize) {
        let command = &mut self.commands[id];
        if command.is_told {
            return;
        }
        if !command.is_datagram() {
            let late = self.chance.ms(0, 1);
            return self.plan(late, Event::In(In::Command(id)));
        }
        command.tries += 1;
        if command.tries > TRIES {
            return self.told(id);
        }
        self.plan(AGAIN, Event::Retry(id));
        let copies = 1 + u32::from(self.chance.permille(20));
        for _ in 0..copies {
            if !self.chance.permille(self.books.loss) {
                let late = self.chance.ms(0, 3 + u64::from(self.books.loss));
                self.plan(late, Event::In(In::Command(id)));
            }
        }
    }

    /// A SIP server has its reply, or gives up.
    fn told(&mut self, id: usize) {
        if core::mem::replace(&mut self.commands[id].is_told, true) {
            return;
        }
        let command = &self.commands[id];
        let Some(call) = command.call else { return };
        if command.kind == Kind::Delete && command.arrived.is_none() {
            self.calls[call].is_lost = true;
        }
        self.calls[call].open -= 1;
        if self.calls[call].open > 0 {
            return;
        }
        let pause = match self.calls[call].phase {
            Phase::Offer => self.chance.ms(0, 20),
            Phase::Ring => self.chance.ms(50, 5_000),
            Phase::Talk => self.chance.ms(50, 8_000),
            _ => self.chance.ms(0, 50),
        };
        let pause = if self.is_calm { pause / 10 } else { pause };
        self.plan(pause, Event::Call(call));
    }

    fn go_on(&mut self, n: usize) {
        if self.calls[n].open > 0 || self.calls[n].phase == Phase::Over {
            return;
        }
        let (now, calm) = (self.now, self.is_calm);
        let says = self.calls[n].next(now, &mut self.chance, calm);
        let server = self.calls[n].server;
        if self.calls[n].phase == Phase::Over {
            let ended_well = !self.calls[n].is_lost && self.calls[n].offered > 0;
            if !calm && ended_well && self.chance.permille(80) {
                // Authentication: the same call once more.
                self.calls[n].renew(now, &mut self.chance);
                let pause = self.chance.ms(1, 2_000);
                self.plan(pause, Event::Call(n));
            } else {
                self.books.live.remove(&n);
            }
        }
        for (kind, text) in says {
            self.say(Some(n), kind, text, server);
        }
    }

    fn arrival(&mut self) {
        if self.is_calm {
            return;
        }
        let n = self.calls.len();
        let call = Call::new(n, self.now, SERVERS, &mut self.chance);
        self.calls.push(call);
        self.books.live.insert(n);
        self.go_on(n);
        let next = self.chance.apart(Duration::from_millis(1_200));
        self.plan(next, Event::Arrival);
        if self.chance.permille(60) {
            let texts = [
                "V",
                "VF 20071218",
                "VF 20081224",
                "Ib",
                "G nsess_created",
                "nonsense",
                "U x",
                "E50",
            ];
            let text = (*self.chance.one(&texts)).to_owned();
            let server = self.chance.below(SERVERS);
            self.say(None, Kind::Stray, text, server);
        }
    }
}

fn address_of(server: usize) -> SocketAddr {
    let last = u8::try_from(server).expect("few");
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 5060).into()
}

fn parse_reply(bytes: &[u8]) -> Option<(Cookie, &[u8])> {
    let (cookie, text) = cookie::split(bytes)?;
    Some((Cookie::parse(cookie)?, text.trim_ascii()))
}
