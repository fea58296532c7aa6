//! What a claim walks over: what it takes, whatever else waits, and though nobody has counted the tables yet.

use imagemill::services::task_service::create_task;

use super::{change_lane, definition};
use crate::support::World;

/// Rows of jobs that this session's transaction has read by an index or from end to end.
const READ: &str = "select coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0) from pg_stat_xact_user_tables
                    where schemaname = 'apalis' and relname = 'jobs'";

#[tokio::test]
async fn a_claim_of_tables_that_nobody_has_counted_walks_over_what_it_takes() {
    let world = World::new().await;
    change_lane(&world, "max_in_flight = 1000").await;
    // As they are in the first minute of a database.
    sqlx::query("alter table apalis.jobs set (autovacuum_enabled = off)").execute(world.pool()).await.expect("switch it off");
    for task in 0..30 {
        let name = format!("task {task}");
        create_task(&world.context, &world.actor, &definition(&world, &name, 100, 1)).await.expect("create the task");
    }
    sqlx::query(
        "insert into apalis.workers (id, worker_type, storage_name, layers, last_seen, started_at)
         values ('somebody', 'imagemill', 'imagemill', '', now(), now())",
    )
    .execute(world.pool())
    .await
    .expect("a worker");
    let mut transaction = world.pool().begin().await.expect("begin");
    for settings in ["set local plan_cache_mode = force_generic_plan", "set local enable_seqscan = off", "set local jit = off"] {
        sqlx::query(settings).execute(&mut *transaction).await.expect("what the engine's connections are set to");
    }
    let known: i64 = sqlx::query_scalar(
        "select count(*) from imagemill.groups_to_claim('imagemill.generate_image', array['dev', 'ops', 'prod'])",
    )
    .fetch_one(&mut *transaction)
    .await
    .expect("look who waits");
    assert_eq!(known, 30);
    let claimed: i64 = sqlx::query_scalar(
        "select count(id) from imagemill.claim('imagemill.generate_image', 'somebody', 60, array['dev', 'ops', 'prod'], null, null,
                                               null, null, false, null, null, null, null, null, null, null)",
    )
    .fetch_one(&mut *transaction)
    .await
    .expect("claim");
    assert_eq!(claimed, 60);
    // Twice who waits, the claimed ones to lock and to change, and what is in flight; of 3,000.
    let read: i64 = sqlx::query_scalar(READ).fetch_one(&mut *transaction).await.expect("what was read");
    assert!((60..400).contains(&read), "{read} rows of 3,000 were read");
}
