//! Faults and operators, at random times.

use core::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rtp_cluster::config::model::{Address, CapacityLimit, Cluster, Member, Name, Policy, Protocol, Status};
use rtp_cluster::dispatch::Dispatch;
use rtp_cluster::dispatch::key::Key;
use rtp_cluster::dispatch::outbox::Outbox;
use rtp_cluster::dispatch::rewrite::Origin;
use rtp_cluster::dispatch::session::MemberId;

use super::chance::Chance;
use super::prober::Prober;
use super::proxy::{Mode, Trouble};
use super::world::{Event, World};

/// Between two faults.
const APART: Duration = Duration::from_secs(4);

/// The rules of a cluster.
pub fn rules(chance: &mut Chance) -> Cluster {
    let name = Name::new("C").expect("a name");
    let mut rules = Cluster::new(name, Protocol::Unix, Address::Path("/c".into()));
    rules.policy = *chance.one(&[Policy::Weighted, Policy::LeastLoaded, Policy::Hash]);
    rules.capacity_limit = *chance.one(&[CapacityLimit::Soft, CapacityLimit::Hard]);
    rules.failover.timeout = chance.ms(100, 1000);
    rules.failover.attempts = 1 + u32::try_from(chance.below(5)).expect("few");
    rules.health.fall = *chance.one(&[1, 2, 2, 3]);
    rules.health.rise = *chance.one(&[1, 1, 2]);
    rules.health.slow_start = *chance.one(&[Duration::ZERO, Duration::from_secs(20)]);
    if chance.permille(150) {
        rules.sessions.max = 12;
    }
    if chance.permille(150) {
        rules.sessions.expire = Duration::from_secs(60);
    }
    rules
}

