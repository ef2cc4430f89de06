//! The Debian package under the real systemd, with all that the unit forbids: restarts and upgrades refuse nobody.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::built::packages;
use crate::debian::{CONFIG, CONTROL, PROBE, configure, wait_online};
use crate::machine::Machine;
use crate::support::client::{PATIENCE, ask, media};
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{self, LONG};

/// A booted machine with the package, in front of `member`.
fn serving(member: &RealMember) -> Machine {
    let mut machine = Machine::boot();
    let deb = machine.bring(&packages().deb);
    machine.run(&format!("apt-get install -y {deb}"));
    configure(&machine, member);
    machine.run("systemctl reload rtp_cluster");
    wait_online(&mut machine);
    machine
}

/// The number of the daemon's process, as systemd has it.
fn main_pid(machine: &mut Machine) -> String {
    machine.run("systemctl show --property=MainPID --value rtp_cluster")
}

/// One command of a caller; the error says why it got no good reply.
fn try_ask(socket: &Path, command: &str) -> Result<(), String> {
    let failed = |error| format!("{command}: {error}");
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(command.as_bytes()).map_err(failed)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).map_err(failed)?;
    if reply.is_empty() || reply.starts_with('E') {
        return Err(format!("{command} -> {reply:?}"));
    }
    Ok(())
}

#[test]
fn restarts_and_an_upgrade_refuse_nobody_and_calls_go_on() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let mut machine = serving(&member);
    let newer = machine.bring(&packages().newer_deb);
    let control = machine.path(CONTROL);
    let port = media(&ask(&control, "U kept 127.0.0.1 4000 from")).0;
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let troubles = thread::scope(|scope| {
        let call = |worker: usize| {
            let (control, over, served) = (&control, &over, &served);
            move || {
                let mut troubles = Vec::new();
                for number in 0.. {
                    if over.load(Ordering::Acquire) {
                        break;
                    }
                    let call_id = format!("{worker}-{number}");
                    for command in [
                        format!("U {call_id} 127.0.0.1 4000 from"),
                        format!("L {call_id} 127.0.0.1 4002 from to"),
                        format!("D {call_id} from to"),
                    ] {
                        troubles.extend(try_ask(control, &command).err());
                    }
                    served.fetch_add(1, Ordering::AcqRel);
                }
                troubles
            }
        };
        let callers: Vec<_> = (0..3).map(|worker| scope.spawn(call(worker))).collect();
        let mut before = main_pid(&mut machine);
        for step in [
            "systemctl restart rtp_cluster",
            "service rtp_cluster restart",
            &format!("apt-get install -y {newer}"),
        ] {
            machine.run(step);
            let seen = served.load(Ordering::Acquire);
            wait::until_true(format!("calls after {step}"), LONG, || {
                served.load(Ordering::Acquire) > seen + 10
            });
            let now = main_pid(&mut machine);
            assert_ne!(now, before, "{step} restarts it");
            before = now;
        }
        over.store(true, Ordering::Release);
        let troubles = callers.into_iter().map(|caller| caller.join().expect("a caller"));
        troubles.flatten().collect::<Vec<_>>()
    });
    assert!(
        troubles.is_empty(),
        "{troubles:#?}\n{}",
        machine.run("journalctl -u rtp_cluster")
    );
    assert_eq!(media(&ask(&control, "U kept 127.0.0.1 4000 from")).0, port);
    assert_eq!(member.sessions(), 1, "no other call is left");

    // Killed, it is back by itself, and the call where it was.
    machine.run("kill -KILL $(systemctl show --property=MainPID --value rtp_cluster)");
    assert_eq!(media(&ask(&control, "U kept 127.0.0.1 4000 from")).0, port);

    // A stop is one: sockets and all.
    machine.run("systemctl stop rtp_cluster");
    assert!(!machine.path("/run/rtp_cluster").exists());
    assert_eq!(
        machine.run("systemctl show --property=NFileDescriptorStore --value rtp_cluster"),
        "0\n"
    );
    machine.run("systemctl start rtp_cluster");
    wait_online(&mut machine);
    assert_eq!(media(&ask(&control, "U kept 127.0.0.1 4000 from")).0, port);
}

