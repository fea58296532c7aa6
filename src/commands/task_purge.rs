//! `imagemill task purge`: tasks that ended long ago are deleted.

use std::io::Write;

use super::{output, report::Failure};
use crate::services::{
    actor::Actor,
    context::Context,
    task_service::{self, Purge, Purged},
};

/// Purges, and prints what is gone; or what would be.
pub async fn purge(context: &Context, actor: &Actor, what: Purge, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let purged = task_service::purge_tasks(context, actor, what).await?;
    if json {
        return output::json(&purged, out);
    }
    for left in &purged.left {
        output::note(&format!("task {} is left: {}", left.id, left.why));
    }
    output::text(&summary(&purged), out)
}

fn summary(purged: &Purged) -> String {
    let Purged { dry_run, tasks, cells, attempts, jobs, .. } = purged;
    if *dry_run {
        format!("would purge: tasks {tasks}, cells {cells}")
    } else {
        format!("purged: tasks {tasks}, cells {cells}, attempts {attempts}, finished jobs {jobs}")
    }
}
