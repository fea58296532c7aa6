//! A client that stalls with its transaction open: it blocks nobody for longer than the transaction may idle.

use imagemill::{
    queue::fault,
    simulator::{SimulatorOptions, Span},
};
use rustix::process::Signal;

use super::{fate::Fates, fleet::Fleet};
use crate::support::{BOUND, Commit};

/// A session of a worker's that holds its locks and says nothing.
const STALLED: &str = "select exists (select from pg_stat_activity
    where datname = current_database() and application_name = 'imagemill' and state = 'idle in transaction'
      and state_change < clock_timestamp() - interval '300 milliseconds')";

#[tokio::test]
async fn a_worker_that_is_stopped_in_mid_settle_blocks_nobody() {
    let options = SimulatorOptions { duration: Span::fixed(300), ..SimulatorOptions::default() };
    let fleet = Fleet::new(options).await;
    fleet.world.create(20).await;
    let mut stopped = fleet.doomed(&format!("{}:2:stop", fault::SETTLE_UNCOMMITTED), &["--concurrency", "8"]).await;
    fleet.until(STALLED).await;
    fleet.note_halted(&stopped).await;
    let other = fleet.worker(&["--concurrency", "8"]).await;
    // While it still stands.
    fleet.until_ended().await;
    stopped.process.signal(Signal::CONT);
    // It finds itself dead, and goes on under a new name.
    fleet.until("select count(*) = 3 from imagemill.incarnations").await;
    fleet.world.create(10).await;
    fleet.until_ended().await;
    stopped.assert_runs();
    stopped.leave().await;
    other.leave().await;
    let counted = fleet.judge(&Fates::default()).await;
    assert_eq!(counted.cells.get("completed").copied().unwrap_or(0) + counted.unknown_by_end, 30, "{counted:?}");
}

#[tokio::test]
async fn a_settle_whose_commit_does_not_arrive_blocks_nobody() {
    let fleet = Fleet::new(SimulatorOptions::default()).await;
    let reached = fleet.orders.stall(Commit::Settle, 2);
    fleet.world.create(20).await;
    let mut worker = fleet.worker(&["--concurrency", "8"]).await;
    let stalled = reached.await.expect("the order was reached");
    // Its other connections work: the settle is repeated there, while this one still stands.
    tokio::time::timeout(BOUND, fleet.until_ended()).await.expect("the cells end");
    drop(stalled);
    assert_eq!(fleet.world.cells().await, "completed: 20");
    assert_eq!(fleet.world.simulator.stats().arrivals, 20);
    worker.assert_runs();
    worker.leave().await;
    fleet.judge(&Fates::default()).await;
}
