//! A token that is not taken stops its holders, costs no attempt, and is tried by one probe at a time.

use imagemill::simulator::{Behaviour, Rate, SimulatorOptions, Span};

use super::{PAUSED, assert_unharmed, begun_after, hash, holds, now, options, refuse, take_all, take_any};
use crate::support::{Process, TOKEN, World, eventually};

#[tokio::test]
async fn a_token_that_dies_in_mid_run_stops_every_worker_and_costs_nothing() {
    let world = World::with(options()).await;
    world.create(300).await;
    let workers: Vec<Process> = (0..3).map(|_| world.worker(&["--concurrency", "10"])).collect();
    eventually("cells are under way", || async { world.simulator.stats().accepted > 40 }).await;
    refuse(&world.simulator, TOKEN, 401);
    world.until(PAUSED).await;
    let paused = now(&world).await;
    // What was accepted is polled on, and each probe is a poll of it: so no submit is begun any more, by nobody.
    let polls = world.simulator.stats().polls;
    eventually("accepted cells are polled on", || async { world.simulator.stats().polls > polls + 30 }).await;
    world.until("select count(*) = 1 and bool_and(probe_at - since > interval '3 seconds') from imagemill.pauses").await;
    assert_eq!(begun_after(&world, paused).await, 0, "submits with a dead token");
    let out = world.number("select count(*) from imagemill.attempts where state = 'turned_away'").await;
    assert!(out <= 30, "{out} submits met the dead token, and 30 at most were out");
    take_all(&world.simulator);
    world.until("select bool_and(status = 'completed') from imagemill.subtasks").await;
    world.until("select bool_and(completed_at is not null) from imagemill.tasks").await;
    world.until("select not exists (select from imagemill.pauses)").await;
    drop(workers);
    assert_eq!(world.cells().await, "completed: 300");
}

#[tokio::test]
async fn without_a_known_id_one_submit_an_interval_is_the_probe_of_the_whole_fleet() {
    let mut world = World::with(options()).await;
    world.set("upstream.probe_interval", "700ms");
    refuse(&world.simulator, TOKEN, 401);
    world.create(200).await;
    let workers: Vec<Process> = (0..3).map(|_| world.worker(&["--concurrency", "10", "--until-empty"])).collect();
    world.until(PAUSED).await;
    let paused = now(&world).await;
    eventually("four probes", || async { begun_after(&world, paused).await >= 4 }).await;
    // The first is due an interval after the pause, each other an interval after the one before: how late any of them was is no
    // matter, when the intervals until the last one are counted.
    let (probes, intervals): (i64, f64) = sqlx::query_as(
        "select count(*), (extract(epoch from max(submitted_at) - (select min(since) from imagemill.pauses)) / 0.7)::float8
         from imagemill.attempts where submitted_at > $1",
    )
    .bind(paused)
    .fetch_one(world.pool())
    .await
    .expect("count the probes");
    assert!(probes as f64 <= intervals, "{probes} probes in {intervals} intervals");
    let why: String = sqlx::query_scalar("select why from imagemill.pauses").fetch_one(world.pool()).await.expect("the pause");
    assert!(why.contains("401") && why.contains("the simulator answers with 401"), "{why}");
    take_all(&world.simulator);
    for mut worker in workers {
        assert!(worker.wait().await.success(), "{}", worker.log());
        assert!(!worker.log().contains(TOKEN), "the token is in the log");
    }
    assert_unharmed(&world, 200).await;
}

#[tokio::test]
async fn of_two_tokens_the_one_that_lives_goes_on() {
    let world = World::with(options()).await;
    take_any(&world);
    refuse(&world.simulator, "a-dead-token", 402);
    world.create(200).await;
    let dead = world.worker_with(&[("IMAGEMILL_UPSTREAM__API_TOKEN", "a-dead-token")], &["--concurrency", "10"]);
    world.until("select exists (select from imagemill.pauses where reason = 'payment')").await;
    let mut alive = world.worker(&["--concurrency", "10", "--until-empty"]);
    assert!(alive.wait().await.success(), "{}", alive.log());
    assert_eq!(world.cells().await, "completed: 200");
    let named: Vec<String> =
        sqlx::query_scalar("select token_hash from imagemill.pauses").fetch_all(world.pool()).await.expect("the pauses");
    assert_eq!(named, [hash("a-dead-token")]);
    let holders =
        "select count(*) from imagemill.incarnations i join imagemill.pauses p using (token_hash) where ended_at is null";
    assert_eq!(world.number(holders).await, 1, "the worker that holds it");
    drop(dead);
    world.assert_settled().await;
}

