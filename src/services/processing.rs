//! The engine of a process, and running jobs from a program of one's own: by a lease, like any worker, so that it is safe
//! beside workers.

use crate::{
    config::Settings,
    models::payload::{CompleteTask, GenerateImage},
    queue::{EngineOptions, Queue, UntilEmpty},
};

use super::{subtask_service, task_service};

/// How an engine of these settings keeps time.
pub fn engine_options(settings: &Settings, until_empty: Option<UntilEmpty>) -> EngineOptions {
    EngineOptions {
        beat: settings.queue.beat,
        lease: settings.queue.lease,
        poll_interval: settings.queue.poll_interval,
        until_empty,
    }
}

/// The queues that a worker serves: cells of these lanes, and completions in slots of their own.
pub fn queues(settings: &Settings, slots: usize, lanes: Vec<String>) -> Vec<Queue> {
    vec![
        Queue { name: GenerateImage::QUEUE, slots, lanes, group: None, hook: subtask_service::hook(), claimed: true },
        Queue {
            name: CompleteTask::QUEUE,
            slots: settings.complete_task.slots,
            lanes: vec![String::new()],
            group: None,
            hook: task_service::hook(),
            claimed: true,
        },
    ]
}

#[cfg(feature = "worker")]
pub use running::{ProcessedSubtasks, process_pending_subtasks, process_subtask};

#[cfg(feature = "worker")]
mod running {
    use uuid::Uuid;

    use super::{engine_options, queues};
    use crate::{
        crud::{
            subtasks::{self, SubtaskRow},
            tasks::{self, TaskRow},
        },
        models::payload::{CompleteTask, GenerateImage},
        queue::{Engine, Job, Queue, UntilEmpty, decoded},
        services::{actor::Actor, context::Context, error::ServiceError, subtask_service, task_service},
    };

    /// What [`process_pending_subtasks`] saw at its end.
    #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
    pub struct ProcessedSubtasks {
        /// The task as it then was.
        pub task: TaskRow,
        /// Whether everything this process held was settled.
        pub settled: bool,
    }

    fn lanes(context: &Context) -> Vec<String> {
        context.settings.lanes.keys().cloned().collect()
    }

    fn cell_handler(
        context: &Context,
        engine: &Engine,
    ) -> impl Fn(Job) -> futures::future::BoxFuture<'static, crate::queue::Outcome> + use<> {
        let (context, engine) = (context.clone(), engine.clone());
        move |job: Job| {
            let (context, engine) = (context.clone(), engine.clone());
            Box::pin(decoded(&job.clone(), move |payload: GenerateImage| async move {
                subtask_service::run_cell(&context, &engine, &job, payload.subtask_id).await
            }))
        }
    }

    /// Runs one cell in this process and returns it as it then is. A cell that another worker holds, or that waits for its
    /// time, is left alone and said so.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub async fn process_subtask(context: &Context, actor: &Actor, id: Uuid) -> Result<SubtaskRow, ServiceError> {
        let missing = || ServiceError::NotFound { what: "cell", id: id.to_string() };
        let mut connection = context.pool.acquire().await?;
        let cell = subtasks::get(&mut connection, id).await?.ok_or_else(missing)?;
        let task = tasks::get(&mut connection, cell.task_id).await?.ok_or_else(missing)?;
        drop(connection);
        actor.require_manage(task.user_id)?;
        if cell.status.is_terminal() {
            return Ok(cell);
        }
        // Taken by key, and nothing else: no claimer runs.
        let queues = queues(&context.settings, 1, lanes(context)).into_iter().map(|queue| Queue { claimed: false, ..queue });
        let engine = Engine::start(context.pool.clone(), engine_options(&context.settings, None), queues.collect()).await?;
        let claimed = engine.claim_key(GenerateImage::QUEUE, &GenerateImage::key(id)).await;
        let taken = match claimed {
            Ok(Some(job)) => {
                let handled = cell_handler(context, &engine)(job.clone());
                // Whatever became of the handler is settled; the cell's row says it.
                drop(engine.execute(job, handled).await);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        engine.stop(context.settings.queue.grace).await;
        if !taken? {
            return Err(ServiceError::Usage(format!("cell {id} is held by a worker, or waits for its time")));
        }
        let mut connection = context.pool.acquire().await?;
        subtasks::get(&mut connection, id).await?.ok_or_else(missing)
    }

    /// Runs the cells of a task in this process, beside whatever workers there are, until none of them is pending or running
    /// anywhere and the task is rolled up.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub async fn process_pending_subtasks(
        context: &Context,
        actor: &Actor,
        task_id: Uuid,
        concurrency: usize,
    ) -> Result<ProcessedSubtasks, ServiceError> {
        let task = task_service::get_task(context, actor, task_id).await?;
        actor.require_manage(task.user_id)?;
        let group = Some(task_id.to_string());
        let until_empty = UntilEmpty { group: group.clone() };
        let queues = queues(&context.settings, concurrency.max(1), lanes(context));
        let queues = queues.into_iter().map(|queue| Queue { group: group.clone(), ..queue }).collect();
        let engine = Engine::start(context.pool.clone(), engine_options(&context.settings, Some(until_empty)), queues).await?;
        let completion = {
            let context = context.clone();
            move |job: Job| {
                let context = context.clone();
                decoded(&job, move |payload: CompleteTask| async move {
                    task_service::complete(&context, payload.task_id, payload.round).await
                })
            }
        };
        tokio::join!(
            engine.drive(GenerateImage::QUEUE, cell_handler(context, &engine)),
            engine.drive(CompleteTask::QUEUE, completion)
        );
        let settled = engine.stop(context.settings.queue.grace).await;
        let task = task_service::get_task(context, actor, task_id).await?;
        Ok(ProcessedSubtasks { task, settled })
    }
}
