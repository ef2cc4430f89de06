//! `doctor [CLUSTER]`: everything that can be looked at from here, as a list with remedies.

mod findings;
mod machine;

use findings::{Finding, Grade};
use machine::Process;

use super::daemon::{Daemon, Trouble};
use super::test_call::session::{Outcome, Report};
use super::test_call::survey::{Cluster, Member};
use super::test_call::{self, Interrupt};
use super::{Ending, batch, complain};
use crate::config::model::Protocol;
use crate::rim::sys;

/// What was found so far.
struct Found {
    /// How many of each grade.
    counts: [usize; 3],
    /// Only what is wrong is shown.
    quiet: bool,
}

impl Found {
    fn tell(&mut self, finding: &Finding) -> Result<(), Trouble> {
        let [good, remarks, faults] = &mut self.counts;
        *match finding.grade {
            Grade::Good => good,
            Grade::Remark => remarks,
            Grade::Fault => faults,
        } += 1;
        if self.quiet && finding.grade == Grade::Good {
            return Ok(());
        }
        batch::say(&finding.to_string())
    }
}

/// `doctor [CLUSTER]`
pub(super) fn run(daemon: &mut Daemon, line: &str, quiet: bool) -> Result<Ending, Trouble> {
    let mut words = line.split_whitespace().skip(1);
    let cluster = words.next();
    if words.next().is_some() || cluster.is_some_and(|word| word.starts_with('-')) {
        complain("doctor: want doctor [CLUSTER]");
        return Ok(Ending::Usage);
    }
    let interrupt = test_call::interrupt_of(daemon)?;
    let clusters = match test_call::survey(daemon, cluster)? {
        Ok(clusters) => clusters,
        Err(verdict) => return test_call::end(&verdict, Ending::Refused),
    };
    let mut found = Found {
        counts: [0; 3],
        quiet,
    };
    of_daemon(daemon, &mut found)?;
    for cluster in &clusters {
        if !of_cluster(daemon, cluster, &interrupt, &mut found)? {
            return test_call::end("ERROR: interrupted; the session is deleted", Ending::Refused);
        }
    }
    let [good, remarks, faults] = found.counts;
    let counted = format!("{good} good, {remarks} remarks, {faults} faults");
    match faults {
        0 if quiet => Ok(Ending::Good),
        0 => test_call::end(&format!("{counted}\nOK"), Ending::Good),
        _ => test_call::end(&format!("ERROR: {counted}"), Ending::Refused),
    }
}

/// The daemon itself: its version, its file, its limits, its own socket.
fn of_daemon(daemon: &mut Daemon, found: &mut Found) -> Result<(), Trouble> {
    let version = test_call::reply(daemon, "version")?;
    found.tell(&findings::version(&version, env!("CARGO_PKG_VERSION")))?;
    let process = Process::find(daemon.path());
    if let Some(process) = &process {
        // A relative one means another file to us.
        if process.options.config.is_absolute() {
            let file = process.options.config.display().to_string();
            let checked = test_call::reply(daemon, &format!("check {file}"))?;
            for finding in findings::check(&file, &checked) {
                found.tell(&finding)?;
            }
        }
        if let Some((open, limit)) = process.descriptors() {
            found.tell(&findings::descriptors(open, limit))?;
        }
    } else {
        found.tell(&Finding::remark(
            "limits",
            "the daemon's process is not known from here",
            "run this on its machine, as root or as its user",
        ))?;
    }
    if let Some(kept) = sys::clock_is_kept() {
        found.tell(&findings::clock(kept))?;
    }
    found.tell(&findings::diff(&test_call::reply(daemon, "diff")?))?;
    let path = daemon.path().to_owned();
    if let Some((mode, owner)) = machine::socket(&path) {
        found.tell(&findings::rights(
            "admin socket",
            &path.display().to_string(),
            mode,
            &owner,
        ))?;
    }
    Ok(())
}

/// A cluster and its members; whether nobody has interrupted.
fn of_cluster(
    daemon: &mut Daemon,
    cluster: &Cluster,
    interrupt: &Interrupt,
    found: &mut Found,
) -> Result<bool, Trouble> {
    let subject = format!("cluster {}", cluster.name);
    found.tell(&findings::cluster(cluster))?;
    if matches!(cluster.place.protocol, Protocol::Unix | Protocol::Cunix) {
        let path = &cluster.place.address;
        if let Some((mode, owner)) = machine::socket(path.as_ref()) {
            found.tell(&findings::rights(&subject, path, mode, &owner))?;
        }
    }
    // Without a member for new calls it is known how that ends.
    let is_served = cluster.members.iter().any(Member::takes_calls);
    if is_served {
        let report = test_call::call_cluster(daemon, cluster, None, interrupt);
        found.tell(&findings::call(&subject, &report))?;
        if is_interrupted(&report) {
            return Ok(false);
        }
    }
    for member in &cluster.members {
        if !of_member(cluster, member, interrupt, found)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn of_member(
    cluster: &Cluster,
    member: &Member,
    interrupt: &Interrupt,
    found: &mut Found,
) -> Result<bool, Trouble> {
    let subject = format!("member {} of {}", member.name, cluster.name);
    found.tell(&findings::state(&subject, member))?;
    let commands = findings::CAPABILITIES
        .iter()
        .map(|(number, _)| format!("VF {number}"));
    let commands: Vec<String> = core::iter::once("V".to_owned()).chain(commands).collect();
    let report = match test_call::ask_member(member, &commands, interrupt) {
        Ok(said) => {
            if let Some((version, said)) = said.split_first() {
                // A member of this machine gets the SIP server's own socket.
                let notifies = cluster.notifies && !member.place.protocol.is_local();
                found.tell(&findings::capabilities(&subject, version, said, notifies))?;
            }
            test_call::through_member(member, None, interrupt)
        }
        // A call would end like that, too.
        Err(failure) => Report::unreachable(failure),
    };
    found.tell(&findings::call(&subject, &report))?;
    Ok(!is_interrupted(&report))
}

fn is_interrupted(report: &Report) -> bool {
    matches!(report.outcome, Outcome::Interrupted)
}
