//! A command to its reply, by way of the server. Nothing here waits: a `wait` is handed back with the question that
//! it asks, and the thread asks it again until it is answered or late. What touches files is in [`super::save`].

use super::commands::{Access, Entry};
use super::grammar::{Command, ListForm, StatsForm, Until, Wait};
use super::reply::Reply;
use super::view::{ClusterView, Operator, Refusal};
use super::{render, render_json, render_prometheus, save};

/// What became of a command.
#[derive(Debug)]
pub enum Outcome {
    /// It is answered.
    Reply(Reply),
    /// It is answered when it is so, see [`check_wait`].
    Wait(Wait),
    /// It is answered with this, and the connection closes.
    Quit(Reply),
}

/// Whether a command is taken on the read-only socket.
///
/// # Errors
/// The reply that refuses it.
pub fn allowed_read_only(operator: &dyn Operator, entry: &Entry, command: &Command) -> Result<(), Reply> {
    match command {
        // The message shows what a fault is made of: that must not be a way to look into any file of the machine.
        Command::Check(path) if *path != operator.file().0 => {
            let own = operator.file().0;
            Err(Reply::error(format!(
                "check: want {} on the read-only socket",
                own.display()
            )))
        }
        _ if entry.access == Access::Changes => Err(Reply::error(format!(
            "{}: not on the read-only socket",
            entry.title()
        ))),
        _ => Ok(()),
    }
}

/// Carries a command out.
pub fn apply(operator: &dyn Operator, command: Command) -> Outcome {
    let reply = match command {
        Command::Wait(wait) => return Outcome::Wait(wait),
        Command::Quit => return Outcome::Quit(Reply::ok()),
        Command::Ls { cluster, form } => ls(operator, cluster.as_deref(), form).unwrap_or_else(Reply::error),
        Command::Add { cluster, member } => done(operator.add_member(&cluster, member)),
        Command::Delete { cluster, name, now } => done(operator.delete_member(&cluster, &name, now)),
        Command::Suspend { cluster, name } => done(operator.suspend(&cluster, &name)),
        Command::Resume { cluster, name } => done(operator.resume(&cluster, &name)),
        Command::Set {
            cluster,
            name,
            settings,
        } => done(operator.set(&cluster, &name, &settings)),
        Command::ClusterAdd(cluster) => done(operator.add_cluster(*cluster)),
        Command::ClusterDelete { name, now } => done(operator.delete_cluster(&name, now)),
        Command::Sessions {
            cluster,
            member,
            limit,
        } => {
            let view = operator.sessions(&cluster, member.as_deref(), limit);
            view.map_or_else(Reply::error, |view| Reply::text(render::sessions(&view)))
        }
        Command::Locate { cluster, call_id } => {
            locate(operator, &cluster, &call_id).unwrap_or_else(Reply::error)
        }
        Command::Reload => operator.reload().map_or_else(Reply::error, |loaded| {
            Reply::text(format!(
                "Loaded {} clusters and {} RTP proxies\n",
                loaded.clusters, loaded.members
            ))
        }),
        Command::Check(path) => save::check(&path),
        Command::Diff => save::diff(operator),
        Command::Save { file, force } => save::save(operator, file, force).unwrap_or_else(|refused| refused),
        Command::Stats(form) => {
            let (clusters, uptime) = (operator.clusters(), operator.uptime());
            Reply::text(match form {
                StatsForm::Plain => render::stats(&clusters, uptime),
                StatsForm::Json => render_json::stats(&clusters, uptime),
                StatsForm::Prometheus => render_prometheus::stats(&clusters, uptime),
            })
        }
        Command::Version => Reply::text(render::version()),
        Command::Help(rows) => Reply::text(render::help(&rows)),
    };
    Outcome::Reply(reply)
}

fn done(result: Result<(), Refusal>) -> Reply {
    result.map_or_else(Reply::error, |()| Reply::ok())
}

fn ls(operator: &dyn Operator, name: Option<&str>, form: ListForm) -> Result<Reply, Refusal> {
    let clusters = operator.clusters();
    let Some(name) = name else {
        return Ok(Reply::text(match form {
            ListForm::Json => render_json::clusters(clusters.iter().enumerate(), operator.uptime()),
            _ => render::clusters(&clusters, form == ListForm::Verbose),
        }));
    };
    // The number of a cluster is its place among all.
    let found = clusters
        .iter()
        .enumerate()
        .find(|(_, view)| view.cluster.name.as_str() == name);
    let (n, view) = found.ok_or_else(|| Refusal::NoCluster(name.to_owned()))?;
    Ok(Reply::text(match form {
        ListForm::Json => render_json::clusters([(n, view)].into_iter(), operator.uptime()),
        _ => render::members(n, view, form == ListForm::Verbose),
    }))
}

fn locate(operator: &dyn Operator, cluster: &str, call_id: &str) -> Result<Reply, Refusal> {
    // A call-id may hold `\x41` in its own right; only when there is none such is it taken as the escape that
    // `sessions` prints.
    let mut found = operator.locate(cluster, call_id.as_bytes())?;
    if found.is_none() && call_id.contains("\\x") {
        found = operator.locate(cluster, &render::call_id_bytes(call_id))?;
    }
    Ok(match found {
        Some((member, age)) => Reply::text(render::located(member, age)),
        None => Reply::error(format!("{call_id}: call-id not bound")),
    })
}

/// The reply to a `wait` when its cluster is as `view` says; `None` when it goes on. A member that has gone will
/// not come online: waiting for that is an error at once. `asked_before`: the cluster existed when the wait began.
pub fn check_wait(wait: &Wait, view: &Result<ClusterView, Refusal>, asked_before: bool) -> Option<Reply> {
    let gone = wait.until == Until::Gone;
    let view = match view {
        Ok(view) => view,
        Err(Refusal::NoCluster(_)) if gone && asked_before => return Some(Reply::ok()),
        Err(refusal) => return Some(Reply::error(refusal)),
    };
    let Some(member) = view
        .members
        .iter()
        .find(|member| member.member.name.as_str() == wait.name)
    else {
        return Some(if gone {
            Reply::ok()
        } else {
            Reply::error(Refusal::NoMember(wait.name.clone()))
        });
    };
    (!gone && member.online == (wait.until == Until::Online)).then(Reply::ok)
}

/// The reply to a `wait` that has lasted too long.
pub fn late_wait(wait: &Wait) -> Reply {
    let Wait {
        name, until, limit, ..
    } = wait;
    Reply::error(format!(
        "{name}: not {} after {} s",
        until.as_str(),
        limit.as_secs_f64()
    ))
}