#[tokio::test]
async fn what_a_dead_token_may_not_poll_goes_to_a_worker_with_a_good_one_and_is_not_late() {
    // Nobody is told of an end before the token is refused.
    let held = SimulatorOptions { hold_polls: true, duration: Span::fixed(3_000), ..SimulatorOptions::default() };
    let mut world = World::with(held).await;
    take_any(&world);
    // Its cells take all places of the lane, and are at work for longer than the deadline.
    sqlx::query("update imagemill.lanes set max_in_flight = 4 where lane = 'prod'").execute(world.pool()).await.expect("a limit");
    world.set("generate_image.deadline", "8s");
    world.create(12).await;
    let dead = world.worker_with(&[("IMAGEMILL_UPSTREAM__API_TOKEN", "a-dying-token")], &[]);
    world.until("select count(*) = 4 from imagemill.attempts where state = 'accepted'").await;
    refuse(&world.simulator, "a-dying-token", 401);
    world.simulator.control(|options| options.hold_polls = false).expect("sound options");
    world
        .until("select bool_and(accepted_at < now() - interval '8 seconds') from imagemill.attempts where state = 'accepted'")
        .await;
    // Nobody else could ask for them: they stay where they are.
    assert_eq!(world.number("select count(*) from apalis.jobs where lock_by is not null").await, 4);
    let mut alive = world.worker(&["--until-empty"]);
    assert!(alive.wait().await.success(), "{}", alive.log());
    assert_eq!(world.cells().await, "completed: 12");
    assert_eq!(world.number("select count(*) from imagemill.attempts").await, 12, "none is paid for twice");
    let claims = "select max(attempts)::bigint from apalis.jobs where job_type = 'imagemill.generate_image'";
    assert_eq!(world.number(claims).await, 2, "nothing goes to and fro");
    drop(dead);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_worker_that_is_killed_has_kept_for_how_long_its_polls_were_refused() {
    // Its first poll, which says that it is at work, is answered when all others are refused.
    let mut world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    world.set("generate_image.deadline", "12s").set("lanes.prod.max_polls", "20");
    world.create(1).await;
    let mut killed = world.worker(&[]);
    world.until("select count(*) = 1 from imagemill.attempts where state = 'accepted'").await;
    refuse(&world.simulator, TOKEN, 401);
    world.simulator.control(|options| options.hold_polls = false).expect("sound options");
    world
        .until(
            "select bool_and(accepted_at < now() - interval '12 seconds' and reopened_at > now() - interval '3 seconds')
             from imagemill.attempts",
        )
        .await;
    killed.kill();
    // Whoever goes on with it is refused at first as well.
    let polls = world.simulator.stats().polls;
    let mut other = world.worker(&["--until-empty"]);
    eventually("it is asked for twice more", || async { world.simulator.stats().polls > polls + 1 }).await;
    take_all(&world.simulator);
    assert!(other.wait().await.success(), "{}", other.log());
    assert_eq!(world.cells().await, "completed: 1");
    world.assert_settled().await;
}

#[tokio::test]
async fn the_first_polls_that_are_refused_are_handed_over_and_none_waits_for_its_next_one() {
    // They are asked for together, and at work until all have been refused.
    let rates = vec![Rate { behaviour: Behaviour::PendingForever, probability: 1.0 }];
    let mut world =
        World::with(SimulatorOptions { rates, pending_polls: Span::fixed(0), duration: Span::fixed(0), ..options() }).await;
    take_any(&world);
    world.set("lanes.prod.poll_interval", "1s");
    world.create(40).await;
    let dead = world.worker_with(&[("IMAGEMILL_UPSTREAM__API_TOKEN", "a-dying-token")], &["--concurrency", "40"]);
    world.until("select count(*) = 40 from imagemill.attempts where state = 'accepted'").await;
    let alive = world.worker(&["--concurrency", "40"]);
    world
        .until(
            "select count(distinct token_hash) = 2 from imagemill.incarnations join apalis.workers w on w.id = name
             where ended_at is null and token_hash <> ''",
        )
        .await;
    // All are refused before the pause is written.
    let holder = holds(&world, "a-dying-token").await;
    refuse(&world.simulator, "a-dying-token", 401);
    eventually("each poll was refused", || async { dead.log().matches("a poll failed").count() >= 40 }).await;
    for entry in world.simulator.ledger() {
        world.simulator.set_behaviour(&entry.upstream_id, Behaviour::Success).expect("let it end");
    }
    holder.rollback().await.expect("the lock goes");
    world.until("select count(*) = 40 from imagemill.subtasks where status = 'completed'").await;
    assert_eq!(dead.log().matches("a poll failed").count(), 40, "polls with the token that is refused");
    assert_eq!(world.number("select count(*) from imagemill.attempts").await, 40, "none is paid for twice");
    drop((dead, alive));
}

#[tokio::test]
async fn a_prober_that_is_killed_is_followed_by_another() {
    let mut world = World::with(options()).await;
    world.set("upstream.probe_interval", "2s");
    refuse(&world.simulator, TOKEN, 401);
    world.create(40).await;
    let mut workers: Vec<Process> = (0..2).map(|_| world.worker(&["--concurrency", "5"])).collect();
    world.until(PAUSED).await;
    // What was out at first is answered; then the prober's POST is out when it is killed.
    world.until("select not exists (select from imagemill.attempts where state = 'submitting')").await;
    world.simulator.control(|options| options.submit_latency = Span::fixed(20_000)).expect("sound options");
    world
        .until(
            "select exists (select from imagemill.attempts a, imagemill.pauses p
                            where a.state = 'submitting' and a.submitted_at > p.since + interval '1 second')",
        )
        .await;
    let prober: i32 = sqlx::query_scalar(
        "select pid from imagemill.incarnations i join imagemill.attempts a on a.worker = i.name where a.state = 'submitting'",
    )
    .fetch_one(world.pool())
    .await
    .expect("the prober");
    let prober = workers.iter_mut().find(|worker| i64::from(worker.id()) == i64::from(prober)).expect("its process");
    prober.kill();
    world.simulator.control(|options| options.submit_latency = Span::fixed(50)).expect("sound options");
    take_all(&world.simulator);
    // All but the one whose submit was out.
    world.until("select count(*) filter (where status = 'completed') >= 39 from imagemill.subtasks").await;
    world.until("select not exists (select from imagemill.pauses)").await;
}
