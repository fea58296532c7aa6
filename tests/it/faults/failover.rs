//! A failover that lost the last commits: PostgreSQL comes back as it was a while ago, and the workers know more than it does.

use imagemill::simulator::{Behaviour, Rate, SimulatorOptions};

use super::{fate::Fates, fleet::Fleet};
use crate::support::{Stop, eventually};

#[tokio::test]
async fn settles_that_a_failover_lost_are_done_again() {
    let rates = vec![Rate { behaviour: Behaviour::PendingForever, probability: 1.0 }];
    let (mut fleet, mut server) = Fleet::with_own_server(SimulatorOptions { rates, ..SimulatorOptions::default() }).await;
    fleet.world.set("lanes.prod.max_polls", "10000");
    fleet.world.create(20).await;
    let mut workers = [fleet.worker(&["--concurrency", "10"]).await, fleet.worker(&["--concurrency", "10"]).await];
    fleet.until("select count(*) = 20 from imagemill.attempts where state = 'accepted'").await;

    server.lose_commits_from_now().await;
    for entry in fleet.world.simulator.ledger() {
        fleet.world.simulator.set_behaviour(&entry.upstream_id, Behaviour::Success).expect("let it end");
    }
    fleet.until("select count(*) = 20 from imagemill.subtasks where status = 'completed'").await;
    server.stop(Stop::Immediate).await;
    // As the next one finds it: no worker gets to it before it was looked at.
    server.start_again_alone().await;
    let lost = server.number("select count(*) from imagemill.subtasks where status = 'processing'").await;
    assert_ne!(lost, 0, "the failover lost nothing: this test shows nothing");
    server.let_in();

    // The jobs are Running again, and no handler of theirs is left: the workers find out.
    fleet.until_ended().await;
    assert_eq!(fleet.world.cells().await, "completed: 20");
    assert_eq!(fleet.world.simulator.stats().arrivals, 20, "something was submitted again");
    for worker in &mut workers {
        worker.assert_runs();
    }
    for worker in workers {
        worker.leave().await;
    }
    fleet.judge(&Fates::default()).await;
}

/// Rows of the ledger that did not survive cannot keep anybody from paying again; but nothing is lost or stuck, and the
/// upstream has each cell twice at most.
#[tokio::test]
async fn claims_and_submits_that_a_failover_lost_leave_nothing_stuck() {
    let (mut fleet, mut server) =
        Fleet::with_own_server(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    fleet.world.set("generate_image.slots", "5");
    fleet.world.create(5).await;
    server.lose_commits_from_now().await;
    // Not even the worker's own row survives.
    let mut worker = fleet.worker(&[]).await;
    eventually("the POSTs are out", || async { fleet.world.simulator.stats().arrivals == 5 }).await;
    server.stop(Stop::Immediate).await;
    server.start_again_alone().await;
    let rows = server.number("select (select count(*) from imagemill.attempts) + (select count(*) from apalis.workers)").await;
    assert_eq!(rows, 0, "the failover lost nothing: this test shows nothing");
    server.let_in();
    fleet.world.simulator.control(|options| options.hold_submits = false).expect("let it answer");

    fleet.until_ended().await;
    fleet
        .until("select not exists (select from apalis.jobs where status in ('Pending', 'Running') or lock_by is not null)")
        .await;
    worker.assert_runs();
    worker.leave().await;
    let open = "select count(*) from imagemill.subtasks where status in ('pending', 'processing')";
    assert_eq!(fleet.world.number(open).await, 0, "{}", fleet.world.cells().await);
    assert!(fleet.world.billed().values().all(|submits| *submits <= 2), "{:?}", fleet.world.billed());
}
