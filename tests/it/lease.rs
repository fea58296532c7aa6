//! What a worker does that was found dead and is not.

use std::time::Duration;

use imagemill::{services::processing, simulator::SimulatorOptions};
use rustix::process::Signal;

use crate::support::{World, eventually};

#[tokio::test]
async fn a_worker_whose_row_is_gone_goes_on_under_a_new_name() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.create(5).await;
    let _worker = world.worker(&[]);
    world.until("select count(*) = 5 from imagemill.attempts where state = 'accepted'").await;
    // What a rescuer does.
    let mut rescuer = world.pool().begin().await.expect("a transaction");
    sqlx::query(
        "update apalis.jobs set status = 'Pending', lock_by = null, lock_at = null, run_at = now(),
                                metadata = metadata || hstore('resume', 'true')",
    )
    .execute(&mut *rescuer)
    .await
    .expect("put the jobs back");
    sqlx::query("delete from apalis.workers where worker_type = 'imagemill'").execute(&mut *rescuer).await.expect("its row");
    rescuer.commit().await.expect("commit");

    world.until("select count(*) = 2 from imagemill.incarnations").await;
    assert_eq!(world.number("select count(*) from imagemill.incarnations where how = 'lost_lease'").await, 1);
    // It claims them again, as its own, and polls on under the same attempts.
    world.until("select count(*) = 5 from apalis.jobs where status = 'Running' and attempts = 2").await;
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    world.until("select status = 'completed' from imagemill.tasks").await;
    assert_eq!(world.cells().await, "completed: 5");
    assert_eq!(world.number("select max(ordinal)::bigint from imagemill.attempts").await, 1);
    assert_eq!(world.simulator.stats().arrivals, 5);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_worker_that_slept_through_its_lease_changes_nothing() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.create(10).await;
    let sleeper = world.worker(&[]);
    world.until("select count(*) = 10 from imagemill.attempts where state = 'accepted'").await;
    sleeper.signal(Signal::STOP);
    let other = world.worker(&[]);
    world.until("select count(*) = 1 from imagemill.incarnations where how = 'rescued'").await;
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    world.until("select status = 'completed' from imagemill.tasks").await;
    sleeper.signal(Signal::CONT);
    // It finds its row gone, and goes on under a new name.
    world.until("select count(*) = 3 from imagemill.incarnations").await;
    world.create(10).await;
    world.until("select bool_and(status = 'completed') from imagemill.tasks").await;
    assert_eq!(world.cells().await, "completed: 20");
    assert_eq!(world.simulator.stats().arrivals, 20);
    assert_eq!(world.number("select max(ordinal)::bigint from imagemill.attempts").await, 1);
    world.assert_settled().await;
    drop((sleeper, other));
}

#[tokio::test]
async fn a_killed_workers_submits_that_were_out_are_unknown_and_may_be_sent_again_by_policy_only_when_late() {
    let mut world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    // An answer may come for the time-out and the lease: 1 s and 3 s.
    world.set("generate_image.on_unknown_submit", "resubmit").set("lanes.prod.submit_timeout", "1s");
    world.create(1).await;
    let mut worker = world.worker(&[]);
    crate::support::eventually("the POST is out", || async { world.simulator.stats().arrivals == 1 }).await;
    worker.kill();
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 1");
    let late: bool = sqlx::query_scalar(
        "select second.submitted_at >= first.answer_until
         from imagemill.attempts first join imagemill.attempts second using (subtask_id)
         where first.ordinal = 1 and second.ordinal = 2 and first.state = 'unknown' and second.state = 'succeeded'",
    )
    .fetch_one(world.pool())
    .await
    .expect("both attempts");
    assert!(late, "it was sent again while the earlier one could still be answered");
    world.assert_settled().await;
}

/// What a rescuer does to every worker of this world; the jobs are due after a while.
async fn rescue(world: &World, due_in: &str) {
    let mut rescuer = world.pool().begin().await.expect("a transaction");
    sqlx::query(
        "update apalis.jobs set status = 'Pending', lock_by = null, lock_at = null, run_at = now() + $1::interval,
                                metadata = metadata || hstore('resume', 'true') where status = 'Running'",
    )
    .bind(due_in)
    .execute(&mut *rescuer)
    .await
    .expect("put the jobs back");
    sqlx::query("delete from apalis.workers where worker_type = 'imagemill'").execute(&mut *rescuer).await.expect("its row");
    rescuer.commit().await.expect("commit");
}

