//! Stories of commands, told to a dispatcher with three members and no clock: what it sends, to whom, and what
//! the client gets.

use super::key::Key;
use super::outbox::{Note, Outbox};
use super::rewrite::Origin;
use super::session::MemberId;
use super::*;
use crate::config::model::{Address, CapacityLimit, Name, Policy, Protocol, Status};
use crate::protocol::cookie::Cookie;

/// A cluster under test: clients are numbers, links are members' names.
pub(super) struct Bench {
    pub(super) core: Dispatch<u32, &'static str>,
    out: Outbox<u32, &'static str>,
    now: Instant,
    ids: Vec<MemberId>,
    clients: u32,
    /// What was sent and not answered yet: member, cookie, command.
    sent: Vec<(&'static str, Cookie, String)>,
    replies: Vec<(u32, String)>,
    /// What was told to who follows.
    pub(super) steps: Vec<event::Traced>,
    /// What came out badly.
    pub(super) kept: Vec<event::Traced>,
    /// What was told in the place of lost members.
    pub(super) notices: Vec<rewrite::Notice>,
}

const NAMES: [&str; 3] = ["A", "B", "C"];

fn member(name: &str) -> model::Member {
    model::Member::new(
        Name::new(name).unwrap(),
        Protocol::Udp,
        Address::Ip("127.0.0.1:22222".parse().unwrap()),
        100,
        1000,
    )
}

pub(super) fn rules() -> model::Cluster {
    let (name, address) = (Name::new("C1").unwrap(), Address::Path("/tmp/c1".into()));
    model::Cluster::new(name, Protocol::Unix, address)
}

impl Bench {
    /// Three members that are online.
    fn new() -> Self {
        Self::with(&rules(), &NAMES)
    }

    pub(super) fn with(rules: &model::Cluster, names: &[&'static str]) -> Self {
        let now = crate::rim::now();
        let core = Dispatch::new(now, rules.clone(), 7, Key::from_seed(1));
        let (out, ids, sent, replies) = (Outbox::default(), Vec::new(), Vec::new(), Vec::new());
        let mut bench = Self {
            core,
            out,
            now,
            ids,
            clients: 0,
            sent,
            replies,
            steps: Vec::new(),
            kept: Vec::new(),
            notices: Vec::new(),
        };
        for name in names {
            let id = bench.core.next_members(1).unwrap()[0];
            bench.core.add_member(now, id, member(name), name);
            bench.ids.push(id);
            bench.online(name, true);
        }
        bench
    }

    /// A member says that it has that capability.
    pub(super) fn capability(&mut self, name: &'static str, number: u64) {
        let id = self.id(name);
        self.core.capability(id, number, true);
    }

    /// Somebody follows calls from now on.
    pub(super) fn follow(&mut self) {
        (self.out.tracing, self.out.who) = (true, "the proxy".to_owned());
    }

    /// A member is taken out.
    pub(super) fn remove(&mut self, name: &str) {
        let id = self.id(name);
        self.core.remove_member(self.now, id, &mut self.out);
        self.collect();
    }

    fn id(&self, name: &str) -> MemberId {
        self.core.member_named(name).unwrap().id
    }

    pub(super) fn online(&mut self, name: &str, online: bool) {
        let id = self.id(name);
        self.core
            .set_online(self.now, id, online, "said so".to_owned(), &mut self.out);
        self.collect();
    }

    fn collect(&mut self) {
        let (replies, badly) = (&mut self.replies, &mut self.kept);
        self.out.drain_replies(|client, text, kept| {
            badly.extend(kept.map(|kept| *kept));
            replies.push((
                client,
                String::from_utf8(text.to_vec()).unwrap().trim_end().to_owned(),
            ));
        });
        let sent = &mut self.sent;
        self.out.drain_sends(|send, text| {
            let command = std::str::from_utf8(&text[Cookie::LEN + 1..])
                .unwrap()
                .trim_end()
                .to_owned();
            sent.push((send.link, send.cookie, command));
        });
        self.out.reset();
        self.steps.append(&mut self.out.traced);
        self.notices.append(&mut self.out.notices);
    }

    /// A client's command; gives the client.
    pub(super) fn command(&mut self, text: &str) -> u32 {
        self.clients += 1;
        self.core.command(
            self.now,
            text.as_bytes(),
            Origin::Unix,
            self.clients,
            &mut self.out,
        );
        self.collect();
        self.clients
    }

    /// All that was sent since the last look, by member.
    pub(super) fn take_sent(&mut self) -> Vec<(&'static str, Cookie, String)> {
        let mut sent = std::mem::take(&mut self.sent);
        sent.sort_by_key(|(member, ..)| *member);
        sent
    }

    /// The one command that was sent since the last look.
    pub(super) fn one_sent(&mut self) -> (&'static str, Cookie, String) {
        let mut sent = self.take_sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// A member answers.
    pub(super) fn answer(&mut self, member: &str, cookie: Cookie, text: &str) {
        let id = self.id(member);
        self.core
            .reply(self.now, id, cookie, text.as_bytes(), &mut self.out);
        self.collect();
    }

    /// What the client has got, if anything; never more than one reply.
    fn got(&mut self, client: u32) -> Option<String> {
        let mut got: Vec<String> = self
            .replies
            .iter()
            .filter(|(to, _)| *to == client)
            .map(|(_, text)| text.clone())
            .collect();
        assert!(got.len() <= 1, "two replies: {got:?}");
        got.pop()
    }

    /// Time passes; everything that is due happens when it is due.
    pub(super) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            let next = self.core.expire(self.now, &mut self.out);
            self.collect();
            match next {
                Some(at) if at <= until => self.now = at.max(self.now + Duration::from_micros(1)),
                _ => break,
            }
        }
        self.now = until;
        self.core.expire(until, &mut self.out);
        self.collect();
    }

    /// A new call, answered by whoever was chosen; gives the member.
    fn call(&mut self, call_id: &str) -> &'static str {
        let client = self.command(&format!("U {call_id} 192.0.2.1 4000 from"));
        let (member, cookie, _) = self.one_sent();
        self.answer(member, cookie, "35000 192.0.2.9");
        assert_eq!(self.got(client).as_deref(), Some("35000 192.0.2.9"));
        member
    }

    fn home(&mut self, call_id: &str) -> Option<String> {
        self.core
            .locate(self.now, call_id.as_bytes())
            .map(|(name, _)| name.to_string())
    }
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_call_stays_with_its_member() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    for text in [
        "L c1 192.0.2.2 5000 from to",
        "U c1 192.0.2.1 4000 from to",
        "Q c1 from to",
        "D c1 from to",
    ] {
        let client = bench.command(text);
        let (member, cookie, sent) = bench.one_sent();
        assert_eq!((member, sent.as_str()), (home, text));
        let reply = match text.as_bytes()[0] {
            b'D' => "0",
            b'Q' => "60 1 2 3 0",
            _ => "35002 192.0.2.9",
        };
        bench.answer(member, cookie, reply);
        assert_eq!(bench.got(client).as_deref(), Some(reply), "{text}");
    }
}

#[test]
fn a_command_is_passed_on_byte_for_byte() {
    let mut bench = Bench::new();
    bench.clients += 1;
    bench.core.command(
        bench.now,
        b"uC0,8  call@id\t10.0.0.1 4000  tag;1 \r\n",
        Origin::Unix,
        1,
        &mut bench.out,
    );
    bench.collect();
    assert_eq!(bench.one_sent().2, "uC0,8  call@id\t10.0.0.1 4000  tag;1");
}

#[test]
fn nothing_is_sent_for_a_command_that_no_member_would_take() {
    let mut bench = Bench::new();
    for (text, reply) in [("", "E5"), ("Z x", "E0"), ("U c1", "E1"), ("D c1", "E1")] {
        let client = bench.command(text);
        assert_eq!(bench.got(client).as_deref(), Some(reply), "{text:?}");
        assert!(bench.take_sent().is_empty());
    }
}

