//! The groups that wait, and of which a claim chooses: whose turn may be the next.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use sqlx::FromRow;

/// Fewest and most groups that a claim chooses from.
const CANDIDATES: std::ops::RangeInclusive<usize> = 32..=256;

/// So many beside them that could take nothing when they were last asked: it may be otherwise by now.
const SPENT: usize = 32;

/// A group with pending jobs in a lane.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Group {
    lane: String,
    #[sqlx(rename = "group")]
    name: String,
    owner: String,
    weight: i32,
    has_budget: bool,
    /// In flight when it was read, and what was claimed here since.
    jobs: i64,
    /// The same of its owner in this lane, when it was read.
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

    fn push(&mut self, group: &Group) {
        self.lanes.push(group.lane.clone());
        self.groups.push(group.name.clone());
        self.owners.push(group.owner.clone());
        self.weights.push(group.weight);
        self.budgets.push(group.has_budget);
        self.after.push(Some(group.after));
        self.after_ids.push(Some(group.after_id.clone()));
    }
}

/// A group that is known, and what claims have said of it.
#[derive(Debug)]
struct Known {
    group: Group,
    /// Its place among the owners.
    owner: usize,
    /// The last claim that served it.
    served: Option<u64>,
    /// The last claim that found that it may take nothing, if it has taken nothing since: its budget is spent, or its time is over.
    spent: Option<u64>,
    /// It had nothing that is due. It is kept for when it is found again: then its turn is not the first.
    is_absent: bool,
}

/// An owner in one lane.
#[derive(Debug)]
struct Owner {
    /// The last claim that served him.
    served: Option<u64>,
    /// In flight when it was read, and what was claimed here since.
    jobs: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// By name and lane.
    known: BTreeMap<(String, String), Known>,
    /// By place and not by name, since each claim asks for all of them.
    owners: Vec<Owner>,
    /// Where an owner stands, by lane and name.
    places: HashMap<(String, String), usize>,
    /// Which claim this is.
    claim: u64,
}

impl Groups {
    /// These are the groups now. What claims have said of one that was known before, and of its owner, is kept.
    pub(super) fn renew(&mut self, groups: Vec<Group>) {
        let mut before = std::mem::take(self);
        self.claim = before.claim;
        for group in groups {
            let owner = (group.lane.clone(), group.owner.clone());
            let served = before.places.get(&owner).and_then(|place| before.owners[*place].served);
            let owner = *self.places.entry(owner).or_insert_with(|| {
                self.owners.push(Owner { served, jobs: group.owner_jobs });
                self.owners.len() - 1
            });
            let name = (group.name.clone(), group.lane.clone());
            let (served, spent) = before.known.remove(&name).map_or((None, None), |known| (known.served, known.spent));
            self.known.insert(name, Known { group, owner, served, spent, is_absent: false });
        }
    }

    /// Nothing waits, as far as is known.
    pub(super) fn clear(&mut self) {
        for known in self.known.values_mut() {
            known.is_absent = true;
        }
    }

    /// The job of this time and id was claimed of this group.
    pub(super) fn took(&mut self, name: &(String, String), run_at: DateTime<Utc>, id: &str) {
        let Some(known) = self.known.get_mut(name) else { return };
        known.group.jobs += 1;
        (known.served, known.spent) = (Some(self.claim), None);
        let owner = &mut self.owners[known.owner];
        (owner.served, owner.jobs) = (Some(self.claim), owner.jobs + 1);
        if (known.group.after, known.group.after_id.as_str()) < (run_at, id) {
            known.group.after = run_at;
            id.clone_into(&mut known.group.after_id);
        }
    }

    /// This group has no job that is due.
    pub(super) fn emptied(&mut self, name: &(String, String)) {
        if let Some(known) = self.known.get_mut(name) {
            known.is_absent = true;
        }
    }

