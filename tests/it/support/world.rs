//! A whole world for one test: a database, a simulator, and worker processes against both.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use imagemill::{
    config::Settings,
    crud::users,
    models::{Prompt, TaskDefinition, TaskInput},
    queue::Connections,
    services::{
        actor::Actor,
        context::Context,
        task_service::{self, CreatedTask},
    },
    simulator::{Simulator, SimulatorOptions},
};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;
use uuid::Uuid;

use super::postgres::{TestDatabase, database};

/// The token that simulator and workers share.
pub(crate) const TOKEN: &str = "the-right-token";

/// Lease of the workers in tests: short, so that a rescue is soon.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// How long a test waits for something before it says that it will not come: ten times the longest that any of them waits for,
/// which is a rescue after [`LEASE`] with all that follows from it. Only a test that fails takes longer by it.
pub(crate) const BOUND: Duration = Duration::from_secs(150);

/// Lines of a process that a failed test shows.
const LAST_WORDS: usize = 100;

/// See the module.
pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) simulator: Simulator,
    /// With settings that point to the simulator.
    pub(crate) context: Context,
    pub(crate) actor: Actor,
    /// Settings of the worker processes, beyond those of every test.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    /// A world with a simulator that takes its time as its default is.
    pub(crate) async fn new() -> Self {
        Self::with(SimulatorOptions::default()).await
    }

    /// A world with this simulator.
    pub(crate) async fn with(options: SimulatorOptions) -> Self {
        Self::on(database().await, options).await
    }

    /// A world with this simulator, on this database.
    pub(crate) async fn on(database: TestDatabase, options: SimulatorOptions) -> Self {
        let token = Some(SecretString::from(TOKEN));
        let simulator = Simulator::start(SimulatorOptions { token, ..options }).await.expect("start the simulator");
        let id = Uuid::now_v7();
        let roles = ["admin".to_owned()];
        let mut connection = database.pool.acquire().await.expect("a connection");
        assert!(users::insert(&mut connection, id, "tester", None, &roles).await.expect("insert the user"));
        // A test that is about a limit sets it.
        sqlx::query(
            "update imagemill.lanes set max_in_flight = 10000, ramp_start = null, ramp_step = null, ramp_interval = null",
        )
        .execute(&mut *connection)
        .await
        .expect("take the limits away");
        sqlx::query("delete from imagemill.audit").execute(&mut *connection).await.expect("nothing has happened yet");
        let user = users::get_by_username(&mut connection, "tester").await.expect("read the user").expect("the user");
        drop(connection);
        let mut settings = Settings::defaults().expect("the built-in settings");
        let base_url = url::Url::parse(simulator.url()).expect("the simulator's URL");
        for lane in settings.lanes.values_mut() {
            lane.base_url = Some(base_url.clone());
            lane.poll_interval = Duration::from_millis(100);
            lane.max_polls = 100;
            "x-imagemill-request".clone_into(&mut lane.request_id_header);
        }
        settings.upstream.api_token = Some(SecretString::from(TOKEN));
        settings.queue.lease = LEASE;
        settings.queue.beat = LEASE / 6;
        settings.queue.poll_interval = Duration::from_millis(200);
        settings.generate_image.backoff_min = Duration::from_millis(100);
        settings.generate_image.backoff_max = Duration::from_millis(400);
        settings.upstream.probe_interval = Duration::from_secs(1);
        let context = Context::new(database.pool.clone(), settings).with_upstream().expect("the upstream's client");
        let directory = tempfile::tempdir().expect("a directory");
        Self { database, simulator, context, actor: Actor::from(user), environment: BTreeMap::new(), directory }
    }

    /// Gives the lanes the limits back that a new database has.
    pub(crate) async fn limit_lanes(&self) {
        sqlx::query(
            "update imagemill.lanes
             set max_in_flight = case lane when 'prod' then 40 when 'ops' then 20 else 4 end,
                 ramp_start = case lane when 'ops' then 5 end, ramp_step = case lane when 'ops' then 5 end,
                 ramp_interval = case lane when 'ops' then interval '30 seconds' end",
        )
        .execute(self.pool())
        .await
        .expect("limit the lanes");
    }

    /// The pool of this test.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// The same, as the engine takes it.
    pub(crate) fn connections(&self) -> Connections {
        Connections::new(self.database.pool.clone(), false)
    }

    /// Sets a setting of the worker processes: `queue.lease` and so on.
    pub(crate) fn set(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Self {
        self.environment.insert(variable(key), value.to_string());
        self
    }

    /// A definition of so many cells, each with a prompt of its own.
    pub(crate) fn definition(&self, cells: usize) -> TaskDefinition {
        let mut input = TaskInput::new(format!("{cells} cells")).seed(7);
        if cells > 1 {
            // As two axes, since one has 100 values at most.
            let wide = (1..=100).rev().find(|wide| cells.is_multiple_of(*wide)).expect("one divides");
            let values = |name: &str, count: usize| {
                (0..count).map(|value| Prompt::freetext(format!("{name} {value}"))).collect::<Vec<_>>()
            };
            input = input.variable_prompt("first", values("first", wide));
            if cells > wide {
                input = input.variable_prompt("second", values("second", cells / wide));
            }
        } else {
            input = input.prompt(Prompt::freetext("a single cell"));
        }
        input.validate(&(&self.context.settings.limits).into()).expect("a sound definition")
    }

    /// A task of so many cells.
    pub(crate) async fn create(&self, cells: usize) -> CreatedTask {
        task_service::create_task(&self.context, &self.actor, &self.definition(cells)).await.expect("create the task")
    }

    /// The environment of every process of this world, and nothing of the machine's beside the path.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_imagemill")), arguments)
    }

    /// The same of another program: an older imagemill.
    pub(crate) fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("IMAGEMILL_IGNORE_ENV_FILES", "1")
            .env("DATABASE_URL", self.database.url.expose_secret())
            .env(variable("upstream.api_token"), TOKEN)
            .env(variable("queue.lease"), "3s")
            .env(variable("queue.beat"), "500ms")
            .env(variable("queue.poll_interval"), "200ms")
            .env(variable("generate_image.backoff_min"), "100ms")
            .env(variable("generate_image.backoff_max"), "400ms")
            .env(variable("upstream.probe_interval"), "1s")
            .env(variable("logs.directory"), "")
            .stdin(Stdio::null());
        for lane in ["prod", "ops", "dev"] {
            command
                .env(variable(&format!("lanes.{lane}.base_url")), self.simulator.url())
                .env(variable(&format!("lanes.{lane}.poll_interval")), "100ms")
                .env(variable(&format!("lanes.{lane}.max_polls")), "100")
                .env(variable(&format!("lanes.{lane}.request_id_header")), "x-imagemill-request");
        }
        command.envs(&self.environment);
        command
    }

    /// A worker process; it is killed when this is dropped.
    pub(crate) fn worker(&self, arguments: &[&str]) -> Process {
        self.worker_with(&[], arguments)
    }

    /// The same with more in its environment.
    pub(crate) fn worker_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Process {
        let mut all = vec!["worker"];
        all.extend(arguments);
        let mut command = self.command(&all);
        command.envs(environment.iter().copied());
        Process::start(command, self.directory.path().join(format!("worker-{}.log", Uuid::now_v7())))
    }

    /// Runs a worker until nothing is left.
    pub(crate) async fn drain(&self) {
        let mut worker = self.worker(&["--until-empty"]);
        let status = worker.wait().await;
        assert!(status.success(), "the worker ended with {status}:\n{}", worker.log());
    }

    /// One number of SQL.
    pub(crate) async fn number(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(self.pool()).await.unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// Counts of the cells by state (and kind of error), for instance `completed: 3, failed/refused: 1`.
    pub(crate) async fn cells(&self) -> String {
        let counts: Vec<(String, i64)> = sqlx::query_as(
            "select status || coalesce('/' || error_kind, ''), count(*) from imagemill.subtasks group by 1 order by 1",
        )
        .fetch_all(self.pool())
        .await
        .expect("count the cells");
        counts.into_iter().fold(String::new(), |mut text, (state, count)| {
            let comma = if text.is_empty() { "" } else { ", " };
            write!(text, "{comma}{state}: {count}").expect("write");
            text
        })
    }

    /// Waits for a condition in SQL.
    pub(crate) async fn until(&self, statement: &'static str) {
        self.until_within(BOUND, statement).await;
    }

    /// The same with a bound of its own: ten times the promise.
    pub(crate) async fn until_within(&self, bound: Duration, statement: &'static str) {
        eventually_within(bound, statement, || async {
            sqlx::query_scalar::<_, bool>(statement)
                .fetch_one(self.pool())
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"))
        })
        .await;
    }

    /// What holds at the end of every run: both ledgers say the same row by row, counts are the rows, nobody holds a job, and
    /// every round was completed once. Waits for the last job: a round's last cell ends before the job that rolls the task up.
    pub(crate) async fn assert_settled(&self) {
        self.until("select not exists (select from apalis.jobs where status in ('Pending', 'Running'))").await;
        assert_eq!(self.number("select count(*) from apalis.jobs where lock_by is not null").await, 0, "lock_by");
        assert_eq!(
            self.number("select count(*) from imagemill.subtasks where status in ('pending', 'processing')").await,
            0,
            "open cells"
        );
        assert_eq!(self.number("select count(*) from imagemill.tasks where completed_at is null").await, 0, "open tasks");
        assert_eq!(
            self.number("select count(*) from imagemill.attempts where state in ('submitting', 'accepted')").await,
            0,
            "open attempts"
        );
        let wrong = self
            .number(
                "select count(*) from imagemill.task_counts c
                 where (completed_subtasks, failed_subtasks, cancelled_subtasks) <>
                       (select count(*) filter (where status = 'completed'), count(*) filter (where status = 'failed'),
                               count(*) filter (where status = 'cancelled') from imagemill.subtasks s where s.task_id = c.task_id)",
            )
            .await;
        assert_eq!(wrong, 0, "counts that are not the rows");
        let completions = self.number("select count(*) from apalis.jobs where job_type = 'imagemill.complete_task'").await;
        assert_eq!(completions, self.number("select sum(round)::bigint from imagemill.tasks").await, "completions a round");
        self.assert_ledgers_agree().await;
    }

    /// Each accepted submit of the simulator is an attempt under the same id, or one that says itself that it is unknown; each
    /// id of an attempt was given by the simulator.
    pub(crate) async fn assert_ledgers_agree(&self) {
        let attempts: Vec<(String, String, Option<String>)> =
            sqlx::query_as("select subtask_id || '/' || ordinal, state, upstream_id from imagemill.attempts")
                .fetch_all(self.pool())
                .await
                .expect("read the attempts");
        let mut attempts: BTreeMap<String, (String, Option<String>)> =
            attempts.into_iter().map(|(id, state, upstream_id)| (id, (state, upstream_id))).collect();
        for entry in self.simulator.ledger() {
            let id = entry.request_id.clone().expect("a request id with every submit");
            let (state, upstream_id) =
                attempts.remove(&id).unwrap_or_else(|| panic!("{id} was billed and is in no row, or was billed twice"));
            match upstream_id {
                Some(upstream_id) => assert_eq!(upstream_id, entry.upstream_id, "{id}"),
                None => assert_eq!(state, "unknown", "{id} was billed and has no upstream id"),
            }
        }
        for (id, (state, upstream_id)) in attempts {
            assert_eq!(upstream_id, None, "{id} ({state}) has an id that the simulator never gave");
        }
        let miscounted = "
            select coalesce((select sum(submits) from imagemill.lane_days where day = (now() at time zone 'UTC')::date), 0)::bigint
                   - (select count(*) from imagemill.attempts
                      where (submitted_at at time zone 'UTC')::date = (now() at time zone 'UTC')::date
                        and state not in ('submitting', 'accepted', 'not_sent', 'turned_away', 'rejected'))";
        assert_eq!(self.number(miscounted).await, 0, "what counts for the lanes' days is not what the attempts say");
        let not_seen = "
            select count(*) from (select subtask_id from imagemill.attempts
                                  where state not in ('submitting', 'not_sent', 'turned_away', 'rejected')
                                  group by subtask_id having count(*) > 1) twice
            full join imagemill.double_paid seen on seen.id = twice.subtask_id
            where twice.subtask_id is null or seen.id is null";
        assert_eq!(self.number(not_seen).await, 0, "double_paid is not what the attempts say");
    }

    /// Accepted submits of the simulator, by cell.
    pub(crate) fn billed(&self) -> BTreeMap<String, usize> {
        let mut billed = BTreeMap::new();
        for entry in self.simulator.ledger() {
            let id = entry.request_id.expect("a request id with every submit");
            let cell = id.split('/').next().unwrap_or_default().to_owned();
            *billed.entry(cell).or_insert(0) += 1;
        }
        billed
    }
}

