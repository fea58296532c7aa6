//! How fast a task is, and how long it still takes: what is said of it is said of its present round.

use imagemill::{
    services::task_service::{Retry, cancel_cells, retry_task},
    simulator::{Behaviour, SimulatorOptions},
};
use sqlx::Executor as _;
use uuid::Uuid;

use crate::{commands::ends_with, support::World};

/// Cells a minute, and seconds left.
async fn said(world: &World, task: Uuid) -> (Option<f64>, Option<f64>) {
    let statement =
        "select cells_per_minute::float8, extract(epoch from time_left)::float8 from imagemill.task_overview where id = $1";
    sqlx::query_as(statement).bind(task).fetch_one(world.pool()).await.expect("look")
}

/// A drained task of ten cells, of which four failed, ten days ago.
async fn ended_long_ago() -> (World, Uuid) {
    let mut options = SimulatorOptions::default();
    options.script.extend((1..=4).map(|submit| (submit, Behaviour::IllegalImage)));
    let world = World::with(options).await;
    let task = world.create(10).await.id;
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 6, failed/refused: 4");
    let long_ago =
        "update imagemill.tasks set created_at = created_at - interval '10 days', started_at = started_at - interval '10 days',
                                               completed_at = completed_at - interval '10 days'";
    world.pool().execute(long_ago).await.expect("let ten days pass");
    (world, task)
}

#[tokio::test]
async fn a_retry_days_later_begins_a_round_with_a_rate_of_its_own() {
    let (world, task) = ended_long_ago().await;
    let (first, _) = said(&world, task).await;
    retry_task(&world.context, &world.actor, task, &Retry::default()).await.expect("retry");
    // What had ended before is no work of this round.
    assert_eq!(said(&world, task).await, (Some(0.0), None));
    let failed: Vec<i32> = sqlx::query_scalar("select cell from imagemill.subtasks where status = 'pending' order by cell")
        .fetch_all(world.pool())
        .await
        .expect("the cells");
    cancel_cells(&world.context, &world.actor, task, &failed[..2]).await.expect("two of the four end");
    let (rate, left) = said(&world, task).await;
    assert!(rate.expect("a rate") >= 0.1 && left.expect("a time") < 3600.0, "{rate:?} {left:?}");
    let id = task.to_string();
    let (shown, _) = ends_with(&world, &["--as", "tester", "task", "show", &id], 0).await;
    assert!(shown.lines().any(|line| line.starts_with("round      2, since 20")), "{shown}");
    world.drain().await;
    // An ended task keeps the rate of its last round; of the first it was that of ten cells.
    let (rate, left) = said(&world, task).await;
    assert!(first.expect("a rate") > 0.0 && rate.expect("a rate") >= 0.1 && left.is_none(), "{first:?} {rate:?} {left:?}");
    world.assert_settled().await;
}