    /// This group may take nothing.
    pub(super) fn spent(&mut self, name: &(String, String)) {
        if let Some(known) = self.known.get_mut(name) {
            known.spent = Some(self.claim);
        }
    }

    /// A claim is over.
    pub(super) fn ended(&mut self) {
        self.claim += 1;
    }

    /// What a claim chooses from that will take about so many.
    pub(super) fn candidates(&self, lanes: &[String], expected: usize) -> Candidates {
        // Some have nothing left, or more in flight than is known here.
        let most = (2 * expected).clamp(*CANDIDATES.start(), *CANDIDATES.end());
        let mut chosen = Vec::new();
        for lane in lanes {
            // Where turns are equal: whoever was served longest ago, then the oldest. So of more owners, or tasks, than there are
            // places none waits until another has ended.
            let of_lane = self.known.values().filter(|known| known.group.lane == *lane && !known.is_absent);
            // Those that may take nothing have the fewest in flight, and would keep the others out.
            let (mut spent, mut of_lane): (Vec<&Known>, Vec<&Known>) = of_lane.partition(|known| known.spent.is_some());
            of_lane.sort_by_key(|known| self.last_served(known));
            if of_lane.len() > most {
                of_lane = self.nearest(&of_lane, most);
            }
            spent.sort_by_key(|known| known.spent);
            chosen.extend(spent.into_iter().take(SPENT));
            chosen.extend(of_lane);
        }
        chosen.sort_by_key(|known| (self.last_served(known), &known.group.name, &known.group.lane));
        let mut candidates = Candidates::default();
        for known in chosen {
            candidates.push(&known.group);
        }
        candidates
    }

    /// The last claims that served its owner and it; none where there was none.
    fn last_served(&self, known: &Known) -> (Option<u64>, Option<u64>) {
        (self.owners[known.owner].served, known.served)
    }

