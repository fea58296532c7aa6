//! Cancel, retry, settle and rescue at once, by a seed: no cell in two states, counts are the rows, each round is completed once,
//! and no deadlock reaches a caller.

use std::{sync::Arc, time::Duration};

use imagemill::{
    services::{
        error::ServiceError,
        task_service::{self, Retry},
    },
    simulator::{Behaviour, Rate, SimulatorOptions, Span},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::ALL_ENDED;
use crate::support::{BOUND, Process, World, seed};

/// Tasks that are raced at once.
const AT_ONCE: u64 = 6;

/// What somebody does to a task: whatever its state is, the answer is no error of the database.
async fn steer(world: &World, task: Uuid, mut random: StdRng) {
    let (context, actor) = (&world.context, &world.actor);
    for _ in 0..random.random_range(1..=3) {
        // The moment is the subject.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        let cells = vec![random.random_range(0..6)];
        let done = match random.random_range(0..6) {
            0 => task_service::cancel_task(context, actor, task).await.map(drop),
            1 => task_service::cancel_cells(context, actor, task, &cells).await.map(drop),
            2 => task_service::force_complete_task(context, actor, task).await.map(drop),
            3 => task_service::retry_task(context, actor, task, &Retry { cells, ..Retry::default() }).await.map(drop),
            _ => task_service::retry_task(context, actor, task, &Retry::default()).await.map(drop),
        };
        match done {
            // A cell that has a picture, or runs, is not retried.
            Ok(()) | Err(ServiceError::Usage(_)) => {}
            Err(error) => panic!("task {task}: {error}"),
        }
    }
}

/// What a failed test shows.
async fn state(world: &World, task: Uuid) -> String {
    let rows: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', 'task', status, round) from imagemill.tasks where id = $1
         union all
         select concat_ws(' ', 'cell', s.cell, s.status, s.error_kind, s.retry_mode, s.retry_round, s.cancel_requested_at, s.error,
                          '| job', j.status, j.attempts, j.lock_by, j.run_at - now(), j.metadata::text, j.last_result::text,
                          '| attempts', (select string_agg(concat_ws('/', a.ordinal, a.round, a.state, a.upstream_id), ', ' order by a.ordinal)
                                         from imagemill.attempts a where a.subtask_id = s.id))
         from imagemill.subtasks s left join apalis.jobs j on j.idempotency_key = s.id::text where s.task_id = $1
         union all
         select concat_ws(' ', 'completion', idempotency_key, status) from apalis.jobs where idempotency_key like $1::text || ':%'
         union all select concat_ws(' ', 'counts', c::text) from imagemill.task_counts c where c.task_id = $1
         union all select concat_ws(' ', 'audit', at, what, new_value::text) from imagemill.audit where subject = 'task/' || $1",
    )
    .bind(task)
    .fetch_all(world.pool())
    .await
    .expect("the state");
    rows.join("\n")
}

/// One task, steered by three at once until it has ended.
async fn race(world: Arc<World>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let task = world.create(6).await;
    let steers = (0..3).map(|_| steer(&world, task.id, StdRng::seed_from_u64(random.random())));
    futures::future::join_all(steers).await;
    let ended = || async {
        sqlx::query_scalar::<_, bool>("select completed_at is not null from imagemill.tasks where id = $1")
            .bind(task.id)
            .fetch_one(world.pool())
            .await
            .expect("look")
    };
    let deadline = tokio::time::Instant::now() + BOUND;
    while !ended().await {
        let is_over = tokio::time::Instant::now() > deadline;
        assert!(!is_over, "task {} does not end:\n{}", task.id, state(&world, task.id).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// So many tasks, with so many workers killed meanwhile.
async fn races(rounds: u64, kills: usize) {
    let seed = seed();
    let options = SimulatorOptions {
        seed,
        submit_latency: Span::range(0, 60),
        duration: Span::range(0, 300),
        rates: vec![
            Rate { behaviour: Behaviour::Failure { message: "no GPU".to_owned() }, probability: 0.1 },
            Rate { behaviour: Behaviour::ResetAfter, probability: 0.05 },
            Rate { behaviour: Behaviour::status(429), probability: 0.1 },
        ],
        ..SimulatorOptions::default()
    };
    let mut world = World::with(options).await;
    world.set("lanes.prod.submit_timeout", "2s").set("queue.sweep_interval", "1s").set("generate_image.new_attempts", 1);
    let start = |world: &World| -> Process { world.worker(&["--concurrency", "12"]) };
    let mut workers = vec![start(&world), start(&world)];
    let calm = "update imagemill.lanes set rate_adapts = false";
    sqlx::query(calm).execute(world.pool()).await.expect("no rate is lowered");
    let world = Arc::new(world);
    let mut running = JoinSet::new();
    let (mut killed, mut ended) = (0, 0);
    for round in 0..rounds {
        if running.len() as u64 >= AT_ONCE {
            running.join_next().await.expect("one").expect("a race");
            ended += 1;
            if killed < kills && ended * kills as u64 >= rounds * (killed as u64 + 1) / 2 {
                let victim = killed % workers.len();
                workers[victim].kill();
                workers[victim] = start(&world);
                killed += 1;
            }
        }
        running.spawn(race(Arc::clone(&world), seed.wrapping_mul(1_000_003).wrapping_add(round)));
    }
    while let Some(raced) = running.join_next().await {
        raced.expect("a race");
    }
    world.until(ALL_ENDED).await;
    assert_eq!(killed, kills);
    let two_states = "select count(*) from imagemill.subtasks s
                      where (s.status = 'completed') <> (s.result is not null)
                         or exists (select from imagemill.attempts a where a.subtask_id = s.id and a.finished_at is null)
                         or (s.status = 'completed'
                             and not exists (select from imagemill.attempts a where a.subtask_id = s.id and a.state = 'succeeded'))";
    assert_eq!(world.number(two_states).await, 0, "cells in two states");
    let deadlocks = "select count(*) from imagemill.subtasks where error_kind = 'internal'";
    assert_eq!(world.number(deadlocks).await, 0, "faults of ours");
    let steered = "select count(distinct what) from imagemill.audit where subject like 'task/%'";
    assert_eq!(world.number(steered).await, 4, "not everything was raced");
    println!(
        "{rounds} tasks, {} rounds, {}",
        world.number("select sum(round)::bigint from imagemill.tasks").await,
        world.cells().await
    );
    drop(workers);
    world.assert_settled().await;
}

#[tokio::test]
async fn cancel_retry_settle_and_rescue_are_raced() {
    races(30, 3).await;
}

#[tokio::test]
#[ignore = "long: 1,000 tasks, some minutes"]
async fn cancel_retry_settle_and_rescue_are_raced_a_thousand_times() {
    races(1_000, 60).await;
}
