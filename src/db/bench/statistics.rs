//! What the server counted: statements, commits, WAL, connections.

use sqlx::{PgConnection, prelude::FromRow};

use super::server::APPLICATION;

/// Counts so far. Those of statements and commits are of one database, those of WAL of the whole server.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct Counts {
    /// Committed transactions.
    pub commits: i64,
    /// Bytes of WAL.
    pub wal_bytes: f64,
    /// Whole pages in it.
    pub wal_pages: i64,
}

/// Connections of one database under one name.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Connections {
    /// `application_name`.
    pub name: String,
    /// How many.
    pub connections: i64,
}

/// Makes the statements' view, in the database of this session.
///
/// # Errors
/// What PostgreSQL says.
pub async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("create extension if not exists pg_stat_statements").execute(connection).await?;
    Ok(())
}

/// Forgets all statements.
///
/// # Errors
/// What PostgreSQL says.
pub async fn forget_statements(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_stat_statements_reset()").execute(connection).await?;
    Ok(())
}

/// Statements since they were forgotten, those that begin and end transactions too, in this database.
///
/// # Errors
/// What PostgreSQL says.
pub async fn statements(connection: &mut PgConnection, database: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
         where dbid = (select oid from pg_database where datname = $1)",
    )
    .bind(database)
    .fetch_one(connection)
    .await
}

/// Milliseconds of the longest claim since they were forgotten: of the calls of the function, and of statements that take jobs which nobody has locked.
/// None: there was no such statement.
///
/// # Errors
/// What PostgreSQL says.
pub async fn longest_claim(connection: &mut PgConnection, database: &str) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query_scalar(
        "select max(max_exec_time) from pg_stat_statements
         where dbid = (select oid from pg_database where datname = $1)
           and (query ~* 'imagemill\\.claim\\s*\\(' or (query ~* 'skip\\s+locked' and query ~* 'update\\s+apalis\\.jobs'))",
    )
    .bind(database)
    .fetch_one(connection)
    .await
}

/// Milliseconds of the longest batch of the pruner since they were forgotten: a statement that is its own transaction. None: there was
/// no such statement.
///
/// # Errors
/// What PostgreSQL says.
pub async fn longest_pruning(connection: &mut PgConnection, database: &str) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query_scalar(
        "select max(max_exec_time) from pg_stat_statements
         where dbid = (select oid from pg_database where datname = $1)
           and query ~* 'pg_try_advisory_xact_lock' and query ~* 'delete\\s+from\\s+apalis\\.jobs'",
    )
    .bind(database)
    .fetch_one(connection)
    .await
}

/// The counts.
///
/// # Errors
/// What PostgreSQL says.
pub async fn counts(connection: &mut PgConnection, database: &str) -> Result<Counts, sqlx::Error> {
    sqlx::query_as(
        "select d.xact_commit as commits, w.wal_bytes::float8 as wal_bytes, w.wal_fpi as wal_pages
         from pg_stat_database d, pg_stat_wal w where d.datname = $1",
    )
    .bind(database)
    .fetch_one(connection)
    .await
}

/// Connections of a database by the name that they gave, without the benchmark's own.
///
/// # Errors
/// What PostgreSQL says.
pub async fn connections(connection: &mut PgConnection, database: &str) -> Result<Vec<Connections>, sqlx::Error> {
    sqlx::query_as(
        "select application_name as name, count(*) as connections from pg_stat_activity
         where datname = $1 and application_name <> $2 and backend_type = 'client backend'
         group by 1 order by 1",
    )
    .bind(database)
    .bind(APPLICATION)
    .fetch_all(connection)
    .await
}

/// Whether a session of this database listens.
///
/// # Errors
/// What PostgreSQL says.
pub async fn listens(connection: &mut PgConnection, database: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from pg_stat_activity where datname = $1 and query ~* '^\\s*(-- )?listen')")
        .bind(database)
        .fetch_one(connection)
        .await
}

/// Writes out what a checkpoint writes, so that none comes by size in the middle of a measure.
///
/// # Errors
/// What PostgreSQL says.
pub async fn checkpoint(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("checkpoint").execute(connection).await?;
    Ok(())
}

/// Cleans away what is dead and brings the planner's statistics up to date, as autovacuum does in time.
///
/// # Errors
/// What PostgreSQL says.
pub async fn vacuum(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("vacuum analyze").execute(connection).await?;
    Ok(())
}
