//! `rtp_cluster_client ready`: what a check script learns from its exit status.

use std::path::Path;

use crate::console::{out, run, said};
use crate::support::bed::Bed;
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

/// The exit status, and all that was printed.
fn ready(admin: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = run(admin, &[&["-t", "20", "-q", "ready"], words].concat());
    (output.status.code(), out(&output) + &said(&output))
}

#[test]
fn a_host_is_ready_while_a_member_of_each_cluster_takes_calls() {
    let place = Place::new();
    let read_only = place.path("ro.sock");
    let mut bed = Bed::with(2, "", &["-r", read_only.to_str().expect("a path")]);
    let admin = bed.daemon.files().admin.clone();
    // The read-only socket is enough.
    for socket in [&admin, &read_only] {
        assert_eq!(ready(socket, &[]), (Some(0), String::new()));
        assert_eq!(ready(socket, &["C1"]), (Some(0), String::new()));
    }
    // One that gets no new calls does not count, and one is enough.
    bed.daemon.admin_ok("modify C1 suspend M1");
    assert_eq!(ready(&admin, &[]).0, Some(0));
    bed.daemon.admin_ok("modify C1 suspend M2");
    let (status, text) = ready(&admin, &["C1"]);
    assert_eq!(status, Some(1));
    assert_eq!(
        text,
        "ERROR: C1: takes no calls: none of 2 members is online and ACTIVE\n"
    );
    bed.daemon.admin_ok("modify C1 resume M2");
    assert_eq!(ready(&admin, &[]).0, Some(0));
    // A second cluster without a member is none of the first one's concern.
    let empty = bed.place.path("empty.sock");
    bed.daemon.admin_ok(&format!(
        "cluster add name=C2,protocol=unix,address={}",
        empty.display()
    ));
    assert_eq!(ready(&admin, &[]).0, Some(1));
    assert_eq!(ready(&admin, &["C1"]).0, Some(0));
    bed.members[1].vanish();
    wait::until_true("a member that is gone is noticed", LONG, || {
        ready(&admin, &["C1"]).0 == Some(1)
    });
    assert_eq!(
        ready(&admin, &["C3"]),
        (Some(1), "ERROR: C3: cluster not found\n".to_owned())
    );
    assert_eq!(ready(&admin, &["C1", "C2"]).0, Some(64));
    // A daemon that hangs is as good as none.
    bed.daemon.stop();
    assert_eq!(run(&admin, &["-t", "0.2", "ready"]).status.code(), Some(2));
    bed.daemon.kill();
    assert_eq!(ready(&admin, &[]).0, Some(2));
}
