//! The example of a producer's own program, run as it stands.

use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::support;

// Its `main` reads the environment, which tests leave alone.
#[allow(dead_code)]
#[path = "../../examples/producer.rs"]
mod example;

#[tokio::test]
async fn the_example_stores_its_row_and_its_task_and_does_so_once() {
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    let roles = ["user".to_owned()];
    assert!(imagemill::crud::users::insert(&mut connection, Uuid::now_v7(), "user", None, &roles).await.unwrap());
    let limits = imagemill::config::Settings::defaults().unwrap().limits;
    let url = database.url.expose_secret();
    let first = example::open_catalogue(url, &limits).await.unwrap();
    let second = example::open_catalogue(url, &limits).await.unwrap();
    assert_eq!((first.is_new, second.is_new, first.id), (true, false, second.id));
    let stored: (i64, i64, i64, Uuid) = sqlx::query_as(
        "select (select count(*) from imagemill.subtasks where task_id = c.task_id),
                (select count(*) from apalis.jobs where job_type = 'imagemill.generate_image' and status = 'Pending'),
                (select count(*) from catalogues), c.task_id
         from catalogues c",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    assert_eq!(stored, (12, 12, 1, first.id));
}