    /// Of one lane's groups those whose turn is the next: of each owner those with the fewest jobs for their weight, and the owners
    /// side by side, those with the fewest jobs first; where they are equal in the order given.
    fn nearest<'a>(&self, groups: &[&'a Known], most: usize) -> Vec<&'a Known> {
        let mut by_owner: Vec<Vec<(usize, &Known)>> = vec![Vec::new(); self.owners.len()];
        for (place, known) in groups.iter().enumerate() {
            by_owner[known.owner].push((place, known));
        }
        let mut ranked = Vec::new();
        for groups in &mut by_owner {
            // Stable: in the order given where they are equal.
            groups.sort_by(|(_, left), (_, right)| {
                let load = |group: &Group| group.jobs as f64 / f64::from(group.weight.max(1));
                load(&left.group).total_cmp(&load(&right.group))
            });
            let nth = groups.iter().enumerate();
            ranked.extend(nth.map(|(rank, (place, known))| (rank as i64 + self.owners[known.owner].jobs, *place)));
        }
        ranked.sort_unstable();
        ranked.into_iter().take(most).map(|(_, place)| groups[place]).collect()
    }
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

    fn known(groups: impl IntoIterator<Item = Group>) -> Groups {
        let mut known = Groups::default();
        known.renew(groups.into_iter().collect());
        known
    }

    fn name(name: &str) -> (String, String) {
        (name.to_owned(), "prod".to_owned())
    }

    fn order(groups: &Groups) -> String {
        groups.candidates(&["prod".to_owned()], 0).groups.join("")
    }

    #[test]
    fn the_groups_whose_turn_it_is_are_kept() {
        let groups = known([group("a", "one", 1, 5), group("b", "one", 8, 5), group("c", "two", 1, 9), group("d", "one", 1, 0)]);
        let names = |most| -> Vec<&str> {
            let all: Vec<&Known> = groups.known.values().collect();
            groups.nearest(&all, most).into_iter().map(|known| known.group.name.as_str()).collect()
        };
        // Of each owner the least loaded first.
        assert_eq!(names(2), ["c", "d"]);
        assert_eq!(names(3), ["c", "d", "b"]);
        assert_eq!(names(9).len(), 4);
    }

    #[test]
    fn who_was_served_longest_ago_is_the_first() {
        let of = || ["a", "b", "c", "d"].into_iter().zip(["one", "one", "two", "three"]);
        let rows = || of().map(|(name, owner)| group(name, owner, 1, 0)).collect();
        let mut groups = Groups::default();
        groups.renew(rows());
        assert_eq!(order(&groups), "abcd");
        for (served, expected) in [("a", "cdba"), ("c", "dbac"), ("b", "dcab")] {
            groups.took(&name(served), DateTime::UNIX_EPOCH, "1");
            groups.ended();
            assert_eq!(order(&groups), expected, "after {served}");
        }
        // As before when they are read again.
        groups.renew(rows());
        assert_eq!(order(&groups), "dcab");
    }

    #[test]
    fn a_claim_goes_on_where_the_last_one_ended() {
        let mut groups = known([group("a", "one", 1, 0)]);
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        groups.took(&name("a"), at(5), "5");
        groups.took(&name("a"), at(3), "3");
        let known = &groups.known[&name("a")].group;
        assert_eq!((known.jobs, known.after, known.after_id.as_str()), (2, at(5), "5"));
        groups.emptied(&name("a"));
        assert_eq!(order(&groups), "");
    }

    #[test]
    fn of_many_groups_twice_as_many_are_chosen_from_as_are_taken() {
        let groups = known((0..300).map(|number| group(&format!("{number:03}"), "one", 1, 0)));
        for (taken, number) in [(0, 32), (40, 80), (1_000, 256)] {
            assert_eq!(groups.candidates(&["prod".to_owned()], taken).groups.len(), number, "{taken}");
        }
    }
    #[test]
    fn groups_that_may_take_nothing_keep_no_others_out() {
        let mut groups = known((0..300).map(|number| group(&format!("{number:03}"), "one", 1, 0)));
        for number in 0..200 {
            groups.spent(&name(&format!("{number:03}")));
            groups.ended();
        }
        let chosen = groups.candidates(&["prod".to_owned()], 0).groups;
        let (spent, open): (Vec<String>, Vec<String>) = chosen.into_iter().partition(|name| name.as_str() < "200");
        assert_eq!(open.len(), 32);
        // Those that were asked longest ago, and after them the others; one that has taken something is as any.
        assert_eq!(spent, (0..SPENT).map(|number| format!("{number:03}")).collect::<Vec<_>>());
        groups.spent(&name("000"));
        groups.took(&name("001"), DateTime::UNIX_EPOCH, "1");
        let chosen = groups.candidates(&["prod".to_owned()], 0).groups;
        assert!(!chosen.contains(&"000".to_owned()) && chosen.contains(&format!("{:03}", SPENT + 1)), "{chosen:?}");
    }

    #[test]
    fn what_was_claimed_since_counts_for_the_owner() {
        let rows = (0..100).map(|number| group(&format!("{number:03}"), if number < 50 { "one" } else { "two" }, 1, 0));
        let mut groups = known(rows);
        for _ in 0..40 {
            groups.took(&name("000"), DateTime::UNIX_EPOCH, "1");
        }
        // The other one has none yet.
        let chosen = groups.candidates(&["prod".to_owned()], 0).owners;
        assert!(chosen.iter().all(|owner| owner == "two"), "{chosen:?}");
    }

    #[test]
    fn a_group_that_comes_back_is_not_the_first_again() {
        let rows = || ["a", "b"].map(|name| group(name, "one", 1, 0));
        let mut groups = known(rows());
        groups.took(&name("a"), DateTime::UNIX_EPOCH, "1");
        groups.emptied(&name("a"));
        groups.ended();
        assert_eq!(order(&groups), "b");
        groups.clear();
        assert_eq!(order(&groups), "");
        groups.renew(rows().to_vec());
        assert_eq!(order(&groups), "ba");
    }
}
