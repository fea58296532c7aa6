//! What goes over the wire, and to whom; answers that the simulator does not give; settings that fail in the middle.

use imagemill::{
    models::{Prompt, TaskInput},
    services::task_service,
    simulator::{Behaviour, Rule, SimulatorOptions},
};
use serde_json::json;

use super::stub::{Answer, Asked, Stub};
use crate::support::{TOKEN, World, eventually};

/// A task of one cell for each of these prompts, on lane prod.
pub(super) async fn create(world: &World, prompts: &[&str]) {
    let limits = (&world.context.settings.limits).into();
    for prompt in prompts {
        let definition = TaskInput::new(*prompt).prompt(Prompt::freetext(*prompt)).seed(7).lane("prod").validate(&limits);
        let definition = definition.expect("a sound definition");
        task_service::create_task(&world.context, &world.actor, &definition).await.expect("create the task");
    }
}

/// State of the cell, its attempts, and its error, by prompt.
pub(super) async fn ends(world: &World) -> Vec<(String, String, String)> {
    sqlx::query_as(
        "select t.name, concat_ws(' ', s.status || coalesce('/' || s.error_kind, ''),
                    (select string_agg(state || coalesce('/' || http_status, ''), ' ' order by ordinal)
                     from imagemill.attempts a where a.subtask_id = s.id)), coalesce(s.error, '')
         from imagemill.tasks t join imagemill.subtasks s on s.task_id = t.id order by t.name",
    )
    .fetch_all(world.pool())
    .await
    .expect("look at the cells")
}

/// Checks what became of each prompt: state and attempts, and a part of the error.
pub(super) async fn assert_ends(world: &World, expected: &[(&str, &str, &str)]) {
    let ends = ends(world).await;
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(ends.len(), expected.len());
    for ((name, end, error), (prompt, should, says)) in ends.iter().zip(expected) {
        assert_eq!((name.as_str(), end.as_str()), (prompt, should), "{error}");
        assert!(error.contains(says) && (!says.is_empty() || error.is_empty()), "{name}: `{error}` does not say `{says}`");
    }
}

fn says(status: &str, url: Option<&str>) -> Answer {
    let artifacts: Vec<_> = url.iter().map(|url| json!({ "url": url })).collect();
    Answer::json(&json!({ "task_status": status, "artifacts": artifacts, "err_msg": null, "msg": null }))
}

#[tokio::test]
async fn the_token_goes_to_the_configured_host_alone_and_no_redirect_is_followed() {
    let elsewhere = Stub::start(|_| Answer::ok("nobody should ask")).await;
    let there = elsewhere.url.clone();
    let upstream = Stub::start(move |asked: &Asked| match (asked.prompt().as_deref(), asked.polled()) {
        (Some("redirected"), _) => Answer::redirect(format!("{there}/v3/make_image")),
        (Some(prompt), _) => Answer::json(&json!(prompt)),
        (_, Some("poll-redirected")) if asked.before < 2 => Answer::redirect(format!("{there}/v1/artifact/task/x")),
        (_, Some(id)) => says("SUCCESS", Some(&format!("{there}/{id}.png"))),
        _ => Answer::status(404),
    })
    .await;
    let mut world = World::with(SimulatorOptions::default()).await;
    world.set("lanes.prod.base_url", &upstream.url).set("upstream.token_header", "Authorization");
    world.set("upstream.token_prefix", "Bearer ");
    create(&world, &["plain", "poll-redirected", "redirected"]).await;
    world.drain().await;
    assert_ends(
        &world,
        &[
            ("plain", "completed succeeded/200", ""),
            ("poll-redirected", "completed succeeded/200", ""),
            ("redirected", "failed/rejected rejected/302", "302"),
        ],
    )
    .await;
    assert!(elsewhere.asked().is_empty(), "{:?}", elsewhere.asked());
    let asked = upstream.asked();
    let posts: Vec<&Asked> = asked.iter().filter(|asked| asked.method == "POST").collect();
    assert_eq!(posts.len(), 3, "none was repeated");
    for asked in &asked {
        assert_eq!(asked.headers["authorization"], format!("Bearer {TOKEN}"));
        assert_eq!(asked.headers["x-platform"], "nieta-app/web");
        assert!(!asked.path.contains(TOKEN));
    }
    for post in posts {
        assert_eq!((post.path.as_str(), &post.headers["content-type"]), ("/v3/make_image", &"application/json".parse().unwrap()));
        let id = post.headers["x-imagemill-request"].to_str().unwrap();
        assert!(id.ends_with("/1"), "{id}");
    }
}

