//! Repeated throttling lowers a lane's rate by half; submits that are taken raise it by steps.

use imagemill::simulator::{Behaviour, SimulatorOptions, Span};

use crate::support::{World, eventually};

/// A world whose simulator throttles its first four submits, one after another, and takes the others.
async fn throttled(settings: &'static str) -> World {
    let mut options = SimulatorOptions::default();
    options.script.extend((1..=4).map(|arrival| (arrival, Behaviour::status(429))));
    let world = World::with(options).await;
    sqlx::query(settings).execute(world.pool()).await.expect("set the lane");
    world.create(20).await;
    let mut worker = world.worker(&["--concurrency", "1", "--until-empty"]);
    assert!(worker.wait().await.success(), "{}", worker.log());
    assert_eq!(world.cells().await, "completed: 20");
    assert_eq!(world.number("select count(*) from imagemill.audit where what = 'pause_lane'").await, 4, "strikes");
    world
}

/// What the audit has of the rate, in order.
async fn changes(world: &World) -> Vec<(String, Option<f64>)> {
    sqlx::query_as(
        "select what, (new_value ->> 'current_rate')::float8 from imagemill.audit where what like '%_rate' order by id",
    )
    .fetch_all(world.pool())
    .await
    .expect("the changes")
}

#[tokio::test]
async fn repeated_throttling_lowers_the_rate_down_to_the_floor() {
    let world =
        throttled("update imagemill.lanes set submits_per_second = 80, burst = 80, rate_floor = 15, rate_interval = '1 hour'")
            .await;
    let lowered = |rate| ("lower_rate".to_owned(), Some(rate));
    // The first one alone lowers nothing.
    assert_eq!(changes(&world).await, [lowered(40.), lowered(20.), lowered(15.)]);
    assert_eq!(world.number("select current_rate::bigint from imagemill.lanes where lane = 'prod'").await, 15);
    let why: String =
        sqlx::query_scalar("select rate_why from imagemill.lane_health").fetch_one(world.pool()).await.expect("why");
    assert!(why.contains("lowered") && why.contains("429"), "{why}");
}

#[tokio::test]
async fn submits_that_are_taken_raise_the_rate_until_it_is_whole() {
    let world = throttled(
        "update imagemill.lanes set submits_per_second = 80, burst = 80, rate_step = 36, rate_interval = '1 millisecond'",
    )
    .await;
    let changes = changes(&world).await;
    assert_eq!(changes.last(), Some(&("restore_rate".to_owned(), None)), "{changes:?}");
    assert_eq!(world.number("select count(*) from imagemill.lanes where current_rate is not null").await, 0);
    let why: String =
        sqlx::query_scalar("select rate_why from imagemill.lane_health").fetch_one(world.pool()).await.expect("why");
    assert!(why.contains("raised"), "{why}");
}

#[tokio::test]
async fn a_lane_is_not_slowed_down_to_where_it_is_of_no_use() {
    let world = throttled("update imagemill.lanes set submits_per_second = 4, burst = 20, rate_interval = '1 hour'").await;
    let lowered = |rate| ("lower_rate".to_owned(), Some(rate));
    assert_eq!(changes(&world).await, [lowered(2.), lowered(1.)]);
}

/// Two submits are out together, and both are throttled. The one is answered at once; the other when the lane works again.
#[tokio::test]
async fn what_was_out_together_lowers_the_rate_once() {
    let mut options = SimulatorOptions { submit_latency: Span::fixed(5_000), ..SimulatorOptions::default() };
    options.script.extend((1..=3).map(|arrival| (arrival, Behaviour::status(429))));
    let world = World::with(options).await;
    let places = |places: i32| {
        let query = sqlx::query("update imagemill.lanes set max_in_flight = $1").bind(places);
        async { query.execute(world.pool()).await.expect("set the lanes") }
    };
    places(1).await;
    // Both stand ready before the first is out, so that the start of a process is no part of its time.
    let workers = [world.worker(&["--concurrency", "1"]), world.worker(&["--concurrency", "1"])];
    world.until("select count(*) = 2 from apalis.workers where worker_type = 'imagemill'").await;
    world.create(8).await;
    eventually("one is out", || async { world.simulator.stats().arrivals == 1 }).await;
    world.simulator.control(|options| options.submit_latency = Span::fixed(0)).expect("sound options");
    places(10_000).await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    // The second and the third, which came when the pause was over, and the first: three times the lane was stopped.
    assert_eq!(world.number("select count(*) from imagemill.audit where what = 'pause_lane'").await, 3);
    assert_eq!(changes(&world).await.iter().filter(|(what, _)| what == "lower_rate").count(), 1);
    drop(workers);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_rate_that_does_not_adapt_stays_as_it_is() {
    let world =
        throttled("update imagemill.lanes set submits_per_second = 80, burst = 80, current_rate = 70, rate_adapts = false").await;
    assert_eq!(changes(&world).await, []);
    assert_eq!(world.number("select current_rate::bigint from imagemill.lanes where lane = 'prod'").await, 70);
}
