//! The Debian package: from lintian's view, and from the first installation to the purge.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use crate::built::{packages, run};
use crate::machine::Machine;
use crate::support::client::{ask, media};
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{self, LONG};

pub const CONFIG: &str = "/etc/rtp_cluster/rtp_cluster.xml";
pub const CONTROL: &str = "/run/rtp_cluster/main.sock";

/// Connects to the socket named, asks for the version, prints the reply: what a SIP server does first.
pub const PROBE: &str = r#"perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => shift) or die "connect: $!\n";
print $s "V"; print <$s>;' "#;

/// A machine with the package, as it comes.
fn installed() -> Machine {
    let mut machine = Machine::start();
    let deb = machine.bring(&packages().deb);
    machine.run(&format!("apt-get install -y {deb}"));
    machine
}

/// Writes a configuration with one cluster and one member, keeping the file's rights as an editor does.
pub fn configure(machine: &Machine, member: &RealMember) {
    let text = format!(
        "<rtp_cluster_config>
  <rtp_cluster>
    <name>main</name>
    <protocol>UNIX</protocol>
    <address>{CONTROL}</address>
    <rtpproxy>
      <name>R1</name>
      <protocol>UDP</protocol>
      <address>{}</address>
      <weight>100</weight>
      <capacity>100</capacity>
    </rtpproxy>
  </rtp_cluster>
</rtp_cluster_config>
",
        member.control()
    );
    fs::write(machine.path(CONFIG), text).expect("it is there");
}

/// Waits until the configuration has been taken and its member is online.
pub fn wait_online(machine: &mut Machine) {
    wait::until_true("the member is online", LONG, || {
        let asked = machine.try_run("rtp_cluster_client wait main R1 online -t 10");
        asked.status == 0
    });
}

fn pid(machine: &mut Machine) -> String {
    machine.run("cat /run/rtp_cluster/rtp_cluster.pid")
}

/// Owner and mode of a path on the machine, as `rtpcluster:rtpcluster 0750`.
fn rights(machine: &mut Machine, path: &str) -> String {
    machine
        .run(&format!("stat -c '%U:%G %04a' {path}"))
        .trim_end()
        .to_owned()
}

#[test]
fn lintian_has_nothing_to_say() {
    let mut command = Command::new("lintian");
    command.args([
        "-i",
        "-I",
        "--pedantic",
        "--allow-root",
        "--suppress-tags",
        "bad-distribution-in-changes-file",
    ]);
    let said = run(command.arg(&packages().changes));
    let tags: Vec<&str> = said.lines().filter(|line| !line.starts_with("N:")).collect();
    assert_eq!(tags, [""; 0], "{said}");
}

#[test]
fn from_the_installation_to_the_purge() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let mut machine = Machine::start();
    let before = machine.files();

    // Installed: it runs with an empty configuration, and serves nobody.
    let (deb, newer) = (
        machine.bring(&packages().deb),
        machine.bring(&packages().newer_deb),
    );
    machine.run(&format!("apt-get install -y {deb}"));
    assert_eq!(machine.run("rtp_cluster_client -q ls"), "");
    assert_eq!(
        machine.run("ls -A /run/rtp_cluster"),
        "readonly.sock\nrtp_cluster.pid\nrtp_cluster.sock\n"
    );

    // Configured: it serves.
    configure(&machine, &member);
    machine.run("rtp_cluster -d && service rtp_cluster reload");
    wait_online(&mut machine);
    let control: PathBuf = machine.path(CONTROL);
    let reply = ask(&control, "U kept 127.0.0.1 4000 from");
    let port = media(&reply).0;
    machine.run("rtp_cluster_client modify main set R1 weight=50 && rtp_cluster_client save");

    // Upgraded: another process, the same configuration, and the call is where it was.
    let first = pid(&mut machine);
    let config = fs::read(machine.path(CONFIG)).expect("it is there");
    machine.run(&format!("apt-get install -y {newer}"));
    assert_ne!(pid(&mut machine), first);
    assert_eq!(fs::read(machine.path(CONFIG)).expect("it is there"), config);
    assert!(String::from_utf8_lossy(&config).contains("<weight>50</weight>"));
    wait_online(&mut machine);
    assert_eq!(media(&ask(&control, "U kept 127.0.0.1 4000 from")).0, port);
    assert_eq!(ask(&control, "D kept from to"), "0");
    assert_eq!(member.sessions(), 0);

    // Removed: stopped, the configuration kept. Installed again: it serves again.
    machine.run("apt-get remove -y rtp-cluster");
    assert!(!machine.path("/run/rtp_cluster/rtp_cluster.pid").exists());
    assert!(machine.path(CONFIG).exists());
    machine.run(&format!("apt-get install -y {newer}"));
    wait_online(&mut machine);

    // Purged: nothing is left. Users stay, as Debian's policy has it.
    machine.run("apt-get purge -y rtp-cluster");
    let after = machine.files();
    let left: Vec<&String> = after.iter().filter(|file| !before.contains(file)).collect();
    let gone: Vec<&String> = before.iter().filter(|file| !after.contains(file)).collect();
    assert!(
        left.is_empty() && gone.is_empty(),
        "left {left:#?}\ngone {gone:#?}"
    );
    assert_eq!(
        machine.try_run("pidof rtp_cluster").status,
        1,
        "no process is left"
    );
}

