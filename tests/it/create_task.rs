//! The producer's side: one transaction, one notification, one task a key.

use std::{sync::Arc, time::Duration};

use imagemill::{
    crud::subtasks,
    models::{self, Prompt, TaskDefinition, TaskInput},
    queue::WAKE_CHANNEL,
    services::{
        error::ServiceError,
        task_service::{self, create_task, create_task_in},
    },
};
use sqlx::{Connection as _, postgres::PgListener};

use crate::support::{BOUND, World};

#[tokio::test]
async fn a_rollback_of_the_callers_transaction_leaves_no_trace_and_wakes_nobody() {
    let world = World::new().await;
    let mut listener = PgListener::connect_with(world.pool()).await.expect("listen");
    listener.listen(WAKE_CHANNEL).await.expect("listen");
    let limits = &world.context.settings.limits;
    let mut connection = world.pool().acquire().await.expect("a connection");
    let mut transaction = connection.begin().await.expect("the caller's transaction");
    sqlx::query("create table orders (id integer)").execute(&mut *transaction).await.expect("the caller's own work");
    let created = create_task_in(&mut transaction, limits, &world.actor, &world.definition(50)).await.expect("create the task");
    assert!(created.is_new);
    transaction.rollback().await.expect("roll back");
    for table in ["imagemill.tasks", "imagemill.subtasks", "imagemill.task_counts", "apalis.jobs"] {
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(world.pool())
            .await
            .expect("count");
        assert_eq!(rows, 0, "{table}");
    }
    // The first notification that comes is this one: the rollback sent none.
    sqlx::query("select pg_notify($1, 'the test')").bind(WAKE_CHANNEL).execute(world.pool()).await.expect("notify");
    let first = tokio::time::timeout(BOUND, listener.recv()).await.expect("in time").expect("a notification");
    assert_eq!(first.payload(), "the test");
}

#[tokio::test]
async fn fifty_at_once_with_one_key_make_one_task() {
    let world = World::new().await;
    let definition = |name: String| -> TaskDefinition {
        TaskInput::new(name)
            .prompt(Prompt::freetext("a fox"))
            .batch_size(8)
            .idempotency_key("order-18")
            .validate(&(&world.context.settings.limits).into())
            .expect("a sound definition")
    };
    // Four of them say something else under the same key.
    let definitions: Vec<TaskDefinition> =
        (0..54).map(|caller| definition(if caller < 50 { "fox".to_owned() } else { format!("fox {caller}") })).collect();
    let first = create_task(&world.context, &world.actor, &definitions[0]);
    let others = definitions[1..].iter().map(|definition| create_task(&world.context, &world.actor, definition));
    let (first, others) = tokio::join!(first, futures::future::join_all(others));
    let created: Vec<_> = std::iter::once(first).chain(others).collect();
    let made: Vec<_> = created.iter().flatten().collect();
    assert_eq!(made.iter().filter(|task| task.is_new).count(), 1);
    assert!(made.iter().all(|task| task.id == made[0].id));
    let refused = created.iter().filter(|task| matches!(task, Err(ServiceError::KeyReused { task, .. }) if *task == made[0].id));
    // Whoever was first is right: fifty with one input, or one of the four.
    assert!([4, 53].contains(&refused.count()), "{created:?}");
    assert_eq!(world.number("select count(*) from imagemill.tasks").await, 1);
    assert_eq!(world.number("select count(*) from imagemill.subtasks").await, 8);
    assert_eq!(world.number("select count(*) from apalis.jobs").await, 8);
}

#[tokio::test]
async fn one_key_makes_one_task() {
    let world = World::new().await;
    let definition = |name: &str| -> TaskDefinition {
        TaskInput::new(name)
            .prompt(Prompt::freetext("a fox"))
            .idempotency_key("order-17")
            .validate(&(&world.context.settings.limits).into())
            .expect("a sound definition")
    };
    let first = create_task(&world.context, &world.actor, &definition("fox")).await.expect("create");
    let again = create_task(&world.context, &world.actor, &definition("fox")).await.expect("create again");
    assert!(first.is_new && !again.is_new);
    assert_eq!(first.id, again.id);
    let other = create_task(&world.context, &world.actor, &definition("another fox")).await;
    assert!(matches!(&other, Err(ServiceError::KeyReused { task, .. }) if *task == first.id), "{other:?}");
    assert_eq!(world.number("select count(*) from imagemill.tasks").await, 1);
    assert_eq!(world.number("select count(*) from apalis.jobs").await, 1);
    world.drain().await;
    // It returns the first task whatever became of it, and enqueues nothing.
    let after = create_task(&world.context, &world.actor, &definition("fox")).await.expect("create after its end");
    assert_eq!((after.id, after.is_new), (first.id, false));
    assert_eq!(world.number("select count(*) from apalis.jobs where status = 'Pending'").await, 0);
}

