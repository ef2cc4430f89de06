//! The probes on their way to one RTPproxy: what is sent, sent again and given up, and what a reply says. Pure: what is to
//! be sent is returned, and `target.rs` sends it.

use core::time::Duration;
use std::time::Instant;

use super::news::News;
use super::watch::{Answer, Ended, Probe};
use crate::protocol::cookie::Cookie;
use crate::protocol::reply::{SessionCounts, parse_info};

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

/// What is to be sent: `COOKIE SP COMMAND LF`, and its cookie.
pub type Message = (Cookie, Vec<u8>);

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

/// Those of one RTPproxy, and what it has said that it can.
#[derive(Debug)]
pub struct Probes {
    flying: Vec<Flying>,
    known: Vec<(u64, bool)>,
    /// What it last said in place of an answer.
    said: String,
    /// Whether it has answered `V`, and is asked still what it can.
    awaited: bool,
    is_datagram: bool,
    serial: u32,
    nonce: u64,
}

impl Probes {
    /// None yet; `nonce` makes their cookies hard to guess. What goes over a datagram is sent again until it is answered.
    pub fn new(nonce: u64, is_datagram: bool) -> Self {
        Self {
            flying: Vec::new(),
            known: Vec::new(),
            said: String::new(),
            awaited: false,
            is_datagram,
            serial: 0,
            nonce,
        }
    }

    /// The same RTPproxy as that of `other`, so it can what that one can.
    pub(super) fn knowing(self, other: &Self) -> Self {
        Self {
            known: other.known.clone(),
            ..self
        }
    }

    /// What it can, as far as it is known, by the numbers of `VF`.
    pub(super) fn known(&self) -> impl Iterator<Item = (u64, bool)> {
        self.known.iter().copied()
    }

    /// What it last said in place of an answer, or nothing.
    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// Nothing that is under way counts any more.
    pub fn give_up(&mut self) {
        self.flying.clear();
        self.awaited = false;
    }

    /// Nor what it has said that it can: it may be another one when it answers next.
    pub fn forget(&mut self) {
        self.give_up();
        self.known.clear();
    }

    /// A probe that decides, and beside it a question for each capability that is not known yet.
    pub fn ask(&mut self, now: Instant, probe: Probe, timeout: Duration) -> Vec<Message> {
        let is_known = |number: &u64| {
            let asked = Ask::Capability(*number);
            self.known.iter().any(|(known, _)| known == number)
                || self.flying.iter().any(|flying| flying.ask == asked)
        };
        let unknown = CAPABILITIES.into_iter().filter(|number| !is_known(number));
        let asks: Vec<Ask> = [Ask::Probe(probe)]
            .into_iter()
            .chain(unknown.map(Ask::Capability))
            .collect();
        let messages = asks.into_iter().map(|ask| {
            self.serial = self.serial.wrapping_add(1);
            self.flying.push(Flying {
                serial: self.serial,
                ask,
                sent: now,
                deadline: now + timeout,
                resend: self.is_datagram.then(|| now + RESEND.0),
                pause: RESEND.0,
                resent: false,
            });
            self.message(self.serial, ask)
        });
        messages.collect()
    }

