//! Why a cell is not running: the SQL function of that name.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

/// Why a cell is not running.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct WhyNotRunning {
    /// A word that never changes meaning; the README lists them.
    pub code: String,
    /// The same in plain words.
    pub why: String,
    /// Until when; none: that is not known.
    pub until: Option<DateTime<Utc>>,
}

/// The cell of a task by its ordinal; none: there is no such cell, or its task was deleted.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_id(connection: &mut PgConnection, task_id: Uuid, cell: i32) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select s.id from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
         where s.task_id = $1 and s.cell = $2 and not t.is_deleted",
    )
    .bind(task_id)
    .bind(cell)
    .fetch_optional(connection)
    .await
}

/// A cell of the task that is pending; none: none is, or the task was deleted.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_pending_id(connection: &mut PgConnection, task_id: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select s.id from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
         where s.task_id = $1 and s.completed_at is null and s.status = 'pending' and not t.is_deleted limit 1",
    )
    .bind(task_id)
    .fetch_optional(connection)
    .await
}

/// Why this cell is not running; of several reasons the one that ends last. None: there is no such cell.
///
/// # Errors
/// What PostgreSQL says.
pub async fn why_not_running(connection: &mut PgConnection, id: Uuid) -> Result<Option<WhyNotRunning>, sqlx::Error> {
    sqlx::query_as("select code, why, until from imagemill.why_not_running($1)").bind(id).fetch_optional(connection).await
}
