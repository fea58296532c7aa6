//! The claim: as many jobs as there are free slots, straight to `Running`, each with the number of its claim.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;

use super::{job::Job, slots::Slots, tokens::JobTokens};

/// One queue as this process serves it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) queue: Arc<str>,
    /// Lanes to take from; a queue without lanes has the empty one.
    pub(super) lanes: Vec<String>,
    /// Jobs of this group only.
    pub(super) group: Option<String>,
    pub(super) slots: Arc<Slots>,
}

/// id, payload, number of the claim, key, whether an attempt is open.
type ClaimedRow = (String, Vec<u8>, i32, Option<String>, bool);

/// Claims up to the number of free slots. Cells with an open attempt come before any other; then the oldest.
///
/// Limits, pauses, turns and budgets of the lanes belong here, under the lanes' row locks (design, section 8).
pub(super) async fn claim(pool: &PgPool, served: &Served, worker: &Arc<str>) -> Result<Vec<Job>, sqlx::Error> {
    let wanted = served.slots.free();
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let rows: Vec<ClaimedRow> = sqlx::query_as(
        "with resumed as (
             -- An attempt is open: it must be polled on, whatever else waits.
             select id from unnest($3::text[]) as wanted (lane)
             cross join lateral (
                 select id from apalis.jobs
                 where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'resume'
                   and metadata -> 'lane' = wanted.lane and run_at <= now()
                   and ($5::text is null or metadata -> 'group' = $5)
                 order by run_at, id limit $4
                 for update skip locked) as waiting
             limit $4
         ), fresh as (
             select id from unnest($3::text[]) as wanted (lane)
             cross join lateral (
                 select id, run_at from apalis.jobs
                 where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'resume'
                   and metadata -> 'lane' = wanted.lane and run_at <= now()
                   and ($5::text is null or metadata -> 'group' = $5)
                 order by run_at, id limit $4 - (select count(*) from resumed)
                 for update skip locked) as waiting
             order by run_at, id
             limit $4 - (select count(*) from resumed)
         ), picked as (
             select id from resumed union all select id from fresh
         )
         update apalis.jobs as job
         set status = 'Running', lock_by = $2, lock_at = now(), attempts = job.attempts + 1
         from picked where job.id = picked.id
         returning job.id, job.job, job.attempts, job.idempotency_key, job.metadata ? 'resume'",
    )
    .bind(&*served.queue)
    .bind(&**worker)
    .bind(&served.lanes)
    .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
    .bind(&served.group)
    .fetch_all(pool)
    .await?;
    let mut jobs: Vec<(bool, Job)> = rows.into_iter().map(|row| (row.4, held(served, worker, row))).collect();
    jobs.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.id.cmp(&right.1.id)));
    Ok(jobs.into_iter().map(|(_, job)| job).collect())
}

/// Claims one job by its key, if it is due and nobody holds it.
pub(super) async fn claim_key(pool: &PgPool, served: &Served, worker: &Arc<str>, key: &str) -> Result<Option<Job>, sqlx::Error> {
    let row: Option<ClaimedRow> = sqlx::query_as(
        "with picked as (
             select id from apalis.jobs
             where job_type = $1 and idempotency_key = $3 and status = 'Pending' and run_at <= now()
             for update skip locked
         )
         update apalis.jobs as job
         set status = 'Running', lock_by = $2, lock_at = now(), attempts = job.attempts + 1
         from picked where job.id = picked.id
         returning job.id, job.job, job.attempts, job.idempotency_key, job.metadata ? 'resume'",
    )
    .bind(&*served.queue)
    .bind(&**worker)
    .bind(key)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| held(served, worker, row)))
}

fn held(served: &Served, worker: &Arc<str>, (id, payload, claim, key, _): ClaimedRow) -> Job {
    Job {
        key: key.unwrap_or_else(|| id.clone()),
        id,
        queue: Arc::clone(&served.queue),
        payload,
        claim,
        worker: Arc::clone(worker),
        tokens: JobTokens::default(),
        _slot: Arc::new(served.slots.take()),
    }
}

/// How long until the next job that waits for its time is due; none: nothing waits.
pub(super) async fn next_due(pool: &PgPool, served: &Served) -> Result<Option<Duration>, sqlx::Error> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from min(run_at) - now())::float8
         from unnest($2::text[]) as wanted (lane)
         cross join lateral (
             select run_at from apalis.jobs
             where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata -> 'lane' = wanted.lane
               and ($3::text is null or metadata -> 'group' = $3)
             order by run_at, id limit 1) as waiting",
    )
    .bind(&*served.queue)
    .bind(&served.lanes)
    .bind(&served.group)
    .fetch_one(pool)
    .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}
