//! A world whose workers reach PostgreSQL through a proxy each, and what is known of those that were killed or stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use imagemill::simulator::SimulatorOptions;
use rustix::process::Signal;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use super::record;
use crate::support::{BOUND, Orders, OwnServer, Process, Proxy, Reached, Server, World, database, eventually};

/// See the module.
pub(super) struct Fleet {
    pub(super) world: World,
    /// What the proxies of all workers are ordered to do.
    pub(super) orders: Arc<Orders>,
    way: Server,
    noted: Mutex<Noted>,
}

/// What was seen at the faults, for the judge.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Request ids whose rows were `submitting` when their worker was killed or stopped.
    pub(super) excused: BTreeSet<String>,
    /// Request ids whose rows were `submitting` when the script cut their worker off from PostgreSQL.
    pub(super) cut: BTreeSet<String>,
    /// Request ids whose rows were `submitting` when their worker was told to leave.
    pub(super) leaving: BTreeSet<String>,
    /// Numbers of the processes that were killed or stopped.
    pub(super) struck: BTreeSet<u32>,
    /// The process behind each proxy.
    processes: BTreeMap<u64, u32>,
}

/// A worker process and the proxy between it and PostgreSQL.
pub(super) struct Worker {
    pub(super) process: Process,
    pub(super) proxy: Proxy,
}

impl Fleet {
    /// A fleet on the run's server.
    pub(super) async fn new(options: SimulatorOptions) -> Self {
        let database = database().await;
        let way = Server::of(&database.url);
        Self::on(World::on(database, options).await, way).await
    }

    /// A fleet on a server that can be stopped.
    pub(super) async fn with_own_server(options: SimulatorOptions) -> (Self, OwnServer) {
        let (server, database) = OwnServer::start().await;
        let way = server.way.clone();
        (Self::on(World::on(database, options).await, way).await, server)
    }

    async fn on(world: World, way: Server) -> Self {
        record::begin(world.pool()).await;
        // An upstream that answers 429 for no reason says nothing of how fast it may be asked.
        let calm = "update imagemill.lanes set rate_adapts = false";
        sqlx::query(calm).execute(world.pool()).await.expect("no rate is lowered");
        Self { world, orders: Arc::default(), way, noted: Mutex::default() }
    }

    /// What was seen at the faults.
    pub(super) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker process.
    pub(super) async fn worker(&self, arguments: &[&str]) -> Worker {
        self.start(None, arguments).await
    }

    /// A worker process that ends, or stops, at a point: `ledger_committed:3`, `settle_uncommitted:1:stop`.
    pub(super) async fn doomed(&self, order: &str, arguments: &[&str]) -> Worker {
        self.start(Some(order), arguments).await
    }

    async fn start(&self, order: Option<&str>, arguments: &[&str]) -> Worker {
        let proxy = Proxy::start(self.way.clone(), Arc::clone(&self.orders)).await;
        let mut command = self.world.command(&[&["worker"], arguments].concat());
        command.env("DATABASE_URL", proxy.url(&self.world.database.url).expose_secret());
        if let Some(order) = order {
            command.env("IMAGEMILL_FAULT_POINT", order);
        }
        let log = self.world.directory.path().join(format!("worker-{}.log", Uuid::now_v7()));
        let process = Process::start(command, log);
        self.noted().processes.insert(proxy.number(), process.id());
        Worker { process, proxy }
    }

    /// A killed worker: waits until PostgreSQL has nothing of it under way any more, and notes what it had out. Returns the
    /// request ids of its rows that are `submitting`.
    pub(super) async fn bury(&self, worker: &Worker) -> BTreeSet<String> {
        self.noted().struck.insert(worker.process.id());
        eventually("its sessions are gone", || async { worker.proxy.backends() == 0 }).await;
        let out = self.submitting(worker).await;
        self.noted().excused.extend(out.iter().cloned());
        out
    }

    /// Stops a worker as by `kill -STOP`, and notes what it has out.
    pub(super) async fn halt(&self, worker: &Worker) {
        self.noted().struck.insert(worker.process.id());
        worker.process.signal(Signal::STOP);
        self.note_halted(worker).await;
    }

