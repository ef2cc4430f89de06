//! The thread that keeps members found by a name as the name has them: it knows when each is to be looked up again, has
//! that done by the pool of names, and carries out what an answer changes. A name that fails changes nothing.

use core::time::Duration;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::operate::definition;
use super::running::{Running, open_link};
use super::{FIRST_NAMES, FIRST_PROBES, Shared, await_first_probes};
use crate::config::check_member_fits;
use crate::config::model::{self, Name, Pool, Status};
use crate::discovery::found::{Found, MEMBERS_MAX, Place, Step, member, place_of, steps};
use crate::discovery::resolver;
use crate::dispatch::session::MemberId;
use crate::rim::backoff::Backoff;
use crate::rim::throttle::Throttle;
use crate::rim::{self, Thread, idle, now};

/// Messages that may wait; an answer that finds no room is asked for again.
const QUEUE: usize = 1024;
/// An answer that has not come by then never will.
const LOST_AFTER: Duration = Duration::from_secs(120);
/// Pauses after a look-up that failed.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));

type Answer = Result<Found, String>;

enum Message {
    /// There may be other pools than before.
    Look,
    /// A pool of that cluster was looked up.
    Said(Name, Pool, Answer),
    Stop,
}

/// The thread, from the first pool on.
#[derive(Debug)]
pub(super) struct Finder {
    to: Sender<Message>,
    thread: Thread,
}

impl Finder {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(shared: Weak<Shared>) -> std::io::Result<Self> {
        let (to, messages) = bounded(QUEUE);
        let answers = to.clone();
        let thread = rim::spawn("finder", move || run(&shared, &messages, &answers))?;
        Ok(Self { to, thread })
    }

    fn look(&self) {
        self.to.try_send(Message::Look).ok();
    }

    /// Ends it.
    pub(super) fn stop(self) {
        self.to.send(Message::Stop).ok();
        self.thread.join();
    }
}

/// What is known of one pool.
struct Watched {
    cluster: Name,
    pool: Pool,
    /// What its name said last.
    places: Vec<Place>,
    due: Instant,
    backoff: Backoff,
    /// Why the last look-up failed, if that has been told.
    told: Option<String>,
    /// When it was told that there are too many addresses.
    cut: Throttle,
    /// Members that were suspended when the name no longer led to them: they come back so.
    suspended: Vec<Name>,
}

type Known = Vec<Watched>;

