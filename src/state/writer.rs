//! When what is written: segments are begun, told whole, and those before them removed; what goes wrong is tried again.
//! The files are behind [`Disk`], time comes in as a value.
//!
//! A *pass* is one telling of all that is: each recorder goes through its cluster, a part at a time, between
//! commands. A segment is whole when the pass that was asked for with it is over; then those before it say nothing
//! more. A new one is begun at the start, when the newest has grown to twice what was live or is an hour old, and where
//! something is missing: what could not be written, or what a full queue had no room for.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::encode::{HEADER, Print};
use super::message::{Batch, Message};

/// What is written may be lost with the machine for so long.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// A disk that has failed is tried again after this time: whole again 5 s after there is room.
const RETRY: Duration = Duration::from_secs(1);
/// A journal shorter than this is not worth a new one.
const COMPACT_MIN: u64 = 1 << 20;
/// So often all is told anew whatever the size: when a call's last command came is written with it, and not before.
const REFRESH: Duration = Duration::from_secs(3600);
/// What may repeat with every write is told so often at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Files, real or not.
pub(super) trait Disk {
    /// The number of the newest segment; 0 when there is none.
    fn newest(&self) -> io::Result<u64>;
    /// Begins a segment, or begins it anew; what is appended goes there.
    fn begin(&mut self, number: u64) -> io::Result<()>;
    /// Puts bytes at its end. An error may leave a part of them there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Has what was appended reach the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Replaces what operators have changed, wholly or not at all.
    fn keep(&mut self, changes: Option<&[u8]>) -> io::Result<()>;
    /// Removes older segments.
    fn remove_before(&mut self, number: u64) -> io::Result<()>;
}

/// What recorders and the writer know of each other beside what they send.
#[derive(Default)]
pub(super) struct Shared {
    /// The pass that is asked for; recorders begin it when they see that it is not theirs.
    pub(super) wanted: AtomicU64,
    /// Something was not sent.
    pub(super) gap: AtomicBool,
    /// Recorders that a pass has to wait for.
    pub(super) recorders: Mutex<BTreeMap<Print, Wake>>,
}

/// Wakes who has a recorder.
pub(super) type Wake = Box<dyn Fn() + Send + Sync>;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Something for the log.
#[derive(Debug)]
pub(super) enum News {
    /// State is not kept for now.
    Failed(io::Error),
    /// It is again.
    Whole,
}

/// The one who writes.
#[derive(Debug)]
pub(super) struct Writer<D> {
    disk: D,
    /// The newest segment.
    segment: u64,
    size: u64,
    /// Size of the newest segment when it was whole; nothing while it is not.
    live: Option<u64>,
    passed: BTreeSet<Print>,
    /// When the segment was begun, or that was tried.
    begun: Instant,
    synced: Instant,
    unsynced: bool,
    broken: bool,
    /// What operators have changed and the disk did not take, and when it is tried again.
    unkept: Option<(Instant, Option<Vec<u8>>)>,
    told: Option<Instant>,
    news: Vec<News>,
}

impl<D: Disk> Writer<D> {
    /// Begins a segment behind those that are there, and asks for a pass.
    pub(super) fn new(now: Instant, disk: D, shared: &Shared) -> Self {
        let mut writer = Self {
            disk,
            segment: 0,
            size: 0,
            live: None,
            passed: BTreeSet::new(),
            begun: now,
            synced: now,
            unsynced: false,
            broken: false,
            unkept: None,
            told: None,
            news: Vec::new(),
        };
        match writer.disk.newest() {
            Ok(newest) => writer.segment = newest,
            Err(error) => writer.fail(now, error),
        }
        writer.begin(now, shared);
        writer
    }

    /// Does what it is told; says whether nothing more will come.
    pub(super) fn take(&mut self, now: Instant, message: Message, shared: &Shared) -> bool {
        match message {
            Message::Write(batch) => self.write(now, &batch, shared),
            Message::Keep { bytes, done } => {
                self.keep(now, bytes);
                drop(done);
            }
            Message::Look => {}
            Message::Stop => {
                self.finish(now);
                return true;
            }
        }
        false
    }

