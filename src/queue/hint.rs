//! What a claimer knows of the groups that wait: a hint for the next claims, read once a second.
//!
//! A stale one costs a moment's fairness and never a limit: what is in flight is counted by the claim itself, from rows. A group
//! that is missing is found with the next look; one that has nothing left is passed over until then.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use tokio::time::Instant;

use super::{claim::Served, connections::Connections, error::QueueError};

/// The groups are looked for so often while there is something to claim.
const ANEW: Duration = Duration::from_secs(1);

/// All that runs is counted so often, however long ago it was claimed: a clock that was set back would hide it.
const RECOUNT: Duration = Duration::from_secs(30);

/// Fewest and most groups that a claim chooses from.
const CANDIDATES: std::ops::RangeInclusive<usize> = 32..=256;

/// A group with pending jobs in a lane.
#[derive(Debug, Clone, FromRow)]
struct Group {
    lane: String,
    #[sqlx(rename = "group")]
    name: String,
    owner: String,
    weight: i32,
    has_budget: bool,
    /// In flight, of it and of its owner in this lane, when it was read; and what was claimed here since.
    jobs: i64,
    owner_jobs: i64,
    /// Up to where it was claimed.
    #[sqlx(default)]
    after: Option<DateTime<Utc>>,
    #[sqlx(default)]
    after_id: Option<String>,
}

/// The groups that a claim is to choose from, by columns, oldest first.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) lanes: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) owners: Vec<String>,
    pub(super) weights: Vec<i32>,
    pub(super) budgets: Vec<bool>,
    pub(super) after: Vec<Option<DateTime<Utc>>>,
    pub(super) after_ids: Vec<Option<String>>,
}

