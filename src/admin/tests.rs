//! Stories of the admin thread: clients on two sockets of it, over a fake server.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use super::admin_thread::{AdminDoor, AdminHandle, start, start_with};
use super::fake::{Fake, Place, cluster, event, member, traced};
use super::limits::Limits;
use super::lines::LINE_MAX;
use super::places::{CONNECTIONS_MAX, READ_ONLY_CONNECTIONS_MAX};
use super::render_news::News;
use super::reply::is_last;
use crate::rim;
use crate::rim::feed::QUEUE_MAX;

const LONG: Duration = Duration::from_secs(30);

/// An admin thread with two doors over a fake server.
struct Bed {
    place: Place,
    fake: Arc<Fake>,
    handle: Option<AdminHandle>,
}

impl Bed {
    fn new() -> Self {
        Self::with(Fake::of_the_manual(), Limits::default())
    }

    fn with(fake: Fake, limits: Limits) -> Self {
        let place = Place::new();
        let door = |name, read_only| AdminDoor {
            listener: UnixListener::bind(place.path(name)).unwrap(),
            read_only,
        };
        let fake = Arc::new(fake);
        let doors = vec![door("admin", false), door("watch", true)];
        let handle = start_with(doors, Arc::<Fake>::clone(&fake), limits).unwrap();
        Self {
            place,
            fake,
            handle: Some(handle),
        }
    }

    fn path(&self) -> PathBuf {
        self.place.path("admin")
    }

    fn client(&self) -> Client {
        Client::at(&self.path())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.handle.take().unwrap().stop();
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn at(path: &PathBuf) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_write_timeout(Some(LONG)).unwrap();
        Self(BufReader::new(socket))
    }

    fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(text.as_ref()).unwrap();
    }

    fn send_no_more(&mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// One line, with its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// One whole reply.
    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            assert!(
                self.0.read_line(&mut reply).unwrap() > 0,
                "closed after {reply:?}"
            );
            if is_last(reply[start..].trim_end()) {
                return reply;
            }
        }
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.reply()
    }

    /// All until it is closed; a reset says that it was closed too.
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
            _ => String::from_utf8(rest).unwrap(),
        }
    }
}

#[test]
fn commands_come_several_in_a_write_and_end_in_either_way() {
    let bed = Bed::new();
    let mut client = bed.client();
    client.send("VERSION\r\nls Nobody\n\r\n\nversion\nq\n");
    let version = format!("rtp_cluster {}\nOK\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        client.rest(),
        format!("{version}ERROR: Nobody: cluster not found\n{version}")
    );
}

