//! How far a task is: for those who look on while it runs, and for what is said at its end.

use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::{
    crud::{
        subtasks,
        task_outcomes::{self, OutcomeRow},
        tasks::TaskRow,
        why::{self, WhyNotRunning},
    },
    models::{
        Permission,
        payload::{CompleteTask, GenerateImage},
    },
    queue::{
        self,
        ledger::{self, AttemptRow},
    },
};

/// A task, and how many of its cells are in flight.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TaskProgress {
    /// The task with its counts.
    pub task: TaskRow,
    /// Cells with an open attempt, and attempts that were given up while the upstream may still be working on them.
    pub in_flight: i64,
}

/// How far a task is.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_progress(context: &Context, actor: &Actor, id: Uuid) -> Result<TaskProgress, ServiceError> {
    let task = task_service::get_task(context, actor, id).await?;
    let mut connection = context.reader().await?;
    let in_flight = task_outcomes::count_in_flight(&mut connection, id).await?;
    Ok(TaskProgress { task, in_flight })
}

/// The cells of a task by state and kind of error, counted from their rows.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_outcomes(context: &Context, actor: &Actor, id: Uuid) -> Result<Vec<OutcomeRow>, ServiceError> {
    task_service::get_task(context, actor, id).await?;
    let mut connection = context.reader().await?;
    Ok(task_outcomes::get_by_task(&mut connection, id).await?)
}

/// Why the cell of a task that was put back last waits; none: none does. It reads every open cell: ask it now and then.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_waiting_reason(context: &Context, actor: &Actor, id: Uuid) -> Result<Option<String>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(task_outcomes::get_waiting_reason(&mut connection, id).await?)
}

/// Why one of a task's pending cells is not running; none: none is pending.
///
/// # Errors
/// See [`ServiceError`].
pub async fn why_waiting(context: &Context, actor: &Actor, id: Uuid) -> Result<Option<WhyNotRunning>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    let Some(cell) = why::get_pending_id(&mut connection, id).await? else { return Ok(None) };
    Ok(why::why_not_running(&mut connection, cell).await?)
}

/// Completed cells of a task whose picture was not kept.
///
/// # Errors
/// See [`ServiceError`].
pub async fn count_not_kept(context: &Context, actor: &Actor, id: Uuid) -> Result<i64, ServiceError> {
    task_service::get_task(context, actor, id).await?;
    let mut connection = context.reader().await?;
    Ok(task_outcomes::count_not_kept(&mut connection, id).await?)
}

/// The ledger of a task's cells.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_attempts(context: &Context, actor: &Actor, id: Uuid) -> Result<Vec<AttemptRow>, ServiceError> {
    task_service::get_task(context, actor, id).await?;
    let mut connection = context.reader().await?;
    let cells = subtasks::get_by_task(&mut connection, id).await?;
    let ids: Vec<Uuid> = cells.iter().map(|cell| cell.id).collect();
    Ok(ledger::get_by_cells(&mut connection, &ids).await?)
}

/// Whether a job of the task is pending or running.
///
/// # Errors
/// See [`ServiceError`].
pub async fn has_open_jobs(context: &Context, actor: &Actor, id: Uuid) -> Result<bool, ServiceError> {
    task_service::get_task(context, actor, id).await?;
    let mut connection = context.reader().await?;
    let queues = [GenerateImage::QUEUE.to_owned(), CompleteTask::QUEUE.to_owned()];
    Ok(queue::any_open(&mut connection, &queues, Some(&id.to_string())).await?)
}

/// Cells of everybody's tasks that have not ended: what workers find to do.
///
/// # Errors
/// See [`ServiceError`].
pub async fn count_open_cells(context: &Context, actor: &Actor) -> Result<i64, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(task_outcomes::count_open(&mut connection).await?)
}
