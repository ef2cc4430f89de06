//! Which sessions of which calls asked to be told of when their media stop, whom, and how: what a member that is
//! lost for good would have said. Kept only where that is wanted. Pure.
//!
//! A call may have several sessions, one for each of its streams, told apart by the tag of the side that made them.
//! As at an RTPproxy the last U of a session decides, whichever side it came from; one without a notify pair takes
//! the wish back. A call is known here by the hash of its call-id alone: the hash is keyed and has 64 bits.

use hashbrown::HashTable;

use super::{SHARDS, shard_of};
use crate::dispatch::rewrite::{Addressee, Notice};

/// Sessions of one call at most.
const PER_CALL: usize = 32;
/// Bytes of a session's tag and of its notification together, at most. A SIP server's are some 100 bytes long.
const LENGTH_MAX: usize = 1024;
/// Sockets of SIP servers at most; each is kept once.
const TARGETS_MAX: usize = 256;

/// There is no room for one more, or it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

#[derive(Debug)]
struct Wish {
    /// Place of its target.
    to: u16,
    /// Length of the session's tag, which comes first in the text; the notification follows.
    tag: u16,
    text: Box<[u8]>,
}

impl Wish {
    fn tag(&self) -> &[u8] {
        self.text.get(..usize::from(self.tag)).unwrap_or_default()
    }

    fn notification(&self) -> &[u8] {
        self.text.get(usize::from(self.tag)..).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Call {
    hash: u64,
    /// Made for exactly as many as there are: most calls have one.
    wishes: Box<[Wish]>,
}

/// A socket, and how many wishes are for it.
#[derive(Debug)]
struct Target {
    to: Addressee,
    uses: usize,
}

/// All wishes of a cluster.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// In the shards of the session table, once there is one.
    shards: Vec<HashTable<Call>>,
    targets: Vec<Target>,
    stored: usize,
}

impl Wishes {
    /// Sessions that have a wish.
    pub(super) fn len(&self) -> usize {
        self.stored
    }

