//! `roll-up`: from the last settle of a task's cells to the task's end, while the machine has half of what it can do.

use std::time::{Duration, Instant};

use super::{
    Bench,
    drain::{self, PATIENCE, POLL_INTERVAL},
    rows::{Must, Row, number, percentile},
    tasks::{self, REAL, cells, scaled},
};
use crate::{
    commands::report::Failure,
    db::bench::{drains, rows, server},
};

const NAME: &str = "roll-up";

/// Tasks, and for about how long they are to last at most.
const TASKS: f64 = 20.0;
const SECONDS: f64 = 30.0;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    const WORKERS: u16 = 4;
    let ground = &bench.ground;
    let half = drain::rate(bench, NAME, WORKERS).await?.median / 2.0;
    let grid = scaled(REAL, bench.options.scale());
    let seconds = SECONDS * bench.options.scale().max(0.05);
    let count = (half * seconds / cells(grid) as f64).clamp(3.0, TASKS) as usize;
    // So many cells are out at once that each must take so long.
    let latency = f64::from(WORKERS * bench.options.concurrency) / half * 1000.0;
    let database = ground.database("roll_up").await?;
    let simulated = bench.simulated(&["--submit-latency", &format!("{latency:.0}")]).await?;
    let effective = ground.settings(&database, &simulated, POLL_INTERVAL)?;
    let tasks = tasks::create(ground, &database, count, grid).await?;
    let mut connection = database.connect().await?;
    server::analyze(&mut connection).await.map_err(Failure::failed)?;
    let concurrency = bench.options.concurrency.to_string();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(ground.worker(&effective, &["--until-empty", "--concurrency", &concurrency])?);
    }
    let began = Instant::now();
    for worker in workers {
        worker.finish(PATIENCE.saturating_sub(began.elapsed()).max(Duration::from_secs(1))).await?;
    }
    simulated.stop().await?;
    let took = rows::roll_ups(&mut connection, &tasks).await.map_err(Failure::failed)?;
    let done = drains::drain(&mut connection, &tasks).await.map_err(Failure::failed)?;
    drop(connection);
    ground.drop(database).await?;
    if took.len() != count {
        return Err(Failure::failed(format_args!("{} of {count} tasks were rolled up", took.len())));
    }
    let late = percentile(&took, 99.0).ok_or_else(|| Failure::failed("no task was rolled up"))?;
    let middle = percentile(&took, 50.0).unwrap_or_default();
    let what = format!("last settle to task rolled up, {count} tasks of {} cells, half load, p99", number(cells(grid) as f64));
    let note = format!(
        "at {} cells/s; p50 {} ms; between the beginnings of both transactions",
        number(done.completed as f64 / done.seconds),
        number(middle)
    );
    Ok(vec![Row::new(NAME, what, late, "ms", Must::AtMost(50.0)).note(note)])
}
