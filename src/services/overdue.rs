//! Tasks whose last moment has come: what of them is pending is cancelled, once, by whichever worker looks first.
//!
//! No submit waits for this look: a claim takes nothing of such a task, and a run that was claimed before asks the time again
//! before its POST. What is in flight was paid for, and comes to its own end; what it would try again is found by the next look.

#[cfg(feature = "worker")]
use std::time::Duration;

use super::{conflict::retried, context::Context, error::ServiceError};
use crate::crud::{bounds, steering, users::SYSTEM_USERNAME};

/// What nobody tells is looked for so often: a cell that waits for its next try, of a task whose time was shifted meanwhile.
#[cfg(feature = "worker")]
const LOOK: Duration = Duration::from_secs(15);

/// Looks are so far apart at least.
#[cfg(feature = "worker")]
const APART: Duration = Duration::from_secs(1);

/// Tasks of one look.
const MOST: i64 = 100;

/// What one look did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overdue {
    /// Cells that were cancelled.
    pub ended: u64,
    /// Seconds until the next open task's last moment; none: none has one that is to come.
    pub next_in: Option<f64>,
}

/// Cancels the pending cells of overdue tasks, as the system user. A task that somebody else steers just now is left to the next look.
///
/// # Errors
/// See [`ServiceError`].
pub async fn end_overdue(context: &Context) -> Result<Overdue, ServiceError> {
    let mut connection = context.reader().await?;
    let overdue = bounds::get_overdue(&mut connection, MOST).await?;
    drop(connection);
    let mut ended = 0;
    for task in overdue.tasks {
        let cells = retried(|| {
            Box::pin(async move {
                let mut transaction = context.begin().await?;
                steering::act_as(&mut transaction, SYSTEM_USERNAME).await?;
                let cells = bounds::end_overdue_cells(&mut transaction, task).await?;
                transaction.commit().await?;
                Ok(cells)
            })
        });
        let cells = cells.await?;
        if cells > 0 {
            tracing::info!(%task, cells, "its not_after has come: what was pending is cancelled");
            ended += u64::from(cells.unsigned_abs());
        }
    }
    Ok(Overdue { ended, next_in: overdue.next_in })
}

/// Does so whenever a task's time comes, and when the claim meets one whose time is over, until the engine leaves.
#[cfg(feature = "worker")]
pub async fn watch(context: &Context, engine: &crate::queue::Engine) {
    while !engine.is_stopping() {
        let next = match end_overdue(context).await {
            Ok(looked) => looked.next_in,
            Err(error) => {
                tracing::warn!(%error, "overdue tasks were not looked for; again soon");
                None
            }
        };
        let next = next.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()).unwrap_or(LOOK).min(LOOK);
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = async {
                tokio::time::sleep(APART).await;
                engine.bound_met().await;
            } => {}
            () = engine.stopping() => return,
        }
    }
}
