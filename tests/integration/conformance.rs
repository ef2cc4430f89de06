//! A cluster is an RTPproxy to whoever speaks to it: each form of the protocol is said to a real RTPproxy directly,
//! and through a cluster to another real one, and the answers are compared.

use std::collections::BTreeSet;

use proptest::strategy::{Strategy, ValueTree};
use proptest::string::string_regex;
use proptest::test_runner::TestRunner;

use crate::support::client::escaped;
use crate::support::daemon::{Daemon, Listed, cluster, config_of};
use crate::support::forms::{self, Mask, Row};
use crate::support::member::{CONTROL_PORT, own_address};
use crate::support::place::Place;
use crate::support::real::{RealMember, free_ipv6};
use crate::support::wait::{self, LONG};
use crate::support::wire::Transport::{Cunix, Tcp, Tcp6, Udp, Udp6, Unix};
use crate::support::wire::{self, At, Transport, Wire};

/// Transports of a cluster's control socket.
const CONTROLS: [Transport; 6] = Transport::ALL;

/// Pairs of control socket and member over which everything is said; over the other pairs, what matters most.
const FULL: [(Transport, Transport); 6] = [
    (Unix, Udp),
    (Cunix, Unix),
    (Udp, Cunix),
    (Udp6, Tcp),
    (Tcp, Udp6),
    (Tcp6, Tcp6),
];

/// Bytes of the longest command, its line end and its cookie not counted.
const LONGEST: usize = 8191;

/// A real RTPproxy to speak to directly, and a daemon with clusters in front of others.
#[derive(Debug)]
struct Both {
    direct: RealMember,
    behind: Vec<RealMember>,
    /// How each cluster is spoken to, how it speaks to its member, and where it is.
    clusters: Vec<(Transport, Transport, At)>,
    _daemon: Daemon,
    _place: Place,
}

impl Both {
    /// A cluster for each of these pairs that the machine has, each with the same one member.
    fn over(pairs: &[(Transport, Transport)]) -> Self {
        Self::with_members(1, pairs)
    }

    /// The same with so many members in each.
    fn with_members(count: usize, pairs: &[(Transport, Transport)]) -> Self {
        Self::of(count, pairs, RealMember::start)
    }

    /// The same with members that are started so.
    fn of(
        count: usize,
        pairs: &[(Transport, Transport)],
        start: impl Fn(&Place, &str) -> RealMember,
    ) -> Self {
        let place = Place::new();
        let direct = start(&place, "direct");
        let behind: Vec<RealMember> = (0..count).map(|n| start(&place, &format!("behind{n}"))).collect();
        let mut clusters = Vec::new();
        let mut texts = Vec::new();
        for &(control, link) in pairs {
            let name = format!("C{}", clusters.len());
            let members: Vec<At> = behind.iter().filter_map(|member| member.at(link)).collect();
            if members.is_empty() {
                continue;
            }
            let at = match control {
                Unix | Cunix => At::Path(place.path(&format!("{name}.sock"))),
                Udp | Tcp => At::Net((own_address(), CONTROL_PORT).into()),
                Udp6 | Tcp6 => match free_ipv6() {
                    Some(address) => At::Net(address),
                    None => continue,
                },
            };
            let listed = members.iter().enumerate().map(|(n, member)| Listed {
                protocol: link.name(),
                ..Listed::udp(&format!("R{n}"), &member.to_string())
            });
            let listed: Vec<Listed> = listed.collect();
            let often = "<health interval=\"100ms\"/>";
            texts.push(cluster(&name, control.name(), &at.to_string(), &listed, often));
            clusters.push((control, link, at));
        }
        let daemon = Daemon::start(&place, &config_of(&texts));
        wait::until_true("every member online", LONG, || {
            let all = format!("    active members = {count}\n");
            daemon.admin("ls").matches(&all).count() == clusters.len()
        });
        Self {
            direct,
            behind,
            clusters,
            _daemon: daemon,
            _place: place,
        }
    }

