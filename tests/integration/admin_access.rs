//! Who may do what on the admin sockets, and what a client may do to them: rights, the read-only socket, the log of
//! changes; bounds, halves, crowds and silence.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, geteuid, prlimit};

use crate::support::bed::Bed;
use crate::support::daemon::{Apart, Daemon, Files, cluster, config, config_of};
use crate::support::fake::Fault;
use crate::support::member;
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

/// A connection to an admin socket.
struct Admin(BufReader<UnixStream>);

impl Admin {
    fn at(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        stream.set_read_timeout(Some(LONG)).expect("a time-out");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("it is open");
    }

    /// One whole reply.
    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            let length = self.0.read_line(&mut reply).expect("a line");
            assert!(length > 0, "closed after {reply:?}");
            if reply[start..] == *"OK\n" || reply[start..].starts_with("ERROR:") {
                return reply;
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n"));
        self.reply()
    }

    /// Everything until the other side closes.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).expect("text");
        rest
    }
}

#[test]
fn the_read_only_socket_answers_what_reads_and_refuses_what_changes() {
    let place = Place::new();
    let socket = place.path("watch.sock");
    let bed = Bed::with(1, "", &["-r", &socket.display().to_string()]);
    let file = bed.daemon.files().config.display().to_string();
    bed.call("a-call");
    let before = bed.daemon.admin_ok("ls -v");
    let mut watch = Admin::at(&socket);
    for command in [
        "ls",
        "ls C1",
        "ls -v",
        "ls -v C1",
        "ls --json",
        "sessions C1",
        "sessions --json C1",
        "locate C1 a-call",
        "diff",
        "wait C1 M1 online",
        "stats",
        "stats --json",
        "stats --prometheus",
        "version",
        "help",
        &format!("check {file}"),
    ] {
        let reply = watch.ask(command);
        assert!(reply.ends_with("OK\n"), "{command}: {reply}");
    }
    for command in [
        "modify C1 add name=X,protocol=udp,address=127.0.0.1:9,capacity=1,weight=1",
        "modify C1 delete M1",
        "modify C1 delete M1 now",
        "modify C1 suspend M1",
        "MODIFY C1 Resume M1",
        "modify C1 set M1 weight=1",
        "cluster add name=X,protocol=unix,address=/tmp/x.sock",
        "cluster delete C1",
        "reload",
        "save",
        "save --force",
    ] {
        let reply = watch.ask(command);
        assert!(
            reply.starts_with("ERROR: ") && reply.ends_with(": not on the read-only socket\n"),
            "{command}: {reply}"
        );
        assert_eq!(reply.lines().count(), 1, "{command}: {reply}");
    }
    // Nor is it a way to look into other files.
    let peek = watch.ask("check /etc/shadow");
    assert_eq!(
        peek,
        format!("ERROR: check: want {file} on the read-only socket\n")
    );
    let count = |listing: &str| listing.lines().filter(|line| !line.contains("clients")).count();
    assert_eq!(count(&bed.daemon.admin_ok("ls -v")), count(&before));
    assert!(bed.daemon.admin_ok("ls C1").contains("status = ACTIVE"));
    // A refusal is logged as well, since somebody has tried; but that is no way to fill a disk.
    for _ in 0..3_000 {
        watch.send("save\n");
        watch.reply();
    }
    let log = bed.daemon.log();
    assert_eq!(log.matches("not on the read-only socket").count(), 1, "{log}");
    let first = "modify C1 add name=X,protocol=udp,address=127.0.0.1:9,capacity=1,weight=1: ERROR: modify add: not on";
    assert!(log.contains(first), "{log}");
}

