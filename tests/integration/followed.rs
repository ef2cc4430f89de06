//! What happens, told as it happens: `watch` and `trace` on the admin socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::console::{out, run};
use crate::support::bed::{Bed, answer, create, delete};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::fake::Fault;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::LONG;

/// A reply that goes on.
pub struct Followed(BufReader<UnixStream>);

impl Followed {
    /// Follows by that command; what happens from now on is told.
    pub fn begin(daemon: &Daemon, command: &str) -> Self {
        let mut stream = UnixStream::connect(&daemon.files().admin).expect("the socket is there");
        stream.set_read_timeout(Some(LONG)).expect("it has a time limit");
        stream
            .write_all(format!("{command}\n").as_bytes())
            .expect("it is taken");
        // One thread serves all, in rounds: who is answered in a later round finds the command taken.
        for _ in 0..2 {
            daemon.admin_ok("version");
        }
        Self(BufReader::new(stream))
    }

    /// The next line, less its time; `None` at the end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        if !line.ends_with('\n') {
            return None;
        }
        let line = line.trim_end();
        let (time, rest) = line.split_once(' ').unwrap_or(("", line));
        let is_time = time.len() == "2026-11-26T02:06:42.850Z".len() && time.ends_with('Z');
        Some(if is_time { rest } else { line }.to_owned())
    }

    /// The first line that has these words, and what is before it goes.
    pub fn until(&mut self, words: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.line() {
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {words:?} in {seen:#?}");
    }

    /// All lines up to the `OK` that ends them.
    fn all(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line().expect("a line that says how it ends") {
                line if line == "OK" => return lines,
                line => lines.push(line),
            }
        }
    }
}

/// A line of a trace less what no test can know: the process of the client and the time that it took.
fn steady(line: &str) -> String {
    let fields = line
        .split(", ")
        .filter(|field| !field.starts_with("delay = ") && !field.starts_with("client = UNIX process "));
    fields.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_call_is_followed_from_its_u_to_its_d_on_a_real_member() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let listed = [Listed::udp("R1", &member.control().to_string())];
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(1, 0);
    let control = &daemon.files().control;
    let mut call = Followed::begin(&daemon, "trace C1 call");
    let created = client::ask(control, &create("call"));
    client::ask(control, &create("another"));
    let answered = client::ask(control, &answer("call"));
    assert_eq!(client::ask(control, &delete("call")), "0");
    let lines = call.all();
    let told: Vec<String> = lines.iter().map(|line| steady(line)).collect();
    let mut want = Vec::new();
    for (command, why, reply) in [
        (create("call"), "chosen by weight", &*created),
        (answer("call"), "bound", &*answered),
        (delete("call"), "bound", "0"),
    ] {
        let way = format!("call-id = call, RTPproxy = R1, attempt = 1, why = {why}, text");
        want.push(format!("received, call-id = call, text = {command}"));
        want.push(format!("sent, {way} = {command}"));
        want.push(format!("replied, {way} = {reply}"));
        want.push(format!("answered, {way} = {reply}"));
    }
    assert_eq!(told, want);
    assert!(
        lines.iter().all(|line| line.contains(", client = UNIX process ")),
        "{lines:#?}"
    );
    assert!(
        lines[2].contains(" ms, ") && lines[3].contains(" ms, "),
        "{lines:#?}"
    );
}

#[test]
fn a_failover_from_a_real_member_that_stands_still_is_seen_with_what_is_undone() {
    let place = Place::new();
    let members = ["r1", "r2"].map(|name| RealMember::start(&place, name));
    let listed = [("R1", &members[0]), ("R2", &members[1])]
        .map(|(name, member)| Listed::udp(name, &member.control().to_string()));
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(2, 0);
    let mut calls = Followed::begin(&daemon, "trace C1 *");
    members[0].stop();
    for number in 0.. {
        let call = format!("call-{number}");
        assert!(!client::ask(&daemon.files().control, &create(&call)).starts_with('E'));
        let mut lines = Vec::new();
        while !lines
            .last()
            .is_some_and(|line: &String| line.starts_with("answered"))
        {
            lines.push(calls.line().expect("a line"));
        }
        let has = |words: &str| lines.iter().any(|line| line.contains(words));
        assert!(has(&format!("call-id = {call}, ")), "{lines:#?}");
        if has("RTPproxy = R1, ") {
            assert!(
                has("unanswered, ") && has("attempt = 2") && has("failed over after "),
                "{lines:#?}"
            );
            assert!(
                lines.last().is_some_and(|line| line.contains("RTPproxy = R2, ")),
                "{lines:#?}"
            );
            break;
        }
    }
    members[0].resume();
    let undone = calls.until("why = undone");
    assert!(
        undone.contains("client = rtp_cluster, RTPproxy = R1, "),
        "{undone}"
    );
}

