//! `imagemill attempt`: attempts of which it is not known whether they were paid for.

use std::io::Write;

use serde_json::json;
use uuid::Uuid;

use super::{output, report::Failure, table::table};
use crate::services::{
    actor::Actor,
    attempt_service::{self, Resolution},
    context::Context,
};

/// Attempts that are listed at most.
const MOST: i64 = 10_000;

/// Prints the unknown attempts, of one task if one is named.
pub async fn list(context: &Context, actor: &Actor, task: Option<Uuid>, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let unknown = attempt_service::list_unknown_attempts(context, actor, task, MOST).await?;
    if json {
        return output::json(&unknown, out);
    }
    let rows = unknown.iter().map(|listed| {
        let attempt = &listed.attempt;
        [
            format!("{}/{}", attempt.cell, attempt.ordinal),
            listed.task.to_string(),
            listed.cell_number.to_string(),
            attempt.lane.clone(),
            output::time(attempt.submitted_at),
            output::time(attempt.answer_until),
            attempt.http_status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
            attempt.error.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    output::text(&table(["ATTEMPT", "TASK", "CELL", "LANE", "SUBMITTED", "ANSWER UNTIL", "STATUS", "WHY"], rows), out)
}

/// Says what the upstream's bill says of one.
pub async fn resolve(
    context: &Context,
    actor: &Actor,
    (cell, ordinal): (Uuid, i32),
    resolution: &Resolution,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let answer_until = attempt_service::resolve_attempt(context, actor, cell, ordinal, resolution).await?;
    let (said, follows) = match resolution {
        Resolution::UpstreamId(_) => (
            "upstream_id",
            "nothing is paid: a worker polls it within its next sweep if its cell failed as unknown_submit, else a retry of its cell does",
        ),
        Resolution::NotBilled => ("not_billed", "it is not counted, and a retry submits again"),
        Resolution::Billed => ("billed", "a retry of its cell pays again"),
    };
    if let Some(until) = answer_until {
        let until = output::time(until);
        output::note(&format!(
            "an answer to it may still come until {until}: a retry of its cell waits for that, or takes --now"
        ));
    }
    if json {
        return output::json(
            &json!({ "attempt": format!("{cell}/{ordinal}"), "resolved": said, "answer_until": answer_until }),
            out,
        );
    }
    output::text(&format!("{cell}/{ordinal} is resolved: {follows}"), out)
}
