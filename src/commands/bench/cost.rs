//! `cost`: what a cell costs PostgreSQL from its claim to its task's roll-up.

use super::{
    Bench,
    drain::{self, TASKS},
    linux,
    rows::{Must, Row},
    tasks::{DRAINED, cells, scaled},
};
use crate::{
    commands::report::Failure,
    db::bench::{server, statistics},
};

const NAME: &str = "cost";

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    const WORKERS: u16 = 4;
    const DATABASE: &str = "cost";
    let ground = &bench.ground;
    let mut admin = ground.admin().await?;
    // Whole pages come by the time since a checkpoint, not by cells.
    server::set_full_page_writes(&mut admin, false).await.map_err(Failure::failed)?;
    let database = ground.database(DATABASE).await?;
    let tasks = drain::prepare(bench, &database).await?;
    database.context.pool.close().await;
    let postmaster = postmaster(&mut admin).await?;
    ground.forget_statements(&mut admin).await?;
    let before = statistics::counts(&mut admin, DATABASE).await.map_err(Failure::failed)?;
    let time_before = postmaster.and_then(linux::family_time);
    let rate = drain::run(bench, &database, WORKERS, &tasks).await?;
    let time = postmaster.and_then(linux::family_time).zip(time_before).map(|(after, before)| after - before);
    let after = statistics::counts(&mut admin, DATABASE).await.map_err(Failure::failed)?;
    let statements = ground.statements(&mut admin, DATABASE).await?;
    server::set_full_page_writes(&mut admin, true).await.map_err(Failure::failed)?;
    ground.drop(database).await?;

    let cells = (TASKS * cells(scaled(DRAINED, bench.options.scale()))) as f64;
    let pages = after.wal_pages - before.wal_pages;
    let wal = (after.wal_bytes - before.wal_bytes) / cells / 1000.0;
    let how = format!("4 processes, {} at {:.0} cells/s", drain::size(bench), rate);
    Ok(vec![
        match statements {
            Some(statements) => {
                let what = "statements a cell, those that begin and end transactions too";
                Row::new(NAME, what, statements as f64 / cells, "", Must::AtMost(1.5)).note(how)
            }
            None => Row::missing(NAME, "statements a cell", super::NO_STATEMENTS),
        },
        Row::new(NAME, "commits a cell", (after.commits - before.commits) as f64 / cells, "", Must::AtMost(0.6)),
        Row::new(NAME, "WAL a cell", wal, "kB", Must::AtMost(5.0))
            .note(format!("taken with full_page_writes = off; {pages} whole pages for hints are in it")),
        match time {
            Some(time) => Row::new(NAME, "processor time of PostgreSQL a cell", time / cells, "ms", Must::AtMost(0.25))
                .note("of all its processes, those of the background too"),
            None => Row::missing(NAME, "processor time of PostgreSQL a cell", super::NOT_LINUX),
        },
    ])
}

/// The server's first process; none where Linux does not say.
async fn postmaster(connection: &mut sqlx::PgConnection) -> Result<Option<u32>, Failure> {
    let backend = server::backend_process(connection).await.map_err(Failure::failed)?;
    Ok(u32::try_from(backend).ok().and_then(linux::parent))
}
