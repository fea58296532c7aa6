//! A client that stalls with its transaction open: it blocks nobody for longer than the transaction may idle.

use imagemill::{
    queue::fault,
    simulator::{SimulatorOptions, Span},
};
use rustix::process::Signal;

use super::{fate::Fates, fleet::Fleet};
use crate::support::{BOUND, Commit, World, eventually};

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
async fn a_row_that_somebody_holds_keeps_no_other_cell_waiting() {
    let options = SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() };
    let world = World::with(options).await;
    let worker = world.worker(&[]);
    let held = world.create(6).await;
    world.until("select count(*) = 6 from imagemill.attempts where state = 'accepted'").await;
    let mut holder = world.pool().begin().await.expect("begin");
    let job: String = sqlx::query_scalar("select id from apalis.jobs where lock_by is not null order by id limit 1 for update")
        .fetch_one(&mut *holder)
        .await
        .expect("hold a job's row");
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    // As long as it is held: of its own task, and of another.
    world.until("select count(*) = 5 from imagemill.subtasks where status = 'completed'").await;
    let other = world.create(20).await;
    let others = "select status = 'completed' from imagemill.tasks where id = $1";
    eventually("the other task ends", || async {
        sqlx::query_scalar(others).bind(other.id).fetch_one(world.pool()).await.expect("look at it")
    })
    .await;
    let open: String = sqlx::query_scalar("select id from apalis.jobs where lock_by is not null")
        .fetch_one(world.pool())
        .await
        .expect("the one that is held");
    assert_eq!(open, job);
    // The counts of a task are one row: its cells wait, and no others.
    holder.rollback().await.expect("let go");
    world.until("select bool_and(status = 'completed') from imagemill.tasks").await;
    world.simulator.control(|options| options.hold_polls = true).expect("hold its answers back");
    let counted = world.create(6).await;
    world.until("select count(*) = 6 from imagemill.attempts where state = 'accepted'").await;
    let mut holder = world.pool().begin().await.expect("begin");
    sqlx::query("select from imagemill.task_counts where task_id = $1 for update")
        .bind(counted.id)
        .execute(&mut *holder)
        .await
        .expect("hold the task's counts");
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    let other = world.create(20).await;
    eventually("the other task ends", || async {
        sqlx::query_scalar(others).bind(other.id).fetch_one(world.pool()).await.expect("look at it")
    })
    .await;
    holder.rollback().await.expect("let go");
    world.until("select bool_and(status = 'completed') from imagemill.tasks").await;
    assert!(world.billed().values().all(|submits| *submits == 1), "{} cells of {}", world.billed().len(), held.total_images);
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_service_that_stands_still_lets_go_of_its_locks() {
    let world = World::new().await;
    let task = world.create(1).await;
    let mut stalled = world.context.begin().await.expect("begin");
    let lock = "select from imagemill.tasks where id = $1 for update";
    sqlx::query(lock).bind(task.id).execute(&mut *stalled).await.expect("lock it");
    // Whoever holds it says nothing more, and is not gone either.
    tokio::time::timeout(BOUND, sqlx::query(lock).bind(task.id).execute(world.pool())).await.expect("in time").expect("lock it");
    assert!(sqlx::query(lock).bind(task.id).execute(&mut *stalled).await.is_err(), "its session has ended");
}

#[tokio::test]
async fn a_settle_whose_commit_does_not_arrive_blocks_nobody() {
    let fleet = Fleet::new(SimulatorOptions::default()).await;
    let reached = fleet.orders.stall(Commit::Settle, 2);
    fleet.world.create(20).await;
    let mut worker = fleet.worker(&["--concurrency", "8"]).await;
    let stalled = reached.await;
    // Its other connections work: the settle is repeated there, while this one still stands.
    tokio::time::timeout(BOUND, fleet.until_ended()).await.expect("the cells end");
    drop(stalled);
    assert_eq!(fleet.world.cells().await, "completed: 20");
    assert_eq!(fleet.world.simulator.stats().arrivals, 20);
    worker.assert_runs();
    worker.leave().await;
    fleet.judge(&Fates::default()).await;
}
