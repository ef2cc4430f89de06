//! Control sockets of a cluster, over each of the six transports: what a SIP server may rely on, and what nobody
//! can do to the others.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};

use crate::support::bed::{answer, create, delete, listed};
use crate::support::client::{self, Datagrams, Kept};
use crate::support::daemon::{Apart, Daemon, Listed, cluster, config_of, program};
use crate::support::fake::{FakeMember, Fault};
use crate::support::member::{CONTROL_PORT, own_address};
use crate::support::place::Place;
use crate::support::real::{RealMember, free_ipv6};
use crate::support::wait::{self, LONG};
use crate::support::wire::{At, Transport, Wire};

/// A daemon with a cluster for each of some transports, all with the same members.
struct Doors {
    daemon: Daemon,
    members: Vec<FakeMember>,
    /// Each transport that the machine has, and where its cluster is.
    clusters: Vec<(Transport, At)>,
    place: Place,
}

/// A place for a control socket; nothing where the machine has no IPv6.
fn somewhere(place: &Place, transport: Transport) -> Option<At> {
    Some(match transport {
        Transport::Unix | Transport::Cunix => At::Path(place.path(&format!("{}.sock", transport.name()))),
        Transport::Udp | Transport::Tcp => At::Net((own_address(), CONTROL_PORT).into()),
        Transport::Udp6 | Transport::Tcp6 => At::Net(free_ipv6()?),
    })
}

impl Doors {
    fn of(transports: &[Transport], members: usize) -> Self {
        Self::with(transports, members, "")
    }

    /// With `extra` in each cluster element.
    fn with(transports: &[Transport], members: usize, extra: &str) -> Self {
        let place = Place::new();
        let members: Vec<FakeMember> = (0..members).map(|_| FakeMember::start()).collect();
        let clusters: Vec<(Transport, At)> = transports
            .iter()
            .filter_map(|transport| Some((*transport, somewhere(&place, *transport)?)))
            .collect();
        let daemon = Daemon::start(&place, &Self::config(&clusters, &listed(&members), extra));
        let doors = Self {
            daemon,
            members,
            clusters,
            place,
        };
        doors.wait_online();
        doors
    }

    fn config(clusters: &[(Transport, At)], listed: &[Listed], extra: &str) -> String {
        let texts: Vec<String> = clusters
            .iter()
            .map(|(transport, at)| {
                let name = transport.name();
                cluster(name, name, &at.to_string(), listed, extra)
            })
            .collect();
        config_of(&texts)
    }

    fn wait_online(&self) {
        let line = format!("    active members = {}\n", self.members.len());
        wait::until_true("all members online", LONG, || {
            self.daemon.admin("ls").matches(&line).count() == self.clusters.len()
        });
    }

    /// Where the first cluster is.
    fn net(&self) -> SocketAddr {
        match self.clusters[0].1 {
            At::Net(address) => address,
            At::Path(_) => panic!("a socket of this machine"),
        }
    }

    /// Each cluster, with how often something came to its members.
    fn seen(&self, prefix: &str) -> usize {
        let seen = self.members.iter().flat_map(|member| member.seen(prefix));
        seen.map(|seen| seen.cookie).collect::<HashSet<_>>().len()
    }
}

/// A kept connection over whatever it goes.
enum Any {
    Unix(Kept<UnixStream>),
    Tcp(Kept<TcpStream>),
}

impl Any {
    fn to(at: &At) -> Self {
        match at {
            At::Path(path) => Self::Unix(Kept::unix(path)),
            At::Net(address) => Self::Tcp(Kept::tcp(*address)),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Unix(kept) => kept.send(bytes),
            Self::Tcp(kept) => kept.send(bytes),
        }
    }

    /// Where the other side may have closed already, as it may: what it said can be read all the same.
    fn send_while_open(&mut self, bytes: &[u8]) {
        drop(match self {
            Self::Unix(kept) => kept.stream().write_all(bytes),
            Self::Tcp(kept) => kept.stream().write_all(bytes),
        });
    }