    /// What it writes to.
    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    /// What it has written to.
    pub(super) fn into_disk(self) -> D {
        self.disk
    }

    /// Takes records.
    pub(super) fn write(&mut self, now: Instant, batch: &Batch, shared: &Shared) {
        if self.broken {
            return;
        }
        if let Err(error) = self.disk.append(&batch.bytes) {
            self.fail(now, error);
            return;
        }
        self.size += batch.bytes.len() as u64;
        self.unsynced |= !batch.bytes.is_empty();
        if batch.passed == Some(shared.wanted.load(Ordering::Acquire)) {
            self.passed.insert(batch.recorder);
        }
    }

    /// Keeps what operators have changed; where that fails, it is tried again.
    pub(super) fn keep(&mut self, now: Instant, changes: Option<Vec<u8>>) {
        self.unkept = None;
        if let Err(error) = self.disk.keep(changes.as_deref()) {
            self.unkept = Some((now + RETRY, changes));
            self.tell(now, error);
        }
    }

    /// When something is due though nobody hands anything over.
    pub(super) fn due(&self, shared: &Shared) -> Option<Instant> {
        let unkept = self.unkept.as_ref().map(|(at, _)| *at);
        if self.broken || shared.gap.load(Ordering::Acquire) {
            return [Some(self.begun + RETRY), unkept].into_iter().flatten().min();
        }
        let sync = self.unsynced.then_some(self.synced + SYNC_EVERY);
        let refresh = self.live.map(|_| self.begun + REFRESH);
        [unkept, sync, refresh].into_iter().flatten().min()
    }

    /// Does what is due. To be called after each message, and when [`Self::due`] says.
    pub(super) fn turn(&mut self, now: Instant, shared: &Shared) {
        if let Some((_, changes)) = self.unkept.take_if(|(at, _)| *at <= now) {
            self.keep(now, changes);
        }
        if self.broken || shared.gap.load(Ordering::Acquire) {
            if now >= self.begun + RETRY {
                self.begin(now, shared);
            }
            return;
        }
        if self.unsynced && now >= self.synced + SYNC_EVERY {
            self.sync(now);
        }
        if self.broken {
            return;
        }
        match self.live {
            None if is_told(&shared.recorders.lock(), &self.passed) => self.complete(now),
            Some(live) if self.size > COMPACT_MIN.max(2 * live) || now >= self.begun + REFRESH => {
                self.begin(now, shared);
            }
            _ => {}
        }
    }

    /// Nothing more will come: what there is reaches the disk.
    pub(super) fn finish(&mut self, now: Instant) {
        if !self.broken {
            self.sync(now);
        }
    }

    /// What is to be told since the last call.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        core::mem::take(&mut self.news)
    }

    fn sync(&mut self, now: Instant) {
        self.synced = now;
        match self.disk.sync() {
            Ok(()) => self.unsynced = false,
            Err(error) => self.fail(now, error),
        }
    }

    /// Begins a segment. One that is not whole yet is begun anew: a full disk gets no fuller.
    fn begin(&mut self, now: Instant, shared: &Shared) {
        self.begun = now;
        let number = match self.live {
            None if self.size > 0 => self.segment,
            _ => self.segment + 1,
        };
        // What is missing from here on is missing in the new one.
        shared.gap.store(false, Ordering::Release);
        self.passed.clear();
        if let Err(error) = self.disk.begin(number) {
            self.fail(now, error);
            return;
        }
        self.broken = false;
        self.segment = number;
        self.size = HEADER as u64;
        self.live = None;
        self.unsynced = false;
        shared.wanted.fetch_add(1, Ordering::AcqRel);
        shared.recorders.lock().values().for_each(|wake| wake());
    }

    /// All is told: what the older segments say is said here.
    fn complete(&mut self, now: Instant) {
        self.sync(now);
        if self.broken {
            return;
        }
        // One that stays is read again before this one, and removed with the next.
        if let Err(error) = self.disk.remove_before(self.segment) {
            self.tell(now, error);
        }
        self.live = Some(self.size);
        if self.told.take().is_some() {
            self.news.push(News::Whole);
        }
    }

    fn fail(&mut self, now: Instant, error: io::Error) {
        self.broken = true;
        self.begun = now;
        self.tell(now, error);
    }

    fn tell(&mut self, now: Instant, error: io::Error) {
        if self.told.is_none_or(|told| now >= told + TELL_EVERY) {
            self.told = Some(now);
            self.news.push(News::Failed(error));
        }
    }
}

