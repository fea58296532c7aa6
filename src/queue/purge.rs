//! What goes with cells that are purged: their finished jobs and their rows of the ledger, whose sums the caller keeps.

use chrono::NaiveDate;
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

/// Submits of one day and lane, summed up from rows of the ledger that are gone.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct SpentSum {
    /// Day of the submits, in UTC.
    pub day: NaiveDate,
    /// The lane.
    pub lane: String,
    /// Rows that are gone, those that surely cost nothing included.
    pub attempts: i64,
    /// Submits that the upstream had accepted.
    pub accepted: i64,
    /// Submits of which that is not known.
    pub unknown: i64,
}

/// Deletes the ended jobs of these keys, in the order of their ids. Returns how many.
///
/// # Errors
/// What PostgreSQL says.
pub async fn delete_ended(connection: &mut PgConnection, queue: &str, keys: &[String]) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "with ended as materialized (
             select id from apalis.jobs
             where job_type = $1 and idempotency_key = any ($2) and status in ('Done', 'Failed', 'Killed')
             order by id for update
         )
         delete from apalis.jobs as job using ended where job.id = ended.id",
    )
    .bind(queue)
    .bind(keys)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes the ledger of these cells and returns its sums: those of exactly the rows that this statement deleted. Keep them in
/// the same transaction, and lock the cells before, so that no attempt comes in between.
///
/// # Errors
/// What PostgreSQL says.
pub async fn delete_attempts(connection: &mut PgConnection, cells: &[Uuid]) -> Result<Vec<SpentSum>, sqlx::Error> {
    sqlx::query_as(
        "with deleted as (
             delete from imagemill.attempts where subtask_id = any ($1) returning submitted_at, lane, state
         )
         select (submitted_at at time zone 'UTC')::date as day, lane, count(*) as attempts,
                count(*) filter (where state not in ('submitting', 'not_sent', 'turned_away', 'rejected', 'unknown')) as accepted,
                count(*) filter (where state = 'unknown') as \"unknown\"
         from deleted group by 1, 2 order by 1, 2",
    )
    .bind(cells)
    .fetch_all(connection)
    .await
}

/// Cells on an attempt of which the upstream may still be working: it was given up less than its lane's `max_job_time` ago,
/// and takes a place in flight until then.
///
/// # Errors
/// What PostgreSQL says.
pub async fn cells_in_flight(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select distinct attempt.subtask_id from imagemill.lanes as lane
         join imagemill.attempts as attempt using (lane)
         where attempt.finished_at is null or (attempt.may_be_alive and attempt.finished_at > now() - lane.max_job_time)",
    )
    .fetch_all(connection)
    .await
}
