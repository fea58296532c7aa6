//! The cell's side of the queue's writes: the hook of `imagemill.generate_image`, and the one function that moves counts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    crud::{
        subtasks::{self, Move, Picture},
        task_counts::{self, Counts},
        tasks,
    },
    models::{
        payload::CompleteTask,
        status::{ErrorKind, Status},
    },
    queue::{
        self, Batch, Job, Moved, Outcome, QueueError, Settle, Verdict,
        ledger::{self, Submit},
    },
};

/// What a completed cell leaves behind: [`Outcome::result`] of `imagemill.generate_image`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CellResult {
    /// URL.
    pub(super) url: String,
    /// Path below the results directory.
    pub(super) file: Option<String>,
    /// SHA-256 of the file.
    pub(super) sha256: Option<String>,
    /// Why the file was not kept.
    pub(super) note: Option<String>,
}

/// The hook of `imagemill.generate_image`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CellHook;

fn refuse(job: &Job, message: impl Into<String>) -> QueueError {
    QueueError::Hook { queue: job.queue.to_string(), key: job.key.clone(), message: message.into() }
}

#[async_trait]
impl Settle for CellHook {
    async fn open_cell(&self, connection: &mut PgConnection, _: &Job, submit: &Submit<'_>) -> Result<Option<String>, QueueError> {
        let task = subtasks::begin_attempt(connection, submit.cell, submit.request_sha256).await?;
        Ok(task.map(|task| task.to_string()))
    }

    async fn open_group(&self, connection: &mut PgConnection, job: &Job, group: &str) -> Result<(), QueueError> {
        let task = Uuid::parse_str(group).map_err(|error| refuse(job, error.to_string()))?;
        Ok(tasks::begin_processing(connection, task).await?)
    }

    async fn settle_cell(&self, connection: &mut PgConnection, job: &Job, outcome: &Outcome) -> Result<Vec<Moved>, QueueError> {
        // A key that is no cell's has no cell to move: its job alone ends.
        let Some(cell) = job.cell() else { return Ok(Vec::new()) };
        let error = outcome.error.as_deref();
        let moved = match outcome.verdict {
            Verdict::Done => match &outcome.result {
                Some(result) => {
                    let result: CellResult =
                        serde_json::from_value(result.clone()).map_err(|error| refuse(job, error.to_string()))?;
                    let picture = Picture {
                        url: &result.url,
                        file: result.file.as_deref(),
                        sha256: result.sha256.as_deref(),
                        note: result.note.as_deref(),
                    };
                    subtasks::set_result(connection, cell, &picture).await?
                }
                // The cell had ended before this claim: there is nothing to write of it.
                None => None,
            },
            Verdict::Failed => {
                let kind = outcome.error_kind.and_then(ErrorKind::parse);
                let kind = kind.ok_or_else(|| refuse(job, format!("{:?} is no error kind", outcome.error_kind)))?;
                subtasks::fail(connection, cell, kind, error).await?
            }
            Verdict::Cancelled => subtasks::cancel(connection, cell, error).await?,
            Verdict::RetryAfter(_) | Verdict::TurnedAway(_) => {
                let state = match &outcome.attempt {
                    Some(end) => Some(end.state),
                    // No attempt ends with it. A cell that is `processing` all the same may go back only if its last POST
                    // surely cost nothing: what may have been paid for is never put back to be paid for again.
                    None => {
                        ledger::last_attempt(connection, cell).await?.map(|(state, _)| state).filter(|state| state.is_uncounted())
                    }
                };
                match state {
                    Some(state) => subtasks::put_back(connection, cell, state.is_uncounted(), error).await?,
                    None => None,
                }
            }
            // The attempt stays open, and so does the cell: `processing` says nothing of who holds the job.
            Verdict::HandedOver | Verdict::ResumeAfter(_) | Verdict::LeaseLost => None,
        };
        Ok(moved.map(to_moved).into_iter().collect())
    }

    async fn settle_group(
        &self,
        connection: &mut PgConnection,
        job: &Job,
        _: &Outcome,
        moved: &[Moved],
    ) -> Result<(), QueueError> {
        let cells: Option<Vec<Move>> = moved.iter().map(from_moved).collect();
        let cells = cells.ok_or_else(|| refuse(job, "a move is none of ours"))?;
        Ok(count_moves(connection, &cells).await?)
    }
}

fn to_moved(moved: Move) -> Moved {
    Moved { group: moved.task_id.to_string(), from: moved.from_status.to_string(), to: moved.to_status.to_string() }
}

fn from_moved(moved: &Moved) -> Option<Move> {
    Some(Move {
        task_id: Uuid::parse_str(&moved.group).ok()?,
        from_status: Status::parse(&moved.from)?,
        to_status: Status::parse(&moved.to)?,
    })
}

/// Moves the counts by what the UPDATE of subtasks returned, and enqueues the completion of a task whose last cell ended:
/// exactly once a round. Whatever ends or reopens cells calls it, in the same transaction and as its last step.
pub(super) async fn count_moves(connection: &mut PgConnection, moves: &[Move]) -> Result<(), sqlx::Error> {
    // In the order of the ids, as everybody locks them.
    let mut changes: BTreeMap<Uuid, Counts> = BTreeMap::new();
    for moved in moves {
        let change = changes.entry(moved.task_id).or_default();
        add(change, moved.from_status, -1);
        add(change, moved.to_status, 1);
    }
    for (task_id, change) in changes {
        if change == Counts::default() {
            continue;
        }
        let counts = task_counts::move_by(connection, task_id, change).await?;
        let Some(task) = tasks::get_round(connection, task_id).await? else { continue };
        if counts.processed_images() >= task.total_images {
            enqueue_completion(connection, task_id, task.round, task.user_id).await?;
        }
    }
    Ok(())
}

fn add(change: &mut Counts, status: Status, by: i32) {
    match status {
        Status::Completed => change.completed_subtasks += by,
        Status::Failed => change.failed_subtasks += by,
        Status::Cancelled => change.cancelled_subtasks += by,
        Status::Pending | Status::Processing => {}
    }
}

/// The completion job of a round: a second one under its key is refused by the key.
async fn enqueue_completion(connection: &mut PgConnection, task_id: Uuid, round: i32, owner: Uuid) -> Result<(), sqlx::Error> {
    let (group, owner) = (task_id.to_string(), owner.to_string());
    queue::enqueue(connection, &completion(task_id, round, &group, &owner)?).await?;
    Ok(())
}

/// The batch of one completion job.
pub(super) fn completion<'a>(task_id: Uuid, round: i32, group: &'a str, owner: &'a str) -> Result<Batch<'a>, sqlx::Error> {
    let payload = serde_json::to_vec(&CompleteTask::new(task_id, round)).map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(Batch {
        queue: CompleteTask::QUEUE,
        group,
        owner,
        is_alone: false,
        keys: vec![CompleteTask::key(task_id, round)],
        lanes: vec![String::new()],
        payloads: vec![payload],
    })
}
