//! Whose turn it is.

use std::collections::BTreeMap;

use imagemill::{
    services::{actor::Actor, task_service::create_task},
    simulator::{SimulatorOptions, Span},
};

use super::{change_lane, definition, owner};
use crate::support::{World, eventually};

/// Jobs that run, by task, oldest task first.
async fn running(world: &World) -> Vec<i64> {
    let statement = "select count(*) filter (where j.lock_by is not null) from imagemill.tasks t
                     join apalis.jobs j on j.metadata -> 'group' = t.id::text and j.job_type = 'imagemill.generate_image'
                     group by t.id order by t.id";
    sqlx::query_scalar(statement).fetch_all(world.pool()).await.expect("count what runs")
}

/// A world whose jobs do not end.
async fn endless() -> World {
    World::with(SimulatorOptions { duration: Span::fixed(300_000), ..SimulatorOptions::default() }).await
}

async fn until_full(world: &World, places: usize) {
    eventually("the lane is full", || async { world.simulator.ledger().len() == places }).await;
}

async fn another_owner(world: &World) -> Actor {
    owner(world, "another").await
}

#[tokio::test]
async fn two_tasks_of_one_owner_share_by_priority() {
    let world = endless().await;
    change_lane(&world, "max_in_flight = 18").await;
    for (name, priority) in [("low", 1), ("high", 8)] {
        create_task(&world.context, &world.actor, &definition(&world, name, 50, priority)).await.expect("create the task");
    }
    let worker = world.worker(&[]);
    until_full(&world, 18).await;
    assert_eq!(running(&world).await, [2, 16]);
    drop(worker);
}

#[tokio::test]
async fn owners_share_equally_however_many_tasks_they_have() {
    let world = endless().await;
    let another = another_owner(&world).await;
    change_lane(&world, "max_in_flight = 4").await;
    for name in ["first", "second"] {
        create_task(&world.context, &world.actor, &definition(&world, name, 50, 8)).await.expect("create the task");
    }
    let worker = world.worker(&[]);
    until_full(&world, 4).await;
    assert_eq!(running(&world).await, [2, 2]);
    // Who comes later gets the next places until all have the same.
    create_task(&world.context, &another, &definition(&world, "third", 50, 1)).await.expect("create the task");
    change_lane(&world, "max_in_flight = 8").await;
    until_full(&world, 8).await;
    assert_eq!(running(&world).await, [2, 2, 4]);
    change_lane(&world, "max_in_flight = 10").await;
    until_full(&world, 10).await;
    assert_eq!(running(&world).await, [3, 2, 5]);
    drop(worker);
}

#[tokio::test]
async fn what_an_owner_has_in_flight_of_a_task_that_has_no_more_counts_as_his() {
    let world = endless().await;
    let another = another_owner(&world).await;
    change_lane(&world, "max_in_flight = 8").await;
    create_task(&world.context, &world.actor, &definition(&world, "first", 4, 1)).await.expect("create the task");
    let full = world.worker(&["--concurrency", "4"]);
    until_full(&world, 4).await;
    create_task(&world.context, &world.actor, &definition(&world, "second", 50, 1)).await.expect("create the task");
    create_task(&world.context, &another, &definition(&world, "third", 50, 1)).await.expect("create the task");
    // This one knows of both tasks when it begins.
    let worker = world.worker(&["--concurrency", "4"]);
    until_full(&world, 8).await;
    assert_eq!(running(&world).await, [4, 0, 4]);
    drop((full, worker));
}

#[tokio::test]
async fn what_one_group_does_not_have_goes_to_the_others() {
    let world = endless().await;
    change_lane(&world, "max_in_flight = 12").await;
    for (name, cells) in [("one", 1), ("two", 2), ("many", 50)] {
        create_task(&world.context, &world.actor, &definition(&world, name, cells, 1)).await.expect("create the task");
    }
    let worker = world.worker(&[]);
    until_full(&world, 12).await;
    assert_eq!(running(&world).await, [1, 2, 9]);
    drop(worker);
}

#[tokio::test]
async fn of_more_owners_and_tasks_than_places_none_waits_for_the_end_of_another() {
    let world = World::with(SimulatorOptions { duration: Span::fixed(20), ..SimulatorOptions::default() }).await;
    change_lane(&world, "max_in_flight = 2").await;
    for name in ["first", "second", "third", "fourth"] {
        let owner = owner(&world, name).await;
        for number in 0..2 {
            create_task(&world.context, &owner, &definition(&world, &format!("{name} {number}"), 100, 1))
                .await
                .expect("create the task");
        }
    }
    let worker = world.worker(&[]);
    // The place of each task's first submit among all.
    let first_places = || {
        let mut places = BTreeMap::new();
        for (place, entry) in world.simulator.ledger().iter().enumerate() {
            let (task, _) = entry.first_prompt().and_then(|prompt| prompt.rsplit_once(' ')).expect("a task and a cell");
            places.entry(task.to_owned()).or_insert(place);
        }
        places
    };
    eventually("a submit of each task", || async { first_places().len() == 8 }).await;
    drop(worker);
    // Before the first of them can have been done.
    let places = first_places();
    assert!(places.values().all(|place| *place < 100), "{places:?}");
}
