//! Own orphans: what PostgreSQL says is ours is compared with what is held, whenever an answer was lost or the two differ.

use std::{
    collections::{HashMap, HashSet},
    sync::{PoisonError, atomic::Ordering},
};

use super::{error::QueueError, shared::Shared};

/// Jobs of one statement: thousands may have to be put back, and each statement has five seconds.
pub(super) const PORTION: usize = 500;

/// Jobs that nobody here knows go back to pending; jobs that are ours no longer are told so.
pub(super) async fn reconcile(shared: &Shared) -> Result<(), QueueError> {
    // Before the look: what is found out later asks for another one.
    shared.reconcile.store(false, Ordering::Release);
    let worker = shared.incarnation();
    let before: Vec<(String, i32)> = {
        let held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.keys().cloned().collect()
    };
    let running: Vec<(String, i32)> = shared
        .connections
        .statement(async |connection| {
            let query = sqlx::query_as(
                "select id, attempts from apalis.jobs where lock_by = $1 and status = 'Running' and job_type like 'imagemill.%'",
            );
            Ok(query.bind(&*worker).fetch_all(connection).await?)
        })
        .await
        .inspect_err(|_| shared.reconcile.store(true, Ordering::Release))?;
    let running: HashMap<String, i32> = running.into_iter().collect();
    let lost: Vec<&(String, i32)> = before.iter().filter(|(id, claim)| running.get(id) != Some(claim)).collect();
    let retaken = retake(shared, &worker, &lost).await?;
    let unknown: Vec<(&String, i32)> = {
        let held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        for key in lost.iter().filter(|(id, claim)| !retaken.contains(&(id.clone(), *claim))) {
            // One that is being settled is not in the table any more either; its handler has ended and is not disturbed.
            if let Some(tokens) = held.get(*key) {
                tokens.lease_lost.cancel();
            }
        }
        running
            .iter()
            .map(|(id, claim)| (id, *claim))
            .filter(|(id, claim)| !held.contains_key(&((*id).clone(), *claim)))
            .collect()
    };
    if unknown.is_empty() {
        return Ok(());
    }
    let mut put_back = 0;
    for portion in unknown.chunks(PORTION) {
        let done = put_back_some(shared, &worker, portion).await;
        put_back += done.inspect_err(|_| shared.reconcile.store(true, Ordering::Release))?;
    }
    if put_back > 0 {
        tracing::warn!(jobs = put_back, "put back: claimed by this worker, whose answer was lost");
        shared.wake.look();
    }
    Ok(())
}

async fn put_back_some(shared: &Shared, worker: &str, unknown: &[(&String, i32)]) -> Result<u64, QueueError> {
    shared
        .connections
        .statement(async |connection| {
            let query = sqlx::query(
                "with locked as materialized (
                 select id, lock_by, attempts, status from apalis.jobs where id = any ($2) order by id for update
             ), mine as (
                 select id from locked join unnest($2::text[], $3::integer[]) as given (id, claim) using (id)
                 where lock_by = $1 and attempts = claim and status = 'Running'
             )
             update apalis.jobs as job
             set status = 'Pending', run_at = now(), lock_by = null, lock_at = null,
                 metadata = case when exists (select from imagemill.attempts
                                              where subtask_id = imagemill.as_uuid(job.idempotency_key)
                                                and finished_at is null)
                                 then job.metadata || hstore('resume', 'true') else delete(job.metadata, 'resume') end
             from mine where job.id = mine.id",
            )
            .bind(worker)
            .bind(unknown.iter().map(|(id, _)| (*id).clone()).collect::<Vec<_>>())
            .bind(unknown.iter().map(|(_, claim)| *claim).collect::<Vec<_>>());
            Ok(query.execute(connection).await?.rows_affected())
        })
        .await
}

/// Takes again what this worker had claimed before the database forgot its last commits: a claim number that is lower there
/// than here. The handlers go on; what else was forgotten is told again when they write.
async fn retake(shared: &Shared, worker: &str, lost: &[&(String, i32)]) -> Result<HashSet<(String, i32)>, QueueError> {
    let mut retaken = HashSet::new();
    for portion in lost.chunks(PORTION) {
        let some = retake_some(shared, worker, portion).await;
        retaken.extend(some.inspect_err(|_| shared.reconcile.store(true, Ordering::Release))?);
    }
    if !retaken.is_empty() {
        tracing::error!(jobs = retaken.len(), "the database had forgotten its last commits: these claims are told again");
    }
    Ok(retaken)
}

async fn retake_some(shared: &Shared, worker: &str, lost: &[&(String, i32)]) -> Result<Vec<(String, i32)>, QueueError> {
    shared
        .connections
        .statement(async |connection| {
            let query = sqlx::query_as(
                "with locked as materialized (
                     select id, lock_by, attempts, status from apalis.jobs where id = any ($2) order by id for update
                 )
                 update apalis.jobs as job set status = 'Running', lock_by = $1, lock_at = now(), attempts = given.claim
                 from unnest($2::text[], $3::integer[]) as given (id, claim) join locked using (id)
                 where job.id = any ($2) and job.id = given.id
                   and locked.lock_by is null and locked.attempts < given.claim and locked.status = 'Pending'
                 returning job.id, job.attempts",
            )
            .bind(worker)
            .bind(lost.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>())
            .bind(lost.iter().map(|(_, claim)| *claim).collect::<Vec<_>>());
            Ok(query.fetch_all(connection).await?)
        })
        .await
}
