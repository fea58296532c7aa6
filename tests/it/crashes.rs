//! A job that ends its process: counted where its ledger makes no progress, claimed alone from the third time on, failed at the
//! fifth; and an outcome that PostgreSQL refuses, which fails alone in its group.

use imagemill::{
    models::payload::GenerateImage,
    queue::{Engine, Outcome, Queue, fault},
    services::processing,
    simulator::SimulatorOptions,
};
use serde_json::json;
use uuid::Uuid;

use crate::support::{BOUND, World, eventually};

/// Starts a worker that ends at a named place, waits for its end, and for its rescue by another one.
async fn crash(world: &World, point: &str) {
    let before = rescued(world).await;
    let order = format!("{point}:1");
    let mut worker = world.worker_with(&[("IMAGEMILL_FAULT_POINT", &order)], &[]);
    let status = worker.wait().await;
    assert!(!status.success(), "it went on: {status}\n{}", worker.log());
    eventually("its rescue", || async { rescued(world).await > before }).await;
}

async fn rescued(world: &World) -> i64 {
    world.number("select count(*) from imagemill.incarnations where how = 'rescued'").await
}

/// What the job's metadata says: crashes, and whether it is to be alone.
async fn counted(world: &World) -> (i32, bool) {
    let metadata = "select coalesce((metadata -> 'crashes')::integer, 0), metadata ? 'solitary' from apalis.jobs
                    where job_type = 'imagemill.generate_image' order by id limit 1";
    sqlx::query_as(metadata).fetch_one(world.pool()).await.expect("the job")
}

/// A worker that rescues others and takes no cell of these tests.
fn rescuer(world: &World) -> crate::support::Process {
    world.worker(&["--lanes", "dev"])
}

#[tokio::test]
async fn a_job_that_ends_its_worker_again_and_again_fails() {
    let world = World::new().await;
    world.create(1).await;
    let _rescuer = rescuer(&world);
    for crashes in 1..=5 {
        crash(&world, fault::CLAIM_COMMITTED).await;
        assert_eq!(counted(&world).await, (crashes, crashes >= 3));
    }
    world.drain().await;
    assert_eq!(world.cells().await, "failed/crash_loop: 1");
    assert_eq!(world.simulator.stats().arrivals, 0);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_cell_with_an_upstream_id_never_fails_for_its_crashes() {
    let world = World::new().await;
    world.create(1).await;
    let _rescuer = rescuer(&world);
    crash(&world, fault::ACCEPTED_COMMITTED).await;
    assert_eq!(counted(&world).await, (0, false), "its ledger has made progress");
    for crashes in 1..=5 {
        crash(&world, fault::CLAIM_COMMITTED).await;
        assert_eq!(counted(&world).await, (crashes, crashes >= 3));
    }
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 1");
    assert_eq!(world.simulator.stats().arrivals, 1);
    world.assert_settled().await;
}

#[tokio::test]
async fn what_may_have_ended_its_workers_runs_alone() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.create(4).await;
    let suspect = "update apalis.jobs set metadata = metadata || '\"solitary\"=>\"true\",\"crashes\"=>\"3\"'
                   where id = (select min(id) from apalis.jobs)";
    sqlx::query(suspect).execute(world.pool()).await.expect("make one a suspect");
    let mut worker = world.worker(&["--until-empty"]);
    eventually("it is claimed, and the others are polled", || async {
        world.number("select count(*) from apalis.jobs where status = 'Running'").await == 4
            && world.number("select count(*) from imagemill.attempts where state = 'accepted'").await == 3
    })
    .await;
    assert_eq!(world.number("select count(*) from imagemill.attempts").await, 3, "it has not begun");
    // And while it runs, nothing else is claimed.
    let other = world.create(1).await;
    world.simulator.control(|options| options.hold_polls = false).expect("let the polls go");
    let status = worker.wait().await;
    assert!(status.success(), "{status}\n{}", worker.log());
    assert_eq!(world.cells().await, "completed: 5");
    let begun_in_order: bool = sqlx::query_scalar(
        "select max(submitted_at) filter (where task_id = $1) >= max(finished_at) filter (where task_id <> $1)
         from imagemill.attempts a join imagemill.subtasks s on s.id = a.subtask_id",
    )
    .bind(other.id)
    .fetch_one(world.pool())
    .await
    .expect("compare the times");
    assert!(begun_in_order, "something else began while it ran");
}

#[tokio::test]
async fn no_completion_waits_for_what_waits_to_be_alone() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.create(3).await;
    let suspect = "update apalis.jobs set metadata = metadata || '\"solitary\"=>\"true\",\"crashes\"=>\"3\"'
                   where id = (select min(id) from apalis.jobs)";
    sqlx::query(suspect).execute(world.pool()).await.expect("make one a suspect");
    let worker = world.worker(&[]);
    eventually("it is claimed, and the others are polled", || async {
        world.number("select count(*) from apalis.jobs where status = 'Running'").await == 3
            && world.number("select count(*) from imagemill.attempts where state = 'accepted'").await == 2
    })
    .await;
    // While it waits for them, another task has its last cell cancelled: it is rolled up.
    let other = world.create(1).await;
    let mut connection = world.pool().acquire().await.expect("a connection");
    sqlx::query("select imagemill.cancel_task($1)").bind(other.id).execute(&mut *connection).await.expect("cancel it");
    world.until("select count(*) = 1 from imagemill.tasks where status = 'cancelled'").await;
    assert_eq!(world.number("select count(*) from imagemill.attempts").await, 2, "it has not begun");
    world.simulator.control(|options| options.hold_polls = false).expect("let the polls go");
    world.until("select count(*) = 1 from imagemill.tasks where status = 'completed'").await;
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn an_outcome_that_is_refused_fails_alone() {
    let world = World::new().await;
    world.create(5).await;
    let queues = processing::queues(&world.context.settings, 10, vec!["prod".to_owned()]);
    let queues = queues.into_iter().map(|queue| Queue { claimed: false, ..queue }).collect();
    let options = processing::engine_options(&world.context.settings, None);
    let engine = Engine::start(world.pool().clone(), options, queues).await.expect("start the engine");
    let cells: Vec<Uuid> =
        sqlx::query_scalar("select id from imagemill.subtasks order by cell").fetch_all(world.pool()).await.expect("the cells");
    let mut jobs = Vec::new();
    for cell in &cells {
        jobs.push(engine.claim_key(GenerateImage::QUEUE, &cell.to_string()).await.expect("claim").expect("a job"));
    }
    // Each ends without an attempt, which nothing forbids; one with a word that no constraint knows.
    let executed: Vec<_> = jobs
        .into_iter()
        .enumerate()
        .map(|(index, job)| {
            let outcome =
                if index == 2 { Outcome::done().leaving(json!({ "url": 5 })) } else { Outcome::failed("rejected", "no") };
            engine.execute(job, async move { outcome })
        })
        .collect();
    for task in executed {
        task.await.expect("it is settled");
    }
    assert_eq!(world.cells().await, "failed/internal: 1, failed/rejected: 4");
    assert_eq!(world.number("select failed_subtasks::bigint from imagemill.task_counts").await, 5);
    assert!(engine.stop(BOUND).await);
}
