//! The databases that the other tests get.

use secrecy::ExposeSecret;
use sqlx::{Connection, Executor, PgConnection};

use crate::support;

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, two) = (support::database().await, support::database().await);
    assert_ne!(one.name, two.name);
    one.pool.execute("create table mine (pairs hstore)").await.unwrap();
    let there: bool = sqlx::query_scalar("select to_regclass('mine') is not null").fetch_one(&two.pool).await.unwrap();
    assert!(!there);
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&one.pool).await.unwrap();
    assert_eq!(name, one.name);
    let url = one.url.expose_secret();
    let mut other = PgConnection::connect(url).await.unwrap();
    other.execute("insert into mine values ('a=>1')").await.unwrap();
    other.close().await.unwrap();
}
