//! Seeds: the upstream takes 1..=2147483647.

use rand::{Rng, RngExt};

/// Largest seed.
pub const MAX_SEED: i64 = 2_147_483_647;

/// The seed of copy `copy` of a combination whose seed is `seed` (1..=[`MAX_SEED`]): the next ones, round in a circle.
pub fn copy_seed(seed: i64, copy: i32) -> i64 {
    (seed - 1 + i64::from(copy)).rem_euclid(MAX_SEED) + 1
}

/// A seed for a cell whose setting is null or 0.
pub fn random_seed(rng: &mut impl Rng) -> i64 {
    rng.random_range(1..=MAX_SEED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_take_the_next_seeds_and_begin_again_after_the_last() {
        assert_eq!([0, 1, 2].map(|copy| copy_seed(7, copy)), [7, 8, 9]);
        assert_eq!(copy_seed(MAX_SEED, 0), MAX_SEED);
        assert_eq!(copy_seed(MAX_SEED, 1), 1);
        assert_eq!(copy_seed(MAX_SEED - 1, 15), 14);
    }
}
