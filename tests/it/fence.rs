//! A worker that cannot say that it lives: it submits nothing, well before anybody may take it for dead.

use std::time::{Duration, Instant};

use imagemill::{
    models::payload::GenerateImage,
    queue::{Engine, Queue},
    services::processing,
};
use secrecy::ExposeSecret as _;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::support::{World, eventually};

/// An engine of this process that takes jobs by their keys alone.
async fn engine(world: &World, pool: PgPool, lease: Duration) -> Engine {
    let mut settings = world.context.settings.as_ref().clone();
    (settings.queue.lease, settings.queue.beat) = (lease, lease / 10);
    let queues = processing::queues(&settings, 10, vec!["prod".to_owned()]);
    let queues = queues.into_iter().map(|queue| Queue { claimed: false, ..queue }).collect();
    Engine::start(pool, processing::engine_options(&settings, None), queues).await.expect("start the engine")
}

#[tokio::test]
async fn no_submit_starts_in_the_last_part_of_a_lease_that_no_beat_renews() {
    let world = World::new().await;
    world.create(1).await;
    // Time is the subject: what is looked for is to be found in the last fifth of it.
    let lease = Duration::from_secs(10);
    let engine = engine(&world, world.pool().clone(), lease).await;
    let cell: String =
        sqlx::query_scalar("select id::text from imagemill.subtasks").fetch_one(world.pool()).await.expect("a cell");
    let job = engine.claim_key(GenerateImage::QUEUE, &cell).await.expect("claim").expect("a job");
    assert!(engine.may_submit(&job));
    // Every beat waits for its own row.
    let mut second = world.pool().begin().await.expect("a second session");
    sqlx::query("select 1 from apalis.workers for update").execute(&mut *second).await.expect("lock the rows of the workers");
    let locked = Instant::now();
    let is_over = || locked.elapsed() >= lease;
    eventually("it may not submit, or its lease is over", || async { !engine.may_submit(&job) || is_over() }).await;
    let held_after = locked.elapsed();
    // Not since something else holds it back.
    let seen = (engine.may_submit(&job), job.tokens.interrupt(), engine.is_stopping());
    assert_eq!(seen, (false, None, false), "{held_after:?} after its last beat");
    // A fifth of the lease before its end, which nobody sees before one has watched it for so long.
    assert!(held_after < lease, "{held_after:?} after its last beat");
    second.rollback().await.expect("let go");
    eventually("it may submit again", || async { engine.may_submit(&job) }).await;
    drop(job);
    engine.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_process_whose_runtime_stands_still_gives_no_beat() {
    let world = World::new().await;
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (go_on, standstill) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let world = &world;
        let still = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let url = world.database.url.expose_secret();
                let pool = PgPoolOptions::new().max_connections(4).connect(url).await.expect("connect");
                let engine = engine(world, pool, crate::support::LEASE).await;
                started.send(()).expect("somebody waits");
                // Not a task of this runtime goes on meanwhile; its beat has a thread of its own.
                let _ = standstill.recv();
                engine.abandon();
            });
        });
        let rescued = async {
            has_started.await.expect("it starts");
            let rescuer = world.worker(&[]);
            world.until("select count(*) = 1 from imagemill.incarnations where how = 'rescued'").await;
            drop(rescuer);
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(rescued));
        drop(go_on);
        still.join().expect("it ends");
    });
}
