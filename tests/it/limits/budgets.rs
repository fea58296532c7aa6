//! Budgets, and the time before which a task submits nothing.

use imagemill::{
    services::task_service::create_task,
    simulator::{Behaviour, SimulatorOptions, Span},
};
use sqlx::Executor as _;

use super::definition;
use crate::support::{World, eventually};

#[tokio::test]
async fn a_task_over_its_budget_waits_and_goes_on_when_it_is_raised() {
    let mut options = SimulatorOptions { pending_polls: Span::fixed(0), ..SimulatorOptions::default() };
    // Of the first three one is taken and its answer lost: it counts. One is turned away: it does not.
    options.script.insert(1, Behaviour::status(500));
    options.script.insert(2, Behaviour::status(429));
    let world = World::with(options).await;
    let task = world.create(10).await;
    let set = |budget: Option<i64>| {
        let query = sqlx::query("update imagemill.tasks set max_submits = $2 where id = $1").bind(task.id).bind(budget);
        async { query.execute(world.pool()).await.expect("set the budget") }
    };
    set(Some(3)).await;
    let workers = [world.worker(&[]), world.worker(&[])];
    let billed = "select count(*) from imagemill.attempts where state not in ('not_sent', 'turned_away', 'rejected')";
    let spent = |count: i64| {
        let world = &world;
        async move { world.number("select submits from imagemill.task_counts").await == count && world.number(billed).await == count }
    };
    // Equal in passing is not enough: it is looked at again when no job is held.
    let spent_at_rest = async |count: i64| {
        eventually("so many are spent", || spent(count)).await;
        world.until("select not exists (select from apalis.jobs where lock_by is not null)").await;
        assert!(spent(count).await, "more than {count} were spent");
    };
    spent_at_rest(3).await;
    set(Some(7)).await;
    spent_at_rest(7).await;
    set(None).await;
    world.until("select completed_at is not null from imagemill.tasks").await;
    assert!(spent(10).await);
    drop(workers);
    world.assert_ledgers_agree().await;
}

#[tokio::test]
async fn tasks_over_their_budget_keep_no_others_from_their_turn() {
    let world = World::new().await;
    // More of them than a claim chooses from.
    for number in 0..45 {
        create_task(&world.context, &world.actor, &definition(&world, &format!("spent {number}"), 2, 1))
            .await
            .expect("create the task");
    }
    sqlx::query("update imagemill.tasks set max_submits = 0").execute(world.pool()).await.expect("set the budget");
    let last = create_task(&world.context, &world.actor, &definition(&world, "open", 30, 1)).await.expect("create the task").id;
    let worker = world.worker(&["--concurrency", "4"]);
    world.until("select completed_at is not null from imagemill.tasks where max_submits is null").await;
    // And each has its turn again when its budget is raised.
    sqlx::query("update imagemill.tasks set max_submits = 1 where id <> $1")
        .bind(last)
        .execute(world.pool())
        .await
        .expect("raise it");
    world.until("select count(*) = 45 from imagemill.task_counts where submits = 1").await;
    drop(worker);
}

#[tokio::test]
async fn nothing_is_submitted_before_its_time() {
    let world = World::new().await;
    let task = world.create(3).await;
    sqlx::query("update imagemill.tasks set not_before = now() + interval '3 seconds' where id = $1")
        .bind(task.id)
        .execute(world.pool())
        .await
        .expect("set the time");
    let worker = world.worker(&[]);
    world.until("select completed_at is not null from imagemill.tasks").await;
    assert_eq!(
        world
            .number("select count(*) from imagemill.attempts a cross join imagemill.tasks t where a.submitted_at < t.not_before")
            .await,
        0
    );
    drop(worker);
    world.assert_settled().await;
}

#[tokio::test]
async fn a_budget_of_as_many_as_there_are_cells_is_enough() {
    let world = World::new().await;
    let task = world.create(3).await;
    sqlx::query("update imagemill.tasks set max_submits = 3 where id = $1")
        .bind(task.id)
        .execute(world.pool())
        .await
        .expect("set the budget");
    let worker = world.worker(&[]);
    // The completion submits nothing: it waits for no budget.
    world.until("select completed_at is not null from imagemill.tasks").await;
    drop(worker);
    world.assert_settled().await;
}

