//! People: who there is, who acts, whose password it is.

mod first;
mod roles;

use imagemill::{
    commands,
    config::Settings,
    models::Role,
    services::{actor::Actor, context::Context, error::ServiceError, user_service},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::database;

/// What a producer has, on this pool.
fn context_of(pool: &PgPool) -> Context {
    Context::new(pool.clone(), Settings::defaults().expect("the built-in settings"))
}

/// The first users are there, with random passwords.
async fn init(context: &Context) {
    user_service::init_users(context, |_| None).await.expect("the first users");
}

async fn actor(context: &Context, username: &str) -> Actor {
    user_service::resolve_actor(context, Some(username), None, false).await.expect("the acting user")
}

async fn count(pool: &PgPool, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap_or_else(|error| panic!("{statement}: {error}"))
}

fn password() -> SecretString {
    SecretString::from("correct horse")
}

#[tokio::test]
async fn a_user_is_created_with_its_row_of_the_audit() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    let admin = actor(&context, "admin").await;
    let roles = [Role::ProUser, Role::User, Role::ProUser];
    let ada = user_service::create_user(&context, &admin, "Ada", Some(password()), &roles).await.unwrap();
    assert_eq!(
        (ada.username.as_str(), ada.roles.as_slice(), ada.is_active),
        ("Ada", &["user".into(), "pro_user".into()][..], true)
    );
    let action: (String, String, Option<Value>, Option<Value>) =
        sqlx::query_as("select who, what, old_value, new_value from imagemill.audit where subject = 'user/Ada'")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert_eq!(action, ("admin".into(), "create_user".into(), None, Some(json!({ "roles": ["user", "pro_user"] }))));

    // No audit, no user.
    sqlx::query("alter table imagemill.audit add constraint audit_full check (false) not valid")
        .execute(&database.pool)
        .await
        .unwrap();
    let refused = user_service::create_user(&context, &admin, "Bob", Some(password()), &roles).await;
    assert!(matches!(refused, Err(ServiceError::Database(_))), "{refused:?}");
    assert_eq!(count(&database.pool, "select count(*) from imagemill.users where username = 'Bob'").await, 0);
}

#[tokio::test]
async fn a_name_is_taken_whatever_its_case() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    let admin = actor(&context, "ADMIN").await;
    user_service::create_user(&context, &admin, "Ada", Some(password()), &[Role::User]).await.unwrap();
    let users = user_service::get_all_users(&context, &admin).await.unwrap();
    for username in ["Ada", "ada", "ADA", "Admin"] {
        let taken = user_service::create_user(&context, &admin, username, None, &[Role::Guest]).await;
        assert!(matches!(&taken, Err(ServiceError::UsernameTaken { username: name }) if name == username), "{taken:?}");
    }
    assert_eq!(user_service::get_all_users(&context, &admin).await.unwrap(), users);
    assert_eq!(count(&database.pool, "select count(*) from imagemill.audit where subject ilike 'user/ada'").await, 1);
}

#[tokio::test]
async fn every_fault_of_a_new_user_is_said_at_once() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    let admin = actor(&context, "admin").await;
    let faults = async |username: &str, password: &str, roles: &[Role]| match user_service::create_user(
        &context,
        &admin,
        username,
        Some(password.into()),
        roles,
    )
    .await
    {
        Err(ServiceError::Input(faults)) => faults.to_string(),
        other => panic!("{username:?} was {other:?}"),
    };
    let said = faults(" ", "hunter2", &[]).await;
    let known = "guest, user, pro_user, manager, admin";
    assert_eq!(
        said,
        format!(
            "username: must not be blank; password: must have 8 characters at least; roles: must name at least one of {known}"
        )
    );
    for username in ["", " ada", "ada\n", "a\0b", "System", &"a".repeat(256)] {
        assert!(faults(username, "correct horse", &[Role::User]).await.starts_with("username: "), "{username:?}");
    }
    user_service::create_user(&context, &admin, &"ä".repeat(255), Some(password()), &[Role::User]).await.unwrap();
    assert_eq!(count(&database.pool, "select count(*) from imagemill.users").await, 7);
}