#[test]
fn a_silent_member_is_failed_over_in_time_and_its_late_session_undone() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from;1");
    let (slow, late, _) = bench.one_sent();
    bench.pass(ms(251));
    let (other, cookie, text) = bench
        .take_sent()
        .into_iter()
        .find(|(member, ..)| *member != slow)
        .unwrap();
    assert_eq!(text, "U c1 192.0.2.1 4000 from;1");
    bench.answer(other, cookie, "35000 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
    assert_eq!(bench.home("c1").as_deref(), Some(other));
    bench.answer(slow, late, "36000 192.0.2.8");
    let (member, _, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (slow, "D c1 from;1"));
    assert_eq!(bench.home("c1").as_deref(), Some(other));
}

#[test]
fn a_delete_that_comes_during_a_failover_follows_its_call() {
    let mut bench = Bench::new();
    bench.command("U c1 192.0.2.1 4000 from");
    let (slow, ..) = bench.one_sent();
    let client = bench.command("D c1 from");
    assert_eq!(bench.one_sent().0, slow);
    bench.pass(ms(251));
    let elsewhere = |sent: Vec<(&'static str, Cookie, String)>| {
        let mut sent = sent.into_iter().filter(|(member, ..)| *member != slow);
        sent.next()
    };
    let (other, cookie, _) = elsewhere(bench.take_sent()).unwrap();
    bench.answer(other, cookie, "35000 192.0.2.9");
    let (member, cookie, text) = elsewhere(bench.take_sent()).unwrap();
    assert_eq!((member, text.as_str()), (other, "D c1 from"));
    bench.answer(other, cookie, "0");
    bench.pass(ms(3_000));
    assert_eq!(bench.got(client).as_deref(), Some("0"));
    assert_eq!(bench.core.bound(), 0);
    bench.take_sent();
    // A call that has its member is not run after.
    bench.call("c2");
    bench.command("D c2 from");
    let (home, cookie, _) = bench.one_sent();
    bench.answer(home, cookie, "0");
    assert_eq!(elsewhere(bench.take_sent()), None);
}

#[test]
fn a_stream_that_its_call_s_delete_has_overtaken_is_ended_when_it_is_made() {
    let mut bench = Bench::new();
    bench.command("U c1 192.0.2.1 4000 from;1");
    let (home, first, _) = bench.one_sent();
    bench.command("U c1 192.0.2.1 4002 from;2");
    let (joined, second, _) = bench.one_sent();
    assert_eq!(joined, home);
    bench.answer(home, first, "35000 192.0.2.9");
    bench.command("D c1 from");
    let (_, delete, _) = bench.one_sent();
    bench.answer(home, delete, "0");
    bench.answer(home, second, "35004 192.0.2.9");
    let (member, _, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (home, "D c1 from;2"));
    assert_eq!(bench.core.bound(), 0);
}

#[test]
fn the_first_positive_answer_wins_though_it_is_late() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from");
    let (first, cookie, _) = bench.one_sent();
    bench.pass(ms(300));
    let second = bench
        .take_sent()
        .into_iter()
        .find(|(member, ..)| *member != first)
        .unwrap();
    bench.answer(first, cookie, "36000 192.0.2.8");
    assert_eq!(bench.got(client).as_deref(), Some("36000 192.0.2.8"));
    assert_eq!(bench.home("c1").as_deref(), Some(first));
    bench.answer(second.0, second.1, "35000 192.0.2.9");
    assert_eq!(bench.one_sent().2, "D c1 from");
}

#[test]
fn a_weak_session_is_undone_as_a_weak_one() {
    let mut bench = Bench::new();
    bench.command("Uw c1 192.0.2.1 4000 from;2");
    let (slow, late, _) = bench.one_sent();
    bench.pass(ms(251));
    let (other, cookie, _) = bench
        .take_sent()
        .into_iter()
        .find(|(member, ..)| *member != slow)
        .unwrap();
    bench.answer(other, cookie, "35000 192.0.2.9");
    bench.answer(slow, late, "36000 192.0.2.8");
    assert_eq!(bench.one_sent().2, "Dw c1 - from;2");
}

#[test]
fn a_member_that_never_answers_gets_the_delete_when_it_is_back() {
    let mut bench = Bench::new();
    bench.command("U c1 192.0.2.1 4000 from");
    let (slow, ..) = bench.one_sent();
    bench.pass(ms(251));
    let (other, cookie, _) = bench
        .take_sent()
        .into_iter()
        .find(|(member, ..)| *member != slow)
        .unwrap();
    bench.answer(other, cookie, "35000 192.0.2.9");
    bench.online(slow, false);
    bench.take_sent();
    bench.pass(ms(5000));
    bench.online(slow, true);
    let (member, _, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (slow, "D c1 from"));
}

#[test]
fn not_here_not_now_goes_elsewhere_and_a_fault_of_the_command_does_not() {
    for (error, elsewhere) in [
        ("E71", true),
        ("E98", true),
        ("E99", true),
        ("E31", false),
        ("E50", false),
    ] {
        let mut bench = Bench::new();
        let client = bench.command("U c1 192.0.2.1 4000 from");
        let (first, cookie, _) = bench.one_sent();
        bench.answer(first, cookie, error);
        if elsewhere {
            let (second, cookie, _) = bench.one_sent();
            assert_ne!(first, second, "{error}");
            bench.answer(second, cookie, "35000 192.0.2.9");
            assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
        } else {
            assert_eq!(bench.got(client).as_deref(), Some(error));
            assert!(bench.take_sent().is_empty());
            assert_eq!(bench.home("c1"), None);
        }
    }
}

#[test]
fn when_every_attempt_is_refused_the_client_gets_the_last_word_of_a_member() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from");
    for error in ["E71", "E72", "E98"] {
        let (member, cookie, _) = bench.one_sent();
        bench.answer(member, cookie, error);
    }
    assert_eq!(bench.got(client).as_deref(), Some("E98"));
    assert_eq!(bench.home("c1"), None);
}

#[test]
fn two_streams_of_a_call_fail_over_together() {
    let mut bench = Bench::new();
    let audio = bench.command("U c1 192.0.2.1 4000 from;1");
    let video = bench.command("U c1 192.0.2.1 4002 from;2");
    let sent = bench.take_sent();
    assert_eq!(sent[0].0, sent[1].0, "one call, one member");
    let slow = sent[0].0;
    bench.pass(ms(251));
    let again: Vec<_> = bench
        .take_sent()
        .into_iter()
        .filter(|(member, ..)| *member != slow)
        .collect();
    assert_eq!(again.len(), 2);
    assert_eq!(again[0].0, again[1].0, "both went to the same member");
    for (member, cookie, _) in again {
        bench.answer(member, cookie, "35000 192.0.2.9");
    }
    assert!(bench.got(audio).is_some() && bench.got(video).is_some());
}

#[test]
fn nobody_online_is_said_at_once() {
    let mut bench = Bench::new();
    for name in NAMES {
        bench.online(name, false);
    }
    let client = bench.command("U c1 192.0.2.1 4000 from");
    assert_eq!(bench.got(client).as_deref(), Some("E999"));
    let client = bench.command("D c1 from to");
    assert_eq!(bench.got(client).as_deref(), Some("0"));
    for name in NAMES {
        bench.online(name, true);
    }
    let sent: Vec<String> = bench.take_sent().into_iter().map(|(_, _, text)| text).collect();
    assert_eq!(
        sent,
        vec!["D c1 from to"; 3],
        "the delete is carried out where the call may be"
    );
}

#[test]
fn a_silent_cluster_gives_no_reply_when_told_so() {
    let rules = model::Cluster {
        no_members: model::NoMembers::Silent,
        ..rules()
    };
    let mut bench = Bench::with(&rules, &[]);
    let client = bench.command("U c1 192.0.2.1 4000 from");
    assert_eq!(bench.got(client), None);
    assert_eq!(bench.out.dropped, [client]);
}