    /// A client of the cluster of that number, and one that speaks to an RTPproxy in the same way.
    fn dialogue(&self, number: usize) -> Dialogue<'_> {
        let (control, link, at) = &self.clusters[number];
        let direct = self.direct.at(*control).expect("the cluster has it too");
        Dialogue {
            both: self,
            pair: format!("{} -> {}", control.name(), link.name()),
            direct: (
                Wire::new(*control, direct),
                Mask::new(std::slice::from_ref(&self.direct)),
            ),
            cluster: (Wire::new(*control, at.clone()), Mask::new(&self.behind)),
            differences: Vec::new(),
        }
    }
}

/// The same things said to both.
#[derive(Debug)]
struct Dialogue<'a> {
    both: &'a Both,
    pair: String,
    direct: (Wire, Mask),
    cluster: (Wire, Mask),
    differences: Vec<String>,
}

impl Dialogue<'_> {
    /// Says a form to both, remembers it when the answers differ, and gives that of the RTPproxy.
    fn say(&mut self, form: &str) -> String {
        let here = |media: &str| forms::unescape(&form.replace("@media@", media));
        let (mut to_direct, mut to_cluster) = (
            here(&self.both.direct.media()),
            here(&self.both.behind[0].media()),
        );
        if to_direct.is_empty() {
            to_direct.push(b'\n');
        }
        let (wire, mask) = &mut self.direct;
        let truth = wire.ask(&to_direct);
        // What an RTPproxy refuses may be half a command: a cluster waits for the other half unless told not to.
        if truth.starts_with('E') && !to_cluster.ends_with(b"\n") {
            to_cluster.push(b'\n');
        }
        let expected = mask.apply(form, &truth);
        let (wire, mask) = &mut self.cluster;
        let mut ask = || mask.apply(form, &wire.ask(&to_cluster));
        let mut answer = ask();
        if answer != expected && answer.starts_with("sessions created") {
            // A cluster sums its members' heartbeats, which come now and then.
            let what = format!("{}: {form}: {expected:?}, not {answer:?}", self.pair);
            answer = wait::until(what, LONG, || Some(ask()).filter(|answer| *answer == expected));
        }
        if answer != expected && !two_faults(&truth, &answer) {
            let pair = &self.pair;
            self.differences
                .push(format!("{pair}: {form}: {expected:?}, not {answer:?}"));
        }
        truth
    }

    fn end(self) {
        assert!(
            self.differences.is_empty(),
            "what an RTPproxy answers, and what a cluster does:\n{}",
            self.differences.join("\n")
        );
    }
}

/// Whether an RTPproxy has named a fault that depends on its configuration (E11 and E12: it has no other side, E31: not
/// that label, E37: not that name of a port) where a cluster, which cannot know, names another one further on in the
/// command.
fn two_faults(truth: &str, answer: &str) -> bool {
    matches!(truth, "E11" | "E12" | "E31" | "E37") && answer.starts_with('E')
}

fn all_pairs() -> Vec<(Transport, Transport)> {
    let all = CONTROLS
        .iter()
        .flat_map(|control| Transport::ALL.map(|link| (*control, link)));
    all.collect()
}

#[test]
fn every_form_is_answered_as_an_rtpproxy_answers_it_over_every_pair_of_transports() {
    let both = Both::over(&all_pairs());
    let rows = forms::conversation();
    assert!(rows.len() > 200, "only {} rows", rows.len());
    for (number, (control, link, _)) in both.clusters.iter().enumerate() {
        let full = FULL.contains(&(*control, *link));
        let mut dialogue = both.dialogue(number);
        for Row { form, .. } in rows.iter().filter(|row| full || !row.rare) {
            dialogue.say(form);
        }
        dialogue.end();
    }
}

#[test]
fn three_members_answer_as_one() {
    let both = Both::with_members(3, &[(Unix, Udp), (Tcp, Cunix)]);
    for number in 0..both.clusters.len() {
        let mut dialogue = both.dialogue(number);
        // Who names an address of one RTPproxy does not know that it speaks to three.
        let rows = forms::conversation();
        for row in rows.iter().filter(|row| !row.form.contains("@media@")) {
            dialogue.say(row.form);
        }
        dialogue.end();
    }
}

