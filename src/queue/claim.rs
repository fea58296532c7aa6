//! The claim: as many jobs as there are free slots, straight to `Running`, each with the number of its claim.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::{connections::Connections, error::QueueError, job::Job, slots::Slots, tokens::JobTokens};

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

/// id, payload, number of the claim, key, whether an attempt is open, crashes, lane, when it was due.
type ClaimedRow = (String, Vec<u8>, i32, Option<String>, bool, i32, Option<String>, DateTime<Utc>);

/// Up to where each lane was claimed. A hint only: what was claimed leaves dead entries at the head of its index, and this is
/// where they end. Whoever finds less than he wanted looks from the beginning again, and so does everybody now and then: what
/// was put back, or committed late, stands before it.
pub(super) type Cursor = HashMap<String, (DateTime<Utc>, String)>;

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
             returning job.id, job.job, job.attempts, job.idempotency_key, job.metadata ? 'resume',
                       coalesce((job.metadata -> 'crashes')::integer, 0), job.metadata -> 'lane', job.run_at"
        )
    };
}

/// From some lanes: the oldest of each by its index, then the oldest of these.
const CLAIM: &str = claim_statement!(
    resumed: "select id from unnest($3::text[]) as wanted (lane)
              cross join lateral (
                  select id from apalis.jobs
                  where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'resume'
                    and metadata -> 'lane' = wanted.lane and not metadata ? 'alone' and not metadata ? 'solitary'
                    and run_at <= now()
                  order by run_at, id limit $4
                  for update skip locked) as waiting
",
    fresh: "select id from unnest($3::text[], $5::timestamptz[], $6::text[]) as wanted (lane, after, after_id)
            cross join lateral (
                select id, run_at from apalis.jobs
                where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'resume'
                  and metadata -> 'lane' = wanted.lane and not metadata ? 'alone' and not metadata ? 'solitary'
                  and run_at <= now() and (run_at, id) > (wanted.after, wanted.after_id)
                order by run_at, id limit $4 - (select count(*) from resumed)
                for update skip locked) as waiting
            -- A lane that is paused for this worker gives nothing new.
            where not exists (select from imagemill.pauses p
                              where p.lane = wanted.lane and (p.until is null or p.until > now()) and p.token_hash in ('', $7))
"
);

/// From one group: by the index of groups, whatever else waits in the lanes.
const CLAIM_OF_GROUP: &str = claim_statement!(
    resumed: "select id from (
                  select id from apalis.jobs
                  where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'resume'
                    and metadata -> 'group' = $5 and metadata -> 'lane' = any ($3) and not metadata ? 'solitary'
                    and run_at <= now()
                  order by run_at, id limit $4
                  for update skip locked) as waiting
",
    fresh: "select id from (
                select id, run_at from apalis.jobs
                where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'resume'
                  and metadata -> 'group' = $5 and not metadata ? 'solitary'
                  and metadata -> 'lane' = any (array(
                      select lane from unnest($3) as wanted (lane)
                      where not exists (select from imagemill.pauses p
                                        where p.lane = wanted.lane and (p.until is null or p.until > now())
                                          and p.token_hash in ('', $6))))
                  and run_at <= now()
                order by run_at, id limit $4 - (select count(*) from resumed)
                for update skip locked) as waiting
"
);

/// Claims up to so many. Cells with an open attempt come before any other; then the oldest.
///
/// Limits, pauses, turns and budgets of the lanes belong here, under the lanes' row locks (design, section 8).
pub(super) async fn claim(
    connections: &Connections,
    served: &Served,
    worker: &Arc<str>,
    token_hash: &str,
    wanted: usize,
    cursor: &mut Cursor,
) -> Result<Vec<Job>, QueueError> {
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
    let rows = connections.statement(async |connection| {
        let statement = if served.group.is_some() { CLAIM_OF_GROUP } else { CLAIM };
        let query = sqlx::query_as(statement).bind(&*served.queue).bind(&**worker).bind(&served.lanes).bind(limit);
        let query = if let Some(group) = &served.group {
            query.bind(group).bind(token_hash)
        } else {
            let after = served.lanes.iter().map(|lane| cursor.get(lane).map_or(DateTime::UNIX_EPOCH, |(run_at, _)| *run_at));
            let after_id = served.lanes.iter().map(|lane| cursor.get(lane).map_or(String::new(), |(_, id)| id.clone()));
            query.bind(after.collect::<Vec<_>>()).bind(after_id.collect::<Vec<_>>()).bind(token_hash)
        };
        Ok(query.fetch_all(connection).await?)
    });
    let rows: Vec<ClaimedRow> = rows.await?;
    if rows.len() < wanted {
        cursor.clear();
    } else {
        for (id, .., is_resumed, _, lane, run_at) in &rows {
            let Some(lane) = lane.as_ref().filter(|_| !is_resumed) else { continue };
            let reached = (*run_at, id.clone());
            if cursor.get(lane).is_none_or(|before| *before < reached) {
                cursor.insert(lane.clone(), reached);
            }
        }
    }
    let mut jobs: Vec<Job> = rows.into_iter().map(|row| held(served, worker, row)).collect();
    jobs.sort_by(|left, right| right.is_resumed.cmp(&left.is_resumed).then_with(|| left.id.cmp(&right.id)));
    Ok(jobs)
}

