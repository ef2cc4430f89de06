//! What `doctor` finds, from what was seen, each with its remedy. Pure.

use core::fmt;

use super::super::test_call::session::{Outcome, Report};
use super::super::test_call::survey::{Cluster, Member};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// As it should be.
    Good,
    /// Worth a look; calls are served.
    Remark,
    /// Calls suffer, or will.
    Fault,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    subject: String,
    text: String,
    remedy: Option<String>,
}

impl Finding {
    pub(super) fn good(subject: &str, text: impl Into<String>) -> Self {
        Self {
            grade: Grade::Good,
            subject: subject.to_owned(),
            text: text.into(),
            remedy: None,
        }
    }

    pub(super) fn remark(subject: &str, text: impl Into<String>, remedy: &str) -> Self {
        Self {
            grade: Grade::Remark,
            remedy: Some(remedy.to_owned()),
            ..Self::good(subject, text)
        }
    }

    pub(super) fn fault(subject: &str, text: impl Into<String>, remedy: &str) -> Self {
        Self {
            grade: Grade::Fault,
            ..Self::remark(subject, text, remedy)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Good => "ok",
            Grade::Remark => "remark",
            Grade::Fault => "FAULT",
        };
        writeln!(f, "{grade:<7} {}: {}", self.subject, self.text)?;
        match &self.remedy {
            Some(remedy) => writeln!(f, "        -> {remedy}"),
            None => Ok(()),
        }
    }
}

/// A reply of the daemon: its lines, and the last one.
pub(super) type Said = (String, String);

/// The daemon's version beside ours.
pub(super) fn version((text, _): &Said, ours: &str) -> Finding {
    let theirs = text.trim().trim_start_matches("rtp_cluster ");
    if theirs == ours {
        Finding::good("daemon", format!("version {theirs}"))
    } else {
        let remedy = "restart the daemon after an update, or update the client";
        Finding::remark(
            "daemon",
            format!("version {theirs}, the client has {ours}"),
            remedy,
        )
    }
}

/// What `check` says of the file.
pub(super) fn check(file: &str, (text, verdict): &Said) -> Vec<Finding> {
    let subject = format!("configuration {file}");
    if verdict != "OK" {
        let text = format!("{text}{}", verdict.trim_start_matches("ERROR: "));
        let remedy = "mend it: a reload changes nothing until then, and a restart fails";
        return vec![Finding::fault(&subject, text, remedy)];
    }
    // The last line counts what is in it.
    let mut lines: Vec<&str> = text.lines().collect();
    let counted = lines.pop().unwrap_or_default();
    let warnings = lines.into_iter();
    let mut found: Vec<Finding> = warnings
        .map(|line| Finding::remark(&subject, line, "mend it"))
        .collect();
    found.push(Finding::good(&subject, counted));
    found
}

/// What `diff` says.
pub(super) fn diff((text, verdict): &Said) -> Finding {
    let count = text.lines().count();
    match (verdict.as_str(), count) {
        ("OK", 0) => Finding::good("configuration", "what runs is what the file says"),
        ("OK", _) => Finding::remark(
            "configuration",
            format!("what runs differs from the file in {count} places"),
            "rtp_cluster_client diff shows them; save keeps what runs, reload takes the file",
        ),
        _ => Finding::fault(
            "configuration",
            format!("{text}{}", verdict.trim_start_matches("ERROR: ")),
            "mend it: a reload changes nothing until then, and a restart fails",
        ),
    }
}

/// Descriptors below which a busy SIP server's workers may find none left.
const DESCRIPTORS_LEAST: u64 = 4096;

/// The descriptors that the daemon has open, if we may know, and may have.
pub(super) fn descriptors(open: Option<usize>, limit: u64) -> Finding {
    let used = open.map_or_else(String::new, |open| format!("{open} of "));
    let text = format!("{used}{limit} descriptors");
    let open = u64::try_from(open.unwrap_or_default()).unwrap_or(u64::MAX);
    let remedy = "raise LimitNOFILE in the unit, or ulimit -n where it is started";
    if open.saturating_mul(10) > limit.saturating_mul(8) {
        Finding::fault("limits", format!("{text}: nearly all are in use"), remedy)
    } else if limit < DESCRIPTORS_LEAST {
        Finding::remark("limits", text, remedy)
    } else {
        Finding::good("limits", text)
    }
}

/// Whether the clock of this machine is kept right. Members are not asked: RTPproxy's protocol has no word for it.
pub(super) fn clock(kept: bool) -> Finding {
    if kept {
        return Finding::good("clock", "a time server keeps it");
    }
    Finding::remark(
        "clock",
        "no time server keeps it: our log and those of members and SIP servers may not fit together",
        "run chrony or systemd-timesyncd, here and on the members' machines",
    )
}

