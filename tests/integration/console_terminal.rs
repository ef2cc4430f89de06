//! `rtp_cluster_client` at a terminal when something is wrong: with the daemon, with the terminal, or with what comes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::console::{CLIENT, at_terminal, out, program_at_terminal, run, said, script, terminal};
use crate::support::bed::Bed;
use crate::support::wait::{self, LONG};

#[test]
fn the_live_view_obeys_its_keys_while_the_daemon_hangs() {
    let bed = Bed::of(2);
    let (seen, told) = (bed.place.path("seen"), bed.place.path("told"));
    let (first, second) = (format!("@{}", seen.display()), format!("@{}", told.display()));
    let steps = [
        "<M1",
        &first,
        "<does not answer",
        // A choice is shown all the same.
        ">j",
        "<> M1",
        &second,
        // And that it is back.
        "<answers,",
        ">q",
    ];
    let mut view = terminal(&bed, &["top", "0.2"], &[], &steps)
        .spawn()
        .expect("a terminal");
    wait::until_true("the first picture", LONG, || seen.exists());
    bed.daemon.stop();
    std::fs::remove_file(seen).expect("a file");
    wait::until_true("a key that is obeyed", LONG, || told.exists());
    bed.daemon.signal(Signal::CONT);
    std::fs::remove_file(told).expect("a file");
    assert_eq!(view.wait().expect("it ends").code(), Some(0));
}

#[test]
fn the_live_view_can_be_left_while_the_daemon_hangs() {
    let bed = Bed::of(1);
    bed.daemon.stop();
    let (screen, status, wrong) = at_terminal(&bed, &["top"], &[], &["<arrows", ">q"]);
    bed.daemon.signal(Signal::CONT);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
    assert!(screen.contains("\u{1b}[?1049l"), "{screen:?}");
}

#[test]
fn tab_says_that_the_daemon_does_not_answer() {
    let bed = Bed::of(1);
    bed.daemon.stop();
    let steps = [
        "<rtp_cluster> ",
        ">modify C\\t",
        "<(the daemon does not answer)",
        "<modify C",
        ">\\x15quit\\r",
    ];
    let (screen, status, wrong) = at_terminal(&bed, &[], &[], &steps);
    bed.daemon.signal(Signal::CONT);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
}

/// The client that speaks to this socket: the shell before it has the same words in one.
fn client_of(admin: &str) -> Option<Pid> {
    let processes = std::fs::read_dir("/proc").expect("a list of processes");
    processes.flatten().find_map(|process| {
        let words = std::fs::read(process.path().join("cmdline")).ok()?;
        let is_it = words
            .split(|byte| *byte == 0)
            .any(|word| word == admin.as_bytes())
            && words.starts_with(CLIENT.as_bytes());
        let number = process.file_name().to_str()?.parse().ok()?;
        is_it.then(|| Pid::from_raw(number)).flatten()
    })
}

#[test]
fn a_signal_gives_the_terminal_back_as_it_was() {
    let bed = Bed::of(1);
    // A shell, whose terminal is used again by the next program in it.
    let admin = bed.daemon.files().admin.display().to_string();
    for (command, seen, restored) in [
        (" top", "<arrows", "<\u{1b}[?1049l\u{1b}[?25h"),
        ("", "<rtp_cluster> ", "<\u{1b}[?2004l"),
    ] {
        let line = format!(
            "stty -a | tr -d '\\n' >before; {CLIENT} -s {admin}{command}; echo ended with $?; stty -a | tr -d '\\n' >after"
        );
        let there = format!("@{}", bed.place.path("there").display());
        let steps = [seen, &there, restored, "<ended with 143"];
        let mut shell = program_at_terminal(&bed, "sh", &["-c", &line], &steps);
        let mut shell = shell.current_dir(bed.place.dir()).spawn().expect("a terminal");
        wait::until_true("the client is there", LONG, || bed.place.path("there").exists());
        let client = wait::until("the client's process", LONG, || client_of(&admin));
        kill_process(client, Signal::TERM).expect("it is there");
        std::fs::remove_file(bed.place.path("there")).expect("a file");
        assert_eq!(shell.wait().expect("it ends").code(), Some(0), "{command:?}");
        let modes = |name: &str| std::fs::read_to_string(bed.place.path(name)).expect("modes");
        assert_eq!(modes("before"), modes("after"), "{command:?}");
    }
}

