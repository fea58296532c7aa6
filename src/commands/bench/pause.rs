//! `pause`: the upstream refuses the workers' token and takes it again; what is begun meanwhile.

use std::time::{Duration, Instant};

use super::{
    Bench,
    fleet::{self, Fleet, LANE, WORKERS},
    rows::{Must, Row, number},
    tasks::{self, LARGE, scaled},
};
use crate::{
    commands::report::Failure,
    db::bench::{lanes, rows},
};

const NAME: &str = "pause";

/// Places of the lane, and what a job and a submit's answer last, in seconds.
const PLACES: i32 = 40;
const DURATION: f64 = 1.0;
const LATENCY: f64 = 0.2;

/// Between two probes, in seconds: the default. With a small scale nobody wants to wait for that.
const PROBED: f64 = 60.0;
const LEAST_PROBED: f64 = 3.0;

/// Share of the large grid: a quarter of a minute of the lane.
const CELLS: f64 = 500.0 / 50_000.0;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let probed = (PROBED * bench.options.scale()).max(LEAST_PROBED);
    let duration = fleet::seconds(bench, DURATION);
    let mut fleet = Fleet::prepare(bench, "paused", (duration, duration)).await?;
    fleet.limit(PLACES, None).await?;
    fleet.simulated.control(&serde_json::json!({ "submit_latency": (LATENCY * 1000.0) as u64 })).await?;
    tasks::create(&bench.ground, &fleet.database, 1, scaled(LARGE, CELLS)).await?;
    fleet.start_with(bench, &[("upstream.probe_interval", &format!("{probed}s"))])?;
    fleet.until_full(PLACES.into()).await?;

    fleet.simulated.refuse_token().await?;
    let began = Instant::now();
    while lanes::refused(&mut fleet.connection, LANE).await.map_err(Failure::failed)?.is_empty() {
        fleet.go_on(began)?;
        tokio::time::sleep(fleet::TICK).await;
    }
    tokio::time::sleep(Duration::from_secs_f64(1.5 * probed)).await;
    let refused = lanes::refused(&mut fleet.connection, LANE).await.map_err(Failure::failed)?;
    let at_simulator = fleet.simulated.stats().await?.submit_statuses.get(&401).copied().unwrap_or_default();
    let accepted = fleet.simulated.stats().await?.accepted;

    let again = Instant::now();
    fleet.simulated.take_token().await?;
    while fleet.simulated.stats().await?.accepted == accepted {
        fleet.go_on(again)?;
        tokio::time::sleep(fleet::TICK).await;
    }
    let resumed = again.elapsed().as_secs_f64();
    let failed = rows::failed(&mut fleet.connection).await.map_err(Failure::failed)?;
    fleet.stop(bench).await?;
    if refused.len() as u64 != at_simulator || failed > 0 {
        return Err(Failure::failed(format_args!(
            "{} refused submits by the rows, {at_simulator} at the simulator; {failed} cells failed",
            refused.len()
        )));
    }
    // By when each began, after the first answer of all that were refused. A probe comes when its time has.
    let (burst, later): (Vec<f64>, Vec<f64>) = refused.iter().partition(|began| **began < probed / 2.0);
    let last = burst.iter().copied().fold(0.0, f64::max);
    let out = burst.iter().filter(|began| **began <= 0.0).count();
    let what = format!("of a lane of {PLACES} places, {WORKERS} workers");
    Ok(vec![
        Row::new(NAME, format!("the first 401 to the last submit {what}"), last, "s", Must::AtMost(1.0))
            .note(format!("{} were refused, of which {out} were out by then; no cell failed", burst.len())),
        Row::new(NAME, format!("submits after that, in {} s", number(1.5 * probed)), later.len() as f64, "", Must::AtMost(1.0))
            .note(format!("a probe each {} s", number(probed))),
        Row::new(NAME, "the token is taken again to the next accepted submit", resumed, "s", Must::AtMost(probed)),
    ])
}
