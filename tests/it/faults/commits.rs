//! The answer to a COMMIT is lost: PostgreSQL has committed, and the worker does not know.

use imagemill::simulator::{Behaviour, Rule, SimulatorOptions};
use rustix::process::Signal;

use super::{fate::Fates, fleet::Fleet};
use crate::support::{Commit, eventually};

const CELLS: usize = 20;

/// Loses the answer to the second commit of a kind. One worker has to find out by itself.
async fn lost(kind: Commit) {
    let fleet = Fleet::new(SimulatorOptions::default()).await;
    let reached = fleet.orders.lose_answer(kind, 2);
    fleet.world.create(CELLS).await;
    let mut worker = fleet.worker(&["--concurrency", "8"]).await;
    drop(reached.await);
    fleet.until_ended().await;
    assert_eq!(fleet.world.cells().await, format!("completed: {CELLS}"));
    // Nothing was submitted twice, and nobody had to find the worker dead.
    assert_eq!(fleet.world.simulator.stats().arrivals, CELLS as u64);
    assert_eq!(fleet.world.number("select count(*) from imagemill.incarnations where ended_at is not null").await, 0);
    worker.assert_runs();
    worker.leave().await;
    let counted = fleet.judge(&Fates::default()).await;
    assert_eq!(counted.attempts.get("unknown"), None, "{counted:?}");
}

#[tokio::test]
async fn the_answer_to_a_claim_is_lost() {
    lost(Commit::Claim).await;
}

#[tokio::test]
async fn the_answer_to_a_ledger_commit_is_lost() {
    lost(Commit::Ledger).await;
}

#[tokio::test]
async fn the_answer_to_an_accepted_commit_is_lost() {
    lost(Commit::Accepted).await;
}

#[tokio::test]
async fn the_answer_to_a_settle_is_lost() {
    lost(Commit::Settle).await;
}

#[tokio::test]
async fn the_answer_to_a_hand_over_is_lost() {
    let fleet = Fleet::new(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    fleet.world.create(10).await;
    let mut worker = fleet.worker(&[]).await;
    fleet.until("select count(*) = 10 from imagemill.attempts where state = 'accepted'").await;
    let reached = fleet.orders.lose_answer(Commit::Settle, 1);
    worker.process.signal(Signal::TERM);
    drop(reached.await);
    let status = worker.process.wait().await;
    assert_eq!(status.code(), Some(0), "{}", worker.process.last_words());
    assert_eq!(fleet.world.number("select count(*) from apalis.jobs where status = 'Pending' and metadata ? 'resume'").await, 10);
    fleet.world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    fleet.world.drain().await;
    let counted = fleet.judge(&Fates::default()).await;
    assert_eq!((counted.billed, counted.cells.get("completed")), (10, Some(&10)), "{counted:?}");
}

/// It is told to leave before it knows that it holds anything.
#[tokio::test]
async fn the_answer_to_a_claim_is_lost_to_a_worker_that_leaves() {
    let fleet = Fleet::new(SimulatorOptions::default()).await;
    let mut worker = fleet.worker(&["--concurrency", "8"]).await;
    worker.started().await;
    let reached = fleet.orders.lose_answer(Commit::Claim, 1);
    fleet.world.create(CELLS).await;
    let reached = reached.await;
    worker.process.signal(Signal::TERM);
    eventually("it leaves", || async { worker.process.log().contains("leaving") }).await;
    drop(reached);
    let status = worker.process.wait().await;
    assert_eq!(status.code(), Some(0), "{}", worker.process.last_words());
    // Put back by itself: nobody has to wait for a lease.
    assert_eq!(fleet.world.number("select count(*) from apalis.jobs where lock_by is not null").await, 0);
    assert_eq!(fleet.world.simulator.stats().arrivals, 0);
    fleet.world.drain().await;
    assert_eq!(fleet.world.cells().await, format!("completed: {CELLS}"));
    fleet.judge(&Fates::default()).await;
}

/// The last thing that a worker writes is that it has left.
#[tokio::test]
async fn the_answer_to_a_workers_end_is_lost() {
    let fleet = Fleet::new(SimulatorOptions::default()).await;
    fleet.world.create(1).await;
    let mut worker = fleet.worker(&[]).await;
    fleet.until_ended().await;
    let reached = fleet.orders.lose_answer(Commit::End, 1);
    worker.process.signal(Signal::TERM);
    drop(reached.await);
    let status = worker.process.wait().await;
    assert_eq!(status.code(), Some(0), "{}", worker.process.last_words());
    assert_eq!(fleet.world.number("select count(*) from apalis.workers").await, 0);
    assert_eq!(fleet.world.number("select count(*) from imagemill.incarnations where how = 'stopped'").await, 1);
    fleet.judge(&Fates::default()).await;
}

/// The same worker has claimed the job anew before it learns that its settle's answer is lost, and repeats the settle: only
/// the number of the claim tells the two apart.
#[tokio::test]
async fn a_settle_that_is_repeated_meets_the_next_claim_of_its_job() {
    let mut options = SimulatorOptions::default();
    // The first attempt fails; the second, which the policy allows, gets a picture.
    options.rules.push(Rule { times: Some(1), ..Rule::new(Behaviour::Failure { message: "no GPU".to_owned() }) });
    let fleet = Fleet::new(options).await;
    let reached = fleet.orders.lose_answer(Commit::Settle, 1);
    fleet.world.create(1).await;
    let mut worker = fleet.worker(&["--concurrency", "2"]).await;
    // The settle stands, and puts the job back; its answer is on its way.
    let reached = reached.await;
    fleet.world.simulator.control(|options| options.hold_submits = true).expect("hold the submits");
    eventually("the job was claimed anew, and its POST is out", || async { fleet.world.simulator.stats().arrivals == 2 }).await;
    drop(reached);
    // Both slots are taken until the first settle is over: then there is one for another cell.
    fleet.world.create(1).await;
    eventually("the settle is over", || async { fleet.world.simulator.stats().arrivals == 3 }).await;
    fleet.world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    fleet.until_ended().await;
    assert_eq!(fleet.world.cells().await, "completed: 2");
    worker.assert_runs();
    worker.leave().await;
    let counted = fleet.judge(&Fates::default()).await;
    assert_eq!(counted.billed, 3, "{counted:?}");
}
