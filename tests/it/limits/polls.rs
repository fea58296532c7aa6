//! Polls a second.

use chrono::{DateTime, TimeDelta, Utc};
use imagemill::simulator::{SimulatorOptions, Span};

use super::{change_lane, most_within_a_second};
use crate::support::{Process, World, eventually};

/// A simulator whose jobs are done with their fifth poll.
fn patient() -> SimulatorOptions {
    SimulatorOptions { pending_polls: Span::fixed(4), ..SimulatorOptions::default() }
}

fn worker(world: &World) -> Process {
    world.worker(&["--concurrency", "20"])
}

/// Polls of the last second.
fn of_late(world: &World) -> usize {
    let since: DateTime<Utc> = Utc::now() - TimeDelta::seconds(1);
    world.simulator.polled_at().iter().filter(|at| **at > since).count()
}

/// Each of three workers would poll a hundred times a second. The whole is longer than the poll limit of a cell, which waits for
/// its turns and does not pay for that.
#[tokio::test]
async fn no_second_has_more_polls_than_the_limit_while_workers_come_and_are_killed() {
    let world = World::with(patient()).await;
    change_lane(&world, "polls_per_second = 20").await;
    world.create(60).await;
    let mut first = worker(&world);
    let second = worker(&world);
    eventually("two poll", || async { world.simulator.stats().polls > 30 }).await;
    let third = worker(&world);
    world.until("select count(*) = 60 from imagemill.attempts where state = 'accepted'").await;
    world.until("select count(*) filter (where rate > 0) = 3 from imagemill.poll_shares").await;
    assert!(world.number("select (10 * sum(rate))::bigint from imagemill.poll_shares").await <= 200, "more than there is");
    first.kill();
    let fourth = worker(&world);
    world.until("select completed_at is not null from imagemill.tasks").await;
    let polled_at = world.simulator.polled_at();
    let most = most_within_a_second(&polled_at);
    // And one of each worker.
    assert!(most <= 23, "{most} polls within a second");
    assert!(most >= 12, "the limit was never used: {most}");
    drop((second, third, fourth));
    assert_eq!(world.cells().await, "completed: 60");
    assert_eq!(world.number("select count(*) from imagemill.attempts").await, 60);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_raised_limit_is_obeyed_by_cells_that_wait_for_their_turn() {
    let world = World::with(patient()).await;
    change_lane(&world, "polls_per_second = 2").await;
    world.create(60).await;
    let workers = [worker(&world), worker(&world), worker(&world)];
    eventually("they poll slowly", || async { world.simulator.stats().polls >= 6 }).await;
    let most = most_within_a_second(&world.simulator.polled_at());
    assert!(most <= 5, "{most} polls within a second");
    // At this rate 300 polls would take more than two minutes.
    change_lane(&world, "polls_per_second = 100").await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    let most = most_within_a_second(&world.simulator.polled_at());
    assert!(most <= 103, "{most} polls within a second");
    drop(workers);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_lane_gets_a_limit_while_it_is_polled_and_loses_it() {
    for listen in [true, false] {
        let endless = SimulatorOptions { duration: Span::fixed(300_000), ..SimulatorOptions::default() };
        let mut world = World::with(endless).await;
        world.set("queue.listen", listen).set("lanes.prod.max_polls", 100_000);
        world.create(40).await;
        let workers = [worker(&world), worker(&world)];
        eventually("they poll at their own pace", || async { of_late(&world) > 100 }).await;
        assert_eq!(world.number("select count(*) from imagemill.poll_shares").await, 0, "a lane without a limit has no shares");
        change_lane(&world, "polls_per_second = 10").await;
        eventually("they keep to the limit", || async { (5..=12).contains(&of_late(&world)) }).await;
        change_lane(&world, "polls_per_second = null").await;
        eventually("they poll at their own pace again", || async { of_late(&world) > 100 }).await;
        world.until("select not exists (select from imagemill.poll_shares)").await;
        drop(workers);
    }
}
