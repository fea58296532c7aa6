//! A newer schema on a database that a fleet works on: nobody waits for it for long, and it gets there.

use std::{collections::BTreeSet, path::Path, sync::Mutex, time::Duration};

use imagemill::{
    db::{
        migrate::{MigrateError, init_db, init_db_with},
        patience::Patience,
    },
    simulator::{SimulatorOptions, Span},
};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, migrate::Migrator};

use crate::{
    commands::output,
    support::{BOUND, Process, World, eventually},
};

/// Who waits behind init-db waits no longer than this.
const LOCK: Duration = Duration::from_millis(300);

/// Who waits so long fails: ten times the promise.
const TOO_LONG: &str = "set lock_timeout = '3s'";

/// Our migrations and a later one.
async fn later(statements: &str) -> Migrator {
    let directory = tempfile::tempdir().expect("a directory");
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).expect("the migrations") {
        let file = file.expect("a migration");
        std::fs::copy(file.path(), directory.path().join(file.file_name())).expect("copy a migration");
    }
    std::fs::write(directory.path().join("29991231000000_later.sql"), statements).expect("write a migration");
    let mut migrator = Migrator::new(directory.path()).await.expect("read the migrations");
    migrator.set_locking(false);
    migrator.dangerous_set_table_name("imagemill._sqlx_migrations");
    migrator
}

/// A session of its own, so that it can be told from others.
async fn session(world: &World, name: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = world.database.url.expose_secret().parse().expect("a URL for sqlx");
    PgConnection::connect_with(&options.application_name(name)).await.expect("a session")
}

