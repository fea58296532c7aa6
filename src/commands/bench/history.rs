//! `history`: the drain once more, with a million finished cells and jobs in the tables.

use sqlx::PgConnection;

use super::{
    Bench,
    drain::{self, Rate},
    rows::{Must, Row, number},
};
use crate::{
    commands::{output, report::Failure},
    db::bench::{history, statistics},
};

/// Finished cells.
pub(super) const CELLS: f64 = 1_000_000.0;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    const WORKERS: u16 = 4;
    let without = drain::rate(bench, "history", WORKERS).await?;
    let database = bench.ground.database("history").await?;
    let mut connection = database.connect().await?;
    let cells = fill(bench, "history", &mut connection).await?;
    let mut rates = Vec::new();
    for run in 1..=bench.options.runs() {
        output::note(&format!("history: run {run} of {}", bench.options.runs()));
        rates.push(drain::drain(bench, &database, WORKERS).await?);
    }
    drop(connection);
    bench.ground.drop(database).await?;
    let rate = Rate::of(rates)?;
    let finished = number(cells as f64);
    let what = format!("cells a second, {}, {WORKERS} processes, {finished} finished cells in the tables", drain::size(bench));
    Ok(vec![
        Row::beside("history", what, rate.median, "cells/s").note(rate.note()),
        Row::new("history", "against drain-4", rate.median / without.median, "x", Must::AtLeast(0.95)),
    ])
}

/// Fills in as many finished cells and jobs as the scale wants. Returns how many.
pub(super) async fn fill(bench: &Bench, measure: &str, connection: &mut PgConnection) -> Result<i64, Failure> {
    let cells = (CELLS * bench.options.scale()) as i64;
    output::note(&format!("{measure}: filling in {} finished cells", number(cells as f64)));
    let cells = history::fill(connection, bench.ground.actor.id, cells).await.map_err(Failure::failed)?;
    // Else what was filled in is written out while the drain runs.
    statistics::checkpoint(connection).await.map_err(Failure::failed)?;
    Ok(cells)
}
