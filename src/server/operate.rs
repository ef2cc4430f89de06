//! What operators ask for, done to the running clusters.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::running::{Running, open_door, open_link};
use super::{FIRST_PROBES, STOP_WITHIN, Shared, await_first_probes};
use crate::admin::operator::{Loaded, Operator, Refusal};
use crate::cluster::{Changed, Cluster, needs_link};
use crate::config::Setting;
use crate::config::address;
use crate::config::model::{self, Config, Name, Status};
use crate::config::{check_cluster_fits, check_member_fits};
use crate::daemon::StartError;
use crate::dispatch::event::{Event, Traced};
use crate::dispatch::session::{MemberId, SHARDS};
use crate::dispatch::view::{ClusterView, SessionsView, Summary};
use crate::rim::feed::{LISTENERS_MAX, Subscription, Wake};
use crate::rim::now;

/// Call-ids in a part of a listing, and those of one shard more: some 100 kB each.
const LISTED_A_PART: usize = 1_000;

/// A member's id and its definition.
fn member(cluster: &Cluster, name: &str) -> Result<(MemberId, model::Member), Refusal> {
    cluster
        .look(|_, core| {
            let member = core.member_named(name)?;
            Some((member.id, member.config.clone()))
        })
        .ok_or_else(|| Refusal::NoMember(name.to_owned()))
}

/// The definition of a cluster as it runs, members and all.
pub(super) fn definition(running: &Running) -> model::Cluster {
    running.cluster.look(|_, core| {
        let members = core
            .members_in_order()
            .into_iter()
            .map(|member| member.config.clone())
            .collect();
        model::Cluster {
            members,
            ..core.rules().clone()
        }
    })
}

fn too_many() -> Refusal {
    Refusal::Other(format!(
        "{LISTENERS_MAX} already watch or trace: want one of them to end"
    ))
}

fn other(error: impl core::fmt::Display) -> Refusal {
    Refusal::Other(error.to_string())
}

impl Shared {
    /// The running cluster of that name, unless it is being deleted.
    fn find_staying(&self, name: &str) -> Result<Arc<Running>, Refusal> {
        let running = self.find(name)?;
        if running.is_draining() {
            return Err(Refusal::Other(format!(
                "{name}: the cluster is being deleted: want another cluster, or a reload if the file still has it"
            )));
        }
        Ok(running)
    }

    fn set_status(&self, cluster: &str, name: &str, status: Status) -> Result<(), Refusal> {
        let _change = self.changes.lock();
        let running = self.find_staying(cluster)?;
        let (id, _) = member(&running.cluster, name)?;
        if !running.cluster.set_status(id, status) {
            return Err(Refusal::NoMember(name.to_owned()));
        }
        if status != Status::Active {
            running.cluster.warn_if_nobody_takes();
        }
        self.keep_changes();
        Ok(())
    }

    /// The cluster's view, with what only the server knows of it.
    fn view_of(running: &Running) -> ClusterView {
        ClusterView {
            draining: running.is_draining(),
            ..running.cluster.view()
        }
    }
}

impl Operator for Shared {
    fn tidy(&self) {
        self.close_drained();
    }

    fn clusters(&self) -> Vec<ClusterView> {
        let clusters: Vec<Arc<Running>> = self.clusters.read().clone();
        clusters.iter().map(|running| Self::view_of(running)).collect()
    }

    fn summaries(&self) -> Vec<Summary> {
        let clusters: Vec<Arc<Running>> = self.clusters.read().clone();
        let count = |running: &Arc<Running>| Summary {
            draining: running.is_draining(),
            ..running.cluster.summary()
        };
        clusters.iter().map(count).collect()
    }

    fn cluster(&self, name: &str) -> Result<(usize, ClusterView), Refusal> {
        let found = {
            let clusters = self.clusters.read();
            let mut numbered = clusters.iter().enumerate();
            let found = numbered.find(|(_, running)| running.cluster.name.as_str() == name);
            found.map(|(number, running)| (number, Arc::clone(running)))
        };
        let (number, running) = found.ok_or_else(|| Refusal::NoCluster(name.to_owned()))?;
        Ok((number, Self::view_of(&running)))
    }

    fn is_online(&self, cluster: &str, name: &str) -> Result<bool, Refusal> {
        let running = self.find(cluster)?;
        let online = running
            .cluster
            .look(|_, core| core.member_named(name).map(|member| member.online));
        online.ok_or_else(|| Refusal::NoMember(name.to_owned()))
    }

    fn uptime(&self) -> Duration {
        now().saturating_duration_since(self.started)
    }

