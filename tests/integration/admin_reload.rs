//! The administrator and the file: `reload` as a difference, all or nothing; `diff`, `check` and `save`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::bed::{Bed, answer, create, delete, listed};
use crate::support::client::{self, Datagrams, Kept};
use crate::support::daemon::{Daemon, Listed, cluster, config, config_of};
use crate::support::fake::{FakeMember, Fault};
use crate::support::member::own_address;
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

/// A UNIX cluster element.
fn on_unix(name: &str, socket: &Path, members: &[Listed], extra: &str) -> String {
    cluster(name, "UNIX", &socket.display().to_string(), members, extra)
}

impl Bed {
    /// Writes this as the configuration.
    fn write(&self, text: &str) {
        fs::write(&self.daemon.files().config, text).expect("the configuration can be written");
    }

    /// Writes a configuration of `C1` with these members.
    fn write_members(&self, members: &[Listed], extra: &str) {
        self.write(&config(self.control(), members, extra));
    }
}

/// The number behind `name = ` in a reply, the first one there is.
fn number(reply: &str, name: &str) -> u64 {
    let mut lines = reply.lines().map(str::trim_start);
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")?.parse().ok());
    found.unwrap_or_else(|| panic!("no {name} in {reply:?}"))
}

/// Makes calls with some workers until the end of `meanwhile`: the replies that were no success. What is given to
/// `meanwhile` waits until some more calls have been made, begun after it was asked to.
fn with_calls<T>(socket: &Path, meanwhile: impl FnOnce(&dyn Fn()) -> T) -> (T, Vec<String>) {
    const WORKERS: u64 = 4;
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (stop, made) = (&stop, &made);
                scope.spawn(move || {
                    let mut bad = Vec::new();
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let id = format!("w{worker}-{number}");
                        let replies =
                            [create(&id), answer(&id), delete(&id)].map(|c| client::ask(socket, &c));
                        let [first, second, third] = &replies;
                        // Both halves of a call are at one member, and its end finds it there.
                        let same =
                            first.split_once(' ').map(|(_, a)| a) == second.split_once(' ').map(|(_, a)| a);
                        if first.starts_with('E') || !same || third != "0" {
                            bad.push(format!("{id}: {replies:?}"));
                        }
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    bad
                })
            })
            .collect();
        let result = meanwhile(&|| {
            // One of each worker may have begun before.
            let enough = made.load(Ordering::Relaxed) + 2 * WORKERS;
            wait::until_true("calls", LONG, || made.load(Ordering::Relaxed) >= enough);
        });
        stop.store(true, Ordering::Relaxed);
        let bad = workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker"));
        (result, bad.collect())
    })
}

#[test]
fn what_is_unchanged_keeps_its_calls_and_counters_and_what_is_changed_changes_in_place() {
    let bed = Bed::of(2);
    let calls: Vec<String> = (0..20).map(|n| format!("kept-{n}")).collect();
    let homes: Vec<String> = calls.iter().map(|id| bed.call(id).media()).collect();
    let before = bed.daemon.admin_ok("stats");
    let added = FakeMember::start();
    let mut members = listed(&bed.members);
    members[1].weight = 7;
    members.insert(0, Listed::udp("NEW", &added.control().to_string()));
    bed.write_members(&members, "<health interval=\"500ms\"/>");
    let reply = bed.daemon.admin("reload");
    assert_eq!(reply, "Loaded 1 clusters and 3 RTP proxies\nOK\n");
    bed.daemon.wait_members(3, 0);
    for (id, home) in calls.iter().zip(&homes) {
        assert_eq!(client::media(&bed.ask(&answer(id))).1, home, "{id} has moved");
    }
    let after = bed.daemon.admin_ok("stats");
    for counter in ["commands", "sessions bound", "clients accepted"] {
        assert!(
            number(&after, counter) >= number(&before, counter),
            "{counter}: {before}{after}"
        );
    }
    let listing = bed.daemon.admin_ok("ls -v C1");
    assert!(listing.contains("        weight = 7\n"), "{listing}");
    // In the order of the file.
    let names: Vec<_> = listing
        .lines()
        .filter(|line| line.contains(" name = "))
        .map(str::trim)
        .collect();
    assert_eq!(names, ["name = NEW", "name = M1", "name = M2"]);
    // Neither of the two has been away for a moment.
    assert!(
        !bed.daemon.log().contains("online -> offline"),
        "{}",
        bed.daemon.log()
    );
    assert_eq!(bed.daemon.admin("diff"), "OK\n");
    assert_eq!(
        bed.daemon.admin("reload"),
        "Loaded 1 clusters and 3 RTP proxies\nOK\n"
    );
}

