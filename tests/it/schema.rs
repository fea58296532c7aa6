//! The schema: safe to bring up to date again, and from two processes at once.

use imagemill::db::migrate::{MigrateError, check_schema, init_db};

use crate::support::{World, empty_database};

#[tokio::test]
async fn it_can_be_brought_up_to_date_again_and_by_many_at_once() {
    let database = empty_database().await;
    let mut connection = database.pool.acquire().await.expect("a connection");
    assert!(matches!(check_schema(&mut connection).await, Err(MigrateError::SchemaTooOld)));
    drop(connection);
    let at_once = (0..4).map(|_| async {
        let mut connection = database.pool.acquire().await.expect("a connection");
        init_db(&mut connection).await
    });
    for done in futures::future::join_all(at_once).await {
        done.expect("init-db");
    }
    let mut connection = database.pool.acquire().await.expect("a connection");
    init_db(&mut connection).await.expect("init-db again");
    check_schema(&mut connection).await.expect("the schema fits");
}

#[tokio::test]
async fn a_second_time_it_waits_for_no_lock_of_a_live_fleet() {
    let world = World::new().await;
    world.create(1).await;
    // A worker's transaction that is open for long.
    let mut open = world.pool().begin().await.expect("a transaction");
    sqlx::query("update apalis.jobs set status = 'Running'").execute(&mut *open).await.expect("write");
    sqlx::query("update imagemill.subtasks set status = 'processing'").execute(&mut *open).await.expect("write");
    let mut connection = world.pool().acquire().await.expect("a connection");
    sqlx::query("set lock_timeout = '2s'").execute(&mut *connection).await.expect("a limit");
    init_db(&mut connection).await.expect("init-db beside an open transaction");
    open.rollback().await.expect("roll back");
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_one_line() {
    let database = crate::support::database().await;
    let mut connection = database.pool.acquire().await.expect("a connection");
    sqlx::query("insert into imagemill._sqlx_migrations (version, description, success, checksum, execution_time) values (99990101000000, 'later', true, '', 0)")
        .execute(&mut *connection)
        .await
        .expect("a later migration");
    for refused in [check_schema(&mut connection).await, init_db(&mut connection).await] {
        let error = refused.expect_err("a newer schema");
        assert!(matches!(error, MigrateError::SchemaTooNew { found: 99_990_101_000_000 }), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[tokio::test]
async fn everything_is_commented_and_every_constraint_has_a_name_of_ours() {
    let world = World::new().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'imagemill' and c.relkind in ('r', 'v') and c.relname <> '_sqlx_migrations'
           and obj_description(c.oid) is null",
    )
    .fetch_all(world.pool())
    .await
    .expect("look");
    assert!(tables.is_empty(), "without a comment: {tables:?}");
    let constraints: Vec<String> = sqlx::query_scalar(
        "select conrelid::regclass || '.' || conname from pg_constraint c join pg_namespace n on n.oid = c.connamespace
         where n.nspname = 'imagemill' and conname ~ '(_check\\d*|_check)$'",
    )
    .fetch_all(world.pool())
    .await
    .expect("look");
    assert!(constraints.is_empty(), "named by PostgreSQL: {constraints:?}");
}

#[tokio::test]
async fn the_database_refuses_a_second_open_attempt_of_a_cell() {
    let world = World::new().await;
    world.create(1).await;
    let insert = "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until)
                  select id, $1, 1, 1, lane, 'test', 'submitting', now() from imagemill.subtasks";
    sqlx::query(insert).bind(1).execute(world.pool()).await.expect("the first");
    let second = sqlx::query(insert).bind(2).execute(world.pool()).await.expect_err("a second");
    let constraint = second.as_database_error().and_then(|error| error.constraint()).map(str::to_owned);
    assert_eq!(constraint.as_deref(), Some("attempts_one_open_per_cell"));
}

#[tokio::test]
async fn a_broken_payload_does_not_break_the_view() {
    let world = World::new().await;
    world.create(2).await;
    sqlx::query("update apalis.jobs set job = '\\xff00' where id = (select min(id) from apalis.jobs)")
        .execute(world.pool())
        .await
        .expect("break a payload");
    let payloads: Vec<String> = sqlx::query_scalar("select payload from imagemill.jobs order by id")
        .fetch_all(world.pool())
        .await
        .expect("read the view");
    assert_eq!(payloads[0], "ff00");
    assert!(payloads[1].contains("subtask_id"));
}

/// The storage parameters of a table, as `name=value`.
async fn parameters(world: &World, table: &str) -> Vec<String> {
    let parameters: Option<Vec<String>> = sqlx::query_scalar("select reloptions from pg_class where oid = $1::text::regclass")
        .bind(table)
        .fetch_one(world.pool())
        .await
        .expect("the table");
    parameters.unwrap_or_default()
}

#[tokio::test]
async fn tables_that_change_often_are_vacuumed_in_time_and_have_room() {
    let world = World::new().await;
    for table in ["imagemill.subtasks", "imagemill.attempts", "apalis.jobs"] {
        let parameters = parameters(&world, table).await;
        for name in [
            "autovacuum_vacuum_scale_factor",
            "autovacuum_vacuum_threshold",
            "autovacuum_analyze_scale_factor",
            "autovacuum_analyze_threshold",
        ] {
            assert!(parameters.iter().any(|option| option.starts_with(&format!("{name}="))), "{table} {name}: {parameters:?}");
        }
    }
    // All cells of a page are begun at once: each finds room beside it.
    world.create(2_000).await;
    let begin = "update imagemill.subtasks set status = 'processing', attempt_count = 1, request_sha256 = repeat('0', 64),
                                               started_at = now(), updated_at = now()";
    let mut transaction = world.pool().begin().await.expect("a transaction");
    sqlx::query(begin).execute(&mut *transaction).await.expect("begin them all");
    let updates: (i64, i64) = sqlx::query_as(
        "select pg_stat_get_xact_tuples_updated(oid), pg_stat_get_xact_tuples_hot_updated(oid)
         from pg_class where oid = 'imagemill.subtasks'::regclass",
    )
    .fetch_one(&mut *transaction)
    .await
    .expect("the statistics");
    assert_eq!(updates, (2_000, 2_000));
    transaction.rollback().await.expect("roll back");
}

#[tokio::test]
async fn what_an_operator_has_set_stays_and_nothing_is_locked_for_it_again() {
    let world = World::new().await;
    let own = "alter table apalis.jobs set (autovacuum_vacuum_scale_factor = 0.5, fillfactor = 90);
               alter table apalis.jobs reset (autovacuum_analyze_threshold)";
    sqlx::raw_sql(own).execute(world.pool()).await.expect("an operator's own");
    let mut connection = world.pool().acquire().await.expect("a connection");
    init_db(&mut connection).await.expect("init-db");
    let set = parameters(&world, "apalis.jobs").await;
    for option in ["autovacuum_vacuum_scale_factor=0.5", "fillfactor=90", "autovacuum_analyze_threshold=5000"] {
        assert!(set.iter().any(|found| found == option), "{option}: {set:?}");
    }
    // What a vacuum of the table holds while it runs.
    let mut vacuum = world.pool().begin().await.expect("a transaction");
    sqlx::query("lock table apalis.jobs in share update exclusive mode").execute(&mut *vacuum).await.expect("lock it");
    sqlx::query("set lock_timeout = '2s'").execute(&mut *connection).await.expect("a limit");
    init_db(&mut connection).await.expect("init-db beside a vacuum");
    vacuum.rollback().await.expect("roll back");
}
