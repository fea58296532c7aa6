//! The roles with few rights: what they may, and what they may not.

use imagemill::{
    crud::users,
    db::migrate::{MigrateError, check_schema, init_db},
    services::{actor::Actor, task_service},
};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::support::{OwnServer, World, empty_database};

const VIEWS: &str =
    "select relname::text from pg_class where relnamespace = 'imagemill'::regnamespace and relkind = 'v' order by 1";
const TABLES: &str = "select format('%I.%I', nspname, relname) from pg_class c join pg_namespace n on n.oid = relnamespace
                      where nspname in ('imagemill', 'apalis') and relkind = 'r' order by 1";

/// A session of the world's database with the rights of a role alone.
async fn session(world: &World, role: &str) -> PgConnection {
    let mut connection = PgConnection::connect(world.database.url.expose_secret()).await.expect("connect");
    connection.execute(AssertSqlSafe(format!("set role {role}"))).await.expect("take the role");
    connection
}

/// What PostgreSQL says to a statement: its code, or nothing.
async fn refusal(connection: &mut PgConnection, statement: &str) -> Option<String> {
    let error = connection.execute(AssertSqlSafe(statement.to_owned())).await.err()?;
    Some(error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned())
}

const REFUSED: Option<&str> = Some("42501");

#[tokio::test]
async fn a_reader_reads_every_view_and_nothing_else() {
    let world = World::new().await;
    world.create(12).await;
    world.drain().await;
    let mut reader = session(&world, "imagemill_reader").await;
    let views: Vec<String> = sqlx::query_scalar(VIEWS).fetch_all(world.pool()).await.expect("the views");
    assert!(views.len() >= 11, "{views:?}");
    for view in &views {
        assert_eq!(refusal(&mut reader, &format!("select * from imagemill.{view}")).await, None, "{view}");
    }
    let cells: i64 =
        sqlx::query_scalar("select count(*) from imagemill.subtask_details").fetch_one(&mut reader).await.expect("read");
    assert_eq!(cells, 12);
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(world.pool()).await.expect("the tables");
    assert!(tables.len() >= 14, "{tables:?}");
    for table in &tables {
        for statement in [format!("select 1 from {table}"), format!("delete from {table}")] {
            assert_eq!(refusal(&mut reader, &statement).await.as_deref(), REFUSED, "{statement}");
        }
    }
    for statement in [
        "select password_hash from imagemill.users",
        "update imagemill.task_overview set name = 'mine'",
        "insert into imagemill.lane_overview (lane) values ('mine')",
        "create table imagemill.mine ()",
    ] {
        let code = refusal(&mut reader, statement).await;
        assert!(code.is_some(), "{statement}");
    }
    // A stranger may not do by a function what the view's reader may.
    world.pool().execute("create role stranger; grant usage on schema imagemill to stranger").await.ok();
    let mut stranger = session(&world, "stranger").await;
    assert_eq!(refusal(&mut stranger, "select * from imagemill.find_stuck()").await.as_deref(), REFUSED);
}

#[tokio::test]
async fn a_command_under_a_readers_login_says_which_may() {
    let world = World::new().await;
    let mut reader = session(&world, "imagemill_reader").await;
    let refused = check_schema(&mut reader).await.expect_err("it may read the views alone");
    assert!(matches!(refused, MigrateError::NotAllowed), "{refused:?}");
    let told = refused.to_string();
    assert!(told.contains("DATABASE_URL") && told.contains("imagemill_reader") && !told.contains("at line"), "{told}");
}

