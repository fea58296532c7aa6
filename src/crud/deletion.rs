//! Deleting a task so that it can be had back: `imagemill.tasks.is_deleted`.

use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use crate::models::status::Status;

/// A task, deleted or not.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeletableTask {
    /// Its owner.
    pub user_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: Status,
    /// Whether it is deleted.
    pub is_deleted: bool,
}

/// One task, deleted or not.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get(connection: &mut PgConnection, id: Uuid) -> Result<Option<DeletableTask>, sqlx::Error> {
    sqlx::query_as("select user_id, name, status, is_deleted from imagemill.tasks where id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// Hides an ended task. False: it is open, hidden already, or gone.
///
/// # Errors
/// What PostgreSQL says.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "update imagemill.tasks set is_deleted = true, updated_at = now()
         where id = $1 and not is_deleted and completed_at is not null",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Shows a hidden task again. False: it is not hidden, or a purge has begun with its cells.
///
/// # Errors
/// What PostgreSQL says.
pub async fn restore(connection: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    // A purge deletes cells only while it holds the row as it found it: whoever is first with the row is first.
    sqlx::query("select 1 from imagemill.tasks where id = $1 for update").bind(id).execute(&mut *connection).await?;
    let done = sqlx::query(
        "update imagemill.tasks set is_deleted = false, updated_at = now()
         where id = $1 and is_deleted and total_images = (select count(*) from imagemill.subtasks where task_id = $1)",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
