//! Retry: only the chosen cells, with their own seeds, in a new round; and nothing is paid for twice that can be asked for.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use imagemill::{
    models::status::ErrorKind,
    services::{
        attempt_service::{Resolution, list_unknown_attempts, resolve_attempt},
        error::ServiceError,
        task_service::{RetriedTask, Retry, create_task_alone, force_complete_task, retry_task},
    },
    simulator::{Behaviour, Rate, SimulatorOptions},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ALL_ENDED, arrivals, cancel};
use crate::support::{World, eventually};

async fn retry(world: &World, task: Uuid, what: Retry) -> RetriedTask {
    retry_task(&world.context, &world.actor, task, &what).await.expect("retry")
}

fn kinds(kinds: &[ErrorKind]) -> Retry {
    Retry { kinds: kinds.to_vec(), ..Retry::default() }
}

fn failure() -> Behaviour {
    Behaviour::Failure { message: "no GPU".to_owned() }
}

/// A simulator that does this with its first submits.
fn scripted(behaviours: impl IntoIterator<Item = Behaviour>) -> SimulatorOptions {
    let mut options = SimulatorOptions::default();
    options.script.extend((1..).zip(behaviours));
    options
}

#[tokio::test]
async fn only_the_chosen_cells_run_again_with_their_seeds_in_a_new_round() {
    let mut world = World::with(scripted([failure(), failure(), Behaviour::IllegalImage])).await;
    world.set("generate_image.new_attempts", 0);
    let task = world.create(5).await;
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 2, failed/refused: 1, failed/upstream_failure: 2");
    let seeds = |world: &World| -> BTreeMap<String, Vec<Option<i64>>> {
        world.simulator.ledger().iter().fold(BTreeMap::new(), |mut seeds, entry| {
            let cell = entry.request_id.clone().expect("a request id").split('/').next().unwrap_or_default().to_owned();
            seeds.entry(cell).or_insert_with(Vec::new).push(entry.seed());
            seeds
        })
    };
    let none = retry(&world, task.id, kinds(&[ErrorKind::UpstreamTimeout])).await;
    assert_eq!((none.round, none.retried), (None, 0));
    let done = retry(&world, task.id, kinds(&[ErrorKind::UpstreamFailure])).await;
    assert_eq!((done.round, done.retried), (Some(2), 2));
    assert_eq!(world.cells().await, "completed: 2, failed/refused: 1, pending: 2");
    assert_eq!(
        world.number("select count(*) from imagemill.tasks where status = 'processing' and completed_at is null").await,
        1
    );
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 4, failed/refused: 1");
    let again: Vec<Vec<Option<i64>>> = seeds(&world).into_values().filter(|seeds| seeds.len() > 1).collect();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|seeds| seeds.len() == 2 && seeds[0].is_some() && seeds[0] == seeds[1]), "{again:?}");
    assert_eq!(world.number("select max(round)::bigint from imagemill.attempts").await, 2);
    // By number: the refused one. And what cannot be retried is refused whole, every fault named.
    let refused: i32 = sqlx::query_scalar("select cell from imagemill.subtasks where error_kind = 'refused'")
        .fetch_one(world.pool())
        .await
        .expect("the cell");
    let other = (refused + 1) % 5;
    let both = Retry { cells: vec![refused, other, 9], ..Retry::default() };
    let error = retry_task(&world.context, &world.actor, task.id, &both).await.expect_err("two faults").to_string();
    let way_out = "only failed and cancelled cells are retried";
    assert_eq!(error, format!("task {}: cell {other} is completed, there is no cell 9; {way_out}", task.id));
    let done = retry(&world, task.id, Retry { cells: vec![refused], ..Retry::default() }).await;
    assert_eq!((done.round, done.retried), (Some(3), 1));
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 5");
    world.assert_settled().await;
}