    /// A session's last U: what it wishes now, or nothing any more; gives whether that is another thing than before, for
    /// who wished nothing before. `max` bounds all sessions with a wish.
    pub(super) fn set(
        &mut self,
        hash: u64,
        from_tag: &[u8],
        to_tag: Option<&[u8]>,
        notice: Option<&Notice>,
        max: usize,
    ) -> Result<bool, NoRoom> {
        let before = self.remove(hash, |tag| tag == from_tag || Some(tag) == to_tag);
        let Some(notice) = notice else {
            return Ok(before.is_some());
        };
        // The side that made the session stays its name.
        let tag = before.unwrap_or_else(|| from_tag.into());
        let length = tag.len() + notice.text.len();
        if self.stored >= max || length > LENGTH_MAX {
            return Err(NoRoom);
        }
        let to = self.target(&notice.to).ok_or(NoRoom)?;
        let tag_length = u16::try_from(tag.len()).map_err(|_| NoRoom)?;
        let text = [&*tag, &*notice.text].concat().into();
        let wish = Wish {
            to,
            tag: tag_length,
            text,
        };
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, HashTable::new);
        }
        let shard = self.shards.get_mut(shard_of(hash)).ok_or(NoRoom)?;
        match shard.find_mut(hash, |call| call.hash == hash) {
            Some(call) if call.wishes.len() >= PER_CALL => return Err(NoRoom),
            Some(call) => {
                let wishes = core::mem::take(&mut call.wishes).into_iter();
                call.wishes = wishes.chain([wish]).collect();
            }
            None => {
                let wishes = [wish].into();
                shard.insert_unique(hash, Call { hash, wishes }, |call| call.hash);
            }
        }
        self.stored += 1;
        if let Some(target) = self.targets.get_mut(usize::from(to)) {
            target.uses += 1;
        }
        Ok(true)
    }

    /// The wishes of a call: tag of the session, who is to be told, and what.
    pub(super) fn of(&self, hash: u64) -> impl Iterator<Item = (&[u8], &Addressee, &[u8])> {
        let call = self
            .shards
            .get(shard_of(hash))
            .and_then(|shard| shard.find(hash, |call| call.hash == hash));
        let wishes = call.into_iter().flat_map(|call| call.wishes.iter());
        wishes.filter_map(|wish| {
            let target = self.targets.get(usize::from(wish.to))?;
            Some((wish.tag(), &target.to, wish.notification()))
        })
    }

    /// Sessions of a call have been deleted: those of the tag, and of its streams where it names none. Says whether one
    /// of them had a wish.
    pub(super) fn delete(&mut self, hash: u64, from_tag: &[u8], to_tag: Option<&[u8]>) -> bool {
        let matches = |session: &[u8], tag: &[u8]| {
            let rest = session.strip_prefix(tag);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b";"))
        };
        self.remove(hash, |session| {
            matches(session, from_tag) || to_tag.is_some_and(|tag| matches(session, tag))
        })
        .is_some()
    }

    /// Takes the wishes of calls of one shard for which `lost` says yes, of whole calls, until there are `max` or more,
    /// and tells each with its call and the tag of its session; gives whether that was all.
    pub(super) fn take(
        &mut self,
        shard: usize,
        max: usize,
        mut lost: impl FnMut(u64) -> bool,
        mut tell: impl FnMut(u64, &[u8], Notice),
    ) -> bool {
        let Self {
            shards,
            targets,
            stored,
        } = self;
        let Some(table) = shards.get_mut(shard) else {
            return true;
        };
        let mut taken = 0;
        let mut all = true;
        table.retain(|call| {
            if !lost(call.hash) {
                return true;
            }
            if taken >= max {
                all = false;
                return true;
            }
            taken += call.wishes.len();
            for wish in &call.wishes {
                *stored -= 1;
                if let Some(target) = targets.get_mut(usize::from(wish.to)) {
                    target.uses -= 1;
                    let notice = Notice {
                        to: target.to.clone(),
                        text: wish.notification().into(),
                    };
                    tell(call.hash, wish.tag(), notice);
                }
            }
            false
        });
        all
    }

    /// Forgets the calls of a shard that are not `bound` any more, and gives memory back.
    pub(super) fn sweep(&mut self, shard: usize, mut bound: impl FnMut(u64) -> bool) {
        self.take(shard, usize::MAX, |hash| !bound(hash), |_, _, _| ());
        if let Some(table) = self.shards.get_mut(shard)
            && table.len() < table.capacity() / 4
        {
            table.shrink_to(table.len() * 2, |call| call.hash);
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes the wishes of a call whose tag `goes`; gives one of the tags.
    fn remove(&mut self, hash: u64, goes: impl Fn(&[u8]) -> bool) -> Option<Box<[u8]>> {
        let shard = self.shards.get_mut(shard_of(hash))?;
        let mut place = shard.find_entry(hash, |call| call.hash == hash).ok()?;
        let call = place.get_mut();
        let tag = call.wishes.iter().map(Wish::tag).find(|tag| goes(tag))?.into();
        let wishes = core::mem::take(&mut call.wishes).into_iter();
        let (gone, kept): (Vec<Wish>, Vec<Wish>) = wishes.partition(|wish| goes(wish.tag()));
        call.wishes = kept.into();
        if call.wishes.is_empty() {
            place.remove();
        }
        self.stored -= gone.len();
        for wish in gone {
            if let Some(target) = self.targets.get_mut(usize::from(wish.to)) {
                target.uses -= 1;
            }
        }
        Some(tag)
    }

    /// The place of a target, one that is there, or one that nobody uses any more, or a new one.
    fn target(&mut self, to: &Addressee) -> Option<u16> {
        let known = self.targets.iter().position(|target| target.to == *to);
        let place = known.or_else(|| self.targets.iter().position(|target| target.uses == 0));
        let target = || Target {
            to: to.clone(),
            uses: 0,
        };
        let place = match place {
            Some(place) => {
                if known.is_none() {
                    *self.targets.get_mut(place)? = target();
                }
                place
            }
            None if self.targets.len() < TARGETS_MAX => {
                self.targets.push(target());
                self.targets.len() - 1
            }
            None => return None,
        };
        u16::try_from(place).ok()
    }

    /// Bytes that it has from the allocator, but for what the allocator adds.
    #[cfg(test)]
    fn memory(&self) -> usize {
        let calls = self.shards.iter().flatten();
        let texts = calls
            .flat_map(|call| call.wishes.iter())
            .map(|wish| wish.text.len() + size_of::<Wish>());
        let tables = self.shards.iter().map(HashTable::allocation_size);
        tables.chain(texts).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(path: &str, text: &str) -> Notice {
        Notice {
            to: Addressee::Path(path.into()),
            text: text.as_bytes().into(),
        }
    }

    /// What is told of a call when all is lost.
    fn told(wishes: &mut Wishes, hash: u64) -> Vec<String> {
        let mut texts = Vec::new();
        let tell = |_, _: &[u8], notice: Notice| {
            texts.push(format!("{} {}", notice.to, String::from_utf8_lossy(&notice.text)));
        };
        assert!(wishes.take(shard_of(hash), usize::MAX, |other| other == hash, tell));
        texts.sort_unstable();
        texts
    }

    fn set(wishes: &mut Wishes, hash: u64, from: &str, to: Option<&str>, wish: Option<&str>) {
        let notice = wish.map(|text| notice("/s", text));
        wishes
            .set(
                hash,
                from.as_bytes(),
                to.map(str::as_bytes),
                notice.as_ref(),
                100_000,
            )
            .unwrap();
    }

    #[test]
    fn the_last_u_of_a_session_decides_from_whichever_side() {
        let mut wishes = Wishes::default();
        set(&mut wishes, 1, "a", None, Some("first"));
        set(&mut wishes, 1, "a", Some("b"), Some("second"));
        set(&mut wishes, 1, "b", Some("a"), Some("third"));
        set(&mut wishes, 2, "a", None, Some("other"));
        assert_eq!(wishes.len(), 2);
        assert_eq!(told(&mut wishes, 1), ["/s third"]);
        assert_eq!(told(&mut wishes, 1), Vec::<String>::new(), "once");
        set(&mut wishes, 2, "a", None, None);
        assert_eq!(told(&mut wishes, 2), Vec::<String>::new());
        assert_eq!(wishes.len(), 0);
    }

    #[test]
    fn streams_are_sessions_of_their_own_and_go_together_or_alone() {
        let streams = |wishes: &mut Wishes| {
            for stream in ["a;1", "a;2", "ab;1"] {
                set(wishes, 1, stream, None, Some(stream));
            }
        };
        let mut wishes = Wishes::default();
        streams(&mut wishes);
        wishes.delete(1, b"a;2", None);
        assert_eq!(told(&mut wishes, 1), ["/s a;1", "/s ab;1"]);
        streams(&mut wishes);
        wishes.delete(1, b"b", Some(b"a"));
        assert_eq!(told(&mut wishes, 1), ["/s ab;1"]);
        streams(&mut wishes);
        wishes.delete(1, b"c", None);
        wishes.delete(2, b"a", None);
        assert_eq!(told(&mut wishes, 1).len(), 3);
    }

    #[test]
    fn there_is_a_bound_for_everything() {
        let mut wishes = Wishes::default();
        let mut try_set =
            |hash: u64, tag: &str, notice: &Notice| wishes.set(hash, tag.as_bytes(), None, Some(notice), 400);
        let tag = |n: usize| format!("a;{n}");
        for n in 0..PER_CALL {
            try_set(1, &tag(n), &notice("/s", "x")).unwrap();
        }
        assert_eq!(try_set(1, "one more", &notice("/s", "x")), Err(NoRoom));
        try_set(1, &tag(0), &notice("/s", "again")).unwrap();
        assert_eq!(
            try_set(2, "a", &notice("/s", &"x".repeat(LENGTH_MAX))),
            Err(NoRoom)
        );
        for n in 1..TARGETS_MAX {
            try_set(3 + n as u64, "a", &notice(&format!("/s{n}"), "x")).unwrap();
        }
        assert_eq!(try_set(2, "a", &notice("/one-more", "x")), Err(NoRoom));
        for n in wishes.len()..400 {
            set(&mut wishes, 1_000 + n as u64, "a", None, Some("x"));
        }
        assert_eq!(
            wishes.set(2, b"a", None, Some(&notice("/s", "x")), 400),
            Err(NoRoom)
        );
        // What nobody uses any more makes room.
        assert_eq!(told(&mut wishes, 4), ["/s1 x"]);
        wishes
            .set(2, b"a", None, Some(&notice("/one-more", "x")), 400)
            .unwrap();
        assert_eq!(told(&mut wishes, 2), ["/one-more x"]);
    }

    #[test]
    fn a_few_are_taken_at_a_time() {
        let mut wishes = Wishes::default();
        // All of one shard.
        for hash in 0..25 {
            set(&mut wishes, hash, "a", None, Some("x"));
        }
        let mut rounds = 0;
        let mut told = 0;
        while !wishes.take(shard_of(0), 10, |hash| hash % 2 == 0, |_, _, _| told += 1) {
            rounds += 1;
        }
        assert_eq!((rounds, told, wishes.len()), (1, 13, 12));
        wishes.sweep(shard_of(0), |hash| hash == 1);
        assert_eq!(wishes.len(), 1);
    }

    #[test]
    fn a_wish_costs_little_more_than_its_text_and_gives_it_back() {
        let mut wishes = Wishes::default();
        assert_eq!(wishes.memory(), 0);
        let hash = |n: u64| n << 40 | n;
        for n in 0..50_000 {
            let text = format!("{n:030}");
            set(&mut wishes, hash(n), &format!("{n:020}"), None, Some(&text));
        }
        let each = wishes.memory() / 50_000;
        assert!(each <= 160, "{each} bytes, 50 of them text");
        for shard in 0..SHARDS {
            wishes.sweep(shard, |_| false);
        }
        assert_eq!(wishes.len(), 0);
        assert!(wishes.memory() < 50_000, "{}", wishes.memory());
    }
}