#[tokio::test]
async fn answers_that_the_simulator_does_not_give() {
    let upstream = Stub::start(|asked: &Asked| {
        if let Some(prompt) = asked.prompt() {
            return Answer::json(&json!(prompt));
        }
        match (asked.polled(), asked.before) {
            (Some("word"), 0 | 1) => says("WARMING_UP", None),
            (Some("long"), 0) => Answer::ok(vec![b' '; (1 << 20) + 1]),
            (Some("html"), 0) => Answer::ok("<html>"),
            (Some("nothing"), 0) => Answer::json(&json!({})),
            (Some("flat"), _) => Answer::json(&json!({ "task_status": "SUCCESS", "result_image_url": "http://flat/" })),
            (Some("second"), _) => {
                Answer::json(&json!({ "task_status": "SUCCESS", "artifacts": [{ "url": "" }, { "url": "http://second/" }] }))
            }
            (Some("reason"), _) => Answer::json(&json!({ "task_status": "ILLEGAL_IMAGE", "err_msg": "", "msg": "not\0this" })),
            (Some(id), _) => says("SUCCESS", Some(&format!("http://{id}/"))),
            _ => Answer::status(404),
        }
    })
    .await;
    let mut world = World::with(SimulatorOptions::default()).await;
    world.set("lanes.prod.base_url", &upstream.url);
    create(&world, &["word", "long", "html", "nothing", "flat", "second", "reason"]).await;
    world.drain().await;
    let completed = "completed succeeded/200";
    assert_ends(
        &world,
        &[
            ("flat", completed, ""),
            ("html", completed, ""),
            ("long", completed, ""),
            ("nothing", completed, ""),
            ("reason", "failed/refused refused/200", "ILLEGAL_IMAGE: not\u{fffd}this"),
            ("second", completed, ""),
            ("word", completed, ""),
        ],
    )
    .await;
    let other = "select count(*) from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
                 where s.status = 'completed' and s.result <> 'http://' || t.name || '/'";
    assert_eq!(world.number(other).await, 0);
    let posts = upstream.asked().iter().filter(|asked| asked.method == "POST").count();
    assert_eq!(posts, 7);
}

