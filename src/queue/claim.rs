//! The claim: as many jobs as there are free slots, straight to `Running`, each with the number of its claim.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use tokio::time::Instant;

use super::{
    connections::Connections, error::QueueError, grant::Grant, hint::Hint, job::Job, reconcile::PORTION, slots::Slots,
    tokens::JobTokens, turns::Candidates,
};

/// Words of `imagemill.claim`: a lane without a free place, a group without a job that is due, a group that may take nothing.
const FULL: &str = "limit";
const EMPTY: &str = "empty";
const BUDGET: &str = "budget";

/// A limit that is in the way is looked at again so often.
const LOOK: Duration = Duration::from_secs(1);

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

/// A row of `imagemill.claim`: a job where it has an id, else why less was taken.
#[derive(Debug, FromRow)]
struct ClaimedRow {
    id: Option<String>,
    job: Option<Vec<u8>>,
    claim: Option<i32>,
    key: Option<String>,
    is_resumed: Option<bool>,
    crashes: Option<i32>,
    lane: Option<String>,
    group: Option<String>,
    run_at: Option<DateTime<Utc>>,
    wait: Option<f64>,
}

/// What is claimed.
#[derive(Debug)]
enum Wanted<'a> {
    /// So many, of whatever groups have their turn.
    Turn(usize, Option<Candidates>),
    /// The one of this key.
    Key(&'a str),
    /// One that is to be alone.
    Solitary,
    /// One of this lane, to try whether it works again: whatever pauses say.
    Probe(&'a str),
}

/// What a claim took, and what kept it from taking more.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// The jobs; those with an open attempt first.
    pub(super) jobs: Vec<Job>,
    /// When a lane's limit, a pause or a budget is to be looked at again; none: nothing of that kind was in the way.
    pub(super) look_in: Option<Duration>,
    /// Whether a lane has no place left: the next that is given back is to be taken at once.
    pub(super) is_full: bool,
    /// Whether something is due of a group that may take nothing: its budget is spent, or its time is over.
    pub(super) met_bound: bool,
}

async fn call(
    connections: &Connections,
    served: &Served,
    worker: &str,
    token_hash: &str,
    wanted: &Wanted<'_>,
    hint: Option<&Hint>,
) -> Result<(Vec<ClaimedRow>, Instant, Instant), QueueError> {
    let (count, candidates, key) = match wanted {
        Wanted::Turn(count, candidates) => (i32::try_from(*count).unwrap_or(i32::MAX), candidates.as_ref(), None),
        Wanted::Key(key) => (1, None, Some(*key)),
        Wanted::Solitary | Wanted::Probe(_) => (1, None, None),
    };
    let lanes = match wanted {
        Wanted::Probe(lane) => vec![(*lane).to_owned()],
        _ => served.lanes.clone(),
    };
    // Without a token no pause holds.
    let token_hash = (!matches!(wanted, Wanted::Probe(_))).then_some(token_hash);
    let connections = connections.for_claims();
    let rows = connections.statement(async |connection| {
        // Taken here, with the connection in hand.
        let sent = Instant::now();
        let query = sqlx::query_as(
            "select id, job, claim, key, is_resumed, crashes, lane, \"group\", run_at, wait
             from imagemill.claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        )
        .bind(&*served.queue)
        .bind(worker)
        .bind(count)
        .bind(&lanes)
        .bind(token_hash)
        .bind(hint.and_then(Hint::oldest))
        .bind(&served.group)
        .bind(key)
        .bind(matches!(wanted, Wanted::Solitary))
        .bind(candidates.map(|candidates| &candidates.lanes))
        .bind(candidates.map(|candidates| &candidates.groups))
        .bind(candidates.map(|candidates| &candidates.owners))
        .bind(candidates.map(|candidates| &candidates.weights))
        .bind(candidates.map(|candidates| &candidates.budgets))
        .bind(candidates.map(|candidates| &candidates.after))
        .bind(candidates.map(|candidates| &candidates.after_ids));
        Ok((query.fetch_all(connection).await?, sent, Instant::now()))
    });
    rows.await
}