#[test]
fn a_member_that_is_no_longer_in_the_file_drains_and_one_without_calls_goes() {
    let bed = Bed::of(3);
    bed.daemon.admin_ok("modify C1 suspend M2");
    bed.daemon.admin_ok("modify C1 suspend M3");
    assert_eq!(bed.call("call").media(), bed.members[0].media());
    wait::until_true("a count of M2", LONG, || {
        let listing = bed.daemon.admin_ok("ls C1");
        let of_second = listing.split("name = M2\n").nth(1).unwrap_or_default();
        !of_second.lines().take(5).any(|line| line.contains("UNKNOWN"))
    });
    bed.write_members(&listed(&bed.members)[2..], "");
    bed.daemon.admin_ok("reload");
    let listing = bed.daemon.admin_ok("ls C1");
    assert!(
        !listing.contains("name = M2\n"),
        "M2 had nothing to finish: {listing}"
    );
    assert!(listing.contains("status = DRAINING\n"), "{listing}");
    assert_eq!(
        bed.of_reply(&bed.ask(&answer("call"))).media(),
        bed.members[0].media()
    );
    assert_eq!(bed.call("new").media(), bed.members[2].media());
    assert_eq!(bed.ask(&delete("call")), "0");
    bed.daemon.admin_ok("wait C1 M1 gone -t 10");
    bed.daemon.wait_members(1, 0);
}

#[test]
fn a_member_of_another_name_takes_the_calls_to_come_and_the_old_one_ends_its_own() {
    let bed = Bed::of(1);
    bed.call("old");
    let mut members = listed(&bed.members);
    members[0].name = "RENAMED".to_owned();
    bed.write_members(&members, "");
    bed.daemon.admin_ok("reload");
    bed.daemon.admin_ok("wait C1 RENAMED online -t 10");
    let home = |id: &str| {
        bed.daemon
            .admin_ok(&format!("locate C1 {id}"))
            .lines()
            .next()
            .map(str::to_owned)
    };
    bed.call("new");
    assert_eq!(home("new").as_deref(), Some("RTPproxy = RENAMED"));
    assert_eq!(home("old").as_deref(), Some("RTPproxy = M1"));
    assert_ne!(bed.ask(&answer("old")), "0");
    bed.ask(&delete("old"));
    // That the other one has calls at the same RTPproxy is not its business.
    bed.daemon.admin_ok("wait C1 M1 gone -t 10");
    assert_eq!(bed.sessions(), 1);
    assert_eq!(bed.ask(&delete("new")), "0");
}

#[test]
fn new_names_for_all_members_cost_no_call() {
    let bed = Bed::of(2);
    let mut members = listed(&bed.members);
    let (renamed, bad) = with_calls(bed.control(), |more_calls| {
        for round in 0..5 {
            for (number, member) in members.iter_mut().enumerate() {
                member.name = format!("N{round}.{number}");
            }
            bed.write_members(&members, "");
            more_calls();
            bed.daemon.admin_ok("reload");
            more_calls();
        }
        bed.daemon.admin_ok("ls C1").contains("name = N4.1")
    });
    assert!(renamed);
    assert_eq!(bad, Vec::<String>::new());
}

