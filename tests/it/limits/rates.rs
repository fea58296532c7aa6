//! Submits a second.

use chrono::{TimeDelta, Utc};
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
    // The rate was what was waited for: a hundred at once would all be within a second.
    let accepted = accepted(&ledger);
    let whole = *accepted.last().expect("a submit") - *accepted.first().expect("a submit");
    assert!(whole.num_milliseconds() > 3_000, "100 submits in {whole}");
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
    // One every fifty seconds: by that rate the second would leave long after the test has ended.
    change_lane(&world, "submits_per_second = 0.02, burst = 1, max_in_flight = 1000").await;
    world.create(40).await;
    let workers = [world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"])];
    world.until("select exists (select from imagemill.lane_states where next_submit_at > now() + interval '20 seconds')").await;
    let raised = Utc::now();
    change_lane(&world, "submits_per_second = 10, burst = 3").await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    drop(workers);
    let ledger = world.simulator.ledger();
    let most = most_in_a_second(&ledger);
    assert!(most <= 13, "{most} submits within a second");
    let second = accepted(&ledger)[1] - raised;
    assert!(second < TimeDelta::seconds(10), "the first after the raise came after {second}");
    world.assert_ledgers_agree().await;
}
