//! What a claimer knows of the groups that wait: a hint for the next claims, read once a second, beside them. Claims go on by the
//! last one meanwhile, since a look walks over what was claimed before as long as any transaction is open.
//!
//! A stale one costs a moment's fairness and never a limit: what is in flight is counted by the claim itself, from rows. A group
//! that is missing is found with the next look; one that has nothing left is passed over until then.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use tokio::{task::JoinHandle, time::Instant};

use super::{claim::Served, connections::Connections, error::QueueError};

/// The groups are looked for so often while there is something to claim.
const ANEW: Duration = Duration::from_secs(1);

/// Between two looks passes so many times what the last one took: one of a thousand groups takes 50 ms, and with four workers that look
/// so often they take up a fifteenth of one core. What a look is late is the same for each group, however many there are.
const REST: u32 = 60;

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
    /// From where on it waits: what stands before is claimed, and as long as any transaction is open each of it is walked over.
    #[sqlx(rename = "run_at")]
    after: DateTime<Utc>,
    #[sqlx(rename = "id")]
    after_id: String,
}

/// The groups that a claim is to choose from, by columns. Where turns are equal the first of them has it.
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
    /// When they were read, and how long that took; none: they are not known, and the claim looks for them itself.
    read: Option<(Instant, Duration)>,
    /// The look for what comes next.
    look: Option<Look>,
    /// They are wanted.
    is_wanted: bool,
    /// Something new was announced since the last look began.
    is_announced: bool,
    /// None of the lanes' running jobs was claimed before.
    oldest: Option<(DateTime<Utc>, Instant)>,
    /// Jobs of the last claim.
    taken: usize,
    /// Which claim this is.
    claim: u64,
    /// The last claim that took a job of the group, and of the owner; by lane and then by name, since each claim asks for all of them.
    served: HashMap<String, HashMap<String, u64>>,
    served_owners: HashMap<String, HashMap<String, u64>>,
}

/// A look that is under way.
#[derive(Debug)]
struct Look {
    task: JoinHandle<Result<(Vec<Group>, Duration), QueueError>>,
    /// What claims have said since it began.
    since: Vec<Said>,
    /// Nobody wants what it finds.
    is_obsolete: bool,
}

/// What a claim says of a group, by name and lane.
#[derive(Debug, Clone)]
enum Said {
    Took((String, String), DateTime<Utc>, String),
    Empty((String, String)),
}

impl Hint {
    /// Has the groups read, if they are wanted and not known, or were read too long ago; takes over what a look has found. Waits for
    /// a look only where nothing is known, or something new was announced.
    pub(super) async fn refresh(&mut self, connections: &Connections, served: &Served) -> Result<(), QueueError> {
        if !self.is_wanted || served.group.is_some() {
            return Ok(());
        }
        if let Some(look) = self.look.take_if(|look| look.task.is_finished()) {
            self.end(look).await?;
        }
        if self.is_announced {
            // What is under way may have begun before.
            self.read = None;
            if let Some(look) = &mut self.look {
                look.is_obsolete = true;
            }
        }
        if self.look.as_ref().is_none_or(|look| look.is_obsolete)
            && self.read.is_none_or(|(read, took)| read.elapsed() >= ANEW.max(took * REST))
        {
            self.is_announced = false;
            self.look = Some(Look::begin(connections, served));
        }
        if self.read.is_none()
            && let Some(look) = self.look.take_if(|look| !look.is_obsolete)
        {
            self.end(look).await?;
        }
        Ok(())
    }

    /// Takes over what the look has found, and over it what was said since it began.
    async fn end(&mut self, look: Look) -> Result<(), QueueError> {
        let (groups, took) = look.task.await.map_err(|_| QueueError::Ended)??;
        if look.is_obsolete {
            return Ok(());
        }
        self.groups = groups.into_iter().map(|group| ((group.name.clone(), group.lane.clone()), group)).collect();
        self.read = Some((Instant::now(), took));
        let names: HashSet<(&str, &str)> = self.groups.values().map(|group| (&*group.lane, &*group.name)).collect();
        let owners: HashSet<(&str, &str)> = self.groups.values().map(|group| (&*group.lane, &*group.owner)).collect();
        for (served, known) in [(&mut self.served, names), (&mut self.served_owners, owners)] {
            for (lane, served) in served {
                served.retain(|name, _| known.contains(&(lane.as_str(), name.as_str())));
            }
        }
        for said in &look.since {
            self.apply(said);
        }
        Ok(())
    }

    /// Something new may wait.
    pub(super) fn announced(&mut self) {
        self.is_announced = true;
    }

    /// What the next claim chooses from; none: it looks for the groups itself.
    pub(super) fn candidates(&self, served: &Served) -> Option<Candidates> {
        if let Some(group) = &served.group {
            return Some(Candidates::of_group(&served.lanes, group));
        }
        self.read?;
        let most = (2 * self.taken).clamp(*CANDIDATES.start(), *CANDIDATES.end());
        // Where turns are equal: whoever was served longest ago, then the oldest. So of more owners, or tasks, than there are places
        // none waits until another has ended.
        let mut chosen: Vec<&Group> = self.groups.values().collect();
        chosen.sort_by_cached_key(|group| self.last_served(group));
        for lane in &served.lanes {
            if chosen.iter().filter(|group| group.lane == *lane).count() > most {
                let kept = nearest(chosen.iter().filter(|group| group.lane == *lane).copied().collect(), most);
                chosen.retain(|group| group.lane != *lane);
                chosen.extend(kept);
            }
        }
        chosen.sort_by_cached_key(|group| (self.last_served(group), &group.name, &group.lane));
        let mut candidates = Candidates::default();
        for group in chosen {
            candidates.lanes.push(group.lane.clone());
            candidates.groups.push(group.name.clone());
            candidates.owners.push(group.owner.clone());
            candidates.weights.push(group.weight);
            candidates.budgets.push(group.has_budget);
            candidates.after.push(Some(group.after));
            candidates.after_ids.push(Some(group.after_id.clone()));
        }
        Some(candidates)
    }

