//! Ids that come when a person has said what became of their attempts.

use imagemill::{
    services::attempt_service::{Resolution, list_unknown_attempts, resolve_attempt},
    simulator::SimulatorOptions,
};
use rustix::process::Signal;

use super::{ALL_ENDED, arrivals};
use crate::support::{Process, World, eventually};

/// A worker that stands still with its POST answered, and is taken for dead; its attempt is resolved as a person says.
async fn resolved(resolution: &Resolution) -> (World, Process, Process) {
    let mut world = World::with(SimulatorOptions { hold_submits: true, ..SimulatorOptions::default() }).await;
    world.set("queue.sweep_interval", "1s");
    world.create(1).await;
    let sleeper = world.worker(&[]);
    eventually("the POST is out", || async { arrivals(&world) == 1 }).await;
    sleeper.signal(Signal::STOP);
    let other = world.worker(&[]);
    world.until("select count(*) = 1 from imagemill.subtasks where error_kind = 'unknown_submit'").await;
    let unknown = list_unknown_attempts(&world.context, &world.actor, None, 10).await.expect("list").remove(0).attempt;
    let resolve = resolve_attempt(&world.context, &world.actor, unknown.cell, unknown.ordinal, resolution);
    resolve.await.expect("resolve");
    world.simulator.control(|options| options.hold_submits = false).expect("let it answer");
    sleeper.signal(Signal::CONT);
    (world, sleeper, other)
}

#[tokio::test]
async fn a_late_id_corrects_what_a_person_has_said_and_nothing_is_paid_twice() {
    for (resolution, was) in [(Resolution::NotBilled, "not_sent"), (Resolution::Billed, "abandoned")] {
        let (world, sleeper, other) = resolved(&resolution).await;
        world.until("select bool_and(upstream_id is not null) from imagemill.attempts").await;
        let row: (String, i32, i64) = sqlx::query_as(
            "select a.upstream_id, s.attempt_count, c.submits::bigint
             from imagemill.attempts a join imagemill.subtasks s on s.id = a.subtask_id
             join imagemill.task_counts c on c.task_id = s.task_id",
        )
        .fetch_one(world.pool())
        .await
        .expect("the attempt");
        let billed = world.simulator.ledger().remove(0);
        assert_eq!((&row.0, row.1), (&billed.upstream_id, 1), "after {was}");
        // The sweep finds it: the picture that was paid for is taken.
        world.until("select count(*) = 1 from imagemill.subtasks where status = 'completed'").await;
        world.until(ALL_ENDED).await;
        assert_eq!((world.cells().await.as_str(), arrivals(&world)), ("completed: 1", 1));
        assert_eq!(world.number("select submits::bigint from imagemill.task_counts").await, 1, "after {was}");
        let said: (String, serde_json::Value, serde_json::Value) = sqlx::query_as(
            "select subject, old_value, new_value from imagemill.audit where what = 'resolve_attempt' and who = 'system'",
        )
        .fetch_one(world.pool())
        .await
        .expect("the audit");
        let cell = billed.request_id.as_deref().and_then(|id| id.split('/').next()).expect("a request id");
        let old = serde_json::json!({ "ordinal": 1, "state": was });
        assert_eq!(said, (format!("subtask/{cell}"), old, serde_json::json!({ "upstream_id": billed.upstream_id })));
        drop((sleeper, other));
        world.assert_settled().await;
    }
}

#[tokio::test]
async fn a_late_id_that_no_row_takes_is_in_the_log() {
    let (world, sleeper, _other) = resolved(&Resolution::UpstreamId("another".to_owned())).await;
    eventually("it is said", || async {
        let billed = world.simulator.ledger().remove(0).upstream_id;
        sleeper.log().lines().any(|line| line.contains("ERROR") && line.contains(&billed) && line.contains("ordinal=1"))
    })
    .await;
    let id: String =
        sqlx::query_scalar("select upstream_id from imagemill.attempts").fetch_one(world.pool()).await.expect("the attempt");
    assert_eq!(id, "another");
}
