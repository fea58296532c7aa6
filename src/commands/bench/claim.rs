//! `claim`: how long a claim takes while a million cells wait in a thousand tasks, and while what was claimed before cannot be
//! cleaned away. As the workers' own logs tell it, the look who waits and the wait for the lane's lock included.

use std::time::{Duration, Instant};

use chrono::Utc;
use sqlx::Connection as _;

use super::{
    Bench,
    claims::{self, Claim, ClaimLog},
    drain::POLL_INTERVAL,
    ground::Database,
    process::Process,
    rows::{self, Must, Row, number},
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

/// Worker processes, each with so many slots: a claim comes when a quarter of them is free, or its rest is over: it is one of 20 to 50.
const WORKERS: usize = 4;
const SLOTS: &str = "160";

/// What a submit takes, in milliseconds: so that four cores are not all in use (two are: claims of so many by four workers are more than
/// a thousand cells a second), and that slots become free one by one. And the other case: as fast as it goes.
const LATENCY: &str = "200-600";
const NO_LATENCY: &str = "0";

/// How long claims are counted.
const COUNTED: Duration = Duration::from_secs(30);

/// Before that: for the workers to be in their stride.
const STARTING: Duration = Duration::from_secs(2);

/// Cells that are claimed with a transaction open before claims are counted.
const BEFORE: f64 = 200_000.0;

/// For those.
const PATIENCE: Duration = Duration::from_mins(5);

/// How often the logs are read.
const TICK: Duration = Duration::from_millis(500);

/// How often, meanwhile, a statement that does nothing is sent.
const NOTHING: Duration = Duration::from_millis(20);

/// The claims of a while, and what a statement that does nothing took beside them, in milliseconds: that much of a claim's time is
/// the wait for a processor, whatever the claim does.
struct Counted {
    claims: Vec<Claim>,
    nothing_ms: Vec<f64>,
}

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let database = bench.ground.database(NAME).await?;
    let (tasks, waiting) = fill(bench, &database).await?;
    output::note(&format!("{NAME}: {} cells wait", number(waiting as f64)));
    let count = async |log: &ClaimLog, _: &mut [Process]| counted(bench, &database, log).await;
    let fresh = while_draining(bench, &database, LATENCY, count).await?;
    let flat_out = while_draining(bench, &database, NO_LATENCY, count).await?;
    output::note(&format!("{NAME}: once more, with a transaction open"));
    let mut holder = database.connect().await?;
    let open = lanes::hold_horizon(&mut holder).await.map_err(Failure::failed)?;
    let before = BEFORE * bench.options.scale();
    while_draining(bench, &database, NO_LATENCY, async |log, workers| until_taken(log, workers, before).await).await?;
    let aged = while_draining(bench, &database, LATENCY, count).await?;
    open.rollback().await.map_err(Failure::failed)?;
    drop(holder);
    bench.ground.drop(database).await?;
    let what = format!("a claim by one of {WORKERS} workers of {SLOTS} slots, p99");
    let waiting = number(waiting as f64);
    let waits = format!("{waiting} cells of {} tasks waiting", number(tasks as f64));
    let aged_by = number(before);
    Ok(vec![
        row(format!("{what}, {waits}"), &fresh, Some(5.0))?,
        row(format!("{what}, after {aged_by} cells claimed with a transaction open"), &aged, Some(20.0))?,
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

/// Does this while the workers drain, once they are in their stride.
async fn while_draining<T>(
    bench: &Bench,
    database: &Database,
    latency: &str,
    task: impl AsyncFnOnce(&ClaimLog, &mut [Process]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let simulated = bench.simulated(&["--submit-latency", latency]).await?;
    let mut effective = bench.ground.settings(database, &simulated, POLL_INTERVAL)?;
    let log = ClaimLog::of(&bench.ground, &mut effective);
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(bench.ground.worker(&effective, &["--concurrency", SLOTS])?);
    }
    tokio::time::sleep(STARTING).await;
    let done = task(&log, &mut workers).await;
    for worker in workers {
        worker.stop().await?;
    }
    simulated.stop().await?;
    done
}

/// Waits until so many cells were claimed.
async fn until_taken(log: &ClaimLog, workers: &mut [Process], cells: f64) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let taken: usize = log.claims().iter().map(|claim| claim.taken).sum();
        if taken as f64 >= cells {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::failed(format_args!("{taken} of {cells} cells were claimed")));
        }
        for worker in &mut *workers {
            worker.has_ended()?;
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Counts for a while.
async fn counted(bench: &Bench, database: &Database, log: &ClaimLog) -> Result<Counted, Failure> {
    let mut connection = database.connect().await?;
    let mut nothing_ms = Vec::new();
    let (from, began) = (Utc::now(), Instant::now());
    let lasts = COUNTED.mul_f64(bench.options.scale()).max(STARTING);
    while began.elapsed() < lasts {
        let asked = Instant::now();
        connection.ping().await.map_err(Failure::failed)?;
        nothing_ms.push(asked.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(NOTHING).await;
    }
    let until = Utc::now();
    let claims = log.claims().into_iter().filter(|claim| claim.at >= from && claim.at < until).collect();
    Ok(Counted { claims, nothing_ms })
}

fn row(what: String, Counted { claims, nothing_ms }: &Counted, must: Option<f64>) -> Result<Row, Failure> {
    let part = |percent, of: fn(&Claim) -> f64| claims::percentile(claims, percent, of);
    let late = part(99.0, |claim| claim.took_ms).ok_or_else(|| Failure::failed("nothing was claimed"))?;
    let value = |percent, of: fn(&Claim) -> f64| number(part(percent, of).unwrap_or_default());
    let cells: usize = claims.iter().map(|claim| claim.taken).sum();
    let note = format!(
        "{} claims of {} cells on average; p50 {} ms, longest {} ms; p99 of the wait for the lock {} ms; longest look who waits {} ms; \
         p99 of a statement that does nothing, beside them, {} ms",
        number(claims.len() as f64),
        number(cells as f64 / claims.len() as f64),
        value(50.0, |claim| claim.took_ms),
        value(100.0, |claim| claim.took_ms),
        value(99.0, |claim| claim.waited_ms),
        value(100.0, |claim| claim.looked_ms),
        number(rows::percentile(nothing_ms, 99.0).unwrap_or_default()),
    );
    let row = match must {
        Some(must) => Row::new(NAME, what, late, "ms", Must::AtMost(must)),
        None => Row::beside(NAME, what, late, "ms"),
    };
    Ok(row.note(note))
}
