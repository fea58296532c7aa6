//! `ten-thousand`: so many cells in flight in one process, each polled every two seconds.

use std::time::{Duration, Instant};

use super::{
    Bench, linux,
    rows::{Must, Row, number},
    tasks::{self, LARGE, cells, scaled},
};
use crate::{
    commands::{output, report::Failure},
    db::bench::{rows, server, statistics},
};

const NAME: &str = "ten-thousand";

/// Cells in flight.
const CELLS: f64 = 10_000.0;

/// For all of them to be accepted.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long they are held then.
const HELD: Duration = Duration::from_secs(10);

/// How often is looked.
const TICK: Duration = Duration::from_millis(200);

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for open_files in [None, Some(1024)] {
        let how = open_files.map_or_else(String::new, |limit| format!(" with ulimit -n {limit}"));
        output::note(&format!("{NAME}{how}"));
        match hold(bench, open_files, &how).await {
            Ok(more) => rows.extend(more),
            Err(failure) => rows.push(Row::failed(NAME, failure.line()).note(format!("{}{how}", failure.line()))),
        }
    }
    Ok(rows)
}

async fn hold(bench: &Bench, open_files: Option<u32>, how: &str) -> Result<Vec<Row>, Failure> {
    const DATABASE: &str = "in_flight";
    let ground = &bench.ground;
    let wanted = (CELLS * bench.options.scale()) as i64;
    let database = ground.database(DATABASE).await?;
    // An hour: none of them ends meanwhile.
    let simulated = bench.simulated(&["--duration", "3600000"]).await?;
    let mut effective = ground.settings(&database, &simulated, "2s")?;
    effective.set("lanes.prod.max_polls", "1000000");
    let mut grid = scaled(LARGE, CELLS / 50_000.0 * bench.options.scale());
    while (cells(grid) as i64) < wanted {
        grid[0] += 1;
    }
    tasks::create(ground, &database, 1, grid).await?;
    let mut connection = database.connect().await?;
    server::analyze(&mut connection).await.map_err(Failure::failed)?;
    let mut worker = ground.worker_with(&effective, &["--concurrency", &wanted.to_string()], open_files)?;
    let began = Instant::now();
    let mut most = 0;
    let mut names = String::new();
    let mut look = async |connection: &mut sqlx::PgConnection| -> Result<(), Failure> {
        let found = statistics::connections(connection, DATABASE).await.map_err(Failure::failed)?;
        let sum = found.iter().map(|some| some.connections).sum();
        if sum > most {
            most = sum;
            let each: Vec<String> = found.iter().map(|some| format!("{} {}", some.connections, some.name)).collect();
            names = each.join(", ");
        }
        Ok(())
    };
    let mut accepted = 0;
    while accepted < wanted && began.elapsed() < PATIENCE {
        worker.has_ended()?;
        look(&mut connection).await?;
        accepted = rows::attempts(&mut connection, "accepted").await.map_err(Failure::failed)?;
        tokio::time::sleep(TICK).await;
    }
    let took = began.elapsed();
    let held = Instant::now();
    while held.elapsed() < HELD.mul_f64(bench.options.scale().max(0.1)) {
        look(&mut connection).await?;
        tokio::time::sleep(TICK).await;
    }
    let memory = linux::memory(worker.id());
    let polls = simulated.stats().await?.polls;
    let leaving = Instant::now();
    worker.stop().await?;
    let left = leaving.elapsed();
    simulated.stop().await?;
    drop(connection);
    ground.drop(database).await?;

    let what = format!("cells in flight in one process{how}");
    let note = format!(
        "accepted within {} s; {} polls; handed over in {} s",
        number(took.as_secs_f64()),
        number(polls as f64),
        number(left.as_secs_f64())
    );
    Ok(vec![
        Row::new(NAME, what, accepted as f64, "cells", Must::AtLeast(wanted as f64)).note(note),
        Row::new(NAME, format!("its connections to PostgreSQL{how}"), most as f64, "", Must::AtMost(8.0)).note(names),
        match memory {
            Some(memory) => Row::new(NAME, format!("its memory{how}, at its most"), memory.peak, "MB", Must::AtMost(150.0)),
            None => Row::missing(NAME, format!("its memory{how}"), super::NOT_LINUX),
        },
    ])
}
