//! Jobs go in, by arrays, in the caller's transaction.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// The channel on which a queue's name is sent once a statement that made work for it.
pub const WAKE_CHANNEL: &str = "imagemill_jobs";

/// Jobs of one queue and one group.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// What they belong to: a task.
    pub group: &'a str,
    /// Whose they are.
    pub owner: &'a str,
    /// Taken only by workers that were started for this group: no other may bring them to its own upstream.
    pub is_alone: bool,
    /// One a job: its idempotency key.
    pub keys: Vec<String>,
    /// One a job: its lane; empty where the queue has none.
    pub lanes: Vec<String>,
    /// One a job: its payload.
    pub payloads: Vec<Vec<u8>>,
}

/// Enqueues; a key that is there already stays as it is. Returns how many jobs are new.
///
/// `run_at` is the database's `now()`, and one notification is sent, both when the caller commits.
///
/// # Errors
/// What PostgreSQL says.
pub async fn enqueue(connection: &mut PgConnection, batch: &Batch<'_>) -> Result<u64, sqlx::Error> {
    let ids: Vec<String> = batch.keys.iter().map(|_| Uuid::now_v7().to_string()).collect();
    let done = sqlx::query(
        "with added as (
             insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata, idempotency_key)
             select id, $1, payload, 'Pending', 0, 1, now(), 0,
                    hstore(array['lane', 'group', 'owner'], array[lane, $2, $3])
                        || case when $9 then hstore('alone', 'true') else ''::hstore end, key
             from unnest($4::text[], $5::bytea[], $6::text[], $7::text[]) as given (id, payload, lane, key)
             on conflict (job_type, idempotency_key) do nothing
             returning 1
         ), woken as (
             select pg_notify($8, $1) where exists (select from added)
         )
         select (select count(*) from added), (select count(*) from woken)",
    )
    .bind(batch.queue)
    .bind(batch.group)
    .bind(batch.owner)
    .bind(&ids)
    .bind(&batch.payloads)
    .bind(&batch.lanes)
    .bind(&batch.keys)
    .bind(WAKE_CHANNEL)
    .bind(batch.is_alone)
    .fetch_one(connection)
    .await?;
    let added: i64 = sqlx::Row::try_get(&done, 0)?;
    Ok(added.unsigned_abs())
}

/// Whether any of our jobs is pending, those waiting for a retry included, or running, on whatever worker, those that
/// other groups keep alone left out; of one group, if one is named, in these queues.
///
/// # Errors
/// What PostgreSQL says.
pub async fn any_open(connection: &mut PgConnection, queues: &[String], group: Option<&str>) -> Result<bool, sqlx::Error> {
    // One look a state, each in the order of its own partial index, so that no finished job is looked at.
    let statement = if group.is_some() {
        "select exists (select from apalis.jobs
                        where job_type = any ($2) and status = 'Pending' and job_type like 'imagemill.%' and metadata -> 'group' = $1)
             or exists (select from (select metadata from apalis.jobs
                                     where lock_by is not null and job_type like 'imagemill.%' order by lock_by) as running
                        where metadata -> 'group' = $1)"
    } else {
        "select exists (select from (select 1 from apalis.jobs where status = 'Pending' and job_type like 'imagemill.%'
                                                                 and not metadata ? 'alone'
                                     order by job_type, metadata -> 'lane', run_at limit 1) as pending)
             or exists (select from (select metadata from apalis.jobs where lock_by is not null and job_type like 'imagemill.%'
                                     order by lock_by) as running
                        where not metadata ? 'alone')"
    };
    let query = sqlx::query_scalar(statement);
    let query = if let Some(group) = group { query.bind(group).bind(queues) } else { query };
    query.fetch_one(connection).await
}

/// Of these keys, those with an open job (pending or running).
///
/// # Errors
/// What PostgreSQL says.
pub async fn open_keys(connection: &mut PgConnection, queue: &str, keys: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select idempotency_key from apalis.jobs
         where job_type = $1 and idempotency_key = any ($2) and status in ('Pending', 'Running')",
    )
    .bind(queue)
    .bind(keys)
    .fetch_all(connection)
    .await
}