#[test]
fn a_socket_goes_from_one_cluster_to_another_without_a_lost_call() {
    let place = Place::new();
    let (a, b) = (place.path("a.sock"), place.path("b.sock"));
    let members = [FakeMember::start(), FakeMember::start()];
    let listed = listed(&members);
    let of = |first: &Path, second: &Path| {
        config_of(&[
            on_unix("First", first, &listed[..1], ""),
            on_unix("Second", second, &listed[1..], ""),
        ])
    };
    let daemon = Daemon::start(&place, &of(&a, &b));
    wait::until_true("both online", LONG, || {
        daemon.admin("ls").matches(" active members = 1\n").count() == 2
    });
    let at = |socket: &Path, id: &str| client::media(&client::ask(socket, &create(id))).1.to_owned();
    assert_eq!(at(&a, "one"), members[0].media());
    let ((), bad) = with_calls(&a, |more_calls| {
        for (first, second) in [(&b, &a), (&a, &b), (&b, &a)] {
            more_calls();
            fs::write(&daemon.files().config, of(first, second)).expect("a file");
            assert_eq!(
                daemon.admin("reload"),
                "Loaded 2 clusters and 2 RTP proxies\nOK\n"
            );
            assert_eq!(at(first, "x"), members[0].media());
            assert_eq!(at(second, "x"), members[1].media());
        }
    });
    // A call that had begun before its socket changed hands ends at the other cluster, which asks its own members.
    assert!(bad.iter().all(|call| !call.contains("E99")), "{bad:?}");
    assert!(bad.len() <= 3 * 4, "more than were on their way: {bad:?}");
    // The last that has it takes it along.
    assert!(a.exists() && b.exists());
    fs::write(
        &daemon.files().config,
        config_of(&[on_unix("Second", &a, &listed[1..], "")]),
    )
    .expect("a file");
    daemon.admin_ok("reload");
    // Its calls are not over, but enough is enough.
    daemon.admin_ok("cluster delete First now");
    assert!(!daemon.admin_ok("ls").contains("First"));
    assert!(a.exists() && !b.exists());
    assert_eq!(at(&a, "y"), members[1].media());
}

#[test]
fn ports_change_hands_as_well() {
    let place = Place::new();
    let members = [FakeMember::start(), FakeMember::start()];
    let listed = listed(&members);
    let (a, b) = (
        SocketAddr::new(own_address(), 22222),
        SocketAddr::new(own_address(), 22222),
    );
    let of = |protocol: &str, first: SocketAddr, second: SocketAddr| {
        config_of(&[
            cluster("First", protocol, &first.to_string(), &listed[..1], ""),
            cluster("Second", protocol, &second.to_string(), &listed[1..], ""),
        ])
    };
    let daemon = Daemon::start(&place, &of("UDP", a, b));
    wait::until_true("both online", LONG, || {
        daemon.admin("ls").matches(" active members = 1\n").count() == 2
    });
    let datagram = |to: SocketAddr, id: &str| Datagrams::to(to).ask(&format!("cookie{id}"), &create(id));
    let stream = |to: SocketAddr, id: &str| Kept::tcp(to).ask(&create(id));
    for (turn, (protocol, first, second)) in [
        ("UDP", a, b),
        ("UDP", b, a),
        ("TCP", b, a),
        ("TCP", a, b),
        ("UDP", a, b),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&daemon.files().config, of(protocol, first, second)).expect("a file");
        assert_eq!(
            daemon.admin("reload"),
            "Loaded 2 clusters and 2 RTP proxies\nOK\n",
            "{turn}"
        );
        for (at, member) in [(first, &members[0]), (second, &members[1])] {
            let id = format!("{turn}-{at}");
            let reply = if protocol == "UDP" {
                datagram(at, &id)
            } else {
                stream(at, &id)
            };
            assert_eq!(client::media(&reply).1, member.media(), "{turn}: {protocol} {at}");
        }
    }
    assert!(!daemon.log().contains("online -> offline"), "{}", daemon.log());
}

#[test]
fn a_new_cluster_knows_its_members_when_it_takes_its_first_command() {
    let bed = Bed::of(1);
    let (added, silent) = (FakeMember::start(), FakeMember::start());
    silent.on("", Fault::Silent);
    let with = |extra: &str| {
        config(bed.control(), &listed(&bed.members), "").replace("</rtp_cluster_config>", extra)
    };
    for turn in 0..10 {
        let socket = bed.place.path(&format!("new{turn}.sock"));
        let new = on_unix(
            "New",
            &socket,
            &[Listed::udp("N", &added.control().to_string())],
            "",
        );
        bed.write(&with(&(new + "</rtp_cluster_config>")));
        bed.daemon.admin_ok("reload");
        assert_eq!(
            client::media(&client::ask(&socket, &create("first"))).1,
            added.media(),
            "{turn}"
        );
        bed.write(&with("</rtp_cluster_config>"));
        bed.daemon.admin_ok("reload");
        bed.daemon.admin("cluster delete New now");
    }
    // A member that says nothing is not waited for.
    let socket = bed.place.path("silent.sock");
    let new = on_unix(
        "New",
        &socket,
        &[Listed::udp("S", &silent.control().to_string())],
        "",
    );
    bed.write(&with(&(new + "</rtp_cluster_config>")));
    bed.daemon.admin_ok("reload");
    assert_eq!(client::ask(&socket, &create("first")), "E999");
}

