//! The engine's transactions: bounded on both sides, so that a client that stalls blocks nobody and a server that stalls is
//! left.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};

use super::error::QueueError;

/// A client waits so long for the whole of a transaction; the server gives up its statements before.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// What the server keeps to by itself: for the transaction alone, since what a session sets does not survive a pooler. A client that stands
/// still in the middle loses its locks with its session.
const BEGIN: &str = "begin; select set_config('statement_timeout', '5s', true), set_config('lock_timeout', '4s', true), \
                     set_config('idle_in_transaction_session_timeout', '5s', true)";

/// Begins a transaction with the engine's limits.
pub(super) async fn begin(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    connection.begin_with(BEGIN).await
}

/// Runs some work on a pooled connection for at most [`ANSWER`]; what is not answered by then is cut, connection and all.
///
/// # Errors
/// See [`QueueError`]; [`QueueError::TimedOut`] leaves open whether it was committed.
pub(crate) async fn bounded<T>(
    pool: &PgPool,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, QueueError>,
) -> Result<T, QueueError> {
    let mut connection: PoolConnection<Postgres> = pool.acquire().await?;
    if let Ok(done) = tokio::time::timeout(ANSWER, work(&mut connection)).await {
        return done;
    }
    // Its answer would come to whoever has the connection next.
    drop(connection.detach());
    Err(QueueError::TimedOut(ANSWER))
}