    /// Notes what a worker has out that stopped by itself.
    pub(super) async fn note_halted(&self, worker: &Worker) {
        self.noted().struck.insert(worker.process.id());
        // At once, since another may find it dead before what it had asked for is answered; and again when that is.
        let out = self.submitting(worker).await;
        self.noted().excused.extend(out);
        // It may wait for a lock, or go on asking where it runs again: that it is quiet is no promise.
        let quiet = async {
            while worker.proxy.unanswered() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), quiet).await;
        let out = self.submitting(worker).await;
        self.noted().excused.extend(out);
    }

    /// A worker is about to lose the answer to a commit of its ledger: notes what it has out.
    pub(super) async fn excuse_cut(&self, proxy: u64) {
        let out = self.submitting_of(self.process_of(proxy)).await;
        self.noted().cut.extend(out);
    }

    /// A worker waits for the answer to a settle that put cells back. Waits until it has one of them under way anew, so that the settle,
    /// repeated, meets its own next claim; not for long, since others may have them.
    pub(super) async fn begins_anew(&self, reached: &Reached) -> bool {
        let process = self.process_of(reached.proxy);
        let begun = async {
            while !record::is_begun_anew(self.world.pool(), reached.backend, process).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), begun).await.is_ok()
    }

    fn process_of(&self, proxy: u64) -> u32 {
        self.noted().processes.get(&proxy).copied().expect("a proxy of this fleet")
    }

    /// Request ids of this worker's rows that are `submitting`; asked until PostgreSQL answers.
    pub(super) async fn submitting(&self, worker: &Worker) -> BTreeSet<String> {
        self.submitting_of(worker.process.id()).await
    }

    async fn submitting_of(&self, process: u32) -> BTreeSet<String> {
        let process = i32::try_from(process).expect("a process id");
        let deadline = Instant::now() + BOUND;
        loop {
            let rows: Result<Vec<String>, _> = sqlx::query_scalar(
                "select subtask_id || '/' || ordinal from imagemill.attempts
                 where state = 'submitting' and worker in (select name from imagemill.incarnations where pid = $1)",
            )
            .bind(process)
            .fetch_all(self.world.pool())
            .await;
            match rows {
                Ok(rows) => return rows.into_iter().collect(),
                // It is away just now, as the script wants it.
                Err(error) => assert!(Instant::now() < deadline, "PostgreSQL does not say what is out: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a condition in SQL; a server that is away does not fulfil it.
    pub(super) async fn until(&self, statement: &'static str) {
        eventually(statement, || async {
            sqlx::query_scalar::<_, bool>(statement).fetch_one(self.world.pool()).await.unwrap_or(false)
        })
        .await;
    }

    /// Waits until every task has ended.
    pub(super) async fn until_ended(&self) {
        self.until("select bool_and(completed_at is not null) from imagemill.tasks").await;
    }
}

impl Worker {
    /// Waits until it has registered, or has ended.
    pub(super) async fn started(&mut self) {
        let deadline = Instant::now() + BOUND;
        let mut ended = false;
        while !ended && !self.process.log().contains("started") {
            assert!(Instant::now() < deadline, "it does not start:\n{}", self.process.last_words());
            tokio::time::sleep(Duration::from_millis(10)).await;
            ended = self.process.ended().is_some();
        }
    }

    /// Asserts that it runs.
    pub(super) fn assert_runs(&mut self) {
        let ended: Option<ExitStatus> = self.process.ended();
        assert_eq!(ended, None, "a worker ended by itself:\n{}", self.process.last_words());
    }

    /// Tells it to leave, and asserts that it left in order: everything settled or handed over.
    pub(super) async fn leave(mut self) {
        self.assert_runs();
        self.process.signal(Signal::TERM);
        let status = self.process.wait().await;
        assert_eq!(status.code(), Some(0), "a worker left with {status}:\n{}", self.process.last_words());
    }
}
