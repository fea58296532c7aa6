//! Connections that are kept at hand. A pool asks each of its connections for a sign of life when it is taken and when it is
//! given back: two more round trips a statement, where most of ours are one. These are asked only after a rest.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgPool, Postgres, pool::PoolConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

/// After so long a rest it is asked whether the server is still there.
const RESTED: Duration = Duration::from_secs(1);
/// To this question, and to its settings, it answers within so long, or it is left.
const ANSWER: Duration = Duration::from_secs(2);
/// So long one is kept that nobody needs.
const UNUSED: Duration = Duration::from_mins(1);
/// And none is kept for longer: what a server's session remembers grows.
const LIFETIME: Duration = Duration::from_mins(30);

/// The pool keeps so many for its other users, which are rare.
const OTHERS: u32 = 1;

/// For claims alone, where there are more than so many: the claim is the largest statement of all, and what it costs to plan is paid under
/// its lane's lock, by each connection that it ever comes to.
const CLAIMS: u32 = 1;
const CLAIMS_SHARE: u32 = 3;

/// Whom the connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    Claims,
    All,
}

/// What holds for every transaction of such a connection: the session is nobody else's. A statement is planned once and not at
/// every use, which took as long as its work. So that a plan made while the tables were small is good as well when they are
/// large, it walks indexes whatever the tables' size; nothing of the engine wants to read a table from end to end.
const SETTINGS: &str = "set statement_timeout = '5s'; set lock_timeout = '4s'; set idle_in_transaction_session_timeout = '5s'; \
                        set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set jit = off";

/// A connection that is kept.
#[derive(Debug)]
struct Resting {
    connection: PoolConnection<Postgres>,
    born: Instant,
    /// When it was last known to be well; none: something failed on it.
    well: Option<Instant>,
}

/// Those that are kept.
#[derive(Debug)]
pub(super) struct Kept {
    pool: PgPool,
    places: Semaphore,
    resting: Mutex<Vec<Resting>>,
}

/// One that is in use. Give it back, or it is closed.
pub(super) struct Taken<'a> {
    kept: &'a Kept,
    /// Always some; it is taken out by whoever ends this.
    resting: Option<Resting>,
    _place: SemaphorePermit<'a>,
}

impl Kept {
    /// Keeps as many as the pool can spare; none of a small pool.
    pub(super) fn new(pool: &PgPool, share: Share) -> Option<Self> {
        let most = pool.options().get_max_connections().saturating_sub(OTHERS);
        // Where there are few, claims have none of their own.
        let for_claims = if most > CLAIMS_SHARE { CLAIMS } else { 0 };
        let places = if share == Share::Claims { for_claims } else { most - for_claims };
        (places > 0).then(|| Self { pool: pool.clone(), places: Semaphore::new(places as usize), resting: Mutex::default() })
    }

    /// One that is well, with the time-outs of the engine.
    pub(super) async fn take(&self) -> Result<Taken<'_>, sqlx::Error> {
        let place = self.places.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let mut taken = Taken { kept: self, resting: None, _place: place };
        while let Some(mut resting) = self.pop() {
            if resting.well.is_some_and(|well| well.elapsed() < RESTED) {
                taken.resting = Some(resting);
                return Ok(taken);
            }
            if let Ok(Ok(())) = tokio::time::timeout(ANSWER, resting.connection.ping()).await {
                taken.resting = Some(resting);
                return Ok(taken);
            }
            drop(resting.connection.detach());
        }
        let mut connection = self.pool.acquire().await?;
        let set = tokio::time::timeout(ANSWER, sqlx::raw_sql(SETTINGS).execute(&mut *connection)).await;
        let set = set.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        if let Err(error) = set {
            drop(connection.detach());
            return Err(error);
        }
        taken.resting = Some(Resting { connection, born: Instant::now(), well: None });
        Ok(taken)
    }

    fn pop(&self) -> Option<Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Puts it on top, and lets go of what nobody needs any more.
    fn push(&self, resting: Resting) {
        if self.places.is_closed() || resting.born.elapsed() > LIFETIME {
            drop(resting.connection.detach());
            return;
        }
        let mut kept = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = kept.iter().take_while(|resting| resting.well.is_none_or(|well| well.elapsed() > UNUSED)).count();
        for resting in kept.drain(..unused) {
            drop(resting.connection.detach());
        }
        kept.push(resting);
    }

    /// Lets go of all of them; none is kept from now on.
    pub(super) async fn close(&self) {
        self.places.close();
        while let Some(resting) = self.pop() {
            // It ends by itself all the same.
            let _ = resting.connection.detach().close().await;
        }
    }
}

impl Taken<'_> {
    /// The connection.
    pub(super) fn connection(&mut self) -> Result<&mut PoolConnection<Postgres>, sqlx::Error> {
        self.resting.as_mut().map(|resting| &mut resting.connection).ok_or(sqlx::Error::PoolClosed)
    }

    /// Keeps it for the next one; asked before that whether it is well, when something failed on it.
    pub(super) fn give_back(mut self, is_well: bool) {
        if let Some(mut resting) = self.resting.take() {
            resting.well = is_well.then(Instant::now);
            self.kept.push(resting);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // In the middle of something: its answer would come to whoever has the connection next.
        if let Some(resting) = self.resting.take() {
            drop(resting.connection.detach());
        }
    }
}
