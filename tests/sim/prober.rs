//! Who watches over one member, as the health thread does: [`Watch`] decides what is asked when, and here it is sent,
//! sent again, and its answer told.

use std::time::{Duration, Instant};

use rtp_cluster::config::model::Health;
use rtp_cluster::dispatch::session::MemberId;
use rtp_cluster::health::target::{CAPABILITIES, News};
use rtp_cluster::health::watch::{Answer, Change, Probe, State, Watch};
use rtp_cluster::link::Refused;
use rtp_cluster::protocol::cookie::Cookie;
use rtp_cluster::protocol::reply::parse_info;
use rustix::io::Errno;

/// The first retransmission, and the longest pause.
const RESEND: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Probe(Probe),
    Capability(u64),
}

struct Flying {
    serial: u32,
    ask: Ask,
    sent: Instant,
    deadline: Instant,
    resend: Option<Instant>,
    pause: Duration,
    resent: bool,
}

pub enum Ended {
    Answered(Answer),
    Missed,
    Refused,
}

pub struct Prober {
    pub id: MemberId,
    pub proxy: usize,
    pub watch: Watch,
    pub rules: Health,
    is_datagram: bool,
    flying: Vec<Flying>,
    known: Vec<u64>,
    serial: u32,
    /// Heartbeats in a row in which it was empty.
    pub empty: u32,
    /// When it is to be looked at next, as the world has noted it.
    pub noted: Option<Instant>,
}

/// What a turn of it comes to.
#[derive(Default)]
pub struct Said {
    pub news: Vec<News>,
    pub sends: Vec<(Cookie, Vec<u8>)>,
    /// Sessions that it has counted.
    pub active: Option<u64>,
}

impl Prober {
    pub fn new(now: Instant, id: MemberId, proxy: usize, rules: Health, is_datagram: bool) -> Self {
        Self {
            id,
            proxy,
            watch: Watch::new(now),
            rules,
            is_datagram,
            flying: Vec::new(),
            known: Vec::new(),
            serial: 0,
            empty: 0,
            noted: None,
        }
    }

    pub fn due(&self) -> Instant {
        let flying = self
            .flying
            .iter()
            .map(|f| f.resend.map_or(f.deadline, |r| r.min(f.deadline)));
        flying.chain([self.watch.due()]).min().expect("never empty")
    }

    fn cookie(&self, serial: u32) -> Cookie {
        let place = u32::from(self.id.index) << 16 | u32::from(self.id.generation);
        Cookie {
            slot: 0x00ff_ffff,
            serial,
            index: 0,
            nonce: u64::from(place),
        }
    }

    fn write(&self, serial: u32, ask: Ask, said: &mut Said) {
        let cookie = self.cookie(serial);
        let mut text = Vec::new();
        cookie.write(&mut text);
        match ask {
            Ask::Probe(Probe::Version) => text.extend_from_slice(b" V"),
            Ask::Probe(Probe::Counts) => text.extend_from_slice(b" Ib"),
            Ask::Capability(n) => text.extend_from_slice(format!(" VF {n}").as_bytes()),
        }
        said.sends.push((cookie, text));
    }

    fn ask(&mut self, now: Instant, ask: Ask, said: &mut Said) {
        self.serial += 1;
        self.flying.push(Flying {
            serial: self.serial,
            ask,
            sent: now,
            deadline: now + self.rules.timeout,
            resend: self.is_datagram.then(|| now + RESEND.0),
            pause: RESEND.0,
            resent: false,
        });
        self.write(self.serial, ask, said);
    }

