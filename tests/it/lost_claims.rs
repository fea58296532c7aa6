//! Claims of one job whose answers are lost.

use std::{sync::Arc, time::Duration};

use imagemill::services::{context::Context, processing};
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgPoolOptions;

use crate::support::{BOUND, Commit, Orders, Proxy, Server, World};

#[tokio::test]
async fn a_cell_that_a_call_has_claimed_without_knowing_waits_for_no_rescue() {
    let world = World::new().await;
    let task = world.create(1).await;
    let mut connection = world.pool().acquire().await.expect("a connection");
    let cell = imagemill::crud::subtasks::get_by_task(&mut connection, task.id).await.expect("the cells").remove(0).id;
    drop(connection);
    let orders = Arc::<Orders>::default();
    let proxy = Proxy::start(Server::of(&world.database.url), Arc::clone(&orders)).await;
    let url = proxy.url(&world.database.url);
    let pool = PgPoolOptions::new().max_connections(6).connect(url.expose_secret()).await.expect("connect by way of the proxy");
    let mut settings = world.context.settings.as_ref().clone();
    // No beat but the first compares what runs with what is held, for longer than it is waited for.
    (settings.queue.beat, settings.queue.lease) = (Duration::from_mins(10), Duration::from_mins(30));
    let context = Context::new(pool, settings).with_upstream().expect("the upstream's client");
    let reached = orders.lose_answer(Commit::Claim, 1);
    let process = tokio::time::timeout(2 * BOUND, processing::process_subtask(&context, &world.actor, cell));
    let (processed, ()) = tokio::join!(process, async { drop(reached.await) });
    processed.expect("it ends").expect_err("its answer was lost");
    let waits = "select count(*) from apalis.jobs where status = 'Pending' and lock_by is null";
    assert_eq!(world.number(waits).await, 1, "the call has left, and holds the cell");
    world.drain().await;
    assert_eq!((world.cells().await.as_str(), world.simulator.stats().arrivals), ("completed: 1", 1));
    world.assert_settled().await;
}
