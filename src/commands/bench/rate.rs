//! `rate`: submits of a lane that has a rate and a burst, as they arrive at the simulator.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Bench,
    fleet::{Fleet, LANE, TICK, WORKERS},
    rows::{Must, Row, number},
    tasks::{self, LARGE, cells, scaled},
};
use crate::commands::report::Failure;

const NAME: &str = "rate";

/// Submits a second, and how many may come together.
const RATE: f64 = 50.0;
const BURST: i32 = 10;

/// Share of the large grid: half a minute at this rate. And the least, three seconds.
const CELLS: f64 = 1_500.0 / 50_000.0;
const LEAST: f64 = 150.0 / 50_000.0;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut fleet = Fleet::prepare(bench, "rated", (0.0, 0.0)).await?;
    fleet.limit(1_000_000, Some((RATE, BURST))).await?;
    let grid = scaled(LARGE, (CELLS * bench.options.scale()).max(LEAST));
    tasks::create(&bench.ground, &fleet.database, 1, grid).await?;
    fleet.start(bench)?;
    let began = Instant::now();
    while fleet.simulated.stats().await?.accepted < cells(grid) as u64 {
        fleet.go_on(began)?;
        tokio::time::sleep(TICK * 10).await;
    }
    let mut times: Vec<DateTime<Utc>> = fleet.simulated.ledger(0).await?.iter().map(|entry| entry.accepted_at).collect();
    fleet.stop(bench).await?;
    times.sort_unstable();
    let took = times.last().zip(times.first()).map(|(last, first)| (*last - *first).as_seconds_f64()).unwrap_or_default();
    let average = (times.len().saturating_sub(1)) as f64 / took / RATE * 100.0;
    let what = format!("of a lane of {RATE} submits a second, burst {BURST}, {WORKERS} workers");
    Ok(vec![
        Row::new(
            NAME,
            format!("accepted submits in the worst second {what}"),
            most_in_a_second(&times) as f64,
            "",
            Must::AtMost(RATE + f64::from(BURST)),
        )
        .note(format!("any second, not only whole ones; {} submits of {LANE}", number(times.len() as f64))),
        Row::new(NAME, format!("accepted submits {what}, of its rate"), average, "%", Must::AtLeast(97.0))
            .note(format!("in {} s", number(took))),
    ])
}

/// Most of these in any second; the times are in order.
fn most_in_a_second(times: &[DateTime<Utc>]) -> usize {
    let second = TimeDelta::seconds(1);
    let within = |(number, time): (usize, &DateTime<Utc>)| times[number..].partition_point(|later| *later - *time < second);
    times.iter().enumerate().map(within).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_second_begins_anywhere() {
        let times = |milliseconds: &[i64]| -> Vec<DateTime<Utc>> {
            milliseconds.iter().map(|milliseconds| DateTime::UNIX_EPOCH + TimeDelta::milliseconds(*milliseconds)).collect()
        };
        assert_eq!(most_in_a_second(&[]), 0);
        assert_eq!(most_in_a_second(&times(&[0, 1000, 2000])), 1);
        assert_eq!(most_in_a_second(&times(&[0, 600, 900, 1500, 1599, 1600])), 4);
    }
}