impl World {
    fn definition(&mut self, of: usize) -> Member {
        let proxy = &self.proxies[of];
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(of).expect("few")));
        Member::new(
            Name::new(&proxy.name).expect("a name"),
            if proxy.is_datagram {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            Address::Ip((ip, 22222).into()),
            *self.chance.one(&[0, 1, 50, 100, 100]),
            *self.chance.one(&[4, 1000, 1000]),
        )
    }

    pub fn add_member(&mut self, of: usize) {
        let member = self.definition(of);
        let id = self.core.next_members(1).expect("room")[0];
        let now = self.at();
        self.note(|| format!("!add P{of}"));
        self.proxies[of].id = Some(id);
        self.core.add_member(now, id, member, of);
        let rules = self.core.rules().health;
        let mut prober = Prober::new(now, id, of, rules, self.proxies[of].is_datagram);
        prober.live(self.life());
        self.probers.push(prober);
    }

    pub fn remove_member(&mut self, id: MemberId) {
        let now = self.at();
        let Some(of) = self.proxies.iter().position(|proxy| proxy.id == Some(id)) else {
            return;
        };
        self.note(|| format!("!remove P{of}"));
        self.books.leaving = Some(id);
        self.with_core(|core, out| core.remove_member(now, id, out));
        self.settle();
        self.books.leaving = None;
        self.proxies[of].id = None;
        self.proxies[of].open.clear();
        self.probers.retain(|prober| prober.id != id);
    }

    /// Something goes wrong, or somebody changes something.
    pub fn chaos(&mut self) {
        if self.is_calm {
            return;
        }
        let next = self.chance.apart(APART);
        self.plan(next, Event::Chaos);
        let of = self.chance.below(self.proxies.len());
        match self.chance.below(20) {
            0..=1 => self.falls(of, Mode::Stopped, 100, 15_000),
            2..=3 => self.falls(of, Mode::Cut, 100, 30_000),
            4..=5 => self.falls(of, Mode::Down, 200, 40_000),
            6 => self.falls(of, Mode::Down, 1, 20),
            7..=9 => self.suffers(of),
            10 => {
                let span = self.chance.ms(10, 600);
                self.stalled += span;
                self.stalled_until = self.now + span;
            }
            11 => self.books.loss = u32::try_from(self.chance.below(300)).expect("few"),
            12 => self.books.loss = 0,
            // Nobody is there to be told anything.
            13.. if self.is_down() => {}
            13 => self.reload(),
            14 => self.agree(),
            15 => {
                // It goes on and off.
                for n in 0..4 {
                    let after = Duration::from_millis(1_500 * n);
                    self.plan(after, Event::Heal(of, 1));
                    self.plan(after + Duration::from_millis(700), Event::Heal(of, 2));
                }
            }
            16 if !self.proxies[of].is_datagram => {
                self.note(|| format!("!P{of} breaks its connections"));
                self.proxies[of].well_since = self.now;
                self.break_connections(of);
            }
            _ => self.operator(of),
        }
    }

    fn falls(&mut self, of: usize, mode: Mode, from: u64, to: u64) {
        self.note(|| format!("!P{of} {mode:?}"));
        let now = self.now;
        self.proxies[of].well_since = now;
        if mode == Mode::Down {
            self.proxies[of].restart(now);
            self.proxies[of].mode = mode;
            self.break_connections(of);
        }
        self.proxies[of].mode = mode;
        let span = self.chance.ms(from, to);
        self.plan(span, Event::Heal(of, 0));
    }

    fn suffers(&mut self, of: usize) {
        let chance = &mut self.chance;
        let mut some = |most: usize| {
            if chance.permille(400) {
                u32::try_from(chance.below(most)).expect("few")
            } else {
                0
            }
        };
        let trouble = Trouble {
            loss: some(400),
            doubles: some(300),
            garbage: some(300),
            refuses: some(900),
            slow: u64::from(some(900)),
        };
        self.note(|| format!("!P{of} {trouble:?}"));
        let now = self.now;
        self.proxies[of].well_since = now;
        self.proxies[of].trouble = trouble;
        let span = self.chance.ms(500, 30_000);
        self.plan(span, Event::Heal(of, 3));
    }

    /// What was wrong with a proxy is over: 0 all of its mode, 1 and 2 of one that flaps, 3 of its network.
    pub fn heal(&mut self, of: usize, what: u32) {
        if what == 1 {
            if !self.is_calm && self.proxies[of].mode == Mode::Up {
                self.proxies[of].mode = Mode::Cut;
                self.proxies[of].well_since = self.now;
            }
            return;
        }
        self.note(|| format!("!P{of} healed {what}"));
        if what == 3 {
            self.proxies[of].trouble = Trouble::default();
        } else {
            self.proxies[of].mode = Mode::Up;
            self.flush(of);
        }
        self.proxies[of].well_since = self.now;
    }

    fn operator(&mut self, of: usize) {
        let Some(id) = self.proxies[of].id else {
            let now = self.now;
            self.proxies[of].restart(now);
            return self.add_member(of);
        };
        let online = self.core.member_of(id).is_some_and(|member| member.online);
        let what = self.chance.below(8);
        let weight = *self.chance.one(&[0, 1, 50, 100]);
        self.note(|| format!("!operator P{of} {what}"));
        match what {
            0..=1 => {
                self.core
                    .change_member(id, |member| member.status = Status::Suspended);
            }
            2..=3 => {
                self.core
                    .change_member(id, |member| member.status = Status::Active);
            }
            4..=5 => {
                self.core.change_member(id, |member| member.weight = weight);
            }
            6 if online && !self.core.is_free(id) => {
                self.core
                    .change_member(id, |member| member.status = Status::Draining);
            }
            _ => self.remove_member(id),
        }
    }

    /// The file has changed: other rules, another order.
    fn reload(&mut self) {
        let old = self.core.rules().sessions;
        let mut rules = rules(&mut self.chance);
        rules.sessions = old;
        self.core.set_rules(&rules);
        for prober in &mut self.probers {
            prober.rules = rules.health;
        }
        let names: Vec<Name> = self
            .proxies
            .iter()
            .rev()
            .filter_map(|p| Name::new(&p.name))
            .collect();
        self.core.put_in_order(names.iter());
    }

    /// Two dispatchers of the same file choose alike, and as the formula says.
    fn agree(&mut self) {
        let now = self.at();
        let mut rules = self.core.rules().clone();
        rules.policy = Policy::Hash;
        let members: Vec<(Member, bool)> = self
            .core
            .members_in_order()
            .into_iter()
            .map(|member| {
                let config = Member {
                    capacity: 1_000_000,
                    ..member.config.clone()
                };
                (config, member.online)
            })
            .collect();
        let call_id = format!("agree-{:x}", self.chance.bits());
        let mut chosen = |backwards: bool| {
            let (seed, key) = (self.chance.bits(), Key::from_seed(self.chance.bits()));
            let mut core: Dispatch<u32, usize> = Dispatch::new(now, rules.clone(), seed, key);
            let mut out = Outbox::default();
            let mut places: Vec<usize> = (0..members.len()).collect();
            if backwards {
                places.reverse();
            }
            for place in places {
                let (member, online) = &members[place];
                let id = core.next_members(1).expect("room")[0];
                core.add_member(now, id, member.clone(), place);
                if *online {
                    core.set_online(now, id, true, String::new(), &mut out);
                }
            }
            let text = format!("U {call_id} 192.0.2.1 4000 f");
            core.command(now, text.as_bytes(), Origin::Unix, 0, &mut out);
            let mut to = None;
            out.drain_sends(|send, _| to = Some(send.link));
            to
        };
        let (one, other) = (chosen(false), chosen(true));
        assert_eq!(one, other, "two dispatchers choose differently for {call_id}");
        let takes = |(member, online): &&(Member, bool)| *online && member.status == Status::Active;
        let has_weight = members.iter().filter(takes).any(|(member, _)| member.weight > 0);
        let best = members
            .iter()
            .enumerate()
            .filter(|(_, it)| takes(it) && (!has_weight || it.0.weight > 0))
            .min_by(|(_, a), (_, b)| score(&a.0, &call_id).total_cmp(&score(&b.0, &call_id)));
        assert_eq!(
            one,
            best.map(|(place, _)| place),
            "not as the formula says for {call_id}"
        );
    }

    /// The faults end, all calls are hung up, all members come back.
    pub fn calm_down(&mut self) {
        self.note(|| "!calm".to_owned());
        self.is_calm = true;
        self.books.loss = 0;
        for of in 0..self.proxies.len() {
            if self.proxies[of].id.is_none() {
                // With what it has not looked at yet.
                let now = self.now;
                self.proxies[of].restart(now);
            }
            self.heal(of, 0);
            self.heal(of, 3);
            if let Some(id) = self.proxies[of].id {
                self.core
                    .change_member(id, |member| member.status = Status::Active);
            } else {
                self.add_member(of);
            }
        }
        for n in self.books.live.clone() {
            self.plan(Duration::from_millis(10), Event::Call(n));
        }
    }

    /// The next era begins.
    pub fn wake_up(&mut self) {
        self.is_calm = false;
        self.rest_at = None;
        self.era = self.step + 6_000;
        self.plan(Duration::ZERO, Event::Arrival);
        self.plan(Duration::from_secs(2), Event::Chaos);
    }
}

/// The formula of `hash`, written down once more.
fn score(member: &Member, call_id: &str) -> f64 {
    let bytes = member.name.as_str().bytes().chain([0]).chain(call_id.bytes());
    let mut h = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^= h >> 31;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    let u = ((h >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0;
    -u.ln() / f64::from(member.weight.max(1))
}
