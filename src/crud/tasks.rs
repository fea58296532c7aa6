//! `imagemill.tasks`.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use super::bounds::BoundsRow;
use crate::models::status::Status;

/// A task with its counts and without its grid.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct TaskRow {
    /// A version 7 UUID.
    pub id: Uuid,
    /// Its owner.
    pub user_id: Uuid,
    /// Its owner's name.
    pub owner: String,
    /// As given.
    pub name: String,
    /// See [`Status`].
    pub status: Status,
    /// One run to its end; a retry begins the next.
    pub round: i32,
    /// 1 to 8.
    pub priority: i16,
    /// None: by cell.
    pub lane: Option<String>,
    /// Cells.
    pub total_images: i32,
    /// Cells with a picture.
    pub completed_subtasks: i32,
    /// Cells that failed.
    pub failed_subtasks: i32,
    /// Cells that were cancelled.
    pub cancelled_subtasks: i32,
    /// What bounds its submits.
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub bounds: BoundsRow,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its first attempt was made.
    pub started_at: Option<DateTime<Utc>>,
    /// When its present round began: of the first, with its first attempt.
    pub round_started_at: Option<DateTime<Utc>>,
    /// When it was rolled up.
    pub completed_at: Option<DateTime<Utc>>,
}

impl TaskRow {
    /// Cells that have ended.
    pub fn processed_images(&self) -> i32 {
        self.completed_subtasks + self.failed_subtasks + self.cancelled_subtasks
    }

    /// Percent of the cells that have ended, its floor.
    pub fn progress(&self) -> i32 {
        (i64::from(self.processed_images()) * 100 / i64::from(self.total_images.max(1))) as i32
    }
}

/// What goes into a new row.
#[derive(Debug)]
pub struct NewTask<'a> {
    /// A version 7 UUID.
    pub id: Uuid,
    /// Its owner.
    pub user_id: Uuid,
    /// As given.
    pub name: &'a str,
    /// 1 to 8.
    pub priority: i16,
    /// None: by cell.
    pub lane: Option<&'a str>,
    /// Unique per user.
    pub idempotency_key: Option<&'a str>,
    /// Hash of the input.
    pub input_sha256: &'a str,
    /// As given.
    pub prompts: Value,
    /// As given.
    pub settings: Value,
    /// number, kind, `variable_id`, name, values.
    pub axes: Value,
    /// Cells.
    pub total_images: i32,
    /// A try against the simulator.
    pub is_alone: bool,
    /// What bounds its submits.
    pub bounds: BoundsRow,
}

/// Inserts with its counts; false: the owner has a task under this key, and nothing changed.
///
/// # Errors
/// What PostgreSQL says.
pub async fn insert(connection: &mut PgConnection, task: &NewTask<'_>) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "with added as (
             insert into imagemill.tasks
                 (id, user_id, name, priority, lane, idempotency_key, input_sha256, prompts, settings, axes, total_images,
                  is_alone, max_submits, not_before, not_after)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
             on conflict on constraint tasks_idempotency_key do nothing
             returning id
         )
         insert into imagemill.task_counts (task_id) select id from added",
    )
    .bind(task.id)
    .bind(task.user_id)
    .bind(task.name)
    .bind(task.priority)
    .bind(task.lane)
    .bind(task.idempotency_key)
    .bind(task.input_sha256)
    .bind(&task.prompts)
    .bind(&task.settings)
    .bind(&task.axes)
    .bind(task.total_images)
    .bind(task.is_alone)
    .bind(task.bounds.max_submits)
    .bind(task.bounds.not_before)
    .bind(task.bounds.not_after)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// The task of a user's idempotency key: its id, hash and number of cells.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_key(
    connection: &mut PgConnection,
    user_id: Uuid,
    key: &str,
) -> Result<Option<(Uuid, String, i32)>, sqlx::Error> {
    sqlx::query_as("select id, input_sha256, total_images from imagemill.tasks where user_id = $1 and idempotency_key = $2")
        .bind(user_id)
        .bind(key)
        .fetch_optional(connection)
        .await
}

const SELECT: &str = "select t.id, t.user_id, u.username as owner, t.name, t.status, t.round, t.priority, t.lane, t.total_images,
        c.completed_subtasks, c.failed_subtasks, c.cancelled_subtasks, t.max_submits, t.not_before, t.not_after, t.created_at, t.started_at,
        coalesce(t.round_started_at, t.started_at) as round_started_at, t.completed_at
 from imagemill.tasks t
 join imagemill.task_counts c on c.task_id = t.id
 join imagemill.users u on u.id = t.user_id
 where not t.is_deleted";