#[test]
fn a_terminal_that_is_none_gets_plain_text() {
    let bed = Bed::of(2);
    let dumb = [("TERM", "dumb")];
    let steps = ["<2 of 2 online", "<M1", "<2 of 2 online", ">\\x03"];
    let (screen, _, wrong) = at_terminal(&bed, &["top", "0.2"], &dumb, &steps);
    assert_eq!(wrong, "", "{screen}");
    assert!(!screen.contains('\u{1b}'), "{screen:?}");
    // At the prompt Ctrl-C ends the view alone.
    let steps = [
        "<rtp_cluster> ",
        ">top 0.2\\n",
        "<2 of 2 online",
        ">\\x03",
        "<rtp_cluster> ",
        ">version\\n",
        "<OK\r\n",
        ">quit\\n",
    ];
    let (screen, status, wrong) = at_terminal(&bed, &[], &dumb, &steps);
    assert_eq!((status, &*wrong), (0, ""), "{screen}");
    assert!(!screen.contains('\u{1b}'), "{screen:?}");
}

#[test]
fn ctrl_c_ends_a_wait_and_not_the_prompt() {
    let bed = Bed::of(1);
    let waits = format!("@{}", bed.place.path("waits").display());
    let steps = [
        "<rtp_cluster> ",
        ">wait C1 M1 gone\\r",
        &waits,
        ">\\x03",
        "<given up",
        "<rtp_cluster> ",
        ">version\\r",
        concat!("<rtp_cluster ", env!("CARGO_PKG_VERSION"), "\r\nOK\r\n"),
        ">quit\\r",
    ];
    let mut prompt = terminal(&bed, &[], &[], &steps).spawn().expect("a terminal");
    let waits = bed.place.path("waits");
    wait::until_true("the wait is typed", LONG, || waits.exists());
    std::fs::remove_file(waits).expect("a file");
    assert_eq!(prompt.wait().expect("it ends").code(), Some(0));
}

#[test]
fn what_a_daemon_sends_does_not_reach_the_terminal_as_an_escape_sequence() {
    let bed = Bed::of(1);
    let path = bed.place.path("false.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let daemon = thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.expect("a client");
            let mut line = String::new();
            BufReader::new(stream.try_clone().expect("a descriptor"))
                .read_line(&mut line)
                .expect("a command");
            stream
                .write_all(b"\x1b]0;taken over\x07\xc2\x9b31m\xe2\x80\xaeOK\nOK\n")
                .expect("a reply");
        }
    });
    let words = ["-s", path.to_str().expect("a path"), "ls"];
    let steps = ["<\\x1b]0;taken over\\x07\\u{9b}31m\\u{202e}OK"];
    let mut shown = program_at_terminal(&bed, CLIENT, &words, &steps);
    let shown = shown.output().expect("a terminal");
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    assert!(
        !out(&shown).contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']),
        "{}",
        out(&shown)
    );
    // A program gets what came.
    let piped = run(&path, &["ls"]);
    assert_eq!(out(&piped), "\u{1b}]0;taken over\u{7}\u{9b}31m\u{202e}OK\nOK\n");
    daemon.join().expect("it ends");
}

#[test]
fn a_script_may_have_comments() {
    let bed = Bed::of(1);
    let admin = &bed.daemon.files().admin;
    let good = script(
        admin,
        &[],
        b"# half of its share\nmodify C1 set M1 weight=7\n  # done\n",
    );
    assert_eq!((good.status.code(), &*out(&good)), (Some(0), "OK\n"));
    assert!(bed.daemon.admin_ok("ls C1").contains("weight = 7\n"));
}

#[test]
fn help_knows_the_commands_of_the_client_too() {
    let bed = Bed::of(1);
    let admin = &bed.daemon.files().admin;
    let top = run(admin, &["help", "top"]);
    assert_eq!(top.status.code(), Some(0), "{}", said(&top));
    assert!(
        out(&top).starts_with("top [SECONDS]\n    ") && out(&top).ends_with("\nOK\n"),
        "{}",
        out(&top)
    );
    let all = out(&run(admin, &["help"]));
    for usage in ["ls [-v|--json]", "quit\n", "top [SECONDS]\n"] {
        assert!(all.contains(usage), "{usage}: {all}");
    }
    assert_eq!(run(admin, &["help", "ls"]).status.code(), Some(0));
    assert_eq!(run(admin, &["help", "nonsense"]).status.code(), Some(1));
}