impl Candidates {
    /// One group in each of these lanes, whatever else there is.
    pub(super) fn of_group(lanes: &[String], group: &str) -> Self {
        Self {
            lanes: lanes.to_vec(),
            groups: lanes.iter().map(|_| group.to_owned()).collect(),
            owners: lanes.iter().map(|_| String::new()).collect(),
            weights: lanes.iter().map(|_| 1).collect(),
            // Whether it has one is asked by the claim.
            budgets: lanes.iter().map(|_| true).collect(),
            after: lanes.iter().map(|_| None).collect(),
            after_ids: lanes.iter().map(|_| None).collect(),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hint {
    groups: BTreeMap<(String, String), Group>,
    /// When they were read; none: they are not known, and the claim looks for them itself.
    read: Option<Instant>,
    /// They are wanted.
    is_wanted: bool,
    /// None of the lanes' running jobs was claimed before.
    oldest: Option<(DateTime<Utc>, Instant)>,
    /// Jobs of the last claim.
    taken: usize,
}

impl Hint {
    /// Reads the groups, if they are wanted and not known, or were read too long ago.
    pub(super) async fn refresh(&mut self, connections: &Connections, served: &Served) -> Result<(), QueueError> {
        if !self.is_wanted || served.group.is_some() || self.read.is_some_and(|read| read.elapsed() < ANEW) {
            return Ok(());
        }
        let groups: Vec<Group> = connections
            .statement(async |connection| {
                let query = sqlx::query_as("select * from imagemill.waiting_groups_with_limits($1, $2)");
                Ok(query.bind(&*served.queue).bind(&served.lanes).fetch_all(connection).await?)
            })
            .await?;
        self.groups = groups.into_iter().map(|group| ((group.name.clone(), group.lane.clone()), group)).collect();
        self.read = Some(Instant::now());
        Ok(())
    }

    /// What the next claim chooses from; none: it looks for the groups itself.
    pub(super) fn candidates(&self, served: &Served) -> Option<Candidates> {
        if let Some(group) = &served.group {
            return Some(Candidates::of_group(&served.lanes, group));
        }
        self.read?;
        let most = (2 * self.taken).clamp(*CANDIDATES.start(), *CANDIDATES.end());
        let mut chosen: Vec<&Group> = self.groups.values().collect();
        for lane in &served.lanes {
            if chosen.iter().filter(|group| group.lane == *lane).count() > most {
                let kept = nearest(chosen.iter().filter(|group| group.lane == *lane).copied().collect(), most);
                chosen.retain(|group| group.lane != *lane);
                chosen.extend(kept);
            }
        }
        chosen.sort_by(|left, right| (&left.name, &left.lane).cmp(&(&right.name, &right.lane)));
        let mut candidates = Candidates::default();
        for group in chosen {
            candidates.lanes.push(group.lane.clone());
            candidates.groups.push(group.name.clone());
            candidates.owners.push(group.owner.clone());
            candidates.weights.push(group.weight);
            candidates.budgets.push(group.has_budget);
            candidates.after.push(group.after);
            candidates.after_ids.push(group.after_id.clone());
        }
        Some(candidates)
    }

    /// From when on running jobs are to be counted.
    pub(super) fn oldest(&self) -> Option<DateTime<Utc>> {
        self.oldest.filter(|(_, since)| since.elapsed() < RECOUNT).map(|(oldest, _)| oldest)
    }

    /// What the claim counted.
    pub(super) fn counted(&mut self, oldest: DateTime<Utc>) {
        let since = self.oldest.filter(|(_, since)| since.elapsed() < RECOUNT).map_or_else(Instant::now, |(_, since)| since);
        self.oldest = Some((oldest, since));
    }

    /// A job of this group was claimed.
    pub(super) fn took(&mut self, lane: &str, group: &str, run_at: DateTime<Utc>, id: &str) {
        let Some(known) = self.groups.get_mut(&(group.to_owned(), lane.to_owned())) else { return };
        known.jobs += 1;
        let reached = (run_at, id);
        if known.after.zip(known.after_id.as_deref()).is_none_or(|before| before < reached) {
            known.after = Some(run_at);
            known.after_id = Some(id.to_owned());
        }
    }

    /// This group has no job that is due.
    pub(super) fn is_empty(&mut self, lane: &str, group: &str) {
        self.groups.remove(&(group.to_owned(), lane.to_owned()));
    }

    /// A claim took so many of these it wanted. Where more are left, or wait for a limit, the groups are wanted; where all were
    /// taken, the next claim looks for what has come.
    pub(super) fn ended(&mut self, taken: usize, has_more: bool) {
        self.taken = taken;
        self.is_wanted = has_more;
        if !has_more {
            self.read = None;
            self.groups.clear();
        }
    }
}

/// Of one lane's groups those whose turn is the next: of each owner those with the fewest jobs for their weight, and the owners
/// side by side, those with the fewest jobs first.
fn nearest(groups: Vec<&Group>, most: usize) -> Vec<&Group> {
    let mut by_owner: HashMap<&str, Vec<&Group>> = HashMap::new();
    for group in groups {
        by_owner.entry(&group.owner).or_default().push(group);
    }
    let mut ranked = Vec::new();
    for groups in by_owner.values_mut() {
        // Stable: the oldest first where they are equal.
        groups.sort_by(|left, right| {
            let load = |group: &Group| group.jobs as f64 / f64::from(group.weight.max(1));
            load(left).total_cmp(&load(right)).then_with(|| left.name.cmp(&right.name))
        });
        ranked.extend(groups.iter().enumerate().map(|(rank, group)| (rank, group.owner_jobs, *group)));
    }
    ranked.sort_by_key(|(rank, owner_jobs, group)| (*rank as i64 + *owner_jobs, group.name.clone()));
    ranked.into_iter().take(most).map(|(_, _, group)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, owner: &str, weight: i32, jobs: i64) -> Group {
        Group {
            lane: "prod".to_owned(),
            name: name.to_owned(),
            owner: owner.to_owned(),
            weight,
            has_budget: false,
            jobs,
            owner_jobs: 0,
            after: None,
            after_id: None,
        }
    }

    #[test]
    fn the_groups_whose_turn_it_is_are_kept() {
        let groups = [group("a", "one", 1, 5), group("b", "one", 8, 5), group("c", "two", 1, 9), group("d", "one", 1, 0)];
        let names = |most| -> Vec<String> {
            nearest(groups.iter().collect(), most).into_iter().map(|group| group.name.clone()).collect()
        };
        // Of each owner the least loaded first.
        assert_eq!(names(2), ["c", "d"]);
        assert_eq!(names(3), ["c", "d", "b"]);
        assert_eq!(names(9).len(), 4);
    }

    #[test]
    fn a_claim_goes_on_where_the_last_one_ended() {
        let mut hint = Hint { read: Some(Instant::now()), ..Hint::default() };
        hint.groups.insert(("a".to_owned(), "prod".to_owned()), group("a", "one", 1, 0));
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        hint.took("prod", "a", at(5), "5");
        hint.took("prod", "a", at(3), "3");
        let known = &hint.groups[&("a".to_owned(), "prod".to_owned())];
        assert_eq!((known.jobs, known.after, known.after_id.as_deref()), (2, Some(at(5)), Some("5")));
        hint.is_empty("prod", "a");
        assert!(hint.groups.is_empty());
    }
}
