//! The engine's connections and transactions: bounded on both sides, so that a client that stalls blocks nobody and a server
//! that stalls is left. Behind a pooler every statement stands in a transaction (see `src/db/session.rs`).

use std::{sync::Arc, time::Duration};

use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};

use super::{
    engine::EngineOptions,
    error::QueueError,
    kept::{Kept, Share},
};

/// A client waits so long for the whole of a transaction; the server gives up its statements before.
const ANSWER: Duration = Duration::from_secs(10);

/// What the server keeps to by itself: for the transaction alone, since what a session sets does not survive a pooler. A client
/// that stands still in the middle loses its locks with its session.
const BEGIN: &str = "begin; select set_config('statement_timeout', '5s', true), set_config('lock_timeout', '4s', true), \
                     set_config('idle_in_transaction_session_timeout', '5s', true)";
/// The same behind a pooler, where others have left their statements' names.
const BEGIN_POOLED: &str = "begin; deallocate all; select set_config('statement_timeout', '5s', true), \
                            set_config('lock_timeout', '4s', true), set_config('idle_in_transaction_session_timeout', '5s', true)";

/// How long a transaction waits for a row that somebody else has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockWait {
    /// Four seconds, as the sessions are set.
    Long,
    /// One second: many wait for this transaction.
    Short,
    /// A tenth of one: it is tried which of them are in the way.
    Shortest,
}

impl LockWait {
    /// How a transaction that waits so long begins, where all else is set already.
    const fn begin(self) -> &'static str {
        match self {
            Self::Long => "begin",
            Self::Short => "begin; set local lock_timeout = '1s'",
            Self::Shortest => "begin; set local lock_timeout = '100ms'",
        }
    }

    /// The same for one that has begun.
    const fn set(self) -> Option<&'static str> {
        match self {
            Self::Long => None,
            Self::Short => Some("set local lock_timeout = '1s'"),
            Self::Shortest => Some("set local lock_timeout = '100ms'"),
        }
    }
}

/// The connections of one engine.
#[derive(Debug, Clone)]
pub struct Connections {
    pool: PgPool,
    is_pooled: bool,
    /// None of a pool that is small or that others use, and none behind a pooler.
    kept: Option<Arc<Kept>>,
    /// The one for claims, likewise.
    kept_for_claims: Option<Arc<Kept>>,
    lock_wait: LockWait,
}

impl Connections {
    /// The connections of this pool; `is_pooled` where a pooler in transaction mode stands between.
    pub fn new(pool: PgPool, is_pooled: bool) -> Self {
        Self { pool, is_pooled, kept: None, kept_for_claims: None, lock_wait: LockWait::Long }
    }

    /// The connections of a pool that an engine has to itself: those that it needs all the time are kept at hand.
    fn keeping(pool: PgPool) -> Self {
        let kept = Kept::new(&pool, Share::All).map(Arc::new);
        let kept_for_claims = Kept::new(&pool, Share::Claims).map(Arc::new);
        Self { kept, kept_for_claims, ..Self::new(pool, false) }
    }

    /// The connections that these options ask for.
    pub(super) fn of(pool: PgPool, options: &EngineOptions) -> Self {
        if options.keeps_connections && !options.is_pooled { Self::keeping(pool) } else { Self::new(pool, options.is_pooled) }
    }

    /// The same, whose transactions wait so long for the locks of others.
    pub(super) fn waiting(&self, lock_wait: LockWait) -> Self {
        Self { lock_wait, ..self.clone() }
    }

    /// The one that is kept for claims, where it is.
    pub(super) fn for_claims(&self) -> Self {
        Self { kept: self.kept_for_claims.clone().or_else(|| self.kept.clone()), ..self.clone() }
    }

    /// Lets go of the connections that are kept at hand: the pool's other users may want to close it.
    pub(super) async fn close(&self) {
        for kept in [&self.kept, &self.kept_for_claims].into_iter().flatten() {
            kept.close().await;
        }
    }

    /// The pool.
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Begins a transaction with the engine's limits, on a connection of one's own.
    pub(super) async fn begin<'c>(&self, connection: &'c mut PgConnection) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
        connection.begin_with(if self.is_pooled { BEGIN_POOLED } else { BEGIN }).await
    }

    /// Runs one statement that stands by itself, or a few that only read, for at most ten seconds; in a transaction where that is needed
    /// to say how long it waits.
    ///
    /// # Errors
    /// See [`QueueError`]; [`QueueError::TimedOut`] leaves open whether it was carried out.
    pub(crate) async fn statement<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        let stands_by_itself = !self.is_pooled && self.lock_wait == LockWait::Long;
        if stands_by_itself { self.bounded(work).await } else { self.transaction(work).await }
    }

    /// Runs some work in a transaction, for at most ten seconds. What is not answered by then is cut, connection and all.
    ///
    /// # Errors
    /// See [`QueueError`]; [`QueueError::TimedOut`] leaves open whether it was committed.
    pub(super) async fn transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        self.bounded(async |connection| {
            let mut transaction = if self.kept.is_some() {
                connection.begin_with(self.lock_wait.begin()).await?
            } else {
                let mut transaction = self.begin(connection).await?;
                if let Some(set) = self.lock_wait.set() {
                    sqlx::raw_sql(set).execute(&mut *transaction).await?;
                }
                transaction
            };
            let done = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }

    async fn bounded<T>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, QueueError>) -> Result<T, QueueError> {
        let Some(kept) = &self.kept else {
            let mut connection: PoolConnection<Postgres> = self.pool.acquire().await?;
            if let Ok(done) = tokio::time::timeout(ANSWER, work(&mut connection)).await {
                return done;
            }
            // Its answer would come to whoever has the connection next.
            drop(connection.detach());
            return Err(QueueError::TimedOut(ANSWER));
        };
        let mut taken = kept.take().await?;
        let Ok(done) = tokio::time::timeout(ANSWER, work(taken.connection()?)).await else {
            return Err(QueueError::TimedOut(ANSWER));
        };
        taken.give_back(done.is_ok());
        done
    }
}
