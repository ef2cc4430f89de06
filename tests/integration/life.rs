//! The daemon's life: how it starts, refuses to start, reloads, reopens its log, and ends.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::bed::{Bed, create, listed};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config, program};
use crate::support::fake::{FakeMember, Fault};
use crate::support::place::Place;
use crate::support::process::{Background, Process};
use crate::support::wait::{self, LONG};

/// Runs the daemon with the files of `place` until it ends or has gone to the background.
fn run(files: &Files, arguments: &[&str]) -> Output {
    let mut command = program();
    command
        .arg("-c")
        .arg(&files.config)
        .arg("-s")
        .arg(&files.admin)
        .arg("-P")
        .arg(&files.pid);
    command
        .args(arguments)
        .output()
        .expect("the daemon can be started")
}

fn error_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn a_bad_configuration_is_refused_with_all_its_errors() {
    let place = Place::new();
    let files = Files::in_place(&place);
    let text = "<rtp_cluster_config>
  <rtp_cluster>
    <name>C1</name>
    <protocol>PIGEON</protocol>
    <address>/tmp/never.sock</address>
    <rtpproxy>
      <name>R1</name>
      <protocol>UDP</protocol>
      <address>127.0.0.1:70000</address>
      <weight>1e3</weight>
      <capacity>0</capacity>
    </rtpproxy>
  </rtp_cluster>
</rtp_cluster_config>
";
    fs::write(&files.config, text).expect("a file");
    for arguments in [&["-d"][..], &["-f"], &[]] {
        let output = run(&files, arguments);
        let said = error_text(&output);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
        for (line, value) in [(4, "PIGEON"), (9, "70000"), (10, "1e3"), (11, "0")] {
            let place = format!("{}:{line}:", files.config.display());
            assert!(
                said.lines().any(|l| l.contains(&place) && l.contains(value)),
                "{place} {value} in\n{said}"
            );
        }
        assert!(
            !files.admin.exists() && !files.pid.exists(),
            "{arguments:?} left something behind"
        );
    }
    fs::remove_file(&files.config).expect("it was there");
    assert_eq!(run(&files, &["-d"]).status.code(), Some(78), "a missing file");
}

#[test]
fn wrong_usage_and_help_have_their_exit_status() {
    let place = Place::new();
    let files = Files::in_place(&place);
    for (arguments, status) in [
        (&["--juggle"][..], 64),
        (&["-f", "stray"], 64),
        (&["-h"], 0),
        (&["-V"], 0),
    ] {
        assert_eq!(
            run(&files, arguments).status.code(),
            Some(status),
            "{arguments:?}"
        );
    }
}

#[test]
fn checking_a_good_configuration_opens_nothing() {
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    assert_eq!(run(&files, &["-d"]).status.code(), Some(0));
    assert!(!files.control.exists() && !files.admin.exists() && !files.pid.exists());
}