#[test]
fn all_members_full_is_said_under_a_hard_limit_only() {
    for limit in [CapacityLimit::Hard, CapacityLimit::Soft] {
        let rules = model::Cluster {
            capacity_limit: limit,
            ..rules()
        };
        let mut bench = Bench::with(&rules, &["A", "B"]);
        for (name, capacity) in [("A", 1), ("B", 2)] {
            let id = bench.id(name);
            bench.core.change_member(id, |member| member.capacity = capacity);
        }
        for call in 1..=3 {
            bench.call(&format!("c{call}"));
        }
        let a = bench.id("A");
        assert_eq!(
            (bench.core.bound_to(a), bench.core.bound()),
            (1, 3),
            "each to its capacity"
        );
        if limit == CapacityLimit::Hard {
            let client = bench.command("U c4 192.0.2.1 4000 from");
            assert_eq!(bench.got(client).as_deref(), Some("E998"));
            assert!(bench.take_sent().is_empty());
        } else {
            let b = bench.id("B");
            bench.core.change_member(b, |member| member.capacity = 1);
            assert_eq!(bench.call("c4"), "A", "one over one, beside two over one");
        }
    }
}

#[test]
fn an_unknown_call_is_asked_of_all_and_the_one_that_has_it_gets_it() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from to");
    let asked = bench.take_sent();
    assert_eq!(asked.len(), 3);
    assert!(
        asked.iter().all(|(_, _, text)| text == "Q c1 from to"),
        "{asked:?}"
    );
    bench.answer("A", asked[0].1, "E50");
    assert!(bench.take_sent().is_empty());
    // The third is silent, which delays nothing.
    bench.answer("B", asked[1].1, "60 0 0 0 0");
    let (member, cookie, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), ("B", "U c1 192.0.2.1 4000 from to"));
    assert!(
        asked.iter().all(|(_, asked, _)| *asked != cookie),
        "a cookie is never used twice"
    );
    bench.answer("B", cookie, "35000 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
    assert_eq!(bench.home("c1").as_deref(), Some("B"));
}

#[test]
fn a_re_invite_of_a_call_that_nobody_has_starts_it_anew() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from to");
    for (member, cookie, _) in bench.take_sent() {
        bench.answer(member, cookie, "E50");
    }
    let (member, cookie, text) = bench.one_sent();
    assert_eq!(text, "U c1 192.0.2.1 4000 from to");
    bench.answer(member, cookie, "35000 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
}

#[test]
fn silence_about_an_unknown_call_ends_after_300_ms() {
    let mut bench = Bench::new();
    bench.command("U c1 192.0.2.1 4000 from to");
    let asked = bench.take_sent();
    bench.answer("A", asked[0].1, "E50");
    bench.pass(ms(299));
    assert!(bench.take_sent().iter().all(|(_, _, text)| text.starts_with('Q')));
    bench.pass(ms(2));
    let started: Vec<_> = bench
        .take_sent()
        .into_iter()
        .filter(|(_, _, text)| text.starts_with('U'))
        .collect();
    assert_eq!(started.len(), 1);
}

#[test]
fn commands_of_the_same_unknown_call_share_one_question() {
    let mut bench = Bench::new();
    let look_up = bench.command("L c1 192.0.2.2 5000 from to");
    let asked = bench.take_sent();
    assert_eq!(asked.len(), 3);
    let query = bench.command("Q c1 from to");
    assert!(bench.take_sent().is_empty(), "the question is asked already");
    bench.answer("C", asked[2].1, "35000 192.0.2.9");
    assert_eq!(bench.got(look_up).as_deref(), Some("35000 192.0.2.9"));
    let (member, cookie, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), ("C", "Q c1 from to"));
    bench.answer(member, cookie, "60 0 0 0 0");
    assert_eq!(bench.got(query).as_deref(), Some("60 0 0 0 0"));
}

#[test]
fn what_nobody_has_is_answered_as_one_rtpproxy_would() {
    for (text, said, reply) in [
        ("L c1 192.0.2.2 5000 from to", "0", "0"),
        ("D c1 from to", "E50", "E50"),
        ("Q c1 from to", "E50", "E50"),
        ("P c1 /x 0 from to", "E50", "E50"),
    ] {
        let mut bench = Bench::new();
        let client = bench.command(text);
        for (member, cookie, _) in bench.take_sent() {
            bench.answer(member, cookie, said);
        }
        assert_eq!(bench.got(client).as_deref(), Some(reply), "{text}");
    }
}

#[test]
fn a_silent_member_may_have_what_nobody_else_has() {
    for (text, reply) in [
        ("L c1 192.0.2.2 5000 from to", "0"),
        ("D c1 from to", "0"),
        ("Q c1 from to", "E996"),
        ("R c1 from to", "E996"),
    ] {
        let mut bench = Bench::new();
        let client = bench.command(text);
        let asked = bench.take_sent();
        let said = if text.starts_with('L') { "0" } else { "E50" };
        bench.answer("A", asked[0].1, said);
        bench.answer("B", asked[1].1, said);
        bench.pass(ASK_FOR + ms(1));
        assert_eq!(bench.got(client).as_deref(), Some(reply), "{text}");
        bench.take_sent();
        bench.online("C", false);
        bench.online("C", true);
        let late: Vec<_> = bench.take_sent().into_iter().map(|(_, _, text)| text).collect();
        let carried_out = if text.starts_with('D') {
            vec![text.to_owned()]
        } else {
            Vec::new()
        };
        assert_eq!(late, carried_out, "a delete is carried out later");
    }
}

#[test]
fn an_offline_home_is_told_later_and_others_at_once() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    bench.online(home, false);
    let client = bench.command("L c1 192.0.2.2 5000 from to");
    assert_eq!(bench.got(client).as_deref(), Some("E997"));
    let client = bench.command("D c1 from to");
    assert_eq!(bench.got(client).as_deref(), Some("0"));
    assert!(bench.take_sent().is_empty());
    bench.online(home, true);
    assert_eq!(bench.one_sent().2, "D c1 from to");
}

#[test]
fn a_re_invite_finds_a_new_home_when_the_old_one_is_gone() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    bench.online(home, false);
    let client = bench.command("U c1 192.0.2.1 4000 from to");
    let (member, cookie, _) = bench.one_sent();
    assert_ne!(member, home);
    bench.answer(member, cookie, "35000 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
    assert_eq!(bench.home("c1").as_deref(), Some(member));
    bench.online(home, true);
    let (back, _, text) = bench.one_sent();
    assert_eq!((back, text.as_str()), (home, "D c1 from to"));
}

#[test]
fn a_home_that_goes_offline_meanwhile_is_replaced_for_a_u() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    let re_invite = bench.command("U c1 192.0.2.1 4000 from to");
    let look_up = bench.command("L c1 192.0.2.2 5000 from to");
    let delete = bench.command("D c1 from to");
    bench.take_sent();
    bench.online(home, false);
    let (member, cookie, _) = bench.one_sent();
    assert_ne!(member, home);
    bench.answer(member, cookie, "35000 192.0.2.9");
    assert_eq!(bench.got(re_invite).as_deref(), Some("35000 192.0.2.9"));
    assert_eq!(bench.got(look_up).as_deref(), Some("E997"));
    assert_eq!(bench.got(delete).as_deref(), Some("0"));
}

#[test]
fn a_silent_home_is_said_within_three_seconds() {
    let mut bench = Bench::new();
    bench.call("c1");
    let look_up = bench.command("L c1 192.0.2.2 5000 from to");
    bench.pass(ms(2999));
    assert_eq!(bench.got(look_up), None);
    bench.pass(ms(2));
    assert_eq!(bench.got(look_up).as_deref(), Some("E997"));
    assert!(!bench.out.suspects.is_empty(), "it is to be probed");
}

#[test]
fn a_lost_datagram_is_sent_again_under_the_same_cookie() {
    let mut bench = Bench::new();
    bench.call("c1");
    bench.command("Q c1 from to");
    bench.pass(ms(2999));
    let sent = bench.take_sent();
    assert!(sent.len() >= 13, "{} transmissions", sent.len());
    assert!(
        sent.iter()
            .all(|(_, cookie, text)| *cookie == sent[0].1 && text == "Q c1 from to")
    );
}

