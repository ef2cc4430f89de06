//! A changed configuration file, applied as a difference: what is the same keeps its sessions, sockets and
//! counters. Everything that can fail is tried before anything is changed: a [`Plan`] holds every socket, link and
//! thread that the new state needs, and carrying it out only puts them in their places.

use core::mem;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{getegid, geteuid};

use super::changes::log_undone;
use super::operate::definition;
use super::running::{Running, open_door, open_link, open_relay};
use super::{FIRST_PROBES, STOP_WITHIN, Shared, await_first_probes};
use crate::admin::operator::{Loaded, Operator, Refusal};
use crate::cluster::front::door::Door;
use crate::cluster::{Changed, needs_link, relay};
use crate::config::{self, Parsed, model};
use crate::daemon::{StartError, rights};
use crate::dispatch::event::Subject;
use crate::dispatch::session::MemberId;
use crate::link::Link;
use crate::sockets::file;
use crate::sockets::listener::{BoundUnix, Rights};

impl Shared {
    /// Reads the file again and makes the running state what it says.
    ///
    /// # Errors
    /// All faults of the file, or the one thing that the system refuses; nothing has changed then.
    pub(super) fn reload(&self) -> Result<Loaded, Refusal> {
        let loaded = self.load();
        match &loaded {
            Ok(Loaded { clusters, members }) => {
                let why = format!("{clusters} clusters, {members} RTPproxies");
                self.tell(Subject::Configuration, "loaded", &why);
            }
            Err(refusal) => self.tell(Subject::Configuration, "refused", &refusal.to_string()),
        }
        loaded
    }

    fn load(&self) -> Result<Loaded, Refusal> {
        let _change = self.changes.lock();
        let (path, known) = self.file.lock().clone();
        let (Parsed { config, warnings }, contents) =
            config::load(&path).map_err(|faults| Refusal::Other(faults.to_string().trim_end().to_owned()))?;
        let whole = self.with_found(config.clone());
        let mut plan = Plan::make(self, &whole).map_err(Refusal::Other)?;
        for warning in warnings {
            log::warn!("{warning}");
        }
        self.log_changes(&path, &known, &config);
        plan.admit();
        await_first_probes(plan.unproven(), FIRST_PROBES);
        plan.carry_out(self);
        self.put_in_order(&whole);
        self.file.lock().1 = contents;
        self.keep_changes();
        self.watch_pools();
        Ok(Loaded {
            clusters: config.clusters.len(),
            members: config.clusters.iter().map(|cluster| cluster.members.len()).sum(),
        })
    }

    /// What a reload changes.
    fn log_changes(&self, path: &Path, known: &[u8], file: &model::Config) {
        let running = self.running();
        let before = config::parse(path, known).map_or_else(|_| running.clone(), |parsed| parsed.config);
        log_undone("reload", &running, &before, file);
    }

    /// Binds the relay of a cluster. A socket that a running cluster has is taken over from it, so that an address
    /// can go from one to another.
    pub(super) fn open_relay(&self, wanted: &model::Cluster) -> Result<Option<relay::Door>, StartError> {
        open_relay(wanted, &self.sockets, |address| {
            let running = self.clusters.read();
            running
                .iter()
                .find_map(|running| running.cluster.relay_port(address))
        })
    }

    /// Binds the admin sockets whose files were removed once more.
    fn lost_admin_sockets(&self) -> Result<Vec<(usize, BoundUnix)>, String> {
        let lost: Vec<(usize, PathBuf)> = match &*self.admin.lock() {
            Some(admin) => {
                let files = admin.files.iter().enumerate();
                let lost = files.filter(|(_, file)| !file.is_there());
                lost.map(|(n, file)| (n, file.path().to_owned())).collect()
            }
            None => return Ok(Vec::new()),
        };
        let bind = |(n, path): (usize, PathBuf)| {
            let read_only = self.options.readonly_socket.as_ref() == Some(&path);
            let rights = rights::of_admin_socket(&self.options, read_only)?;
            let bound = self.sockets.unix(&path, &rights);
            Ok((n, bound.map_err(|error| error.to_string())?))
        };
        lost.into_iter().map(bind).collect()
    }

