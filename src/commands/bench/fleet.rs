//! Four worker processes, a simulator whose jobs last, and one lane that has limits.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::{Bench, ground::Database, process::Process, simulated::Simulated};
use crate::{
    commands::report::Failure,
    db::bench::lanes::{self, Held},
};

/// The lane.
pub(super) const LANE: &str = "prod";

/// Workers, and the slots of each.
pub(super) const WORKERS: usize = 4;
const SLOTS: &str = "40";

/// Between two polls of a job: short beside what a job lasts.
const POLL_INTERVAL: &str = "100ms";

/// For a lane to become full, or for a task to end.
const PATIENCE: Duration = Duration::from_mins(5);

/// How often is looked.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// So many seconds, or fewer where the scale is less than a tenth: nobody wants to wait for the upstream then.
pub(super) fn seconds(bench: &Bench, seconds: f64) -> f64 {
    seconds * (10.0 * bench.options.scale()).clamp(0.1, 1.0)
}

/// See the module.
pub(super) struct Fleet {
    pub(super) database: Database,
    pub(super) simulated: Simulated,
    /// To look at the rows.
    pub(super) connection: PgConnection,
    workers: Vec<Process>,
}

impl Fleet {
    /// Prepares a database of that name and a simulator whose jobs last between so many seconds; no worker yet.
    pub(super) async fn prepare(bench: &Bench, name: &str, (least, most): (f64, f64)) -> Result<Self, Failure> {
        let database = bench.ground.database(name).await?;
        let duration = format!("{:.0}-{:.0}", least * 1000.0, most * 1000.0);
        let simulated = bench.simulated(&["--duration", &duration]).await?;
        let connection = database.connect().await?;
        Ok(Self { database, simulated, connection, workers: Vec::new() })
    }

    /// Starts the workers.
    pub(super) fn start(&mut self, bench: &Bench) -> Result<(), Failure> {
        self.start_with(bench, &[])
    }

    /// The same, with settings.
    pub(super) fn start_with(&mut self, bench: &Bench, settings: &[(&str, &str)]) -> Result<(), Failure> {
        let mut effective = bench.ground.settings(&self.database, &self.simulated, POLL_INTERVAL)?;
        effective.set("lanes.prod.max_polls", "1000000");
        for (key, value) in settings {
            effective.set(key, *value);
        }
        for _ in 0..WORKERS {
            self.workers.push(bench.ground.worker(&effective, &["--concurrency", SLOTS])?);
        }
        Ok(())
    }

    /// Sets what the lane allows.
    pub(super) async fn limit(&mut self, places: i32, rate: Option<(f64, i32)>) -> Result<(), Failure> {
        lanes::limit(&mut self.connection, LANE, places, rate).await.map_err(Failure::failed)
    }

    /// What the lane holds now.
    pub(super) async fn held(&mut self) -> Result<Held, Failure> {
        lanes::held(&mut self.connection, LANE).await.map_err(Failure::failed)
    }

    /// Waits until so many cells are in flight.
    pub(super) async fn until_full(&mut self, places: i64) -> Result<(), Failure> {
        let began = Instant::now();
        while self.held().await?.in_flight < places {
            self.go_on(began)?;
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// A look more, where the workers are there and it does not take too long.
    pub(super) fn go_on(&mut self, began: Instant) -> Result<(), Failure> {
        for worker in &mut self.workers {
            worker.has_ended()?;
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::failed("the workers do not come to an end"));
        }
        Ok(())
    }

    /// Ends all of it. What is in flight is handed over, and goes with the database.
    pub(super) async fn stop(self, bench: &Bench) -> Result<(), Failure> {
        for worker in self.workers {
            worker.stop().await?;
        }
        self.simulated.stop().await?;
        drop(self.connection);
        bench.ground.drop(self.database).await
    }
}
