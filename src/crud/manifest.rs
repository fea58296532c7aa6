//! The cells of a task as an export has them, page by page.

use serde_json::Value;
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use crate::models::status::Status;

/// What a task was made of, as given.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct GivenTask {
    /// Its name.
    pub name: String,
    /// 1 to 8.
    pub priority: i16,
    /// None: by cell.
    pub lane: Option<String>,
    /// The list of prompts.
    pub prompts: Value,
    /// The settings, in one object.
    pub settings: Value,
    /// number, kind, `variable_id`, name, values.
    pub axes: Value,
}

/// A cell, its last attempt, and what it cost.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct ManifestRow {
    /// 0-based ordinal, copies counted.
    pub cell: i32,
    /// One value index per axis.
    pub variable_indices: Vec<i32>,
    /// 0-based copy.
    pub copy: i32,
    /// See [`Status`].
    pub status: Status,
    /// The one really used.
    pub seed: i64,
    /// Of the sides.
    pub ratio: String,
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
    /// The way into the upstream.
    pub lane: String,
    /// Of its last attempt.
    pub upstream_id: Option<String>,
    /// Attempts, without those that were not sent or turned away.
    pub attempt_count: i32,
    /// Submits that the upstream had accepted.
    pub paid_submits: i64,
    /// Submits of which that is not known.
    pub unknown_submits: i64,
    /// Why it failed, as a word.
    pub error_kind: Option<String>,
    /// Why, in words.
    pub error: Option<String>,
    /// 1 to 5.
    pub rating: Option<i16>,
    /// URL of the picture.
    pub result: Option<String>,
    /// Path below the results directory.
    pub result_file: Option<String>,
    /// SHA-256 of the kept file.
    pub result_sha256: Option<String>,
}

/// A task as it was given; none: there is none, or it is deleted.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_given(connection: &mut PgConnection, id: Uuid) -> Result<Option<GivenTask>, sqlx::Error> {
    sqlx::query_as("select name, priority, lane, prompts, settings, axes from imagemill.tasks where id = $1 and not is_deleted")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// The cells of a task after one of them, in the order of the grid.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_page(
    connection: &mut PgConnection,
    task_id: Uuid,
    after: i32,
    limit: i64,
) -> Result<Vec<ManifestRow>, sqlx::Error> {
    sqlx::query_as(
        "select s.cell, s.variable_indices, s.copy, s.status, s.seed, s.ratio, s.width, s.height, s.lane, a.upstream_id, s.attempt_count,
                coalesce(a.paid, 0) as paid_submits, coalesce(a.\"unknown\", 0) as unknown_submits, s.error_kind, s.error, s.rating,
                s.result, s.result_file, s.result_sha256
         from imagemill.subtasks s
         left join lateral (
             select (array_agg(upstream_id order by ordinal desc))[1] as upstream_id,
                    count(*) filter (where state not in ('submitting', 'not_sent', 'turned_away', 'rejected', 'unknown')) as paid,
                    count(*) filter (where state = 'unknown') as \"unknown\"
             from imagemill.attempts where subtask_id = s.id) a on true
         where s.task_id = $1 and s.cell > $2 order by s.cell limit $3",
    )
    .bind(task_id)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await
}
