//! The main job: a task in, pictures out.

use imagemill::{models::TaskDefinition, services::task_service};

use crate::support::World;

#[tokio::test]
async fn a_task_goes_in_and_pictures_come_out() {
    let world = World::new().await;
    let task = world.create(24).await;
    assert_eq!(task.total_images, 24);
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 24");
    assert_eq!(world.simulator.ledger().len(), 24);
    world.assert_settled().await;
}

/// A task file through two worker processes: every picture on disk under its own hash, both ledgers the same row by row.
async fn a_file_becomes_pictures(form: &str, cells: usize) {
    let mut world = World::new().await;
    let pictures = world.directory.path().join("pictures");
    world.set("results.directory", pictures.display());
    let form = serde_json::from_str(form).expect("JSON");
    let definition = TaskDefinition::from_json(&form, &(&world.context.settings.limits).into()).expect("a sound definition");
    let task = task_service::create_task(&world.context, &world.actor, &definition).await.expect("create the task");
    let mut workers = [world.worker(&["--until-empty"]), world.worker(&["--until-empty"])];
    for worker in &mut workers {
        assert!(worker.wait().await.success(), "{}", worker.log());
    }
    assert_eq!(world.cells().await, format!("completed: {cells}"));
    let kept: Vec<(String, String)> = sqlx::query_as("select result_file, result_sha256 from imagemill.subtasks order by cell")
        .fetch_all(world.pool())
        .await
        .expect("read the results");
    assert_eq!(kept.len(), cells);
    let mut hashes = std::collections::BTreeSet::new();
    for (file, hash) in kept {
        let bytes = std::fs::read(pictures.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)), hash, "{file}");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), cells, "two cells look the same");
    let on_disk = std::fs::read_dir(pictures.join(task.id.to_string())).expect("the task's directory").count();
    assert_eq!(on_disk, cells, "files that are no result");
    world.assert_settled().await;
}

#[tokio::test]
async fn what_the_front_end_sends_becomes_pictures() {
    a_file_becomes_pictures(include_str!("../../examples/front-end-form.json"), 12).await;
}

#[tokio::test]
#[ignore = "long: 3,024 cells"]
async fn the_large_grid_becomes_pictures() {
    a_file_becomes_pictures(include_str!("../../examples/grid-3024.json"), 3024).await;
}
