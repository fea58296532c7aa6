//! The operators' commands, and the audit.

use imagemill::{
    crud::users,
    services::{
        actor::Actor,
        error::ServiceError,
        lane_service::{NewLimits, pause_lane, resume_lane, set_lane_limits},
    },
    simulator::{Behaviour, SimulatorOptions},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    commands::{ends_with, json},
    support::World,
};

/// Who did what to a lane, old and new; a session's role by that word.
async fn lane_audit(world: &World) -> Vec<(String, String, String, Option<Value>, Option<Value>)> {
    sqlx::query_as(
        "select case who when session_user then 'the role' else who end, what, subject, old_value, new_value
         from imagemill.audit where subject like 'lane/%' order by id",
    )
    .fetch_all(world.pool())
    .await
    .expect("the audit")
}

#[tokio::test]
async fn what_people_change_of_a_lane_is_audited_and_what_the_engine_writes_is_not() {
    let mut world = World::new().await;
    world.environment.insert("IMAGEMILL_USER".to_owned(), "tester".to_owned());
    let limits = json(&world, &["lane", "limit", "prod", "--max-in-flight", "7", "--submits-per-second", "2.5", "--json"]).await;
    json(&world, &["lane", "limit", "prod", "--polls-per-second", "12.5", "--json"]).await;
    let prod = limits.as_array().and_then(|lanes| lanes.iter().find(|lane| lane["lane"] == "prod")).expect("prod").clone();
    assert_eq!((&prod["max_in_flight"], &prod["submits_per_second"]), (&json!(7), &json!(2.5)));
    json(&world, &["lane", "limit", "prod", "--submits-per-second", "none", "--json"]).await;
    let paused = json(&world, &["lane", "pause", "ops", "--why", "the pool is rebuilt", "--json"]).await;
    assert_eq!(paused, json!({ "lane": "ops", "paused": true, "why": "the pool is rebuilt", "until": null }));
    let (listed, _) = ends_with(&world, &["lane", "list"], 0).await;
    assert!(listed.contains("operator: the pool is rebuilt") && listed.contains("12.5"), "{listed}");
    let lanes = json(&world, &["lane", "list", "--json"]).await;
    let ops = lanes.as_array().and_then(|lanes| lanes.iter().find(|lane| lane["lane"] == "ops")).expect("ops");
    let since = &ops["pauses"][0]["since"];
    assert!(since.is_string(), "{ops}");
    let pause = json!({ "reason": "operator", "token_hash": null, "why": "the pool is rebuilt", "since": since, "until": null });
    assert_eq!(ops["pauses"], json!([pause]));
    let resumed = json(&world, &["lane", "resume", "ops", "--json"]).await;
    assert_eq!(resumed, json!({ "lane": "ops", "paused": false, "was_paused": true, "pauses": [] }));
    for by_hand in [
        "update imagemill.lanes set burst = 3 where lane = 'dev'",
        // The same as it was.
        "update imagemill.lanes set burst = 3",
        "update imagemill.lanes set current_rate = 1, updated_at = now()",
        // What the engine writes.
        "begin; set local imagemill.engine = 'on'; update imagemill.lanes set current_rate = 2, updated_at = now(); commit",
        "insert into imagemill.pauses (lane, reason, why) values ('dev', 'breaker', 'the engine''s own')",
        "delete from imagemill.pauses",
    ] {
        sqlx::raw_sql(by_hand).execute(world.pool()).await.expect(by_hand);
    }
    let said = lane_audit(&world).await;
    let row = |who: &str, what: &str, lane: &str, old, new| (who.to_owned(), what.to_owned(), format!("lane/{lane}"), old, new);
    let changes: Vec<_> = said.iter().filter(|(_, what, ..)| what == "update_lane").cloned().collect();
    let expected = [
        row(
            "tester",
            "update_lane",
            "prod",
            Some(json!({ "max_in_flight": 10_000, "submits_per_second": null })),
            Some(json!({ "max_in_flight": 7, "submits_per_second": 2.5 })),
        ),
        row(
            "tester",
            "update_lane",
            "prod",
            Some(json!({ "polls_per_second": null })),
            Some(json!({ "polls_per_second": 12.5 })),
        ),
        row(
            "tester",
            "update_lane",
            "prod",
            Some(json!({ "submits_per_second": 2.5 })),
            Some(json!({ "submits_per_second": null })),
        ),
        row("the role", "update_lane", "dev", Some(json!({ "burst": 1 })), Some(json!({ "burst": 3 }))),
    ];
    assert_eq!(changes[..4], expected);
    // The other two lanes got a burst as well, and all three a rate; and nothing else is there but the pauses' ends, and one's beginning.
    let whats: Vec<(&str, &str)> = said.iter().map(|(who, what, ..)| (who.as_str(), what.as_str())).collect();
    let others: Vec<_> = whats.iter().filter(|(_, what)| *what != "update_lane").collect();
    let ends = [("tester", "pause_lane"), ("tester", "resume_lane"), ("the role", "resume_lane")];
    assert_eq!((changes.len(), others), (9, ends.iter().collect::<Vec<_>>()));
}

