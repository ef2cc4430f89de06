//! Weighted rendezvous hashing of the call-id: processes with the same members choose the same one with no word
//! between them, and a member that comes or goes moves only its own calls. Pure.
//!
//! The formula is a contract between processes and versions, all in IEEE doubles:
//!
//! - `h`: 64-bit FNV-1a of member name, NUL, call-id; then the mixer of SplitMix64;
//! - `u = (⌊h ÷ 2¹¹⌋ + ½) ÷ 2⁵³`;
//! - `score = −ln(u) ÷ weight`; the lowest wins.
//!
//! Load only says whether a member has room, and a slow start says nothing: they differ from process to process.

use super::{Candidate, weight};
use crate::dispatch::random::{STEPS, mix};

/// Chooses among members that have room; `None` when there are none.
pub(super) fn pick<'a, C: Candidate + 'a>(
    members: impl Iterator<Item = (usize, &'a C)>,
    call_id: &[u8],
) -> Option<usize> {
    let mut best: Option<(f64, &C, usize)> = None;
    for (at, member) in members {
        let score = score(member.name(), weight(member), call_id);
        // Level scores (some 1 in 2⁵³) must not be settled by the order in which members were added.
        let better = best.is_none_or(|(lowest, other, _)| {
            score < lowest || (score <= lowest && member.name() < other.name())
        });
        if better {
            best = Some((score, member, at));
        }
    }
    best.map(|(_, _, at)| at)
}

/// The rank of a member for a call, from 0 up; lower is better. `weight` is at least 1.
pub(super) fn score(name: &str, weight: f64, call_id: &[u8]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    let numerator = (mix(fnv1a(name.as_bytes(), call_id)) >> 11) as f64;
    let u = (numerator + 0.5) / STEPS;
    -u.ln() / weight
}

/// 64-bit FNV-1a of `name`, NUL, `call_id`.
fn fnv1a(name: &[u8], call_id: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = name.iter().chain(&[0]).chain(call_id);
    bytes.fold(BASIS, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, assert_parts, members, tally};
    use super::super::{Choice, choose, ranked};
    use super::*;
    use crate::config::model::{CapacityLimit, Policy};
    use crate::dispatch::random::Rng;

    fn chosen(members: &[Fake], call_id: &str) -> usize {
        let mut rng = Rng::from_seed(0);
        match choose(
            Policy::Hash,
            CapacityLimit::Hard,
            members,
            |_, _| true,
            call_id.as_bytes(),
            &mut rng,
        ) {
            Choice::Member(at) => at,
            other => panic!("{other:?}"),
        }
    }

    /// The members of the test vectors.
    fn fixture() -> Vec<Fake> {
        let mut members = members(&[(100, 1000, 0), (100, 1000, 0), (50, 1000, 0), (300, 1000, 0)]);
        for (member, name) in members
            .iter_mut()
            .zip(["RTPPROXY1", "RTPPROXY2", "RTPPROXY3", "edge-4"])
        {
            name.clone_into(&mut member.name);
        }
        members
    }

    #[test]
    fn scores_are_those_of_an_independent_implementation() {
        // (name, weight, call-id, FNV-1a, mixed, score), computed outside this program.
        let dialog = &b"a84b4c76e66710@pc33.example.com"[..];
        let vectors = [
            (
                "RTPPROXY1",
                100.0,
                dialog,
                0xee49_2f5a_1316_87e4,
                0x29ae_8b41_2e70_08a2,
                0.018_151_125_653_311_923,
            ),
            (
                "RTPPROXY2",
                100.0,
                dialog,
                0x926c_ff8c_db94_5ec1,
                0x6203_4154_6775_9903,
                0.009_600_802_231_834_01,
            ),
            (
                "RTPPROXY3",
                50.0,
                dialog,
                0x19e8_7f82_c394_8b7e,
                0x8880_f165_a7db_ca12,
                0.012_576_516_908_062_623,
            ),
            (
                "RTPPROXY1",
                1.0,
                b"",
                0x761f_8866_ece9_aa0e,
                0x3c2d_bffd_70c2_fe82,
                1.447_858_796_156_841_9,
            ),
            (
                "média",
                65535.0,
                b"call-1",
                0x0cec_851e_a1ef_ecec,
                0x398f_36d6_e62c_4d6b,
                2.277_194_561_607_258_3e-5,
            ),
        ];
        for (name, weight, call_id, hash, mixed, expected) in vectors {
            assert_eq!(fnv1a(name.as_bytes(), call_id), hash, "{name}");
            assert_eq!(mix(hash), mixed, "{name}");
            let score = score(name, weight, call_id);
            // The last bits of a logarithm are the C library's.
            assert!(
                (score - expected).abs() <= expected * 1e-14,
                "{name}: {score}, not {expected}"
            );
        }
    }

    #[test]
    fn the_page_of_the_configuration_gives_the_same_numbers() {
        let page = include_str!("../../../man/rtp_cluster.xml.5");
        let table = page.split(".Ss The hash policy\n").nth(1).unwrap();
        let table = table.split(".Bd -literal -offset indent\n").nth(1).unwrap();
        let table = table.split(".Ed").next().unwrap();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 8);
        for (rank, row) in rows.iter().enumerate() {
            let [name, weight, call_id, mixed, printed] = row[..] else {
                panic!("{row:?}")
            };
            let hash = mix(fnv1a(name.as_bytes(), call_id.as_bytes()));
            assert_eq!(format!("{hash:016x}"), mixed, "{row:?}");
            let score = score(name, weight.parse().unwrap(), call_id.as_bytes());
            assert_eq!(format!("{score:.12}"), printed, "{row:?}");
            let members = fixture();
            let at = ranked(&members, call_id.as_bytes())[rank % 4];
            assert_eq!(
                (&*members[at].name, members[at].weight),
                (name, weight.parse().unwrap())
            );
        }
    }

    #[test]
    fn ranks_are_those_of_an_independent_implementation() {
        // Whole orders of choice, each member left out when it has had its turn: 0, 1, 2 are RTPPROXY1 to 3.
        let orders = [
            [2, 3, 0, 1],
            [1, 2, 0, 3],
            [0, 3, 2, 1],
            [0, 3, 2, 1],
            [3, 1, 0, 2],
            [3, 0, 2, 1],
            [3, 2, 1, 0],
            [3, 1, 0, 2],
            [3, 1, 0, 2],
            [3, 2, 1, 0],
            [1, 0, 3, 2],
            [3, 0, 1, 2],
        ];
        for (call, order) in orders.iter().enumerate() {
            let mut members = fixture();
            let call_id = format!("call-{call}@192.0.2.7");
            for &expected in order {
                let at = chosen(&members, &call_id);
                assert_eq!(at, expected, "{call_id}");
                // A full member is skipped in rank order.
                members[at].sessions = 1000;
            }
            assert_eq!(ranked(&fixture(), call_id.as_bytes()), order, "{call_id}");
        }
    }

    #[test]
    fn calls_spread_by_weight_whatever_the_load() {
        let mut members = members(&[(100, 1000, 999), (200, 1000, 0), (50, 10, 9)]);
        members[1].share = 0.001;
        assert_parts(&tally(Policy::Hash, &members, 50_000, 0), &[100.0, 200.0, 50.0]);
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_calls() {
        let all = fixture();
        let mut without = fixture();
        without.remove(2);
        for call in 0..5_000 {
            let call_id = format!("{call}@test");
            let before = &all[chosen(&all, &call_id)].name;
            let after = &without[chosen(&without, &call_id)].name;
            assert!(
                before == after || before == "RTPPROXY3",
                "{call_id}: {before}, then {after}"
            );
        }
    }

    #[test]
    fn the_order_of_the_members_does_not_matter() {
        let straight = fixture();
        let reversed: Vec<Fake> = fixture().into_iter().rev().collect();
        for call in 0..1_000 {
            let call_id = format!("{call}@test");
            assert_eq!(
                straight[chosen(&straight, &call_id)].name,
                reversed[chosen(&reversed, &call_id)].name
            );
        }
    }
}
