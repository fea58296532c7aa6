//! `imagemill task list`: tasks, newest first.

use std::io::Write;

use super::{output, report::Failure};
use crate::services::{actor::Actor, context::Context, task_service};

/// Prints one's own tasks, or everybody's.
pub async fn list(
    context: &Context,
    actor: &Actor,
    everybody: bool,
    limit: i64,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let tasks = task_service::list_tasks(context, actor, everybody, limit).await?;
    if json {
        return output::json(&tasks, out);
    }
    if tasks.is_empty() {
        let more = if everybody { "" } else { " of yours; --all shows everybody's" };
        output::note(&format!("no task{more}; `imagemill task create FILE` makes one"));
        return Ok(());
    }
    output::text(&output::tasks(&tasks), out)
}
