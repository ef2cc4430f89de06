//! Which member gets a new session. Pure: the members' figures, the call-id and the generator come in, a place
//! in the slice comes out. Nothing is allocated; a cluster of 1,000 members is walked a few times at most.
//!
//! What all policies share is here: a policy is shown only those members that may take the session, have room,
//! and are of the first tier that has any such member.
//!
//! 1. members with a weight and room: by policy;
//! 2. standby members (weight 0) with room: by policy, as if each had the weight 1;
//! 3. nobody has room: with a soft limit the least overloaded of those with a weight, then of the standbys; with
//!    a hard limit nobody.
//!
//! Figures come from members and may be absurd; each is brought into its range here, so that no policy divides
//! by zero or meets a weight that is infinite or no number.

mod hash;
mod least_loaded;
mod weighted;

use super::random::Rng;
use crate::config::model::{CapacityLimit, Policy};

/// The least share of a member in its slow start: 0 would be a standby.
const SHARE_MIN: f64 = 0.001;

/// What a policy may know of a member. The figures may change while a choice is made.
pub trait Candidate {
    /// Its name, unique in its cluster; what `hash` goes by.
    fn name(&self) -> &str;
    /// Its weight; 0 is standby.
    fn weight(&self) -> u16;
    /// How many sessions it should carry at most; 0 is taken for 1.
    fn capacity(&self) -> u32;
    /// Its newest count of sessions and what has been bound to it since.
    fn sessions(&self) -> u64;
    /// The part of its weight that it gets in its slow start, above 0 to 1; 1 is the whole.
    fn share(&self) -> f64;
}

/// The outcome of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The member at this place of the slice.
    Member(usize),
    /// None of the members is eligible, whatever its load.
    NoneEligible,
    /// Each eligible member is at its capacity, and the limit is hard.
    AllFull,
}

/// Chooses among those `members` for which `eligible` (online, ACTIVE, not tried yet) says yes; it is asked more
/// than once about each.
pub fn choose<C: Candidate>(
    policy: Policy,
    limit: CapacityLimit,
    members: &[C],
    eligible: impl Fn(usize, &C) -> bool,
    call_id: &[u8],
    rng: &mut Rng,
) -> Choice {
    let tier = |standby: bool| {
        let in_tier = move |member: &C| (member.weight() == 0) == standby;
        members
            .iter()
            .enumerate()
            .filter(move |(_, member)| in_tier(member))
            .filter(|(at, member)| eligible(*at, member))
    };
    for standby in [false, true] {
        let with_room = tier(standby).filter(|(_, member)| room(*member) > 0);
        let chosen = match policy {
            Policy::Weighted => weighted::pick(with_room, rng),
            Policy::LeastLoaded => least_loaded::pick(with_room, rng),
            Policy::Hash => hash::pick(with_room, call_id),
        };
        if let Some(at) = chosen {
            return Choice::Member(at);
        }
    }
    let overloaded =
        least_loaded::lowest(tier(false), load, rng).or_else(|| least_loaded::lowest(tier(true), load, rng));
    match (overloaded, limit) {
        (None, _) => Choice::NoneEligible,
        (Some(at), CapacityLimit::Soft) => Choice::Member(at),
        (Some(_), CapacityLimit::Hard) => Choice::AllFull,
    }
}

/// The places of all `members` in the order in which the policy `hash` would take them for a call: those with a weight,
/// then the standbys.
pub fn ranked<C: Candidate>(members: &[C], call_id: &[u8]) -> Vec<usize> {
    let rank = |(at, member): (usize, &C)| {
        let score = hash::score(member.name(), weight(member), call_id);
        (member.weight() == 0, score, at)
    };
    let mut ranks: Vec<(bool, f64, usize)> = members.iter().enumerate().map(rank).collect();
    let name = |at: usize| members.get(at).map(Candidate::name);
    ranks.sort_unstable_by(|(a_standby, a_score, a), (b_standby, b_score, b)| {
        let scores = a_score.total_cmp(b_score);
        a_standby
            .cmp(b_standby)
            .then(scores)
            .then_with(|| name(*a).cmp(&name(*b)))
    });
    ranks.into_iter().map(|(_, _, at)| at).collect()
}

/// Its weight, 1 for a standby: standbys are compared only with one another.
fn weight(member: &impl Candidate) -> f64 {
    f64::from(member.weight().max(1))
}

/// Its capacity, at least 1.
fn capacity(member: &impl Candidate) -> u32 {
    member.capacity().max(1)
}

