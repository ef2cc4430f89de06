//! Media stop, or a member dies with its calls: the SIP server is told on its own socket, with its own words.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use crate::support::bed::listed;
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, cluster, config, config_of};
use crate::support::ears::{Ears, Line, counter, element, relay};
use crate::support::member;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{self, LONG};

/// How long a session without media lives in these tests, in seconds.
const SHORT: &str = "2";

/// The flags of an RTPproxy whose sessions without media end soon, and which says so where it is asked from.
fn talkative(relay: SocketAddr) -> [String; 6] {
    let target = format!("tcp:%%CC_SELF%%:{}", relay.port());
    ["-n", &target, "-T", SHORT, "-W", SHORT].map(str::to_owned)
}

fn start_talkative(place: &Place, name: &str, relay: SocketAddr) -> RealMember {
    let flags = talkative(relay);
    RealMember::start_with(place, name, &flags.each_ref().map(String::as_str))
}

#[test]
fn a_call_without_media_is_told_to_the_sip_server_on_its_own_socket() {
    let place = Place::new();
    // Our commands leave from this address, so that is where the members send.
    let inbound = relay(member::own_address());
    let members = [
        start_talkative(&place, "r1", inbound),
        start_talkative(&place, "r2", inbound),
    ];
    let listed = [
        Listed::udp("R1", &members[0].control().to_string()),
        Listed {
            protocol: "TCP",
            ..Listed::udp("R2", &members[1].control().to_string())
        },
    ]
    .map(|listed| listed.from(inbound.ip()));
    let prefix = place.path("b2bua.sock");
    let (bare, third) = (Ears::at(&prefix), Ears::at(&place.path("b2bua.sock.3")));
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &listed, &element(inbound, &prefix, "")));
    daemon.wait_members(2, 0);

    let mut told = Vec::new();
    for number in 0..10 {
        let tag = format!("call {number}/=%");
        let quoted = tag.replace('%', "%25").replace(' ', "%20");
        let path = place.path("b2bua.sock.3");
        let create = format!(
            "U call-{number} 127.0.0.1 4000 from unix:{} {quoted}",
            path.display()
        );
        let media = client::ask(&control, &create);
        client::media(&media);
        let answer = client::ask(&control, &format!("L call-{number} 127.0.0.1 4002 from to"));
        assert_eq!(client::media(&answer).1, client::media(&media).1);
        told.push(tag);
    }
    let create = format!("U other 127.0.0.1 4000 from {} tag", prefix.display());
    client::media(&client::ask(&control, &create));
    // One that asks for nothing, and one that has ended.
    client::media(&client::ask(&control, "U silent 127.0.0.1 4000 from"));
    client::media(&client::ask(
        &control,
        &create.replace("other", "ended").replace(" tag", " ended"),
    ));
    assert_eq!(client::ask(&control, "D ended from"), "0");

    assert_eq!(third.hear_all(told.len()), told);
    assert_eq!(bare.hear(), "tag");
    for member in &members {
        wait::until_true("no session is left", LONG, || member.sessions() == 0);
    }
    assert!(bare.heard().is_empty() && third.heard().is_empty());
    wait::until_true("eleven are counted", LONG, || {
        counter(&daemon, "notifications") == told.len() as u64 + 1
    });
    assert_eq!(counter(&daemon, "notifications_dropped"), 0);
}