/// Deleted tasks, newest first: a user's, or everybody's. Those that a purge deletes are not among them: they cannot be had back.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_deleted(connection: &mut PgConnection, user_id: Option<Uuid>, limit: i64) -> Result<Vec<TaskRow>, sqlx::Error> {
    let deleted = SELECT.replace("where not t.is_deleted", "where t.is_deleted");
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{deleted} and ($1::uuid is null or t.user_id = $1)
           and t.total_images = (select count(*) from imagemill.subtasks s where s.task_id = t.id)
         order by t.created_at desc, t.id desc limit $2"
    )))
    .bind(user_id)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// One task.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get(connection: &mut PgConnection, id: Uuid) -> Result<Option<TaskRow>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} and t.id = $1"))).bind(id).fetch_optional(connection).await
}

/// The tasks of a user, newest first.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_user(connection: &mut PgConnection, user_id: Uuid, limit: i64) -> Result<Vec<TaskRow>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} and t.user_id = $1 order by t.created_at desc, t.id desc limit $2")))
        .bind(user_id)
        .bind(limit)
        .fetch_all(connection)
        .await
}

/// Everybody's tasks, newest first.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_all(connection: &mut PgConnection, limit: i64) -> Result<Vec<TaskRow>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} order by t.created_at desc, t.id desc limit $1")))
        .bind(limit)
        .fetch_all(connection)
        .await
}

/// Everybody's open tasks, oldest first.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_open(connection: &mut PgConnection, limit: i64) -> Result<Vec<TaskRow>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{SELECT} and t.status in ('pending', 'processing') order by t.created_at, t.id limit $1"
    )))
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// First attempts of tasks were written: they are processing. Nothing where they are already.
///
/// # Errors
/// What PostgreSQL says.
pub async fn begin_processing(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with begun as materialized (
             select id from imagemill.tasks where id = any ($1) and status = 'pending' order by id for update
         )
         update imagemill.tasks t
         set status = 'processing', started_at = coalesce(started_at, now()), updated_at = now()
         from begun where t.id = begun.id and status = 'pending'",
    )
    .bind(ids)
    .execute(connection)
    .await?;
    Ok(())
}

/// From one state to another, along an edge of the state diagram (design, section 6) and if it still is in the first. False:
/// there is no such edge, or it is in another state by now; nothing changed.
///
/// # Errors
/// What PostgreSQL says.
pub async fn update_status(connection: &mut PgConnection, id: Uuid, from: Status, to: Status) -> Result<bool, sqlx::Error> {
    if !from.task_may_become(to) {
        return Ok(false);
    }
    let rows = sqlx::query(
        "update imagemill.tasks
         set status = $3, updated_at = now(),
             started_at = case when $3 = 'processing' then coalesce(started_at, now()) else started_at end,
             completed_at = case when $3 in ('completed', 'failed', 'cancelled') then now() end
         where id = $1 and status = $2",
    )
    .bind(id)
    .bind(from.as_str())
    .bind(to.as_str())
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Writes the end of a round: only where it is still the task's round and the task is open.
///
/// # Errors
/// What PostgreSQL says.
pub async fn roll_up(connection: &mut PgConnection, id: Uuid, round: i32, status: Status) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "update imagemill.tasks set status = $3, completed_at = now(), updated_at = now()
         where id = $1 and round = $2 and status in ('pending', 'processing')",
    )
    .bind(id)
    .bind(round)
    .bind(status.as_str())
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// What the roll-up and the completion need to know of a task.
#[derive(Debug, Clone, FromRow)]
pub struct RoundRow {
    /// Its state.
    pub status: Status,
    /// Its round.
    pub round: i32,
    /// Its owner.
    pub user_id: Uuid,
    /// Cells.
    pub total_images: i32,
    /// Whether cancel was asked for in this round.
    pub is_cancel_requested: bool,
}

/// The round of a task.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_round(connection: &mut PgConnection, id: Uuid) -> Result<Option<RoundRow>, sqlx::Error> {
    sqlx::query_as(
        "select status, round, user_id, total_images, cancel_requested_at is not null as is_cancel_requested
         from imagemill.tasks where id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}

/// Open tasks without an open cell: their id and round. There should be none but for a moment, while their completion is
/// under way.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_stranded(connection: &mut PgConnection, limit: i64) -> Result<Vec<(Uuid, i32)>, sqlx::Error> {
    sqlx::query_as(
        "select t.id, t.round from imagemill.tasks t
         where t.status in ('pending', 'processing')
           and not exists (select from imagemill.subtasks s where s.task_id = t.id and s.completed_at is null)
         order by t.created_at limit $1",
    )
    .bind(limit)
    .fetch_all(connection)
    .await
}
