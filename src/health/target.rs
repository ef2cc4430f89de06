//! One RTPproxy under watch: its link, its probes, and those that follow what becomes of it. An
//! RTPproxy that is a member of several clusters, under the same rules, is one target.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::time::Instant;

use super::news::News;
use super::probes::{Message, Probes};
use super::watch::{Ended, Probe, State, Watch, Why};
use crate::config::model::{self, Address};
use crate::link::{Link, Refused, Sink};
use crate::protocol::cookie::Cookie;
use crate::rim::readiness::Spot;

/// Between two look-ups of the name of a member that does not answer.
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);

/// What it is and how it is probed: all that makes two members one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    protocol: model::Protocol,
    address: Address,
    source: Option<core::net::IpAddr>,
    rules: model::Health,
}

impl Key {
    pub(super) fn new(member: &model::Member, rules: model::Health) -> Self {
        Self {
            protocol: member.protocol,
            address: member.address.clone(),
            source: member.cmd_out_address,
            rules,
        }
    }

    /// Whether both are at one address.
    pub(super) fn is_at_address_of(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

/// What is known of where a name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// It is an address, not a name.
    None,
    /// Nothing yet. It is being looked up, or will be at that moment.
    Unknown(Option<Instant>),
    /// Known, and last looked up at that moment.
    Known(Instant),
    /// Known, and being looked up again.
    Again,
}

/// What came of a target's link.
#[derive(Debug, Default)]
struct Heard {
    replies: Vec<(Cookie, Vec<u8>)>,
    broken: Vec<Cookie>,
    refused: Option<Refused>,
}

impl Sink for Heard {
    fn reply(&mut self, cookie: Cookie, text: &[u8]) {
        self.replies.push((cookie, text.to_vec()));
    }

    fn foreign(&mut self) {}

    fn refused(&mut self, why: Refused) {
        self.refused = Some(why);
    }

    fn broken(&mut self, cookie: Cookie) {
        self.broken.push(cookie);
    }
}

/// One RTPproxy.
pub(super) struct Target<F> {
    pub(super) key: Key,
    pub(super) watch: Watch,
    pub(super) followers: Vec<F>,
    member: model::Member,
    link: Option<Link>,
    name: Name,
    /// Where its name leads.
    at: Vec<SocketAddr>,
    probes: Probes,
    /// Whether it has been counted since it came back.
    pub(super) counted: bool,
    /// No other target has it.
    pub(super) nonce: u64,
}

impl<F> fmt::Debug for Target<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<F> Target<F> {
    /// Nothing is known of it; `nonce` makes its cookies hard to guess.
    pub(super) fn new(now: Instant, member: &model::Member, rules: model::Health, nonce: u64) -> Self {
        Self {
            key: Key::new(member, rules),
            watch: Watch::new(now),
            followers: Vec::new(),
            member: member.clone(),
            link: None,
            name: match member.address {
                Address::Host(..) => Name::Unknown(None),
                _ => Name::None,
            },
            at: Vec::new(),
            probes: Probes::new(nonce, member.protocol.is_datagram()),
            counted: false,
            nonce,
        }
    }

    /// The same RTPproxy, to be probed in another way, and followed by nobody yet. What is known of it stays known.
    pub(super) fn split(&self, now: Instant, rules: model::Health, nonce: u64) -> Self {
        let anew = Self::new(now, &self.member, rules, nonce);
        Self {
            watch: self.watch.taken_over(now),
            name: match self.name {
                Name::Unknown(_) => Name::Unknown(None),
                Name::Again => Name::Known(now),
                known => known,
            },
            at: self.at.clone(),
            probes: anew.probes.knowing(&self.probes),
            counted: self.counted,
            ..anew
        }
    }

    pub(super) fn rules(&self) -> model::Health {
        self.key.rules
    }

    /// The name to look up now, if there is one to look up: host, port, and whether IPv6 is wanted.
    pub(super) fn name(&self) -> Option<(&str, u16, bool)> {
        match &self.member.address {
            Address::Host(host, port) => Some((host, *port, self.member.protocol.is_v6())),
            _ => None,
        }
    }

    /// Whether its name is to be looked up again, now that it does not answer where it was.
    pub(super) fn wants_look_up(&mut self, now: Instant) -> bool {
        let Name::Known(at) = self.name else { return false };
        if now < at + LOOK_UP_EVERY {
            return false;
        }
        self.name = Name::Again;
        true
    }

    /// Whether it is time to look a name up once more that has not been found.
    pub(super) fn look_up_is_due(&mut self, now: Instant) -> bool {
        let due = matches!(self.name, Name::Unknown(Some(due)) if due <= now);
        if due {
            self.name = Name::Unknown(None);
        }
        due
    }

    /// Whether it cannot be probed before its name is known.
    pub(super) fn is_nowhere(&self) -> bool {
        matches!(self.name, Name::Unknown(_))
    }