/// Claims one job that is to be alone in its process, since it may be what ended others.
pub(super) async fn claim_solitary(
    connections: &Connections,
    served: &Served,
    worker: &Arc<str>,
    token_hash: &str,
) -> Result<Option<Job>, QueueError> {
    let row: Option<ClaimedRow> = connections
        .statement(async |connection| {
            let query = sqlx::query_as(
                "with picked as (
                 select id from apalis.jobs
                 where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata ? 'solitary'
                   and metadata -> 'lane' = any ($3) and run_at <= now()
                   and case when $4::text is null then not metadata ? 'alone' else metadata -> 'group' = $4 end
                   and (metadata ? 'resume'
                        or not exists (select from imagemill.pauses p
                                       where p.lane = metadata -> 'lane' and (p.until is null or p.until > now())
                                         and p.token_hash in ('', $5)))
                 order by run_at, id limit 1
                 for update skip locked
             )
             update apalis.jobs as job
             set status = 'Running', lock_by = $2, lock_at = now(), attempts = job.attempts + 1
             from picked where job.id = picked.id
             returning job.id, job.job, job.attempts, job.idempotency_key, job.metadata ? 'resume',
                       coalesce((job.metadata -> 'crashes')::integer, 0), job.metadata -> 'lane', job.run_at",
            )
            .bind(&*served.queue)
            .bind(&**worker)
            .bind(&served.lanes)
            .bind(&served.group)
            .bind(token_hash);
            Ok(query.fetch_optional(connection).await?)
        })
        .await?;
    Ok(row.map(|row| held(served, worker, row)))
}

/// Puts back jobs that were claimed and not begun.
pub(super) async fn put_back(connections: &Connections, jobs: &[Job]) -> Result<(), QueueError> {
    connections
        .statement(async |connection| {
            sqlx::query(
                "with locked as materialized (
                 select id, lock_by, attempts, status from apalis.jobs where id = any ($1) order by id for update
             )
             update apalis.jobs as job set status = 'Pending', lock_by = null, lock_at = null
             from unnest($1::text[], $2::text[], $3::integer[]) as given (id, worker, claim) join locked using (id)
             where job.id = any ($1) and job.id = given.id
               and locked.lock_by = worker and locked.attempts = claim and locked.status = 'Running'",
            )
            .bind(jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.worker.to_string()).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.claim).collect::<Vec<_>>())
            .execute(connection)
            .await?;
            Ok(())
        })
        .await
}

/// Claims one job by its key, if it is due and nobody holds it.
pub(super) async fn claim_key(
    connections: &Connections,
    served: &Served,
    worker: &Arc<str>,
    key: &str,
) -> Result<Option<Job>, QueueError> {
    let row: Option<ClaimedRow> = connections
        .statement(async |connection| {
            let query = sqlx::query_as(
                "with picked as (
             select id from apalis.jobs
             where job_type = $1 and idempotency_key = $3 and status = 'Pending' and run_at <= now()
             for update skip locked
         )
         update apalis.jobs as job
         set status = 'Running', lock_by = $2, lock_at = now(), attempts = job.attempts + 1
         from picked where job.id = picked.id
         returning job.id, job.job, job.attempts, job.idempotency_key, job.metadata ? 'resume',
                   coalesce((job.metadata -> 'crashes')::integer, 0), job.metadata -> 'lane', job.run_at",
            )
            .bind(&*served.queue)
            .bind(&**worker)
            .bind(key);
            Ok(query.fetch_optional(connection).await?)
        })
        .await?;
    Ok(row.map(|row| held(served, worker, row)))
}

