//! Tasks: looking at them, waiting for them, completing them.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{actor::Actor, cell_settle, context::Context, error::ServiceError, task_settle::TaskHook};
use crate::{
    crud::{
        deletion,
        tasks::{self, TaskRow},
    },
    models::{Permission, payload::CompleteTask, status::Status},
    queue::{self, Outcome, Settle},
};

pub use super::bounds::{Moment, NewBounds, limit_task};
pub use super::create_task::{
    CreateOptions, CreatedTask, PlannedReuse, PlannedTask, create_task, create_task_alone, create_task_in, create_task_in_with,
    create_task_with, plan_reuse, plan_task,
};
pub use super::purge::{LeftTask, Purge, Purged, purge_tasks};
pub use super::retry_task::{RetriedTask, Retry, retry_task, sweep_late_evidence};
pub use super::steer_task::{SteeredTask, cancel_cells, cancel_task, force_complete_task};
pub use super::task_spend::sum_up_spend;

/// The hook of `imagemill.complete_task`.
pub fn hook() -> Arc<dyn Settle> {
    Arc::new(TaskHook)
}

/// Completes a round of a task. The roll-up itself stands in the transaction that acknowledges the job, so that it is
/// written once however often this runs.
#[tracing::instrument(name = "complete_task", skip_all, fields(task = %task_id, round))]
pub async fn complete(context: &Context, task_id: Uuid, round: i32) -> Outcome {
    let found = async {
        let mut connection = context.reader().await?;
        tasks::get_round(&mut connection, task_id).await
    };
    context.completed.notify_one();
    match found.await {
        Ok(Some(task)) if task.round == round => Outcome::done(),
        Ok(Some(task)) => Outcome::done().because(format!("the task is in round {} by now", task.round)),
        Ok(None) => Outcome::done().because("the task was purged"),
        // The settle waits for the database, and looks for itself.
        Err(_) => Outcome::done(),
    }
}

/// One task.
///
/// # Errors
/// See [`ServiceError`].
pub async fn get_task(context: &Context, actor: &Actor, id: Uuid) -> Result<TaskRow, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    get_or_say_why_not(&mut connection, id).await
}

/// One task, or why there is none to look at: it was deleted, or never was.
pub(super) async fn get_or_say_why_not(connection: &mut PgConnection, id: Uuid) -> Result<TaskRow, ServiceError> {
    if let Some(task) = tasks::get(connection, id).await? {
        return Ok(task);
    }
    match deletion::get(connection, id).await? {
        Some(task) if task.is_deleted => Err(ServiceError::Deleted(id)),
        _ => Err(ServiceError::NotFound { what: "task", id: id.to_string() }),
    }
}

/// What is said of a cell that a task does not have.
pub(super) fn no_cell(task: &TaskRow, cell: i32) -> ServiceError {
    let (id, last) = (task.id, task.total_images - 1);
    ServiceError::Usage(format!("task {id} has no cell {cell}: its cells are 0 to {last}"))
}

/// One's own deleted tasks, newest first, or everybody's.
///
/// # Errors
/// See [`ServiceError`].
pub async fn list_deleted_tasks(
    context: &Context,
    actor: &Actor,
    everybody: bool,
    limit: i64,
) -> Result<Vec<TaskRow>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(tasks::get_deleted(&mut connection, (!everybody).then_some(actor.id), limit).await?)
}

/// Tasks, newest first: one's own, or everybody's.
///
/// # Errors
/// See [`ServiceError`].
pub async fn list_tasks(context: &Context, actor: &Actor, everybody: bool, limit: i64) -> Result<Vec<TaskRow>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(if everybody {
        tasks::get_all(&mut connection, limit).await?
    } else {
        tasks::get_by_user(&mut connection, actor.id, limit).await?
    })
}

/// Waits until a task has ended; none: the time was over first.
///
/// # Errors
/// See [`ServiceError`].
pub async fn await_task(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    timeout: Option<Duration>,
) -> Result<Option<TaskRow>, ServiceError> {
    let began = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        let task = get_task(context, actor, id).await?;
        if task.status.is_terminal() {
            return Ok(Some(task));
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Puts a task into another state by hand, along an edge of the state diagram (design, section 6), where no cell says
/// otherwise: an ended state needs a task without open cells, `processing` one with some.
///
/// # Errors
/// See [`ServiceError`].
pub async fn update_task_status(context: &Context, actor: &Actor, id: Uuid, status: Status) -> Result<(), ServiceError> {
    let mut transaction = context.begin().await?;
    let task = get_or_say_why_not(&mut transaction, id).await?;
    actor.require_manage(task.user_id)?;
    let refused = ServiceError::Transition { what: "task", from: task.status, to: status };
    let has_open_cells = task.processed_images() < task.total_images;
    if !task.status.task_may_become(status) || has_open_cells == status.is_terminal() {
        return Err(refused);
    }
    if !tasks::update_status(&mut transaction, id, task.status, status).await? {
        // Somebody else changed it between the two statements.
        return Err(refused);
    }
    transaction.commit().await?;
    Ok(())
}

/// Looks for open tasks that no cell and no job will end, and has them completed. It should never find one. Returns how many
/// it found.
///
/// # Errors
/// See [`ServiceError`].
pub async fn sweep(context: &Context) -> Result<u64, ServiceError> {
    let mut transaction = context.begin().await?;
    let stranded = tasks::get_stranded(&mut transaction, 100).await?;
    let keys: Vec<String> = stranded.iter().map(|(id, round)| CompleteTask::key(*id, *round)).collect();
    let open = queue::open_keys(&mut transaction, CompleteTask::QUEUE, &keys).await?;
    let mut repaired = 0;
    for (id, round) in stranded {
        if open.contains(&CompleteTask::key(id, round)) {
            continue;
        }
        // Read after its job was seen not to be open: had it been completed between the two looks, it has ended by now.
        let Some(task) = tasks::get_round(&mut transaction, id).await? else { continue };
        if task.round != round || task.status.is_terminal() {
            continue;
        }
        let (group, owner) = (id.to_string(), task.user_id.to_string());
        let reopened = queue::reopen(&mut transaction, &cell_settle::completion(id, round, &group, &owner)?).await?;
        if reopened > 0 {
            tracing::error!(task = %id, round, "an open task without open cells and without a completion: put right");
            repaired += reopened;
        }
    }
    transaction.commit().await?;
    Ok(repaired)
}
