//! `cancel`: a task is cancelled; how long its cells are polled yet, and that none is submitted any more.

use std::time::Duration;

use chrono::Utc;

use super::{
    Bench,
    endless::{self, Endless},
    rows::{Must, Row},
    tasks::cells,
};
use crate::{commands::report::Failure, services::task_service};

const NAME: &str = "cancel";

/// Between two polls of a cell; and how long after the last hold is seen that none comes any more.
const POLL_INTERVAL: &str = "100ms";
const QUIET: Duration = Duration::from_secs(1);

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    Ok(vec![cancel(bench, true).await?, cancel(bench, false).await?])
}

/// Cancels a task of which one half is polled and the other waits.
async fn cancel(bench: &Bench, listens: bool) -> Result<Row, Failure> {
    let ground = &bench.ground;
    let mut endless = Endless::prepare(bench, "cancelled", POLL_INTERVAL).await?;
    endless.effective.set("queue.listen", listens.to_string());
    let task = endless.create(ground, endless::held(bench, 2.0)).await?;
    let slots = cells(endless::held(bench, 1.0));
    let worker = ground.worker(&endless.effective, &["--concurrency", &slots.to_string()])?;
    endless.until("accepted", slots).await?;
    let held = endless.held_by(&worker).await?;
    task_service::cancel_task(&endless.database.context, &ground.actor, task).await?;
    let cancelled = Utc::now();
    endless.until_none_held(&worker).await?;
    tokio::time::sleep(QUIET).await;
    let entries = endless.simulated.ledger(0).await?;
    worker.stop().await?;
    endless.stop(ground).await?;
    let late = entries.iter().filter(|entry| entry.accepted_at > cancelled).count();
    if late > 0 || entries.len() != held.len() {
        return Err(Failure::failed(format_args!("{} submits for {} cells, {late} after the cancel", entries.len(), held.len())));
    }
    let last = entries.iter().filter_map(|entry| entry.last_polled_at).max();
    let last = last.map_or(0.0, |last| (last - cancelled).as_seconds_f64().max(0.0));
    let how = if listens { "" } else { ", without LISTEN" };
    let what = format!("the return of a cancel to the last poll of its {} cells{how}", held.len());
    Ok(Row::new(NAME, what, last, "s", Must::AtMost(2.0)).note("and no submit, of as many cells that wait"))
}
