//! `imagemill task wait`: until a task ends, with an exit code that says how.

use std::{io::Write, time::Duration};

use uuid::Uuid;

use super::{output, report::Failure};
use crate::{
    crud::tasks::TaskRow,
    models::status::Status,
    services::{actor::Actor, context::Context, task_service},
};

/// How the waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The task is completed.
    Completed,
    /// It ended failed or cancelled.
    Otherwise,
    /// The time was over first.
    TimedOut,
}

impl Waited {
    /// 0, 3, 4.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Completed => 0,
            Self::Otherwise => 3,
            Self::TimedOut => 4,
        }
    }
}

/// Waits, at most so long, and prints the task as it then is.
pub async fn wait(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    timeout: Option<Duration>,
    json: bool,
    out: &mut impl Write,
) -> Result<Waited, Failure> {
    let ended = task_service::await_task(context, actor, id, timeout).await?;
    let (waited, task) = match ended {
        Some(task) if task.status == Status::Completed => (Waited::Completed, task),
        Some(task) => (Waited::Otherwise, task),
        None => (Waited::TimedOut, task_service::get_task(context, actor, id).await?),
    };
    print(&task, json, out)?;
    Ok(waited)
}

fn print(task: &TaskRow, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json { output::json(task, out) } else { output::text(&output::tasks(std::slice::from_ref(task)), out) }
}
