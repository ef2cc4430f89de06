//! The way to members over each transport: calls pass, a member that dies and comes back costs none, and a
//! connection on which something odd happens is never believed.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::bed::{Bed, answer, at_once, create, delete};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::engine::Engine;
use crate::support::fake::Fault;
use crate::support::member;
use crate::support::place::Place;
use crate::support::real::{RealMember, free_ipv6, free_port};
use crate::support::wait::{self, LONG};
use crate::support::wire::Transport;

/// How real members are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Udp,
    Udp6,
    Tcp,
    Tcp6,
    /// `unix:` of RTPproxy, which takes one command a connection.
    Unix,
    /// `cunix:` of RTPproxy, in the configuration as it is called there.
    Cunix,
    /// `cunix:` of RTPproxy, in the configuration as UNIX, as today's files have it.
    KeptUnix,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::Udp,
        Self::Udp6,
        Self::Tcp,
        Self::Tcp6,
        Self::Unix,
        Self::Cunix,
        Self::KeptUnix,
    ];

    /// Whether this machine has that.
    fn is_here(self) -> bool {
        !self.is_v6() || free_ipv6().is_some()
    }

    const fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Udp6 => Transport::Udp6,
            Self::Tcp => Transport::Tcp,
            Self::Tcp6 => Transport::Tcp6,
            Self::Unix => Transport::Unix,
            Self::Cunix | Self::KeptUnix => Transport::Cunix,
        }
    }

    fn is_v6(self) -> bool {
        matches!(self, Self::Udp6 | Self::Tcp6)
    }

    fn listed(self, name: &str, member: &RealMember) -> Listed {
        let at = member.at(self.transport());
        let at = at.expect("this machine has IPv6").to_string();
        let protocol = if self == Self::KeptUnix {
            "UNIX"
        } else {
            self.transport().name()
        };
        Listed {
            protocol,
            ..Listed::udp(name, &at)
        }
    }

    /// A command as callers of this family send it.
    fn of_family(self, command: &str) -> String {
        if self.is_v6() {
            let command = command.replacen(' ', "6 ", 1);
            command.replace("127.0.0.1", "::1")
        } else {
            command.to_owned()
        }
    }
}

/// Two real members behind a daemon.
struct Pair {
    way: Way,
    daemon: Daemon,
    members: Vec<RealMember>,
    _place: Place,
}

impl Pair {
    fn new(way: Way) -> Self {
        let place = Place::new();
        let members: Vec<RealMember> = ["r1", "r2"].map(|name| RealMember::start(&place, name)).into();
        let listed = [way.listed("R1", &members[0]), way.listed("R2", &members[1])];
        let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
        daemon.wait_members(2, 0);
        Self {
            way,
            daemon,
            members,
            _place: place,
        }
    }

    fn ask(&self, command: &str) -> String {
        client::ask(&self.daemon.files().control, command)
    }

    /// The reply to a U or L that must be positive.
    fn media(&self, command: &str) -> u16 {
        let reply = self.ask(&self.way.of_family(command));
        if reply.starts_with('E') {
            let last = self.daemon.admin("trace C1 last");
            panic!(
                "{:?}: {command} -> {reply}\n{last}{}",
                self.way,
                self.daemon.log()
            );
        }
        let (port, address) = client::media(&reply);
        assert!(port > 0, "{:?}: {command} -> {reply}", self.way);
        assert_eq!(address.ends_with(" 6"), self.way.is_v6(), "{reply}");
        port
    }

    fn sessions(&self) -> u64 {
        self.members.iter().map(RealMember::sessions).sum()
    }
}