/// Claims one cell of a paused lane: a probe. Not one more than the lane has places.
pub(super) async fn claim_probe(
    connections: &Connections,
    served: &Served,
    worker: &Arc<str>,
    lane: &str,
) -> Result<Option<Job>, QueueError> {
    let row: Option<ClaimedRow> = connections
        .statement(async |connection| {
            let query = sqlx::query_as(
                "with picked as (
                 select id from apalis.jobs
                 where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%' and metadata -> 'lane' = $3
                   and case when $4::text is null then not metadata ? 'alone' else metadata -> 'group' = $4 end
                   and not metadata ? 'resume' and not metadata ? 'solitary' and run_at <= now()
                   and (select count(*) from imagemill.attempts where lane = $3 and finished_at is null)
                       < (select max_in_flight from imagemill.lanes where lane = $3)
                 order by run_at, id limit 1
                 for update skip locked
             )
             update apalis.jobs as job
             set status = 'Running', lock_by = $2, lock_at = now(), attempts = job.attempts + 1
             from picked where job.id = picked.id
             returning job.id, job.job, job.attempts, job.idempotency_key, job.metadata ? 'resume',
                       coalesce((job.metadata -> 'crashes')::integer, 0), job.metadata -> 'lane', job.run_at",
            )
            .bind(&*served.queue)
            .bind(&**worker)
            .bind(lane)
            .bind(&served.group);
            Ok(query.fetch_optional(connection).await?)
        })
        .await?;
    Ok(row.map(|row| Job { is_probe: true, ..held(served, worker, row) }))
}

fn held(served: &Served, worker: &Arc<str>, (id, payload, claim, key, is_resumed, crashes, ..): ClaimedRow) -> Job {
    Job {
        key: key.unwrap_or_else(|| id.clone()),
        id,
        queue: Arc::clone(&served.queue),
        payload: payload.into(),
        claim,
        crashes,
        is_resumed,
        is_probe: false,
        worker: Arc::clone(worker),
        tokens: JobTokens::default(),
        memory: Arc::default(),
        _slot: Arc::new(served.slots.take()),
    }
}

/// What waits in a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// How long until the next job that anybody may take is due.
    pub(super) due: Option<Duration>,
    /// Whether one waits that is to be alone.
    pub(super) has_solitary: bool,
}

/// What waits in these queues, by queue, in one statement. Of a lane that is paused for this worker what is new is due when the
/// pause ends by itself, and what is resumed as ever.
pub(super) async fn waiting(
    connections: &Connections,
    served: &[&Served],
    token_hash: &str,
) -> Result<HashMap<String, Waiting>, QueueError> {
    let rows: Vec<(String, Option<f64>, bool)> = connections
        .statement(async |connection| {
            // One row a queue and lane. The same group stands behind every queue of an engine that has one.
            let wanted = served.iter().flat_map(|served| served.lanes.iter().map(|lane| (&*served.queue, lane.as_str())));
            let (queues, lanes): (Vec<&str>, Vec<&str>) = wanted.unzip();
            let group = served.iter().find_map(|served| served.group.clone());
            let theirs = if group.is_some() {
                "metadata -> 'group' = $3"
            } else {
                "not metadata ? 'alone' and $3::text is null"
            };
            let next = format!(
                "select run_at from apalis.jobs
                 where job_type = wanted.queue and status = 'Pending' and job_type like 'imagemill.%' and {theirs}
                   and metadata -> 'lane' = wanted.lane and not metadata ? 'solitary'"
            );
            let statement = format!(
                "select wanted.queue,
                    extract(epoch from min(case when not paused.is_paused then next.run_at
                                                when paused.is_endless then resumed.run_at
                                                else least(resumed.run_at, greatest(next.run_at, paused.until)) end)
                                       - now())::float8,
                    exists (select from apalis.jobs
                            where job_type = wanted.queue and status = 'Pending' and job_type like 'imagemill.%'
                              and metadata ? 'solitary' and run_at <= now()
                            order by job_type, run_at, id limit 1)
             from unnest($1::text[], $2::text[]) as wanted (queue, lane)
             cross join lateral (
                 select count(*) > 0 as is_paused, coalesce(bool_or(until is null), false) as is_endless, max(until) as until
                 from imagemill.pauses p
                 where p.lane = wanted.lane and (p.until is null or p.until > now()) and p.token_hash in ('', $4)) as paused
             left join lateral ({next} order by run_at, id limit 1) as next on true
             left join lateral ({next} and metadata ? 'resume' and paused.is_paused order by run_at, id limit 1) as resumed on true
             group by wanted.queue"
            );
            let query = sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(queues).bind(lanes).bind(group);
            let query = query.bind(token_hash);
            Ok(query.fetch_all(connection).await?)
        })
        .await?;
    let due = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    Ok(rows.into_iter().map(|(queue, seconds, has_solitary)| (queue, Waiting { due: seconds.map(due), has_solitary })).collect())
}
