//! `imagemill task watch`: a task's progress until it ends.

use std::{io::Write, time::Duration};

use uuid::Uuid;

use super::{
    output,
    progress::{Progress, Snapshot},
    report::Failure,
};
use crate::services::{actor::Actor, context::Context, task_progress};

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(250);

/// Shows the progress until the task ends, then prints the task.
pub async fn watch(context: &Context, actor: &Actor, id: Uuid, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut progress = Progress::start();
    let task = loop {
        let found = task_progress::get_progress(context, actor, id).await?;
        progress.update(Snapshot::from(&found));
        if found.task.status.is_terminal() {
            break found.task;
        }
        tokio::time::sleep(INTERVAL).await;
    };
    progress.finish();
    if json { output::json(&task, out) } else { output::text(&output::tasks(&[task]), out) }
}