#[test]
fn a_second_instance_leaves_the_first_alone() {
    let bed = Bed::of(1);
    let first = bed.daemon.files().clone();
    let pid = bed.daemon.pid().to_string();
    // The same pid file; and another one, but the same sockets.
    let other = Files {
        pid: bed.place.path("other.pid"),
        ..first.clone()
    };
    for files in [&first, &other] {
        for arguments in [&["-f"][..], &[]] {
            let output = run(files, arguments);
            assert_eq!(output.status.code(), Some(75), "{}", error_text(&output));
        }
    }
    let said = error_text(&run(&first, &["-f"]));
    assert!(said.contains(&pid), "the other's pid is not in {said:?}");
    assert_eq!(bed.call("still-here").media(), bed.members[0].media());
    bed.daemon.admin_ok("ls");
    assert!(!other.pid.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_anything_else_is_not() {
    let place = Place::new();
    let files = Files::in_place(&place);
    for stale in [&files.control, &files.admin] {
        drop(UnixListener::bind(stale).expect("a socket"));
        assert!(stale.exists(), "a socket's file outlives it");
    }
    let daemon = Daemon::start(&place, &config(&files.control, &[], ""));
    assert_eq!(client::ask(&files.control, "V"), "20040107");
    drop(daemon);
    fs::remove_file(&files.control).expect("a killed daemon leaves it");
    fs::write(&files.control, "precious").expect("a file");
    let output = run(&files, &["-f"]);
    assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
    assert!(error_text(&output).contains(&files.control.display().to_string()));
    assert_eq!(
        fs::read_to_string(&files.control).expect("still there"),
        "precious"
    );
}

#[test]
fn control_sockets_have_the_mode_that_was_asked_for() {
    let bed = Bed::with(1, "", &["-m", "0666"]);
    let mode = |path: &Path| {
        let meta = fs::metadata(path).expect("a socket");
        assert!(meta.file_type().is_socket());
        meta.permissions().mode() & 0o777
    };
    assert_eq!(mode(bed.control()), 0o666);
    assert_eq!(mode(&bed.daemon.files().admin), 0o660);
}

#[test]
fn term_answers_what_is_in_flight_and_cleans_up() {
    let mut bed = Bed::of(1);
    bed.members[0].on("U", Fault::Late(Duration::from_millis(150)));
    let control = bed.control().to_owned();
    let reply = thread::scope(|scope| {
        let waiting = scope.spawn(|| client::ask(&control, &create("in-flight")));
        wait::until_true("the command is at the member", LONG, || {
            !bed.members[0].seen("U").is_empty()
        });
        bed.daemon.signal(Signal::TERM);
        waiting.join().expect("it was answered")
    });
    assert_eq!(bed.of_reply(&reply).media(), bed.members[0].media());
    assert_eq!(bed.daemon.wait_end(LONG).code(), Some(0));
    let files = bed.daemon.files();
    assert!(!files.control.exists() && !files.admin.exists() && !files.pid.exists());
}

#[test]
fn hup_takes_the_new_file_and_a_broken_one_changes_nothing() {
    let bed = Bed::of(1);
    let call = "kept-call";
    bed.call(call);
    let added = FakeMember::start();
    let files = bed.daemon.files();
    let mut members = listed(&bed.members);
    members.push(Listed {
        name: "NEW".to_owned(),
        ..listed(std::slice::from_ref(&added)).remove(0)
    });
    fs::write(&files.config, config(&files.control, &members, "")).expect("a file");
    bed.daemon.signal(Signal::HUP);
    bed.daemon.wait_members(2, 0);
    wait::until_true("the first count", LONG, || {
        !bed.daemon.admin("ls C1").contains("UNKNOWN")
    });
    assert_eq!(bed.ask(&format!("Q {call} from to")), "60 0 0 0 0");
    let before = bed.daemon.admin("ls");
    fs::write(&files.config, "<rtp_cluster_config><rtp_cluster>").expect("a file");
    bed.daemon.signal(Signal::HUP);
    let place = format!("{}:1:", files.config.display());
    wait::until_true("the error in the log", LONG, || bed.daemon.log().contains(&place));
    assert_eq!(bed.daemon.admin("ls"), before);
    let reply = bed.daemon.admin("reload");
    assert!(
        reply
            .lines()
            .last()
            .is_some_and(|l| l.starts_with("ERROR: ") && l.contains(&place)),
        "{reply:?}"
    );
}

#[test]
fn the_daemon_goes_to_the_background_reopens_its_log_and_ends_on_term() {
    let place = Place::new();
    let files = Files::in_place(&place);
    let member = FakeMember::start();
    fs::write(
        &files.config,
        config(&files.control, &listed(std::slice::from_ref(&member)), ""),
    )
    .expect("a file");
    let log = place.path("daemon.log");
    let log_name = log.display().to_string();
    let output = run(&files, &["-L", &log_name]);
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    let daemon = Background::of(&files.pid);
    // Ready when the caller has its prompt again: no waiting here.
    assert_eq!(client::ask(&files.control, "V"), "20040107");

    let rotated = place.path("daemon.log.1");
    fs::rename(&log, &rotated).expect("a log");
    daemon.signal(Signal::USR1);
    wait::until_true("a new log", LONG, || log.exists());
    let old = fs::read_to_string(&rotated).expect("the old log");
    member.on("", Fault::Silent);
    wait::until_true("the new log tells the news", LONG, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("online -> offline"))
    });
    assert_eq!(
        fs::read_to_string(&rotated).expect("the old log"),
        old,
        "the old log is left alone"
    );

    daemon.signal(Signal::TERM);
    wait::until_true("the end", LONG, || !files.pid.exists());
    assert!(!files.control.exists() && !files.admin.exists());
}

