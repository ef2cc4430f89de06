//! What must hold after each step, and the books that it is held against.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rtp_cluster::dispatch::counters::{Count, Total};
use rtp_cluster::dispatch::pending::IN_FLIGHT_MAX;
use rtp_cluster::dispatch::session::MemberId;
use rtp_cluster::protocol::cookie::Cookie;

use super::calls::Kind;
use super::proxy::REMEMBERS;
use super::world::World;

/// A command is answered within this, less the time in which nobody was there to do it.
const WITHIN: Duration = Duration::from_secs(5);
/// A member is well for so long before it is held to answer.
const SETTLED: Duration = Duration::from_secs(5);
/// All calls are over and all members well for so long: then nothing is left anywhere. Members that flapped are back, and
/// what has ended is forgotten.
pub const REST: Duration = Duration::from_secs(150);

#[derive(Debug, Default)]
pub struct Books {
    pub commands: u64,
    pub answered: u64,
    /// Commands that have come and not been answered.
    pub open: BTreeSet<usize>,
    /// Calls that are not over.
    pub live: BTreeSet<usize>,
    /// Datagrams of SIP servers that are lost, in a thousand.
    pub loss: u32,
    /// Who is being taken out: what it is told on the way out goes out.
    pub leaving: Option<MemberId>,
    sent: HashMap<MemberId, u64>,
    fed: HashMap<MemberId, u64>,
    cookies: HashMap<Cookie, (usize, Vec<u8>, Duration)>,
    plays: HashMap<(usize, Vec<u8>), Duration>,
    given: HashMap<String, Vec<(usize, String)>>,
    by_id: HashMap<String, usize>,
    /// Calls that are in `by_id`.
    known: usize,
    /// When nobody could take a new call.
    nobody: Duration,
    /// The first call of this era.
    first: usize,
    /// A daemon that was killed had found no room for a call.
    pub was_full: bool,
}

impl Books {
    pub fn sent(&mut self, to: MemberId) {
        *self.sent.entry(to).or_default() += 1;
    }

    /// The first call of this era.
    pub fn first(&self) -> usize {
        self.first
    }

    /// The daemon is gone, and what it has counted with it; gives the commands that it had not answered.
    pub fn killed(&mut self) -> Vec<usize> {
        (self.commands, self.answered) = (0, 0);
        self.sent.clear();
        self.fed.clear();
        // What was repeated is run again: replies are not kept over a restart.
        self.plays.clear();
        core::mem::take(&mut self.open).into_iter().collect()
    }

    pub fn fed(&mut self, from: MemberId) {
        *self.fed.entry(from).or_default() += 1;
    }
}

impl World {
    /// Whether a call has ever found no room.
    pub fn was_full(&self) -> bool {
        self.books.was_full || self.core.totals()[Total::SessionsUnbound as usize] > 0
    }

    /// Whether a call may have left a member at which it was heard of last at that time.
    fn may_leave(&self, call: usize, home: usize, at: Duration) -> bool {
        let call = &self.calls[call];
        self.proxies[home].unwell >= at
            || self.was_full()
            || self.now.saturating_sub(call.used) >= self.core.rules().sessions.expire
    }

    fn proxy_of(&self, text: &str) -> Option<usize> {
        let address = text.split(' ').nth(1)?;
        self.proxies.iter().position(|p| p.address == address)
    }

    /// A reply is about to leave.
    pub fn answered(&mut self, id: usize, text: &[u8]) {
        let text = String::from_utf8_lossy(text).trim_end().to_owned();
        let asked = self.commands[id].text.clone();
        self.note(|| format!("{asked} -> {id}: {text}"));
        self.mark();
        assert!(
            self.books.open.remove(&id),
            "{asked}: answered twice, with {text}"
        );
        if text == "E999" {
            let arrived = self.commands[id].arrived.expect("it came").0;
            let nobody = self.books.nobody >= arrived;
            assert!(nobody, "{asked}: {text}, and somebody was there all the time");
        }
        let Some(n) = self.commands[id].call else { return };
        let kind = self.commands[id].kind;
        let proxy = self.proxy_of(&text);
        match (kind, proxy) {
            (Kind::Update(_) | Kind::Lookup(_), Some(proxy)) => self.placed(id, n, proxy, &text, &asked),
            (Kind::Update(s) | Kind::Lookup(s), None) => self.refused(id, n, s, &text),
            (Kind::Other(s), _) if text.starts_with('E') => self.refused(id, n, s, &text),
            (Kind::Delete, _) => {
                assert!(text == "0" || text.starts_with('E'), "{asked}: {text}");
                if text.starts_with("E99") {
                    self.calls[n].is_lost = true;
                }
            }
            _ => {}
        }
    }

