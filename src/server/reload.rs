//! A changed configuration file, applied as a difference: what is the same keeps its sessions, sockets and
//! counters. Everything that can fail is tried before anything is changed.

use std::sync::Arc;

use super::Shared;
use super::operate::definition;
use super::running::{Door, Running};
use crate::admin::view::{Loaded, Operator, Refusal};
use crate::config::model::Status;
use crate::config::{self, Parsed, model};
use crate::daemon::StartError;
use crate::notify;

/// What a reload binds for one cluster before it changes anything.
struct Bound {
    /// Its control socket, if that is another one than before.
    door: Option<Door>,
    /// Whether it gets another relay than before, or none any more.
    moves_relay: bool,
    /// That one.
    relay: Option<notify::Door>,
}

impl Shared {
    /// Reads the file again and makes the running state what it says.
    ///
    /// # Errors
    /// All faults of the file, or the socket that cannot be bound; nothing has changed then.
    pub(super) fn reload(&self) -> Result<Loaded, Refusal> {
        let _change = self.changes.lock();
        let (path, old_contents) = self.file.lock().clone();
        let (Parsed { config, warnings }, contents) =
            config::load(&path).map_err(|faults| Refusal::Other(faults.to_string().trim_end().to_owned()))?;
        for warning in warnings {
            log::warn!("{warning}");
        }
        self.log_undone(&path, &old_contents);
        let bound = self.open_doors(&config)?;
        let loaded = Loaded {
            clusters: config.clusters.len(),
            members: config.clusters.iter().map(|cluster| cluster.members.len()).sum(),
        };
        let running: Vec<Arc<Running>> = self.clusters.read().clone();
        for cluster in running
            .iter()
            .filter(|cluster| !config.clusters.iter().any(|c| c.name == cluster.cluster.name))
        {
            log::info!("cluster {}: no longer in the file", cluster.cluster.name);
            self.close_cluster(cluster);
        }
        for (wanted, bound) in config.clusters.iter().zip(bound) {
            let known = running.iter().find(|running| running.cluster.name == wanted.name);
            let done = match (known, bound) {
                (Some(running), bound) => apply(running, wanted, bound),
                (
                    None,
                    Bound {
                        door: Some(door),
                        relay,
                        ..
                    },
                ) => self.start_cluster(wanted, door, relay),
                (None, _) => Ok(()),
            };
            done.map_err(|error| Refusal::Other(format!("cluster {}: {error}", wanted.name)))?;
        }
        self.put_in_order(&config);
        self.file.lock().1 = contents;
        Ok(loaded)
    }

    /// Changes made at run time and never saved are lost now: the log keeps them.
    fn log_undone(&self, path: &std::path::Path, old_contents: &[u8]) {
        if let Ok(Parsed { config: old, .. }) = config::parse(path, old_contents) {
            for line in config::diff(&self.running(), &old) {
                log::info!("unsaved change undone by the file: {line}");
            }
        }
    }

    /// Binds every control socket and every relay that is new: the only thing that can fail.
    fn open_doors(&self, config: &model::Config) -> Result<Vec<Bound>, Refusal> {
        let refused = |error: StartError| Refusal::Other(error.messages.join("; "));
        let mut bound = Vec::new();
        for wanted in &config.clusters {
            let known = self.find(wanted.name.as_str()).ok();
            let same = known.as_ref().is_some_and(|running| {
                let now = definition(running);
                (now.protocol, &now.address, &now.socket)
                    == (wanted.protocol, &wanted.address, &wanted.socket)
            });
            let door = if same {
                None
            } else {
                Some(Door::open(wanted, &self.options, &self.sockets).map_err(refused)?)
            };
            let address = wanted
                .disconnect_notify
                .as_ref()
                .map(|notify| notify.inbound_address);
            let now = known.as_ref().map(|running| running.cluster.relay_address());
            let moves_relay = now.flatten() != address;
            let relay = if moves_relay {
                self.open_relay(wanted).map_err(refused)?
            } else {
                None
            };
            bound.push(Bound {
                door,
                moves_relay,
                relay,
            });
        }
        Ok(bound)
    }

    /// Binds the relay of a cluster. A socket that a running cluster has is taken over from it, so that an address
    /// can go from one to another.
    pub(super) fn open_relay(&self, wanted: &model::Cluster) -> Result<Option<notify::Door>, StartError> {
        notify::Door::open(wanted, &self.sockets, |address| {
            let running = self.clusters.read();
            running
                .iter()
                .find_map(|running| running.cluster.relay_port(address))
        })
    }

    /// Lists clusters in the order of the file.
    fn put_in_order(&self, config: &model::Config) {
        let place = |running: &Arc<Running>| {
            config
                .clusters
                .iter()
                .position(|cluster| cluster.name == running.cluster.name)
        };
        self.clusters
            .write()
            .sort_by_key(|running| place(running).unwrap_or(usize::MAX));
    }
}

/// Makes one running cluster what the file says.
fn apply(running: &Running, wanted: &model::Cluster, bound: Bound) -> std::io::Result<()> {
    let cluster = &running.cluster;
    running
        .draining
        .store(false, core::sync::atomic::Ordering::Release);
    if let Some(door) = bound.door {
        running.serve_at(door)?;
    }
    cluster.set_rules(wanted);
    if bound.moves_relay {
        cluster.set_relay(bound.relay)?;
    }
    let before = cluster.look(|_, core| {
        core.members_in_order()
            .into_iter()
            .map(|m| (m.id, m.config.clone(), m.online))
            .collect::<Vec<_>>()
    });
    for (id, member, online) in &before {
        match wanted.members.iter().find(|wanted| wanted.name == member.name) {
            Some(after) if after == member => {}
            Some(after) => cluster.change_member(*id, member, after)?,
            None if *online && member.status == Status::Draining => {}
            None if *online => cluster.drain_member(*id),
            None => cluster.remove_member(*id),
        }
    }
    for member in &wanted.members {
        if !before.iter().any(|(_, known, _)| known.name == member.name) {
            cluster.add_member(member.clone())?;
        }
    }
    Ok(())
}