#[test]
fn foreign_late_and_double_replies_change_nothing() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from");
    let (member, cookie, _) = bench.one_sent();
    let other = *NAMES.iter().find(|name| **name != member).unwrap();
    bench.answer(other, cookie, "1 6.6.6.6");
    bench.answer(
        member,
        Cookie {
            nonce: cookie.nonce ^ 1,
            ..cookie
        },
        "1 6.6.6.6",
    );
    assert_eq!(bench.got(client), None);
    bench.answer(member, cookie, "35000 192.0.2.9");
    bench.answer(member, cookie, "35002 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
    let counters = |name: &str| bench.core.member_named(name).unwrap().counters().to_vec();
    assert_eq!(counters(other)[Count::SpoofedReplies as usize], 1);
    assert_eq!(counters(member)[Count::SpoofedReplies as usize], 1);
    assert_eq!(counters(member)[Count::LateReplies as usize], 1);
}

#[test]
fn garbage_is_no_answer() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from");
    let (member, cookie, _) = bench.one_sent();
    for garbage in ["", "\u{1}\u{2}", "-5 1.2.3.4", "70000 1.2.3.4", "hello"] {
        bench.answer(member, cookie, garbage);
        assert_eq!(bench.got(client), None, "{garbage:?}");
    }
    assert_eq!(bench.out.notes.len(), 1, "told once a minute");
    bench.answer(member, cookie, "35000 192.0.2.9");
    assert!(bench.got(client).is_some());
}

#[test]
fn a_refused_socket_fails_everything_at_once() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from");
    let (first, ..) = bench.one_sent();
    let id = bench.id(first);
    bench.core.refused(bench.now, id, &mut bench.out);
    bench.collect();
    let (second, cookie, _) = bench.one_sent();
    assert_ne!(first, second);
    bench.answer(second, cookie, "35000 192.0.2.9");
    assert!(bench.got(client).is_some());
    assert_eq!(bench.out.refused, [id]);
}

#[test]
fn an_ended_call_is_remembered_for_its_other_leg() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    bench.command("D c1 from to");
    let (member, cookie, _) = bench.one_sent();
    bench.answer(member, cookie, "0");
    bench.pass(ms(59_000));
    bench.command("D c1 to from");
    assert_eq!(bench.one_sent().0, home);
    bench.pass(ms(5_000));
    bench.take_sent();
    bench.command("D c1 to from");
    assert_eq!(
        bench.take_sent().len(),
        3,
        "forgotten after a minute: everybody is asked"
    );
}

#[test]
fn a_restarted_member_is_asked_like_the_others() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    bench.pass(ms(2_000));
    let id = bench.id(home);
    bench.core.set_restarted(id, bench.now);
    bench.command("L c1 192.0.2.2 5000 from to");
    assert_eq!(bench.take_sent().len(), 3);
}

#[test]
fn a_member_that_is_deleted_now_takes_its_calls_along() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    let id = bench.id(home);
    assert_eq!(
        bench.core.remove_member(bench.now, id, &mut bench.out),
        Some(home)
    );
    bench.collect();
    assert_eq!(bench.home("c1"), None);
    let client = bench.command("L c1 192.0.2.2 5000 from to");
    for (member, cookie, _) in bench.take_sent() {
        bench.answer(member, cookie, "0");
    }
    assert_eq!(bench.got(client).as_deref(), Some("0"));
}

#[test]
fn suspended_members_serve_and_take_nothing_new() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    let id = bench.id(home);
    bench
        .core
        .change_member(id, |member| member.status = Status::Suspended);
    bench.command("L c1 192.0.2.2 5000 from to");
    assert_eq!(bench.one_sent().0, home);
    for call in 0..50 {
        assert_ne!(bench.call(&format!("n{call}")), home);
    }
}

#[test]
fn the_cluster_answers_for_all_its_members() {
    let mut bench = Bench::new();
    let client = bench.command("V");
    assert_eq!(bench.got(client).as_deref(), Some("20040107"));
    let client = bench.command("VF 20071218");
    let asked = bench.take_sent();
    assert_eq!(asked.len(), 3);
    for (member, cookie, _) in asked {
        bench.answer(member, cookie, if member == "B" { "0" } else { "1" });
    }
    assert_eq!(bench.got(client).as_deref(), Some("0"), "one cannot");
    let client = bench.command("VF 20071218");
    assert_eq!(bench.got(client).as_deref(), Some("0"), "asked once");
    let client = bench.command("G nsess_created");
    for ((member, cookie, _), said) in bench.take_sent().into_iter().zip(["1", "20", "300"]) {
        bench.answer(member, cookie, said);
    }
    assert_eq!(bench.got(client).as_deref(), Some("321"));
}

#[test]
fn statistics_that_some_refuse_are_those_of_the_others() {
    for (said, reply) in [
        (["1", "E68", "300"], "301"),
        (["E68", "E68", "E68"], "E68"),
        (["E68", "E9", "E68"], "E993"),
    ] {
        let mut bench = Bench::new();
        let client = bench.command("G nsess_created");
        for ((member, cookie, _), said) in bench.take_sent().into_iter().zip(said) {
            bench.answer(member, cookie, said);
        }
        assert_eq!(bench.got(client).as_deref(), Some(reply));
    }
}

#[test]
fn an_error_of_one_member_counts_more_than_not_here() {
    for (text, said, reply) in [
        ("Q c1 f t bogus", ["E50", "E62", "E50"], "E62"),
        ("Q c1 f t bogus", ["E62", "E50", "E50"], "E62"),
        ("P c1 /x 0 f t", ["E50", "E60", "E6"], "E995"),
        ("L c1 192.0.2.2 5000 f t", ["0", "0", "E71"], "E71"),
        ("Le c1 192.0.2.2 5000 f t", ["E11", "E11", "E11"], "E11"),
    ] {
        let mut bench = Bench::new();
        let client = bench.command(text);
        for ((member, cookie, _), said) in bench.take_sent().into_iter().zip(said) {
            bench.answer(member, cookie, said);
        }
        assert_eq!(bench.got(client).as_deref(), Some(reply), "{text}");
    }
}

#[test]
fn heartbeats_are_summed_and_what_was_bound_since_counts() {
    let mut bench = Bench::new();
    for (name, active) in NAMES.into_iter().zip([1, 2, 3]) {
        let id = bench.id(name);
        let counts = SessionCounts {
            created: 10,
            active,
            streams: 2,
            received: 5,
            transmitted: 4,
            load: None,
        };
        bench
            .core
            .counted(bench.now, id, bench.now, Some(counts), &mut bench.out);
    }
    let client = bench.command("Ib");
    assert_eq!(
        bench.got(client).as_deref(),
        Some(
            "sessions created: 30\nactive sessions: 6\nactive streams: 6\npackets received: 15\npackets \
             transmitted: 12"
        )
    );
    let home = bench.call("c1");
    let sessions = choose::Candidate::sessions(bench.core.member_named(home).unwrap());
    let counted = NAMES.iter().position(|name| *name == home).unwrap() as u64 + 1;
    assert_eq!(sessions, counted + 1);
}

#[test]
fn delete_all_empties_the_table_and_is_repeated_where_it_was_missed() {
    let mut bench = Bench::new();
    bench.call("c1");
    bench.online("C", false);
    let client = bench.command("X");
    let sent = bench.take_sent();
    assert_eq!(sent.len(), 2);
    for (member, cookie, _) in sent {
        bench.answer(member, cookie, "0");
    }
    assert_eq!(bench.got(client).as_deref(), Some("0"));
    assert_eq!(bench.home("c1"), None);
    bench.online("C", true);
    assert_eq!(bench.one_sent().2, "X");
}

/// A table with room for one call, which is there.
fn full() -> Bench {
    let rules = model::Cluster {
        sessions: model::Sessions {
            max: 1,
            ..rules().sessions
        },
        ..rules()
    };
    let mut bench = Bench::with(&rules, &NAMES);
    bench.call("c1");
    bench
}

#[test]
fn a_full_table_serves_calls_unbound() {
    let mut bench = full();
    let home = bench.call("c2");
    assert_eq!(bench.home("c2"), None);
    bench.command("L c2 192.0.2.2 5000 from to");
    let (at, cookie, _) = bench.one_sent();
    assert_eq!(
        at, home,
        "its later commands are asked first of the member that it went to"
    );
    bench.answer(at, cookie, "0");
    assert_eq!(bench.take_sent().len(), 2, "and then of the others");
    assert!(
        bench
            .out
            .notes
            .iter()
            .any(|note| matches!(note, Note::TableFull { calls: 1 }))
    );
}

