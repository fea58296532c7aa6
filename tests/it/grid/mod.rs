//! The grid: as data, as a page in a browser, as sheets; and the terminal.

mod browser;
mod choice;
mod figures;
mod matrix;
mod page;
mod sheet;
mod terminal;

use std::path::PathBuf;

use imagemill::{models::TaskInput, services::task_service};
use serde_json::Value;
use uuid::Uuid;

use crate::{commands::json, support::World};

/// A small picture.
fn picture() -> image::RgbImage {
    image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8 * 3, y as u8 * 4, 120]))
}

/// Stores a task whose cells have ended without anybody having run them: each seventh failed, and each thousandth is open; the
/// others have one kept picture in common.
async fn ended_task(world: &World, input: TaskInput) -> Uuid {
    let definition = input.validate(&(&world.context.settings.limits).into()).expect("a sound task");
    let created = task_service::create_task(&world.context, &world.actor, &definition).await.expect("create the task");
    end(world, created.id).await;
    created.id
}

async fn end(world: &World, task: Uuid) {
    let pictures = pictures(world).join("kept #1");
    std::fs::create_dir_all(&pictures).unwrap();
    picture().save(pictures.join("a picture.png")).unwrap();
    sqlx::query(
        "update imagemill.subtasks
         set attempt_count = 1, updated_at = now(),
             status = case when cell % 1000 = 999 then 'pending' when cell % 7 = 5 then 'failed' else 'completed' end,
             completed_at = case when cell % 1000 <> 999 then now() end,
             error_kind = case when cell % 7 = 5 and cell % 1000 <> 999 then 'refused' end,
             error = case when cell % 7 = 5 then '</script><b>\"it is ''refused''\" & so on' end,
             result = case when cell % 7 <> 5 then 'https://images.example/' || cell || '.png' end,
             result_file = case when cell % 7 <> 5 then 'kept #1/a picture.png' end
         where task_id = $1",
    )
    .bind(task)
    .execute(world.pool())
    .await
    .unwrap();
}

fn pictures(world: &World) -> PathBuf {
    world.directory.path().join("kept pictures")
}

/// Runs `task grid` and returns what it says and where the page is.
async fn written(world: &World, task: Uuid, more: &[&str]) -> (Value, PathBuf) {
    let page = world.directory.path().join("pages").join(format!("{task}.html"));
    std::fs::create_dir_all(world.directory.path().join("pages")).unwrap();
    let (task, place, kept) = (task.to_string(), page.display().to_string(), pictures(world).display().to_string());
    let mut arguments = vec!["--as", "tester", "--json", "task", "grid", &task, "--output", &place, "--pictures", &kept];
    arguments.extend(more);
    (json(world, &arguments).await, page)
}
