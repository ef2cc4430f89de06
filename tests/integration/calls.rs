//! Calls: created, answered and ended on one member, over every transport, whatever happens to the daemon between.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::bed::{Bed, answer, at_once, create, delete, listed};
use crate::support::client::{self, Datagrams, Kept};
use crate::support::daemon::{Daemon, Files, Listed, cluster, config, config_of};
use crate::support::fake::{FakeMember, Fault};
use crate::support::member::own_address;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{self, LONG};

#[test]
fn a_call_lives_and_ends_on_a_real_member_over_each_of_its_transports() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let control = member.control().to_string();
    let transports = [
        ("UDP", control.clone()),
        ("TCP", control),
        ("UNIX", member.unix().display().to_string()),
        ("CUNIX", member.cunix().display().to_string()),
        // Files of today say UNIX for this one too.
        ("UNIX", member.cunix().display().to_string()),
    ];
    let sockets: Vec<_> = (0..transports.len())
        .map(|n| place.path(&format!("over{n}.sock")))
        .collect();
    let clusters: Vec<String> = transports
        .iter()
        .zip(&sockets)
        .enumerate()
        .map(|(n, ((protocol, address), socket))| {
            let listed = Listed {
                protocol,
                ..Listed::udp("R1", address)
            };
            cluster(
                &format!("C{n}"),
                "UNIX",
                &socket.display().to_string(),
                &[listed],
                "",
            )
        })
        .collect();
    let daemon = Daemon::start(&place, &config_of(&clusters));
    wait::until_true("all five online", LONG, || {
        daemon.admin("ls").matches("    active members = 1\n").count() == 5
    });
    for (socket, (protocol, _)) in sockets.iter().zip(&transports) {
        let created = client::ask(socket, &create("call"));
        let answered = client::ask(socket, &answer("call"));
        let ((one, media), (other, same)) = (client::media(&created), client::media(&answered));
        assert_eq!(
            (media, same),
            (member.media().as_str(), member.media().as_str()),
            "{protocol}"
        );
        assert_ne!(one, other, "{protocol}: each side has a port of its own");
        assert_eq!(
            client::ask(socket, &create("call")),
            created,
            "{protocol}: a repeat changes nothing"
        );
        assert_eq!(member.sessions(), 1, "{protocol}");
        let five = client::ask(socket, "Q call from to");
        assert_eq!(five.split(' ').count(), 5, "{protocol}: {five}");
        assert_eq!(client::ask(socket, &delete("call")), "0", "{protocol}");
        assert_eq!(
            client::ask(socket, &delete("call")),
            "E50",
            "{protocol}: it is gone"
        );
        assert_eq!(member.sessions(), 0, "{protocol}");
    }
}

#[test]
fn the_cluster_passes_for_an_rtpproxy() {
    let bed = Bed::of(3);
    for (command, reply) in [
        ("V", "20040107"),
        ("v", "20040107"),
        ("VF 20040107", "1"),
        ("VF 20050322", "1"),
        ("VF 1", "0"),
        ("L unheard-of 127.0.0.1 4002 from to", "0"),
        ("Q unheard-of from to", "E50"),
        ("D unheard-of from", "E50"),
        ("Z", "E0"),
        ("U too few", "E1"),
        ("D few", "E1"),
        ("V much", "E1"),
        ("V && V", "E3"),
        ("G", ""),
        ("G nsess_timeout", "0"),
        (
            "Gv nsess_timeout nsess_complete",
            "nsess_timeout=0 nsess_complete=0",
        ),
        ("G bogus", "E68"),
    ] {
        assert_eq!(bed.ask(command), reply, "{command}");
    }
    for number in 0..30 {
        bed.call(&format!("call-{number}"));
    }
    assert_eq!(bed.ask("G nsess_created"), "30", "the sum over members");
    // Heartbeats come once a second.
    wait::until_true("all sessions in the sum", LONG, || {
        let sum = client::raw(bed.control(), b"Ib");
        let sum = String::from_utf8_lossy(&sum);
        sum.starts_with(
            "sessions created: 30\nactive sessions: 30\nactive streams: 60\npackets received: 0\n",
        )
    });
    assert_eq!(bed.ask("X"), "0");
    assert_eq!(bed.sessions(), 0);
}

#[test]
fn a_command_may_end_as_it_likes() {
    let bed = Bed::of(1);
    for (number, end) in ["", "\n", "\r\n", " \r\n"].into_iter().enumerate() {
        for command in [
            create(&format!("call-{number}")),
            answer(&format!("call-{number}")),
        ] {
            let reply = client::raw(bed.control(), format!("{command}{end}").as_bytes());
            let reply = String::from_utf8(reply).expect("text");
            assert_eq!(bed.of_reply(reply.trim_end()).media(), bed.members[0].media());
            assert!(
                reply.ends_with('\n') && reply.matches('\n').count() == 1,
                "{reply:?}"
            );
        }
    }
}

