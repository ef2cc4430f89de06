//! What each command means where one RTPproxy has become three: answered for the cluster, summed, or carried out where
//! the call is. Every member is a real one.

use crate::support::bed::{answer, at_once, create, delete};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::member;
use crate::support::party::Party;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::wait::{self, LONG};
use crate::support::wire::Transport;

/// RTPproxies behind a UNIX socket.
#[derive(Debug)]
struct Cluster {
    members: Vec<RealMember>,
    daemon: Daemon,
    place: Place,
}

impl Cluster {
    /// Three, all online.
    fn online() -> Self {
        Self::with("")
    }

    /// The same with more in the cluster element.
    fn with(extra: &str) -> Self {
        Self::of(3, extra)
    }

    fn of(count: usize, extra: &str) -> Self {
        Self::over(Transport::Udp, count, extra)
    }

    fn over(transport: Transport, count: usize, extra: &str) -> Self {
        let place = Place::new();
        let members: Vec<RealMember> = (1..=count)
            .map(|n| RealMember::start(&place, &format!("r{n}")))
            .collect();
        let listed: Vec<Listed> = members
            .iter()
            .enumerate()
            .map(|(n, m)| Listed {
                protocol: transport.name(),
                ..Listed::udp(
                    &format!("R{}", n + 1),
                    &m.at(transport).expect("it needs no IPv6").to_string(),
                )
            })
            .collect();
        let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, extra));
        daemon.wait_members(count, 0);
        Self {
            members,
            daemon,
            place,
        }
    }

    fn ask(&self, command: &str) -> String {
        client::ask(&self.daemon.files().control, command)
    }

    /// A reply of several lines.
    fn lines(&self, command: &str) -> String {
        let reply = client::raw(&self.daemon.files().control, command.as_bytes());
        String::from_utf8(reply).expect("replies are text")
    }

    /// Which member an answer with a port is from.
    fn of_reply(&self, reply: &str) -> usize {
        let (_, address) = client::media(reply);
        let place = self.members.iter().position(|member| member.media() == address);
        place.unwrap_or_else(|| panic!("no member has the address of {reply:?}"))
    }

    /// Makes and answers calls until each member has one; their call-ids, by member.
    fn a_call_each(&self) -> Vec<String> {
        let mut calls = vec![None; self.members.len()];
        for number in 0..200 {
            let call = format!("call-{number}@pbx");
            let home = self.of_reply(&self.ask(&create(&call)));
            assert_eq!(self.of_reply(&self.ask(&answer(&call))), home);
            if calls[home].is_none() {
                calls[home] = Some(call);
            } else {
                assert_eq!(self.ask(&delete(&call)), "0");
            }
            if calls.iter().all(Option::is_some) {
                return calls.into_iter().flatten().collect();
            }
        }
        panic!("one member gets no call: {calls:?}");
    }

    /// A counter of one member, by its own word.
    fn counter(&self, member: usize, name: &str) -> u64 {
        let reply = member::ask(self.members[member].control(), &format!("G {name}"));
        reply.parse().unwrap_or_else(|_| panic!("{name}: {reply:?}"))
    }

    fn counters(&self, name: &str) -> Vec<u64> {
        (0..self.members.len()).map(|n| self.counter(n, name)).collect()
    }
}

#[test]
fn versions_and_capabilities_are_the_clusters_own() {
    let mut cluster = Cluster::online();
    assert_eq!(cluster.ask("V"), "20040107");
    for known in [
        "20040107", "20050322", "20071218", "20081224", "20150617", "20260308",
    ] {
        assert_eq!(cluster.ask(&format!("VF {known}")), "1", "{known}");
    }
    for unknown in ["1", "20990101", "capability"] {
        assert_eq!(cluster.ask(&format!("VF {unknown}")), "0", "{unknown}");
    }
    // With nobody left to ask, what was said last; a SIP server that starts now is not to lose its features for a
    // minute.
    for member in &mut cluster.members {
        member.kill();
    }
    cluster.daemon.wait_members(0, 3);
    assert_eq!(cluster.ask("V"), "20040107");
    for known in ["20050322", "20081224", "20260308"] {
        assert_eq!(cluster.ask(&format!("VF {known}")), "1", "{known}");
    }
    assert_eq!(cluster.ask("VF 20990101"), "0");
    assert_eq!(cluster.ask(&create("call")), "E999");
    assert_eq!(cluster.ask("G nsess_created"), "E994", "it was never asked for");
}