#[tokio::test]
async fn twenty_callers_with_one_key_make_one_task() {
    let world = Arc::new(World::new().await);
    let definition = TaskInput::new("fox")
        .prompt(Prompt::freetext("a fox"))
        .idempotency_key("order-17")
        .validate(&(&world.context.settings.limits).into())
        .expect("a sound definition");
    let calls = (0..20).map(|_| create_task(&world.context, &world.actor, &definition));
    let made = futures::future::join_all(calls).await;
    let made: Vec<_> = made.into_iter().map(|made| made.expect("create")).collect();
    assert_eq!(made.iter().filter(|made| made.is_new).count(), 1);
    assert!(made.iter().all(|one| one.id == made[0].id));
    assert_eq!(world.number("select count(*) from imagemill.subtasks").await, 1);
}

#[tokio::test]
async fn cells_stand_in_the_order_of_the_grid_and_sql_shows_their_prompts() {
    let world = World::new().await;
    let form = serde_json::from_str(include_str!("../../examples/front-end-form.json")).expect("JSON");
    let definition = TaskDefinition::from_json(&form, &(&world.context.settings.limits).into()).expect("a sound definition");
    let task = create_task(&world.context, &world.actor, &definition).await.expect("create");
    let mut connection = world.pool().acquire().await.expect("a connection");
    let cells = subtasks::get_by_task(&mut connection, task.id).await.expect("the cells");
    let indices: Vec<Vec<i32>> = cells.iter().map(|cell| cell.variable_indices.clone()).collect();
    let expected: Vec<Vec<i32>> = (0..2).flat_map(|a| (0..3).flat_map(move |b| (0..2).map(move |c| vec![a, b, c]))).collect();
    assert_eq!(indices, expected);
    for cell in &cells {
        let in_sql: serde_json::Value = sqlx::query_scalar(
            "select imagemill.expanded_prompts(t.prompts, s.variable_indices)
             from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id where s.id = $1",
        )
        .bind(cell.id)
        .fetch_one(&mut *connection)
        .await
        .expect("the prompts in SQL");
        let in_rust = models::expanded_prompts(definition.prompts(), &cell.variable_indices).expect("the prompts");
        let values = |prompts: &[serde_json::Value]| -> Vec<(String, f64)> {
            prompts
                .iter()
                .map(|prompt| {
                    (prompt["value"].as_str().expect("a value").to_owned(), prompt["weight"].as_f64().expect("a weight"))
                })
                .collect()
        };
        assert_eq!(values(in_sql.as_array().expect("a list")), values(&in_rust), "cell {}", cell.cell);
    }
}

#[tokio::test]
async fn waiting_for_a_task_ends_with_it_or_with_its_time() {
    let world = World::new().await;
    let task = world.create(3).await;
    let soon = task_service::await_task(&world.context, &world.actor, task.id, Some(Duration::from_millis(1))).await;
    assert_eq!(soon.expect("look"), None);
    let ((), ended) = tokio::join!(world.drain(), task_service::await_task(&world.context, &world.actor, task.id, Some(BOUND)));
    let ended = ended.expect("wait").expect("it ended");
    assert_eq!((ended.status.as_str(), ended.progress()), ("completed", 100));
}

#[tokio::test]
async fn a_stranded_task_is_found_by_the_sweep() {
    let world = World::new().await;
    let task = world.create(2).await;
    // Somebody ends the cells by hand, without a word to the counts or the queue.
    sqlx::query("update imagemill.subtasks set status = 'cancelled', completed_at = now()")
        .execute(world.pool())
        .await
        .expect("end the cells");
    sqlx::query("delete from apalis.jobs").execute(world.pool()).await.expect("lose the jobs");
    assert_eq!(task_service::sweep(&world.context).await.expect("sweep"), 1);
    assert_eq!(task_service::sweep(&world.context).await.expect("sweep again"), 0);
    world.drain().await;
    let task = task_service::get_task(&world.context, &world.actor, task.id).await.expect("the task");
    assert_eq!((task.status.as_str(), task.cancelled_subtasks), ("cancelled", 2));
}

#[tokio::test]
async fn a_task_changes_its_state_along_the_edges_alone() {
    use imagemill::models::status::Status;
    let world = World::new().await;
    let task = world.create(1).await;
    let set = |status| task_service::update_task_status(&world.context, &world.actor, task.id, status);
    // Its cell is open: it cannot have ended.
    for status in [Status::Completed, Status::Failed, Status::Cancelled, Status::Pending] {
        assert!(matches!(set(status).await, Err(ServiceError::Transition { .. })), "{status}");
    }
    set(Status::Processing).await.expect("its first attempt may be made by hand");
    world.drain().await;
    assert!(matches!(set(Status::Pending).await, Err(ServiceError::Transition { .. })));
    assert!(matches!(set(Status::Processing).await, Err(ServiceError::Transition { .. })));
}
