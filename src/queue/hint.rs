//! What a claimer knows of the groups that wait: a hint for the next claims, read once a second or less often, between them. Claims go
//! on by the last one meanwhile, since a look walks over what was claimed before as long as any transaction is open.
//!
//! A stale one costs a moment's fairness and never a limit: what is in flight is counted by the claim itself, from rows. A group
//! that is missing is found with the next look; one that has nothing left is passed over until then.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::{task::JoinHandle, time::Instant};

use super::{
    claim::Served,
    connections::Connections,
    error::QueueError,
    turns::{Candidates, Group, Groups},
};

/// The groups are looked for so often while there is something to claim.
const ANEW: Duration = Duration::from_secs(1);

/// Between two looks passes so many times what the last one took: one of a thousand groups takes 20 to 50 ms of a processor, which the
/// claims beside it miss, and four workers that look so often take up a sixtieth of one. What is new is announced and waits for none of this;
/// what a look is late is the same for each group, however many there are.
const REST: u32 = 240;

/// But no more than this: a cell that is to be tried again, and whose task has no other that waits, is found by a look.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// All that runs is counted so often, however long ago it was claimed: a clock that was set back would hide it.
const RECOUNT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hint {
    groups: Groups,
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
    /// Jobs of the last claim, where it got fewer than it wanted.
    cut: Option<usize>,
}

/// A look that is under way.
#[derive(Debug)]
struct Look {
    task: JoinHandle<Result<Found, QueueError>>,
    /// What claims have said since it began.
    since: Vec<Said>,
}

/// What it has found.
#[derive(Debug)]
struct Found {
    groups: Vec<Group>,
    /// When they were read, and how long that took.
    read: Instant,
    took: Duration,
}

/// What a claim says of a group, by name and lane.
#[derive(Debug, Clone)]
enum Said {
    Took((String, String), DateTime<Utc>, String),
    Empty((String, String)),
    Spent((String, String)),
}

impl Hint {
    /// Takes over what a look has found. Where nothing is known, or something new was announced, has the groups read, and waits for it.
    pub(super) async fn refresh(&mut self, connections: &Connections, served: &Served) -> Result<(), QueueError> {
        if !self.is_wanted || served.group.is_some() {
            return Ok(());
        }
        if let Some(look) = self.look.take_if(|look| look.task.is_finished()) {
            self.end(look).await?;
        }
        if self.is_announced {
            // What is under way may have begun before.
            (self.read, self.look) = (None, None);
        }
        if self.read.is_none() {
            self.look(connections, served);
            if let Some(look) = self.look.take() {
                self.end(look).await?;
            }
        }
        Ok(())
    }

    /// Has the groups read if they were read too long ago, for the claims after the next. Between two claims: beside one it would take
    /// the processor from it.
    pub(super) fn look_ahead(&mut self, connections: &Connections, served: &Served) {
        if self.is_wanted && self.read.is_some_and(|(read, took)| read.elapsed() >= (took * REST).clamp(ANEW, LONGEST_REST)) {
            self.look(connections, served);
        }
    }

    /// Begins a look, where none is under way.
    fn look(&mut self, connections: &Connections, served: &Served) {
        if self.look.is_none() {
            self.is_announced = false;
            self.look = Some(Look::begin(connections, served));
        }
    }

    /// Takes over what the look has found, and over it what was said since it began.
    async fn end(&mut self, look: Look) -> Result<(), QueueError> {
        let found = look.task.await.map_err(|_| QueueError::Ended)??;
        self.groups.renew(found.groups);
        self.read = Some((found.read, found.took));
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
    pub(super) fn candidates(&self, served: &Served, wanted: usize) -> Option<Candidates> {
        if let Some(group) = &served.group {
            return Some(Candidates::of_group(&served.lanes, group));
        }
        self.read?;
        // A lane that is full will not have many more places than it had.
        let expected = self.cut.map_or(wanted, |cut| cut.min(wanted));
        Some(self.groups.candidates(&served.lanes, expected))
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
    pub(super) fn emptied(&mut self, lane: &str, group: &str) {
        self.said(Said::Empty((group.to_owned(), lane.to_owned())));
    }

    /// This group may take nothing now.
    pub(super) fn spent(&mut self, lane: &str, group: &str) {
        self.said(Said::Spent((group.to_owned(), lane.to_owned())));
    }

    fn said(&mut self, said: Said) {
        self.apply(&said);
        if let Some(look) = &mut self.look {
            look.since.push(said);
        }
    }

    fn apply(&mut self, said: &Said) {
        match said {
            Said::Took(name, run_at, id) => self.groups.took(name, *run_at, id),
            Said::Empty(name) => self.groups.emptied(name),
            Said::Spent(name) => self.groups.spent(name),
        }
    }

    /// A claim took so many of these it wanted. Where more are left, or wait for a limit, the groups are wanted; where all were
    /// taken, the next claim looks for what has come.
    pub(super) fn ended(&mut self, wanted: usize, taken: usize, is_limited: bool) {
        let has_more = taken >= wanted || is_limited;
        self.cut = (taken < wanted).then_some(taken);
        self.groups.ended();
        self.is_wanted = has_more;
        if !has_more {
            self.read = None;
            self.groups.clear();
            // Nobody wants what it finds.
            self.look = None;
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
            Ok(Found { groups: groups.await?, read: Instant::now(), took: began.elapsed() })
        });
        Self { task, since: Vec::new() }
    }
}
