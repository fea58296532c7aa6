//! Submits a second.

use std::time::Duration;

use imagemill::simulator::{SimulatorOptions, Span};
use rustix::process::Signal;

use super::{accepted, change_lane, most_in_a_second};
use crate::support::World;

#[tokio::test]
async fn no_second_has_more_submits_than_rate_and_burst() {
    let options = SimulatorOptions { pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    let world = World::with(options).await;
    change_lane(&world, "submits_per_second = 20, burst = 6, max_in_flight = 1000").await;
    world.create(100).await;
    let mut workers =
        [world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"])];
    world.until("select count(*) >= 20 from imagemill.subtasks where status = 'completed'").await;
    workers[0].kill();
    workers[1].signal(Signal::TERM);
    let more = world.worker(&[]);
    world.until("select completed_at is not null from imagemill.tasks").await;
    let ledger = world.simulator.ledger();
    let most = most_in_a_second(&ledger);
    assert!(most <= 26, "{most} submits within a second");
    drop((workers, more));
    world.assert_ledgers_agree().await;
}

#[tokio::test]
async fn a_slow_rate_without_burst_keeps_submits_apart_and_a_raise_is_obeyed() {
    let options = SimulatorOptions { pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    let world = World::with(options).await;
    change_lane(&world, "submits_per_second = 2, burst = 1").await;
    world.create(30).await;
    let workers = [world.worker(&[]), world.worker(&[])];
    world.until("select count(*) >= 4 from imagemill.subtasks where status = 'completed'").await;
    let before = world.simulator.ledger();
    assert!(most_in_a_second(&before) <= 3, "{:?}", accepted(&before));
    change_lane(&world, "submits_per_second = null").await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    drop(workers);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_rate_that_is_lowered_while_the_lane_is_throttled_is_obeyed() {
    let options = SimulatorOptions { pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    let world = World::with(options).await;
    // Somebody lowered the rate after workers had lowered their own.
    change_lane(&world, "submits_per_second = 2, burst = 1, current_rate = 50, rate_adapts = false").await;
    world.create(20).await;
    let worker = world.worker(&[]);
    world.until("select count(*) >= 4 from imagemill.subtasks where status = 'completed'").await;
    let ledger = world.simulator.ledger();
    assert!(most_in_a_second(&ledger) <= 3, "{:?}", accepted(&ledger));
    change_lane(&world, "submits_per_second = null").await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_rate_that_is_raised_is_obeyed_at_once_and_no_second_has_too_many() {
    let options = SimulatorOptions { pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    let world = World::with(options).await;
    // One in a quarter of an hour: by that rate the second would leave long after the test has ended.
    change_lane(&world, "submits_per_second = 0.001, burst = 1, max_in_flight = 1000").await;
    world.create(40).await;
    let workers = [world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"])];
    world.until("select exists (select from imagemill.lane_states where next_submit_at > now() + interval '20 seconds')").await;
    change_lane(&world, "submits_per_second = 10, burst = 3").await;
    // Promised is a second.
    world
        .until_within(10 * Duration::from_secs(1), "select count(*) >= 2 from imagemill.attempts where accepted_at is not null")
        .await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    drop(workers);
    let ledger = world.simulator.ledger();
    let most = most_in_a_second(&ledger);
    assert!(most <= 13, "{most} submits within a second");
    world.assert_ledgers_agree().await;
}
