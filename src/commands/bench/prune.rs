//! `prune`: a million finished jobs are past their retention; how long until they are gone, and what that costs a drain beside it.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::{
    Bench,
    drain::{self, POLL_INTERVAL, Rate},
    fleet::TICK,
    ground::Database,
    history,
    process::Process,
    rows::{Must, Row, number},
    tasks::{self, DRAINED, cells, scaled},
};
use crate::{
    commands::{output, report::Failure},
    db::bench::{drains, history::jobs_past, rows, statistics},
};

const NAME: &str = "prune";

const WORKERS: usize = 4;

/// What was filled in ended an hour ago, and what is drained ends now: this is between the two for as long as it is measured.
const RETENTION: Duration = Duration::from_mins(50);
/// And this keeps all of it.
const KEPT: Duration = Duration::from_hours(24);

/// All of them must be gone by then; twice that is waited, and the rest reckoned.
const GONE_WITHIN: Duration = Duration::from_mins(10);

/// What was seen while jobs were pruned.
struct Pruning {
    /// Of the drains beside it.
    rates: Vec<f64>,
    /// Jobs that are gone, and those that are not.
    gone: i64,
    left: i64,
    took: Duration,
}

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let ground = &bench.ground;
    let database = ground.database(NAME).await?;
    let mut connection = database.connect().await?;
    history::fill(bench, NAME, &mut connection).await?;
    let runs = usize::from(bench.options.runs());
    // Some before and some after: a machine is not as fast all the time.
    let before = keep(bench, &database, &mut connection, runs).await?;
    let mut admin = ground.admin().await?;
    ground.forget_statements(&mut admin).await?;
    let pruning = prune(bench, &database, &mut connection).await?;
    let longest = if ground.counts_statements {
        statistics::longest_pruning(&mut admin, NAME).await.map_err(Failure::failed)?
    } else {
        None
    };
    // As autovacuum leaves it.
    statistics::vacuum(&mut connection).await.map_err(Failure::failed)?;
    statistics::checkpoint(&mut connection).await.map_err(Failure::failed)?;
    let after = keep(bench, &database, &mut connection, runs).await?;
    drop((connection, admin));
    ground.drop(database).await?;
    report(bench, &Rate::of([before, after].concat())?, pruning, longest)
}

fn report(bench: &Bench, without: &Rate, pruning: Pruning, longest: Option<f64>) -> Result<Vec<Row>, Failure> {
    let Pruning { rates, gone, left, took } = pruning;
    if gone <= 0 {
        return Err(Failure::failed(format_args!("no job of {left} was pruned")));
    }
    let drains = rates.len();
    let with = Rate::of(rates)?;
    let all = gone + left;
    let seconds = took.as_secs_f64() * all as f64 / gone as f64;
    let finished = number(all as f64);
    let how = if left == 0 {
        format!("{} a second", number(gone as f64 / took.as_secs_f64()))
    } else {
        format!("RECKONED: {} were gone after {} s", number(gone as f64), number(took.as_secs_f64()))
    };
    let what = format!("cells a second, {}, {WORKERS} processes, while {finished} finished jobs are pruned", drain::size(bench));
    let must = GONE_WITHIN.as_secs_f64() * all as f64 / history::CELLS;
    let transaction = "longest transaction of the pruner";
    Ok(vec![
        Row::beside(NAME, what, with.median, "cells/s").note(format!("of {drains} drains the median; {}", with.note())),
        Row::new(
            NAME,
            "against the same without pruning, before and after",
            with.median / without.median,
            "x",
            Must::AtLeast(0.95),
        )
        .note(without.note()),
        Row::new(NAME, format!("until {finished} finished jobs are gone, beside drains"), seconds, "s", Must::AtMost(must))
            .note(how),
        match longest {
            Some(longest) => Row::new(NAME, transaction, longest, "ms", Must::AtMost(200.0)),
            None => Row::missing(NAME, transaction, super::NO_STATEMENTS),
        },
    ])
}

/// Drains, so many times, while every job is kept.
async fn keep(bench: &Bench, database: &Database, connection: &mut PgConnection, runs: usize) -> Result<Vec<f64>, Failure> {
    let mut rates = Vec::new();
    beside(bench, database, KEPT, async |workers| {
        for run in 1..=runs {
            output::note(&format!("{NAME}: run {run} of {runs} without"));
            rates.push(drain_once(bench, database, connection, workers).await?);
        }
        Ok(())
    })
    .await?;
    Ok(rates)
}

/// Drains until no job is past its retention any more.
async fn prune(bench: &Bench, database: &Database, connection: &mut PgConnection) -> Result<Pruning, Failure> {
    let all = jobs_past(connection, RETENTION).await.map_err(Failure::failed)?;
    let (mut rates, mut left, mut took) = (Vec::new(), all, Duration::ZERO);
    beside(bench, database, RETENTION, async |workers| {
        let began = Instant::now();
        while left > 0 && took < GONE_WITHIN * 2 {
            output::note(&format!("{NAME}: {} finished jobs are left after {} s", number(left as f64), took.as_secs()));
            rates.push(drain_once(bench, database, connection, workers).await?);
            // Between two drains only: to count them takes a while.
            took = began.elapsed();
            left = jobs_past(connection, RETENTION).await.map_err(Failure::failed)?;
        }
        Ok(())
    })
    .await?;
    Ok(Pruning { rates, gone: all - left, left, took })
}

/// Does something beside workers that keep jobs for so long.
async fn beside(
    bench: &Bench,
    database: &Database,
    retention: Duration,
    work: impl AsyncFnOnce(&mut [Process]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let simulated = bench.simulated(&[]).await?;
    let mut effective = bench.ground.settings(database, &simulated, POLL_INTERVAL)?;
    effective.set("queue.retention", format!("{}s", retention.as_secs()));
    let concurrency = bench.options.concurrency.to_string();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(bench.ground.worker(&effective, &["--concurrency", &concurrency])?);
    }
    work(&mut workers).await?;
    for worker in workers {
        worker.stop().await?;
    }
    simulated.stop().await
}

/// Cells a second of one drain by workers that are there already, and that begin with it while it is created.
async fn drain_once(
    bench: &Bench,
    database: &Database,
    connection: &mut PgConnection,
    workers: &mut [Process],
) -> Result<f64, Failure> {
    let grid = scaled(DRAINED, bench.options.scale());
    let tasks = tasks::create(&bench.ground, database, drain::TASKS, grid).await?;
    let began = Instant::now();
    for task in &tasks {
        while !rows::is_rolled_up(connection, *task).await.map_err(Failure::failed)? {
            for worker in &mut *workers {
                worker.has_ended()?;
            }
            if began.elapsed() > drain::PATIENCE {
                return Err(Failure::failed("the workers do not come to an end"));
            }
            tokio::time::sleep(TICK).await;
        }
    }
    let wanted = (tasks.len() * cells(grid)) as i64;
    let drain = drains::drain(connection, &tasks).await.map_err(Failure::failed)?;
    if drain.completed == wanted {
        Ok(wanted as f64 / drain.seconds)
    } else {
        Err(Failure::failed(format_args!("{} of {wanted} cells completed", drain.completed)))
    }
}
