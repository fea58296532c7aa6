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
    /// Attempts that have ended and were billed, or perhaps.
    #[sqlx(default)]
    #[serde(skip)]
    pub submits: i64,
}

impl Counts {
    /// All that have ended.
    pub fn processed_images(self) -> i32 {
        self.completed_subtasks + self.failed_subtasks + self.cancelled_subtasks
    }
}

/// Moves the counts of tasks by differences. Returns the tasks of which all cells have ended then. The rows stay locked until
/// the transaction ends: of two settles of last cells the second sees the first.
///
/// # Errors
/// What PostgreSQL says.
pub async fn move_by(connection: &mut PgConnection, changes: &[(Uuid, Counts)]) -> Result<Vec<Uuid>, sqlx::Error> {
    macro_rules! column {
        ($change:ident => $value:expr) => {
            changes.iter().map(|(_, $change)| $value).collect::<Vec<_>>()
        };
    }
    sqlx::query_scalar(
        "with given as (
             select * from unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::bigint[])
                           as given (task_id, completed, failed, cancelled, submits)
         ), locked as materialized (
             select c.task_id from imagemill.task_counts c join given using (task_id) order by c.task_id for update of c
         ), moved as (
             update imagemill.task_counts c
             set completed_subtasks = completed_subtasks + given.completed,
                 failed_subtasks = failed_subtasks + given.failed,
                 cancelled_subtasks = cancelled_subtasks + given.cancelled, submits = c.submits + given.submits
             from given where c.task_id = given.task_id and c.task_id in (select task_id from locked)
             returning c.task_id, completed_subtasks + failed_subtasks + cancelled_subtasks as ended,
                       given.completed + given.failed + given.cancelled <> 0 as has_moved
         )
         select moved.task_id from moved join imagemill.tasks t on t.id = moved.task_id
         where moved.ended >= t.total_images and moved.has_moved",
    )
    .bind(changes.iter().map(|(task_id, _)| *task_id).collect::<Vec<_>>())
    .bind(column!(change => change.completed_subtasks))
    .bind(column!(change => change.failed_subtasks))
    .bind(column!(change => change.cancelled_subtasks))
    .bind(column!(change => change.submits))
    .fetch_all(connection)
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
