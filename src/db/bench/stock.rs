//! apalis-postgres as it comes: its own migrations alone, its own way to push, and what its rows say of a drain.

use apalis_core::task::builder::TaskBuilder;
use sqlx::{Connection as _, PgConnection, prelude::FromRow};
use thiserror::Error;

/// Jobs of one push.
const BATCH: usize = 1_000;

/// Why the stock backend's database could not be made ready.
#[derive(Debug, Error)]
pub enum StockError {
    /// Its migrations.
    #[error("apalis's migrations failed: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Its push.
    #[error("apalis's push failed: {0}")]
    Push(#[from] apalis_postgres::Error),
    /// A statement failed.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// A drain of jobs.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct StockDrain {
    /// Jobs that are done.
    pub done: i64,
    /// Seconds from the first fetch to the last end.
    pub seconds: f64,
}

/// Runs apalis's migrations, and nothing of ours.
///
/// # Errors
/// See [`StockError`].
pub async fn migrate(connection: &mut PgConnection) -> Result<(), StockError> {
    apalis_postgres::PostgresStorage::<()>::migrations().run(connection).await?;
    Ok(())
}

/// Pushes jobs by apalis's own function, a thousand a statement.
///
/// # Errors
/// See [`StockError`].
pub async fn push(connection: &mut PgConnection, queue: &str, payloads: Vec<Vec<u8>>) -> Result<(), StockError> {
    for batch in payloads.chunks(BATCH) {
        let tasks = batch.iter().map(|payload| TaskBuilder::new(payload.clone()).build()).collect();
        let mut transaction = connection.begin().await?;
        apalis_postgres::queries::push_tasks(&mut *transaction, queue, tasks).await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// Whether a job of the queue is not done.
///
/// # Errors
/// What PostgreSQL says.
pub async fn is_open(connection: &mut PgConnection, queue: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from apalis.jobs where job_type = $1 and status <> 'Done')")
        .bind(queue)
        .fetch_one(connection)
        .await
}

/// What became of the queue's jobs.
///
/// # Errors
/// What PostgreSQL says.
pub async fn drain(connection: &mut PgConnection, queue: &str) -> Result<StockDrain, sqlx::Error> {
    sqlx::query_as(
        "select count(*) filter (where status = 'Done') as done,
                coalesce(extract(epoch from max(done_at) - min(lock_at)), 0)::float8 as seconds
         from apalis.jobs where job_type = $1",
    )
    .bind(queue)
    .fetch_one(connection)
    .await
}
