//! A task's grid as one who draws it needs it: its axes, and each cell with its picture or why there is none.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, prelude::FromRow, types::Json};
use uuid::Uuid;

use crate::models::{Axis, MatrixQuery, status::Status};

/// What a task asked for.
#[derive(Debug, Clone, FromRow)]
pub struct GridHead {
    /// As given.
    pub prompts: Value,
    /// As given.
    pub settings: Value,
    /// In axis order.
    pub axes: Json<Vec<Axis>>,
}

/// A cell and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct GridCell {
    /// 0-based ordinal, copies counted.
    pub cell: i32,
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
}

/// What a task asked for; none where there is no such task, or it was deleted.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_head(connection: &mut PgConnection, task_id: Uuid) -> Result<Option<GridHead>, sqlx::Error> {
    sqlx::query_as("select prompts, settings, axes from imagemill.tasks where id = $1 and not is_deleted")
        .bind(task_id)
        .fetch_optional(connection)
        .await
}

/// Every cell of a task, in the order of the grid.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_cells(connection: &mut PgConnection, task_id: Uuid) -> Result<Vec<GridCell>, sqlx::Error> {
    sqlx::query_as(
        "select cell, status, seed, width, height, attempt_count, result, result_file, error_kind, error, rating
         from imagemill.subtasks where task_id = $1 order by cell",
    )
    .bind(task_id)
    .fetch_all(connection)
    .await
}

/// A cell in its place in a slice of the grid.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct MatrixCell {
    /// Its place in the slice, counted row by row from 0.
    pub position: i64,
    /// Index of its value on the axis across, from 0.
    pub x: i32,
    /// Index of its value on the axis down, from 0.
    pub y: i32,
    /// What people read there; none: no axis goes across.
    pub x_label: Option<String>,
    /// What people read there; none: no axis goes down.
    pub y_label: Option<String>,
    /// 0-based ordinal in the whole grid, copies counted.
    pub cell: i32,
    /// Its id.
    pub subtask_id: Uuid,
    /// See [`Status`].
    pub status: Status,
    /// URL of the picture.
    pub url: Option<String>,
    /// Path below the results directory.
    pub file: Option<String>,
    /// Why it failed, as a word.
    pub error_kind: Option<String>,
    /// Why, in words.
    pub error: Option<String>,
    /// 1 to 5.
    pub rating: Option<i16>,
    /// The one really used.
    pub seed: i64,
    /// Attempts, without those that were not sent or turned away.
    pub attempt_count: i32,
    /// When it was last written.
    pub updated_at: DateTime<Utc>,
    /// What is asked with for later changes: what this answer saw.
    pub cursor: String,
}

/// A page of a slice, by the SQL function of that name, which checks what it is asked.
///
/// # Errors
/// What PostgreSQL says: `22023` with every fault as JSON in its detail, `P0002` where there is no such task.
pub async fn task_matrix(
    connection: &mut PgConnection,
    task_id: Uuid,
    query: &MatrixQuery,
) -> Result<Vec<MatrixCell>, sqlx::Error> {
    sqlx::query_as("select * from imagemill.task_matrix($1, $2, $3, $4, $5, $6, $7)")
        .bind(task_id)
        .bind(query.x_axis.map(|axis| axis.to_string()))
        .bind(query.y_axis.map(|axis| axis.to_string()))
        .bind(query.fixed_json())
        .bind(query.from_position)
        .bind(query.page_size)
        .bind(&query.changed_since)
        .fetch_all(connection)
        .await
}
