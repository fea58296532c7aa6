//! To write jobs' outcomes and everything that follows from them, in one transaction: outcomes that finish within a few
//! milliseconds of one another share it.
//!
//! Locks are taken in the order of design section 7, each by id: the jobs (whose acknowledgement is the fence), their cells
//! (hook), their attempts (ledger), the counts and the tasks (hook).

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    acknowledge::{acknowledge, job_state},
    connections::Connections,
    error::QueueError,
    fault,
    job::Job,
    ledger::{self, AttemptState, Close, Submit},
    outcome::{AttemptEnd, Outcome, Verdict},
};

/// A cell that changed its state, as the UPDATE of its row returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The group that it belongs to.
    pub group: String,
    /// The state that it left.
    pub from: String,
    /// The state that it is in.
    pub to: String,
}

/// Cells that are about to be submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Those that go on; the others want no submit any more.
    pub cells: HashSet<Uuid>,
    /// Groups of which these are the first.
    pub new_groups: HashSet<String>,
}

/// What a queue's jobs mean outside the queue: the one hook. It runs inside the engine's transactions, and by arrays: one
/// call for all that share one.
#[async_trait]
pub trait Settle: Send + Sync + 'static {
    /// Before ledger rows: the cells' side of them.
    async fn open_cells(&self, connection: &mut PgConnection, submits: &[&(Job, Submit)]) -> Result<Opened, QueueError>;

    /// Before attempts of pending cells are opened again: the cells' side of it, without a new attempt.
    async fn reopen_cells(&self, _: &mut PgConnection, _: &[Uuid]) -> Result<Opened, QueueError> {
        Ok(Opened::default())
    }

    /// After ledger rows: the side of the groups that are new.
    async fn open_groups(&self, connection: &mut PgConnection, groups: &[String]) -> Result<(), QueueError>;

    /// The cells' side of outcomes. Returns what its UPDATEs moved: nothing where a cell had ended already.
    async fn settle_cells(&self, connection: &mut PgConnection, settles: &[&(Job, Outcome)]) -> Result<Vec<Moved>, QueueError>;

    /// The groups' side of outcomes: counts, and what follows from them. `submits` are the attempts that ended with them and were
    /// billed, or perhaps, by group. The last step before the commit.
    async fn settle_groups(
        &self,
        connection: &mut PgConnection,
        settles: &[&(Job, Outcome)],
        moved: &[Moved],
        submits: &BTreeMap<String, i64>,
    ) -> Result<(), QueueError>;
}

/// What became of a settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It stands.
    Written,
    /// An earlier try had written it; its answer was lost.
    WrittenBefore,
    /// The claim was lost; nothing was written.
    LeaseLost,
}

/// Settles jobs of one queue, all or nothing. Returns what became of each, in their order.
///
/// # Errors
/// See [`QueueError`]; nothing is written then, unless the answer to the COMMIT was what was lost: repeat it as it is.
pub async fn settle(
    connections: &Connections,
    hook: &dyn Settle,
    settles: &[(Job, Outcome)],
) -> Result<Vec<Settled>, QueueError> {
    if settles.iter().all(|(_, outcome)| outcome.verdict == Verdict::LeaseLost) {
        return Ok(settles.iter().map(|_| Settled::LeaseLost).collect());
    }
    let settled = connections.transaction(async |connection| write(connection, hook, settles).await).await?;
    fault::point(fault::SETTLE_COMMITTED);
    Ok(settled)
}

async fn write(connection: &mut PgConnection, hook: &dyn Settle, settles: &[(Job, Outcome)]) -> Result<Vec<Settled>, QueueError> {
    let writes: Vec<&(Job, Outcome)> = settles.iter().filter(|(_, outcome)| outcome.verdict != Verdict::LeaseLost).collect();
    let held = acknowledge(connection, &writes).await?;
    let (fenced, lost): (Vec<_>, Vec<_>) = writes.into_iter().partition(|(job, _)| held.has(job));
    let mut before = HashSet::new();
    for (job, outcome) in lost {
        if settle_lost(connection, job, outcome).await? {
            before.insert((job.id.as_str(), job.claim));
        }
    }
    if !fenced.is_empty() {
        let moved = hook.settle_cells(connection, &fenced).await?;
        let submits = close_attempts(connection, &fenced).await?;
        hook.settle_groups(connection, &fenced, &moved, &submits).await?;
    }
    fault::point(fault::SETTLE_UNCOMMITTED);
    let settled = |(job, outcome): &(Job, Outcome)| {
        if outcome.verdict != Verdict::LeaseLost && held.has(job) {
            Settled::Written
        } else if before.contains(&(job.id.as_str(), job.claim)) {
            Settled::WrittenBefore
        } else {
            Settled::LeaseLost
        }
    };
    Ok(settles.iter().map(settled).collect())
}

