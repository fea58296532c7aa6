//! Cancel: who asks for the end of a job that a worker holds says so in its metadata, and every holder looks.
//!
//! A notification makes it soon; the look once a second suffices alone. A worker that holds nothing does not look.

use std::sync::{Arc, PoisonError};

use super::{error::QueueError, shared::Shared};

/// A cancel of running jobs is told on this channel.
pub(super) const CANCEL_CHANNEL: &str = "imagemill_cancel";

/// How often a worker that holds jobs looks whether the end of one was asked for.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// Watches until the worker's last job is settled.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shared.cancels.notified() => {}
            () = shared.beat_stop.cancelled() => return,
        }
        if shared.held_now() > 0
            && let Err(error) = look(&shared).await
        {
            tracing::debug!(%error, "not seen whether jobs were cancelled; looking again");
        }
    }
}

/// Tells the held jobs whose end was asked for.
async fn look(shared: &Shared) -> Result<(), QueueError> {
    let worker = shared.incarnation();
    let cancelled: Vec<(String, i32)> = shared
        .connections
        .statement(async |connection| {
            let query = sqlx::query_as(
                "select id, attempts from apalis.jobs
                 where lock_by = $1 and status = 'Running' and job_type like 'imagemill.%' and metadata ? 'cancel'",
            );
            Ok(query.bind(&*worker).fetch_all(connection).await?)
        })
        .await?;
    let held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
    for key in &cancelled {
        if let Some(tokens) = held.get(key) {
            tokens.cancel.cancel();
        }
    }
    Ok(())
}
