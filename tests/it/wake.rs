//! How a worker learns of work: by notifications, by the time of the next job, and by looking.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use imagemill::{
    models::{Prompt, TaskInput},
    queue::WAKE_CHANNEL,
    services::task_service::{create_task, create_task_in},
    simulator::{Behaviour, SimulatorOptions},
};
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgListener;

use crate::support::{BOUND, Commit, Orders, Process, Proxy, Server, World, eventually};

/// Sessions that listen for work.
const LISTENING: &str = "select count(*) from pg_stat_activity
                         where datname = current_database() and query ~* '^(-- )?listen.*imagemill_jobs'";

/// Ends them; returns how many there were.
const KILL: &str = "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
                    where datname = current_database() and query ~* '^(-- )?listen.*imagemill_jobs'";

const ALL_COMPLETED: &str = "select bool_and(status = 'completed') from imagemill.tasks";

/// A worker that looks once an hour: what it takes within a test, it was woken for.
async fn worker_that_is_woken(world: &mut World) -> Process {
    let worker = world.set("queue.poll_interval", "1h").worker(&[]);
    eventually("it listens", || async { world.number(LISTENING).await == 1 }).await;
    worker
}

#[tokio::test]
async fn fifty_thousand_cells_send_one_notification() {
    let world = World::new().await;
    let mut listener = PgListener::connect_with(world.pool()).await.expect("listen");
    listener.listen_all([WAKE_CHANNEL, "apalis::job::insert"]).await.expect("listen");
    let prompts =
        |name: &str, count: u32| (0..count).map(|value| Prompt::freetext(format!("{name} {value}"))).collect::<Vec<_>>();
    let input = TaskInput::new("many")
        .variable_prompt("character", prompts("character", 100))
        .variable_prompt("style", prompts("style", 100))
        .variable_prompt("place", prompts("place", 5));
    let definition = input.validate(&(&world.context.settings.limits).into()).expect("a sound definition");
    let task = create_task(&world.context, &world.actor, &definition).await.expect("create the task");
    assert_eq!(task.total_images, 50_000);
    sqlx::query("select pg_notify($1, 'the test')").bind(WAKE_CHANNEL).execute(world.pool()).await.expect("notify");
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|payload| payload != "the test") {
        let next = tokio::time::timeout(BOUND, listener.recv()).await.expect("in time").expect("a notification");
        payloads.push(next.payload().to_owned());
    }
    assert_eq!(payloads, ["imagemill.generate_image", "the test"]);
}

#[tokio::test]
async fn two_hundred_producers_at_once_are_all_served() {
    let mut world = World::new().await;
    let worker = worker_that_is_woken(&mut world).await;
    let definition = world.definition(1);
    let created = (0..200).map(|_| create_task(&world.context, &world.actor, &definition));
    for created in futures::future::join_all(created).await {
        assert_eq!(created.expect("create the task").total_images, 1);
    }
    world.until("select count(*) = 200 from imagemill.tasks where status = 'completed'").await;
    assert!(world.billed().values().all(|submits| *submits == 1));
    drop(worker);
    world.assert_settled().await;
}