/// A key with its job.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct HeldKey {
    /// The key.
    pub key: String,
    /// Whether a worker holds the job.
    pub is_running: bool,
}

/// Locks the jobs of these keys in the order of their ids: the first lock of whoever opens ended cells again. Keys without a job
/// are left out.
///
/// # Errors
/// What PostgreSQL says.
pub async fn lock_keys(connection: &mut PgConnection, queue: &str, keys: &[String]) -> Result<Vec<HeldKey>, sqlx::Error> {
    sqlx::query_as(
        "select idempotency_key as key, status = 'Running' as is_running from apalis.jobs
         where job_type = $1 and idempotency_key = any ($2) order by id for update",
    )
    .bind(queue)
    .bind(keys)
    .fetch_all(connection)
    .await
}

/// Jobs that wait are due, as if they had never run: their cells had ended under them, and are opened again. To be called under
/// their locks.
///
/// # Errors
/// What PostgreSQL says.
pub async fn begin_anew(connection: &mut PgConnection, queue: &str, keys: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update apalis.jobs
         set run_at = now(), metadata = delete(metadata, array['resume', 'crashes', 'solitary', 'ledger', 'cancel'])
         where job_type = $1 and idempotency_key = any ($2) and status = 'Pending'",
    )
    .bind(queue)
    .bind(keys)
    .execute(connection)
    .await?;
    Ok(())
}

/// Jobs that wait are to be claimed as what has an open attempt: an earlier one of theirs is to be asked for, which takes no place
/// and no budget. A claim of this kind submits nothing.
///
/// # Errors
/// What PostgreSQL says.
pub async fn resume(connection: &mut PgConnection, queue: &str, keys: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update apalis.jobs set metadata = metadata || hstore('resume', 'true')
         where job_type = $1 and idempotency_key = any ($2) and status = 'Pending'",
    )
    .bind(queue)
    .bind(keys)
    .execute(connection)
    .await?;
    Ok(())
}

/// Jobs that wait are due at these times, and not before. What has an open attempt is due all the same.
///
/// # Errors
/// What PostgreSQL says.
pub async fn put_off(
    connection: &mut PgConnection,
    queue: &str,
    keys: &[String],
    until: &[DateTime<Utc>],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update apalis.jobs set run_at = greatest(run_at, given.until)
         from unnest($2::text[], $3::timestamptz[]) as given (key, until)
         where job_type = $1 and idempotency_key = given.key and status = 'Pending' and not metadata ? 'resume'",
    )
    .bind(queue)
    .bind(keys)
    .bind(until)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends jobs that wait, where their cells have ended. To be called under their locks.
///
/// # Errors
/// What PostgreSQL says.
pub async fn kill_pending(connection: &mut PgConnection, queue: &str, keys: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update apalis.jobs set status = 'Killed', done_at = now()
         where job_type = $1 and idempotency_key = any ($2) and status = 'Pending'",
    )
    .bind(queue)
    .bind(keys)
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts jobs back to work whatever became of them: an open one stays as it is, an ended one goes back to pending, as if it had
/// never run, a missing one is enqueued. Retry, sweep and late evidence use it.
///
/// # Errors
/// What PostgreSQL says.
pub async fn reopen(connection: &mut PgConnection, batch: &Batch<'_>) -> Result<u64, sqlx::Error> {
    let reopened = sqlx::query(
        "update apalis.jobs
         set status = 'Pending', run_at = now(), lock_by = null, lock_at = null, done_at = null,
             metadata = delete(metadata, array['resume', 'crashes', 'solitary', 'ledger', 'cancel'])
         where job_type = $1 and idempotency_key = any ($2) and status not in ('Pending', 'Running')",
    )
    .bind(batch.queue)
    .bind(&batch.keys)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if reopened > 0 {
        sqlx::query("select pg_notify($1, $2)").bind(WAKE_CHANNEL).bind(batch.queue).execute(&mut *connection).await?;
    }
    Ok(reopened + enqueue(connection, batch).await?)
}
