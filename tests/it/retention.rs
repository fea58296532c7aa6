//! Finished jobs go after a while: those of our queues that ended long ago, and nothing else.

use std::time::Duration;

use imagemill::{
    models::payload::GenerateImage,
    queue::{self, Batch, Connections, PrunedBatch, Pruner, prune_batch},
};
use sqlx::PgPool;
use uuid::{NoContext, Timestamp, Uuid};

use crate::support::{BOUND, World, database};

const DAY: Duration = Duration::from_hours(24);

/// A job's id as its enqueuer made it, so many hours ago.
fn id(hours_ago: u64) -> String {
    let made = std::time::SystemTime::now() - Duration::from_hours(hours_ago);
    let made = made.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Uuid::new_v7(Timestamp::from_unix(NoContext, made.as_secs(), made.subsec_nanos())).to_string()
}

/// Jobs of one queue and state, made 30 hours ago, that ended so many hours ago. Returns their ids in order.
async fn insert(pool: &PgPool, count: usize, queue: &str, status: &str, ended_hours_ago: Option<i32>) -> Vec<String> {
    let mut ids: Vec<String> = (0..count).map(|_| id(30)).collect();
    ids.sort();
    insert_as(pool, &ids, queue, status, ended_hours_ago).await;
    ids
}

async fn insert_as(pool: &PgPool, ids: &[String], queue: &str, status: &str, ended_hours_ago: Option<i32>) {
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, idempotency_key, metadata)
         select id, $2, '{}', $3, 1, 1, now() - interval '30 hours', now() - make_interval(hours => $4), 'key of ' || id,
                hstore(array['lane', 'prod', 'group', 'a task', 'owner', 'somebody'])
         from unnest($1::text[]) as given (id)",
    )
    .bind(ids)
    .bind(queue)
    .bind(status)
    .bind(ended_hours_ago)
    .execute(pool)
    .await
    .expect("insert the jobs");
}

async fn left(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("select id from apalis.jobs order by id").fetch_all(pool).await.expect("read the jobs")
}

async fn batch(pool: &PgPool, after: &str, limit: i64) -> PrunedBatch {
    let mut connection = pool.acquire().await.expect("a connection");
    let batch = prune_batch(&mut connection, after, limit, DAY);
    tokio::time::timeout(BOUND, batch).await.expect("it waits for nobody").expect("a batch")
}

#[tokio::test]
async fn what_ended_long_ago_goes_and_nothing_else() {
    let database = database().await;
    let pool = &database.pool;
    let ours = GenerateImage::QUEUE;
    let mut stay = Vec::new();
    for status in ["Done", "Failed", "Killed"] {
        insert(pool, 3, ours, status, Some(25)).await;
        insert(pool, 3, "imagemill.complete_task", status, Some(25)).await;
        stay.extend(insert(pool, 2, ours, status, Some(23)).await);
        // Those of stock apalis queues, whatever their ids look like, and of a name that only begins like ours.
        stay.extend(insert(pool, 2, "emails", status, Some(25)).await);
        stay.extend(insert(pool, 2, "imagemilling", status, Some(25)).await);
        let foreign = [format!("01ARZ3NDEKTSV4RRFFQ69G5F{status}"), format!("0 {status}"), format!("job-{status}")];
        insert_as(pool, &foreign, "emails", status, Some(25)).await;
        stay.extend(foreign);
    }
    for status in ["Pending", "Running", "Queued"] {
        stay.extend(insert(pool, 2, ours, status, None).await);
        // Not even where its end stands in its row, as it does for a moment nowhere.
        stay.extend(insert(pool, 2, ours, status, Some(25)).await);
    }
    let round = Pruner::new(Connections::new(pool.clone(), false), DAY).round().await.expect("a round");
    stay.sort();
    let mut left = left(pool).await;
    left.sort();
    assert_eq!(left, stay);
    assert_eq!(round.deleted, 18);
}

#[tokio::test]
async fn a_worker_prunes_while_it_works() {
    let world = World::new().await;
    insert(world.pool(), 2_500, GenerateImage::QUEUE, "Done", Some(25)).await;
    world.create(3).await;
    let _worker = world.worker(&[]);
    world.until("select count(*) = 4 and bool_and(done_at > now() - interval '1 hour') from apalis.jobs").await;
    world.until("select status = 'completed' from imagemill.tasks").await;
    world.assert_settled().await;
}