#[test]
fn a_start_in_the_background_that_fails_says_so_on_the_terminal() {
    let place = Place::new();
    let files = Files::in_place(&place);
    let nowhere = place.path("no-such-directory/c.sock");
    let log = place.path("daemon.log").display().to_string();
    fs::write(&files.config, config(&nowhere, &[], "")).expect("a file");
    let output = run(&files, &["-L", &log]);
    assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
    assert!(
        error_text(&output).contains(&nowhere.display().to_string()),
        "{}",
        error_text(&output)
    );
    assert!(!files.pid.exists() && !files.admin.exists());
}

#[test]
fn streams_that_are_closed_at_the_start_are_the_null_device() {
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_rtp_cluster"));
    command.arg("-f").arg("-c").arg(&files.config);
    command.arg("-s").arg(&files.admin).arg("-P").arg(&files.pid);
    let mut daemon = Process::start("rtp_cluster", &mut command);
    wait::until_true("the control socket", LONG, || files.control.exists());
    assert_eq!(client::ask(&files.control, "V"), "20040107");
    for number in 0..3 {
        let stream = fs::read_link(format!("/proc/{}/fd/{number}", daemon.id()));
        assert_eq!(stream.expect("it is open"), Path::new("/dev/null"), "{number}");
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_end(LONG).code(), Some(0));
}

#[test]
fn a_daemon_holds_on_to_nothing_of_its_caller() {
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    // The output ends when the last one who holds it closes it: the daemon gets it under another number as well.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 7>&1", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_rtp_cluster"));
    command.arg("-c").arg(&files.config).arg("-s").arg(&files.admin);
    command
        .arg("-P")
        .arg(&files.pid)
        .arg("-L")
        .arg(place.path("daemon.log"));
    let output = command.output().expect("it starts, and its output ends");
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    let daemon = Background::of(&files.pid);
    assert_eq!(
        fs::read_link(format!("/proc/{}/cwd", daemon.pid())).expect("it lives"),
        Path::new("/"),
        "no file system is kept busy"
    );
}

#[test]
fn modes_do_not_depend_on_the_callers_umask() {
    for umask in ["000", "077"] {
        let place = Place::new();
        let files = Files::in_place(&place);
        let log = place.path("daemon.log");
        fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
        let mut command = Command::new("sh");
        command.args(["-c", "umask $1; shift; exec \"$@\"", "sh", umask]);
        command.arg(env!("CARGO_BIN_EXE_rtp_cluster"));
        command.arg("-c").arg(&files.config).arg("-s").arg(&files.admin);
        command.arg("-P").arg(&files.pid).arg("-L").arg(&log);
        let output = command.output().expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
        let _daemon = Background::of(&files.pid);
        for (path, mode) in [
            (&files.control, 0o660),
            (&files.admin, 0o660),
            (&files.pid, 0o644),
            (&log, 0o640),
        ] {
            let found = fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
            assert_eq!(found, mode, "{} with umask {umask}", path.display());
        }
    }
}

