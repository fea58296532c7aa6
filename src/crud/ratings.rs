//! The ratings of a task's cells: a column of `imagemill.subtasks`.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::models::status::Status;

/// Locks these cells of a task, in the order of their ids, and says in which state each is.
///
/// # Errors
/// What PostgreSQL says.
pub async fn lock_cells(connection: &mut PgConnection, task_id: Uuid, cells: &[i32]) -> Result<Vec<(i32, Status)>, sqlx::Error> {
    sqlx::query_as("select cell, status from imagemill.subtasks where task_id = $1 and cell = any ($2) order by id for update")
        .bind(task_id)
        .bind(cells)
        .fetch_all(connection)
        .await
}

/// Rates cells of a task that are locked, 1 to 5, or takes the rating away. Returns how many.
///
/// # Errors
/// What PostgreSQL says.
pub async fn set_many(connection: &mut PgConnection, task_id: Uuid, ratings: &[(i32, Option<i16>)]) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "update imagemill.subtasks s set rating = given.rating, updated_at = now()
         from unnest($2::integer[], $3::smallint[]) as given (cell, rating)
         where s.task_id = $1 and s.cell = given.cell and s.status = 'completed'",
    )
    .bind(task_id)
    .bind(ratings.iter().map(|(cell, _)| *cell).collect::<Vec<_>>())
    .bind(ratings.iter().map(|(_, rating)| *rating).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
