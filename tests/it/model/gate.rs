//! A gate between one session and PostgreSQL: every statement waits in front of it until the test lets it pass.
//!
//! So two transactions are interleaved at the borders of their statements, as the test says and not as the machine happens to run.
//! What has no say in that passes by itself: preparing a statement, BEGIN, ROLLBACK.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::{net::TcpListener, sync::Notify};

use super::connection::Connection;
use crate::support::Server;

/// What becomes of the statement in front of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passing {
    /// It passes, and its answer comes back.
    Through,
    /// It passes, and the connection is cut instead of the answer.
    AnswerLost,
    /// The connection is cut before it passes.
    Cut,
}

/// A transaction that PostgreSQL has committed: the texts of its statements.
pub(super) type Committed = Vec<String>;

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub(super) struct State {
    /// Nothing waits: for preparing and draining.
    pub(super) is_open: bool,
    /// A statement is in front of the gate.
    pub(super) is_parked: bool,
    pub(super) order: Option<Passing>,
    /// A statement has passed and is not answered.
    pub(super) is_running: bool,
    pub(super) in_transaction: bool,
    /// The process of PostgreSQL behind the gate, while there is one.
    pub(super) backend: Option<i32>,
    pub(super) committed: Vec<Committed>,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// For the connection: an order came.
    pub(super) ordered: Notify,
    /// For the test: something has changed.
    pub(super) changed: Arc<Notify>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a statement is to wait.
    pub(super) fn parks(&self) -> bool {
        let mut state = self.state();
        state.is_parked = !state.is_open;
        state.is_parked
    }

    /// The connection is gone.
    pub(super) fn ends(&self) {
        let mut state = self.state();
        *state = State { is_open: state.is_open, committed: std::mem::take(&mut state.committed), ..State::default() };
    }
}

/// The gate of one session, which has one connection at a time.
pub(super) struct Gate {
    shared: Arc<Shared>,
    port: u16,
    listener: tokio::task::JoinHandle<()>,
}

impl Gate {
    /// A gate before this server; it stands open at first.
    pub(super) async fn start(server: Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listen on loopback");
        let port = listener.local_addr().expect("the listener's address").port();
        let shared = Arc::new(Shared::default());
        shared.state().is_open = true;
        let serving = Arc::clone(&shared);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = server.connect().await.expect("connect to PostgreSQL");
                Connection::new(Arc::clone(&serving)).serve(client, server).await;
                serving.ends();
                serving.changed.notify_one();
            }
        });
        Self { shared, port, listener }
    }

    /// This database's URL, by way of the gate.
    pub(super) fn url(&self, database: &SecretString) -> String {
        let mut url = url::Url::parse(database.expose_secret()).expect("the database's URL");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(self.port)).expect("a port");
        url.into()
    }

    /// From now on statements wait, or do not.
    pub(super) fn set_open(&self, is_open: bool) {
        self.shared.state().is_open = is_open;
        if is_open {
            self.order(Passing::Through);
        }
    }

    /// Says what becomes of the statement in front of the gate. False: there is none.
    pub(super) fn order(&self, passing: Passing) -> bool {
        let mut state = self.shared.state();
        if !state.is_parked {
            return false;
        }
        state.is_parked = false;
        state.is_running = true;
        state.order = Some(passing);
        drop(state);
        self.shared.ordered.notify_one();
        true
    }

    /// Whether a statement waits in front of it.
    pub(super) fn is_parked(&self) -> bool {
        self.shared.state().is_parked
    }

    /// Whether nothing is under way behind it: no statement and no transaction.
    pub(super) fn is_at_rest(&self) -> bool {
        let state = self.shared.state();
        !state.is_running && !state.in_transaction && !state.is_parked
    }

    /// The process of PostgreSQL behind it.
    pub(super) fn backend(&self) -> Option<i32> {
        self.shared.state().backend
    }

    /// The process of PostgreSQL that has an unanswered statement.
    pub(super) fn running(&self) -> Option<i32> {
        let state = self.shared.state();
        state.backend.filter(|_| state.is_running)
    }

    /// What was committed since the last call.
    pub(super) fn take_committed(&self) -> Vec<Committed> {
        std::mem::take(&mut self.shared.state().committed)
    }

    /// Told whenever something changes here; to be told by others as well.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.changed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