    fn line(&mut self) -> Option<String> {
        let line = match self {
            Self::Unix(kept) => kept.line(),
            Self::Tcp(kept) => kept.line(),
        };
        line.expect("the connection ends in order, if it ends")
    }

    fn finish(&self) {
        match self {
            Self::Unix(kept) => kept.finish(),
            Self::Tcp(kept) => kept.finish(),
        }
    }
}

const KEPT: [Transport; 3] = [Transport::Cunix, Transport::Tcp, Transport::Tcp6];

#[test]
fn a_call_lives_and_ends_over_each_transport() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let clusters: Vec<(Transport, At)> = Transport::ALL
        .into_iter()
        .filter_map(|transport| Some((transport, somewhere(&place, transport)?)))
        .collect();
    let listed = [Listed::udp("R1", &member.control().to_string())];
    let daemon = Daemon::start(&place, &Doors::config(&clusters, &listed, ""));
    wait::until_true("online everywhere", LONG, || {
        daemon.admin("ls").matches("    active members = 1\n").count() == clusters.len()
    });
    for (transport, at) in clusters {
        let mut wire = Wire::new(transport, at);
        let mut ask = |command: String| wire.ask(command.as_bytes());
        let name = transport.name();
        assert_eq!(ask("V".to_owned()), "20040107", "{name}");
        let created = ask(create(name));
        let (port, media) = client::media(&created);
        assert_eq!(media, member.media(), "{name}");
        let answered = ask(answer(name));
        let (other, media) = client::media(&answered);
        assert_eq!(media, member.media(), "{name}");
        assert_ne!(port, other, "{name}");
        assert_eq!(member.sessions(), 1, "{name}");
        assert_eq!(ask(delete(name)), "0", "{name}");
        assert_eq!(member.sessions(), 0, "{name}");
        assert_eq!(ask(delete("unheard-of")), "E50", "{name}");
    }
}

#[test]
fn odd_datagrams_and_lines_are_answered_as_an_rtpproxy_does() {
    let place = Place::new();
    let (direct, behind) = (
        RealMember::start(&place, "direct"),
        RealMember::start(&place, "behind"),
    );
    let (udp, tcp) = (
        SocketAddr::new(own_address(), CONTROL_PORT),
        SocketAddr::new(own_address(), CONTROL_PORT),
    );
    let listed = [Listed::udp("R1", &behind.control().to_string())];
    let clusters = [(Transport::Udp, At::Net(udp)), (Transport::Tcp, At::Net(tcp))];
    let daemon = Daemon::start(&place, &Doors::config(&clusters, &listed, ""));
    wait::until_true("online", LONG, || {
        daemon.admin("ls").matches("    active members = 1\n").count() == 2
    });
    let long_cookie = [&[b'c'; 300][..], b" V"].concat();
    let datagrams: [&[u8]; 17] = [
        b"",
        b" ",
        b"\n",
        b"\r\n",
        b"c1",
        b"c2 ",
        b"c3\n",
        b"c4 V",
        b"c5 V\r\n",
        b"c6 V\nX\n",
        b" c7\tV",
        b"\0 V",
        b"c\0 V",
        b"c8 \0",
        b"c9 Z",
        b"V",
        &long_cookie,
    ];
    for datagram in datagrams {
        let ask = |to: SocketAddr| {
            let client = Datagrams::to(to);
            client.send(datagram);
            client.receive()
        };
        assert_eq!(ask(udp), ask(direct.control()), "{}", client::escaped(datagram));
    }
    for lines in [
        "\n",
        "\n\n",
        "\r\n",
        " \n",
        "V\n\nV\n",
        "V\r\nV\r\n",
        "\0\n",
        "V\0V\n",
        "V &&\n",
        "Z\nV\n",
        "V\nhalf a line",
        "",
    ] {
        let ask = |to: SocketAddr| {
            let mut kept = Kept::tcp(to);
            kept.send(lines.as_bytes());
            kept.finish();
            let mut text = String::new();
            while let Some(line) = kept.line().expect("closed in order") {
                text += &line;
                text += "\n";
            }
            text
        };
        assert_eq!(ask(tcp), ask(direct.control()), "{lines:?}");
    }
}

