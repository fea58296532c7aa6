//! `imagemill.remarks`: what people say of a picture.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

/// A remark, with its author's name.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct RemarkRow {
    /// A version 7 UUID.
    pub id: Uuid,
    /// The cell's ordinal in its task.
    pub cell: i32,
    /// Who.
    pub author: String,
    /// What.
    pub text: String,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Adds a remark to a cell of a task. False: there is no such cell.
///
/// # Errors
/// What PostgreSQL says.
pub async fn insert(
    connection: &mut PgConnection,
    id: Uuid,
    task_id: Uuid,
    cell: i32,
    user_id: Uuid,
    text: &str,
) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "insert into imagemill.remarks (id, subtask_id, user_id, text)
         select $1, id, $4, $5 from imagemill.subtasks where task_id = $2 and cell = $3",
    )
    .bind(id)
    .bind(task_id)
    .bind(cell)
    .bind(user_id)
    .bind(text)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// The author and the text of a remark on a cell of this task.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_author(connection: &mut PgConnection, task_id: Uuid, id: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select r.user_id from imagemill.remarks r join imagemill.subtasks s on s.id = r.subtask_id
         where r.id = $2 and s.task_id = $1",
    )
    .bind(task_id)
    .bind(id)
    .fetch_optional(connection)
    .await
}

/// Removes a remark. False: it is gone.
///
/// # Errors
/// What PostgreSQL says.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("delete from imagemill.remarks where id = $1").bind(id).execute(connection).await?;
    Ok(done.rows_affected() == 1)
}

/// The remarks on a task's cells, by cell and time.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_task(connection: &mut PgConnection, task_id: Uuid) -> Result<Vec<RemarkRow>, sqlx::Error> {
    sqlx::query_as(
        "select r.id, s.cell, u.username as author, r.text, r.created_at
         from imagemill.subtasks s
         join imagemill.remarks r on r.subtask_id = s.id
         join imagemill.users u on u.id = r.user_id
         where s.task_id = $1 order by s.cell, r.created_at, r.id",
    )
    .bind(task_id)
    .fetch_all(connection)
    .await
}