    /// The name has these addresses, or none: then the last good ones are kept, or it is looked up once more.
    pub(super) fn found(&mut self, now: Instant, addresses: &[SocketAddr], spot: Spot<'_>) {
        if addresses.is_empty() {
            self.name = if self.is_nowhere() {
                Name::Unknown(Some(now + self.key.rules.retry))
            } else {
                Name::Known(now)
            };
            return;
        }
        self.name = Name::Known(now);
        self.at = addresses.to_vec();
        self.open(now, spot);
        if let Some(link) = &mut self.link {
            link.move_to(now, addresses, spot);
        }
    }

    /// What a follower that has just come is to know.
    pub(super) fn known(&self) -> Vec<News> {
        let mut news = Vec::new();
        if !self.at.is_empty() {
            news.push(News::At(self.at.clone()));
        }
        news.extend(
            self.probes
                .known()
                .map(|(number, has)| News::Capability(number, has)),
        );
        let why = self.reason();
        match self.watch.state() {
            State::Unprobed => {}
            State::Online => news.push(News::State { online: true, why }),
            State::Offline => news.push(News::Absent(why)),
        }
        news
    }

    /// Why it is in its state, with what it said where that was no answer.
    pub(super) fn reason(&self) -> String {
        let why = self.watch.why();
        match (&why, self.probes.said()) {
            (Why::Odd { .. } | Why::WrongVersion, said) if !said.is_empty() => {
                format!("{why}: it said \"{said}\"")
            }
            _ => why.to_string(),
        }
    }

    /// It is probed in another way from now on.
    pub(super) fn set_rules(&mut self, rules: model::Health) {
        self.key.rules = rules;
    }

    /// One of the members that it is.
    pub(super) fn member(&self) -> &model::Member {
        &self.member
    }

    /// Opens its link, if there is none. A link that could not be had is tried again with the next probe.
    fn open(&mut self, now: Instant, spot: Spot<'_>) -> bool {
        if self.link.is_none() {
            match Link::open(&self.member) {
                Ok(mut link) => {
                    link.start(spot);
                    if !self.at.is_empty() {
                        link.move_to(now, &self.at, spot);
                    }
                    self.link = Some(link);
                }
                Err(error) => log::warn!("probing {}: {error}", self.member.address),
            }
        }
        self.link.is_some()
    }

    /// Sends a probe that decides, and asks beside it for what is not known yet.
    pub(super) fn send(&mut self, now: Instant, probe: Probe, spot: Spot<'_>) -> Option<Ended> {
        if probe == Probe::Version {
            self.probes.forget();
            self.counted = false;
        }
        if !self.open(now, spot) {
            return Some(Ended::Missed);
        }
        let mut asked = self.probes.ask(now, probe, self.key.rules.timeout).into_iter();
        let refused = asked.find_map(|message| self.put(now, message, spot))?;
        self.probes.give_up();
        Some(Ended::Refused(refused))
    }

    fn put(&mut self, now: Instant, (cookie, text): Message, spot: Spot<'_>) -> Option<Refused> {
        self.link.as_mut()?.send(now, cookie, true, &text, spot).err()
    }

    /// When [`Target::alarm`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        let watch = match self.name {
            Name::Unknown(due) => due,
            _ => Some(self.watch.due()),
        };
        let link = self.link.as_ref().and_then(Link::due);
        [self.probes.due(), watch, link].into_iter().flatten().min()
    }

    /// Sends again what is due, and gives up what is overdue. `Some` when that was a probe that decides.
    pub(super) fn alarm(
        &mut self,
        now: Instant,
        spot: Spot<'_>,
        tell: &mut dyn FnMut(News),
    ) -> Option<Ended> {
        let mut heard = Heard::default();
        if let Some(link) = &mut self.link {
            link.alarm(now, spot, &mut heard);
        }
        let ended = self.take(now, heard, tell);
        let refused = self
            .probes
            .again(now)
            .into_iter()
            .fold(None, |refused, message| refused.or(self.put(now, message, spot)));
        let overdue = self.probes.overdue(now);
        if overdue == Some(Ended::Missed) {
            let mut heard = Heard::default();
            if let Some(link) = &mut self.link {
                link.renew(now, self.key.rules.timeout, spot, &mut heard);
            }
        }
        ended.or(refused.map(Ended::Refused)).or(overdue)
    }

    /// Its link is ready. `Some` when a probe that decides has ended.
    pub(super) fn ready(
        &mut self,
        now: Instant,
        number: usize,
        spot: Spot<'_>,
        tell: &mut dyn FnMut(News),
    ) -> Option<Ended> {
        let mut heard = Heard::default();
        if let Some(link) = &mut self.link {
            // It has few replies to give: what is left is told at the next probe.
            while link.ready(now, number, spot, &mut heard) {}
        }
        self.take(now, heard, tell)
    }

    fn take(&mut self, now: Instant, heard: Heard, tell: &mut dyn FnMut(News)) -> Option<Ended> {
        let mut ended = None;
        for (cookie, text) in heard.replies {
            ended = self.probes.reply(now, cookie, &text, tell).or(ended);
        }
        for cookie in heard.broken {
            ended = ended.or(self.probes.broken(cookie));
        }
        if let Some(refused) = heard.refused {
            self.probes.give_up();
            ended = Some(Ended::Refused(refused));
        }
        ended
    }
}
