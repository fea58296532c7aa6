//! `kill`: a worker is killed; how long until another one polls its cells.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::Utc;

use super::{
    Bench,
    endless::{self, Endless},
    rows::{Must, Row, number},
    tasks::cells,
};
use crate::commands::report::Failure;

const NAME: &str = "kill";

/// The lease where it is not the default one, in seconds: with a small scale nobody wants to wait for that.
const SHORT_LEASE: f64 = 2.0;
const LEASE: f64 = 15.0;

/// For the rescue beyond its bound.
const PATIENCE: Duration = Duration::from_mins(1);

/// Polls that the dead worker had sent may arrive that much later.
const ON_THE_WAY: f64 = 0.5;

/// Between two looks: less than between two polls.
const TICK: Duration = Duration::from_millis(100);

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let ground = &bench.ground;
    let mut endless = Endless::prepare(bench, "killed", "1s").await?;
    let lease = (LEASE * bench.options.scale()).max(SHORT_LEASE);
    let beat = lease / 5.0;
    if lease < LEASE {
        endless.effective.set("queue.lease", format!("{lease}s"));
        endless.effective.set("queue.beat", format!("{beat}s"));
    }
    let grid = endless::held(bench, 1.0);
    let count = cells(grid);
    // Half of them each; and whoever outlives the other has room for all.
    let half = count / 2;
    endless.create(ground, grid).await?;
    let victim = ground.worker(&endless.effective, &["--concurrency", &half.to_string()])?;
    endless.until("accepted", half).await?;
    let heir = ground.worker(&endless.effective, &["--concurrency", &count.to_string()])?;
    endless.until("accepted", count).await?;
    let held = endless.held_by(&victim).await?;
    if held.is_empty() {
        return Err(Failure::failed("the worker that was to be killed held nothing"));
    }
    victim.kill().await?;
    let killed = Utc::now();
    let bound = lease + 2.0 * beat + 1.0;
    let mut polled: BTreeMap<String, f64> = BTreeMap::new();
    let began = Instant::now();
    while polled.len() < held.len() {
        if began.elapsed() > Duration::from_secs_f64(bound) + PATIENCE {
            return Err(Failure::failed(format_args!(
                "{} of {} cells were never polled again",
                held.len() - polled.len(),
                held.len()
            )));
        }
        for entry in endless.simulated.ledger(0).await? {
            if let Some(at) = entry.last_polled_at.map(|at| (at - killed).as_seconds_f64())
                && at > ON_THE_WAY
                && held.contains(&entry.upstream_id)
            {
                polled.entry(entry.upstream_id).or_insert(at);
            }
        }
        tokio::time::sleep(TICK).await;
    }
    let submits = endless.simulated.stats().await?.accepted;
    heir.stop().await?;
    endless.stop(ground).await?;
    if submits != count as u64 {
        return Err(Failure::failed(format_args!("{submits} submits for {count} cells")));
    }
    let times: Vec<f64> = polled.into_values().collect();
    let first = times.iter().copied().fold(f64::INFINITY, f64::min);
    let last = times.iter().copied().fold(0.0, f64::max);
    let what = format!("kill -9 to the last poll of its {} cells by another worker", held.len());
    let note = format!("the first after {} s; lease {} s, beat {} s", number(first), number(lease), number(beat));
    Ok(vec![Row::new(NAME, what, last, "s", Must::AtMost(bound)).note(note)])
}