#[test]
fn what_is_too_long_is_refused_and_reaches_no_member() {
    let doors = Doors::of(&[Transport::Udp, Transport::Cunix, Transport::Tcp], 1);
    for (transport, at) in &doors.clusters {
        for length in [8_200, 60_000, 300_000] {
            let text = [b"D ", &vec![b'a'; length][..]].concat();
            let At::Net(address) = at else { continue };
            if *transport == Transport::Udp {
                // Longer ones the system does not send.
                if length < 65_000 {
                    assert_eq!(
                        Datagrams::to(*address).ask("c", &String::from_utf8_lossy(&text)),
                        "E5"
                    );
                }
                continue;
            }
            let mut kept = Any::to(at);
            // What came before it is answered, what comes behind it is not.
            kept.send(b"V\n");
            kept.send_while_open(&text);
            kept.send_while_open(b"\nV\n");
            assert_eq!(kept.line().as_deref(), Some("20040107"));
            assert_eq!(
                kept.line().as_deref(),
                Some("E5"),
                "{} {length}",
                transport.name()
            );
            assert_eq!(kept.line(), None);
        }
    }
    assert_eq!(doors.seen("D"), 0);
}

#[test]
fn garbage_is_refused_over_each_transport_and_reaches_no_member() {
    let doors = Doors::of(&Transport::ALL, 1);
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for (transport, at) in &doors.clusters {
        let mut wire = Wire::new(*transport, at.clone());
        for number in 0..200 {
            let mut bytes = vec![b"UuLlDdQqPpXxGg\0\xff"[number % 16]];
            for _ in 0..number % 50 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                bytes.push(random.to_le_bytes()[3] | 0x80);
            }
            bytes.extend_from_slice(b" \0\n");
            let reply = wire.ask(&bytes);
            let shown = client::escaped(&bytes);
            assert!(reply.starts_with('E'), "{} {shown} -> {reply}", transport.name());
        }
        assert_eq!(wire.ask(b"V"), "20040107", "{}", transport.name());
    }
    for letter in ["U", "L", "D", "Q", "P", "X", "G"] {
        assert_eq!(
            doors.seen(letter) + doors.seen(&letter.to_lowercase()),
            0,
            "{letter}"
        );
    }
}

#[test]
fn a_repeat_runs_nothing_while_its_command_takes_long_and_nothing_afterwards() {
    let doors = Doors::of(&[Transport::Udp], 1);
    let member = &doors.members[0];
    let one = Datagrams::to(doors.net());
    assert_eq!(client::media(&one.ask("c1", &create("call"))).1, member.media());
    member.on("Q", Fault::Late(Duration::from_millis(1_500)));
    // As SIP servers do: again, under the same cookie, while no reply has come.
    let command = b"c2 Q call from to";
    one.send(command);
    wait::until_true("it is at the member", LONG, || doors.seen("Q") == 1);
    one.send(command);
    let reply = one.receive();
    one.send(command);
    assert_eq!(one.receive(), reply);
    assert_eq!(doors.seen("Q"), 1, "one command at the member");
    assert_eq!(
        one.receive_within(Duration::from_millis(300)),
        None,
        "no reply is left over"
    );
}

#[test]
fn a_repeated_delete_all_ends_only_what_was_there() {
    let doors = Doors::of(&[Transport::Udp], 2);
    let (one, other) = (Datagrams::to(doors.net()), Datagrams::to(doors.net()));
    one.ask("c1", &create("old"));
    assert_eq!(one.ask("c2", "X"), "0");
    one.ask("c3", &create("new"));
    assert_eq!(one.ask("c2", "X"), "0", "the reply of the first");
    assert!(doors.members.iter().any(|member| member.has("new")));
    // Somebody else's is a command, whatever its cookie.
    assert_eq!(other.ask("c2", "X"), "0");
    assert!(!doors.members.iter().any(|member| member.has("new")));
}

