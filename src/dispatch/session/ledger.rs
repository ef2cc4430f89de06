//! The members of a session table: whose bindings are still good, and how many there are of each. Pure. That a
//! member leaves or has been restarted is written down here once; its bindings are not looked for.

use super::{Binding, MemberId, Stage, Tick};

/// What is known of a member: which bindings to it are good, and how many of those there are.
#[derive(Debug, Clone, Copy)]
struct Standing {
    generation: u16,
    /// Bindings made before this tick are forgotten; all of them, when the member has left.
    cut: Tick,
    /// Bindings that are neither ended nor dropped yet.
    bound: u64,
}

impl Standing {
    fn has_left(&self) -> bool {
        self.cut == Tick::NEVER
    }
}

/// The members of a table, by place.
#[derive(Debug, Default)]
pub(super) struct Ledger(Vec<Option<Standing>>);

impl Ledger {
    fn get(&self, id: MemberId) -> Option<&Standing> {
        self.0
            .get(usize::from(id.index))?
            .as_ref()
            .filter(|standing| standing.generation == id.generation)
    }

    fn get_mut(&mut self, id: MemberId) -> Option<&mut Standing> {
        self.0
            .get_mut(usize::from(id.index))?
            .as_mut()
            .filter(|standing| standing.generation == id.generation)
    }

    /// Takes note of a member that is met for the first time. It gets a place that is free or whose member has
    /// left; nobody who is there is pushed out by an id of old.
    fn meet(&mut self, id: MemberId) {
        let index = usize::from(id.index);
        if index >= self.0.len() {
            self.0.resize(index.saturating_add(1), None);
        }
        if let Some(place) = self.0.get_mut(index)
            && place.is_none_or(|before| before.has_left() && before.generation != id.generation)
        {
            *place = Some(Standing {
                generation: id.generation,
                cut: Tick::default(),
                bound: 0,
            });
        }
    }

    /// Whether the member still has what was bound then.
    pub(super) fn honours(&self, binding: &Binding) -> bool {
        self.get(binding.member)
            .is_some_and(|standing| binding.born >= standing.cut)
    }

    /// A binding was made, or is what it is now.
    pub(super) fn add(&mut self, binding: &Binding) {
        self.meet(binding.member);
        if binding.stage != Stage::Ended
            && let Some(standing) = self.get_mut(binding.member)
            && !standing.has_left()
        {
            standing.bound += 1;
        }
    }

    /// A binding was dropped, or is not what it was.
    pub(super) fn remove(&mut self, binding: &Binding) {
        if binding.stage != Stage::Ended
            && let Some(standing) = self.get_mut(binding.member)
            && !standing.has_left()
        {
            standing.bound -= 1;
        }
    }

    /// Forgets what was bound to a member before `cut`.
    pub(super) fn cut(&mut self, id: MemberId, cut: Tick) {
        if let Some(standing) = self.get_mut(id) {
            standing.cut = standing.cut.max(cut);
        }
    }

    /// Forgets a member that leaves.
    pub(super) fn leave(&mut self, id: MemberId) {
        if let Some(standing) = self.get_mut(id) {
            standing.cut = Tick::NEVER;
            standing.bound = 0;
        }
    }

    /// All bindings were dropped.
    pub(super) fn clear(&mut self) {
        for standing in self.0.iter_mut().flatten() {
            standing.bound = 0;
        }
    }

    /// Bindings to a member that count.
    pub(super) fn bound(&self, id: MemberId) -> u64 {
        self.get(id).map_or(0, |standing| standing.bound)
    }

    /// Bindings to any member that count.
    pub(super) fn bound_in_all(&self) -> u64 {
        self.0.iter().flatten().map(|standing| standing.bound).sum()
    }
}
