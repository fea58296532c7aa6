//! What a run of [`super::chaos`] does, by its seed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use imagemill::queue::fault;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::support::Commit;

/// How much of everything.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// At least so many cells.
    pub(super) cells: usize,
    /// Kills at each of the named points.
    pub(super) kills_a_point: usize,
    /// Kills at any moment.
    pub(super) kills: usize,
    /// Workers that are told to leave.
    pub(super) leaves: usize,
    /// Workers that are stopped for longer than their lease.
    pub(super) stops: usize,
    /// Lost answers to each kind of commit.
    pub(super) answers: usize,
    /// Settles that are repeated after the same worker's next claim of a job of theirs.
    pub(super) overtaken: usize,
    /// Restarts of PostgreSQL, every other one immediate.
    pub(super) restarts: usize,
    /// Sessions of workers that are terminated.
    pub(super) terminations: usize,
    /// Workers to which nothing is done, beside those to which something is.
    pub(super) sturdy: usize,
    /// Workers to which something is done, at once.
    pub(super) doomed: usize,
    /// Lease of the workers.
    pub(super) lease: Duration,
    /// All of it is to be done after so long: ten times what it takes.
    pub(super) bound: Duration,
}

/// What is done to one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    /// It is killed at a point.
    Point(&'static str),
    /// It is killed at some moment.
    Kill,
    /// It is told to leave.
    Leave,
    /// It is stopped for longer than its lease, and goes on.
    Stop,
}

impl Deed {
    pub(super) fn name(self) -> String {
        match self {
            Self::Point(point) => format!("killed at {point}"),
            Self::Kill => "killed at any moment".to_owned(),
            Self::Leave => "told to leave".to_owned(),
            Self::Stop => "stopped and resumed".to_owned(),
        }
    }
}

impl Plan {
    /// The deeds, in the order of the seed.
    pub(super) fn deeds(&self, random: &mut StdRng) -> VecDeque<Deed> {
        let mut deeds = Vec::new();
        for point in fault::POINTS {
            deeds.extend(std::iter::repeat_n(Deed::Point(point), self.kills_a_point));
        }
        deeds.extend(std::iter::repeat_n(Deed::Kill, self.kills));
        deeds.extend(std::iter::repeat_n(Deed::Leave, self.leaves));
        deeds.extend(std::iter::repeat_n(Deed::Stop, self.stops));
        deeds.shuffle(random);
        deeds.into()
    }

    /// The commits whose answers are lost, in the order of the seed.
    pub(super) fn commits(&self, random: &mut StdRng) -> Vec<Commit> {
        let mut commits: Vec<Commit> =
            Commit::OF_CELLS.iter().flat_map(|kind| std::iter::repeat_n(*kind, self.answers)).collect();
        commits.shuffle(random);
        commits
    }

    /// What must have been done at the end.
    pub(super) fn wanted(&self) -> BTreeMap<String, usize> {
        let points = fault::POINTS.iter().map(|point| (Deed::Point(point), self.kills_a_point));
        let deeds = points.chain([(Deed::Kill, self.kills), (Deed::Leave, self.leaves), (Deed::Stop, self.stops)]);
        let answers = Commit::OF_CELLS.iter().map(|kind| (lost(*kind), self.answers));
        let others = [
            ("PostgreSQL stopped fast".to_owned(), self.restarts.div_ceil(2)),
            ("PostgreSQL stopped at once".to_owned(), self.restarts / 2),
            ("session terminated".to_owned(), self.terminations),
            (OVERTAKEN.to_owned(), self.overtaken),
        ];
        deeds.map(|(deed, count)| (deed.name(), count)).chain(answers).chain(others).collect()
    }
}

/// The answer to a settle was lost, and its job claimed again before the settle was repeated.
pub(super) const OVERTAKEN: &str = "settle repeated after the next claim";

/// A commit whose answer was lost.
pub(super) fn lost(kind: Commit) -> String {
    format!("answer lost to {kind:?}").to_lowercase()
}

/// A generator for one part of the script, so that no part depends on how far another has come.
pub(super) fn part(seed: u64, part: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(part))
}
