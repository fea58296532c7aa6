//! The grid of a task: as a whole, for what draws all of it, and in slices.

use sqlx::postgres::PgDatabaseError;
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::{
    crud::{
        grid::{self, GridCell, GridHead, MatrixCell},
        tasks::TaskRow,
    },
    models::{Axis, Fault, Faults, MatrixQuery, Permission},
};

/// A task, what it asked for, and what became of each cell.
#[derive(Debug, Clone)]
pub struct Grid {
    /// The task with its counts.
    pub task: TaskRow,
    /// What it asked for.
    pub head: GridHead,
    /// In the order of the grid; a cell's place in the list is its ordinal.
    pub cells: Vec<GridCell>,
}

impl Grid {
    /// Copies of each combination.
    pub fn copies(&self) -> usize {
        let combinations: usize = self.head.axes.iter().map(|axis| axis.values.len()).product();
        self.cells.len().checked_div(combinations).unwrap_or(1).max(1)
    }
}

/// The whole grid of a task.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_grid(context: &Context, actor: &Actor, task_id: Uuid) -> Result<Grid, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    let missing = || ServiceError::NotFound { what: "task", id: task_id.to_string() };
    let task = task_service::get_or_say_why_not(&mut connection, task_id).await?;
    let head = grid::get_head(&mut connection, task_id).await?.ok_or_else(missing)?;
    let cells = grid::get_cells(&mut connection, task_id).await?;
    Ok(Grid { task, head, cells })
}

/// The axes of a task: what the indices of its cells mean.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_axes(context: &Context, actor: &Actor, task_id: Uuid) -> Result<Vec<Axis>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    task_service::get_or_say_why_not(&mut connection, task_id).await?;
    let head = grid::get_head(&mut connection, task_id).await?;
    Ok(head.ok_or_else(|| ServiceError::NotFound { what: "task", id: task_id.to_string() })?.axes.0)
}

/// A page of one slice of a task's grid, row by row; with a cursor only what has changed since. An answer of several pages has
/// the cursor of its first page; where nothing has changed the old cursor holds.
///
/// # Errors
/// See [`ServiceError`]; [`ServiceError::Input`] names every fault of the query.
pub async fn task_matrix(
    context: &Context,
    actor: &Actor,
    task_id: Uuid,
    query: &MatrixQuery,
) -> Result<Vec<MatrixCell>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    let answer = grid::task_matrix(&mut connection, task_id, query).await;
    // What was refused may have left a transaction behind in which nothing can be asked any more.
    drop(connection);
    match answer.map_err(|error| described(error, task_id)) {
        Err(missing @ ServiceError::NotFound { .. }) => {
            task_service::get_task(context, actor, task_id).await?;
            Err(missing)
        }
        answer => answer,
    }
}

/// The database looks for faults itself, so that plain SQL is told the same.
fn described(error: sqlx::Error, task_id: Uuid) -> ServiceError {
    let refusal = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    match refusal.map(|refusal| (refusal.code(), refusal.detail())) {
        Some(("P0002", _)) => ServiceError::NotFound { what: "task", id: task_id.to_string() },
        Some(("22023", Some(detail))) => match serde_json::from_str::<Vec<Fault>>(detail) {
            Ok(faults) => ServiceError::Input(Faults(faults)),
            Err(_) => ServiceError::Database(error),
        },
        _ => ServiceError::Database(error),
    }
}
