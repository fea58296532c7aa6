//! Budgets, and the time before which a task submits nothing.

use imagemill::simulator::{Behaviour, SimulatorOptions, Span};

use crate::support::{World, eventually};

#[tokio::test]
async fn a_task_over_its_budget_waits_and_goes_on_when_it_is_raised() {
    let mut options = SimulatorOptions { pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    // Of the first three one is taken and its answer lost: it counts. One is turned away: it does not.
    options.script.insert(1, Behaviour::status(500));
    options.script.insert(2, Behaviour::status(429));
    let world = World::with(options).await;
    let task = world.create(10).await;
    let set = |budget: Option<i64>| {
        let query = sqlx::query("update imagemill.tasks set max_submits = $2 where id = $1").bind(task.id).bind(budget);
        async { query.execute(world.pool()).await.expect("set the budget") }
    };
    set(Some(3)).await;
    let workers = [world.worker(&[]), world.worker(&[])];
    let billed = "select count(*) from imagemill.attempts where state not in ('not_sent', 'turned_away', 'rejected')";
    let spent = |count: i64| {
        let world = &world;
        async move { world.number("select submits from imagemill.task_counts").await == count && world.number(billed).await == count }
    };
    eventually("three are spent", || spent(3)).await;
    set(Some(7)).await;
    eventually("seven are spent", || spent(7)).await;
    set(None).await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    assert!(spent(10).await);
    drop(workers);
    world.assert_ledgers_agree().await;
}

#[tokio::test]
async fn nothing_is_submitted_before_its_time() {
    let world = World::new().await;
    let task = world.create(3).await;
    sqlx::query("update imagemill.tasks set not_before = now() + interval '3 seconds' where id = $1")
        .bind(task.id)
        .execute(world.pool())
        .await
        .expect("set the time");
    let worker = world.worker(&[]);
    world.until("select completed_at is not null from imagemill.tasks").await;
    assert_eq!(
        world
            .number("select count(*) from imagemill.attempts a cross join imagemill.tasks t where a.submitted_at < t.not_before")
            .await,
        0
    );
    drop(worker);
    world.assert_settled().await;
}
