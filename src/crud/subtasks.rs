//! `imagemill.subtasks`: the cells.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use crate::models::{
    Cell,
    status::{ErrorKind, RetryMode, Status},
};

/// A cell as people see it.
#[derive(Debug, Clone, PartialEq, FromRow, serde::Serialize)]
pub struct SubtaskRow {
    /// A version 7 UUID.
    pub id: Uuid,
    /// Its task.
    pub task_id: Uuid,
    /// 0-based ordinal, copies counted.
    pub cell: i32,
    /// One value index per axis.
    pub variable_indices: Vec<i32>,
    /// 0-based copy.
    pub copy: i32,
    /// The way into the upstream.
    pub lane: String,
    /// See [`Status`].
    pub status: Status,
    /// The one really used.
    pub seed: i64,
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
    /// Attempts, without those that were not sent or turned away.
    pub attempt_count: i32,
    /// URL of the picture.
    pub result: Option<String>,
    /// Path below the results directory.
    pub result_file: Option<String>,
    /// Why it failed, as a word.
    pub error_kind: Option<String>,
    /// Why, in words.
    pub error: Option<String>,
    /// 1 to 5.
    pub rating: Option<i16>,
    /// When its first attempt was made.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, task_id, cell, variable_indices, copy, lane, status, seed, width, height, attempt_count, result,
    result_file, error_kind, error, rating, started_at, completed_at";

/// Inserts the cells of a task, by arrays.
///
/// # Errors
/// What PostgreSQL says.
pub async fn insert(connection: &mut PgConnection, task_id: Uuid, ids: &[Uuid], cells: &[Cell]) -> Result<u64, sqlx::Error> {
    // An array of arrays cannot be unnested by row: the indices go as text and are read back there.
    let indices: Vec<String> = cells
        .iter()
        .map(|cell| {
            let joined: Vec<String> = cell.variable_indices.iter().map(ToString::to_string).collect();
            format!("{{{}}}", joined.join(","))
        })
        .collect();
    macro_rules! column {
        ($cell:ident => $value:expr) => {
            cells.iter().map(|$cell| $value).collect::<Vec<_>>()
        };
    }
    let done = sqlx::query(
        "insert into imagemill.subtasks
             (id, task_id, cell, variable_indices, copy, lane, seed, ratio, width, height, use_polish, is_lumina,
              lumina_model_name, lumina_cfg, lumina_step)
         select id, $1, cell, indices::integer[], copy, lane, seed, ratio, width, height, use_polish, is_lumina,
                lumina_model_name, lumina_cfg, lumina_step
         from unnest($2::uuid[], $3::integer[], $4::text[], $5::integer[], $6::text[], $7::bigint[], $8::text[], $9::integer[],
                     $10::integer[], $11::boolean[], $12::boolean[], $13::text[], $14::double precision[], $15::integer[])
              as given (id, cell, indices, copy, lane, seed, ratio, width, height, use_polish, is_lumina,
                        lumina_model_name, lumina_cfg, lumina_step)",
    )
    .bind(task_id)
    .bind(ids)
    .bind(column!(cell => cell.cell))
    .bind(indices)
    .bind(column!(cell => cell.copy))
    .bind(column!(cell => cell.lane.to_owned()))
    .bind(column!(cell => cell.seed))
    .bind(column!(cell => cell.ratio.clone()))
    .bind(column!(cell => cell.width))
    .bind(column!(cell => cell.height))
    .bind(column!(cell => cell.use_polish))
    .bind(column!(cell => cell.is_lumina))
    .bind(column!(cell => cell.lumina_model_name.clone()))
    .bind(column!(cell => cell.lumina_cfg))
    .bind(column!(cell => cell.lumina_step))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Everything that is needed to run a cell.
#[derive(Debug, Clone, FromRow)]
pub struct RunRow {
    /// Itself.
    pub id: Uuid,
    /// Its task.
    pub task_id: Uuid,
    /// The task's round.
    pub round: i32,
    /// Whether cancel was asked for, of it or of its task.
    pub is_cancel_requested: bool,
    /// Seconds for which its task may still submit; none: without an end.
    pub submits_for: Option<f64>,
    /// 0-based ordinal.
    pub cell: i32,
    /// One value index per axis.
    pub variable_indices: Vec<i32>,
    /// The lane.
    pub lane: String,
    /// Its state.
    pub status: Status,
    /// What its last retry allows, and the round that it began.
    #[sqlx(flatten)]
    pub retry: RetryRow,
    /// The one to send.
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
    /// The task's prompts, as given; none: see [`get_to_run`].
    pub prompts: Option<Value>,
}

/// The last retry of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromRow)]
pub struct RetryRow {
    /// What it allows; none: there was none.
    #[sqlx(rename = "retry_mode")]
    pub mode: Option<RetryMode>,
    /// The round that it began.
    #[sqlx(rename = "retry_round")]
    pub round: Option<i32>,
}

/// Loads cells to be run, the first of each task but these with the task's prompts.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_to_run(connection: &mut PgConnection, ids: &[Uuid], but: &[Uuid]) -> Result<Vec<RunRow>, sqlx::Error> {
    sqlx::query_as(
        "select s.id, s.task_id, t.round,
                s.cancel_requested_at is not null or t.cancel_requested_at is not null as is_cancel_requested,
                extract(epoch from t.not_after - clock_timestamp())::float8 as submits_for, s.cell, s.variable_indices, s.lane,
                s.status, s.retry_mode, s.retry_round, s.seed, s.width, s.height, s.use_polish, s.is_lumina,
                s.lumina_model_name, s.lumina_cfg, s.lumina_step,
                case when t.id <> all ($2) and row_number() over (partition by t.id) = 1 then t.prompts end as prompts
         from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
         where s.id = any ($1)",
    )
    .bind(ids)
    .bind(but)
    .fetch_all(connection)
    .await
}

/// One cell.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get(connection: &mut PgConnection, id: Uuid) -> Result<Option<SubtaskRow>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from imagemill.subtasks where id = $1")))
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// The tasks of cells, and their ordinals in these.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_places(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, (Uuid, i32)>, sqlx::Error> {
    let places: Vec<(Uuid, Uuid, i32)> = sqlx::query_as("select id, task_id, cell from imagemill.subtasks where id = any ($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(places.into_iter().map(|(id, task, cell)| (id, (task, cell))).collect())
}

/// The cells of a task in the order of the grid.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_task(connection: &mut PgConnection, task_id: Uuid) -> Result<Vec<SubtaskRow>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from imagemill.subtasks where task_id = $1 order by cell")))
        .bind(task_id)
        .fetch_all(connection)
        .await
}

