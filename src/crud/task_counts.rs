//! `imagemill.task_counts`: ended cells by outcome. Written last in every transaction, since it is the hottest row.

use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

/// Ended cells of a task by outcome; or a change of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct Counts {
    /// With a picture.
    pub completed_subtasks: i32,
    /// Failed.
    pub failed_subtasks: i32,
    /// Cancelled.
    pub cancelled_subtasks: i32,
}

impl Counts {
    /// All that have ended.
    pub fn processed_images(self) -> i32 {
        self.completed_subtasks + self.failed_subtasks + self.cancelled_subtasks
    }
}

/// Moves the counts by a difference; returns them as they then are. The row stays locked until the transaction ends: of two
/// settles of last cells the second sees the first.
///
/// # Errors
/// What PostgreSQL says.
pub async fn move_by(connection: &mut PgConnection, task_id: Uuid, change: Counts) -> Result<Counts, sqlx::Error> {
    sqlx::query_as(
        "update imagemill.task_counts
         set completed_subtasks = completed_subtasks + $2,
             failed_subtasks = failed_subtasks + $3,
             cancelled_subtasks = cancelled_subtasks + $4
         where task_id = $1
         returning completed_subtasks, failed_subtasks, cancelled_subtasks",
    )
    .bind(task_id)
    .bind(change.completed_subtasks)
    .bind(change.failed_subtasks)
    .bind(change.cancelled_subtasks)
    .fetch_one(connection)
    .await
}

/// Recounts the rows of subtasks and writes what is true. Returns the counts before and after; none: there is no such task.
///
/// # Errors
/// What PostgreSQL says.
pub async fn update_progress(connection: &mut PgConnection, task_id: Uuid) -> Result<Option<(Counts, Counts)>, sqlx::Error> {
    let before: Option<Counts> = sqlx::query_as(
        "select completed_subtasks, failed_subtasks, cancelled_subtasks from imagemill.task_counts where task_id = $1 for update",
    )
    .bind(task_id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(before) = before else { return Ok(None) };
    let after: Counts = sqlx::query_as(
        "select (count(*) filter (where status = 'completed'))::int as completed_subtasks,
                (count(*) filter (where status = 'failed'))::int as failed_subtasks,
                (count(*) filter (where status = 'cancelled'))::int as cancelled_subtasks
         from imagemill.subtasks where task_id = $1",
    )
    .bind(task_id)
    .fetch_one(&mut *connection)
    .await?;
    if before != after {
        sqlx::query(
            "update imagemill.task_counts set completed_subtasks = $2, failed_subtasks = $3, cancelled_subtasks = $4 where task_id = $1",
        )
        .bind(task_id)
        .bind(after.completed_subtasks)
        .bind(after.failed_subtasks)
        .bind(after.cancelled_subtasks)
        .execute(connection)
        .await?;
    }
    Ok(Some((before, after)))
}
