//! The health thread, shared by all clusters: probes each RTPproxy over a link of its own, once however many clusters it
//! is in, and posts what changes to those clusters. It also sees to draining members, since it has their counts.

use core::fmt;
use core::hash::BuildHasher as _;
use std::collections::HashMap;
use std::hash::RandomState;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use slab::Slab;

use super::news::News;
use super::target::{Key, Target};
use super::watch::{Change, Ended, State};
use crate::config::model;
use crate::link::Refused;
use crate::rim::alarms::Alarms;
use crate::rim::names_thread::Names;
use crate::rim::readiness::{Mailbox, Poller, Ready, Spot};
use crate::rim::{Thread, now, spawn};

/// Messages that may wait: several rounds of changes of a thousand members.
const QUEUE: usize = 16_384;
/// Heartbeats in a row without a session after which a draining member goes.
const EMPTY_HEARTBEATS: u32 = 2;
/// Tokens of one target's link.
const NUMBERS: usize = 256;

/// Who is told of a member, and knows of it what only its cluster can know. Each call may take the lock of that cluster for
/// a moment.
pub trait Follower: Send + Sync + fmt::Debug {
    /// Something that must not be missed.
    fn tell(&self, news: News);
    /// Something that has time, and may be missed.
    fn leave(&self, news: News);
    /// Whether it is draining, and then whether a command is on its way to it.
    fn draining(&self) -> Option<bool>;
    /// Calls bound to it.
    fn bound(&self) -> u64;
    /// Whether its cluster has a member online that takes new calls.
    fn has_takers(&self) -> bool;
    /// It was draining, and has no session left.
    fn drained(&self);
}

/// A member: the number of its cluster, and its own there, which is never another's.
pub type Whose = (usize, u32);

/// What the health thread is told.
#[derive(Debug)]
enum Message {
    Watch {
        whose: Whose,
        member: Box<model::Member>,
        rules: model::Health,
        follower: Arc<dyn Follower>,
    },
    Forget(Whose),
    Rules {
        cluster: usize,
        rules: model::Health,
    },
    Suspect(Whose),
    Refused(Whose, Refused),
    Found {
        target: usize,
        /// The target's own, whatever its rules are by now.
        nonce: u64,
        result: Result<Vec<SocketAddr>, String>,
    },
    Stop,
}

/// The way to the health thread.
#[derive(Debug, Clone)]
pub struct Health(Mailbox<Message>);

impl Health {
    /// A member to be probed from now on, or one that is at another address now.
    pub fn watch(
        &self,
        whose: Whose,
        member: &model::Member,
        rules: model::Health,
        follower: Arc<dyn Follower>,
    ) {
        self.0.post(Message::Watch {
            whose,
            member: Box::new(member.clone()),
            rules,
            follower,
        });
    }

    /// It is no member any more.
    pub fn forget(&self, whose: Whose) {
        self.0.post(Message::Forget(whose));
    }

    /// The same, from who must not wait for the health thread, since that may wait for him. Says no when it has no room.
    pub fn try_forget(&self, whose: Whose) -> bool {
        self.0.try_post(Message::Forget(whose))
    }

    /// The members of a cluster are probed in another way.
    pub fn set_rules(&self, cluster: usize, rules: model::Health) {
        self.0.post(Message::Rules { cluster, rules });
    }

    /// A member did not answer a command in time. It will be told again if that goes on.
    pub fn suspect(&self, whose: Whose) {
        self.0.try_post(Message::Suspect(whose));
    }

    /// A member's socket refused a command. Its next probe finds out as well.
    pub fn refused(&self, whose: Whose, why: Refused) {
        self.0.try_post(Message::Refused(whose, why));
    }
}

/// The health thread, before and while it runs.
#[derive(Debug)]
pub struct HealthHandle {
    way: Health,
    seat: Option<(Poller, Receiver<Message>)>,
    thread: Option<Thread>,
}

impl HealthHandle {
    /// Not started yet.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn new() -> io::Result<Self> {
        let poller = Poller::new()?;
        let (mailbox, messages) = poller.mailbox(QUEUE)?;
        Ok(Self {
            way: Health(mailbox),
            seat: Some((poller, messages)),
            thread: None,
        })
    }

    /// The way to it.
    pub fn way(&self) -> Health {
        self.way.clone()
    }

    /// Starts the thread. It looks names up through `names`.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(&mut self, names: Arc<Names>) -> io::Result<()> {
        if let Some((poller, messages)) = self.seat.take() {
            let way = self.way();
            let thread = spawn("health", move || {
                let mut round = Round::new(poller, names, way);
                while round.turn(&messages) {}
            })?;
            self.thread = Some(thread);
        }
        Ok(())
    }

    /// Ends the thread and waits for it.
    pub fn stop(self) {
        self.way.0.post(Message::Stop);
        if let Some(thread) = self.thread {
            thread.join();
        }
    }
}