#[test]
fn a_cluster_that_is_no_longer_in_the_file_serves_its_calls_to_the_end() {
    let place = Place::new();
    let (a, b) = (place.path("a.sock"), place.path("b.sock"));
    let members = [FakeMember::start(), FakeMember::start()];
    let listed = listed(&members);
    let both = [
        on_unix("Stays", &a, &listed[..1], ""),
        on_unix("Goes", &b, &listed[1..], ""),
    ];
    let daemon = Daemon::start(&place, &config_of(&both));
    wait::until_true("both online", LONG, || {
        daemon.admin("ls").matches(" active members = 1\n").count() == 2
    });
    let create = |id: &str| client::ask(&b, &create(id));
    assert_ne!(create("call"), "E999");
    fs::write(&daemon.files().config, config_of(&both[..1])).expect("a file");
    assert_eq!(
        daemon.admin("reload"),
        "Loaded 1 clusters and 1 RTP proxies\nOK\n"
    );
    // No new call, but this one goes on; nobody may add to it.
    assert_eq!(create("new"), "E999");
    assert_eq!(
        client::media(&client::ask(&b, &answer("call"))).1,
        members[1].media()
    );
    let refused = daemon.admin("modify Goes resume M2");
    assert!(
        refused.starts_with("ERROR: Goes: the cluster is being deleted: "),
        "{refused}"
    );
    assert!(daemon.admin_ok("ls -v").contains("    state = draining\n"));
    assert_eq!(daemon.admin("diff"), "OK\n");
    // The file has it again: as if nothing had been.
    fs::write(&daemon.files().config, config_of(&both)).expect("a file");
    daemon.admin_ok("reload");
    assert_ne!(create("again"), "E999");
    fs::write(&daemon.files().config, config_of(&both[..1])).expect("a file");
    daemon.admin_ok("reload");
    for id in ["call", "again"] {
        assert_eq!(client::ask(&b, &delete(id)), "0");
    }
    wait::until_true("it has closed", LONG, || !daemon.admin("ls").contains("Goes"));
    assert!(!b.exists(), "its socket is still there");
    assert!(daemon.log().contains("cluster Goes: closed"), "{}", daemon.log());
}

#[test]
fn what_cannot_be_had_is_found_out_before_anything_changes() {
    let bed = Bed::of(1);
    let call = "call";
    bed.call(call);
    let listing = bed.daemon.admin_ok("ls C1");
    let log = bed.daemon.log();
    let other = UnixListener::bind(bed.place.path("other.sock")).expect("a socket");
    let fresh = bed.place.path("fresh.sock");
    let mut members = listed(&bed.members);
    members[0].weight = 1;
    let changed = on_unix("C1", bed.control(), &members, "");
    let nobody = Listed::udp("FAR", "127.0.0.1:9");
    let from_far = "<rtpproxy><name>F</name><protocol>UDP</protocol><address>127.0.0.1:9</address><weight>1</weight>\
                    <capacity>1</capacity><cmd_out_address>192.0.2.1</cmd_out_address></rtpproxy>";
    for (clusters, wrong) in [
        // Somebody else's socket, and one in a directory that is not there.
        (
            vec![
                changed.clone(),
                on_unix("C2", &fresh, &[], ""),
                on_unix("C3", &bed.place.path("other.sock"), &[], ""),
            ],
            "other.sock",
        ),
        (
            vec![
                changed.clone(),
                on_unix("C2", &fresh, &[nobody], ""),
                on_unix("C3", &bed.place.path("no/c.sock"), &[], ""),
            ],
            "no/c.sock",
        ),
        // A source address that this machine has not: of a member of a new cluster, and of one of an old one.
        (
            vec![changed.clone(), on_unix("C2", &fresh, &[], from_far)],
            "member F (127.0.0.1:9)",
        ),
        (
            vec![
                on_unix("C1", bed.control(), &members, from_far),
                on_unix("C2", &fresh, &[], ""),
            ],
            "member F (127.0.0.1:9)",
        ),
        // An owner that does not exist.
        (
            vec![
                changed.clone(),
                on_unix("C2", &fresh, &[], "<socket owner=\"nobody-of-this-name\"/>"),
            ],
            "nobody-of-this-name",
        ),
    ] {
        bed.write(&config_of(&clusters));
        let reply = bed.daemon.admin("reload");
        let last = reply.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("ERROR: ") && last.contains(wrong),
            "{wrong}: {reply:?}"
        );
        assert_eq!(bed.daemon.admin_ok("ls C1"), listing, "{wrong}");
        assert!(!bed.daemon.admin_ok("ls").contains("#1"), "{wrong}");
        assert!(!fresh.exists(), "{wrong}: a socket was left");
    }
    drop(other);
    assert!(
        !bed.daemon.log()[log.len()..].contains("reload: cluster "),
        "told of changes that were not made"
    );
    assert_ne!(bed.ask(&answer(call)), "0");
    // With the reason gone the same file is taken.
    fs::remove_file(bed.place.path("other.sock")).expect("a socket file");
    bed.write(&config_of(&[
        changed,
        on_unix("C3", &bed.place.path("other.sock"), &[], ""),
    ]));
    assert_eq!(
        bed.daemon.admin("reload"),
        "Loaded 2 clusters and 1 RTP proxies\nOK\n"
    );
}

