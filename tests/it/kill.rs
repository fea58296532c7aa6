//! kill -9 of a worker: every cell ends, nothing is paid twice, and an accepted cell is polled on by another worker.

use std::{collections::BTreeMap, sync::Arc};

use imagemill::simulator::{SimulatorOptions, Span};
use secrecy::ExposeSecret as _;

use crate::support::{Proxy, Server, World, eventually};

/// A small generator, so that a seed replays a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX constants; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The attempt of each cell: ordinal, state and upstream id.
async fn attempts(world: &World) -> BTreeMap<String, (i32, String, Option<String>)> {
    let rows: Vec<(String, i32, String, Option<String>)> =
        sqlx::query_as("select subtask_id::text, ordinal, state, upstream_id from imagemill.attempts order by 1, 2")
            .fetch_all(world.pool())
            .await
            .expect("read the attempts");
    rows.into_iter().map(|(cell, ordinal, state, id)| (cell, (ordinal, state, id))).collect()
}

/// One run: two workers, cells of some duration, one worker killed in the middle.
async fn one_of_two_is_killed(seed: u64, cells: usize, slots: &str, duration_ms: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let options = SimulatorOptions {
        seed,
        submit_latency: Span::range(0, 300),
        duration: Span::fixed(duration_ms),
        ..SimulatorOptions::default()
    };
    let world = World::with(options).await;
    world.create(cells).await;
    let proxy = Proxy::start(Server::of(&world.database.url), Arc::default()).await;
    let url = proxy.url(&world.database.url);
    let mut killed = world.worker_with(&[("DATABASE_URL", url.expose_secret())], &["--concurrency", slots]);
    let mut other = world.worker(&["--concurrency", slots, "--until-empty"]);
    // In the middle, wherever that is: so many cells are completed, then a moment more. The moment is the subject.
    let middle = random.below(cells as u64 / 2).cast_signed();
    eventually("some cells are completed", || async {
        world.number("select count(*) from imagemill.subtasks where status = 'completed'").await >= middle
            && world.number("select count(*) from imagemill.attempts where state = 'accepted'").await > 0
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(random.below(500))).await;
    killed.kill();
    // What its rows say once it is gone: nothing of it is under way any more when its connections are.
    eventually("its connections are gone", || async { proxy.backends() == 0 }).await;
    let name_of_killed = format!("-{}-", killed.id());
    let submitting: i64 =
        sqlx::query_scalar("select count(*) from imagemill.attempts where state = 'submitting' and worker like '%' || $1 || '%'")
            .bind(&name_of_killed)
            .fetch_one(world.pool())
            .await
            .expect("count the submits that were out");
    let before: BTreeMap<String, (i32, String, Option<String>)> =
        attempts(&world).await.into_iter().filter(|(_, (_, state, _))| state == "accepted").collect();
    let status = other.wait().await;
    assert!(status.success(), "seed {seed}: {status}\n{}", other.log());

    // Every cell ended: completed, or unknown where its POST was out at the kill.
    let unknown = world.number("select count(*) from imagemill.subtasks where error_kind = 'unknown_submit'").await;
    let completed = world.number("select count(*) from imagemill.subtasks where status = 'completed'").await;
    assert_eq!(completed + unknown, i64::try_from(cells).expect("a small number"), "seed {seed}: {}", world.cells().await);
    assert!(unknown <= submitting, "seed {seed}: {unknown} unknown of {submitting} submits that were out");
    // None has two accepted submits.
    for (cell, submits) in world.billed() {
        assert_eq!(submits, 1, "seed {seed}: cell {cell}");
    }
    // What had an upstream id was polled on under the same id, in the same row.
    let after = attempts(&world).await;
    for (cell, (ordinal, _, id)) in before {
        let (ordinal_after, state, id_after) = &after[&cell];
        assert_eq!((ordinal, &id, "succeeded"), (*ordinal_after, id_after, state.as_str()), "seed {seed}: cell {cell}");
    }
    world.assert_settled().await;
    let rescued =
        world.number("select count(*) from imagemill.incarnations where how = 'rescued' and rescued_by is not null").await;
    assert_eq!(rescued, 1, "seed {seed}");
}

#[tokio::test]
async fn a_killed_worker_loses_nothing_and_pays_nothing_twice() {
    one_of_two_is_killed(1, 80, "10", 1000).await;
}

#[tokio::test]
#[ignore = "long: 20 kills of 200 cells of 3 s each"]
async fn twenty_killed_workers_lose_nothing_and_pay_nothing_twice() {
    for seed in 1..=20 {
        one_of_two_is_killed(seed, 200, "20", 3000).await;
    }
}