#[test]
fn a_command_that_got_no_reply_is_run_when_it_comes_again() {
    let place = Place::new();
    let control = SocketAddr::new(own_address(), CONTROL_PORT);
    let silent = "<no_members reply=\"silent\"/>";
    let text = cluster("C1", "UDP", &control.to_string(), &[], silent);
    let daemon = Daemon::start(&place, &config_of(&[text]));
    let client = Datagrams::to(control);
    let command = format!("c1 {}", create("call"));
    client.send(command.as_bytes());
    assert_eq!(client.receive_within(Duration::from_millis(300)), None);
    let member = FakeMember::start();
    daemon.admin_ok(&format!(
        "modify C1 add name=M1,protocol=UDP,address={},capacity=100,weight=100",
        member.control()
    ));
    daemon.wait_members(1, 0);
    client.send(command.as_bytes());
    assert!(client.receive().ends_with(&format!(" {}\n", member.media())));
}

#[test]
fn a_kept_connection_without_a_reply_to_give_is_closed_in_its_place() {
    let place = Place::new();
    for transport in [Transport::Cunix, Transport::Tcp] {
        let at = somewhere(&place, transport).expect("every machine has it");
        let silent = "<no_members reply=\"silent\"/>";
        let daemon = Daemon::start(&place, &Doors::config(&[(transport, at.clone())], &[], silent));
        let mut kept = Any::to(&at);
        kept.send(format!("V\n{}\nV\n", create("call")).as_bytes());
        assert_eq!(kept.line().as_deref(), Some("20040107"));
        assert_eq!(kept.line(), None, "{}", transport.name());
        drop(daemon);
    }
}

#[test]
fn many_commands_in_flight_are_answered_in_order_whatever_members_do() {
    const CALLS: usize = 400;
    let doors = Doors::of(&KEPT, 4);
    for (n, member) in doors.members.iter().enumerate() {
        // Each with a delay of its own, far from those of the others.
        let delay = Duration::from_millis([0, 7, 30, 90][n]);
        member.on("D", Fault::Late(delay));
    }
    for (transport, at) in &doors.clusters {
        let call = |n: usize| format!("{}-{n}", transport.name());
        // Every third is one that no member has: all are asked, and the slowest answers last.
        let exists = |n: usize| !n.is_multiple_of(3);
        let mut kept = Any::to(at);
        for n in (0..CALLS).filter(|n| exists(*n)) {
            kept.send(format!("{}\n", create(&call(n))).as_bytes());
            assert!(kept.line().is_some_and(|line| !line.starts_with('E')));
        }
        let commands: Vec<String> = (0..CALLS).map(|n| format!("{}\n", delete(&call(n)))).collect();
        kept.send(commands.concat().as_bytes());
        kept.finish();
        for n in 0..CALLS {
            let want = if exists(n) { "0" } else { "E50" };
            assert_eq!(kept.line().as_deref(), Some(want), "{} {n}", transport.name());
        }
        assert_eq!(kept.line(), None);
    }
}

#[test]
fn lines_may_come_in_any_pieces() {
    let doors = Doors::of(&[Transport::Cunix, Transport::Tcp], 1);
    let said = [
        ("V", "20040107"),
        ("VF 20050322", "1"),
        ("", "E5"),
        ("Z 1 2", "E0"),
        ("U a", "E1"),
    ];
    let mut random: u64 = 0x2545_f491_4f6c_dd1d;
    for (transport, at) in &doors.clusters {
        let mut text = Vec::new();
        for (n, (command, _)) in said.iter().cycle().take(500).enumerate() {
            text.extend_from_slice(command.as_bytes());
            text.extend_from_slice(if n % 2 == 0 { b"\n" } else { b"\r\n" });
        }
        let mut kept = Any::to(at);
        let mut rest = &text[..];
        while !rest.is_empty() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let length = (random % 40) as usize;
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            kept.send(piece);
            rest = behind;
        }
        kept.finish();
        for (n, (command, reply)) in said.iter().cycle().take(500).enumerate() {
            assert_eq!(
                kept.line().as_deref(),
                Some(*reply),
                "{} {n} {command}",
                transport.name()
            );
        }
        assert_eq!(kept.line(), None);
    }
}

