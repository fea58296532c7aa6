//! `claim`: how long a claim takes while a million cells wait in a thousand tasks, and while what was claimed before cannot be
//! cleaned away, beside workers that drain: of a claimant that takes 40 at a time, and of the workers, as their own logs tell it, where
//! the upstream is as fast as none is. The look who waits and the wait for the lane's lock included.

use std::time::{Duration, Instant};

use chrono::Utc;
use sqlx::Connection as _;

use super::{
    Bench,
    claimant::{self, Claimant, Taken},
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

/// Worker processes.
const WORKERS: usize = 4;

/// How they drain.
struct Draining {
    /// Slots of each.
    slots: &'static str,
    /// Of the simulator.
    upstream: [&'static str; 2],
    poll_interval: &'static str,
}

/// As they are set by default, with jobs of 3 s: the upstream is what is slow, as ever. Those that were submitted together are found to
/// have ended together, by the poll after the next, so that the workers claim in volleys.
const STEADY: Draining = Draining { slots: "40", upstream: ["--duration", "2500-3500"], poll_interval: "2s" };

/// Submits that last so short, and so many slots, that a claim of a worker is one of 20 to 50: it comes when a quarter of them is free, or
/// its rest is over. More than a thousand cells a second, for which two processors are hardly enough.
const HURRIED: Draining = Draining { slots: "160", upstream: ["--submit-latency", "200-600"], poll_interval: POLL_INTERVAL };

/// As fast as it goes.
const FLAT_OUT: Draining = Draining { slots: "160", upstream: ["--submit-latency", "0"], poll_interval: POLL_INTERVAL };

/// How long claims are counted.
const COUNTED: Duration = Duration::from_secs(30);

/// And at the least, where the scale is small.
const LEAST_COUNTED: Duration = Duration::from_secs(2);

/// Before that: for the workers to be in their stride, which is when their first jobs have ended.
const STARTING: Duration = Duration::from_secs(4);

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
struct Counted<C> {
    claims: Vec<C>,
    nothing_ms: Vec<f64>,
    /// What the rows of such claims took by themselves, after them, where that is taken.
    bare_ms: Vec<f64>,
}

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let database = bench.ground.database(NAME).await?;
    let (tasks, waiting) = fill(bench, &database).await?;
    output::note(&format!("{NAME}: {} cells wait", number(waiting as f64)));
    let logged = async |log: &ClaimLog, _: &mut [Process]| logged(bench, &database, log).await;
    let fresh = while_draining(bench, &database, &STEADY, async |_, _| taken(bench, &database).await).await?;
    let hurried = while_draining(bench, &database, &HURRIED, logged).await?;
    let flat_out = while_draining(bench, &database, &FLAT_OUT, logged).await?;
    output::note(&format!("{NAME}: once more, with a transaction open"));
    let mut holder = database.connect().await?;
    let open = lanes::hold_horizon(&mut holder).await.map_err(Failure::failed)?;
    let before = BEFORE * bench.options.scale();
    while_draining(bench, &database, &FLAT_OUT, async |log, workers| until_taken(log, workers, before).await).await?;
    let aged = while_draining(bench, &database, &STEADY, async |_, _| taken(bench, &database).await).await?;
    let aged_and_hurried = while_draining(bench, &database, &HURRIED, logged).await?;
    open.rollback().await.map_err(Failure::failed)?;
    drop(holder);
    bench.ground.drop(database).await?;

    let waits = format!("{} cells of {} tasks waiting", number(waiting as f64), number(tasks as f64));
    let after = format!("after {} cells claimed with a transaction open", number(before));
    let alone = format!("a claim of {} beside {WORKERS} workers of {} slots, jobs of 3 s, p99", claimant::WANTED, STEADY.slots);
    let own = format!("a claim by one of {WORKERS} workers of {} slots, p99", HURRIED.slots);
    Ok(vec![
        row_of_taken(format!("{alone}, {waits}"), &fresh, 5.0)?,
        row_of_taken(format!("{alone}, {after}"), &aged, 20.0)?,
        row_of_logged(format!("{own}, {waits}, submits of 200 to 600 ms"), &hurried)?,
        row_of_logged(format!("{own}, {after}, submits of 200 to 600 ms"), &aged_and_hurried)?,
        row_of_logged(format!("{own}, {waits}, an upstream without latency"), &flat_out)?,
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
    draining: &Draining,
    task: impl AsyncFnOnce(&ClaimLog, &mut [Process]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let simulated = bench.simulated(&draining.upstream).await?;
    let mut effective = bench.ground.settings(database, &simulated, draining.poll_interval)?;
    let log = ClaimLog::of(&bench.ground, &mut effective);
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(bench.ground.worker(&effective, &["--concurrency", draining.slots])?);
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

/// How long is counted.
fn lasts(bench: &Bench) -> Duration {
    COUNTED.mul_f64(bench.options.scale()).max(LEAST_COUNTED)
}

/// The claims of a claimant in a while.
async fn taken(bench: &Bench, database: &Database) -> Result<Counted<Taken>, Failure> {
    let mut claimant = Claimant::register(database).await?;
    // It, too, is to be in its stride: who waits is known, and each statement planned.
    let began = Instant::now();
    while began.elapsed() < STARTING {
        claimant.claim().await?;
    }
    let began = Instant::now();
    let claiming = async {
        let mut claims = Vec::new();
        while began.elapsed() < lasts(bench) {
            claims.push(claimant.claim().await?);
        }
        Ok(claims)
    };
    let (claims, nothing_ms) = tokio::try_join!(claiming, nothing(database, lasts(bench)))?;
    // Not between them: what it writes is what the claims after it read.
    let mut bare_ms = Vec::new();
    let began = Instant::now();
    while began.elapsed() < lasts(bench) {
        bare_ms.extend(claimant.bare().await?);
    }
    claimant.leave().await?;
    Ok(Counted { claims, nothing_ms, bare_ms })
}

/// The claims of the workers in a while.
async fn logged(bench: &Bench, database: &Database, log: &ClaimLog) -> Result<Counted<Claim>, Failure> {
    let from = Utc::now();
    let nothing_ms = nothing(database, lasts(bench)).await?;
    let until = Utc::now();
    let claims = log.claims().into_iter().filter(|claim| claim.at >= from && claim.at < until).collect();
    Ok(Counted { claims, nothing_ms, bare_ms: Vec::new() })
}

/// What a statement that does nothing takes, again and again for so long, in milliseconds.
async fn nothing(database: &Database, lasts: Duration) -> Result<Vec<f64>, Failure> {
    let mut connection = database.connect().await?;
    let began = Instant::now();
    let mut took_ms = Vec::new();
    while began.elapsed() < lasts {
        let asked = Instant::now();
        connection.ping().await.map_err(Failure::failed)?;
        took_ms.push(asked.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(NOTHING).await;
    }
    Ok(took_ms)
}

fn row_of_taken(what: String, Counted { claims, nothing_ms, bare_ms }: &Counted<Taken>, must: f64) -> Result<Row, Failure> {
    let took: Vec<f64> = claims.iter().map(|claim| claim.took_ms).collect();
    let cells = claims.iter().map(|claim| claim.cells).sum();
    let (late, note) = summary(&took, cells, nothing_ms)?;
    let bare = |percent| number(rows::percentile(bare_ms, percent).unwrap_or_default());
    let note = format!("{note}; such rows written by their ids, and nothing else: p50 {} ms, p99 {} ms", bare(50.0), bare(99.0));
    Ok(Row::new(NAME, what, late, "ms", Must::AtMost(must)).note(note))
}

fn row_of_logged(what: String, Counted { claims, nothing_ms, .. }: &Counted<Claim>) -> Result<Row, Failure> {
    let took: Vec<f64> = claims.iter().map(|claim| claim.took_ms).collect();
    let cells = claims.iter().map(|claim| claim.taken).sum();
    let (late, note) = summary(&took, cells, nothing_ms)?;
    let value = |percent, of: fn(&Claim) -> f64| number(claims::percentile(claims, percent, of).unwrap_or_default());
    let note = format!(
        "{note}; p99 of the wait for the lock {} ms; longest look who waits {} ms",
        value(99.0, |claim| claim.waited_ms),
        value(100.0, |claim| claim.looked_ms),
    );
    Ok(Row::beside(NAME, what, late, "ms").note(note))
}

/// The p99 of these claims of so many cells, and what is to be said beside it.
fn summary(took_ms: &[f64], cells: usize, nothing_ms: &[f64]) -> Result<(f64, String), Failure> {
    let value = |percent| rows::percentile(took_ms, percent);
    let late = value(99.0).filter(|_| cells > 0).ok_or_else(|| Failure::failed("nothing was claimed"))?;
    let text = |percent| number(value(percent).unwrap_or_default());
    let note = format!(
        "{} claims of {} cells on average; p50 {} ms, p90 {} ms, longest {} ms; beside them a statement that does nothing: p99 {} ms",
        number(took_ms.len() as f64),
        number(cells as f64 / took_ms.len() as f64),
        text(50.0),
        text(90.0),
        text(100.0),
        number(rows::percentile(nothing_ms, 99.0).unwrap_or_default()),
    );
    Ok((late, note))
}
