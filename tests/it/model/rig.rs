//! What all sequences of one thread share: a database, the gates before it, and the task that is made anew for each.

use std::{sync::Arc, time::Duration};

use imagemill::{
    config::Settings,
    crud::users,
    models::{Prompt, TaskInput},
    queue::{EngineOptions, Queue},
    services::{actor::Actor, context::Context, processing, task_service},
};
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use super::{gate::Gate, rows::Tables, session::Session};
use crate::support::{Server, TestDatabase, database};

/// Workers whose statements wait; then the operator; then the worker that drains what they leave.
pub(super) const WORKERS: usize = 2;
pub(super) const OPERATOR: usize = 2;
pub(super) const DRAINER: usize = 3;
const SESSIONS: usize = 4;

pub(super) struct Rig {
    pub(super) runtime: Arc<tokio::runtime::Runtime>,
    pub(super) sessions: Vec<Session>,
    /// Looks on, past the gates.
    pub(super) observer: PgConnection,
    context: Context,
    actor: Actor,
    sequences: u32,
    _database: TestDatabase,
}

impl Rig {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(Self::prepare()).into_rig(runtime)
    }

    async fn prepare() -> Prepared {
        let database = database().await;
        // Two that wait for one another are told so at once.
        sqlx::query(sqlx::AssertSqlSafe(format!("alter database {} set deadlock_timeout = '20ms'", database.name)))
            .execute(&database.pool)
            .await
            .expect("a short time-out for deadlocks");
        let id = Uuid::now_v7();
        let mut connection = database.pool.acquire().await.expect("a connection");
        assert!(users::insert(&mut connection, id, "tester", None, &["admin".to_owned()]).await.expect("insert the user"));
        let user = users::get_by_username(&mut connection, "tester").await.expect("read the user").expect("the user");
        drop(connection);
        let server = Server::of(&database.url);
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let gate = Gate::start(server.clone()).await;
            let options: PgConnectOptions = gate.url(&database.url).parse().expect("a URL for sqlx");
            let pool: PgPool = PgPoolOptions::new().max_connections(1).test_before_acquire(false).connect_lazy_with(options);
            sessions.push(Session::new(gate, pool));
        }
        let options = (*database.pool.connect_options()).clone();
        let observer = PgConnection::connect_with(&options).await.expect("an observer");
        let settings = Settings::defaults().expect("the built-in settings");
        let context = Context::new(database.pool.clone(), settings);
        Prepared { sessions, observer, context, actor: Actor::from(user), database }
    }

    fn queues(&self) -> Vec<Queue> {
        // As many as it likes: jobs are kept for longer here than by a worker.
        processing::queues(&self.context.settings, 10_000, vec!["prod".to_owned()])
    }

    fn options(&self) -> EngineOptions {
        processing::engine_options(&self.context.settings, None)
    }

    /// Nothing is left of the sequence before; a task of so many cells, and workers that hold nothing. Returns the task.
    pub(super) async fn renew(&mut self, cells: usize) -> Uuid {
        for session in &mut self.sessions {
            if let Some(flight) = session.flight.take() {
                flight.task.abort();
            }
            session.gate.set_open(true);
            until("the gate is at rest", || session.gate.is_at_rest()).await;
        }
        self.sequences += 1;
        let clear = "delete from imagemill.attempts; delete from imagemill.subtasks; delete from imagemill.task_counts;
                     delete from imagemill.tasks; delete from apalis.jobs; delete from apalis.workers; delete from imagemill.incarnations";
        sqlx::raw_sql(clear).execute(&mut self.observer).await.expect("clear the tables");
        if self.sequences.is_multiple_of(100) {
            let vacuum = "vacuum imagemill.attempts, imagemill.subtasks, imagemill.task_counts, imagemill.tasks, apalis.jobs,
                          apalis.workers, imagemill.incarnations";
            sqlx::raw_sql(vacuum).execute(&mut self.observer).await.expect("vacuum the tables");
        }
        let prompts = (0..cells).map(|cell| Prompt::freetext(format!("cell {cell}")));
        let input = TaskInput::new("model").seed(7).variable_prompt("prompt", prompts);
        let definition = input.validate(&(&self.context.settings.limits).into()).expect("a sound definition");
        let task = task_service::create_task(&self.context, &self.actor, &definition).await.expect("create the task").id;
        let options = self.options();
        for index in 0..SESSIONS {
            let queues = self.queues();
            self.sessions[index].register(&options, queues).await;
            let gate = &self.sessions[index].gate;
            until("the gate is at rest", || gate.is_at_rest()).await;
            gate.take_committed();
            gate.set_open(index == DRAINER);
        }
        task
    }

    /// The tables as they stand.
    pub(super) async fn read(&mut self) -> Tables {
        let seen: serde_json::Value = sqlx::query_scalar(READ).fetch_one(&mut self.observer).await.expect("read the tables");
        let mut tables: Tables = serde_json::from_value(seen).expect("the tables");
        for cell in tables.cells.keys() {
            tables.attempts.entry(*cell).or_default();
        }
        tables
    }

    /// Whether this process of PostgreSQL waits for another one's lock.
    pub(super) async fn is_blocked(&mut self, process: i32) -> bool {
        sqlx::query_scalar("select cardinality(pg_blocking_pids($1)) > 0")
            .bind(process)
            .fetch_one(&mut self.observer)
            .await
            .expect("look at the locks")
    }

    /// The processes that hold the locks that these wait for.
    pub(super) async fn holders(&mut self, waiting: &[i32]) -> Vec<i32> {
        sqlx::query_scalar("select distinct unnest(pg_blocking_pids(pid)) from unnest($1::integer[]) as waiting (pid)")
            .bind(waiting)
            .fetch_all(&mut self.observer)
            .await
            .expect("look at the locks")
    }
}

struct Prepared {
    sessions: Vec<Session>,
    observer: PgConnection,
    context: Context,
    actor: Actor,
    database: TestDatabase,
}

impl Prepared {
    fn into_rig(self, runtime: tokio::runtime::Runtime) -> Rig {
        let Self { sessions, observer, context, actor, database } = self;
        Rig { runtime: Arc::new(runtime), sessions, observer, context, actor, sequences: 0, _database: database }
    }
}

/// Waits for something that this process does.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = tokio::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_mins(1), "{what}: not after a minute");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const READ: &str = "select jsonb_build_object(
    'jobs', (select coalesce(jsonb_object_agg(id, jsonb_build_object('key', idempotency_key, 'queue', job_type, 'status', status,
                                                                     'worker', lock_by, 'claim', attempts)), '{}') from apalis.jobs),
    'cells', (select jsonb_object_agg(id, jsonb_build_object('status', status, 'attempt_count', attempt_count,
                                                             'error_kind', error_kind,
                                                             'is_cancel_requested', cancel_requested_at is not null))
              from imagemill.subtasks),
    'attempts', (select coalesce(jsonb_object_agg(subtask_id, rows), '{}')
                 from (select subtask_id, jsonb_agg(jsonb_build_object('state', state, 'claim', claim, 'worker', worker,
                                                                       'upstream_id', upstream_id) order by ordinal) as rows
                       from imagemill.attempts group by subtask_id) as by_cell),
    'task', (select jsonb_build_object('completed', completed_subtasks, 'failed', failed_subtasks,
                                       'cancelled', cancelled_subtasks, 'status', status)
             from imagemill.tasks join imagemill.task_counts on task_id = id),
    'stale_writes', (select coalesce(sum(stale_writes), 0) from imagemill.incarnations))";