/// The cells of a task that nobody has begun, in the order of the grid.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_pending_subtasks(
    connection: &mut PgConnection,
    task_id: Uuid,
    limit: i64,
) -> Result<Vec<SubtaskRow>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from imagemill.subtasks where task_id = $1 and status = 'pending' order by cell limit $2"
    )))
    .bind(task_id)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// A cell whose ledger row is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Begun {
    /// Itself.
    pub id: Uuid,
    /// Its task.
    pub task_id: Uuid,
    /// Whether its task was still pending.
    pub is_first: bool,
}

/// The ledger rows of these cells are about to be written: pending becomes processing. One that is not pending, or whose end
/// was asked for, is left out. To be given in the order of the ids, as everybody locks them.
///
/// # Errors
/// What PostgreSQL says.
pub async fn begin_attempts(connection: &mut PgConnection, cells: &[(Uuid, &str)]) -> Result<Vec<Begun>, sqlx::Error> {
    sqlx::query_as(
        "update imagemill.subtasks s
         set status = 'processing', attempt_count = attempt_count + 1, request_sha256 = given.sha256, error = null,
             started_at = coalesce(s.started_at, now()), updated_at = now()
         from unnest($1::uuid[], $2::text[]) as given (id, sha256), imagemill.tasks t
         where s.id = given.id and t.id = s.task_id and s.status = 'pending'
           and s.cancel_requested_at is null and t.cancel_requested_at is null
         returning s.id, s.task_id, t.status = 'pending' as is_first",
    )
    .bind(cells.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(cells.iter().map(|(_, sha256)| (*sha256).to_owned()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
}

/// Pending cells whose last attempt is opened again: they are processing, and no attempt is counted. To be given in the order of
/// the ids. Returns those that were pending and whose end was not asked for.
///
/// # Errors
/// What PostgreSQL says.
pub async fn resume_attempts(connection: &mut PgConnection, cells: &[Uuid]) -> Result<Vec<Begun>, sqlx::Error> {
    sqlx::query_as(
        "update imagemill.subtasks s
         set status = 'processing', error = null, started_at = coalesce(s.started_at, now()), updated_at = now()
         from imagemill.tasks t
         where s.id = any ($1) and t.id = s.task_id and s.status = 'pending' and s.cancel_requested_at is null
         returning s.id, s.task_id, t.status = 'pending' as is_first",
    )
    .bind(cells)
    .fetch_all(connection)
    .await
}

/// Where a cell went, as its UPDATE returned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Move {
    /// Its task.
    pub task_id: Uuid,
    /// The state that it left.
    pub from_status: Status,
    /// The state that it is in.
    pub to_status: Status,
}

/// What is written of a picture.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// URL.
    pub url: &'a str,
    /// Path below the results directory.
    pub file: Option<&'a str>,
    /// SHA-256 of the file.
    pub sha256: Option<&'a str>,
    /// Why the file was not kept.
    pub note: Option<&'a str>,
}

/// Completes a cell with its picture. None: it is not processing. Whoever calls it moves the counts by what it returns; a
/// roll-up counts the rows again all the same.
///
/// # Errors
/// What PostgreSQL says.
pub async fn set_result(connection: &mut PgConnection, id: Uuid, picture: &Picture<'_>) -> Result<Option<Move>, sqlx::Error> {
    Ok(set_results(connection, &[(id, *picture)]).await?.pop())
}

/// The same for many, to be given in the order of the ids. Returns those that were processing.
///
/// # Errors
/// What PostgreSQL says.
pub async fn set_results(connection: &mut PgConnection, pictures: &[(Uuid, Picture<'_>)]) -> Result<Vec<Move>, sqlx::Error> {
    macro_rules! column {
        ($picture:ident => $value:expr) => {
            pictures.iter().map(|(_, $picture)| $value).collect::<Vec<_>>()
        };
    }
    sqlx::query_as(
        "update imagemill.subtasks s
         set status = 'completed', result = given.url, result_file = given.file, result_sha256 = given.sha256,
             error_kind = null, error = given.note, completed_at = now(), updated_at = now()
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) as given (id, url, file, sha256, note)
         where s.id = given.id and status = 'processing'
         returning task_id, 'processing' as from_status, status as to_status",
    )
    .bind(pictures.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(column!(picture => picture.url.to_owned()))
    .bind(column!(picture => picture.file.map(str::to_owned)))
    .bind(column!(picture => picture.sha256.map(str::to_owned)))
    .bind(column!(picture => picture.note.map(str::to_owned)))
    .fetch_all(connection)
    .await
}

/// How an open cell ends without a picture.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// Why it failed; none: it is cancelled.
    pub kind: Option<ErrorKind>,
    /// Why, in words.
    pub error: Option<&'a str>,
}

/// Fails or cancels open cells, to be given in the order of the ids. Returns those that had not ended already. One whose end was
/// asked for is cancelled, whatever became of its attempt: the ledger says that.
///
/// # Errors
/// What PostgreSQL says.
pub async fn end(connection: &mut PgConnection, endings: &[(Uuid, Ending<'_>)]) -> Result<Vec<Move>, sqlx::Error> {
    sqlx::query_as(
        "with given as (
             select * from unnest($1::uuid[], $2::text[], $3::text[]) as given (id, kind, error)
         ), before as materialized (
             select s.id, s.status from imagemill.subtasks s join given on given.id = s.id
             where s.status in ('pending', 'processing') order by s.id for update of s
         )
         update imagemill.subtasks s
         set status = case when given.kind is null or s.cancel_requested_at is not null then 'cancelled' else 'failed' end,
             error_kind = case when s.cancel_requested_at is null then given.kind end,
             error = given.error, completed_at = now(), updated_at = now()
         from before join given on given.id = before.id where s.id = before.id
         returning s.task_id, before.status as from_status, s.status as to_status",
    )
    .bind(endings.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(endings.iter().map(|(_, ending)| ending.kind.map(|kind| kind.as_str().to_owned())).collect::<Vec<_>>())
    .bind(endings.iter().map(|(_, ending)| ending.error.map(str::to_owned)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
}

/// How a cell goes back to pending.
#[derive(Debug, Clone, Copy)]
pub struct Return<'a> {
    /// Takes its attempt out of `attempt_count` again.
    pub is_uncounted: bool,
    /// Why, in words.
    pub error: Option<&'a str>,
}

/// Cells go back to pending: turned away, not sent, or a new attempt that a policy allows. To be given in the order of the
/// ids. Returns those that were processing. One whose end was asked for never goes back: it is cancelled.
///
/// # Errors
/// What PostgreSQL says.
pub async fn put_back(connection: &mut PgConnection, returns: &[(Uuid, Return<'_>)]) -> Result<Vec<Move>, sqlx::Error> {
    sqlx::query_as(
        "update imagemill.subtasks s
         set status = case when s.cancel_requested_at is null then 'pending' else 'cancelled' end,
             completed_at = case when s.cancel_requested_at is not null then now() end,
             attempt_count = attempt_count - given.uncounted, error = given.error, updated_at = now()
         from unnest($1::uuid[], $2::integer[], $3::text[]) as given (id, uncounted, error)
         where s.id = given.id and status = 'processing'
         returning task_id, 'processing' as from_status, status as to_status",
    )
    .bind(returns.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(returns.iter().map(|(_, cell)| i32::from(cell.is_uncounted)).collect::<Vec<_>>())
    .bind(returns.iter().map(|(_, cell)| cell.error.map(str::to_owned)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
}

/// Of these cells, those that are cancelled.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_cancelled(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("select id from imagemill.subtasks where id = any ($1) and status = 'cancelled'")
        .bind(ids)
        .fetch_all(connection)
        .await
}

/// Rates a picture, 1 to 5, or takes the rating away. False: there is no such completed cell.
///
/// # Errors
/// What PostgreSQL says.
pub async fn set_rating(connection: &mut PgConnection, id: Uuid, rating: Option<i16>) -> Result<bool, sqlx::Error> {
    let rows =
        sqlx::query("update imagemill.subtasks set rating = $2, updated_at = now() where id = $1 and status = 'completed'")
            .bind(id)
            .bind(rating)
            .execute(connection)
            .await?
            .rows_affected();
    Ok(rows == 1)
}
