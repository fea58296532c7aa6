//! The end of a cell that has its picture: the file is kept, if that is asked for.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;

use super::{
    cell_settle::CellResult,
    context::Context,
    make_image::{self, UpstreamClient},
};
use crate::{
    crud::subtasks::RunRow,
    queue::{AttemptEnd, Job, Outcome, Verdict},
};

/// Keeps the picture, if that is asked for, and completes the cell. A download that fails is tried again until the deadline
/// and costs no attempt; then the cell is completed with its URL alone.
pub(super) async fn complete(
    context: &Context,
    client: &UpstreamClient,
    job: &Job,
    row: &RunRow,
    url: String,
    since: Instant,
    end: AttemptEnd,
) -> Outcome {
    let results = &context.settings.results;
    let mut result = CellResult { url, file: None, sha256: None, note: None };
    if let Some(directory) = &results.directory {
        let stem = format!("{}/{:05}", row.task_id, row.cell);
        let longest = Duration::from_mins(1);
        let mut delays = ExponentialBuilder::default().with_max_delay(longest).with_jitter().without_max_times().build();
        loop {
            // A download can be left at any point: the next worker begins it anew.
            let fetched = tokio::select! {
                biased;
                () = job.tokens.lease_lost.cancelled() => return Outcome::new(Verdict::LeaseLost),
                () = job.tokens.handover.cancelled() => return Outcome::new(Verdict::HandedOver),
                fetched = make_image::fetch(client, results, &result.url) => fetched,
            };
            let kept = match fetched {
                Ok(fetched) => make_image::keep(directory, &stem, &fetched).await,
                Err(error) => Err(error),
            };
            match kept {
                Ok(kept) => {
                    result.file = Some(kept.file);
                    result.sha256 = Some(kept.sha256);
                    break;
                }
                Err(error) => {
                    let delay = delays.next().unwrap_or(longest);
                    let is_over = since.elapsed() + delay >= context.settings.generate_image.deadline;
                    if is_over || job.tokens.cancel.is_cancelled() {
                        tracing::error!(task = %row.task_id, cell = row.cell, %error, "the picture was not kept");
                        result.note = Some(error.to_string());
                        break;
                    }
                    tracing::warn!(task = %row.task_id, cell = row.cell, %error, "the picture is not kept yet; again in {delay:?}");
                    tokio::select! {
                        () = job.tokens.lease_lost.cancelled() => return Outcome::new(Verdict::LeaseLost),
                        () = job.tokens.handover.cancelled() => return Outcome::new(Verdict::HandedOver),
                        // Its picture came first: it is kept, and not waited for.
                        () = job.tokens.cancel.cancelled() => {}
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
    }
    match serde_json::to_value(&result) {
        Ok(result) => Outcome::done().ending(end).leaving(result),
        Err(error) => Outcome::internal(error.to_string()),
    }
}