#[tokio::test]
async fn one_batch_runs_at_a_time_and_what_it_holds_is_let_go_with_its_transaction() {
    let database = database().await;
    let ids = insert(&database.pool, 3, GenerateImage::QUEUE, "Done", Some(25)).await;
    let mut first = database.pool.begin().await.expect("a transaction");
    let held = prune_batch(&mut first, "", 1, DAY).await.expect("the first batch");
    assert_eq!((held.is_ours, held.looked, held.deleted), (true, 1, 1));
    let second = batch(&database.pool, "", 10).await;
    assert_eq!(second, PrunedBatch { is_ours: false, looked: 0, deleted: 0, last: None, workers: 0 });
    first.rollback().await.expect("roll back");
    assert_eq!(left(&database.pool).await, ids);
    assert_eq!(batch(&database.pool, "", 10).await.deleted, 3);
}

#[tokio::test]
async fn a_batch_is_bounded_by_what_it_looks_at() {
    let database = database().await;
    let pool = &database.pool;
    let kept = insert(pool, 6, GenerateImage::QUEUE, "Done", Some(23)).await;
    let old: Vec<String> = (0..6).map(|_| id(29)).collect();
    insert_as(pool, &old, GenerateImage::QUEUE, "Done", Some(25)).await;
    // Enqueued after the cut: it cannot have ended before it, and is not even looked at.
    insert_as(pool, &[id(23)], GenerateImage::QUEUE, "Done", Some(25)).await;
    let first = batch(pool, "", 4).await;
    assert_eq!((first.looked, first.deleted, first.last.as_deref()), (4, 0, Some(kept[3].as_str())));
    let second = batch(pool, &kept[3], 4).await;
    assert_eq!((second.looked, second.deleted), (4, 2));
    let third = batch(pool, &second.last.expect("an id"), 100).await;
    assert_eq!((third.looked, third.deleted), (4, 4));
    assert_eq!(left(pool).await.len(), 7);
}

#[tokio::test]
async fn two_workers_share_the_work() {
    let database = database().await;
    insert(&database.pool, 10_000, GenerateImage::QUEUE, "Done", Some(25)).await;
    let (mut one, mut other) = (
        Pruner::new(Connections::new(database.pool.clone(), false), DAY),
        Pruner::new(Connections::new(database.pool.clone(), false), DAY),
    );
    let (one, other) = tokio::join!(one.round(), other.round());
    let deleted = [one.expect("a round").deleted, other.expect("a round").deleted];
    assert_eq!(deleted.iter().sum::<u64>(), 10_000, "{deleted:?}");
    assert_eq!(left(&database.pool).await.len(), 0);
}

#[tokio::test]
async fn a_job_that_is_opened_again_is_not_lost() {
    let database = database().await;
    let pool = &database.pool;
    let ids = insert(pool, 3, GenerateImage::QUEUE, "Failed", Some(25)).await;
    let reopened = |key: String| Batch {
        queue: GenerateImage::QUEUE,
        group: "a task",
        owner: "somebody",
        is_alone: false,
        keys: vec![key],
        lanes: vec!["prod".to_owned()],
        payloads: vec![b"{}".to_vec()],
    };
    let mut retry = pool.begin().await.expect("a transaction");
    queue::reopen(&mut retry, &reopened(format!("key of {}", ids[1]))).await.expect("open it again");
    // The retry has not committed: its job is left alone, and waited for by nobody.
    let first = batch(pool, "", 10).await;
    assert_eq!((first.looked, first.deleted), (3, 2));
    retry.commit().await.expect("commit");
    assert_eq!(batch(pool, "", 10).await.deleted, 0);
    assert_eq!(left(pool).await, [ids[1].clone()]);
    // One that is gone is enqueued anew.
    let mut connection = pool.acquire().await.expect("a connection");
    queue::reopen(&mut connection, &reopened(format!("key of {}", ids[0]))).await.expect("open it again");
    drop(connection);
    let open: i64 = sqlx::query_scalar("select count(*) from apalis.jobs where status = 'Pending' and done_at is null")
        .fetch_one(pool)
        .await
        .expect("count");
    assert_eq!(open, 2);
}

#[tokio::test]
async fn a_round_begins_where_nothing_was_left_and_now_and_then_at_the_first_job() {
    let database = database().await;
    let pool = &database.pool;
    insert(pool, 5, GenerateImage::QUEUE, "Done", Some(25)).await;
    let mut pruner = Pruner::new(Connections::new(pool.clone(), false), DAY);
    assert_eq!(pruner.round().await.expect("a round").deleted, 5);
    // By a clock that ran behind, or a transaction that took hours.
    insert_as(pool, &[id(40)], GenerateImage::QUEUE, "Done", Some(25)).await;
    insert_as(pool, &[id(28)], GenerateImage::QUEUE, "Done", Some(25)).await;
    assert_eq!(pruner.round().await.expect("a round").deleted, 1);
    let mut rounds = 2;
    while pruner.round().await.expect("a round").deleted == 0 {
        rounds += 1;
        assert!(rounds < 1_000, "it is never looked at again");
    }
    assert_eq!(left(pool).await.len(), 0);
}
