//! Wake by LISTEN/NOTIFY. A hint only: the slow poll must suffice alone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sqlx::postgres::PgListener;

use super::{cancel::CANCEL_CHANNEL, enqueue::WAKE_CHANNEL, shared::Shared};

/// Between two tries to listen again, after the connection was lost.
const RECONNECT: Duration = Duration::from_secs(1);

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
    let mut listener = PgListener::connect_with(shared.connections.pool()).await?;
    // It comes back here when the connection is lost, so that the loss is seen.
    listener.eager_reconnect(false);
    listener.listen_all([WAKE_CHANNEL, CANCEL_CHANNEL]).await?;
    shared.listening.store(true, Ordering::Release);
    shared.wake.look();
    // None: the connection was lost.
    while let Some(notification) = listener.try_recv().await? {
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
    Ok(())
}
