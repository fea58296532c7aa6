//! Places in flight: `max_in_flight`, the ramp, pauses.

use chrono::TimeDelta;
use imagemill::simulator::{SimulatorOptions, Span};
use rustix::process::Signal;
use uuid::Uuid;

use super::{change_lane, most_in_flight};
use crate::support::{World, eventually};

const RUNNING: &str = "select count(*) from apalis.jobs where lock_by is not null and job_type = 'imagemill.generate_image'";

/// A simulator whose jobs take so long.
fn working(milliseconds: u64) -> SimulatorOptions {
    SimulatorOptions { duration: Span::fixed(milliseconds), pending_polls: Span::fixed(0), ..SimulatorOptions::default() }
}

/// Has a task's cells wait in lane `dev`.
async fn move_to_dev(world: &World, task: Uuid) {
    sqlx::query("update apalis.jobs set metadata = metadata || hstore('lane', 'dev') where metadata -> 'group' = $1")
        .bind(task.to_string())
        .execute(world.pool())
        .await
        .expect("move the task's jobs");
    sqlx::query("update imagemill.subtasks set lane = 'dev' where task_id = $1")
        .bind(task)
        .execute(world.pool())
        .await
        .expect("move the task's cells");
}

#[tokio::test]
async fn no_more_than_the_limit_are_in_flight_while_workers_are_killed_and_leave() {
    let world = World::with(working(400)).await;
    change_lane(&world, "max_in_flight = 7, max_job_time = '2 seconds'").await;
    world.create(100).await;
    let mut workers =
        [world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"])];
    world.until("select count(*) >= 15 from imagemill.subtasks where status = 'completed'").await;
    workers[0].kill();
    workers[1].signal(Signal::TERM);
    world.until("select count(*) >= 40 from imagemill.subtasks where status = 'completed'").await;
    let more = world.worker(&["--until-empty"]);
    world.until("select completed_at is not null from imagemill.tasks").await;
    let most = most_in_flight(&world.simulator.ledger(), TimeDelta::milliseconds(400));
    assert!(most <= 7, "{most} in flight");
    assert!(most >= 6, "the lane was never full: {most}");
    drop((workers, more));
    world.assert_ledgers_agree().await;
}

#[tokio::test]
async fn a_change_of_the_limit_by_sql_is_obeyed_by_workers_that_wait() {
    let mut world = World::with(working(300_000)).await;
    change_lane(&world, "max_in_flight = 2").await;
    let workers = [world.set("queue.poll_interval", "1h").worker(&[]), world.worker(&[])];
    world.create(20).await;
    eventually("two are in flight", || async { world.simulator.ledger().len() == 2 }).await;
    change_lane(&world, "max_in_flight = 5").await;
    eventually("five are in flight", || async { world.simulator.ledger().len() == 5 }).await;
    change_lane(&world, "max_in_flight = 6").await;
    eventually("six are in flight", || async { world.simulator.ledger().len() == 6 }).await;
    assert_eq!(world.number(RUNNING).await, 6);
    drop(workers);
}

#[tokio::test]
async fn workers_that_are_woken_at_once_share_one_limit() {
    let mut world = World::with(working(300_000)).await;
    change_lane(&world, "max_in_flight = 3").await;
    world.set("queue.poll_interval", "1h");
    let workers: Vec<_> = (0..6).map(|_| world.worker(&["--concurrency", "20"])).collect();
    let listening = "select count(*) from pg_stat_activity
                     where datname = current_database() and query ~* '^(-- )?listen.*imagemill_jobs'";
    eventually("all listen", || async { world.number(listening).await == 6 }).await;
    world.create(100).await;
    eventually("the lane is full", || async { world.simulator.ledger().len() >= 3 }).await;
    change_lane(&world, "max_in_flight = 5").await;
    // Of six workers that counted at the same moment each would have taken three.
    eventually("five are in flight", || async { world.simulator.ledger().len() == 5 }).await;
    assert_eq!(world.number(RUNNING).await, 5);
    drop(workers);
}

#[tokio::test]
async fn a_lane_that_starts_cold_is_ramped_up() {
    let world = World::with(working(300_000)).await;
    change_lane(
        &world,
        "max_in_flight = 40, ramp_start = 2, ramp_step = 3, ramp_interval = '1 hour', ramp_idle_reset = '1 hour'",
    )
    .await;
    let worker = world.worker(&[]);
    world.create(20).await;
    eventually("it starts with two", || async { world.simulator.ledger().len() == 2 }).await;
    // An hour later.
    sqlx::query("update imagemill.lane_states set ramp_since = ramp_since - interval '1 hour' where lane = 'prod'")
        .execute(world.pool())
        .await
        .expect("let an hour pass");
    eventually("three more", || async { world.simulator.ledger().len() == 5 }).await;
    assert_eq!(world.number(RUNNING).await, 5);
    drop(worker);
}

#[tokio::test]
async fn what_goes_on_in_another_lane_keeps_none_warm() {
    let world = World::with(working(1)).await;
    change_lane(
        &world,
        "max_in_flight = 40, ramp_start = 2, ramp_step = 3, ramp_interval = '1 minute', ramp_idle_reset = '1 hour'",
    )
    .await;
    sqlx::query("update imagemill.lane_states set ramp_since = now() - interval '1 day', active_at = now() - interval '2 hours'")
        .execute(world.pool())
        .await
        .expect("let two hours pass");
    let other = world.create(3).await;
    move_to_dev(&world, other.id).await;
    let worker = world.worker(&[]);
    world.until("select bool_and(status = 'completed') from imagemill.tasks").await;
    let idle = "select count(*) from imagemill.lane_states where lane = 'prod' and active_at < now() - interval '1 hour'";
    assert_eq!(world.number(idle).await, 1, "nothing was in flight in it");
    world.create(3).await;
    world.until("select bool_and(status = 'completed') from imagemill.tasks").await;
    let ramped = "select count(*) from imagemill.lane_states where lane = 'prod' and ramp_since > now() - interval '1 hour'";
    assert_eq!(world.number(ramped).await, 1, "it began anew");
    drop(worker);
}

#[tokio::test]
async fn a_paused_lane_gives_nothing_fresh_and_another_lane_goes_on() {
    let world = World::new().await;
    sqlx::query("insert into imagemill.pauses (lane, reason, why) values ('prod', 'operator', 'a test')")
        .execute(world.pool())
        .await
        .expect("pause the lane");
    world.create(3).await;
    let other = world.create(3).await;
    move_to_dev(&world, other.id).await;
    let worker = world.worker(&[]);
    world.until("select count(*) = 3 from imagemill.subtasks where lane = 'dev' and status = 'completed'").await;
    assert_eq!(world.simulator.stats().arrivals, 3, "the paused lane submitted");
    sqlx::query("delete from imagemill.pauses").execute(world.pool()).await.expect("resume the lane");
    world.until("select bool_and(status = 'completed') from imagemill.tasks").await;
    assert_eq!(world.number("select count(*) from imagemill.attempts").await, 6);
    drop(worker);
    world.assert_settled().await;
}
