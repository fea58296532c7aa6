//! `lane-full`: how full a limited lane is kept, and that it is never fuller.

use std::time::Instant;

use super::{
    Bench,
    fleet::{self, Fleet, LANE, TICK, WORKERS},
    rows::{Must, Row, number},
    tasks::{self, LARGE, scaled},
};
use crate::commands::report::Failure;

const NAME: &str = "lane-full";

/// Places of the lane.
const PLACES: i32 = 40;

/// What a job lasts, in seconds.
const DURATION: f64 = 3.0;

/// Share of the large grid: a minute for this lane. And the least, four times what it holds.
const CELLS: f64 = 800.0 / 50_000.0;
const LEAST: f64 = 160.0 / 50_000.0;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let duration = fleet::seconds(bench, DURATION);
    let mut fleet = Fleet::prepare(bench, "lane_full", (duration, duration)).await?;
    fleet.limit(PLACES, None).await?;
    let grid = scaled(LARGE, (CELLS * bench.options.scale()).max(LEAST));
    tasks::create(&bench.ground, &fleet.database, 1, grid).await?;
    fleet.start(bench)?;
    fleet.until_full(PLACES.into()).await?;
    let began = Instant::now();
    let mut looks = Vec::new();
    loop {
        let held = fleet.held().await?;
        if !held.waits {
            break;
        }
        looks.push(held.in_flight);
        fleet.go_on(began)?;
        tokio::time::sleep(TICK).await;
    }
    let took = began.elapsed();
    let at_once = fleet.simulated.stats().await?.max_in_flight;
    fleet.stop(bench).await?;

    let (Some(most), Some(least)) = (looks.iter().max(), looks.iter().min()) else {
        return Err(Failure::failed("the lane was not full while cells waited"));
    };
    let full = looks.iter().sum::<i64>() as f64 / looks.len() as f64 / f64::from(PLACES) * 100.0;
    let jobs = number(duration);
    let what = format!("in flight in the lane {LANE} of {PLACES} places, jobs of {jobs} s, {WORKERS} workers, of its limit");
    let note = format!(
        "from the first time that it was full to the last claim, {} s; {} looks, at the least {least}",
        number(took.as_secs_f64()),
        number(looks.len() as f64)
    );
    Ok(vec![
        Row::new(NAME, what, full, "%", Must::AtLeast(98.0)).note(note),
        Row::new(NAME, "in flight by the rows, at the most", *most as f64, "", Must::AtMost(PLACES.into())),
        Row::new(NAME, "in flight at the simulator, at every instant", at_once as f64, "", Must::AtMost(PLACES.into())),
    ])
}