#[test]
fn calls_pass_over_every_transport() {
    for way in Way::ALL.into_iter().filter(|way| way.is_here()) {
        let pair = Pair::new(way);
        at_once(8, 40, |number| {
            let call = format!("call-{number}");
            let port = pair.media(&create(&call));
            assert_eq!(pair.media(&create(&call)), port, "{way:?}: a retransmission");
            assert_ne!(pair.media(&answer(&call)), port);
            let question = pair.ask(&format!("Q {call} from to"));
            assert_eq!(question.split(' ').count(), 5, "{way:?}: {question}");
        });
        // A call that took long was passed on, and what the first made of it is undone a moment later.
        wait::until_true(format!("{way:?}: a session a call"), LONG, || {
            pair.sessions() == 40
        });
        let counted = wait::until("the heartbeats count them", LONG, || {
            let reply = client::raw(&pair.daemon.files().control, b"Ib");
            let reply = String::from_utf8_lossy(&reply).into_owned();
            reply.contains("active sessions: 40\n").then_some(reply)
        });
        assert_eq!(counted.lines().count(), 5, "{way:?}");
        at_once(8, 40, |number| {
            assert_eq!(pair.ask(&delete(&format!("call-{number}"))), "0", "{way:?}");
        });
        wait::until_true(format!("{way:?}: no session left"), LONG, || pair.sessions() == 0);
    }
}