/// A cell every 200 ms, while the listening session is killed every second.
async fn listening_is_cut_for(duration: Duration) {
    let mut world = World::new().await;
    let worker = worker_that_is_woken(&mut world).await;
    let begun = Instant::now();
    let mut kills = tokio::time::interval(Duration::from_secs(1));
    let mut cells = tokio::time::interval(Duration::from_millis(200));
    let mut killed = 0;
    while begun.elapsed() < duration || killed < 2 {
        assert!(begun.elapsed() < duration + BOUND, "{killed} sessions were killed: it did not listen again");
        tokio::select! {
            _ = cells.tick() => { world.create(1).await; }
            _ = kills.tick() => killed += world.number(KILL).await,
        }
    }
    world.until(ALL_COMPLETED).await;
    // A cell whose notification nobody hears, and nothing else that happens.
    world.until("select not exists (select from apalis.jobs where status in ('Pending', 'Running'))").await;
    eventually("it listens again", || async { world.number(LISTENING).await == 1 }).await;
    world.number(KILL).await;
    eventually("nobody listens", || async { world.number(LISTENING).await == 0 }).await;
    world.create(1).await;
    world.until(ALL_COMPLETED).await;
    // And one whose notification is heard.
    eventually("it listens again", || async { world.number(LISTENING).await == 1 }).await;
    world.create(1).await;
    world.until(ALL_COMPLETED).await;
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_worker_whose_listening_session_is_killed_misses_nothing() {
    listening_is_cut_for(Duration::from_secs(5)).await;
}

#[tokio::test]
#[ignore = "long: a minute of killed sessions"]
async fn a_worker_whose_listening_session_is_killed_for_a_minute_misses_nothing() {
    listening_is_cut_for(Duration::from_mins(1)).await;
}

#[tokio::test]
async fn a_listening_session_that_falls_silent_is_noticed() {
    let mut world = World::new().await;
    let proxy = Proxy::start(Server::of(&world.database.url), Arc::default()).await;
    let url = proxy.url(&world.database.url);
    world.set("queue.poll_interval", "1h");
    let worker = world.worker_with(&[("DATABASE_URL", url.expose_secret())], &[]);
    eventually("it listens", || async { world.number(LISTENING).await == 1 }).await;
    world.create(1).await;
    world.until(ALL_COMPLETED).await;
    proxy.silence_listeners();
    // Nobody hears of this one, and the worker does not look by itself.
    world.create(1).await;
    world.until(ALL_COMPLETED).await;
    world.create(1).await;
    world.until(ALL_COMPLETED).await;
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_claim_that_fails_is_tried_again_though_notifications_come() {
    let mut world = World::new().await;
    let orders = Arc::<Orders>::default();
    let proxy = Proxy::start(Server::of(&world.database.url), Arc::clone(&orders)).await;
    let url = proxy.url(&world.database.url);
    world.set("queue.poll_interval", "1h");
    let worker = world.worker_with(&[("DATABASE_URL", url.expose_secret())], &[]);
    eventually("it listens", || async { world.number(LISTENING).await == 1 }).await;
    for _ in 0..3 {
        let reached = orders.lose_answer(Commit::Claim, 1);
        world.create(1).await;
        drop(reached.await);
        world.until(ALL_COMPLETED).await;
    }
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn without_listening_cells_are_found_by_looking() {
    let mut world = World::new().await;
    let worker = world.set("queue.listen", false).worker(&[]);
    world.until("select count(*) = 1 from apalis.workers").await;
    for _ in 0..3 {
        // Each comes when the one before is done, so that the worker is idle.
        world.create(2).await;
        world.until(ALL_COMPLETED).await;
    }
    assert_eq!(world.number(LISTENING).await, 0);
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_job_whose_time_comes_is_claimed_by_the_timer() {
    let mut world = World::new().await;
    let worker = worker_that_is_woken(&mut world).await;
    let mut transaction = world.pool().begin().await.expect("a transaction");
    let limits = &world.context.settings.limits;
    create_task_in(&mut transaction, limits, &world.actor, &world.definition(1)).await.expect("create the task");
    sqlx::query("update apalis.jobs set run_at = now() + interval '2 seconds'")
        .execute(&mut *transaction)
        .await
        .expect("put it off");
    transaction.commit().await.expect("commit");
    // Its notification came while nothing was due, and no other will.
    world.until(ALL_COMPLETED).await;
    let started = "select count(*) from imagemill.subtasks s join apalis.jobs j on j.idempotency_key = s.id::text where s.started_at >= j.run_at";
    assert_eq!(world.number(started).await, 1, "it was claimed before its time");
    drop(worker);
}

#[tokio::test]
async fn a_cell_that_was_turned_away_is_claimed_again_by_the_timer() {
    let mut options = SimulatorOptions::default();
    options.script.insert(1, Behaviour::status(429));
    options.script.insert(2, Behaviour::status(503));
    let mut world = World::with(options).await;
    let worker = worker_that_is_woken(&mut world).await;
    world.create(1).await;
    world.until(ALL_COMPLETED).await;
    assert_eq!(world.simulator.stats().arrivals, 3);
    drop(worker);
    world.assert_settled().await;
}