#[test]
fn strangers_are_not_listened_to_and_told_once_a_minute() {
    let line = Line::new();
    let ears = Ears::at(&line.place.path("sip.1"));
    for _ in 0..10 {
        let mut stranger = line.connect_from(member::own_address());
        // It may be closed already.
        drop(stranger.write_all(b"1 forged\n"));
        stranger
            .set_read_timeout(Some(LONG))
            .expect("a time-out can be set");
        let closed = std::io::Read::read(&mut stranger, &mut [0; 1]);
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    line.connect().write_all(b"1 true\n").expect("the relay reads");
    assert_eq!(ears.hear(), "true");
    assert!(ears.heard().is_empty());
    let log = line.daemon.log();
    let told = log.lines().filter(|line| line.contains("no member's address"));
    assert_eq!(told.count(), 1, "{log}");
}

#[test]
fn nonsense_is_dropped_and_the_lines_around_it_are_not() {
    let line = Line::new();
    let ears = Ears::at(&line.place.path("sip.1"));
    let long = format!("1 {}", "x".repeat(10_000));
    let mut member = line.connect();
    let pieces: [&[u8]; 8] = [
        b"1 a\n",
        b"nonsense\n",
        b"/../x b\n",
        long.as_bytes(),
        b"\n",
        b"1 c\r\n",
        b"\xff\xfe\n",
        b"1 half",
    ];
    for piece in pieces {
        member.write_all(piece).expect("the relay reads");
    }
    drop(member);
    line.connect().write_all(b"1 d\n").expect("the relay reads");
    assert_eq!(ears.hear_all(3), ["a", "c", "d"]);
    wait::until_true("five are counted", LONG, || {
        counter(&line.daemon, "notifications_dropped") == 5
    });
}

#[test]
fn notifications_wait_for_a_sip_server_that_is_away() {
    let line = Line::new();
    let (first, second) = (line.place.path("sip.1"), line.place.path("sip.2"));
    let mut member = line.connect();
    for number in 0..100 {
        member
            .write_all(format!("1 early-{number:02}\n").as_bytes())
            .expect("the relay reads");
    }
    // Nobody waits for those.
    let others = Ears::at(&second);
    member.write_all(b"2 other\n").expect("the relay reads");
    assert_eq!(others.hear(), "other");
    let ears = Ears::at(&first);
    for number in 0..100 {
        assert_eq!(ears.hear(), format!("early-{number:02}"));
    }
    // A socket that takes nothing for ever has a bounded queue; the newest are in it.
    let third = line.place.path("sip.3");
    let line_of = |number: usize| format!("{number} {}", "x".repeat(1_000));
    for number in 0..1_000 {
        member
            .write_all(format!("3 {}\n", line_of(number)).as_bytes())
            .expect("the relay reads");
    }
    wait::until_true("the oldest are dropped", LONG, || {
        counter(&line.daemon, "notifications_dropped") > 800
    });
    let late = Ears::at(&third);
    let mut last = late.hear();
    while last != line_of(999) {
        last = late.hear();
    }
}

#[test]
fn a_sip_server_that_comes_back_is_connected_anew() {
    let line = Line::new();
    let path = line.place.path("sip.1");
    let mut member = line.connect();
    {
        let listener = UnixListener::bind(&path).expect("a socket");
        member.write_all(b"1 first\n").expect("the relay reads");
        let (mut stream, _) = listener.accept().expect("the relay connects");
        let mut text = [0; 6];
        std::io::Read::read_exact(&mut stream, &mut text).expect("a line");
        assert_eq!(&text, b"first\n");
        std::fs::remove_file(&path).expect("the socket's file is there");
    }
    let ears = Ears::at(&path);
    member.write_all(b"1 second\n").expect("the relay reads");
    assert_eq!(ears.hear(), "second");
}

#[test]
fn a_reload_starts_moves_and_ends_the_relay() {
    let line = Line::new();
    let ears = Ears::at(&line.place.path("sip.1"));
    let files = line.daemon.files().clone();
    let members = listed(std::slice::from_ref(&line.member));
    let moved = relay(member::own_address());
    let reload = |text: &str| {
        std::fs::write(&files.config, text).expect("the configuration can be written");
        line.daemon.admin("reload")
    };
    let with = |extra: &str| config(&files.control, &members, extra);
    let prefix = line.place.path("sip.");
    let listens = |at: SocketAddr| TcpStream::connect(at).is_ok();

    assert!(reload(&with("")).ends_with("OK\n"));
    assert!(!listens(line.inbound));
    assert!(reload(&with(&element(moved, &prefix, ""))).ends_with("OK\n"));
    assert!(listens(moved));
    // A member's connection survives what does not concern it.
    let mut stream = TcpStream::connect(moved).expect("the relay listens");
    drop(stream.shutdown(std::net::Shutdown::Both));
    stream = {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let from = SocketAddr::from((line.member.control().ip(), 0));
        socket.bind(&from.into()).expect("an address");
        socket.connect(&moved.into()).expect("the relay listens");
        socket.into()
    };
    stream.write_all(b"1 one\n").expect("the relay reads");
    assert_eq!(ears.hear(), "one");
    let other = line.place.path("other.");
    let others = Ears::at(&line.place.path("other.1"));
    assert!(reload(&with(&element(moved, &other, "on_member_loss='30s'"))).ends_with("OK\n"));
    stream.write_all(b"1 two\n").expect("the relay reads");
    assert_eq!(others.hear(), "two");

    // A port that is taken is refused with its reason, and nothing changes.
    let taken = TcpListener::bind(relay(member::own_address())).expect("a port");
    let at = taken.local_addr().expect("bound");
    let refused = reload(&with(&element(at, &prefix, "")));
    assert!(
        refused.contains(&format!("inbound_address of <disconnect_notify>: tcp {at}")),
        "{refused}"
    );
    stream.write_all(b"1 three\n").expect("the relay reads");
    assert_eq!(others.hear(), "three");

    // The address goes to another cluster, which is new, while the old one goes away.
    let second = cluster(
        "C2",
        "UNIX",
        &line.place.path("c2.sock").display().to_string(),
        &members,
        &element(moved, &prefix, ""),
    );
    let first = cluster("C1", "UNIX", &files.control.display().to_string(), &members, "");
    assert!(reload(&config_of(&[first, second])).ends_with("OK\n"));
    assert!(listens(moved));
    assert!(line.daemon.admin("cluster delete C2 now").ends_with("OK\n"));
    assert!(!listens(moved));
}

#[test]
fn a_relay_that_cannot_be_bound_keeps_the_daemon_from_starting() {
    let place = Place::new();
    let taken = TcpListener::bind(relay(member::own_address())).expect("a port");
    let at = taken.local_addr().expect("bound");
    let files = Files::in_place(&place);
    let text = config(&files.control, &[], &element(at, &place.path("sip."), ""));
    std::fs::write(&files.config, text).expect("the configuration can be written");
    let output = crate::support::daemon::program()
        .args(["-f", "-c"])
        .arg(&files.config)
        .arg("-s")
        .arg(&files.admin)
        .arg("-P")
        .arg(&files.pid)
        .output()
        .expect("the daemon can be started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cluster C1: inbound_address"), "{told}");
    assert!(told.contains(&at.to_string()), "{told}");
    assert!(!files.control.exists(), "nothing is left of the start");
}

