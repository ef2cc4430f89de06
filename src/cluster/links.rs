//! The links of a cluster's members, by the numbers of their descriptors and by member. A link that was replaced is kept
//! for a while, for the replies that are on their way to it.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::time::Instant;

use mio::Registry;
use slab::Slab;

use super::order::Watch;
use super::{Cluster, Out, tokens};
use crate::dispatch::outbox::Send;
use crate::dispatch::session::MemberId;
use crate::health::news::News;
use crate::link::{Link, Refused, Sink};
use crate::protocol::cookie::Cookie;
use crate::rim::alarms::Alarms;
use crate::rim::readiness::Spot;

/// How long a link that was replaced is kept. Every command that went over it is answered or given up by then.
const RETIRED_FOR: Duration = Duration::from_secs(10);

/// One link.
#[derive(Debug)]
struct Held {
    member: MemberId,
    link: Link,
    watch: Watch,
    /// When one that was replaced is closed.
    until: Option<Instant>,
    /// Where the member's name leads.
    at: Option<SocketAddr>,
    /// Whether the member was last told to be online.
    told: Option<bool>,
}

impl Held {
    fn due(&self) -> Option<Instant> {
        [self.link.due(), self.until].into_iter().flatten().min()
    }
}

/// All links of a cluster.
#[derive(Debug, Default)]
pub(super) struct Links {
    held: Slab<Held>,
    /// The place of each member's link, by the member's own.
    of: Vec<Option<usize>>,
    alarms: Alarms,
    /// Members whose socket has refused, to be told to the dispatcher.
    pub(super) refused: Vec<(MemberId, Refused)>,
}

/// What comes of a link goes to the dispatcher.
struct ToCore<'a> {
    cluster: &'a Cluster,
    out: &'a mut Out,
    refused: &'a mut Vec<(MemberId, Refused)>,
    from: MemberId,
}

impl Sink for ToCore<'_> {
    fn reply(&mut self, cookie: Cookie, text: &[u8]) {
        let from = self.from;
        self.cluster
            .trace(format_args!("from member {}", from.index), text);
        self.cluster.decide(self.out, |now, core, out| {
            core.reply(now, from, cookie, text, out);
        });
    }

    fn foreign(&mut self) {
        self.cluster.look(|_, core| core.foreign(self.from));
    }

    fn refused(&mut self, why: Refused) {
        self.refused.push((self.from, why));
    }

    fn broken(&mut self, cookie: Cookie) {
        let from = self.from;
        self.cluster
            .decide(self.out, |now, core, out| core.broken(now, from, cookie, out));
    }
}

fn spot(registry: &Registry, place: usize) -> Spot<'_> {
    Spot {
        registry,
        base: tokens::LINK + place * tokens::NUMBERS,
    }
}

impl Links {
    /// A member has this link from now on; the one before is retired.
    pub(super) fn put(
        &mut self,
        now: Instant,
        member: MemberId,
        mut link: Link,
        watch: Watch,
        registry: &Registry,
    ) {
        let index = usize::from(member.index);
        if self.of.len() <= index {
            self.of.resize(index + 1, None);
        }
        let entry = self.held.vacant_entry();
        let place = entry.key();
        link.start(spot(registry, place));
        entry.insert(Held {
            member,
            link,
            watch,
            until: None,
            at: None,
            told: None,
        });
        let before = self.of.get_mut(index).and_then(|of| of.replace(place));
        if let Some(place) = before
            && let Some(held) = self.held.get_mut(place)
        {
            held.until = Some(now + RETIRED_FOR);
            self.set_alarm(place);
        }
        self.set_alarm(place);
    }

    /// A member has gone: its links are closed.
    pub(super) fn remove(&mut self, member: MemberId) {
        self.held.retain(|_, held| held.member != member);
        if let Some(of) = self.of.get_mut(usize::from(member.index))
            && of.is_some_and(|place| !self.held.contains(place))
        {
            *of = None;
        }
    }

    fn place_of(&self, member: MemberId) -> Option<usize> {
        let place = (*self.of.get(usize::from(member.index))?)?;
        (self.held.get(place)?.member == member).then_some(place)
    }

    /// Which watch a member's news are of that count.
    pub(super) fn watch_of(&self, member: MemberId) -> Option<Watch> {
        Some(self.held.get(self.place_of(member)?)?.watch)
    }

    fn set_alarm(&mut self, place: usize) {
        let due = self.held.get(place).and_then(Held::due);
        self.alarms.set(place, due);
    }

    /// Sends a command to a member.
    pub(super) fn send(&mut self, now: Instant, send: &Send<()>, text: &[u8], registry: &Registry) {
        let Some(place) = self.place_of(send.member) else {
            return;
        };
        let Some(held) = self.held.get_mut(place) else {
            return;
        };
        let outcome = held
            .link
            .send(now, send.cookie, send.again, text, spot(registry, place));
        if let Err(why) = outcome {
            self.refused.push((send.member, why));
        }
        self.set_alarm(place);
    }

    /// A descriptor of a link is ready. Says whether there is more to read, which is not told again.
    pub(super) fn ready(
        &mut self,
        now: Instant,
        token: usize,
        cluster: &Cluster,
        out: &mut Out,
        registry: &Registry,
    ) -> bool {
        let token = tokens::place(token);
        let (place, number) = (token / tokens::NUMBERS, token % tokens::NUMBERS);
        let Some(held) = self.held.get_mut(place) else {
            return false;
        };
        let mut sink = ToCore {
            cluster,
            out,
            refused: &mut self.refused,
            from: held.member,
        };
        let more = held.link.ready(now, number, spot(registry, place), &mut sink);
        self.set_alarm(place);
        more
    }

    /// When [`Links::alarm`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.alarms.next()
    }

    /// Time has passed.
    pub(super) fn alarm(&mut self, now: Instant, cluster: &Cluster, out: &mut Out, registry: &Registry) {
        while let Some(place) = self.alarms.pop(now) {
            let Some(held) = self.held.get_mut(place) else {
                continue;
            };
            if held.until.is_some_and(|until| until <= now) {
                self.held.remove(place);
                continue;
            }
            let mut sink = ToCore {
                cluster,
                out,
                refused: &mut self.refused,
                from: held.member,
            };
            held.link.alarm(now, spot(registry, place), &mut sink);
            self.set_alarm(place);
        }
    }

    /// The name of a member has these addresses. When it is somewhere else by that: where it was, and where it is.
    pub(super) fn move_to(
        &mut self,
        now: Instant,
        member: MemberId,
        addresses: &[SocketAddr],
        registry: &Registry,
    ) -> Option<(Option<SocketAddr>, SocketAddr)> {
        let place = self.place_of(member)?;
        let held = self.held.get_mut(place)?;
        held.link.move_to(now, addresses, spot(registry, place));
        let before = held.at;
        let is_there = before.is_some_and(|before| addresses.contains(&before));
        let after = *addresses.first().filter(|_| !is_there)?;
        held.at = Some(after);
        self.set_alarm(place);
        Some((before, after))
    }

    /// Whether there is no member.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Remembers that a member has been told to be online or not; gives what was told before.
    pub(super) fn tell(&mut self, member: MemberId, news: &News) -> Option<bool> {
        let place = self.place_of(member)?;
        let held = self.held.get_mut(place)?;
        match news {
            News::State { online, .. } => held.told.replace(*online),
            News::Absent(_) => held.told.replace(false),
            _ => held.told,
        }
    }

    /// Whether a member is at that address, whatever its port.
    pub(super) fn is_at(&self, address: IpAddr) -> bool {
        self.held.iter().any(|(_, held)| held.link.is_at(address))
    }
}
