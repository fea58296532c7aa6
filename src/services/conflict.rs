//! Two transactions in each other's way: the same once more.

use std::time::Duration;

use futures::future::BoxFuture;

use super::error::ServiceError;

/// So often is it tried.
const TRIES: u32 = 10;

/// Does it again where PostgreSQL ended it for another transaction's sake: a deadlock, a serialization failure.
///
/// # Errors
/// What it says itself, and a conflict that came every time.
pub(super) async fn retried<'a, T>(mut work: impl FnMut() -> BoxFuture<'a, Result<T, ServiceError>>) -> Result<T, ServiceError> {
    let mut tries = 1;
    loop {
        match work().await {
            Err(ServiceError::Database(error)) if is_conflict(&error) && tries < TRIES => {
                tracing::debug!(%error, tries, "another transaction was in the way: once more");
                tokio::time::sleep(Duration::from_millis(5) * tries).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "40P01" || code == "40001")
}
