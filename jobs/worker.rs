//! A worker process: config, pool, context, engine, the one registration list, apalis's Monitor, stop.

use std::{future::Future, time::Duration};

use apalis::prelude::{Monitor, WorkerBuilder};
use imagemill::{
    models::payload::{CompleteTask, GenerateImage},
    queue::{Engine, EngineOptions, Handler, Job, Outcome, Pruner, UntilEmpty, decoded},
    services::{context::Context, error::ServiceError, overdue, pause_watch, pauses, processing, task_service},
};
use serde::de::DeserializeOwned;
use tokio::signal::unix::Signal;
use uuid::Uuid;

use crate::{
    complete_task::complete_task,
    generate_image::generate_image,
    signals::{self, Signals},
};

/// So long after a task's end it is summed up what it cost.
const SUM_UP_AFTER: Duration = Duration::from_secs(10);
/// While there is more to be summed up it takes a sixth of its time for it.
const SUM_UP_RESTS: u32 = 5;

/// What a worker was asked to do.
#[derive(Debug, Clone)]
pub(crate) struct WorkerOptions {
    /// Cells at once.
    pub(crate) concurrency: usize,
    /// Lanes to take cells from.
    pub(crate) lanes: Vec<String>,
    /// Take the jobs of this task only.
    pub(crate) task: Option<Uuid>,
    /// End when no job of ours (of the task, where one is named) is pending or running.
    pub(crate) until_empty: bool,
    /// How long the submits that are out are awaited when it leaves.
    pub(crate) grace: Duration,
    /// End when standard input ends: the process that started this one is gone.
    pub(crate) with_parent: bool,
}

/// How a worker has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Everything was settled or handed over.
    Settled,
    /// Something waits for its rescue.
    Unsettled,
    /// It was told to end at once.
    AtOnce,
}

/// Runs a worker until it is told to leave.
pub(crate) async fn run(context: Context, options: WorkerOptions) -> Result<Left, ServiceError> {
    // Signals are caught before the first claim: what is claimed must be able to leave in order.
    let mut signals =
        Signals::catch(options.with_parent).map_err(|error| ServiceError::Usage(format!("signals cannot be caught: {error}")))?;
    let hangups = signals::hangups().map_err(|error| ServiceError::Usage(format!("SIGHUP cannot be caught: {error}")))?;
    let group = options.task.map(|task| task.to_string());
    let until_empty = options.until_empty.then(|| UntilEmpty { group: group.clone() });
    let mut queues = processing::queues(&context.settings, options.concurrency, options.lanes);
    for queue in &mut queues {
        queue.group.clone_from(&group);
    }
    let engine_options = EngineOptions { keeps_connections: true, ..processing::options(&context, until_empty) };
    let engine = Engine::start(context.pool.clone(), engine_options, queues).await?;
    let monitor = monitor(&engine, &context);
    let workers = monitor.context();
    let monitor = tokio::spawn(monitor.run());
    tokio::spawn(sweep(engine.clone(), context.clone()));
    tokio::spawn(sum_up(engine.clone(), context.clone()));
    tokio::spawn(prune(engine.clone(), context.clone()));
    tokio::spawn(end_overdue(engine.clone(), context.clone()));
    tokio::spawn(watch(engine.clone(), context.clone(), hangups));
    let was_told = tokio::select! {
        () = engine.stopping() => false,
        () = signals.first() => {
            tracing::info!("leaving: nothing is claimed any more, no submit starts");
            true
        }
    };
    let hurry = async {
        if !was_told {
            // It leaves by itself: this is the first signal that it hears.
            signals.signal().await;
        }
        signals.further().await;
    };
    let left = tokio::select! {
        settled = engine.stop(options.grace) => if settled { Left::Settled } else { Left::Unsettled },
        () = hurry => {
            tracing::warn!("a second signal: ended at once; what was held waits for its rescue");
            engine.end_now();
            Left::AtOnce
        }
    };
    if left == Left::Settled {
        // Every Backend has seen the end of its jobs; apalis's Workers wait to be told, all the same.
        if let Err(error) = workers.shutdown() {
            tracing::error!(%error, "apalis's Monitor was not told to end");
        }
        match monitor.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "apalis's Monitor ended on an error"),
            Err(error) => tracing::error!(%error, "apalis's Monitor was lost"),
        }
    }
    Ok(left)
}

