//! One RTPproxy under watch: its link, the probes on their way to it, and those that follow what becomes of it. An
//! RTPproxy that is a member of several clusters, under the same rules, is one target.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::time::Instant;

use super::watch::{Answer, Probe, State, Watch, Why};
use crate::config::model::{self, Address};
use crate::link::{Link, Refused, Sink};
use crate::protocol::cookie::Cookie;
use crate::protocol::reply::{SessionCounts, parse_info};
use crate::rim::readiness::Spot;

/// Capabilities that are asked of each member when it comes back: those that SIP servers ask for when they start,
/// the two that decide about notifications (20081224, 20150617), and the one that its heartbeats can tell its load
/// (20140323).
pub const CAPABILITIES: [u64; 8] = [
    20_050_322, 20_071_218, 20_080_403, 20_081_102, 20_081_224, 20_090_810, TELLS_LOAD, 20_150_617,
];
/// `Ibl` is known to who has this one.
const TELLS_LOAD: u64 = 20_140_323;
/// The first retransmission of a probe over UDP, doubled up to the second: seven tries in a second.
const RESEND: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// Bytes that are shown of an answer that is none.
const SAID_MAX: usize = 60;
/// Between two look-ups of the name of a member that does not answer.
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);

/// What the followers of a target are told.
#[derive(Debug, Clone)]
pub enum News {
    /// Its name has these addresses.
    At(Vec<SocketAddr>),
    /// It came online, or went offline for the reason given.
    State {
        /// Which of both.
        online: bool,
        /// Why.
        why: String,
    },
    /// It is offline still, or at its first probe, for this reason.
    Absent(String),
    /// It is not online, and is tried again then.
    TriedAgain(Instant),
    /// It has been restarted and lost what it had at its last good heartbeat, which was then.
    Restarted(Instant),
    /// It said so to `VF n`.
    Capability(u64, bool),
    /// A probe that decides has ended: answered or not.
    Probed(bool),
    /// It was asked then how many sessions it has, and said so, or that it does not count.
    Counted {
        /// When it was asked.
        asked: Instant,
        /// What it said.
        counts: Option<SessionCounts>,
        /// How long it took, where that could be measured.
        delay: Option<Duration>,
    },
}

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

