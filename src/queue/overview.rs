//! The fleet as one who looks on each second sees it. Every look costs what is in flight, and nothing of what waits or has ended.

use sqlx::{PgConnection, prelude::FromRow};

use super::incarnation::WORKER_TYPE;

/// Waiting jobs of a lane are counted up to here.
pub const MOST_COUNTED: i64 = 10_000;

/// A worker process.
#[derive(Debug, Clone, PartialEq, FromRow, serde::Serialize)]
pub struct WorkerRow {
    /// Its incarnation.
    pub name: String,
    /// Where it runs.
    pub host: String,
    /// Its process there.
    pub pid: i32,
    /// Its program's version.
    pub version: String,
    /// Seconds since its start.
    pub up_seconds: f64,
    /// Seconds since its last beat.
    pub beat_seconds: f64,
    /// Jobs that it holds.
    pub jobs: i64,
}

/// What a lane has to do.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct LaneLoad {
    /// Its name.
    pub lane: String,
    /// Jobs that wait, those of a later time included; [`MOST_COUNTED`] means that or more.
    pub waiting: i64,
    /// Open attempts, and those given up on which the upstream may still be working: each takes a place.
    pub in_flight: i64,
}

/// The worker processes that have not ended, oldest first.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_workers(connection: &mut PgConnection) -> Result<Vec<WorkerRow>, sqlx::Error> {
    sqlx::query_as(
        "select incarnation.name, incarnation.host, incarnation.pid, incarnation.version,
                extract(epoch from clock_timestamp() - incarnation.started_at)::float8 as up_seconds,
                extract(epoch from clock_timestamp() - worker.last_seen)::float8 as beat_seconds,
                (select count(*) from apalis.jobs as job
                 where job.lock_by = worker.id and job.status = 'Running' and job.job_type like 'imagemill.%') as jobs
         from apalis.workers as worker join imagemill.incarnations as incarnation on incarnation.name = worker.id
         where worker.worker_type = $1 and incarnation.ended_at is null
         order by incarnation.started_at, incarnation.name",
    )
    .bind(WORKER_TYPE)
    .fetch_all(connection)
    .await
}

/// What these lanes have to do of this queue, in their order.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_loads(connection: &mut PgConnection, queue: &str, lanes: &[String]) -> Result<Vec<LaneLoad>, sqlx::Error> {
    sqlx::query_as(
        "select wanted.lane,
                (select count(*) from (
                     select from apalis.jobs
                     where job_type = $1 and status = 'Pending' and job_type like 'imagemill.%'
                       and metadata -> 'lane' = wanted.lane and not metadata ? 'alone' limit $3) as waits) as waiting,
                (select count(*) from imagemill.attempts a where a.lane = wanted.lane and a.finished_at is null)
                + (select count(*) from imagemill.lanes l
                   join imagemill.attempts a on a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time
                   where l.lane = wanted.lane) as in_flight
         from unnest($2::text[]) with ordinality as wanted (lane, number) order by wanted.number",
    )
    .bind(queue)
    .bind(lanes)
    .bind(MOST_COUNTED)
    .fetch_all(connection)
    .await
}
