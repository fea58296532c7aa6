//! A worker that ends at each of the named points: what it had out is unknown, no more and no less; everything else is
//! finished by another, under the same ids.

use imagemill::{
    queue::fault,
    simulator::{SimulatorOptions, Span},
};

use super::{fate::Fates, fleet::Fleet};
use crate::support::eventually;

const CELLS: usize = 16;

/// Ends a worker when it passes a point for the second time. Returns how many of its rows were `submitting` then.
async fn killed_at(point: &str) -> usize {
    let options = SimulatorOptions { submit_latency: Span::fixed(60), ..SimulatorOptions::default() };
    let fleet = Fleet::new(options).await;
    fleet.world.create(CELLS).await;
    let mut worker = fleet.doomed(&format!("{point}:2"), &["--concurrency", "4"]).await;
    let status = worker.process.wait().await;
    assert_eq!(status.code(), None, "it was to be killed, and ended with {status}:\n{}", worker.process.last_words());
    let out = fleet.bury(&worker).await;
    // What has an id is polled on under it.
    let accepted: Vec<(String, i32, String)> = sqlx::query_as(
        "select subtask_id::text, ordinal, upstream_id from imagemill.attempts where state = 'accepted' order by 1",
    )
    .fetch_all(fleet.world.pool())
    .await
    .expect("read the accepted attempts");
    fleet.world.drain().await;
    for (cell, ordinal, id) in accepted {
        let after: (String, Option<String>) =
            sqlx::query_as("select state, upstream_id from imagemill.attempts where subtask_id::text = $1 and ordinal = $2")
                .bind(&cell)
                .bind(ordinal)
                .fetch_one(fleet.world.pool())
                .await
                .expect("the attempt");
        assert_eq!(after, ("succeeded".to_owned(), Some(id)), "{cell}/{ordinal}");
    }
    let counted = fleet.judge(&Fates::default()).await;
    assert_eq!(counted.unknown_by_end, out.len(), "{counted:?}");
    assert_eq!(counted.cells.get("completed"), Some(&(CELLS - out.len())), "{counted:?}");
    out.len()
}

#[tokio::test]
async fn a_worker_killed_after_its_claim_was_committed() {
    // The second claim is not necessarily the first of cells, but no POST of it has left.
    killed_at(fault::CLAIM_COMMITTED).await;
}

#[tokio::test]
async fn a_worker_killed_after_the_ledgers_commit() {
    assert_ne!(killed_at(fault::LEDGER_COMMITTED).await, 0);
}

#[tokio::test]
async fn a_worker_killed_with_a_post_on_the_wire() {
    assert_ne!(killed_at(fault::POST_ON_THE_WIRE).await, 0);
}

#[tokio::test]
async fn a_worker_killed_when_the_answer_has_come() {
    assert_ne!(killed_at(fault::ANSWER_RECEIVED).await, 0);
}

#[tokio::test]
async fn a_worker_killed_after_the_id_was_committed() {
    killed_at(fault::ACCEPTED_COMMITTED).await;
}

#[tokio::test]
async fn a_worker_killed_before_the_settles_commit() {
    killed_at(fault::SETTLE_UNCOMMITTED).await;
}

#[tokio::test]
async fn a_worker_killed_after_the_settles_commit() {
    killed_at(fault::SETTLE_COMMITTED).await;
}

#[tokio::test]
async fn what_was_on_the_wire_at_a_kill_has_its_row() {
    let fleet = Fleet::new(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    fleet.world.create(4).await;
    let mut worker = fleet.worker(&[]).await;
    eventually("the POSTs are out", || async { fleet.world.simulator.stats().arrivals == 4 }).await;
    worker.process.kill();
    let out = fleet.bury(&worker).await;
    fleet.world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    fleet.assert_paid_by_row().await;
    assert_eq!(out.len(), 4, "{out:?}");
    fleet.world.drain().await;
    let counted = fleet.judge(&Fates::default()).await;
    assert_eq!((counted.unknown_by_end, fleet.world.simulator.stats().arrivals), (4, 4), "{counted:?}");
}
