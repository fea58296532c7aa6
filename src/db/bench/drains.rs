//! What a drain's rows say of it: how much was done, and how long it took.

use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

/// A drain of tasks.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct Drain {
    /// Cells with a picture.
    pub completed: i64,
    /// Tasks that are rolled up.
    pub rolled_up: i64,
    /// Seconds from the first ledger row, which follows the first claim by one commit, to the last roll-up.
    pub seconds: f64,
}

/// What became of these tasks.
///
/// # Errors
/// What PostgreSQL says.
pub async fn drain(connection: &mut PgConnection, tasks: &[Uuid]) -> Result<Drain, sqlx::Error> {
    sqlx::query_as(
        "select (select count(*) from imagemill.subtasks where task_id = any ($1) and status = 'completed') as completed,
                (select count(*) from imagemill.tasks where id = any ($1) and completed_at is not null) as rolled_up,
                coalesce(extract(epoch from
                    (select max(completed_at) from imagemill.tasks where id = any ($1))
                    - (select min(a.submitted_at) from imagemill.attempts a
                       join imagemill.subtasks s on s.id = a.subtask_id where s.task_id = any ($1))), 0)::float8 as seconds",
    )
    .bind(tasks)
    .fetch_one(connection)
    .await
}
