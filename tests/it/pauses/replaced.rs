//! A token that is replaced in its file: everybody goes on with the new one.

use std::path::PathBuf;

use imagemill::simulator::{SimulatorOptions, Span};

use super::{PAUSED, assert_unharmed, hash, holds, options, refuse, take_any};
use crate::support::{Process, TOKEN, World, eventually};

/// Workers read this token from the file that is returned.
fn token_file(world: &mut World, token: &str) -> PathBuf {
    let file = world.directory.path().join("token");
    std::fs::write(&file, token).expect("write the token");
    world.set("upstream.api_token", "").set("upstream.api_token_file", file.display());
    file
}

/// As a worker with this token writes it that was refused.
async fn pause(world: &World, token: &str) {
    sqlx::query(
        "insert into imagemill.pauses (lane, reason, token_hash, why, probe_at) values ('prod', 'auth', $1, '401', now() + interval '1 hour')",
    )
    .bind(hash(token))
    .execute(world.pool())
    .await
    .expect("a pause");
}

/// Waits until so many workers have come, and each holds this token.
async fn until_all_hold(world: &World, workers: usize, token: &str) {
    let expected = vec![Some(hash(token)); workers];
    eventually("the token's hash in the rows of all workers", || async {
        let query = sqlx::query_scalar::<_, Option<String>>("select token_hash from imagemill.incarnations");
        query.fetch_all(world.pool()).await.expect("the hashes") == expected
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_is_used_at_once_by_everybody() {
    let mut world = World::with(options()).await;
    take_any(&world);
    refuse(&world.simulator, "a-dead-token", 403);
    let file = token_file(&mut world, "a-dead-token\n");
    // No probe in this test: it is the file that ends the pause.
    world.set("upstream.probe_interval", "1h");
    world.create(100).await;
    let workers: Vec<Process> = (0..2).map(|_| world.worker(&["--concurrency", "10"])).collect();
    world.until(PAUSED).await;
    std::fs::write(&file, "").expect("begin to write the token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("write the token");
    until_all_hold(&world, 2, TOKEN).await;
    world.until("select count(*) = 100 from imagemill.subtasks where status = 'completed'").await;
    assert_unharmed(&world, 100).await;
    for mut worker in workers {
        worker.signal(rustix::process::Signal::TERM);
        assert!(worker.wait().await.success(), "{}", worker.log());
        assert!(!worker.log().contains("a-dead-token"), "the token is in the log");
    }
}

#[tokio::test]
async fn polls_that_were_refused_go_on_at_once_with_the_token_that_replaces_it() {
    // Its jobs are over at once: who is told that one is at work asks again after an hour.
    let held = SimulatorOptions { hold_polls: true, pending_polls: Span::fixed(0), duration: Span::fixed(0), ..options() };
    let mut world = World::with(held).await;
    take_any(&world);
    let file = token_file(&mut world, "a-dying-token");
    world.set("upstream.probe_interval", "1h");
    world.create(4).await;
    let mut first = world.worker(&[]);
    world.until("select count(*) = 4 from imagemill.attempts where state = 'accepted'").await;
    first.signal(rustix::process::Signal::TERM);
    assert!(first.wait().await.success(), "{}", first.log());
    refuse(&world.simulator, "a-dying-token", 401);
    world.simulator.control(|options| options.hold_polls = false).expect("sound options");
    // What takes them over asks at once, and for what is refused again when up to an hour has passed.
    world.set("lanes.prod.poll_interval", "1h").set("generate_image.deadline", "3h");
    let second = world.worker(&[]);
    eventually("each poll was refused", || async { second.log().matches("a poll failed").count() == 4 }).await;
    std::fs::write(&file, TOKEN).expect("write the token");
    world.until("select count(*) = 4 from imagemill.subtasks where status = 'completed'").await;
    world.until("select not exists (select from imagemill.pauses)").await;
    assert_unharmed(&world, 4).await;
    drop(second);
}

#[tokio::test]
async fn of_two_replacements_of_a_token_the_last_one_is_what_the_rows_know() {
    let mut world = World::with(options()).await;
    let file = token_file(&mut world, "one");
    world.set("upstream.probe_interval", "1s");
    let worker = world.worker(&[]);
    until_all_hold(&world, 1, "one").await;
    // Who replaces the first waits for this, and is in the midst of it when the second is replaced.
    let holder = holds(&world, "one").await;
    std::fs::write(&file, "two").expect("write the token");
    worker.signal(rustix::process::Signal::HUP);
    let replaced = |times: usize| {
        let worker = &worker;
        async move { eventually("the token is replaced", || async { worker.log().matches("is another one").count() == times }).await }
    };
    replaced(1).await;
    std::fs::write(&file, "three").expect("write the token");
    // The file is read again for the second.
    for token in ["one", "two"] {
        pause(&world, token).await;
    }
    replaced(2).await;
    holder.rollback().await.expect("the lock goes");
    // Each goes with what replaced its token.
    world.until("select not exists (select from imagemill.pauses)").await;
    let known: Option<String> =
        sqlx::query_scalar("select token_hash from imagemill.incarnations").fetch_one(world.pool()).await.expect("the hash");
    assert_eq!(known, Some(hash("three")), "what its row says of the token that it holds");
    drop(worker);
}

#[tokio::test]
async fn a_worker_that_met_no_pause_reads_its_token_again_as_those_who_did() {
    let mut world = World::with(options()).await;
    let file = token_file(&mut world, "a-dead-token");
    // Nothing but its beat tells it: it has no cell whose submit would.
    world.set("upstream.probe_interval", "1h");
    let worker = world.worker(&[]);
    until_all_hold(&world, 1, "a-dead-token").await;
    // It has long looked for pauses by then, as each does when it comes.
    world
        .until(
            "select exists (select from imagemill.incarnations i join apalis.workers w on w.id = i.name
                            where w.last_seen > i.started_at + interval '2 seconds')",
        )
        .await;
    // Another worker with the same token met it.
    pause(&world, "a-dead-token").await;
    std::fs::write(&file, TOKEN).expect("write the token");
    until_all_hold(&world, 1, TOKEN).await;
    world.until("select not exists (select from imagemill.pauses)").await;
    drop(worker);
}

#[tokio::test]
async fn sighup_reads_the_token_again() {
    let mut world = World::with(options()).await;
    let file = token_file(&mut world, "one");
    let mut worker = world.worker(&[]);
    world.until("select exists (select from imagemill.incarnations where token_hash is not null)").await;
    std::fs::write(&file, "two").expect("write the token");
    worker.signal(rustix::process::Signal::HUP);
    until_all_hold(&world, 1, "two").await;
    assert!(worker.is_running(), "{}", worker.log());
}