#[tokio::test]
async fn an_answer_between_the_rescue_and_the_next_claim_is_not_paid_for_again() {
    let world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    world.create(1).await;
    let worker = world.worker(&[]);
    eventually("the POST is out", || async { world.simulator.stats().arrivals == 1 }).await;
    // As if no slot were free anywhere until its answer has come.
    rescue(&world, "1 hour").await;
    world.until("select count(*) = 1 from imagemill.incarnations where how = 'lost_lease'").await;
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    world.until("select count(*) = 1 from imagemill.attempts where upstream_id is not null").await;
    assert_eq!(world.number("select max(attempts)::bigint from apalis.jobs").await, 1, "it was claimed again before");
    sqlx::query("update apalis.jobs set run_at = now()").execute(world.pool()).await.expect("a slot is free");
    world.until("select status in ('completed', 'failed') from imagemill.tasks").await;
    assert_eq!(world.simulator.stats().arrivals, 1, "submitted again");
    assert_eq!(world.cells().await, "failed/unknown_submit: 1");
    // The id is in the ledger, for a retry to poll.
    assert_eq!(
        world.number("select count(*) from imagemill.attempts where state = 'abandoned' and upstream_id is not null").await,
        1
    );
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn an_answer_beside_the_next_claims_settle_leaves_the_cell_unknown() {
    let world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    world.create(1).await;
    let worker = world.worker(&[]);
    eventually("the POST is out", || async { world.simulator.stats().arrivals == 1 }).await;
    // The settle of the next claim is held up at the cell's row.
    let mut second = world.pool().begin().await.expect("a second session");
    sqlx::query("select 1 from imagemill.subtasks for update").execute(&mut *second).await.expect("lock the cell");
    rescue(&world, "0 seconds").await;
    world
        .until(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                                                           and query like '%subtasks%')",
        )
        .await;
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    world.until("select state = 'abandoned' from imagemill.attempts").await;
    second.rollback().await.expect("let go");
    world.until("select status in ('completed', 'failed') from imagemill.tasks").await;
    assert_eq!(world.cells().await, "failed/unknown_submit: 1");
    assert_eq!(world.simulator.stats().arrivals, 1);
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_call_whose_future_is_dropped_lets_go_of_its_cells() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    let task = world.create(5).await;
    let mut call = Box::pin(processing::process_pending_subtasks(&world.context, &world.actor, task.id, 2));
    tokio::select! {
        _ = &mut call => panic!("it ended while nothing was answered"),
        () = world.until("select count(*) = 2 from imagemill.attempts where state = 'accepted'") => {}
    }
    drop(call);
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 5");
    assert_eq!(world.simulator.stats().arrivals, 5);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_whose_statement_waits() {
    let mut world = World::new().await;
    world.set("queue.grace", "600s");
    world.create(1).await;
    let mut second = world.pool().begin().await.expect("a second session");
    sqlx::query("select 1 from imagemill.subtasks for update").execute(&mut *second).await.expect("lock the cell");
    let mut worker = world.worker(&[]);
    world
        .until(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                                                           and query like '%subtasks%')",
        )
        .await;
    worker.signal(Signal::TERM);
    eventually("it leaves", || async { worker.log().contains("leaving") }).await;
    // The statement still waits: nothing but the second signal can end it.
    assert_eq!(worker.hurry().await.code(), Some(1));
    second.rollback().await.expect("let go");
}

#[tokio::test]
async fn workers_that_all_stood_still_do_not_take_each_other_for_dead() {
    let world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.create(10).await;
    let workers = [world.worker(&["--concurrency", "5"]), world.worker(&["--concurrency", "5"])];
    world.until("select count(*) = 10 from imagemill.attempts where state = 'accepted'").await;
    // Both have looked at each other.
    for _ in 0..2 {
        sqlx::query("update apalis.workers set last_seen = '2001-01-01'").execute(world.pool()).await.expect("mark the beats");
        world.until("select bool_and(last_seen > '2002-01-01') from apalis.workers").await;
    }
    for worker in &workers {
        worker.signal(Signal::STOP);
    }
    // Longer than the lease of 3 s; one of them comes back first.
    tokio::time::sleep(crate::support::LEASE + Duration::from_secs(2)).await;
    workers[0].signal(Signal::CONT);
    sqlx::query("update apalis.workers set last_seen = '2001-01-01' where id like '%-' || $1 || '-%'")
        .bind(workers[0].id().to_string())
        .execute(world.pool())
        .await
        .expect("mark its beat");
    world.until("select count(*) = 1 from apalis.workers where last_seen > now() - interval '2 seconds'").await;
    workers[1].signal(Signal::CONT);
    world.until("select count(*) = 2 from apalis.workers where last_seen > now() - interval '2 seconds'").await;
    assert_eq!(world.number("select count(*) from imagemill.incarnations where ended_at is not null").await, 0);
    world.simulator.control(|options| options.hold_polls = false).expect("let it answer");
    world.until("select status = 'completed' from imagemill.tasks").await;
    assert_eq!(world.number("select max(attempts)::bigint from apalis.jobs").await, 1, "a job was claimed twice");
    drop(workers);
}

#[tokio::test]
async fn thousands_of_own_orphans_are_put_back() {
    let world = World::new().await;
    // What is fresh has no place; what is resumed needs none.
    sqlx::query("update imagemill.lanes set max_in_flight = 0").execute(world.pool()).await.expect("no place");
    let worker = world.worker(&["--concurrency", "20"]);
    world.until("select count(*) = 1 from apalis.workers").await;
    world.create(4000).await;
    // As after a claim whose answer was lost, each with an open attempt.
    let mut transaction = world.pool().begin().await.expect("begin");
    for statement in [
        "update apalis.jobs set status = 'Running', lock_by = (select id from apalis.workers), lock_at = now(), attempts = 1",
        "update imagemill.subtasks set status = 'processing', attempt_count = 1, started_at = now()",
        "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, upstream_id, http_status,
                                         accepted_at, answer_until)
         select id, 1, 1, 1, lane, (select id from apalis.workers), 'accepted', 'of before ' || cell, 200, now(), now()
         from imagemill.subtasks",
    ] {
        sqlx::query(statement).execute(&mut *transaction).await.expect("make orphans");
    }
    transaction.commit().await.expect("commit");
    world.until("select count(*) >= 3900 from apalis.jobs where status = 'Pending' and metadata ? 'resume'").await;
    assert_eq!(world.number("select count(*) from imagemill.incarnations where ended_at is not null").await, 0);
    drop(worker);
}
