//! What a lane allows, and a transaction that keeps what is dead from being cleaned away.

use sqlx::{Connection as _, PgConnection, Postgres, Transaction};

/// Begins a transaction that has a number and a snapshot: as long as it is open, no version of a row goes.
///
/// # Errors
/// What PostgreSQL says.
pub async fn hold_horizon(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    let mut transaction = connection.begin_with("begin isolation level repeatable read").await?;
    sqlx::query("select pg_current_xact_id()").execute(&mut *transaction).await?;
    Ok(transaction)
}
