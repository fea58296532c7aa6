//! `limit`: a lane's limit is changed by SQL; how long until it is obeyed.

use std::time::Instant;

use super::{
    Bench,
    fleet::{self, Fleet, LANE, WORKERS},
    rows::{Must, Row, number},
    tasks::{self, LARGE, scaled},
};
use crate::{commands::report::Failure, crud::bounds, db::bench::lanes};

const NAME: &str = "limit";

/// Places before and after.
const FEW: i32 = 20;
const MANY: i32 = 40;

/// What a job lasts, in seconds: about three, so that some end all the time.
const DURATION: (f64, f64) = (2.0, 4.0);

/// Share of the large grid: half a minute at the higher limit.
const CELLS: f64 = 400.0 / 50_000.0;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let seconds = |seconds| fleet::seconds(bench, seconds);
    let mut fleet = Fleet::prepare(bench, "limited", (seconds(DURATION.0), seconds(DURATION.1))).await?;
    fleet.limit(FEW, None).await?;
    tasks::create(&bench.ground, &fleet.database, 1, scaled(LARGE, CELLS)).await?;
    fleet.start(bench)?;
    fleet.until_full(FEW.into()).await?;

    let raised = Instant::now();
    fleet.limit(MANY, None).await?;
    fleet.until_full(MANY.into()).await?;
    let raised = raised.elapsed().as_secs_f64();

    let lowered = bounds::now(&mut fleet.connection).await.map_err(Failure::failed)?;
    fleet.limit(FEW, None).await?;
    let began = Instant::now();
    // Until it has come down, and has been kept there for as long as a job lasts.
    while fleet.held().await?.in_flight > FEW.into() {
        fleet.go_on(began)?;
        tokio::time::sleep(fleet::TICK).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs_f64(seconds(DURATION.1))).await;
    let last = lanes::last_above(&mut fleet.connection, LANE, lowered, FEW).await.map_err(Failure::failed)?;
    fleet.stop(bench).await?;
    let jobs = format!("jobs of {} to {} s, {WORKERS} workers", number(seconds(DURATION.0)), number(seconds(DURATION.1)));
    let mut lower = Row::new(
        NAME,
        format!("limit lowered by SQL from {MANY} to {FEW} to the last submit above it"),
        last.unwrap_or(0.0),
        "s",
        Must::AtMost(1.0),
    );
    if last.is_none() {
        lower = lower.note("there was none");
    }
    Ok(vec![
        Row::new(NAME, format!("limit raised by SQL from {FEW} to {MANY} to as many in flight"), raised, "s", Must::AtMost(1.0))
            .note(jobs),
        lower,
    ])
}