#[test]
fn sessions_and_packets_are_summed_over_the_members() {
    let cluster = Cluster::online();
    let calls = cluster.a_call_each();
    let created: u64 = cluster.counters("nsess_created").iter().sum();
    let info = format!(
        "sessions created: {created}\nactive sessions: 3\nactive streams: 6\npackets received: 0\npackets \
         transmitted: 0\n"
    );
    for command in ["I", "Ib", "ib"] {
        wait::until_true("three sessions in the sum", LONG, || {
            cluster.lines(command) == info
        });
    }
    for command in ["Il", "Ibl", "ILB"] {
        let reply = cluster.lines(command);
        let load = reply
            .strip_prefix(&info)
            .and_then(|rest| rest.strip_prefix("average load: "));
        let load: f64 = load
            .and_then(|load| load.trim_end().parse().ok())
            .unwrap_or_else(|| panic!("{command}: {reply:?}"));
        assert!((0.0..=100.0).contains(&load), "{load}");
    }
    for call in calls {
        assert_eq!(cluster.ask(&delete(&call)), "0");
    }
    wait::until_true("none in the sum", LONG, || {
        cluster
            .lines("Ib")
            .contains("\nactive sessions: 0\nactive streams: 0\n")
    });
}

#[test]
fn statistics_are_summed_in_the_members_formats() {
    let cluster = Cluster::online();
    for call in cluster.a_call_each() {
        cluster.ask(&delete(&call));
    }
    let names = "nsess_created nsess_destroyed total_duration nsess_timeout pps_in npkts_relayed";
    let mine = |reply: &str| -> Vec<f64> {
        let values = reply
            .split(' ')
            .map(|word| word.rsplit('=').next().expect("a value"));
        values.map(|value| value.parse().expect("a number")).collect()
    };
    let mut sums = vec![0.0; 6];
    for member in &cluster.members {
        let values = mine(&member::ask(member.control(), &format!("G {names}")));
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }
    for command in ["G", "Gv"] {
        let reply = cluster.ask(&format!("{command} {names}"));
        for (sum, value) in sums.iter().zip(mine(&reply)) {
            // The members round to six places.
            assert!((sum - value).abs() < 1e-5, "{sums:?}: {reply}");
        }
        for (word, name) in reply.split(' ').zip(names.split(' ')) {
            let number = match word.split_once('=') {
                Some((given, number)) => {
                    assert_eq!((command, given), ("Gv", name));
                    number
                }
                None => word,
            };
            let places = number.split_once('.').map(|(_, places)| places.len());
            let fraction = matches!(name, "total_duration" | "pps_in");
            assert_eq!(places, fraction.then_some(6), "{name} {number}");
        }
        assert_eq!(reply.split(' ').count(), 6);
    }
    assert_eq!(cluster.ask("G"), "");
    assert_eq!(cluster.ask("G nsess_created bogus"), "E68");
    assert_eq!(cluster.ask("G nsess_created nsess_created"), {
        let created: u64 = cluster.counters("nsess_created").iter().sum();
        format!("{created} {created}")
    });
}

#[test]
fn a_silent_member_counts_with_what_it_said_last() {
    // It stays online for the whole test.
    let cluster = Cluster::with("<health fall=\"100\"/>");
    cluster.a_call_each();
    let before = cluster.ask("G nsess_created");
    cluster.members[0].stop();
    assert_eq!(cluster.ask("G nsess_created"), before, "what it said last");
    // These names it was never asked for: the others count.
    let rest: u64 = (1..3).map(|n| cluster.counter(n, "nsess_created")).sum();
    assert_eq!(
        cluster.ask("Gv nsess_created nsess_timeout"),
        format!("nsess_created={rest} nsess_timeout=0")
    );
    for member in &cluster.members[1..] {
        member.stop();
    }
    assert_eq!(cluster.ask("G nsess_created"), before);
    assert_eq!(cluster.ask("G nsess_complete"), "E994", "nobody has ever said");
}

