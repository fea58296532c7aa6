//! To write a job's outcome and everything that follows from it, in one transaction.
//!
//! Locks are taken in the order of design section 7: the job (fence), its cell (hook), its attempt (ledger), the counts
//! and the task (hook). One transaction per settle is the first form; outcomes that finish together are to share one.

use async_trait::async_trait;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, PgPool};

use super::{
    error::QueueError,
    fault,
    job::Job,
    ledger::{self, AttemptState, Submit},
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

/// What a queue's jobs mean outside the queue: the one hook. It runs inside the engine's transactions.
#[async_trait]
pub trait Settle: Send + Sync + 'static {
    /// Before a ledger row: the cell's side of it. Returns the cell's group; none: the cell wants no submit any more.
    async fn open_cell(
        &self,
        connection: &mut PgConnection,
        job: &Job,
        submit: &Submit<'_>,
    ) -> Result<Option<String>, QueueError>;

    /// After a ledger row: the group's side of it.
    async fn open_group(&self, connection: &mut PgConnection, job: &Job, group: &str) -> Result<(), QueueError>;

    /// The cell's side of an outcome. Returns what its UPDATE moved: nothing where the cell had ended already.
    async fn settle_cell(&self, connection: &mut PgConnection, job: &Job, outcome: &Outcome) -> Result<Vec<Moved>, QueueError>;

    /// The group's side of an outcome: counts, and what follows from them.
    async fn settle_group(
        &self,
        connection: &mut PgConnection,
        job: &Job,
        outcome: &Outcome,
        moved: &[Moved],
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

/// Settles one job.
///
/// # Errors
/// See [`QueueError`]; nothing is written then, unless the answer to the COMMIT was what was lost: repeat it as it is.
pub async fn settle(pool: &PgPool, hook: &dyn Settle, job: &Job, outcome: &Outcome) -> Result<Settled, QueueError> {
    if outcome.verdict == Verdict::LeaseLost {
        return Ok(Settled::LeaseLost);
    }
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    if !job.fence(&mut transaction).await? {
        let before = written_before(&mut transaction, job, outcome).await?;
        if let (Some(cell), Some(AttemptEnd { state: AttemptState::NotSent, error, .. })) = (job.cell(), &outcome.attempt) {
            ledger::never_left(&mut transaction, job, cell, error.as_deref()).await?;
        }
        if !before {
            count_stale_write(&mut transaction, job).await?;
        }
        transaction.commit().await?;
        return Ok(if before { Settled::WrittenBefore } else { Settled::LeaseLost });
    }
    let moved = hook.settle_cell(&mut transaction, job, outcome).await?;
    close_attempt(&mut transaction, job, outcome).await?;
    hook.settle_group(&mut transaction, job, outcome, &moved).await?;
    acknowledge(&mut transaction, job, outcome).await?;
    fault::point(fault::SETTLE_UNCOMMITTED);
    transaction.commit().await?;
    fault::point(fault::SETTLE_COMMITTED);
    Ok(Settled::Written)
}

async fn close_attempt(connection: &mut PgConnection, job: &Job, outcome: &Outcome) -> Result<(), QueueError> {
    let Some(cell) = job.cell() else { return Ok(()) };
    if let Some(end) = &outcome.attempt {
        let closed = ledger::close(connection, cell, end, outcome.error_kind).await?;
        // An answer that came late, to the worker that had lost the claim, may have closed it meanwhile: its id is evidence.
        let came_late = !closed
            && end.state == AttemptState::Unknown
            && matches!(ledger::last_attempt(connection, cell).await?, Some((AttemptState::Abandoned, true)));
        if !closed && !came_late && end.ordinal.is_some() {
            return Err(QueueError::Ledger { cell, message: format!("its attempt {end:?} is not open") });
        }
    } else if matches!(outcome.verdict, Verdict::Done | Verdict::Failed | Verdict::Cancelled) {
        ledger::close_leftover(connection, cell, outcome.error.as_deref()).await?;
    }
    Ok(())
}

/// apalis's word for the job's state afterwards, and after how many seconds a pending one runs again.
fn job_state(verdict: Verdict) -> (&'static str, f64) {
    match verdict {
        Verdict::Done => ("Done", 0.0),
        Verdict::Failed => ("Failed", 0.0),
        Verdict::Cancelled => ("Killed", 0.0),
        Verdict::RetryAfter(delay) | Verdict::TurnedAway(delay) | Verdict::ResumeAfter(delay) => ("Pending", delay.as_secs_f64()),
        Verdict::HandedOver | Verdict::LeaseLost => ("Pending", 0.0),
    }
}

async fn acknowledge(connection: &mut PgConnection, job: &Job, outcome: &Outcome) -> Result<(), QueueError> {
    let (status, delay) = job_state(outcome.verdict);
    let result = match &outcome.error {
        Some(error) => json!({ "Err": error }),
        None => json!({ "Ok": null }),
    };
    // `resume` says that an attempt is open: the next claim takes such a job before any other.
    let rows = sqlx::query(
        "update apalis.jobs
         set status = $4, lock_by = null, lock_at = null, last_result = $5,
             run_at = case when $4 = 'Pending' then now() + make_interval(secs => $6) else run_at end,
             done_at = case when $4 = 'Pending' then null else now() end,
             metadata = case when $4 = 'Pending' and exists (
                                 select from imagemill.attempts
                                 where subtask_id = $7 and finished_at is null)
                             then metadata || hstore('resume', 'true')
                             else delete(metadata, 'resume') end
         where id = $1 and lock_by = $2 and attempts = $3 and status = 'Running'",
    )
    .bind(&job.id)
    .bind(&*job.worker)
    .bind(job.claim)
    .bind(status)
    .bind(result)
    .bind(delay)
    .bind(job.cell())
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if rows != 1 {
        return Err(QueueError::Hook {
            queue: job.queue.to_string(),
            key: job.key.clone(),
            message: "the job changed under its own fence".to_owned(),
        });
    }
    if outcome.verdict == Verdict::HandedOver {
        sqlx::query("select pg_notify($1, $2)").bind(super::enqueue::WAKE_CHANNEL).bind(&*job.queue).execute(connection).await?;
    }
    Ok(())
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