/// Where nobody is there to tell anything, what a predecessor wrote stays.
fn is_told(recorders: &BTreeMap<Print, Wake>, passed: &BTreeSet<Print>) -> bool {
    !recorders.is_empty() && recorders.keys().all(|recorder| passed.contains(recorder))
}

#[cfg(test)]
mod tests {
    use super::*;

    const C7: Print = Print(7);

    /// A disk of so many bytes.
    #[derive(Debug)]
    struct Small {
        room: usize,
        files: BTreeMap<u64, Vec<u8>>,
        synced: usize,
        changes: Option<Vec<u8>>,
    }

    impl Small {
        fn used(&self) -> usize {
            self.files.values().map(Vec::len).sum()
        }
    }

    impl Disk for Small {
        fn newest(&self) -> io::Result<u64> {
            Ok(self.files.keys().last().copied().unwrap_or_default())
        }

        fn begin(&mut self, number: u64) -> io::Result<()> {
            self.files.insert(number, Vec::new());
            Ok(())
        }

        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            if self.used() + bytes.len() > self.room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.files
                .last_entry()
                .unwrap()
                .get_mut()
                .extend_from_slice(bytes);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            self.synced += 1;
            Ok(())
        }

        fn keep(&mut self, changes: Option<&[u8]>) -> io::Result<()> {
            if changes.is_some_and(|changes| self.used() + changes.len() > self.room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.changes = changes.map(<[u8]>::to_vec);
            Ok(())
        }

        fn remove_before(&mut self, number: u64) -> io::Result<()> {
            self.files.retain(|old, _| *old >= number);
            Ok(())
        }
    }

    /// A cluster that binds and tells, and who writes for it.
    struct Scene {
        now: Instant,
        shared: Shared,
        writer: Writer<Small>,
    }

    impl Scene {
        fn new(room: usize) -> Self {
            let shared = Shared::default();
            shared.recorders.lock().insert(C7, Box::new(|| ()));
            let now = crate::rim::now();
            let disk = Small {
                room,
                files: [(3, b"old".to_vec())].into(),
                synced: 0,
                changes: None,
            };
            let writer = Writer::new(now, disk, &shared);
            Self { now, shared, writer }
        }

        fn write(&mut self, bytes: &[u8], passed: bool) {
            let wanted = self.shared.wanted.load(Ordering::Acquire);
            let batch = Batch {
                recorder: C7,
                bytes: bytes.to_vec(),
                passed: passed.then_some(wanted),
            };
            self.writer.write(self.now, &batch, &self.shared);
        }

        fn second(&mut self) {
            self.now += Duration::from_secs(1);
            self.writer.turn(self.now, &self.shared);
        }

        fn files(&self) -> Vec<(u64, &[u8])> {
            let files = self.writer.disk.files.iter();
            files.map(|(number, bytes)| (*number, &**bytes)).collect()
        }

        fn wanted(&self) -> u64 {
            self.shared.wanted.load(Ordering::Acquire)
        }
    }

    #[test]
    fn what_was_there_stays_until_all_is_told_anew() {
        let mut scene = Scene::new(1000);
        assert_eq!(scene.wanted(), 1);
        scene.write(b"bind", false);
        scene.second();
        assert_eq!(scene.files(), [(3, &b"old"[..]), (4, b"bind")]);
        scene.write(b"tell", true);
        scene.second();
        assert_eq!(scene.files(), [(4, &b"bindtell"[..])]);
        assert_eq!(scene.wanted(), 1, "nothing else is due");
    }

    #[test]
    fn a_pass_that_was_overtaken_by_another_does_not_count() {
        let mut scene = Scene::new(1000);
        scene.shared.gap.store(true, Ordering::Release);
        scene.second();
        assert_eq!(scene.wanted(), 2);
        let late = Batch {
            recorder: C7,
            bytes: b"late".to_vec(),
            passed: Some(1),
        };
        scene.writer.write(scene.now, &late, &scene.shared);
        scene.second();
        assert_eq!(scene.files().len(), 2);
    }

