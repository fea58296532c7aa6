//! What those who look on each second read of lanes and tasks: rows that are few, and nothing that grows with history.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

/// A lane as it is set, and why it submits nothing.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct LaneRow {
    /// Its name.
    pub lane: String,
    /// Cells in flight at most, over all workers.
    pub max_in_flight: i32,
    /// The reasons of its pauses; none: it has none.
    pub paused: Option<String>,
}

/// Open cells of a task on one lane.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct LaneCells {
    /// The lane.
    pub lane: String,
    /// Cells.
    pub cells: i64,
    /// Those of them with an open attempt; of the open ones also attempts that were given up while the upstream may still be working
    /// on them.
    pub in_flight: i64,
}

/// A cell that failed.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct FailedCell {
    /// Its ordinal.
    pub cell: i32,
    /// Why, as a word.
    pub error_kind: String,
    /// Why, in words.
    pub error: Option<String>,
    /// When.
    pub completed_at: DateTime<Utc>,
}

/// Every lane, with its pauses that hold.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_lanes(connection: &mut PgConnection) -> Result<Vec<LaneRow>, sqlx::Error> {
    sqlx::query_as(
        "select l.lane, l.max_in_flight,
                (select string_agg(distinct p.reason, ', ' order by p.reason) from imagemill.pauses p
                 where p.lane = l.lane and (p.until is null or p.until > now())) as paused
         from imagemill.lanes l order by l.lane desc",
    )
    .fetch_all(connection)
    .await
}

/// All cells of a task by lane. It reads every one of them, and their lanes never change: ask it once.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_lanes_of_task(connection: &mut PgConnection, task_id: Uuid) -> Result<Vec<LaneCells>, sqlx::Error> {
    sqlx::query_as(
        "select lane, count(*) as cells, count(*) filter (where status = 'processing') as in_flight
         from imagemill.subtasks where task_id = $1 group by lane order by lane desc",
    )
    .bind(task_id)
    .fetch_all(connection)
    .await
}

/// The open cells of a task by lane: it costs what is open.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_open_of_task(connection: &mut PgConnection, task_id: Uuid) -> Result<Vec<LaneCells>, sqlx::Error> {
    sqlx::query_as(
        "select s.lane, count(*) as cells,
                count(*) filter (where s.status = 'processing')
                + (select count(*) from imagemill.lanes l
                   join imagemill.attempts a on a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time
                   join imagemill.subtasks given_up on given_up.id = a.subtask_id
                   where l.lane = s.lane and given_up.task_id = $1) as in_flight
         from imagemill.subtasks s where s.task_id = $1 and s.completed_at is null group by s.lane order by s.lane desc",
    )
    .bind(task_id)
    .fetch_all(connection)
    .await
}

/// The cells of a task that failed last, newest first. It reads the cells of the task: ask it where one more has failed.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_last_failures(connection: &mut PgConnection, task_id: Uuid, limit: i64) -> Result<Vec<FailedCell>, sqlx::Error> {
    sqlx::query_as(
        "select cell, error_kind, error, completed_at from imagemill.subtasks
         where task_id = $1 and status = 'failed' order by completed_at desc, cell desc limit $2",
    )
    .bind(task_id)
    .bind(limit)
    .fetch_all(connection)
    .await
}
