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

/// Cells of a task with an open attempt.
///
/// # Errors
/// What PostgreSQL says.
pub async fn count_in_flight(connection: &mut PgConnection, task_id: Uuid) -> Result<i64, sqlx::Error> {
    // The state is asked for twice so that the index of open cells serves.
    sqlx::query_scalar(
        "select count(*) from imagemill.subtasks
         where task_id = $1 and completed_at is null and status = 'processing'",
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
