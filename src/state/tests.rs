//! Stories of a session table, a state directory, and a successor.

use core::time::Duration;
use std::fs;
use std::path::PathBuf;

use super::encode::{Moment, Record};
use super::{State, Tally, print};
use crate::config::model::{self, Address, Name, Protocol};
use crate::dispatch::key::Key;
use crate::dispatch::session::{Binding, MemberId, Sessions, Stage, Tick};

const A: MemberId = MemberId {
    index: 0,
    generation: 1,
};
const B: MemberId = MemberId {
    index: 1,
    generation: 2,
};

/// A directory of a test, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rtpc-state-{}-{name}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        Self(path)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<PathBuf> = files
            .filter(|path| path.to_str().unwrap().contains("sessions."))
            .collect();
        segments.sort();
        segments
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn member(port: u16) -> model::Member {
    let address = Address::Ip(([127, 0, 0, 1], port).into());
    model::Member::new(Name::new("RTPPROXY1").unwrap(), Protocol::Udp, address, 100, 1000)
}

fn table() -> Sessions {
    let limits = model::Sessions {
        max: 10_000,
        expire: Duration::from_secs(3600),
    };
    Sessions::new(limits, Key::from_seed(1))
}

fn at(seconds: u64) -> Tick {
    Tick::from_elapsed(Duration::from_secs(seconds))
}

fn bind(sessions: &mut Sessions, now: Tick, call_id: &str, member: MemberId, stage: Stage) {
    let hash = sessions.hash(call_id.as_bytes());
    sessions
        .bind(now, hash, call_id.as_bytes(), member, stage)
        .unwrap();
}

fn find(sessions: &Sessions, call_id: &str) -> Option<(MemberId, Stage)> {
    let binding = sessions.peek(at(100), sessions.hash(call_id.as_bytes()), call_id.as_bytes())?;
    Some((binding.member, binding.stage))
}

/// What a successor knows, started when the wall clock says `epoch`.
fn successor(state: &State, epoch: Moment) -> (Sessions, Tally) {
    let mut sessions = table();
    let known = [(print("C1", &member(1)), A), (print("C1", &member(2)), B)];
    let id = |wanted| {
        known
            .iter()
            .find(|(print, _)| *print == wanted)
            .map(|known| known.1)
    };
    let tick = |moment: Moment| Tick::from_elapsed(moment.since(epoch));
    let tally = state
        .read(|record| match *record {
            Record::Bound(bound) => {
                let Some(member) = id(bound.member) else { return };
                let binding = Binding {
                    member,
                    born: tick(bound.born),
                    used: tick(bound.used),
                    stage: if bound.ended { Stage::Ended } else { Stage::Bound },
                    suffix: 0,
                };
                sessions.restore(at(100), bound.call_id, binding).unwrap();
            }
            Record::Forgotten { call_id, .. } => {
                let hash = sessions.hash(call_id);
                sessions.forget(hash, call_id);
            }
            Record::Cut { member, before } => {
                if let Some(member) = id(member) {
                    sessions.forget_before(member, tick(before));
                }
            }
            Record::Cleared { .. } => sessions.clear(),
            ref other => panic!("{other:?}"),
        })
        .unwrap();
    (sessions, tally)
}

fn open(scratch: &Scratch) -> State {
    State::open(&scratch.0).unwrap()
}

/// Some calls that are made and end, written by a daemon that ends as it should.
fn a_daemons_life(scratch: &Scratch) {
    let state = open(scratch);
    let mut sessions = table();
    sessions.set_journal(Box::new(state.recorders().recorder(
        "C1",
        Moment::default(),
        || (),
    )));
    sessions.name_member(A, &member(1));
    sessions.name_member(B, &member(2));
    let store = state.start().unwrap();
    for call in ["lives", "ends", "moves", "is lost"] {
        bind(&mut sessions, at(1), call, A, Stage::Bound);
    }
    sessions.forget_before(A, at(1));
    bind(&mut sessions, at(2), "ends", A, Stage::Ended);
    bind(&mut sessions, at(3), "moves", B, Stage::Bound);
    let hash = sessions.hash(b"is lost");
    sessions.forget(hash, b"is lost");
    drop(sessions);
    store.stop();
}

#[test]
fn a_successor_knows_where_each_call_is() {
    let scratch = Scratch::new("successor");
    a_daemons_life(&scratch);
    let (sessions, tally) = successor(&open(&scratch), Moment::default());
    assert_eq!(find(&sessions, "lives"), Some((A, Stage::Bound)));
    assert_eq!(find(&sessions, "moves"), Some((B, Stage::Bound)));
    assert_eq!(find(&sessions, "is lost"), None);
    assert_eq!(sessions.bound(A), 1);
    assert_eq!((tally.damaged, tally.unknown), (0, 0));
}

#[test]
fn a_member_at_another_address_is_another_member() {
    let scratch = Scratch::new("address");
    a_daemons_life(&scratch);
    let mut found = 0;
    open(&scratch)
        .read(|record| {
            if let Record::Bound(bound) = record {
                found += usize::from(bound.member == print("C1", &member(3)));
            }
        })
        .unwrap();
    assert_eq!(found, 0);
}