#[test]
fn the_sip_servers_user_calls_and_does_not_administer_and_others_do_neither() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let mut machine = installed();
    configure(&machine, &member);
    machine.run("service rtp_cluster reload");
    wait_online(&mut machine);
    machine.run("adduser --system --group --quiet kamailio && adduser --quiet kamailio rtpcluster");
    machine.run("adduser --system --group --quiet stranger");
    let mut probe = |user: &str| machine.try_run(&format!("runuser -u {user} -- {PROBE} {CONTROL}"));
    let kamailio = probe("kamailio");
    assert_eq!((kamailio.status, &*kamailio.text), (0, "20040107\n"));
    let stranger = probe("stranger");
    assert!(
        stranger.status != 0 && stranger.text.contains("Permission denied"),
        "{stranger:?}"
    );
    for user in ["kamailio", "stranger"] {
        let asked = machine.try_run(&format!("runuser -u {user} -- rtp_cluster_client ls"));
        assert!(
            asked.status == 2 && asked.text.contains("Permission denied"),
            "{asked:?}"
        );
    }
    machine.run("rtp_cluster_client ls");
    for (path, want) in [
        ("/run/rtp_cluster", "rtpcluster:rtpcluster 0755"),
        (CONTROL, "rtpcluster:rtpcluster 0660"),
        ("/run/rtp_cluster/rtp_cluster.sock", "rtpcluster:rtpcluster 0600"),
        ("/run/rtp_cluster/readonly.sock", "rtpcluster:rtpcluster 0660"),
        ("/etc/rtp_cluster", "rtpcluster:rtpcluster 0750"),
        (CONFIG, "root:rtpcluster 0640"),
        ("/var/lib/rtp_cluster", "rtpcluster:rtpcluster 0750"),
        ("/var/log/rtp_cluster", "rtpcluster:rtpcluster 0750"),
    ] {
        assert_eq!(rights(&mut machine, path), want, "{path}");
    }
    let groups =
        machine.run("grep -h '^Groups:\\|^Uid:' /proc/$(cat /run/rtp_cluster/rtp_cluster.pid)/status");
    let uid = machine.run("id -u rtpcluster").trim_end().to_owned();
    let gid = machine.run("id -g rtpcluster").trim_end().to_owned();
    assert_eq!(
        groups.split_whitespace().collect::<Vec<_>>(),
        ["Uid:", &uid, &uid, &uid, &uid, "Groups:", &gid],
        "nothing of root's is left"
    );
}

#[test]
fn an_upgrade_does_not_stop_a_daemon_that_could_not_start_again() {
    let mut machine = installed();
    let newer = machine.bring(&packages().newer_deb);
    let first = pid(&mut machine);
    fs::write(machine.path(CONFIG), "<rtp_cluster_config>").expect("it is there");
    let said = machine.run(&format!("apt-get install -y {newer}"));
    assert!(
        said.contains(&format!("{CONFIG}:1:")) && said.contains("is not restarted"),
        "{said}"
    );
    assert_eq!(pid(&mut machine), first);
    machine.run("rtp_cluster_client version");
}