/// Rights of a socket in the file system.
pub(super) fn rights(subject: &str, path: &str, mode: u32, owner: &str) -> Finding {
    let text = format!("{path} has mode {:04o}, owner {owner}", mode & 0o7777);
    if mode & 0o002 == 0 {
        Finding::good(subject, text)
    } else {
        let remedy = "any user of this machine may connect: take the last digit away, see -m and --admin-mode, or <socket>";
        Finding::remark(subject, text, remedy)
    }
}

/// Whether a cluster can take calls, by its members.
pub(super) fn cluster(cluster: &Cluster) -> Finding {
    let subject = format!("cluster {}", cluster.name);
    let all = cluster.members.len();
    let takers = || {
        let members = cluster.members.iter();
        members.filter(|member| member.online && member.status == "ACTIVE")
    };
    let count = takers().count();
    let text = format!("{count} of {all} members take new calls");
    if cluster.draining {
        Finding::remark(
            &subject,
            "is being deleted",
            "reload brings back what is in the file",
        )
    } else if all == 0 {
        Finding::remark(
            &subject,
            "has no members",
            "rtp_cluster_client modify … add, or the file and reload",
        )
    } else if count == 0 {
        Finding::fault(&subject, text, "bring a member back: see each one below")
    } else if takers().all(|member| member.weight == 0) {
        Finding::remark(
            &subject,
            format!("{text}, all of them standby"),
            "bring a member with a weight back",
        )
    } else if count == 1 {
        Finding::remark(&subject, text, "there is no reserve: add a member")
    } else {
        Finding::good(&subject, text)
    }
}

/// Load in percent from which a member is nearly full, as the live view shows it.
const FULL: f64 = 90.0;

/// The state of a member, as the daemon tells it.
pub(super) fn state(subject: &str, member: &Member) -> Finding {
    let text = format!("{}, {}", member.status, member.reason);
    if !member.online {
        Finding::fault(
            subject,
            format!("offline, {text}"),
            "see its machine and its log; what a test call meets stands below",
        )
    } else if member.status != "ACTIVE" {
        Finding::remark(
            subject,
            format!("online, {text}"),
            "takes no new calls until rtp_cluster_client modify … resume",
        )
    } else if member.utilization.is_some_and(|load| load >= FULL) {
        let load = member.utilization.unwrap_or_default();
        Finding::remark(
            subject,
            format!("online, loaded by {load:.0} %"),
            "add members, or raise its capacity",
        )
    } else {
        Finding::good(subject, format!("online, {text}"))
    }
}

/// What a member may be able to do, by the number of `VF`.
pub(super) const CAPABILITIES: &[(&str, &str)] = &[
    ("20050322", "several streams"),
    ("20071116", "re-packetization"),
    ("20071218", "copies"),
    ("20080403", "statistics"),
    ("20081102", "codecs"),
    (NOTIFICATION, "disconnect notification"),
    ("20090810", "bridging"),
    ("20140323", "load"),
    ("20150617", "notification to the sender"),
];
const NOTIFICATION: &str = "20081224";

/// What a member said to `V`, and to `VF` for each of [`CAPABILITIES`].
pub(super) fn capabilities(subject: &str, version: &str, said: &[String], notifies: bool) -> Finding {
    if version != "20040107" {
        return Finding::fault(
            subject,
            format!("says \"{version}\" for its version, want 20040107"),
            "what listens there is no RTPproxy",
        );
    }
    let lacks = |at: usize| said.get(at).is_none_or(|reply| reply != "1");
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(at, _)| lacks(*at))
        .map(|(_, (_, what))| *what)
        .collect();
    let lacks_notification = CAPABILITIES
        .iter()
        .position(|(number, _)| *number == NOTIFICATION)
        .is_some_and(lacks);
    let text = if missing.is_empty() {
        "version 20040107, with all capabilities".to_owned()
    } else {
        format!("version 20040107, without {}", missing.join(", "))
    };
    if notifies && lacks_notification {
        let remedy = "start it with -n tcp:%%CC_SELF%%:PORT, the port being that of inbound_address";
        Finding::fault(subject, text, remedy)
    } else {
        Finding::good(subject, text)
    }
}