#[test]
fn a_second_term_and_a_quit_end_it_at_once() {
    for signals in [&[Signal::TERM, Signal::INT][..], &[Signal::QUIT]] {
        let mut bed = Bed::of(1);
        bed.members[0].on("U", Fault::Silent);
        let mut waiting = client::connect(bed.control());
        waiting
            .write_all(create("in-flight").as_bytes())
            .expect("it is sent");
        wait::until_true("the command is at the member", LONG, || {
            !bed.members[0].seen("U").is_empty()
        });
        for (number, signal) in signals.iter().enumerate() {
            if number > 0 {
                wait::until_true("the first is heard", LONG, || {
                    bed.daemon.log().contains("SIGTERM received")
                });
            }
            bed.daemon.signal(*signal);
        }
        assert_eq!(bed.daemon.wait_end(Duration::from_secs(1)).code(), Some(1));
        if signals.len() > 1 {
            let files = bed.daemon.files();
            assert!(!files.control.exists() && !files.admin.exists() && !files.pid.exists());
            assert!(bed.daemon.log().contains("a second signal to stop"));
        }
    }
}

#[test]
fn two_signals_in_one_moment_leave_nothing_behind() {
    for round in 0..20 {
        let mut bed = Bed::of(1);
        // Two of one kind may be one by the time they arrive; those of two kinds never are.
        bed.daemon.signal(Signal::TERM);
        bed.daemon
            .signal(if round % 2 == 0 { Signal::INT } else { Signal::TERM });
        let exit = bed.daemon.wait_end(LONG).code();
        let hurried = bed.daemon.log().contains("a second signal to stop");
        assert_eq!(exit, Some(i32::from(hurried)), "{}", bed.daemon.log());
        let files = bed.daemon.files();
        assert!(!files.control.exists() && !files.admin.exists() && !files.pid.exists());
    }
}

#[test]
fn usr2_logs_what_goes_on() {
    let bed = Bed::of(2);
    bed.daemon.signal(Signal::USR2);
    wait::until_true("the status in the log", LONG, || {
        let log = bed.daemon.log();
        log.contains("status: cluster C1: 2 of 2 members online") && log.contains("status:   member M2 (")
    });
}

#[test]
fn twice_verbose_tells_each_command_and_each_reply() {
    let place = Place::new();
    let member = FakeMember::start();
    let control = Files::in_place(&place).control;
    let config = config(&control, &[Listed::udp("M1", &member.control().to_string())], "");
    let daemon = Daemon::start_with(&place, &config, &["-vv"]);
    daemon.wait_members(1, 0);
    let reply = client::ask(&control, &create("a-call"));
    wait::until_true("the way of the command in the log", LONG, || {
        let log = daemon.log();
        let told = |line: &str| log.contains(&format!("TRACE cluster C1: {line}"));
        told(&format!("command: {}", create("a-call")))
            && told("to member 0: ")
            && told(&format!("from member 0: {reply}"))
            && told(&format!("reply: {reply}"))
    });
}

#[test]
fn a_storm_of_hups_costs_a_reload_a_second_and_the_last_file_wins() {
    let bed = Bed::of(1);
    let files = bed.daemon.files();
    let with = |weight: u16| {
        let members: Vec<Listed> = listed(&bed.members)
            .into_iter()
            .map(|member| member.weight(weight))
            .collect();
        fs::write(place_beside(&files.config), config(&files.control, &members, "")).expect("a file");
        // Whole at every moment, as an editor or `save` replaces it.
        fs::rename(place_beside(&files.config), &files.config).expect("a rename");
    };
    let start = Instant::now();
    for weight in 1..=500 {
        with(weight);
        bed.daemon.signal(Signal::HUP);
    }
    wait::until_true("the last file", LONG, || {
        bed.daemon.admin("ls C1").contains("weight = 500\n")
    });
    let seconds = usize::try_from(start.elapsed().as_secs()).expect("a small number");
    let reloads = bed.daemon.log().matches("reload: Loaded ").count();
    assert!(reloads <= seconds + 2, "{reloads} reloads in {seconds} s");
    assert_eq!(bed.call("after-the-storm").media(), bed.members[0].media());
}

fn place_beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

