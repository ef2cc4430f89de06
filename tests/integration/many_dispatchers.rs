//! Dispatchers that share their members and nothing else: with the hash policy any of them carries on any call.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::support::bed::{answer, at_once, create, delete, listed};
use crate::support::client::{PATIENCE, media};
use crate::support::daemon::{Daemon, Files, config};
use crate::support::fake::FakeMember;
use crate::support::place::Place;
use crate::support::process::Process;
use crate::support::wait::{self, LONG};

const MEMBERS: usize = 8;
const DISPATCHERS: usize = 3;
const CALLS: usize = 600;
/// The call with which one of the dispatchers dies.
const DEATH: usize = CALLS / 2;
/// Processes of the SIP server.
const WORKERS: usize = 8;

/// One file for all of them but for the control socket.
fn dispatcher(members: &[FakeMember], extra: &str) -> (Daemon, Place) {
    let place = Place::new();
    // On a busy machine a call may well take long, and is not to be tried elsewhere for that.
    let extra = format!("{extra}<failover attempts=\"1\"/>");
    let text = config(&Files::in_place(&place).control, &listed(members), &extra);
    let daemon = Daemon::start(&place, &text);
    daemon.wait_members(members.len(), 0);
    (daemon, place)
}

/// A SIP server with a set of proxies: where one does not answer, the next one is asked.
struct SipServer {
    sockets: Vec<PathBuf>,
    /// Commands, also those that nobody answered.
    sent: AtomicUsize,
}

impl SipServer {
    /// The reply, and whether the first one who was asked gave it.
    fn ask(&self, first: usize, command: &str) -> (String, bool) {
        let order = (first..first + DISPATCHERS).map(|number| number % DISPATCHERS);
        for (tried, number) in order.enumerate() {
            self.sent.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = self.try_ask(number, command) {
                return (reply, tried == 0);
            }
        }
        panic!("{command}: nobody answers");
    }

    /// Nothing where it is dead, or dies over it.
    fn try_ask(&self, number: usize, command: &str) -> Option<String> {
        let mut stream = UnixStream::connect(&self.sockets[number]).ok()?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time-out can be set");
        stream.write_all(command.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        reply.strip_suffix('\n').map(str::to_owned)
    }
}

/// Each command of a call comes to another dispatcher, and one dies. Each call is at one member, and ends there. Gives
/// how many commands were sent, and the counters of those who live, each a total.
fn serve(members: &[FakeMember], extra: &str, counters: &[&str]) -> (usize, Vec<usize>) {
    let (mut daemons, _places): (Vec<Daemon>, Vec<Place>) =
        (0..DISPATCHERS).map(|_| dispatcher(members, extra)).unzip();
    let counted = |daemons: &[Daemon], counter: &str| -> usize {
        daemons.iter().map(|daemon| count(daemon, counter)).sum()
    };
    let server = SipServer {
        sockets: daemons.iter().map(|d| d.files().control.clone()).collect(),
        sent: AtomicUsize::new(0),
    };
    let dies = Mutex::new(daemons.pop().expect("three of them"));
    let is_dead = AtomicBool::new(false);
    let wrong: Vec<String> = at_once(WORKERS, CALLS, |number| {
        let id = format!("shared-{number}@example.org");
        let mut wrong = Vec::new();
        let (first, _) = server.ask(number, &create(&id));
        if number == DEATH {
            dies.lock().expect("nobody else kills it").kill();
            is_dead.store(true, Ordering::Relaxed);
        }
        let (second, _) = server.ask(number + 1, &answer(&id));
        let (third, _) = server.ask(number + 2, &format!("U {id} 127.0.0.1 4004 from to"));
        if media(&first) != media(&third) || media(&first).1 != media(&second).1 {
            wrong.push(format!("{id}: {first:?}, {second:?}, {third:?}"));
        }
        let (last, at_first) = server.ask(number + usize::from(number % 2 == 0), &delete(&id));
        // One that died over it may have carried it out.
        if last != "0" && (at_first || last != "E50") {
            wrong.push(format!("{id}: {last:?}"));
        }
        wrong
    })
    .concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(is_dead.load(Ordering::Relaxed));

    // Each call was at one member, where its delete has come.
    wait::until_true("no session is left", LONG, || {
        members.iter().all(|member| member.sessions() == 0)
    });
    let created: u64 = members.iter().map(FakeMember::created).sum();
    assert_eq!(created, CALLS as u64, "one session a call");

    let totals = counters
        .iter()
        .map(|counter| counted(&daemons, counter))
        .collect();
    (server.sent.into_inner(), totals)
}

/// A counter of a dispatcher.
fn count(daemon: &Daemon, counter: &str) -> usize {
    let stats = daemon.admin_ok("stats");
    let start = format!("{counter} = ");
    let line = stats.lines().find_map(|line| line.trim().strip_prefix(&start));
    line.and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{counter}: {stats}"))
}

#[test]
fn each_command_of_a_call_may_come_to_another_dispatcher_and_one_may_die() {
    let members: Vec<FakeMember> = (0..MEMBERS).map(|_| FakeMember::start()).collect();
    let (sent, asked_all) = serve(&members, "<balancing policy=\"hash\"/>", &["asked all"]);
    // Nearly each command was for a call that its dispatcher did not know, and cost fewer than two questions, not eight.
    let questions: usize = members
        .iter()
        .flat_map(|member| ["U", "L", "D", "Q"].map(|verb| member.seen(verb).len()))
        .sum();
    assert!(questions < 2 * sent, "{questions} questions for {sent} commands");
    assert!(asked_all[0] < CALLS / 10, "{asked_all:?}");
}

/// A Redis server on a socket of its own.
struct Redis {
    place: Place,
    server: Process,
}

impl Redis {
    fn start() -> Self {
        let place = Place::new();
        let server = Self::launch(&place);
        Self { place, server }
    }

