//! `leave`: a worker is told to leave; how long until others may have what it polls, and until it has gone when its submits are answered.

use std::time::Instant;

use serde_json::json;

use super::{
    Bench,
    endless::{self, Endless},
    rows::{Must, Row},
    tasks::{DRAINED, cells, scaled},
};
use crate::commands::report::Failure;

const NAME: &str = "leave";

/// Most of a thousand cells whose submits are out: ten.
const OUT: f64 = 0.01;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let ground = &bench.ground;
    let mut endless = Endless::prepare(bench, NAME, "1s").await?;
    let (polled, out) = (endless::held(bench, 1.0), scaled(DRAINED, OUT));
    let slots = (cells(polled) + cells(out)).to_string();
    let mut worker = ground.worker(&endless.effective, &["--concurrency", &slots])?;
    endless.create(ground, polled).await?;
    endless.until("accepted", cells(polled)).await?;
    endless.simulated.control(&json!({ "hold_submits": true })).await?;
    endless.create(ground, out).await?;
    endless.until("submitting", cells(out)).await?;
    worker.leave();
    let handed_over = endless.until_none_held(&worker).await?;
    // They are out still: the answers are held.
    endless.until("submitting", cells(out)).await?;
    let answered = Instant::now();
    endless.simulated.control(&json!({ "hold_submits": false })).await?;
    worker.finish(super::process::LEAVING).await?;
    let left = answered.elapsed();
    // Whatever was out is known, and whoever comes next polls it.
    endless.until("accepted", cells(polled) + cells(out)).await?;
    endless.stop(ground).await?;
    let (polled, out) = (cells(polled), cells(out));
    let what = format!("told to leave to the hand-over of the last of {polled} cells that are polled");
    Ok(vec![
        Row::new(NAME, what, handed_over.as_secs_f64(), "s", Must::AtMost(2.0)).note(format!("{out} submits were out")),
        Row::new(
            NAME,
            format!("the answers of these {out} to the end of the process"),
            left.as_secs_f64(),
            "s",
            Must::AtMost(2.0),
        ),
    ])
}