#[tokio::test]
async fn who_may_not_steer_is_told_so() {
    let world = World::new().await;
    let mut connection = world.pool().acquire().await.expect("a connection");
    let roles = ["pro_user".to_owned()];
    users::insert(&mut connection, Uuid::now_v7(), "pro", None, &roles).await.expect("insert");
    let actor = Actor::from(users::get_by_username(&mut connection, "pro").await.expect("read").expect("the user"));
    let limits = NewLimits { burst: Some(2), ..NewLimits::default() };
    for refused in [
        set_lane_limits(&world.context, &actor, "prod", &limits).await.err(),
        pause_lane(&world.context, &actor, "prod", "why not", None).await.err(),
        resume_lane(&world.context, &actor, "prod").await.err(),
    ] {
        assert!(matches!(&refused, Some(ServiceError::NotAllowed { .. })), "{refused:?}");
    }
    let missing = resume_lane(&world.context, &world.actor, "moon").await.err();
    assert!(matches!(&missing, Some(ServiceError::NotFound { what: "lane", .. })), "{missing:?}");
    let wrong = NewLimits { max_in_flight: Some(-1), submits_per_second: Some(Some(f64::NAN)), ..limits };
    let faults = set_lane_limits(&world.context, &world.actor, "prod", &wrong).await.expect_err("two faults").to_string();
    assert_eq!(faults, "max_in_flight is between 0 and 1000000; submits_per_second is between 0.0001 and 1000000");
    assert!(lane_audit(&world).await.is_empty());
}

#[tokio::test]
async fn a_task_is_cancelled_retried_and_ended_and_an_attempt_resolved_by_command() {
    let mut options = SimulatorOptions::default();
    options.script.insert(1, Behaviour::ResetAfter);
    let mut world = World::with(options).await;
    world.environment.insert("IMAGEMILL_USER".to_owned(), "tester".to_owned());
    let task = world.create(3).await.id.to_string();
    let done = json(&world, &["task", "cancel", &task, "--cell", "1,2", "--json"]).await;
    assert_eq!(done, json!({ "task": task, "ended": 2, "in_flight": 0 }));
    world.drain().await;
    let unknown = json(&world, &["attempt", "list", "--unknown", "--json"]).await;
    let attempt = format!("{}/{}", unknown[0]["cell"].as_str().expect("a cell"), unknown[0]["ordinal"]);
    let (listed, _) = ends_with(&world, &["attempt", "list", "--unknown", "--task", &task], 0).await;
    let row = listed.lines().find(|line| line.starts_with(&attempt)).unwrap_or_else(|| panic!("{listed}"));
    let place: Vec<&str> = row.split_whitespace().skip(1).take(2).collect();
    assert_eq!(place, [task.as_str(), unknown[0]["cell_number"].to_string().as_str()], "{listed}");
    assert_eq!(unknown[0]["task"], task);
    let resolved = json(&world, &["attempt", "resolve", &attempt, "--not-billed", "--json"]).await;
    assert_eq!(resolved, json!({ "attempt": attempt, "resolved": "not_billed", "answer_until": unknown[0]["answer_until"] }));
    let (_, stderr) = ends_with(&world, &["attempt", "resolve", &attempt, "--billed"], 1).await;
    assert_eq!(
        stderr,
        format!("imagemill: there is no unknown attempt {attempt}; `imagemill attempt list --unknown` names them\n")
    );
    let done = json(&world, &["task", "retry", &task, "--kind", "unknown_submit,refused", "--now", "--json"]).await;
    assert_eq!(done, json!({ "task": task, "round": 2, "retried": 1, "waiting": {}, "unknown": [], "held": [] }));
    let (said, _) = ends_with(&world, &["task", "force-complete", &task], 0).await;
    assert_eq!(said, "failed (operator): cells 1\n");
    let (said, _) = ends_with(&world, &["task", "retry", &task, "--now"], 0).await;
    assert_eq!(said, "round 3: cells 3\n");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 3");
    let (said, _) = ends_with(&world, &["task", "cancel", &task], 0).await;
    assert_eq!(said, "cancelled: cells 0\n");
    for wrong in [
        vec!["task", "retry", &task, "--kind", "bad_luck"],
        vec!["task", "retry", &task, "--cell", "0"],
        vec!["task", "cancel", &task, "--cell", "3"],
        vec!["attempt", "resolve", "7", "--billed"],
        vec!["attempt", "resolve", &attempt],
        vec!["attempt", "resolve", &attempt, "--billed", "--not-billed"],
        vec!["lane", "limit", "prod"],
        vec!["lane", "pause", "prod"],
    ] {
        let (_, stderr) = ends_with(&world, &wrong, 2).await;
        assert_eq!(stderr.lines().count(), 1, "{wrong:?}: {stderr}");
    }
    let whats: Vec<String> = sqlx::query_scalar("select what from imagemill.audit where who = 'tester' order by id")
        .fetch_all(world.pool())
        .await
        .expect("the audit");
    let expected = ["cancel_subtask", "resolve_attempt", "retry_task", "force_complete_task", "retry_task", "cancel_task"];
    assert_eq!(whats, expected);
}