#[test]
fn a_broken_file_is_told_with_its_places_and_changes_nothing() {
    let bed = Bed::of(1);
    let before = bed.daemon.admin_ok("ls C1");
    let file = bed.daemon.files().config.display().to_string();
    let text = config(bed.control(), &listed(&bed.members), "").replace("<weight>100<", "<weight>1e3<");
    let line = text
        .lines()
        .position(|line| line.contains("1e3"))
        .expect("the line")
        + 1;
    bed.write(&text.replace("<capacity>1000000<", "<capacity>0<"));
    let reply = bed.daemon.admin("reload");
    let lines: Vec<_> = reply.lines().collect();
    assert_eq!(lines.len(), 2, "both faults: {reply}");
    assert!(
        lines[0].starts_with(&format!("{file}:{line}:")) && lines[0].contains("capacity"),
        "{reply}"
    );
    assert!(lines[1].starts_with(&format!("ERROR: {file}:{line}:")), "{reply}");
    assert!(
        lines[1].contains("weight") && lines[1].contains("\"1e3\"") && lines[1].contains("65535"),
        "{reply}"
    );
    let checked = bed.daemon.admin(&format!("check {file}"));
    assert_eq!(checked, reply);
    assert!(bed.daemon.admin("diff").contains("ERROR: "));
    for broken in [
        "",
        "<rtp_cluster_config><rtp_cluster>",
        "\u{0}",
        "<rtp_cluster_config/><rtp_cluster_config/>",
    ] {
        bed.write(broken);
        let reply = bed.daemon.admin("reload");
        assert!(
            reply.starts_with(&format!("ERROR: {file}:")),
            "{broken:?}: {reply}"
        );
    }
    fs::remove_file(&file).expect("the file");
    // What is no file is told at once, and a pipe is not waited for.
    for make in [
        format!("mkdir {file}"),
        format!("rmdir {file}; mkfifo {file}"),
        format!("rm {file}; head -c 5000000 /dev/zero >{file}"),
        format!("rm {file}; printf '<rtp_cluster_config>\\377</rtp_cluster_config>' >{file}"),
    ] {
        let made = Command::new("sh").args(["-c", &make]).status().expect("sh");
        assert!(made.success(), "{make}");
        let reply = bed.daemon.admin("reload");
        assert!(reply.starts_with(&format!("ERROR: {file}:")), "{make}: {reply}");
    }
    fs::remove_file(&file).expect("the file");
    assert!(
        bed.daemon
            .admin("reload")
            .starts_with(&format!("ERROR: {file}: "))
    );
    assert_eq!(bed.daemon.admin_ok("ls C1"), before);
}

