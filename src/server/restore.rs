//! The state directory of the daemon (`-S`): what a predecessor knew is put into the clusters before they take commands,
//! and from then on each of them has a journal. A directory that cannot be had costs the state and no call.

use core::time::Duration;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::running::Running;
use crate::state::encode::Moment;
use crate::state::past::Past;
use crate::state::{Recorders, State, Store};

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
        let cluster = Arc::downgrade(&running.cluster);
        let wake = move || {
            if let Some(cluster) = cluster.upgrade() {
                cluster.wake();
            }
        };
        core.keep_journal(now, Box::new(recorders.recorder(name, epoch, wake)));
    });
}

fn wall() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn read(state: &State, name: &str, clusters: &[Arc<Running>]) -> std::io::Result<()> {
    let mut past = Past::new(Moment::from_unix(wall()));
    for (place, running) in clusters.iter().enumerate() {
        running.cluster.look(|_, core| past.add(place, core));
    }
    let tally = state.read(|record| {
        let whose = past.whose(record).and_then(|(place, _)| clusters.get(place));
        if let Some(running) = whose {
            running.cluster.look(|now, core| past.restore(now, record, core));
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