/// What the SIP server asked to be told of the calls of one member.
#[derive(Default)]
struct Asked {
    local: Vec<String>,
    over_tcp: Vec<String>,
    last: String,
    ended: bool,
    silent: bool,
}

#[test]
fn the_calls_of_a_member_that_died_are_told_of_in_its_place() {
    let place = Place::new();
    let inbound = relay(member::own_address());
    let names = ["r1", "r2"];
    // None of their sessions times out by itself while the test runs.
    let mut members = names.map(|name| {
        RealMember::start_with(
            &place,
            name,
            &["-n", &format!("tcp:%%CC_SELF%%:{}", inbound.port())],
        )
    });
    let listed = [
        Listed::udp("R1", &members[0].control().to_string()).from(inbound.ip()),
        Listed {
            protocol: "UNIX",
            ..Listed::udp("R2", &members[1].unix().display().to_string())
        },
    ];
    let prefix = place.path("sip.");
    let ears = Ears::at(&place.path("sip.1"));
    let (distant, distant_at) = Ears::tcp();
    let control = Files::in_place(&place).control;
    let element = element(inbound, &prefix, "on_member_loss='2s'");
    let daemon = Daemon::start(&place, &config(&control, &listed, &element));
    daemon.wait_members(2, 0);

    let mut asked = [Asked::default(), Asked::default()];
    for number in 0..80 {
        let call = format!("call-{number}");
        let (target, tag) = match number % 5 {
            0 | 1 => (place.path("sip.1").display().to_string(), format!("{call}%20tag")),
            2 => (format!("tcp:{distant_at}"), call.clone()),
            _ => (String::new(), String::new()),
        };
        let create = format!("U {call} 127.0.0.1 4000 from {target} {tag}");
        let reply = client::ask(&control, create.trim_end());
        let media = client::media(&reply).1;
        let home = members.iter().position(|member| member.media() == media);
        let asked = &mut asked[home.expect("the address of a member")];
        match number % 5 {
            0 if !asked.ended => {
                asked.ended = true;
                assert_eq!(client::ask(&control, &format!("D {call} from")), "0");
            }
            0 | 1 => {
                asked.local.push(format!("{call} tag"));
                asked.last = call;
            }
            2 => asked.over_tcp.push(tag),
            _ => asked.silent = true,
        }
    }

    // Each member in turn: one over UDP, whose word comes by the relay, and a local one, which would tell by itself.
    for (member, mut asked) in members.iter_mut().zip(asked) {
        assert!(asked.ended && asked.silent && asked.local.len() > 1 && !asked.over_tcp.is_empty());
        // A short absence is no loss.
        member.stop();
        daemon.wait_members(1, 1);
        member.resume();
        daemon.wait_members(2, 0);
        member.kill();
        daemon.wait_members(1, 1);
        // One is healed in time by a re-INVITE, which does not ask again.
        let healed = client::ask(&control, &format!("U {} 127.0.0.1 4000 from to", asked.last));
        assert!(healed.contains(' '), "{healed}");
        asked.local.retain(|text| *text != format!("{} tag", asked.last));
        asked.local.sort_unstable();
        asked.over_tcp.sort_unstable();
        assert_eq!(ears.hear_all(asked.local.len()), asked.local);
        assert_eq!(distant.hear_all(asked.over_tcp.len()), asked.over_tcp);
        member.restart();
        daemon.wait_members(2, 0);
        assert!(ears.heard().is_empty() && distant.heard().is_empty(), "each once");
    }
    assert_eq!(counter(&daemon, "notifications_dropped"), 0);
}