#[test]
fn the_streams_of_a_call_that_found_no_room_are_on_one_member() {
    let mut bench = full();
    let mut homes = std::collections::BTreeSet::new();
    for call in 0..40 {
        let sent: Vec<_> = (0..2)
            .map(|stream| {
                bench.command(&format!("U u{call} 192.0.2.1 4000 from;{stream}"));
                bench.one_sent()
            })
            .collect();
        assert_eq!(sent[0].0, sent[1].0, "u{call}");
        homes.insert(sent[0].0);
        for (member, cookie, _) in sent {
            bench.answer(member, cookie, "35000 192.0.2.9");
        }
    }
    assert_eq!(homes.len(), NAMES.len());
}

#[test]
fn a_reply_that_no_sip_server_could_read_is_not_passed_on() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from");
    let (member, cookie, _) = bench.one_sent();
    bench.answer(member, cookie, &format!("35000 {}", "1".repeat(300)));
    assert_eq!(bench.got(client), None);
    bench.answer(member, cookie, "40002 127.0.0.1 4");
    assert_eq!(bench.got(client).as_deref(), Some("40002 127.0.0.1 4"));
}

#[test]
fn nothing_is_left_behind_after_many_calls() {
    let mut bench = Bench::new();
    for call in 0..500 {
        let call_id = format!("c{call}");
        bench.call(&call_id);
        bench.command(&format!("D {call_id} from to"));
        let (member, cookie, _) = bench.one_sent();
        bench.answer(member, cookie, "0");
    }
    assert_eq!(bench.core.in_flight(), 0);
    assert_eq!(bench.core.bound(), 0);
    bench.pass(ms(120_000));
    assert!(bench.core.sessions.is_empty(), "ended calls are swept");
    assert_eq!(
        bench.core.expire(bench.now, &mut bench.out),
        None,
        "the timer may sleep for ever"
    );
}

#[test]
fn a_delete_that_went_unanswered_is_repeated_when_its_member_answers_a_heartbeat() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    let client = bench.command("D c1 from to");
    bench.pass(ANSWER_WITHIN);
    assert_eq!(bench.got(client).as_deref(), Some("0"));
    assert!(
        bench
            .take_sent()
            .iter()
            .all(|(_, _, text)| text == "D c1 from to")
    );
    let id = bench.id(home);
    bench
        .core
        .counted(bench.now, id, bench.now, Some(active(1)), &mut bench.out);
    bench.collect();
    let (member, cookie, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (home, "D c1 from to"));
    bench.answer(home, cookie, "0");
    bench.pass(ANSWER_WITHIN);
    assert!(bench.take_sent().is_empty(), "once");
}

fn active(active: u64) -> SessionCounts {
    SessionCounts {
        active,
        ..SessionCounts::default()
    }
}

#[test]
fn an_idle_cluster_asks_for_no_alarm_and_one_with_few_calls_seldom() {
    let mut bench = Bench::new();
    assert_eq!(bench.core.next_alarm(), None);
    bench.call("c1");
    assert!(bench.core.next_alarm().unwrap() >= bench.now + SWEEP_ROUND);
    bench.command("D c1 from");
    let (member, cookie, _) = bench.one_sent();
    assert!(
        bench.core.next_alarm().unwrap() <= bench.now + ms(50),
        "to send it again"
    );
    bench.answer(member, cookie, "0");
    assert!(bench.core.next_alarm().unwrap() >= bench.now + SWEEP_ROUND);
    let mut alarms = 0;
    while let Some(at) = bench.core.next_alarm() {
        bench.now = at;
        bench.core.expire(at, &mut bench.out);
        alarms += 1;
    }
    assert!(alarms <= 10, "{alarms} until the ended call was forgotten");
}

#[test]
fn an_alarm_that_is_asked_for_is_the_one_that_expire_gives() {
    let mut bench = Bench::new();
    bench.call("c1");
    bench.command("L c1 192.0.2.2 5000 from to");
    for _ in 0..100 {
        let next = bench.core.expire(bench.now, &mut bench.out);
        assert_eq!(next, bench.core.next_alarm());
        bench.now = next.unwrap();
    }
}

#[test]
fn a_member_that_refuses_to_be_counted_has_the_load_that_we_bound() {
    let rules = model::Cluster {
        capacity_limit: CapacityLimit::Hard,
        ..rules()
    };
    let mut bench = Bench::with(&rules, &["A"]);
    let id = bench.id("A");
    bench.core.change_member(id, |member| member.capacity = 2);
    bench.core.counted(bench.now, id, bench.now, None, &mut bench.out);
    bench.call("c1");
    bench.call("c2");
    assert_eq!(bench.core.member_views(bench.now)[0].active_sessions, None);
    let client = bench.command("U c3 192.0.2.1 4000 from");
    assert_eq!(bench.got(client).as_deref(), Some("E998"));
    bench.command("D c1 from");
    bench.take_sent();
    bench.call("c3");
    assert!(!bench.core.is_free(id));
}

#[test]
fn a_call_bound_after_a_heartbeat_was_asked_for_counts_beside_it() {
    let rules = model::Cluster {
        capacity_limit: CapacityLimit::Hard,
        ..rules()
    };
    let mut bench = Bench::with(&rules, &["A"]);
    let id = bench.id("A");
    bench.core.change_member(id, |member| member.capacity = 10);
    bench.call("c1");
    bench.pass(ms(10));
    let asked = bench.now;
    bench.pass(ms(10));
    bench.call("c2");
    bench
        .core
        .counted(bench.now, id, asked, Some(active(9)), &mut bench.out);
    let client = bench.command("U c3 192.0.2.1 4000 from");
    assert_eq!(
        bench.got(client).as_deref(),
        Some("E998"),
        "nine and the second call"
    );
    bench.pass(ms(10));
    bench
        .core
        .counted(bench.now, id, bench.now, Some(active(9)), &mut bench.out);
    bench.call("c3");
}

#[test]
fn what_the_watch_learns_needs_no_probe_of_ours() {
    let mut bench = Bench::new();
    let client = bench.command("VF 20071218");
    for (member, cookie, _) in bench.take_sent() {
        bench.answer(member, cookie, "1");
    }
    assert_eq!(bench.got(client).as_deref(), Some("1"));
    let id = bench.id("B");
    bench.core.capability(id, 20_071_218, false);
    let client = bench.command("VF 20071218");
    assert_eq!(bench.got(client).as_deref(), Some("0"));
    bench.core.measured(id, ms(40));
    bench.core.count(id, Count::Probes);
    let view = bench.core.member_views(bench.now).remove(1);
    assert!(view.delay > Some(Duration::ZERO));
    assert_eq!(view.counters[Count::Probes as usize], 1);
}

#[test]
fn a_run_can_be_repeated() {
    let run = || {
        let mut bench = Bench::new();
        let mut sent = Vec::new();
        for call in 0..50 {
            bench.command(&format!("U c{call} 192.0.2.1 4000 from"));
            bench.command(&format!("L u{call} 192.0.2.1 4000 from to"));
            bench.pass(ms(70));
            sent.extend(std::mem::take(&mut bench.sent));
        }
        sent
    };
    assert!(run() == run());
}

/// What was sent to that member, less what was sent again.
fn sent_to(bench: &mut Bench, name: &str) -> Vec<(Cookie, String)> {
    let mut sent: Vec<(Cookie, String)> = Vec::new();
    for (member, cookie, text) in bench.take_sent() {
        if member == name && sent.iter().all(|(known, _)| *known != cookie) {
            sent.push((cookie, text));
        }
    }
    sent
}

