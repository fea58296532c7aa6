//! `idle`: what a worker asks of PostgreSQL when there is nothing to do.

use std::time::Duration;

use super::{
    Bench,
    drain::POLL_INTERVAL,
    linux,
    rows::{Must, Row, number},
};
use crate::{commands::report::Failure, db::bench::statistics};

const NAME: &str = "idle";

/// How long it is watched, in seconds.
const WATCHED: f64 = 30.0;

/// Before that: for its start, in seconds.
const STARTING: f64 = 3.0;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut rows = watch(bench, true).await?;
    rows.extend(watch(bench, false).await?);
    Ok(rows)
}

async fn watch(bench: &Bench, listens: bool) -> Result<Vec<Row>, Failure> {
    let ground = &bench.ground;
    let database = ground.database(NAME).await?;
    database.context.pool.close().await;
    let simulated = bench.simulated(&[]).await?;
    let mut effective = ground.settings(&database, &simulated, POLL_INTERVAL)?;
    effective.set("queue.listen", listens.to_string());
    let mut worker = ground.worker(&effective, &[])?;
    let share = |seconds: f64| Duration::from_secs_f64((seconds * bench.options.scale()).max(1.0));
    tokio::time::sleep(share(STARTING)).await;
    let mut admin = ground.admin().await?;
    ground.forget_statements(&mut admin).await?;
    let watched = share(WATCHED);
    tokio::time::sleep(watched).await;
    let seconds = watched.as_secs_f64();
    let statements = ground.statements(&mut admin, NAME).await?;
    let does_listen = statistics::listens(&mut admin, NAME).await.map_err(Failure::failed)?;
    let connections = statistics::connections(&mut admin, NAME).await.map_err(Failure::failed)?;
    let memory = linux::memory(worker.id());
    if worker.has_ended()? {
        return Err(Failure::failed("the idle worker left"));
    }
    worker.stop().await?;
    simulated.stop().await?;
    ground.drop(database).await?;

    let (how, bound) = if listens { ("with LISTEN", 0.6) } else { ("without LISTEN", 2.0) };
    let what = format!("statements a second of an idle worker, {how}");
    let mut note =
        format!("in {} s, {} connections", number(seconds), connections.iter().map(|some| some.connections).sum::<i64>());
    if does_listen != listens {
        note = format!("{note}; it {} all the same", if does_listen { "listens" } else { "does not listen" });
    }
    let mut rows = vec![match statements {
        Some(statements) => Row::new(NAME, what, statements as f64 / seconds, "/s", Must::AtMost(bound)).note(note),
        None => Row::missing(NAME, what, super::NO_STATEMENTS),
    }];
    if listens {
        let what = "memory of an idle worker";
        rows.push(match memory {
            Some(memory) => {
                Row::new(NAME, what, memory.now, "MB", Must::AtMost(30.0)).note(format!("at its most {} MB", number(memory.peak)))
            }
            None => Row::missing(NAME, what, super::NOT_LINUX),
        });
    }
    Ok(rows)
}
