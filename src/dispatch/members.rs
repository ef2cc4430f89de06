//! What an operator changes and sees: members come, go and change; counts are read. Pure.

use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use super::attempt::{Fate, Job, Transaction};
use super::histogram::Histogram;
use super::member::Member;
use super::outbox::Outbox;
use super::session::{MemberId, Stage};
use super::{Dispatch, Outcomes};
use crate::config::model::{self, Status};
use crate::dispatch::view::{CLUSTER_COUNTERS, Listed, MemberView};
use crate::protocol::command::Verb;

/// Members of one cluster at most: an exchange names its place among all members in 16 bits.
pub const MEMBERS_MAX: usize = 10_000;

impl<C, L: Clone> Dispatch<C, L> {
    /// The places that the next `count` members get, for their links to be made; `None` when there would be more than
    /// [`MEMBERS_MAX`]. Operators' changes come one after another, so they stay free until [`Dispatch::add_member`],
    /// which must be called in their order.
    pub fn next_members(&self, count: usize) -> Option<Vec<MemberId>> {
        let free = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| !member.present)
            .map(|(place, _)| place);
        let places = free.chain(self.members.len()..MEMBERS_MAX).take(count);
        let mut generation = self.generation;
        let ids: Vec<MemberId> = places
            .filter_map(|place| {
                generation = generation.wrapping_add(1);
                let index = u16::try_from(place).ok()?;
                Some(MemberId { index, generation })
            })
            .collect();
        (ids.len() == count).then_some(ids)
    }

    /// A new member at the end of the list, not probed yet, at a place that [`Dispatch::next_members`] gave.
    pub fn add_member(&mut self, now: Instant, id: MemberId, config: model::Member, link: L) {
        self.orders += 1;
        self.generation = id.generation;
        self.sessions.name_member(id, &config);
        let member = Member::new(id, self.orders, config, link, now);
        match self.members.get_mut(usize::from(id.index)) {
            Some(free) => *free = member,
            None => self.members.push(member),
        }
    }

    /// Takes a member out at once: what is in flight to it fails, what is bound to it is forgotten. Gives its
    /// link, to be closed.
    pub fn remove_member(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) -> Option<L> {
        self.end_what_is_being_made(now, id, out);
        let member = self.member_mut(id)?;
        let was_online = core::mem::replace(&mut member.online, false);
        let link = member.link.clone();
        self.fail_all(now, id, out);
        if was_online {
            self.losses.found(id);
        } else {
            self.give_up_member(now, id);
        }
        self.settle_deletes(id, None);
        let tick = self.tick(now);
        self.member_mut(id)?.present = false;
        self.sessions.forget_member(tick, id);
        self.look_at_early(now, out);
        Some(link)
    }

    /// A member is about to leave: the sessions that it may be making have nobody who would end them later.
    fn end_what_is_being_made(&mut self, now: Instant, id: MemberId, out: &mut Outbox<C, L>) {
        let makes = |t: &&Transaction<C>| {
            matches!(t.job, Job::Create | Job::Late)
                && t.asks() == Verb::Update
                && t.exchanges
                    .iter()
                    .any(|e| e.member == id && e.fate == Fate::Waiting)
        };
        let texts: Vec<Vec<u8>> = self
            .pending
            .iter()
            .filter(makes)
            .map(|t| t.text.clone())
            .collect();
        for text in texts {
            self.delete_created(now, id, &text, out);
        }
    }

    /// The member of that name.
    pub fn member_named(&self, name: &str) -> Option<&Member<L>> {
        self.members
            .iter()
            .find(|member| member.present && member.config.name.as_str() == name)
    }

    /// A member, if it is still there.
    pub fn member_of(&self, id: MemberId) -> Option<&Member<L>> {
        self.member(id)
    }

    /// Changes the definition of a member in place.
    pub fn change_member(&mut self, id: MemberId, change: impl FnOnce(&mut model::Member)) -> bool {
        let Some(member) = self.member_mut(id) else {
            return false;
        };
        change(&mut member.config);
        let config = member.config.clone();
        self.sessions.name_member(id, &config);
        true
    }

    /// Gives a member another link; gives back the old one. Where it leads to `another` RTPproxy, what was bound to
    /// the old one is forgotten.
    pub fn replace_link(&mut self, now: Instant, id: MemberId, link: L, another: bool) -> Option<L> {
        if another {
            // What was bound in this very tick goes too.
            let cut = self.tick(now + Duration::from_millis(100));
            self.sessions.forget_before(id, cut);
            self.settle_deletes(id, None);
            let member = self.member_mut(id)?;
            member.load.forget();
            member.created = None;
            member.delay.forget();
        }
        let member = self.member_mut(id)?;
        Some(core::mem::replace(&mut member.link, link))
    }

    /// Lists the members of these names first, in this order; the others behind them, in theirs.
    pub fn put_in_order<'a>(&mut self, names: impl Iterator<Item = &'a model::Name>) {
        let ranks: HashMap<&model::Name, usize> =
            names.enumerate().map(|(rank, name)| (name, rank)).collect();
        let mut present: Vec<&mut Member<L>> =
            self.members.iter_mut().filter(|member| member.present).collect();
        present.sort_by_key(|member| {
            let rank = ranks.get(&member.config.name).copied().unwrap_or(usize::MAX);
            (rank, member.order)
        });
        for member in present {
            self.orders += 1;
            member.order = self.orders;
        }
    }

    /// How long commands took from their coming to their reply.
    pub fn times(&self) -> &Histogram {
        &self.times
    }

    /// Whether a command is on its way to a member.
    pub fn is_asked(&self, id: MemberId) -> bool {
        self.member(id).is_some_and(|member| member.in_flight > 0)
    }

    /// Whether a member has nothing to finish: no session by its newest count, none bound since, no command on its
    /// way. One that has not been counted yet may have sessions of a time before us.
    pub fn is_free(&self, id: MemberId) -> bool {
        let counted = self
            .member(id)
            .is_some_and(|member| member.load.is_known() && member.load.sessions(0) == 0);
        counted && self.bound_to(id) == 0 && !self.is_asked(id)
    }

    /// Whether a command of a client is in flight.
    pub fn clients_waiting(&self) -> bool {
        self.pending.iter().any(|t| t.client.is_some())
    }

    /// Members in the order of listings.
    pub fn members_in_order(&self) -> Vec<&Member<L>> {
        let mut members: Vec<&Member<L>> = self.members.iter().filter(|member| member.present).collect();
        members.sort_unstable_by_key(|member| member.order);
        members
    }

    /// Call-ids bound to a member.
    pub fn bound_to(&self, id: MemberId) -> u64 {
        self.sessions.bound(id)
    }

    /// Call-ids bound in all.
    pub fn bound(&self) -> u64 {
        self.members
            .iter()
            .filter(|member| member.present)
            .map(|member| self.sessions.bound(member.id))
            .sum()
    }

    /// Whether a member that takes new sessions is left.
    pub fn has_takers(&self) -> bool {
        self.members
            .iter()
            .any(|member| member.present && member.config.status == Status::Active)
    }

    /// Whether a member that takes new sessions is online.
    pub fn has_takers_online(&self) -> bool {
        self.members
            .iter()
            .any(|member| member.present && member.online && member.config.status == Status::Active)
    }

    /// Members that are online, and members that are not.
    pub fn count_members(&self) -> (usize, usize) {
        let present = self.members.iter().filter(|member| member.present);
        present.fold((0, 0), |(online, offline), member| {
            if member.online {
                (online + 1, offline)
            } else {
                (online, offline + 1)
            }
        })
    }

    /// Commands in flight.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// The rules of the cluster; `members` is empty.
    pub fn rules(&self) -> &model::Cluster {
        &self.rules
    }

    /// Other rules from now on.
    pub fn set_rules(&mut self, rules: &model::Cluster) {
        self.sessions.set_limits(rules.sessions);
        self.rules = model::Cluster {
            members: Vec::new(),
            ..rules.clone()
        };
        if self.gives_up_after().is_none() {
            self.sessions.clear_wishes();
        }
    }

    /// Counters, in the order of [`crate::dispatch::view::CLUSTER_COUNTERS`].
    pub fn totals(&self) -> &[u64; CLUSTER_COUNTERS.len()] {
        &self.totals
    }

    /// Outcomes of commands by letter.
    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Everything that is known of each member.
    pub fn member_views(&self, now: Instant) -> Vec<MemberView> {
        self.members_in_order()
            .into_iter()
            .map(|member| self.view_of(now, member))
            .collect()
    }

    fn view_of(&self, now: Instant, member: &Member<L>) -> MemberView {
        MemberView {
            member: member.config.clone(),
            online: member.online,
            why: member.why.clone(),
            next_try: member
                .next_try
                .filter(|at| !member.online && *at > now)
                .map(|at| at.saturating_duration_since(now)),
            lacks: member.lacks(),
            since: now.saturating_duration_since(member.since),
            active_sessions: member
                .load
                .counts()
                .filter(|_| member.online)
                .map(|counts| counts.active),
            bound: self.sessions.bound(member.id),
            delay: member.delay.smoothed(),
            deferred_deletes: member.deferred.len() as u64,
            in_flight: u64::from(member.in_flight),
            counters: *member.counters(),
            times: *member.delay.times(),
        }
    }

    /// Adds the bound call-ids of one shard of [`super::session::SHARDS`], of the cluster or of one member, to those
    /// that are `listed`, up to `limit` in all. Says whether there is room for more: going shard by shard, the caller
    /// lets commands have the table in between.
    pub fn list_sessions(
        &self,
        now: Instant,
        shard: usize,
        of: Option<MemberId>,
        limit: usize,
        listed: &mut Vec<Listed>,
    ) -> bool {
        let tick = self.tick(now);
        listed.len() < limit
            && self.sessions.visit(tick, shard, |call_id, binding| {
                let asked = of.is_none_or(|id| id == binding.member);
                if let Some(member) = self.member(binding.member).filter(|_| asked) {
                    listed.push((
                        call_id.to_vec(),
                        member.config.name.clone(),
                        tick.since(binding.used),
                        binding.stage == Stage::Ended,
                    ));
                }
                listed.len() < limit
            })
    }

    /// The member that serves a call and the age of its last command.
    pub fn locate(&self, now: Instant, call_id: &[u8]) -> Option<(model::Name, Duration)> {
        let tick = self.tick(now);
        let hash = self.sessions.hash(call_id);
        let (id, used) = self
            .sessions
            .peek(tick, hash, call_id)
            .map(|binding| (binding.member, binding.used))?;
        let member = self.member(id)?;
        Some((member.config.name.clone(), tick.since(used)))
    }
}