#[test]
fn every_change_is_logged_with_who_made_it() {
    let bed = Bed::of(1);
    let uid = geteuid().as_raw();
    let us = format!("admin: uid {uid}, pid {}: ", process::id());
    for command in [
        "modify C1 set M1 weight=7",
        "modify C1 suspend Nobody",
        "reload",
        "save",
    ] {
        bed.daemon.admin(command);
    }
    bed.daemon.admin_ok("ls");
    let log = bed.daemon.log();
    for line in [
        "modify C1 set M1 weight=7: OK",
        "modify C1 suspend Nobody: ERROR: Nobody: RTPproxy not found",
        "reload: OK",
        "save: OK",
    ] {
        assert!(log.contains(&format!("{us}{line}\n")), "{us}{line}: {log}");
    }
    assert!(
        !log.contains(&format!("{us}ls")),
        "what reads is not logged: {log}"
    );
    // Another process, another line; a name that would be a second line is none.
    let admin = bed.daemon.files().admin.display().to_string();
    let mut socat = Command::new("socat")
        .args(["-t5", "-", &format!("UNIX-CONNECT:{admin}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("socat");
    let pid = socat.id();
    let mut stdin = socat.stdin.take().expect("a pipe");
    stdin.write_all(b"modify C1 resume M1\n").expect("socat reads");
    drop(stdin);
    socat.wait().expect("socat");
    let line = format!("admin: uid {uid}, pid {pid}: modify C1 resume M1: OK\n");
    assert!(bed.daemon.log().contains(&line), "{line}: {}", bed.daemon.log());
}

#[test]
fn admin_sockets_are_for_their_owner_and_group_unless_told_otherwise() {
    let mode = |path: &Path| fs::metadata(path).expect("a socket").mode() & 0o7777;
    let bed = Bed::of(1);
    assert_eq!(mode(&bed.daemon.files().admin), 0o660);
    let bed = Bed::with(1, "", &["--admin-mode", "0600"]);
    assert_eq!(mode(&bed.daemon.files().admin), 0o600);
    if !geteuid().is_root() {
        return;
    }
    // File rights decide: nobody is refused by the kernel, and let in where the owner says so.
    let connects = |bed: &Bed| {
        fs::set_permissions(bed.place.dir(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let client = bed.place.path("client");
        if !client.exists() {
            fs::copy(env!("CARGO_BIN_EXE_rtp_cluster_client"), &client).expect("a copy that all may run");
        }
        let mut command = Command::new(client);
        command
            .arg("-s")
            .arg(&bed.daemon.files().admin)
            .args(["modify", "C1", "set", "M1", "weight=7"])
            .uid(65534)
            .gid(65534);
        command.output().expect("the client")
    };
    let refused = connects(&bed);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("admin.sock") && said.contains("ermission denied"),
        "{said}"
    );
    assert!(bed.daemon.admin_ok("ls C1").contains("weight = 100\n"));
    let bed = Bed::with(1, "", &["--admin-owner", "nobody"]);
    assert_eq!(connects(&bed).status.code(), Some(0));
    // The log knows whose the change was.
    let log = bed.daemon.log();
    let line = log
        .lines()
        .find(|line| line.ends_with(": modify C1 set M1 weight=7: OK"));
    assert!(
        line.is_some_and(|line| line.contains("admin: uid 65534, pid ")),
        "{log}"
    );
}

#[test]
fn commands_come_in_any_pieces_and_any_number() {
    let bed = Bed::of(1);
    let list = bed.daemon.admin_ok("ls");
    let mut admin = Admin::at(&bed.daemon.files().admin);
    // In one write; over many; with either end; in any case; with blanks around.
    admin.send("ls\r\nLS\n  ls  \n\n\r\nLs Nobody\nversion\r\n");
    for _ in 0..3 {
        assert_eq!(admin.reply(), list);
    }
    assert_eq!(admin.reply(), "ERROR: Nobody: cluster not found\n");
    assert!(admin.reply().starts_with("rtp_cluster "));
    for byte in b"modify C1 set M1 weight=7\r\n" {
        admin.send([*byte]);
    }
    assert_eq!(admin.reply(), "OK\n");
    // A thousand, then silence from here on: all are answered.
    admin.send("ls\n".repeat(1_000));
    admin.0.get_ref().shutdown(Shutdown::Write).expect("it is open");
    let rest = admin.rest();
    assert_eq!(rest.matches("OK\n").count(), 1_000);
    assert_eq!(rest.len(), list.len() * 1_000);
}

#[test]
fn a_line_beyond_the_bound_is_refused_whole() {
    let bed = Bed::of(1);
    let before = bed.daemon.admin_ok("ls C1");
    let mut admin = Admin::at(&bed.daemon.files().admin);
    let pairs = (0..10_000)
        .map(|n| format!("key{n}=value"))
        .collect::<Vec<_>>()
        .join(",");
    assert!(pairs.len() > 65_536);
    assert_eq!(
        admin.ask(&format!("modify C1 add {pairs}")),
        "ERROR: the line is too long: want at most 65536 bytes\n"
    );
    let pairs = vec!["a=1"; 10_000].join(",");
    assert_eq!(
        admin.ask(&format!("modify C1 add {pairs}")),
        "ERROR: modify add: 10000 pairs: want at most 32\n"
    );
    // The longest line there may be, and no text at all.
    let name = "x".repeat(65_536 - 3);
    let reply = admin.ask(&format!("ls {name}"));
    assert!(reply.starts_with("ERROR: xxx") && reply.ends_with("x: cluster not found\n"));
    for noise in [&b"ls \x00\n"[..], b"ls \xfe\xff\n", b"ls \x1b[2J\n"] {
        admin.send(noise);
        assert!(admin.reply().starts_with("ERROR: the line is no text: "));
    }
    assert_eq!(admin.ask("ls C1"), before);
    // A line without end costs no memory, and its sender alone.
    let mut endless = Admin::at(&bed.daemon.files().admin);
    for _ in 0..64 {
        endless.send(vec![b'x'; 65_536]);
    }
    assert_eq!(admin.ask("ls C1"), before);
    let status = fs::read_to_string(format!("/proc/{}/status", bed.daemon.pid())).expect("it lives");
    let kib: u64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .expect("a number");
    assert!(kib < 200 * 1024, "{kib} KiB");
}

#[test]
fn a_full_house_lets_the_administrator_in() {
    let bed = Bed::of(1);
    let admin = bed.daemon.files().admin.clone();
    // Twice as many as there are places, and more, all in the middle of a line.
    let mut crowd: Vec<Admin> = (0..200)
        .map(|_| {
            let mut half = Admin::at(&admin);
            // It may have been shown out already.
            let _ = half.0.get_mut().write_all(b"modify C1 susp");
            half
        })
        .collect();
    let mut inside = Admin::at(&admin);
    for _ in 0..3 {
        let client = Command::new(env!("CARGO_BIN_EXE_rtp_cluster_client"))
            .arg("-s")
            .arg(&admin)
            .arg("ls")
            .output()
            .expect("the client");
        assert_eq!(client.status.code(), Some(0));
        assert!(inside.ask("ls C1").ends_with("OK\n"));
    }
    let mut told = Vec::new();
    let _ = crowd[0].0.read_to_end(&mut told);
    assert_eq!(
        String::from_utf8_lossy(&told),
        "ERROR: all admin connections are taken, and this one has been idle longest: closed\n"
    );
}

/// Clients of a control socket take every descriptor that they may.
#[test]
fn the_administrator_has_descriptors_of_his_own() {
    let bed = Bed::of(1);
    let pid = i32::try_from(bed.daemon.pid()).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current: Some(64),
        maximum: Some(4_096),
    };
    prlimit(pid, Resource::Nofile, limit).expect("a limit of our own child");
    let crowd: Vec<UnixStream> = (0..500)
        .map(|_| UnixStream::connect(bed.control()).expect("the system accepts for it"))
        .collect();
    wait::until_true("no more clients are let in", LONG, || {
        bed.daemon
            .log()
            .contains("accepting pauses: few descriptors are left")
    });
    for _ in 0..20 {
        assert!(bed.daemon.admin_ok("ls C1").contains("name = M1"));
    }
    // More administrators at once than there are descriptors kept back.
    let mut many: Vec<Admin> = (0..8).map(|_| Admin::at(&bed.daemon.files().admin)).collect();
    assert!(many.pop().expect("the last").ask("ls").ends_with("OK\n"));
    // Nobody had to wait until it was tried again.
    assert!(
        !bed.daemon.log().contains("admin: accept"),
        "{}",
        bed.daemon.log()
    );
    drop(crowd);
}

#[test]
fn a_silent_name_server_keeps_no_administrator_waiting_for_long() {
    let place = Place::new();
    let at = member::own_address();
    let Ok(server) = UdpSocket::bind((at, 53)) else {
        println!("nobody but root is a name server");
        return;
    };
    server.set_read_timeout(Some(LONG)).expect("a time-out");
    let resolver = place.path("resolv.conf");
    fs::write(
        &resolver,
        format!("nameserver {at}\noptions timeout:30 attempts:2\n"),
    )
    .expect("a file");
    let files = Files::in_place(&place);
    let Some(daemon) = Daemon::start_apart(
        &place,
        &config(&files.control, &[], ""),
        Apart::with_file(&resolver, "/etc/resolv.conf"),
    ) else {
        println!("the resolver cannot be changed for one process here: that wants mount namespaces");
        return;
    };
    let moved = cluster("C1", "UDP", "control.test:22222", &[], "");
    fs::write(&files.config, config_of(&[moved])).expect("it can be written");
    let mut waits = Admin::at(&files.admin);
    waits.send("reload\n");
    server.recv(&mut [0; 512]).expect("the name is looked up");
    // The resolver goes on asking for longer than these wait.
    daemon.admin_ok("ls");
    let reply = waits.reply();
    assert!(
        reply.contains("control.test:22222: the name server did not answer"),
        "{reply}"
    );
}

#[test]
fn an_idle_session_stays_and_reads_what_it_likes_when_it_likes() {
    let bed = Bed::of(1);
    let mut idle = Admin::at(&bed.daemon.files().admin);
    assert!(idle.ask("ls").ends_with("OK\n"));
    // Somebody reads nothing of very much, and nobody is held up by it.
    let mut lazy = Admin::at(&bed.daemon.files().admin);
    lazy.send("help\n".repeat(20_000));
    lazy.0.get_ref().shutdown(Shutdown::Write).expect("it is open");
    for _ in 0..100 {
        assert!(bed.daemon.admin_ok("ls").ends_with("OK\n"));
        bed.call("beside");
    }
    assert!(idle.ask("ls").ends_with("OK\n"));
    assert_eq!(lazy.rest().matches("OK\n").count(), 20_000);
}

#[test]
fn who_waits_is_answered_when_it_is_so_and_holds_nobody_up() {
    let bed = Bed::of(2);
    let admin = bed.daemon.files().admin.clone();
    let waiter = |command: &'static str| {
        let mut waiter = Admin::at(&admin);
        thread::spawn(move || waiter.ask(command))
    };
    let gone = waiter("wait C1 M1 gone");
    let offline = waiter("wait C1 M2 OFFLINE -T 10");
    let cluster = waiter("wait C1 M2 gone -t 14");
    assert_eq!(bed.daemon.admin("wait C1 M1 online -t 0"), "OK\n");
    assert_eq!(
        bed.daemon.admin("wait C1 M1 offline -t 0.2"),
        "ERROR: M1: not offline after 0.2 s\n"
    );
    assert_eq!(bed.daemon.admin("wait C1 Nobody gone"), "OK\n");
    assert_eq!(
        bed.daemon.admin("wait C1 Nobody online"),
        "ERROR: Nobody: RTPproxy not found\n"
    );
    assert_eq!(
        bed.daemon.admin("wait Nobody M1 gone"),
        "ERROR: Nobody: cluster not found\n"
    );
    bed.daemon.admin_ok("modify C1 delete M1 now");
    assert_eq!(gone.join().expect("a client"), "OK\n");
    bed.members[1].on("", Fault::Silent);
    assert_eq!(offline.join().expect("a client"), "OK\n");
    bed.daemon.admin_ok("cluster delete C1 now");
    assert_eq!(cluster.join().expect("a client"), "OK\n");
}