/// The environment variable of a setting.
fn variable(key: &str) -> String {
    format!("IMAGEMILL_{}", key.replace('.', "__").to_uppercase())
}

/// A process that does not outlive its test.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).expect("create the log");
        let child = command.stdout(file.try_clone().expect("share the log")).stderr(file).spawn().expect("start the process");
        Self { child, log }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of what it said, for messages.
    pub(crate) fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    /// kill -9, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("a process id");
        rustix::process::kill_process(id, signal).expect("send the signal");
    }

    /// Ends it by a second signal, and waits for its end. What comes in the first one's moment is the same sign, so it is sent until
    /// it is heard.
    pub(crate) async fn hurry(&mut self) -> ExitStatus {
        let deadline = Instant::now() + 2 * BOUND;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "no further signal ends it:\n{}", self.log());
            self.signal(rustix::process::Signal::TERM);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("look at the process")
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("look at the process").is_none()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + 2 * BOUND;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the process") {
                return status;
            }
            assert!(Instant::now() < deadline, "the process did not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- process {}:\n{}", self.child.id(), self.last_words());
        }
        self.kill();
    }
}

/// Waits for a condition, with a bound.
pub(crate) async fn eventually<F, R>(what: &str, condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    eventually_within(BOUND, what, condition).await;
}

/// The same with a bound of its own.
pub(crate) async fn eventually_within<F, R>(bound: Duration, what: &str, mut condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Around each look as well, which may be what hangs.
    tokio::time::timeout(bound, waiting).await.unwrap_or_else(|_| panic!("waited {bound:?} in vain for: {what}"));
}
