//! The daemon is killed and started again, with a state directory or without. What it writes goes through the real
//! recorder, writer and encoding, in memory; what it has not handed over is lost with it.

use std::time::Duration;

use rtp_cluster::client::repeat::Repeats;
use rtp_cluster::config::model::Member;
use rtp_cluster::dispatch::Dispatch;
use rtp_cluster::dispatch::key::Key;
use rtp_cluster::dispatch::outbox::Outbox;
use rtp_cluster::state::encode::Moment;
use rtp_cluster::state::past::Past;
use rtp_cluster::state::tape::Tape;

use super::chance::Chance;
use super::prober::Prober;
use super::world::{Event, In, KEPT, World};

/// Between two kills.
const APART: Duration = Duration::from_secs(40);
/// How long a member answers probes and no command; longer than a command may take.
const DEAF: Duration = Duration::from_secs(8);
/// The wall clock when a world begins.
const BEGUN: Duration = Duration::from_secs(1_700_000_000);
/// Clients wait in the queues of their sockets until each member has been probed, no longer than this.
const FIRST_PROBES: Duration = Duration::from_millis(500);
/// What came so shortly before a kill may be unknown: commands in flight, attempts that are still to be undone, and what
/// was not handed over.
const UNSURE: Duration = Duration::from_millis(6_500);

/// A world's restarts.
pub struct Restarts {
    chance: Chance,
    /// Whether there is a state directory.
    pub tape: Option<Tape>,
    /// How many lives there have been before this one.
    lives: u64,
    /// What the daemon ran when it was killed, by proxy, while it is down.
    down: Option<Vec<(Member, usize)>>,
    /// Until when clients wait for the first probes.
    until: Duration,
}

impl Restarts {
    /// Of that seed; nobody has been killed yet.
    pub fn new(world: &mut World) -> Self {
        let mut chance = Chance::new(!world.seed);
        let tape = chance.permille(700).then(|| Tape::new(world.at()));
        let first = chance.apart(APART);
        world.plan(first, Event::Kill);
        Self {
            chance,
            tape,
            lives: 0,
            down: None,
            until: Duration::ZERO,
        }
    }
}

impl World {
    /// Whether no daemon is there.
    pub fn is_down(&self) -> bool {
        self.restarts
            .as_ref()
            .is_some_and(|restarts| restarts.down.is_some())
    }

    /// Whether a daemon is there that takes no commands yet.
    pub fn is_starting(&self) -> bool {
        let restarts = self.restarts.as_ref();
        restarts.is_some_and(|restarts| self.now < restarts.until) && !self.core.round_is_over()
    }

    /// The number of this life, for what must differ from that of the one before.
    pub fn life(&self) -> u64 {
        self.restarts.as_ref().map_or(0, |restarts| restarts.lives)
    }

    /// Has the journal of the first life begun, and what was handed over written.
    pub fn write(&mut self) {
        let now = self.at();
        if let Some(tape) = self.restarts.as_mut().and_then(|restarts| restarts.tape.as_mut()) {
            tape.turn(now);
        }
    }

    /// Something for a daemon that is not there, or does not serve yet. Says whether that is so.
    pub fn misses(&mut self, what: &In) -> bool {
        if self.is_down() {
            if let In::Command(id) = what
                && !self.commands[*id].is_datagram()
            {
                self.broke(*id);
            }
            return true;
        }
        if let In::Command(id) = what
            && self.is_starting()
        {
            self.plan(Duration::from_millis(10), Event::In(In::Command(*id)));
            return true;
        }
        false
    }

