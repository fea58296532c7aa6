//! A fleet behind PgBouncer in transaction mode: everything works by looking alone, and no statement gets another's answer.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use imagemill::{
    db::pool,
    services::{context::Context, task_progress, task_service},
    simulator::{SimulatorOptions, Span},
};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection};
use url::Url;

use crate::{
    commands::output,
    support::{BOUND, Process, World, eventually, temporary_directory},
};

/// Sessions of the server that all clients share: few, so that each is handed from one to the next all the time.
const SESSIONS: usize = 4;

/// A pooler of this test; it ends with it.
struct Pooler {
    url: SecretString,
    _process: Process,
}

/// The program, where the system has it.
fn program() -> Option<PathBuf> {
    let places = std::env::var("PATH").unwrap_or_default();
    let places = places.split(':').chain(["/usr/sbin", "/usr/bin", "/usr/local/sbin"]);
    places.map(|place| Path::new(place).join("pgbouncer")).find(|path| path.is_file())
}

impl Pooler {
    /// Starts it in front of the test's database. It listens on a socket in a directory of its own.
    async fn start(program: &Path, world: &World) -> Self {
        let directory = temporary_directory();
        // It runs under another account when root starts it.
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).expect("open the directory");
        let place = directory.to_str().expect("a path in UTF-8");
        let server = Url::parse(world.database.url.expose_secret()).expect("the database's URL");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={port} user={user} password={password}\n\
             [pgbouncer]\npool_mode = transaction\nserver_round_robin = 1\ndefault_pool_size = {SESSIONS}\nauth_type = any\n\
             unix_socket_dir = {place}\nlisten_port = 6432\nlogfile = {place}/log\npidfile = {place}/pgbouncer.pid\n",
            port = server.port().expect("a port"),
            user = server.username(),
            password = server.password().expect("a password"),
        );
        let file = directory.join("pgbouncer.ini");
        fs::write(&file, settings).expect("write its settings");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("let it be read");
        let mut command = Command::new(program);
        command.arg("-q").arg(&file).current_dir("/").stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root, as the server does.
            command.args(["-u", "postgres"]);
        }
        let process = Process::start(command, directory.join("output"));
        let mut url = Url::parse("postgres://localhost").expect("a URL");
        url.set_username(server.username()).expect("a user");
        url.set_path(server.path());
        url.set_query(Some(&format!("host={place}&port=6432")));
        let url = SecretString::from(String::from(url));
        let options = pool::connect_options(&url, "probe").expect("a URL for sqlx");
        eventually("the pooler answers", || async { PgConnection::connect_with(&options).await.is_ok() }).await;
        Self { url, _process: process }
    }
}

#[tokio::test]
async fn a_fleet_behind_a_pooler_in_transaction_mode_loses_nothing_and_pays_nothing_twice() {
    let Some(program) = program() else {
        eprintln!("SKIPPED: there is no pgbouncer on this machine (Debian, Ubuntu: apt-get install pgbouncer)");
        return;
    };
    let options = SimulatorOptions { duration: Span::range(100, 600), hold_polls: true, ..SimulatorOptions::default() };
    let mut world = World::with(options).await;
    let pooler = Pooler::start(&program, &world).await;
    world.environment.insert("DATABASE_URL".to_owned(), pooler.url.expose_secret().to_owned());
    world.set("database.pooler", true);
    // Producers and readers go through it too.
    let mut settings = (*world.context.settings).clone();
    settings.database.pooler = true;
    let pool = pool::connect(&pooler.url, &settings.database, "imagemill").await.expect("connect through the pooler");
    let context = Context::new(pool, settings);
    let definition = world.definition(10);

    let mut killed = world.worker(&["--concurrency", "20"]);
    let mut told = world.worker(&["--concurrency", "20"]);
    let mut fleet = [world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"])];
    let create = async |tasks: usize| {
        let created = (0..tasks).map(|_| task_service::create_task(&context, &world.actor, &definition));
        futures::future::join_all(created).await.into_iter().map(|task| task.expect("create a task")).collect::<Vec<_>>()
    };
    let mut created = create(8).await;
    // Every slot of every worker is in use, and no submit is out.
    world.until("select count(*) = 80 from imagemill.attempts where state = 'accepted'").await;
    killed.kill();
    told.signal(rustix::process::Signal::TERM);
    assert!(told.wait().await.success(), "{}", told.log());
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    created.extend(create(22).await);
    let seen = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'imagemill'";
    let sessions = world.number(seen).await;
    assert!((1..=SESSIONS as i64).contains(&sessions), "{sessions} sessions: the pooler was gone round");
    // Many who look on, each with an answer of its own.
    let ended = created.iter().map(|task| async {
        let ended = task_service::await_task(&context, &world.actor, task.id, Some(2 * BOUND)).await;
        let ended = ended.expect("look at the task").expect("it ends in time");
        let progress = task_progress::get_progress(&context, &world.actor, task.id).await.expect("its progress");
        assert_eq!((ended.id, progress.task.id, progress.task.completed_subtasks), (task.id, task.id, 10));
    });
    futures::future::join_all(ended).await;
    for worker in &mut fleet {
        worker.signal(rustix::process::Signal::TERM);
        assert!(worker.wait().await.success(), "{}", worker.log());
        assert!(!worker.log().contains("prepared statement"), "{}", worker.log());
    }
    assert_eq!(world.cells().await, "completed: 300");
    assert!(world.billed().values().all(|submits| *submits == 1));
    assert_eq!(world.number("select count(*) from imagemill.incarnations where how = 'rescued'").await, 1);
    world.assert_settled().await;

    // What needs a session of its own is refused, and not tried.
    let refused = output(world.command(&["init-db"])).await;
    let said = String::from_utf8(refused.stderr).expect("text");
    assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("init-db needs PostgreSQL itself"), "{said}");
    context.pool.close().await;
}
