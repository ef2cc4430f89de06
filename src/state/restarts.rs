//! Stories of a dispatcher that is killed, and of its successor, who has read what it wrote.

use core::time::Duration;
use std::time::Instant;

use super::encode::Moment;
use super::past::Past;
use super::tape::Tape;
use crate::config::model::{self, Name, Protocol};
use crate::dispatch::Dispatch;
use crate::dispatch::key::Key;
use crate::dispatch::losses::STEP;
use crate::dispatch::outbox::{Note, Outbox};
use crate::dispatch::rewrite::Origin;
use crate::dispatch::session::MemberId;
use crate::protocol::cookie::Cookie;
use crate::protocol::reply::SessionCounts;

const ON_LOSS: Duration = Duration::from_secs(30);
/// The wall clock when a story begins.
const BEGUN: Duration = Duration::from_secs(1_700_000_000);

/// One dispatcher after the other with two members, and what they write.
struct Story {
    begun: Instant,
    now: Instant,
    tape: Tape,
    core: Dispatch<u32, ()>,
    ids: [MemberId; 2],
    out: Outbox<u32, ()>,
    sent: Vec<(MemberId, Cookie, String)>,
    told: Vec<String>,
    seed: u64,
}

fn rules() -> model::Cluster {
    let mut rules = crate::config::parse(
        std::path::Path::new("f"),
        b"<rtp_cluster_config><rtp_cluster><name>C1</name><protocol>UNIX</protocol><address>/run/c1.sock</address>\
          <disconnect_notify on_member_loss=\"30s\"><inbound_address>192.0.2.1:12131</inbound_address>\
          <dest_socket_prefix>/run/sip</dest_socket_prefix></disconnect_notify></rtp_cluster></rtp_cluster_config>",
    )
    .unwrap()
    .config
    .clusters;
    rules.remove(0)
}

fn dispatch(now: Instant, seed: u64) -> (Dispatch<u32, ()>, [MemberId; 2]) {
    let mut core = Dispatch::new(now, rules(), seed, Key::from_seed(seed));
    let ids = [1, 2].map(|port| {
        let id = core.next_members(1).unwrap()[0];
        let address = model::Address::Ip(([127, 0, 0, 1], port).into());
        let name = Name::new(&format!("P{port}")).unwrap();
        core.add_member(
            now,
            id,
            model::Member::new(name, Protocol::Udp, address, 1, 99),
            (),
        );
        id
    });
    (core, ids)
}

impl Story {
    fn new() -> Self {
        let now = crate::rim::now();
        let (core, ids) = dispatch(now, 1);
        let mut story = Self {
            begun: now,
            now,
            tape: Tape::new(now),
            core,
            ids,
            out: Outbox::default(),
            sent: Vec::new(),
            told: Vec::new(),
            seed: 1,
        };
        story.keep();
        story.online(0, true);
        story.online(1, true);
        story
    }

    fn wall(&self) -> Duration {
        BEGUN + (self.now - self.begun)
    }

    fn keep(&mut self) {
        let epoch = Moment::from_unix(self.wall().saturating_sub(self.core.age(self.now)));
        let recorder = self.tape.recorders().recorder("C1", epoch, || ());
        self.core.keep_journal(self.now, Box::new(recorder));
    }

    /// `kill -9` some time after all was told, and a start a while later, with no member probed yet.
    fn restart(self) -> Self {
        self.restart_at(|wall| wall)
    }

    /// The same after the wall clock was set.
    fn restart_at(mut self, set: impl Fn(Duration) -> Duration) -> Self {
        self.pass(Duration::from_secs(1));
        self.now += Duration::from_secs(5);
        let wall = set(self.wall());
        let tape = self.tape.again(self.now);
        let seed = self.seed + 1;
        let (mut core, ids) = dispatch(self.now, seed);
        let mut past = Past::new(Moment::from_unix(wall));
        past.add(0, &mut core);
        let tally = tape.read(|record| past.restore(self.now, record, &mut core));
        assert_eq!((tally.damaged, tally.unknown), (0, 0));
        let mut next = Self {
            tape,
            core,
            ids,
            out: Outbox::default(),
            sent: Vec::new(),
            seed,
            ..self
        };
        next.keep();
        next
    }

    fn online(&mut self, member: usize, online: bool) {
        let (id, why) = (self.ids[member], "said so".to_owned());
        self.core.set_online(self.now, id, online, why, &mut self.out);
        for capability in [20_081_224, 20_150_617] {
            self.core.capability(id, capability, true);
        }
        self.collect();
    }