/// A worker as rows say it, which holds the first cell's job.
const HELD: &str = "
    insert into imagemill.incarnations (name, host, pid, version, lease, token_hash, lanes)
        values ('one', 'atelier', 1, '0.1.0', '1 hour', 'aaaaaaaa', array['prod']);
    insert into apalis.workers (id, worker_type, storage_name, layers, last_seen, started_at)
        values ('one', 'imagemill', 'imagemill', '', now(), now());
    update apalis.jobs set status = 'Running', lock_by = 'one', lock_at = now(), attempts = 1
        where idempotency_key = (select id::text from imagemill.subtasks where cell = 0);
    update apalis.jobs set metadata = metadata || hstore('solitary', 'true')
        where idempotency_key = (select id::text from imagemill.subtasks where cell = 1)";

async fn taken_in_turn(world: &World, is_hinted: bool) -> i64 {
    let mut transaction = world.pool().begin().await.expect("begin");
    let statement = "
        select count(claimed.id)
        from (select array_agg('prod'::text) as lanes, array_agg(id::text) as groups, array_agg(user_id::text) as owners,
                     array_agg(1) as weights, array_agg(true) as budgets, array_agg(null::timestamptz) as after,
                     array_agg(null::text) as after_ids
              from imagemill.tasks where $1) as hint,
             imagemill.claim('imagemill.generate_image', 'one', 1, array['prod'], '', null, null, null, false, hint.lanes,
                             hint.groups, hint.owners, hint.weights, hint.budgets, hint.after, hint.after_ids) as claimed";
    sqlx::query_scalar(statement).bind(is_hinted).fetch_one(&mut *transaction).await.expect("claim")
}

#[tokio::test]
async fn what_is_taken_by_its_key_or_alone_keeps_to_the_budget_as_well() {
    let world = World::new().await;
    world.create(3).await;
    world.pool().execute(sqlx::raw_sql(HELD)).await.expect("hold a job");
    let set = |what: &'static str| {
        let world = &world;
        async move { world.pool().execute(what).await.expect("set the budget").rows_affected() }
    };
    // Rolled back: only what would be taken is looked at.
    let taken = |cell: Option<i32>| {
        let world = &world;
        async move {
            let mut transaction = world.pool().begin().await.expect("begin");
            let query = sqlx::query_scalar::<_, i64>(
                "select count(id) from imagemill.claim('imagemill.generate_image', 'one', 1, array['prod'], '', null, null,
                     (select id::text from imagemill.subtasks where cell = $1), $1::integer is null, null, null, null, null, null,
                     null, null)",
            );
            query.bind(cell).fetch_one(&mut *transaction).await.expect("claim")
        }
    };
    for (limit, are_taken) in [
        ("update imagemill.tasks set max_submits = 1", 0),
        ("update imagemill.tasks set max_submits = 2", 1),
        ("update imagemill.task_counts set submits = 1", 0),
        ("update imagemill.tasks set max_submits = 3", 1),
        ("update imagemill.tasks set not_before = now() + interval '1 hour'", 0),
        ("update imagemill.tasks set max_submits = null", 0),
        ("update imagemill.tasks set not_before = null", 1),
        // Before anybody has looked what is overdue.
        ("update imagemill.tasks set not_after = now() - interval '1 second'", 0),
        ("update imagemill.tasks set not_after = now() + interval '1 hour'", 1),
    ] {
        assert!(set(limit).await > 0, "{limit}");
        assert_eq!(taken(None).await, are_taken, "alone: {limit}");
        assert_eq!(taken(Some(2)).await, are_taken, "by its key: {limit}");
        assert_eq!(taken_in_turn(&world, false).await, are_taken, "in turn: {limit}");
        // A hint may be a second old.
        assert_eq!(taken_in_turn(&world, true).await, are_taken, "by a hint: {limit}");
    }
    // What has an open attempt is polled on, whatever the budget.
    set("update imagemill.tasks set max_submits = 0").await;
    set("update apalis.jobs set metadata = metadata || hstore('resume', 'true')").await;
    assert_eq!((taken(None).await, taken(Some(2)).await), (1, 1));
}