/// An upstream that repeats the token in what it says: that is in no row and no log.
#[tokio::test]
async fn a_token_that_the_upstream_repeats_goes_no_further() {
    let upstream = Stub::start(|asked: &Asked| match (asked.prompt().as_deref(), asked.polled()) {
        (Some("rejected"), _) => Answer::Says(400, None, format!(r#"{{"detail": "not with {TOKEN}"}}"#).into()),
        (Some(prompt), _) => Answer::json(&json!(prompt)),
        (_, Some("failing")) if asked.before == 0 => Answer::Says(500, None, format!("no {TOKEN}").into()),
        (_, Some(_)) => Answer::json(&json!({ "task_status": "ILLEGAL_IMAGE", "err_msg": TOKEN })),
        _ => Answer::status(404),
    })
    .await;
    let mut world = World::with(SimulatorOptions::default()).await;
    world.set("lanes.prod.base_url", &upstream.url).set("logs.filter", "trace");
    create(&world, &["failing", "rejected"]).await;
    let mut worker = world.worker(&["--until-empty"]);
    assert!(worker.wait().await.success());
    assert_ends(
        &world,
        &[
            ("failing", "failed/refused refused/200", "ILLEGAL_IMAGE: [token]"),
            ("rejected", "failed/rejected rejected/400", "not with [token]"),
        ],
    )
    .await;
    let log = worker.log();
    assert!(log.contains("no [token]") && !log.contains(TOKEN), "{log}");
}

/// A worker without the lane's address meets a cell that another one got accepted: it waits, open as it was.
#[tokio::test]
async fn an_accepted_cell_waits_for_a_lane_that_has_no_address() {
    let mut world = World::with(SimulatorOptions { hold_polls: true, ..SimulatorOptions::default() }).await;
    create(&world, &["accepted"]).await;
    let mut worker = world.worker(&[]);
    world.until("select exists (select from imagemill.attempts where state = 'accepted')").await;
    create(&world, &["new"]).await;
    world.until("select count(*) = 2 from imagemill.attempts where state = 'accepted'").await;
    worker.kill();
    let address = world.simulator.url().to_owned();
    world.set("lanes.prod.base_url", "");
    let mut worker = world.worker(&[]);
    create(&world, &["later"]).await;
    // It rescues what the dead one held, and takes nothing of a lane that it cannot use.
    world.until("select count(*) = 3 from apalis.jobs where status = 'Pending'").await;
    assert!(worker.log().contains("no base_url"), "{}", worker.log());
    worker.kill();
    let seen: Vec<(String, String, bool, i64)> = sqlx::query_as(
        "select t.name, s.status, j.metadata ? 'resume',
                (select count(*) from imagemill.attempts a where a.subtask_id = s.id and a.state = 'accepted')
         from imagemill.tasks t join imagemill.subtasks s on s.task_id = t.id
         join apalis.jobs j on j.idempotency_key = s.id::text order by t.name",
    )
    .fetch_all(world.pool())
    .await
    .expect("look at the cells");
    let open = |name: &str| (name.to_owned(), "processing".to_owned(), true, 1);
    assert_eq!(seen, [open("accepted"), ("later".to_owned(), "pending".to_owned(), false, 0), open("new")]);
    world.simulator.control(|options| options.hold_polls = false).expect("answer the polls");
    world.set("lanes.prod.base_url", address);
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 3");
    assert_eq!(world.simulator.stats().arrivals, 3);
    world.assert_settled().await;
}

/// A token that cannot stand in a header: what it would have been sent with was surely not sent, and what is accepted waits.
#[tokio::test]
async fn a_token_of_the_wrong_form_costs_nothing() {
    let unauthorized = Behaviour::PollError { polls: 1, status: 401, retry_after: None };
    let rules = vec![Rule { prompt: Some("polled".to_owned()), ..Rule::new(unauthorized) }];
    let mut world = World::with(SimulatorOptions { rules, hold_polls: true, ..SimulatorOptions::default() }).await;
    let file = world.directory.path().join("token");
    std::fs::write(&file, TOKEN).expect("write the token");
    world.set("upstream.api_token", "").set("upstream.api_token_file", file.display());
    create(&world, &["polled"]).await;
    let worker = world.worker(&[]);
    world.until("select exists (select from imagemill.attempts where state = 'accepted')").await;
    // The 401 has it read again.
    std::fs::write(&file, "two\nlines").expect("write the token");
    world.simulator.control(|options| options.hold_polls = false).expect("answer the polls");
    eventually("a poll that cannot be made", || async { worker.log().contains("cannot stand in a header") }).await;
    create(&world, &["submitted"]).await;
    world.until("select exists (select from imagemill.attempts where state = 'not_sent')").await;
    let pending = "select count(*) from imagemill.subtasks where status = 'pending' and attempt_count = 0";
    let processing = "select count(*) from imagemill.subtasks where status = 'processing' and attempt_count = 1";
    assert_eq!((world.number(pending).await, world.number(processing).await), (1, 1));
    drop(worker);
    std::fs::write(&file, TOKEN).expect("write the token");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 2");
    assert_eq!(world.simulator.stats().accepted, 2);
    world.assert_settled().await;
}
