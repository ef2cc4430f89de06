//! `test CLUSTER [NAME]`: a call of the client's own, through a cluster as a SIP server makes it, or through one of its
//! members as the cluster would, with media both ways. It says what arrived and, where something did not, why.

mod control;
mod interrupt;
mod media;
mod request;
mod rtp;
pub(super) mod session;
pub(super) mod survey;
mod tally;
mod verdict;

use core::net::IpAddr;
use core::time::Duration;

use control::{Control, Failure};
pub(super) use interrupt::Interrupt;
use session::{Outcome, Report, Target};
use survey::{Cluster, Member};
use verdict::Fault;

use super::daemon::{Daemon, Trouble};
use super::{Ending, batch, complain};

/// `test CLUSTER [NAME] [--from IP]`
pub(super) fn run(daemon: &mut Daemon, line: &str, quiet: bool) -> Result<Ending, Trouble> {
    let request = match request::parse(line) {
        Ok(request) => request,
        Err(wrong) => {
            complain(&wrong);
            return Ok(Ending::Usage);
        }
    };
    let interrupt = interrupt_of(daemon)?;
    let cluster = match survey(daemon, Some(&request.cluster))? {
        Ok(mut clusters) if clusters.len() == 1 => clusters.remove(0),
        Ok(_) => {
            return end(
                &format!("ERROR: {}: cluster not found", request.cluster),
                Ending::Refused,
            );
        }
        Err(error) => return end(&error, Ending::Refused),
    };
    let Some(name) = &request.member else {
        return through_cluster(daemon, &cluster, &request, &interrupt, quiet);
    };
    let Some(member) = cluster.members.iter().find(|member| member.name == *name) else {
        return end(&format!("ERROR: {name}: RTPproxy not found"), Ending::Refused);
    };
    if !quiet {
        batch::say(&head(member))?;
    }
    let report = through_member(member, request.from, &interrupt);
    told(&report, quiet)?;
    conclude(&report.outcome, quiet)
}

fn through_cluster(
    daemon: &mut Daemon,
    cluster: &Cluster,
    request: &request::Request,
    interrupt: &Interrupt,
    quiet: bool,
) -> Result<Ending, Trouble> {
    if !quiet {
        batch::say(&format!("cluster {} at {}\n", cluster.name, cluster.place))?;
    }
    let report = call_cluster(daemon, cluster, request.from, interrupt);
    told(&report, quiet)?;
    // The member itself can be told apart from what stands before it, and asked what it has counted.
    let served_by = report.served_by.as_deref();
    let member = cluster
        .members
        .iter()
        .find(|member| Some(&*member.name) == served_by);
    match (&report.outcome, member) {
        (Outcome::Fault(Fault::Media(_)), Some(member)) => {
            if !quiet {
                batch::say(&head(member))?;
            }
            let closer = through_member(member, request.from, interrupt);
            told(&closer, quiet)?;
            match closer.outcome {
                Outcome::Fault(_) | Outcome::Interrupted => conclude(&closer.outcome, quiet),
                Outcome::Good | Outcome::Unreachable(_) => conclude(&report.outcome, quiet),
            }
        }
        _ => conclude(&report.outcome, quiet),
    }
}

/// How long the daemon may take to say which member has the call.
const LOCATE: Duration = Duration::from_secs(2);

/// A call as a SIP server makes it.
pub(super) fn call_cluster(
    daemon: &Daemon,
    cluster: &Cluster,
    from: Option<IpAddr>,
    interrupt: &Interrupt,
) -> Report {
    let target = Target {
        place: &cluster.place,
        member: None,
        from,
    };
    session::call(target, interrupt, &mut |id| {
        // Over a connection of its own: a Ctrl-C that has come by now is the test's, and no hanging daemon holds it up.
        let mut daemon = daemon.another(LOCATE).ok()?;
        let (located, _) = reply(&mut daemon, &format!("locate --json {} {id}", cluster.name)).ok()?;
        let located: serde_json::Value = serde_json::from_str(&located).ok()?;
        located.get("member")?.as_str().map(str::to_owned)
    })
}

/// A call as the cluster would send it there, whatever the member's status.
pub(super) fn through_member(member: &Member, from: Option<IpAddr>, interrupt: &Interrupt) -> Report {
    let target = Target {
        place: &member.place,
        member: Some(member),
        from,
    };
    session::call(target, interrupt, &mut |_| None)
}

/// What a member says to these commands.
pub(super) fn ask_member(
    member: &Member,
    commands: &[String],
    interrupt: &Interrupt,
) -> Result<Vec<String>, Failure> {
    let control = Control::new(&member.place, member.source, session::nonce(), interrupt);
    commands
        .iter()
        .map(|command| control.ask(command).map(|(reply, _)| reply))
        .collect()
}

fn head(member: &Member) -> String {
    let state = if member.online { "online" } else { "offline" };
    format!(
        "member {} at {}, {state}, {}\n",
        member.name, member.place, member.status
    )
}

fn told(report: &Report, quiet: bool) -> Result<(), Trouble> {
    let lines = if quiet { &[][..] } else { &report.lines };
    lines
        .iter()
        .try_for_each(|line| batch::say(&format!("    {line}\n")))
}

fn conclude(outcome: &Outcome, quiet: bool) -> Result<Ending, Trouble> {
    match outcome {
        Outcome::Good if quiet => Ok(Ending::Good),
        Outcome::Good => end("OK", Ending::Good),
        Outcome::Fault(fault) => end(&format!("ERROR: {fault}"), Ending::Refused),
        Outcome::Unreachable(failure) => end(&format!("ERROR: {failure}"), Ending::Lost),
        Outcome::Interrupted => end("ERROR: interrupted; the session is deleted", Ending::Refused),
    }
}

pub(super) fn end(verdict: &str, ending: Ending) -> Result<Ending, Trouble> {
    batch::say(&format!("{verdict}\n")).map(|()| ending)
}

pub(super) fn interrupt_of(daemon: &Daemon) -> Result<Interrupt, Trouble> {
    let prompt = daemon.interrupt().map_err(Trouble::Streams)?;
    Interrupt::new(prompt).map_err(Trouble::Streams)
}

/// The clusters, or one; the daemon's verdict where it refuses, or what is wrong with its reply.
pub(super) fn survey(
    daemon: &mut Daemon,
    cluster: Option<&str>,
) -> Result<Result<Vec<Cluster>, String>, Trouble> {
    let command = match cluster {
        Some(cluster) => format!("ls --json -- {cluster}"),
        None => "ls --json".to_owned(),
    };
    let (document, verdict) = reply(daemon, &command)?;
    if verdict != "OK" {
        return Ok(Err(verdict));
    }
    Ok(survey::clusters(&document).map_err(|wrong| format!("ERROR: {wrong}")))
}

/// A reply as a whole, and its last line.
pub(super) fn reply(daemon: &mut Daemon, command: &str) -> Result<(String, String), Trouble> {
    let (mut reply, mut verdict) = (String::new(), String::new());
    daemon.ask(command.as_bytes(), |line, is_last| {
        let line = String::from_utf8_lossy(line);
        if is_last {
            line.trim_end().clone_into(&mut verdict);
        } else {
            reply.push_str(&line);
        }
        Ok(())
    })?;
    Ok((reply, verdict))
}