    /// A heartbeat of a member.
    fn counts(&mut self, member: usize, created: u64) {
        let counts = SessionCounts {
            created,
            ..SessionCounts::default()
        };
        let (now, id) = (self.now, self.ids[member]);
        self.core.counted(now, id, now, Some(counts), &mut self.out);
        self.collect();
    }

    fn collect(&mut self) {
        self.out.drain_replies(|_, _, _| ());
        let sent = &mut self.sent;
        self.out.drain_sends(|send, text| {
            let text = String::from_utf8(text[Cookie::LEN + 1..].to_vec()).unwrap();
            sent.push((send.member, send.cookie, text.trim_end().to_owned()));
        });
        self.out.reset();
        let notices = self.out.notices.drain(..);
        self.told
            .extend(notices.map(|notice| format!("{} {}", notice.to, String::from_utf8_lossy(&notice.text))));
    }

    fn command(&mut self, text: &str) {
        self.core
            .command(self.now, text.as_bytes(), Origin::Unix, 1, &mut self.out);
        self.collect();
    }

    /// Whoever was asked since the last look answers; gives which member was sent what.
    fn answered(&mut self, reply: &str) -> Vec<(usize, String)> {
        let sent = core::mem::take(&mut self.sent);
        for (id, cookie, _) in &sent {
            self.core
                .reply(self.now, *id, *cookie, reply.as_bytes(), &mut self.out);
        }
        let place = |id| self.ids.iter().position(|of| *of == id).unwrap();
        let sent = sent.into_iter().map(|(id, _, text)| (place(id), text)).collect();
        self.collect();
        sent
    }

    /// A call with this notify pair or none; its member.
    fn call(&mut self, call_id: &str, notify: &str) -> usize {
        self.command(&format!("U {call_id} 192.0.2.1 4000 from {notify}"));
        self.answered("35000 192.0.2.9")[0].0
    }

    fn home(&self, call_id: &str) -> Option<String> {
        let found = self.core.locate(self.now, call_id.as_bytes())?;
        Some(found.0.to_string())
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            self.tape.turn(self.now);
            let next = self.core.expire(self.now, &mut self.out);
            self.collect();
            match next {
                Some(at) if at <= until => self.now = at.max(self.now + Duration::from_micros(1)),
                _ => break,
            }
        }
        self.now = until;
        self.tape.turn(self.now);
    }
}

#[test]
fn a_delete_for_who_is_away_is_made_up_for_by_whoever_is_there_then() {
    let mut story = Story::new();
    let home = story.call("ends", "");
    story.call("stays", "");
    story.online(home, false);
    story.command("D ends from");
    assert_eq!(story.answered("0"), []);
    // Each tells all anew, so that nothing of the first is left on disk.
    for _ in 0..3 {
        story = story.restart();
    }
    story.online(home, true);
    assert_eq!(story.answered("0"), [(home, "D ends from".to_owned())]);
    story = story.restart();
    story.online(home, true);
    assert_eq!(story.answered("0"), [], "once");
}

#[test]
fn a_delete_that_was_on_its_way_is_sent_again() {
    let mut story = Story::new();
    let home = story.call("ends", "");
    story.online(home, false);
    story.command("D ends from");
    story.online(home, true);
    assert_eq!(story.sent.len(), 1);
    story = story.restart();
    story.online(home, true);
    assert_eq!(story.answered("0"), [(home, "D ends from".to_owned())]);
}

#[test]
fn a_delete_of_all_that_a_member_missed_is_made_up_for_unless_it_has_a_call_anew() {
    for anew in [false, true] {
        let mut story = Story::new();
        story.online(0, false);
        story.command("X");
        assert_eq!(story.answered("0"), [(1, "X".to_owned())]);
        story = story.restart().restart();
        story.online(1, true);
        assert_eq!(story.answered("0"), []);
        if anew {
            // Its answers are lost until it is gone again.
            story.online(0, true);
            story.answered("0");
            story = story.restart();
        }
        story.online(0, true);
        let wanted = [(0, "X".to_owned())];
        assert_eq!(story.answered("0"), wanted[usize::from(anew)..]);
    }
}

