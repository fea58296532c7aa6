//! Connections of the services, also where a pooler in transaction mode stands between (PgBouncer).
//!
//! sqlx sends a statement in two parts, each with an end of its own: its text, then its arguments. Outside a transaction such
//! a pooler may give the two to different sessions of the server, and the arguments meet **another statement**, whose answer
//! comes back without a word. So behind a pooler every statement stands in a transaction. And a statement's name is its number
//! on this side of the pooler, which others use as well; so each transaction begins by freeing the names, and none is kept
//! ([`super::pool::connect`]).

use std::ops::{Deref, DerefMut};

use sqlx::{PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};

/// A client that stands still in the middle (Ctrl-Z, a laptop that is closed) loses its locks with its session; and none waits for
/// ever. For the transaction alone: what a session sets does not survive a pooler. A statement may touch each of a task's 50,000
/// cells.
macro_rules! limits {
    ($begin:literal) => {
        concat!(
            $begin,
            "; set local statement_timeout = '60s'; set local lock_timeout = '10s'; ",
            "set local idle_in_transaction_session_timeout = '5s'"
        )
    };
}

/// How a transaction begins.
const BEGIN: &str = limits!("begin");

/// The same behind a pooler: the names that other clients left on the server's session are free.
const BEGIN_POOLED: &str = limits!("begin; deallocate all");

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

/// A transaction, which ends by itself where its client stands still.
///
/// # Errors
/// What PostgreSQL says.
pub async fn begin(pool: &PgPool, is_pooled: bool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with(if is_pooled { BEGIN_POOLED } else { BEGIN }).await
}
