//! What a worker does that was found dead and is not.

use imagemill::simulator::SimulatorOptions;
use rustix::process::Signal;

use crate::support::World;

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