    /// Time has passed.
    pub fn alarm(&mut self, now: Instant, said: &mut Said) -> Option<Ended> {
        let mut again = Vec::new();
        for flying in &mut self.flying {
            if flying.resend.is_some_and(|resend| resend <= now) {
                flying.pause = (flying.pause * 2).min(RESEND.1);
                flying.resend = Some(now + flying.pause);
                flying.resent = true;
                again.push((flying.serial, flying.ask));
            }
        }
        for (serial, ask) in again {
            self.write(serial, ask, said);
        }
        let missed = self
            .flying
            .iter()
            .any(|f| f.deadline <= now && matches!(f.ask, Ask::Probe(_)));
        self.flying.retain(|f| f.deadline > now);
        missed.then_some(Ended::Missed)
    }

    /// Asks what is to be asked now.
    pub fn turn(&mut self, now: Instant, said: &mut Said) {
        let rules = self.rules;
        let Some(probe) = self.watch.next(now, &rules) else {
            return;
        };
        if probe == Probe::Version {
            self.flying.clear();
            self.known.clear();
        }
        self.ask(now, Ask::Probe(probe), said);
        for number in CAPABILITIES {
            let asked = self.flying.iter().any(|f| f.ask == Ask::Capability(number));
            if !asked && !self.known.contains(&number) {
                self.ask(now, Ask::Capability(number), said);
            }
        }
    }

    fn take(&mut self, cookie: Cookie) -> Option<Flying> {
        let place = self.flying.iter().position(|f| f.serial == cookie.serial)?;
        (self.cookie(cookie.serial) == cookie).then(|| self.flying.swap_remove(place))
    }

    pub fn reply(&mut self, now: Instant, cookie: Cookie, text: &[u8], said: &mut Said) -> Option<Ended> {
        let flying = self.take(cookie)?;
        match flying.ask {
            Ask::Capability(number) => {
                self.known.push(number);
                said.news.push(News::Capability(number, text == b"1"));
                None
            }
            Ask::Probe(Probe::Version) => Some(Ended::Answered(match text {
                b"20040107" => Answer::Version,
                text if text.starts_with(b"E") => Answer::Odd,
                _ => Answer::WrongVersion,
            })),
            Ask::Probe(Probe::Counts) => Some(Ended::Answered(match parse_info(text) {
                Some(counts) => {
                    let delay = (!flying.resent).then(|| now.saturating_duration_since(flying.sent));
                    said.active = Some(counts.active);
                    let created = counts.created;
                    said.news.push(News::Counted {
                        asked: flying.sent,
                        counts: Some(counts),
                        delay,
                    });
                    Answer::Counts { created }
                }
                None => Answer::Odd,
            })),
        }
    }

    /// The connection of a probe broke.
    pub fn broken(&mut self, cookie: Cookie) -> Option<Ended> {
        let flying = self.take(cookie)?;
        matches!(flying.ask, Ask::Probe(_)).then_some(Ended::Missed)
    }

    /// A probe that decides has ended, or a command was refused.
    pub fn ended(&mut self, now: Instant, ended: &Ended, takers: bool, said: &mut Said) {
        let rules = self.rules;
        if matches!(ended, Ended::Answered(Answer::Version))
            && !self.watch.probation(&rules).is_zero()
            && !takers
        {
            self.watch.is_needed();
        }
        let change = match ended {
            Ended::Answered(answer) => self.watch.answered(now, &rules, *answer),
            Ended::Missed => self.watch.missed(now, &rules),
            Ended::Refused => {
                self.flying.clear();
                self.watch.refused(now, &rules, Refused(Errno::CONNREFUSED))
            }
        };
        said.news.push(News::Probed(matches!(ended, Ended::Answered(_))));
        let why = self.watch.why().to_string();
        said.news.extend(match change {
            Change::None => None,
            Change::Online => Some(News::State { online: true, why }),
            Change::Offline(_) => Some(News::State { online: false, why }),
            Change::Absent(_) | Change::Still(_) => Some(News::Absent(why)),
            Change::Restarted { last_good } => Some(News::Restarted(last_good)),
        });
    }

    pub fn is_online(&self) -> bool {
        self.watch.state() == State::Online
    }
}
