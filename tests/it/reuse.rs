//! Pictures that were paid for once are taken over: a grid that grows pays for its new cells alone.

use std::collections::BTreeSet;

use imagemill::{
    crud::users,
    models::{Prompt, TaskDefinition, TaskInput},
    services::{
        actor::Actor,
        task_service::{self, CreateOptions, CreatedTask, NewBounds, PlannedReuse},
    },
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    commands::{ends_with, json as printed},
    support::World,
};

const REUSE: CreateOptions =
    CreateOptions { reuse: true, bounds: NewBounds { max_submits: None, not_before: None, not_after: None } };

/// Lights by weathers.
fn grid(lights: &[&str], weathers: &[&str]) -> TaskInput {
    let values = |values: &[&str]| values.iter().copied().map(Prompt::freetext).collect::<Vec<_>>();
    TaskInput::new("a night market")
        .prompt(Prompt::freetext("a night market"))
        .variable_prompt("light", values(lights))
        .variable_prompt("weather", values(weathers))
}

fn sound(world: &World, input: &TaskInput) -> TaskDefinition {
    input.validate(&(&world.context.settings.limits).into()).expect("a sound input")
}

async fn create(world: &World, input: &TaskInput) -> CreatedTask {
    task_service::create_task_with(&world.context, &world.actor, &sound(world, input), REUSE).await.expect("create the task")
}

async fn plan(world: &World, input: &TaskInput) -> (i32, i32) {
    let PlannedReuse { reused_images, new_images } =
        task_service::plan_reuse(&world.context, &world.actor, &sound(world, input)).await.expect("plan the task");
    (reused_images, new_images)
}

async fn run(world: &World, input: &TaskInput) -> CreatedTask {
    let created = create(world, input).await;
    world.drain().await;
    world.assert_settled().await;
    created
}

/// Each cell's picture and seed, in the order of the grid.
async fn pictures(world: &World, task: Uuid) -> Vec<(String, i64)> {
    sqlx::query_as("select result, seed from imagemill.subtasks where task_id = $1 order by cell")
        .bind(task)
        .fetch_all(world.pool())
        .await
        .expect("the pictures")
}

#[tokio::test]
async fn a_grid_that_grows_pays_for_its_new_cells_alone() {
    for seed in [Some(7), None] {
        let world = World::new().await;
        let input = |weathers: &[&str]| {
            let input = grid(&["lanterns", "moon"], weathers);
            seed.map_or_else(|| input.clone(), |seed| input.clone().seed(seed))
        };
        let first = run(&world, &input(&["clear", "rain"])).await;
        assert_eq!((first.total_images, first.reused_images), (4, 0), "seed {seed:?}");
        let paid = world.simulator.ledger().len();
        let grown = input(&["clear", "fog", "rain"]);
        assert_eq!(plan(&world, &grown).await, (4, 2));
        assert_eq!(plan(&world, &grid(&["lanterns"], &["snow"])).await, (0, 1));
        let second = run(&world, &grown).await;
        assert_eq!((second.total_images, second.reused_images), (6, 4), "seed {seed:?}");
        let ledger = world.simulator.ledger();
        assert_eq!(ledger.len() - paid, 2, "seed {seed:?}");
        let new = ledger[paid..].iter().all(|entry| entry.body.to_string().contains("fog"));
        assert!(new, "what was there was paid for again");
        let (before, after) = (pictures(&world, first.id).await, pictures(&world, second.id).await);
        // Each where it belongs, with the seed that it was made with.
        assert_eq!([&after[0], &after[2], &after[3], &after[5]], [&before[0], &before[1], &before[2], &before[3]]);
        // What was taken over is taken over again, from the cell for which it was paid.
        let third = run(&world, &grown).await;
        assert_eq!((third.total_images, third.reused_images), (6, 6));
        assert_eq!(pictures(&world, third.id).await, after);
        assert_eq!(world.simulator.ledger().len() - paid, 2);
        let chains = "select count(*) from imagemill.subtasks s join imagemill.subtasks o on o.id = s.reused_from where o.reused_from is not null";
        assert_eq!(world.number(chains).await, 0);
        // The task of which all was taken over has ended, by its completion alone.
        let ended = "select count(*) from imagemill.tasks where status = 'completed' and started_at is null";
        assert_eq!(world.number(ended).await, 1);
        let jobs = "select count(*) from imagemill.subtasks s where s.reused_from is not null and
                    (exists (select from apalis.jobs where idempotency_key = s.id::text) or exists (select from imagemill.attempts where subtask_id = s.id))";
        assert_eq!(world.number(jobs).await, 0);
        assert_eq!(world.number("select count(*) from imagemill.subtasks where reused_from is not null").await, 10);
        assert_eq!(world.cells().await, "completed: 16");
    }
}