#[test]
fn a_member_is_suspected_at_its_first_missed_answer_and_passed_over_until_it_answers() {
    let mut bench = Bench::new();
    bench.command("U c0 192.0.2.1 4000 from");
    let (slow, ..) = bench.one_sent();
    bench.pass(ms(251));
    assert_eq!(
        bench.out.suspects,
        [bench.id(slow)],
        "long before all is given up"
    );
    for (member, cookie, text) in bench.take_sent() {
        if member != slow && text.starts_with('U') {
            bench.answer(member, cookie, "35000 192.0.2.9");
        }
    }
    for call in 1..50 {
        assert_ne!(bench.call(&format!("c{call}")), slow);
    }
    let id = bench.id(slow);
    bench
        .core
        .counted(bench.now, id, bench.now, Some(active(0)), &mut bench.out);
    assert!((50..100).any(|call| bench.call(&format!("c{call}")) == slow));
    assert_eq!(bench.out.suspects.len(), 1, "told once");
}

#[test]
fn suspects_are_tried_when_nobody_else_is_there() {
    let mut bench = Bench::with(&rules(), &["A"]);
    bench.command("U c1 192.0.2.1 4000 from");
    bench.pass(ms(251));
    bench.take_sent();
    let client = bench.command("U c2 192.0.2.1 4000 from");
    let (member, cookie, _) = bench.one_sent();
    bench.answer(member, cookie, "35000 192.0.2.9");
    assert!(bench.got(client).is_some());
}

#[test]
fn two_silent_members_of_three_lose_no_call() {
    let mut bench = Bench::new();
    for call in 0..30 {
        let client = bench.command(&format!("U c{call} 192.0.2.1 4000 from"));
        for _ in 0..10 {
            for (cookie, text) in sent_to(&mut bench, "B") {
                let said = if text.starts_with('U') {
                    "35000 192.0.2.9"
                } else {
                    "0"
                };
                bench.answer("B", cookie, said);
            }
            bench.pass(ms(100));
        }
        assert!(
            bench.got(client).is_some_and(|reply| !reply.starts_with('E')),
            "c{call}"
        );
    }
}

#[test]
fn who_says_at_once_that_it_takes_nothing_counts_as_no_attempt() {
    let rules = model::Cluster {
        failover: model::Failover {
            attempts: 1,
            ..model::Failover::default()
        },
        ..rules()
    };
    let mut bench = Bench::with(&rules, &NAMES);
    let client = bench.command("U c1 192.0.2.1 4000 from");
    let (first, cookie, _) = bench.one_sent();
    bench.answer(first, cookie, "E71");
    let (second, ..) = bench.one_sent();
    let id = bench.id(second);
    bench.core.refused(bench.now, id, &mut bench.out);
    bench.collect();
    let (third, cookie, _) = bench.one_sent();
    bench.answer(third, cookie, "35000 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
}

#[test]
fn an_undo_leaves_a_call_alone_that_is_there_by_now() {
    let mut bench = Bench::with(&rules(), &["A", "B"]);
    bench.command("U c1 192.0.2.1 4000 from");
    let (lost, ..) = bench.one_sent();
    bench.pass(ms(251));
    let winner = if lost == "A" { "B" } else { "A" };
    let (cookie, _) = sent_to(&mut bench, winner).remove(0);
    bench.answer(winner, cookie, "35000 192.0.2.9");
    bench.online(winner, false);
    let client = bench.command("U c1 192.0.2.1 4000 from to");
    let (cookie, text) = sent_to(&mut bench, lost).remove(0);
    assert_eq!(text, "U c1 192.0.2.1 4000 from to");
    bench.answer(lost, cookie, "36000 192.0.2.8");
    assert!(bench.got(client).is_some());
    bench.pass(ANSWER_WITHIN * 2);
    assert_eq!(sent_to(&mut bench, lost), []);
    assert_eq!(bench.home("c1").as_deref(), Some(lost));
}

#[test]
fn an_undo_that_was_lost_is_not_sent_again_when_its_call_has_come_back() {
    let mut bench = Bench::with(&rules(), &["A", "B"]);
    bench.command("U c1 192.0.2.1 4000 from");
    let (slow, late, _) = bench.one_sent();
    bench.pass(ms(251));
    let winner = if slow == "A" { "B" } else { "A" };
    let (cookie, _) = sent_to(&mut bench, winner).remove(0);
    bench.answer(winner, cookie, "35000 192.0.2.9");
    bench.answer(slow, late, "36000 192.0.2.8");
    assert_eq!(bench.one_sent().2, "D c1 from");
    bench.online(winner, false);
    bench.command("U c1 192.0.2.1 4000 from to");
    let (_, cookie, _) = bench.one_sent();
    bench.answer(slow, cookie, "36000 192.0.2.8");
    bench.pass(ANSWER_WITHIN * 2);
    assert!(
        bench
            .take_sent()
            .iter()
            .all(|(_, _, text)| !text.starts_with('D'))
    );
}

#[test]
fn a_re_invite_that_was_lost_is_not_sent_again_after_its_calls_delete() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    bench.command("U c1 192.0.2.1 4000 from to");
    bench.command("D c1 from to");
    let sent = sent_to(&mut bench, home);
    bench.answer(home, sent[1].0, "0");
    bench.pass(ANSWER_WITHIN);
    assert!(bench.take_sent().is_empty(), "it would make the session anew");
}

#[test]
fn a_session_that_is_made_after_its_delete_was_answered_is_ended() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from;1");
    let (member, created, _) = bench.one_sent();
    bench.command("D c1 from");
    let (_, cookie, _) = bench.one_sent();
    bench.answer(member, cookie, "E50");
    bench.answer(member, created, "35000 192.0.2.9");
    assert!(bench.got(client).is_some());
    let (at, _, text) = bench.one_sent();
    assert_eq!((at, text.as_str()), (member, "D c1 from;1"));
    assert_eq!(bench.core.bound(), 0);
    // Another party's session of the same call is not the one that was deleted.
    bench.command("U c2 192.0.2.1 4000 from;1");
    let (member, created, _) = bench.one_sent();
    bench.command("D c2 other");
    bench.take_sent();
    bench.answer(member, created, "35000 192.0.2.9");
    assert!(bench.take_sent().is_empty());
}

#[test]
fn a_delete_of_all_that_was_lost_does_not_end_a_call_made_after_it() {
    let mut bench = Bench::with(&rules(), &["A"]);
    bench.command("X");
    bench.one_sent();
    bench.call("c1");
    bench.pass(ANSWER_WITHIN);
    assert!(bench.take_sent().is_empty());
    bench.online("A", false);
    bench.online("A", true);
    assert!(bench.take_sent().is_empty());
}

#[test]
fn a_member_that_is_deleted_now_is_told_to_end_what_is_being_made_there() {
    let mut bench = Bench::new();
    let client = bench.command("U c1 192.0.2.1 4000 from");
    let (first, ..) = bench.one_sent();
    bench.remove(first);
    let sent = bench.take_sent();
    assert!(
        sent.iter()
            .any(|(member, _, text)| *member == first && text == "D c1 from"),
        "{sent:?}"
    );
    let (second, cookie, _) = sent.into_iter().find(|(member, ..)| *member != first).unwrap();
    bench.answer(second, cookie, "35000 192.0.2.9");
    assert!(bench.got(client).is_some());
    assert_eq!(bench.core.in_flight(), 0);
}

/// Seven members under the policy `hash`.
fn hashed() -> Bench {
    let rules = model::Cluster {
        policy: Policy::Hash,
        ..rules()
    };
    Bench::with(&rules, &["A", "B", "C", "D", "E", "F", "G"])
}

/// Their order for a call.
fn order_of(bench: &Bench, call_id: &str) -> Vec<&'static str> {
    let ranked = choose::ranked(&bench.core.members, call_id.as_bytes());
    ranked.into_iter().map(|at| bench.core.members[at].link).collect()
}

