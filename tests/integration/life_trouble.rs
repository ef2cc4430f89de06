//! A start, and a life, where the machine lacks something: room in a file, a syslog, the directory one stands in.

use std::fs;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::support::client;
use crate::support::daemon::{Files, config};
use crate::support::place::Place;
use crate::support::process::Background;
use crate::support::wait::{self, LONG};

/// Runs the daemon in a shell, after `before`, until it ends or has gone to the background.
fn run_after(before: &str, files: &Files, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$@\""), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_rtp_cluster"));
    command.arg("-c").arg(&files.config).arg("-s").arg(&files.admin);
    command.arg("-P").arg(&files.pid).args(arguments);
    command.output().expect("a shell")
}

fn in_place() -> (Place, Files) {
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    (place, files)
}

#[test]
fn a_log_at_the_limit_of_its_size_costs_lines_and_nothing_else() {
    let (place, files) = in_place();
    let log = place.path("daemon.log");
    // More than a pid file, less than some seconds of log.
    let output = run_after("ulimit -f 8", &files, &["-vv", "-L", &log.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let daemon = Background::of(&files.pid);
    let size = || fs::metadata(&log).map_or(0, |found| found.len());
    wait::until_true("a full log", LONG, || {
        // Each command is logged.
        let before = size();
        assert_eq!(client::ask(&files.control, "V"), "20040107");
        size() == before
    });
    fs::remove_file(&log).expect("it is there");
    assert_eq!(client::ask(&files.control, "V"), "20040107");
    wait::until_true("what was lost is told", LONG, || {
        client::ask(&files.control, "V");
        fs::read_to_string(&log).is_ok_and(|text| text.contains("log lines were lost: File too large"))
    });
    daemon.signal(Signal::TERM);
    wait::until_true("the end", LONG, || !files.pid.exists());
}

#[test]
fn a_machine_without_syslog_does_not_keep_it_from_starting() {
    let (_place, files) = in_place();
    let output = run_after(":", &files, &["-L", "syslog:daemon"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let _daemon = Background::of(&files.pid);
    assert_eq!(client::ask(&files.control, "V"), "20040107");
    let has_syslog = ["/dev/log", "/var/run/log"]
        .iter()
        .any(|path| fs::exists(path).is_ok_and(|there| there));
    assert!(has_syslog || said.contains("no syslog at /dev/log"), "{said}");
}

#[test]
fn a_directory_that_is_gone_does_not_keep_it_from_starting() {
    let (place, files) = in_place();
    let gone = format!("mkdir {0} && cd {0} && rmdir {0}", place.path("gone").display());
    let log = place.path("daemon.log").display().to_string();
    for foreign in [&["-L", "log"][..], &["-r", "read.sock"]] {
        let output = run_after(&gone, &files, foreign);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(foreign[1]) && said.contains("absolute"), "{said}");
    }
    let output = run_after(&gone, &files, &["-L", &log]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let _daemon = Background::of(&files.pid);
    assert_eq!(client::ask(&files.control, "V"), "20040107");
}