fn run(shared: &Weak<Shared>, messages: &Receiver<Message>, answers: &Sender<Message>) {
    let mut known = Known::default();
    loop {
        let due = known.iter().map(|watched| watched.due).min();
        let message = idle(|| match due {
            Some(due) => messages.recv_deadline(due),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        });
        let Some(shared) = shared.upgrade() else { return };
        match message {
            Ok(Message::Look) => shared.find_pools(&mut known),
            Ok(Message::Said(cluster, pool, answer)) => {
                let watched = known
                    .iter_mut()
                    .find(|watched| watched.cluster == cluster && watched.pool == pool);
                if let Some(watched) = watched {
                    shared.pool_said(watched, answer);
                }
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = now();
        for watched in known.iter_mut().filter(|watched| watched.due <= now) {
            watched.due = now + LOST_AFTER;
            let (cluster, answers) = (watched.cluster.clone(), answers.clone());
            look_up(&shared, &watched.pool, move |pool, answer| {
                answers.try_send(Message::Said(cluster, pool, answer)).ok();
            });
        }
    }
}

/// Has a pool looked up.
fn look_up(shared: &Shared, pool: &Pool, done: impl FnOnce(Pool, Answer) + Send + 'static) {
    let pool = pool.clone();
    shared.names.run(move |turn| {
        let answer = turn
            .map_err(|error| error.to_string())
            .and_then(|()| resolver::look_up(&pool));
        done(pool, answer);
    });
}

impl Shared {
    /// Looks up the pools of clusters that are about to start, so that they begin with the members that they had: who
    /// does not answer in time is looked up again later.
    pub(super) fn find_first<'a>(&self, clusters: impl Iterator<Item = &'a mut model::Cluster>) {
        self.find_among(clusters.map(|cluster| {
            let pools = cluster.pools.clone();
            (cluster, pools)
        }));
    }

    /// The same for some of their pools.
    fn find_among<'a>(&self, clusters: impl Iterator<Item = (&'a mut model::Cluster, Vec<Pool>)>) {
        let until = now() + FIRST_NAMES;
        let asked: Vec<_> = clusters
            .map(|(cluster, pools)| {
                let answers: Vec<Receiver<Answer>> = pools
                    .iter()
                    .map(|pool| {
                        let (tell, told) = bounded(1);
                        look_up(self, pool, move |_, answer| {
                            tell.try_send(answer).ok();
                        });
                        told
                    })
                    .collect();
                (cluster, pools, answers)
            })
            .collect();
        for (cluster, pools, answers) in asked {
            for (pool, answer) in pools.iter().zip(answers) {
                let Ok(Ok(found)) = idle(|| answer.recv_deadline(until)) else {
                    continue;
                };
                for place in found.places {
                    if let Some(member) = member(pool, place)
                        && fits(cluster, &member).is_ok()
                    {
                        cluster.members.push(member);
                    }
                }
            }
        }
    }

    /// What a file says, with the members that its pools have found and have still, and those that new pools have: what
    /// the file no longer has leaves at this reload, and they may be all that is left.
    pub(super) fn with_found(&self, mut file: model::Config) -> model::Config {
        let mut new = Vec::new();
        for wanted in &mut file.clusters {
            let Ok(running) = self.find(wanted.name.as_str()) else {
                new.push(wanted.pools.clone());
                continue;
            };
            let before = definition(&running);
            for known in before.members {
                let by = |pool: &&Pool| Some(&pool.name) == known.found_by.as_ref();
                let (Some(pool), Some(old)) = (wanted.pools.iter().find(by), before.pools.iter().find(by))
                else {
                    continue;
                };
                let mut kept = known.clone();
                if old.capacity != pool.capacity {
                    kept.capacity = pool.capacity;
                }
                if old.weight != pool.weight && kept.weight == old.weight {
                    kept.weight = pool.weight;
                }
                if fits(wanted, &kept).is_ok() {
                    wanted.members.push(kept);
                }
            }
            let is_new = |pool: &&Pool| !before.pools.contains(pool);
            new.push(wanted.pools.iter().filter(is_new).cloned().collect());
        }
        self.find_among(file.clusters.iter_mut().zip(new));
        file
    }

    /// To be called when clusters have come or changed: the thread looks at their pools, and is started for the first.
    pub(super) fn watch_pools(&self) {
        let mut finder = self.finder.lock();
        if let Some(finder) = &*finder {
            return finder.look();
        }
        let has_pools =
            |running: &Arc<Running>| running.cluster.look(|_, core| !core.rules().pools.is_empty());
        if !self.clusters.read().iter().any(has_pools) {
            return;
        }
        match Finder::start(Weak::clone(&self.this)) {
            Ok(started) => finder.insert(started).look(),
            Err(error) => log::error!("no thread to look members up: {error}"),
        }
    }

    /// Makes `known` the pools that there are. One that is new is looked up at once.
    fn find_pools(&self, known: &mut Known) {
        let clusters = self.clusters.read().clone();
        let mut all = Vec::new();
        for running in clusters.iter().filter(|running| !running.is_draining()) {
            let definition = definition(running);
            for pool in definition.pools {
                let same = |watched: &Watched| watched.cluster == definition.name && watched.pool == pool;
                let watched = match known.iter().position(same) {
                    Some(place) => known.swap_remove(place),
                    None => Watched {
                        places: found_by(&definition.members, &pool)
                            .filter_map(place_of)
                            .collect(),
                        cluster: definition.name.clone(),
                        pool,
                        due: now(),
                        backoff: BACKOFF,
                        told: None,
                        cut: Throttle::default(),
                        suspended: Vec::new(),
                    },
                };
                all.push(watched);
            }
        }
        *known = all;
    }

    /// A pool was looked up.
    fn pool_said(&self, watched: &mut Watched, answer: Answer) {
        let now = now();
        let (cluster, pool) = (&watched.cluster, &watched.pool);
        match answer {
            Ok(found) => {
                watched.backoff.worked();
                watched.due = now + found.again;
                if watched.told.take().is_some() {
                    log::info!(
                        "cluster {cluster}, members {}: {} is found again",
                        pool.name,
                        pool.address
                    );
                }
                if found.is_cut && watched.cut.hit(now).is_some() {
                    log::warn!(
                        "cluster {cluster}, members {}: {} has more than {MEMBERS_MAX} addresses: the rest is left out",
                        pool.name,
                        pool.address
                    );
                }
                self.make_it_so(watched, &found.places);
                watched.places = found.places;
            }
            Err(why) => {
                watched.backoff.failed(now);
                watched.due = watched.backoff.due().unwrap_or(now);
                if watched.told.as_ref() != Some(&why) {
                    log::warn!(
                        "cluster {cluster}, members {}: {}: {why}; they stay as they are",
                        pool.name,
                        pool.address
                    );
                }
                watched.told = Some(why);
            }
        }
    }

    /// Makes the members of a pool what its name says.
    fn make_it_so(&self, watched: &mut Watched, found: &[Place]) {
        let Watched {
            cluster,
            pool,
            places: before,
            suspended,
            ..
        } = watched;
        let _change = self.changes.lock();
        let Ok(running) = self.find(cluster.as_str()) else {
            return;
        };
        let mut definition = definition(&running);
        if running.is_draining() || !definition.pools.contains(pool) {
            return;
        }
        let there: Vec<model::Member> = found_by(&definition.members, pool).cloned().collect();
        let drains = |name: &Name| {
            let known = there.iter().find(|member| member.name == *name);
            known.is_some_and(|member| member.status == Status::Draining)
        };
        suspended.retain(drains);
        let mut leaving = Vec::new();
        let mut has_new = false;
        let steps = steps(pool, before, found, &there);
        if steps.is_empty() {
            return;
        }
        for step in steps {
            match step {
                Step::Add(member) => {
                    let added = fits(&definition, &member).and_then(|()| add(&running, &member));
                    match added {
                        Ok(()) => {
                            log::info!("member {} of {cluster} ({}): found", member.name, member.address);
                            definition.members.push(member);
                            has_new = true;
                        }
                        Err(why) => log::warn!("member {} of {cluster}: left out: {why}", member.name),
                    }
                }
                Step::Back(name) => {
                    log::info!("member {name} of {cluster}: found again");
                    let status = if suspended.contains(&name) {
                        Status::Suspended
                    } else {
                        Status::Active
                    };
                    change(&running, &name, |member| member.status = status);
                }
                Step::Weigh(name, weight) => {
                    log::info!("member {name} of {cluster}: weight {weight}, as its record says");
                    change(&running, &name, |member| member.weight = weight);
                }
                Step::Leave(name) => {
                    log::info!(
                        "member {name} of {cluster}: {} leads there no longer: draining",
                        pool.address
                    );
                    if let Some((id, member)) = named(&running, &name) {
                        leaving.push(id);
                        if member.status == Status::Suspended {
                            suspended.push(name);
                        }
                    }
                }
            }
        }
        if !leaving.is_empty() {
            // Those that leave may be all others.
            if has_new {
                await_first_probes(core::iter::once(&*running), FIRST_PROBES);
            }
            running.cluster.delete_members(leaving);
            running.cluster.warn_if_nobody_takes();
        }
        self.keep_changes();
    }
}

