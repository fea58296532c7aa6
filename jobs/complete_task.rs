//! The job `imagemill.complete_task`: one round of a task, rolled up.
//!
//! Enqueued by the settle of the round's last cell, in the same transaction, under the key `task:round`. Writes the task's
//! end, counted from its cells' rows. It may run twice: the roll-up writes only where the round is still the task's and
//! the task is open.

use imagemill::{
    models::payload::CompleteTask,
    queue::{Engine, Job, Outcome},
    services::{context::Context, task_service},
};

/// Rolls one round of a task up.
pub(crate) async fn complete_task(payload: CompleteTask, _job: Job, _engine: Engine, context: Context) -> Outcome {
    task_service::complete(&context, payload.task_id, payload.round).await
}