#[test]
fn ten_thousand_calls_stay_with_their_members() {
    const CALLS: usize = 10_000;
    let bed = Bed::of(4);
    let homes = at_once(16, CALLS, |n| bed.call(&format!("call-{n}@example.org")).media());
    let later = at_once(16, CALLS, |n| {
        bed.of_reply(&bed.ask(&answer(&format!("call-{n}@example.org"))))
            .media()
    });
    assert_eq!(homes, later);
    assert_eq!(bed.sessions(), CALLS as u64, "each call is on one member alone");
    let ended = at_once(16, CALLS, |n| bed.ask(&delete(&format!("call-{n}@example.org"))));
    assert!(ended.iter().all(|reply| reply == "0"));
    assert_eq!(bed.sessions(), 0);
    let asked: usize = bed.members.iter().map(|member| member.seen("Q").len()).sum();
    assert_eq!(asked, 0, "what is bound is not asked of all");
}

#[test]
fn new_calls_spread_as_the_weights_say() {
    // With so many, a member of 100 that counted as one of 120 would be found out nearly always.
    const CALLS: usize = 20_000;
    const WEIGHTS: [u16; 4] = [100, 200, 300, 400];
    // Of a fair spread one in a thousand lies beyond this, at three degrees of freedom; of two in a row, one in a million.
    const LIMIT: f64 = 16.27;
    let members: Vec<FakeMember> = WEIGHTS.iter().map(|_| FakeMember::start()).collect();
    let place = Place::new();
    let listed: Vec<Listed> = listed(&members)
        .into_iter()
        .zip(WEIGHTS)
        .map(|(m, w)| m.weight(w))
        .collect();
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &listed, ""));
    daemon.wait_members(4, 0);
    let spread = |prefix: &str| {
        let before: Vec<u64> = members.iter().map(FakeMember::created).collect();
        at_once(16, CALLS, |n| {
            client::media(&client::ask(&control, &create(&format!("{prefix}-{n}")))).0
        });
        let got = members
            .iter()
            .zip(before)
            .map(|(member, before)| member.created() - before);
        let counts: Vec<u32> = got.map(|n| u32::try_from(n).expect("a small number")).collect();
        assert_eq!(counts.iter().sum::<u32>() as usize, CALLS);
        let total: f64 = WEIGHTS.iter().copied().map(f64::from).sum();
        let deviation = counts.iter().zip(WEIGHTS).map(|(count, weight)| {
            let expected = f64::from(u32::try_from(CALLS).expect("small")) * f64::from(weight) / total;
            (f64::from(*count) - expected).powi(2) / expected
        });
        (deviation.sum::<f64>(), counts)
    };
    let (first, counts) = spread("first");
    if first > LIMIT {
        let (second, again) = spread("second");
        assert!(
            second <= LIMIT,
            "weights {WEIGHTS:?} got {counts:?} and then {again:?}: {first:.1}, {second:.1}"
        );
    }
}

#[test]
fn a_standby_member_waits_for_the_others_to_fail() {
    let mut members = vec![FakeMember::start(), FakeMember::start()];
    let place = Place::new();
    let weights = [100, 0];
    let listed: Vec<Listed> = listed(&members)
        .into_iter()
        .zip(weights)
        .map(|(m, w)| m.weight(w))
        .collect();
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &listed, ""));
    daemon.wait_members(2, 0);
    for number in 0..50 {
        client::ask(&control, &create(&format!("call-{number}")));
    }
    assert_eq!((members[0].created(), members[1].created()), (50, 0));
    members[0].vanish();
    let reply = client::ask(&control, &create("in need"));
    assert_eq!(client::media(&reply).1, members[1].media());
}

#[test]
fn streams_and_forks_of_a_call_share_its_member() {
    let bed = Bed::of(4);
    for number in 0..20 {
        let home = bed.call(&format!("call-{number}")).media();
        for tag in ["from;1", "from;2", "fork", "from;3"] {
            let reply = bed.ask(&format!("U call-{number} 127.0.0.1 4000 {tag}"));
            assert_eq!(bed.of_reply(&reply).media(), home);
        }
    }
}

