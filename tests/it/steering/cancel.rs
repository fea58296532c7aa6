//! Cancel: what waits ends at once, what is in flight soon, and no submit leaves after it has returned.

use std::time::Duration;

use imagemill::{
    crud::users,
    models::payload::GenerateImage,
    queue::{AttemptEnd, Engine, Outcome, Queue, Settled, fault, ledger, settle},
    services::{
        actor::Actor,
        error::ServiceError,
        processing,
        subtask_service::{self, cancel_subtask},
        task_service::{cancel_cells, cancel_task, force_complete_task},
    },
    simulator::{Behaviour, Rate, SimulatorOptions, Span},
};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use super::{ALL_ENDED, arrivals, cancel};
use crate::support::{World, eventually};

/// Jobs that nobody ends.
fn forever() -> SimulatorOptions {
    SimulatorOptions { rates: vec![Rate { behaviour: Behaviour::PendingForever, probability: 1.0 }], ..Default::default() }
}

#[tokio::test]
async fn what_waits_ends_at_once_and_is_never_submitted() {
    let mut options = SimulatorOptions::default();
    options.script.insert(1, Behaviour::Status { status: 429, retry_after: Some(600), accepted: false });
    let world = World::with(options).await;
    let task = world.create(1).await;
    let worker = world.worker(&[]);
    // One that waits ten minutes for its next try, and three that nobody has begun.
    world.until("select count(*) = 1 from imagemill.attempts where state = 'turned_away'").await;
    world.until("select count(*) = 1 from apalis.jobs where status = 'Pending' and lock_by is null").await;
    drop(worker);
    let later = "update apalis.jobs set run_at = now() + interval '10 minutes' where status = 'Pending' and lock_by is null";
    assert_eq!(sqlx::query(later).execute(world.pool()).await.expect("wait").rows_affected(), 1);
    let other = world.create(3).await;
    for task in [task, other] {
        let done = cancel(&world, task.id).await;
        assert_eq!((done.ended, done.in_flight), (task.total_images, 0));
    }
    assert_eq!(world.cells().await, "cancelled: 4");
    assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Killed'").await, 4);
    world.drain().await;
    assert_eq!(world.number("select count(*) from imagemill.tasks where status = 'cancelled'").await, 2);
    assert_eq!(arrivals(&world), 1);
    world.assert_settled().await;
    // Once more changes nothing, and says so.
    assert_eq!(cancel(&world, task.id).await.ended, 0);
    world.assert_settled().await;
}

/// With cells in flight in two processes.
async fn in_flight_stops(listen: bool) {
    let mut world = World::with(forever()).await;
    world.set("queue.listen", listen).set("queue.poll_interval", "1s").set("lanes.prod.max_polls", "10000");
    let workers = [world.worker(&["--concurrency", "5"]), world.worker(&["--concurrency", "5"])];
    let task = world.create(20).await;
    world.until("select count(*) = 10 from imagemill.attempts where state = 'accepted'").await;
    world.until("select count(*) = 2 from (select distinct lock_by from apalis.jobs where lock_by is not null) as held").await;
    let done = cancel(&world, task.id).await;
    assert_eq!((done.ended, done.in_flight), (10, 10));
    // Promised are 2 s.
    world.until_within(10 * Duration::from_secs(2), ALL_ENDED).await;
    assert_eq!(world.cells().await, "cancelled: 20");
    assert_eq!(
        world.number("select count(*) from imagemill.attempts where state = 'abandoned' and upstream_id is not null").await,
        10
    );
    assert_eq!(arrivals(&world), 10);
    // Nobody polls them any more: whoever does would do so as often as another cell is polled. Its first poll is waited for,
    // since one of theirs may be on its way until then.
    let other = world.create(1).await;
    let of_other = |polls: u64| world.simulator.ledger().get(10).is_some_and(|entry| entry.polls >= polls);
    let of_cancelled = || world.simulator.ledger().iter().take(10).map(|entry| entry.polls).collect::<Vec<_>>();
    eventually("another cell is polled", || async { of_other(1) }).await;
    let polls = of_cancelled();
    eventually("it is polled twenty times more", || async { of_other(21) }).await;
    assert_eq!(of_cancelled(), polls, "polls of cancelled cells");
    cancel(&world, other.id).await;
    world.until(ALL_ENDED).await;
    drop(workers);
    world.assert_settled().await;
}

#[tokio::test]
async fn in_flight_stops_in_every_process() {
    in_flight_stops(true).await;
}