    /// The connection of a command is closed without a reply.
    fn broke(&mut self, id: usize) {
        if let Some(call) = self.commands[id].call {
            self.calls[call].is_lost = true;
            self.calls[call].home = None;
        }
        self.plan(Duration::from_millis(1), Event::Told(id));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let Some(mut restarts) = self.restarts.take() else {
            return;
        };
        if self.is_calm || restarts.down.is_some() {
            let later = restarts.chance.apart(APART);
            self.plan(later, Event::Kill);
            self.restarts = Some(restarts);
            return;
        }
        self.note(|| "!killed".to_owned());
        let now = self.now;
        restarts.tape = restarts.tape.take().map(|tape| tape.again(self.at()));
        let keeps = restarts.tape.is_some();
        for call in &mut self.calls[self.books.first()..] {
            if !keeps || call.used + UNSURE >= now {
                call.is_lost = true;
                call.home = None;
            }
        }
        for id in self.books.killed() {
            if self.commands[id].is_datagram() {
                continue;
            }
            self.broke(id);
        }
        for command in &mut self.commands {
            command.arrived = None;
        }
        let of = |id| self.proxies.iter().position(|proxy| proxy.id == Some(id));
        let members = self.core.members_in_order();
        let members = members
            .into_iter()
            .filter_map(|member| Some((member.config.clone(), of(member.id)?)));
        restarts.down = Some(members.collect());
        self.books.was_full |= self.was_full();
        self.probers.clear();
        self.forget_what_comes();
        for of in 0..self.proxies.len() {
            let proxy = &mut self.proxies[of];
            proxy.id = None;
            // What is on the way is nobody's any more.
            proxy.connection += 1;
            proxy.ours_since = proxy.connection;
            proxy.open.clear();
            proxy.backlog.clear();
        }
        if restarts.chance.permille(300) {
            let of = restarts.chance.below(self.proxies.len());
            self.note(|| format!("!P{of} is deaf"));
            let until = now + DEAF;
            let proxy = &mut self.proxies[of];
            (proxy.deaf_until, proxy.well_since) = (until, until.max(proxy.well_since));
        }
        let (down, next) = (restarts.chance.ms(1, 4_000), restarts.chance.apart(APART));
        self.restarts = Some(restarts);
        self.plan(down, Event::Start);
        self.plan(down + next, Event::Kill);
    }

    /// It is started again.
    pub fn start(&mut self) {
        let Some(mut restarts) = self.restarts.take() else {
            return;
        };
        let (now, rules) = (self.at(), self.core.rules().clone());
        let (seed, key) = (restarts.chance.bits(), restarts.chance.bits());
        self.core = Dispatch::new(now, rules, seed, Key::from_seed(key));
        self.out = Outbox::default();
        self.repeats = Repeats::new(now, KEPT, std::hash::RandomState::new());
        restarts.lives += 1;
        restarts.until = self.now + FIRST_PROBES;
        for (member, of) in restarts.down.take().unwrap_or_default() {
            let id = self.core.next_members(1).expect("room")[0];
            self.core.add_member(now, id, member, of);
            let (rules, is_datagram) = (self.core.rules().health, self.proxies[of].is_datagram);
            let mut prober = Prober::new(now, id, of, rules, is_datagram);
            prober.live(restarts.lives);
            self.probers.push(prober);
            self.proxies[of].id = Some(id);
        }
        if let Some(tape) = &restarts.tape {
            let mut past = Past::new(Moment::from_unix(BEGUN + self.now));
            past.add(0, &mut self.core);
            let tally = tape.read(|record| past.restore(now, record, &mut self.core));
            assert_eq!((tally.damaged, tally.unknown), (0, 0), "what was written is read");
        }
        self.restarts = Some(restarts);
        self.keep_journal();
        self.note(|| "!started".to_owned());
    }

    /// Has what happens from now on written down.
    pub fn keep_journal(&mut self) {
        let (now, wall) = (self.at(), BEGUN + self.now);
        if let Some(Restarts { tape: Some(tape), .. }) = &self.restarts {
            let epoch = Moment::from_unix(wall.saturating_sub(self.core.age(now)));
            let recorder = tape.recorders().recorder("C", epoch, || ());
            self.core.keep_journal(now, Box::new(recorder));
        }
    }
}
