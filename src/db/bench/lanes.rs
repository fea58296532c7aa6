//! What a lane allows, and a transaction that keeps what is dead from being cleaned away.

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection, Postgres, Transaction, prelude::FromRow};
use uuid::Uuid;

/// What a lane holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Held {
    /// Cells in flight: open attempts, attempts on which the upstream may still be working, claimed jobs without an open attempt.
    pub in_flight: i64,
    /// Whether a cell waits for a place.
    pub waits: bool,
}

/// Sets what a lane allows; without a rate submits follow one another as they come.
///
/// # Errors
/// What PostgreSQL says.
pub async fn limit(connection: &mut PgConnection, lane: &str, places: i32, rate: Option<(f64, i32)>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update imagemill.lanes set max_in_flight = $2, submits_per_second = $3, burst = coalesce($4, burst) where lane = $1",
    )
    .bind(lane)
    .bind(places)
    .bind(rate.map(|(rate, _)| rate))
    .bind(rate.map(|(_, burst)| burst))
    .execute(connection)
    .await?;
    Ok(())
}

/// What the lane holds, counted from the rows without the engine's own functions.
///
/// # Errors
/// What PostgreSQL says.
pub async fn held(connection: &mut PgConnection, lane: &str) -> Result<Held, sqlx::Error> {
    sqlx::query_as(
        "select (select count(*) from imagemill.attempts where lane = $1 and state in ('submitting', 'accepted'))
                + (select count(*) from imagemill.attempts a join imagemill.lanes l using (lane)
                   where a.lane = $1 and a.may_be_alive and a.finished_at > now() - l.max_job_time)
                + (select count(*) from apalis.jobs j
                   where j.lock_by is not null and j.job_type = 'imagemill.generate_image' and j.metadata -> 'lane' = $1
                     and j.status = 'Running'
                     and not exists (select from imagemill.attempts a
                                     where a.subtask_id = j.idempotency_key::uuid and a.state in ('submitting', 'accepted')))
                as in_flight,
                exists (select from apalis.jobs
                        where job_type = 'imagemill.generate_image' and job_type like 'imagemill.%' and status = 'Pending'
                          and not metadata ? 'alone' and metadata -> 'lane' = $1) as waits",
    )
    .bind(lane)
    .fetch_one(connection)
    .await
}

/// Claimed cells of each of these tasks.
///
/// # Errors
/// What PostgreSQL says.
pub async fn places(connection: &mut PgConnection, tasks: &[Uuid]) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select count(j.id) from unnest($1::uuid[]) with ordinality as wanted (task, number)
         left join apalis.jobs j on j.lock_by is not null and j.status = 'Running' and j.job_type = 'imagemill.generate_image'
                                and j.metadata -> 'group' = wanted.task::text
         group by wanted.number order by wanted.number",
    )
    .bind(tasks)
    .fetch_all(connection)
    .await
}

/// Submitted cells of each of these tasks.
///
/// # Errors
/// What PostgreSQL says.
pub async fn submitted(connection: &mut PgConnection, tasks: &[Uuid]) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select count(a.subtask_id) from unnest($1::uuid[]) with ordinality as wanted (task, number)
         left join imagemill.subtasks s on s.task_id = wanted.task
         left join imagemill.attempts a on a.subtask_id = s.id
         group by wanted.number order by wanted.number",
    )
    .bind(tasks)
    .fetch_all(connection)
    .await
}

/// Seconds from a moment to the last submit after it that more than so many others of the lane were out with; none: there was none.
///
/// # Errors
/// What PostgreSQL says.
pub async fn last_above(
    connection: &mut PgConnection,
    lane: &str,
    since: DateTime<Utc>,
    places: i32,
) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query_scalar(
        "select extract(epoch from max(a.submitted_at) - $2)::float8
         from imagemill.attempts a
         where a.lane = $1 and a.submitted_at > $2
           and (select count(*) from imagemill.attempts b
                where b.lane = $1 and b.submitted_at <= a.submitted_at
                  and (b.finished_at is null or b.finished_at > a.submitted_at)) > $3",
    )
    .bind(lane)
    .bind(since)
    .bind(places)
    .fetch_one(connection)
    .await
}

/// When each submit began whose token was refused: seconds after the end of the first of them, in their order.
///
/// # Errors
/// What PostgreSQL says.
pub async fn refused(connection: &mut PgConnection, lane: &str) -> Result<Vec<f64>, sqlx::Error> {
    sqlx::query_scalar(
        "select extract(epoch from submitted_at - min(finished_at) over ())::float8
         from imagemill.attempts where lane = $1 and http_status = 401 order by submitted_at",
    )
    .bind(lane)
    .fetch_all(connection)
    .await
}

/// Begins a transaction that has a number and a snapshot: as long as it is open, no version of a row goes.
///
/// # Errors
/// What PostgreSQL says.
pub async fn hold_horizon(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    let mut transaction = connection.begin_with("begin isolation level repeatable read").await?;
    sqlx::query("select pg_current_xact_id()").execute(&mut *transaction).await?;
    Ok(transaction)
}