#[test]
fn what_a_session_wished_is_told_when_its_member_does_not_come_back() {
    let mut story = Story::new();
    let home = story.call("lost", "/run/sip.1 lost");
    story.call("silent", "");
    for (call_id, tag) in [("ended", "ended"), ("changed", "before")] {
        while story.call(call_id, &format!("/run/sip.1 {tag}")) != home {
            story.command(&format!("D {call_id} from"));
            story.answered("0");
            story.pass(Duration::from_secs(61));
        }
    }
    story.command("U changed 192.0.2.1 4000 from to /run/sip.2 after");
    story.answered("35000 192.0.2.9");
    story.command("D ended from");
    story.answered("0");
    for _ in 0..3 {
        story = story.restart();
    }
    let id = story.ids[home];
    let now = story.now;
    story
        .core
        .set_probed(now, id, "silent".to_owned(), &mut story.out);
    story.pass(ON_LOSS.checked_sub(STEP).unwrap());
    assert_eq!(story.told, [""; 0]);
    story.pass(Duration::from_secs(5));
    story.told.sort_unstable();
    assert_eq!(story.told, ["/run/sip.1 lost", "/run/sip.2 after"]);
    story = story.restart();
    let now = story.now;
    let id = story.ids[home];
    story
        .core
        .set_probed(now, id, "silent".to_owned(), &mut story.out);
    story.pass(2 * ON_LOSS);
    assert_eq!(story.told.len(), 2, "once");
}

#[test]
fn a_member_that_was_restarted_while_nobody_was_there_has_its_calls_no_more() {
    for (created, has_calls) in [(7, true), (8, true), (2, false)] {
        let mut story = Story::new();
        let home = story.call("call", "");
        story.pass(Duration::from_secs(1));
        story.counts(home, 6);
        story.counts(home, 7);
        story = story.restart().restart();
        let name = format!("P{}", home + 1);
        assert_eq!(story.home("call"), Some(name));
        story.online(home, true);
        story.counts(home, created);
        assert_eq!(story.home("call").is_some(), has_calls, "{created}");
        let notes = core::mem::take(&mut story.out.notes);
        let told = notes.iter().any(|note| matches!(note, Note::Restarted { .. }));
        assert_eq!(told, !has_calls);
        // What it has from now on is known to the next one.
        story.pass(Duration::from_secs(1));
        story.call("later", "");
        story = story.restart();
        assert_eq!(story.home("call").is_some(), has_calls);
        assert!(story.home("later").is_some());
    }
}

#[test]
fn a_time_that_cannot_be_costs_nothing_and_lasts_no_longer() {
    let hour = Duration::from_secs(3600);
    for back in [hour, BEGUN] {
        let mut story = Story::new();
        let home = story.call("call", "");
        story.call("ends", "");
        story.online(0, false);
        story.online(1, false);
        story.command("D ends from");
        story.pass(Duration::from_secs(1));
        story.counts(home, 7);
        story = story.restart_at(|wall| wall.saturating_sub(back));
        assert!(story.home("call").is_some());
        story.pass(hour / 2);
        story.online(0, true);
        story.online(1, true);
        assert_eq!(
            story.answered("0"),
            [],
            "after ten minutes there is nothing left to delete"
        );
        story.counts(home, 7);
        assert!(story.home("call").is_some());
    }
}

#[test]
fn a_call_that_goes_on_for_long_is_as_young_as_its_last_command() {
    let mut story = Story::new();
    let home = story.call("talks", "");
    story.call("silent", "");
    let part = rules().sessions.expire / 8;
    for _ in 0..20 {
        story.pass(part);
        story.command("L talks 192.0.2.1 4000 from to");
        assert_eq!(story.answered("35000 192.0.2.9")[0].0, home);
    }
    story = story.restart();
    assert_eq!(story.home("silent"), None);
    assert!(story.home("talks").is_some());
    story.pass(6 * part);
    assert!(story.home("talks").is_some());
}

#[test]
fn who_has_told_all_is_not_woken_for_its_journal() {
    let mut story = Story::new();
    story.pass(Duration::from_secs(1));
    assert_eq!(story.core.next_alarm(), None, "nothing is to be told");
    story.counts(0, 5);
    assert!(story.core.next_alarm().is_some());
    story.pass(Duration::from_secs(1));
    assert_eq!(story.core.next_alarm(), None);
    story = story.restart();
    assert_eq!(
        story.core.next_alarm(),
        Some(story.now + Duration::from_millis(1))
    );
}
