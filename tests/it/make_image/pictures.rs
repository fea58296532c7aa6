//! Keeping the picture: bounded, checked, tried again until the deadline, and never paid for again.

use std::sync::{Arc, OnceLock};

use imagemill::simulator::SimulatorOptions;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    stub::{Answer, Asked, Stub},
    wire::{assert_ends, create},
};
use crate::support::{TOKEN, World};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nnot much of a picture";

async fn kept(world: &World) -> Vec<(String, uuid::Uuid, i32, Option<String>, Option<String>, Option<String>)> {
    sqlx::query_as(
        "select t.name, t.id, s.cell, s.result, s.result_file, s.result_sha256
         from imagemill.tasks t join imagemill.subtasks s on s.task_id = t.id order by t.name, s.cell",
    )
    .fetch_all(world.pool())
    .await
    .expect("look at the cells")
}

#[tokio::test]
async fn pictures_are_kept_under_task_and_cell_with_their_hash() {
    let mut world = World::new().await;
    let directory = world.directory.path().join("pictures");
    world.set("results.directory", directory.display());
    world.create(6).await;
    world.drain().await;
    let kept = kept(&world).await;
    assert_eq!(kept.len(), 6);
    for (_, task, cell, _, file, sha256) in kept {
        let file = file.expect("a file");
        assert_eq!(file, format!("{task}/{cell:05}.png"));
        let bytes = std::fs::read(directory.join(file)).expect("read the picture");
        assert_eq!(sha256.as_deref(), Some(hex::encode(Sha256::digest(&bytes)).as_str()));
        image::load_from_memory(&bytes).expect("a picture");
    }
    assert_eq!(std::fs::read_dir(directory).expect("read the directory").count(), 1);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_picture_that_cannot_be_kept_is_tried_again_until_the_deadline_and_never_paid_again() {
    let place = Arc::new(OnceLock::<String>::new());
    let here = Arc::clone(&place);
    // Another host than the upstream's.
    let pictures = Stub::start(move |asked: &Asked| match asked.path.as_str() {
        "/large" => Answer::ok([PNG, &[0; 1000]].concat()),
        "/text" => Answer::ok("<html>not found</html>"),
        "/empty" => Answer::ok(""),
        "/status" => Answer::status(500),
        "/hangs" => Answer::Hangs,
        "/moved" => Answer::redirect(format!("{}/good", here.get().expect("the address"))),
        "/late" if asked.before == 0 => Answer::status(404),
        "/late" | "/good" | "/fits" => Answer::ok(PNG),
        _ => Answer::status(404),
    })
    .await;
    place.set(pictures.url.clone()).expect("once");
    let there = pictures.url.clone();
    let upstream = Stub::start(move |asked: &Asked| match (asked.prompt(), asked.polled()) {
        (Some(prompt), _) => Answer::json(&json!(prompt)),
        (_, Some("scheme")) => Answer::json(&json!({ "task_status": "SUCCESS", "artifacts": [{ "url": "file:///etc/passwd" }] })),
        (_, Some(id)) => Answer::json(&json!({ "task_status": "SUCCESS", "artifacts": [{ "url": format!("{there}/{id}") }] })),
        _ => Answer::status(404),
    })
    .await;
    let mut world = World::with(SimulatorOptions::default()).await;
    let directory = world.directory.path().join("pictures");
    world.set("results.directory", directory.display()).set("lanes.prod.base_url", &upstream.url);
    world.set("results.max_bytes", 1000).set("results.timeout", "300ms").set("generate_image.deadline", "4s");
    let prompts = ["large", "text", "empty", "status", "hangs", "moved", "scheme", "late", "fits"];
    create(&world, &prompts).await;
    world.drain().await;

    let completed = "completed succeeded/200";
    assert_ends(
        &world,
        &[
            ("empty", completed, "not a picture"),
            ("fits", completed, ""),
            ("hangs", completed, "time-out"),
            ("large", completed, "longer than 1000 bytes"),
            ("late", completed, ""),
            ("moved", completed, "302"),
            ("scheme", completed, "not http or https"),
            ("status", completed, "500"),
            ("text", completed, "not a picture"),
        ],
    )
    .await;
    for (name, task, cell, url, file, sha256) in kept(&world).await {
        assert!(url.is_some(), "{name} has no URL");
        let is_kept = matches!(name.as_str(), "late" | "fits");
        assert_eq!(file, is_kept.then(|| format!("{task}/{cell:05}.png")), "{name}");
        assert_eq!(sha256, is_kept.then(|| hex::encode(Sha256::digest(PNG))), "{name}");
    }
    let left = std::fs::read_dir(&directory).expect("read the directory").count();
    assert_eq!(left, 2, "directories of tasks with a picture");
    for name in ["large", "text", "empty", "status", "hangs", "moved", "late"] {
        let asked = pictures.asked().iter().filter(|asked| asked.path == format!("/{name}")).count();
        assert!(asked >= 2, "{name} was asked for {asked} times");
    }
    assert!(pictures.asked().iter().all(|asked| asked.path != "/good"), "a redirect was followed");
    for asked in pictures.asked() {
        let told = format!("{asked:?}");
        assert!(!told.contains(TOKEN) && !asked.headers.contains_key("x-token"), "{told}");
        assert_eq!(asked.method, "GET");
    }
    let posts = upstream.asked().iter().filter(|asked| asked.method == "POST").count();
    assert_eq!(posts, prompts.len());
}

#[tokio::test]
async fn a_worker_that_leaves_or_dies_while_it_fetches_pays_nothing_again() {
    let mut world = World::with(SimulatorOptions { picture_status: Some(503), ..SimulatorOptions::default() }).await;
    let directory = world.directory.path().join("pictures");
    world.set("results.directory", directory.display());
    world.create(2).await;
    for leave in [true, false] {
        let mut worker = world.worker(&[]);
        crate::support::eventually("a download that failed", || async { worker.log().contains("the picture is not kept yet") })
            .await;
        if leave {
            worker.signal(rustix::process::Signal::TERM);
            let status = worker.wait().await;
            assert!(status.success(), "it ended with {status}:\n{}", worker.log());
            let handed_over = "select count(*) from apalis.jobs where status = 'Pending' and metadata ? 'resume'";
            assert_eq!(world.number(handed_over).await, 2);
        } else {
            worker.kill();
        }
    }
    world.simulator.control(|options| options.picture_status = None).expect("hand out the pictures");
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 2");
    assert_eq!(world.number("select count(*) from imagemill.subtasks where result_file is not null").await, 2);
    assert_eq!(world.number("select count(*) from imagemill.attempts").await, 2);
    assert_eq!(world.simulator.stats().arrivals, 2);
    world.assert_settled().await;
}

/// A download has a minute; a worker that leaves has less.
#[tokio::test]
async fn a_worker_that_leaves_awaits_no_download() {
    let pictures = Stub::start(|_| Answer::Hangs).await;
    let there = pictures.url.clone();
    let upstream = Stub::start(move |asked: &Asked| match asked.polled() {
        None => Answer::json(&json!("an-id")),
        Some(_) => Answer::json(&json!({ "task_status": "SUCCESS", "artifacts": [{ "url": there }] })),
    })
    .await;
    let mut world = World::with(SimulatorOptions::default()).await;
    let directory = world.directory.path().join("pictures");
    world.set("results.directory", directory.display()).set("lanes.prod.base_url", &upstream.url);
    create(&world, &["hangs"]).await;
    let mut worker = world.worker(&["--grace", "3"]);
    crate::support::eventually("a download", || async { !pictures.asked().is_empty() }).await;
    worker.signal(rustix::process::Signal::TERM);
    let status = worker.wait().await;
    assert!(status.success(), "it ended with {status}:\n{}", worker.log());
    let handed_over = "select count(*) from apalis.jobs where status = 'Pending' and metadata ? 'resume'";
    assert_eq!(world.number(handed_over).await, 1);
}