#[test]
fn a_reader_that_does_not_read_loses_lines_and_is_told() {
    let bed = Bed::of(2);
    let mut lazy = Followed::begin(&bed.daemon, "trace C1 *");
    let mut busy = Followed::begin(&bed.daemon, "trace C1 last-one");
    // Six lines of 500 bytes each: more than the buffers of a socket and the queue hold.
    let long = "x".repeat(200);
    for number in 0..1_000 {
        assert_eq!(bed.ask(&format!("Q {long}-{number} from to")), "E50");
    }
    assert_eq!(bed.ask("D last-one from to"), "E50");
    assert!(busy.until("answered").contains("call-id = last-one, "));
    let lost = lazy.until("lost: they came faster than they were read");
    let count: u64 = lost
        .trim_start_matches("… ")
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .expect("a number");
    assert!(count > 0, "{lost}");
    // It goes on.
    bed.ask("Q afterwards from to");
    lazy.until("answered, call-id = afterwards, ");
}

#[test]
fn what_came_out_badly_is_there_when_somebody_asks_later() {
    let bed = Bed::of(1);
    assert_eq!(bed.daemon.admin("trace C1 last"), "OK\n");
    bed.call("good");
    bed.members[0].on("U bad", Fault::Refuse("E7"));
    assert_eq!(bed.ask(&create("bad")), "E7");
    assert_eq!(bed.ask("Z"), "E0");
    let last = bed.daemon.admin("trace C1 last");
    let lines: Vec<String> = last
        .lines()
        .map(|line| steady(line.split_once(' ').map_or(line, |(_, rest)| rest)))
        .collect();
    assert_eq!(
        lines,
        [
            format!(
                "answered, call-id = bad, RTPproxy = M1, attempt = 1, why = chosen by weight, command = {}, text = E7",
                create("bad")
            ),
            "answered, why = by rtp_cluster, command = Z, text = E0".to_owned(),
            "OK".to_owned(),
        ]
    );
    let json = run(
        &bed.daemon.files().admin,
        &["trace", "--json", "C1", "last", "limit=1"],
    );
    let json = out(&json);
    let json: Value = serde_json::from_str(json.lines().next().expect("a line")).expect("a document");
    assert_eq!(
        (&json["step"], &json["command"]),
        (&"answered".into(), &"Z".into())
    );
    assert_eq!(
        bed.daemon.admin("trace Nobody last"),
        "ERROR: Nobody: cluster not found\n"
    );
}

#[test]
fn changes_of_members_clusters_and_the_file_are_told_to_who_watches() {
    let mut bed = Bed::of(2);
    let mut watch = Followed::begin(&bed.daemon, "watch");
    let at = bed.members[0].control();
    let member = format!("member M1 of C1 ({at})");
    bed.daemon.admin_ok("modify C1 suspend M1");
    assert_eq!(watch.line(), Some(format!("{member}: ACTIVE -> SUSPENDED")));
    bed.daemon.admin_ok("modify C1 resume M1");
    assert_eq!(watch.line(), Some(format!("{member}: SUSPENDED -> ACTIVE")));
    bed.daemon.admin_ok("modify C1 set M1 weight=7");
    assert_eq!(watch.line(), Some(format!("{member}: changed")));
    bed.members[0].vanish();
    let line = watch.line().expect("a line");
    assert!(
        line.starts_with(&format!("{member}: online -> offline: ")),
        "{line}"
    );
    bed.members[0].come_back();
    let line = watch.line().expect("a line");
    assert!(
        line.starts_with(&format!("{member}: offline -> online: ")),
        "{line}"
    );
    bed.daemon.admin_ok("modify C1 delete M1 now");
    assert_eq!(watch.line(), Some(format!("{member}: ACTIVE -> gone")));
    bed.daemon.admin_ok("reload");
    assert_eq!(watch.line(), Some(format!("{member}: added")));
    watch.until(&format!("{member}: unknown -> online"));
    assert_eq!(
        watch.until("configuration"),
        "configuration: loaded: 1 clusters, 2 RTPproxies"
    );
    fs::write(&bed.daemon.files().config, "<nothing/>").expect("a file");
    bed.daemon.admin("reload");
    assert!(
        watch
            .until("configuration")
            .starts_with("configuration: refused: ")
    );
    let socket = bed.place.path("c2.sock");
    bed.daemon.admin_ok(&format!(
        "cluster add name=C2,protocol=UNIX,address={}",
        socket.display()
    ));
    assert_eq!(watch.line(), Some("cluster C2: added".to_owned()));
    bed.daemon.admin_ok("cluster delete C2 now");
    assert_eq!(watch.line(), Some("cluster C2: gone".to_owned()));
    let mut json = Followed::begin(&bed.daemon, "watch --json");
    bed.daemon.admin_ok("modify C1 suspend M2");
    let event: Value = serde_json::from_str(&json.line().expect("a line")).expect("a document");
    assert_eq!(
        (&event["member"], &event["old"], &event["new"]),
        (&"M2".into(), &"ACTIVE".into(), &"SUSPENDED".into())
    );
}