    /// Lists clusters and members in the order of the file.
    fn put_in_order(&self, config: &model::Config) {
        let mut clusters = self.clusters.write();
        clusters.sort_by_key(|running| {
            let place = config
                .clusters
                .iter()
                .position(|cluster| cluster.name == running.cluster.name);
            place.unwrap_or(usize::MAX)
        });
        let clusters = clusters.clone();
        for (running, wanted) in clusters.iter().zip(&config.clusters) {
            let names = wanted.members.iter().map(|member| &member.name);
            running.cluster.look(|_, core| core.put_in_order(names));
        }
    }
}

/// All that a reload needs and might not get. Dropped without being carried out, it closes what it has opened.
#[derive(Default)]
struct Plan {
    changed: Vec<Change>,
    added: Vec<Running>,
    /// Clusters that are no longer in the file; whether another one has their socket now.
    removed: Vec<(Arc<Running>, bool)>,
    rights: Vec<NewRights>,
    /// Admin sockets in the place of those whose files were removed, each with the number of its door.
    admin: Vec<(usize, BoundUnix)>,
}

/// A cluster that stays.
struct Change {
    running: Arc<Running>,
    wanted: model::Cluster,
    /// Where it is to listen from now on, if that is elsewhere.
    moved: Option<Door>,
    /// Whether it has another relay from now on, or none any more.
    moves_relay: bool,
    /// That one.
    relay: Option<relay::Door>,
    members: Vec<MemberChange>,
    new: Vec<(MemberId, model::Member, Link)>,
    leaving: Vec<(MemberId, model::Member)>,
    /// Whether there are members that have just come.
    has_new: bool,
}

/// A member that becomes another.
struct MemberChange {
    id: MemberId,
    after: model::Member,
    link: Option<Link>,
}

impl Plan {
    /// Gets everything, or says what could not be had.
    fn make(shared: &Shared, config: &model::Config) -> Result<Self, String> {
        let mut plan = Self::default();
        let clusters: Vec<(Arc<Running>, model::Cluster)> = {
            let clusters = shared.clusters.read().clone();
            clusters
                .into_iter()
                .map(|running| {
                    let definition = definition(&running);
                    (running, definition)
                })
                .collect()
        };
        let named = |name: &model::Name| clusters.iter().find(|(_, now)| now.name == *name);
        let is_at = |now: &model::Cluster, wanted: &model::Cluster| {
            now.protocol.same_socket(wanted.protocol) && now.address == wanted.address
        };
        for wanted in &config.clusters {
            let told = |error: String| format!("cluster {}: {error}", wanted.name);
            let own = named(&wanted.name);
            // A socket whose file was removed serves nobody: it is made anew.
            let holder = clusters
                .iter()
                .find(|(running, now)| is_at(now, wanted) && running.socket_is_there());
            let stays = own.is_some_and(|(running, now)| {
                now.protocol == wanted.protocol && is_at(now, wanted) && running.socket_is_there()
            });
            let door = match holder {
                _ if stays => None,
                // It moves away or closes: its very socket goes on to this cluster, and who waits there with it.
                Some((holder, _)) => Some(
                    holder
                        .door_over(wanted.protocol)
                        .ok_or_else(|| told("its socket is being closed: try again".to_owned()))?,
                ),
                None => {
                    if own.is_some_and(|(_, now)| is_at(now, wanted)) {
                        log::warn!(
                            "{}",
                            told(format!("{}: our socket is gone: making it again", wanted.address))
                        );
                    }
                    Some(
                        open_door(wanted, &shared.options, &shared.sockets, &shared.names)
                            .map_err(|error| error.messages.join("; "))?,
                    )
                }
            };
            if let Some((holder, now)) = holder
                && now.socket != wanted.socket
            {
                plan.rights
                    .extend(NewRights::of(shared, holder, wanted).map_err(told)?);
            }
            if let Some((running, now)) = own {
                let filled = plan.change(shared, running, now, wanted, door);
                filled.map_err(|error| told(error.to_string()))?;
            } else if let Some(door) = door {
                let relay = shared
                    .open_relay(wanted)
                    .map_err(|error| error.messages.join("; "))?;
                let running = shared.make_cluster(wanted, door, relay);
                plan.added.push(running.map_err(|error| error.to_string())?);
            }
        }
        for (running, now) in &clusters {
            if config.clusters.iter().all(|wanted| wanted.name != now.name) {
                let is_taken = config.clusters.iter().any(|wanted| is_at(now, wanted));
                plan.removed.push((Arc::clone(running), is_taken));
            }
        }
        plan.admin = shared.lost_admin_sockets()?;
        // The only step that others can see, and one that can be taken back.
        for done in 0..plan.rights.len() {
            let (before, rest) = plan.rights.split_at(done);
            if let Some(next) = rest.first()
                && let Err(error) = next.give(&next.after)
            {
                for given in before {
                    given.give(&given.before).ok();
                }
                return Err(format!(
                    "{}: cannot change its owner and mode: {error}",
                    next.path.display()
                ));
            }
        }
        Ok(plan)
    }

