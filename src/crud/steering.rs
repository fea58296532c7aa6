//! Ending open cells by hand. The work is done by `imagemill.end_cells`, since plain SQL may ask for it as well.

use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

use crate::models::status::Status;

/// What became of a cancel or a force-complete.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct EndedCells {
    /// Cells that ended with it.
    pub ended: i32,
    /// Open attempts under a worker that holds them: it ends them when it hears of it.
    pub in_flight: i32,
    /// Seconds until no POST of theirs can leave any more; none: none can.
    pub submits_for: Option<f64>,
}

/// Ends open cells of a task, all or these, as cancelled or failed; writes the audit. The task must be there.
///
/// # Errors
/// What PostgreSQL says.
pub async fn end_cells(
    connection: &mut PgConnection,
    task_id: Uuid,
    cells: Option<&[i32]>,
    status: Status,
    who: &str,
    what: &str,
) -> Result<EndedCells, sqlx::Error> {
    sqlx::query_as(
        "select ended, in_flight, extract(epoch from submits_until - clock_timestamp())::float8 as submits_for
         from imagemill.end_cells($1, $2, $3, $4, $5)",
    )
    .bind(task_id)
    .bind(cells)
    .bind(status.as_str())
    .bind(who)
    .bind(what)
    .fetch_one(connection)
    .await
}

/// Names who acts for the rest of the transaction: what triggers write into the audit is theirs.
///
/// # Errors
/// What PostgreSQL says.
pub async fn act_as(connection: &mut PgConnection, who: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select set_config('imagemill.actor', $1, true)").bind(who).execute(connection).await?;
    Ok(())
}