#[test]
fn kept_connections_answer_in_order_and_stay() {
    let member = FakeMember::start();
    let place = Place::new();
    let tcp = SocketAddr::new(own_address(), 22222);
    let unix = place.path("kept.sock");
    let clusters = [
        cluster(
            "C1",
            "CUNIX",
            &unix.display().to_string(),
            &listed(std::slice::from_ref(&member)),
            "",
        ),
        cluster(
            "C2",
            "TCP",
            &tcp.to_string(),
            &listed(std::slice::from_ref(&member)),
            "",
        ),
    ];
    let daemon = Daemon::start(&place, &config_of(&clusters));
    wait::until_true("online", LONG, || {
        daemon.admin("ls").matches("    active members = 1\n").count() == 2
    });
    // The member is late with the first of them, and its reply must still come first.
    member.on("U", Fault::Late(Duration::from_millis(50)));
    let mut kept = Kept::unix(&unix);
    kept.send(format!("{}\nV\nVF 20050322\n{}", create("a"), &answer("a")[..5]).as_bytes());
    assert_eq!(
        client::media(&kept.line().expect("open").expect("a line")).1,
        member.media()
    );
    assert_eq!(kept.line().expect("open").as_deref(), Some("20040107"));
    assert_eq!(kept.line().expect("open").as_deref(), Some("1"));
    kept.send(format!("{}\n", &answer("a")[5..]).as_bytes());
    assert_eq!(
        client::media(&kept.line().expect("open").expect("a line")).1,
        member.media()
    );
    assert_eq!(kept.ask(&delete("a")), "0");

    let mut kept = Kept::tcp(tcp);
    assert_eq!(client::media(&kept.ask(&create("b"))).1, member.media());
    kept.send(format!("{}\nV\n", answer("b")).as_bytes());
    kept.finish();
    assert_eq!(
        client::media(&kept.line().expect("open").expect("a line")).1,
        member.media()
    );
    assert_eq!(
        kept.line().expect("open").as_deref(),
        Some("20040107"),
        "answered after our end is closed"
    );
    assert_eq!(kept.line().expect("closed in order"), None);
}

#[test]
fn a_repeated_datagram_runs_nothing_twice() {
    let member = FakeMember::start();
    let place = Place::new();
    let control = SocketAddr::new(own_address(), 22222);
    let text = cluster(
        "C1",
        "UDP",
        &control.to_string(),
        &listed(std::slice::from_ref(&member)),
        "",
    );
    let daemon = Daemon::start(&place, &config_of(&[text]));
    daemon.wait_members(1, 0);
    member.on("U", Fault::Late(Duration::from_millis(100)));
    let (one, other) = (Datagrams::to(control), Datagrams::to(control));
    // While the first is under way.
    for _ in 0..3 {
        one.send(format!("cookie {}", create("a")).as_bytes());
    }
    let reply = one.receive();
    assert!(
        reply.starts_with("cookie ") && reply.ends_with(&format!(" {}\n", member.media())),
        "{reply:?}"
    );
    // And after its end.
    assert_eq!(
        one.ask("cookie", &delete("never run")),
        reply["cookie ".len()..].trim_end()
    );
    assert_eq!(member.seen("D").len(), 0);
    let cookies: HashMap<String, usize> = member
        .seen("U")
        .into_iter()
        .map(|seen| (seen.cookie, 1))
        .collect();
    assert_eq!(cookies.len(), 1, "one command at the member, whatever came here");
    // The same cookie of somebody else is a command of its own.
    assert_eq!(other.ask("cookie", "V"), "20040107");
    assert_eq!(one.ask("cookie2", "VF 20050322"), "1");
}

#[test]
fn later_commands_find_their_member_after_kill_9_of_the_daemon() {
    let mut bed = Bed::of(3);
    finds_members_again(&mut bed, Daemon::kill);
}

#[test]
fn later_commands_find_their_member_after_an_orderly_restart() {
    finds_members_again(&mut Bed::of(3), |daemon| {
        daemon.signal(Signal::TERM);
        assert!(daemon.wait_end(LONG).success());
    });
}

fn finds_members_again(bed: &mut Bed, end: impl Fn(&mut Daemon)) {
    let homes: Vec<String> = (0..40).map(|n| bed.call(&format!("call-{n}")).media()).collect();
    end(&mut bed.daemon);
    bed.daemon.restart();
    bed.daemon.wait_members(3, 0);
    for (number, home) in homes.iter().enumerate() {
        // Answers, re-INVITEs, questions and ends: each may be the first that comes after the restart.
        let call = format!("call-{number}");
        match number % 4 {
            0 => assert_eq!(bed.of_reply(&bed.ask(&answer(&call))).media(), *home),
            1 => {
                let reply = bed.ask(&format!("U {call} 127.0.0.1 4000 from to"));
                assert_eq!(bed.of_reply(&reply).media(), *home);
            }
            2 => assert_eq!(
                bed.ask(&format!("Q {call} from to")),
                "60 0 0 0 0",
                "fakes do not age"
            ),
            _ => assert_eq!(bed.ask(&delete(&call)), "0"),
        }
    }
    assert_eq!(
        bed.sessions(),
        30,
        "no call was made anew, and the deleted ones are gone"
    );
}
