//! `imagemill task list`: tasks, newest first.

use std::io::Write;

use super::{output, report::Failure};
use crate::services::{actor::Actor, context::Context, task_service};

/// Which tasks, and how many of them at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Everybody's, not only one's own.
    pub everybody: bool,
    /// Those that were deleted, and can be had back.
    pub deleted: bool,
    /// At most.
    pub limit: i64,
}

/// Prints one's own tasks, or everybody's.
pub async fn list(
    context: &Context,
    actor: &Actor,
    Listed { everybody, deleted, limit }: Listed,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let tasks = if deleted {
        task_service::list_deleted_tasks(context, actor, everybody, limit).await?
    } else {
        task_service::list_tasks(context, actor, everybody, limit).await?
    };
    if json {
        return output::json(&tasks, out);
    }
    if tasks.is_empty() {
        let more = if everybody { "" } else { " of yours; --all shows everybody's" };
        let (what, way_out) = if deleted { ("deleted task", "") } else { ("task", "; `imagemill task create FILE` makes one") };
        output::note(&format!("no {what}{more}{way_out}"));
        return Ok(());
    }
    output::text(&output::tasks(&tasks), out)
}
