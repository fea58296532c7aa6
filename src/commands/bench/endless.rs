//! Workers whose cells the upstream does not finish: what becomes of those that are held.

use std::time::{Duration, Instant};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Bench,
    ground::{Database, Ground},
    process::Process,
    simulated::Simulated,
    tasks::{self, DRAINED, Grid, cells, scaled},
};
use crate::{
    commands::{effective::Effective, report::Failure},
    db::bench::rows,
};

/// For cells to come to a state.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks.
const TICK: Duration = Duration::from_millis(20);

/// Cells that are held.
const CELLS: f64 = 200.0;

/// See the module.
pub(super) struct Endless {
    pub(super) database: Database,
    pub(super) simulated: Simulated,
    /// To look at the rows.
    pub(super) connection: PgConnection,
    /// Settings of the workers.
    pub(super) effective: Effective,
}

/// A grid of the cells that are held, or of this multiple of them.
pub(super) fn held(bench: &Bench, times: f64) -> Grid {
    scaled(DRAINED, times * (CELLS / cells(DRAINED) as f64 * bench.options.scale()).max(0.02))
}

impl Endless {
    /// Prepares a database of that name, and an upstream that is asked so often; no worker yet.
    pub(super) async fn prepare(bench: &Bench, name: &str, poll_interval: &str) -> Result<Self, Failure> {
        let database = bench.ground.database(name).await?;
        let simulated = bench.simulated(&["--duration", "3600000"]).await?;
        let mut effective = bench.ground.settings(&database, &simulated, poll_interval)?;
        effective.set("lanes.prod.max_polls", "1000000");
        let connection = database.connect().await?;
        Ok(Self { database, simulated, connection, effective })
    }

    /// Creates a task.
    pub(super) async fn create(&self, ground: &Ground, grid: Grid) -> Result<Uuid, Failure> {
        tasks::create_for(&self.database, &ground.actor, &tasks::definition("endless", grid)?).await
    }

    /// Waits until so many attempts are in this state.
    pub(super) async fn until(&mut self, state: &str, wanted: usize) -> Result<(), Failure> {
        let began = Instant::now();
        while rows::attempts(&mut self.connection, state).await.map_err(Failure::failed)? < wanted as i64 {
            go_on(began, format_args!("not all of {wanted} cells were {state}"))?;
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// The upstream ids that this worker polls.
    pub(super) async fn held_by(&mut self, worker: &Process) -> Result<Vec<String>, Failure> {
        let process = i32::try_from(worker.id()).map_err(Failure::failed)?;
        rows::held_by(&mut self.connection, process).await.map_err(Failure::failed)
    }

    /// Waits until this worker polls none, as the rows have it. Returns how long that took.
    pub(super) async fn until_none_held(&mut self, worker: &Process) -> Result<Duration, Failure> {
        let began = Instant::now();
        while !self.held_by(worker).await?.is_empty() {
            go_on(began, format_args!("the worker does not let go of its cells"))?;
            tokio::time::sleep(TICK).await;
        }
        Ok(began.elapsed())
    }

    /// Ends what is not a worker.
    pub(super) async fn stop(self, ground: &Ground) -> Result<(), Failure> {
        self.simulated.stop().await?;
        drop(self.connection);
        ground.drop(self.database).await
    }
}

fn go_on(began: Instant, what: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    if began.elapsed() > PATIENCE { Err(Failure::failed(what)) } else { Ok(()) }
}
