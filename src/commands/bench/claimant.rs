//! A worker in the benchmark's own process that does nothing but claim: so many cells at a time, which it ends, failed, without a submit.
//! So each of its claims is one of as many, however fast the upstream is, and each is of cells that nobody has claimed before, as a
//! worker's are. By itself it writes rows by their ids, and nothing else: the least that any claim of them can take.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use sqlx::PgConnection;

use crate::{
    commands::report::Failure,
    db::bench::bare,
    models::payload::GenerateImage,
    queue::{
        self, EngineOptions, Job, Outcome,
        steps::{Knowledge, Steps},
    },
    services::{processing, subtask_service},
};

use super::ground::Database;

/// Cells of one claim.
pub(super) const WANTED: usize = 40;

/// Between the beginnings of two claims.
pub(super) const EVERY: Duration = Duration::from_millis(100);

/// Lanes that it claims of: those of every worker.
const LANES: [&str; 2] = ["prod", "ops"];

/// See the module.
pub(super) struct Claimant {
    steps: Steps,
    knowledge: Knowledge,
    connection: PgConnection,
    beat: Duration,
    beaten: Instant,
}

/// One of its claims.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) cells: usize,
    pub(super) took_ms: f64,
}

impl Claimant {
    /// Registers it as a worker of this database.
    pub(super) async fn register(database: &Database) -> Result<Self, Failure> {
        let context = &database.context;
        // As a worker process has it.
        let options = EngineOptions { keeps_connections: true, ..processing::engine_options(&context.settings, None) };
        let queues = processing::queues(&context.settings, WANTED, LANES.map(str::to_owned).to_vec());
        let beat = options.beat;
        let steps = Steps::register(context.pool.clone(), options, queues).await.map_err(Failure::failed)?;
        let mut connection = database.connect().await?;
        bare::prepare(&mut connection).await.map_err(Failure::failed)?;
        Ok(Self { steps, knowledge: Knowledge::default(), connection, beat, beaten: Instant::now() })
    }

    /// Claims as many as there are, up to its number, and ends them; and waits until the next one's time.
    pub(super) async fn claim(&mut self) -> Result<Taken, Failure> {
        let began = Instant::now();
        let (jobs, taken) = self.claim_some().await?;
        self.end(jobs).await?;
        tokio::time::sleep(EVERY.saturating_sub(began.elapsed())).await;
        Ok(taken)
    }

    /// Claims as many and puts them back, writes those rows once more by themselves, and ends them. Returns what the writing took, in
    /// milliseconds; none: a worker has taken some of them meanwhile.
    pub(super) async fn bare(&mut self) -> Result<Option<f64>, Failure> {
        let began = Instant::now();
        let (jobs, _) = self.claim_some().await?;
        self.steps.put_back(&jobs).await.map_err(Failure::failed)?;
        let ids: Vec<String> = jobs.iter().map(|job| job.id.clone()).collect();
        let worker = self.steps.name();
        let sent = Instant::now();
        let taken = bare::take(&mut self.connection, &ids, &worker).await.map_err(Failure::failed)?;
        let took_ms = sent.elapsed().as_secs_f64() * 1000.0;
        let taken: HashSet<String> = taken.into_iter().map(|(id, _)| id).collect();
        let mut held: Vec<Job> = jobs.into_iter().filter(|job| taken.contains(&job.id)).collect();
        for job in &mut held {
            job.claim += 1;
        }
        self.end(held).await?;
        tokio::time::sleep(EVERY.saturating_sub(began.elapsed())).await;
        Ok((taken.len() == WANTED).then_some(took_ms))
    }

    /// Ends these as a worker ends what fails.
    async fn end(&self, jobs: Vec<Job>) -> Result<(), Failure> {
        let settles: Vec<_> = jobs.into_iter().map(|job| (job, Outcome::internal("claimed by the benchmark"))).collect();
        queue::settle(self.steps.connections(), &*subtask_service::hook(), &settles).await.map_err(Failure::failed)?;
        for (job, _) in &settles {
            self.steps.release(job);
        }
        Ok(())
    }

    async fn claim_some(&mut self) -> Result<(Vec<Job>, Taken), Failure> {
        if self.beaten.elapsed() >= self.beat {
            self.steps.beat().await.map_err(Failure::failed)?;
            self.beaten = Instant::now();
        }
        let began = Instant::now();
        let claimed = self.steps.claim_knowing(GenerateImage::QUEUE, WANTED, &mut self.knowledge).await;
        let took_ms = began.elapsed().as_secs_f64() * 1000.0;
        let jobs = claimed.map_err(Failure::failed)?;
        let taken = Taken { cells: jobs.len(), took_ms };
        Ok((jobs, taken))
    }

    /// Leaves.
    pub(super) async fn leave(self) -> Result<(), Failure> {
        self.steps.leave().await.map_err(Failure::failed)
    }
}