#[test]
fn the_file_wins_over_unsaved_changes_and_the_log_says_which() {
    let bed = Bed::of(3);
    let extra = FakeMember::start();
    for change in [
        "modify C1 set M1 weight=7".to_owned(),
        "modify C1 set M2 weight=8".to_owned(),
        "modify C1 suspend M2".to_owned(),
        "modify C1 delete M3 now".to_owned(),
        format!(
            "modify C1 add name=X,protocol=udp,address={},weight=1,capacity=1",
            extra.control()
        ),
    ] {
        bed.daemon.admin_ok(&change);
    }
    // The file has been given one of these changes.
    let mut members = listed(&bed.members);
    members[1].weight = 8;
    bed.write_members(&members, "");
    let differences = [
        "cluster C1, member M1: weight: 7 running, 100 in the file",
        "cluster C1, member M2: status: SUSPENDED running, ACTIVE in the file",
        "cluster C1, member M3: only in the file",
        "cluster C1, member X: only running",
    ];
    assert_eq!(bed.daemon.admin("diff"), differences.join("\n") + "\nOK\n");
    let json = bed.daemon.admin_ok("diff --json");
    let json: serde_json::Value =
        serde_json::from_str(json.lines().next().expect("a document")).expect("JSON");
    assert_eq!(json["differences"], serde_json::json!(differences));
    bed.daemon.admin_ok("reload");
    let log = bed.daemon.log();
    for line in differences {
        assert!(
            log.contains(&format!("unsaved change undone by the file: {line}\n")),
            "{line}: {log}"
        );
    }
    assert!(
        !log.contains("undone by the file: cluster C1, member M2: weight"),
        "{log}"
    );
    assert_eq!(bed.daemon.admin("diff"), "OK\n");
    bed.daemon.wait_members(3, 0);
}

#[test]
fn owner_and_mode_of_a_socket_change_in_place() {
    let bed = Bed::of(1);
    let mode = || fs::metadata(bed.control()).expect("the socket").mode() & 0o7777;
    let inode = || fs::metadata(bed.control()).expect("the socket").ino();
    let first = inode();
    assert_eq!(mode(), 0o660);
    let ((), bad) = with_calls(bed.control(), |more_calls| {
        for wanted in [0o600, 0o666, 0o622] {
            more_calls();
            bed.write_members(&listed(&bed.members), &format!("<socket mode=\"{wanted:04o}\"/>"));
            bed.daemon.admin_ok("reload");
            assert_eq!((mode(), inode()), (wanted, first));
        }
        bed.write_members(&listed(&bed.members), "");
        bed.daemon.admin_ok("reload");
        assert_eq!((mode(), inode()), (0o660, first));
    });
    assert_eq!(bad, Vec::<String>::new());
}

#[test]
fn another_source_address_or_status_costs_no_call_and_forgets_none() {
    let bed = Bed::of(2);
    let kept: Vec<String> = (0..20).map(|n| format!("kept-{n}")).collect();
    let homes: Vec<String> = kept.iter().map(|id| bed.call(id).media()).collect();
    let ((), bad) = with_calls(bed.control(), |more_calls| {
        for turn in 0..20 {
            more_calls();
            bed.daemon.admin_ok(&format!(
                "modify C1 set M1 cmd_out_address=127.0.0.{}",
                turn % 5 + 1
            ));
            bed.daemon.admin_ok(&format!(
                "modify C1 set M2 weight={},capacity={}",
                turn + 1,
                1_000 + turn
            ));
        }
        bed.daemon.admin_ok("modify C1 set M1 cmd_out_address=");
    });
    assert_eq!(bad, Vec::<String>::new());
    for (id, home) in kept.iter().zip(&homes) {
        assert_eq!(client::media(&bed.ask(&answer(id))).1, home, "{id} has moved");
    }
    assert!(
        !bed.daemon.log().contains("online -> offline"),
        "{}",
        bed.daemon.log()
    );
}

#[test]
fn a_storm_of_hups_costs_one_reload_a_second_no_call_and_the_last_file_wins() {
    let bed = Bed::of(2);
    let mut members = listed(&bed.members);
    let reloads = || bed.daemon.log().matches("reload: Loaded ").count();
    let start = Instant::now();
    let (weight, bad) = with_calls(bed.control(), |more_calls| {
        let mut weight = 0;
        while start.elapsed() < Duration::from_secs(3) {
            weight += 1;
            members[0].weight = weight;
            // As an editor saves: whole, under another name first.
            let text = config(bed.control(), &members, "");
            let new = bed.place.write("new.xml", text);
            fs::rename(new, &bed.daemon.files().config).expect("the configuration");
            for _ in 0..10 {
                bed.daemon.signal(Signal::HUP);
            }
            more_calls();
        }
        weight
    });
    let last = format!("        weight = {weight}\n");
    wait::until_true("the last file", LONG, || {
        bed.daemon.admin_ok("ls C1").contains(&last)
    });
    let count = reloads() as u64;
    let most = start.elapsed().as_secs() + 1;
    assert!(
        (1..=most).contains(&count),
        "{count} reloads in {:?}",
        start.elapsed()
    );
    assert_eq!(bad, Vec::<String>::new());
}