/// Claims up to so many. Cells with an open attempt come before any other; then each free place of a lane goes to the owner with
/// the fewest cells in flight, and to the one of his groups that has the fewest for its weight. Limits, pauses and budgets of the
/// lanes are kept by the claim itself (src/db/claim.sql).
pub(super) async fn claim(
    connections: &Connections,
    served: &Served,
    worker: &Arc<str>,
    token_hash: &str,
    wanted: usize,
    hint: &mut Hint,
) -> Result<Claimed, QueueError> {
    if wanted == 0 {
        return Ok(Claimed::default());
    }
    let began = Instant::now();
    hint.refresh(connections, served).await?;
    let looked = began.elapsed();
    let turn = Wanted::Turn(wanted, hint.candidates(served, wanted));
    let (rows, sent, answered) = call(connections, served, worker, token_hash, &turn, Some(hint)).await?;
    let mut claimed = Claimed::default();
    for row in &rows {
        match (&row.id, &row.lane, &row.group, row.run_at) {
            (Some(id), Some(lane), Some(group), Some(run_at)) if row.is_resumed == Some(false) => {
                hint.took(lane, group, run_at, id);
            }
            (Some(_), ..) => {}
            (None, Some(lane), Some(group), _) if row.key.as_deref() == Some(EMPTY) => hint.emptied(lane, group),
            (None, None, None, Some(oldest)) => hint.counted(oldest),
            (None, lane, group, _) => {
                if let (Some(BUDGET), Some(lane), Some(group)) = (row.key.as_deref(), lane, group) {
                    hint.spent(lane, group);
                }
                claimed.is_full |= row.key.as_deref() == Some(FULL);
                claimed.met_bound |= row.key.as_deref() == Some(BUDGET);
                let look_in = Duration::try_from_secs_f64(row.wait.unwrap_or(1.0).max(0.0)).unwrap_or(LOOK);
                claimed.look_in = Some(claimed.look_in.map_or(look_in, |before| before.min(look_in)));
            }
        }
    }
    let lock_wait = waited(&rows);
    claimed.jobs = jobs(served, worker, rows, sent, answered);
    let took = began.elapsed();
    hint.ended(wanted, claimed.jobs.len(), claimed.look_in.is_some());
    hint.look_ahead(connections, served);
    // The benchmark reads it.
    tracing::debug!(
        queue = &*served.queue,
        wanted,
        taken = claimed.jobs.len(),
        took_ms = milliseconds(took),
        looked_ms = milliseconds(looked),
        waited_ms = lock_wait.unwrap_or_default() * 1000.0,
        "claimed"
    );
    Ok(claimed)
}

/// Claims one job that is to be alone in its process, since it may be what ended others.
pub(super) async fn claim_solitary(
    connections: &Connections,
    served: &Served,
    worker: &Arc<str>,
    token_hash: &str,
) -> Result<Option<Job>, QueueError> {
    let (rows, sent, answered) = call(connections, served, worker, token_hash, &Wanted::Solitary, None).await?;
    Ok(jobs(served, worker, rows, sent, answered).pop())
}

/// Claims one cell of a paused lane: a probe. Not one more than the lane has places.
pub(super) async fn claim_probe(
    connections: &Connections,
    served: &Served,
    worker: &Arc<str>,
    lane: &str,
) -> Result<Option<Job>, QueueError> {
    let (rows, sent, answered) = call(connections, served, worker, "", &Wanted::Probe(lane), None).await?;
    let job = jobs(served, worker, rows, sent, answered).pop();
    // One with an open attempt submits nothing.
    Ok(job.map(|job| Job { is_probe: !job.is_resumed, ..job }))
}

/// Claims one job by its key, if it is due, nobody holds it and its lane has a place for it.
pub(super) async fn claim_key(
    connections: &Connections,
    served: &Served,
    worker: &Arc<str>,
    key: &str,
) -> Result<Option<Job>, QueueError> {
    let (rows, sent, answered) = call(connections, served, worker, "", &Wanted::Key(key), None).await?;
    Ok(jobs(served, worker, rows, sent, answered).pop())
}

/// Puts back jobs that were claimed and not begun.
pub(super) async fn put_back(connections: &Connections, jobs: &[Job]) -> Result<(), QueueError> {
    for portion in jobs.chunks(PORTION) {
        put_back_some(connections, portion).await?;
    }
    Ok(())
}

async fn put_back_some(connections: &Connections, jobs: &[Job]) -> Result<(), QueueError> {
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

/// Seconds for which the lanes' locks were waited for.
fn waited(rows: &[ClaimedRow]) -> Option<f64> {
    rows.iter().find(|row| row.id.is_none() && row.lane.is_none() && row.group.is_none()).and_then(|row| row.wait)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The claimed jobs, those with an open attempt first.
fn jobs(served: &Served, worker: &Arc<str>, rows: Vec<ClaimedRow>, sent: Instant, answered: Instant) -> Vec<Job> {
    let lock_wait = waited(&rows);
    // One name for all jobs of a group.
    let mut groups: HashSet<Arc<str>> = HashSet::new();
    let held = |row: ClaimedRow| {
        let id = row.id?;
        let group = row.group.unwrap_or_default();
        let group = groups.get(group.as_str()).cloned().unwrap_or_else(|| {
            let group: Arc<str> = group.into();
            groups.insert(Arc::clone(&group));
            group
        });
        Some(Job {
            key: row.key.unwrap_or_else(|| id.clone()),
            id,
            queue: Arc::clone(&served.queue),
            group,
            payload: row.job?.into(),
            claim: row.claim?,
            crashes: row.crashes?,
            is_resumed: row.is_resumed?,
            is_probe: false,
            grant: row.wait.map(|wait| Grant::new(wait, lock_wait.unwrap_or_default(), sent, answered)),
            worker: Arc::clone(worker),
            tokens: JobTokens::default(),
            memory: Arc::default(),
            _slot: Arc::new(served.slots.take()),
        })
    };
    let mut jobs: Vec<Job> = rows.into_iter().filter_map(held).collect();
    jobs.sort_by(|left, right| right.is_resumed.cmp(&left.is_resumed).then_with(|| left.id.cmp(&right.id)));
    jobs
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
            let theirs = if group.is_some() { "metadata -> 'group' = $3" } else { "not metadata ? 'alone' and $3::text is null" };
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
             left join lateral ({next} order by run_at limit 1) as next on true
             left join lateral ({next} and metadata ? 'resume' and paused.is_paused
                                and not ($3::text is null and imagemill.is_for_others(wanted.lane, $4))
                                order by run_at limit 1) as resumed on true
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
