//! The log as machines read it.

use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::fake::Fault;
use crate::support::wait::{self, LONG};

#[test]
fn each_line_of_a_log_in_json_is_an_object_and_a_change_of_state_has_its_fields() {
    let bed = Bed::with(2, "", &["--log-format", "json", "-v"]);
    bed.members[1].on("", Fault::Silent);
    bed.daemon.wait_members(1, 1);
    bed.daemon.admin_ok("modify C1 suspend M1");
    let log = bed.daemon.log();
    let records: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for record in &records {
        for field in ["time", "level", "message"] {
            assert!(record[field].is_string(), "{field} of {record}");
        }
    }
    let change = records
        .iter()
        .find(|record| record["new"] == "offline")
        .expect("it was lost");
    for (field, value) in [
        ("cluster", "C1"),
        ("member", "M2"),
        ("address", &bed.members[1].control().to_string()),
        ("old", "online"),
        ("level", "info"),
    ] {
        assert_eq!(change[field], value, "{change}");
    }
    let reason = change["reason"].as_str().expect("a reason");
    let message = change["message"].as_str().expect("a message");
    assert!(
        message.ends_with(&format!("online -> offline: {reason}")),
        "{change}"
    );
    let serves = records
        .iter()
        .find(|record| record["version"].is_string())
        .expect("it serves");
    assert_eq!(serves["pid"], bed.daemon.pid());
}

#[test]
fn a_log_in_logfmt_has_the_same_fields() {
    let bed = Bed::with(1, "", &["--log-format", "logfmt"]);
    bed.members[0].on("", Fault::Silent);
    wait::until_true("the change in the log", LONG, || {
        bed.daemon.log().lines().any(|line| {
            line.starts_with("time=20")
                && line.contains(" level=info msg=\"member M1 of C1 ")
                && line.contains(" cluster=C1 member=M1 address=127.")
                && line.contains(" old=online new=offline reason=\"")
        })
    });
}

#[test]
fn a_refused_start_is_told_to_people_whatever_the_format() {
    let bed = Bed::with(1, "", &["--log-format", "json"]);
    let files = bed.daemon.files();
    let mut second = crate::support::daemon::program();
    second
        .arg("-f")
        .arg("-c")
        .arg(&files.config)
        .arg("-s")
        .arg(&files.admin);
    second.arg("-P").arg(&files.pid).args(["--log-format", "json"]);
    let output = second.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(75) && said.starts_with("rtp_cluster: "),
        "{said}"
    );
}