#[tokio::test]
async fn what_was_given_up_is_asked_for_before_anything_is_paid() {
    let options = SimulatorOptions {
        rates: vec![Rate { behaviour: Behaviour::PendingForever, probability: 1.0 }],
        ..SimulatorOptions::default()
    };
    let mut world = World::with(options).await;
    world.set("lanes.prod.max_polls", 3);
    let task = world.create(5).await;
    world.drain().await;
    assert_eq!(world.cells().await, "failed/poll_limit: 5");
    world.simulator.control(|options| options.rates.clear()).expect("from here on all is well");
    // A picture; over; lost; and two that are still worked on, one of which fails later and is then paid for anew.
    let ledger = world.simulator.ledger();
    let behaviours = [Some(Behaviour::Success), Some(failure()), Some(Behaviour::Lost), None, None];
    for (entry, behaviour) in ledger.iter().zip(behaviours) {
        if let Some(behaviour) = behaviour {
            world.simulator.set_behaviour(&entry.upstream_id, behaviour).expect("set");
        }
    }
    let done = retry(&world, task.id, Retry::default()).await;
    assert_eq!((done.round, done.retried, done.waiting.len()), (Some(2), 5, 0));
    world.set("lanes.prod.max_polls", 600);
    let worker = world.worker(&[]);
    world.until("select count(*) = 2 from imagemill.attempts where state = 'accepted' and reopened_at is not null").await;
    world.simulator.set_behaviour(&ledger[3].upstream_id, Behaviour::Success).expect("set");
    world.simulator.set_behaviour(&ledger[4].upstream_id, failure()).expect("set");
    world.until(ALL_ENDED).await;
    assert_eq!(world.cells().await, "completed: 5");
    let mut billed: Vec<usize> = Vec::new();
    for entry in &ledger {
        let id = entry.request_id.clone().expect("a request id");
        billed.push(world.billed()[id.split('/').next().expect("the cell")]);
    }
    assert_eq!(billed, [1, 2, 2, 1, 2], "submits a cell");
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn now_asks_for_nothing_and_is_audited() {
    let mut world = World::with(scripted([Behaviour::PendingForever])).await;
    world.set("lanes.prod.max_polls", 3);
    let task = world.create(1).await;
    world.drain().await;
    let first = world.simulator.ledger().remove(0);
    world.simulator.set_behaviour(&first.upstream_id, Behaviour::Success).expect("set");
    let polls = world.simulator.ledger()[0].polls;
    retry(&world, task.id, Retry { now: true, ..Retry::default() }).await;
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 1");
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.len(), ledger[0].polls), (2, polls), "the earlier one was asked for");
    let said: (String, Value) = sqlx::query_as("select who, new_value from imagemill.audit where what = 'retry_task'")
        .fetch_one(world.pool())
        .await
        .expect("the audit");
    let chosen = json!({ "kinds": [], "cells": [], "now": true });
    assert_eq!(said, ("tester".to_owned(), json!({ "round": 2, "retried": 1, "chosen": chosen, "held": [] })));
    world.assert_settled().await;
}

/// When the first attempt could no longer be answered, and when the second was made.
async fn answered_and_submitted(world: &World) -> (DateTime<Utc>, DateTime<Utc>) {
    sqlx::query_as(
        "select (select answer_until from imagemill.attempts where ordinal = 1),
                (select submitted_at from imagemill.attempts where ordinal = 2)",
    )
    .fetch_one(world.pool())
    .await
    .expect("two attempts")
}

