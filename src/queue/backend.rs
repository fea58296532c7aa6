//! The thin apalis Backends over the engine.
//!
//! apalis asks for one task at a time, shows a backend no free slots, and polls nothing while it drains; so nothing that
//! matters lives here. `poll_next` reads a channel that the claimer fills and never returns an error: one error, one panic
//! or one undecodable payload would drop every future of apalis's Worker, submits in flight included.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tower::{Layer, Service};

use super::{engine::Engine, job::Job, outcome::Outcome};

/// The Backend of one queue.
pub struct QueueBackend {
    engine: Engine,
    jobs: Option<mpsc::UnboundedReceiver<Job>>,
}

impl Engine {
    /// The apalis Backend of a queue. The first call takes the queue's jobs; a further one gets a Backend that ends at once.
    pub fn backend(&self, queue: &str) -> QueueBackend {
        QueueBackend { engine: self.clone(), jobs: self.jobs(queue) }
    }
}

impl Backend for QueueBackend {
    type Task = Task<Job>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, context: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        let Some(jobs) = &mut self.jobs else { return Poll::Ready(None) };
        jobs.poll_recv(context).map(|job| {
            job.map(|job| {
                let id = TaskId::from_string(job.id.clone());
                Ok(TaskBuilder::new(job).task_id(id).build())
            })
        })
    }

    /// The engine's own stop waits until what was claimed is settled or put back; nothing is left to do here.
    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for QueueBackend {
    type Args = Job;
    type Id = TaskId;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = SettleLayer;

    fn config(&self) -> &Self::Config {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Self::Layer {
        SettleLayer { engine: self.engine.clone() }
    }
}

/// Spawns the handler, awaits its [`Outcome`], and has it settled.
#[derive(Clone)]
pub struct SettleLayer {
    engine: Engine,
}

impl<S> Layer<S> for SettleLayer {
    type Service = SettleService<S>;

    fn layer(&self, handler: S) -> Self::Service {
        SettleService { engine: self.engine.clone(), handler }
    }
}

/// See [`SettleLayer`].
#[derive(Clone)]
pub struct SettleService<S> {
    engine: Engine,
    handler: S,
}

impl<S> Service<Task<Job>> for SettleService<S>
where
    S: Service<Task<Job>, Response = Outcome>,
    S::Future: Send + 'static,
    S::Error: std::fmt::Display + Send + 'static,
{
    type Response = ();
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.handler.poll_ready(context)
    }

    fn call(&mut self, task: Task<Job>) -> Self::Future {
        let job = task.args.clone();
        let handled = self.handler.call(task);
        let executed = self.engine.execute(job, async move {
            handled.await.unwrap_or_else(|error| Outcome::internal(format!("the handler failed: {error}")))
        });
        Box::pin(async move {
            // The task settles by itself; if it could not be joined the runtime is going down, and its rescuer goes on.
            if let Err(error) = executed.await {
                tracing::error!(%error, "a job's task ended early");
            }
            Ok(())
        })
    }
}

/// A handler `Fn(Job) -> Future<Output = Outcome>` as the Service that apalis's builder takes.
#[derive(Clone)]
pub struct Handler<H>(pub H);

impl<H, F> Service<Task<Job>> for Handler<H>
where
    H: Fn(Job) -> F,
    F: Future<Output = Outcome> + Send + 'static,
{
    type Response = Outcome;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Job>) -> Self::Future {
        // Mapped, and not awaited in a block of its own, which would hold it twice: thousands are in flight at once.
        Box::pin((self.0)(task.args).map(Ok))
    }
}
