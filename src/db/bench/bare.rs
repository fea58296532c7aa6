//! The least that any claim must do: its rows, written by their ids, without a limit, a turn or a count.

use sqlx::PgConnection;

/// As the claim itself has it: what is claimed need not be on the disk, and a plan is made once.
///
/// # Errors
/// What PostgreSQL says.
pub async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let settings =
        "set synchronous_commit = off; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set jit = off";
    sqlx::raw_sql(settings).execute(connection).await?;
    Ok(())
}

/// Writes what a claim by this worker writes, of those jobs that wait. Returns their ids, with what a worker needs of each.
///
/// # Errors
/// What PostgreSQL says.
pub async fn take(connection: &mut PgConnection, ids: &[String], worker: &str) -> Result<Vec<(String, Vec<u8>)>, sqlx::Error> {
    sqlx::query_as(
        "update apalis.jobs set status = 'Running', lock_by = $2, lock_at = clock_timestamp(), attempts = attempts + 1
         where id = any ($1) and status = 'Pending'
         returning id, job",
    )
    .bind(ids)
    .bind(worker)
    .fetch_all(connection)
    .await
}