/// A member, as one of those that a target is.
#[derive(Debug)]
struct Following {
    whose: Whose,
    follower: Arc<dyn Follower>,
    /// Heartbeats in a row in which it had no session of ours, while draining.
    empty: u32,
}

struct Round {
    poller: Poller,
    targets: Slab<Target<Following>>,
    of: HashMap<Whose, usize>,
    alarms: Alarms,
    key: RandomState,
    /// Targets made so far.
    made: u64,
    names: Arc<Names>,
    way: Health,
}

fn spot(poller: &Poller, place: usize) -> Spot<'_> {
    Spot {
        registry: poller.registry(),
        base: place * NUMBERS,
    }
}

impl Round {
    fn new(poller: Poller, names: Arc<Names>, way: Health) -> Self {
        Self {
            poller,
            targets: Slab::new(),
            of: HashMap::new(),
            alarms: Alarms::default(),
            key: RandomState::new(),
            made: 0,
            names,
            way,
        }
    }

    /// Waits for something to do and does it; false when told to stop.
    fn turn(&mut self, messages: &Receiver<Message>) -> bool {
        let mut ready: Vec<Ready> = Vec::new();
        if let Err(error) = self.poller.wait(self.alarms.next(), &mut ready) {
            log::error!("health: waiting: {error}");
            return false;
        }
        let at = now();
        for Ready { token, .. } in ready {
            let (place, number) = (token / NUMBERS, token % NUMBERS);
            self.with(at, place, |target, spot, tell| {
                target.ready(at, number, spot, tell)
            });
        }
        for message in messages.try_iter() {
            if matches!(message, Message::Stop) {
                return false;
            }
            self.take(now(), message);
        }
        let at = now();
        while let Some(place) = self.alarms.pop(at) {
            self.alarm(at, place);
        }
        true
    }

