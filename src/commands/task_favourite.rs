//! `imagemill task favourite`: the tasks that a user keeps at hand.

use std::io::Write;

use serde_json::json;
use uuid::Uuid;

use super::{output, report::Failure};
use crate::services::{actor::Actor, context::Context, favourites};

/// Keeps a task at hand, or lets go of it; without one prints those that are kept.
pub async fn favourite(
    context: &Context,
    actor: &Actor,
    id: Option<Uuid>,
    remove: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let Some(id) = id else {
        let tasks = favourites::list_favourites(context, actor).await?;
        if json {
            return output::json(&tasks, out);
        }
        if tasks.is_empty() {
            output::note("no favourites; `imagemill task favourite ID` keeps a task at hand");
            return Ok(());
        }
        return output::text(&output::tasks(&tasks), out);
    };
    let changed = favourites::set_favourite(context, actor, id, !remove).await?;
    if json {
        return output::json(&json!({ "task_id": id, "is_favourite": !remove, "changed": changed }), out);
    }
    let said = match (remove, changed) {
        (false, true) => "a favourite now",
        (false, false) => "a favourite already",
        (true, true) => "no favourite any more",
        (true, false) => "no favourite of yours",
    };
    output::text(said, out)
}
