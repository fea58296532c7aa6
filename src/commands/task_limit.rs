//! `imagemill task limit`: a task's budget and times.

use std::io::Write;

use serde_json::json;
use uuid::Uuid;

use super::{output, report::Failure};
use crate::services::{
    actor::Actor,
    context::Context,
    task_service::{self, NewBounds},
};

/// Sets them, and prints what holds now.
pub async fn limit(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    new: &NewBounds,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let bounds = task_service::limit_task(context, actor, id, new).await?;
    if json {
        return output::json(
            &json!({ "task": id, "max_submits": bounds.max_submits, "not_before": bounds.not_before, "not_after": bounds.not_after }),
            out,
        );
    }
    let time = |time: Option<_>| time.map_or_else(|| "none".to_owned(), output::time);
    let submits = bounds.max_submits.map_or_else(|| "none".to_owned(), |limit| format!("{limit} submits"));
    output::text(
        &format!("budget: {submits}; not before: {}; not after: {}", time(bounds.not_before), time(bounds.not_after)),
        out,
    )
}