#[test]
fn a_fault_in_the_configuration_is_told_to_who_reloads() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let mut machine = serving(&member);
    let before = main_pid(&mut machine);
    let good = fs::read(machine.path(CONFIG)).expect("it is there");
    fs::write(machine.path(CONFIG), "<rtp_cluster_config>").expect("it is there");
    let refused = machine.try_run("systemctl reload rtp_cluster");
    assert_ne!(refused.status, 0, "{}", refused.text);
    assert_eq!(machine.run("systemctl is-active rtp_cluster"), "active\n");
    assert!(
        machine
            .run("journalctl -u rtp_cluster")
            .contains(&format!("{CONFIG}:1:"))
    );
    fs::write(machine.path(CONFIG), good).expect("it is there");
    machine.run("systemctl reload rtp_cluster");
    assert_eq!(main_pid(&mut machine), before);
    // What the daemon writes it may write, for all that the unit forbids.
    machine.run("rtp_cluster_client modify main set R1 weight=7 && rtp_cluster_client save");
    assert!(
        fs::read_to_string(machine.path(CONFIG))
            .expect("it is there")
            .contains("<weight>7</weight>")
    );
    // Warnings are warnings for the journal too.
    machine.run("rtp_cluster_client modify main suspend R1");
    let warnings = machine.run("journalctl -u rtp_cluster --priority=warning --output=cat");
    assert!(
        warnings.contains("no member is left for new sessions"),
        "{warnings}"
    );
    assert!(!warnings.contains("serves, pid"), "{warnings}");
}

#[test]
fn a_daemon_that_hangs_is_restarted_by_the_watchdog() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let mut machine = serving(&member);
    // The same in short.
    machine.run(
        "mkdir -p /etc/systemd/system/rtp_cluster.service.d && cd /etc/systemd/system/rtp_cluster.service.d &&
        printf '[Service]\\nWatchdogSec=1\\nTimeoutAbortSec=1\\n' >watchdog.conf &&
        systemctl daemon-reload && systemctl restart rtp_cluster",
    );
    wait_online(&mut machine);
    let before = main_pid(&mut machine);
    machine.run("kill -STOP $(systemctl show --property=MainPID --value rtp_cluster)");
    // Who calls meanwhile waits.
    assert_eq!(ask(&machine.path(CONTROL), "V"), "20040107");
    assert_ne!(main_pid(&mut machine), before);
    assert!(
        machine
            .run("journalctl -u rtp_cluster")
            .contains("Watchdog timeout")
    );
}

#[test]
fn a_group_of_ones_own_administers_and_another_calls() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let mut machine = serving(&member);
    // As /etc/default/rtp_cluster says it.
    machine.run(
        "addgroup --quiet --system voip && addgroup --quiet --system sip &&
        adduser --quiet rtpcluster voip && adduser --quiet rtpcluster sip &&
        adduser --quiet --system alice && adduser --quiet alice voip &&
        adduser --quiet --system bob && adduser --quiet bob sip &&
        sed -i 's/^#RTP_CLUSTER_OPTIONS/RTP_CLUSTER_OPTIONS/; $d' /etc/default/rtp_cluster",
    );
    let config = fs::read_to_string(machine.path(CONFIG)).expect("it is there");
    let config = config.replace("<rtpproxy>", "<socket owner=\":sip\"/><rtpproxy>");
    fs::write(machine.path(CONFIG), config).expect("it is there");
    machine.run("systemctl restart rtp_cluster");
    wait_online(&mut machine);
    machine.run("runuser -u alice -- rtp_cluster_client ls");
    assert_eq!(
        machine.try_run("runuser -u bob -- rtp_cluster_client ls").status,
        2
    );
    let mut probe = |user: &str| machine.try_run(&format!("runuser -u {user} -- {PROBE} {CONTROL}"));
    assert_eq!(probe("bob").text, "20040107\n");
    assert_ne!(probe("alice").status, 0);
}

#[test]
fn the_status_page_is_served_when_it_is_enabled_by_a_user_who_may_only_look() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let mut machine = serving(&member);
    let socket = "/run/rtp_cluster_status/http.sock";
    let options = format!("RTP_CLUSTER_STATUS_OPTIONS=\"-l {socket} -m 0666\"\n");
    fs::write(machine.path("/etc/default/rtp_cluster_status"), options).expect("it is there");
    machine.run("systemctl enable --now rtp_cluster_status");
    let socket = machine.path(socket);
    let ask = |path: &str| {
        let mut stream = UnixStream::connect(&socket).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    wait::until_true("the cluster is ready", LONG, || {
        ask("/readyz").is_some_and(|answer| answer.ends_with("\r\n\r\nready\n"))
    });
    // What the daemon uses is seen from there, too.
    let metrics = ask("/metrics").expect("it serves");
    assert!(
        metrics.contains("\nrtp_cluster_process_cpu_seconds_total "),
        "{metrics}"
    );
    let look = "runuser -u rtpcluster-status -G rtpcluster -- rtp_cluster_client";
    machine.run(&format!("{look} -s /run/rtp_cluster/readonly.sock ls"));
    let admin = machine.try_run(&format!("{look} ls"));
    assert_ne!(admin.status, 0, "it may not administer: {}", admin.text);
}
