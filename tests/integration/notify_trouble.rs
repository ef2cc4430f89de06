//! Notifications where something is in the way: what shares their target, sockets that nobody listens on any more, a
//! daemon that is restarted, and a SIP server that takes them from known addresses only.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::{self, Datagrams};
use crate::support::daemon::{Daemon, Files, Listed, cluster, config, config_of};
use crate::support::ears::{Ears, Line, element, relay};
use crate::support::member;
use crate::support::party::Party;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{LONG, until};

/// Where the media of `reply` go.
fn media_of(reply: &str) -> SocketAddr {
    let (port, address) = client::media(reply);
    let address: IpAddr = address
        .parse()
        .unwrap_or_else(|_| panic!("no address: {reply:?}"));
    (address, port).into()
}

/// The reply to `command` when its subcommand has been taken: a module of RTPproxy refuses one with -1 now and then while
/// the member has just started, and takes it when it is asked again.
fn taken(control: &Path, command: &str) -> String {
    until(command, LONG, || {
        let reply = client::ask(control, command);
        (!reply.ends_with(" && -1")).then_some(reply)
    })
}

/// A telephone's key, by RFC 2833: three packets while it is held, three that say it was let go after 640 samples.
fn press(socket: &UdpSocket, to: SocketAddr, key: u8, at: u16) {
    for step in 0..6_u16 {
        let is_over = step >= 3;
        let length = if is_over { 640 } else { 160 * (step + 1) };
        let mark = if step == 0 { 0x80 } else { 0 };
        let mut packet = vec![0x80, mark | 0x65];
        packet.extend_from_slice(&(at + step).to_be_bytes());
        packet.extend_from_slice(&(u32::from(at) * 160).to_be_bytes());
        packet.extend_from_slice(&u32::from(key + 1).to_be_bytes());
        packet.extend_from_slice(&[key, if is_over { 0x8a } else { 0x0a }]);
        packet.extend_from_slice(&length.to_be_bytes());
        socket.send_to(&packet, to).expect("a packet can be sent");
    }
}

#[test]
fn a_key_that_a_member_catches_is_told_to_the_sip_server_on_its_own_socket() {
    let place = Place::new();
    let inbound = relay(member::own_address());
    let target = format!("tcp:%%CC_SELF%%:{}", inbound.port());
    let member = RealMember::start_with(&place, "r1", &["module=catch_dtmf", "-n", &target]);
    let listed = Listed::udp("R1", &member.control().to_string()).from(inbound.ip());
    let path = place.path("n.sock");
    let (bare, worker) = (Ears::at(&path), Ears::at(&place.path("n.sock.9")));
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &[listed], &element(inbound, &path, "")));
    daemon.wait_members(1, 0);

    for (call, ears, suffix) in [("c1", &bare, ""), ("c2", &worker, ".9")] {
        let [caller, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        let [from, to] = [&caller, &other].map(|socket| socket.local_addr().expect("bound").port());
        let create = format!(
            "Uc0,101 {call} 127.0.0.1 {from} ft;1 {}{suffix} T1.1 && M3:1 Dd1.1",
            path.display()
        );
        let at_caller = media_of(&taken(&control, &create));
        // OpenSIPS asks for it in the L as well, which names no socket.
        let answer = format!("Lc0,101 {call} 127.0.0.1 {to} ft;1 tt;1 && M3:1 Dd1.2");
        let at_other = media_of(&taken(&control, &answer));
        press(&caller, at_other, 5, 1);
        assert_eq!(ears.hear(), "Dd1.1 5 10 640 0", "{call}: the caller's key");
        press(&other, at_caller, 7, 1);
        assert_eq!(ears.hear(), "Dd1.2 7 10 640 1", "{call}: the other's key");
        assert!(ears.heard().is_empty(), "each once");
    }
}

#[test]
fn the_living_are_told_at_once_however_many_sockets_have_nobody_who_listens() {
    let line = Line::new();
    let mut member = line.connect();
    for number in 0..300 {
        member
            .write_all(format!("dead-{number} lost\n").as_bytes())
            .expect("the relay reads");
    }
    let ears = Ears::at(&line.place.path("sip.living"));
    member.write_all(b"living first\n").expect("the relay reads");
    assert_eq!(ears.hear(), "first");
    // One that comes to life while it waits is not forgotten.
    let late = Ears::at(&line.place.path("sip.dead-200"));
    assert_eq!(late.hear(), "lost");
}

