//! The seed of a test that draws what it does.

use rand::RngExt as _;

/// The seed of this run: that of `IMAGEMILL_FAULTS_SEED`, or a new one. It is printed, so that what fails can be played again.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("IMAGEMILL_FAULTS_SEED") {
        Ok(seed) => seed.parse().expect("IMAGEMILL_FAULTS_SEED is a number"),
        Err(_) => rand::rng().random_range(0..1_000_000),
    };
    println!("IMAGEMILL_FAULTS_SEED={seed}");
    seed
}
