//! The state directory of the daemon (`-S`): what a predecessor knew is put into the clusters before they take commands,
//! and from then on each of them has a journal. A directory that cannot be had costs the state and no call.

use core::time::Duration;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::running::Running;
use crate::dispatch::journal::Known;
use crate::state::encode::{Moment, Print, Record};
use crate::state::{Recorders, State, Store, print};

/// Reads a state directory into the clusters, and starts to write it. `None` when there is none to be had.
pub(super) fn open(path: &Path, clusters: &[Arc<Running>]) -> Option<Store> {
    let name = path.display();
    let not_kept = |error| {
        log::warn!("state directory {name}: {error}; calls are served, but a restart will not know them");
    };
    let state = State::open(path).map_err(not_kept).ok()?;
    read(&state, &name.to_string(), clusters).map_err(not_kept).ok()?;
    for running in clusters {
        keep(state.recorders(), running);
    }
    state.start().map_err(not_kept).ok()
}

/// Has a cluster written down from now on.
pub(super) fn keep(recorders: &Recorders, running: &Running) {
    let name = running.cluster.name.as_str();
    running.cluster.look(|now, core| {
        let epoch = Moment::from_unix(wall().saturating_sub(core.age(now)));
        core.keep_journal(now, Box::new(recorders.recorder(name, epoch)));
    });
}

fn wall() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn read(state: &State, name: &str, clusters: &[Arc<Running>]) -> std::io::Result<()> {
    let mut members = HashMap::new();
    let mut by_name = HashMap::new();
    for running in clusters {
        let cluster = &running.cluster;
        by_name.insert(Print::cluster(cluster.name.as_str()), cluster);
        cluster.look(|_, core| {
            core.begin_earlier();
            for member in core.members_in_order() {
                members.insert(print(cluster.name.as_str(), &member.config), (cluster, member.id));
            }
        });
    }
    let here = Moment::from_unix(wall());
    let tally = state.read(|record| match *record {
        Record::Bound(bound) => {
            if let Some((cluster, member)) = members.get(&bound.member) {
                let known = Known {
                    call_id: bound.call_id,
                    member: *member,
                    born: here.since(bound.born),
                    used: here.since(bound.used),
                    ended: bound.ended,
                };
                cluster.look(|now, core| core.restore(now, known));
            }
        }
        Record::Forgotten { cluster, call_id } => {
            if let Some(cluster) = by_name.get(&cluster) {
                cluster.look(|_, core| core.restore_forgotten(call_id));
            }
        }
        Record::Cut { member, before } => {
            if let Some((cluster, member)) = members.get(&member) {
                cluster.look(|now, core| core.restore_cut(now, *member, here.since(before)));
            }
        }
        Record::Cleared { cluster } => {
            if let Some(cluster) = by_name.get(&cluster) {
                cluster.look(|_, core| core.restore_cleared());
            }
        }
        Record::Wish { .. } | Record::WishTaken { .. } | Record::Deferred { .. } | Record::Settled { .. } => {
        }
    })?;
    let calls: u64 = clusters
        .iter()
        .map(|running| running.cluster.look(|_, core| core.bound()))
        .sum();
    log::info!("state directory {name}: {calls} calls are known");
    if tally.damaged > 0 || tally.unknown > 0 {
        log::warn!(
            "state directory {name}: {} damaged piece(s) and {} record(s) of another version were left out; calls \
             that are not known are asked for",
            tally.damaged,
            tally.unknown
        );
    }
    Ok(())
}