#[test]
fn who_has_ended_its_side_gets_what_is_still_under_way() {
    let doors = Doors::of(&KEPT, 1);
    doors.members[0].on("Q", Fault::Late(Duration::from_millis(400)));
    for (transport, at) in &doors.clusters {
        let mut kept = Any::to(at);
        let call = transport.name();
        kept.send(format!("{}\nQ {call} from to\nV\n", create(call)).as_bytes());
        kept.finish();
        assert!(
            kept.line()
                .is_some_and(|line| line.ends_with(&doors.members[0].media()))
        );
        assert_eq!(kept.line().as_deref(), Some("60 0 0 0 0"), "{call}");
        assert_eq!(kept.line().as_deref(), Some("20040107"), "{call}");
        assert_eq!(kept.line(), None, "{call}");
    }
}

#[test]
fn who_never_reads_is_closed_and_the_others_do_not_notice() {
    /// Floods of 8 KiB: more than all buffers on the way take.
    const MOST: usize = 10_000;
    let doors = Doors::of(&[Transport::Tcp, Transport::Cunix], 1);
    thread::scope(|scope| {
        let deaf: Vec<_> = doors
            .clusters
            .iter()
            .map(|(_, at)| {
                scope.spawn(|| {
                    let mut kept = Any::to(at);
                    let stream: &mut dyn Write = match &mut kept {
                        Any::Unix(kept) => kept.stream(),
                        Any::Tcp(kept) => kept.stream(),
                    };
                    let flood = b"V\n".repeat(4_096);
                    // It blocks when neither side takes more, until the other side closes.
                    let written = (0..MOST).take_while(|_| stream.write_all(&flood).is_ok()).count();
                    assert!(written < MOST, "it is read without end");
                })
            })
            .collect();
        for (transport, at) in &doors.clusters {
            let mut wire = Wire::new(*transport, at.clone());
            for _ in 0..200 {
                assert_eq!(wire.ask(b"V"), "20040107");
            }
        }
        for deaf in deaf {
            deaf.join().expect("it was closed");
        }
    });
}

#[test]
fn a_byte_a_second_is_ended_after_five_seconds_over_tcp_too() {
    let doors = Doors::of(&[Transport::Tcp], 1);
    let reply = thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let mut kept = Kept::tcp(doors.net());
            let stream = kept.stream();
            stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .expect("a time-out can be set");
            let mut text = Vec::new();
            for byte in "U call-id 127.0.0.1 4000 from".bytes() {
                // The other side may have closed by now: then reading tells.
                drop(stream.write_all(&[byte]));
                match stream.read_to_end(&mut text) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    _ => break,
                }
            }
            text
        });
        let mut other = Kept::tcp(doors.net());
        assert_eq!(other.ask("V"), "20040107");
        assert!(!slow.is_finished(), "others are served while it goes on");
        slow.join().expect("the slow client was answered")
    });
    // Its whole command would have taken half a minute, and had no line end then.
    assert_eq!(String::from_utf8_lossy(&reply), "E1\n");
    assert_eq!(doors.seen("U"), 0);
}

