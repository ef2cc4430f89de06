//! Who watches over one member, as the health thread does: [`Watch`] decides what is asked when, [`Probes`] what is sent.

use std::time::Instant;

use rtp_cluster::config::model::Health;
use rtp_cluster::dispatch::session::MemberId;
use rtp_cluster::health::news::News;
use rtp_cluster::health::probes::{Message, Probes};
use rtp_cluster::health::watch::{Ended, Probe, State, Watch};
use rtp_cluster::protocol::cookie::Cookie;

pub struct Prober {
    pub id: MemberId,
    pub proxy: usize,
    pub watch: Watch,
    pub rules: Health,
    probes: Probes,
    is_datagram: bool,
    /// Heartbeats in a row in which it was empty.
    pub empty: u32,
    /// When it is to be looked at next, as the world has noted it.
    pub noted: Option<Instant>,
}

/// What a turn of it comes to.
#[derive(Default)]
pub struct Said {
    pub news: Vec<News>,
    pub sends: Vec<Message>,
}

impl Said {
    /// Sessions that it has counted.
    pub fn active(&self) -> Option<u64> {
        self.news.iter().find_map(|news| match news {
            News::Counted { counts, .. } => counts.as_ref().map(|counts| counts.active),
            _ => None,
        })
    }
}

impl Prober {
    pub fn new(now: Instant, id: MemberId, proxy: usize, rules: Health, is_datagram: bool) -> Self {
        let place = u32::from(id.index) << 16 | u32::from(id.generation);
        Self {
            id,
            proxy,
            watch: Watch::new(now),
            rules,
            // No other member has this nonce.
            probes: Probes::new(u64::from(place) + 1, is_datagram),
            is_datagram,
            empty: 0,
            noted: None,
        }
    }

    /// The same for a daemon that has lived so many times before: what it says is not what was said then.
    pub fn live(&mut self, lives: u64) {
        let place = u32::from(self.id.index) << 16 | u32::from(self.id.generation);
        self.probes = Probes::new((lives << 40) + u64::from(place) + 1, self.is_datagram);
    }

    pub fn due(&self) -> Instant {
        let watch = self.watch.due();
        self.probes.due().map_or(watch, |probes| probes.min(watch))
    }

    /// Time has passed.
    pub fn alarm(&mut self, now: Instant, said: &mut Said) -> Option<Ended> {
        said.sends.extend(self.probes.again(now));
        self.probes.overdue(now)
    }

    /// Asks what is to be asked now.
    pub fn turn(&mut self, now: Instant, said: &mut Said) {
        let rules = self.rules;
        let Some(probe) = self.watch.next(now, &rules) else {
            return;
        };
        if probe == Probe::Version {
            self.probes.forget();
        }
        said.sends.extend(self.probes.ask(now, probe, rules.timeout));
    }

    pub fn reply(&mut self, now: Instant, cookie: Cookie, text: &[u8], said: &mut Said) -> Option<Ended> {
        self.probes
            .reply(now, cookie, text, &mut |news| said.news.push(news))
    }

    /// The connection of a probe broke.
    pub fn broken(&mut self, cookie: Cookie) -> Option<Ended> {
        self.probes.broken(cookie)
    }

    /// A probe that decides has ended, or a command was refused.
    pub fn ended(&mut self, now: Instant, ended: Ended, is_lonely: bool, said: &mut Said) {
        if matches!(ended, Ended::Refused(_)) {
            self.probes.give_up();
        }
        let rules = self.rules;
        let change = self.watch.ended(now, &rules, ended, || is_lonely);
        said.news.push(News::Probed(matches!(ended, Ended::Answered(_))));
        said.news.extend(News::of(&change, self.watch.why().to_string()));
    }

    pub fn is_online(&self) -> bool {
        self.watch.state() == State::Online
    }
}
