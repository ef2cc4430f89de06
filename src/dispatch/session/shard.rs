//! One part of the session table: bindings by call-id. Pure: it knows neither members nor time.
//!
//! The call-ids stand one behind the other in one block of text and not each in a block of its own: that takes
//! less memory, and when a million calls end the allocator has no million small blocks to put together, which
//! takes it tens of milliseconds at a moment of its choosing. What is forgotten leaves a gap; a block that is full
//! is written anew without the gaps and with some room to spare.

use hashbrown::HashTable;

use super::Binding;

/// A table or a text with no more places or bytes than this is never made smaller.
const KEEP: usize = 256;

/// Slices of a shard. At a million calls each has 250.
pub(super) const SLICES: usize = 16;

/// Bindings by call-id.
#[derive(Debug, Default)]
pub(super) struct Shard {
    table: HashTable<Entry>,
    text: Vec<u8>,
    /// Bytes of `text` that are no gaps.
    used: usize,
}

/// One call. The hash is kept because growing would otherwise read each call-id again.
#[derive(Debug)]
struct Entry {
    hash: u64,
    binding: Binding,
    /// Where its call-id begins in the text.
    start: u32,
    length: u16,
}

impl Entry {
    fn call_id<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let range = usize::try_from(self.start)
            .ok()
            .map(|start| start..start.saturating_add(usize::from(self.length)));
        range.and_then(|range| text.get(range)).unwrap_or_default()
    }
}

impl Shard {
    /// The binding of a call, if `good` says so. One that is not good is removed, and given as the error.
    pub(super) fn find(
        &mut self,
        hash: u64,
        call_id: &[u8],
        good: impl FnOnce(&Binding) -> bool,
    ) -> Result<&mut Binding, Option<Binding>> {
        let text = &self.text;
        let same = |entry: &Entry| entry.hash == hash && entry.call_id(text) == call_id;
        let place = self.table.find_entry(hash, same).map_err(|_| None)?;
        if good(&place.get().binding) {
            return Ok(&mut place.into_mut().binding);
        }
        let (entry, _) = place.remove();
        self.used -= usize::from(entry.length);
        Err(Some(entry.binding))
    }

    /// The binding of a call, whether it is good or not.
    pub(super) fn peek(&self, hash: u64, call_id: &[u8]) -> Option<&Binding> {
        let same = |entry: &Entry| entry.hash == hash && entry.call_id(&self.text) == call_id;
        Some(&self.table.find(hash, same)?.binding)
    }

    /// The call of that hash and its binding, whether it is good or not.
    pub(super) fn by_hash(&self, hash: u64) -> Option<(&[u8], &Binding)> {
        let entry = self.table.find(hash, |entry| entry.hash == hash)?;
        Some((entry.call_id(&self.text), &entry.binding))
    }

    /// Removes the call of that hash, if `bad` says so, and gives its binding.
    pub(super) fn remove_if(&mut self, hash: u64, bad: impl FnOnce(&Binding) -> bool) -> Option<Binding> {
        let place = self.table.find_entry(hash, |entry| entry.hash == hash).ok()?;
        if !bad(&place.get().binding) {
            return None;
        }
        let (entry, _) = place.remove();
        self.used -= usize::from(entry.length);
        Some(entry.binding)
    }

    /// Takes a call in that it does not have. Says no to a call-id of more than 65,535 bytes, and when the text
    /// would pass 4 GiB.
    #[must_use]
    pub(super) fn insert(&mut self, hash: u64, call_id: &[u8], binding: Binding) -> bool {
        if self.text.capacity() - self.text.len() < call_id.len() {
            self.rewrite(call_id.len());
        }
        let (Ok(start), Ok(length)) = (u32::try_from(self.text.len()), u16::try_from(call_id.len())) else {
            return false;
        };
        self.text.extend_from_slice(call_id);
        self.used += call_id.len();
        self.table.insert_unique(
            hash,
            Entry {
                hash,
                binding,
                start,
                length,
            },
            |entry| entry.hash,
        );
        true
    }

    /// Removes the bindings that are not `good`, and gives memory back when most of it is not needed any more.
    pub(super) fn retain(&mut self, mut good: impl FnMut(&Binding) -> bool) {
        let used = &mut self.used;
        self.table.retain(|entry| {
            let good = good(&entry.binding);
            if !good {
                *used -= usize::from(entry.length);
            }
            good
        });
        // Down to twice what is needed at four times as much: what grows and shrinks by turns does not move each time.
        if self.table.capacity() > KEEP && self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to(self.table.len() * 2, |entry| entry.hash);
        }
        if self.text.capacity() > KEEP && self.used < self.text.capacity() / 2 {
            self.rewrite(0);
        }
    }

    /// All bindings, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Binding)> {
        self.table
            .iter()
            .map(|entry| (entry.call_id(&self.text), &entry.binding))
    }

    /// Those bindings, with their hash, whose hash is one of a slice of [`SLICES`]: all slices together have all that stay meanwhile,
    /// however the table grows and moves in between.
    pub(super) fn slice(&self, slice: usize) -> impl Iterator<Item = (u64, &[u8], &Binding)> {
        let entries = self
            .table
            .iter()
            .filter(move |entry| slice_of(entry.hash) == slice);
        entries.map(|entry| (entry.hash, entry.call_id(&self.text), &entry.binding))
    }

    /// How many bindings it has.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes that it has from the allocator.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.table.allocation_size() + self.text.capacity()
    }

    /// Writes the text anew, without gaps, with room for `more` bytes and then for a fifth of all.
    fn rewrite(&mut self, more: usize) {
        let needed = self.used.saturating_add(more);
        let mut text = Vec::with_capacity(needed.saturating_add(needed / 4));
        for entry in &mut self.table {
            // The old text was no longer, and its starts are 32 bits.
            let start = u32::try_from(text.len()).unwrap_or(entry.start);
            text.extend_from_slice(entry.call_id(&self.text));
            entry.start = start;
        }
        self.text = text;
    }
}

