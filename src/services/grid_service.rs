//! The grid of a task: for pages and sheets that draw all of it.

use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError};
use crate::{
    crud::{
        grid::{self, GridCell, GridHead},
        tasks::{self, TaskRow},
    },
    models::Permission,
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
    let task = tasks::get(&mut connection, task_id).await?.ok_or_else(missing)?;
    let head = grid::get_head(&mut connection, task_id).await?.ok_or_else(missing)?;
    let cells = grid::get_cells(&mut connection, task_id).await?;
    Ok(Grid { task, head, cells })
}
