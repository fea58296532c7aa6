//! Payloads of a newer program: left alone, and not failed.

use imagemill::{models::payload::GenerateImage, simulator::SimulatorOptions};

use crate::support::World;

/// Gives the jobs of these cells this version.
async fn set_version(world: &World, cells: &[i32], version: u32) {
    let changed = sqlx::query(
        "update apalis.jobs set job = convert_to(jsonb_set(convert_from(job, 'UTF8')::jsonb, '{version}', to_jsonb($2::int))::text, 'UTF8')
         where idempotency_key in (select id::text from imagemill.subtasks where cell = any ($1))",
    )
    .bind(cells)
    .bind(i32::try_from(version).expect("a small number"))
    .execute(world.pool())
    .await
    .expect("change the payloads");
    assert_eq!(changed.rows_affected(), cells.len() as u64);
}

#[tokio::test]
async fn a_job_of_a_newer_program_is_left_for_a_newer_worker_and_others_go_on() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.create(4).await;
    // One that nobody has begun, and one with an attempt that must be polled on.
    set_version(&world, &[3], 99).await;
    let mut killed = world.worker(&[]);
    world.until("select count(*) = 3 from imagemill.attempts where state = 'accepted'").await;
    killed.kill();
    set_version(&world, &[2], 99).await;
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    let mut worker = world.worker(&["--until-empty"]);
    // Left, and asked for again: the first of them at least twice under this worker.
    world
        .until(
            "select count(*) = 2 and max(attempts) >= 4 from apalis.jobs
             where last_result ->> 'Err' like 'left for a newer worker: payload version 99, %'",
        )
        .await;
    world.until("select count(*) = 2 from imagemill.subtasks where status = 'completed'").await;
    assert_eq!(world.cells().await, "completed: 2, pending: 1, processing: 1");
    let attempts = "select count(*) from imagemill.attempts where finished_at is null and state = 'accepted'";
    assert_eq!(world.number(attempts).await, 1, "its attempt stays open");
    assert_eq!(world.number("select sum(attempt_count)::bigint from imagemill.subtasks").await, 3, "nothing is counted");
    assert_eq!(worker.log().matches("jobs of a newer program are left for its workers").count(), 1, "{}", worker.log());

    // Its form is what the worker knows: it goes on where it was.
    set_version(&world, &[2, 3], GenerateImage::VERSION).await;
    world.until("select status = 'completed' from imagemill.tasks").await;
    assert_eq!(world.cells().await, "completed: 4");
    assert_eq!(world.simulator.stats().arrivals, 4);
    assert!(worker.wait().await.success(), "{}", worker.log());
    world.assert_settled().await;
}

#[tokio::test]
async fn a_payload_without_a_version_fails_alone() {
    let world = World::new().await;
    world.create(2).await;
    sqlx::query("update apalis.jobs set job = convert_to((convert_from(job, 'UTF8')::jsonb - 'version')::text, 'UTF8') where id = (select min(id) from apalis.jobs)")
        .execute(world.pool())
        .await
        .expect("take the version away");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 1, failed/internal: 1");
    world.assert_settled().await;
}