#[test]
fn a_thousand_idle_connections_cost_nothing_and_stay() {
    const IDLE: usize = 1_000;
    let doors = Doors::of(&[Transport::Tcp], 1);
    let mut idle: Vec<Kept<TcpStream>> = (0..IDLE)
        .map(|_| {
            let mut kept = Kept::tcp(doors.net());
            assert_eq!(kept.ask("V"), "20040107");
            kept
        })
        .collect();
    let mut busy = Kept::tcp(doors.net());
    for _ in 0..500 {
        assert_eq!(busy.ask("VF 20050322"), "1");
    }
    // Idle ones are watched elsewhere by now, and are heard all the same: twice, since the first time moves them.
    for _ in 0..2 {
        for kept in &mut idle {
            assert_eq!(kept.ask("V"), "20040107");
        }
    }
    drop(idle);
    wait::until_true("they are counted out", LONG, || {
        let json = doors.daemon.admin("ls --json TCP");
        json.contains("\"clients\":1") || json.contains("\"clients\": 1")
    });
}

#[test]
fn ten_thousand_connections_are_served_and_the_next_one_waits_for_its_place() {
    const MOST: usize = 10_000;
    let own = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: own.maximum,
        ..own
    };
    setrlimit(Resource::Nofile, all).expect("the limit may be used up");
    assert!(
        own.maximum.is_none_or(|most| most > MOST as u64 + 1_000),
        "this test wants {MOST} descriptors and more: ulimit -Hn"
    );
    let doors = Doors::of(&[Transport::Tcp], 1);
    let mut first = Kept::tcp(doors.net());
    assert_eq!(first.ask("V"), "20040107");
    let mut others: Vec<Kept<TcpStream>> = (1..MOST).map(|_| Kept::tcp(doors.net())).collect();
    let mut last = others.pop().expect("many");
    assert_eq!(last.ask("V"), "20040107");
    let mut beyond = Kept::tcp(doors.net());
    beyond.send(b"VF 20050322\n");
    let paused = |log: &str| log.matches("accepting pauses").count();
    wait::until_true("it says so", LONG, || paused(&doors.daemon.log()) == 1);
    doors.daemon.admin_ok("ls TCP");
    assert_eq!(first.ask("V"), "20040107", "who is there is served");
    drop(others);
    // They all go at once, and this one does not wait for that.
    assert_eq!(beyond.line().expect("open").as_deref(), Some("1"));
    assert_eq!(paused(&doors.daemon.log()), 1, "it is said once a minute");
}

/// Stops the daemon while a question over each of its sockets is at its member; the replies.
fn stop_with_questions(doors: &mut Doors, fault: Fault) -> Vec<String> {
    doors.members[0].on("Q", fault);
    for (transport, at) in &doors.clusters {
        let mut wire = Wire::new(*transport, at.clone());
        let reply = wire.ask(create(transport.name()).as_bytes());
        assert!(reply.ends_with(&doors.members[0].media()), "{reply}");
    }
    let clusters = doors.clusters.clone();
    thread::scope(|scope| {
        let asking: Vec<_> = clusters
            .iter()
            .map(|(transport, at)| {
                scope.spawn(move || {
                    let command = format!("Q {} from to", transport.name());
                    Wire::new(*transport, at.clone()).ask(command.as_bytes())
                })
            })
            .collect();
        wait::until_true("all are in flight", LONG, || doors.seen("Q") == clusters.len());
        doors.daemon.signal(Signal::TERM);
        let replies: Vec<String> = asking
            .into_iter()
            .map(|asking| asking.join().expect("it was answered"))
            .collect();
        assert!(doors.daemon.wait_end(LONG).success());
        replies
    })
}

#[test]
fn what_is_in_flight_at_sigterm_is_answered_over_each_transport() {
    let mut doors = Doors::of(&Transport::ALL, 1);
    let replies = stop_with_questions(&mut doors, Fault::Late(Duration::from_millis(700)));
    assert!(replies.iter().all(|reply| reply == "60 0 0 0 0"), "{replies:?}");
    for (_, at) in &doors.clusters {
        if let At::Path(path) = at {
            assert!(!path.exists(), "{at}");
        }
    }
}