/// A probe on its way.
#[derive(Debug)]
struct Flying {
    serial: u32,
    ask: Ask,
    sent: Instant,
    deadline: Instant,
    resend: Option<Instant>,
    pause: Duration,
    resent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// One that decides.
    Probe(Probe),
    Capability(u64),
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

/// How a probe that decides has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ended {
    /// It was answered.
    Answered(Answer),
    /// It was not.
    Missed,
    /// Its socket refused.
    Refused(Refused),
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
    flying: Vec<Flying>,
    known: Vec<(u64, bool)>,
    /// What it last said in place of an answer.
    said: String,
    /// Whether it has been counted since it came back.
    pub(super) counted: bool,
    serial: u32,
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
            flying: Vec::new(),
            known: Vec::new(),
            said: String::new(),
            counted: false,
            serial: 0,
            nonce,
        }
    }

    /// The same RTPproxy, to be probed in another way, and followed by nobody yet. What is known of it stays known.
    pub(super) fn split(&self, now: Instant, rules: model::Health, nonce: u64) -> Self {
        Self {
            watch: self.watch.taken_over(now),
            name: match self.name {
                Name::Unknown(_) => Name::Unknown(None),
                Name::Again => Name::Known(now),
                known => known,
            },
            at: self.at.clone(),
            known: self.known.clone(),
            counted: self.counted,
            ..Self::new(now, &self.member, rules, nonce)
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
        let known = self.known.iter();
        news.extend(known.map(|(number, has)| News::Capability(*number, *has)));
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
        if matches!(why, Why::Odd { .. } | Why::WrongVersion) && !self.said.is_empty() {
            format!("{why}: it said \"{}\"", self.said)
        } else {
            why.to_string()
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
            self.flying.clear();
            self.known.clear();
            self.counted = false;
        }
        if !self.open(now, spot) {
            return Some(Ended::Missed);
        }
        let unknown: Vec<u64> = CAPABILITIES
            .into_iter()
            .filter(|number| self.known.iter().all(|(known, _)| known != number))
            .filter(|number| {
                self.flying
                    .iter()
                    .all(|flying| flying.ask != Ask::Capability(*number))
            })
            .collect();
        let mut refused = self.ask(now, Ask::Probe(probe), spot);
        for number in unknown {
            refused = refused.or_else(|| self.ask(now, Ask::Capability(number), spot));
        }
        refused.map(|refused| {
            self.flying.clear();
            Ended::Refused(refused)
        })
    }

    fn ask(&mut self, now: Instant, ask: Ask, spot: Spot<'_>) -> Option<Refused> {
        self.serial = self.serial.wrapping_add(1);
        let pause = RESEND.0;
        let is_datagram = self.member.protocol.is_datagram();
        self.flying.push(Flying {
            serial: self.serial,
            ask,
            sent: now,
            deadline: now + self.key.rules.timeout,
            resend: is_datagram.then(|| now + pause),
            pause,
            resent: false,
        });
        self.put(now, self.serial, ask, spot)
    }

    fn put(&mut self, now: Instant, serial: u32, ask: Ask, spot: Spot<'_>) -> Option<Refused> {
        let tells_load = self.known.contains(&(TELLS_LOAD, true));
        let cookie = self.cookie(serial);
        let mut text = Vec::with_capacity(64);
        cookie.write(&mut text);
        match ask {
            Ask::Probe(Probe::Version) => text.extend_from_slice(b" V\n"),
            // One too old for `l` would refuse to be asked.
            Ask::Probe(Probe::Counts) => {
                text.extend_from_slice(if tells_load { b" Ibl\n" } else { b" Ib\n" });
            }
            Ask::Capability(number) => text.extend_from_slice(format!(" VF {number}\n").as_bytes()),
        }
        let link = self.link.as_mut()?;
        link.send(now, cookie, true, &text, spot).err()
    }

    fn cookie(&self, serial: u32) -> Cookie {
        Cookie {
            slot: 0,
            serial,
            index: 0,
            // Another for each probe.
            nonce: self
                .nonce
                .wrapping_mul(u64::from(serial) | 1)
                .rotate_left(serial % 64)
                ^ self.nonce,
        }
    }

    /// When [`Target::alarm`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        let flying = self.flying.iter().map(|flying| {
            flying
                .resend
                .map_or(flying.deadline, |resend| resend.min(flying.deadline))
        });
        let watch = match self.name {
            Name::Unknown(due) => due,
            _ => Some(self.watch.due()),
        };
        let link = self.link.as_ref().and_then(Link::due);
        flying.chain(watch).chain(link).min()
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
        let mut again = Vec::new();
        for flying in &mut self.flying {
            if flying.resend.is_some_and(|resend| resend <= now) {
                flying.pause = (flying.pause * 2).min(RESEND.1);
                flying.resend = Some(now + flying.pause);
                flying.resent = true;
                again.push((flying.serial, flying.ask));
            }
        }
        let refused = again.into_iter().fold(None, |refused, (serial, ask)| {
            refused.or(self.put(now, serial, ask, spot))
        });
        let decides = |flying: &Flying| flying.deadline <= now && matches!(flying.ask, Ask::Probe(_));
        let missed = self.flying.iter().any(decides);
        self.flying.retain(|flying| flying.deadline > now);
        if missed {
            let mut heard = Heard::default();
            if let Some(link) = &mut self.link {
                link.renew(now, self.key.rules.timeout, spot, &mut heard);
            }
        }
        ended
            .or(refused.map(Ended::Refused))
            .or(missed.then_some(Ended::Missed))
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
            let Some(place) = self.place_of(cookie) else {
                continue;
            };
            let flying = self.flying.swap_remove(place);
            match flying.ask {
                Ask::Capability(number) => {
                    let has = text == b"1";
                    self.known.push((number, has));
                    tell(News::Capability(number, has));
                }
                Ask::Probe(Probe::Version) => {
                    let answer = match &*text {
                        b"20040107" => Answer::Version,
                        text if text.starts_with(b"E") => Answer::Odd,
                        _ => Answer::WrongVersion,
                    };
                    self.heard(answer, &text);
                    ended = Some(Ended::Answered(answer));
                }
                Ask::Probe(Probe::Counts) => {
                    let (answer, counts) = counted(&text);
                    self.heard(answer, &text);
                    if answer != Answer::Odd {
                        let delay = (!flying.resent).then(|| now.saturating_duration_since(flying.sent));
                        tell(News::Counted {
                            asked: flying.sent,
                            counts,
                            delay,
                        });
                    }
                    ended = Some(Ended::Answered(answer));
                }
            }
        }
        for cookie in heard.broken {
            if let Some(place) = self.place_of(cookie)
                && matches!(self.flying.swap_remove(place).ask, Ask::Probe(_))
            {
                ended = ended.or(Some(Ended::Missed));
            }
        }
        if let Some(refused) = heard.refused {
            self.flying.clear();
            ended = Some(Ended::Refused(refused));
        }
        ended
    }

    fn heard(&mut self, answer: Answer, text: &[u8]) {
        if matches!(answer, Answer::Odd | Answer::WrongVersion) {
            let excerpt = text.get(..SAID_MAX).unwrap_or(text);
            self.said = excerpt.escape_ascii().to_string();
        }
    }

    fn place_of(&self, cookie: Cookie) -> Option<usize> {
        let place = self
            .flying
            .iter()
            .position(|flying| flying.serial == cookie.serial)?;
        (self.cookie(cookie.serial) == cookie).then_some(place)
    }
}

/// What a reply to `Ib` says.
fn counted(text: &[u8]) -> (Answer, Option<SessionCounts>) {
    if let Some(counts) = parse_info(text) {
        let created = counts.created;
        return (Answer::Counts { created }, Some(counts));
    }
    let is_error = text
        .strip_prefix(b"E")
        .is_some_and(|code| !code.is_empty() && code.iter().all(u8::is_ascii_digit));
    let has_lines = text.windows(16).any(|part| part == b"active sessions:");
    if is_error || has_lines {
        (Answer::Uncounted, None)
    } else {
        (Answer::Odd, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_none_is_unknown_and_an_error_is_an_answer() {
        let five = |active: &str| {
            format!(
                "sessions created: 1\nactive sessions: {active}\nactive streams: 0\npackets received: 0\n\
                 packets transmitted: 0"
            )
        };
        assert_eq!(counted(five("2").as_bytes()).1.unwrap().active, 2);
        for wrong in ["-5", "18446744073709551616", "many"] {
            assert_eq!(
                counted(five(wrong).as_bytes()),
                (Answer::Uncounted, None),
                "{wrong}"
            );
        }
        assert_eq!(counted(b"E8"), (Answer::Uncounted, None));
        assert_eq!(counted(b"20040107"), (Answer::Odd, None));
    }
}
