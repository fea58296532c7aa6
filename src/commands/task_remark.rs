//! `imagemill task remark`: what people say of a task's pictures.

use std::io::Write;

use serde_json::json;
use uuid::Uuid;

use super::{output, report::Failure, table::table};
use crate::services::{actor::Actor, context::Context, remarks};

/// What to do with the remarks of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// Says something of a cell.
    Add(i32, String),
    /// Takes a remark away.
    Remove(Uuid),
    /// Shows all of them, or those of one cell.
    List(Option<i32>),
}

/// Adds, removes, or prints remarks.
pub async fn remark(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    what: Remark,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match what {
        Remark::Add(cell, text) => {
            let remark = remarks::add_remark(context, actor, id, cell, &text).await?;
            if json { output::json(&json!({ "id": remark }), out) } else { output::text(&remark.to_string(), out) }
        }
        Remark::Remove(remark) => {
            remarks::remove_remark(context, actor, id, remark).await?;
            if json { output::json(&json!({ "removed": remark }), out) } else { output::text(&format!("removed: {remark}"), out) }
        }
        Remark::List(cell) => {
            let found = remarks::list_remarks(context, actor, id, cell).await?;
            if json {
                return output::json(&found, out);
            }
            let rows = found.into_iter().map(|remark| {
                [remark.cell.to_string(), output::time(remark.created_at), remark.author, remark.id.to_string(), remark.text]
            });
            output::text(&table(["CELL", "AT", "AUTHOR", "REMARK", "TEXT"], rows), out)
        }
    }
}
