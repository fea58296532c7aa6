//! `imagemill.favourites`: the tasks that a user keeps at hand.

use sqlx::PgConnection;
use uuid::Uuid;

/// Keeps a task at hand. False: it was already.
///
/// # Errors
/// What PostgreSQL says.
pub async fn insert(connection: &mut PgConnection, user_id: Uuid, task_id: Uuid) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "insert into imagemill.favourites (user_id, task_id) values ($1, $2) on conflict on constraint favourites_pkey do nothing",
    )
    .bind(user_id)
    .bind(task_id)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lets go of a task. False: it was none of the user's.
///
/// # Errors
/// What PostgreSQL says.
pub async fn delete(connection: &mut PgConnection, user_id: Uuid, task_id: Uuid) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("delete from imagemill.favourites where user_id = $1 and task_id = $2")
        .bind(user_id)
        .bind(task_id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The tasks of a user, the latest favourite first; deleted ones are left out.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_user(connection: &mut PgConnection, user_id: Uuid) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select f.task_id from imagemill.favourites f join imagemill.tasks t on t.id = f.task_id
         where f.user_id = $1 and not t.is_deleted order by f.created_at desc, f.task_id",
    )
    .bind(user_id)
    .fetch_all(connection)
    .await
}
