//! `imagemill task reuse`: a task's input, as a task file.

use std::io::Write;

use uuid::Uuid;

use super::{output, report::Failure};
use crate::services::{actor::Actor, context::Context, reuse};

/// Prints the input of a task; `task create -` makes the same grid of it again.
pub async fn reuse(context: &Context, actor: &Actor, id: Uuid, out: &mut impl Write) -> Result<(), Failure> {
    output::json(&reuse::reuse_task(context, actor, id).await?, out)
}
