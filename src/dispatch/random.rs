//! A small fast generator for choices that need not be secret: xoshiro256++, seeded through SplitMix64. Pure:
//! the seed comes in as a value, so that a test sees the same choices each time. Nothing that an outsider must
//! not guess (a cookie, a hash key) is made of it.

/// What SplitMix64 adds to its state for each number: 2⁶⁴ over the golden ratio, made odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// 2⁵³: so many evenly spaced doubles lie between 0 and 1.
pub(super) const STEPS: f64 = 9_007_199_254_740_992.0;

/// The mixer of SplitMix64: each bit of `z` changes about half of those of the result, and no two values of `z`
/// share one.
pub(super) const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The generator.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose numbers are decided by `seed`; any value is a good one.
    pub const fn from_seed(seed: u64) -> Self {
        let first = seed.wrapping_add(GAMMA);
        let second = first.wrapping_add(GAMMA);
        let third = second.wrapping_add(GAMMA);
        let fourth = third.wrapping_add(GAMMA);
        // Four different values have four different mixtures: at most one is 0, and the state never all zeros.
        Self {
            state: [mix(first), mix(second), mix(third), mix(fourth)],
        }
    }

    /// The next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number from 0 to `n − 1`, each as likely as the next to within `n ÷ 2⁶⁴`; 0 when `n` is 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        let wide = self.next_u64() as u128 * n as u128;
        (wide >> 64) as u64
    }

    /// A number from 0 to just under 1, in steps of 2⁻⁵³.
    pub const fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
        let numerator = (self.next_u64() >> 11) as f64;
        numerator / STEPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_its_published_numbers() {
        // The first numbers of the reference implementation for the seed 1234567.
        let mut state = 1_234_567_u64;
        let mut next = || {
            state = state.wrapping_add(GAMMA);
            mix(state)
        };
        assert_eq!(
            [next(), next(), next()],
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn xoshiro256_plus_plus_gives_its_published_numbers() {
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let numbers: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        assert_eq!(
            numbers,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386,
                9_228_616_714_210_784_205
            ]
        );
    }

    #[test]
    fn a_seed_decides_the_numbers() {
        // Made with an independent implementation of both algorithms.
        let mut rng = Rng::from_seed(42);
        let numbers: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(
            numbers,
            [
                0xd076_4d4f_4476_689f,
                0x519e_4174_576f_3791,
                0xfbe0_7cfb_0c24_ed8c,
                0xb37d_9f60_0cd8_35b8
            ]
        );
        assert_ne!(Rng::from_seed(42).next_u64(), Rng::from_seed(43).next_u64());
    }

    #[test]
    fn numbers_below_a_bound_are_even() {
        let mut rng = Rng::from_seed(7);
        let mut seen = [0_u32; 10];
        for _ in 0..100_000 {
            seen[usize::try_from(rng.below(10)).unwrap()] += 1;
        }
        let chi_square: f64 = seen
            .iter()
            .map(|&n| (f64::from(n) - 10_000.0).powi(2) / 10_000.0)
            .sum();
        assert!(
            chi_square < 27.877,
            "{chi_square}: above the 0.1 % point for 9 degrees of freedom"
        );
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        assert!((0..1_000).all(|_| rng.below(u64::MAX) < u64::MAX));
    }

    #[test]
    fn fractions_fill_the_unit_interval() {
        let mut rng = Rng::from_seed(11);
        let drawn: Vec<f64> = (0..100_000).map(|_| rng.unit()).collect();
        assert!(drawn.iter().all(|u| (0.0..1.0).contains(u)));
        // The mean of so many has a standard deviation of 0.0009.
        let mean = drawn.iter().sum::<f64>() / 100_000.0;
        assert!((mean - 0.5).abs() < 0.004, "{mean}");
    }
}
