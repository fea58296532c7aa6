//! `imagemill task watch`: a task's progress until it ends, its lanes, and which cells failed last.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    output,
    progress::{Progress, Snapshot},
    report::Failure,
};
use crate::{
    crud::overview::LaneCells,
    services::{actor::Actor, context::Context, error::ServiceError, overview_service, task_progress},
};

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(250);

/// A look takes a twentieth of the time at most: of 50,000 open cells it is not made four times a second.
const SHARE: u32 = 20;

/// While none of its cells is in flight, it is asked so often why one of them waits.
const REASON_EVERY: Duration = Duration::from_secs(2);

/// Failed cells that are shown.
const FAILURES: i64 = 5;

/// Shows the progress until the task ends, then prints the task.
pub async fn watch(context: &Context, actor: &Actor, id: Uuid, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut progress = Progress::start();
    // Lanes of cells never change.
    let mut lanes: Option<Vec<LaneCells>> = None;
    let mut failed = 0;
    let mut asked = Instant::now();
    let task = loop {
        let began = Instant::now();
        let found = task_progress::get_progress(context, actor, id).await?;
        progress.update(Snapshot::from(&found));
        let now_failed = usize::try_from(found.task.failed_subtasks).unwrap_or_default();
        if now_failed > failed {
            let failures = overview_service::get_last_failures(context, actor, id, FAILURES).await?;
            progress.failures(&failures, now_failed - failed);
        }
        failed = now_failed;
        if lanes.is_none() {
            lanes = Some(overview_service::get_lanes_of_task(context, actor, id).await?);
        }
        show_lanes(context, actor, id, lanes.as_deref().unwrap_or_default(), &mut progress).await?;
        if found.task.status.is_terminal() {
            break found.task;
        }
        if found.in_flight > 0 {
            asked = Instant::now();
        } else if asked.elapsed() >= REASON_EVERY {
            asked = Instant::now();
            let reason = task_progress::why_waiting(context, actor, id).await?;
            progress.waits_for(reason.filter(|reason| reason.code != "turn").map(|reason| reason.why));
        }
        tokio::time::sleep(INTERVAL.max(began.elapsed() * SHARE)).await;
    };
    progress.finish();
    if json { output::json(&task, out) } else { output::text(&output::tasks(&[task]), out) }
}

/// The lanes, where there are several of them.
async fn show_lanes(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    lanes: &[LaneCells],
    progress: &mut Progress,
) -> Result<(), ServiceError> {
    if lanes.len() > 1 {
        let open = overview_service::get_open_of_task(context, actor, id).await?;
        progress.lanes(lanes, &open);
    }
    Ok(())
}