#[tokio::test]
async fn a_cell_whose_earlier_submit_may_be_answered_waits_until_it_cannot() {
    for now in [false, true] {
        let mut world = World::with(scripted([Behaviour::ResetAfter])).await;
        world.set("lanes.prod.submit_timeout", "3s");
        let task = world.create(1).await;
        world.drain().await;
        assert_eq!(world.cells().await, "failed/unknown_submit: 1");
        let done = retry(&world, task.id, Retry { now, ..kinds(&[ErrorKind::UnknownSubmit]) }).await;
        assert_eq!(done.waiting.len(), usize::from(!now));
        // No worker takes it before: not even as the one submit that is tried after a pause.
        let is_put_off = "select count(*) from apalis.jobs j join imagemill.attempts a on a.subtask_id::text = j.idempotency_key
                          where j.status = 'Pending' and j.run_at = a.answer_until";
        assert_eq!(world.number(is_put_off).await, i64::from(!now));
        world.drain().await;
        assert_eq!((world.cells().await.as_str(), arrivals(&world)), ("completed: 1", 2));
        let (answer_until, submitted_at) = answered_and_submitted(&world).await;
        assert_eq!(submitted_at < answer_until, now, "{answer_until} {submitted_at}");
        if !now {
            assert_eq!(done.waiting[&0], answer_until);
        }
        world.assert_settled().await;
    }
}

#[tokio::test]
async fn a_cell_whose_post_is_out_is_left_until_it_is_answered() {
    for is_forced in [true, false] {
        let world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
        let worker = world.worker(&[]);
        let task = world.create(2).await;
        eventually("POSTs are out", || async { arrivals(&world) == 2 }).await;
        if is_forced {
            force_complete_task(&world.context, &world.actor, task.id).await.expect("force");
        } else {
            cancel(&world, task.id).await;
        }
        assert_eq!(world.cells().await, if is_forced { "failed/operator: 2" } else { "processing: 2" });
        let done = retry(&world, task.id, Retry::default()).await;
        assert_eq!((done.round, done.held), (None, vec![0, 1]));
        let done = retry(&world, task.id, Retry { cells: vec![1], ..Retry::default() }).await;
        assert_eq!((done.round, done.held), (None, vec![1]));
        world.simulator.control(|options| options.hold_submits = false).expect("let them go");
        world.until(ALL_ENDED).await;
        let given_up = "select count(*) from imagemill.attempts where state = 'abandoned' and upstream_id is not null";
        assert_eq!(world.number(given_up).await, 2);
        assert_eq!(retry(&world, task.id, Retry::default()).await.retried, 2);
        world.until(ALL_ENDED).await;
        // What was paid for is taken, and nothing is paid.
        assert_eq!((world.cells().await.as_str(), arrivals(&world)), ("completed: 2", 2));
        drop(worker);
        world.assert_settled().await;
    }
}

