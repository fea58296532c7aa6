//! The demo's numbers: by SQL, and row by row against the simulator's ledger.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    path::Path,
};

use serde::Serialize;

use super::{demo::CELLS, report::Failure, table::table};
use crate::{
    crud::tasks::TaskRow,
    models::status::{ErrorKind, Status},
    queue::ledger::{AttemptRow, AttemptState},
    services::{actor::Actor, context::Context, subtask_service, task_progress},
    simulator::{Behaviour, LedgerEntry, Simulator},
};

/// One number.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    what: &'static str,
    expected: String,
    found: String,
}

impl Check {
    fn new(what: &'static str, expected: impl Display, found: impl Display) -> Self {
        Self { what, expected: expected.to_string(), found: found.to_string() }
    }

    /// Whether it is as it must be.
    pub(super) fn holds(&self) -> bool {
        self.expected == self.found
    }
}

/// The numbers as a table.
pub(super) fn text(checks: &[Check]) -> String {
    let rows = checks.iter().map(|check| {
        let holds = if check.holds() { "ok" } else { "WRONG" };
        [check.what.to_owned(), check.expected.clone(), check.found.clone(), holds.to_owned()]
    });
    table(["CHECKED", "EXPECTED", "FOUND", ""], rows)
}

/// Counts everything.
pub(super) async fn check(
    context: &Context,
    actor: &Actor,
    task: &TaskRow,
    simulator: &Simulator,
    pictures: &Path,
) -> Result<Vec<Check>, Failure> {
    let outcomes = task_progress::get_outcomes(context, actor, task.id).await?;
    let cells = |status: Status, kind: Option<ErrorKind>| {
        let rows = outcomes.iter().filter(|row| row.status == status && row.error_kind.as_deref() == kind.map(ErrorKind::as_str));
        rows.map(|row| row.cells).sum::<i64>()
    };
    let attempts = task_progress::get_attempts(context, actor, task.id).await?;
    let has_open_jobs = task_progress::has_open_jobs(context, actor, task.id).await?;
    let rows = subtask_service::list_subtasks(context, actor, task.id).await?;
    let kept = rows.iter().filter(|row| row.result_file.as_ref().is_some_and(|file| pictures.join(file).is_file())).count();
    let (ledger, stats) = (simulator.ledger(), simulator.stats());
    let counts = format!("{} {} {}", task.completed_subtasks, task.failed_subtasks, task.cancelled_subtasks);
    Ok(vec![
        Check::new("cells completed", 21, cells(Status::Completed, None)),
        Check::new("cells failed, refused (ILLEGAL_IMAGE)", 2, cells(Status::Failed, Some(ErrorKind::Refused))),
        Check::new("cells failed, unknown_submit (reset)", 1, cells(Status::Failed, Some(ErrorKind::UnknownSubmit))),
        Check::new("cells in all", CELLS, outcomes.iter().map(|row| row.cells).sum::<i64>()),
        Check::new("the task", Status::Completed, task.status),
        Check::new("its counts: completed, failed, cancelled", "21 3 0", counts),
        Check::new("POSTs that arrived", 26, stats.arrivals),
        Check::new("POSTs that were accepted (billed)", 25, ledger.len()),
        Check::new("billed POSTs that are not in our ledger", 0, unmatched(&ledger, &attempts)),
        Check::new("attempts that should be on the bill and are not", 0, unbilled(&ledger, &attempts)),
        Check::new("second POSTs on the bill: after FAILURE", 1, second_after(&ledger, &attempts, AttemptState::Failed)),
        Check::new("second POSTs on the bill: after 429", 1, second_after(&ledger, &attempts, AttemptState::TurnedAway)),
        Check::new("jobs left pending or running", "none", if has_open_jobs { "some" } else { "none" }),
        Check::new("pictures on disk", 21, kept),
    ])
}

fn request_id(attempt: &AttemptRow) -> String {
    format!("{}/{}", attempt.cell, attempt.ordinal)
}

/// Rows of the bill without an attempt that knows of them: under the same id, or, where the answer was lost, as unknown.
fn unmatched(ledger: &[LedgerEntry], attempts: &[AttemptRow]) -> usize {
    let attempts: BTreeMap<String, &AttemptRow> = attempts.iter().map(|attempt| (request_id(attempt), attempt)).collect();
    let mut seen = BTreeSet::new();
    let mut unmatched = 0;
    for entry in ledger {
        let request_id = entry.request_id.as_deref().unwrap_or_default();
        let is_known = attempts.get(request_id).is_some_and(|attempt| match &attempt.upstream_id {
            Some(id) => *id == entry.upstream_id,
            None => attempt.state == AttemptState::Unknown && entry.behaviour == Behaviour::ResetAfter,
        });
        // Twice under one request id is a second payment, whatever the row says.
        if !seen.insert(request_id) || !is_known {
            unmatched += 1;
        }
    }
    unmatched
}

/// Attempts that say they were taken, or may have been, and are on no bill.
fn unbilled(ledger: &[LedgerEntry], attempts: &[AttemptRow]) -> usize {
    let billed = |attempt: &AttemptRow| ledger.iter().any(|entry| entry.request_id.as_ref() == Some(&request_id(attempt)));
    attempts.iter().filter(|attempt| attempt.state.is_uncounted() == billed(attempt)).count()
}

/// Cells whose first attempt ended in this state, and whose second POST is on the bill and brought the picture.
fn second_after(ledger: &[LedgerEntry], attempts: &[AttemptRow], first: AttemptState) -> usize {
    let cells = attempts.iter().filter(|attempt| attempt.ordinal == 1 && attempt.state == first);
    cells
        .filter(|attempt| {
            let second = AttemptRow { ordinal: 2, ..(*attempt).clone() };
            let is_billed = ledger.iter().any(|entry| entry.request_id.as_ref() == Some(&request_id(&second)));
            let succeeded = attempts
                .iter()
                .any(|attempt| attempt.cell == second.cell && attempt.ordinal == 2 && attempt.state == AttemptState::Succeeded);
            is_billed && succeeded
        })
        .count()
}
