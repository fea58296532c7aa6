//! The cell's side of the queue's writes: the hook of `imagemill.generate_image`, and the one function that moves counts.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    crud::{
        subtasks::{self, Ending, Move, Picture, Return},
        task_counts::{self, Counts},
        tasks,
    },
    models::{
        payload::{CompleteTask, GenerateImage},
        status::{ErrorKind, Status},
    },
    queue::{
        self, Batch, Job, Moved, Opened, Outcome, QueueError, Settle, Verdict,
        ledger::{self, AttemptState, Submit},
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

impl CellResult {
    fn picture(&self) -> Picture<'_> {
        Picture { url: &self.url, file: self.file.as_deref(), sha256: self.sha256.as_deref(), note: self.note.as_deref() }
    }
}

/// The hook of `imagemill.generate_image`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CellHook;

fn refuse(job: &Job, message: impl Into<String>) -> QueueError {
    QueueError::Hook { queue: job.queue.to_string(), key: job.key.clone(), message: message.into() }
}

/// The outcomes of a group, by what their cells do. A cell whose outcome moves nothing is in none.
#[derive(Default)]
struct Sorted<'a> {
    pictures: Vec<(Uuid, CellResult)>,
    endings: Vec<(Uuid, Ending<'a>)>,
    /// With the state that its attempt ends in; none: no attempt ends with it.
    returns: Vec<(Uuid, Option<AttemptState>, Option<&'a str>)>,
}

impl<'a> Sorted<'a> {
    fn new(settles: &[&'a (Job, Outcome)]) -> Result<Self, QueueError> {
        let mut sorted = Self::default();
        for (job, outcome) in settles {
            // A key that is no cell's has no cell to move: its job alone ends.
            let Some(cell) = job.cell() else { continue };
            let error = outcome.error.as_deref();
            match outcome.verdict {
                Verdict::Done => {
                    // The cell of one without a result had ended before this claim: there is nothing to write of it.
                    if let Some(result) = &outcome.result {
                        let result = serde_json::from_value(result.clone()).map_err(|error| refuse(job, error.to_string()))?;
                        sorted.pictures.push((cell, result));
                    }
                }
                Verdict::Failed => {
                    let kind = outcome.error_kind.and_then(ErrorKind::parse);
                    let kind = kind.ok_or_else(|| refuse(job, format!("{:?} is no error kind", outcome.error_kind)))?;
                    sorted.endings.push((cell, Ending { kind: Some(kind), error }));
                }
                Verdict::Cancelled => sorted.endings.push((cell, Ending { kind: None, error })),
                Verdict::RetryAfter(_) | Verdict::TurnedAway(_) => {
                    sorted.returns.push((cell, outcome.attempt.as_ref().map(|end| end.state), error));
                }
                // The attempt stays open, and so does the cell: `processing` says nothing of who holds the job.
                Verdict::HandedOver | Verdict::ResumeAfter(_) | Verdict::LeaseLost => {}
            }
        }
        sorted.pictures.sort_by_key(|(cell, _)| *cell);
        sorted.endings.sort_by_key(|(cell, _)| *cell);
        sorted.returns.sort_by_key(|(cell, ..)| *cell);
        Ok(sorted)
    }
}

#[async_trait]
impl Settle for CellHook {
    async fn open_cells(&self, connection: &mut PgConnection, submits: &[&(Job, Submit)]) -> Result<Opened, QueueError> {
        let mut cells: Vec<(Uuid, &str)> =
            submits.iter().map(|(_, submit)| (submit.cell, submit.request_sha256.as_str())).collect();
        cells.sort_unstable();
        let begun = subtasks::begin_attempts(connection, &cells).await?;
        let new_groups = begun.iter().filter(|begun| begun.is_first).map(|begun| begun.task_id.to_string()).collect();
        Ok(Opened { cells: begun.iter().map(|begun| begun.id).collect(), new_groups })
    }

    async fn reopen_cells(&self, connection: &mut PgConnection, cells: &[Uuid]) -> Result<Opened, QueueError> {
        let begun = subtasks::resume_attempts(connection, cells).await?;
        let new_groups = begun.iter().filter(|begun| begun.is_first).map(|begun| begun.task_id.to_string()).collect();
        Ok(Opened { cells: begun.iter().map(|begun| begun.id).collect(), new_groups })
    }

    async fn open_groups(&self, connection: &mut PgConnection, groups: &[String]) -> Result<(), QueueError> {
        // What is no task's id came from no row of ours.
        let tasks: Vec<Uuid> = groups.iter().filter_map(|group| Uuid::parse_str(group).ok()).collect();
        Ok(tasks::begin_processing(connection, &tasks).await?)
    }

    async fn settle_cells(&self, connection: &mut PgConnection, settles: &[&(Job, Outcome)]) -> Result<Vec<Moved>, QueueError> {
        let Sorted { pictures, endings, returns } = Sorted::new(settles)?;
        let mut moves = Vec::with_capacity(settles.len());
        if !pictures.is_empty() {
            let pictures: Vec<(Uuid, Picture<'_>)> = pictures.iter().map(|(cell, result)| (*cell, result.picture())).collect();
            moves.extend(subtasks::set_results(connection, &pictures).await?);
        }
        if !endings.is_empty() {
            moves.extend(subtasks::end(connection, &endings).await?);
        }
        if !returns.is_empty() {
            // A cell that is `processing` without an attempt that ends now may go back only if its last POST surely cost nothing:
            // what may have been paid for is never put back to be paid for again.
            let unnamed: Vec<Uuid> = returns.iter().filter(|(_, state, _)| state.is_none()).map(|(cell, ..)| *cell).collect();
            let last = if unnamed.is_empty() { HashMap::new() } else { ledger::last_attempts(connection, &unnamed).await? };
            let state = |cell, state: Option<AttemptState>| {
                state.or_else(|| last.get(&cell).map(|last| last.state).filter(|state| state.is_uncounted()))
            };
            let returns: Vec<(Uuid, Return<'_>)> = returns
                .into_iter()
                .filter_map(|(cell, ended, error)| {
                    let state = state(cell, ended)?;
                    Some((cell, Return { is_uncounted: state.is_uncounted(), error }))
                })
                .collect();
            let back = subtasks::put_back(connection, &returns).await?;
            if back.iter().any(|moved| moved.to_status == Status::Cancelled) {
                // The end of some was asked for: their jobs, which this transaction holds, do not come back either.
                let ids: Vec<Uuid> = returns.iter().map(|(cell, _)| *cell).collect();
                let cancelled = subtasks::get_cancelled(connection, &ids).await?;
                let keys: Vec<String> = cancelled.into_iter().map(GenerateImage::key).collect();
                queue::kill_pending(connection, GenerateImage::QUEUE, &keys).await?;
            }
            moves.extend(back);
        }
        Ok(moves.into_iter().map(to_moved).collect())
    }

    async fn settle_groups(
        &self,
        connection: &mut PgConnection,
        settles: &[&(Job, Outcome)],
        moved: &[Moved],
        submits: &BTreeMap<String, i64>,
    ) -> Result<(), QueueError> {
        let cells: Option<Vec<Move>> = moved.iter().map(from_moved).collect();
        let cells = cells.ok_or_else(|| match settles.first() {
            Some((job, _)) => refuse(job, "a move is none of ours"),
            None => QueueError::Ended,
        })?;
        // What is no task's id came from no row of ours.
        let submits: Vec<(Uuid, i64)> =
            submits.iter().filter_map(|(group, count)| Some((Uuid::parse_str(group).ok()?, *count))).collect();
        Ok(count_moves(connection, &cells, &submits).await?)
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
/// exactly once a round. `submits` are the attempts that ended and were billed, or perhaps, by task. Whatever ends or reopens cells calls it, in the same transaction and as its last step.
pub(super) async fn count_moves(
    connection: &mut PgConnection,
    moves: &[Move],
    submits: &[(Uuid, i64)],
) -> Result<(), sqlx::Error> {
    // In the order of the ids, as everybody locks them.
    let mut changes: BTreeMap<Uuid, Counts> = BTreeMap::new();
    for moved in moves {
        let change = changes.entry(moved.task_id).or_default();
        add(change, moved.from_status, -1);
        add(change, moved.to_status, 1);
    }
    for (task_id, count) in submits {
        changes.entry(*task_id).or_default().submits += count;
    }
    let changes: Vec<(Uuid, Counts)> = changes.into_iter().filter(|(_, change)| *change != Counts::default()).collect();
    if changes.is_empty() {
        return Ok(());
    }
    for task_id in task_counts::move_by(connection, &changes).await? {
        if let Some(task) = tasks::get_round(connection, task_id).await? {
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
pub(super) async fn enqueue_completion(
    connection: &mut PgConnection,
    task_id: Uuid,
    round: i32,
    owner: Uuid,
) -> Result<(), sqlx::Error> {
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
