//! Starting and stopping: what a program calls first and last.

use std::time::Duration;

use secrecy::SecretString;
use sqlx::Connection as _;
use thiserror::Error;

use crate::{
    config::Settings,
    db::{
        migrate::{self, MigrateError},
        pool::{self, ConnectError},
        private::{PrivateServer, PrivateServerError},
        session,
    },
    services::context::Context,
};

/// How long the connections in use are awaited at the end.
const CLOSING: Duration = Duration::from_secs(2);

/// Why a program cannot start.
#[derive(Debug, Error)]
pub enum InitializeError {
    /// The private server.
    #[error(transparent)]
    PrivateServer(#[from] PrivateServerError),
    /// The database.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The schema.
    #[error(transparent)]
    Schema(#[from] MigrateError),
    /// A statement failed.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema cannot be changed through a pooler.
    #[error(
        "init-db needs PostgreSQL itself, and database.pooler says that a pooler stands between: for this command set DATABASE_URL to the server, and IMAGEMILL_DATABASE__POOLER=false"
    )]
    Pooler,
}

/// A database that is there: the configured one, or the private server's.
pub struct Database {
    /// Its URL.
    pub url: SecretString,
    server: Option<PrivateServer>,
    is_pooled: bool,
}

impl Database {
    /// The configured database; with none configured, the private server, which is started if it does not run.
    ///
    /// # Errors
    /// See [`InitializeError`].
    pub async fn acquire(settings: &Settings) -> Result<Self, InitializeError> {
        if let Some(url) = &settings.database.url {
            return Ok(Self { url: url.clone(), server: None, is_pooled: settings.database.pooler });
        }
        let server = PrivateServer::acquire(settings.database.private_directory.as_deref()).await?;
        Ok(Self { url: server.url().clone(), server: Some(server), is_pooled: false })
    }

    /// Whether it is the private one.
    pub fn is_private(&self) -> bool {
        self.server.is_some()
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// See [`InitializeError`].
    pub async fn init_db(&self) -> Result<(), InitializeError> {
        if self.is_pooled {
            // One session, its lock and its settings from beginning to end: what a pooler does not give.
            return Err(InitializeError::Pooler);
        }
        let options = pool::connect_options(&self.url, "imagemill init-db")?;
        let mut connection =
            sqlx::PgConnection::connect_with(&options).await.map_err(|source| pool::refused(&options, source))?;
        migrate::init_db(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Lets go of it; the last one to do so stops the private server.
    ///
    /// # Errors
    /// See [`PrivateServerError`].
    pub async fn release(self) -> Result<(), InitializeError> {
        if let Some(server) = self.server {
            server.release().await?;
        }
        Ok(())
    }
}

/// A program that is running.
pub struct App {
    /// What the services get.
    pub context: Context,
    database: Database,
}

impl App {
    /// Its database.
    pub fn database(&self) -> &Database {
        &self.database
    }
}

/// Connects, and refuses a schema that this program does not fit.
///
/// # Errors
/// See [`InitializeError`]: one line, with the way out.
pub async fn initialize_app(settings: Settings) -> Result<App, InitializeError> {
    let database = Database::acquire(&settings).await?;
    initialize_with(settings, database).await
}

/// The same with a database that is there already.
///
/// # Errors
/// See [`InitializeError`].
pub async fn initialize_with(settings: Settings, database: Database) -> Result<App, InitializeError> {
    let pool = pool::connect(&database.url, &settings.database, "imagemill").await?;
    let mut connection = session::reader(&pool, settings.database.pooler).await?;
    migrate::check_schema(&mut connection).await?;
    drop(connection);
    Ok(App { context: Context::new(pool, settings), database })
}

/// Closes the connections, and stops the private server if nobody else uses it.
///
/// # Errors
/// See [`InitializeError`].
pub async fn shutdown_app(app: App) -> Result<(), InitializeError> {
    // A statement that waits for a lock must not keep a program that was told to end now.
    if tokio::time::timeout(CLOSING, app.context.pool.close()).await.is_err() {
        tracing::warn!("connections are still in use; they end with the program");
    }
    app.database.release().await
}

/// The same without closing them, for a program that was told to end at once: the server sees their end with that of the program.
///
/// # Errors
/// See [`InitializeError`].
pub async fn drop_app(app: App) -> Result<(), InitializeError> {
    app.database.release().await
}
