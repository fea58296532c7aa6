//! `latency`: from the commit of a task of one cell to its submit's arrival, on a worker that has nothing else to do.

use std::time::{Duration, Instant};

use chrono::Utc;
use rand::RngExt as _;

use super::{
    Bench,
    drain::POLL_INTERVAL,
    rows::{Must, Row, percentile},
    tasks::{SINGLE, definition},
};
use crate::{commands::report::Failure, db::bench::rows, services::task_service};

const NAME: &str = "latency";

/// Tasks, one after another.
const TASKS: f64 = 200.0;

/// For one of them to be rolled up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let ground = &bench.ground;
    let database = ground.database(NAME).await?;
    let simulated = bench.simulated(&[]).await?;
    let effective = ground.settings(&database, &simulated, POLL_INTERVAL)?;
    let worker = ground.worker(&effective, &[])?;
    let mut connection = database.connect().await?;
    let count = (TASKS * bench.options.scale()).max(5.0) as usize;
    let mut took = Vec::with_capacity(count);
    // The first goes before: until it is done the worker is starting.
    for number in 0..=count {
        let definition = definition(&format!("bench {number}"), SINGLE)?;
        let task = task_service::create_task(&database.context, &ground.actor, &definition).await?.id;
        let committed = Utc::now();
        let began = Instant::now();
        while !rows::is_rolled_up(&mut connection, task).await.map_err(Failure::failed)? {
            if began.elapsed() > PATIENCE {
                return Err(Failure::failed("a task of one cell was not rolled up"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let entries = simulated.ledger(number as u64 + 1).await?;
        let arrived =
            entries.first().ok_or_else(|| Failure::failed("a cell was rolled up that was never submitted"))?.accepted_at;
        if number > 0 {
            // Both processes read one clock.
            took.push((arrived - committed).as_seconds_f64() * 1000.0);
        }
        // Not in step with whatever the worker does at intervals.
        let pause = rand::rng().random_range(20..60);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    worker.stop().await?;
    simulated.stop().await?;
    drop(connection);
    ground.drop(database).await?;
    let (middle, late) =
        percentile(&took, 50.0).zip(percentile(&took, 99.0)).ok_or_else(|| Failure::failed("nothing was taken"))?;
    let bound = 3.0 + 2.0 * bench.machine.fsync_ms;
    let what = "commit of create_task to the submit's arrival, idle worker";
    Ok(vec![
        Row::new(NAME, format!("{what}, p50"), middle, "ms", Must::AtMost(bound))
            .note(format!("of {count} tasks of one cell; the bound is 3 ms and 2 fsyncs")),
        Row::new(NAME, format!("{what}, p99"), late, "ms", Must::AtMost(25.0)),
    ])
}
