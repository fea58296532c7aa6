//! An attempt that was given up is taken up again: the upstream still works on it, or has its picture.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::queue::{connections::Connections, error::QueueError, job, job::Job, settle::Settle};

/// Opens a cell's abandoned attempt again, as `accepted` and in the present round; limit and deadline count from now. False: the claim is lost, or the cell
/// does not want it any more.
///
/// # Errors
/// See [`QueueError`].
pub async fn reopen(
    connections: &Connections,
    hook: &dyn Settle,
    job: &Job,
    cell: Uuid,
    (ordinal, round): (i32, i32),
) -> Result<bool, QueueError> {
    connections.transaction(async |connection| write(connection, hook, job, cell, (ordinal, round)).await).await
}

/// So much of the age of a cell's accepted attempt does not count against its limit and its deadline. Nothing where the claim is lost.
///
/// # Errors
/// See [`QueueError`].
pub async fn put_off(connections: &Connections, job: &Job, cell: Uuid, lasted: Duration) -> Result<(), QueueError> {
    connections
        .statement(async |connection| {
            sqlx::query(
                "update imagemill.attempts
                 set reopened_at = least(now(), coalesce(reopened_at, accepted_at) + make_interval(secs => $5))
                 where subtask_id = $4 and finished_at is null and state = 'accepted'
                   and exists (select from apalis.jobs
                               where id = $1 and lock_by = $2 and attempts = $3 and status = 'Running')",
            )
            .bind(&job.id)
            .bind(&*job.worker)
            .bind(job.claim)
            .bind(cell)
            .bind(lasted.as_secs_f64())
            .execute(connection)
            .await?;
            Ok(())
        })
        .await
}

async fn write(
    connection: &mut PgConnection,
    hook: &dyn Settle,
    job: &Job,
    cell: Uuid,
    (ordinal, round): (i32, i32),
) -> Result<bool, QueueError> {
    if !job::fence(connection, std::iter::once(job)).await?.has(job) {
        return Ok(false);
    }
    let opened = hook.reopen_cells(connection, &[cell]).await?;
    if !opened.cells.contains(&cell) {
        // A repeat of this very call after a lost answer finds the attempt open.
        return is_open(connection, cell, ordinal).await;
    }
    let rows = sqlx::query(
        "update imagemill.attempts
         set state = 'accepted', round = $3, reopened_at = now(), finished_at = null, error_kind = null, error = null
         where subtask_id = $1 and ordinal = $2 and state = 'abandoned' and upstream_id is not null",
    )
    .bind(cell)
    .bind(ordinal)
    .bind(round)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if rows != 1 {
        return Err(QueueError::Ledger { cell, message: format!("attempt {ordinal} is not one that can be opened again") });
    }
    // It is in flight again, and counts as such.
    sqlx::query("select imagemill.move_submits(array[$1], -1)").bind(cell).execute(&mut *connection).await?;
    if !opened.new_groups.is_empty() {
        hook.open_groups(connection, &opened.new_groups.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(true)
}

async fn is_open(connection: &mut PgConnection, cell: Uuid, ordinal: i32) -> Result<bool, QueueError> {
    let open = sqlx::query_scalar(
        "select exists (select from imagemill.attempts where subtask_id = $1 and ordinal = $2 and state = 'accepted')",
    );
    Ok(open.bind(cell).bind(ordinal).fetch_one(connection).await?)
}