/// A member is killed under new calls, and started again.
fn survives_a_kill(way: Way) {
    if !way.is_here() {
        return;
    }
    let mut pair = Pair::new(way);
    let done = AtomicBool::new(false);
    let made = AtomicUsize::new(0);
    let mut victim = pair.members.remove(0);
    thread::scope(|scope| {
        for worker in 0..4 {
            let (pair, done, made) = (&pair, &done, &made);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let call = format!("call-{worker}-{number}");
                    pair.media(&create(&call));
                    pair.ask(&delete(&call));
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let some_calls = |what: &str| {
            let before = made.load(Ordering::Relaxed);
            wait::until_true(what, LONG, || made.load(Ordering::Relaxed) > before + 100);
        };
        some_calls("calls before");
        victim.kill();
        pair.daemon.wait_members(1, 1);
        some_calls("calls without it");
        victim.restart();
        pair.daemon.wait_members(2, 0);
        some_calls("calls with it");
        done.store(true, Ordering::Relaxed);
    });
    wait::until_true(format!("{way:?}: it has new calls"), LONG, || {
        let created = |m: &RealMember| {
            let reply = member::ask(m.control(), "G nsess_created");
            reply.parse::<u64>().expect("a number")
        };
        created(&victim) > 0
    });
}

#[test]
fn a_member_over_udp_that_is_killed_costs_no_new_call() {
    survives_a_kill(Way::Udp);
    survives_a_kill(Way::Udp6);
}

#[test]
fn a_member_over_tcp_that_is_killed_costs_no_new_call() {
    survives_a_kill(Way::Tcp);
    survives_a_kill(Way::Tcp6);
}

#[test]
fn a_member_over_unix_that_is_killed_costs_no_new_call() {
    survives_a_kill(Way::Unix);
    survives_a_kill(Way::Cunix);
    survives_a_kill(Way::KeptUnix);
}

#[test]
fn a_stopped_member_over_a_stream_costs_no_new_call_however_much_was_sent_to_it() {
    for (way, calls, length) in [
        (Way::Tcp, 400, 7_000),
        (Way::Cunix, 400, 7_000),
        (Way::Unix, 40, 10),
    ] {
        let pair = Pair::new(way);
        pair.members[0].stop();
        // On a kept connection more than its buffers take: each of these is as long as a command may be.
        let long = "x".repeat(length);
        at_once(8, calls, |number| {
            pair.media(&create(&format!("call-{number}-{long}")));
        });
        pair.daemon.wait_members(1, 1);
        pair.members[0].resume();
        pair.daemon.wait_members(2, 0);
        wait::until_true(
            format!("{way:?}: what it made when it woke is undone"),
            LONG,
            || pair.members[0].sessions() == 0,
        );
        wait::until_true(format!("{way:?}: a session a call"), LONG, || {
            pair.members[1].sessions() == calls as u64
        });
    }
}

#[test]
fn a_host_name_is_an_address() {
    let place = Place::new();
    let [udp, tcp] = [(); 2].map(|()| free_port(Ipv4Addr::LOCALHOST.into()).expect("a port"));
    let mut real = [("r1", udp), ("r2", tcp)].map(|(name, at)| RealMember::start_at(&place, name, at, &[]));
    let listed = [
        Listed::udp("R1", &format!("localhost:{}", udp.port())),
        Listed {
            protocol: "TCP",
            ..Listed::udp("R2", &format!("LOCALHOST:{}", tcp.port()))
        },
        Listed::udp("R3", "no-such-host.invalid:22222"),
    ];
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(2, 1);
    let control = daemon.files().control.clone();
    for number in 0..20 {
        let reply = client::ask(&control, &create(&format!("call-{number}")));
        assert_eq!(client::media(&reply).1, "127.0.0.1");
    }
    for member in &real {
        assert!(member.sessions() > 0, "both have calls");
    }
    let told = |log: &str| {
        log.matches("no-such-host.invalid:22222): unknown -> offline: the name is not found")
            .count()
    };
    wait::until_true("the third is told", LONG, || told(&daemon.log()) == 1);
    real[1].kill();
    daemon.wait_members(1, 2);
    real[1].restart();
    daemon.wait_members(2, 1);
    assert_eq!(told(&daemon.log()), 1, "once");
}

#[test]
fn what_others_send_in_a_members_name_changes_nothing() {
    let bed = Bed::of(1);
    let spoofed = || {
        let stats = bed.daemon.admin_ok("stats --json");
        let stats: serde_json::Value =
            serde_json::from_str(stats.trim_end().strip_suffix("OK").expect("it ends with OK"))
                .expect("it is JSON");
        stats["clusters"][0]["members"][0]["counters"]["spoofed_replies"]
            .as_u64()
            .unwrap_or_else(|| panic!("no such counter: {stats}"))
    };
    bed.members[0].on("U", Fault::WrongSource);
    assert_eq!(bed.ask(&create("call")), "E997");
    bed.members[0].recover();
    let before = spoofed();
    assert_eq!(before, 0, "what comes from elsewhere is kept out by the system");
    bed.members[0].on("U", Fault::WrongCookie);
    assert_eq!(bed.ask(&create("next")), "E997");
    wait::until_true(
        "what comes from the member's own address is counted",
        LONG,
        || spoofed() > before,
    );
}

/// A member that a test writes itself: its connections are served by `serve`, one thread each.
struct Scripted {
    stop: Box<dyn Fn()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Scripted {
    fn tcp(at: IpAddr, serve: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static) -> (Self, SocketAddr) {
        let listener = TcpListener::bind((at, member::CONTROL_PORT)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stopped, serve) = (Arc::new(AtomicBool::new(false)), Arc::new(serve));
        let flag = Arc::clone(&stopped);
        let thread = thread::spawn(move || {
            while let Ok((stream, from)) = listener.accept() {
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream, from));
            }
        });
        let stop = Box::new(move || {
            stopped.store(true, Ordering::Relaxed);
            drop(TcpStream::connect(address));
        });
        let thread = Some(thread);
        (Self { stop, thread }, address)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        (self.stop)();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Answers each line of a connection with what `reply` makes of it, until that is nothing.
fn each_line(stream: impl Read + Write, mut reply: impl FnMut(&str) -> Option<Vec<u8>>) {
    let mut stream = std::io::BufReader::new(stream);
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut stream, &mut line).is_ok_and(|length| length > 0) {
        let Some(answer) = reply(line.trim_end()) else {
            return;
        };
        if stream.get_mut().write_all(&answer).is_err() {
            return;
        }
        line.clear();
    }
}

/// The true reply of an engine.
fn truth(engine: &Mutex<Engine>, command: &str) -> Vec<u8> {
    let mut reply = Vec::new();
    engine
        .lock()
        .expect("no connection has failed")
        .answer(command.as_bytes(), &mut reply);
    reply
}

#[test]
fn commands_leave_from_the_wanted_address() {
    let place = Place::new();
    let (source, other) = (member::own_address(), member::own_address());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let engine = Arc::new(Mutex::new(Engine::new(&other.to_string())));
    let (at, from) = (member::own_address(), Arc::clone(&seen));
    let tcp_engine = Arc::clone(&engine);
    let (_member, tcp) = Scripted::tcp(at, move |stream, peer| {
        from.lock().expect("no connection has failed").push(peer.ip());
        each_line(stream, |line| Some(truth(&tcp_engine, line)));
    });
    let udp = UdpSocket::bind((other, member::CONTROL_PORT)).expect("a port");
    let (udp_at, from) = (udp.local_addr().expect("bound"), Arc::clone(&seen));
    thread::spawn(move || {
        let mut datagram = [0; 8192];
        while let Ok((length, peer)) = udp.recv_from(&mut datagram) {
            from.lock().expect("no datagram has failed").push(peer.ip());
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            let (cookie, command) = text.split_once(' ').expect("a cookie");
            let reply = [cookie.as_bytes(), b" ", &truth(&engine, command)].concat();
            drop(udp.send_to(&reply, peer));
        }
    });
    let listed = [
        Listed::udp("U", &udp_at.to_string()).from(source),
        Listed {
            protocol: "TCP",
            ..Listed::udp("T", &tcp.to_string())
        }
        .from(source),
    ];
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(2, 0);
    let seen = seen.lock().expect("nothing has failed").clone();
    assert!(
        seen.len() > 2 && seen.iter().all(|from| *from == source),
        "{seen:?}"
    );
    // An address that is not ours is refused, not left out.
    let refused = daemon.admin(
        "modify C1 add name=X,protocol=TCP,address=127.0.0.1:9,capacity=1,weight=1,cmd_out_address=192.0.2.1",
    );
    assert!(
        refused.contains("ERROR") && refused.contains("cmd_out_address 192.0.2.1"),
        "{refused}"
    );
}

/// A daemon in front of one member over TCP that `serve`s each connection: the number of it, and its stream.
fn before_tcp(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> (Daemon, Scripted, Place) {
    let place = Place::new();
    let connections = AtomicUsize::new(0);
    let (member, address) = Scripted::tcp(member::own_address(), move |stream, _| {
        serve(connections.fetch_add(1, Ordering::Relaxed), stream);
    });
    let listed = [Listed {
        protocol: "TCP",
        ..Listed::udp("T", &address.to_string())
    }];
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(1, 0);
    (daemon, member, place)
}

#[test]
fn a_reply_too_many_does_not_shift_the_others() {
    // Each call has its number in its port. Now and then the member says a line of nonsense first.
    let (daemon, _member, _place) = before_tcp(|_, stream| {
        let engine = Mutex::new(Engine::new("192.0.2.1"));
        let mut count = 0;
        each_line(stream, |line| {
            let number = line
                .strip_prefix("U call-")
                .and_then(|rest| rest.split(' ').next());
            let Some(number) = number.and_then(|number| number.parse::<u16>().ok()) else {
                return Some(truth(&engine, line));
            };
            count += 1;
            let nonsense = if count % 7 == 0 { "what?\n" } else { "" };
            Some(format!("{nonsense}{} 192.0.2.1\n", 10_000 + number).into_bytes())
        });
    });
    let control = &daemon.files().control;
    let replies = at_once(8, 200, |number| {
        client::ask(control, &create(&format!("call-{number}")))
    });
    for (number, reply) in replies.iter().enumerate() {
        let right = format!("{} 192.0.2.1", 10_000 + number);
        // The one that the nonsense answered has no reply; those behind it were asked again.
        assert!(
            *reply == right || reply.starts_with('E'),
            "call {number}: {reply}"
        );
    }
    let good = replies.iter().filter(|reply| !reply.starts_with('E')).count();
    assert!(good > 150, "{good} of 200");
}

#[test]
fn a_connection_that_breaks_before_a_reply_costs_nothing_and_half_a_reply_is_none() {
    // Each connection serves five commands, then ends: without a byte, or within a reply.
    let halves = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&halves);
    let engine = Mutex::new(Engine::new("192.0.2.1"));
    let (daemon, _member, _place) = before_tcp(move |number, stream| {
        let mut left = 5;
        let mut last = stream.try_clone().expect("a descriptor");
        each_line(stream, |line| {
            left -= 1;
            if left > 0 {
                return Some(truth(&engine, line));
            }
            if number % 2 == 1 && line.starts_with('U') {
                counted.fetch_add(1, Ordering::Relaxed);
                let reply = truth(&engine, line);
                drop(last.write_all(&reply[..reply.len() / 2]));
            }
            None
        });
    });
    let control = &daemon.files().control;
    let mut refused = 0;
    for number in 0..100 {
        let reply = client::ask(control, &create(&format!("call-{number}")));
        if reply.starts_with('E') {
            refused += 1;
        } else {
            assert!(reply.ends_with(" 192.0.2.1"), "{reply}");
        }
    }
    let halves = halves.load(Ordering::Relaxed);
    assert!(halves > 0, "there were halves");
    assert!(refused <= halves, "{refused} refused, {halves} halves");
}

#[test]
fn a_member_that_swallows_its_first_command_comes_into_service_all_the_same() {
    // Whatever follows on that connection would be an answer too late.
    let swallowed = AtomicUsize::new(0);
    let (daemon, _member, _place) = before_tcp(move |_, stream| {
        let engine = Mutex::new(Engine::new("192.0.2.1"));
        each_line(stream, |line| {
            if line == "V" && swallowed.fetch_add(1, Ordering::Relaxed) < 2 {
                return Some(Vec::new());
            }
            Some(truth(&engine, line))
        });
    });
    let reply = client::ask(&daemon.files().control, &create("call"));
    assert!(reply.ends_with(" 192.0.2.1"), "{reply}");
}

#[test]
fn a_reply_without_end_is_dropped_with_its_connection() {
    let babbled = AtomicBool::new(false);
    let (daemon, _member, _place) = before_tcp(move |_, stream| {
        let engine = Mutex::new(Engine::new("192.0.2.1"));
        each_line(stream, |line| {
            if line.starts_with('U') && !babbled.swap(true, Ordering::Relaxed) {
                return Some(b"4000 ".repeat(5_000));
            }
            Some(truth(&engine, line))
        });
    });
    let control = &daemon.files().control;
    let reply = client::ask(control, &create("call"));
    assert_eq!(reply, "E997", "nothing made of it is plausible");
    let reply = client::ask(control, &create("next"));
    assert!(reply.ends_with(" 192.0.2.1"), "{reply}");
}

#[test]
fn a_member_that_is_not_there_is_not_asked_for_a_connection_by_each_command() {
    // It listens, and ends each connection at once: as dead as can be, and counted.
    let connections = Arc::new(AtomicUsize::new(0));
    let place = Place::new();
    let gone = place.path("gone.sock");
    let real = RealMember::start(&place, "r1");
    let listed = [
        Listed::udp("R1", &real.control().to_string()),
        Listed {
            protocol: "CUNIX",
            ..Listed::udp("X", &gone.display().to_string())
        },
    ];
    let daemon = Daemon::start(
        &place,
        &config(
            &Files::in_place(&place).control,
            &listed,
            "<health retry=\"1h\"/>",
        ),
    );
    daemon.wait_members(1, 1);
    let listener = UnixListener::bind(&gone).expect("a socket");
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    for number in 0..100 {
        client::media(&client::ask(
            &daemon.files().control,
            &create(&format!("call-{number}")),
        ));
    }
    // The next probe is an hour away, and nothing else wants a connection.
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}

#[test]
fn the_end_does_not_wait_for_a_member_that_is_silent() {
    // One takes connections and never answers, one does not even take them, one has a name that nobody knows.
    let place = Place::new();
    let silent = TcpListener::bind((member::own_address(), member::CONTROL_PORT)).expect("a port");
    let full = place.path("full.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    socket
        .bind(&socket2::SockAddr::unix(&full).expect("a path"))
        .and_then(|()| socket.listen(0))
        .expect("a socket that takes one");
    let _first = UnixStream::connect(&full).expect("the one");
    let of = |name, protocol, address: &str| Listed {
        protocol,
        ..Listed::udp(name, address)
    };
    let silent_at = silent.local_addr().expect("bound").to_string();
    let listed = [
        of("S", "TCP", &silent_at),
        of("F", "CUNIX", &full.display().to_string()),
        of("N", "TCP", "no-such-host.invalid:1"),
    ];
    let mut daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(0, 3);
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait_end(LONG).success());
}
