//! The first users.

use std::collections::BTreeSet;

use imagemill::services::{
    error::ServiceError,
    user_service::{self, InitUser},
};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgPool, postgres::PgPoolOptions};

use super::{context_of, count};
use crate::support::{database, eventually};

const NAMES: [&str; 6] = ["system", "admin", "manager", "pro_user", "user", "guest"];

/// Every column of every user.
async fn rows(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("select users::text from imagemill.users order by username").fetch_all(pool).await.unwrap()
}

fn passwords(users: &[InitUser]) -> Vec<&SecretString> {
    users.iter().filter_map(|user| user.password.as_ref()).collect()
}

#[tokio::test]
async fn they_have_the_given_passwords_or_random_ones_and_system_has_none() {
    let database = database().await;
    let context = context_of(&database.pool);
    let given = |variable: &str| (variable == "IMAGEMILL_PASSWORD_PRO_USER").then(|| SecretString::from("correct horse"));
    let users = user_service::init_users(&context, given).await.unwrap();
    assert_eq!(users.iter().map(|user| user.username.as_str()).collect::<Vec<_>>(), NAMES);
    assert!(users.iter().all(|user| user.created));
    let random: BTreeSet<&str> = passwords(&users).iter().map(|password| password.expose_secret()).collect();
    assert_eq!(random.len(), 4, "random ones differ, and a given one is not printed");
    for user in &users {
        let verify =
            async |password: &SecretString| user_service::verify_password(&context, &user.username, password).await.unwrap();
        match (&user.password, user.username.as_str()) {
            (Some(password), _) => assert!(verify(password).await, "{}", user.username),
            (None, username) => assert_eq!(verify(&"correct horse".into()).await, username == "pro_user", "{username}"),
        }
    }
    let shown = format!("{users:?}");
    assert!(random.iter().all(|password| !shown.contains(password)), "{shown}");
    let roles: Vec<(String, Vec<String>, Option<String>)> =
        sqlx::query_as("select username, roles, left(password_hash, 10) from imagemill.users")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    for (username, roles, hash) in roles {
        let is_system = username == "system";
        assert_eq!(roles, if is_system { vec![] } else { vec![username.clone()] });
        assert_eq!(hash.as_deref(), (!is_system).then_some("$argon2id$"), "{username}");
    }
    let audited = "select count(*) from imagemill.audit where who = 'system' and what = 'create_user'";
    assert_eq!(count(&database.pool, audited).await, 6);
}

#[tokio::test]
async fn a_second_time_changes_nothing_but_what_is_missing() {
    let database = database().await;
    let context = context_of(&database.pool);
    user_service::init_users(&context, |_| None).await.unwrap();
    let before = rows(&database.pool).await;
    // What is not used is not looked at either.
    let again = user_service::init_users(&context, |_| Some("short".into())).await.unwrap();
    assert!(again.iter().all(|user| !user.created && user.password.is_none()), "{again:?}");
    assert_eq!(rows(&database.pool).await, before);
    assert_eq!(count(&database.pool, "select count(*) from imagemill.audit where what = 'create_user'").await, 6);

    sqlx::query("delete from imagemill.users where username = 'guest'").execute(&database.pool).await.unwrap();
    let third = user_service::init_users(&context, |_| None).await.unwrap();
    let created: Vec<&str> = third.iter().filter(|user| user.created).map(|user| user.username.as_str()).collect();
    assert_eq!(created, ["guest"]);
    assert_eq!(passwords(&third).len(), 1);
}

#[tokio::test]
async fn every_wrong_password_is_said_at_once_and_nobody_is_created() {
    let database = database().await;
    let context = context_of(&database.pool);
    let short = |variable: &str| variable.ends_with("USER").then(|| SecretString::from("hunter2"));
    let refused = user_service::init_users(&context, short).await;
    let Err(ServiceError::Input(faults)) = refused else { panic!("{refused:?}") };
    assert_eq!(
        faults.to_string(),
        "IMAGEMILL_PASSWORD_PRO_USER: must have 8 characters at least; IMAGEMILL_PASSWORD_USER: must have 8 characters at least"
    );
    assert_eq!(count(&database.pool, "select count(*) from imagemill.users").await, 0);
}

#[tokio::test]
async fn two_at_once_create_each_of_them_once() {
    let database = database().await;
    // Nobody can insert before both of them have found nobody there.
    let mut gate = database.pool.acquire().await.unwrap();
    let mut lock = gate.begin().await.unwrap();
    sqlx::query("lock table imagemill.users in share mode").execute(&mut *lock).await.unwrap();
    let mut running = Vec::new();
    for _ in 0..2 {
        let url = database.url.expose_secret().to_owned();
        running.push(tokio::spawn(async move {
            let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
            let users = user_service::init_users(&context_of(&pool), |_| None).await;
            pool.close().await;
            users
        }));
    }
    eventually("both wait for the lock", || async {
        let waiting = "select count(*) from pg_locks where not granted and relation = 'imagemill.users'::regclass";
        count(&database.pool, waiting).await == 2
    })
    .await;
    lock.rollback().await.unwrap();

    let mut created: Vec<InitUser> = Vec::new();
    for task in running {
        let users = task.await.unwrap().unwrap();
        assert!(users.iter().all(|user| user.created || user.password.is_none()), "a password that is nobody's: {users:?}");
        created.extend(users.into_iter().filter(|user| user.created));
    }
    let names: BTreeSet<&str> = created.iter().map(|user| user.username.as_str()).collect();
    assert_eq!((created.len(), names), (6, BTreeSet::from(NAMES)));
    let context = context_of(&database.pool);
    for user in created.iter().filter(|user| user.username != "system") {
        let password = user.password.as_ref().expect("a random password");
        assert!(user_service::verify_password(&context, &user.username, password).await.unwrap(), "{}", user.username);
    }
    assert_eq!(count(&database.pool, "select count(*) from imagemill.users").await, 6);
    assert_eq!(count(&database.pool, "select count(*) from imagemill.audit where what = 'create_user'").await, 6);
}