fn names_sent(bench: &mut Bench) -> Vec<&'static str> {
    let mut names: Vec<_> = bench.take_sent().into_iter().map(|(member, ..)| member).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn sorted(names: &[&'static str]) -> Vec<&'static str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

#[test]
fn a_call_that_is_where_the_hash_says_costs_one_question() {
    let mut bench = hashed();
    for call in 0..20 {
        let call_id = format!("c{call}");
        let home = order_of(&bench, &call_id)[0];
        let client = bench.command(&format!("L {call_id} 192.0.2.2 5000 from to"));
        let (member, cookie, _) = bench.one_sent();
        assert_eq!(member, home);
        bench.answer(member, cookie, "35000 192.0.2.9");
        assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
        assert_eq!(bench.home(&call_id).as_deref(), Some(home));
        bench.pass(ms(120));
        assert!(bench.take_sent().is_empty(), "nobody else is asked");
        assert_eq!(
            bench.call(&format!("new{call}")),
            order_of(&bench, &format!("new{call}"))[0]
        );
    }
}

#[test]
fn a_call_that_is_elsewhere_is_asked_for_in_steps() {
    let mut bench = hashed();
    let order = order_of(&bench, "c1");
    let client = bench.command("L c1 192.0.2.2 5000 from to");
    let (first, cookie, _) = bench.one_sent();
    assert_eq!(first, order[0]);
    // At once on a no, else after 50 ms.
    bench.answer(first, cookie, "0");
    assert_eq!(names_sent(&mut bench), sorted(&order[1..3]));
    bench.pass(ms(49));
    assert!(
        names_sent(&mut bench)
            .iter()
            .all(|name| order[1..3].contains(name)),
        "sent again at most"
    );
    bench.pass(ms(1));
    let sent = bench.take_sent();
    let (last, cookie, _) = sent.iter().find(|(member, ..)| *member == order[6]).unwrap();
    assert!(
        order[3..]
            .iter()
            .all(|name| sent.iter().any(|(member, ..)| member == name))
    );
    bench.answer(last, *cookie, "35000 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
}

#[test]
fn a_member_that_is_away_is_passed_over_by_a_question_and_keeps_its_rank() {
    let mut bench = hashed();
    let order = order_of(&bench, "c1");
    bench.online(order[0], false);
    assert_eq!(order_of(&bench, "c1"), order);
    let client = bench.command("U c1 192.0.2.2 5000 from to");
    let asked = bench.take_sent();
    assert_eq!(asked.len(), 2);
    for (member, cookie, text) in asked {
        assert!(
            order[1..3].contains(&member) && text.starts_with('Q'),
            "{member} {text}"
        );
        bench.answer(member, cookie, "E50");
    }
    for (member, cookie, _) in bench.take_sent() {
        assert!(order[3..].contains(&member));
        bench.answer(member, cookie, "E50");
    }
    // Nobody has it: a new session, at the next in rank.
    let (member, cookie, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (order[1], "U c1 192.0.2.2 5000 from to"));
    bench.answer(member, cookie, "35000 192.0.2.9");
    assert!(bench.got(client).is_some());
}

#[test]
fn an_error_reply_is_no_command_to_be_answered() {
    let mut bench = Bench::new();
    let origin = Origin::Ip(core::net::Ipv4Addr::LOCALHOST.into());
    for (client, text) in [(1, "E5"), (2, "e0\n"), (3, " E999 ")] {
        bench
            .core
            .command(bench.now, text.as_bytes(), origin, client, &mut bench.out);
        bench.collect();
        assert_eq!(bench.got(client), None, "{text}");
        assert_eq!(bench.out.dropped.pop(), Some(client));
    }
    for (client, text) in [(4, "E"), (5, "y"), (6, "E5 5")] {
        bench
            .core
            .command(bench.now, text.as_bytes(), origin, client, &mut bench.out);
        bench.collect();
        assert!(bench.got(client).is_some(), "{text}");
    }
}

#[test]
fn what_an_offline_member_cannot_keep_is_told_once_a_minute() {
    let mut bench = Bench::with(&rules(), &["A"]);
    bench.online("A", false);
    for call in 0..member::DEFERRED_MAX + 5_000 {
        bench.command(&format!("D c{call} from"));
    }
    let told = |bench: &mut Bench| {
        let notes = std::mem::take(&mut bench.out.notes).into_iter();
        let deletes = notes.filter_map(|note| match note {
            Note::DeletesDropped { deletes, .. } => Some(deletes),
            _ => None,
        });
        deletes.collect::<Vec<u64>>()
    };
    assert_eq!(told(&mut bench), [1]);
    bench.now += crate::rim::throttle::TELL_EVERY;
    bench.command("D last from");
    assert_eq!(told(&mut bench), [5_000]);
}

#[test]
fn a_call_that_moves_is_ended_at_its_old_home_with_all_its_streams() {
    let mut bench = Bench::new();
    let old = bench.call("c1");
    bench.online(old, false);
    bench.command("U c1 192.0.2.1 4002 from;2 to;2");
    let (new, cookie, _) = bench.one_sent();
    bench.answer(new, cookie, "35000 192.0.2.9");
    bench.online(old, true);
    let (member, _, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (old, "D c1 from to"));
}

#[test]
fn a_session_of_the_last_member_that_goes_away_is_ended_when_it_is_back() {
    let mut bench = Bench::with(&rules(), &["A"]);
    let client = bench.command("U c1 192.0.2.1 4000 from");
    bench.take_sent();
    bench.online("A", false);
    assert_eq!(bench.got(client).as_deref(), Some("E997"));
    bench.online("A", true);
    assert_eq!(bench.one_sent().2, "D c1 from");
}

#[test]
fn a_session_of_a_member_that_goes_away_is_ended_though_the_call_goes_elsewhere_at_once() {
    let mut bench = Bench::new();
    bench.command("U c1 192.0.2.1 4000 from");
    let (lost, ..) = bench.one_sent();
    bench.online(lost, false);
    let (other, cookie, _) = bench.one_sent();
    bench.answer(other, cookie, "35000 192.0.2.9");
    bench.online(lost, true);
    let (member, _, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (lost, "D c1 from"));
}

#[test]
fn a_call_that_could_not_move_is_not_ended_at_its_home() {
    let mut bench = Bench::with(&rules(), &["A", "B"]);
    let old = bench.call("c1");
    bench.online(old, false);
    let client = bench.command("U c1 192.0.2.1 4000 from to");
    let (other, ..) = bench.one_sent();
    bench.online(old, true);
    bench.online(other, false);
    let (member, cookie, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (old, "U c1 192.0.2.1 4000 from to"));
    bench.answer(old, cookie, "35000 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35000 192.0.2.9"));
    bench.pass(ms(10_000));
    assert!(bench.take_sent().is_empty(), "nothing is deleted there");
}

#[test]
fn a_stream_waits_where_another_one_of_its_call_has_been_answered() {
    let mut bench = Bench::new();
    bench.command("U c1 192.0.2.1 4000 from;1");
    let client = bench.command("U c1 192.0.2.1 4002 from;2");
    let sent = bench.take_sent();
    let home = sent[0].0;
    bench.answer(home, sent[0].1, "35000 192.0.2.9");
    bench.pass(ms(600));
    assert!(bench.take_sent().iter().all(|(member, ..)| *member == home));
    assert_eq!(bench.home("c1").as_deref(), Some(home));
    bench.answer(home, sent[1].1, "35004 192.0.2.9");
    assert_eq!(bench.got(client).as_deref(), Some("35004 192.0.2.9"));
}

#[test]
fn a_delete_reaches_a_member_that_comes_back_while_the_others_are_asked() {
    let mut bench = Bench::new();
    bench.online("A", false);
    let client = bench.command("D c1 from to");
    let sent = bench.take_sent();
    bench.online("A", true);
    for (member, cookie, _) in sent {
        bench.answer(member, cookie, "E50");
    }
    assert_eq!(bench.got(client).as_deref(), Some("0"));
    let (id, now) = (bench.id("A"), bench.now);
    bench.core.counted(now, id, now, None, &mut bench.out);
    bench.collect();
    let (member, _, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), ("A", "D c1 from to"));
}

#[test]
fn a_stream_that_is_made_after_the_delete_of_its_call_is_ended() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    let update = bench.command("U c1 192.0.2.1 4002 from;2");
    let (_, late, _) = bench.one_sent();
    bench.command("D c1 from to");
    let (_, cookie, _) = bench.one_sent();
    // The network turns them round.
    bench.answer(home, cookie, "0");
    bench.answer(home, late, "35004 192.0.2.9");
    assert_eq!(bench.got(update).as_deref(), Some("35004 192.0.2.9"));
    assert_eq!(bench.one_sent().2, "D c1 from;2");
}

