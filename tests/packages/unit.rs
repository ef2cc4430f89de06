//! The systemd unit, by systemd's own judgement.

use std::process::Command;

use crate::built::{packages, run, top};
use crate::machine::Machine;

#[test]
fn systemd_finds_no_fault_in_the_installed_unit() {
    let mut machine = Machine::start();
    let deb = machine.bring(&packages().deb);
    machine.run(&format!("apt-get install -y {deb}"));
    assert_eq!(
        machine.run("systemd-analyze verify --man=no rtp_cluster.service rtp_cluster_status.service"),
        ""
    );
    assert_eq!(
        machine.run("systemctl is-enabled rtp_cluster.service"),
        "enabled\n"
    );
    // Off until somebody wants it.
    let status = machine.try_run("systemctl is-enabled rtp_cluster_status.service");
    assert_eq!(status.text, "disabled\n");
}

#[test]
fn the_units_are_exposed_no_more_than_the_gate_allows() {
    // In tenths; without --offline the unit would have to be installed here.
    for unit in ["rtp_cluster.service", "rtp_cluster_status.service"] {
        let said = run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(top().join("packaging/systemd").join(unit)));
        assert!(said.contains("Overall exposure level"), "{unit}: {said}");
    }
}