    /// A U or an L was answered by a member.
    fn placed(&mut self, id: usize, n: usize, proxy: usize, text: &str, asked: &str) {
        let given = self.books.given.get(&self.calls[n].id);
        let is_real = given.is_some_and(|given| given.iter().any(|(p, t)| *p == proxy && t == text));
        assert!(is_real, "{asked}: nobody has said {text}");
        if self.calls[n].ended.is_some() {
            return;
        }
        if let Some((home, at)) = self.calls[n].home
            && home != proxy
        {
            let may = self.may_leave(n, home, at);
            assert!(may, "{asked}: {text}, and the call is at {home} since {at:?}");
            // One that found no room is ended where it is found first.
            self.calls[n].is_lost |= self.was_full();
        }
        let (kind, arrived) = (self.commands[id].kind, self.commands[id].arrived);
        let here = Some((proxy, self.now));
        // What it said before it was restarted may come afterwards.
        let restarted = self.proxies[proxy].restarted;
        self.calls[n].home = here.filter(|_| arrived.is_some_and(|(at, _)| at > restarted));
        match kind {
            Kind::Update(s) => self.calls[n].streams[s].home = here,
            Kind::Lookup(s) if self.calls[n].streams[s].home.is_some_and(|(p, _)| p == proxy) => {
                self.calls[n].streams[s].home = here;
            }
            _ => {}
        }
    }

    /// A command of a stream was refused: by right?
    fn refused(&self, id: usize, n: usize, stream: usize, text: &str) {
        let (call, command) = (&self.calls[n], &self.commands[id]);
        let (Some((home, at)), Some((place, since))) = (call.home, call.streams[stream].home) else {
            return;
        };
        let proxy = &self.proxies[home];
        let arrived = command.arrived.expect("it came").0;
        let held = call.ended.is_none()
            && place == home
            && since <= arrived
            && since > proxy.restarted
            && proxy.well_since + SETTLED <= arrived
            && proxy.unwell < arrived
            && !self.may_leave(n, home, at);
        assert!(!held, "{}: {text}, and P{home} has it and is well", command.text);
    }

    /// A proxy has run a command.
    pub fn executed(&mut self, proxy: usize, command: &[u8], reply: &[u8]) {
        for call in self.books.known..self.calls.len() {
            self.books.by_id.insert(self.calls[call].id.clone(), call);
        }
        self.books.known = self.calls.len();
        let text = String::from_utf8_lossy(command).into_owned();
        let reply = String::from_utf8_lossy(reply).trim_end().to_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let Some(id) = words.get(1) else { return };
        match words[0] {
            "D" => self.deletes(proxy, &words, &text),
            "P" | "C" => {
                let place = (proxy, command.to_vec());
                let before = self.books.plays.insert(place, self.now);
                let twice = before.is_some_and(|at| at > self.proxies[proxy].restarted);
                assert!(!twice, "{text}: run twice at P{proxy}");
            }
            _ if self.proxy_of(&reply).is_some() => {
                let given = self.books.given.entry((*id).to_owned()).or_default();
                if !given.iter().any(|(p, t)| *p == proxy && *t == reply) {
                    given.push((proxy, reply));
                }
            }
            _ => {}
        }
    }