    fn launch(place: &Place) -> Process {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(place.path("redis"))
            .arg("--dir")
            .arg(place.dir())
            .stdout(Stdio::null());
        let server = Process::start("redis-server", &mut command);
        wait::until_true("the store is there", LONG, || {
            UnixStream::connect(place.path("redis")).is_ok()
        });
        server
    }

    fn element(&self) -> String {
        format!("<sessions store=\"{}\"/>", self.url())
    }

    fn url(&self) -> String {
        format!("unix://{}", self.place.path("redis").display())
    }

    /// What it says to a command.
    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_connection().expect("it is there");
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection).expect("an answer")
    }
}

#[test]
fn any_dispatcher_carries_on_any_call_with_any_policy_where_they_share_a_store() {
    let redis = Redis::start();
    let members: Vec<FakeMember> = (0..MEMBERS).map(|_| FakeMember::start()).collect();
    let counters = ["look ups", "look ups found", "look ups overtaken"];
    let (_, totals) = serve(&members, &redis.element(), &counters);
    assert!(totals[1] > 0, "{counters:?}: {totals:?}");
    println!("{counters:?}: {totals:?}");
}

#[test]
fn calls_go_on_whatever_becomes_of_the_store_and_it_is_used_again() {
    let mut redis = Redis::start();
    let members: Vec<FakeMember> = (0..3).map(|_| FakeMember::start()).collect();
    let (one, _place) = dispatcher(&members, &redis.element());
    let (other, _place) = dispatcher(&members, &redis.element());
    let server = SipServer {
        sockets: [&one, &other, &other].map(|d| d.files().control.clone()).into(),
        sent: AtomicUsize::new(0),
    };
    let serve = |id: &str| {
        let (first, _) = server.ask(0, &create(id));
        let (second, _) = server.ask(1, &answer(id));
        assert_eq!(media(&first).1, media(&second).1, "{id}");
        let (third, _) = server.ask(1, &format!("U {id} 127.0.0.1 4004 from to"));
        assert_eq!(media(&first), media(&third), "{id}");
        assert_eq!(server.ask(1, &delete(id)).0, "0", "{id}");
    };
    let mut number = 0;
    let mut works = |redis: &Redis, when: &str| {
        wait::until_true(format!("the store is used {when}"), LONG, || {
            number += 1;
            let id = format!("works-{number}");
            server.ask(0, &create(&id));
            let found = count(&other, "look ups found");
            let key = format!("rtp_cluster:C1:{id}");
            // Written behind the call, so perhaps not yet.
            let written = redis.ask::<bool>(&["EXISTS", &key]);
            server.ask(1, &delete(&id));
            written && count(&other, "look ups found") > found
        });
    };
    works(&redis, "at first");

    redis.server.stop();
    (0..20).for_each(|n| serve(&format!("stopped-{n}")));
    redis.server.signal(Signal::CONT);
    works(&redis, "after it stood still");

    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    (0..20).for_each(|n| serve(&format!("full-{n}")));
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    works(&redis, "after it was full");

    redis.ask::<()>(&["LPUSH", "rtp_cluster:C1:list", "nonsense"]);
    redis.ask::<()>(&["SET", "rtp_cluster:C1:garbage", "nobody udp:127.0.0.1:1"]);
    server.ask(0, &create("list"));
    for id in ["garbage", "list"] {
        serve(id);
    }
    works(&redis, "after nonsense");

    server.ask(0, &create("kept"));
    redis.server.kill();
    (0..20).for_each(|n| serve(&format!("killed-{n}")));
    redis.server = Redis::launch(&redis.place);
    wait::until_true("what is bound is written again", LONG, || {
        redis.ask(&["EXISTS", "rtp_cluster:C1:kept"])
    });
    works(&redis, "after it was killed");
    assert!(one.log().contains("calls go on without it"), "{}", one.log());
}