    fn message(&self, serial: u32, ask: Ask) -> Message {
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
        (cookie, text)
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

    /// When something is to be sent again or given up.
    pub fn due(&self) -> Option<Instant> {
        let each = self.flying.iter().map(|flying| {
            flying
                .resend
                .map_or(flying.deadline, |resend| resend.min(flying.deadline))
        });
        each.min()
    }

    /// What is to be sent again now.
    pub fn again(&mut self, now: Instant) -> Vec<Message> {
        let mut again = Vec::new();
        for flying in &mut self.flying {
            if flying.resend.is_some_and(|resend| resend <= now) {
                flying.pause = (flying.pause * 2).min(RESEND.1);
                flying.resend = Some(now + flying.pause);
                flying.resent = true;
                again.push((flying.serial, flying.ask));
            }
        }
        let messages = again.into_iter().map(|(serial, ask)| self.message(serial, ask));
        messages.collect()
    }

    /// Gives up what is overdue.
    pub fn overdue(&mut self, now: Instant) -> Option<Ended> {
        let decides = |flying: &Flying| flying.deadline <= now && matches!(flying.ask, Ask::Probe(_));
        let missed = self.flying.iter().any(decides);
        self.flying.retain(|flying| flying.deadline > now);
        if missed {
            Some(Ended::Missed)
        } else {
            self.known_by_now()
        }
    }

    /// Who has answered `V` is there when it is also known, or will not be, what he can: the calls of the moment between
    /// would be made as if he could nothing, without their notifications.
    fn known_by_now(&mut self) -> Option<Ended> {
        let asked = |flying: &Flying| matches!(flying.ask, Ask::Capability(_));
        if !self.awaited || self.flying.iter().any(asked) {
            return None;
        }
        self.awaited = false;
        Some(Ended::Answered(Answer::Version))
    }

    /// A reply without its cookie: what it tells, and how a probe that decides has ended with it.
    pub fn reply(
        &mut self,
        now: Instant,
        cookie: Cookie,
        text: &[u8],
        tell: &mut dyn FnMut(News),
    ) -> Option<Ended> {
        let flying = self.take(cookie)?;
        let answer = match flying.ask {
            Ask::Capability(number) => {
                let has = text == b"1";
                self.known.push((number, has));
                tell(News::Capability(number, has));
                return self.known_by_now();
            }
            Ask::Probe(Probe::Version) => match text {
                b"20040107" => {
                    self.awaited = true;
                    return self.known_by_now();
                }
                text if text.starts_with(b"E") => Answer::Odd,
                _ => Answer::WrongVersion,
            },
            Ask::Probe(Probe::Counts) => {
                let (answer, counts) = counted(text);
                if answer != Answer::Odd {
                    let delay = (!flying.resent).then(|| now.saturating_duration_since(flying.sent));
                    tell(News::Counted {
                        asked: flying.sent,
                        counts,
                        delay,
                    });
                }
                answer
            }
        };
        if matches!(answer, Answer::Odd | Answer::WrongVersion) {
            let excerpt = text.get(..SAID_MAX).unwrap_or(text);
            self.said = excerpt.escape_ascii().to_string();
        }
        Some(Ended::Answered(answer))
    }

    /// The connection that one was on has broken.
    pub fn broken(&mut self, cookie: Cookie) -> Option<Ended> {
        match self.take(cookie)?.ask {
            Ask::Probe(_) => Some(Ended::Missed),
            Ask::Capability(_) => self.known_by_now(),
        }
    }

    fn take(&mut self, cookie: Cookie) -> Option<Flying> {
        let mut flying = self.flying.iter();
        let place = flying.position(|flying| flying.serial == cookie.serial)?;
        (self.cookie(cookie.serial) == cookie).then(|| self.flying.swap_remove(place))
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
    fn who_answers_is_known_before_he_is_online() {
        let now = crate::rim::now();
        let timeout = Duration::from_secs(1);
        let online = Some(Ended::Answered(Answer::Version));
        let mut probes = Probes::new(1, false);
        let mut asked = probes.ask(now, Probe::Version, timeout).into_iter();
        let (version, text) = asked.next().unwrap();
        assert!(text.ends_with(b" V\n"));
        assert_eq!(probes.reply(now, version, b"20040107", &mut |_| ()), None);
        let mut told = 0;
        let (last, _) = asked.next_back().unwrap();
        for (cookie, _) in asked {
            assert_eq!(probes.reply(now, cookie, b"1", &mut |_| told += 1), None);
        }
        assert_eq!(probes.reply(now, last, b"0", &mut |_| told += 1), online);
        assert_eq!(told, CAPABILITIES.len());

        // Who does not say it is there all the same when his time is up.
        probes.forget();
        let asked = probes.ask(now, Probe::Version, timeout);
        assert_eq!(probes.reply(now, asked[0].0, b"20040107", &mut |_| ()), None);
        assert_eq!(probes.overdue(now), None);
        assert_eq!(probes.overdue(now + timeout), online);
    }

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
