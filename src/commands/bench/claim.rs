//! `claim`: how long a claim takes while a million cells wait in a thousand tasks, and while what was claimed before cannot be
//! cleaned away. As the workers' own logs tell it, the look who waits and the wait for the lane's lock included.

use std::time::{Duration, Instant};

use chrono::Utc;

use super::{
    Bench,
    claims::{self, Claim, ClaimLog},
    drain::POLL_INTERVAL,
    ground::Database,
    process::Process,
    rows::{Must, Row, number},
    simulated::Simulated,
    tasks::{self, DRAINED, cells, definition, scaled},
};
use crate::{
    commands::{output, report::Failure},
    db::bench::{lanes, statistics},
};

const NAME: &str = "claim";

/// Cells that wait, their tasks, and the owners of those. And the fewest of a small scale, which still last a while.
const CELLS: f64 = 1_000_000.0;
const LEAST_CELLS: f64 = 50_000.0;
const TASKS: f64 = 1_000.0;
const LEAST_TASKS: f64 = 50.0;
const OWNERS: usize = 10;

/// Worker processes, each with so many slots: a claim comes when a quarter of them is free, so it is one of 40.
const WORKERS: usize = 4;
const SLOTS: &str = "160";

/// What a submit takes, in milliseconds, so that the processors are not all in use. And the other case: as fast as it goes.
const LATENCY: &str = "200";
const NO_LATENCY: &str = "0";

/// How long claims are counted.
const COUNTED: Duration = Duration::from_secs(20);

/// Before that: for the workers to be in their stride.
const STARTING: Duration = Duration::from_secs(2);

/// Cells that are claimed with a transaction open before claims are counted.
const BEFORE: f64 = 200_000.0;

/// For those.
const PATIENCE: Duration = Duration::from_mins(5);

/// How often the logs are read.
const TICK: Duration = Duration::from_millis(500);

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let database = bench.ground.database(NAME).await?;
    let (tasks, waiting) = fill(bench, &database).await?;
    output::note(&format!("{NAME}: {} cells wait", number(waiting as f64)));
    let fresh = drain(bench, &database, LATENCY, 0.0).await?;
    let flat_out = drain(bench, &database, NO_LATENCY, 0.0).await?;
    output::note(&format!("{NAME}: once more, with a transaction open"));
    let mut holder = database.connect().await?;
    let open = lanes::hold_horizon(&mut holder).await.map_err(Failure::failed)?;
    let before = BEFORE * bench.options.scale();
    let aged = drain(bench, &database, LATENCY, before).await?;
    open.rollback().await.map_err(Failure::failed)?;
    drop(holder);
    bench.ground.drop(database).await?;
    let what = format!("a claim by one of {WORKERS} workers of {SLOTS} slots, p99");
    let waiting = number(waiting as f64);
    let waits = format!("{waiting} cells of {} tasks waiting", number(tasks as f64));
    Ok(vec![
        row(format!("{what}, {waits}"), &fresh, Some(5.0))?,
        row(format!("{what}, after {} cells claimed with a transaction open", number(before)), &aged, Some(20.0))?,
        row(format!("{what}, {waits}, an upstream without latency"), &flat_out, None)?,
    ])
}

/// Has them wait: returns how many tasks and cells.
async fn fill(bench: &Bench, database: &Database) -> Result<(usize, usize), Failure> {
    let scale = bench.options.scale();
    // A tenth has as many tasks.
    let count = (TASKS * (10.0 * scale).min(1.0)).max(LEAST_TASKS);
    let grid = scaled(DRAINED, (CELLS * scale).max(LEAST_CELLS) / count / cells(DRAINED) as f64);
    let count = count as usize;
    let mut owners = Vec::new();
    for number in 0..OWNERS {
        owners.push(tasks::another_owner(&bench.ground, database, &format!("owner {number}")).await?);
    }
    for number in 0..count {
        if number % 100 == 0 {
            output::note(&format!("{NAME}: {number} of {count} tasks"));
        }
        tasks::create_for(database, &owners[number % OWNERS], &definition(&format!("bench {number}"), grid)?).await?;
    }
    let mut connection = database.connect().await?;
    // As autovacuum leaves it.
    statistics::vacuum(&mut connection).await.map_err(Failure::failed)?;
    statistics::checkpoint(&mut connection).await.map_err(Failure::failed)?;
    Ok((count, count * cells(grid)))
}

/// Drains for a while, and returns the claims after the first so many cells.
async fn drain(bench: &Bench, database: &Database, latency: &str, before: f64) -> Result<Vec<Claim>, Failure> {
    let simulated = bench.simulated(&["--submit-latency", latency]).await?;
    let mut workers = Vec::new();
    let taken = claimed(bench, database, &simulated, &mut workers, before).await;
    for worker in workers {
        worker.stop().await?;
    }
    simulated.stop().await?;
    taken
}

async fn claimed(
    bench: &Bench,
    database: &Database,
    simulated: &Simulated,
    workers: &mut Vec<Process>,
    before: f64,
) -> Result<Vec<Claim>, Failure> {
    let mut effective = bench.ground.settings(database, simulated, POLL_INTERVAL)?;
    let log = ClaimLog::of(&bench.ground, &mut effective);
    for _ in 0..WORKERS {
        workers.push(bench.ground.worker(&effective, &["--concurrency", SLOTS])?);
    }
    tokio::time::sleep(STARTING).await;
    let began = Instant::now();
    loop {
        let taken: usize = log.claims().iter().map(|claim| claim.taken).sum();
        if taken > 0 && taken as f64 >= before {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::failed(format_args!("{taken} of {before} cells were claimed")));
        }
        for worker in &mut *workers {
            worker.has_ended()?;
        }
        tokio::time::sleep(TICK).await;
    }
    let from = Utc::now();
    tokio::time::sleep(COUNTED.mul_f64(bench.options.scale()).max(STARTING)).await;
    let until = Utc::now();
    Ok(log.claims().into_iter().filter(|claim| claim.at >= from && claim.at < until).collect())
}

fn row(what: String, claims: &[Claim], must: Option<f64>) -> Result<Row, Failure> {
    let part = |percent, of: fn(&Claim) -> f64| claims::percentile(claims, percent, of);
    let late = part(99.0, |claim| claim.took_ms).ok_or_else(|| Failure::failed("nothing was claimed"))?;
    let value = |percent, of: fn(&Claim) -> f64| number(part(percent, of).unwrap_or_default());
    let cells: usize = claims.iter().map(|claim| claim.taken).sum();
    let note = format!(
        "{} claims of {} cells on average; p50 {} ms, longest {} ms; p99 of the wait for the lock {} ms; longest look who waits {} ms",
        number(claims.len() as f64),
        number(cells as f64 / claims.len() as f64),
        value(50.0, |claim| claim.took_ms),
        value(100.0, |claim| claim.took_ms),
        value(99.0, |claim| claim.waited_ms),
        value(100.0, |claim| claim.looked_ms),
    );
    let row = match must {
        Some(must) => Row::new(NAME, what, late, "ms", Must::AtMost(must)),
        None => Row::beside(NAME, what, late, "ms"),
    };
    Ok(row.note(note))
}