    fn add_member(&self, cluster: &str, member: model::Member) -> Result<(), Refusal> {
        let _change = self.changes.lock();
        let running = self.find_staying(cluster)?;
        let definition = definition(&running);
        if definition.members.iter().any(|known| known.name == member.name) {
            return Err(Refusal::MemberExists(member.name.to_string()));
        }
        check_member_fits(&definition, &member).map_err(Refusal::Other)?;
        let link = open_link(&member).map_err(other)?;
        if let Some(id) = running.cluster.places(1).map_err(other)?.pop() {
            running.cluster.add_member(id, &member, link);
        }
        self.keep_changes();
        // Whoever asks next finds it as it is.
        await_first_probes(core::iter::once(&*running), FIRST_PROBES);
        Ok(())
    }

    fn delete_member(&self, cluster: &str, name: &str, at_once: bool) -> Result<(), Refusal> {
        let _change = self.changes.lock();
        let running = self.find(cluster)?;
        let (id, definition) = member(&running.cluster, name)?;
        let (address, status) = (definition.address, definition.status);
        if let Some(pool) = definition.found_by.filter(|_| status != Status::Draining) {
            return Err(Refusal::Other(format!(
                "{name}: it was found by the name of {pool} and would be found again: suspend it, or take {address} \
                 out of that name"
            )));
        }
        if at_once {
            running.cluster.remove_member(id);
            log::info!("member {name} of {cluster} ({address}): removed");
        } else if !running.cluster.delete_members(vec![id]).is_empty() {
            log::info!("member {name} of {cluster} ({address}): it has no sessions, or is offline: removed");
        } else {
            log::info!("member {name} of {cluster} ({address}): draining");
        }
        running.cluster.warn_if_nobody_takes();
        self.keep_changes();
        Ok(())
    }

    fn suspend(&self, cluster: &str, name: &str) -> Result<(), Refusal> {
        self.set_status(cluster, name, Status::Suspended)
    }

    fn resume(&self, cluster: &str, name: &str) -> Result<(), Refusal> {
        self.set_status(cluster, name, Status::Active)
    }

    fn set(&self, cluster: &str, name: &str, settings: &[Setting]) -> Result<(), Refusal> {
        let _change = self.changes.lock();
        let running = self.find(cluster)?;
        let (id, before) = member(&running.cluster, name)?;
        let mut after = before.clone();
        let mut address = None;
        for setting in settings {
            match setting {
                Setting::Weight(weight) => after.weight = *weight,
                Setting::Capacity(capacity) => after.capacity = *capacity,
                Setting::WanAddress(wan) => after.wan_address = *wan,
                Setting::LanAddress(lan) => after.lan_address = *lan,
                Setting::CmdOutAddress(source) => after.cmd_out_address = *source,
                Setting::Protocol(protocol) => after.protocol = *protocol,
                Setting::Address(text) => address = Some(text.clone()),
            }
        }
        let address = address.unwrap_or_else(|| before.address.to_string());
        after.address = address::address(after.protocol, &address).map_err(Refusal::Other)?;
        let mut others = definition(&running);
        others.members.retain(|other| other.name != before.name);
        check_member_fits(&others, &after).map_err(Refusal::Other)?;
        let link = needs_link(&before, &after)
            .then(|| open_link(&after))
            .transpose()
            .map_err(other)?;
        match running.cluster.change_member(id, &after, link, true) {
            Changed::Done => {
                self.keep_changes();
                Ok(())
            }
            Changed::Gone => Err(Refusal::NoMember(name.to_owned())),
            Changed::Bound(bound) => Err(Refusal::Other(format!(
                "{name}: {bound} call(s) are bound to {}: address and protocol change only while there are none; \
                 suspend it and wait, or add a new member",
                before.address
            ))),
        }
    }

    fn add_cluster(&self, cluster: model::Cluster) -> Result<(), Refusal> {
        let _change = self.changes.lock();
        // Those that are being deleted have their names and sockets still.
        let others: Vec<_> = self
            .clusters
            .read()
            .iter()
            .map(|running| definition(running))
            .collect();
        if others.iter().any(|other| other.name == cluster.name) {
            return Err(Refusal::ClusterExists(cluster.name.to_string()));
        }
        check_cluster_fits(&others, &cluster).map_err(Refusal::Other)?;
        let refused = |error: StartError| Refusal::Other(error.messages.join("; "));
        let door = open_door(&cluster, &self.options, &self.sockets, &self.names).map_err(refused)?;
        let relay = self.open_relay(&cluster).map_err(refused)?;
        let running = self.make_cluster(&cluster, door, relay).map_err(other)?;
        await_first_probes(core::iter::once(&running), FIRST_PROBES);
        self.enter(running).open();
        self.keep_changes();
        log::info!("cluster {}: added, on {}", cluster.name, cluster.address);
        Ok(())
    }

    fn delete_cluster(&self, name: &str, at_once: bool) -> Result<(), Refusal> {
        let _change = self.changes.lock();
        let running = self.find(name)?;
        if at_once {
            self.close_cluster(&running, Duration::ZERO);
        } else {
            self.drain_cluster(&running);
        }
        self.keep_changes();
        Ok(())
    }

