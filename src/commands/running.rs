//! A task run to its end by worker processes of this command.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

use super::{
    output,
    progress::{Progress, Snapshot},
    report::Failure,
    stage::Stage,
    workers::{WorkerPlan, Workers},
};
use crate::{
    crud::tasks::TaskRow,
    services::{error::ServiceError, task_progress},
};

/// How often is looked.
const TICK: Duration = Duration::from_millis(100);

/// How often is asked why cells wait, which reads all that are open.
const REASON_EVERY: Duration = Duration::from_secs(2);

/// A database that does not answer for so long is not waited for.
const DATABASE_PATIENCE: Duration = Duration::from_mins(2);

/// What a worker needs to leave beyond its grace: the last settles.
const LEAVING: Duration = Duration::from_secs(15);

/// The signals that ask the command to leave. Caught before there is anything to leave behind.
pub(super) struct Leave([Signal; 3]);

impl Leave {
    pub(super) fn catch() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(|error| Failure::failed(format_args!("signals cannot be caught: {error}")));
        Ok(Self([catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?, catch(SignalKind::hangup())?]))
    }

    /// Waits until one of them comes.
    pub(super) async fn asked(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

/// What is to be run, and how.
pub(super) struct Run<'a> {
    /// The task.
    pub(super) task: Uuid,
    /// Worker processes.
    pub(super) workers: u16,
    /// They take jobs of this task only.
    pub(super) alone: bool,
    /// What is said when a signal ends it: how to go on.
    pub(super) go_on: &'a str,
}

/// Runs a task to its end. Whatever happens, no worker process is left.
pub(super) async fn to_the_end(stage: &Stage, mut leave: Leave, run: &Run<'_>) -> Result<TaskRow, Failure> {
    let plan = WorkerPlan {
        count: run.workers,
        environment: stage.effective.environment(),
        task: run.alone.then_some(run.task),
        log: stage.logs.as_ref().map(|logs| logs.join("workers.log")),
    };
    let mut progress = Progress::start();
    let mut workers = Workers::start(plan).map_err(Failure::failed)?;
    let ended = tokio::select! {
        ended = watch(stage, run.task, &mut workers, &mut progress) => ended,
        () = leave.asked() => Err(Failure::failed(format_args!("stopped by a signal: {}", run.go_on))),
    };
    progress.finish();
    if ended.is_err() {
        output::note("the worker processes leave: what is out is awaited");
    }
    let patience = stage.session.context().settings.queue.grace + LEAVING;
    workers.stop(patience, leave.asked()).await;
    ended
}

/// Looks on until the task has ended.
async fn watch(stage: &Stage, task: Uuid, workers: &mut Workers, progress: &mut Progress) -> Result<TaskRow, Failure> {
    let (context, actor) = (stage.session.context(), &stage.session.actor);
    let mut answered = Instant::now();
    let mut asked = Instant::now();
    loop {
        // Before the task is looked at: workers end when nothing is left, so an open task seen after that is a finding.
        let all_ended = workers.look_after().map_err(Failure::failed)?;
        match task_progress::get_progress(context, actor, task).await {
            Ok(found) => {
                answered = Instant::now();
                progress.update(Snapshot::from(&found));
                if found.task.status.is_terminal() {
                    return Ok(found.task);
                }
                if all_ended {
                    workers.go_on().map_err(Failure::failed)?;
                }
                if asked.elapsed() >= REASON_EVERY {
                    asked = Instant::now();
                    match task_progress::get_waiting_reason(context, actor, task).await {
                        Ok(reason) => progress.waits_for(reason),
                        // The next look at the task says whether the database is away.
                        Err(error) => tracing::warn!(%error, "why cells wait cannot be seen just now"),
                    }
                }
            }
            // Workers wait for a database that is away; so does this.
            Err(error @ ServiceError::Database(_)) if answered.elapsed() < DATABASE_PATIENCE => {
                tracing::warn!(%error, "the task cannot be looked at just now");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(TICK).await;
    }
}
