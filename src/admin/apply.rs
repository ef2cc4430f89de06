//! A command to its reply, by way of the server. Nothing here waits: a `wait` is handed back with the question that
//! it asks, and the thread asks it again until it is answered or late. What touches files is in [`super::save`].

use super::command::{Command, ListForm, StatsForm, Trace, Until, Wait};
use super::commands::{Access, Entry};
use super::listing::Listing;
use super::render_news::News;
use super::reply::Reply;
use super::select::Selection;
use super::{render, render_json, render_prometheus, save};
use crate::admin::operator::{Operator, Refusal};

/// What became of a command.
#[derive(Debug)]
pub enum Outcome {
    /// It is answered.
    Reply(Reply),
    /// It is answered when it is so, see [`check_wait`].
    Wait(Wait),
    /// It is answered part by part.
    List(Listing),
    /// It is answered with what happens, as it happens.
    Watch {
        /// A document a line.
        json: bool,
    },
    /// Likewise, with what happens to calls.
    Trace(Trace),
    /// The connection closes, without a word.
    Quit,
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
        Command::Quit => return Outcome::Quit,
        Command::Ls {
            cluster,
            form,
            selection,
        } => ls(operator, cluster.as_deref(), form, selection).unwrap_or_else(Reply::error),
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
            json,
        } => {
            return Outcome::List(Listing {
                cluster,
                member,
                json,
                limit,
                listed: 0,
                next: None,
            });
        }
        Command::Locate {
            cluster,
            call_id,
            json,
        } => locate(operator, &cluster, &call_id, json).unwrap_or_else(Reply::error),
        Command::Reload => operator.reload().map_or_else(Reply::error, |loaded| {
            Reply::text(format!(
                "Loaded {} clusters and {} RTP proxies\n",
                loaded.clusters, loaded.members
            ))
        }),
        Command::Check(path) => save::check(&path),
        Command::Diff { json } => save::diff(operator, json),
        Command::Save { file, force } => save::save(operator, file, force).unwrap_or_else(|refused| refused),
        Command::Stats { cluster, form } => {
            stats(operator, cluster.as_deref(), form).unwrap_or_else(Reply::error)
        }
        Command::Watch { json } => return Outcome::Watch { json },
        Command::Trace(trace) => return Outcome::Trace(trace),
        Command::TraceLast { cluster, json, lines } => {
            let steps = operator.traced_last(&cluster);
            steps.map_or_else(Reply::error, |steps| {
                let skipped = steps
                    .len()
                    .saturating_sub(usize::try_from(lines).unwrap_or(usize::MAX));
                let steps = steps.iter().skip(skipped);
                let text = steps.map(|step| if json { step.json() } else { step.text() });
                Reply::text(text.collect::<String>())
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

fn ls(
    operator: &dyn Operator,
    name: Option<&str>,
    form: ListForm,
    selection: Selection,
) -> Result<Reply, Refusal> {
    Ok(Reply::text(match (name, form) {
        (None, ListForm::Json) => render_json::clusters(
            operator.clusters().iter().enumerate(),
            selection,
            operator.uptime(),
        ),
        (None, _) => render::clusters(&operator.summaries(), form == ListForm::Verbose),
        (Some(name), _) => {
            let (n, mut view) = operator.cluster(name)?;
            selection.sort(&mut view.members);
            if form == ListForm::Json {
                render_json::clusters([(n, &view)].into_iter(), selection, operator.uptime())
            } else {
                view.members.retain(|member| selection.shows(member));
                render::members(n, &view, form == ListForm::Verbose)
            }
        }
    }))
}

fn stats(operator: &dyn Operator, name: Option<&str>, form: StatsForm) -> Result<Reply, Refusal> {
    let (clusters, uptime) = (
        match name {
            Some(name) => vec![operator.cluster(name)?],
            None => operator.clusters().into_iter().enumerate().collect(),
        },
        operator.uptime(),
    );
    Ok(Reply::text(match form {
        StatsForm::Plain => render::stats(&clusters, uptime),
        StatsForm::Json => render_json::stats(&clusters, uptime),
        StatsForm::Prometheus => render_prometheus::stats(&clusters, uptime),
    }))
}

fn locate(operator: &dyn Operator, cluster: &str, call_id: &str, json: bool) -> Result<Reply, Refusal> {
    // A call-id may hold `\x41` in its own right; only when there is none such is it taken as the escape that
    // `sessions` prints.
    let mut found = operator.locate(cluster, call_id.as_bytes())?;
    if found.is_none() && call_id.contains("\\x") {
        found = operator.locate(cluster, &render::call_id_bytes(call_id))?;
    }
    Ok(match found {
        Some((member, age)) if json => Reply::text(render_json::located(&member, age)),
        Some((member, age)) => Reply::text(render::located(member, age)),
        None => Reply::error(format!("{call_id}: call-id not bound")),
    })
}

/// The reply to a `wait` when its member is as `online` says; `None` when it goes on. A member that has gone will
/// not come online: waiting for that is an error at once. `asked_before`: the cluster existed when the wait began.
pub fn check_wait(wait: &Wait, online: &Result<bool, Refusal>, asked_before: bool) -> Option<Reply> {
    match (wait.until, online) {
        (Until::Gone, Err(Refusal::NoMember(_))) => Some(Reply::ok()),
        (Until::Gone, Err(Refusal::NoCluster(_))) if asked_before => Some(Reply::ok()),
        (_, Err(refusal)) => Some(Reply::error(refusal)),
        (Until::Online, Ok(online)) => online.then(Reply::ok),
        (Until::Offline, Ok(online)) => (!online).then(Reply::ok),
        (Until::Gone, Ok(_)) => None,
    }
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

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::fake::Fake;
    use super::super::grammar;
    use super::*;
    use crate::admin::operator::Loaded;

    /// All that a client is sent for `line`.
    fn ask(fake: &Fake, line: &str) -> String {
        let mut out = Vec::new();
        let reply = match grammar::parse(line) {
            Ok(Some((_, command))) => match apply(fake, command) {
                Outcome::Reply(reply) => reply,
                Outcome::List(mut listing) => {
                    while !listing.write_part(fake, &mut out) {}
                    return String::from_utf8(out).unwrap();
                }
                other => panic!("{line}: {other:?}"),
            },
            Ok(None) => panic!("{line}: blank"),
            Err(reply) => reply,
        };
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_examples_of_the_manual_work() {
        let fake = Fake::of_the_manual();
        assert!(ask(&fake, "ls").ends_with("    inactive members = 2\nOK\n"));
        assert!(ask(&fake, "ls Supercluster#1").ends_with("\nInactive members of the cluster #0:\n\nOK\n"));
        assert!(ask(&fake, "ls Supercluster#2").ends_with("        status = ACTIVE\nOK\n"));
        let add = "modify Supercluster#2 add name=another_proxy,protocol=udp,address=1.2.3.4:567,capacity=120,weight=300";
        assert_eq!(ask(&fake, add), "OK\n");
        assert!(
            ask(&fake, "ls Supercluster#2")
                .contains("        name = another_proxy\n        address = 1.2.3.4:567\n")
        );
        assert_eq!(ask(&fake, add), "ERROR: another_proxy: RTPproxy already exists\n");
        assert_eq!(ask(&fake, "modify Supercluster#1 delete RTPPROXY2"), "OK\n");
        assert!(ask(&fake, "ls Supercluster#1").contains("status = DRAINING"));
        assert_eq!(ask(&fake, "modify Supercluster#1 suspend RTPPROXY1"), "OK\n");
        assert!(ask(&fake, "ls Supercluster#1").contains("status = SUSPENDED"));
        assert_eq!(ask(&fake, "modify Supercluster#1 resume RTPPROXY1"), "OK\n");
        assert_eq!(ask(&fake, "modify Supercluster#1 set RTPPROXY1 weight=7"), "OK\n");
        assert_eq!(
            *fake.changes.lock(),
            [
                "add another_proxy",
                "delete RTPPROXY2 false",
                "suspend RTPPROXY1",
                "resume RTPPROXY1",
                "set RTPPROXY1 [Weight(7)]"
            ]
        );
    }

    #[test]
    fn members_are_filtered_and_sorted_in_the_shape_of_the_manual() {
        let fake = Fake::of_the_manual();
        let all = ask(&fake, "ls Supercluster#1");
        assert_eq!(ask(&fake, "ls Supercluster#1 STATE=Online sort=sessions"), all);
        let none = "Active members of the cluster #0:\n\nInactive members of the cluster #0:\n\nOK\n";
        assert_eq!(ask(&fake, "ls Supercluster#1 state=offline"), none);
        fake.clusters.lock()[0].members[1].active_sessions = Some(1);
        let sorted = ask(&fake, "ls sort=load Supercluster#1");
        let names: Vec<_> = sorted.lines().filter(|line| line.contains("name")).collect();
        assert_eq!(names, ["        name = RTPPROXY2", "        name = RTPPROXY1"]);
        assert!(sorted.starts_with("Active members of the cluster #0:\n    RTPproxy: #0\n"));
        // How many there are is no matter of what is shown.
        let json = ask(&fake, "ls --json Supercluster#1 state=offline");
        assert!(
            json.contains("\"active_members\":2") && json.contains("\"members\":[]"),
            "{json}"
        );
    }

    #[test]
    fn refusals_say_whose_name_is_not_known() {
        let fake = Fake::of_the_manual();
        assert_eq!(ask(&fake, "ls Nobody"), "ERROR: Nobody: cluster not found\n");
        assert_eq!(
            ask(&fake, "ls --json Nobody"),
            "ERROR: Nobody: cluster not found\n"
        );
        assert_eq!(
            ask(&fake, "modify Nobody suspend X"),
            "ERROR: Nobody: cluster not found\n"
        );
        assert_eq!(
            ask(&fake, "modify Supercluster#1 suspend X"),
            "ERROR: X: RTPproxy not found\n"
        );
        // Names keep their case.
        assert_eq!(
            ask(&fake, "ls supercluster#1"),
            "ERROR: supercluster#1: cluster not found\n"
        );
        assert!(fake.changes.lock().is_empty());
    }

    #[test]
    fn a_reload_counts_what_it_loaded_or_lists_the_faults() {
        let fake = Fake::of_the_manual();
        assert_eq!(ask(&fake, "reload"), "Loaded 2 clusters and 4 RTP proxies\nOK\n");
        *fake.reload.lock() = Err(Refusal::Other("f.xml:1:2: bad\nf.xml:3:4: worse".into()));
        assert_eq!(
            ask(&fake, "reload"),
            "f.xml:3:4: worse\nERROR: f.xml:1:2: bad (and 1 more, above)\n"
        );
        *fake.reload.lock() = Ok(Loaded {
            clusters: 1,
            members: 0,
        });
        assert_eq!(ask(&fake, "RELOAD"), "Loaded 1 clusters and 0 RTP proxies\nOK\n");
    }

    #[test]
    fn sessions_are_counted_listed_and_found() {
        let fake = Fake::of_the_manual();
        assert_eq!(
            ask(&fake, "sessions Supercluster#1"),
            "bound sessions = 2\n    RTPproxy = RTPPROXY1, age = 12 s, call-id = a1@host\n    \
             RTPproxy = RTPPROXY1, age = 700 s, deleted, call-id = b\\x0a2\nlisted = 2\nOK\n"
        );
        assert_eq!(
            ask(&fake, "sessions Supercluster#1 RTPPROXY2 limit=0"),
            "bound sessions = 2\nlisted = 0\nOK\n"
        );
        assert_eq!(
            ask(&fake, "sessions --json Supercluster#1"),
            "{\"bound\":2,\"sessions\":[\
             {\"call_id\":\"a1@host\",\"member\":\"RTPPROXY1\",\"age\":12,\"deleted\":false},\
             {\"call_id\":\"b\\\\x0a2\",\"member\":\"RTPPROXY1\",\"age\":700,\"deleted\":true}]}\nOK\n"
        );
        assert_eq!(
            ask(&fake, "sessions --json Supercluster#1 limit=0"),
            "{\"bound\":2,\"sessions\":[]}\nOK\n"
        );
        assert_eq!(
            ask(&fake, "sessions --json Nobody"),
            "ERROR: Nobody: cluster not found\n"
        );
        assert_eq!(
            ask(&fake, "locate Supercluster#1 a1@host"),
            "RTPproxy = RTPPROXY1\nage = 12 s\nOK\n"
        );
        assert_eq!(
            ask(&fake, "locate Supercluster#1 b\\x0a2"),
            "RTPproxy = RTPPROXY1\nage = 700 s\nOK\n"
        );
        assert_eq!(
            ask(&fake, "locate Supercluster#1 other"),
            "ERROR: other: call-id not bound\n"
        );
    }

    #[test]
    fn clusters_come_and_go() {
        let fake = Fake::of_the_manual();
        assert_eq!(
            ask(
                &fake,
                "cluster add name=Third,protocol=unix,address=/tmp/third.sock"
            ),
            "OK\n"
        );
        assert!(ask(&fake, "ls").contains("Cluster: #2\n    name = Third\n    address = /tmp/third.sock\n"));
        assert_eq!(ask(&fake, "cluster delete Third now"), "OK\n");
        assert_eq!(
            ask(&fake, "cluster delete Third"),
            "ERROR: Third: cluster not found\n"
        );
    }

    #[test]
    fn the_read_only_socket_takes_what_reads() {
        let fake = Fake::of_the_manual();
        let own = fake.file.lock().0.display().to_string();
        let taken = |line: &str| {
            let (entry, command) = grammar::parse(line).unwrap().unwrap();
            allowed_read_only(&fake, entry, &command).map_err(|reply| reply.verdict())
        };
        for line in [
            "ls",
            "ls -v C",
            "stats --prometheus",
            "diff",
            "help",
            "version",
            "quit",
            "locate C x",
            "wait C R gone",
        ] {
            assert_eq!(taken(line), Ok(()), "{line}");
        }
        for line in [
            "modify C suspend R",
            "modify C delete R now",
            "reload",
            "save",
            "cluster delete C",
        ] {
            let title = line.split(" C").next().unwrap_or_default().to_owned();
            let refused = taken(line).unwrap_err();
            assert!(
                refused.ends_with(": not on the read-only socket"),
                "{line}: {refused}"
            );
            assert!(refused.contains(&title), "{line}: {refused}");
        }
        assert_eq!(taken(&format!("check {own}")), Ok(()));
        assert_eq!(
            taken("check /etc/shadow"),
            Err(format!("ERROR: check: want {own} on the read-only socket"))
        );
    }

    #[test]
    fn a_wait_is_over_when_it_is_so_or_cannot_become_so() {
        let fake = Fake::of_the_manual();
        let wait = |name: &str, until| Wait {
            cluster: "Supercluster#1".into(),
            name: name.into(),
            until,
            limit: Duration::from_millis(1500),
        };
        let check = |wait: &Wait, before| {
            check_wait(wait, &fake.is_online(&wait.cluster, &wait.name), before).map(|reply| reply.verdict())
        };
        let ok = Some("OK".to_owned());
        assert_eq!(check(&wait("RTPPROXY1", Until::Online), false), ok);
        assert_eq!(check(&wait("RTPPROXY1", Until::Offline), false), None);
        assert_eq!(check(&wait("RTPPROXY1", Until::Gone), false), None);
        assert_eq!(
            late_wait(&wait("RTPPROXY1", Until::Gone)).verdict(),
            "ERROR: RTPPROXY1: not gone after 1.5 s"
        );
        assert_eq!(check(&wait("X", Until::Gone), false), ok);
        let nobody = Some("ERROR: X: RTPproxy not found".to_owned());
        assert_eq!(check(&wait("X", Until::Online), false), nobody);
        // A cluster that never was is a slip of the pen; one that closed has taken its members with it.
        fake.clusters.lock().clear();
        let no_cluster = Some("ERROR: Supercluster#1: cluster not found".to_owned());
        assert_eq!(check(&wait("RTPPROXY1", Until::Gone), false), no_cluster);
        assert_eq!(check(&wait("RTPPROXY1", Until::Online), true), no_cluster);
        assert_eq!(check(&wait("RTPPROXY1", Until::Gone), true), ok);
    }

    #[test]
    fn help_and_version_answer() {
        let fake = Fake::of_the_manual();
        assert!(ask(&fake, "help").contains("modify CLUSTER delete NAME [now]\n    "));
        assert_eq!(
            ask(&fake, "version"),
            format!("rtp_cluster {}\nOK\n", env!("CARGO_PKG_VERSION"))
        );
    }
}