/// A settle whose claim is lost: nothing of it is written but evidence. Returns whether an earlier try had written it.
async fn settle_lost(connection: &mut PgConnection, job: &Job, outcome: &Outcome) -> Result<bool, QueueError> {
    let before = written_before(connection, job, outcome).await?;
    if let (Some(cell), Some(AttemptEnd { state: AttemptState::NotSent, error, .. })) = (job.cell(), &outcome.attempt) {
        ledger::never_left(connection, job, cell, error.as_deref()).await?;
    }
    if !before {
        count_stale_write(connection, job).await?;
    }
    Ok(before)
}

/// Closes the attempts that end with these outcomes. Returns how many of them were billed, or perhaps, by group.
async fn close_attempts(connection: &mut PgConnection, settles: &[&(Job, Outcome)]) -> Result<BTreeMap<String, i64>, QueueError> {
    let mut closes = Vec::with_capacity(settles.len());
    for (job, outcome) in settles {
        let Some(cell) = job.cell() else { continue };
        if let Some(end) = &outcome.attempt {
            closes.push((cell, Close::As(end, outcome.error_kind)));
        } else if matches!(outcome.verdict, Verdict::Done | Verdict::Failed | Verdict::Cancelled) {
            closes.push((cell, Close::Leftover(outcome.error.as_deref())));
        }
    }
    let ended = ledger::close(connection, closes.clone()).await?;
    for (cell, close) in closes {
        // One whose number is known was open when its handler ended.
        let Close::As(end @ AttemptEnd { ordinal: Some(_), .. }, _) = close else { continue };
        if ended.contains_key(&cell) {
            continue;
        }
        // What the worker that had lost the claim said meanwhile may have closed it: an id that came late, or that nothing left.
        match ledger::last_attempts(connection, &[cell]).await?.remove(&cell) {
            Some(last) if end.state == AttemptState::Unknown && last.state == AttemptState::Abandoned && last.has_id => {}
            Some(last) if end.state == AttemptState::Unknown && last.state == AttemptState::NotSent => {
                return Err(QueueError::NeverLeft { cell });
            }
            _ => return Err(QueueError::Ledger { cell, message: format!("its attempt {end:?} is not open") }),
        }
    }
    let mut submits = BTreeMap::new();
    for (job, _) in settles {
        let state = job.cell().and_then(|cell| ended.get(&cell));
        if state.is_some_and(|state| state.is_billed()) {
            *submits.entry(job.group.to_string()).or_insert(0) += 1;
        }
    }
    Ok(submits)
}

/// Whether an earlier try of this very settle is what took the fence away.
async fn written_before(connection: &mut PgConnection, job: &Job, outcome: &Outcome) -> Result<bool, QueueError> {
    if let (Some(cell), Some(end)) = (job.cell(), &outcome.attempt)
        && let Some(ordinal) = end.ordinal
    {
        return Ok(ledger::state_of(connection, cell, ordinal).await? == Some(end.state));
    }
    let (status, _) = job_state(outcome.verdict);
    let same: Option<i32> = sqlx::query_scalar("select 1 from apalis.jobs where id = $1 and attempts = $2 and status = $3")
        .bind(&job.id)
        .bind(job.claim)
        .bind(status)
        .fetch_optional(connection)
        .await?;
    Ok(same.is_some())
}

/// A write that the fence turned away changes nothing, and is counted where a person looks.
async fn count_stale_write(connection: &mut PgConnection, job: &Job) -> Result<(), QueueError> {
    tracing::warn!(job = %job.id, key = %job.key, claim = job.claim, worker = %job.worker, "the claim is lost: nothing was written");
    sqlx::query("update imagemill.incarnations set stale_writes = stale_writes + 1 where name = $1")
        .bind(&*job.worker)
        .execute(connection)
        .await?;
    Ok(())
}
