//! Deleting tasks that ended long ago: `imagemill.tasks` and `imagemill.subtasks`, with what hangs on them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use crate::models::status::Status;

/// A task that may be purged.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct EndedTask {
    /// A version 7 UUID.
    pub id: Uuid,
    /// Its owner.
    pub user_id: Uuid,
    /// As given.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Its rounds, each with a completion.
    pub round: i32,
    /// Cells, before any of them was purged.
    pub total_images: i32,
    /// When it ended.
    pub completed_at: DateTime<Utc>,
}

/// The time so long ago, by the database's clock.
///
/// # Errors
/// What PostgreSQL says.
pub async fn time_ago(connection: &mut PgConnection, age: Duration) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar("select now() - make_interval(secs => $1)").bind(age.as_secs_f64()).fetch_one(connection).await
}

/// Tasks that ended before a time, in the order of their ids after one; of one owner, if one is named. Those that are hidden
/// are among them: a purge that was cut short goes on.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_ended(
    connection: &mut PgConnection,
    owner: Option<Uuid>,
    before: DateTime<Utc>,
    after: Uuid,
    limit: i64,
) -> Result<Vec<EndedTask>, sqlx::Error> {
    sqlx::query_as(
        "select id, user_id, name, status, round, total_images, completed_at from imagemill.tasks
         where id > $3 and completed_at < $2 and ($1::uuid is null or user_id = $1)
         order by id limit $4",
    )
    .bind(owner)
    .bind(before)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Hides an ended task, before its first cell goes: nobody sees half a task, and nobody begins a round of it. False: it is open
/// again, or gone, or one of these cells is its own.
///
/// # Errors
/// What PostgreSQL says.
pub async fn hide(
    connection: &mut PgConnection,
    task_id: Uuid,
    before: DateTime<Utc>,
    unless_any_of: &[Uuid],
) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "update imagemill.tasks set is_deleted = true, updated_at = now()
         where id = $1 and completed_at < $2
           and not exists (select from imagemill.subtasks where task_id = $1 and completed_at is null)
           and not exists (select from imagemill.subtasks where task_id = $1 and id = any ($3))",
    )
    .bind(task_id)
    .bind(before)
    .bind(unless_any_of)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Whether [`hide`] would hide the task.
///
/// # Errors
/// What PostgreSQL says.
pub async fn may_hide(
    connection: &mut PgConnection,
    task_id: Uuid,
    before: DateTime<Utc>,
    unless_any_of: &[Uuid],
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from imagemill.tasks where id = $1 and completed_at < $2)
            and not exists (select from imagemill.subtasks where task_id = $1 and completed_at is null)
            and not exists (select from imagemill.subtasks where task_id = $1 and id = any ($3))",
    )
    .bind(task_id)
    .bind(before)
    .bind(unless_any_of)
    .fetch_one(connection)
    .await
}

/// Cells of a task after one of them, by their ordinals.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_cells(
    connection: &mut PgConnection,
    task_id: Uuid,
    after: i32,
    limit: i64,
) -> Result<Vec<(i32, Uuid)>, sqlx::Error> {
    sqlx::query_as("select cell, id from imagemill.subtasks where task_id = $1 and cell > $2 order by cell limit $3")
        .bind(task_id)
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await
}

/// Locks cells, so that no attempt of theirs comes in any more. Returns how many of them are open.
///
/// # Errors
/// What PostgreSQL says.
pub async fn lock_cells(connection: &mut PgConnection, ids: &[Uuid]) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "with locked as materialized (
             select completed_at from imagemill.subtasks where id = any ($1) order by id for update
         )
         select count(*) from locked where completed_at is null",
    )
    .bind(ids)
    .fetch_one(connection)
    .await
}

/// Deletes cells with their remarks; the ledger of them must be gone. Returns how many.
///
/// # Errors
/// What PostgreSQL says.
pub async fn delete_cells(connection: &mut PgConnection, ids: &[Uuid]) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("delete from imagemill.subtasks where id = any ($1)").bind(ids).execute(connection).await?;
    Ok(done.rows_affected())
}

/// Whether a task is ended and hidden, and stays so until the transaction ends.
///
/// # Errors
/// What PostgreSQL says.
pub async fn is_hidden(connection: &mut PgConnection, task_id: Uuid) -> Result<bool, sqlx::Error> {
    let found: Option<bool> =
        sqlx::query_scalar("select is_deleted and completed_at is not null from imagemill.tasks where id = $1 for share")
            .bind(task_id)
            .fetch_optional(connection)
            .await?;
    Ok(found.unwrap_or_default())
}

/// Deletes a hidden task without cells, its counts and whose favourite it was. False: it has cells, or is gone.
///
/// # Errors
/// What PostgreSQL says.
pub async fn delete_task(connection: &mut PgConnection, task_id: Uuid) -> Result<bool, sqlx::Error> {
    // Before the task, as everybody locks them.
    sqlx::query("select 1 from imagemill.task_counts where task_id = $1 for update")
        .bind(task_id)
        .execute(&mut *connection)
        .await?;
    let rows = sqlx::query(
        "delete from imagemill.tasks
         where id = $1 and is_deleted and completed_at is not null
           and not exists (select from imagemill.subtasks where task_id = $1)",
    )
    .bind(task_id)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}
