//! The stock backend of apalis-postgres at the same work: a submit and a poll a job by the same HTTP client, on a database
//! that has only its own migrations.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Bench,
    drain::{self, PATIENCE, POLL_INTERVAL, Rate},
    process::{Process, Start},
    rows::{Must, Row},
    tasks::{DRAINED, cells, definition, scaled},
};
use crate::{
    commands::{output, report::Failure},
    db::bench::{server, stock},
    models::{self, RequestCell, TaskLimits},
};

/// How often is looked whether all is done: seldom, since it costs the server something. What it took is in the rows.
const TICK: Duration = Duration::from_millis(250);

/// The queue.
pub const QUEUE: &str = "bench_stock";

/// What a job of the stock queue carries: all that its handler needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StockJob {
    /// The way into the upstream.
    pub lane: String,
    /// The submit's body.
    pub body: Value,
}

/// How the stock backend is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct StockSetting {
    /// Jobs of one fetch; without it, its default setting, all of it.
    #[arg(long)]
    pub batch: Option<usize>,
    /// Jobs at once.
    #[arg(long, default_value_t = 100)]
    pub concurrency: usize,
    /// Milliseconds between two looks when there is nothing.
    #[arg(long, default_value_t = 10)]
    pub poll_ms: u64,
    /// Do not mark each job as running.
    #[arg(long)]
    pub no_lock: bool,
    /// Run each job as a task of its own.
    #[arg(long)]
    pub spawn: bool,
}

impl StockSetting {
    fn arguments(self) -> Vec<OsString> {
        let mut words = vec!["bench-stock-worker".to_owned()];
        if let Some(batch) = self.batch {
            words.extend(["--batch".to_owned(), batch.to_string()]);
            words.extend(["--concurrency".to_owned(), self.concurrency.to_string()]);
            words.extend(["--poll-ms".to_owned(), self.poll_ms.to_string()]);
        }
        words.extend(self.no_lock.then(|| "--no-lock".to_owned()));
        words.extend(self.spawn.then(|| "--spawn".to_owned()));
        words.into_iter().map(OsString::from).collect()
    }
}

/// What it is called here, how it is set, that in words, and whether it is what ours is held against.
const SETTINGS: [(&str, StockSetting, &str, bool); 3] = [
    ("stock backend", StockSetting { batch: Some(100), ..DEFAULT }, "concurrency 100, batch 100, poll 10 ms", true),
    (
        "stock backend, spawning",
        StockSetting { batch: Some(100), no_lock: true, spawn: true, ..DEFAULT },
        "the same, set as in its basic example: each job a task of its own (parallelize), none marked as running (lock_tasks)",
        false,
    ),
    ("stock backend by default", DEFAULT, "batch 10, no limit of jobs at once, no poll", false),
];

const DEFAULT: StockSetting = StockSetting { batch: None, concurrency: 100, poll_ms: 10, no_lock: false, spawn: false };

/// `stock`
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for workers in [4, 1] {
        let must = if workers == 1 { 1.8 } else { 1.25 };
        let processes = drain::processes(workers);
        let ours = drain::rate(bench, "stock", workers).await?;
        for (name, setting, words, is_held_against) in SETTINGS {
            let (rate, repeated) = rate(bench, workers, setting, name).await?;
            let what = format!("{name}, {workers} {processes}");
            let mut note = format!("{words}; {}", rate.note());
            if repeated > 0 {
                note = format!("{note}; {repeated} submits too many");
            }
            rows.push(Row::beside("stock", &*what, rate.median, "jobs/s").note(note));
            let ratio = ours.median / rate.median;
            let what = format!("drain-{workers} against the {what}");
            rows.push(if is_held_against {
                Row::new("stock", what, ratio, "x", Must::AtLeast(must))
            } else {
                Row::beside("stock", what, ratio, "x")
            });
        }
    }
    Ok(rows)
}

/// The rate of the runs, and how many jobs were submitted more than once in all of them.
async fn rate(bench: &Bench, workers: u16, setting: StockSetting, name: &str) -> Result<(Rate, u64), Failure> {
    let mut rates = Vec::new();
    let mut all_repeated = 0;
    for run in 1..=bench.options.runs() {
        output::note(&format!("{name}, {workers} {}: run {run} of {}", drain::processes(workers), bench.options.runs()));
        let (rate, repeated) = run_once(bench, workers, setting).await?;
        rates.push(rate);
        all_repeated += repeated;
    }
    Ok((Rate::of(rates)?, all_repeated))
}

async fn run_once(bench: &Bench, workers: u16, setting: StockSetting) -> Result<(f64, u64), Failure> {
    let database = bench.ground.empty_database("stock").await?;
    let payloads = payloads(bench)?;
    let wanted = payloads.len();
    let mut connection = database.connect().await?;
    stock::migrate(&mut connection).await.map_err(Failure::failed)?;
    stock::push(&mut connection, QUEUE, payloads).await.map_err(Failure::failed)?;
    server::analyze(&mut connection).await.map_err(Failure::failed)?;
    let simulated = bench.simulated(&[]).await?;
    let environment = bench.ground.settings(&database, &simulated, POLL_INTERVAL)?.environment();
    let mut processes = Vec::new();
    for _ in 0..workers {
        let start = Start { what: "stock worker", arguments: setting.arguments(), environment: &environment, open_files: None };
        processes.push(Process::start(&bench.ground.scratch, start)?);
    }
    let began = Instant::now();
    // A stock worker does not end by itself.
    while stock::is_open(&mut connection, QUEUE).await.map_err(Failure::failed)? {
        for process in &mut processes {
            process.has_ended()?;
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::failed("the stock backend did not end its jobs"));
        }
        tokio::time::sleep(TICK).await;
    }
    for process in processes {
        process.stop().await?;
    }
    let accepted = simulated.stats().await?.accepted;
    simulated.stop().await?;
    let drain = stock::drain(&mut connection, QUEUE).await.map_err(Failure::failed)?;
    drop(connection);
    bench.ground.drop(database).await?;
    if drain.done != wanted as i64 || accepted < wanted as u64 {
        return Err(Failure::failed(format_args!(
            "the stock drain is wrong: {} of {wanted} jobs, {accepted} submits",
            drain.done
        )));
    }
    Ok((wanted as f64 / drain.seconds, accepted - wanted as u64))
}

/// The bodies of the same cells.
fn payloads(bench: &Bench) -> Result<Vec<Vec<u8>>, Failure> {
    let grid = scaled(DRAINED, bench.options.scale());
    let definition = definition("bench", grid)?;
    let plan = models::plan(&definition, &TaskLimits::default()).map_err(Failure::failed)?;
    let mut payloads = Vec::new();
    while payloads.len() < drain::TASKS * cells(grid) {
        for cell in plan.cells(&mut rand::rng()) {
            let body = models::request_body(definition.prompts(), &RequestCell::from(&cell)).map_err(Failure::failed)?;
            let job = StockJob { lane: cell.lane.to_owned(), body };
            payloads.push(serde_json::to_vec(&job).map_err(Failure::failed)?);
        }
    }
    Ok(payloads)
}
