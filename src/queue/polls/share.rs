//! A process's share of each lane's polls: asked for every second while it polls in a lane that has a limit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{Lane, Pace};
use crate::queue::{clock, error::QueueError, shared::Shared};

/// A changed limit is obeyed within this.
const ROUND: Duration = Duration::from_secs(1);

/// Least time between two times that it is asked.
const APART: Duration = Duration::from_millis(100);

/// Asks until the engine has ended. Where no lane has a limit that is never: a lane that gets one is told by a notification, or
/// by the beat.
pub(in crate::queue) async fn run(shared: Arc<Shared>) {
    let polls = &shared.polls;
    loop {
        let by_clock = polls.lanes().iter().any(|lane| lane.is_to_ask(false));
        let next = Instant::now() + ROUND;
        let was_told = tokio::select! {
            () = polls.asked.notified() => true,
            () = tokio::time::sleep_until(next), if by_clock => false,
            () = shared.beat_stop.cancelled() => return,
        };
        let lanes: Vec<Arc<Lane>> = polls.lanes().into_iter().filter(|lane| lane.is_to_ask(was_told)).collect();
        if lanes.is_empty() {
            continue;
        }
        if let Err(error) = round(&shared, &lanes).await {
            tracing::warn!(%error, "the share of the polls is not known: polling on with the last one");
            let at = clock::now();
            for lane in &lanes {
                lane.pace.send_modify(|pace| pace.at = at);
            }
        }
        tokio::time::sleep(APART).await;
    }
}

impl Lane {
    /// Whether there is something to say or to ask of it; `of_all`: its limit may be new.
    fn is_to_ask(&self, of_all: bool) -> bool {
        let pace = *self.pace.borrow();
        let is_polling = self.cells.load(Ordering::Acquire) > 0;
        pace.has_row || (is_polling && (of_all || pace.rate.is_some()))
    }
}

/// Says how fast this process polls and obeys what it is told. What it had more it gives back with the next time: nobody else is
/// given what may still be used.
async fn round(shared: &Shared, lanes: &[Arc<Lane>]) -> Result<(), QueueError> {
    let worker = shared.incarnation();
    let names: Vec<&str> = lanes.iter().map(|lane| lane.name.as_str()).collect();
    let cells: Vec<i32> =
        lanes.iter().map(|lane| i32::try_from(lane.cells.load(Ordering::Acquire)).unwrap_or(i32::MAX)).collect();
    // A lane that had no limit was not shared: it holds still until it has a share.
    let used: Vec<f64> = lanes.iter().map(|lane| lane.pace.borrow().rate.unwrap_or(0.0)).collect();
    let told: Vec<(String, Option<f64>)> = shared
        .connections
        .statement(async |connection| {
            let query = sqlx::query_as("select lane, rate from imagemill.share_polls($1, $2, $3, $4)");
            Ok(query.bind(&*worker).bind(&names).bind(&cells).bind(&used).fetch_all(connection).await?)
        })
        .await?;
    if shared.incarnation() != worker {
        // It was found dead meanwhile, and has nothing.
        return Ok(());
    }
    let at = clock::now();
    for (lane, (cells, used)) in lanes.iter().zip(cells.into_iter().zip(used)) {
        let Some((_, rate)) = told.iter().find(|(name, _)| *name == lane.name) else { continue };
        let before = lane.pace.send_replace(Pace { rate: *rate, at, has_row: rate.is_some() && (cells > 0 || used > 0.0) });
        if before.rate != *rate {
            tracing::debug!(lane = lane.name, before = ?before.rate, now = ?rate, "share of the polls");
        }
    }
    Ok(())
}
