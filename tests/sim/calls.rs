//! Calls as SIP servers make them: what is said next, and what the reference model knows of each.

use std::time::Duration;

use super::chance::Chance;

/// Streams of a call at most.
const STREAMS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Offer,
    Ring,
    Talk,
    End,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A U of that stream.
    Update(usize),
    /// An L of that stream.
    Lookup(usize),
    /// A question, a play: of that stream.
    Other(usize),
    Delete,
    /// Of no call.
    Stray,
}

/// One media stream: where it is, and since when, by what the SIP server was told.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    pub home: Option<(usize, Duration)>,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Call {
    pub id: String,
    pub from: String,
    pub to: String,
    pub streams: Vec<Stream>,
    pub is_weak: bool,
    /// Which SIP server; the first ones speak UDP.
    pub server: usize,
    pub phase: Phase,
    /// Commands that the SIP server waits for.
    pub open: usize,
    /// Streams offered so far, where they are offered one after the other.
    pub offered: usize,
    pub in_parallel: bool,
    /// Hangs up after so many offers, before they are answered.
    pub cancels: bool,
    pub until: Duration,
    /// The reference model: where the call is, and when that was last heard.
    pub home: Option<(usize, Duration)>,
    /// Since when it is to be over.
    pub ended: Option<Duration>,
    /// Nobody will ever tell of its end.
    pub is_lost: bool,
    /// A delete of it has come to the dispatcher.
    pub is_deleted: bool,
    /// When the last command of it came to the dispatcher.
    pub used: Duration,
}

impl Call {
    pub fn new(number: usize, now: Duration, servers: usize, chance: &mut Chance) -> Self {
        let streams = 1 + chance.below(STREAMS - 1) * chance.below(2);
        Self {
            id: format!("c{number}-{:x}", chance.bits() & 0xffff),
            from: format!("f{number}"),
            to: format!("t{number}"),
            streams: vec![Stream::default(); streams],
            is_weak: chance.permille(80),
            server: chance.below(servers),
            phase: Phase::Offer,
            open: 0,
            offered: 0,
            in_parallel: chance.permille(500),
            cancels: chance.permille(60),
            until: now + chance.apart(Duration::from_secs(25)),
            home: None,
            ended: None,
            is_lost: false,
            is_deleted: false,
            used: now,
        }
    }

    /// The same call-id once more, after it has ended.
    pub fn renew(&mut self, now: Duration, chance: &mut Chance) {
        self.streams.truncate(1);
        self.streams[0] = Stream::default();
        self.phase = Phase::Offer;
        self.offered = 0;
        self.cancels = false;
        self.until = now + chance.apart(Duration::from_secs(15));
        self.home = None;
        self.ended = None;
        self.is_deleted = false;
    }

    fn media(&self, letter: char, stream: usize, both: bool, swapped: bool) -> String {
        let weak = if self.is_weak { "w" } else { "" };
        let (mut a, mut b) = (&self.from, &self.to);
        if swapped {
            (a, b) = (b, a);
        }
        let n = stream + 1;
        let to = if both { format!(" {b};{n}") } else { String::new() };
        format!(
            "{letter}{weak} {} 192.0.2.1 {} {a};{n}{to}",
            self.id,
            4000 + 2 * stream
        )
    }

    fn delete(&self, swapped: bool, early: bool) -> String {
        let weak = if self.is_weak { "w" } else { "" };
        let (mut a, mut b) = (&self.from, &self.to);
        if swapped {
            (a, b) = (b, a);
        }
        if early && !self.is_weak {
            format!("D {} {}", self.id, self.from)
        } else {
            format!("D{weak} {} {a} {b}", self.id)
        }
    }

    /// What the SIP server does next: commands, all at once. Its phase goes on.
    pub fn next(&mut self, now: Duration, chance: &mut Chance, hurry: bool) -> Vec<(Kind, String)> {
        let mut says = Vec::new();
        match self.phase {
            Phase::Offer => {
                let all = self.streams.len();
                let last = if self.in_parallel {
                    all
                } else {
                    (self.offered + 1).min(all)
                };
                for n in self.offered..last {
                    says.push((Kind::Update(n), self.media('U', n, false, false)));
                }
                self.offered = last;
                if self.offered == all {
                    self.phase = Phase::Ring;
                    if self.cancels {
                        self.end(now, &mut says, true, chance);
                    }
                }
            }
            Phase::Ring => {
                let failed = self.streams.iter().filter(|s| s.home.is_none()).count();
                if failed > 0 || hurry {
                    // A SIP server whose every offer failed has nothing to delete, it thinks.
                    if failed == self.streams.len() && chance.permille(500) {
                        self.phase = Phase::Over;
                        self.ended.get_or_insert(now);
                    } else {
                        self.end(now, &mut says, false, chance);
                    }
                } else {
                    for n in 0..self.streams.len() {
                        says.push((Kind::Lookup(n), self.media('L', n, true, false)));
                    }
                    self.phase = Phase::Talk;
                }
            }
            Phase::Talk if hurry || now >= self.until => self.end(now, &mut says, false, chance),
            Phase::Talk => self.talk(&mut says, chance),
            Phase::End => {
                self.phase = Phase::Over;
            }
            Phase::Over => {}
        }
        says
    }

    fn talk(&mut self, says: &mut Vec<(Kind, String)>, chance: &mut Chance) {
        let n = chance.below(self.streams.len());
        let swapped = chance.permille(400);
        match chance.below(10) {
            0..=3 => {
                for n in 0..self.streams.len() {
                    says.push((Kind::Update(n), self.media('U', n, true, swapped)));
                }
            }
            4..=5 => says.push((Kind::Lookup(n), self.media('L', n, true, swapped))),
            6 if self.streams.len() < STREAMS => {
                self.streams.push(Stream::default());
                let n = self.streams.len() - 1;
                says.push((Kind::Update(n), self.media('U', n, true, false)));
            }
            _ => {
                let tags = format!("{};{} {};{}", self.from, n + 1, self.to, n + 1);
                // Each is another text, so that one that is run twice is seen.
                let once = chance.bits();
                let text = match chance.below(6) {
                    0 => format!("S {} {tags}", self.id),
                    1 => format!("P {} prompt{once:x} 0 {tags}", self.id),
                    2 => format!("C {} copy{once:x} {tags}", self.id),
                    3 => format!("R {} {tags}", self.id),
                    _ => format!("Q {} {tags}", self.id),
                };
                says.push((Kind::Other(n), text));
            }
        }
    }

    fn end(&mut self, now: Duration, says: &mut Vec<(Kind, String)>, early: bool, chance: &mut Chance) {
        self.phase = Phase::End;
        self.ended = Some(now);
        says.push((Kind::Delete, self.delete(false, early)));
        if self.is_weak || chance.permille(300) {
            says.push((Kind::Delete, self.delete(true, false)));
        }
    }
}
