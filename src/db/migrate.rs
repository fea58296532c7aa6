//! The schema: apalis's migrations, then ours, each in a table of its own, then the repeatable steps: apalis's tables, the views,
//! the roles, the indexes.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, migrate::Migrator};
use thiserror::Error;

use super::{
    indexes,
    patience::{Patience, milliseconds, patiently, set_lock_timeout},
    roles, views,
};

/// What apalis's tables need to be ours as well; see the file.
const REPEATABLE: &str = include_str!("apalis_tables.sql");

/// The functions that claim; see the file.
const CLAIM: &str = include_str!("claim.sql");

/// Key of the advisory lock under which one process at a time brings the schema up to date ("imagemil" in ASCII).
const INIT_LOCK: i64 = 0x696d_6167_656d_696c;

/// An init-db that finds another at work waits so long for it.
const OTHERS: Duration = Duration::from_mins(10);

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
    /// Others held locks for the whole time.
    #[error("init-db got no lock on the live tables within {seconds} s and has left them alone; {way_out}")]
    Locked {
        /// How long it tried.
        seconds: u64,
        /// What to do, and who is in the way.
        way_out: String,
    },
    /// Another init-db does not end.
    #[error("another init-db has been at work for {minutes} minutes: wait until it is done, or end it")]
    Busy {
        /// How long it was waited for.
        minutes: u64,
    },
    /// A view that somebody made stands on one of ours, whose columns have changed.
    #[error(
        "a view of yours stands in the way of imagemill.{view}, whose columns have changed: drop yours, run `imagemill init-db` and make it again ({source})"
    )]
    View {
        /// Ours.
        view: String,
        /// What PostgreSQL says: it names yours.
        source: sqlx::Error,
    },
    /// A fault of ours in the list of indexes.
    #[error("not an index: {statement}")]
    Index {
        /// What stands there.
        statement: String,
    },
    /// Whoever looks may not.
    #[error(
        "this login of the database may not read imagemill's own tables, as commands do: name that of `imagemill init-db` in DATABASE_URL; a member of imagemill_reader reads the views, with psql"
    )]
    NotAllowed,
    /// The schema could not be looked at.
    #[error("the database does not say how old the schema is: {0}")]
    Look(#[source] sqlx::Error),
    /// A statement failed.
    #[error("the database refused a statement of init-db: {0}")]
    Database(#[from] sqlx::Error),
}

impl MigrateError {
    /// Whether a lock was not to be had in time, or only in a circle: the same may do later.
    pub(super) fn is_lock(&self) -> bool {
        let error = match self {
            Self::Database(error) => error,
            Self::Apalis(error) | Self::Imagemill(error) => match error {
                sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => error,
                _ => return false,
            },
            _ => return false,
        };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| code == "55P03" || code == "40P01")
    }
}

/// Brings the schema up to date. Safe to run again, and from two processes at once: the second waits for the first. Safe
/// beside a live fleet: nobody waits for it longer than for [`Patience::lock`].
///
/// # Errors
/// Says what is missing before anything is changed; see [`MigrateError`].
pub async fn init_db(connection: &mut PgConnection) -> Result<(), MigrateError> {
    init_db_with(connection, Patience::default(), &migrator()).await
}

/// The same with another patience, and with these migrations.
///
/// # Errors
/// See [`init_db`].
pub async fn init_db_with(connection: &mut PgConnection, patience: Patience, migrator: &Migrator) -> Result<(), MigrateError> {
    check_server(connection).await?;
    wait_for_others(connection).await?;
    let (lock_timeout, statement_timeout): (String, String) =
        sqlx::query_as("select current_setting('lock_timeout'), current_setting('statement_timeout')")
            .fetch_one(&mut *connection)
            .await?;
    let done = migrate(connection, patience, migrator).await;
    let restored = async {
        set_lock_timeout(connection, &lock_timeout).await?;
        set_statement_timeout(connection, &statement_timeout).await?;
        // apalis's migrator leaves its lock behind where a migration failed.
        sqlx::query("select pg_advisory_unlock_all()").execute(&mut *connection).await?;
        Ok::<(), sqlx::Error>(())
    };
    let restored = restored.await;
    done?;
    restored?;
    Ok(())
}

/// Takes the lock of init-db. By asking now and then: who waits inside a statement is a transaction, and what is made
/// concurrently waits for every transaction.
async fn wait_for_others(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let began = Instant::now();
    loop {
        let taken: bool =
            sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(INIT_LOCK).fetch_one(&mut *connection).await?;
        if taken {
            return Ok(());
        }
        if began.elapsed() >= OTHERS {
            return Err(MigrateError::Busy { minutes: OTHERS.as_secs() / 60 });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn migrate(connection: &mut PgConnection, patience: Patience, migrator: &Migrator) -> Result<(), MigrateError> {
    if let Some(found) = newest(connection).await?.filter(|found| *found > known(migrator)) {
        return Err(MigrateError::SchemaTooNew { found });
    }
    set_lock_timeout(connection, &milliseconds(patience.lock)).await?;
    // A limit of the role's is meant for what people run: an index takes as long as it takes.
    set_statement_timeout(connection, "0").await?;
    let apalis = apalis_postgres::PostgresStorage::<()>::migrations();
    if !complete(connection, "apalis._sqlx_migrations", &apalis).await? {
        patiently(connection, patience, async |connection| {
            views::drop_those_on_apalis(connection).await?;
            apalis.run(&mut *connection).await.map_err(MigrateError::Apalis)
        })
        .await?;
    }
    if !complete(connection, "imagemill._sqlx_migrations", migrator).await? {
        patiently(connection, patience, async |connection| migrator.run(&mut *connection).await.map_err(MigrateError::Imagemill))
            .await?;
    }
    patiently(connection, patience, async |connection| {
        let mut step = connection.begin().await?;
        sqlx::raw_sql(REPEATABLE).execute(&mut *step).await?;
        sqlx::raw_sql(CLAIM).execute(&mut *step).await?;
        Ok(step.commit().await?)
    })
    .await?;
    patiently(connection, patience, async |connection| views::bring_up_to_date(connection).await).await?;
    roles::bring_up_to_date(connection).await?;
    // Nobody queues behind what is made concurrently, so it may wait as long as it likes.
    set_lock_timeout(connection, &milliseconds(patience.bound)).await?;
    patiently(connection, patience, async |connection| indexes::bring_up_to_date(connection).await).await
}

async fn set_statement_timeout(connection: &mut PgConnection, timeout: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select set_config('statement_timeout', $1, false)").bind(timeout).execute(connection).await?;
    Ok(())
}

/// Refuses a schema that this program does not fit: older, or newer.
///
/// # Errors
/// One line each, with the way out.
pub async fn check_schema(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let found = newest(connection).await.map_err(|error| {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        // `insufficient_privilege`
        if code.as_deref() == Some("42501") { MigrateError::NotAllowed } else { MigrateError::Look(error) }
    })?;
    match found {
        Some(found) if found > known(&migrator()) => Err(MigrateError::SchemaTooNew { found }),
        Some(found) if found == known(&migrator()) => Ok(()),
        _ => Err(MigrateError::SchemaTooOld),
    }
}

/// Our migrations. Once landed they are never edited.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    // init-db has a lock of its own; the migrator's would be waited for inside a statement by whatever else migrates in this
    // database, and what is made concurrently would wait for that.
    migrator.set_locking(false);
    migrator
}

/// The newest of these migrations.
fn known(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or_default()
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
