//! `imagemill run`: from a task file to pictures, and its worker processes.

use std::process::Command;

use rustix::process::Signal;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::{
    commands::{example, output},
    support::{Process, TOKEN, World, eventually},
};

/// Whether a process is at work. One that has ended and was not reaped is not.
fn is_alive(pid: i32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().expect("run ps");
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// A task file of so many cells, in the world's directory.
fn file(world: &World, cells: usize) -> String {
    let path = world.directory.path().join(format!("{cells}.json"));
    std::fs::write(&path, world.definition(cells).to_json().to_string()).unwrap();
    path.display().to_string()
}

fn start(world: &World, arguments: &[&str]) -> Process {
    let arguments: Vec<&str> = ["--as", "tester", "run"].into_iter().chain(arguments.iter().copied()).collect();
    Process::start(world.command(&arguments), world.directory.path().join("run.log"))
}

async fn worker_pids(world: &World) -> Vec<i32> {
    sqlx::query_scalar("select pid from imagemill.incarnations where ended_at is null").fetch_all(world.pool()).await.unwrap()
}

/// A run whose cells are all accepted, and of which no poll is answered.
async fn held_run(world: &World, cells: usize) -> Process {
    world.simulator.control(|options| options.hold_polls = true).unwrap();
    let run = start(world, &[&file(world, cells)]);
    world.until("select count(*) = 2 from imagemill.incarnations where ended_at is null").await;
    let accepted = format!("{cells} cells accepted");
    eventually(&accepted, || async {
        world.number("select count(*) from imagemill.attempts where state = 'accepted'").await == cells as i64
    })
    .await;
    run
}

#[tokio::test]
async fn a_task_file_becomes_pictures_and_a_summary() {
    let world = World::new().await;
    let mut run = world.command(&["--as", "tester", "--json", "run", &example("front-end-form.json")]);
    run.env("IMAGEMILL_LOGS__DIRECTORY", "the-logs");
    let ended = output(run).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("12 pictures will be paid for"), "{said}");
    assert!(said.contains("12/12  12 done, 0 failed, 0 in flight"), "plain lines where there is no terminal: {said}");
    assert!(!said.contains(TOKEN), "{said}");
    world.assert_settled().await;
    assert_eq!(world.cells().await, "completed: 12");

    let summary: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(summary["task"]["completed_subtasks"], 12);
    let pictures = std::path::PathBuf::from(summary["pictures"].as_str().unwrap());
    let kept = world.directory.path().join("pictures").join(summary["task"]["id"].as_str().unwrap());
    assert_eq!(pictures.canonicalize().unwrap(), kept.canonicalize().unwrap());
    assert_eq!(std::fs::read_dir(&pictures).unwrap().count(), 12);
    assert!(world.directory.path().join("the-logs").read_dir().unwrap().count() >= 2);

    // The queries are lines for a shell, and work as they stand.
    let queries = summary["queries"].as_array().unwrap();
    assert_eq!(queries.len(), 3);
    for (query, view) in queries.iter().zip(["failures", "subtask_details", "attempts_timeline"]) {
        assert!(query.as_str().unwrap().contains(&format!("imagemill.{view} ")), "{query}");
    }
    let commands = summary["commands"].as_array().unwrap();
    assert_eq!(commands.len(), 2);
    for query in commands.iter().chain(queries) {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", query.as_str().unwrap()])
            .env("DATABASE_URL", world.database.url.expose_secret())
            .env("PSQL_PAGER", "cat")
            .current_dir(world.directory.path());
        let shown = output(shell).await;
        let table = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            shown.status.success() && (table.contains("row") || table.contains("12 of 12") || table.contains(".html")),
            "{query}: {table}{}",
            String::from_utf8_lossy(&shown.stderr)
        );
    }
}