fn slice_of(hash: u64) -> usize {
    usize::from((hash >> 32).to_le_bytes()[0]) % SLICES
}

#[cfg(test)]
mod tests {
    use super::super::{MemberId, Stage, Tick};
    use super::*;

    fn binding(index: u16) -> Binding {
        let now = Tick::default();
        Binding {
            member: MemberId { index, generation: 0 },
            born: now,
            used: now,
            stage: Stage::Bound,
            suffix: 0,
        }
    }

    fn get(shard: &mut Shard, hash: u64, call_id: &[u8]) -> Option<u16> {
        shard
            .find(hash, call_id, |_| true)
            .ok()
            .map(|binding| binding.member.index)
    }

    #[test]
    fn calls_of_one_hash_are_told_apart() {
        let mut shard = Shard::default();
        for (index, call_id) in [(0, &b""[..]), (1, b"a"), (2, b"ab"), (3, b"b")] {
            assert!(shard.insert(7, call_id, binding(index)));
        }
        assert_eq!(get(&mut shard, 7, b""), Some(0));
        assert_eq!(get(&mut shard, 7, b"a"), Some(1));
        assert_eq!(get(&mut shard, 7, b"ab"), Some(2));
        assert_eq!(get(&mut shard, 7, b"b"), Some(3));
        assert_eq!(get(&mut shard, 7, b"ba"), None);
        assert_eq!(get(&mut shard, 8, b"a"), None);
    }

    #[test]
    fn what_is_not_good_is_removed() {
        let mut shard = Shard::default();
        assert!(shard.insert(7, b"a", binding(1)));
        assert_eq!(shard.find(7, b"a", |_| false), Err(Some(binding(1))));
        assert_eq!(shard.find(7, b"a", |_| false), Err(None));
        assert_eq!(shard.len(), 0);
    }

    #[test]
    fn the_text_stays_right_and_small_however_often_calls_come_and_go() {
        let mut shard = Shard::default();
        for round in 0..2_000_u64 {
            let call_id = |round: u64| {
                format!(
                    "{:0width$}",
                    round,
                    width = 4 + usize::try_from(round % 60).unwrap()
                )
            };
            let live = 100;
            assert!(shard.insert(
                round,
                call_id(round).as_bytes(),
                binding(u16::try_from(round).unwrap())
            ));
            if let Some(old) = round.checked_sub(live) {
                assert!(shard.find(old, call_id(old).as_bytes(), |_| false).is_err());
            }
            for kept in (round.saturating_sub(live - 1)..=round).step_by(7) {
                assert_eq!(
                    get(&mut shard, kept, call_id(kept).as_bytes()),
                    u16::try_from(kept).ok()
                );
            }
            // 34 bytes on average.
            assert!(
                shard.text.capacity() <= 64 + 101 * 64 * 5 / 4,
                "{}",
                shard.text.capacity()
            );
        }
        assert_eq!(
            shard.used,
            shard.iter().map(|(call_id, _)| call_id.len()).sum::<usize>()
        );
    }

    #[test]
    fn memory_is_given_back() {
        let hash = |n: u64| n << 32 | n;
        let mut shard = Shard::default();
        for n in 0..10_000_u64 {
            assert!(shard.insert(
                hash(n),
                format!("{n:040}").as_bytes(),
                binding(u16::try_from(n % 10).unwrap())
            ));
        }
        let peak = shard.memory();
        shard.retain(|binding| binding.member.index == 3);
        assert!(shard.memory() < peak / 3, "{} of {peak}", shard.memory());
        assert_eq!(shard.len(), 1_000);
        assert_eq!(
            get(&mut shard, hash(13), format!("{:040}", 13).as_bytes()),
            Some(3)
        );
        shard.retain(|_| false);
        assert!(shard.memory() < 100, "{}", shard.memory());
    }

    #[test]
    fn a_call_id_that_is_too_long_is_not_taken() {
        let mut shard = Shard::default();
        assert!(!shard.insert(1, &vec![b'x'; 65_536], binding(1)));
        assert!(shard.insert(1, &vec![b'x'; 65_535], binding(1)));
        assert_eq!(get(&mut shard, 1, &vec![b'x'; 65_535]), Some(1));
        assert_eq!(shard.len(), 1);
    }
}
