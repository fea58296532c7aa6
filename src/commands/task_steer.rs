//! `imagemill task cancel`, `task retry`, `task force-complete`.

use std::io::Write;

use uuid::Uuid;

use super::{output, report::Failure};
use crate::services::{
    actor::Actor,
    context::Context,
    task_service::{self, Retry, SteeredTask},
};

/// Cancels a task, or some of its cells.
pub async fn cancel(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    cells: &[i32],
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let done = if cells.is_empty() {
        task_service::cancel_task(context, actor, id).await?
    } else {
        task_service::cancel_cells(context, actor, id, cells).await?
    };
    print(&done, "cancelled", json, out)
}

/// Ends a task by force.
pub async fn force_complete(context: &Context, actor: &Actor, id: Uuid, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let done = task_service::force_complete_task(context, actor, id).await?;
    print(&done, "failed (operator)", json, out)
}

fn print(done: &SteeredTask, word: &str, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        return output::json(done, out);
    }
    let SteeredTask { ended, in_flight, .. } = done;
    let rest = match in_flight {
        0 => String::new(),
        count => format!("; in flight {count}: their workers stop, and the answer to a POST that is out is kept"),
    };
    output::text(&format!("{word}: cells {ended}{rest}"), out)
}

/// Runs ended cells again.
pub async fn retry(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    what: &Retry,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let done = task_service::retry_task(context, actor, id, what).await?;
    if json {
        return output::json(&done, out);
    }
    for (cell, until) in &done.waiting {
        output::note(&format!(
            "cell {cell} waits: its earlier submit may still be answered until {}; without an answer it is submitted again then, and may be paid for twice",
            output::time(*until)
        ));
    }
    for cell in &done.unknown {
        output::note(&format!(
            "cell {cell} may be paid for twice: nobody knows whether its earlier submit was billed (see attempt resolve)"
        ));
    }
    for cell in &done.held {
        output::note(&format!(
            "cell {cell} is left: a worker still has it, and awaits the answer to its submit; try again later"
        ));
    }
    match done.round {
        Some(round) => output::text(&format!("round {round}: cells {}", done.retried), out),
        None if done.held.is_empty() => output::text("nothing to retry: no such cell failed or was cancelled", out),
        None => output::text("nothing is retried yet", out),
    }
}