    /// What makes one running cluster what the file says.
    fn change(
        &mut self,
        shared: &Shared,
        running: &Arc<Running>,
        now: &model::Cluster,
        wanted: &model::Cluster,
        door: Option<Door>,
    ) -> io::Result<()> {
        let cluster = &running.cluster;
        let mut change = Change {
            running: Arc::clone(running),
            wanted: wanted.clone(),
            moved: None,
            moves_relay: false,
            relay: None,
            members: Vec::new(),
            new: Vec::new(),
            leaving: Vec::new(),
            has_new: false,
        };
        let before: Vec<(MemberId, model::Member)> = cluster.look(|_, core| {
            let members = core.members_in_order();
            members
                .iter()
                .map(|member| (member.id, member.config.clone()))
                .collect()
        });
        let filled = (|| {
            for (id, member) in before {
                match wanted.members.iter().find(|wanted| wanted.name == member.name) {
                    Some(after) if *after == member => {}
                    Some(after) => {
                        let link = needs_link(&member, after).then(|| open_link(after));
                        change.members.push(MemberChange {
                            id,
                            after: after.clone(),
                            link: link.transpose()?,
                        });
                    }
                    None => change.leaving.push((id, member)),
                }
            }
            let is_new = |member: &&model::Member| now.members.iter().all(|known| known.name != member.name);
            let new: Vec<&model::Member> = wanted.members.iter().filter(is_new).collect();
            for (member, id) in new.iter().zip(cluster.places(new.len())?) {
                change.new.push((id, (*member).clone(), open_link(member)?));
            }
            let relay_at = wanted
                .disconnect_notify
                .as_ref()
                .map(|notify| notify.inbound_address);
            if relay_at != cluster.relay_address() {
                change.moves_relay = true;
                change.relay = shared
                    .open_relay(wanted)
                    .map_err(|error| io::Error::other(error.messages.join("; ")))?;
            }
            change.moved = door;
            Ok(())
        })();
        // Also what is half filled: the plan closes it.
        self.changed.push(change);
        filled
    }

    /// Does it. Nothing of this can fail.
    /// Those who take sessions come before others go.
    fn admit(&mut self) {
        for change in &mut self.changed {
            for (id, member, link) in mem::take(&mut change.new) {
                change.running.cluster.add_member(id, &member, link);
                change.has_new = true;
            }
        }
    }

    /// Who must know its members before the rest is done: a new cluster, since it takes commands at once where its
    /// socket was another one's before; one that gains members, since those that leave may be all others, and since who
    /// asks next is to find the new ones as they are.
    fn unproven(&self) -> impl Iterator<Item = &Running> {
        let gaining = self.changed.iter().filter(|change| change.has_new);
        self.added.iter().chain(gaining.map(|change| &*change.running))
    }

