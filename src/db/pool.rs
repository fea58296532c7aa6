//! The pool of connections of one process.

use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use thiserror::Error;

use crate::config::DatabaseSettings;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL is none. Its text is a secret, so it is not repeated.
    #[error("database.url is not a PostgreSQL URL (postgres://user:password@host:port/name)")]
    Url,
    /// No answer, or a refusal.
    #[error("no connection to PostgreSQL at {place}: {source}; check database.url (or DATABASE_URL) and that the server runs")]
    Refused {
        /// Host and database, without user and password.
        place: String,
        /// What the driver says.
        source: sqlx::Error,
    },
}

/// Options to connect with this URL; every session names itself, so that `pg_stat_activity` can be read.
///
/// # Errors
/// [`ConnectError::Url`].
pub fn connect_options(url: &SecretString, name: &str) -> Result<PgConnectOptions, ConnectError> {
    let options = PgConnectOptions::from_str(url.expose_secret()).map_err(|_| ConnectError::Url)?;
    // What is slow is said by whoever asked, and not with the whole statement. The server's own default of digits reads back
    // exactly, and a pooler refuses to be told.
    Ok(options.application_name(name).disable_statement_logging().extra_float_digits(None))
}

/// A refusal, with its place and without user and password.
pub fn refused(options: &PgConnectOptions, source: sqlx::Error) -> ConnectError {
    let place = format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or_default());
    ConnectError::Refused { place, source }
}

/// A pool that has connected once.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(url: &SecretString, settings: &DatabaseSettings, name: &str) -> Result<PgPool, ConnectError> {
    let mut options = connect_options(url, name)?;
    if settings.pooler {
        // What is prepared on one session of the server is not there on the next.
        options = options.statement_cache_capacity(0);
    }
    // Once by hand: a pool tries until its time is over, and then does not say why.
    let first = tokio::time::timeout(settings.connect_timeout, PgConnection::connect_with(&options)).await;
    let first = first.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)).map_err(|source| refused(&options, source))?;
    first.close().await.map_err(|source| refused(&options, source))?;
    PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .idle_timeout(settings.stale_timeout)
        .acquire_timeout(settings.connect_timeout)
        .connect_with(options.clone())
        .await
        .map_err(|source| refused(&options, source))
}