/// Its sessions, as far as they can be told apart from a great many.
fn sessions(member: &impl Candidate) -> u32 {
    u32::try_from(member.sessions()).unwrap_or(u32::MAX)
}

/// How many more sessions it may take.
fn room(member: &impl Candidate) -> u32 {
    capacity(member).saturating_sub(sessions(member))
}

/// Sessions over capacity: finite, from 0; above 1 where it is overloaded.
fn load(member: &impl Candidate) -> f64 {
    f64::from(sessions(member)) / f64::from(capacity(member))
}

/// The part of its weight that counts, from [`SHARE_MIN`] to 1; what is no number counts as the least.
fn share(member: &impl Candidate) -> f64 {
    let share = member.share();
    if share.is_nan() {
        SHARE_MIN
    } else {
        share.clamp(SHARE_MIN, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member of a test: all fields as the trait has them.
    #[derive(Debug, Clone)]
    pub(super) struct Fake {
        pub(super) name: String,
        pub(super) weight: u16,
        pub(super) capacity: u32,
        pub(super) sessions: u64,
        pub(super) share: f64,
    }

    impl Candidate for Fake {
        fn name(&self) -> &str {
            &self.name
        }
        fn weight(&self) -> u16 {
            self.weight
        }
        fn capacity(&self) -> u32 {
            self.capacity
        }
        fn sessions(&self) -> u64 {
            self.sessions
        }
        fn share(&self) -> f64 {
            self.share
        }
    }

    /// Members with these weights, capacities and sessions, named `m0`, `m1`, …
    pub(super) fn members(figures: &[(u16, u32, u64)]) -> Vec<Fake> {
        let fake = |(at, &(weight, capacity, sessions)): (usize, &(u16, u32, u64))| Fake {
            name: format!("m{at}"),
            weight,
            capacity,
            sessions,
            share: 1.0,
        };
        figures.iter().enumerate().map(fake).collect()
    }

    /// How often each member is chosen in `n` choices that change no figure.
    pub(super) fn tally(policy: Policy, members: &[Fake], n: u32, seed: u64) -> Vec<u32> {
        let mut rng = Rng::from_seed(seed);
        let mut chosen = vec![0; members.len()];
        for call in 0..n {
            let call_id = format!("{call}@test");
            match choose(
                policy,
                CapacityLimit::Hard,
                members,
                |_, _| true,
                call_id.as_bytes(),
                &mut rng,
            ) {
                Choice::Member(at) => chosen[at] += 1,
                other => panic!("{other:?}"),
            }
        }
        chosen
    }

    /// Whether `seen` is what `parts` let expect: Pearson's chi-square against its 0.1 % point.
    pub(super) fn assert_parts(seen: &[u32], parts: &[f64]) {
        const CRITICAL: [f64; 9] = [
            10.828, 13.816, 16.266, 18.467, 20.515, 22.458, 24.322, 26.124, 27.877,
        ];
        let n = f64::from(seen.iter().sum::<u32>());
        let whole: f64 = parts.iter().sum();
        let term = |(&seen, &part): (&u32, &f64)| {
            let expected = n * part / whole;
            (f64::from(seen) - expected).powi(2) / expected
        };
        let chi_square: f64 = seen.iter().zip(parts).map(term).sum();
        let critical = CRITICAL[seen.len() - 2];
        assert!(
            chi_square < critical,
            "{seen:?} against {parts:?}: chi-square {chi_square}, at most {critical}"
        );
    }

    const ALL: [Policy; 3] = [Policy::Weighted, Policy::LeastLoaded, Policy::Hash];

    fn once(policy: Policy, limit: CapacityLimit, members: &[Fake], eligible: &[usize]) -> Choice {
        let mut rng = Rng::from_seed(1);
        choose(
            policy,
            limit,
            members,
            |at, _| eligible.contains(&at),
            b"call",
            &mut rng,
        )
    }

    #[test]
    fn only_eligible_members_are_chosen() {
        let members = members(&[(1, 10, 0), (9, 10, 0), (0, 10, 0)]);
        for policy in ALL {
            assert_eq!(
                once(policy, CapacityLimit::Soft, &members, &[0]),
                Choice::Member(0)
            );
            assert_eq!(
                once(policy, CapacityLimit::Soft, &members, &[]),
                Choice::NoneEligible
            );
            assert_eq!(
                once(policy, CapacityLimit::Hard, &members, &[]),
                Choice::NoneEligible
            );
            assert_eq!(once(policy, CapacityLimit::Hard, &[], &[]), Choice::NoneEligible);
        }
    }

    #[test]
    fn a_standby_serves_only_when_no_weighted_member_can() {
        let mut members = members(&[(1, 10, 9), (0, 10, 0)]);
        for policy in ALL {
            assert_eq!(tally(policy, &members, 100, 3), [100, 0]);
            assert_eq!(
                once(policy, CapacityLimit::Soft, &members, &[1]),
                Choice::Member(1)
            );
        }
        members[0].sessions = 10;
        for policy in ALL {
            for limit in [CapacityLimit::Soft, CapacityLimit::Hard] {
                assert_eq!(once(policy, limit, &members, &[0, 1]), Choice::Member(1));
            }
        }
    }

    #[test]
    fn with_nobody_free_soft_takes_the_least_overloaded_weighted_member() {
        let members = members(&[(100, 10, 20), (1, 10, 15), (0, 10, 10), (0, 10, 11)]);
        for policy in ALL {
            assert_eq!(
                once(policy, CapacityLimit::Soft, &members, &[0, 1, 2, 3]),
                Choice::Member(1)
            );
            assert_eq!(
                once(policy, CapacityLimit::Soft, &members, &[0, 2, 3]),
                Choice::Member(0)
            );
            assert_eq!(
                once(policy, CapacityLimit::Soft, &members, &[2, 3]),
                Choice::Member(2)
            );
        }
    }

    #[test]
    fn with_nobody_free_hard_refuses() {
        let members = members(&[(100, 10, 20), (0, 10, 10)]);
        for policy in ALL {
            assert_eq!(
                once(policy, CapacityLimit::Hard, &members, &[0, 1]),
                Choice::AllFull
            );
            assert_eq!(once(policy, CapacityLimit::Hard, &members, &[1]), Choice::AllFull);
        }
    }

    #[test]
    fn overload_is_shared_among_equals() {
        let members = members(&[(1, 100, 150), (1, 100, 150), (1, 100, 151)]);
        let mut rng = Rng::from_seed(5);
        let mut seen = [0_u32; 3];
        for _ in 0..2_000 {
            match choose(
                Policy::Hash,
                CapacityLimit::Soft,
                &members,
                |_, _| true,
                b"x",
                &mut rng,
            ) {
                Choice::Member(at) => seen[at] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen[2], 0);
        assert_parts(&seen[..2], &[1.0, 1.0]);
    }

    #[test]
    fn absurd_figures_choose_somebody_all_the_same() {
        let shares = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e300];
        let mut members = members(&[
            (65535, 0, u64::MAX),
            (0, 0, 0),
            (1, u32::MAX, u64::MAX),
            (1, 1, 0),
            (7, 0, 0),
        ]);
        let mut rng = Rng::from_seed(9);
        for round in 0..600 {
            for (at, member) in members.iter_mut().enumerate() {
                member.share = shares[(round + at) % shares.len()];
            }
            for policy in ALL {
                let choice = choose(policy, CapacityLimit::Hard, &members, |_, _| true, b"", &mut rng);
                assert!(matches!(choice, Choice::Member(3 | 4)), "{choice:?}");
                let full = choose(
                    policy,
                    CapacityLimit::Soft,
                    &members,
                    |at, _| at == 0,
                    b"",
                    &mut rng,
                );
                assert_eq!(full, Choice::Member(0));
            }
        }
    }

    #[test]
    fn figures_that_change_under_the_choice_do_no_harm() {
        /// Full and free at every other look.
        struct Restless(core::cell::Cell<u64>);
        impl Candidate for Restless {
            fn name(&self) -> &'static str {
                "restless"
            }
            fn weight(&self) -> u16 {
                1
            }
            fn capacity(&self) -> u32 {
                1
            }
            fn sessions(&self) -> u64 {
                self.0.replace(1 - self.0.get())
            }
            fn share(&self) -> f64 {
                0.5
            }
        }
        let members: Vec<Restless> = (0..3).map(|n| Restless(core::cell::Cell::new(n % 2))).collect();
        let mut rng = Rng::from_seed(2);
        for _ in 0..500 {
            for policy in ALL {
                let choice = choose(
                    policy,
                    CapacityLimit::Soft,
                    &members,
                    |_, _| true,
                    b"call",
                    &mut rng,
                );
                assert!(matches!(choice, Choice::Member(0..3)), "{choice:?}");
            }
        }
    }
}
