//! A **test double** of the upstream image API: it speaks the API's protocol on loopback, draws small pictures of its
//! own, bills nobody, and misbehaves on request.
//!
//! It is no part of the way to real pictures. It says what it is in the answer of `GET /`, in the header
//! `x-imagemill-simulator` of every answer, and in the line that `imagemill simulate` prints.
//!
//! What it accepted stands in its billing [ledger](LedgerEntry): the judge of whether anything was paid twice.

mod admin;
mod behaviour;
mod book;
mod connection;
mod job;
mod ledger;
mod options;
mod picture;
mod poll;
mod server;
mod span;
mod submit;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use self::{
    behaviour::{Behaviour, IdForm},
    ledger::{LedgerEntry, Stats, TaskStatus},
    options::{OptionsError, Rate, Rule, SimulatorOptions},
    span::{Span, SpanError},
};
use self::{
    connection::{Connection, Connections, CuttableListener},
    server::Shared,
};

/// What the simulator is, in one line.
pub const ABOUT: &str = "a test double of the image API: small drawn pictures, nothing is billed";

/// Why a simulator could not be started, or not be told something.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The port could not be listened on.
    #[error("the simulator cannot listen on 127.0.0.1:{port}: {source}")]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// The options are wrong.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// There is no such job.
    #[error("the simulator has no job {0}")]
    NoSuchJob(String),
}

/// A running simulator. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    connections: Connections,
    stopping: CancellationToken,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Simulator {
    /// Starts a simulator on loopback. It can be reached when this returns.
    pub async fn start(options: SimulatorOptions) -> Result<Self, SimulatorError> {
        options.validate()?;
        let port = options.port;
        let listen = |source| SimulatorError::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(listen)?;
        let address: SocketAddr = listener.local_addr().map_err(listen)?;
        let shared = Arc::new(Shared::new(options, format!("http://{address}")));
        let connections = Connections::default();
        let stopping = CancellationToken::new();
        let service = server::router(Arc::clone(&shared)).into_make_service_with_connect_info::<Connection>();
        let server = axum::serve(CuttableListener::new(listener, connections.clone()), service)
            .with_graceful_shutdown(stopping.clone().cancelled_owned());
        Ok(Self { shared, connections, stopping, server: Some(tokio::spawn(server.into_future())) })
    }

    /// Where it stands: `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Every accepted submit, in order of arrival.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.shared.book().ledger(0)
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.shared.book().stats.clone()
    }

    /// When the last polls arrived, in order, whatever they asked for and were told.
    pub fn polled_at(&self) -> Vec<DateTime<Utc>> {
        self.shared.book().polled_at.iter().copied().collect()
    }

    /// Changes the options; answers that wait look at them at once.
    ///
    /// # Errors
    /// If they are wrong afterwards; then nothing was changed.
    pub fn control(&self, change: impl FnOnce(&mut SimulatorOptions)) -> Result<(), SimulatorError> {
        self.shared.control(|options| {
            let mut next = options.clone();
            change(&mut next);
            Ok(next)
        })?;
        Ok(())
    }

    /// Gives an accepted job another behaviour from its next poll on.
    pub fn set_behaviour(&self, upstream_id: &str, behaviour: Behaviour) -> Result<(), SimulatorError> {
        if let Some(fault) = behaviour.fault() {
            return Err(OptionsError::Invalid(fault).into());
        }
        if self.shared.book().set_behaviour(upstream_id, behaviour) {
            Ok(())
        } else {
            Err(SimulatorError::NoSuchJob(upstream_id.to_owned()))
        }
    }

    /// Stops listening, resets every connection, and waits until both are done. What it knew can be read no more
    /// over HTTP; take [`Simulator::ledger`] before.
    pub async fn stop(mut self) {
        self.end();
        if let Some(server) = self.server.take() {
            match server.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the simulator's server ended badly"),
                Err(error) => tracing::warn!(%error, "the simulator's server ended badly"),
            }
        }
    }

    fn end(&self) {
        self.stopping.cancel();
        self.connections.cut_all();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.end();
    }
}
