//! Draining: how many cells a second go from the first claim to the last roll-up.

use std::time::Duration;

use super::{
    Bench,
    ground::Database,
    rows::{Must, Row, median, number},
    tasks::{self, DRAINED, cells, scaled},
};
use crate::{
    commands::{output, report::Failure},
    db::bench::{drains, server},
};

/// Tasks of a drain.
pub(super) const TASKS: usize = 20;

/// Between two polls: none of the cells is waited for.
pub(super) const POLL_INTERVAL: &str = "1ms";

/// For a drain to end.
pub(super) const PATIENCE: Duration = Duration::from_mins(15);

/// `drain-4`, `drain-1`.
pub(super) async fn measure(bench: &Bench, measure: &'static str, workers: u16) -> Result<Vec<Row>, Failure> {
    let must = if workers == 1 { 4_000.0 } else { 6_000.0 };
    let rate = rate(bench, measure, workers).await?;
    let what = format!("cells a second, {}, {workers} {}", size(bench), processes(workers));
    Ok(vec![Row::new(measure, what, rate.median, "cells/s", Must::AtLeast(must)).note(rate.note())])
}

/// Rates of several runs.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    pub(super) median: f64,
    pub(super) all: Vec<f64>,
}

impl Rate {
    pub(super) fn of(all: Vec<f64>) -> Result<Self, Failure> {
        let median = median(&all).ok_or_else(|| Failure::usage("--runs must be 1 or more"))?;
        Ok(Self { median, all })
    }

    /// All of them, in the order in which they were taken.
    pub(super) fn note(&self) -> String {
        let runs: Vec<String> = self.all.iter().map(|rate| number(*rate)).collect();
        format!("runs: {}", runs.join(", "))
    }
}

/// What is drained, in words.
pub(super) fn size(bench: &Bench) -> String {
    format!("{TASKS} x {} cells", number(cells(scaled(DRAINED, bench.options.scale())) as f64))
}

pub(super) fn processes(workers: u16) -> &'static str {
    if workers == 1 { "process" } else { "processes" }
}

/// The median rate of the benchmark's runs with so many worker processes, each on a database of its own. Taken once.
pub(super) async fn rate(bench: &Bench, measure: &str, workers: u16) -> Result<Rate, Failure> {
    if let Some(known) = bench.known_rate(workers) {
        return Ok(known);
    }
    let mut rates = Vec::new();
    for run in 1..=bench.options.runs() {
        output::note(&format!("{measure}: run {run} of {}", bench.options.runs()));
        let database = bench.ground.database(&format!("drain_{workers}_{run}")).await?;
        rates.push(drain(bench, &database, workers).await?);
        bench.ground.drop(database).await?;
    }
    let rate = Rate::of(rates)?;
    bench.remember_rate(workers, &rate);
    Ok(rate)
}

/// Creates the tasks of one drain in this database, and drains them. Returns cells a second.
pub(super) async fn drain(bench: &Bench, database: &Database, workers: u16) -> Result<f64, Failure> {
    let prepared = prepare(bench, database).await?;
    run(bench, database, workers, &prepared).await
}

/// Creates the tasks of one drain.
pub(super) async fn prepare(bench: &Bench, database: &Database) -> Result<Vec<uuid::Uuid>, Failure> {
    let tasks = tasks::create(&bench.ground, database, TASKS, scaled(DRAINED, bench.options.scale())).await?;
    let mut connection = database.connect().await?;
    server::analyze(&mut connection).await.map_err(Failure::failed)?;
    Ok(tasks)
}

/// Drains them by worker processes that end when nothing is left.
pub(super) async fn run(bench: &Bench, database: &Database, workers: u16, tasks: &[uuid::Uuid]) -> Result<f64, Failure> {
    let simulated = bench.simulated(&[]).await?;
    let effective = bench.ground.settings(database, &simulated, POLL_INTERVAL)?;
    let concurrency = bench.options.concurrency.to_string();
    let mut processes = Vec::new();
    for _ in 0..workers {
        processes.push(bench.ground.worker(&effective, &["--until-empty", "--concurrency", &concurrency])?);
    }
    for process in processes {
        process.finish(PATIENCE).await?;
    }
    let accepted = simulated.stats().await?.accepted;
    simulated.stop().await?;
    let mut connection = database.connect().await?;
    let drain = drains::drain(&mut connection, tasks).await.map_err(Failure::failed)?;
    let wanted = (tasks.len() * cells(scaled(DRAINED, bench.options.scale()))) as i64;
    if drain.completed != wanted || drain.rolled_up != tasks.len() as i64 || accepted != wanted.unsigned_abs() {
        return Err(Failure::failed(format_args!(
            "the drain is wrong: {} of {wanted} cells completed, {} of {} tasks rolled up, {accepted} submits",
            drain.completed,
            drain.rolled_up,
            tasks.len()
        )));
    }
    Ok(wanted as f64 / drain.seconds)
}