#[test]
fn a_save_keeps_owner_mode_and_the_old_file_and_loads_back_to_the_same_state() {
    let bed = Bed::of(2);
    let file = bed.daemon.files().config.clone();
    let old = fs::read(&file).expect("the configuration");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).expect("a mode");
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        chown(&file, Some(1), Some(2)).expect("an owner");
    }
    let added = FakeMember::start();
    let odd = "o'dd<&>\"é";
    for change in [
        format!(
            "modify C1 add name={odd},protocol=udp,address={},weight=3,capacity=4,status=suspended,wan_address=203.0.113.4,\
             lan_address=2001:db8::1",
            added.control()
        ),
        "modify C1 set M2 weight=0,capacity=77".to_owned(),
        format!(
            "cluster add name=Other,protocol=unix,address={},capacity_limit=hard",
            bed.place.path("o&<.sock").display()
        ),
        // What is on its way out is not saved.
        "modify C1 delete M1".to_owned(),
    ] {
        bed.daemon.admin_ok(&change);
    }
    bed.daemon.admin_ok(&format!("wait C1 {odd} online -t 10"));
    bed.daemon.admin_ok("wait C1 M1 gone -t 10");
    wait::until_true("counts", LONG, || {
        !bed.daemon.admin_ok("ls C1").contains("UNKNOWN")
    });
    let show = || ["ls", "ls C1", "ls Other"].map(|command| bed.daemon.admin_ok(command));
    let before = show();
    assert_eq!(
        bed.daemon.admin("save"),
        format!("Saved 2 clusters and 2 RTP proxies to {}\nOK\n", file.display())
    );
    let rights = |path: &Path| {
        let meta = fs::metadata(path).expect("a file");
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    let bak = bed.place.path("rtp_cluster.xml.bak");
    assert_eq!(fs::read(&bak).expect("the old file"), old);
    assert_eq!(rights(&file).2, 0o604);
    assert_eq!(rights(&bak), rights(&file));
    if is_root {
        assert_eq!(rights(&file), (1, 2, 0o604));
    }
    assert_eq!(bed.daemon.admin("diff"), "OK\n");
    assert_eq!(
        bed.daemon.admin("reload"),
        "Loaded 2 clusters and 2 RTP proxies\nOK\n"
    );
    assert_eq!(show(), before);
    let mut bed = bed;
    bed.daemon.signal(Signal::TERM);
    bed.daemon.wait_end(LONG);
    bed.daemon.restart();
    let listing = &before;
    wait::until_true("the same state after a restart", LONG, || {
        ["ls", "ls C1", "ls Other"].map(|command| bed.daemon.admin_ok(command)) == *listing
    });
}

#[test]
fn a_file_that_somebody_else_has_changed_is_not_overwritten() {
    let bed = Bed::of(1);
    let file = bed.daemon.files().config.clone();
    bed.daemon.admin_ok("modify C1 set M1 weight=7");
    let mut members = listed(&bed.members);
    members[0].weight = 50;
    bed.write_members(&members, "");
    let edited = fs::read(&file).expect("the configuration");
    assert_eq!(
        bed.daemon.admin("save"),
        format!(
            "cluster C1, member M1: weight: 7 running, 50 in the file\n\
             ERROR: {}: has changed since it was read: want save --force to write it all the same\n",
            file.display()
        )
    );
    assert_eq!(fs::read(&file).expect("the configuration"), edited);
    let copy = bed.place.path("copy.xml");
    bed.daemon.admin_ok(&format!("save {}", copy.display()));
    let again = bed.daemon.admin(&format!("save {}", copy.display()));
    assert!(again.contains(": exists: want save --force"), "{again}");
    assert_eq!(
        bed.daemon.admin(&format!("check {}", copy.display())),
        "1 clusters and 1 RTP proxies\nOK\n"
    );
    bed.daemon.admin_ok("save --force");
    assert_eq!(
        fs::read(bed.place.path("rtp_cluster.xml.bak")).expect("the old file"),
        edited
    );
    assert_eq!(
        fs::read(&file).expect("the file"),
        fs::read(&copy).expect("the copy")
    );
    // It knows the file now.
    bed.daemon.admin_ok("save");
    let nowhere = bed
        .daemon
        .admin(&format!("save {}", bed.place.path("no/x.xml").display()));
    assert!(
        nowhere.starts_with("ERROR: ") && nowhere.contains("no/x.xml: cannot write: "),
        "{nowhere}"
    );
}
