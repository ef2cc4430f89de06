//! What happens to bindings, told to who writes it down for a successor, and what a successor makes of it. Pure: what
//! is done with it is the other's business.

use core::fmt;

use super::shard::SLICES;
use super::{Binding, Full, MemberId, SHARDS, Sessions, Stage, Tick};
use crate::config::model;
use crate::dispatch::rewrite::Addressee;

/// Parts in which all bindings are told, of a pass. Each is small enough to be told between two commands.
pub const PARTS: usize = SHARDS * SLICES;

/// Who writes down what happens. It waits for nothing and refuses nothing.
pub trait Journal: fmt::Debug + Send {
    /// A member is there from now on, or is another RTPproxy from now on.
    fn named(&mut self, member: MemberId, config: &model::Member);
    /// A call is there, or has ended there.
    fn bound(&mut self, call_id: &[u8], binding: &Binding);
    /// A call is nowhere.
    fn forgotten(&mut self, call_id: &[u8]);
    /// What a member had before `cut` is not there any more.
    fn cut(&mut self, member: MemberId, cut: Tick);
    /// A member is gone by `now`, and all that it had.
    fn left(&mut self, member: MemberId, now: Tick);
    /// No call is anywhere.
    fn cleared(&mut self);
    /// What a session's last U wishes to be told when its member is lost, and whom; or nothing any more.
    fn wished(&mut self, session: Session<'_>, wish: Option<(&Addressee, &[u8])>);
    /// Nobody wishes to be told of this session any more, nor of its streams: it has been deleted, or told of.
    fn unwished(&mut self, session: Session<'_>);
    /// A delete waits for its member; there is nothing left to delete when it `expires`.
    fn deferred(&mut self, member: MemberId, expires: Tick, text: &[u8]);
    /// A delete waits no longer; without a text, none of the member's does.
    fn settled(&mut self, member: MemberId, text: Option<&[u8]>);
    /// A member has had so many sessions since its start, as it said `at` that time first.
    fn counted(&mut self, member: MemberId, created: u64, at: Tick);
    /// The next part of so many `parts` that it wants to be told of, if any. To be asked for more says that this one is
    /// told.
    fn next_part(&mut self, parts: usize) -> Option<usize>;
    /// What it waits for.
    fn wants(&self) -> Wants;
    /// What has been told is handed over.
    fn turn(&mut self);
}

/// A session of a call, as a command names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// The call.
    pub call_id: &'a [u8],
    /// From-tag of the command.
    pub from: &'a [u8],
    /// Its to-tag.
    pub to: Option<&'a [u8]>,
}

/// What a journal waits for, the most urgent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// For something to happen.
    Nothing,
    /// For its turn: something has happened.
    Turn,
    /// For the next part of all that is there.
    Part,
}

/// Those who write down what happens: for a successor, and for other dispatchers.
#[derive(Debug, Default)]
pub(super) struct Both {
    kept: Option<Box<dyn Journal>>,
    shared: Option<Box<dyn Journal>>,
}

impl Both {
    fn each(&mut self) -> impl Iterator<Item = &mut Box<dyn Journal>> {
        self.kept.iter_mut().chain(&mut self.shared)
    }
}

impl Journal for Both {
    fn named(&mut self, member: MemberId, config: &model::Member) {
        self.each().for_each(|journal| journal.named(member, config));
    }
    fn bound(&mut self, call_id: &[u8], binding: &Binding) {
        self.each().for_each(|journal| journal.bound(call_id, binding));
    }
    fn forgotten(&mut self, call_id: &[u8]) {
        self.each().for_each(|journal| journal.forgotten(call_id));
    }
    fn cut(&mut self, member: MemberId, cut: Tick) {
        self.each().for_each(|journal| journal.cut(member, cut));
    }
    fn left(&mut self, member: MemberId, now: Tick) {
        self.each().for_each(|journal| journal.left(member, now));
    }
    fn cleared(&mut self) {
        self.each().for_each(|journal| journal.cleared());
    }
    fn wished(&mut self, session: Session<'_>, wish: Option<(&Addressee, &[u8])>) {
        self.each().for_each(|journal| journal.wished(session, wish));
    }
    fn unwished(&mut self, session: Session<'_>) {
        self.each().for_each(|journal| journal.unwished(session));
    }
    fn deferred(&mut self, member: MemberId, expires: Tick, text: &[u8]) {
        self.each()
            .for_each(|journal| journal.deferred(member, expires, text));
    }
    fn settled(&mut self, member: MemberId, text: Option<&[u8]>) {
        self.each().for_each(|journal| journal.settled(member, text));
    }
    fn counted(&mut self, member: MemberId, created: u64, at: Tick) {
        self.each()
            .for_each(|journal| journal.counted(member, created, at));
    }
    /// One after the other; what one of them wants does the other no harm.
    fn next_part(&mut self, parts: usize) -> Option<usize> {
        self.each().find_map(|journal| journal.next_part(parts))
    }
    fn wants(&self) -> Wants {
        let wants = self
            .kept
            .iter()
            .chain(&self.shared)
            .map(|journal| journal.wants());
        wants.max().unwrap_or(Wants::Nothing)
    }
    fn turn(&mut self) {
        self.each().for_each(|journal| journal.turn());
    }
}