#[test]
fn the_first_line_after_a_restart_is_not_lost() {
    let place = Place::new();
    let inbound = relay(member::own_address());
    let target = format!("tcp:%%CC_SELF%%:{}", inbound.port());
    let member = RealMember::start_with(&place, "r1", &["-n", &target, "-T", "2", "-W", "2"]);
    let listed = Listed::udp("R1", &member.control().to_string()).from(inbound.ip());
    let path = place.path("n.sock");
    let ears = Ears::at(&path);
    let control = Files::in_place(&place).control;
    let mut daemon = Daemon::start(&place, &config(&control, &[listed], &element(inbound, &path, "")));
    daemon.wait_members(1, 0);
    let call = |name: &str| {
        let [caller, other] = [(); 2].map(|()| Party::new());
        let create = format!(
            "U {name} 127.0.0.1 {} from {} {name}",
            caller.port(),
            path.display()
        );
        let at_caller = client::ask(&control, &create);
        let answer = format!("L {name} 127.0.0.1 {} from to", other.port());
        (caller, other, at_caller, client::ask(&control, &answer))
    };

    // It has connected once.
    call("before");
    assert_eq!(ears.hear(), "before");
    for (name, kill) in [("over-an-end", false), ("over-a-kill", true)] {
        let (caller, other, at_caller, at_other) = call(name);
        let is_up = AtomicBool::new(true);
        thread::scope(|scope| {
            // They speak until the daemon is there again.
            scope.spawn(|| {
                while is_up.load(Ordering::Acquire) {
                    caller.is_heard_by(&other, &at_other, name);
                    other.is_heard_by(&caller, &at_caller, name);
                    thread::sleep(Duration::from_millis(50));
                }
            });
            if kill {
                daemon.kill();
            } else {
                daemon.signal(Signal::TERM);
                daemon.wait_end(LONG);
            }
            daemon.restart();
            is_up.store(false, Ordering::Release);
        });
        assert_eq!(ears.hear(), name);
    }
}

/// A stand-in for OpenSIPS with `rtpp_notify_socket` over TCP: it hears only those whose address it knows.
fn opensips(known: IpAddr) -> (SocketAddr, Receiver<Result<String, IpAddr>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            // The test may be over.
            if peer.ip() != known {
                drop(tell.send(Err(peer.ip())));
                continue;
            }
            let tell = tell.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    drop(tell.send(Ok(line)));
                }
            });
        }
    });
    (address, told)
}

#[test]
fn a_sip_server_that_knows_the_clusters_address_alone_is_told_by_the_relay() {
    for (attributes, is_relayed) in [("", false), ("tcp='relay'", true)] {
        let place = Place::new();
        let inbound = relay(member::own_address());
        let control: SocketAddr = (inbound.ip(), member::CONTROL_PORT).into();
        let (sip, told) = opensips(control.ip());
        let (ours, its) = (
            format!("tcp:%%CC_SELF%%:{}", inbound.port()),
            format!("tcp:{sip}"),
        );
        let flags = ["-n", &ours, "-n", &its, "-T", "1", "-W", "1"];
        let member = RealMember::start_with(&place, "r1", &flags);
        let listed = [Listed::udp("R1", &member.control().to_string()).from(inbound.ip())];
        let element = element(inbound, &place.path("n."), attributes);
        let text = cluster("C1", "UDP", &control.to_string(), &listed, &element);
        let daemon = Daemon::start(&place, &config_of(&[text]));
        daemon.wait_members(1, 0);
        let client = Datagrams::to(control);
        client::media(&client.ask("x1", &format!("U call 127.0.0.1 4000 from {its} its%20tag")));
        let told = told.recv_timeout(LONG).expect("a connection");
        if is_relayed {
            assert_eq!(told, Ok("its tag".to_owned()));
        } else {
            assert!(told.is_err(), "the member tells it by itself: {told:?}");
        }
    }
}
