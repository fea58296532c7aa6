//! A database that has forgotten its last commits (a failover without synchronous replication) is told them again by those
//! that remember: a claim, the ledger row of a POST that is out or was answered, the upstream's id.
//!
//! It is known by a claim number that is lower in the table than in memory, or by a ledger row that is missing under a claim
//! that holds: neither can be otherwise. What somebody else has claimed meanwhile is lost like any other claim.

use sqlx::PgConnection;

use super::{
    connections::Connections,
    error::QueueError,
    job::{Job, Memory},
    ledger,
    settle::Settle,
};

/// Puts back what is missing of this job. False: nothing is, or the claim is somebody else's by now.
pub(super) async fn restore(connections: &Connections, hook: &dyn Settle, job: &Job) -> Result<bool, QueueError> {
    let memory = job.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let restored = connections.transaction(async |connection| write(connection, hook, job, &memory).await).await?;
    if restored {
        tracing::error!(job = %job.id, key = %job.key, claim = job.claim, "the database had forgotten its last commits: told again");
    }
    Ok(restored)
}

async fn write(connection: &mut PgConnection, hook: &dyn Settle, job: &Job, memory: &Memory) -> Result<bool, QueueError> {
    let row: Option<(Option<String>, i32, String)> =
        sqlx::query_as("select lock_by, attempts, status from apalis.jobs where id = $1 for update")
            .bind(&job.id)
            .fetch_optional(&mut *connection)
            .await?;
    let Some((lock_by, claim, status)) = row else { return Ok(false) };
    let is_held = lock_by.as_deref() == Some(&*job.worker) && claim == job.claim && status == "Running";
    let is_forgotten = lock_by.is_none() && claim < job.claim && status == "Pending";
    if !is_held && !is_forgotten {
        return Ok(false);
    }
    if is_forgotten {
        // Fails on the foreign key where this worker's row is forgotten as well: then its next beat takes a new name.
        sqlx::query("update apalis.jobs set status = 'Running', lock_by = $2, lock_at = now(), attempts = $3 where id = $1")
            .bind(&job.id)
            .bind(&*job.worker)
            .bind(job.claim)
            .execute(&mut *connection)
            .await?;
    }
    let is_missing = restore_attempt(connection, hook, job, memory).await?;
    Ok(is_forgotten || is_missing)
}

/// The ledger row and the cell's side of it, if the row is not there. Returns whether it was missing.
async fn restore_attempt(
    connection: &mut PgConnection,
    hook: &dyn Settle,
    job: &Job,
    memory: &Memory,
) -> Result<bool, QueueError> {
    let Some((submit, ordinal)) = &memory.attempt else { return Ok(false) };
    if ledger::state_of(connection, submit.cell, *ordinal).await?.is_some() {
        return Ok(false);
    }
    let member = (job.clone(), submit.clone());
    let opened = hook.open_cells(connection, &[&member]).await?;
    ledger::insert_again(connection, job, submit, *ordinal, memory.acceptance.as_ref()).await?;
    if !opened.new_groups.is_empty() {
        hook.open_groups(connection, &opened.new_groups.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(true)
}
