//! Datagrams that would go to and fro for ever: a forged sender must not make us talk to an echo, to another of us, or to
//! ourselves.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use rustix::process::geteuid;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::bed::listed;
use crate::support::client::Datagrams;
use crate::support::daemon::{Daemon, cluster, config_of};
use crate::support::fake::FakeMember;
use crate::support::member;
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

/// What may begin a loop: garbage, a command, an error, a reply, and what has no cookie.
const SPARKS: [&str; 6] = [
    "x",
    "c1 V",
    "c2 E8",
    "c3 20040107",
    "c4 U a 127.0.0.1 4000 f",
    "\u{1}\u{2} \u{3}",
];
/// A loop ends before it has had so many datagrams.
const MANY: usize = 500;
/// A loop of which nothing has been heard for so long is over.
const SILENCE: Duration = Duration::from_millis(500);

/// A cluster of one member, on a UDP port of its own.
struct Loose {
    daemon: Daemon,
    at: SocketAddr,
    _member: FakeMember,
    _place: Place,
}

impl Loose {
    fn new() -> Self {
        let place = Place::new();
        let member = FakeMember::start();
        let at = SocketAddr::new(member::own_address(), member::CONTROL_PORT);
        let listed = listed(std::slice::from_ref(&member));
        let daemon = Daemon::start(
            &place,
            &config_of(&[cluster("C1", "UDP", &at.to_string(), &listed, "")]),
        );
        daemon.wait_members(1, 0);
        Self {
            daemon,
            at,
            _member: member,
            _place: place,
        }
    }

    /// A socket that talks to it alone.
    fn friend(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(self.at).expect("an address");
        socket
            .set_read_timeout(Some(SILENCE))
            .expect("a time-out can be set");
        socket
    }
}

/// Passes on what each of them sends to the other, until nothing comes any more.
fn carry(one: &UdpSocket, other: &UdpSocket, spark: &str) {
    one.send(spark.as_bytes()).expect("a datagram can be sent");
    let mut text = vec![0; 65_536];
    let mut carried = 0;
    let mut ways = [(one, other), (other, one)].into_iter().cycle();
    // One datagram is under way: it comes from one, then from the other.
    while let Some((from, to)) = ways.next()
        && let Ok(length) = from.recv(&mut text)
    {
        to.send(&text[..length]).expect("a datagram can be sent");
        carried += 1;
        assert!(
            carried < MANY,
            "{spark:?}: it goes on with {:?}",
            String::from_utf8_lossy(&text[..length])
        );
    }
}

#[test]
fn two_daemons_do_not_answer_each_others_answers() {
    let [one, other] = [(); 2].map(|()| Loose::new());
    for spark in SPARKS {
        carry(&one.friend(), &other.friend(), spark);
    }
    for it in [&one, &other] {
        assert_eq!(Datagrams::to(it.at).ask("last", "V"), "20040107");
    }
}

#[test]
fn an_echo_gets_no_answer_for_ever() {
    let it = Loose::new();
    for spark in SPARKS {
        let echo = it.friend();
        carry(&echo, &echo, spark);
    }
    assert_eq!(Datagrams::to(it.at).ask("last", "V"), "20040107");
}

/// Sends a datagram in the name of `from`, which only root can.
fn forge(from: SocketAddrV4, to: SocketAddrV4, text: &[u8]) {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).expect("root has raw sockets");
    let length = |more: usize| {
        u16::try_from(text.len() + more)
            .expect("it is short")
            .to_be_bytes()
    };
    // The system fills in what is zero: the length and the sum of the first header; the second goes without a sum.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&from.ip().octets());
    packet.extend_from_slice(&to.ip().octets());
    packet.extend_from_slice(&from.port().to_be_bytes());
    packet.extend_from_slice(&to.port().to_be_bytes());
    packet.extend_from_slice(&length(8));
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(text);
    raw.send_to(&packet, &SocketAddr::from(to).into())
        .expect("it can be sent");
}

/// Clock ticks that the daemon has used.
fn effort(daemon: &Daemon) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("it runs");
    let fields = stat
        .rsplit_once(')')
        .expect("a name in brackets")
        .1
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn nobody_makes_a_daemon_talk_to_itself() {
    if !geteuid().is_root() {
        return;
    }
    let [it, other] = [(); 2].map(|()| Loose::new());
    let at = |it: &Loose| match it.at {
        SocketAddr::V4(at) => at,
        SocketAddr::V6(_) => unreachable!("members have addresses of IPv4"),
    };
    for spark in SPARKS {
        forge(at(&it), at(&it), spark.as_bytes());
        forge(at(&it), at(&other), spark.as_bytes());
    }
    // A loop takes all of a processor: an idle daemon uses no time while its probes go on.
    for it in [&it, &other] {
        assert_eq!(Datagrams::to(it.at).ask("last", "V"), "20040107");
        let probes = || counter(&it.daemon);
        let (before, used) = (probes(), effort(&it.daemon));
        wait::until_true("two more probes", LONG, || probes() >= before + 2);
        let used = effort(&it.daemon) - used;
        assert!(used < 60, "{used} ticks between two probes");
    }
}

/// Probes that member M1 has had.
fn counter(daemon: &Daemon) -> u64 {
    let text = daemon.admin_ok("stats --json");
    let stats: serde_json::Value =
        serde_json::from_str(text.trim_end().strip_suffix("OK").expect("it ends with OK"))
            .expect("it is JSON");
    stats["clusters"][0]["members"][0]["counters"]["probes"]
        .as_u64()
        .expect("a number")
}