#[tokio::test]
async fn copies_take_different_pictures() {
    let world = World::new().await;
    let input = |copies| grid(&["moon"], &["clear", "rain"]).batch_size(copies);
    let first = run(&world, &input(2)).await;
    let second = run(&world, &input(4)).await;
    assert_eq!(second.reused_images, 4);
    let (before, after) = (pictures(&world, first.id).await, pictures(&world, second.id).await);
    assert_eq!(after.iter().collect::<BTreeSet<_>>().len(), 8, "a picture stands twice: {after:?}");
    assert_eq!((&after[..2], &after[4..6]), (&before[..2], &before[2..]));
    // Both tasks show the four pictures of the first: they are four all the same, and eight are there for sixteen.
    assert_eq!(plan(&world, &input(8)).await, (8, 8));
    // A seed that is given wants its own picture.
    let seed = i32::try_from(after[6].1).expect("a seed");
    assert_eq!(plan(&world, &grid(&["moon"], &["rain"]).seed(seed)).await, (1, 0));
    assert_eq!(plan(&world, &grid(&["moon"], &["clear"]).seed(seed)).await, (0, 1));
}

#[tokio::test]
async fn what_is_not_ones_own_or_not_the_same_is_paid_for() {
    let world = World::new().await;
    let input = grid(&["moon"], &["clear", "rain"]);
    let first = run(&world, &input).await;
    assert_eq!(plan(&world, &input).await, (2, 0));
    assert_eq!(plan(&world, &input.clone().ratio("2:3")).await, (0, 2));
    assert_eq!(plan(&world, &input.clone().lane("dev")).await, (0, 2), "another upstream");
    assert_eq!(plan(&world, &grid(&["moon", "moon"], &["clear"])).await, (1, 1), "one picture, two cells");
    let mut connection = world.pool().acquire().await.expect("a connection");
    assert!(users::insert(&mut connection, Uuid::now_v7(), "ben", None, &["admin".to_owned()]).await.expect("insert"));
    let ben = Actor::from(users::get_by_username(&mut connection, "ben").await.expect("read").expect("the user"));
    let created = task_service::create_task_with(&world.context, &ben, &sound(&world, &input), REUSE).await.expect("create");
    assert_eq!(created.reused_images, 0, "somebody else's pictures");
    let plain = task_service::create_task(&world.context, &world.actor, &sound(&world, &input)).await.expect("create");
    assert_eq!(plain.reused_images, 0, "it was not asked for");
    for (what, undo) in [
        (
            "update imagemill.tasks set is_deleted = true where id = $1",
            "update imagemill.tasks set is_deleted = false where id = $1",
        ),
        ("update imagemill.tasks set is_alone = true where id = $1", "update imagemill.tasks set is_alone = false where id = $1"),
        (
            "update imagemill.subtasks set request_sha256 = 'x' || request_sha256 where task_id = $1",
            "update imagemill.subtasks set request_sha256 = substr(request_sha256, 2) where task_id = $1",
        ),
    ] {
        for (statement, expected) in [(what, (0, 2)), (undo, (2, 0))] {
            sqlx::query(statement).bind(first.id).execute(&mut *connection).await.expect(statement);
            assert_eq!(plan(&world, &input).await, expected, "{statement}");
        }
    }
}

#[tokio::test]
async fn the_command_says_what_is_left_to_pay() {
    let mut world = World::new().await;
    world.environment.insert("IMAGEMILL_USER".to_owned(), "tester".to_owned());
    run(&world, &grid(&["moon"], &["clear", "rain"]).seed(7)).await;
    let file = world.directory.path().join("grown.json");
    let grown = sound(&world, &grid(&["moon"], &["clear", "rain", "fog"]).seed(7)).to_json();
    std::fs::write(&file, grown.to_string()).expect("write the file");
    let file = file.to_str().expect("a name");
    let planned = printed(&world, &["task", "create", file, "--dry-run", "--reuse", "--json"]).await;
    assert_eq!(planned["reuse"], json!({ "reused_images": 2, "new_images": 1 }));
    let (said, _) = ends_with(&world, &["task", "create", file, "--dry-run", "--reuse"], 0).await;
    assert!(said.contains("\n2 would be taken over, 1 are left to be paid for\n"), "{said}");
    assert_eq!(world.number("select count(*) from imagemill.tasks").await, 1, "a dry run stores nothing");
    let (_, note) = ends_with(&world, &["task", "create", file, "--reuse"], 0).await;
    assert!(note.contains("2 pictures were taken over; 1 are to be made"), "{note}");
    assert_eq!(world.cells().await, "completed: 4, pending: 1");
}

#[tokio::test]
async fn what_was_taken_over_is_no_work_of_the_task_and_makes_it_no_faster() {
    let world = World::new().await;
    run(&world, &grid(&["moon", "lanterns"], &["clear", "rain"])).await;
    let more = create(&world, &grid(&["moon", "lanterns"], &["clear", "rain", "fog"])).await;
    assert_eq!((more.total_images, more.reused_images), (6, 4));
    let begun = "update imagemill.tasks set status = 'processing', started_at = now() - interval '1 minute' where id = $1";
    sqlx::query(begun).bind(more.id).execute(world.pool()).await.expect("begin");
    let said: (Option<f64>, bool) =
        sqlx::query_as("select cells_per_minute::float8, time_left is null from imagemill.task_overview where id = $1")
            .bind(more.id)
            .fetch_one(world.pool())
            .await
            .expect("look");
    assert_eq!(said, (Some(0.0), true));
}
