//! What bounds a task's submits, and what ends by it.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

/// What bounds a task's submits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct BoundsRow {
    /// Submits, those that may have been billed included; none: no budget.
    pub max_submits: Option<i64>,
    /// No submit before it.
    pub not_before: Option<DateTime<Utc>>,
    /// No submit after it: what is pending then is cancelled.
    pub not_after: Option<DateTime<Utc>>,
}

/// The clock by which all of it is decided.
///
/// # Errors
/// What PostgreSQL says.
pub async fn now(connection: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar("select now()").fetch_one(connection).await
}

/// The bounds of a task, locked; none: there is no such task.
///
/// # Errors
/// What PostgreSQL says.
pub async fn lock(connection: &mut PgConnection, id: Uuid) -> Result<Option<BoundsRow>, sqlx::Error> {
    sqlx::query_as(
        "select max_submits, not_before, not_after from imagemill.tasks where id = $1 and not is_deleted for no key update",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}

/// Sets the bounds of a task. False: there is no such task.
///
/// # Errors
/// What PostgreSQL says.
pub async fn set(connection: &mut PgConnection, id: Uuid, bounds: &BoundsRow) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "update imagemill.tasks set max_submits = $2, not_before = $3, not_after = $4, updated_at = now()
         where id = $1 and not is_deleted",
    )
    .bind(id)
    .bind(bounds.max_submits)
    .bind(bounds.not_before)
    .bind(bounds.not_after)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// What is overdue, and when the next will be.
#[derive(Debug, Clone, Default, PartialEq, FromRow)]
pub struct OverdueRow {
    /// Open tasks whose last moment is over and of which something is pending, the longest overdue first.
    pub tasks: Vec<Uuid>,
    /// Seconds until the next open task's last moment; none: none has one that is to come.
    pub next_in: Option<f64>,
}

/// Looks what is overdue: so many tasks at most.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_overdue(connection: &mut PgConnection, limit: i64) -> Result<OverdueRow, sqlx::Error> {
    sqlx::query_as(
        "select array(select t.id from imagemill.tasks t
                      where t.not_after is not null and t.not_after <= clock_timestamp() and t.completed_at is null
                        and exists (select from imagemill.subtasks s
                                    where s.task_id = t.id and s.completed_at is null and s.status = 'pending')
                      order by t.not_after limit $1) as tasks,
                (select extract(epoch from t.not_after - clock_timestamp())::float8 from imagemill.tasks t
                 where t.not_after is not null and t.not_after > clock_timestamp() and t.completed_at is null
                 order by t.not_after limit 1) as next_in",
    )
    .bind(limit)
    .fetch_one(connection)
    .await
}

/// Cancels what is pending of a task whose last moment is over, and writes the audit. Returns the number of cells: 0 also where
/// somebody else steers the task just now.
///
/// # Errors
/// What PostgreSQL says.
pub async fn end_overdue_cells(connection: &mut PgConnection, task_id: Uuid) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("select imagemill.end_overdue_cells($1)").bind(task_id).fetch_one(connection).await
}