#[test]
fn members_that_bridge_answer_as_one_that_does() {
    let both = Both::of(2, &[(Unix, Udp)], RealMember::start_bridging);
    let mut dialogue = both.dialogue(0);
    for legs in [
        "e", "i", "ei", "ie", "ee", "ii", "eie", "iie", "eei", "eii", "aei", "eia", "eiz20", "E", "I", "IE",
        "6ei",
    ] {
        dialogue.say(&format!("U{legs} {legs}@pbx 127.0.0.1 4000 from"));
        dialogue.say(&format!("L{legs} {legs}@pbx 127.0.0.1 4002 from to"));
        dialogue.say(&format!("U{legs} {legs}@pbx 127.0.0.1 4002 to from"));
        dialogue.say(&format!(
            "U {legs}@pbx 127.0.0.1 4002 from to && L{legs} 127.0.0.1 4002"
        ));
        dialogue.say(&format!("D {legs}@pbx from to"));
    }
    dialogue.end();
}

#[test]
fn the_conversation_has_every_letter_and_every_modifier() {
    let rows = forms::conversation();
    let said: BTreeSet<String> = rows.iter().flat_map(|row| forms::letters(row.form)).collect();
    let short: BTreeSet<String> = rows
        .iter()
        .filter(|row| !row.rare)
        .flat_map(|row| forms::letters(row.form))
        .collect();
    for letter in [
        "U", "L", "D", "P", "S", "R", "N", "C", "Q", "I", "G", "V", "VF", "X", "Z",
    ] {
        assert!(said.contains(letter), "nobody says {letter}");
        // X would end what others have begun; it comes last.
        assert!(
            short.contains(letter) || letter == "X",
            "{letter} is not said over every pair"
        );
    }
    let first_words: String = rows
        .iter()
        .filter_map(|row| row.form.split(' ').next())
        .filter(|word| word.starts_with(['U', 'L']))
        .map(|word| word[1..].to_lowercase())
        .collect();
    for modifier in "asei6wzclrn".chars() {
        assert!(first_words.contains(modifier), "nobody says {modifier}");
    }
}

#[test]
fn the_corpus_is_true_of_an_rtpproxy_and_of_a_cluster() {
    let both = Both::over(&[(Unix, Udp)]);
    let mut dialogue = both.dialogue(0);
    for (expected, form) in forms::corpus() {
        let answer = dialogue.say(form);
        let code = answer.strip_prefix('E').and_then(|code| code.parse::<u16>().ok());
        let holds = match expected {
            "ok" => !code.is_some_and(|code| matches!(code, 0..=3 | 5..=19 | 31..=37)),
            "member" => true,
            refused => answer == refused,
        };
        assert!(
            holds,
            "{form}: {expected} in the corpus, {answer} from an RTPproxy"
        );
    }
    dialogue.end();
}

#[test]
fn what_looks_like_a_command_is_answered_alike() {
    const SHAPES: [&str; 6] = [
        // Words that are nearly right, in any number.
        "[ULDPSRNCQGVXulvz][aswn6z0-9c,]{0,3}( {1,2}(c[12]|f|t|127[.]0[.]0[.]1|4000|&&|f;[12]|D|ttl=5)){0,8}",
        // Commands with modifiers of every kind.
        "[UuLl]([aswnei6]|z[0-9]{0,3}|c[0-9,]{0,4}|[Ll](127[.]0[.]0[.]1|\\[::1\\]|\\{x\\}|x|)|[rR]127[.]0[.]0[.]1){0,4} m 127[.]0[.]0[.]1 4000 f( t)?",
        // Media addresses.
        "U(6|) a ([0-9.]{1,16}|[0-9a-f:.]{1,20}|0x[0-9a-f]{1,8}) (-?[0-9]{1,6}|x) f",
        // Sub-commands.
        "[UQL] p( 127[.]0[.]0[.]1 4000)? f t( &&( [DSLCMdslcmZ][a-z0-9:]{0,2})?( (ttl=|tos=|)[0-9+]{0,3}| 127[.]0[.]0[.]1 5| x){0,3}){1,3}",
        // Notify pairs.
        "U n 127[.]0[.]0[.]1 4000 f( t)? (unix:/x|tcp:127[.]0[.]0[.]1:9|/x|%%CC_SELF%%:1) [a-z%+0-9]{1,6}",
        // Anything that a line can hold.
        "[UDV]?[\\x00-\\x09\\x0b-\\xff]{1,40}",
    ];
    // Of each shape, through each pair of transports.
    const TEXTS: usize = 40;
    let both = Both::with_members(2, &all_pairs());
    let mut runner = TestRunner::deterministic();
    for number in 0..both.clusters.len() {
        let mut dialogue = both.dialogue(number);
        for (_, mask) in [&mut dialogue.direct, &mut dialogue.cluster] {
            *mask = mask.clone().without_numbers();
        }
        for shape in SHAPES {
            let strategy = string_regex(shape).expect("a regular expression");
            for _ in 0..TEXTS {
                let text = strategy.new_tree(&mut runner).expect("a text").current();
                let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
                dialogue.say(&forms::escape(&bytes));
            }
        }
        // What one cluster has begun is unknown to the next.
        dialogue.say("X");
        dialogue.end();
    }
}