#[tokio::test]
async fn a_killed_run_leaves_no_worker_and_nothing_is_lost() {
    let world = World::new().await;
    let mut run = held_run(&world, 20).await;
    let pids = worker_pids(&world).await;
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    run.kill();
    eventually("the workers have left", || async { !pids.iter().any(|pid| is_alive(*pid)) }).await;
    // In order: they handed over what they polled.
    assert_eq!(world.number("select count(*) from imagemill.incarnations where how = 'stopped'").await, 2);
    assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Running'").await, 0);
    world.simulator.control(|options| options.hold_polls = false).unwrap();
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 20");
    assert_eq!(world.simulator.ledger().len(), 20, "nothing was paid twice");
    world.assert_settled().await;
}

#[tokio::test]
async fn a_run_that_is_told_to_end_says_how_to_go_on() {
    let world = World::new().await;
    let mut run = held_run(&world, 20).await;
    let pids = worker_pids(&world).await;
    run.signal(Signal::TERM);
    assert_eq!(run.wait().await.code(), Some(1));
    let said = run.log();
    assert!(said.contains("worker --until-empty` goes on with what is left"), "{said}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "it waits for its workers");
    assert_eq!(world.number("select count(*) from imagemill.incarnations where how = 'stopped'").await, 2);
    world.simulator.control(|options| options.hold_polls = false).unwrap();
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 20");
    world.assert_settled().await;
}

#[tokio::test]
async fn a_worker_that_dies_is_replaced() {
    let world = World::new().await;
    let mut run = held_run(&world, 20).await;
    let dead = worker_pids(&world).await[0];
    rustix::process::kill_process(rustix::process::Pid::from_raw(dead).unwrap(), Signal::KILL).unwrap();
    world.until("select count(*) >= 3 from imagemill.incarnations").await;
    world.simulator.control(|options| options.hold_polls = false).unwrap();
    assert!(run.wait().await.success(), "{}", run.log());
    assert_eq!(world.cells().await, "completed: 20");
    assert_eq!(world.simulator.ledger().len(), 20);
    world.assert_settled().await;
}

#[tokio::test]
async fn workers_that_die_again_and_again_end_the_run() {
    let world = World::new().await;
    let mut run = held_run(&world, 4).await;
    eventually("the run gives up", || async {
        for pid in worker_pids(&world).await.into_iter().filter(|pid| is_alive(*pid)) {
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        run.log().contains("worker processes died")
    })
    .await;
    assert_eq!(run.wait().await.code(), Some(1));
    let pids = worker_pids(&world).await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "{pids:?}");
}

#[tokio::test]
async fn without_a_token_the_simulator_stands_in_and_the_cells_of_others_are_left_alone() {
    let mut world = World::new().await;
    let others = world.create(3).await;
    world.set("upstream.api_token", "");
    let ended = output(world.command(&["--as", "tester", "run", &file(&world, 6)])).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{stdout}{stderr}");
    assert!(stderr.contains("drawn by the simulator"), "{stderr}");
    assert_eq!(world.simulator.ledger(), [], "the configured upstream was not spoken to");
    assert_eq!(world.cells().await, "completed: 6, pending: 3");
    let touched: i64 = sqlx::query_scalar(
        "select count(*) from imagemill.attempts a join imagemill.subtasks s on s.id = a.subtask_id where s.task_id = $1",
    )
    .bind(others.id)
    .fetch_one(world.pool())
    .await
    .unwrap();
    assert_eq!(touched, 0);
}

#[tokio::test]
async fn a_task_that_fails_is_a_run_that_fails() {
    let world = World::with(imagemill::simulator::SimulatorOptions {
        rules: vec![imagemill::simulator::Rule::new(imagemill::simulator::Behaviour::IllegalImage)],
        ..Default::default()
    })
    .await;
    let ended = output(world.command(&["--as", "tester", "run", &file(&world, 2)])).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("the task ended failed"));
    assert!(String::from_utf8_lossy(&ended.stdout).contains("refused"), "the summary is printed all the same");
}