#[tokio::test]
async fn a_producer_creates_tasks_and_does_nothing_else() {
    let world = World::new().await;
    let mut producer = session(&world, "imagemill_producer").await;
    check_schema(&mut producer).await.expect("it may look whether the schema fits");
    let user = users::get_by_username(&mut producer, "tester").await.expect("it may look who acts").expect("the user");
    let limits = &world.context.settings.limits;
    let input = imagemill::models::TaskInput::new("by a producer")
        .variable_prompt("style", ["woodcut", "ink"].map(imagemill::models::Prompt::freetext))
        .idempotency_key("once");
    let definition = input.validate(&limits.into()).expect("a sound input");
    let actor = Actor::from(user);
    for is_new in [true, false] {
        let mut transaction = producer.begin().await.expect("a transaction");
        let created = task_service::create_task_in(&mut transaction, limits, &actor, &definition).await.expect("create");
        transaction.commit().await.expect("commit");
        assert_eq!(created.is_new, is_new);
    }
    assert_eq!(world.number("select count(*) from apalis.jobs").await, 2);
    for statement in [
        "select password_hash from imagemill.users",
        "select prompts from imagemill.tasks",
        "select 1 from imagemill.subtasks",
        "select 1 from imagemill.attempts",
        "select job from apalis.jobs",
        "select * from imagemill.task_overview",
        "update imagemill.tasks set priority = 8",
        "update apalis.jobs set status = 'Done'",
        "delete from apalis.jobs",
        "delete from imagemill.subtasks",
        "insert into imagemill.users (id, username, roles) values (gen_random_uuid(), 'mine', '{admin}')",
        "insert into imagemill.attempts (subtask_id) values (gen_random_uuid())",
        "update imagemill.lanes set max_in_flight = 1000",
        "insert into imagemill.subtasks (status) values ('completed')",
    ] {
        assert_eq!(refusal(&mut producer, statement).await.as_deref(), REFUSED, "{statement}");
    }
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 2");
}

#[tokio::test]
async fn two_databases_may_make_the_roles_at_once_and_a_user_without_the_right_goes_on() {
    let (_server, database) = OwnServer::start().await;
    let admin = |name: &str| {
        let mut url = url::Url::parse(database.url.expose_secret()).expect("the server's URL");
        url.set_path(name);
        url
    };
    let mut connection = database.pool.acquire().await.expect("connect");
    let prepare = "create role modest login password 'modest';drop owned by imagemill_reader, imagemill_producer;\
                   drop role imagemill_reader, imagemill_producer";
    for statement in prepare.split(';').chain(["create database one", "create database two", "create database own owner modest"])
    {
        connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    // Nobody has made the roles yet, and this user may not.
    let mut url = admin("own");
    url.set_username("modest").expect("a name");
    url.set_password(Some("modest")).expect("a password");
    let mut modest = PgConnection::connect(url.as_str()).await.expect("connect as the owner of the database");
    init_db(&mut modest).await.expect("all but the roles");
    check_schema(&mut modest).await.expect("the schema fits");
    let roles = "select count(*) from pg_roles where rolname in ('imagemill_reader', 'imagemill_producer')";
    let count: i64 = sqlx::query_scalar(roles).fetch_one(&mut modest).await.expect("count");
    assert_eq!(count, 0);

    let made = ["one", "two"].map(|name| {
        let url = admin(name);
        async move {
            let mut connection = PgConnection::connect(url.as_str()).await.expect("connect");
            init_db(&mut connection).await
        }
    });
    for done in futures::future::join_all(made).await {
        done.expect("init-db beside another database's");
    }
    let count: i64 = sqlx::query_scalar(roles).fetch_one(&mut modest).await.expect("count");
    assert_eq!(count, 2);
    // They are there now: the next init-db gives them their rights, and needs none of its own for it.
    init_db(&mut modest).await.expect("init-db again");
    let may: bool = sqlx::query_scalar("select has_table_privilege('imagemill_reader', 'imagemill.stuck', 'select')")
        .fetch_one(&mut modest)
        .await
        .expect("look");
    assert!(may);
}

#[tokio::test]
async fn a_view_of_other_columns_is_made_anew_and_somebodys_own_on_it_is_told() {
    let database = empty_database().await;
    let mut connection = database.pool.acquire().await.expect("a connection");
    init_db(&mut connection).await.expect("the schema");
    let older = "drop view imagemill.failures; create view imagemill.failures as select 1 as other;
                 create view public.mine as select * from imagemill.failures;
                 comment on function imagemill.as_uuid is 'of an older program'";
    connection.execute(sqlx::raw_sql(older)).await.expect("an older program's view");
    let error = init_db(&mut connection).await.expect_err("somebody's view is in the way");
    assert!(matches!(&error, MigrateError::View { view, .. } if view == "failures"), "{error}");
    connection.execute("drop view public.mine").await.expect("drop it");
    init_db(&mut connection).await.expect("init-db");
    let columns: i64 = sqlx::query_scalar(
        "select count(*) from information_schema.columns where table_schema = 'imagemill' and table_name = 'failures'",
    )
    .fetch_one(&mut *connection)
    .await
    .expect("count");
    assert_eq!(columns, 8);
}
