//! Pauses that hold everybody: they reach what is claimed already, end by themselves, and leave a trace.

use imagemill::simulator::{Behaviour, SimulatorOptions, Span};

use super::{assert_unharmed, begun_after, now};
use crate::support::{Process, World, eventually};

#[tokio::test]
async fn retry_after_holds_the_whole_fleet() {
    let mut options = SimulatorOptions { submit_latency: Span::fixed(20), ..SimulatorOptions::default() };
    options.script.insert(60, Behaviour::Status { status: 429, retry_after: Some(5), accepted: false });
    let mut world = World::with(options).await;
    world.set("upstream.max_connections", 8);
    world.create(300).await;
    let workers: Vec<Process> = (0..3).map(|_| world.worker(&["--concurrency", "30", "--until-empty"])).collect();
    world.until("select exists (select from imagemill.audit where what = 'pause_lane')").await;
    let paused = now(&world).await;
    for mut worker in workers {
        assert!(worker.wait().await.success(), "{}", worker.log());
    }
    let reasons: Vec<String> = sqlx::query_scalar("select new_value ->> 'reason' from imagemill.audit where what = 'pause_lane'")
        .fetch_all(world.pool())
        .await
        .expect("the pauses");
    assert_eq!(reasons, ["throttled"]);
    let window = "select count(*) from imagemill.attempts
        where submitted_at > $1
          and submitted_at < (select (new_value ->> 'until')::timestamptz from imagemill.audit where what = 'pause_lane')";
    let within: i64 = sqlx::query_scalar(window).bind(paused).fetch_one(world.pool()).await.expect("count the submits");
    assert_eq!(within, 0, "submits while the fleet was asked to wait");
    let seconds =
        "select round(extract(epoch from (new_value ->> 'until')::timestamptz - (new_value ->> 'since')::timestamptz))::bigint
        from imagemill.audit where what = 'pause_lane'";
    assert_eq!(world.number(seconds).await, 5);
    assert_unharmed(&world, 300).await;
}

/// Nobody is told, and what waits for a connection was claimed before: it is held all the same.
#[tokio::test]
async fn a_pause_holds_what_is_claimed_already_also_without_listen() {
    let mut world = World::with(SimulatorOptions { submit_latency: Span::fixed(100), ..SimulatorOptions::default() }).await;
    world.set("upstream.max_connections", 8).set("queue.listen", false).set("queue.poll_interval", "30s");
    // So many that most wait still, however late the pause comes.
    world.create(600).await;
    let workers: Vec<Process> = (0..2).map(|_| world.worker(&["--concurrency", "50"])).collect();
    eventually("cells are under way", || async { world.simulator.stats().accepted > 10 }).await;
    sqlx::query("insert into imagemill.pauses (lane, reason, why) values ('prod', 'operator', 'a look at the bill')")
        .execute(world.pool())
        .await
        .expect("pause the lane");
    let paused = now(&world).await;
    world.until("select not exists (select from apalis.jobs where status = 'Running')").await;
    assert_eq!(begun_after(&world, paused).await, 0, "submits while the lane was paused");
    assert!(world.number("select count(*) from imagemill.subtasks where status = 'pending'").await > 50, "it came too late");
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'not_sent'").await, 0, "rows for nothing");
    drop(workers);
    sqlx::query("delete from imagemill.pauses").execute(world.pool()).await.expect("resume the lane");
    world.simulator.control(|options| options.submit_latency = Span::fixed(0)).expect("sound options");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 600");
    assert_eq!(world.number("select sum(attempt_count)::bigint from imagemill.subtasks").await, 600);
    world.assert_settled().await;
}

#[tokio::test]
async fn the_breaker_stops_a_lane_and_lets_it_go_on() {
    let mut options = SimulatorOptions::default();
    // Not in a row: a success comes between.
    options.script.extend([1, 2, 3, 4, 6, 7, 8, 9].map(|arrival| (arrival, Behaviour::status(500))));
    // In a row, and once more when the pause is over.
    options.script.extend((11..=16).map(|arrival| (arrival, Behaviour::status(502))));
    let world = World::with(options).await;
    world.create(40).await;
    let mut worker = world.worker(&["--concurrency", "1", "--until-empty"]);
    assert!(worker.wait().await.success(), "{}", worker.log());
    assert_eq!(world.cells().await, "completed: 26, failed/unknown_submit: 14");
    let strikes: Vec<(String, String)> = sqlx::query_as(
        "select new_value ->> 'strikes', new_value ->> 'why' from imagemill.audit
         where what = 'pause_lane' and new_value ->> 'reason' = 'breaker' order by id",
    )
    .fetch_all(world.pool())
    .await
    .expect("the pauses");
    assert_eq!(strikes.len(), 2, "{strikes:?}");
    assert!(strikes[0].0 == "1" && strikes[0].1.starts_with("5 transient errors in a row") && strikes[0].1.contains("502"));
    assert!(strikes[1].0 == "2" && strikes[1].1.starts_with("6 transient errors in a row"), "{strikes:?}");
    assert_eq!(world.number("select count(*) from imagemill.pauses").await, 0);
    assert_eq!(world.number("select errors_in_a_row::bigint from imagemill.lane_health").await, 0);
    world.assert_settled().await;
}

/// Sixty may be in flight, and no rate holds them. The first volley is turned away whole; then each pause's end costs one submit.
#[tokio::test]
async fn when_a_pause_is_over_one_submit_is_tried_and_no_volley() {
    let mut options = SimulatorOptions { submit_latency: Span::fixed(200), ..SimulatorOptions::default() };
    options.script.extend((1..=66).map(|arrival| (arrival, Behaviour::status(429))));
    let mut world = World::with(options).await;
    world.set("generate_image.backoff_min", "1s").set("generate_image.backoff_max", "1s");
    // It would spread the volleys, which is another matter.
    sqlx::query("update imagemill.lanes set rate_adapts = false").execute(world.pool()).await.expect("set the lanes");
    world.create(60).await;
    let workers: Vec<Process> = (0..3).map(|_| world.worker(&["--concurrency", "20", "--until-empty"])).collect();
    for mut worker in workers {
        assert!(worker.wait().await.success(), "{}", worker.log());
    }
    let strikes = world.number("select count(*) from imagemill.audit where what = 'pause_lane'").await;
    assert!(strikes >= 6, "66 submits were turned away within {strikes} pauses");
    assert_unharmed(&world, 60).await;
}

#[tokio::test]
async fn a_breaker_of_none_never_stops_a_lane() {
    let mut options = SimulatorOptions::default();
    options.script.extend((1..=10).map(|arrival| (arrival, Behaviour::status(500))));
    let mut world = World::with(options).await;
    world.set("upstream.breaker_errors", 0);
    world.create(20).await;
    let mut worker = world.worker(&["--concurrency", "1", "--until-empty"]);
    assert!(worker.wait().await.success(), "{}", worker.log());
    assert_eq!(world.cells().await, "completed: 10, failed/unknown_submit: 10");
    assert_eq!(world.number("select count(*) from imagemill.audit where what = 'pause_lane'").await, 0);
}