#[test]
fn a_local_member_tells_the_sip_server_by_itself() {
    let place = Place::new();
    let path = place.path("sip.1");
    let ears = Ears::at(&path);
    let target = format!("unix:{}", path.display());
    let member = RealMember::start_with(&place, "r1", &["-n", &target, "-T", SHORT, "-W", SHORT]);
    let listed = [Listed {
        protocol: "UNIX",
        ..Listed::udp("R1", &member.unix().display().to_string())
    }];
    let control = Files::in_place(&place).control;
    let element = element(relay(member::own_address()), &place.path("sip."), "");
    let daemon = Daemon::start(&place, &config(&control, &listed, &element));
    daemon.wait_members(1, 0);
    client::media(&client::ask(
        &control,
        &format!("U call 127.0.0.1 4000 from {target} its%20tag"),
    ));
    assert_eq!(ears.hear(), "its tag");
    assert_eq!(counter(&daemon, "notifications"), 0, "not by way of us");
}

#[test]
fn what_a_member_can_do_is_asked_before_its_first_call_and_again_when_it_is_back() {
    let mut line = Line::new();
    let asked = |line: &Line| {
        line.member
            .seen("VF 20081224")
            .len()
            .min(line.member.seen("VF 20150617").len())
    };
    assert!(asked(&line) > 0, "it is online, and gets calls");
    line.member.vanish();
    line.daemon.wait_members(0, 1);
    let before = asked(&line);
    line.member.come_back();
    line.daemon.wait_members(1, 0);
    wait::until_true("both are asked again", LONG, || asked(&line) > before);
}
