//! Retry: ended cells run again, in a new round. And the sweep, which retries what an upstream id came for too late.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    actor::Actor,
    cell_settle::{count_moves, enqueue_completion},
    conflict::retried,
    context::Context,
    error::ServiceError,
    task_service,
};
use crate::{
    crud::{
        audit::{self, NewAudit},
        bounds,
        retries::{self, Chosen, EndedCell},
        tasks::{self, TaskRow},
        users::SYSTEM_USERNAME,
    },
    models::{
        payload::GenerateImage,
        status::{ErrorKind, RetryMode, Status},
    },
    queue::{self, Batch, ledger},
};

/// Unknown cells that one sweep looks at.
const SWEPT: i64 = 10_000;

/// What to run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// Cells that failed for one of these reasons.
    pub kinds: Vec<ErrorKind>,
    /// These cells, by their ordinals. With neither: every cell that failed or was cancelled.
    pub cells: Vec<i32>,
    /// Ask for no earlier upstream id and wait for no earlier answer: what was paid for may be paid for again.
    pub now: bool,
}

/// A task of which cells run again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RetriedTask {
    /// The task.
    pub task: Uuid,
    /// The round that begins; none: no cell was there to run again, and nothing changed.
    pub round: Option<i32>,
    /// Cells that run again.
    pub retried: usize,
    /// Those of them that wait, since an earlier POST may still be answered until then.
    pub waiting: BTreeMap<i32, DateTime<Utc>>,
    /// Cells that are submitted again although nobody knows whether an earlier submit of theirs was billed.
    pub unknown: Vec<i32>,
    /// Cells that were chosen and are left as they are: a worker still holds them, or is yet to end them as cancelled. It awaits the
    /// answer to its POST.
    pub held: Vec<i32>,
}

/// Runs ended cells again, in a new round, each with its own seed. An attempt that was given up under an upstream id is asked for
/// before anything is paid: its picture is taken; what is still worked on is polled on; only for what is over a new attempt is
/// made. A cell whose earlier POST may still be answered waits until it cannot. `now` does neither, and is audited.
///
/// # Errors
/// See [`ServiceError`]; nothing is changed then.
pub async fn retry_task(context: &Context, actor: &Actor, id: Uuid, what: &Retry) -> Result<RetriedTask, ServiceError> {
    if !what.kinds.is_empty() && !what.cells.is_empty() {
        return Err(ServiceError::Usage("name kinds or cells, and not both".to_owned()));
    }
    retried(|| Box::pin(retry_once(context, actor, id, what))).await
}

async fn retry_once(context: &Context, actor: &Actor, id: Uuid, what: &Retry) -> Result<RetriedTask, ServiceError> {
    let mut transaction = context.begin().await?;
    let task = task_service::get_or_say_why_not(&mut transaction, id).await?;
    actor.require_manage(task.user_id)?;
    if let Some(not_after) = task.bounds.not_after
        && not_after <= bounds::now(&mut transaction).await?
    {
        let message = format!("task {id} submits nothing after {not_after}: shift that first, with task limit {id} --not-after");
        return Err(ServiceError::Usage(message));
    }
    let done = retry_in(&mut transaction, &actor.username, task.id, what).await?;
    transaction.commit().await?;
    Ok(done)
}

async fn retry_in(connection: &mut PgConnection, who: &str, id: Uuid, what: &Retry) -> Result<RetriedTask, ServiceError> {
    retries::lock_steering(connection, id).await?;
    if retries::is_alone(connection, id).await? {
        let message = format!("task {id} was a try against the simulator, and no worker takes its cells: create it again");
        return Err(ServiceError::Usage(message));
    }
    let chosen = match (what.kinds.as_slice(), what.cells.as_slice()) {
        ([], []) => Chosen::All,
        ([], cells) => Chosen::Cells(cells),
        (kinds, _) => Chosen::Kinds(kinds),
    };
    let cells = retries::get_chosen(connection, id, chosen).await?;
    refuse_what_cannot_be_retried(id, what, &cells)?;
    let mode = if what.now { RetryMode::Now } else { RetryMode::PollFirst };
    let said = json!({ "kinds": what.kinds, "cells": what.cells, "now": what.now });
    reopen(connection, who, "retry_task", id, cells, mode, said).await
}

