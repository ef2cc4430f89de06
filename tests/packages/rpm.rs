//! The RPM: from rpmlint's view, and installed into a root of its own.

use std::path::Path;
use std::process::Command;

use crate::built::{packages, run, top};
use crate::machine::Machine;

fn rpm(machine: &Machine) -> Command {
    let mut command = Command::new("rpm");
    command.arg("--root").arg(machine.path("/"));
    command
}

#[test]
fn rpmlint_finds_nothing() {
    let mut command = Command::new("rpmlint");
    command
        .arg("-r")
        .arg(top().join("packaging/rpm/rtp_cluster.rpmlintrc"));
    let said = run(command.arg(&packages().rpm));
    assert!(said.contains(" 0 errors, 0 warnings"), "{said}");
}

#[test]
fn it_needs_no_newer_glibc_than_enterprise_linux_9_has() {
    let said = run(Command::new("rpm")
        .args(["-qp", "--requires"])
        .arg(&packages().rpm));
    let versions = said.lines().filter_map(|line| {
        line.split_once("(GLIBC_2.")?
            .1
            .split_once(')')?
            .0
            .split('.')
            .next()?
            .parse()
            .ok()
    });
    let newest: u32 = versions.max().expect("it is linked with glibc");
    assert!(newest <= 34, "glibc 2.{newest}");
    let provided = run(Command::new("rpm")
        .args(["-qp", "--provides"])
        .arg(&packages().rpm));
    assert!(provided.contains("rtp-cluster = "), "{provided}");
}

#[test]
fn installed_and_erased_it_leaves_what_the_administrator_wrote() {
    let mut machine = Machine::start();
    // Directories that the package "filesystem" owns where RPMs are at home.
    machine.run("mkdir -p /etc/sysconfig /usr/share/licenses /usr/share/zsh/site-functions");
    let before = machine.files();
    // What it depends on is there, but not as an RPM.
    run(rpm(&machine).args(["--install", "--nodeps"]).arg(&packages().rpm));
    let files = machine.files();
    for line in [
        "/usr/sbin/rtp_cluster f 755 root:root",
        "/usr/bin/rtp_cluster_client f 755 root:root",
        "/usr/sbin/rtp_cluster_status f 755 root:root",
        "/usr/lib/systemd/system/rtp_cluster_status.service f 644 root:root",
        "/etc/rtp_cluster d 750 rtpcluster:rtpcluster",
        "/etc/rtp_cluster/rtp_cluster.xml f 640 root:rtpcluster",
        "/var/lib/rtp_cluster d 750 rtpcluster:rtpcluster",
        "/var/log/rtp_cluster d 750 rtpcluster:rtpcluster",
        "/usr/lib/systemd/system/rtp_cluster.service f 644 root:root",
        "/usr/lib/tmpfiles.d/rtp_cluster.conf f 644 root:root",
        "/usr/lib/sysusers.d/rtp_cluster.conf f 644 root:root",
    ] {
        assert!(
            files.iter().any(|file| file == line),
            "{line} in\n{}",
            files.join("\n")
        );
    }
    assert_eq!(
        machine.run("systemd-analyze verify --man=no rtp_cluster.service"),
        ""
    );
    machine.run("install -d -o rtpcluster -g rtpcluster /run/rtp_cluster");
    machine.run("rtp_cluster -u rtpcluster && rtp_cluster_client version");
    machine.run("kill $(cat /run/rtp_cluster/rtp_cluster.pid) && while pidof rtp_cluster; do :; done");
    machine.run("rmdir /run/rtp_cluster && echo '<!-- ours -->' >>/etc/rtp_cluster/rtp_cluster.xml");

    run(rpm(&machine).args(["--erase", "rtp_cluster"]));
    let after = machine.files();
    let ours = |file: &&String| !before.contains(file) && !file.starts_with("/var/lib/rpm");
    let left: Vec<&str> = after
        .iter()
        .filter(ours)
        .filter_map(|file| file.split(' ').next())
        .collect();
    let kept = [
        "/etc/rtp_cluster",
        "/etc/rtp_cluster/rtp_cluster.xml.rpmsave",
        "/var/log/rtp_cluster",
        "/var/log/rtp_cluster/rtp_cluster.log",
    ];
    assert_eq!(left, kept);
    assert!(Path::new(&machine.path("/etc/rtp_cluster/rtp_cluster.xml.rpmsave")).exists());
}