#[test]
fn delete_all_reaches_every_member_and_those_that_missed_it_later() {
    let cluster = Cluster::with("<health fall=\"100\"/>");
    cluster.a_call_each();
    assert_eq!(cluster.ask("X"), "0");
    assert!(cluster.members.iter().all(|member| member.sessions() == 0));
    let calls = cluster.a_call_each();
    cluster.members[0].stop();
    assert_eq!(cluster.ask("X"), "E997", "one of them is silent");
    assert_eq!(
        (cluster.members[1].sessions(), cluster.members[2].sessions()),
        (0, 0)
    );
    cluster.members[0].resume();
    wait::until_true("no session at the one that missed it", LONG, || {
        cluster.members[0].sessions() == 0
    });
    for call in calls {
        assert_eq!(cluster.ask(&answer(&call)), "0", "the table is empty");
    }
}

/// Commands of a call that has two sides, and what an RTPproxy that has it answers.
fn orders(call: &str, prompt: &str) -> Vec<(String, &'static str)> {
    [
        (format!("Q {call} from to"), "60 0 0 0 0"),
        (format!("Qv {call} from to ttl nrelayed"), "ttl=60 nrelayed=0"),
        (format!("R {call} from to"), "0"),
        (format!("N {call} from to"), "0"),
        (format!("C {call} copy-{call} from to"), "0"),
        (format!("P {call} {prompt} 8 from to"), "0"),
        (format!("S {call} from to"), "0"),
        (format!("Q {call} from to && S ttl=60"), "60 0 0 0 0"),
        (format!("L {call} 127.0.0.1 4002 from to && S tos=16"), "media"),
        (format!("U {call} 127.0.0.1 4000 from to && S ttl=60"), "media"),
        (
            format!("U {call} 127.0.0.1 4000 from to && L 127.0.0.1 4002"),
            "media && media",
        ),
        (
            format!("U {call} 127.0.0.1 4000 from to && L 127.0.0.1 4002 && S ttl=60 && S tos=16"),
            "media && media",
        ),
        (
            format!("U {call} 127.0.0.1 4000 from to && C copy-{call} from to"),
            "media && -1",
        ),
        (format!("U {call} 127.0.0.1 4000 to from"), "media"),
        (format!("L {call} 127.0.0.1 4000 to from"), "media"),
        (format!("U {call} 127.0.0.1 4000 from to && M1:1"), "E3"),
    ]
    .map(|(command, reply)| (command, reply))
    .to_vec()
}

/// An answer with each `PORT ADDRESS` of `member` called `media`, and a time to live that has begun to run out put back.
fn plain(reply: &str, member: &RealMember) -> String {
    let plain = |part: &str| {
        let is_media = part
            .split_once(' ')
            .is_some_and(|(port, address)| port.parse::<u16>().is_ok() && address == member.media());
        if is_media {
            return "media".to_owned();
        }
        let (first, rest) = part.split_once(' ').unwrap_or((part, ""));
        let (name, number) = first.split_at(first.find(|c: char| c.is_ascii_digit()).unwrap_or(first.len()));
        match number.parse::<u32>() {
            Ok(50..60) => format!("{name}60 {rest}").trim_end().to_owned(),
            _ => part.to_owned(),
        }
    };
    reply.split(" && ").map(plain).collect::<Vec<_>>().join(" && ")
}

