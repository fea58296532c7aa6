//! An older program and the present one drain one queue together, while the schema is brought up to date under both.
//!
//! ```sh
//! cargo test --test it upgrade:: -- --ignored --nocapture
//! ```

mod older;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use imagemill::{
    models::{Prompt, TaskInput},
    simulator::{SimulatorOptions, Span},
};
use rustix::process::Signal;

use crate::{
    commands::output,
    support::{Process, World, empty_database, eventually, eventually_within},
};

/// Cells of the older program's task.
const OLDER: i64 = 100;

/// Cells of the present program's task: so many that some are left when the older ones are done.
const PRESENT: i64 = 200;

/// Runs a command to its end, which is a good one.
async fn run(mut command: Command) {
    command.stdin(Stdio::null());
    let named = format!("{command:?}");
    let output = output(command).await;
    assert!(output.status.success(), "{named}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A task file of so many cells that every version takes: two axes, one of ten values.
fn task_file(world: &World, name: &str, cells: i64) -> PathBuf {
    let axis = |axis: &str, values: i64| (0..values).map(|value| Prompt::freetext(format!("{axis} {value}"))).collect::<Vec<_>>();
    let input = TaskInput::new(name)
        .seed(7)
        .variable_prompt("first", axis("first", 10))
        .variable_prompt("second", axis("second", cells / 10));
    let file = world.directory.path().join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_vec(&input).expect("a task file")).expect("write the task file");
    file
}

/// Cells of a task that this process brought to the end that they have.
async fn completed_by(world: &World, task: &str, worker: &Process) -> i64 {
    sqlx::query_scalar(
        "select count(*) from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
         join imagemill.attempts a on a.subtask_id = s.id and a.state = 'succeeded'
         where t.name = $1 and s.status = 'completed' and a.worker like '%-' || $2 || '-%'",
    )
    .bind(task)
    .bind(worker.id().to_string())
    .fetch_one(world.pool())
    .await
    .expect("count")
}

/// What both did, and with which program.
struct Drained {
    world: World,
    older: Process,
    present: Process,
}

/// The older program's schema, its task and its worker; then the present schema under that worker, the present program's worker
/// and, when that has done some of the older cells, its task. Ends when all cells have.
async fn drain_together(older: &Path) -> Drained {
    let database = empty_database().await;
    let options = SimulatorOptions { duration: Span::range(200, 600), ..SimulatorOptions::default() };
    let place = tempfile::tempdir().expect("a directory");
    let mut init = Command::new(older);
    init.arg("init-db").current_dir(place.path()).env_clear().env("HOME", place.path()).env("IMAGEMILL_IGNORE_ENV_FILES", "1");
    init.env("DATABASE_URL", secrecy::ExposeSecret::expose_secret(&database.url));
    run(init).await;
    let world = World::on(database, options).await;
    // A setting that came later is a wrong one to it.
    let unknown = older::unknown_settings(world.command_of(older, &["task", "list"])).await;
    let command = |program: &Path, arguments: &[&str]| {
        let mut command = world.command_of(program, arguments);
        if program == older {
            for name in &unknown {
                command.env_remove(name);
            }
        }
        command
    };
    let create = async |program: &Path, name: &str, cells: i64| {
        let file = task_file(&world, name, cells);
        run(command(program, &["--as", "tester", "task", "create", file.to_str().expect("a path in UTF-8")])).await;
    };
    create(older, "older", OLDER).await;
    let log = world.directory.path().join("older-worker.log");
    let mut old_worker = Process::start(command(older, &["worker", "--concurrency", "5"]), log);
    world.until("select count(*) >= 5 from imagemill.subtasks where status = 'completed'").await;
    // Of a lane that has a budget for the day, what was submitted before counts too.
    let budgets = "update imagemill.lanes set max_submits_per_day = 1000000";
    sqlx::query(budgets).execute(world.pool()).await.expect("set the budgets");
    run(world.command(&["init-db"])).await;
    let present = Path::new(env!("CARGO_BIN_EXE_imagemill"));
    let mut new_worker = world.worker(&["--concurrency", "5"]);
    eventually("the present worker does older cells", || {
        let done = completed_by(&world, "older", &new_worker);
        async move { done.await >= 5 }
    })
    .await;
    create(present, "present", PRESENT).await;
    eventually_within(Duration::from_mins(3), "every cell ends", || {
        // Who ends before its work is done says why.
        for worker in [&mut old_worker, &mut new_worker] {
            assert!(worker.is_running(), "{}", worker.log());
        }
        let ended = world.number("select count(*) from imagemill.subtasks where completed_at is not null");
        async move { ended.await == OLDER + PRESENT }
    })
    .await;
    world.until("select bool_and(status = 'completed') from imagemill.tasks").await;
    for worker in [&mut old_worker, &mut new_worker] {
        worker.signal(Signal::TERM);
        assert!(worker.wait().await.success(), "{}", worker.log());
    }
    assert_eq!(world.cells().await, format!("completed: {}", OLDER + PRESENT));
    assert!(world.billed().values().all(|submits| *submits == 1));
    world.assert_settled().await;
    Drained { world, older: old_worker, present: new_worker }
}

/// Says why there is nothing to do.
fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

#[tokio::test]
#[ignore = "long: builds an older program"]
async fn an_older_worker_and_a_present_one_drain_one_queue_across_the_newest_migration() {
    let commit = match older::before_the_newest_migration() {
        Ok(commit) => commit,
        Err(why) => return skip(why),
    };
    eprintln!("the last commit before the newest migration: {commit}");
    let Drained { world, older, present } = drain_together(&older::program(&commit).await).await;
    let by_older = completed_by(&world, "older", &older).await + completed_by(&world, "present", &older).await;
    let by_present = completed_by(&world, "older", &present).await + completed_by(&world, "present", &present).await;
    eprintln!("{by_older} cells were completed by the older worker, {by_present} by the present one");
    assert!(by_older > 0 && by_present > 0 && by_older + by_present == OLDER + PRESENT);
}

#[tokio::test]
#[ignore = "long: builds an older program"]
async fn an_older_worker_leaves_newer_payloads_to_a_present_one_and_both_do_older_ones() {
    let commit = match older::before_the_newest_payload() {
        Ok(commit) => commit,
        Err(why) => return skip(why),
    };
    eprintln!("the last commit before the newest payload version: {commit}");
    let Drained { world, older, present } = drain_together(&older::program(&commit).await).await;
    let (old_by_older, old_by_present) =
        (completed_by(&world, "older", &older).await, completed_by(&world, "older", &present).await);
    eprintln!(
        "of the older program's cells {old_by_older} were completed by the older worker, {old_by_present} by the present one"
    );
    assert!(old_by_older > 0 && old_by_present > 0 && old_by_older + old_by_present == OLDER);
    assert_eq!(completed_by(&world, "present", &present).await, PRESENT, "newer payloads");
    assert!(older.log().contains("jobs of a newer program are left"), "it never met one:\n{}", older.log());
}