    fn carry_out(mut self, shared: &Shared) {
        self.rights.clear();
        if let Some(admin) = &mut *shared.admin.lock() {
            for (n, BoundUnix { listener, file }) in mem::take(&mut self.admin) {
                log::warn!("{}: our admin socket was gone: made again", file.path().display());
                admin.thread.replace(n, listener);
                if let Some(old) = admin.files.get_mut(n) {
                    *old = file;
                }
            }
        }
        let changed = mem::take(&mut self.changed);
        let removed = mem::take(&mut self.removed);
        // Nobody serves a socket that another cluster is to serve.
        for change in changed.iter().filter(|change| change.moved.is_some()) {
            change.running.stop_accepting();
        }
        let taken = || removed.iter().filter(|(_, taken)| *taken);
        for (running, _) in taken() {
            log::info!("cluster {}: no longer in the file", running.cluster.name);
            running.stop_accepting();
            running.cluster.put_relay(None);
        }
        for change in changed {
            if change.is_another() {
                shared.tell_cluster(&change.running, "changed", "");
            }
            change.carry_out();
        }
        for running in mem::take(&mut self.added) {
            shared.enter(running).open();
        }
        // What is in flight there is answered, while the other cluster serves the next already.
        for (running, _) in taken() {
            shared.close_cluster(running, STOP_WITHIN);
        }
        for (running, _) in removed.iter().filter(|(_, taken)| !*taken) {
            log::info!("cluster {}: no longer in the file", running.cluster.name);
            shared.drain_cluster(running);
        }
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        for running in self.added.drain(..) {
            running.close();
        }
    }
}

impl Change {
    /// Whether the cluster itself changes, its members aside.
    fn is_another(&self) -> bool {
        let wanted = model::Cluster {
            members: Vec::new(),
            ..self.wanted.clone()
        };
        self.running.cluster.look(|_, core| *core.rules() != wanted)
    }

    fn carry_out(self) {
        let cluster = &self.running.cluster;
        self.running
            .draining
            .store(false, core::sync::atomic::Ordering::Release);
        if let Some(door) = self.moved {
            self.running.move_to(door);
        }
        cluster.set_rules(&self.wanted);
        self.running.share(&self.wanted);
        if self.moves_relay {
            cluster.put_relay(self.relay);
        }
        let mut fewer = !self.leaving.is_empty();
        for MemberChange { id, after, link } in self.members {
            fewer |= after.status != model::Status::Active;
            if cluster.change_member(id, &after, link, false) == Changed::Gone {
                // It was draining, and its last session ended a moment ago.
                let again = cluster.places(1).and_then(|ids| {
                    ids.into_iter().try_for_each(|id| {
                        cluster.add_member(id, &after, open_link(&after)?);
                        Ok(())
                    })
                });
                if let Err(error) = again {
                    log::error!("member {} of {}: {error}", after.name, cluster.name);
                }
            }
        }
        let out = cluster.delete_members(self.leaving.iter().map(|(id, _)| *id).collect());
        for (id, member) in &self.leaving {
            let model::Member { name, address, .. } = member;
            let how = if out.contains(id) { "removed" } else { "draining" };
            log::info!(
                "member {name} of {} ({address}): no longer in the file: {how}",
                cluster.name
            );
        }
        if fewer {
            cluster.warn_if_nobody_takes();
        }
    }
}

/// Another owner or mode for a socket that stays.
struct NewRights {
    path: PathBuf,
    before: Rights,
    after: Rights,
}

impl NewRights {
    fn of(shared: &Shared, holder: &Running, wanted: &model::Cluster) -> Result<Option<Self>, String> {
        let Some(path) = holder.socket_path() else {
            return Ok(None);
        };
        let told = |error: io::Error| format!("{}: {error}", path.display());
        let meta = std::fs::symlink_metadata(&path).map_err(told)?;
        Ok(Some(Self {
            before: Rights {
                uid: Some(meta.uid()),
                gid: Some(meta.gid()),
                mode: meta.mode() & 0o7777,
            },
            after: rights::of_control_socket(&shared.options, &wanted.socket)?,
            path,
        }))
    }

    fn give(&self, rights: &Rights) -> io::Result<()> {
        let rights = Rights {
            uid: Some(rights.uid.unwrap_or_else(|| geteuid().as_raw())),
            gid: Some(rights.gid.unwrap_or_else(|| getegid().as_raw())),
            ..*rights
        };
        file::give(&self.path, &rights).map(drop)
    }
}
