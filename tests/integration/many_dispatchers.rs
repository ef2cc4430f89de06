//! Dispatchers that share their members and nothing else: with the hash policy any of them carries on any call.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::bed::{answer, at_once, create, delete, listed};
use crate::support::client::{PATIENCE, media};
use crate::support::daemon::{Daemon, Files, config};
use crate::support::fake::FakeMember;
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

const MEMBERS: usize = 8;
const DISPATCHERS: usize = 3;
const CALLS: usize = 600;
/// The call with which one of the dispatchers dies.
const DEATH: usize = CALLS / 2;
/// Processes of the SIP server.
const WORKERS: usize = 8;

/// One file for all of them but for the control socket.
fn dispatcher(members: &[FakeMember]) -> (Daemon, Place) {
    let place = Place::new();
    // On a busy machine a call may well take long, and is not to be tried elsewhere for that.
    let extra = "<balancing policy=\"hash\"/><failover attempts=\"1\"/>";
    let text = config(&Files::in_place(&place).control, &listed(members), extra);
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

#[test]
fn each_command_of_a_call_may_come_to_another_dispatcher_and_one_may_die() {
    let members: Vec<FakeMember> = (0..MEMBERS).map(|_| FakeMember::start()).collect();
    let (mut daemons, _places): (Vec<Daemon>, Vec<Place>) =
        (0..DISPATCHERS).map(|_| dispatcher(&members)).unzip();
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

    // Nearly each command was for a call that its dispatcher did not know, and cost fewer than two questions, not eight.
    let questions: usize = members
        .iter()
        .flat_map(|member| ["U", "L", "D", "Q"].map(|verb| member.seen(verb).len()))
        .sum();
    let sent = server.sent.into_inner();
    assert!(questions < 2 * sent, "{questions} questions for {sent} commands");
    for daemon in &daemons {
        let stats = daemon.admin_ok("stats");
        let line = stats
            .lines()
            .find_map(|line| line.trim().strip_prefix("asked all = "));
        let asked_all: usize = line.and_then(|n| n.parse().ok()).expect("a counter");
        assert!(asked_all < CALLS / 10, "{stats}");
    }
}
