//! Cancel and force-complete.

use std::time::Duration;

use uuid::Uuid;

use super::{actor::Actor, conflict::retried, context::Context, error::ServiceError, task_service};
use crate::{
    crud::{
        steering::{self, EndedCells},
        subtasks,
    },
    models::status::Status,
};

/// What a cancel or a force-complete did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct SteeredTask {
    /// The task.
    pub task: Uuid,
    /// Cells that ended with it.
    pub ended: i32,
    /// Cells in flight: their workers end them within two seconds, or when the answer to a POST that is out has come.
    pub in_flight: i32,
}

/// Cancels the open cells of a task. What waits ends at once, whether it was begun or not; what a worker holds stops to be polled
/// within two seconds. A POST that is out is awaited and its answer is kept; a picture that came first is kept as well.
///
/// No submit of the task leaves after this has returned: for that it waits, for three seconds at most, where a submit was begun
/// just before. How that holds exactly is said where `imagemill.end_cells` is made. `select imagemill.cancel_task(id)` does the same.
///
/// # Errors
/// See [`ServiceError`]; nothing is cancelled then.
pub async fn cancel_task(context: &Context, actor: &Actor, id: Uuid) -> Result<SteeredTask, ServiceError> {
    end(context, actor, id, None, Status::Cancelled, "cancel_task").await
}

/// Cancels these cells of a task, by their ordinals; see [`cancel_task`].
///
/// # Errors
/// See [`ServiceError`]; nothing is cancelled then.
pub async fn cancel_cells(context: &Context, actor: &Actor, task: Uuid, cells: &[i32]) -> Result<SteeredTask, ServiceError> {
    end(context, actor, task, Some(cells), Status::Cancelled, "cancel_subtask").await
}

/// Cancels one cell; see [`cancel_task`].
///
/// # Errors
/// See [`ServiceError`]; nothing is cancelled then.
pub async fn cancel_subtask(context: &Context, actor: &Actor, id: Uuid) -> Result<SteeredTask, ServiceError> {
    let mut connection = context.reader().await?;
    let cell = subtasks::get(&mut connection, id).await?;
    drop(connection);
    let cell = cell.ok_or_else(|| ServiceError::NotFound { what: "cell", id: id.to_string() })?;
    cancel_cells(context, actor, cell.task_id, &[cell.cell]).await
}

/// Ends a task by force: its open cells, in flight or not, fail as `operator` at once. A picture that comes later is not taken; its
/// attempt says that it came. No submit leaves after it, as with [`cancel_task`].
///
/// # Errors
/// See [`ServiceError`]; nothing is ended then.
pub async fn force_complete_task(context: &Context, actor: &Actor, id: Uuid) -> Result<SteeredTask, ServiceError> {
    end(context, actor, id, None, Status::Failed, "force_complete_task").await
}

async fn end(
    context: &Context,
    actor: &Actor,
    task: Uuid,
    cells: Option<&[i32]>,
    status: Status,
    what: &str,
) -> Result<SteeredTask, ServiceError> {
    let done = retried(|| Box::pin(write(context, actor, task, cells, status, what))).await?;
    tracing::info!(%task, by = %actor.username, ended = done.ended, in_flight = done.in_flight, "{what}");
    if let Some(left) = done.submits_for {
        tokio::time::sleep(Duration::try_from_secs_f64(left.max(0.0)).unwrap_or_default()).await;
    }
    Ok(SteeredTask { task, ended: done.ended, in_flight: done.in_flight })
}

async fn write(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    cells: Option<&[i32]>,
    status: Status,
    what: &str,
) -> Result<EndedCells, ServiceError> {
    let mut transaction = context.begin().await?;
    let task = task_service::get_or_say_why_not(&mut transaction, id).await?;
    actor.require_manage(task.user_id)?;
    if let Some(unknown) = cells.unwrap_or_default().iter().find(|cell| !(0..task.total_images).contains(*cell)) {
        return Err(task_service::no_cell(&task, *unknown));
    }
    let ended = steering::end_cells(&mut transaction, id, cells, status, &actor.username, what).await?;
    transaction.commit().await?;
    Ok(ended)
}
