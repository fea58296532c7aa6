//! The schema: apalis's migrations, then ours, each in a table of its own, then the repeatable step.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, migrate::Migrator};
use thiserror::Error;

/// Our migrations. Once landed they are never edited.
static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// What apalis's tables need to be ours as well; see the file.
const REPEATABLE: &str = include_str!("apalis_tables.sql");

/// Key of the advisory lock under which one process at a time brings the schema up to date ("imagemil" in ASCII).
const INIT_LOCK: i64 = 0x696d_6167_656d_696c;

/// Why the schema could not be brought up to date.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The server is older than we can use.
    #[error("PostgreSQL {found} is too old: use 14 or later")]
    ServerTooOld {
        /// What `server_version` says.
        found: String,
    },
    /// hstore's files are not on the server.
    #[error(
        "the PostgreSQL server has no `hstore`: install its contrib files (Debian: postgresql-contrib, Fedora: postgresql-contrib, macOS: brew install postgresql)"
    )]
    NoHstore,
    /// The database is not in UTF-8.
    #[error("the database's encoding is {found}: create one with `encoding 'UTF8'`")]
    Encoding {
        /// What `server_encoding` says.
        found: String,
    },
    /// The schema is newer than this program.
    #[error("the schema has migration {found}, newer than this program knows: use the program that made it, or a later one")]
    SchemaTooNew {
        /// The newest migration in the database.
        found: i64,
    },
    /// The schema is not there, or older than this program.
    #[error("the schema is not up to date: run `imagemill init-db`")]
    SchemaTooOld,
    /// apalis's migrations failed.
    #[error("apalis's migrations failed: {0}")]
    Apalis(#[source] sqlx::migrate::MigrateError),
    /// Our migrations failed.
    #[error("the migrations failed: {0}")]
    Imagemill(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("the database refused a statement of init-db: {0}")]
    Database(#[from] sqlx::Error),
}

/// Brings the schema up to date. Safe to run again, and from two processes at once: the second waits for the first.
///
/// # Errors
/// Says what is missing before anything is changed; see [`MigrateError`].
pub async fn init_db(connection: &mut PgConnection) -> Result<(), MigrateError> {
    check_server(connection).await?;
    sqlx::query("select pg_advisory_lock($1)").bind(INIT_LOCK).execute(&mut *connection).await?;
    let done = migrate(connection).await;
    let unlocked = sqlx::query("select pg_advisory_unlock($1)").bind(INIT_LOCK).execute(&mut *connection).await;
    done?;
    unlocked?;
    Ok(())
}

async fn migrate(connection: &mut PgConnection) -> Result<(), MigrateError> {
    if let Some(found) = newest(connection).await?.filter(|found| *found > known()) {
        return Err(MigrateError::SchemaTooNew { found });
    }
    let apalis = apalis_postgres::PostgresStorage::<()>::migrations();
    if !complete(connection, "apalis._sqlx_migrations", &apalis).await? {
        sqlx::query("drop view if exists imagemill.jobs").execute(&mut *connection).await?;
        apalis.run(&mut *connection).await.map_err(MigrateError::Apalis)?;
    }
    if !complete(connection, "imagemill._sqlx_migrations", &MIGRATOR).await? {
        MIGRATOR.run(&mut *connection).await.map_err(MigrateError::Imagemill)?;
    }
    let mut step = connection.begin().await?;
    sqlx::raw_sql(REPEATABLE).execute(&mut *step).await?;
    step.commit().await?;
    Ok(())
}

/// Refuses a schema that this program does not fit: older, or newer.
///
/// # Errors
/// One line each, with the way out.
pub async fn check_schema(connection: &mut PgConnection) -> Result<(), MigrateError> {
    match newest(connection).await? {
        Some(found) if found > known() => Err(MigrateError::SchemaTooNew { found }),
        Some(found) if found == known() => Ok(()),
        _ => Err(MigrateError::SchemaTooOld),
    }
}

/// The newest migration of this program.
fn known() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// The newest of our migrations in the database.
async fn newest(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    if !table_exists(connection, "imagemill._sqlx_migrations").await? {
        return Ok(None);
    }
    sqlx::query_scalar("select max(version) from imagemill._sqlx_migrations where success").fetch_one(connection).await
}

/// Whether each migration is there already. Then there is no need to run them, and an older program may start on a
/// database whose apalis is newer.
async fn complete(connection: &mut PgConnection, table: &'static str, migrator: &Migrator) -> Result<bool, sqlx::Error> {
    if !table_exists(connection, table).await? {
        return Ok(false);
    }
    let statement = AssertSqlSafe(format!("select version from {table} where success"));
    let applied: Vec<i64> = sqlx::query_scalar(statement).fetch_all(connection).await?;
    Ok(migrator.iter().all(|migration| applied.contains(&migration.version)))
}

async fn table_exists(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select to_regclass($1) is not null").bind(table).fetch_one(connection).await
}

async fn check_server(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let (number, version, encoding, hstore): (i32, String, String, bool) = sqlx::query_as(
        "select current_setting('server_version_num')::int, current_setting('server_version'),
                current_setting('server_encoding'), exists (select from pg_available_extensions where name = 'hstore')",
    )
    .fetch_one(connection)
    .await?;
    if number < 140_000 {
        return Err(MigrateError::ServerTooOld { found: version });
    }
    if encoding != "UTF8" {
        return Err(MigrateError::Encoding { found: encoding });
    }
    if !hstore {
        return Err(MigrateError::NoHstore);
    }
    Ok(())
}
