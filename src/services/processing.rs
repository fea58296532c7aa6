//! The engine of a process, and running jobs from a program of one's own: by a lease, like any worker, so that it is safe
//! beside workers.

use crate::{
    config::Settings,
    models::payload::{CompleteTask, GenerateImage},
    queue::{EngineOptions, Queue, UntilEmpty},
};

use super::{subtask_service, task_service};

/// How an engine of these settings keeps time. Whoever submits names its token as well.
pub fn engine_options(settings: &Settings, until_empty: Option<UntilEmpty>) -> EngineOptions {
    EngineOptions {
        beat: settings.queue.beat,
        lease: settings.queue.lease,
        poll_interval: settings.queue.poll_interval,
        listen: settings.queue.listen && !settings.database.pooler,
        is_pooled: settings.database.pooler,
        keeps_connections: false,
        token_hash: String::new(),
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
pub use running::{ProcessedSubtasks, options, process_pending_subtasks, process_subtask};

#[cfg(feature = "worker")]
mod running {
    use futures::future::BoxFuture;
    use uuid::Uuid;

    use super::{engine_options, queues};
    use crate::{
        crud::{
            subtasks::{self, SubtaskRow},
            tasks::{self, TaskRow},
        },
        models::payload::{CompleteTask, GenerateImage},
        queue::{Engine, EngineOptions, Job, Outcome, Queue, UntilEmpty, decoded},
        services::{actor::Actor, context::Context, error::ServiceError, overdue, pause_watch, subtask_service, task_service},
    };

    /// What [`process_pending_subtasks`] saw at its end.
    #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
    pub struct ProcessedSubtasks {
        /// The task as it then was.
        pub task: TaskRow,
        /// Whether everything this process held was settled.
        pub settled: bool,
    }

    /// With the token of the context's client, by which pauses name their holders.
    pub fn options(context: &Context, until_empty: Option<UntilEmpty>) -> EngineOptions {
        let token_hash = context.upstream.as_ref().map(|client| client.token().current().hash().to_owned());
        EngineOptions { token_hash: token_hash.unwrap_or_default(), ..engine_options(&context.settings, until_empty) }
    }

    fn lanes(context: &Context) -> Vec<String> {
        // A lane without an address cannot be used here; another worker may know it.
        let lanes = context.settings.lanes.iter().filter(|(_, lane)| lane.base_url.is_some());
        lanes.map(|(name, _)| name.clone()).collect()
    }

    fn cell_handler(context: &Context, engine: &Engine) -> impl Fn(Job) -> BoxFuture<'static, Outcome> + use<> {
        let (context, engine) = (context.clone(), engine.clone());
        move |job: Job| {
            let (context, engine) = (context.clone(), engine.clone());
            Box::pin(decoded(&job.clone(), GenerateImage::VERSION, move |payload: GenerateImage| async move {
                subtask_service::run_cell(&context, &engine, &job, &payload).await
            }))
        }
    }

    fn task_handler(context: &Context) -> impl Fn(Job) -> BoxFuture<'static, Outcome> + use<> {
        let context = context.clone();
        move |job: Job| {
            let context = context.clone();
            Box::pin(decoded(&job, CompleteTask::VERSION, move |payload: CompleteTask| async move {
                task_service::complete(&context, payload.task_id, payload.round).await
            }))
        }
    }

    /// Completes the task where this was its last cell and nobody else has taken its completion.
    async fn complete_if_last(context: &Context, engine: &Engine, task_id: Uuid, round: i32) {
        match engine.claim_key(CompleteTask::QUEUE, &CompleteTask::key(task_id, round)).await {
            Ok(Some(job)) => {
                let handled = task_handler(context)(job.clone());
                drop(engine.execute(job, handled).await);
            }
            Ok(None) => {}
            // The completion waits for a worker; the cell is what was asked for.
            Err(error) => tracing::warn!(task = %task_id, %error, "its completion was not taken"),
        }
    }

    /// A caller may drop the future of a call, by a time-out for instance: its engine must not go on holding jobs.
    struct AbandonOnDrop(Engine);

    impl Drop for AbandonOnDrop {
        fn drop(&mut self) {
            self.0.abandon();
        }
    }

    /// Runs one cell in this process and returns it as it then is. A cell that another worker holds, or that waits for its
    /// time, is left alone and said so.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub async fn process_subtask(context: &Context, actor: &Actor, id: Uuid) -> Result<SubtaskRow, ServiceError> {
        let missing = || ServiceError::NotFound { what: "cell", id: id.to_string() };
        let mut connection = context.reader().await?;
        let cell = subtasks::get(&mut connection, id).await?.ok_or_else(missing)?;
        let task = tasks::get(&mut connection, cell.task_id).await?.ok_or_else(missing)?;
        drop(connection);
        actor.require_manage(task.user_id)?;
        if cell.status.is_terminal() {
            return Ok(cell);
        }
        // Taken by key, and nothing else: no claimer runs.
        let queues = queues(&context.settings, 1, lanes(context)).into_iter().map(|queue| Queue { claimed: false, ..queue });
        let engine = Engine::start(context.pool.clone(), options(context, None), queues.collect()).await?;
        let _guard = AbandonOnDrop(engine.clone());
        let claimed = engine.claim_key(GenerateImage::QUEUE, &GenerateImage::key(id)).await;
        let taken = match claimed {
            Ok(Some(job)) => {
                let handled = cell_handler(context, &engine)(job.clone());
                // Whatever became of the handler is settled; the cell's row says it.
                drop(engine.execute(job, handled).await);
                complete_if_last(context, &engine, task.id, task.round).await;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        engine.stop(context.settings.queue.grace).await;
        if !taken? {
            return Err(ServiceError::Usage(format!("cell {id} is held by a worker, or waits for its time")));
        }
        let mut connection = context.reader().await?;
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
        let engine = Engine::start(context.pool.clone(), options(context, Some(until_empty)), queues).await?;
        let _guard = AbandonOnDrop(engine.clone());
        tokio::join!(
            engine.drive(GenerateImage::QUEUE, cell_handler(context, &engine)),
            engine.drive(CompleteTask::QUEUE, task_handler(context)),
            pause_watch::watch(context, &engine),
            overdue::watch(context, &engine)
        );
        let settled = engine.stop(context.settings.queue.grace).await;
        let task = task_service::get_task(context, actor, task_id).await?;
        Ok(ProcessedSubtasks { task, settled })
    }
}
