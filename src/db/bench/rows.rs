//! What rows say of single cells and tasks: who holds what, and when it ended.

use sqlx::PgConnection;
use uuid::Uuid;

/// Whether the task is rolled up.
///
/// # Errors
/// What PostgreSQL says.
pub async fn is_rolled_up(connection: &mut PgConnection, task: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from imagemill.tasks where id = $1 and completed_at is not null)")
        .bind(task)
        .fetch_one(connection)
        .await
}

/// Milliseconds from the last settle of each task's cells to its roll-up: both are the beginnings of their transactions, as
/// `now()` has it.
///
/// # Errors
/// What PostgreSQL says.
pub async fn roll_ups(connection: &mut PgConnection, tasks: &[Uuid]) -> Result<Vec<f64>, sqlx::Error> {
    sqlx::query_scalar(
        "select (extract(epoch from t.completed_at - max(s.completed_at)) * 1000)::float8
         from imagemill.tasks t join imagemill.subtasks s on s.task_id = t.id
         where t.id = any ($1) and t.completed_at is not null group by t.id",
    )
    .bind(tasks)
    .fetch_all(connection)
    .await
}

/// How many attempts are in this state.
///
/// # Errors
/// What PostgreSQL says.
pub async fn attempts(connection: &mut PgConnection, state: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from imagemill.attempts where state = $1").bind(state).fetch_one(connection).await
}

/// Cells that failed.
///
/// # Errors
/// What PostgreSQL says.
pub async fn failed(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from imagemill.subtasks where status = 'failed'").fetch_one(connection).await
}

/// The upstream ids of the open attempts of the jobs that a process holds, by its number.
///
/// # Errors
/// What PostgreSQL says.
pub async fn held_by(connection: &mut PgConnection, process: i32) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select a.upstream_id
         from apalis.jobs j
         join imagemill.incarnations i on i.name = j.lock_by
         join imagemill.attempts a on a.subtask_id::text = j.idempotency_key
         where i.pid = $1 and j.status = 'Running' and a.state = 'accepted'",
    )
    .bind(process)
    .fetch_all(connection)
    .await
}