#[tokio::test]
async fn a_password_is_its_users_own_and_no_debug_shows_it() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    let admin = actor(&context, "admin").await;
    let ada = user_service::create_user(&context, &admin, "Ada", Some(password()), &[Role::User]).await.unwrap();
    user_service::create_user(&context, &admin, "Mute", None, &[Role::User]).await.unwrap();
    let verify =
        async |username: &str, password: &str| user_service::verify_password(&context, username, &password.into()).await.unwrap();
    assert!(verify("ada", "correct horse").await);
    assert!(!verify("Ada", "Correct horse").await);
    for username in ["Mute", "system", "nobody", "a\0b", ""] {
        assert!(!verify(username, "correct horse").await, "{username:?}");
        assert!(!verify(username, "").await, "{username:?}");
    }
    let hash: String = sqlx::query_scalar("select password_hash from imagemill.users where username = 'Ada'")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    let shown = format!("{ada:?} {:?} {:?}", actor(&context, "Ada").await, password());
    assert!(!shown.contains("correct horse") && !shown.contains("$argon2id$"), "{shown}");

    sqlx::query("update imagemill.users set is_active = false where username = 'Ada'").execute(&database.pool).await.unwrap();
    assert!(!verify("Ada", "correct horse").await);
    // What cannot be compared is an error, and no wrong password.
    sqlx::query("update imagemill.users set is_active = true, password_hash = 'md5' where username = 'Ada'")
        .execute(&database.pool)
        .await
        .unwrap();
    let unreadable = user_service::verify_password(&context, "Ada", &password()).await;
    assert!(matches!(unreadable, Err(ServiceError::Password(_))), "{unreadable:?}");
    // Nor is a database that is away.
    database.pool.close().await;
    let away = user_service::verify_password(&context, "Ada", &password()).await;
    assert!(matches!(away, Err(ServiceError::Database(_))), "{away:?}");
}

#[tokio::test]
async fn the_acting_user_is_the_argument_else_the_environment_else_the_private_admin() {
    let database = database().await;
    let context = context_of(&database.pool);
    let resolve = async |name, environment, is_private| {
        user_service::resolve_actor(&context, name, environment, is_private).await.map(|actor| actor.username)
    };
    let nobody = resolve(None, None, true).await;
    assert!(matches!(&nobody, Err(ServiceError::NotFound { what: "user", id }) if id == "admin"), "{nobody:?}");
    init(&context).await;
    assert_eq!(resolve(Some("Guest"), Some("manager"), true).await.unwrap(), "guest");
    assert_eq!(resolve(None, Some("manager"), true).await.unwrap(), "manager");
    assert_eq!(resolve(None, None, true).await.unwrap(), "admin");
    let unnamed = resolve(None, None, false).await.unwrap_err();
    assert!(matches!(unnamed, ServiceError::Usage(_)), "{unnamed:?}");
    assert!(unnamed.to_string().contains("--as") && unnamed.to_string().contains("IMAGEMILL_USER"), "{unnamed}");
    for name in ["nobody", "", "a\0b"] {
        // A name that is wrong is never passed over for the next one.
        let unknown = resolve(Some(name), Some("manager"), true).await;
        assert!(matches!(&unknown, Err(ServiceError::NotFound { what: "user", id }) if id == name), "{unknown:?}");
    }
    sqlx::query("update imagemill.users set is_active = false where username = 'user'").execute(&database.pool).await.unwrap();
    let inactive = resolve(Some("user"), None, false).await;
    assert!(matches!(&inactive, Err(ServiceError::Inactive { username }) if username == "user"), "{inactive:?}");
    let system = resolve(Some("SYSTEM"), None, false).await;
    assert!(matches!(&system, Err(ServiceError::Usage(message)) if message.contains("system")), "{system:?}");
}

#[tokio::test]
async fn the_commands_create_and_list() {
    let database = database().await;
    let context = context_of(&database.pool);
    let mut output = Vec::new();
    commands::init_users::init_users(&context, |_| None, true, &mut output).await.unwrap();
    let printed: Value = serde_json::from_slice(&output).unwrap();
    let random = printed[1]["password"].as_str().unwrap();
    assert_eq!(printed[1]["username"], "admin");
    assert!(user_service::verify_password(&context, "admin", &random.into()).await.unwrap());

    let admin = actor(&context, "admin").await;
    let roles = ["user".to_owned(), "manager".to_owned()];
    output.clear();
    commands::user::create(&context, &admin, "Ada", password(), &roles, true, &mut output).await.unwrap();
    let created: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!((&created["username"], &created["roles"]), (&json!("Ada"), &json!(roles)));
    assert!(!String::from_utf8_lossy(&output).contains("password"));
    let unknown = commands::user::create(&context, &admin, "Bob", password(), &["boss".to_owned()], true, &mut output).await;
    assert_eq!(unknown.unwrap_err().line(), "\"boss\" is no role; roles are guest, user, pro_user, manager, admin");

    output.clear();
    commands::user::list(&context, &admin, false, &mut output).await.unwrap();
    let text = String::from_utf8(output.clone()).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["USER", "Ada", "admin", "guest", "manager", "pro_user", "system", "user"]);
    output.clear();
    commands::user::list(&context, &admin, true, &mut output).await.unwrap();
    let listed: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 7);
    assert_eq!(listed[0], created);

    output.clear();
    let refused = commands::user::list(&context, &actor(&context, "user").await, true, &mut output).await.unwrap_err();
    assert!(refused.line().contains("manage_lanes"), "{}", refused.line());
    assert_eq!(output, b"", "nothing is printed for a refused one");
}