    #[test]
    fn all_clusters_are_waited_for_but_not_one_that_has_left() {
        let mut scene = Scene::new(1000);
        scene.shared.recorders.lock().insert(Print(8), Box::new(|| ()));
        scene.write(b"tell", true);
        scene.second();
        assert_eq!(scene.files().len(), 2);
        scene.shared.recorders.lock().remove(&Print(8));
        scene.second();
        assert_eq!(scene.files(), [(4, &b"tell"[..])]);
    }

    #[test]
    fn a_full_disk_is_told_once_a_minute_and_is_whole_when_there_is_room() {
        let mut scene = Scene::new(10);
        scene.write(b"a long record", true);
        let mut told = 0;
        for _ in 0..119 {
            scene.second();
            scene.write(b"a long record", true);
            told += scene.writer.take_news().len();
        }
        assert_eq!(told, 2);
        let files: Vec<u64> = scene.files().iter().map(|file| file.0).collect();
        assert_eq!(files, [3, 4], "nothing is lost, and nothing piles up");
        let wanted = scene.wanted();
        scene.writer.disk.room = 1000;
        scene.second();
        assert!(scene.wanted() > wanted, "all must be told");
        scene.write(b"a long record", true);
        scene.second();
        assert_eq!(scene.files(), [(4, &b"a long record"[..])]);
        assert!(matches!(*scene.writer.take_news(), [.., News::Whole]));
    }

    #[test]
    fn a_gap_has_all_told_again() {
        let mut scene = Scene::new(1000);
        scene.write(b"tell", true);
        scene.second();
        scene.shared.gap.store(true, Ordering::Release);
        scene.second();
        assert_eq!(scene.wanted(), 2);
        scene.write(b"again", true);
        scene.second();
        assert_eq!(scene.files(), [(5, &b"again"[..])]);
    }

    #[test]
    fn a_journal_that_has_grown_to_twice_what_lives_is_begun_anew() {
        let mut scene = Scene::new(usize::MAX);
        scene.write(&vec![1; 1 << 20], true);
        scene.second();
        scene.write(&vec![1; (1 << 20) - 100], false);
        scene.second();
        assert_eq!(scene.wanted(), 1);
        scene.write(&[1; 200], false);
        scene.second();
        assert_eq!(scene.wanted(), 2);
        scene.write(b"half", true);
        scene.second();
        assert_eq!(scene.files(), [(5, &b"half"[..])]);
    }

    #[test]
    fn after_an_hour_the_age_of_every_call_is_written_anew() {
        let mut scene = Scene::new(1000);
        scene.write(b"tell", true);
        scene.second();
        scene.now += REFRESH * 9 / 10;
        scene.writer.turn(scene.now, &scene.shared);
        assert_eq!(scene.wanted(), 1);
        scene.now += REFRESH / 10;
        scene.writer.turn(scene.now, &scene.shared);
        assert_eq!(scene.wanted(), 2);
    }

    #[test]
    fn a_change_that_the_disk_did_not_take_is_kept_when_there_is_room() {
        let mut scene = Scene::new(20);
        scene.writer.keep(scene.now, Some(b"first".to_vec()));
        scene.writer.disk.room = 3;
        scene.writer.keep(scene.now, Some(b"second".to_vec()));
        assert!(matches!(*scene.writer.take_news(), [News::Failed(_)]));
        assert_eq!(scene.writer.disk.changes.as_deref(), Some(&b"first"[..]));
        scene.writer.disk.room = 20;
        scene.second();
        assert_eq!(scene.writer.disk.changes.as_deref(), Some(&b"second"[..]));
    }

    #[test]
    fn what_is_written_reaches_the_disk_within_a_second() {
        let mut scene = Scene::new(1000);
        scene.write(b"bind", false);
        scene.second();
        assert_eq!(scene.writer.disk.synced, 1);
        scene.second();
        assert_eq!(scene.writer.disk.synced, 1, "there is nothing new");
    }
}