    /// Does something with a target, and what follows when a probe that decides has ended by that.
    fn with(
        &mut self,
        now: Instant,
        place: usize,
        act: impl FnOnce(&mut Target<Following>, Spot<'_>, &mut dyn FnMut(News)) -> Option<Ended>,
    ) {
        let Some(target) = self.targets.get_mut(place) else {
            return;
        };
        let mut news = Vec::new();
        let ended = act(target, spot(&self.poller, place), &mut |it| news.push(it));
        let mut active = None;
        for it in news {
            let mut waits = false;
            if let News::Counted { counts, .. } = &it {
                active = counts.as_ref().map(|counts| counts.active);
                // The first count of one that is back is awaited.
                waits = core::mem::replace(&mut target.counted, true);
            }
            tell_all(target, &it, waits);
        }
        if let Some(ended) = ended {
            self.ended(now, place, ended);
        }
        if let Some(active) = active {
            self.look_at_drain(place, active);
        }
        self.set_alarm(place);
    }

    fn set_alarm(&mut self, place: usize) {
        let due = self.targets.get(place).and_then(Target::due);
        self.alarms.set(place, due);
    }

    fn take(&mut self, now: Instant, message: Message) {
        match message {
            Message::Watch {
                whose,
                member,
                rules,
                follower,
            } => {
                self.forget(whose);
                let following = Following {
                    whose,
                    follower,
                    empty: 0,
                };
                self.follow(now, &member, rules, following);
            }
            Message::Forget(whose) => self.forget(whose),
            Message::Rules { cluster, rules } => self.set_rules(now, cluster, rules),
            Message::Suspect(whose) => {
                if let Some(place) = self.of.get(&whose).copied()
                    && let Some(target) = self.targets.get_mut(place)
                {
                    let rules = target.rules();
                    target.watch.suspect(now, &rules);
                    self.set_alarm(place);
                }
            }
            Message::Refused(whose, why) => {
                if let Some(place) = self.of.get(&whose).copied() {
                    self.ended(now, place, Ended::Refused(why));
                    self.set_alarm(place);
                }
            }
            Message::Found {
                target,
                nonce,
                result,
            } => self.found(now, target, nonce, result),
            Message::Stop => {}
        }
    }

    /// One more follower of a target, which may be a new one. Of one that is known it is told what is known.
    fn follow(&mut self, now: Instant, member: &model::Member, rules: model::Health, following: Following) {
        let place = self.place_of(&Key::new(member, rules)).unwrap_or_else(|| {
            let nonce = self.next_nonce();
            self.targets.insert(Target::new(now, member, rules, nonce))
        });
        self.join(place, following);
    }

    fn next_nonce(&mut self) -> u64 {
        self.made += 1;
        self.key.hash_one(self.made)
    }

    fn place_of(&self, key: &Key) -> Option<usize> {
        let mut targets = self.targets.iter();
        targets
            .find(|(_, target)| target.key == *key)
            .map(|(place, _)| place)
    }

    /// One more follower of the target there.
    fn join(&mut self, place: usize, following: Following) {
        self.of.insert(following.whose, place);
        let Some(target) = self.targets.get_mut(place) else {
            return;
        };
        let is_new = target.followers.is_empty();
        for news in target.known() {
            following.follower.tell(news);
        }
        target.followers.push(following);
        if is_new && target.is_nowhere() {
            self.look_up(place);
        }
        self.set_alarm(place);
    }

    fn forget(&mut self, whose: Whose) {
        let Some(place) = self.of.remove(&whose) else {
            return;
        };
        if let Some(target) = self.targets.get_mut(place) {
            target.followers.retain(|following| following.whose != whose);
            if target.followers.is_empty() {
                // Its descriptors are closed with it.
                self.targets.remove(place);
            }
        }
    }

    /// Those who follow under other rules follow another target, unless nobody else follows theirs.
    fn set_rules(&mut self, now: Instant, cluster: usize, rules: model::Health) {
        let is_moving = |target: &Target<Following>| {
            let mut whose = target.followers.iter().map(|following| following.whose);
            target.rules() != rules && whose.any(|(number, _)| number == cluster)
        };
        let targets = self.targets.iter().filter(|(_, target)| is_moving(target));
        let moving: Vec<usize> = targets.map(|(place, _)| place).collect();
        for place in moving {
            let Some(target) = self.targets.get_mut(place) else {
                continue;
            };
            let (going, staying): (Vec<_>, Vec<_>) = core::mem::take(&mut target.followers)
                .into_iter()
                .partition(|following| following.whose.0 == cluster);
            if staying.is_empty() {
                target.followers = going;
                target.set_rules(rules);
                self.set_alarm(place);
                continue;
            }
            target.followers = staying;
            let key = Key::new(target.member(), rules);
            let to = self.place_of(&key).or_else(|| {
                let nonce = self.next_nonce();
                let split = self.targets.get(place)?.split(now, rules, nonce);
                Some(self.targets.insert(split))
            });
            for following in going {
                if let Some(to) = to {
                    self.join(to, following);
                }
            }
        }
    }

    /// Looks the name of a target up.
    fn look_up(&self, place: usize) {
        let Some(target) = self.targets.get(place) else {
            return;
        };
        let Some((host, port, is_v6)) = target.name() else {
            return;
        };
        let (way, nonce) = (self.way.clone(), target.nonce);
        self.names.look_up(host, port, is_v6, move |found| {
            way.0.post(Message::Found {
                target: place,
                nonce,
                result: found.map_err(|error| error.to_string()),
            });
        });
    }

    /// A name has been looked up.
    fn found(&mut self, now: Instant, place: usize, nonce: u64, result: Result<Vec<SocketAddr>, String>) {
        let target = self.targets.get_mut(place);
        let Some(target) = target.filter(|target| target.nonce == nonce) else {
            return;
        };
        let addresses = result.as_deref().unwrap_or_default();
        let was_nowhere = target.is_nowhere();
        target.found(now, addresses, spot(&self.poller, place));
        match result {
            Ok(addresses) => tell_all(target, &News::At(addresses), false),
            Err(error) if was_nowhere => {
                let rules = target.rules();
                let change = target.watch.nameless(now, &rules, error);
                post(target, &change);
            }
            Err(error) => log::debug!(
                "{}: the name is not found, its address is kept: {error}",
                target.member().address
            ),
        }
        self.set_alarm(place);
        if !self.targets.get(place).is_none_or(Target::is_nowhere) {
            self.alarm(now, place);
        }
    }

    /// Something of a target is due.
    fn alarm(&mut self, now: Instant, place: usize) {
        let Some(target) = self.targets.get_mut(place) else {
            return;
        };
        if target.look_up_is_due(now) {
            self.look_up(place);
            return self.set_alarm(place);
        }
        self.with(now, place, |target, spot, tell| target.alarm(now, spot, tell));
        self.with(now, place, |target, spot, _| {
            if target.is_nowhere() {
                return None;
            }
            let rules = target.rules();
            let probe = target.watch.next(now, &rules)?;
            target.send(now, probe, spot)
        });
    }

    /// A probe has ended, or a command was refused.
    fn ended(&mut self, now: Instant, place: usize, ended: Ended) {
        let Some(target) = self.targets.get_mut(place) else {
            return;
        };
        let rules = target.rules();
        let followers = &target.followers;
        let is_lonely = || followers.iter().any(|following| !following.follower.has_takers());
        let change = target.watch.ended(now, &rules, ended, is_lonely);
        let answered = matches!(ended, Ended::Answered(_));
        for following in &target.followers {
            following.follower.leave(News::Probed(answered));
        }
        post(target, &change);
        if !answered && target.watch.state() == State::Offline && target.wants_look_up(now) {
            self.look_up(place);
        }
    }

    /// A draining member goes when it has had no session, less those that other clusters have bound at the same
    /// address, at two heartbeats in a row. One that has been given another name in the file is another member here,
    /// with its own calls at that address.
    fn look_at_drain(&mut self, place: usize, active: u64) {
        let Some(target) = self.targets.get_mut(place) else {
            return;
        };
        let mut draining: Vec<(Whose, bool)> = Vec::new();
        for following in &mut target.followers {
            match following.follower.draining() {
                Some(asked) => draining.push((following.whose, asked)),
                // It may have been taken back.
                None => following.empty = 0,
            }
        }
        let mut over = Vec::new();
        for (whose, asked) in draining {
            let elsewhere: u64 = self
                .targets
                .iter()
                .filter(|(_, other)| {
                    self.targets
                        .get(place)
                        .is_some_and(|target| other.key.is_at_address_of(&target.key))
                })
                .flat_map(|(_, other)| &other.followers)
                .filter(|other| other.whose != whose)
                .map(|other| other.follower.bound())
                .sum();
            // A command on its way may be about to make a session there.
            let is_empty = active <= elsewhere && !asked;
            let Some(target) = self.targets.get_mut(place) else {
                return;
            };
            let is_online = target.watch.state() == State::Online;
            for following in target.followers.iter_mut().filter(|it| it.whose == whose) {
                following.empty = if is_empty { following.empty + 1 } else { 0 };
                if following.empty >= EMPTY_HEARTBEATS && is_online {
                    over.push(Arc::clone(&following.follower));
                }
            }
        }
        // Its cluster takes it out, unless it has been taken back in the same moment: so it is followed until then.
        for follower in over {
            follower.drained();
        }
    }
}

fn tell_all(target: &Target<Following>, news: &News, waits: bool) {
    for following in &target.followers {
        if waits {
            following.follower.leave(news.clone());
        } else {
            following.follower.tell(news.clone());
        }
    }
}

/// Tells the clusters what has changed, and when one that is not online is tried again.
fn post(target: &Target<Following>, change: &Change) {
    if target.watch.state() != State::Online {
        tell_all(target, &News::TriedAgain(target.watch.due()), true);
    }
    if let Some(news) = News::of(change, target.reason()) {
        tell_all(target, &news, false);
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use core::time::Duration;

    use parking_lot::Mutex;

    use super::super::watch::Answer;
    use super::*;
    use crate::config::model::{Address, Name, Protocol};

    /// A member that notes what it is told.
    #[derive(Debug, Default)]
    struct Noted {
        told: Mutex<Vec<News>>,
        drains: AtomicBool,
        drained: AtomicUsize,
    }

    impl Follower for Noted {
        fn tell(&self, news: News) {
            self.told.lock().push(news);
        }

        fn leave(&self, _: News) {}

        fn draining(&self) -> Option<bool> {
            self.drains.load(Ordering::Relaxed).then_some(false)
        }

        fn bound(&self) -> u64 {
            0
        }

        fn has_takers(&self) -> bool {
            true
        }

        fn drained(&self) {
            self.drained.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A health thread's work, and nothing done by itself.
    fn round() -> Round {
        let HealthHandle { way, seat, .. } = HealthHandle::new().unwrap();
        let names = Arc::new(Names::default());
        // Whoever asks is told at once that nothing is found.
        names.close();
        Round::new(seat.unwrap().0, names, way)
    }

    fn watch(round: &mut Round, whose: Whose, address: Address, rules: model::Health) -> Arc<Noted> {
        let follower = Arc::new(Noted::default());
        let member = model::Member::new(Name::new("M1").unwrap(), Protocol::Udp, address, 1, 1);
        let message = Message::Watch {
            whose,
            member: Box::new(member),
            rules,
            follower: Arc::<Noted>::clone(&follower),
        };
        round.take(now(), message);
        follower
    }

    fn here() -> Address {
        Address::Ip(([127, 0, 0, 1], 9).into())
    }

    fn come_online(round: &mut Round, place: usize) {
        let target = round.targets.get_mut(place).unwrap();
        let rules = target.rules();
        target.watch.next(now(), &rules).unwrap();
        let change = target.watch.answered(now(), &rules, Answer::Version);
        assert_eq!(change, Change::Online);
    }

    fn slower() -> model::Health {
        model::Health {
            interval: Duration::from_secs(7),
            ..model::Health::default()
        }
    }

    #[test]
    fn one_of_two_clusters_gets_other_rules_and_the_member_stays_online_in_both() {
        let mut round = round();
        watch(&mut round, (1, 0), here(), model::Health::default());
        let other = watch(&mut round, (2, 0), here(), model::Health::default());
        assert_eq!(round.targets.len(), 1);
        let place = *round.of.get(&(1, 0)).unwrap();
        come_online(&mut round, place);
        round.set_rules(now(), 2, slower());
        assert_eq!(round.targets.len(), 2);
        let moved = *round.of.get(&(2, 0)).unwrap();
        assert_ne!(moved, place);
        let target = round.targets.get(moved).unwrap();
        assert_eq!((target.rules(), target.watch.state()), (slower(), State::Online));
        assert!(matches!(
            other.told.lock().as_slice(),
            [News::State { online: true, .. }]
        ));
        // And they meet again when the other one has those rules too: nobody follows the old target then.
        round.set_rules(now(), 1, slower());
        assert_eq!(round.targets.get(place).unwrap().rules(), slower());
    }

    #[test]
    fn a_name_is_found_though_the_rules_have_changed_meanwhile() {
        let mut round = round();
        let name = Address::Host("name.invalid".into(), 22_222);
        let follower = watch(&mut round, (1, 0), name, model::Health::default());
        let place = *round.of.get(&(1, 0)).unwrap();
        let nonce = round.targets.get(place).unwrap().nonce;
        round.set_rules(now(), 1, slower());
        let found = |nonce| Message::Found {
            target: place,
            nonce,
            result: Ok(vec![([127, 0, 0, 1], 9).into()]),
        };
        round.take(now(), found(nonce ^ 1));
        assert!(
            round.targets.get(place).unwrap().is_nowhere(),
            "that was another one's"
        );
        round.take(now(), found(nonce));
        assert!(!round.targets.get(place).unwrap().is_nowhere());
        assert!(matches!(follower.told.lock().as_slice(), [News::At(_)]));
    }

    #[test]
    fn a_member_that_drains_goes_after_two_empty_heartbeats_in_a_row() {
        let mut round = round();
        let follower = watch(&mut round, (1, 0), here(), model::Health::default());
        let place = *round.of.get(&(1, 0)).unwrap();
        come_online(&mut round, place);
        let drained = || follower.drained.load(Ordering::Relaxed);
        follower.drains.store(true, Ordering::Relaxed);
        for active in [0, 1, 0] {
            round.look_at_drain(place, active);
        }
        assert_eq!(drained(), 0, "a session came in between");
        round.look_at_drain(place, 0);
        assert_eq!(drained(), 1);
        // It is taken back in that moment: it is followed as before, and later drains from the beginning.
        assert!(round.of.contains_key(&(1, 0)));
        follower.drains.store(false, Ordering::Relaxed);
        round.look_at_drain(place, 0);
        follower.drains.store(true, Ordering::Relaxed);
        round.look_at_drain(place, 0);
        assert_eq!(drained(), 1);
        round.look_at_drain(place, 0);
        assert_eq!(drained(), 2);
    }
}