#[test]
fn a_directory_has_one_daemon() {
    let scratch = Scratch::new("lock");
    let first = open(&scratch);
    let error = State::open(&scratch.0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    open(&scratch);
}

#[test]
fn what_was_there_goes_only_when_a_successor_has_told_it_again() {
    let scratch = Scratch::new("pass");
    a_daemons_life(&scratch);
    let old = scratch.segments();
    // One that ends before it came so far.
    let state = open(&scratch);
    let (mut sessions, _) = successor(&state, Moment::default());
    sessions.set_journal(Box::new(state.recorders().recorder(
        "C1",
        Moment::default(),
        || (),
    )));
    let store = state.start().unwrap();
    drop(sessions);
    store.stop();
    assert!(scratch.segments().starts_with(&old));

    let state = open(&scratch);
    let (mut sessions, _) = successor(&state, Moment::default());
    sessions.set_journal(Box::new(state.recorders().recorder(
        "C1",
        Moment::default(),
        || (),
    )));
    sessions.name_member(A, &member(1));
    sessions.name_member(B, &member(2));
    let store = state.start().unwrap();
    while scratch.segments().len() > 1 {
        sessions.tell(at(100), 1, 0, |_, _| 0);
        std::thread::yield_now();
    }
    drop(sessions);
    store.stop();
    let (sessions, _) = successor(&open(&scratch), Moment::default());
    assert_eq!(find(&sessions, "lives"), Some((A, Stage::Bound)));
    assert_eq!(find(&sessions, "moves"), Some((B, Stage::Bound)));
}

#[test]
fn damage_costs_what_it_hits_and_is_counted() {
    let scratch = Scratch::new("damage");
    a_daemons_life(&scratch);
    let segment = scratch.segments().pop().unwrap();
    let bytes = fs::read(&segment).unwrap();
    let good = successor(&open(&scratch), Moment::default()).1;
    // The first record is that of the call that lives.
    let mut flipped = bytes.clone();
    flipped[30] ^= 1;
    fs::write(&segment, &flipped).unwrap();
    let (sessions, tally) = successor(&open(&scratch), Moment::default());
    assert_eq!(find(&sessions, "lives"), None);
    assert_eq!(find(&sessions, "moves"), Some((B, Stage::Bound)));
    assert_eq!((tally.records, tally.damaged), (good.records - 1, 1));
    // Garbage of whatever length before and after, an empty file, and one of another program.
    let garbage = vec![0xfe; 3 << 20];
    fs::write(&segment, [&garbage, &*bytes, &garbage].concat()).unwrap();
    fs::write(scratch.0.join("sessions.0000000000"), b"").unwrap();
    fs::write(scratch.0.join("sessions.0000000007"), b"#!/bin/sh\n").unwrap();
    let (sessions, tally) = successor(&open(&scratch), Moment::default());
    assert_eq!(find(&sessions, "lives"), Some((A, Stage::Bound)));
    assert_eq!(tally.records, good.records);
    assert!(tally.damaged > 0);
}

#[test]
fn what_a_full_queue_has_no_room_for_is_told_again_later() {
    let scratch = Scratch::new("full-queue");
    let state = open(&scratch);
    let mut sessions = table();
    sessions.set_journal(Box::new(state.recorders().recorder(
        "C1",
        Moment::default(),
        || (),
    )));
    sessions.name_member(A, &member(1));
    // Nobody reads yet: most of it is dropped, and nobody waits.
    for call in 0..2 * super::QUEUE {
        bind(&mut sessions, at(1), &format!("call {call:04}"), A, Stage::Bound);
        sessions.tell(at(1), 1, 0, |_, _| 0);
    }
    let store = state.start().unwrap();
    let is_there = |call: usize| {
        let call_id = format!("call {call:04}");
        scratch.segments().iter().any(|segment| {
            let bytes = fs::read(segment).unwrap_or_default();
            bytes
                .windows(call_id.len())
                .any(|bytes| bytes == call_id.as_bytes())
        })
    };
    for call in 0..2 * super::QUEUE {
        while !is_there(call) {
            sessions.tell(at(1), 100, 0, |_, _| 0);
            std::thread::yield_now();
        }
    }
    drop(sessions);
    store.stop();
    let (sessions, _) = successor(&open(&scratch), Moment::default());
    assert_eq!(sessions.bound(A), 2 * super::QUEUE as u64);
}

/// The corpus of the fuzz target, whose files a fuzzer found or a version wrote, each to be read for ever.
#[test]
fn the_corpus_is_read() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/state");
    for (name, records, unknown, is_damaged) in [
        ("version-1", 10, 0, false),
        ("newer", 10, 1, false),
        ("truncated", 9, 0, true),
        ("overwritten", 8, 0, true),
        ("zeros", 10, 0, true),
    ] {
        let scratch = Scratch::new(name);
        let state = open(&scratch);
        fs::copy(corpus.join(name), scratch.0.join("sessions.0000000001")).unwrap();
        let tally = state.read(|_| ()).unwrap();
        let expected = (records, unknown, is_damaged);
        assert_eq!(
            (tally.records, tally.unknown, tally.damaged > 0),
            expected,
            "{name}"
        );
    }
}
