//! A claimed job, and the fence that every write for it carries.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    grant::Grant,
    ledger::{Acceptance, Submit},
    slots::Slot,
    tokens::JobTokens,
};

/// So many crashes without progress, and a job is claimed alone.
pub(super) const SOLITARY: i32 = 3;
/// So many, and it fails.
const CRASH_LOOP: i32 = 5;

/// A job that this process holds.
#[derive(Debug, Clone)]
pub struct Job {
    /// Id of the row in `apalis.jobs`.
    pub id: String,
    /// The queue's name.
    pub queue: Arc<str>,
    /// What it belongs to: a task.
    pub group: Arc<str>,
    /// Idempotency key: the cell's id, or `task:round`.
    pub key: String,
    /// As enqueued.
    pub payload: Arc<[u8]>,
    /// Number of this claim.
    pub claim: i32,
    /// Rescues of it that found no progress in its ledger since the one before.
    pub crashes: i32,
    /// Whether an attempt was open when it was put back.
    pub is_resumed: bool,
    /// Whether it was claimed to try whether a paused lane works again.
    pub is_probe: bool,
    /// When its submit may leave; none: at once.
    pub grant: Option<Grant>,
    /// The incarnation that claimed it.
    pub worker: Arc<str>,
    /// What ends its waiting early.
    pub tokens: JobTokens,
    /// What was committed for it under this claim.
    pub(super) memory: Arc<Mutex<Memory>>,
    /// Its place among this process's slots, given back when the last copy of the job goes: after its settle.
    pub(super) _slot: Arc<Slot>,
}

impl Job {
    /// The cell, where the key is one.
    pub fn cell(&self) -> Option<Uuid> {
        Uuid::parse_str(&self.key).ok()
    }

    /// Whether it ended its process too often to be run once more. What has an open attempt is never given up for that: it is
    /// polled on, or known to be unknown.
    pub(super) fn is_crash_loop(&self) -> bool {
        self.crashes >= CRASH_LOOP && !self.is_resumed
    }
}

/// What a process remembers of its own commits, should the database forget them.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// The ledger row, and its ordinal.
    pub(super) attempt: Option<(Submit, i32)>,
    /// When the transaction of that row was asked for, on [`super::clock::now`].
    pub(super) asked_at: Option<std::time::Duration>,
    /// The id.
    pub(super) acceptance: Option<Acceptance>,
}

/// Of the claims that were asked for, those that hold their jobs. A job's id alone does not tell: a worker that lost a claim and
/// has a later one of the same job may write for both at once.
#[derive(Debug)]
pub(super) struct Held(HashMap<String, i32>);

impl Held {
    pub(super) fn has(&self, job: &Job) -> bool {
        self.0.get(&job.id) == Some(&job.claim)
    }
}

impl FromIterator<(String, i32)> for Held {
    fn from_iter<T: IntoIterator<Item = (String, i32)>>(claims: T) -> Self {
        Self(claims.into_iter().collect())
    }
}

/// Locks the rows of jobs, in the order of their ids, and returns the claims that still hold. The first statement of every
/// transaction that writes for jobs and does not acknowledge them.
pub(super) async fn fence(connection: &mut PgConnection, jobs: impl Iterator<Item = &Job>) -> Result<Held, sqlx::Error> {
    let (mut ids, mut workers, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    for job in jobs {
        ids.push(job.id.clone());
        workers.push(job.worker.to_string());
        claims.push(job.claim);
    }
    // Found by id alone: any other column would make the planner think of an index in which a worker's jobs of an hour are dead
    // entries.
    let held: Vec<(String, i32)> = sqlx::query_as(
        "with locked as materialized (
             select id, lock_by, attempts, status from apalis.jobs where id = any ($1) order by id for update
         )
         select locked.id, claim from locked
         join unnest($1::text[], $2::text[], $3::integer[]) as given (id, worker, claim) using (id)
         where lock_by = worker and attempts = claim and status = 'Running'",
    )
    .bind(ids)
    .bind(workers)
    .bind(claims)
    .fetch_all(connection)
    .await?;
    Ok(held.into_iter().collect())
}