/// The members that a pool has found.
fn found_by<'a>(members: &'a [model::Member], pool: &Pool) -> impl Iterator<Item = &'a model::Member> {
    members
        .iter()
        .filter(|member| member.found_by.as_ref() == Some(&pool.name))
}

/// Whether a member that was found can be one of the cluster.
fn fits(cluster: &model::Cluster, member: &model::Member) -> Result<(), String> {
    if cluster.members.iter().any(|known| known.name == member.name) {
        return Err("there is a member of that name".to_owned());
    }
    check_member_fits(cluster, member)
}

fn add(running: &Running, member: &model::Member) -> Result<(), String> {
    let link = open_link(member).map_err(|error| error.to_string())?;
    let ids = running.cluster.places(1).map_err(|error| error.to_string())?;
    if let [id] = ids[..] {
        running.cluster.add_member(id, member, link);
    }
    Ok(())
}

fn named(running: &Running, name: &Name) -> Option<(MemberId, model::Member)> {
    running.cluster.look(|_, core| {
        let member = core.member_named(name.as_str())?;
        Some((member.id, member.config.clone()))
    })
}

fn change(running: &Running, name: &Name, change: impl FnOnce(&mut model::Member)) {
    if let Some((id, mut member)) = named(running, name) {
        change(&mut member);
        running.cluster.change_member(id, &member, None, false);
    }
}
