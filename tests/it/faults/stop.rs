//! A worker that is told to leave while submits are out.

use std::{collections::BTreeSet, time::Duration};

use imagemill::simulator::{Behaviour, Rule, SimulatorOptions};
use rustix::process::Signal;

use super::{
    fate::Fates,
    fleet::{Fleet, Worker},
};
use crate::support::{Stop, eventually};

/// Ten times what is promised for a hand-over.
const SOON: Duration = Duration::from_secs(20);

const HANDED_OVER: &str = "select count(*) from apalis.jobs
    where job_type = 'imagemill.generate_image' and status = 'Pending' and metadata ? 'resume' and lock_by is null";
const HELD: &str = "select count(*) from apalis.jobs where job_type = 'imagemill.generate_image' and status = 'Running'";

/// A worker with four cells to poll and four POSTs out: one of these is never answered, the others when the simulator is told.
async fn busy(grace: &str) -> (Fleet, Worker) {
    let mut fleet = Fleet::new(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    // Nothing but the end of the worker is to end it.
    fleet.world.set("lanes.prod.submit_timeout", "600s");
    fleet.world.create(4).await;
    let worker = fleet.worker(&["--grace", grace]).await;
    fleet.until("select count(*) = 4 from imagemill.attempts where state = 'accepted'").await;
    let never = Rule { times: Some(1), ..Rule::new(Behaviour::HangAfter) };
    let hold = fleet.world.simulator.control(|options| {
        options.hold_submits = true;
        options.rules.push(never);
    });
    hold.expect("hold the submits");
    fleet.world.create(4).await;
    eventually("four POSTs are out", || async { fleet.world.simulator.stats().arrivals == 8 }).await;
    (fleet, worker)
}

/// Lets everything answer, and has another worker do what is left.
async fn finish(fleet: &Fleet) {
    let go_on = fleet.world.simulator.control(|options| {
        options.hold_submits = false;
        options.hold_polls = false;
    });
    go_on.expect("let it answer");
    fleet.world.drain().await;
}

#[tokio::test]
async fn what_is_polled_is_handed_over_whatever_submits_are_out_and_each_submit_by_its_own_answer() {
    let (fleet, mut worker) = busy("600").await;
    worker.process.signal(Signal::TERM);
    let handed_over = "select count(*) = 4 from apalis.jobs where status = 'Pending' and metadata ? 'resume' and lock_by is null";
    fleet.world.until_within(SOON, handed_over).await;
    assert_eq!(fleet.world.number(HELD).await, 4, "what is out is held");
    worker.assert_runs();
    // Three are answered; the fourth, which is not, holds none of them up.
    fleet.world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    let handed_over = "select count(*) = 7 from apalis.jobs where status = 'Pending' and metadata ? 'resume' and lock_by is null";
    fleet.world.until_within(SOON, handed_over).await;
    assert_eq!((fleet.world.number(HANDED_OVER).await, fleet.world.number(HELD).await), (7, 1));
    assert_eq!(fleet.world.number("select count(*) from imagemill.attempts where state = 'accepted'").await, 7);
    worker.assert_runs();
    // No attempt and no crash is counted for a hand-over.
    assert_eq!(fleet.world.number("select max(attempt_count)::bigint from imagemill.subtasks").await, 1);
    assert_eq!(fleet.world.number("select count(*) from apalis.jobs where coalesce(metadata -> 'crashes', '0') <> '0'").await, 0);

    // A second signal ends it at once: it could not wait for the last one.
    let status = worker.process.hurry().await;
    assert_eq!(status.code(), Some(1), "{}", worker.process.last_words());
    let log = worker.process.log();
    assert!(!log.contains("connections are still in use"), "it waited for its connections: {}", worker.process.last_words());
    assert_eq!(fleet.bury(&worker).await.len(), 1);
    finish(&fleet).await;
    assert_eq!(fleet.world.cells().await, "completed: 7, failed/unknown_submit: 1");
    let counted = fleet.judge(&Fates::default()).await;
    assert_eq!((counted.billed, counted.unknown_by_end), (8, 1), "{counted:?}");
}

#[tokio::test]
async fn an_id_that_only_its_worker_knows_is_in_the_log_when_a_second_signal_ends_it() {
    let options = SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() };
    let (fleet, mut server) = Fleet::with_own_server(options).await;
    fleet.world.create(1).await;
    let mut worker = fleet.worker(&["--grace", "600"]).await;
    eventually("the POST is out", || async { fleet.world.simulator.stats().arrivals == 1 }).await;
    fleet.until("select count(*) = 1 from imagemill.attempts where state = 'submitting'").await;
    server.stop(Stop::Fast).await;
    fleet.world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    eventually("its id was to be written", || async { worker.process.log().contains("upstream ids were not written") }).await;
    worker.process.signal(Signal::TERM);
    eventually("it leaves", || async { worker.process.log().contains("no submit starts") }).await;
    let status = worker.process.hurry().await;
    assert_eq!(status.code(), Some(1), "{}", worker.process.last_words());
    let billed = fleet.world.simulator.ledger().remove(0);
    let log = worker.process.log();
    let said = log.lines().find(|line| line.contains("ERROR") && line.contains(&billed.upstream_id)).unwrap_or_default();
    let (cell, ordinal) = billed.request_id.as_deref().and_then(|id| id.split_once('/')).expect("a request id");
    assert!(said.contains(cell) && said.contains(&format!("ordinal={ordinal}")), "{}", worker.process.last_words());
}