    fn sessions(
        &self,
        cluster: &str,
        name: Option<&str>,
        from: usize,
        limit: usize,
    ) -> Result<SessionsView, Refusal> {
        let running = self.find(cluster)?;
        let id = match name {
            Some(name) => Some(member(&running.cluster, name)?.0),
            None => None,
        };
        let cluster = &running.cluster;
        let bound = cluster.look(|_, core| id.map_or_else(|| core.bound(), |id| core.bound_to(id)));
        let mut listed = Vec::new();
        let mut next = None;
        for shard in from..SHARDS {
            if listed.len() >= LISTED_A_PART {
                next = Some(shard);
                break;
            }
            if !cluster.look(|now, core| core.list_sessions(now, shard, id, limit, &mut listed)) {
                break;
            }
        }
        Ok(SessionsView { bound, listed, next })
    }

    fn locate(&self, cluster: &str, call_id: &[u8]) -> Result<Option<(Name, Duration)>, Refusal> {
        Ok(self
            .find(cluster)?
            .cluster
            .look(|now, core| core.locate(now, call_id)))
    }

    fn watch(&self, wake: Wake) -> Result<Subscription<Event>, Refusal> {
        let followed = self.events.listen(|_| true, wake);
        followed.ok_or_else(too_many)
    }

    fn trace(
        &self,
        cluster: &str,
        call_id: Option<Vec<u8>>,
        wake: Wake,
    ) -> Result<Subscription<Traced>, Refusal> {
        let wants = move |step: &Traced| call_id.as_ref().is_none_or(|id| *id == step.call_id);
        let followed = self.find(cluster)?.cluster.steps.listen(wants, wake);
        followed.ok_or_else(too_many)
    }

    fn traced_last(&self, cluster: &str) -> Result<Vec<Traced>, Refusal> {
        let running = self.find(cluster)?;
        let recent = running.cluster.recent.lock();
        Ok(recent.steps().cloned().collect())
    }

    fn reload(&self) -> Result<Loaded, Refusal> {
        Self::reload(self)
    }

    fn running(&self) -> Config {
        let clusters: Vec<Arc<Running>> = self.clusters.read().clone();
        let clusters = clusters
            .iter()
            .filter(|running| !running.is_draining())
            .map(|running| {
                let mut cluster = definition(running);
                cluster
                    .members
                    .retain(|member| member.status != Status::Draining && member.found_by.is_none());
                cluster
            });
        Config {
            clusters: clusters.collect(),
        }
    }

    fn file(&self) -> (PathBuf, Vec<u8>) {
        self.file.lock().clone()
    }

    fn take_over(&self, successor: OwnedFd) {
        self.begin_takeover(successor.into());
    }

    fn own_files(&self) -> Vec<PathBuf> {
        self.options.own_files().map(Path::to_owned).collect()
    }

    fn saved(&self, contents: Vec<u8>) {
        let _change = self.changes.lock();
        self.file.lock().1 = contents;
        self.keep_changes();
    }
}

impl Shared {
    /// Closes a cluster, what is in flight being answered `within` that time, and forgets it.
    pub(super) fn close_cluster(&self, running: &Arc<Running>, within: Duration) {
        running.end(within);
        running.join();
        if let Some(store) = &*self.state.lock() {
            store.recorders().retire(running.cluster.name.as_str());
        }
        log::info!("cluster {}: closed", running.cluster.name);
        self.tell_cluster(running, "gone", "");
        // Last, so that who no longer sees it listed finds its socket gone.
        self.clusters.write().retain(|other| !Arc::ptr_eq(other, running));
    }

    /// No new sessions for a cluster; it closes when its members have none left.
    pub(super) fn drain_cluster(&self, running: &Arc<Running>) {
        running.draining.store(true, Ordering::Release);
        self.tell_cluster(running, Status::Draining.as_str(), "");
        let members: Vec<MemberId> = running
            .cluster
            .look(|_, core| core.members_in_order().iter().map(|member| member.id).collect());
        running.cluster.delete_members(members);
        if !self.close_if_drained(running) {
            log::info!("cluster {}: draining", running.cluster.name);
        }
    }

    /// A cluster that is being deleted goes with its last member. Says whether it has gone.
    fn close_if_drained(&self, running: &Arc<Running>) -> bool {
        let over =
            running.is_draining() && running.cluster.look(|_, core| core.members_in_order().is_empty());
        if over {
            self.close_cluster(running, STOP_WITHIN);
        }
        over
    }

    /// Closes every cluster that is being deleted and has no members left.
    pub(super) fn close_drained(&self) {
        let _change = self.changes.lock();
        let clusters: Vec<Arc<Running>> = self.clusters.read().clone();
        let closed = clusters.iter().filter(|running| self.close_if_drained(running));
        if closed.count() > 0 {
            self.keep_changes();
        }
    }
}