#[test]
fn a_log_that_takes_no_line_costs_lines_and_nothing_else() {
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    let output = run(&files, &["-L", "/dev/full"]);
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    let daemon = Background::of(&files.pid);
    assert_eq!(client::ask(&files.control, "V"), "20040107");
    daemon.signal(Signal::TERM);
    wait::until_true("the end", LONG, || !files.pid.exists());
    assert!(!files.control.exists());
}

#[test]
fn a_log_whose_directory_was_replaced_goes_on_in_the_new_one() {
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    let (directory, old) = (place.path("log.d"), place.path("log.old"));
    fs::create_dir(&directory).expect("a directory");
    let log = directory.join("daemon.log");
    let output = run(&files, &["-L", &log.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    let daemon = Background::of(&files.pid);
    fs::rename(&directory, &old).expect("a rename");
    daemon.signal(Signal::USR1);
    let old_log = old.join("daemon.log");
    wait::until_true("the trouble is told in the old log", LONG, || {
        fs::read_to_string(&old_log).is_ok_and(|text| text.contains("cannot reopen the log"))
    });
    fs::create_dir(&directory).expect("a directory");
    daemon.signal(Signal::USR1);
    wait::until_true("the new log", LONG, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("log reopened"))
    });
}

/// Whether the tests run as the super-user, who alone becomes somebody else. Others test that they may not.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn another_user_must_be_able_to_do_what_is_left_to_it() {
    let place = Place::new();
    let files = Files::in_place(&place);
    let log = place.path("daemon.log");
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    let log_name = log.display().to_string();
    let arguments = ["-u", "nobody", "-L", &log_name];
    let refused = run(&files, &arguments);
    let said = error_text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(!files.pid.exists() && !files.control.exists() && !log.exists());
    if !is_root() {
        assert!(
            said.contains("only the super-user becomes another user"),
            "{said}"
        );
        return;
    }
    let directory = place.dir().display().to_string();
    for trouble in ["remove our sockets", "remove the pid file", "reopened"] {
        assert!(
            said.lines().any(|line| line.contains(&directory)
                && line.contains(trouble)
                && line.contains("chown nobody")),
            "{trouble} in {said}"
        );
    }

    // With the remedy it starts, and is that user wholly.
    let made = Command::new("chown").args(["nobody", &directory]).status();
    assert!(made.is_ok_and(|status| status.success()));
    let readable_by = |mode| fs::set_permissions(&files.config, fs::Permissions::from_mode(mode));
    readable_by(0o600).expect("it is ours");
    let said = error_text(&run(&files, &arguments));
    let file = files.config.display();
    assert!(
        said.contains(&format!("{file}: user nobody cannot read it"))
            && said.contains(&format!("chown nobody {file}")),
        "{said}"
    );
    readable_by(0o644).expect("it is ours");
    let output = run(&files, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    let daemon = Background::of(&files.pid);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it lives");
    let numbers = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let words = line.expect("it is there").split_whitespace();
        words
            .map(|word| word.parse().expect("a number"))
            .collect::<Vec<u32>>()
    };
    let owner = fs::metadata(place.dir()).expect("it is there").uid();
    assert_eq!(numbers("Uid:"), [owner; 4]);
    let group = numbers("Gid:")[0];
    assert_eq!(numbers("Gid:"), [group; 4]);
    assert!(numbers("Groups:").iter().all(|other| *other == group), "{status}");
    // No way back to more, nor one for a program that it might be made to start.
    let line = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), Some("0000000000000000"), "{set} {status}");
    }
    assert_eq!(line("NoNewPrivs:"), Some("1"), "{status}");
    for path in [&files.control, &files.admin, &files.pid, &log] {
        let found = fs::metadata(path).expect("it is there");
        assert_eq!((found.uid(), found.gid()), (owner, group), "{}", path.display());
    }
    fs::rename(&log, place.path("daemon.log.1")).expect("a rename");
    daemon.signal(Signal::USR1);
    wait::until_true("a new log", LONG, || log.exists());
    daemon.signal(Signal::TERM);
    wait::until_true("the end", LONG, || !files.pid.exists());
    assert!(!files.control.exists() && !files.admin.exists());
}

