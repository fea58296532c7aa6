//! `imagemill bench`: what the engine costs and how fast it is, on this machine, beside apalis-postgres's stock backend.

mod cancel;
mod claim;
mod claimant;
mod claims;
mod cost;
mod create;
mod drain;
mod endless;
mod fleet;
mod ground;
mod history;
mod idle;
mod in_flight;
mod kill;
mod lane_full;
mod latency;
mod leave;
mod limit;
mod linux;
mod machine;
mod pause;
mod process;
mod prune;
mod rate;
mod roll_up;
mod rows;
mod scratch;
mod simulated;
pub mod stock;
mod tasks;
mod turns;

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use serde::Serialize;

pub use self::create::{ProducerArgs, produce};

use self::{drain::Rate, ground::Ground, machine::Machine, rows::Row, simulated::Simulated};
use super::{output, report::Failure, running::Leave};

/// Names of the measures, in the order in which they are taken.
const MEASURES: [&str; 20] = [
    "create",
    "drain-4",
    "drain-1",
    "history",
    "prune",
    "stock",
    "latency",
    "roll-up",
    "idle",
    "ten-thousand",
    "kill",
    "leave",
    "cost",
    "lane-full",
    "limit",
    "rate",
    "turns",
    "pause",
    "cancel",
    "claim",
];

/// Why a number of statements is missing.
const NO_STATEMENTS: &str = "PostgreSQL has no pg_stat_statements: install its contrib files";

/// Why a number of processes is missing.
const NOT_LINUX: &str = "this system has no /proc of Linux's kind";

/// What is to be measured, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchOptions {
    /// Measures to take; all of them if none is named.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = MEASURES)]
    pub only: Vec<String>,
    /// A tenth of the cells and one run of each, for a look: the numbers are not those of the whole.
    #[arg(long)]
    pub quick: bool,
    /// Runs of each drain, whose median counts [default: 3].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub runs: Option<u16>,
    /// Share of the cells and times, 0.001 to 1 [default: 1].
    #[arg(long, value_parser = scale)]
    pub scale: Option<f64>,
    /// Cells at once in each of our worker processes; the stock backend keeps to its own setting.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Directory for the data of the benchmark's PostgreSQL: on the disk that is meant.
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
    /// A setting of its processes; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
}

impl BenchOptions {
    fn scale(&self) -> f64 {
        self.scale.unwrap_or(if self.quick { 0.1 } else { 1.0 })
    }

    fn runs(&self) -> u16 {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }
}

/// A run of the benchmark.
struct Bench {
    options: BenchOptions,
    ground: Ground,
    machine: Machine,
    /// Rates by worker processes: other measures are compared with them.
    rates: Mutex<BTreeMap<u16, Rate>>,
}

/// All that is printed.
#[derive(Serialize)]
struct Report<'a> {
    date: DateTime<Utc>,
    version: &'static str,
    machine: &'a Machine,
    /// Share of the cells; the numbers that must be reached are those of the whole.
    scale: f64,
    runs: u16,
    concurrency: u16,
    rows: Vec<Row>,
}

impl Report<'_> {
    fn text(&self) -> String {
        let runs = if self.runs == 1 { "run" } else { "runs" };
        let mut size = format!("{} {runs} of each drain, {} cells at once in each process", self.runs, self.concurrency);
        if self.scale < 1.0 {
            size = format!("{size}; only {} of the cells: not the numbers of the whole", self.scale);
        }
        let (date, machine, rows) = (output::time(self.date), self.machine.text(), rows::text(&self.rows));
        format!("imagemill {} bench, {date}\n{machine}\nsize        {size}\n\n{rows}", self.version)
    }
}

/// Takes the measures and prints them. A number that is not reached is no failure; a measure that could not be taken is.
pub async fn bench(options: BenchOptions, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut leave = Leave::catch()?;
    let date = Utc::now();
    let stopped = || Failure::failed("stopped by a signal: nothing was measured");
    let bench = tokio::select! {
        bench = Bench::prepare(options) => bench?,
        () = leave.asked() => return Err(stopped()),
    };
    let taken = tokio::select! {
        rows = bench.take() => Ok(rows),
        () = leave.asked() => Err(stopped()),
    };
    let Bench { options, ground, machine, .. } = bench;
    ground.clear().await;
    let report = Report {
        date,
        version: env!("CARGO_PKG_VERSION"),
        machine: &machine,
        scale: options.scale(),
        runs: options.runs(),
        concurrency: options.concurrency,
        rows: taken?,
    };
    if json {
        output::json(&report, out)?;
    } else {
        output::text(&report.text(), out)?;
    }
    match report.rows.iter().find(|row| row.has_failed) {
        None => Ok(()),
        Some(row) => Err(Failure::failed(format_args!("{} could not be taken: {}", row.measure, row.note))),
    }
}

impl Bench {
    async fn prepare(options: BenchOptions) -> Result<Self, Failure> {
        output::note("starting a PostgreSQL of its own ...");
        let ground = Ground::prepare(options.directory.as_deref(), &options.settings).await?;
        let machine = ground.look().await?;
        Ok(Self { options, ground, machine, rates: Mutex::default() })
    }

    async fn take(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for name in MEASURES.into_iter().filter(|name| self.options.wants(name)) {
            output::note(&format!("{name} ..."));
            match Box::pin(self.measure(name)).await {
                Ok(more) => rows.extend(more),
                Err(failure) => rows.push(Row::failed(name, failure.line())),
            }
        }
        rows
    }

    async fn measure(&self, name: &'static str) -> Result<Vec<Row>, Failure> {
        match name {
            "create" => create::measure(self).await,
            "drain-4" => drain::measure(self, name, 4).await,
            "drain-1" => drain::measure(self, name, 1).await,
            "history" => history::measure(self).await,
            "prune" => prune::measure(self).await,
            "stock" => stock::measure(self).await,
            "latency" => latency::measure(self).await,
            "roll-up" => roll_up::measure(self).await,
            "idle" => idle::measure(self).await,
            "ten-thousand" => in_flight::measure(self).await,
            "kill" => kill::measure(self).await,
            "leave" => leave::measure(self).await,
            "cost" => cost::measure(self).await,
            "lane-full" => lane_full::measure(self).await,
            "limit" => limit::measure(self).await,
            "rate" => rate::measure(self).await,
            "turns" => turns::measure(self).await,
            "pause" => pause::measure(self).await,
            "cancel" => cancel::measure(self).await,
            _ => claim::measure(self).await,
        }
    }

    async fn simulated(&self, arguments: &[&str]) -> Result<Simulated, Failure> {
        Simulated::start(&self.ground.scratch, &self.ground.base, arguments).await
    }

    fn known_rate(&self, workers: u16) -> Option<Rate> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).get(&workers).cloned()
    }

    fn remember_rate(&self, workers: u16, rate: &Rate) {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).insert(workers, rate.clone());
    }
}

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse::<f64>().ok().filter(|scale| (0.001..=1.0).contains(scale));
    scale.ok_or_else(|| "write a number from 0.001 to 1".to_owned())
}

fn setting(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "write SECTION.KEY=VALUE".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}
