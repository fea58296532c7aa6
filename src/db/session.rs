//! Connections of the services, also where a pooler in transaction mode stands between (PgBouncer).
//!
//! sqlx sends a statement in two parts, each with an end of its own: its text, then its arguments. Outside a transaction such
//! a pooler may give the two to different sessions of the server, and the arguments meet **another statement**, whose answer
//! comes back without a word. So behind a pooler every statement stands in a transaction. And a statement's name is its number
//! on this side of the pooler, which others use as well; so each transaction begins by freeing the names, and none is kept
//! ([`super::pool::connect`]).

use std::ops::{Deref, DerefMut};

use sqlx::{PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};

/// How a transaction begins behind a pooler: the names that other clients left on the server's session are free.
const BEGIN: &str = "begin; deallocate all";

/// The same for one that only reads.
const BEGIN_READ_ONLY: &str = "begin read only; deallocate all";

/// A connection for reading: a bare one, or a transaction that is rolled back when this goes. What writes takes [`begin`].
pub enum Reader {
    /// Straight from the pool.
    Bare(PoolConnection<Postgres>),
    /// Behind a pooler.
    InTransaction(Transaction<'static, Postgres>),
}

impl Deref for Reader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Bare(connection) => connection,
            Self::InTransaction(transaction) => transaction,
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Bare(connection) => connection,
            Self::InTransaction(transaction) => transaction,
        }
    }
}

/// A connection for reading.
///
/// # Errors
/// What PostgreSQL says.
pub async fn reader(pool: &PgPool, is_pooled: bool) -> Result<Reader, sqlx::Error> {
    if is_pooled {
        Ok(Reader::InTransaction(pool.begin_with(BEGIN_READ_ONLY).await?))
    } else {
        Ok(Reader::Bare(pool.acquire().await?))
    }
}

/// A transaction.
///
/// # Errors
/// What PostgreSQL says.
pub async fn begin(pool: &PgPool, is_pooled: bool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    if is_pooled { pool.begin_with(BEGIN).await } else { pool.begin().await }
}