#[test]
fn a_link_at_the_place_of_the_log_makes_root_write_nowhere() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let files = Files::in_place(&place);
    fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
    let made = Command::new("chown").arg("nobody").arg(place.dir()).status();
    assert!(made.is_ok_and(|status| status.success()));
    // A directory that is root's alone, to which the user that the daemon becomes has set a link.
    let ours = Place::new();
    let (log, target) = (place.path("daemon.log"), ours.path("target"));
    std::os::unix::fs::symlink(&target, &log).expect("a link");
    let log_name = log.display().to_string();
    for content in [None, Some("root's\n")] {
        if let Some(content) = content {
            fs::write(&target, content).expect("a file");
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("ours");
        }
        let refused = run(&files, &["-u", "nobody", "-L", &log_name]);
        assert_eq!(refused.status.code(), Some(1), "{}", error_text(&refused));
        assert!(
            error_text(&refused).contains(&log_name),
            "{}",
            error_text(&refused)
        );
        assert_eq!(fs::read_to_string(&target).ok().as_deref(), content);
        assert!(!files.pid.exists() && !files.control.exists());
    }
}

#[test]
fn users_and_groups_without_an_entry_in_the_database_are_taken() {
    if !is_root() {
        return;
    }
    // With a group, and without one, which is then of the user's number.
    for (user, (uid, gid)) in [("60998:60997", (60_998, 60_997)), ("60998", (60_998, 60_998))] {
        let place = Place::new();
        let files = Files::in_place(&place);
        fs::write(&files.config, config(&files.control, &[], "")).expect("a file");
        std::os::unix::fs::chown(place.dir(), Some(uid), Some(gid)).expect("we are root");
        let log = place.path("daemon.log").display().to_string();
        let output = run(&files, &["-u", user, "-o", "60996:60995", "-L", &log]);
        assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
        let daemon = Background::of(&files.pid);
        let owner = |path: &Path| {
            fs::metadata(path)
                .map(|found| (found.uid(), found.gid()))
                .expect("it is there")
        };
        assert_eq!(owner(&files.control), (60_996, 60_995));
        assert_eq!(owner(&files.admin), (uid, gid));
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it lives");
        for line in [
            format!("Uid:\t{uid}\t{uid}\t"),
            format!("Gid:\t{gid}\t{gid}\t"),
            format!("Groups:\t{gid} \n"),
        ] {
            assert!(status.contains(&line), "{line:?} in {status}");
        }
    }
}

#[test]
fn a_control_socket_belongs_to_whom_it_is_given() {
    let place = Place::new();
    let files = Files::in_place(&place);
    let socket = "<socket owner=\"nobody:daemon\" mode=\"0600\"/>";
    fs::write(&files.config, config(&files.control, &[], socket)).expect("a file");
    if !is_root() {
        let refused = run(&files, &["-f"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            error_text(&refused).contains("give the socket its owner"),
            "{refused:?}"
        );
        return;
    }
    let daemon = Daemon::start_with(
        &place,
        &config(&files.control, &[], socket),
        &["-o", "bin", "--admin-owner", ":bin"],
    );
    let owner =
        |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid(), found.mode() & 0o777));
    let of = |name: &str, file: &str| {
        let text = fs::read_to_string(file).expect("it is there");
        let line = text
            .lines()
            .find(|line| line.split(':').next() == Some(name))
            .expect("known");
        line.split(':')
            .nth(2)
            .and_then(|id| id.parse::<u32>().ok())
            .expect("a number")
    };
    let nobody = of("nobody", "/etc/passwd");
    assert_eq!(
        owner(&files.control).expect("it is there"),
        (nobody, of("daemon", "/etc/group"), 0o600)
    );
    let admin = owner(&daemon.files().admin).expect("it is there");
    assert_eq!(admin, (0, of("bin", "/etc/group"), 0o660));
}