/// Every fault at once.
fn refuse_what_cannot_be_retried(id: Uuid, what: &Retry, cells: &[EndedCell]) -> Result<(), ServiceError> {
    let mut faults = Vec::new();
    for wanted in &what.cells {
        match cells.iter().find(|cell| cell.cell == *wanted) {
            None => faults.push(format!("there is no cell {wanted}")),
            Some(cell) if !matches!(cell.status, Status::Failed | Status::Cancelled) && !cell.is_being_cancelled => {
                faults.push(format!("cell {wanted} is {}", cell.status));
            }
            Some(_) => {}
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(ServiceError::Usage(format!("task {id}: {}; only failed and cancelled cells are retried", faults.join(", "))))
}

/// Opens these cells again, in a round that begins with it. Locks in the order of everybody: jobs, subtasks, counts, tasks.
async fn reopen(
    connection: &mut PgConnection,
    who: &str,
    what: &str,
    id: Uuid,
    mut cells: Vec<EndedCell>,
    mode: RetryMode,
    said: serde_json::Value,
) -> Result<RetriedTask, ServiceError> {
    let keys: Vec<String> = cells.iter().map(|cell| GenerateImage::key(cell.id)).collect();
    let jobs = queue::lock_keys(connection, GenerateImage::QUEUE, &keys).await?;
    let running: HashSet<String> = jobs.into_iter().filter(|job| job.is_running).map(|job| job.key).collect();
    let is_held = |cell: &EndedCell| cell.is_being_cancelled || running.contains(&GenerateImage::key(cell.id));
    let held: Vec<i32> = cells.iter().filter(|cell| is_held(cell)).map(|cell| cell.cell).collect();
    cells.retain(|cell| !is_held(cell));
    // Read under the lock of those who steer: nobody else begins a round.
    let missing = || ServiceError::NotFound { what: "task", id: id.to_string() };
    let task: TaskRow = tasks::get(connection, id).await?.ok_or_else(missing)?;
    let ids: Vec<Uuid> = cells.iter().map(|cell| cell.id).collect();
    let round = task.round + 1;
    let moves = retries::reopen(connection, &ids, mode, round).await?;
    if moves.is_empty() {
        return Ok(RetriedTask { task: id, round: None, retried: 0, waiting: BTreeMap::new(), unknown: Vec::new(), held });
    }
    if moves.len() != cells.len() {
        // They had ended, and whoever ends or opens cells was locked out: a fault of ours.
        return Err(ServiceError::Usage(format!("task {id}: cells changed meanwhile; try again")));
    }
    // Ended by force under a worker that died since: the attempt is open still, and is asked for like any other.
    ledger::close_leftovers(connection, &ids).await?;
    let (waiting, unknown) = if mode == RetryMode::PollFirst { earlier(connection, &cells).await? } else { Default::default() };
    let payloads: Result<Vec<Vec<u8>>, _> =
        cells.iter().map(|cell| serde_json::to_vec(&GenerateImage::new(cell.id, id))).collect();
    let batch = Batch {
        queue: GenerateImage::QUEUE,
        group: &id.to_string(),
        owner: &task.user_id.to_string(),
        is_alone: false,
        keys: cells.iter().map(|cell| GenerateImage::key(cell.id)).collect(),
        lanes: cells.iter().map(|cell| cell.lane.clone()).collect(),
        payloads: payloads.map_err(|error| ServiceError::Usage(error.to_string()))?,
    };
    queue::begin_anew(connection, GenerateImage::QUEUE, &batch.keys).await?;
    queue::reopen(connection, &batch).await?;
    if mode != RetryMode::Now {
        // What is paid for already waits for no place, no budget and no pause: it is asked for first.
        let earlier: Vec<String> = ledger::given_up(connection, &ids).await?.into_iter().map(GenerateImage::key).collect();
        queue::resume(connection, GenerateImage::QUEUE, &earlier).await?;
    }
    if !waiting.is_empty() {
        // Else each would be claimed in vain: after a pause, in place of the one submit that is tried.
        let waits = |cell: &EndedCell| Some((GenerateImage::key(cell.id), *waiting.get(&cell.cell)?));
        let (keys, until): (Vec<String>, Vec<DateTime<Utc>>) = cells.iter().filter_map(waits).unzip();
        queue::put_off(connection, GenerateImage::QUEUE, &keys, &until).await?;
    }
    count_moves(connection, &moves, &[]).await?;
    if !task.status.is_terminal() {
        // This round ends by being followed: its completion finds that, and each round has one all the same.
        enqueue_completion(connection, id, task.round, task.user_id).await?;
    }
    if !retries::begin_round(connection, id, task.round).await? {
        return Err(missing());
    }
    let subject = format!("task/{id}");
    let old_value = Some(json!({ "status": task.status, "round": task.round }));
    let new_value = Some(json!({ "round": round, "retried": cells.len(), "chosen": said, "held": held }));
    audit::insert(connection, &NewAudit { who, what, subject: &subject, old_value, new_value }).await?;
    tracing::info!(task = %id, by = who, round, cells = cells.len(), "retried");
    Ok(RetriedTask { task: id, round: Some(round), retried: cells.len(), waiting, unknown, held })
}

/// Cells with an earlier POST that may still be answered, and until when; and those with one that will not be, of which nobody
/// knows whether it was billed.
async fn earlier(
    connection: &mut PgConnection,
    cells: &[EndedCell],
) -> Result<(BTreeMap<i32, DateTime<Utc>>, Vec<i32>), ServiceError> {
    let ids: Vec<Uuid> = cells.iter().map(|cell| cell.id).collect();
    let numbers: HashMap<Uuid, i32> = cells.iter().map(|cell| (cell.id, cell.cell)).collect();
    let (mut waiting, mut unknown) = (BTreeMap::new(), Vec::new());
    for earlier in ledger::may_be_answered(connection, &ids).await? {
        let Some(&cell) = numbers.get(&earlier.cell) else { continue };
        match earlier.answer_until {
            Some(until) => drop(waiting.insert(cell, until)),
            None => unknown.push(cell),
        }
    }
    unknown.sort_unstable();
    Ok((waiting, unknown))
}

/// Retries, as the system user, cells that failed as `unknown_submit` and got their upstream's id afterwards: it is polled, and
/// nothing is paid. One worker at a time looks. Returns how many cells run again.
///
/// # Errors
/// See [`ServiceError`].
pub async fn sweep_late_evidence(context: &Context) -> Result<usize, ServiceError> {
    let mut transaction = context.begin().await?;
    let unknown = retries::get_unknown(&mut transaction, SWEPT).await?;
    let ids: Vec<Uuid> = unknown.iter().map(|(_, cell)| *cell).collect();
    let late = if ids.is_empty() { Vec::new() } else { ledger::with_late_ids(&mut transaction, &ids).await? };
    transaction.commit().await?;
    let mut by_task: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
    for (task, cell) in unknown.into_iter().filter(|(_, cell)| late.contains(cell)) {
        by_task.entry(task).or_default().push(cell);
    }
    let mut swept = 0;
    for (task, late) in by_task {
        swept += retried(|| Box::pin(sweep_task(context, task, &late))).await?;
    }
    Ok(swept)
}

async fn sweep_task(context: &Context, task: Uuid, late: &[Uuid]) -> Result<usize, ServiceError> {
    let mut transaction = context.begin().await?;
    retries::lock_steering(&mut transaction, task).await?;
    // Looked at again: somebody may have been faster.
    let mut cells = retries::get_chosen(&mut transaction, task, Chosen::Kinds(&[ErrorKind::UnknownSubmit])).await?;
    cells.retain(|cell| late.contains(&cell.id));
    let said = json!({ "kinds": [ErrorKind::UnknownSubmit], "late_ids": cells.len() });
    let done = reopen(&mut transaction, SYSTEM_USERNAME, "sweep_late_evidence", task, cells, RetryMode::Evidence, said).await?;
    transaction.commit().await?;
    Ok(done.retried)
}
