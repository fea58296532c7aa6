//! `imagemill bench`: what the engine costs and how fast it is, on this machine, beside apalis-postgres's stock backend.

mod drain;
mod ground;
mod process;
mod rows;
mod scratch;
mod simulated;
pub mod stock;
mod tasks;

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use self::{drain::Rate, ground::Ground, rows::Row, simulated::Simulated};
use super::{output, report::Failure, running::Leave};

/// Names of the measures, in the order in which they are taken.
const MEASURES: [&str; 3] = ["drain-4", "drain-1", "stock"];

/// What is to be measured, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchOptions {
    /// Measures to take; all of them if none is named.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = MEASURES)]
    pub only: Vec<String>,
    /// Runs of each drain, whose median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub runs: u16,
    /// Share of the cells, 0.001 to 1: for a look that takes less time. The numbers are others then.
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    pub scale: f64,
    /// Cells at once in each worker process of a drain, the stock backend's too.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Directory for the data of the benchmark's PostgreSQL: on the disk that is meant.
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
    /// A setting of the worker processes; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
}

/// A run of the benchmark.
struct Bench {
    options: BenchOptions,
    ground: Ground,
    /// Rates by worker processes: other measures are compared with them.
    rates: Mutex<BTreeMap<u16, Rate>>,
}

/// Takes the measures and prints them.
pub async fn bench(options: BenchOptions, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut leave = Leave::catch()?;
    let ground = Ground::prepare(options.directory.as_deref(), &options.settings).await?;
    let bench = Bench { options, ground, rates: Mutex::default() };
    let taken = tokio::select! {
        rows = bench.take() => Ok(rows),
        () = leave.asked() => Err(Failure::failed("stopped by a signal: nothing was measured")),
    };
    bench.ground.clear().await;
    let rows = taken?;
    if json {
        output::json(&serde_json::json!({ "rows": rows }), out)?;
    } else {
        output::text(&rows::text(&rows), out)?;
    }
    Ok(())
}

impl Bench {
    async fn take(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for name in MEASURES {
            if !self.options.only.is_empty() && !self.options.only.iter().any(|wanted| wanted == name) {
                continue;
            }
            output::note(&format!("{name} ..."));
            match Box::pin(self.measure(name)).await {
                Ok(more) => rows.extend(more),
                Err(failure) => rows.push(Row::missing(name, "could not be taken", failure.line())),
            }
        }
        rows
    }

    async fn measure(&self, name: &'static str) -> Result<Vec<Row>, Failure> {
        match name {
            "drain-4" => drain::measure(self, name, 4).await,
            "drain-1" => drain::measure(self, name, 1).await,
            _ => stock::measure(self).await,
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
