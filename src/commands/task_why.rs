//! `imagemill task why`: why a cell is not running.

use std::io::Write;

use uuid::Uuid;

use super::{output, report::Failure};
use crate::services::{actor::Actor, context::Context, subtask_service};

/// Prints the code, the reason in words, and until when, where that is known.
pub async fn why(context: &Context, actor: &Actor, id: Uuid, cell: i32, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let found = subtask_service::why_not_running(context, actor, id, cell).await?;
    if json {
        return output::json(&found, out);
    }
    let until = found.until.map(|until| format!(" (until {})", output::time(until))).unwrap_or_default();
    output::text(&format!("{}: {}{until}", found.code, found.why), out)
}
