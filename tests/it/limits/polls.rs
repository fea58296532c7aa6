//! Polls a second.

use std::time::Duration;

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
    // The whole limit is shared out, but for the tenth that is kept for what is late on its way.
    world.until("select count(*) filter (where rate > 0) = 3 and sum(rate) >= 18 from imagemill.poll_shares").await;
    assert!(world.number("select (10 * sum(rate))::bigint from imagemill.poll_shares").await <= 200, "more than there is");
    first.kill();
    let fourth = worker(&world);
    // 300 polls of which 20 leave a second, and a rescue.
    world.until_within(Duration::from_mins(3), "select completed_at is not null from imagemill.tasks").await;
    let polled_at = world.simulator.polled_at();
    let most = most_within_a_second(&polled_at);
    // And one of each worker.
    assert!(most <= 23, "{most} polls within a second");
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
    // At this rate 300 polls would take more than two minutes: within one they do not end by it.
    change_lane(&world, "polls_per_second = 100").await;
    world.until_within(Duration::from_mins(1), "select completed_at is not null from imagemill.tasks").await;
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
        // More than the limit that is to come, and one of each worker.
        eventually("they poll at their own pace", || async { of_late(&world) > 12 }).await;
        assert_eq!(world.number("select count(*) from imagemill.poll_shares").await, 0, "a lane without a limit has no shares");
        change_lane(&world, "polls_per_second = 10").await;
        world.until("select count(*) filter (where rate > 0) = 2 from imagemill.poll_shares").await;
        eventually("they keep to the limit", || async { (5..=12).contains(&of_late(&world)) }).await;
        // And not in passing: at their own pace all of these would come within a tenth of a second.
        let before = world.simulator.stats().polls as usize;
        eventually("thirty more polls", || async { world.simulator.stats().polls as usize >= before + 30 }).await;
        let most = most_within_a_second(&world.simulator.polled_at()[before..]);
        assert!(most <= 24, "{most} polls within a second");
        change_lane(&world, "polls_per_second = null").await;
        eventually("they poll at their own pace again", || async { of_late(&world) > 12 }).await;
        world.until("select not exists (select from imagemill.poll_shares)").await;
        drop(workers);
    }
}
