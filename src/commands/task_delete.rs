//! `imagemill task delete` and `restore`: a task goes out of sight, and comes back.

use std::io::Write;

use serde_json::json;
use uuid::Uuid;

use super::{output, report::Failure};
use crate::services::{actor::Actor, context::Context, task_deletion};

/// Deletes an ended task; it can be restored until it is purged.
pub async fn delete(context: &Context, actor: &Actor, id: Uuid, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    task_deletion::delete_task(context, actor, id).await?;
    if json {
        return output::json(&json!({ "task_id": id, "is_deleted": true }), out);
    }
    output::text(&format!("deleted; `imagemill task restore {id}` brings it back until it is purged"), out)
}

/// Takes a deleted task back.
pub async fn restore(context: &Context, actor: &Actor, id: Uuid, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    task_deletion::restore_task(context, actor, id).await?;
    if json {
        return output::json(&json!({ "task_id": id, "is_deleted": false }), out);
    }
    output::text("restored", out)
}
