//! What operators have changed and not saved, over a restart (`-S`): it comes back where the configuration file is the one
//! that it was made on. Where somebody has edited that, the file wins, as at a reload.

use std::path::Path;
use std::sync::Arc;

use super::Shared;
use super::operate::definition;
use super::running::Running;
use crate::admin::operator::Operator as _;
use crate::config;
use crate::config::model::{self, Config, Name, Status};
use crate::state::changes::Changes;
use crate::state::read_changes;

/// What a daemon that starts is to run: what `file` says, or what ran before; and the clusters that are being deleted.
pub(super) fn bring_back(dir: &Path, path: &Path, contents: &[u8], file: Config) -> (Config, Vec<Name>) {
    let known = match read_changes(dir) {
        Ok(Some(known)) => known,
        Ok(None) => return (file, Vec::new()),
        Err(error) => {
            log::warn!(
                "state directory {}: changes: {error}; what operators had changed and not saved is lost",
                dir.display()
            );
            return (file, Vec::new());
        }
    };
    if known.file != contents {
        let before = config::parse(path, &known.file).map_or_else(|_| file.clone(), |parsed| parsed.config);
        log_undone("start", &known.running, &before, &file);
        return (file, Vec::new());
    }
    for line in config::diff(&known.running, &file) {
        log::info!("unsaved change kept: {line}");
    }
    for cluster in &known.leaving.clusters {
        for member in &cluster.members {
            log::info!(
                "unsaved change kept: cluster {}, member {}: draining",
                cluster.name,
                member.name
            );
        }
    }
    known.all()
}

/// What `file` changes of what is `running`; what it undoes of changes that were made at run time, since it was as
/// `before`, and never saved is told apart: the log is now the only place that has it.
pub(super) fn log_undone(when: &str, running: &Config, before: &Config, file: &Config) {
    let undone = config::undone(running, before, file);
    for line in config::diff(running, file) {
        if undone.contains(&line) {
            log::warn!("{when}: unsaved change undone by the file: {line}");
        } else {
            log::info!("{when}: {line}");
        }
    }
}

impl Shared {
    /// Has what runs kept where the file does not say it. To be called after each change, with the lock of changes.
    pub(super) fn keep_changes(&self) {
        let recorders = self.state.lock().as_ref().map(|store| store.recorders().clone());
        if let Some(recorders) = recorders {
            let (path, contents) = self.file();
            let changes = Changes::of(&path, &contents, self.running(), self.leaving());
            recorders.keep(changes.as_ref());
        }
    }

    /// What is being drained.
    fn leaving(&self) -> Config {
        let clusters: Vec<Arc<Running>> = self.clusters.read().clone();
        let leaving = clusters.iter().filter_map(|running| {
            let mut cluster: model::Cluster = definition(running);
            if !running.is_draining() {
                cluster.members.retain(|member| member.status == Status::Draining);
            }
            (!cluster.members.is_empty()).then_some(cluster)
        });
        Config {
            clusters: leaving.collect(),
        }
    }
}