    /// The last claims that served its owner and it; none where there was none.
    fn last_served(&self, group: &Group) -> (Option<u64>, Option<u64>) {
        let of = |served: &HashMap<String, HashMap<String, u64>>, name: &str| served.get(&group.lane)?.get(name).copied();
        (of(&self.served_owners, &group.owner), of(&self.served, &group.name))
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
        self.said(Said::Took((group.to_owned(), lane.to_owned()), run_at, id.to_owned()));
    }

    /// This group has no job that is due.
    pub(super) fn is_empty(&mut self, lane: &str, group: &str) {
        self.said(Said::Empty((group.to_owned(), lane.to_owned())));
    }

    fn said(&mut self, said: Said) {
        self.apply(&said);
        if let Some(look) = &mut self.look {
            look.since.push(said);
        }
    }

    fn apply(&mut self, said: &Said) {
        match said {
            Said::Took(name, run_at, id) => {
                let Some(known) = self.groups.get_mut(name) else { return };
                known.jobs += 1;
                for (served, name) in [(&mut self.served, &known.name), (&mut self.served_owners, &known.owner)] {
                    served.entry(known.lane.clone()).or_default().insert(name.clone(), self.claim);
                }
                if (known.after, &known.after_id) < (*run_at, id) {
                    known.after = *run_at;
                    known.after_id.clone_from(id);
                }
            }
            Said::Empty(name) => {
                self.groups.remove(name);
            }
        }
    }

    /// A claim took so many of these it wanted. Where more are left, or wait for a limit, the groups are wanted; where all were
    /// taken, the next claim looks for what has come.
    pub(super) fn ended(&mut self, taken: usize, has_more: bool) {
        self.taken = taken;
        self.claim += 1;
        self.is_wanted = has_more;
        if !has_more {
            self.read = None;
            self.groups.clear();
            if let Some(look) = &mut self.look {
                look.is_obsolete = true;
            }
        }
    }
}

impl Look {
    fn begin(connections: &Connections, served: &Served) -> Self {
        let connections = connections.clone();
        let queue = Arc::clone(&served.queue);
        let lanes = served.lanes.clone();
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let groups = connections.statement(async |connection| {
                let query = sqlx::query_as("select * from imagemill.groups_to_claim($1, $2)");
                Ok(query.bind(&*queue).bind(&lanes).fetch_all(connection).await?)
            });
            Ok((groups.await?, began.elapsed()))
        });
        Self { task, since: Vec::new(), is_obsolete: false }
    }
}

/// Of one lane's groups those whose turn is the next: of each owner those with the fewest jobs for their weight, and the owners
/// side by side, those with the fewest jobs first; where they are equal in the order given.
fn nearest(groups: Vec<&Group>, most: usize) -> Vec<&Group> {
    let mut by_owner: HashMap<&str, Vec<(usize, &Group)>> = HashMap::new();
    for (place, group) in groups.into_iter().enumerate() {
        by_owner.entry(&group.owner).or_default().push((place, group));
    }
    let mut ranked = Vec::new();
    for groups in by_owner.values_mut() {
        // Stable: in the order given where they are equal.
        groups.sort_by(|(_, left), (_, right)| {
            let load = |group: &Group| group.jobs as f64 / f64::from(group.weight.max(1));
            load(left).total_cmp(&load(right))
        });
        let nth = groups.iter().enumerate();
        ranked.extend(nth.map(|(rank, (place, group))| (rank as i64 + group.owner_jobs, *place, *group)));
    }
    ranked.sort_by_key(|(turn, place, _)| (*turn, *place));
    ranked.into_iter().take(most).map(|(.., group)| group).collect()
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
            after: DateTime::UNIX_EPOCH,
            after_id: String::new(),
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
    fn who_was_served_longest_ago_is_the_first() {
        let mut hint = Hint { read: Some((Instant::now(), Duration::ZERO)), ..Hint::default() };
        for (name, owner) in [("a", "one"), ("b", "one"), ("c", "two"), ("d", "three")] {
            hint.groups.insert((name.to_owned(), "prod".to_owned()), group(name, owner, 1, 0));
        }
        let served = Served {
            queue: "cells".into(),
            lanes: vec!["prod".to_owned()],
            group: None,
            slots: crate::queue::slots::Slots::new(1, Arc::default()),
        };
        let order = |hint: &Hint| hint.candidates(&served).unwrap().groups.join("");
        assert_eq!(order(&hint), "abcd");
        for (name, expected) in [("a", "cdba"), ("c", "dbac"), ("b", "dcab")] {
            hint.took("prod", name, DateTime::UNIX_EPOCH, "1");
            hint.ended(1, true);
            assert_eq!(order(&hint), expected, "after {name}");
        }
    }

    #[test]
    fn a_claim_goes_on_where_the_last_one_ended() {
        let mut hint = Hint { read: Some((Instant::now(), Duration::ZERO)), ..Hint::default() };
        hint.groups.insert(("a".to_owned(), "prod".to_owned()), group("a", "one", 1, 0));
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        hint.took("prod", "a", at(5), "5");
        hint.took("prod", "a", at(3), "3");
        let known = &hint.groups[&("a".to_owned(), "prod".to_owned())];
        assert_eq!((known.jobs, known.after, known.after_id.as_str()), (2, at(5), "5"));
        hint.is_empty("prod", "a");
        assert!(hint.groups.is_empty());
    }
}