#[test]
fn who_has_sent_all_gets_all_replies_and_is_closed() {
    let bed = Bed::new();
    let mut client = bed.client();
    client.send("version\n".repeat(1_000));
    client.send_no_more();
    let version = format!("rtp_cluster {}\nOK\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(client.rest(), version.repeat(1_000));
}

#[test]
fn a_last_line_that_was_cut_off_is_not_carried_out() {
    let bed = Bed::new();
    let mut client = bed.client();
    client.send("modify Supercluster#1 suspend RTPPROXY1\nmodify Supercluster#1 delete RTPPROXY1");
    client.send_no_more();
    assert_eq!(
        client.rest(),
        "OK\nERROR: the last line has no line end and was not carried out\n"
    );
    assert_eq!(*bed.fake.changes.lock(), ["suspend RTPPROXY1"]);
}

#[test]
fn who_leaves_without_reading_is_still_obeyed() {
    let bed = Bed::new();
    let mut client = bed.client();
    client.send("ls\nmodify Supercluster#1 suspend RTPPROXY1\nmodify Supercluster#1 delete RTPPROXY2\n");
    drop(client);
    // Asked until seen: the other one is served when it is its turn.
    let mut other = bed.client();
    let until = rim::now() + LONG;
    while !other.ask("ls Supercluster#1").contains("DRAINING") {
        assert!(rim::now() < until, "{:?}", bed.fake.changes.lock());
    }
    assert_eq!(
        *bed.fake.changes.lock(),
        ["suspend RTPPROXY1", "delete RTPPROXY2 false"]
    );
}

#[test]
fn lines_that_are_too_long_or_no_text_are_refused_and_the_connection_stays() {
    let bed = Bed::new();
    let mut client = bed.client();
    client.send(format!("modify C add {}\n", "a=b,".repeat(20_000)));
    assert_eq!(
        client.reply(),
        format!("ERROR: the line is too long: want at most {LINE_MAX} bytes\n")
    );
    client.send(b"ls \xff\n");
    assert!(client.reply().starts_with("ERROR: the line is no text"));
    assert!(client.ask("version").ends_with("OK\n"));
}

#[test]
fn half_a_line_and_silence_ends_a_connection_and_whole_lines_do_not() {
    let usual = Limits::default();
    assert_eq!(usual.half_line, Duration::from_secs(60));
    assert!(usual.idle > Duration::from_secs(8 * 60 * 60));
    let half_line = Duration::from_millis(50);
    let bed = Bed::with(
        Fake::of_the_manual(),
        Limits {
            half_line,
            ..Limits::default()
        },
    );
    let (mut half, mut whole, mut fresh) = (bed.client(), bed.client(), bed.client());
    assert!(whole.ask("version").ends_with("OK\n"));
    half.send("version\nmodify Supercl");
    assert!(half.reply().ends_with("OK\n"));
    assert_eq!(
        half.rest(),
        "ERROR: half a line and no end of it for 0.05 s: closed\n"
    );
    assert!(whole.ask("version").ends_with("OK\n"));
    assert!(fresh.ask("version").ends_with("OK\n"));
}

#[test]
fn who_reads_slowly_gets_all_and_costs_the_others_nothing() {
    let members: Vec<_> = (0..1_500)
        .map(|n| member(&format!("R{n}"), n + 1, 1, 1))
        .collect();
    let bed = Bed::with(Fake::with(vec![cluster("C", "/c", members)]), Limits::default());
    let mut other = bed.client();
    let listing = other.ask("ls C");
    let mut slow = bed.client();
    slow.send("ls C\n".repeat(50));
    slow.send_no_more();
    for _ in 0..20 {
        assert!(other.ask("version").ends_with("OK\n"));
    }
    assert!(listing.len() > 200_000, "{}", listing.len());
    // What it has begun to read stays as it was asked for.
    let mut first = [0; 64];
    slow.0.read_exact(&mut first).unwrap();
    assert_eq!(other.ask("modify C delete R1499 now"), "OK\n");
    let all = String::from_utf8_lossy(&first).into_owned() + &slow.rest();
    let replies: Vec<_> = all.split_inclusive("OK\n").collect();
    let changed = other.ask("ls C");
    assert_eq!((replies.len(), replies[0]), (50, &*listing));
    assert!(replies.iter().all(|reply| *reply == listing || *reply == changed));
}

const GIVES_WAY: &str =
    "ERROR: all admin connections are taken, and this one has been idle longest: closed\n";

#[test]
fn a_full_house_lets_the_next_one_in_and_the_longest_idle_gives_way() {
    let bed = Bed::new();
    let mut half = bed.client();
    half.send("version\nmodify Supercl");
    assert!(half.reply().ends_with("OK\n"));
    let mut others: Vec<_> = (1..CONNECTIONS_MAX).map(|_| bed.client()).collect();
    for other in &mut others {
        assert!(other.ask("version").ends_with("OK\n"));
    }
    assert!(bed.client().ask("version").ends_with("OK\n"));
    assert_eq!(half.rest(), GIVES_WAY);
    // The one that came late has left a free place.
    assert!(bed.client().ask("version").ends_with("OK\n"));
    for other in &mut others {
        assert!(other.ask("version").ends_with("OK\n"));
    }
}

#[test]
fn a_crowd_that_says_nothing_or_waits_for_ever_keeps_nobody_out() {
    let bed = Bed::new();
    let mut crowd: Vec<_> = (0..200).map(|_| bed.client()).collect();
    for one in crowd.iter_mut().skip(200 - CONNECTIONS_MAX) {
        // Those before them are being shown out, as these may be.
        let _ = one.0.get_mut().write_all(b"wait Supercluster#1 RTPPROXY1 gone\n");
    }
    for _ in 0..3 {
        let mut client = bed.client();
        assert!(client.ask("version").ends_with("OK\n"));
        assert_eq!(
            client.ask("wait Supercluster#1 RTPPROXY1 gone -t 0"),
            "ERROR: RTPPROXY1: not gone after 0 s\n"
        );
    }
    assert_eq!(crowd[0].rest(), GIVES_WAY);
}

#[test]
fn a_byte_now_and_then_keeps_no_half_line_open() {
    let half_line = Duration::from_millis(300);
    let limits = Limits {
        half_line,
        ..Limits::default()
    };
    let bed = Bed::with(Fake::of_the_manual(), limits);
    let mut client = bed.client();
    client.0.get_ref().set_read_timeout(Some(half_line / 10)).unwrap();
    let mut said = Vec::new();
    let until = rim::now() + LONG;
    // The time-out of the read is the pause between two bytes.
    while client.0.read_to_end(&mut said).is_err() {
        assert!(rim::now() < until, "it is open still");
        let _ = client.0.get_mut().write_all(b"x");
    }
    assert_eq!(
        String::from_utf8(said).unwrap(),
        "ERROR: half a line and no end of it for 0.3 s: closed\n"
    );
}

#[test]
fn monitoring_pushes_out_monitoring_and_no_administrator() {
    let bed = Bed::new();
    let mut administrator = bed.client();
    assert!(administrator.ask("version").ends_with("OK\n"));
    let watch = bed.place.path("watch");
    let mut watching: Vec<_> = (0..=READ_ONLY_CONNECTIONS_MAX)
        .map(|_| Client::at(&watch))
        .collect();
    assert_eq!(watching[0].rest(), GIVES_WAY);
    for client in watching.iter_mut().skip(1) {
        assert!(client.ask("version").ends_with("OK\n"));
    }
    assert!(administrator.ask("version").ends_with("OK\n"));
}

#[test]
fn the_read_only_door_takes_no_change() {
    let bed = Bed::new();
    let mut client = Client::at(&bed.place.path("watch"));
    let refusal = "ERROR: modify suspend: not on the read-only socket\n";
    assert_eq!(client.ask("modify Supercluster#1 suspend RTPPROXY1"), refusal);
    assert!(client.ask("ls Supercluster#1").contains("status = ACTIVE"));
    assert!(bed.fake.changes.lock().is_empty());
}

#[test]
fn what_stands_behind_a_wait_is_not_done_when_its_client_has_gone() {
    let bed = Bed::new();
    let mut waiter = bed.client();
    waiter.send(
        "modify Supercluster#1 suspend RTPPROXY1\nwait Supercluster#1 RTPPROXY1 gone\n\
         modify Supercluster#1 resume RTPPROXY1\n",
    );
    drop(waiter);
    // The thread sees what has become of every client before each of these.
    let mut other = bed.client();
    for _ in 0..3 {
        assert!(other.ask("version").ends_with("OK\n"));
    }
    assert_eq!(*bed.fake.changes.lock(), ["suspend RTPPROXY1"]);
}

#[test]
fn a_wait_holds_up_its_own_connection_and_no_other() {
    let bed = Bed::new();
    let (mut waiter, mut other) = (bed.client(), bed.client());
    waiter.send("wait Supercluster#1 RTPPROXY2 gone\nversion\n");
    waiter.send_no_more();
    assert_eq!(other.ask("wait Supercluster#1 RTPPROXY1 online"), "OK\n");
    let late = "ERROR: RTPPROXY2: not gone after 0.05 s\n";
    assert_eq!(other.ask("wait Supercluster#1 RTPPROXY2 gone -t 0.05"), late);
    assert_eq!(other.ask("modify Supercluster#1 delete RTPPROXY2 now"), "OK\n");
    assert_eq!(
        waiter.rest(),
        format!("OK\nrtp_cluster {}\nOK\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn changes_are_applied_one_after_another_and_seen_by_all() {
    let bed = Arc::new(Bed::new());
    let threads: Vec<_> = (0..100)
        .map(|n| {
            let bed = Arc::clone(&bed);
            let body = move || {
                let pairs = format!(
                    "name=N{n},protocol=udp,address=127.0.0.2:{},capacity=1,weight=1",
                    n + 1
                );
                let mut client = bed.client();
                assert_eq!(client.ask(&format!("modify Supercluster#2 add {pairs}")), "OK\n");
                drop(client);
                assert!(
                    bed.client()
                        .ask("ls Supercluster#2")
                        .contains(&format!("name = N{n}\n"))
                );
            };
            std::thread::Builder::new().spawn(body).unwrap()
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(bed.fake.changes.lock().len(), 100);
}

#[test]
fn a_stop_tells_those_who_wait_and_closes_the_doors() {
    let mut bed = Bed::new();
    let (mut waiter, mut idle) = (bed.client(), bed.client());
    waiter.send("wait Supercluster#1 RTPPROXY1 gone\n");
    // Whoever is answered now has come after the wait.
    assert!(idle.ask("version").ends_with("OK\n"));
    assert!(idle.ask("version").ends_with("OK\n"));
    bed.handle.take().unwrap().stop();
    assert_eq!(waiter.rest(), "ERROR: the daemon stops\n");
    assert_eq!(idle.rest(), "");
    assert!(UnixStream::connect(bed.path()).is_err());
    bed.handle = Some(start(Vec::new(), Arc::<Fake>::clone(&bed.fake)).unwrap());
}

#[test]
fn a_listing_is_made_as_it_is_read() {
    let bed = Bed::new();
    bed.fake.parts_of_sessions.store(100, Ordering::Relaxed);
    let ask = |reads: bool| {
        let mut client = Client::at(&bed.place.path("watch"));
        client.send("sessions --json Supercluster#1 limit=100000\nversion\n");
        let reply = reads.then(|| [client.reply(), client.reply()]);
        (client, reply)
    };
    let crowd: Vec<_> = (0..10).map(|_| ask(false)).collect();
    let mut other = bed.client();
    for _ in 0..20 {
        assert!(other.ask("version").ends_with("OK\n"));
    }
    // Each part has over 100 kB: what a socket takes, and one more.
    let looks = bed.fake.looks.load(Ordering::Relaxed);
    assert!(looks < 10 * 10, "{looks}");
    let (_, reply) = ask(true);
    let [listing, version] = reply.unwrap();
    let json: serde_json::Value = serde_json::from_str(listing.strip_suffix("\nOK\n").unwrap()).unwrap();
    assert_eq!(json["sessions"].as_array().unwrap().len(), 100_000);
    assert!(version.starts_with("rtp_cluster "), "{version}");
    drop(crowd);
}

#[test]
fn a_cluster_that_goes_ends_a_listing_with_an_error() {
    let bed = Bed::new();
    bed.fake.parts_of_sessions.store(100, Ordering::Relaxed);
    let mut client = bed.client();
    client.send("sessions --json Supercluster#1 limit=100000\n");
    let mut first = [0; 4096];
    client.0.read_exact(&mut first).unwrap();
    assert_eq!(bed.client().ask("cluster delete Supercluster#1 now"), "OK\n");
    let rest = client.reply();
    assert!(rest.ends_with("\nERROR: Supercluster#1: cluster not found\n"));
}

/// A cluster whose listing has some megabytes, and how many such listings may be unread before nobody on a read-only
/// socket gets another one.
fn bed_of_long_replies(unread: Duration) -> (Bed, String, usize) {
    let members: Vec<_> = (0..20_000).map(|n| member(&format!("R{n}"), 1, 1, 1)).collect();
    let limits = Limits {
        unread,
        ..Limits::default()
    };
    let bed = Bed::with(Fake::with(vec![cluster("C", "/c", members)]), limits);
    let listing = bed.client().ask("ls C");
    let fit = (16 << 20) / listing.len() + 1;
    assert!((3..9).contains(&fit), "{fit}");
    bed.fake.looks.store(0, Ordering::Relaxed);
    (bed, listing, fit)
}

impl Bed {
    /// Asks for the listing on the read-only socket.
    fn lister(&self) -> Client {
        let mut client = Client::at(&self.place.path("watch"));
        client.send("ls C\n");
        client
    }

    fn looks(&self) -> usize {
        self.fake.looks.load(Ordering::Relaxed)
    }
}

#[test]
fn long_replies_are_made_one_at_a_time_and_hold_no_administrator_up() {
    let (bed, listing, fit) = bed_of_long_replies(LONG * 100);
    let _lazy: Vec<_> = (0..12).map(|_| bed.lister()).collect();
    seen(&bed, || bed.looks() >= fit);
    assert_eq!(bed.client().ask("ls C"), listing);
    assert_eq!(bed.looks(), fit + 1, "those beyond what may be unread got theirs");
}

#[test]
fn who_does_not_read_what_others_wait_for_is_closed() {
    let (bed, listing, fit) = bed_of_long_replies(Duration::from_millis(1));
    let lazy: Vec<_> = (0..fit).map(|_| bed.lister()).collect();
    seen(&bed, || bed.looks() == fit);
    assert_eq!(bed.lister().reply(), listing);
    drop(lazy);
}

/// Waits until the thread has seen what was sent before.
fn seen(bed: &Bed, is_so: impl Fn() -> bool) {
    let until = rim::now() + LONG;
    while !is_so() {
        assert!(rim::now() < until, "it was not seen");
        assert!(bed.client().ask("version").ends_with("OK\n"));
    }
}

#[test]
fn who_watches_is_told_as_it_happens_until_he_leaves() {
    let bed = Bed::new();
    let mut watch = Client::at(&bed.place.path("watch"));
    let mut programs = bed.client();
    watch.send("watch\n");
    programs.send("watch --json\n");
    // His end of what he sends is not the end of what he reads.
    programs.send_no_more();
    seen(&bed, || bed.fake.events.listeners() == 2);
    for new in ["offline", "gone"] {
        bed.fake.events.tell(&event(new));
        assert_eq!(watch.line(), event(new).text());
        assert_eq!(programs.line(), event(new).json());
    }
    drop(watch);
    seen(&bed, || {
        bed.fake.events.tell(&event("online"));
        bed.fake.events.listeners() == 1
    });
    drop(programs);
}

#[test]
fn a_trace_ends_with_its_call_its_lines_or_its_time() {
    let bed = Bed::new();
    let begin = |command: &str| {
        let mut client = bed.client();
        client.send(format!("{command}\nversion\n"));
        client
    };
    let mut of_call = begin("trace Supercluster#1 a\\x20b");
    let mut of_two = begin("trace --json Supercluster#1 * limit=2");
    seen(&bed, || bed.fake.steps.listeners() == 2);
    for (call_id, text) in [("other", "U1"), ("a b", "U2"), ("third", "U3")] {
        bed.fake.steps.tell(&traced(call_id, text.as_bytes()));
    }
    let mut end = traced("a b", b"D");
    end.ends_call = true;
    bed.fake.steps.tell(&end);
    assert_eq!(
        of_call.reply(),
        format!("{}{}OK\n", traced("a b", b"U2").text(), end.text())
    );
    let two = [traced("other", b"U1").json(), traced("a b", b"U2").json()].concat();
    assert_eq!(of_two.reply(), format!("{two}OK\n"));
    // What stands behind it is done then.
    assert!(of_call.reply().starts_with("rtp_cluster "));
    assert!(of_two.reply().starts_with("rtp_cluster "));
    assert_eq!(bed.client().ask("trace Supercluster#1 * -t 0.05"), "OK\n");
    assert_eq!(
        bed.client().ask("trace Nobody *"),
        "ERROR: Nobody: cluster not found\n"
    );
    let last = bed.client().ask("trace Supercluster#1 last limit=1");
    assert_eq!(last, format!("{}OK\n", traced("new", b"E51").text()));
}

#[test]
fn who_follows_and_does_not_read_is_told_how_much_he_has_lost() {
    let bed = Bed::new();
    let mut lazy = Client::at(&bed.place.path("watch"));
    lazy.send("trace Supercluster#1 * -t 86400\n");
    seen(&bed, || bed.fake.steps.listeners() == 1);
    let step = traced("c", &[b'x'; 512]);
    // More than queue, buffer and socket hold; nobody who tells waits.
    let told = 4 * QUEUE_MAX;
    for _ in 0..told {
        bed.fake.steps.tell(&step);
    }
    let mut read = 0;
    let lost = loop {
        let line = lazy.line();
        if line != step.text() {
            break line;
        }
        read += 1;
    };
    let count: usize = lost.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(
        lost.ends_with(" lost: they came faster than they were read\n"),
        "{lost}"
    );
    assert_eq!(read + count, told);
    bed.fake.steps.tell(&step);
    assert_eq!(lazy.line(), step.text());
}

#[test]
fn a_stop_tells_those_who_follow() {
    let mut bed = Bed::new();
    let mut client = bed.client();
    client.send("watch\n");
    seen(&bed, || bed.fake.events.listeners() == 1);
    bed.handle.take().unwrap().stop();
    assert_eq!(client.rest(), "ERROR: the daemon stops\n");
    bed.handle = Some(start(Vec::new(), Arc::<Fake>::clone(&bed.fake)).unwrap());
}
