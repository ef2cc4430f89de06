//! The secret under which call-ids are hashed and cookies made. Pure: it comes in as a value, random in a daemon,
//! from a seed where a run is to be repeated.

use core::hash::BuildHasher;

use siphasher::sip::SipHasher13;

use super::random::Rng;

/// A key of SipHash-1-3. Who does not know it can neither choose call-ids that fall into one place of a table nor
/// guess a cookie.
#[derive(Clone, Copy)]
pub struct Key(u64, u64);

impl Key {
    /// The key of these 128 bits, which should be as random as the system can make them.
    pub const fn new(bits: [u64; 2]) -> Self {
        let [first, second] = bits;
        Self(first, second)
    }

    /// A key that is decided by `seed`, for a run that is to be repeated. It is no secret.
    pub const fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        Self(rng.next_u64(), rng.next_u64())
    }
}

/// A secret is not shown.
impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key")
    }
}

impl BuildHasher for Key {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_every_hash_and_another_seed_another() {
        let hash = |seed| Key::from_seed(seed).hash_one(b"call-id");
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
        assert_eq!(format!("{:?}", Key::from_seed(1)), "Key");
    }
}