#[tokio::test]
async fn what_is_out_after_the_grace_is_unknown_by_the_worker_that_leaves() {
    let (fleet, mut worker) = busy("1").await;
    let out = fleet.submitting(&worker).await;
    fleet.noted().leaving.extend(out.iter().cloned());
    worker.process.signal(Signal::TERM);
    let status = worker.process.wait().await;
    // All was settled or handed over.
    assert_eq!(status.code(), Some(0), "{}", worker.process.last_words());
    let unknown: Vec<(String, bool)> = sqlx::query_as(
        "select subtask_id || '/' || ordinal, answer_until > now() and finished_at is not null
         from imagemill.attempts where state = 'unknown'
           and worker in (select name from imagemill.incarnations where pid = $1 and how = 'stopped')",
    )
    .bind(i32::try_from(worker.process.id()).expect("a process id"))
    .fetch_all(fleet.world.pool())
    .await
    .expect("read the unknown attempts");
    assert_eq!(unknown.into_iter().collect::<BTreeSet<_>>(), out.into_iter().map(|id| (id, true)).collect());
    assert_eq!((fleet.world.number(HANDED_OVER).await, fleet.world.number(HELD).await), (4, 0));
    finish(&fleet).await;
    assert_eq!(fleet.world.cells().await, "completed: 4, failed/unknown_submit: 4");
    fleet.judge(&Fates::default()).await;
}

#[tokio::test]
async fn a_worker_that_leaves_starts_no_submit() {
    let mut fleet = Fleet::new(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    fleet.world.set("upstream.max_connections", "4");
    fleet.world.create(10).await;
    let mut worker = fleet.worker(&["--concurrency", "6", "--grace", "600"]).await;
    // Two have a connection; the others wait for one, and have no row.
    eventually("two POSTs are out", || async { fleet.world.simulator.stats().arrivals == 2 }).await;
    fleet.until("select count(*) = 6 from apalis.jobs where status = 'Running'").await;
    // Both in one moment, as `timeout` tells a process and its group: that is no second signal.
    worker.process.signal(Signal::TERM);
    worker.process.signal(Signal::INT);
    fleet.until("select count(*) = 8 from apalis.jobs where status = 'Pending'").await;
    fleet.world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    let status = worker.process.wait().await;
    assert_eq!(status.code(), Some(0), "{}", worker.process.last_words());
    assert_eq!(fleet.world.simulator.stats().arrivals, 2, "a submit was started while leaving");
    assert_eq!(fleet.world.number("select count(*) from imagemill.attempts").await, 2);
    fleet.world.drain().await;
    assert_eq!(fleet.world.cells().await, "completed: 10");
    fleet.judge(&Fates::default()).await;
}