/// How a test call went.
pub(super) fn call(subject: &str, report: &Report) -> Finding {
    let media = report
        .lines
        .iter()
        .find(|line| line.starts_with("caller to callee"));
    match &report.outcome {
        Outcome::Good => Finding::good(
            subject,
            format!("test call: {}", media.map_or("media flow", |line| line.as_str())),
        ),
        Outcome::Fault(fault) => Finding::fault(
            subject,
            format!("test call: {fault}"),
            "rtp_cluster_client test shows each step",
        ),
        Outcome::Unreachable(failure) => Finding::fault(
            subject,
            format!("test call: {failure}"),
            "is this the daemon's machine, and has this user the rights?",
        ),
        Outcome::Interrupted => Finding::remark(subject, "test call: interrupted", "ask again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::Fake;
    use crate::admin::operator::Operator as _;
    use crate::admin::render_json;
    use crate::console::test_call::survey;

    fn said(text: &str, verdict: &str) -> Said {
        (text.to_owned(), verdict.to_owned())
    }

    fn clusters() -> Vec<Cluster> {
        let all = Fake::of_the_manual().clusters();
        let document = render_json::clusters(
            all.iter().enumerate(),
            crate::admin::select::Selection::default(),
            core::time::Duration::from_secs(1),
        );
        survey::clusters(&document).unwrap()
    }

    #[test]
    fn a_finding_is_a_line_with_its_remedy() {
        assert_eq!(Finding::good("limits", "x").to_string(), "ok      limits: x\n");
        assert_eq!(
            Finding::fault("limits", "x", "do y").to_string(),
            "FAULT   limits: x\n        -> do y\n"
        );
    }

    #[test]
    fn the_configuration_is_what_check_and_diff_say() {
        let good = check("/c.xml", &said("2 clusters and 4 RTP proxies\n", "OK"));
        assert_eq!(
            good,
            [Finding::good(
                "configuration /c.xml",
                "2 clusters and 4 RTP proxies"
            )]
        );
        let warned = check(
            "/c.xml",
            &said("/c.xml:3:4: odd\n2 clusters and 4 RTP proxies\n", "OK"),
        );
        assert_eq!(warned.iter().map(|found| found.grade).max(), Some(Grade::Remark));
        let bad = check("/c.xml", &said("/c.xml:1:1: no\n", "ERROR: 1 error"));
        assert_eq!(bad[0].grade, Grade::Fault);
        assert!(bad[0].text.contains("/c.xml:1:1: no"), "{bad:?}");
        assert_eq!(diff(&said("", "OK")).grade, Grade::Good);
        assert!(diff(&said("a\nb\n", "OK")).text.contains("in 2 places"));
        assert_eq!(diff(&said("", "ERROR: no file")).grade, Grade::Fault);
        assert_eq!(
            version(&said("rtp_cluster 1.0.0\n", "OK"), "1.0.0").grade,
            Grade::Good
        );
        assert_eq!(
            version(&said("rtp_cluster 0.9\n", "OK"), "1.0.0").grade,
            Grade::Remark
        );
    }

    #[test]
    fn limits_and_rights_are_judged() {
        assert_eq!(descriptors(Some(20), 65536).grade, Grade::Good);
        assert_eq!(descriptors(None, 1024).grade, Grade::Remark);
        assert_eq!(descriptors(Some(900), 1024).grade, Grade::Fault);
        assert_eq!(rights("admin", "/a", 0o140_660, "a:b").grade, Grade::Good);
        assert_eq!(rights("admin", "/a", 0o140_666, "a:b").grade, Grade::Remark);
    }

    #[test]
    fn a_clock_that_nobody_keeps_is_remarked_upon() {
        assert_eq!(clock(true).grade, Grade::Good);
        assert_eq!(clock(false).grade, Grade::Remark);
    }

    #[test]
    fn a_cluster_without_a_reserve_is_remarked_upon_and_one_without_members_for_calls_is_at_fault() {
        let mut clusters = clusters();
        assert_eq!(cluster(&clusters[0]).grade, Grade::Good);
        assert_eq!(cluster(&clusters[1]).grade, Grade::Fault);
        let first = &mut clusters[0];
        first.members[0].status = "SUSPENDED".to_owned();
        assert_eq!(state("m", &first.members[0]).grade, Grade::Remark);
        assert_eq!(cluster(first).grade, Grade::Remark);
        first.members[1].weight = 0;
        assert!(cluster(first).text.ends_with("all of them standby"));
        first.members[1].utilization = Some(95.0);
        assert_eq!(state("m", &first.members[1]).grade, Grade::Remark);
        assert_eq!(state("m", &clusters[1].members[0]).grade, Grade::Fault);
        clusters[0].members.clear();
        assert_eq!(cluster(&clusters[0]).grade, Grade::Remark);
    }

    #[test]
    fn a_capability_is_missed_where_it_is_used() {
        let mut all: Vec<String> = CAPABILITIES.iter().map(|_| "1".to_owned()).collect();
        assert_eq!(capabilities("m", "20040107", &all, true).grade, Grade::Good);
        all[5] = "0".to_owned();
        let lacking = capabilities("m", "20040107", &all, false);
        assert_eq!(lacking.grade, Grade::Good);
        assert!(
            lacking.text.ends_with("without disconnect notification"),
            "{lacking}"
        );
        assert_eq!(capabilities("m", "20040107", &all, true).grade, Grade::Fault);
        assert_eq!(capabilities("m", "HTTP/1.1", &all, false).grade, Grade::Fault);
    }
}