#[test]
fn rights_that_the_administrator_changed_outlive_an_upgrade() {
    let mut machine = installed();
    let newer = machine.bring(&packages().newer_deb);
    machine.run(&format!(
        "chmod 0600 {CONFIG} && chown rtpcluster {CONFIG} && chmod 0700 /var/log/rtp_cluster"
    ));
    machine.run(&format!("apt-get install -y {newer}"));
    assert_eq!(rights(&mut machine, CONFIG), "rtpcluster:rtpcluster 0600");
    assert_eq!(
        rights(&mut machine, "/var/log/rtp_cluster"),
        "rtpcluster:rtpcluster 0700"
    );
}

#[test]
fn the_init_script_has_the_status_codes_of_lsb() {
    let mut machine = installed();
    let mut status = |command: &str| machine.try_run(&format!("service rtp_cluster {command}")).status;
    assert_eq!(status("status"), 0);
    assert_eq!(status("start"), 0, "it runs already");
    assert_eq!(status("restart"), 0);
    assert_eq!(status("stop"), 0);
    assert_eq!(status("status"), 3);
    assert_eq!(status("stop"), 0, "it is stopped already");
    assert_eq!(status("reload"), 7);
    assert_eq!(status("try-restart"), 0);
    assert_eq!(status("status"), 3, "try-restart starts nothing");
    assert_eq!(status("start"), 0);
    assert_eq!(status("juggle"), 2);
    machine.run("kill -9 $(cat /run/rtp_cluster/rtp_cluster.pid) && while pidof rtp_cluster; do :; done");
    assert_eq!(
        machine.try_run("service rtp_cluster status").status,
        1,
        "dead, and its pid file is there"
    );
    machine.run("service rtp_cluster start");
    // A configuration with a fault neither stops the daemon nor is it hidden.
    let first = pid(&mut machine);
    fs::write(machine.path(CONFIG), "<rtp_cluster_config>").expect("it is there");
    for command in ["restart", "reload"] {
        let refused = machine.try_run(&format!("service rtp_cluster {command}"));
        assert!(
            refused.status != 0 && refused.text.contains(CONFIG),
            "{command}: {refused:?}"
        );
    }
    assert_eq!(pid(&mut machine), first);
    machine.run("service rtp_cluster stop");
    let refused = machine.try_run("service rtp_cluster start");
    assert!(
        refused.status != 0 && refused.text.contains(CONFIG),
        "{refused:?}"
    );
}

#[test]
fn logrotate_rotates_the_log_of_the_running_daemon() {
    let mut machine = installed();
    let log = machine.path("/var/log/rtp_cluster/rtp_cluster.log");
    let first = fs::metadata(&log).expect("it logs").ino();
    machine.run("logrotate --force /etc/logrotate.d/rtp_cluster");
    wait::until_true("a new log", LONG, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("log reopened"))
    });
    let (now, old) = (fs::metadata(&log), fs::metadata(log.with_extension("log.1")));
    assert_eq!(old.expect("the old log").ino(), first);
    assert_eq!(now.expect("the new log").permissions().mode() & 0o777, 0o640);
    // The daemon's user writes the pid file: with another's number in it, nobody else gets the signal.
    machine.run(
        "sleep 60 & echo $! >/run/rtp_cluster/rtp_cluster.pid; logrotate --force /etc/logrotate.d/rtp_cluster; kill $!",
    );
}

#[test]
fn the_programs_know_where_the_package_has_its_files() {
    let mut machine = installed();
    let help = machine.run("rtp_cluster --help");
    for default in [
        CONFIG,
        "/run/rtp_cluster/rtp_cluster.sock",
        "/run/rtp_cluster/readonly.sock",
        "/run/rtp_cluster/rtp_cluster.pid",
        "/var/log/rtp_cluster/rtp_cluster.log",
    ] {
        assert!(
            help.contains(&format!("(default {default})")),
            "{default} in\n{help}"
        );
    }
    let strings = fs::read(machine.path("/usr/sbin/rtp_cluster")).expect("it is there");
    let here = crate::built::top().to_str().expect("a name").as_bytes();
    assert!(
        !strings.windows(here.len()).any(|part| part == here),
        "the place of the build is nobody's business"
    );
}
