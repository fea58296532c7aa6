//! PostgreSQL goes away and comes back: workers go on polling, keep what they are told, reconnect and settle.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use imagemill::simulator::{Behaviour, Rate, SimulatorOptions, Span, TaskStatus};

use super::{fate::Fates, fleet::Fleet};
use crate::support::{Stop, eventually};

/// Stops the server under two workers, which have 20 cells to poll and 10 POSTs out, for at least so long.
async fn away(how: Stop, at_least: Duration) {
    // Nothing ends before it is told to.
    let rates = vec![Rate { behaviour: Behaviour::PendingForever, probability: 1.0 }];
    let (mut fleet, mut server) = Fleet::with_own_server(SimulatorOptions { rates, ..SimulatorOptions::default() }).await;
    fleet.world.set("lanes.prod.max_polls", "10000");
    fleet.world.create(20).await;
    let mut workers = [fleet.worker(&["--concurrency", "15"]).await, fleet.worker(&["--concurrency", "15"]).await];
    fleet.until("select count(*) = 20 from imagemill.attempts where state = 'accepted'").await;
    let simulator = &fleet.world.simulator;
    simulator.control(|options| options.hold_submits = true).expect("hold the submits");
    fleet.world.create(10).await;
    eventually("ten POSTs are out", || async { simulator.stats().arrivals == 30 }).await;
    fleet.until("select count(*) = 10 from imagemill.attempts where state = 'submitting'").await;

    server.stop(how).await;
    let gone = Instant::now();
    let polls = simulator.stats().polls;
    eventually("the upstream is polled on", || async { simulator.stats().polls > polls + 60 }).await;
    // Both kinds of what a worker must keep: outcomes, and the answers to submits.
    for entry in simulator.ledger() {
        simulator.set_behaviour(&entry.upstream_id, Behaviour::Success).expect("let it end");
    }
    simulator.control(|options| options.hold_submits = false).expect("let it answer");
    eventually("the outcomes were told", || async {
        let told = simulator.ledger().into_iter().filter(|entry| entry.task_status == Some(TaskStatus::Success));
        told.count() >= 20
    })
    .await;
    let told: BTreeMap<String, u64> = simulator
        .ledger()
        .into_iter()
        .filter(|entry| entry.task_status == Some(TaskStatus::Success))
        .map(|entry| (entry.upstream_id, entry.polls))
        .collect();
    // For how long it is away is the subject.
    tokio::time::sleep(at_least.saturating_sub(gone.elapsed())).await;
    server.start_again().await;

    fleet.until_ended().await;
    assert_eq!(fleet.world.cells().await, "completed: 30");
    assert_eq!(fleet.world.simulator.stats().arrivals, 30);
    // Nobody was taken for dead, no job was claimed twice, and what had been told was not asked again.
    assert_eq!(fleet.world.number("select count(*) from imagemill.incarnations where ended_at is not null").await, 0);
    let claims = fleet.world.number("select max(attempts)::bigint from apalis.jobs where job_type = 'imagemill.generate_image'");
    assert_eq!(claims.await, 1);
    for entry in fleet.world.simulator.ledger() {
        if let Some(polls) = told.get(&entry.upstream_id) {
            assert_eq!(entry.polls, *polls, "{} was polled again", entry.upstream_id);
        }
    }
    for worker in &mut workers {
        worker.assert_runs();
    }
    for worker in workers {
        worker.leave().await;
    }
    let counted = fleet.judge(&Fates::default()).await;
    assert_eq!(counted.billed, 30, "{counted:?}");
}

#[tokio::test]
async fn a_restart() {
    away(Stop::Fast, Duration::ZERO).await;
}

#[tokio::test]
async fn an_immediate_shutdown() {
    away(Stop::Immediate, Duration::ZERO).await;
}

#[tokio::test]
async fn no_server_for_more_than_two_leases() {
    away(Stop::Fast, Duration::from_secs(8)).await;
}

#[tokio::test]
#[ignore = "long: half a minute without a server"]
async fn no_server_for_half_a_minute() {
    away(Stop::Immediate, Duration::from_secs(30)).await;
}

/// The sessions of the workers: pool, beat and listener.
async fn sessions(fleet: &Fleet) -> Vec<i32> {
    sqlx::query_scalar(
        "select pid from pg_stat_activity where datname = current_database() and application_name = 'imagemill' order by pid",
    )
    .fetch_all(fleet.world.pool())
    .await
    .expect("list the sessions")
}

async fn terminate(fleet: &Fleet, session: i32) {
    sqlx::query("select pg_terminate_backend($1)").bind(session).execute(fleet.world.pool()).await.expect("terminate it");
    eventually("the session is gone", || async { !sessions(fleet).await.contains(&session) }).await;
}

#[tokio::test]
async fn each_connection_is_terminated_and_then_all_at_once() {
    let options =
        SimulatorOptions { submit_latency: Span::range(0, 100), duration: Span::range(100, 900), ..SimulatorOptions::default() };
    let fleet = Fleet::new(options).await;
    fleet.world.create(100).await;
    let mut workers = [fleet.worker(&["--concurrency", "8"]).await, fleet.worker(&["--concurrency", "8"]).await];
    fleet.until("select count(*) >= 10 from imagemill.attempts where state <> 'submitting'").await;
    for session in sessions(&fleet).await {
        terminate(&fleet, session).await;
    }
    for session in sessions(&fleet).await {
        sqlx::query("select pg_terminate_backend($1)").bind(session).execute(fleet.world.pool()).await.expect("terminate it");
    }
    fleet.until_ended().await;
    assert_eq!(fleet.world.cells().await, "completed: 100");
    assert_eq!(fleet.world.simulator.stats().arrivals, 100);
    assert_eq!(fleet.world.number("select count(*) from imagemill.incarnations where ended_at is not null").await, 0);
    for worker in &mut workers {
        worker.assert_runs();
    }
    for worker in workers {
        worker.leave().await;
    }
    fleet.judge(&Fates::default()).await;
}