#[test]
fn orders_for_a_call_go_to_its_member_and_to_no_other() {
    let cluster = Cluster::online();
    let prompt = cluster.place.write("prompt.8", [0xd5; 8000]);
    let prompt = prompt.with_extension("").display().to_string();
    for (home, call) in cluster.a_call_each().iter().enumerate() {
        let errors = cluster.counters("ncmds_errs");
        let played = cluster.counters("nplrs_created");
        for (command, expected) in orders(call, &prompt) {
            assert_eq!(
                plain(&cluster.ask(&command), &cluster.members[home]),
                expected,
                "{command}"
            );
        }
        let mut expected = errors;
        // The one that no module takes, the copy that is none.
        expected[home] = cluster.counter(home, "ncmds_errs");
        assert_eq!(
            cluster.counters("ncmds_errs"),
            expected,
            "somebody else was asked for {call}"
        );
        let mut expected = played;
        expected[home] += 1;
        assert_eq!(cluster.counters("nplrs_created"), expected);
        // A sub-command that ends the session ends it here as well.
        let reply = cluster.ask(&format!("L {call} 127.0.0.1 4002 from to && D"));
        assert_eq!(plain(&reply, &cluster.members[home]), "media");
        assert_eq!(cluster.members[home].sessions(), 0);
        assert_eq!(cluster.ask(&format!("Q {call} from to")), "E50");
    }
}

#[test]
fn orders_for_a_call_that_we_do_not_know_find_its_member() {
    let cluster = Cluster::online();
    let prompt = cluster.place.write("prompt.8", [0xd5; 8000]);
    let prompt = prompt.with_extension("").display().to_string();
    let mut number = 0;
    let count = orders("call", &prompt).len();
    for home in 0..3 {
        let member = &cluster.members[home];
        for order in 0..count {
            // Made past the cluster, as before a restart of ours.
            number += 1;
            let call = format!("unknown-{number}");
            assert!(!member::ask(member.control(), &create(&call)).starts_with('E'));
            assert!(!member::ask(member.control(), &answer(&call)).starts_with('E'));
            // Only what is recorded can be no more.
            assert_eq!(member::ask(member.control(), &format!("R {call} from to")), "0");
            let (command, expected) = orders(&call, &prompt).swap_remove(order);
            assert_eq!(plain(&cluster.ask(&command), member), expected, "{command}");
            if expected == "E3" {
                continue;
            }
            // From now on it is known.
            let reply = cluster.ask(&create(&call));
            assert_eq!(cluster.of_reply(&reply), home, "after {command}");
        }
    }
    // Who has it says what is wrong, the others that they have not.
    let call = "wrong";
    member::ask(cluster.members[1].control(), &create(call));
    assert_eq!(cluster.ask(&format!("Q {call} from to bogus")), "E62");
    let reply = cluster.ask(&format!("Q {call} from"));
    assert_eq!(plain(&reply, &cluster.members[1]), "60 0 0 0 0");
}

#[test]
fn streams_forks_and_both_sides_of_a_call_share_a_member() {
    let cluster = Cluster::online();
    for number in 0..12 {
        let call = format!("call-{number}");
        let home = cluster.of_reply(&cluster.ask(&format!("U {call} 127.0.0.1 4000 from;1")));
        for command in [
            format!("U {call} 127.0.0.1 4002 from;2"),
            format!("U {call} 127.0.0.1 4000 from;medianum"),
            format!("L {call} 127.0.0.1 4004 from;1 to;1"),
            format!("L {call} 127.0.0.1 4006 to;2 from;2"),
            format!("U {call} 127.0.0.1 4000 fork;1"),
            format!("U {call} 127.0.0.1 4004 to;1 from;1"),
        ] {
            assert_eq!(cluster.of_reply(&cluster.ask(&command)), home, "{command}");
        }
        let before = cluster.members[home].sessions();
        assert_eq!(cluster.ask(&format!("D {call} from to")), "0");
        assert_eq!(cluster.ask(&format!("D {call} fork")), "0");
        assert!(cluster.members[home].sessions() < before);
        assert_eq!(cluster.ask(&format!("Q {call} from;2 to;2")), "E50");
    }
}

