//! `rtp_cluster_client`: one command, a script, a prompt with somebody at it, the live view.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::bed::{Bed, create};
use crate::support::fake::Fault;
use crate::support::real;
use crate::support::wait::{self, LONG};

pub const CLIENT: &str = env!("CARGO_BIN_EXE_rtp_cluster_client");
const TERMINAL: &str = include_str!("support/terminal.py");

pub fn client(socket: &Path) -> Command {
    let mut command = Command::new(CLIENT);
    command.arg("-s").arg(socket).stdin(Stdio::null());
    command
}

/// The client with these words after its socket.
pub fn run(socket: &Path, words: &[&str]) -> Output {
    client(socket)
        .args(words)
        .output()
        .expect("the client can be started")
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

pub fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// The client with `script` on its standard input.
pub fn script(socket: &Path, words: &[&str], script: &[u8]) -> Output {
    let mut child = client(socket)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client can be started");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(script)
        .expect("it reads");
    child.wait_with_output().expect("the client ends")
}

/// The client at a terminal, with somebody who takes these steps.
pub fn terminal(bed: &Bed, words: &[&str], environment: &[(&str, &str)], steps: &[&str]) -> Command {
    let admin = bed.daemon.files().admin.to_str().expect("a path");
    let mut command = program_at_terminal(bed, CLIENT, &[&["-s", admin], words].concat(), steps);
    command.envs(environment.iter().copied());
    command
}

/// Any program at a terminal.
pub fn program_at_terminal(bed: &Bed, program: &str, words: &[&str], steps: &[&str]) -> Command {
    let mut command = Command::new(real::python());
    command
        .args(["-c", TERMINAL, program])
        .args(words)
        .arg("--")
        .args(steps)
        .env("HOME", bed.place.dir())
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("NO_COLOR");
    command
}

/// The same to its end: what was on the screen, its exit status, and what went wrong.
pub fn at_terminal(
    bed: &Bed,
    words: &[&str],
    environment: &[(&str, &str)],
    steps: &[&str],
) -> (String, i32, String) {
    let output = terminal(bed, words, environment, steps)
        .output()
        .expect("a terminal");
    (
        out(&output),
        output.status.code().expect("an exit status"),
        said(&output),
    )
}

#[test]
fn the_exit_status_tells_what_the_daemon_said() {
    let bed = Bed::of(1);
    let admin = &bed.daemon.files().admin;
    let good = run(admin, &["modify", "C1", "set", "M1", "weight=7"]);
    assert_eq!((good.status.code(), &*out(&good)), (Some(0), "OK\n"));
    // One argument or several, and with `unix:` or without.
    let whole = Command::new(CLIENT)
        .args([&format!("--socket=unix:{}", admin.display()), "ls C1"])
        .output()
        .expect("the client");
    assert_eq!(out(&whole), out(&run(admin, &["ls", "C1"])));
    let quiet = run(admin, &["-q", "modify C1 set M1 weight=8"]);
    assert_eq!((quiet.status.code(), &*out(&quiet)), (Some(0), ""));
    let refused = run(admin, &["ls", "Nobody"]);
    assert_eq!(
        (refused.status.code(), &*out(&refused)),
        (Some(1), "ERROR: Nobody: cluster not found\n")
    );
    let nowhere = bed.place.path("nowhere.sock");
    let alone = run(&nowhere, &["ls"]);
    assert_eq!((alone.status.code(), &*out(&alone)), (Some(2), ""));
    assert!(
        said(&alone).contains(&format!("cannot connect to {}: ", nowhere.display())),
        "{}",
        said(&alone)
    );
    for wrong in [
        &["-x"][..],
        &["-t", "soon", "ls"],
        &["ls\nreload"],
        &["top", "soon"],
    ] {
        assert_eq!(run(admin, wrong).status.code(), Some(64), "{wrong:?}");
    }
    let help = run(admin, &["--help"]);
    assert!(
        help.status.success() && out(&help).contains("Exit status: 0 OK, 1 "),
        "{}",
        out(&help)
    );
}

#[test]
fn a_daemon_that_hangs_or_dies_within_a_reply_is_no_success() {
    let mut bed = Bed::of(1);
    let admin = bed.daemon.files().admin.clone();
    bed.daemon.stop();
    let late = run(&admin, &["-t", "0.5", "ls"]);
    assert_eq!(late.status.code(), Some(2));
    assert!(
        said(&late).contains("no whole reply within 0.5 s"),
        "{}",
        said(&late)
    );
    bed.daemon.signal(Signal::CONT);
    let waiting = |admin: &Path| {
        let child = client(admin)
            .args(["wait", "C1", "M1", "gone"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        child.expect("the client can be started")
    };
    // Told to end, it says so; killed, it cannot.
    let told = waiting(&admin);
    wait::until_true("the client waits", LONG, || {
        bed.daemon.admin_ok("version").ends_with("OK\n")
    });
    // Whoever is answered now has connected after it.
    thread::sleep(Duration::from_millis(200));
    bed.daemon.signal(Signal::TERM);
    let told = told.wait_with_output().expect("it ends");
    assert_eq!(
        (told.status.code(), &*out(&told)),
        (Some(1), "ERROR: the daemon stops\n")
    );
    bed.daemon.wait_end(LONG);
    bed.daemon.restart();
    let cut = waiting(&admin);
    thread::sleep(Duration::from_millis(200));
    bed.daemon.kill();
    let cut = cut.wait_with_output().expect("it ends");
    assert_eq!(cut.status.code(), Some(2));
    assert!(
        said(&cut).contains("the daemon closed the connection within a reply"),
        "{}",
        said(&cut)
    );
}

#[test]
fn a_script_runs_a_command_a_line_and_ends_with_the_worst() {
    let bed = Bed::of(1);
    let admin = &bed.daemon.files().admin;
    let good = script(
        admin,
        &[],
        b"modify C1 suspend M1\r\n\n   \nmodify C1 set M1 weight=9\nmodify C1 resume M1",
    );
    assert_eq!((good.status.code(), &*out(&good)), (Some(0), "OK\nOK\nOK\n"));
    let bad = script(
        admin,
        &["-q"],
        b"modify C1 suspend Nobody\nmodify C1 set M1 weight=8\nquit\nmodify C1 suspend M1\n",
    );
    assert_eq!(
        (bad.status.code(), &*out(&bad)),
        (Some(1), "ERROR: Nobody: RTPproxy not found\n")
    );
    let listing = bed.daemon.admin_ok("ls C1");
    assert!(
        listing.contains("weight = 8\n") && listing.contains("status = ACTIVE\n"),
        "{listing}"
    );
    assert_eq!(script(admin, &[], b"").status.code(), Some(0));
    // A reader who has seen enough is no failure.
    let shell = format!(
        "yes stats | head -200 | {CLIENT} -s {} | head -1",
        admin.display()
    );
    let piped = Command::new("sh").args(["-c", &shell]).output().expect("sh");
    assert!(
        out(&piped).starts_with("uptime = ") && said(&piped).is_empty(),
        "{}",
        said(&piped)
    );
}

#[test]
fn what_a_script_wants_comes_as_json() {
    let bed = Bed::of(2);
    let admin = &bed.daemon.files().admin;
    let home = bed.call("call@host").media();
    let json = |words: &[&str]| -> serde_json::Value {
        let output = run(admin, words);
        let text = out(&output);
        let (document, verdict) = text.split_once('\n').expect("two lines");
        assert_eq!(verdict, "OK\n", "{words:?}: {text}");
        assert!(!text.contains('\u{1b}'), "no colours in a pipe");
        serde_json::from_str(document).unwrap_or_else(|e| panic!("{words:?}: {e}: {text}"))
    };
    let all = json(&["ls", "--json"]);
    assert_eq!(all["clusters"][0]["members"][1]["name"], "M2");
    let one = json(&["ls", "--json", "C1"]);
    assert_eq!(
        one["clusters"][0]["members"][0]["address"],
        bed.members[0].control().to_string()
    );
    assert_eq!(
        json(&["stats", "--json"])["clusters"][0]["commands"]["U"]["answered"],
        1
    );
    assert_eq!(
        json(&["stats", "--json", "C1"])["clusters"][0]["counters"]["sessions_bound"],
        1
    );
    let member = json(&["locate", "--json", "C1", "call@host"])["member"].clone();
    let place = bed
        .members
        .iter()
        .position(|member| member.media() == home)
        .expect("a member");
    assert_eq!(member, format!("M{}", place + 1));
    let sessions = json(&["sessions", "--json", "C1"]);
    assert_eq!(
        (&sessions["bound"], &sessions["sessions"][0]["call_id"]),
        (&1.into(), &"call@host".into())
    );
    assert_eq!(json(&["diff", "--json"])["differences"], serde_json::json!([]));
    assert_eq!(run(admin, &["ls", "--json", "Nobody"]).status.code(), Some(1));
}

#[test]
fn a_wait_ends_when_it_is_so_or_with_an_error_in_time() {
    let bed = Bed::of(2);
    let admin = &bed.daemon.files().admin;
    assert_eq!(run(admin, &["wait", "C1", "M1", "online"]).status.code(), Some(0));
    let start = Instant::now();
    let late = run(admin, &["wait", "C1", "M1", "gone", "-t", "0.5"]);
    assert_eq!(
        (late.status.code(), &*out(&late)),
        (Some(1), "ERROR: M1: not gone after 0.5 s\n")
    );
    assert!(start.elapsed() >= Duration::from_millis(500));
    bed.members[1].on("", Fault::Silent);
    assert_eq!(
        run(admin, &["wait", "C1", "M2", "offline", "-t", "10"])
            .status
            .code(),
        Some(0)
    );
    bed.members[1].recover();
    assert_eq!(
        run(admin, &["wait", "C1", "M2", "online", "-t", "10"])
            .status
            .code(),
        Some(0)
    );
    let call = bed.call_on(0, "call");
    bed.daemon.admin_ok("modify C1 delete M1");
    let gone = client(admin)
        .args(["wait", "C1", "M1", "gone"])
        .spawn()
        .expect("the client can be started");
    for id in (0..1_000).map(|n| format!("call-{n}")) {
        bed.ask(&format!("D {id} from to"));
        if id == call {
            break;
        }
    }
    assert_eq!(gone.wait_with_output().expect("it ends").status.code(), Some(0));
}

#[test]
fn the_prompt_edits_remembers_and_completes() {
    let bed = Bed::of(2);
    let steps = [
        "<rtp_cluster> ",
        ">version\\r",
        "<OK\r\n",
        // Commands, clusters, actions, members, keys: each by its beginning.
        ">mod\\tC\\tsus\\tM1\\r",
        "<modify C1 suspend ",
        "<OK\r\n",
        ">wait C1 M2 onl\\t\\r",
        "<OK\r\n",
        ">modify C1 set M2 wei\\t7\\r",
        "<weight=",
        "<OK\r\n",
        // Two candidates are shown.
        ">modify C1 resume M\\t\\t",
        "<M1",
        "<M2",
        ">1\\r",
        "<OK\r\n",
        // The line before the last, changed at its end.
        ">\\x1b[A\\x1b[A",
        "<weight=7",
        ">\\x7f9\\r",
        "<OK\r\n",
        // The live view, and back.
        ">to\\t0.2\\r",
        "<SESSIONS",
        ">q",
        "<rtp_cluster> ",
        // An error, a line given up, and the end.
        ">ls Nobody\\r",
        "<ERROR: Nobody: cluster not found\r\n",
        ">reload now\\x03",
        "<rtp_cluster> ",
        ">\\x04",
    ];
    let (screen, status, wrong) = at_terminal(&bed, &[], &[], &steps);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
    let listing = bed.daemon.admin_ok("ls C1");
    assert!(listing.contains("weight = 9\n"), "{listing}");
    assert!(!listing.contains("SUSPENDED"), "{listing}");
    assert!(!bed.daemon.log().contains("reload"), "the line was given up");
    // The next prompt knows what was typed at this one.
    let steps = ["<rtp_cluster> ", ">\\x1b[A", "<ls Nobody", ">\\x15quit\\r"];
    let (screen, status, wrong) = at_terminal(&bed, &[], &[], &steps);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
    assert!(bed.place.path(".rtp_cluster_history").exists());
}

#[test]
fn lines_that_are_pasted_at_the_prompt_are_each_answered() {
    let bed = Bed::of(1);
    let steps = [
        "<rtp_cluster> ",
        // What a terminal makes of a paste.
        ">\\x1b[200~version\\rls Nobody\\r\\rmodify C1 suspend M1\\r\\x1b[201~",
        ">\\r",
        concat!("<rtp_cluster ", env!("CARGO_PKG_VERSION"), "\r\nOK\r\n"),
        "<ERROR: Nobody: cluster not found\r\n",
        "<OK\r\n",
        "<rtp_cluster> ",
        ">version\\r",
        concat!("<rtp_cluster ", env!("CARGO_PKG_VERSION"), "\r\nOK\r\n"),
        ">quit\\r",
    ];
    let (screen, status, wrong) = at_terminal(&bed, &[], &[], &steps);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
    assert!(!screen.contains("had closed"), "{screen}");
}

#[test]
fn a_reply_that_did_not_come_in_time_is_not_taken_for_the_next_one() {
    let bed = Bed::of(1);
    let steps = [
        "<rtp_cluster> ",
        ">wait C1 M1 offline\\r",
        "<no whole reply within 0.5 s",
        "<rtp_cluster> ",
        ">version\\r",
        concat!("<rtp_cluster ", env!("CARGO_PKG_VERSION"), "\r\nOK\r\n"),
        ">quit\\r",
    ];
    let (screen, status, wrong) = at_terminal(&bed, &["-t", "0.5"], &[], &steps);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
    assert!(!screen.contains("had closed"), "{screen}");
}

#[test]
fn the_prompt_outlives_the_daemon() {
    let mut bed = Bed::of(1);
    let asked = bed.place.path("asked");
    let pause = format!("@{}", asked.display());
    let steps = [
        "<rtp_cluster> ",
        ">version\\r",
        "<OK\r\n",
        &pause,
        ">version\\r",
        "<the daemon had closed the connection; this is a new one",
        "<OK\r\n",
        ">q\\r",
    ];
    let mut terminal = terminal(&bed, &[], &[], &steps).spawn().expect("a terminal");
    wait::until_true("the first command is answered", LONG, || asked.exists());
    bed.daemon.signal(Signal::TERM);
    bed.daemon.wait_end(LONG);
    bed.daemon.restart();
    fs::remove_file(asked).expect("a file");
    assert_eq!(terminal.wait().expect("it ends").code(), Some(0));
}

#[test]
fn the_live_view_fits_a_small_terminal_and_leaves_it_as_it_was() {
    let bed = Bed::of(2);
    for number in 0..30 {
        bed.ask(&create(&format!("call-{number}")));
    }
    // Blanks that are there already are passed over, so a word at a time.
    let steps = [
        "<online",
        "<MEMBER",
        "<LOAD",
        "<CALLS/S",
        "<C1",
        "<M1",
        "<M2",
        // The first member's details, then the next picture.
        ">j",
        "<answers,",
        // All about it, and back.
        ">\\r",
        "<since the start of the daemon",
        "<timeouts",
        ">\\x1b",
        "<CALLS/S",
        ">q",
    ];
    let (screen, status, wrong) = at_terminal(&bed, &["top", "0.2"], &[], &steps);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
    assert!(screen.contains("\u{1b}[38;5;2;"), "green: {screen:?}");
    assert!(
        screen.contains("\u{1b}[?1049h") && screen.contains("\u{1b}[?1049l"),
        "{screen:?}"
    );
    // Without colours where they are not wanted; Ctrl-C leaves as well.
    let steps = ["<online", "<arrows", ">\\x03"];
    let (screen, status, wrong) = at_terminal(&bed, &["top"], &[("NO_COLOR", "1")], &steps);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
    for colour in ["\u{1b}[32m", "\u{1b}[38;5;2m", "\u{1b}[36m", "\u{1b}[38;5;6m"] {
        assert!(!screen.contains(colour), "{screen:?}");
    }
    // It wants a terminal.
    let piped = run(&bed.daemon.files().admin, &["top"]);
    assert_eq!((piped.status.code(), &*out(&piped)), (Some(64), ""));
    assert!(said(&piped).contains("top: want a terminal"), "{}", said(&piped));
}