    /// A D is run: not on a stream that lives there.
    fn deletes(&self, proxy: usize, words: &[&str], text: &str) {
        let Some(call) = words
            .get(1)
            .and_then(|id| self.books.by_id.get(*id))
            .map(|n| &self.calls[*n])
        else {
            return;
        };
        if call.ended.is_some() || call.is_weak || call.home.is_none_or(|(home, _)| home != proxy) {
            return;
        }
        for (n, stream) in call.streams.iter().enumerate() {
            let is_here = stream
                .home
                .is_some_and(|(p, at)| p == proxy && at > self.proxies[proxy].restarted);
            let is_meant = |tag: &str| {
                let whole = [
                    format!("{};{}", call.from, n + 1),
                    format!("{};{}", call.to, n + 1),
                ];
                whole.iter().any(|w| {
                    w.strip_prefix(tag)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(';'))
                })
            };
            let hit = is_here && words.iter().skip(2).any(|tag| is_meant(tag));
            assert!(
                !hit,
                "{text}: at P{proxy}, where stream {} of a call that goes on is",
                n + 1
            );
        }
    }

    /// A command goes to a member: under a cookie of its own.
    pub fn saw_cookie(&mut self, proxy: usize, cookie: Cookie, text: &[u8]) {
        let (now, datagram) = (self.now, self.proxies[proxy].is_datagram);
        let stalled = self.stalled;
        let entry = self.books.cookies.entry(cookie);
        let (to, before, at) = entry.or_insert_with(|| (proxy, text.to_vec(), now));
        assert!(
            *to == proxy && before == text,
            "a cookie is used again: {} at P{to}, {} at P{proxy}",
            String::from_utf8_lossy(before),
            String::from_utf8_lossy(text)
        );
        assert!(
            !datagram || now < *at + REMEMBERS + stalled,
            "sent again when the member has forgotten it"
        );
        if self.books.cookies.len() > 50_000 {
            self.books
                .cookies
                .retain(|_, (_, _, at)| now < *at + 6 * REMEMBERS);
        }
    }

    /// Notes who is away, before a step and after it.
    pub fn mark(&mut self) {
        // Who has not been probed yet is not taken for away: nobody asks yet.
        let is_asked = !self.is_down() && !self.is_starting();
        for proxy in self.proxies.iter_mut().filter(|_| is_asked) {
            let member = proxy.id.and_then(|id| self.core.member_of(id));
            if !member.is_some_and(|member| member.online) {
                proxy.unwell = self.now;
            }
        }
        if !self.core.has_takers_online() {
            self.books.nobody = self.now;
        }
    }

    /// After each step.
    pub fn check(&mut self) {
        for id in &self.books.open {
            let command = &self.commands[*id];
            let (at, stalled) = command.arrived.expect("it came");
            let absent = self.stalled.saturating_sub(stalled);
            let age = self.now.saturating_sub(at).saturating_sub(absent);
            assert!(age <= WITHIN, "{}: not answered after {age:?}", command.text);
        }
        let books = &self.books;
        let totals = self.core.totals();
        assert_eq!(totals[Total::Commands as usize], books.commands, "commands");
        let outcomes: u64 = self.core.outcomes().iter().flatten().sum();
        let refused = totals[Total::RefusedCommands as usize];
        assert_eq!(outcomes + refused, books.answered, "outcomes");
        assert!(self.core.in_flight() <= IN_FLIGHT_MAX, "in flight");
        assert!(
            self.core.bound() <= u64::from(self.core.rules().sessions.max),
            "bound"
        );
        for proxy in &self.proxies {
            let member = proxy.id.and_then(|id| self.core.member_of(id));
            let Some(member) = member else { continue };
            let id = member.id;
            let count = |what: &[Count]| -> u64 { what.iter().map(|w| member.counters()[*w as usize]).sum() };
            let sent = self.books.sent.get(&id).copied().unwrap_or(0);
            assert_eq!(
                count(&[Count::Commands, Count::Retransmissions]),
                sent,
                "sent to {}",
                proxy.name
            );
            let fed = self.books.fed.get(&id).copied().unwrap_or(0);
            let kinds = [
                Count::Replies,
                Count::LateReplies,
                Count::SpoofedReplies,
                Count::GarbageReplies,
            ];
            assert_eq!(count(&kinds), fed, "replies of {}", proxy.name);
            assert_eq!(
                count(&[Count::SpoofedReplies]),
                0,
                "{}: a reply of its own is taken for another's",
                proxy.name
            );
        }
        self.mark();
        let at = self.at();
        for n in &self.books.live {
            let call = &self.calls[*n];
            let Some((home, since)) = call.home.filter(|_| call.ended.is_none()) else {
                continue;
            };
            if !self.may_leave(*n, home, since) {
                let found = self.core.locate(at, call.id.as_bytes());
                let found = found.map(|(name, _)| name.to_string());
                let name = &self.proxies[home].name;
                assert_eq!(found.as_ref(), Some(name), "{}: it is at {name}", call.id);
            }
        }
        self.check_rest();
    }

    /// When all is over, nothing is left.
    fn check_rest(&mut self) {
        if !self.is_calm && self.step >= self.era {
            self.calm_down();
        }
        if !self.is_calm || !self.books.live.is_empty() || !self.books.open.is_empty() {
            self.rest_at = None;
            return;
        }
        let until = *self.rest_at.get_or_insert(self.now + REST);
        if self.now < until {
            return;
        }
        // Streams of a call that found no room may have gone apart, and it is ended where it is found first.
        if self.was_full() {
            for call in &mut self.calls {
                let given = self.books.given.get(&call.id).map_or(&[][..], Vec::as_slice);
                let is_apart = given.iter().any(|(proxy, _)| *proxy != given[0].0);
                call.is_lost |= is_apart || call.streams.len() > 1;
            }
        }
        let any_lost = self.calls.iter().any(|call| call.is_lost);
        for proxy in &self.proxies {
            for call in self
                .calls
                .iter()
                .skip(self.books.first)
                .filter(|call| !call.is_lost)
            {
                assert!(!proxy.engine.has(&call.id), "{}: left at {}", call.id, proxy.name);
            }
            assert!(
                any_lost || proxy.engine.active() == 0,
                "sessions are left at {}",
                proxy.name
            );
            let member = proxy
                .id
                .and_then(|id| self.core.member_of(id))
                .expect("all are back");
            assert!(member.online, "{} is not back: {}", proxy.name, member.why);
            assert_eq!(
                (member.deferred.len(), member.in_flight),
                (0, 0),
                "{}",
                proxy.name
            );
        }
        assert_eq!(self.core.in_flight(), 0, "in flight");
        assert!(
            any_lost || self.core.bound() == 0,
            "{} are still bound",
            self.core.bound()
        );
        self.books.first = self.calls.len();
        self.books.given.clear();
        self.books.plays.clear();
        self.wake_up();
    }
}