#[test]
fn ten_thousand_calls_stay_each_on_one_of_four_members() {
    const ROUNDS: usize = 10;
    const CALLS: usize = 1_000;
    // On a busy machine a call may well take long, and is not to be tried elsewhere for that.
    let cluster = Cluster::of(4, "<failover attempts=\"1\"/><health fall=\"100\"/>");
    for round in 0..ROUNDS {
        let call = |n: usize| format!("call-{round}-{n}@pbx");
        let homes = at_once(16, CALLS, |n| cluster.of_reply(&cluster.ask(&create(&call(n)))));
        for later in [
            |call: &str| answer(call),
            |call: &str| format!("U {call} 127.0.0.1 4004 to from"),
            |call: &str| format!("U {call} 127.0.0.1 4004 from;2"),
        ] {
            let found = at_once(16, CALLS, |n| cluster.of_reply(&cluster.ask(&later(&call(n)))));
            let strayed: Vec<String> = (0..CALLS)
                .filter(|n| homes[*n] != found[*n])
                .map(|n| later(&call(n)))
                .collect();
            assert!(
                strayed.is_empty(),
                "not answered by the call's member: {strayed:?}"
            );
        }
        for end in ["from to", "from;2"] {
            let ended = at_once(16, CALLS, |n| cluster.ask(&format!("D {} {end}", call(n))));
            assert!(ended.iter().all(|reply| reply == "0"), "{ended:?}");
        }
    }
    let created = cluster.counters("nsess_created");
    assert_eq!(
        created.iter().sum::<u64>(),
        2 * (ROUNDS * CALLS) as u64,
        "two sessions a call"
    );
    assert!(created.iter().all(|created| *created > 0), "{created:?}");
    assert_eq!(
        cluster.counters("ncmds_errs"),
        [0; 4],
        "nobody was asked for what it has not"
    );
}

