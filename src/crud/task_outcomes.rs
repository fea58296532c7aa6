//! How the cells of a task stand, counted from the rows themselves: for those who look on.

use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use crate::models::status::Status;

/// Cells of one task in one state.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct OutcomeRow {
    /// Their state.
    pub status: Status,
    /// Why they failed; none for those that did not.
    pub error_kind: Option<String>,
    /// How many.
    pub cells: i64,
}

/// The cells of a task by state and kind of error.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_task(connection: &mut PgConnection, task_id: Uuid) -> Result<Vec<OutcomeRow>, sqlx::Error> {
    sqlx::query_as(
        "select status, error_kind, count(*) as cells from imagemill.subtasks where task_id = $1
         group by status, error_kind order by status, error_kind",
    )
    .bind(task_id)
    .fetch_all(connection)
    .await
}

/// Cells of a task that take a place of their lane: those with an open attempt, and those whose attempt was given up while the
/// upstream may still be working on it. Of a task that has ended none.
///
/// # Errors
/// What PostgreSQL says.
pub async fn count_in_flight(connection: &mut PgConnection, task_id: Uuid) -> Result<i64, sqlx::Error> {
    // The state is asked for twice so that the index of open cells serves.
    sqlx::query_scalar(
        "select (select count(*) from imagemill.subtasks where task_id = $1 and completed_at is null and status = 'processing')
                + (select count(*) from imagemill.lanes l
                   join imagemill.attempts a on a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time
                   join imagemill.subtasks s on s.id = a.subtask_id
                   join imagemill.tasks t on t.id = s.task_id
                   where s.task_id = $1 and t.completed_at is null)",
    )
    .bind(task_id)
    .fetch_one(connection)
    .await
}

/// Cells of all tasks that have not ended.
///
/// # Errors
/// What PostgreSQL says.
pub async fn count_open(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from imagemill.subtasks where completed_at is null").fetch_one(connection).await
}

/// Completed cells of a task whose picture was not kept.
///
/// # Errors
/// What PostgreSQL says.
pub async fn count_not_kept(connection: &mut PgConnection, task_id: Uuid) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select count(*) from imagemill.subtasks where task_id = $1 and status = 'completed' and result_file is null",
    )
    .bind(task_id)
    .fetch_one(connection)
    .await
}

/// Why the cell of a task that was put back last waits; none: no cell waits for a reason.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_waiting_reason(connection: &mut PgConnection, task_id: Uuid) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select error from imagemill.subtasks
         where task_id = $1 and completed_at is null and status = 'pending' and error is not null
         order by updated_at desc limit 1",
    )
    .bind(task_id)
    .fetch_optional(connection)
    .await
}
