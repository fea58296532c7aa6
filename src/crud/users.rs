//! `imagemill.users`.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, prelude::FromRow};
use uuid::Uuid;

/// A row, without its password's hash.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct UserRow {
    /// A version 7 UUID.
    pub id: Uuid,
    /// Unique whatever its case.
    pub username: String,
    /// Words of `models::Role`.
    pub roles: Vec<String>,
    /// An inactive user may do nothing.
    pub is_active: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// The user that workers act as; it cannot log in.
pub const SYSTEM_USERNAME: &str = "system";

/// Inserts; false: the name is taken, and nothing changed.
///
/// # Errors
/// What PostgreSQL says.
pub async fn insert(
    connection: &mut PgConnection,
    id: Uuid,
    username: &str,
    password_hash: Option<&str>,
    roles: &[String],
) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "insert into imagemill.users (id, username, password_hash, roles) values ($1, $2, $3, $4)
         on conflict (lower(username)) do nothing",
    )
    .bind(id)
    .bind(username)
    .bind(password_hash)
    .bind(roles)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// By name, whatever its case.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_username(connection: &mut PgConnection, username: &str) -> Result<Option<UserRow>, sqlx::Error> {
    sqlx::query_as("select id, username, roles, is_active, created_at from imagemill.users where lower(username) = lower($1)")
        .bind(username)
        .fetch_optional(connection)
        .await
}

/// Its password's hash; none: it cannot log in, or is not there.
///
/// # Errors
/// What PostgreSQL says.
pub async fn password_hash(connection: &mut PgConnection, id: Uuid) -> Result<Option<String>, sqlx::Error> {
    let hash: Option<Option<String>> =
        sqlx::query_scalar("select password_hash from imagemill.users where id = $1").bind(id).fetch_optional(connection).await?;
    Ok(hash.flatten())
}

/// Everybody, by name.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_all(connection: &mut PgConnection) -> Result<Vec<UserRow>, sqlx::Error> {
    sqlx::query_as("select id, username, roles, is_active, created_at from imagemill.users order by lower(username)")
        .fetch_all(connection)
        .await
}