#[test]
fn a_call_whose_member_died_has_sound_again_after_a_change_from_either_side() {
    let mut cluster = Cluster::online();
    let (caller, other) = (Party::new(), Party::new());
    let (mine, yours) = (caller.port(), other.port());
    // Who changes the call, and with which command: a SIP proxy looks the answer up, a B2BUA updates both sides.
    for (number, (asks, answers)) in [
        (
            format!("127.0.0.1 {mine} from to"),
            format!("L @call@ 127.0.0.1 {yours} from to"),
        ),
        (
            format!("127.0.0.1 {yours} to from"),
            format!("L @call@ 127.0.0.1 {mine} to from"),
        ),
        (
            format!("127.0.0.1 {mine} from to"),
            format!("U @call@ 127.0.0.1 {yours} to from"),
        ),
        (
            format!("127.0.0.1 {mine} from to && L 127.0.0.1 {yours}"),
            format!("U @call@ 127.0.0.1 {yours} to from"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let call = format!("call-{number}");
        let to_caller = cluster.ask(&format!("U {call} 127.0.0.1 {mine} from"));
        let to_other = cluster.ask(&format!("L {call} 127.0.0.1 {yours} from to"));
        let home = cluster.of_reply(&to_caller);
        caller.is_heard_by(&other, &to_other, "the caller");
        other.is_heard_by(&caller, &to_caller, "the callee");
        cluster.members[home].kill();
        cluster.daemon.wait_members(2, 1);
        let changed = cluster.ask(&format!("U {call} {asks}"));
        let changed = changed.split(" && ").next().expect("a result");
        let answered = cluster.ask(&answers.replace("@call@", &call));
        let now = cluster.of_reply(&answered);
        assert_ne!(now, home);
        assert_eq!(cluster.of_reply(changed), now);
        // What is said to who asks is for the other side to send to.
        let is_other = asks.contains(" to from");
        let (to_caller, to_other) = if is_other {
            (&*answered, changed)
        } else {
            (changed, &*answered)
        };
        caller.is_heard_by(&other, to_other, "the caller, after the change");
        other.is_heard_by(&caller, to_caller, "the callee, after the change");
        assert_eq!(cluster.ask(&format!("D {call} from to")), "0");
        cluster.members[home].restart();
        cluster.daemon.wait_members(3, 0);
        assert!(
            cluster.members.iter().all(|member| member.sessions() == 0),
            "{call}"
        );
    }
}

#[test]
fn a_delete_is_answered_at_once_and_carried_out_where_the_call_is() {
    let cluster = Cluster::online();
    let members = &cluster.members;
    // Known: its member is asked, and says it a second time.
    let calls = cluster.a_call_each();
    for (home, call) in calls.iter().enumerate() {
        let errors = cluster.counters("ncmds_errs");
        assert_eq!(cluster.ask(&delete(call)), "0");
        assert_eq!(members[home].sessions(), 0);
        assert_eq!(cluster.ask(&delete(call)), "E50");
        let mut expected = errors;
        expected[home] += 1;
        assert_eq!(cluster.counters("ncmds_errs"), expected);
    }
    // Unknown: all are asked, and the one that has it does it.
    for (number, member) in members.iter().enumerate() {
        let call = format!("unknown-{number}");
        member::ask(member.control(), &create(&call));
        assert_eq!(cluster.ask(&format!("D {call} from")), "0");
        assert_eq!(member.sessions(), 0);
        assert_eq!(cluster.ask(&format!("D {call} from")), "E50");
    }
    assert_eq!(cluster.ask("D nobody from to"), "E50");
    // Unknown, and the one that has it is silent: the caller need not wait for it.
    member::ask(members[0].control(), &create("silent"));
    members[0].stop();
    assert_eq!(cluster.ask("D silent from"), "0");
    cluster.daemon.wait_members(2, 1);
    // Offline by now.
    assert_eq!(cluster.ask("D silent from"), "0");
    members[0].resume();
    wait::until_true("the delete carried out", LONG, || members[0].sessions() == 0);
}

#[test]
fn what_nobody_can_answer_gets_the_code_that_says_why() {
    let cluster = Cluster::with("<capacity_limit type=\"hard\"/><health fall=\"100\"/>");
    // One is silent, and still counted as online.
    cluster.members[0].stop();
    for (command, code) in [
        ("Q nobody from to", "E996"),
        ("P nobody /prompt 8 from to", "E996"),
        ("R nobody from to", "E996"),
        ("N nobody from to", "E996"),
        ("C nobody copy from to", "E996"),
        ("S nobody from to", "E996"),
        ("L nobody 127.0.0.1 4002 from to", "0"),
        ("D nobody from to", "0"),
    ] {
        assert_eq!(cluster.ask(command), code, "{command}");
    }
    cluster.members[0].resume();
    for (n, member) in cluster.members.iter().enumerate() {
        cluster
            .daemon
            .admin_ok(&format!("modify C1 set R{} capacity=1", n + 1));
        assert_eq!(member.sessions(), 0);
    }
    let full = (0..200).map(|n| cluster.ask(&create(&format!("call-{n}"))));
    let full: Vec<String> = full.filter(|reply| reply.starts_with('E')).collect();
    assert!(full.iter().all(|reply| reply == "E998"), "{full:?}");
    assert_eq!(full.len(), 197, "each member takes one");
    for member in ["R1", "R2", "R3"] {
        cluster.daemon.admin_ok(&format!("modify C1 suspend {member}"));
    }
    assert_eq!(cluster.ask(&create("one more")), "E999", "nobody is ACTIVE");
}

#[test]
fn what_must_not_run_twice_is_not_lost_where_the_member_closes_after_each_reply() {
    let cluster = Cluster::over(Transport::Unix, 1, "");
    let calls: Vec<String> = (0..8).map(|n| format!("call-{n}")).collect();
    for call in &calls {
        cluster.ask(&create(call));
        cluster.ask(&answer(call));
    }
    let replies = at_once(8, 4_000, |n| {
        cluster.ask(&format!("R {} from to", calls[n % calls.len()]))
    });
    let lost: Vec<&String> = replies.iter().filter(|reply| *reply != "0").collect();
    assert!(
        lost.is_empty(),
        "{} of {}: {:?}",
        lost.len(),
        replies.len(),
        lost.first()
    );
}
