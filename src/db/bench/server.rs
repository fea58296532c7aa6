//! The benchmark's server: its settings, and the databases on it.

use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::db::pool;

/// Name of the benchmark's own sessions, by which its counts leave them out.
pub const APPLICATION: &str = "imagemill bench";

/// Settings that take the server's start; what is not named keeps PostgreSQL's default.
const SETTINGS: [&str; 1] = [
    // A drain is not to be cut by a checkpoint that comes by size.
    "alter system set max_wal_size = '4GB'",
];

/// The same, where the module that counts statements is there. Its own settings stay as they are: utility statements count.
const STATEMENTS: &str = "alter system set shared_preload_libraries = 'pg_stat_statements'";

/// Writes the settings, which count from the server's next start. Returns whether statements will be counted.
///
/// # Errors
/// What PostgreSQL says.
pub async fn configure(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    for setting in SETTINGS {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    // Of the contrib files, which may be missing; without its library the server would not start.
    let counts_statements = sqlx::query("load 'pg_stat_statements'").execute(&mut *connection).await.is_ok();
    if counts_statements {
        sqlx::query(STATEMENTS).execute(&mut *connection).await?;
    }
    Ok(counts_statements)
}

/// Sets whether a page's first change after a checkpoint writes the whole page. It counts at once.
///
/// # Errors
/// What PostgreSQL says.
pub async fn set_full_page_writes(connection: &mut PgConnection, is_on: bool) -> Result<(), sqlx::Error> {
    let statement = if is_on { "alter system reset full_page_writes" } else { "alter system set full_page_writes = off" };
    sqlx::query(statement).execute(&mut *connection).await?;
    sqlx::query("select pg_reload_conf()").execute(&mut *connection).await?;
    Ok(())
}

/// Makes a database, empty or as a copy. A name is a word of ours.
///
/// # Errors
/// What PostgreSQL says.
pub async fn create_database(connection: &mut PgConnection, name: &str, template: &str) -> Result<(), sqlx::Error> {
    let statement = format!("create database {name} template {template}");
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// Takes a database away, and with it whoever is connected.
///
/// # Errors
/// What PostgreSQL says.
pub async fn drop_database(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let statement = format!("drop database if exists {name} with (force)");
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// The URL of another database on the same server.
pub fn url_of(server: &SecretString, name: &str) -> Option<SecretString> {
    let mut url = url::Url::parse(server.expose_secret()).ok()?;
    url.set_path(name);
    Some(SecretString::from(String::from(url)))
}

/// One session.
///
/// # Errors
/// What the driver says.
pub async fn connect(url: &SecretString) -> Result<PgConnection, sqlx::Error> {
    let options = pool::connect_options(url, APPLICATION).map_err(|error| sqlx::Error::Configuration(error.into()))?;
    PgConnection::connect_with(&options).await
}

/// The version, as the server says it.
///
/// # Errors
/// What PostgreSQL says.
pub async fn version(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select current_setting('server_version')").fetch_one(connection).await
}

/// The data directory.
///
/// # Errors
/// What PostgreSQL says.
pub async fn data_directory(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select current_setting('data_directory')").fetch_one(connection).await
}

/// Process number of this session's server process; its parent is the postmaster.
///
/// # Errors
/// What PostgreSQL says.
pub async fn backend_process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(connection).await
}

/// Lifts what the lanes' rows limit, where the fleet obeys them: the benchmark looks for the engine's own limits.
///
/// # Errors
/// What PostgreSQL says.
pub async fn unlimit_lanes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update imagemill.lanes
         set max_in_flight = 1000000, submits_per_second = null, burst = 1000000, ramp_start = null, ramp_step = null,
             ramp_interval = null, ramp_idle_reset = null, polls_per_second = null, max_submits_per_day = null",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Brings the planner's statistics up to date, as autovacuum would have done by the time that a fleet comes to the rows.
///
/// # Errors
/// What PostgreSQL says.
pub async fn analyze(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("analyze").execute(connection).await?;
    Ok(())
}
