//! `create`: a task of 50,000 cells, by a process that does nothing else, alone and while a worker drains others.

use std::{
    ffi::OsString,
    io::Write,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Bench, drain,
    drain::POLL_INTERVAL,
    linux,
    process::{Process, Start},
    rows::{Must, Row, median, number},
    tasks::{LARGE, cells, definition, scaled},
};
use crate::{
    commands::{
        output,
        report::Failure,
        session::{Session, Who},
    },
    config::Settings,
    db::bench::statistics,
    services::task_service,
};

const NAME: &str = "create";

/// A word that is none of SQL's.
const DATABASE: &str = "created";

/// For the producer.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a producer process is to create.
#[derive(Debug, Clone, clap::Args)]
pub struct ProducerArgs {
    /// Sides of the grid.
    #[arg(long, num_args = 3)]
    pub grid: Vec<usize>,
}

/// What it says of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Produced {
    /// From the call to its return, the commit included.
    seconds: f64,
    /// Its memory at its most, in MB.
    peak: Option<f64>,
}

/// Creates one task and says what that took: the process that the benchmark starts for it.
pub async fn produce(settings: Settings, arguments: &ProducerArgs, out: &mut impl Write) -> Result<(), Failure> {
    let grid = <[usize; 3]>::try_from(arguments.grid.as_slice()).map_err(|_| Failure::usage("--grid takes three sides"))?;
    let who = Who { argument: Some("admin".to_owned()), environment: None };
    let session = Session::open(settings, &who).await?;
    let definition = definition("produced", grid)?;
    let began = Instant::now();
    let created = task_service::create_task(session.context(), &session.actor, &definition).await;
    let seconds = began.elapsed().as_secs_f64();
    session.close().await;
    created?;
    let produced = Produced { seconds, peak: linux::memory(std::process::id()).map(|memory| memory.peak) };
    output::text(&serde_json::to_string(&produced).map_err(Failure::failed)?, out)
}

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let (mut alone, mut beside, mut peaks, mut claims) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 1..=bench.options.runs() {
        output::note(&format!("{NAME}: run {run} of {}", bench.options.runs()));
        let database = bench.ground.database(DATABASE).await?;
        let simulated = bench.simulated(&[]).await?;
        let effective = bench.ground.settings(&database, &simulated, POLL_INTERVAL)?;
        // The tables are not empty, and the worker has enough to do for as long as it takes.
        drain::prepare(bench, &database).await?;
        let produced = produce_one(bench, &effective).await?;
        alone.push(produced.seconds);
        peaks.extend(produced.peak);
        let mut admin = bench.ground.admin().await?;
        bench.ground.forget_statements(&mut admin).await?;
        let worker = bench.ground.worker(&effective, &["--concurrency", &bench.options.concurrency.to_string()])?;
        let began = Instant::now();
        while simulated.stats().await?.accepted == 0 {
            if began.elapsed() > PATIENCE {
                return Err(Failure::failed("the worker does not drain"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let produced = produce_one(bench, &effective).await?;
        if bench.ground.counts_statements {
            claims.extend(statistics::longest_claim(&mut admin, DATABASE).await.map_err(Failure::failed)?);
        }
        beside.push(produced.seconds);
        peaks.extend(produced.peak);
        worker.stop().await?;
        simulated.stop().await?;
        bench.ground.drop(database).await?;
    }
    let grid = scaled(LARGE, bench.options.scale());
    let what = format!("create_task of {} cells", number(cells(grid) as f64));
    let taken = |values: &[f64]| median(values).ok_or_else(|| Failure::failed("nothing was taken"));
    let most = |values: &[f64]| values.iter().copied().reduce(f64::max);
    Ok(vec![
        Row::new(NAME, &*what, taken(&alone)?, "s", Must::AtMost(1.5)),
        Row::new(NAME, format!("{what} while a worker drains others"), taken(&beside)?, "s", Must::AtMost(1.5)),
        match most(&peaks) {
            Some(peak) => Row::new(NAME, "memory of its process, at its most", peak, "MB", Must::AtMost(150.0)),
            None => Row::missing(NAME, "memory of its process", super::NOT_LINUX),
        },
        match most(&claims) {
            Some(claim) => Row::new(NAME, "longest claim of that worker", claim, "ms", Must::AtMost(100.0)),
            None if bench.ground.counts_statements => {
                Row::missing(NAME, "longest claim of that worker", "no statement looked like a claim")
            }
            None => Row::missing(NAME, "longest claim of that worker", super::NO_STATEMENTS),
        },
    ])
}

async fn produce_one(bench: &Bench, effective: &crate::commands::effective::Effective) -> Result<Produced, Failure> {
    let mut arguments: Vec<OsString> = ["bench-producer", "--grid"].map(OsString::from).into();
    arguments.extend(scaled(LARGE, bench.options.scale()).iter().map(|side| OsString::from(side.to_string())));
    let environment = effective.environment();
    let start = Start { what: "producer", arguments, environment: &environment, open_files: None };
    let mut process = Process::start(&bench.ground.scratch, start)?;
    let line = process.line(PATIENCE).await?;
    process.finish(PATIENCE).await?;
    serde_json::from_str(&line).map_err(Failure::failed)
}
