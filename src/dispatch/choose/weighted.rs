//! Random, in proportion to `weight × (1 − load)`. Pure.
//!
//! A member in its slow start counts with a part of its weight. Having few sessions it would draw more than that
//! part by its low load, so it is taken to be no emptier than the members that are past theirs: until its slow
//! start is over it gets its share by weight at most.

use super::{Candidate, capacity, room, share, weight};
use crate::dispatch::random::Rng;

/// Chooses among members that have room; `None` when there are none.
pub(super) fn pick<'a, C: Candidate + 'a>(
    members: impl Iterator<Item = (usize, &'a C)> + Clone,
    rng: &mut Rng,
) -> Option<usize> {
    let settled = members
        .clone()
        .map(|(_, member)| member)
        .filter(|member| share(*member) >= 1.0);
    let (weights, pulls) = settled.fold((0.0, 0.0), |(weights, pulls), member| {
        (weights + weight(member), pulls + weight(member) * free(member))
    });
    let freest = if weights > 0.0 { pulls / weights } else { 1.0 };

    // Each takes the place of those before it with its part of the pull so far: in the end each has its part of
    // the whole, in one walk that needs no total beforehand.
    let (mut chosen, mut total) = (None, 0.0);
    for (at, member) in members {
        let share = share(member);
        let free = if share < 1.0 {
            free(member).min(freest)
        } else {
            free(member)
        };
        let pull = weight(member) * share * free;
        total += pull;
        if chosen.is_none() || rng.unit() * total < pull {
            chosen = Some(at);
        }
    }
    chosen
}

/// What it has left of its capacity, above 0 to 1. Its count may have grown since it was found to have room.
fn free(member: &impl Candidate) -> f64 {
    f64::from(room(member).max(1)) / f64::from(capacity(member))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_parts, members, tally};
    use super::super::{Choice, choose};
    use super::*;
    use crate::config::model::{CapacityLimit, Policy};

    fn drawn(members: &[super::super::tests::Fake], seed: u64) -> Vec<u32> {
        tally(Policy::Weighted, members, 100_000, seed)
    }

    #[test]
    fn idle_members_get_their_weight() {
        let members = members(&[(100, 1000, 0), (200, 1000, 0), (50, 1000, 0), (65, 1000, 0)]);
        assert_parts(&drawn(&members, 1), &[100.0, 200.0, 50.0, 65.0]);
    }

    #[test]
    fn load_takes_its_part_away() {
        let members = members(&[
            (100, 1000, 500),
            (100, 200, 20),
            (300, 1000, 900),
            (10, 50, 0),
            (999, 10, 10),
        ]);
        let seen = drawn(&members, 2);
        assert_eq!(seen[4], 0, "a full member");
        assert_parts(&seen[..4], &[50.0, 90.0, 30.0, 10.0]);
    }

    #[test]
    fn standbys_are_equal() {
        let members = members(&[(0, 100, 0), (0, 100, 50), (5, 1, 1)]);
        let seen = drawn(&members, 3);
        assert_eq!(seen[2], 0);
        assert_parts(&seen[..2], &[1.0, 0.5]);
    }

    #[test]
    fn a_burst_between_two_counts_spreads_like_a_slow_arrival() {
        // Nothing ends, so slow or fast, each member fills evenly as long as each choice sees the ones before it.
        let mut members = members(&[(100, 1000, 0), (100, 1000, 400), (100, 1000, 800)]);
        let mut rng = Rng::from_seed(4);
        let mut alone = [0_u32; 3];
        for _ in 0..900 {
            let choice = choose(
                Policy::Weighted,
                CapacityLimit::Hard,
                &members,
                |_, _| true,
                b"",
                &mut rng,
            );
            let Choice::Member(at) = choice else {
                panic!("{choice:?}")
            };
            members[at].sessions += 1;
            alone[at] += 1;
        }
        // Each member's room shrinks by the same factor: 1800 places, 900 taken, half of each.
        for (member, left) in members.iter().zip([500.0, 300.0, 100.0]) {
            let room = f64::from(room(member));
            assert!(
                (room - left).abs() < 60.0,
                "{}: room for {room}, not about {left}",
                member.name
            );
        }
        assert!(members.iter().all(|member| member.sessions <= 1000));
        assert_eq!(alone.iter().sum::<u32>(), 900);
    }

    #[test]
    fn a_burst_fills_a_hard_limit_exactly() {
        let mut members = members(&[(1, 7, 0), (1000, 3, 0), (0, 2, 0)]);
        let mut rng = Rng::from_seed(6);
        for call in 0..12 {
            match choose(
                Policy::Weighted,
                CapacityLimit::Hard,
                &members,
                |_, _| true,
                b"",
                &mut rng,
            ) {
                Choice::Member(at) => {
                    assert!(at != 2 || call >= 10, "the standby came before its time");
                    members[at].sessions += 1;
                }
                other => panic!("{other:?} at call {call}"),
            }
        }
        let last = choose(
            Policy::Weighted,
            CapacityLimit::Hard,
            &members,
            |_, _| true,
            b"",
            &mut rng,
        );
        assert_eq!(last, Choice::AllFull);
    }

    #[test]
    fn a_slow_start_scales_the_weight() {
        let mut members = members(&[(100, 1000, 0), (100, 1000, 0)]);
        members[1].share = 0.25;
        assert_parts(&drawn(&members, 7), &[100.0, 25.0]);
    }

    #[test]
    fn a_slow_start_never_gives_more_than_the_weight_share() {
        // By load alone the empty one would draw ten times as much as the two others.
        let mut members = members(&[(100, 1000, 900), (100, 1000, 900), (100, 1000, 0)]);
        members[2].share = 0.999_999;
        assert_parts(&drawn(&members, 8), &[1.0, 1.0, 1.0]);
        members[2].share = 0.1;
        assert_parts(&drawn(&members, 9), &[1.0, 1.0, 0.1]);
    }

    #[test]
    fn a_member_that_comes_back_loaded_draws_by_its_load() {
        let mut members = members(&[(100, 1000, 0), (100, 1000, 900)]);
        members[1].share = 0.5;
        assert_parts(&drawn(&members, 10), &[1.0, 0.05]);
    }

    #[test]
    fn members_that_all_come_back_share_by_weight() {
        let mut members = members(&[(100, 1000, 0), (300, 1000, 0)]);
        for member in &mut members {
            member.share = 0.01;
        }
        assert_parts(&drawn(&members, 11), &[1.0, 3.0]);
    }

    #[test]
    fn a_hundred_members_are_all_reached() {
        let figures = [(1, 100, 0); 100];
        let seen = tally(Policy::Weighted, &members(&figures), 20_000, 12);
        let chi_square: f64 = seen.iter().map(|&n| (f64::from(n) - 200.0).powi(2) / 200.0).sum();
        assert!(
            chi_square < 148.23,
            "{chi_square}: above the 0.1 % point for 99 degrees of freedom"
        );
    }
}
