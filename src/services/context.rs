//! The narrow context that services get.

use std::sync::Arc;

use sqlx::{PgPool, Postgres, Transaction};

#[cfg(feature = "worker")]
use super::{load_cells::CellLoader, make_image::UpstreamClient};
use crate::{
    config::Settings,
    db::session::{self, Reader},
};

/// What a service needs of its process.
#[derive(Clone)]
pub struct Context {
    /// The pool.
    pub pool: PgPool,
    /// The settings.
    pub settings: Arc<Settings>,
    /// The upstream's client; none in a process that submits nothing.
    #[cfg(feature = "worker")]
    pub upstream: Option<UpstreamClient>,
    /// Loads the cells that are run.
    #[cfg(feature = "worker")]
    pub cells: CellLoader,
    /// Told when this process has completed a task: then it may be summed up what it cost.
    pub completed: Arc<tokio::sync::Notify>,
}

impl Context {
    /// A context that submits nothing: what a producer has.
    pub fn new(pool: PgPool, settings: Settings) -> Self {
        Self {
            pool,
            settings: Arc::new(settings),
            #[cfg(feature = "worker")]
            upstream: None,
            #[cfg(feature = "worker")]
            cells: CellLoader::default(),
            completed: Arc::default(),
        }
    }

    /// A connection for reading. It is a transaction of its own where a pooler stands between.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn reader(&self) -> Result<Reader, sqlx::Error> {
        session::reader(&self.pool, self.settings.database.pooler).await
    }

    /// A transaction: for everything that writes.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        session::begin(&self.pool, self.settings.database.pooler).await
    }

    /// With a client of the upstream.
    ///
    /// # Errors
    /// See [`super::make_image::ClientError`].
    #[cfg(feature = "worker")]
    pub fn with_upstream(mut self) -> Result<Self, super::make_image::ClientError> {
        self.upstream = Some(UpstreamClient::new(&self.settings)?);
        Ok(self)
    }
}
