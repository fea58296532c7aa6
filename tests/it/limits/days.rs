//! The budget of a lane's day.

use imagemill::simulator::{Behaviour, SimulatorOptions, Span};
use serde_json::json;
use sqlx::Executor as _;

use super::change_lane;
use crate::{
    commands::{ends_with, json as printed},
    support::{World, eventually},
};

/// What was billed, or perhaps.
const BILLED: &str = "select count(*) from imagemill.attempts where state not in ('not_sent', 'turned_away', 'rejected')";
/// Nobody holds a job, so that nothing may be submitted any more.
const AT_REST: &str = "select count(*) from apalis.jobs where lock_by is not null or metadata ? 'resume'";

/// Waits until so many were spent, and sees that it were no more.
async fn spends(world: &World, submits: i64) {
    eventually("the budget is spent", || async {
        world.number(BILLED).await >= submits && world.number(AT_REST).await == 0 && world.number(BILLED).await >= submits
    })
    .await;
    assert_eq!(world.number(BILLED).await, submits);
}

/// A day later, as far as rows say it.
async fn let_a_day_pass(world: &World) {
    let passed = "update imagemill.attempts set submitted_at = submitted_at - interval '1 day';
                  update imagemill.lane_days set day = day - 1";
    world.pool().execute(sqlx::raw_sql(passed)).await.expect("let a day pass");
}

#[tokio::test]
async fn a_lane_submits_no_more_than_its_day_allows_while_workers_are_killed() {
    let mut options =
        SimulatorOptions { duration: Span::fixed(300), pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    // Two may have been billed, and two were not.
    for (submit, status) in [(2, 500), (4, 429), (6, 400), (14, 500)] {
        options.script.insert(submit, Behaviour::status(status));
    }
    let mut world = World::with(options).await;
    world.set("generate_image.new_attempts", 0);
    change_lane(&world, "max_submits_per_day = 9").await;
    // Two tasks: the day is the lane's.
    world.create(20).await;
    world.create(20).await;
    let mut workers =
        [world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"]), world.worker(&["--concurrency", "20"])];
    eventually("the first are in flight", || async { world.simulator.ledger().len() >= 3 }).await;
    workers[0].kill();
    spends(&world, 9).await;
    change_lane(&world, "max_submits_per_day = 14").await;
    spends(&world, 14).await;
    // The tables say the same as the counter.
    assert_eq!(world.number("select sum(submits)::bigint from imagemill.lane_days").await, 14);
    let_a_day_pass(&world).await;
    spends(&world, 28).await;
    change_lane(&world, "max_submits_per_day = null").await;
    world.until("select bool_and(completed_at is not null) from imagemill.tasks").await;
    drop(workers);
    world.assert_ledgers_agree().await;
}

#[tokio::test]
async fn what_was_not_billed_is_given_back_and_what_may_have_been_is_not() {
    let mut options = SimulatorOptions { pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    options.script.insert(1, Behaviour::status(500));
    let world = World::with(options).await;
    change_lane(&world, "max_submits_per_day = 2").await;
    world.create(4).await;
    let worker = world.worker(&[]);
    spends(&world, 2).await;
    let attempt: String =
        sqlx::query_scalar("select subtask_id || '/' || ordinal from imagemill.attempts where state = 'unknown'")
            .fetch_one(world.pool())
            .await
            .expect("the unknown attempt");
    ends_with(&world, &["--as", "tester", "attempt", "resolve", &attempt, "--not-billed"], 0).await;
    eventually("one more goes", || async { world.number(BILLED).await == 2 && world.simulator.ledger().len() == 2 }).await;
    drop(worker);
}

#[tokio::test]
async fn the_command_sets_it_and_shows_what_is_used() {
    let world = World::with(SimulatorOptions { pending_polls: Span::fixed(0), ..SimulatorOptions::default() }).await;
    let limit = ["--as", "tester", "--json", "lane", "limit", "prod", "--max-submits-per-day"];
    let of_prod = |lanes: serde_json::Value| {
        let lanes = lanes.as_array().expect("a list").clone();
        lanes.into_iter().find(|lane| lane["lane"] == "prod").expect("lane prod")
    };
    let prod = of_prod(printed(&world, &[&limit[..], &["2"]].concat()).await);
    assert_eq!((&prod["max_submits_per_day"], &prod["submits_today"]), (&json!(2), &json!(0)));
    world.create(4).await;
    let worker = world.worker(&[]);
    spends(&world, 2).await;
    let prod = of_prod(printed(&world, &["--as", "tester", "--json", "lane", "list"]).await);
    assert_eq!((&prod["max_submits_per_day"], &prod["submits_today"]), (&json!(2), &json!(2)));
    let (table, _) = ends_with(&world, &["--as", "tester", "lane", "list"], 0).await;
    assert!(table.lines().any(|line| line.starts_with("prod") && line.contains("2 of 2")), "{table}");
    printed(&world, &[&limit[..], &["3"]].concat()).await;
    spends(&world, 3).await;
    printed(&world, &[&limit[..], &["none"]].concat()).await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    let said: Vec<(String, Option<i64>, Option<i64>)> = sqlx::query_as(
        "select who, (old_value ->> 'max_submits_per_day')::bigint, (new_value ->> 'max_submits_per_day')::bigint
         from imagemill.audit where what = 'update_lane' and subject = 'lane/prod' order by id",
    )
    .fetch_all(world.pool())
    .await
    .expect("read the audit");
    let tester = || "tester".to_owned();
    assert_eq!(said, [(tester(), None, Some(2)), (tester(), Some(2), Some(3)), (tester(), Some(3), None)]);
    drop(worker);
}
