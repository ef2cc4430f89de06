//! The lowest `load ÷ weight`; a draw among those that are level. Pure.
//!
//! A member that comes back is the emptiest for a while and would get every new session. In its slow start it
//! therefore takes part only in its share of the choices: at most as many as it would get by weight.

use super::{Candidate, load, share, weight};
use crate::dispatch::random::Rng;

/// Chooses among members that have room; `None` when there are none.
pub(super) fn pick<'a, C: Candidate + 'a>(
    members: impl Iterator<Item = (usize, &'a C)> + Clone,
    rng: &mut Rng,
) -> Option<usize> {
    let mark = |member: &C| load(member) / weight(member);
    let (mut whole, mut settled) = (0.0, true);
    for (_, member) in members.clone() {
        whole += weight(member);
        settled &= share(member) >= 1.0;
    }
    if settled {
        return lowest(members, mark, rng);
    }
    // One draw admits one member in its slow start, or none: member by member they lie side by side on the line
    // from 0 to the sum of all weights, each with its share of its weight.
    let mut draw = rng.unit() * whole;
    let admitted = members
        .clone()
        .filter(|(_, member)| share(*member) < 1.0)
        .find(|(_, member)| {
            draw -= weight(*member) * share(*member);
            draw < 0.0
        });
    let admitted = admitted.map(|(at, _)| at);
    let field = members
        .clone()
        .filter(|(at, member)| share(*member) >= 1.0 || admitted == Some(*at));
    // Where all come back at once, nobody is left to spare them.
    lowest(field, mark, rng).or_else(|| lowest(members, mark, rng))
}

/// The member with the lowest `mark`, a number; one of them by chance where several are level.
pub(super) fn lowest<'a, C: Candidate + 'a>(
    members: impl Iterator<Item = (usize, &'a C)>,
    mark: impl Fn(&C) -> f64,
    rng: &mut Rng,
) -> Option<usize> {
    let (mut best, mut level) = (None, 0);
    for (at, member) in members {
        let mark = mark(member);
        match best {
            Some((_, lowest)) if mark > lowest => {}
            Some((_, lowest)) if mark >= lowest => {
                level += 1;
                if rng.below(level) == 0 {
                    best = Some((at, mark));
                }
            }
            _ => {
                best = Some((at, mark));
                level = 1;
            }
        }
    }
    best.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_parts, members, tally};
    use super::super::{Choice, choose};
    use super::*;
    use crate::config::model::{CapacityLimit, Policy};

    fn drawn(members: &[super::super::tests::Fake], seed: u64) -> Vec<u32> {
        tally(Policy::LeastLoaded, members, 20_000, seed)
    }

    #[test]
    fn the_lowest_load_by_weight_wins() {
        // Marks: 0.5 ÷ 10, 0.4 ÷ 5, 0.06 ÷ 1.
        let members = members(&[(10, 100, 50), (5, 100, 40), (1, 100, 6)]);
        assert_eq!(drawn(&members, 1), [20_000, 0, 0]);
    }

    #[test]
    fn level_members_are_drawn_evenly() {
        // The same load over different capacities, and once by weight: all marks are 0.01.
        let members = members(&[(10, 1000, 100), (10, 10, 1), (30, 1000, 300), (10, 1000, 101)]);
        let seen = drawn(&members, 2);
        assert_eq!(seen[3], 0);
        assert_parts(&seen[..3], &[1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_burst_levels_the_members() {
        let mut members = members(&[(100, 1000, 0), (200, 1000, 0), (100, 500, 0), (100, 1000, 90)]);
        let mut rng = Rng::from_seed(3);
        for _ in 0..810 {
            let choice = choose(
                Policy::LeastLoaded,
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
        }
        // 900 sessions over 1000·100, 1000·200, 500·100 and 1000·100.
        let sessions: Vec<u64> = members.iter().map(|member| member.sessions).collect();
        for (sessions, level) in sessions.iter().zip([200_u64, 400, 100, 200]) {
            assert!(sessions.abs_diff(level) <= 2, "{sessions} and {level}");
        }
    }

    #[test]
    fn a_slow_start_gives_its_share_and_no_more() {
        // By its mark the third would get everything.
        let mut members = members(&[(100, 1000, 500), (100, 1000, 500), (200, 1000, 0)]);
        members[2].share = 0.5;
        assert_parts(&drawn(&members, 4), &[1.5, 1.5, 1.0]);
        members[2].share = 0.999_999;
        assert_parts(&drawn(&members, 5), &[1.0, 1.0, 2.0]);
        members[2].share = 1.0;
        assert_eq!(drawn(&members, 6), [0, 0, 20_000]);
    }

    #[test]
    fn two_slow_starts_have_a_share_each() {
        let mut members = members(&[(100, 1000, 500), (100, 1000, 0), (100, 1000, 10)]);
        members[1].share = 0.3;
        members[2].share = 0.6;
        assert_parts(&drawn(&members, 7), &[2.1, 0.3, 0.6]);
    }

    #[test]
    fn members_that_all_come_back_are_levelled() {
        let mut members = members(&[(100, 1000, 10), (100, 1000, 10)]);
        for member in &mut members {
            member.share = 0.01;
        }
        let seen = drawn(&members, 8);
        assert!(seen.iter().all(|&n| n > 9_000), "{seen:?}");
    }
}
