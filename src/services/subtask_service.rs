//! Cells: running one, looking at them, and the hook of their queue.

use std::sync::Arc;

use uuid::Uuid;

use super::{actor::Actor, cell_settle::CellHook, context::Context, error::ServiceError, task_service};
use crate::{
    crud::{
        subtasks::{self, SubtaskRow},
        why::{self, WhyNotRunning},
    },
    models::Permission,
    queue::Settle,
};

#[cfg(feature = "worker")]
pub use super::run_cell::run_cell;
pub use super::steer_task::cancel_subtask;

/// The hook of `imagemill.generate_image`.
pub fn hook() -> Arc<dyn Settle> {
    Arc::new(CellHook)
}

/// The cells of a task, in the order of the grid.
///
/// # Errors
/// See [`ServiceError`].
pub async fn list_subtasks(context: &Context, actor: &Actor, task_id: Uuid) -> Result<Vec<SubtaskRow>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    task_service::get_or_say_why_not(&mut connection, task_id).await?;
    Ok(subtasks::get_by_task(&mut connection, task_id).await?)
}

/// Rates a picture, 1 to 5, or takes the rating away.
///
/// # Errors
/// See [`ServiceError`].
pub async fn set_rating(context: &Context, actor: &Actor, id: Uuid, rating: Option<i16>) -> Result<(), ServiceError> {
    if rating.is_some_and(|rating| !(1..=5).contains(&rating)) {
        return Err(ServiceError::Usage("a rating is 1 to 5".to_owned()));
    }
    let mut transaction = context.begin().await?;
    let missing = || ServiceError::NotFound { what: "completed cell", id: id.to_string() };
    let cell = subtasks::get(&mut transaction, id).await?.ok_or_else(missing)?;
    let task = task_service::get_or_say_why_not(&mut transaction, cell.task_id).await?;
    actor.require_manage(task.user_id)?;
    if !subtasks::set_rating(&mut transaction, id, rating).await? {
        return Err(missing());
    }
    transaction.commit().await?;
    Ok(())
}

/// Why a cell is not running, by its ordinal in its task. Needs `view_results`.
///
/// # Errors
/// See [`ServiceError`].
pub async fn why_not_running(context: &Context, actor: &Actor, task_id: Uuid, cell: i32) -> Result<WhyNotRunning, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    let task = task_service::get_or_say_why_not(&mut connection, task_id).await?;
    let missing = || task_service::no_cell(&task, cell);
    let id = why::get_id(&mut connection, task_id, cell).await?.ok_or_else(missing)?;
    why::why_not_running(&mut connection, id).await?.ok_or_else(missing)
}