/// The registration list: every queue, and the handler of its jobs.
fn monitor(engine: &Engine, context: &Context) -> Monitor {
    let failed = engine.clone();
    let monitor = Monitor::new().should_restart(move |worker, error| {
        // A Worker that ends by itself has lost its jobs; a restarted one would have none.
        failed.fail(&format!("apalis's worker {} ended: {error}", worker.name()));
        false
    });
    let monitor = register(monitor, GenerateImage::QUEUE, generate_image, GenerateImage::VERSION, engine, context);
    register(monitor, CompleteTask::QUEUE, complete_task, CompleteTask::VERSION, engine, context)
}

fn register<P, F>(
    monitor: Monitor,
    queue: &'static str,
    handler: fn(P, Job, Engine, Context) -> F,
    version: u32,
    engine: &Engine,
    context: &Context,
) -> Monitor
where
    P: DeserializeOwned + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let (engine, context) = (engine.clone(), context.clone());
    monitor.register(move |_| {
        let (handling, context) = (engine.clone(), context.clone());
        let run = move |job: Job| {
            let (engine, context) = (handling.clone(), context.clone());
            decoded(&job.clone(), version, move |payload: P| handler(payload, job, engine, context))
        };
        WorkerBuilder::new(queue).backend(engine.backend(queue)).build(Handler(run))
    })
}

/// Looks, now and then, for tasks that no job will end and for upstream ids that came too late.
async fn sweep(engine: Engine, context: Context) {
    let mut interval = tokio::time::interval(context.settings.queue.sweep_interval);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = engine.stopping() => return,
        }
        if let Err(error) = task_service::sweep(&context).await {
            tracing::warn!(%error, "the sweep failed; it comes again");
        }
        match task_service::sweep_late_evidence(&context).await {
            Ok(0) => {}
            Ok(cells) => tracing::info!(cells, "upstream ids came late: polled, and nothing is paid"),
            Err(error) => tracing::warn!(%error, "late upstream ids were not looked for; the sweep comes again"),
        }
    }
}

/// Sums up what tasks cost: now and then, and when this worker has completed one, together with those that end within the same seconds.
async fn sum_up(engine: Engine, context: Context) {
    let mut interval = tokio::time::interval(context.settings.queue.sweep_interval);
    let sums = async {
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = context.completed.notified() => tokio::time::sleep(SUM_UP_AFTER).await,
            }
            if let Err(error) = task_service::sum_up_spend(&context, SUM_UP_RESTS).await {
                tracing::warn!(%error, "what tasks cost was not summed up; it comes again");
            }
        }
    };
    tokio::select! {
        () = sums => {}
        () = engine.stopping() => {}
    }
}

/// Cancels what is pending of tasks whose last moment has come.
async fn end_overdue(engine: Engine, context: Context) {
    overdue::watch(&context, &engine).await;
}

/// Looks after the pauses that name this process's token, and reads the token again on SIGHUP.
async fn watch(engine: Engine, context: Context, mut hangups: Signal) {
    let reread = async {
        while hangups.recv().await.is_some() {
            if let Some(client) = &context.upstream {
                tracing::info!("SIGHUP: the token is read again");
                pauses::reload_token(client, &engine).await;
            }
        }
    };
    tokio::join!(pause_watch::watch(&context, &engine), async {
        tokio::select! {
            () = reread => {}
            () = engine.stopping() => {}
        }
    });
}

/// Prunes finished jobs, for as long as this worker claims any.
async fn prune(engine: Engine, context: Context) {
    let pruner = Pruner::new(engine.connections().clone(), context.settings.queue.retention);
    tokio::select! {
        () = pruner.run() => {}
        () = engine.stopping() => {}
    }
}
