//! Wake by LISTEN/NOTIFY. A hint only: the slow poll must suffice alone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{cancel::CANCEL_CHANNEL, enqueue::WAKE_CHANNEL, shared::Shared};

/// Between two tries to listen again, after the connection was lost.
const RECONNECT: Duration = Duration::from_secs(1);

/// After so long a silence the server is asked whether it is still there: a connection whose other end is gone without a word is
/// silent for ever.
const SILENCE: Duration = Duration::from_secs(10);
/// The question.
const ASK: &str = "-- listens to imagemill_jobs and imagemill_cancel: still there?";
/// It answers within so long, or is left.
const ANSWER: Duration = Duration::from_secs(2);
/// And it is reached within so long.
const CONNECT: Duration = Duration::from_secs(5);

/// Listens until the engine stops; whenever the connection was lost, the claimer looks once, since a notification may
/// have been missed.
pub(super) async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = listen_for_ever(&shared) => {}
        () = shared.stop.cancelled() => {}
    }
}

async fn listen_for_ever(shared: &Shared) {
    loop {
        if let Err(error) = listen(shared).await {
            tracing::warn!(%error, "not listening for work; polling instead");
        }
        shared.listening.store(false, Ordering::Release);
        // What came meanwhile was not heard.
        shared.wake.look();
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn listen(shared: &Shared) -> Result<(), sqlx::Error> {
    // On a connection of its own: one that has fallen silent is not to be waited for by the pool's other users.
    let options = shared.connections.pool().connect_options();
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with((*options).clone());
    let mut listener = in_time(CONNECT, PgListener::connect_with(&pool)).await?;
    // It comes back here when the connection is lost, so that the loss is seen.
    listener.eager_reconnect(false);
    in_time(ANSWER, listener.listen_all([WAKE_CHANNEL, CANCEL_CHANNEL])).await?;
    shared.listening.store(true, Ordering::Release);
    shared.wake.look();
    loop {
        let Ok(heard) = tokio::time::timeout(SILENCE, listener.try_recv()).await else {
            // A comment: it costs the server nothing, is no statement, and says in pg_stat_activity what the session is there for. What
            // is heard meanwhile is kept.
            in_time(ANSWER, sqlx::raw_sql(ASK).execute(&mut listener)).await?;
            continue;
        };
        // None: the connection was lost.
        let Some(notification) = heard? else { return Ok(()) };
        if notification.channel() == CANCEL_CHANNEL {
            shared.cancels.notify_one();
            continue;
        }
        match notification.payload() {
            "" => {
                shared.wake.look();
                shared.polls.look();
            }
            queue => shared.wake.look_into(queue),
        }
    }
}

async fn in_time<T>(time: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let done = tokio::time::timeout(time, work).await;
    done.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}