impl Sessions {
    /// Has what happens from now on written down, and all that is there, part by part in [`Sessions::tell`].
    pub fn set_journal(&mut self, journal: Box<dyn Journal>) {
        self.journal.get_or_insert_default().kept = Some(journal);
    }

    /// Has what happens told to other dispatchers as well, or not any more.
    pub fn share(&mut self, journal: Option<Box<dyn Journal>>) {
        self.journal.get_or_insert_default().shared = journal;
    }

    /// A member is there from now on, or is another RTPproxy from now on: what it is called in the journal.
    pub fn name_member(&mut self, id: MemberId, config: &model::Member) {
        if let Some(journal) = &mut self.journal {
            journal.named(id, config);
        }
    }

    /// A call is where a predecessor had it; times as they were then. One that has aged out meanwhile takes no room.
    ///
    /// # Errors
    /// [`Full`] when the table is: then nothing has changed.
    pub fn restore(&mut self, now: Tick, call_id: &[u8], binding: Binding) -> Result<(), Full> {
        let hash = self.hash(call_id);
        // The last record counts, whatever an earlier one said.
        self.forget(hash, call_id);
        if super::expired(now, &binding, self.limits.expire) {
            return Ok(());
        }
        self.bind(binding.born, hash, call_id, binding.member, binding.stage)?;
        let shard = self.shards.get_mut(super::shard_of(hash));
        if let Some(Ok(place)) = shard.map(|shard| shard.find(hash, call_id, |_| true)) {
            place.used = binding.used.min(now);
        }
        Ok(())
    }

    /// Nothing is written down any more.
    pub fn close_journal(&mut self) {
        self.journal = None;
    }