#[test]
fn a_delete_of_a_call_that_found_no_room_follows_it() {
    let mut rules = rules();
    rules.sessions.max = 1;
    let mut bench = Bench::with(&rules, &["A"]);
    bench.call("full");
    bench.command("U c1 192.0.2.1 4000 from");
    let (_, late, _) = bench.one_sent();
    bench.command("D c1 from");
    let (_, cookie, _) = bench.one_sent();
    bench.answer("A", cookie, "E50");
    bench.answer("A", late, "35000 192.0.2.9");
    assert_eq!(bench.one_sent().2, "D c1 from");
}

#[test]
fn a_call_that_is_made_anew_at_a_restarted_member_is_bound_there() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    bench.pass(ms(1_000));
    bench.command("U c1 192.0.2.1 4000 from to");
    let (_, cookie, _) = bench.one_sent();
    let (id, last_good) = (bench.id(home), bench.now);
    bench.core.set_restarted(id, last_good);
    assert_eq!(bench.home("c1"), None);
    bench.answer(home, cookie, "35000 192.0.2.9");
    assert_eq!(bench.home("c1").as_deref(), Some(home));
}

#[test]
fn a_call_that_could_not_move_is_ended_at_its_home_when_it_moves_later() {
    let mut bench = Bench::with(&rules(), &["A", "B"]);
    let old = bench.call("c1");
    bench.online(old, false);
    let client = bench.command("U c1 192.0.2.1 4000 from to");
    let (other, cookie, _) = bench.one_sent();
    bench.answer(other, cookie, "E71");
    assert_eq!(bench.got(client).as_deref(), Some("E71"));
    assert_eq!(bench.home("c1").as_deref(), Some(old));
    bench.command("U c1 192.0.2.1 4000 from to");
    let (_, cookie, _) = bench.one_sent();
    bench.answer(other, cookie, "35000 192.0.2.9");
    bench.online(old, true);
    let (member, _, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (old, "D c1 from to"));
}

#[test]
fn a_stream_that_may_have_been_made_after_the_delete_of_its_call_is_ended() {
    let mut bench = Bench::new();
    let home = bench.call("c1");
    let update = bench.command("U c1 192.0.2.1 4002 from;2");
    bench.one_sent();
    bench.command("D c1 from to");
    let (_, cookie, _) = bench.one_sent();
    bench.answer(home, cookie, "0");
    bench.pass(ANSWER_WITHIN);
    assert_eq!(bench.got(update).as_deref(), Some("E997"));
    let sent = bench.take_sent();
    let delete = sent.iter().find(|(_, _, text)| text.starts_with('D'));
    let (member, _, text) = delete.expect("it is ended");
    assert_eq!((*member, text.as_str()), (home, "D c1 from;2"));
}

#[test]
fn a_call_is_not_ended_by_its_re_invite_at_a_member_that_has_not_said_whether_it_has_it() {
    let mut bench = Bench::new();
    bench.command("U c1 192.0.2.1 4000 from to");
    assert!(bench.take_sent().iter().all(|(_, _, text)| text.starts_with('Q')));
    bench.pass(ANSWER_WITHIN);
    let sent = bench.take_sent();
    assert!(sent.iter().any(|(_, _, text)| text.starts_with('U')), "{sent:?}");
    bench.pass(ANSWER_WITHIN * 2);
    let sent = bench.take_sent();
    assert!(sent.iter().all(|(_, _, text)| !text.starts_with('D')), "{sent:?}");
}

#[test]
fn a_late_session_is_undone_without_room_for_a_binding_too() {
    let mut bench = full();
    bench.command("U c2 192.0.2.1 4000 from;1");
    let (slow, late, _) = bench.one_sent();
    bench.pass(ms(251));
    let sent = bench.take_sent();
    let (other, cookie, _) = sent.into_iter().find(|(member, ..)| *member != slow).unwrap();
    bench.answer(other, cookie, "35000 192.0.2.9");
    assert_eq!(bench.home("c2"), None);
    bench.answer(slow, late, "36000 192.0.2.8");
    let (member, _, text) = bench.one_sent();
    assert_eq!((member, text.as_str()), (slow, "D c2 from;1"));
}

/// Dispatchers share what they have bound; a call has been looked up, and members have not been asked.
fn looks_up(text: &str) -> (Bench, u32, Slot) {
    let mut bench = Bench::new();
    bench.core.set_shared(true);
    let client = bench.command(text);
    let look_up = bench.out.look_ups.pop().expect("it is looked up");
    assert_eq!(&*look_up.call_id, b"c1");
    assert!(bench.take_sent().is_empty());
    (bench, client, look_up.slot)
}

fn tell(bench: &mut Bench, slot: Slot, found: Option<&str>) {
    bench
        .core
        .looked_up(bench.now, slot, found.map(str::as_bytes), &mut bench.out);
    bench.collect();
}

const UNKNOWN: [&str; 4] = [
    "U c1 192.0.2.1 4000 from",
    "U c1 192.0.2.1 4000 from to",
    "L c1 192.0.2.1 4000 from to",
    "D c1 from to",
];

#[test]
fn a_call_that_another_dispatcher_has_bound_goes_to_its_member() {
    for text in UNKNOWN {
        let (mut bench, client, slot) = looks_up(text);
        tell(&mut bench, slot, Some("B udp:127.0.0.1:22222"));
        let (member, cookie, sent) = bench.one_sent();
        assert_eq!((member, sent.as_str()), ("B", text));
        bench.answer(member, cookie, "0");
        assert_eq!(bench.got(client).as_deref(), Some("0"));
        // A second answer is nobody's.
        tell(&mut bench, slot, Some("A udp:127.0.0.1:22222"));
        assert!(bench.take_sent().is_empty());
    }
}

#[test]
fn a_call_that_is_not_found_is_asked_for_or_new_and_so_is_one_at_a_member_that_is_not_ours() {
    for found in [None, Some(""), Some("B udp:127.0.0.1:9"), Some("nonsense")] {
        for (text, asked) in UNKNOWN.into_iter().zip([1, 3, 3, 3]) {
            let (mut bench, _, slot) = looks_up(text);
            tell(&mut bench, slot, found);
            assert_eq!(bench.take_sent().len(), asked, "{text}, {found:?}");
        }
    }
}

#[test]
fn a_look_up_that_takes_long_is_overtaken_and_its_answer_comes_too_late() {
    for (text, asked) in UNKNOWN.into_iter().zip([1, 3, 3, 3]) {
        let (mut bench, _, slot) = looks_up(text);
        bench.pass(ms(29));
        assert!(bench.take_sent().is_empty());
        bench.pass(ms(2));
        assert_eq!(bench.take_sent().len(), asked, "{text}");
        tell(&mut bench, slot, Some("B udp:127.0.0.1:22222"));
        assert!(bench.take_sent().is_empty());
    }
}

#[test]
fn commands_of_a_call_that_is_looked_up_wait_together_and_go_on_in_their_order() {
    let (mut bench, first, slot) = looks_up("U c1 192.0.2.1 4000 from");
    let second = bench.command("D c1 from");
    assert!(bench.out.look_ups.is_empty(), "it is asked once");
    tell(&mut bench, slot, None);
    let sent = bench.take_sent();
    let [(home, created, _), (same, deleted, delete)] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((home, delete.as_str()), (same, "D c1 from"));
    bench.answer(home, *created, "35000 192.0.2.9");
    bench.answer(home, *deleted, "0");
    assert_eq!(bench.got(first).as_deref(), Some("35000 192.0.2.9"));
    assert_eq!(bench.got(second).as_deref(), Some("0"));
}

#[test]
fn nothing_is_looked_up_while_there_is_nobody_to_ask_nor_for_a_call_that_is_known() {
    let mut bench = Bench::new();
    bench.call("c1");
    bench.core.set_shared(true);
    bench.command("L c1 192.0.2.1 4000 from to");
    bench.core.set_shared(false);
    bench.command("L c2 192.0.2.1 4000 from to");
    assert!(bench.out.look_ups.is_empty());
}
