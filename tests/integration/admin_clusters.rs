//! The administrator and the clusters: they come and go at run time, each with its own socket.

use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::bed::{Bed, answer, create, delete};
use crate::support::client;
use crate::support::fake::FakeMember;
use crate::support::wait::{self, LONG};

fn add(name: &str, socket: &Path) -> String {
    format!(
        "cluster add name={name},protocol=UNIX,address={}",
        socket.display()
    )
}

/// Adds an online member to a cluster.
fn add_member(bed: &Bed, cluster: &str, member: &FakeMember) {
    let address = member.control();
    bed.daemon.admin_ok(&format!(
        "modify {cluster} add name=M,protocol=udp,address={address},capacity=100,weight=1"
    ));
    bed.daemon.admin_ok(&format!("wait {cluster} M online -t 10"));
}

#[test]
fn a_cluster_comes_serves_and_goes_with_its_last_call() {
    let bed = Bed::of(1);
    let (socket, member) = (bed.place.path("second.sock"), FakeMember::start());
    bed.daemon.admin_ok(&add("Second", &socket));
    assert!(bed.daemon.admin_ok("ls").contains(&format!(
        "\nCluster: #1\n    name = Second\n    address = {}\n    active members = 0\n    inactive members = 0\nOK\n",
        socket.display()
    )));
    assert_eq!(
        bed.daemon.admin("ls Second"),
        "Active members of the cluster #1:\n\nInactive members of the cluster #1:\n\nOK\n"
    );
    assert_eq!(client::ask(&socket, &create("early")), "E999");
    add_member(&bed, "Second", &member);
    assert_eq!(
        client::media(&client::ask(&socket, &create("call"))).1,
        member.media()
    );
    bed.daemon.admin_ok("cluster delete Second");
    // Its call goes on; the name and the socket are not free yet, and nobody joins.
    assert_eq!(
        client::media(&client::ask(&socket, &answer("call"))).1,
        member.media()
    );
    assert_eq!(client::ask(&socket, &create("late")), "E999");
    let other = bed.place.path("other.sock");
    for (command, part) in [
        (add("Second", &other), "Second: cluster already exists"),
        (add("Third", &socket), "second.sock"),
        (
            "modify Second resume M".to_owned(),
            "Second: the cluster is being deleted",
        ),
        (
            "modify Second suspend M".to_owned(),
            "Second: the cluster is being deleted",
        ),
        (
            "modify Second add name=N,protocol=udp,address=127.0.0.1:9,capacity=1,weight=1".to_owned(),
            "Second: the cluster is being deleted",
        ),
    ] {
        let reply = bed.daemon.admin(&command);
        assert!(
            reply.starts_with("ERROR: ") && reply.contains(part),
            "{command}: {reply}"
        );
    }
    assert!(!other.exists());
    assert_eq!(bed.daemon.admin("diff"), "OK\n");
    // A second delete asks for the same.
    bed.daemon.admin_ok("cluster delete Second");
    assert_eq!(client::ask(&socket, &delete("call")), "0");
    wait::until_true("it has closed", LONG, || {
        !bed.daemon.admin("ls").contains("Second")
    });
    assert!(!socket.exists());
    let log = bed.daemon.log();
    for line in [
        "cluster Second: added, on ",
        "cluster Second: draining\n",
        "cluster Second: closed\n",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    bed.daemon.admin_ok(&add("Second", &socket));
}

#[test]
fn a_cluster_without_calls_closes_at_once_and_any_other_when_it_is_told_to() {
    let bed = Bed::of(1);
    let (socket, member) = (bed.place.path("second.sock"), FakeMember::start());
    bed.daemon.admin_ok(&add("Second", &socket));
    bed.daemon.admin_ok("CLUSTER Remove Second");
    assert!(!bed.daemon.admin_ok("ls").contains("Second") && !socket.exists());
    bed.daemon.admin_ok(&add("Second", &socket));
    add_member(&bed, "Second", &member);
    client::ask(&socket, &create("call"));
    bed.daemon.admin_ok("cluster delete Second now");
    assert!(!bed.daemon.admin_ok("ls").contains("Second") && !socket.exists());
    assert_eq!(
        bed.daemon.admin("cluster delete Second"),
        "ERROR: Second: cluster not found\n"
    );
    // The other cluster has seen nothing of it.
    bed.call("here");
}

#[test]
fn a_cluster_that_cannot_be_is_not_half_made() {
    let bed = Bed::of(1);
    let live = bed.place.path("live.sock");
    let _other = UnixListener::bind(&live).expect("a socket");
    let file = bed.place.write("file", "not a socket");
    let long = bed.place.path(&"x".repeat(120));
    for (command, part) in [
        (add("Second", &live), "live.sock: process "),
        (add("Second", &file), "exists and is no socket"),
        (add("Second", &bed.place.path("no/c.sock")), "no/c.sock"),
        (add("Second", &long), "107"),
        (
            add("C1", &bed.place.path("c2.sock")),
            "C1: cluster already exists",
        ),
        (add("Second", bed.control()), "c1.sock"),
        ("cluster add name=Second,protocol=unix".to_owned(), "address"),
        (
            "cluster add name=Second,protocol=pigeon,address=/x".to_owned(),
            "pigeon",
        ),
        (
            "cluster add name=Se=cond,protocol=unix,address=/x".to_owned(),
            "Se=cond",
        ),
        (
            format!(
                "{},capacity_limit=elastic",
                add("Second", &bed.place.path("c2.sock"))
            ),
            "elastic",
        ),
        (
            format!("{},colour=red", add("Second", &bed.place.path("c2.sock"))),
            "colour",
        ),
    ] {
        let reply = bed.daemon.admin(&command);
        assert!(
            reply.starts_with("ERROR: ") && reply.contains(part),
            "{command}: {reply}"
        );
        assert_eq!(reply.lines().count(), 1, "{reply}");
    }
    assert_eq!(bed.daemon.admin_ok("ls").matches("Cluster: #").count(), 1);
    assert!(!bed.place.path("c2.sock").exists());
}

#[test]
fn a_hard_limit_can_be_asked_for() {
    let bed = Bed::of(1);
    let (socket, member) = (bed.place.path("second.sock"), FakeMember::start());
    bed.daemon
        .admin_ok(&format!("{},capacity_limit=HARD", add("Second", &socket)));
    let address = member.control();
    bed.daemon.admin_ok(&format!(
        "modify Second add name=M,protocol=udp,address={address},capacity=1,weight=1"
    ));
    bed.daemon.admin_ok("wait Second M online -t 10");
    client::ask(&socket, &create("first"));
    assert_eq!(client::ask(&socket, &create("second")), "E998");
}
