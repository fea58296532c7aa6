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

macro_rules! claim_statement {
    (resumed: $resumed:literal, fresh: $fresh:literal) => {
        concat!(
            "with resumed as (
                 -- An attempt is open: it must be polled on, whatever else waits.
                 ",
            $resumed,
            "    limit $4
             ), fresh as (
                 ",
            $fresh,
            "    order by run_at, id
                 limit $4 - (select count(*) from resumed)
             ), picked as (
                 select id from resumed union all select id from fresh
             )
             update apalis.jobs as job
             set status = 'Running', lock_by = $2, lock_at = now(), attempts = job.attempts + 1
             from picked where job.id = picked.id
             returning job.id, job.job, job.attempts, job.idempotency_key, job.metadata ? 'resume'"
        )
    };
}

/// From some lanes: the oldest of each by its index, then the oldest of these.
const CLAIM: &str = claim_statement!(
    resumed: "select id from unnest($3::text[]) as wanted (lane)
              cross join lateral (
                  select id from apalis.jobs
                  where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'resume'
                    and metadata -> 'lane' = wanted.lane and not metadata ? 'alone' and run_at <= now()
                  order by run_at, id limit $4
                  for update skip locked) as waiting
",
    fresh: "select id from unnest($3::text[]) as wanted (lane)
            cross join lateral (
                select id, run_at from apalis.jobs
                where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'resume'
                  and metadata -> 'lane' = wanted.lane and not metadata ? 'alone' and run_at <= now()
                order by run_at, id limit $4 - (select count(*) from resumed)
                for update skip locked) as waiting
"
);

/// From one group: by the index of groups, whatever else waits in the lanes.
const CLAIM_OF_GROUP: &str = claim_statement!(
    resumed: "select id from (
                  select id from apalis.jobs
                  where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'resume'
                    and metadata -> 'group' = $5 and metadata -> 'lane' = any ($3) and run_at <= now()
                  order by run_at, id limit $4
                  for update skip locked) as waiting
",
    fresh: "select id from (
                select id, run_at from apalis.jobs
                where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'resume'
                  and metadata -> 'group' = $5 and metadata -> 'lane' = any ($3) and run_at <= now()
                order by run_at, id limit $4 - (select count(*) from resumed)
                for update skip locked) as waiting
"
);

/// Claims up to the number of free slots. Cells with an open attempt come before any other; then the oldest.
///
/// Limits, pauses, turns and budgets of the lanes belong here, under the lanes' row locks (design, section 8).
pub(super) async fn claim(pool: &PgPool, served: &Served, worker: &Arc<str>) -> Result<Vec<Job>, sqlx::Error> {
    let wanted = i64::try_from(served.slots.free()).unwrap_or(i64::MAX);
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let statement = if served.group.is_some() { CLAIM_OF_GROUP } else { CLAIM };
    let query = sqlx::query_as(statement).bind(&*served.queue).bind(&**worker).bind(&served.lanes).bind(wanted);
    let query = if let Some(group) = &served.group { query.bind(group) } else { query };
    let rows: Vec<ClaimedRow> = query.fetch_all(pool).await?;
    let mut jobs: Vec<(bool, Job)> = rows.into_iter().map(|row| (row.4, held(served, worker, row))).collect();
    jobs.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.id.cmp(&right.1.id)));
    Ok(jobs.into_iter().map(|(_, job)| job).collect())
}

/// Puts back jobs that were claimed and not begun.
pub(super) async fn put_back(pool: &PgPool, worker: &str, jobs: &[Job]) -> Result<(), sqlx::Error> {
    let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
    let claims: Vec<i32> = jobs.iter().map(|job| job.claim).collect();
    sqlx::query(
        "update apalis.jobs as job set status = 'Pending', lock_by = null, lock_at = null
         from unnest($2::text[], $3::integer[]) as mine (id, claim)
         where job.id = mine.id and job.lock_by = $1 and job.attempts = mine.claim and job.status = 'Running'",
    )
    .bind(worker)
    .bind(ids)
    .bind(claims)
    .execute(pool)
    .await?;
    Ok(())
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
    let statement = if served.group.is_some() {
        "select extract(epoch from run_at - now())::float8 from apalis.jobs
         where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%'
           and metadata -> 'group' = $3 and metadata -> 'lane' = any ($2)
         order by run_at, id limit 1"
    } else {
        "select extract(epoch from min(run_at) - now())::float8
         from unnest($2::text[]) as wanted (lane)
         cross join lateral (
             select run_at from apalis.jobs
             where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata -> 'lane' = wanted.lane
               and not metadata ? 'alone'
             order by run_at, id limit 1) as waiting"
    };
    let query = sqlx::query_scalar(statement).bind(&*served.queue).bind(&served.lanes);
    let query = if let Some(group) = &served.group { query.bind(group) } else { query };
    let seconds: Option<Option<f64>> = query.fetch_optional(pool).await?;
    Ok(seconds.flatten().map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}
