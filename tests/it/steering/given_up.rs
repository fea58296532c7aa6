//! Retry of what was given up under an upstream id: it is paid for, and waits for nothing that bounds submits.

use imagemill::{
    services::task_service::{Retry, retry_task},
    simulator::{Behaviour, Rate, SimulatorOptions},
};
use uuid::Uuid;

use super::{ALL_ENDED, arrivals};
use crate::support::World;

/// A task of so many cells, each given up at the poll limit; from then on all is well.
async fn given_up(cells: usize) -> (World, Uuid) {
    let options = SimulatorOptions {
        rates: vec![Rate { behaviour: Behaviour::PendingForever, probability: 1.0 }],
        ..SimulatorOptions::default()
    };
    let mut world = World::with(options).await;
    world.set("lanes.prod.max_polls", 3);
    let task = world.create(cells).await;
    world.drain().await;
    assert_eq!(world.cells().await, format!("failed/poll_limit: {cells}"));
    world.simulator.control(|options| options.rates.clear()).expect("from here on all is well");
    (world, task.id)
}

/// What its first submits come to, in their order.
fn end_as(world: &World, behaviours: impl IntoIterator<Item = Behaviour>) {
    for (entry, behaviour) in world.simulator.ledger().iter().zip(behaviours) {
        world.simulator.set_behaviour(&entry.upstream_id, behaviour).expect("set");
    }
}

async fn retry(world: &World, task: Uuid) {
    let done = retry_task(&world.context, &world.actor, task, &Retry::default()).await.expect("retry");
    assert_eq!(done.round, Some(2));
}

async fn run(world: &World, statement: &'static str) {
    sqlx::raw_sql(statement).execute(world.pool()).await.expect(statement);
}

#[tokio::test]
async fn a_picture_that_is_paid_for_waits_for_no_pause_no_place_and_no_budget() {
    let (world, task) = given_up(4).await;
    end_as(&world, [Behaviour::Success, Behaviour::Success, Behaviour::Success, Behaviour::Success]);
    // Nothing may be submitted, for five reasons.
    run(
        &world,
        "insert into imagemill.pauses (lane, reason, why) values ('prod', 'operator', 'a test');
         update imagemill.lanes set max_in_flight = 0, max_submits_per_day = 1, submits_per_second = 0.001;
         update imagemill.tasks set max_submits = 1",
    )
    .await;
    retry(&world, task).await;
    let worker = world.worker(&[]);
    world.until(ALL_ENDED).await;
    assert_eq!(world.cells().await, "completed: 4");
    assert_eq!(arrivals(&world), 4, "none was paid for twice");
    drop(worker);
}

#[tokio::test]
async fn a_new_submit_for_what_is_over_waits_as_any_other() {
    let (world, task) = given_up(3).await;
    let failure = || Behaviour::Failure { message: "no GPU".to_owned() };
    end_as(&world, [failure(), Behaviour::Lost, Behaviour::Success]);
    run(&world, "insert into imagemill.pauses (lane, reason, why) values ('prod', 'operator', 'a test')").await;
    retry(&world, task).await;
    let worker = world.worker(&[]);
    let asked = "select (select count(*) = 1 from imagemill.subtasks where status = 'completed')
                    and (select count(*) = 2 from apalis.jobs where status = 'Pending' and last_result ->> 'Err' in
                         ('no GPU', 'its earlier attempt is over: a new one waits its turn'))
                    and not exists (select from apalis.jobs where metadata ? 'resume')";
    world.until(asked).await;
    assert_eq!(arrivals(&world), 3, "the pause holds");
    assert_eq!(world.number("select sum(attempt_count)::bigint from imagemill.subtasks").await, 3, "nothing is counted");
    run(&world, "delete from imagemill.pauses").await;
    world.until(ALL_ENDED).await;
    assert_eq!(world.cells().await, "completed: 3");
    assert_eq!(arrivals(&world), 5);
    drop(worker);
    world.assert_settled().await;
}
