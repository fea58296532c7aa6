//! Numbers of a lane that no claim could reckon with.

use std::path::Path;

use imagemill::db::{
    migrate::{init_db, init_db_with},
    patience::Patience,
};
use sqlx::migrate::Migrator;

use crate::support::{World, empty_database};

/// The migration that refuses them.
const BOUNDS: &str = "20261127000003";

/// Each of these stopped the claims of every lane, or would.
const ODD: [&str; 17] = [
    "submits_per_second = 1e-300",
    "submits_per_second = 1e-14",
    "submits_per_second = 'NaN'",
    "submits_per_second = 'Infinity'",
    "current_rate = 'NaN'",
    "current_rate = 1e-14",
    "polls_per_second = 'NaN'",
    "rate_floor = 1e-300",
    "rate_step = 'Infinity'",
    "rate_interval = '100000 years'",
    "max_job_time = '-1 second'",
    "max_job_time = '200000 years'",
    "max_in_flight = 2147483647",
    "burst = 2147483647",
    "ramp_start = 1, ramp_step = 2147483647, ramp_interval = '1 second'",
    "ramp_start = 1, ramp_step = 1, ramp_interval = '-1 second'",
    "ramp_idle_reset = '200000 years'",
];

#[tokio::test]
async fn what_no_claim_can_reckon_with_is_refused_by_the_table() {
    let world = World::new().await;
    for odd in ODD {
        let statement = sqlx::AssertSqlSafe(format!("update imagemill.lanes set {odd} where lane = 'dev'"));
        let error = sqlx::query(statement).execute(world.pool()).await.expect_err(odd);
        let constraint = error.as_database_error().and_then(|error| error.constraint()).unwrap_or_default().to_owned();
        assert!(constraint.starts_with("lanes_") && constraint.ends_with("_bounded"), "{odd}: {error}");
    }
    world.create(2).await;
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 2");
}

/// All migrations but that one: the views, which are made anew each time, lean on later ones.
async fn others() -> Migrator {
    let directory = tempfile::tempdir().expect("a directory");
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).expect("the migrations") {
        let file = file.expect("a migration");
        if !file.file_name().to_string_lossy().starts_with(BOUNDS) {
            std::fs::copy(file.path(), directory.path().join(file.file_name())).expect("copy a migration");
        }
    }
    let mut migrator = Migrator::new(directory.path()).await.expect("read the migrations");
    migrator.set_locking(false);
    migrator.dangerous_set_table_name("imagemill._sqlx_migrations");
    migrator
}

#[tokio::test]
async fn what_stands_already_is_brought_to_the_bounds() {
    let database = empty_database().await;
    let mut connection = database.pool.acquire().await.expect("a connection");
    sqlx::query("create schema imagemill").execute(&mut *connection).await.expect("the schema");
    init_db_with(&mut connection, Patience::default(), &others().await).await.expect("the schema without it");
    for odd in ODD {
        let statement = sqlx::AssertSqlSafe(format!("update imagemill.lanes set {odd} where lane = 'dev'"));
        sqlx::query(statement).execute(&mut *connection).await.expect(odd);
    }
    init_db(&mut connection).await.expect("init-db over odd numbers");
    let brought: (f64, Option<f64>, f64, f64, i32, i32, i32) = sqlx::query_as(
        "select submits_per_second, current_rate, polls_per_second, rate_floor, max_in_flight, burst, ramp_step
         from imagemill.lanes where lane = 'dev'",
    )
    .fetch_one(&mut *connection)
    .await
    .expect("the lane");
    assert_eq!(brought, (1e6, None, 1e6, 1e-4, 1_000_000, 1_000_000, 1));
}
