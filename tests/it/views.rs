//! What the views say, where it is the same that is said elsewhere.

use imagemill::services::task_service::create_task_alone;
use serde_json::json;
use sqlx::Executor as _;

use crate::{commands::json as printed, support::World};

/// In views and `task_matrix` a value is called what it is called on the page, in exports and by `task show`.
#[tokio::test]
async fn a_value_has_one_name_wherever_it_stands() {
    let world = World::new().await;
    for (kind, value) in [
        ("prompt", json!({ "type": "freetext", "value": "moon", "weight": 1.0 })),
        ("prompt", json!({ "type": "freetext", "value": " moon ", "weight": 0.5 })),
        ("prompt", json!({ "type": "character", "value": "0123", "name": "Mia", "weight": 2.0 })),
        ("prompt", json!({ "type": "character", "value": " ", "name": "Mia", "weight": 2.0 })),
        ("use_polish", json!(true)),
        ("use_polish", json!(false)),
        ("seed", json!(7)),
        ("ratio", json!("3:4")),
        ("lumina_cfg", json!(5.5)),
        ("lumina_model_name", json!(null)),
    ] {
        let axis = json!([{ "number": 0, "kind": kind, "variable_id": "v", "name": "a", "values": [value] }]);
        let labels: (String, Vec<String>) =
            sqlx::query_as("select imagemill.value_label($1 -> 0 -> 'values' -> 0), imagemill.axis_labels($1, 1, '0')")
                .bind(&axis)
                .fetch_one(world.pool())
                .await
                .expect("ask");
        let axis: imagemill::models::Axis = serde_json::from_value(axis[0].clone()).expect("an axis");
        assert_eq!((Some(&labels.0), labels.1.first()), (axis.label(0).as_ref(), axis.label(0).as_ref()), "{value}");
    }
}

/// Cells of a try against the simulator are no worker's, and what was not sent is no submit.
#[tokio::test]
async fn a_lane_counts_what_its_workers_find_and_what_left() {
    let world = World::new().await;
    world.create(3).await;
    create_task_alone(&world.context, &world.actor, &world.definition(2)).await.expect("a try");
    let lane = async || -> (i64, i64) {
        sqlx::query_as("select pending, submits from imagemill.lane_overview where lane = 'prod'")
            .fetch_one(world.pool())
            .await
            .expect("look")
    };
    assert_eq!(lane().await, (3, 0));
    let top = printed(&world, &["--as", "tester", "--json", "top"]).await;
    let prod = top["lanes"].as_array().and_then(|lanes| lanes.iter().find(|lane| lane["lane"] == "prod")).expect("prod");
    assert_eq!(prod["waiting"], 3);
    let not_sent =
        "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until, finished_at)
                    select id, 1, 1, 1, 'prod', 'one', case cell when 0 then 'not_sent' else 'turned_away' end, now(), now()
                    from imagemill.subtasks where cell < 2 and task_id = (select min(id::text)::uuid from imagemill.tasks)";
    world.pool().execute(not_sent).await.expect("one left, one did not");
    assert_eq!(lane().await, (3, 1));
    // One of which a person says that it was not billed left all the same.
    world.pool().execute("update imagemill.attempts set resolved_at = now() where state = 'not_sent'").await.expect("resolve");
    assert_eq!(lane().await, (3, 2));
}

/// What a person said of an attempt stands between what became of it.
#[tokio::test]
async fn the_timeline_says_when_somebody_resolved_an_attempt() {
    let world = World::new().await;
    world.create(1).await;
    let resolved = "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, error, answer_until, submitted_at, finished_at, resolved_at)
                    select id, 1, 1, 1, 'prod', 'one', 'not_sent', 'reset; resolved by tester', now(), now() - interval '2 hours', now() - interval '1 hour', now()
                    from imagemill.subtasks";
    world.pool().execute(resolved).await.expect("an attempt");
    let events: Vec<(String, Option<String>)> =
        sqlx::query_as("select event, error from imagemill.attempts_timeline order by ordinal, at")
            .fetch_all(world.pool())
            .await
            .expect("look");
    let events: Vec<(&str, Option<&str>)> = events.iter().map(|(event, error)| (event.as_str(), error.as_deref())).collect();
    assert_eq!(events, [("submitted", None), ("not_sent", Some("reset; resolved by tester")), ("resolved", None)]);
}