#[test]
fn a_datagram_that_is_no_command_is_answered_as_an_rtpproxy_answers_it() {
    let both = Both::over(&[(Udp, Udp)]);
    let (_, _, at) = &both.clusters[0];
    let direct = both.direct.at(Udp).expect("every machine has IPv4");
    let datagrams = [
        "",
        "\\s",
        "\\r\\n",
        "@c@",
        "@c@ ",
        "@c@\\n",
        "@c@ \\r\\n",
        "\\0",
        "@c@\\0 V",
        "@c@ V\\0",
        "  @c@ V",
        "@c@\\tV",
        "@c@   V\\n",
        "@c@\\r\\nV",
        "@c@ V\\nV",
        "@c@ VF\\n20050322",
        "@c@ \\xff",
        "\\xff@c@ V",
        "@c@ @c@ V",
    ];
    for (number, form) in datagrams.iter().enumerate() {
        let bytes = forms::unescape(&form.replace("@c@", &format!("cookie{number}")));
        let (truth, answer) = (wire::datagram(&direct, &bytes), wire::datagram(at, &bytes));
        assert_eq!(
            escaped(&truth),
            escaped(&answer),
            "an RTPproxy, and a cluster: {form}"
        );
    }
}

/// Where a cluster answers in its own way: over which control socket, what, an RTPproxy's answer, a cluster's, and why.
const DIFFERENCES: [(Transport, &str, &str, &str, &str); 1] = [(
    Unix,
    "V\\nVF 1",
    "E1",
    "20040107",
    "a line is a command: what follows is for nobody, since a connection carries one, and spoils nothing",
)];

#[test]
fn the_differences_are_these() {
    let pairs: Vec<_> = CONTROLS.iter().map(|control| (*control, Udp)).collect();
    let both = Both::over(&pairs);
    for (number, (control, ..)) in both.clusters.iter().enumerate() {
        let mut dialogue = both.dialogue(number);
        for (_, form, direct, cluster, why) in DIFFERENCES.iter().filter(|(over, ..)| over == control) {
            let command = forms::unescape(form);
            let pair = &dialogue.pair;
            assert_eq!(dialogue.direct.0.ask(&command), *direct, "{pair}: {form}: {why}");
            assert_eq!(
                dialogue.cluster.0.ask(&command),
                *cluster,
                "{pair}: {form}: {why}"
            );
        }
    }
}

#[test]
fn the_longest_command_is_answered_and_a_longer_one_refused() {
    let pairs: Vec<_> = CONTROLS.iter().map(|control| (*control, Udp)).collect();
    let both = Both::over(&pairs);
    let of_length = |length: usize| format!("{:t<length$}", "D call from ").into_bytes();
    for number in 0..both.clusters.len() {
        let mut dialogue = both.dialogue(number);
        let ((direct, _), (cluster, _)) = (&mut dialogue.direct, &mut dialogue.cluster);
        for length in [100, LONGEST - 1, LONGEST] {
            let command = of_length(length);
            assert_eq!(
                (direct.ask(&command), cluster.ask(&command)),
                ("E50".to_owned(), "E50".to_owned()),
                "{}, {length} bytes",
                dialogue.pair
            );
        }
        // An RTPproxy closes a kept connection then, and elsewhere takes the first bytes for the command: another
        // call-id or tag than the client's, which would meet the wrong call.
        let reply = cluster.ask(&of_length(LONGEST + 1));
        assert_eq!(reply, "E5", "{}, {}", dialogue.pair, escaped(&of_length(40)));
    }
}
