//! Completed cells whose pictures a new task may take over.

use serde_json::Value;
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use super::subtasks;
use crate::models::{Cell, RequestCell};

/// An earlier task.
#[derive(Debug, Clone, FromRow)]
pub struct EarlierTask {
    /// A version 7 UUID.
    pub id: Uuid,
    /// As given.
    pub prompts: Value,
}

/// A completed cell of it.
#[derive(Debug, Clone, FromRow)]
pub struct EarlierCell {
    /// 0-based ordinal, copies counted.
    pub cell: i32,
    /// The cell for which its picture was paid.
    pub origin: Uuid,
    /// One value index per axis.
    pub variable_indices: Vec<i32>,
    /// The way into the upstream.
    pub lane: String,
    /// The one really used.
    pub seed: i64,
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
    /// Whether the upstream rewrites the prompts.
    pub use_polish: bool,
    /// Whether lumina makes it.
    pub is_lumina: bool,
    /// Checkpoint.
    pub lumina_model_name: Option<String>,
    /// Guidance scale.
    pub lumina_cfg: Option<f64>,
    /// Number of steps.
    pub lumina_step: Option<i32>,
    /// Hash of the body that was submitted for it.
    pub request_sha256: String,
    /// URL of the picture.
    pub result: String,
    /// Path below the results directory.
    pub result_file: Option<String>,
    /// Hash of the kept file.
    pub result_sha256: Option<String>,
    /// Why the file was not kept.
    pub error: Option<String>,
}

impl<'c> From<&'c EarlierCell> for RequestCell<'c> {
    fn from(cell: &'c EarlierCell) -> Self {
        Self {
            variable_indices: &cell.variable_indices,
            seed: cell.seed,
            width: cell.width,
            height: cell.height,
            use_polish: cell.use_polish,
            is_lumina: cell.is_lumina,
            lumina_model_name: cell.lumina_model_name.as_deref(),
            lumina_cfg: cell.lumina_cfg,
            lumina_step: cell.lumina_step,
        }
    }
}

/// The newest tasks of a user that have pictures. Those that were deleted are left out, and those that were tries against a
/// simulator, whose pictures are none.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_tasks(connection: &mut PgConnection, user_id: Uuid, limit: i64) -> Result<Vec<EarlierTask>, sqlx::Error> {
    sqlx::query_as(
        "select t.id, t.prompts from imagemill.tasks t join imagemill.task_counts c on c.task_id = t.id
         where t.user_id = $1 and not t.is_deleted and not t.is_alone and c.completed_subtasks > 0
         order by t.created_at desc, t.id desc limit $2",
    )
    .bind(user_id)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Completed cells of a task after one of them, in the order of the grid.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_cells(
    connection: &mut PgConnection,
    task_id: Uuid,
    after: i32,
    limit: i64,
) -> Result<Vec<EarlierCell>, sqlx::Error> {
    sqlx::query_as(
        "select cell, coalesce(reused_from, id) as origin, variable_indices, lane, seed, width, height, use_polish, is_lumina,
                lumina_model_name, lumina_cfg, lumina_step, request_sha256, result, result_file, result_sha256, error
         from imagemill.subtasks
         where task_id = $1 and cell > $2 and status = 'completed' and request_sha256 is not null and result is not null
         order by cell limit $3",
    )
    .bind(task_id)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Inserts cells of a new task as completed, each with the picture of an earlier one. They have no job and no attempt, and are no
/// work of the task, whose rate leaves them out; whoever calls it moves the counts.
///
/// # Errors
/// What PostgreSQL says.
pub async fn insert_taken_over(
    connection: &mut PgConnection,
    task_id: Uuid,
    ids: &[Uuid],
    cells: &[Cell],
    pictures: &[EarlierCell],
) -> Result<(), sqlx::Error> {
    subtasks::insert(connection, task_id, ids, cells).await?;
    macro_rules! column {
        ($picture:ident => $value:expr) => {
            pictures.iter().map(|$picture| $value).collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "update imagemill.subtasks s
         set status = 'completed', reused_from = given.origin, request_sha256 = given.request_sha256, result = given.result,
             result_file = given.file, result_sha256 = given.sha256, error = given.error, completed_at = now()
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
              as given (id, origin, request_sha256, result, file, sha256, error)
         where s.id = given.id",
    )
    .bind(ids)
    .bind(column!(picture => picture.origin))
    .bind(column!(picture => picture.request_sha256.clone()))
    .bind(column!(picture => picture.result.clone()))
    .bind(column!(picture => picture.result_file.clone()))
    .bind(column!(picture => picture.result_sha256.clone()))
    .bind(column!(picture => picture.error.clone()))
    .execute(&mut *connection)
    .await?;
    sqlx::query("update imagemill.tasks set ended_before_round = $2 where id = $1")
        .bind(task_id)
        .bind(pictures.len() as i32)
        .execute(connection)
        .await?;
    Ok(())
}