async fn run(connection: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(connection).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Waits until init-db was seen to wait for a lock so many times, each time anew.
async fn has_waited(pool: &PgPool, times: usize) {
    let seen = Mutex::new(BTreeSet::new());
    eventually("init-db waits for a lock, lets go and waits again", || {
        let query = sqlx::query_scalar::<_, Option<String>>(
            "select max(l.waitstart)::text from pg_locks l join pg_stat_activity a using (pid)
             where a.application_name = 'init-db' and a.datname = current_database() and not l.granted",
        );
        let waits = query.fetch_one(pool);
        let seen = &seen;
        async move {
            let wait = waits.await.expect("look at the locks");
            let mut seen = seen.lock().expect("no panic");
            seen.extend(wait);
            seen.len() >= times
        }
    })
    .await;
}

/// Someone who writes to the live tables all the time, and fails when made to wait for too long.
async fn write_all_the_time(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    run(&mut connection, TOO_LONG).await;
    loop {
        run(&mut connection, "update apalis.jobs set priority = priority where id = 'probe'").await;
        run(&mut connection, "update imagemill.subtasks set updated_at = now() where false").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Jobs that nobody runs: one to be held, one to be written.
async fn insert_probes(world: &World) {
    sqlx::query("insert into apalis.jobs (id, job_type, job) values ('held', 'probe', ''), ('probe', 'probe', '')")
        .execute(world.pool())
        .await
        .expect("insert");
}

fn workers(world: &World) -> [Process; 2] {
    [world.worker(&["--concurrency", "10"]), world.worker(&["--concurrency", "10"])]
}

async fn fast_world() -> World {
    World::with(SimulatorOptions { duration: Span::fixed(100), ..SimulatorOptions::default() }).await
}

const ALL_COMPLETED: &str = "select bool_and(status = 'completed') from imagemill.tasks";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_comes_to_a_live_fleet_and_nobody_waits_for_it() {
    let world = fast_world().await;
    insert_probes(&world).await;
    let fleet = workers(&world);
    world.create(20).await;
    // What the repeatable step looks after is missing as well.
    let (mut reader, mut writer) = (session(&world, "a reader").await, session(&world, "a writer").await);
    run(&mut writer, "drop view imagemill.jobs; drop trigger notify_workers on apalis.jobs").await;
    run(&mut reader, "begin; select count(*) from apalis.jobs; select count(*) from imagemill.subtasks").await;
    run(&mut writer, "begin; update apalis.jobs set priority = 1 where id = 'held'").await;

    let migrator = later("alter table imagemill.subtasks add column later text").await;
    let mut connection = session(&world, "init-db").await;
    let patience = Patience { lock: LOCK, ..Patience::default() };
    let init = async { init_db_with(&mut connection, patience, &migrator).await.expect("init-db") };
    let probe = tokio::spawn(write_all_the_time(world.pool().clone()));
    let beside = async {
        has_waited(world.pool(), 3).await;
        world.create(20).await;
        world.until(ALL_COMPLETED).await;
        run(&mut reader, "rollback").await;
        // The columns are there; the trigger cannot be made while somebody writes.
        world.until("select exists (select from imagemill._sqlx_migrations where version = 29991231000000)").await;
        has_waited(world.pool(), 2).await;
        world.create(20).await;
        world.until(ALL_COMPLETED).await;
        run(&mut writer, "rollback").await;
    };
    tokio::join!(init, beside);
    assert!(!probe.is_finished(), "somebody was made to wait: {:?}", probe.await);
    probe.abort();
    let there = "select count(*) from pg_trigger where tgrelid = 'apalis.jobs'::regclass and tgname = 'notify_workers'";
    assert_eq!(world.number(there).await, 1);
    assert_eq!(world.number("select count(*) from imagemill.jobs where status <> 'Done'").await, 0);
    // The old workers go on with the new schema.
    world.create(20).await;
    world.until(ALL_COMPLETED).await;
    drop(fleet);
    world.assert_ledgers_agree().await;
}

#[tokio::test]
async fn an_index_is_made_while_everybody_writes_and_again_where_its_making_was_cut_short() {
    let world = fast_world().await;
    insert_probes(&world).await;
    let fleet = workers(&world);
    world.create(20).await;
    let mut writer = session(&world, "a writer").await;
    run(&mut writer, "drop index apalis.imagemill_jobs_pending_of_group").await;
    run(&mut writer, "begin; update apalis.jobs set priority = 1 where id = 'held'").await;
    let is_making =
        "select count(*) = 1 from pg_stat_progress_create_index where datname = current_database() and phase like 'waiting%'";
    let is_valid = "select coalesce(bool_and(indisvalid), false) from pg_index where indexrelid = to_regclass('apalis.imagemill_jobs_pending_of_group')";

    let mut connection = session(&world, "init-db").await;
    let cut_short = async {
        world.until(is_making).await;
        world.create(20).await;
        world.until(ALL_COMPLETED).await;
        run(&mut writer, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'init-db' and datname = current_database()").await;
    };
    let (cut, ()) = tokio::join!(init_db(&mut connection), cut_short);
    assert!(matches!(cut, Err(MigrateError::Database(_))), "{cut:?}");
    let left: bool = sqlx::query_scalar(
        "select not indisvalid from pg_index where indexrelid = to_regclass('apalis.imagemill_jobs_pending_of_group')",
    )
    .fetch_one(world.pool())
    .await
    .expect("what was left");
    assert!(left, "nothing was left, so that this test sees nothing");

    let mut connection = session(&world, "init-db").await;
    let let_go = async {
        // For the writer, to drop what was left.
        has_waited(world.pool(), 1).await;
        world.create(20).await;
        world.until(ALL_COMPLETED).await;
        run(&mut writer, "rollback").await;
    };
    let (done, ()) = tokio::join!(init_db(&mut connection), let_go);
    done.expect("init-db");
    world.until(is_valid).await;
    drop(fleet);
    world.assert_ledgers_agree().await;
}

#[tokio::test]
async fn a_lock_that_is_never_let_go_is_given_up_in_one_line_that_names_who_has_it() {
    let world = World::new().await;
    let mut reader = session(&world, "a long report").await;
    run(&mut reader, "begin; select count(*) from imagemill.subtasks").await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut reader).await.expect("its process");
    let migrator = later("alter table imagemill.subtasks add column later text").await;
    let mut connection = session(&world, "init-db").await;
    run(&mut connection, "set lock_timeout = '77s'").await;
    let patience = Patience { lock: Duration::from_millis(50), bound: Duration::from_millis(500) };
    let given_up = tokio::time::timeout(BOUND, init_db_with(&mut connection, patience, &migrator)).await;
    let error = given_up.expect("it gives up").expect_err("no lock");
    assert!(matches!(error, MigrateError::Locked { .. }), "{error}");
    let line = error.to_string();
    assert!(line.contains(&format!("{pid} (a long report, ")) && line.contains("pg_terminate_backend"), "{line}");
    assert!(!line.contains('\n'), "{line}");
    // Nothing of it stays behind.
    let left: (String, i64) = sqlx::query_as(
        "select current_setting('lock_timeout'), (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory')",
    )
    .fetch_one(&mut connection)
    .await
    .expect("look");
    assert_eq!(left, ("77s".to_owned(), 0));
    run(&mut reader, "rollback").await;
    init_db_with(&mut connection, patience, &migrator).await.expect("init-db, later");
}

#[tokio::test]
async fn a_program_refuses_a_newer_schema_in_one_line() {
    let world = World::new().await;
    sqlx::query("insert into imagemill._sqlx_migrations (version, description, success, checksum, execution_time) values (29991231000000, 'later', true, '', 0)")
        .execute(world.pool())
        .await
        .expect("a later migration");
    for arguments in [&["worker"][..], &["init-db"], &["--as", "tester", "task", "list"]] {
        let output = output(world.command(arguments)).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(
            said,
            "imagemill: the schema has migration 29991231000000, newer than this program knows: use the program that made it, or a later one\n",
            "{arguments:?}"
        );
    }
    let table = AssertSqlSafe("select count(*) from apalis.workers");
    let registered: i64 = sqlx::query_scalar(table).fetch_one(world.pool()).await.expect("count");
    assert_eq!(registered, 0, "it registered before it refused");
}