#[tokio::test]
async fn an_attempt_that_was_open_when_its_task_was_ended_and_its_worker_died_is_asked_for() {
    let options = SimulatorOptions {
        rates: vec![Rate { behaviour: Behaviour::PendingForever, probability: 1.0 }],
        ..SimulatorOptions::default()
    };
    let mut world = World::with(options).await;
    world.set("lanes.prod.max_polls", 10_000);
    let mut worker = world.worker(&[]);
    let task = world.create(1).await;
    world.until("select count(*) = 1 from imagemill.attempts where state = 'accepted'").await;
    worker.signal(rustix::process::Signal::STOP);
    force_complete_task(&world.context, &world.actor, task.id).await.expect("force");
    worker.kill();
    // Rescued by one that takes no cell of it: its job waits, marked as one that is to end and has an open attempt.
    let rescuer = world.worker(&["--lanes", "dev"]);
    world.until("select bool_and(status = 'Pending') from apalis.jobs where job_type = 'imagemill.generate_image'").await;
    assert_eq!(world.number("select count(*) from imagemill.attempts where state = 'accepted'").await, 1);
    assert_eq!(retry(&world, task.id, Retry::default()).await.retried, 1);
    let first = world.simulator.ledger().remove(0);
    world.simulator.set_behaviour(&first.upstream_id, Behaviour::Success).expect("set");
    world.drain().await;
    assert_eq!((world.cells().await.as_str(), arrivals(&world)), ("completed: 1", 1));
    drop(rescuer);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_task_that_still_runs_and_a_cancelled_one_are_retried() {
    let mut options = scripted([Behaviour::IllegalImage]);
    options.rates = vec![Rate { behaviour: Behaviour::PendingForever, probability: 1.0 }];
    let mut world = World::with(options).await;
    world.set("lanes.prod.max_polls", 10_000);
    let worker = world.worker(&["--concurrency", "2"]);
    let task = world.create(3).await;
    world.until("select count(*) = 1 from imagemill.subtasks where error_kind = 'refused'").await;
    // While others are in flight; the round that was left has its completion all the same.
    assert_eq!(retry(&world, task.id, kinds(&[ErrorKind::Refused])).await.round, Some(2));
    world.until("select count(*) = 2 from imagemill.attempts where state = 'accepted'").await;
    cancel(&world, task.id).await;
    world.until(ALL_ENDED).await;
    assert_eq!(world.cells().await, "cancelled: 3");
    world.simulator.control(|options| options.rates.clear()).expect("from here on all is well");
    for entry in world.simulator.ledger().into_iter().skip(1) {
        world.simulator.set_behaviour(&entry.upstream_id, Behaviour::Success).expect("set");
    }
    assert_eq!(retry(&world, task.id, Retry::default()).await.round, Some(3));
    world.until(ALL_ENDED).await;
    assert_eq!(world.cells().await, "completed: 3");
    // What was asked of cancel was asked of another round.
    assert_eq!(
        world.number("select count(*) from imagemill.tasks where status = 'completed' and cancel_requested_at is null").await,
        1
    );
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_pruned_job_and_a_crash_loop_are_begun_anew_and_a_try_is_not() {
    let mut world = World::with(scripted([Behaviour::PendingForever])).await;
    world.set("lanes.prod.max_polls", 3);
    let task = world.create(2).await;
    sqlx::query(
        "update apalis.jobs set metadata = metadata || hstore('crashes', '5') where id = (select max(id) from apalis.jobs)",
    )
    .execute(world.pool())
    .await
    .expect("a job that ended its workers");
    world.drain().await;
    assert_eq!(world.cells().await, "failed/crash_loop: 1, failed/poll_limit: 1");
    let pending = world.simulator.ledger().remove(0);
    world.simulator.set_behaviour(&pending.upstream_id, Behaviour::Success).expect("set");
    // The given-up cell's job is gone: its new one has a first claim, and the cell a past.
    sqlx::query("delete from apalis.jobs where (metadata -> 'crashes') is null and job_type like '%image'")
        .execute(world.pool())
        .await
        .expect("prune");
    assert_eq!(retry(&world, task.id, Retry::default()).await.retried, 2);
    world.drain().await;
    assert_eq!((world.cells().await.as_str(), arrivals(&world)), ("completed: 2", 2));
    world.assert_settled().await;
    let alone = create_task_alone(&world.context, &world.actor, &world.definition(1)).await.expect("create");
    cancel(&world, alone.id).await;
    let refused = retry_task(&world.context, &world.actor, alone.id, &Retry::default()).await.expect_err("a try");
    assert!(refused.to_string().contains("a try against the simulator"), "{refused}");
}

#[tokio::test]
async fn an_id_that_comes_late_is_polled_by_itself_and_nothing_is_paid() {
    let mut world = World::with(scripted([Behaviour::ResetAfter, Behaviour::ResetAfter, Behaviour::ResetAfter])).await;
    world.set("queue.sweep_interval", "500ms");
    let task = world.create(3).await;
    world.drain().await;
    assert_eq!(world.cells().await, "failed/unknown_submit: 3");
    let unknown = list_unknown_attempts(&world.context, &world.actor, Some(task.id), 10).await.expect("list");
    let unknown: Vec<_> = unknown.into_iter().map(|listed| listed.attempt).collect();
    assert_eq!(unknown.len(), 3);
    // One has a picture, one failed, and of one no id comes.
    let ledger = world.simulator.ledger();
    world.simulator.set_behaviour(&ledger[0].upstream_id, Behaviour::Success).expect("set");
    world.simulator.set_behaviour(&ledger[1].upstream_id, failure()).expect("set");
    for entry in &ledger[..2] {
        let (cell, ordinal) = entry.request_id.as_deref().expect("a request id").split_once('/').expect("cell and number");
        let resolution = Resolution::UpstreamId(entry.upstream_id.clone());
        let (cell, ordinal) = (cell.parse().expect("an id"), ordinal.parse().expect("a number"));
        resolve_attempt(&world.context, &world.actor, cell, ordinal, &resolution).await.expect("resolve");
    }
    // An id that another attempt has is nobody else's.
    let third = unknown.iter().find(|attempt| {
        !ledger[..2].iter().any(|entry| entry.request_id.as_deref() == Some(&format!("{}/{}", attempt.cell, attempt.ordinal)))
    });
    let third = third.expect("the third");
    let taken = Resolution::UpstreamId(ledger[0].upstream_id.clone());
    let refused = resolve_attempt(&world.context, &world.actor, third.cell, third.ordinal, &taken).await.expect_err("taken");
    assert!(refused.to_string().contains(ledger[0].request_id.as_deref().expect("a request id")), "{refused}");
    let workers = [world.worker(&[]), world.worker(&[])];
    world.until("select count(*) = 1 from imagemill.subtasks where status = 'completed'").await;
    world.until("select count(*) = 1 from imagemill.subtasks where error_kind = 'upstream_failure'").await;
    world.until(ALL_ENDED).await;
    assert_eq!(world.cells().await, "completed: 1, failed/unknown_submit: 1, failed/upstream_failure: 1");
    assert_eq!(arrivals(&world), 3, "something was paid for");
    let swept = "select count(*) from imagemill.audit where who = 'system' and what = 'sweep_late_evidence'";
    assert!((1..=2).contains(&world.number(swept).await));
    drop(workers);
    world.assert_settled().await;
}

#[tokio::test]
async fn an_unknown_attempt_is_resolved_as_billed_or_not() {
    let mut world = World::with(scripted([Behaviour::ResetBefore, Behaviour::ResetAfter])).await;
    world.set("lanes.prod.submit_timeout", "300s");
    let task = world.create(2).await;
    world.drain().await;
    assert_eq!(world.cells().await, "failed/unknown_submit: 2");
    let billed: Uuid = world.billed().into_keys().next().expect("one").parse().expect("an id");
    let unknown = list_unknown_attempts(&world.context, &world.actor, None, 10).await.expect("list");
    for attempt in unknown.iter().map(|listed| &listed.attempt) {
        let resolution = if attempt.cell == billed { Resolution::Billed } else { Resolution::NotBilled };
        let resolved = resolve_attempt(&world.context, &world.actor, attempt.cell, attempt.ordinal, &resolution).await;
        resolved.expect("resolve");
        let again = resolve_attempt(&world.context, &world.actor, attempt.cell, attempt.ordinal, &resolution).await;
        assert!(matches!(again, Err(ServiceError::NotFound { what: "unknown attempt", .. })), "{again:?}");
    }
    let rows: Vec<(String, i32)> = sqlx::query_as(
        "select state, attempt_count from imagemill.attempts a join imagemill.subtasks s on s.id = a.subtask_id order by state",
    )
    .fetch_all(world.pool())
    .await
    .expect("the attempts");
    assert_eq!(rows, [("abandoned".to_owned(), 1), ("not_sent".to_owned(), 0)]);
    assert_eq!(world.number("select count(*) from imagemill.audit where what = 'resolve_attempt' and who = 'tester'").await, 2);
    // What was not billed may still be answered: it waits for that, unless somebody says that it need not.
    assert_eq!(retry(&world, task.id, Retry::default()).await.waiting.len(), 1);
    cancel(&world, task.id).await;
    retry(&world, task.id, Retry { now: true, ..Retry::default() }).await;
    world.drain().await;
    assert_eq!((world.cells().await.as_str(), arrivals(&world)), ("completed: 2", 4));
}