    /// Who writes down what happens, if somebody does.
    pub fn journal(&mut self) -> Option<&mut (dyn Journal + 'static)> {
        let journal = self.journal.as_mut();
        journal.map(|journal| journal as &mut (dyn Journal + 'static))
    }

    /// What the journal waits for.
    pub fn journal_wants(&self) -> Wants {
        self.journal.as_ref().map_or(Wants::Nothing, Journal::wants)
    }

    /// Tells the journal of what is there, where it wants that: whole parts, until there were `min` things to tell or
    /// more. Behind the bindings, with their wishes, come as many parts as there are `others`, which `tell_other` tells.
    pub fn tell(
        &mut self,
        now: Tick,
        min: usize,
        others: usize,
        mut tell_other: impl FnMut(usize, &mut dyn Journal) -> usize,
    ) {
        let Self {
            shards,
            ledger,
            limits,
            wishes,
            journal: Some(journal),
            ..
        } = self
        else {
            return;
        };
        let mut told = 0;
        while told < min
            && let Some(part) = journal.next_part(PARTS + others)
        {
            if let Some(other) = part.checked_sub(PARTS) {
                told += tell_other(other, journal);
                continue;
            }
            let shard = shards.get(part / SLICES);
            for (hash, call_id, binding) in shard.into_iter().flat_map(|shard| shard.slice(part % SLICES)) {
                if binding.stage == Stage::Tentative
                    || !ledger.honours(binding)
                    || super::expired(now, binding, limits.expire)
                {
                    continue;
                }
                journal.bound(call_id, binding);
                told += 1;
                for (from, to, text) in wishes.of(hash) {
                    let session = Session {
                        call_id,
                        from,
                        to: None,
                    };
                    journal.wished(session, Some((to, text)));
                    told += 1;
                }
            }
        }
        journal.turn();
    }

    /// A binding was made. A member that was only chosen says nothing about the call yet.
    pub(super) fn write_down(&mut self, call_id: &[u8], binding: &Binding) {
        if let Some(journal) = &mut self.journal
            && binding.stage != Stage::Tentative
        {
            journal.bound(call_id, binding);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::collections::BTreeMap;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::dispatch::key::Key;

    #[derive(Debug, PartialEq)]
    enum Told {
        Bound(Vec<u8>, Binding),
        Forgotten(Vec<u8>),
        Cut(MemberId, Tick),
        Left(MemberId),
        Cleared,
    }

    /// Tells a test what it is told, and wants one pass.
    #[derive(Debug)]
    struct Teller(Sender<Told>, usize);

    impl Journal for Teller {
        fn named(&mut self, _member: MemberId, _config: &model::Member) {}
        fn bound(&mut self, call_id: &[u8], binding: &Binding) {
            self.0.send(Told::Bound(call_id.to_vec(), *binding)).unwrap();
        }
        fn forgotten(&mut self, call_id: &[u8]) {
            self.0.send(Told::Forgotten(call_id.to_vec())).unwrap();
        }
        fn cut(&mut self, member: MemberId, cut: Tick) {
            self.0.send(Told::Cut(member, cut)).unwrap();
        }
        fn left(&mut self, member: MemberId, _now: Tick) {
            self.0.send(Told::Left(member)).unwrap();
        }
        fn cleared(&mut self) {
            self.0.send(Told::Cleared).unwrap();
        }
        fn wished(&mut self, _session: Session<'_>, _wish: Option<(&Addressee, &[u8])>) {}
        fn unwished(&mut self, _session: Session<'_>) {}
        fn deferred(&mut self, _member: MemberId, _expires: Tick, _text: &[u8]) {}
        fn settled(&mut self, _member: MemberId, _text: Option<&[u8]>) {}
        fn counted(&mut self, _member: MemberId, _created: u64, _at: Tick) {}
        fn next_part(&mut self, parts: usize) -> Option<usize> {
            self.1 += 1;
            Some(self.1 - 1).filter(|part| *part < parts)
        }
        fn wants(&self) -> Wants {
            Wants::Part
        }
        fn turn(&mut self) {}
    }

    const A: MemberId = MemberId {
        index: 0,
        generation: 1,
    };

    fn table() -> (Sessions, Receiver<Told>) {
        let limits = model::Sessions {
            max: 10_000,
            expire: Duration::from_secs(3600),
        };
        let mut sessions = Sessions::new(limits, Key::from_seed(1));
        let (tell, told) = channel();
        sessions.set_journal(Box::new(Teller(tell, 0)));
        (sessions, told)
    }

    fn at(seconds: u64) -> Tick {
        Tick::from_elapsed(Duration::from_secs(seconds))
    }

    fn bind(sessions: &mut Sessions, now: Tick, call_id: &str, stage: Stage) {
        let hash = sessions.hash(call_id.as_bytes());
        sessions.bind(now, hash, call_id.as_bytes(), A, stage).unwrap();
    }

    #[test]
    fn what_happens_to_a_call_is_told_once_it_is_certain() {
        let (mut sessions, told) = table();
        bind(&mut sessions, at(1), "call", Stage::Tentative);
        assert!(told.try_recv().is_err());
        for stage in [Stage::Bound, Stage::Ended] {
            bind(&mut sessions, at(2), "call", stage);
            let Ok(Told::Bound(call_id, binding)) = told.try_recv() else {
                panic!("{stage:?} is told");
            };
            assert_eq!(
                (&*call_id, binding.stage, binding.used),
                (&b"call"[..], stage, at(2))
            );
        }
        let hash = sessions.hash(b"call");
        sessions.forget(hash, b"call");
        sessions.forget_before(A, at(1));
        sessions.forget_member(at(2), A);
        sessions.clear();
        let rest: Vec<Told> = told.try_iter().collect();
        assert_eq!(
            rest,
            [
                Told::Forgotten(b"call".to_vec()),
                Told::Cut(A, at(1)),
                Told::Left(A),
                Told::Cleared
            ]
        );
    }

    #[test]
    fn a_pass_tells_every_call_that_is_there_all_the_time() {
        let (mut sessions, told) = table();
        for call in 0..3_000 {
            bind(&mut sessions, at(10), &format!("call {call}"), Stage::Bound);
        }
        bind(&mut sessions, at(10), "maybe", Stage::Tentative);
        assert_eq!(told.try_iter().count(), 3_000);
        let mut passed: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for turn in 0..400 {
            sessions.tell(at(20), 10, 0, |_, _| 0);
            for told in told.try_iter() {
                if let Told::Bound(call_id, _) = told {
                    *passed.entry(call_id).or_default() += 1;
                }
            }
            // The table grows and shrinks meanwhile.
            bind(&mut sessions, at(20), &format!("new {turn}"), Stage::Tentative);
            let gone = sessions.hash(format!("new {}", turn / 2).as_bytes());
            sessions.forget(gone, format!("new {}", turn / 2).as_bytes());
        }
        assert_eq!(passed.len(), 3_000);
        assert!(passed.values().all(|times| *times == 1));
    }

    #[test]
    fn a_call_comes_back_as_it_was_and_the_last_record_counts() {
        let (mut sessions, _told) = table();
        let bound = Binding {
            member: A,
            born: at(5),
            used: at(50),
            stage: Stage::Bound,
            suffix: 0,
        };
        let ended = Binding {
            stage: Stage::Ended,
            used: at(70),
            ..bound
        };
        sessions.restore(at(100), b"call", bound).unwrap();
        sessions.restore(at(100), b"other", bound).unwrap();
        sessions.restore(at(100), b"call", ended).unwrap();
        let see = |sessions: &Sessions, call_id: &[u8]| {
            sessions.peek(at(100), sessions.hash(call_id), call_id).copied()
        };
        assert_eq!(see(&sessions, b"other"), Some(bound));
        assert_eq!(see(&sessions, b"call"), Some(ended));
        assert_eq!(sessions.bound(A), 1);
    }
}