#[test]
fn what_no_member_answers_is_answered_by_us_before_we_end() {
    let mut doors = Doors::of(&Transport::ALL, 1);
    let replies = stop_with_questions(&mut doors, Fault::Silent);
    assert!(
        replies.iter().all(|reply| reply.starts_with("E99")),
        "{replies:?}"
    );
}

#[test]
fn a_kept_unix_socket_has_the_mode_asked_for() {
    let doors = Doors::with(&[Transport::Cunix], 0, "<socket mode=\"0640\"/>");
    let At::Path(path) = &doors.clusters[0].1 else {
        panic!("a path")
    };
    let mode = fs::metadata(path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn a_taken_port_ends_the_start_and_is_named() {
    let place = Place::new();
    let address = SocketAddr::new(own_address(), CONTROL_PORT);
    let udp = UdpSocket::bind(address).expect("free");
    let tcp = TcpListener::bind(address).expect("free");
    for (transport, what) in [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")] {
        let config = place.write(
            "taken.xml",
            Doors::config(&[(transport, At::Net(address))], &[], ""),
        );
        let output = program()
            .arg("-f")
            .arg("-c")
            .arg(&config)
            .arg("-s")
            .arg(place.path("admin.sock"))
            .arg("-P")
            .arg(place.path("pid"))
            .output()
            .expect("the daemon can be started");
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(&format!("{what} {address}")), "{told}");
        assert!(!place.path("admin.sock").exists());
    }
    drop((udp, tcp));
}

#[test]
fn a_cluster_moves_to_another_transport_and_back_with_its_calls() {
    let mut doors = Doors::of(&[Transport::Unix], 3);
    let unix = doors.clusters[0].1.clone();
    let homes: Vec<String> = {
        let mut wire = Wire::new(Transport::Unix, unix.clone());
        (0..20)
            .map(|n| {
                client::media(&wire.ask(create(&format!("call-{n}")).as_bytes()))
                    .1
                    .to_owned()
            })
            .collect()
    };
    for member in &doors.members {
        member.on("Q", Fault::Late(Duration::from_millis(300)));
    }
    let asked = AtomicU32::new(0);
    for transport in [
        // The same file, spoken to in another way.
        Transport::Cunix,
        Transport::Unix,
        Transport::Udp,
        Transport::Tcp,
        Transport::Cunix,
        Transport::Udp6,
        Transport::Tcp6,
        Transport::Unix,
    ] {
        let next = if matches!(transport, Transport::Unix | Transport::Cunix) {
            Some(unix.clone())
        } else {
            somewhere(&doors.place, transport)
        };
        let Some(next) = next else { continue };
        let before = doors.clusters[0].clone();
        let text = Doors::config(&[(transport, next.clone())], &listed(&doors.members), "").replace(
            &format!("<name>{}</name>", transport.name()),
            &format!("<name>{}</name>", Transport::Unix.name()),
        );
        fs::write(&doors.daemon.files().config, text).expect("the configuration can be written");
        thread::scope(|scope| {
            let flying = scope.spawn(|| Wire::new(before.0, before.1.clone()).ask(b"Q call-7 from to"));
            let so_far = asked.fetch_add(1, Ordering::Relaxed) as usize;
            wait::until_true("it is in flight", LONG, || doors.seen("Q") > so_far);
            doors.daemon.admin_ok("reload");
            let reply = flying.join().expect("it is answered where it was asked");
            assert_eq!(
                reply,
                "60 0 0 0 0",
                "from {} to {}",
                before.0.name(),
                transport.name()
            );
        });
        let mut wire = Wire::new(transport, next.clone());
        for (n, home) in homes.iter().enumerate() {
            let reply = wire.ask(answer(&format!("call-{n}")).as_bytes());
            assert_eq!(client::media(&reply).1, home, "{}", transport.name());
        }
        if let At::Path(path) = &before.1 {
            assert_eq!(path.exists(), before.1 == next, "the old socket is gone");
        }
        doors.clusters[0] = (transport, next);
    }
}

#[test]
fn a_flood_from_one_sender_leaves_the_others_their_turn() {
    /// Fewer than what a socket takes while nobody reads it.
    const FLOOD: usize = 150;
    let doors = Doors::of(&[Transport::Udp], 1);
    let flooder = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    let client = Datagrams::to(doors.net());
    // All have come before the first is read, one sender's before the other's.
    doors.daemon.stop();
    for number in 0..FLOOD {
        let datagram = format!("f{number} {}", create(&format!("flood-{number}")));
        flooder
            .send_to(datagram.as_bytes(), doors.net())
            .expect("a datagram can be sent");
    }
    client.send(format!("c1 {}", create("other")).as_bytes());
    doors.daemon.signal(Signal::CONT);
    assert!(client.receive().starts_with("c1 "));
    wait::until_true("each is at the member", LONG, || doors.seen("U") == FLOOD + 1);
    let mut cookies = HashSet::new();
    let mut order = doors.members[0].seen("U");
    order.retain(|seen| cookies.insert(seen.cookie.clone()));
    let at = order.iter().position(|seen| seen.command.starts_with("U other "));
    // A first batch is served as it comes; the rest of the flood waits behind the other sender.
    assert!(at.is_some_and(|at| at < FLOOD * 3 / 4), "{at:?} of {FLOOD}");
}

#[test]
fn the_same_cookie_of_another_sender_is_another_command() {
    let doors = Doors::of(&[Transport::Udp], 1);
    let [one, other] = [(); 2].map(|()| Datagrams::to(doors.net()));
    for (client, call) in [(&one, "one"), (&other, "other")] {
        assert!(
            client
                .ask("same", &create(call))
                .ends_with(&doors.members[0].media())
        );
        assert!(doors.members[0].has(call));
    }
    assert_eq!(doors.seen("U"), 2);
}

/// Each of its commands wants a connection of its own.
#[test]
fn without_descriptors_a_member_over_unix_has_those_that_it_needs() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let listed = Listed {
        protocol: "UNIX",
        ..Listed::udp("R1", &member.at(Transport::Unix).expect("a path").to_string())
    };
    let control = SocketAddr::from((own_address(), CONTROL_PORT));
    let clusters = [cluster("C1", "TCP", &control.to_string(), &[listed], "")];
    let daemon = Daemon::start_apart(&place, &config_of(&clusters), Apart::with_descriptors(64));
    let daemon = daemon.expect("anybody may have less");
    daemon.wait_members(1, 0);
    let mut known = Kept::tcp(control);
    assert_eq!(known.ask("V"), "20040107");
    let crowd: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(control).expect("the system accepts for it"))
        .collect();
    wait::until_true("it accepts no more", LONG, || {
        daemon
            .log()
            .contains("accepting pauses: few descriptors are left")
    });
    for number in 0..50 {
        let reply = known.ask(&create(&format!("call-{number}")));
        assert!(client::media(&reply).0 > 0, "{reply}");
    }
    drop(crowd);
}

#[test]
fn without_descriptors_accepting_pauses_and_goes_on_when_there_are_some() {
    let doors = Doors::of(&[Transport::Tcp], 1);
    let mut known = Kept::tcp(doors.net());
    assert_eq!(known.ask("V"), "20040107");
    let pid = i32::try_from(doors.daemon.pid()).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current: Some(64),
        maximum: Some(4_096),
    };
    prlimit(pid, Resource::Nofile, limit).expect("a limit of our own child");
    let crowd: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(doors.net()).expect("the system accepts for it"))
        .collect();
    let paused = |log: &str| log.matches("accepting pauses").count();
    wait::until_true("it says so", LONG, || paused(&doors.daemon.log()) == 1);
    for _ in 0..100 {
        assert_eq!(known.ask("V"), "20040107", "who is there is served");
    }
    drop(crowd);
    let mut late = Kept::tcp(doors.net());
    assert_eq!(late.ask("V"), "20040107");
    assert_eq!(paused(&doors.daemon.log()), 1, "it is said once a minute");
}