#[tokio::test]
async fn in_flight_stops_without_listening() {
    in_flight_stops(false).await;
}

#[tokio::test]
async fn a_post_that_is_out_is_answered_and_kept() {
    let world = World::with(SimulatorOptions { hold_submits: true, ..Default::default() }).await;
    let worker = world.worker(&["--concurrency", "3"]);
    let task = world.create(5).await;
    eventually("POSTs are out", || async { arrivals(&world) == 3 }).await;
    let done = cancel(&world, task.id).await;
    assert_eq!((done.ended, done.in_flight), (2, 3));
    assert_eq!(world.cells().await, "cancelled: 2, processing: 3");
    world.simulator.control(|options| options.hold_submits = false).expect("let them go");
    world.until(ALL_ENDED).await;
    assert_eq!(world.cells().await, "cancelled: 5");
    assert_eq!(
        world.number("select count(*) from imagemill.attempts where state = 'abandoned' and upstream_id is not null").await,
        3
    );
    assert_eq!(world.simulator.stats().polls, 0);
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_post_whose_answer_says_no_does_not_bring_its_cell_back() {
    // Turned away for ten minutes, unknown, refused: under a cancel all of them end now, and the ledger says what they were.
    let mut options = SimulatorOptions { submit_latency: Span::fixed(3000), ..Default::default() };
    options.script.insert(1, Behaviour::Status { status: 429, retry_after: Some(600), accepted: false });
    options.script.insert(2, Behaviour::ResetAfter);
    options.script.insert(3, Behaviour::status(451));
    let mut world = World::with(options).await;
    world.set("generate_image.on_unknown_submit", "resubmit");
    let worker = world.worker(&["--concurrency", "3"]);
    let task = world.create(3).await;
    eventually("POSTs are out", || async { arrivals(&world) == 3 }).await;
    assert_eq!(cancel(&world, task.id).await.in_flight, 3);
    world.until(ALL_ENDED).await;
    assert_eq!(world.cells().await, "cancelled: 3");
    let states = "select count(distinct state) from imagemill.attempts where state in ('turned_away', 'unknown', 'refused')";
    assert_eq!(world.number(states).await, 3);
    assert_eq!(arrivals(&world), 3);
    drop(worker);
    world.assert_settled().await;
}

/// An engine of this process that holds the first cell.
async fn hold_one(world: &World) -> (Engine, imagemill::queue::Job, Uuid, i32) {
    let cell: Uuid = sqlx::query_scalar("select id from imagemill.subtasks order by cell limit 1")
        .fetch_one(world.pool())
        .await
        .expect("a cell");
    let queues = processing::queues(&world.context.settings, 10, vec!["prod".to_owned()]);
    let queues = queues.into_iter().map(|queue| Queue { claimed: false, ..queue }).collect();
    let options = processing::engine_options(&world.context.settings, None);
    let engine = Engine::start(world.pool().clone(), options, queues).await.expect("start the engine");
    let job = engine.claim_key(GenerateImage::QUEUE, &cell.to_string()).await.expect("claim").expect("a job");
    let submit = ledger::Submit {
        cell,
        round: 1,
        lane: "prod".into(),
        request_sha256: "0".into(),
        answer_within: Duration::from_mins(5),
        token_hash: String::new(),
        is_probe: false,
    };
    let hook = subtask_service::hook();
    let begun = ledger::begin(&world.connections(), &*hook, &[(job.clone(), submit)]).await.expect("write the row");
    let ledger::Begun::Written { ordinal, .. } = begun[0] else { panic!("no attempt: {begun:?}") };
    (engine, job, cell, ordinal)
}

fn picture(ordinal: i32) -> Outcome {
    let end =
        AttemptEnd { ordinal: Some(ordinal), state: ledger::AttemptState::Succeeded, http_status: None, error: None, polls: 1 };
    Outcome::done().ending(end).leaving(json!({ "url": "http://x/1.png", "file": null, "sha256": null, "note": null }))
}

async fn accept(world: &World, job: &imagemill::queue::Job, cell: Uuid, ordinal: i32) {
    let acceptance = ledger::Acceptance { cell, ordinal, upstream_id: "upstream-1".into(), http_status: 200 };
    let evidence = ledger::accepted(&world.connections(), &[(job.clone(), acceptance)]).await.expect("write the id");
    assert_eq!(evidence, [ledger::Evidence::Accepted]);
}

#[tokio::test]
async fn a_picture_that_came_first_is_kept_unless_the_task_is_ended_by_force() {
    for by_force in [false, true] {
        let world = World::new().await;
        let task = world.create(2).await;
        let (engine, job, cell, ordinal) = hold_one(&world).await;
        accept(&world, &job, cell, ordinal).await;
        // It is in the worker's hands, and not written yet.
        let end = if by_force {
            force_complete_task(&world.context, &world.actor, task.id).await
        } else {
            cancel_task(&world.context, &world.actor, task.id).await
        };
        assert_eq!(end.expect("end").in_flight, 1);
        eventually("its token", || async { job.tokens.cancel.is_cancelled() }).await;
        let settles = [(job.clone(), picture(ordinal))];
        let settled = settle(&world.connections(), &*subtask_service::hook(), &settles).await.expect("settle");
        assert_eq!(settled, [Settled::Written]);
        assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'succeeded'").await, 1);
        let cells = if by_force { "failed/operator: 2" } else { "cancelled: 1, completed: 1" };
        assert_eq!(world.cells().await, cells);
        drop(job);
        engine.abandon();
        world.drain().await;
        let status = if by_force { "failed" } else { "cancelled" };
        assert_eq!(
            world.number("select count(*) from imagemill.tasks where status = 'failed'").await,
            i64::from(by_force),
            "{status}"
        );
        assert_eq!(arrivals(&world), 0);
    }
}

#[tokio::test]
async fn a_dead_holders_cells_end_without_a_submit() {
    let mut world = World::with(forever()).await;
    world.set("lanes.prod.max_polls", "10000");
    let mut dead = world.worker(&["--concurrency", "2"]);
    let task = world.create(4).await;
    world.until("select count(*) = 2 from imagemill.attempts where state = 'accepted'").await;
    dead.kill();
    let polls = world.simulator.stats().polls;
    assert_eq!((cancel(&world, task.id).await.ended, arrivals(&world)), (2, 2));
    world.drain().await;
    assert_eq!(world.cells().await, "cancelled: 4");
    assert_eq!((world.simulator.stats().polls, arrivals(&world)), (polls, 2), "the rescued cells were polled or submitted");
    world.assert_settled().await;
}

#[tokio::test]
async fn what_was_put_back_with_an_open_attempt_ends_at_once() {
    let mut world = World::with(forever()).await;
    world.set("lanes.prod.max_polls", "10000");
    let mut worker = world.worker(&[]);
    let task = world.create(2).await;
    world.until("select count(*) = 2 from imagemill.attempts where state = 'accepted'").await;
    worker.signal(Signal::TERM);
    worker.wait().await;
    assert_eq!(world.cells().await, "processing: 2");
    assert_eq!(cancel(&world, task.id).await.ended, 2);
    assert_eq!(world.cells().await, "cancelled: 2");
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'abandoned'").await, 2);
    world.drain().await;
    world.assert_settled().await;
}

/// The row stands, its POST has not left: the process stands still in between, and goes on after the cancel has returned.
#[tokio::test]
async fn a_post_that_has_not_left_when_a_cancel_returns_never_leaves() {
    let mut world = World::new().await;
    // Its lease would not hold it back.
    world.set("queue.lease", "60s").set("queue.beat", "20s");
    let order = format!("{}:1:stop", fault::LEDGER_COMMITTED);
    let worker = world.worker_with(&[("IMAGEMILL_FAULT_POINT", &order)], &["--concurrency", "3"]);
    let task = world.create(6).await;
    world.until("select count(*) >= 1 from imagemill.attempts where state = 'submitting'").await;
    let done: serde_json::Value = sqlx::query_scalar("select imagemill.cancel_task($1)")
        .bind(task.id)
        .fetch_one(world.pool())
        .await
        .expect("cancel by SQL");
    let begun = world.number("select count(*) from imagemill.attempts").await;
    assert_eq!(done, json!({ "ended": 6 - begun, "in_flight": begun }));
    worker.signal(Signal::CONT);
    world.until(ALL_ENDED).await;
    assert_eq!((world.cells().await.as_str(), arrivals(&world)), ("cancelled: 6", 0));
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'not_sent'").await, begun);
    drop(worker);
    world.assert_settled().await;
}

/// Cancels at any moment of a run; the simulator's count at its return is its last one.
#[tokio::test]
async fn no_submit_comes_after_a_cancel_has_returned() {
    let options = SimulatorOptions { submit_latency: Span::range(0, 30), duration: Span::range(0, 200), ..Default::default() };
    let mut world = World::with(options).await;
    world.set("queue.listen", false);
    let workers = [world.worker(&["--concurrency", "8"]), world.worker(&["--concurrency", "8"])];
    for moment in [0_u64, 1, 3, 6, 10, 20] {
        let before = arrivals(&world);
        // So many that it is not over when a slow test looks.
        let task = world.create(1_000).await;
        eventually("it is under way", || async { arrivals(&world) >= before + moment }).await;
        if moment % 2 == 0 {
            cancel(&world, task.id).await;
        } else {
            let cancel = sqlx::query("select imagemill.cancel_task($1)").bind(task.id).execute(world.pool());
            cancel.await.expect("cancel by SQL");
        }
        let at_return = arrivals(&world);
        world.until(ALL_ENDED).await;
        assert_eq!(arrivals(&world), at_return, "submits after the cancel had returned");
        assert!(at_return < before + 1_000, "it was over before it was cancelled: this test sees nothing");
    }
    drop(workers);
    assert!(world.number("select count(*) from imagemill.subtasks where status = 'cancelled'").await > 100);
    world.assert_settled().await;
}

#[tokio::test]
async fn some_cells_alone_are_cancelled() {
    let world = World::new().await;
    let task = world.create(5).await;
    let third: Uuid =
        sqlx::query_scalar("select id from imagemill.subtasks where cell = 3").fetch_one(world.pool()).await.expect("a cell");
    assert_eq!(cancel_cells(&world.context, &world.actor, task.id, &[0, 1]).await.expect("cancel").ended, 2);
    assert_eq!(cancel_subtask(&world.context, &world.actor, third).await.expect("cancel").ended, 1);
    let unknown = cancel_cells(&world.context, &world.actor, task.id, &[5]).await.expect_err("no such cell").to_string();
    assert_eq!(unknown, format!("task {} has no cell 5: its cells are 0 to 4", task.id));
    world.drain().await;
    assert_eq!(world.cells().await, "cancelled: 3, completed: 2");
    // The task itself was not cancelled: it ends as its other cells do.
    assert_eq!(world.number("select count(*) from imagemill.tasks where status = 'completed'").await, 1);
    assert_eq!(arrivals(&world), 2);
    world.assert_settled().await;
}

#[tokio::test]
async fn who_may_cancel_and_what_the_audit_says() {
    let world = World::new().await;
    let task = world.create(2).await;
    let mut connection = world.pool().acquire().await.expect("a connection");
    for (name, role) in [("other", "user"), ("looker", "guest")] {
        users::insert(&mut connection, Uuid::now_v7(), name, None, &[role.to_owned()]).await.expect("insert");
        let user = users::get_by_username(&mut connection, name).await.expect("read").expect("the user");
        let refused = cancel_task(&world.context, &Actor::from(user), task.id).await.expect_err("not allowed");
        assert!(matches!(refused, ServiceError::NotAllowed { .. }), "{refused}");
    }
    let missing = cancel_task(&world.context, &world.actor, Uuid::now_v7()).await.expect_err("no such task");
    assert!(matches!(missing, ServiceError::NotFound { what: "task", .. }), "{missing}");
    assert_eq!(world.cells().await, "pending: 2");
    cancel_cells(&world.context, &world.actor, task.id, &[1]).await.expect("cancel");
    // As `imagemill psql` opens it.
    sqlx::query("set search_path = imagemill").execute(&mut *connection).await.expect("psql's path");
    sqlx::query("select cancel_task($1)").bind(task.id).execute(&mut *connection).await.expect("cancel by SQL");
    let said: Vec<(String, String, serde_json::Value, serde_json::Value)> = sqlx::query_as(
        "select case who when session_user then 'the role' else who end, what, old_value, new_value from imagemill.audit
         where subject = 'task/' || $1 order by id",
    )
    .bind(task.id)
    .fetch_all(&mut *connection)
    .await
    .expect("the audit");
    let row = |who: &str, what: &str, old, new| (who.to_owned(), what.to_owned(), old, new);
    let expected = [
        row(
            "tester",
            "cancel_subtask",
            json!({ "status": "pending", "round": 1, "open": 1 }),
            json!({ "cells": [1], "ended": 1, "in_flight": 0 }),
        ),
        row(
            "the role",
            "cancel_task",
            json!({ "status": "pending", "round": 1, "open": 1 }),
            json!({ "ended": 1, "in_flight": 0 }),
        ),
    ];
    assert_eq!(said, expected);
    world.drain().await;
    world.assert_settled().await;
}
