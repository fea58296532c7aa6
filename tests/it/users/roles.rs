//! Each role against each service function that a permission guards.

use imagemill::{
    models::{Permission, Prompt, Role, TaskDefinition, TaskInput, TaskLimits, status::Status},
    services::{
        actor::Actor,
        context::Context,
        error::ServiceError,
        subtask_service::{list_subtasks, set_rating},
        task_service::{create_task, get_task, list_tasks, update_task_status},
        user_service::{create_user, get_all_users},
    },
};
use uuid::Uuid;

use super::{actor, context_of, init};
use crate::support::database;

/// From the first of these roles on it is allowed; everybody below gets "not allowed".
const TABLE: [(&str, Role); 12] = [
    ("create_task at priority 1", Role::User),
    ("create_task above 1", Role::ProUser),
    ("get_task", Role::Guest),
    ("list_tasks", Role::Guest),
    ("list_tasks of everybody", Role::Guest),
    ("list_subtasks", Role::Guest),
    ("set_rating on one's own", Role::User),
    ("set_rating on another's", Role::ProUser),
    ("update_task_status on one's own", Role::User),
    ("update_task_status on another's", Role::ProUser),
    ("get_all_users", Role::Manager),
    ("create_user", Role::Admin),
];

fn definition(priority: i32) -> TaskDefinition {
    TaskInput::new("a task").prompt(Prompt::freetext("a lantern")).priority(priority).validate(&TaskLimits::default()).unwrap()
}

/// A task of this user, whatever it may do, with one completed cell of two; the task and the cell.
async fn task_of(context: &Context, owner: &Actor) -> (Uuid, Uuid) {
    let admin = actor(context, "admin").await;
    let definition =
        TaskInput::new("a task").prompt(Prompt::freetext("a lantern")).batch_size(2).validate(&TaskLimits::default()).unwrap();
    let task = create_task(context, &admin, &definition).await.unwrap().id;
    sqlx::query("update imagemill.tasks set user_id = $2 where id = $1")
        .bind(task)
        .bind(owner.id)
        .execute(&context.pool)
        .await
        .unwrap();
    let cell = sqlx::query_scalar(
        "update imagemill.subtasks set status = 'completed', result = 'https://pictures/1', completed_at = now()
         where task_id = $1 and cell = 0 returning id",
    )
    .bind(task)
    .fetch_one(&context.pool)
    .await
    .unwrap();
    (task, cell)
}

/// What one of the table's functions says; `other` owns what is not one's own.
async fn call(context: &Context, actor: &Actor, other: &Actor, function: &str) -> Result<(), ServiceError> {
    let owner = if function.ends_with("another's") { other } else { actor };
    let (task, cell) = task_of(context, owner).await;
    let some_name = format!("new {}", Uuid::now_v7());
    match function {
        "create_task at priority 1" => create_task(context, actor, &definition(1)).await.map(drop),
        "create_task above 1" => create_task(context, actor, &definition(2)).await.map(drop),
        "get_task" => get_task(context, actor, task).await.map(|found| assert_eq!(found.id, task)),
        "list_tasks" => list_tasks(context, actor, false, 1).await.map(|found| assert_eq!(found[0].id, task)),
        "list_tasks of everybody" => list_tasks(context, actor, true, 1).await.map(|found| assert_eq!(found.len(), 1)),
        "list_subtasks" => list_subtasks(context, actor, task).await.map(|found| assert_eq!(found.len(), 2)),
        "set_rating on one's own" | "set_rating on another's" => set_rating(context, actor, cell, Some(5)).await,
        "update_task_status on one's own" | "update_task_status on another's" => {
            update_task_status(context, actor, task, Status::Processing).await
        }
        "get_all_users" => get_all_users(context, actor).await.map(|found| assert!(found.len() >= 6)),
        "create_user" => create_user(context, actor, &some_name, None, &[Role::Admin]).await.map(drop),
        _ => panic!("{function} is not in the match"),
    }
}

#[tokio::test]
async fn each_role_may_do_what_the_table_says_and_is_refused_the_rest() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    let admin = actor(&context, "admin").await;
    let guest = actor(&context, "guest").await;
    for (function, least) in TABLE {
        for role in Role::ALL {
            let acting = actor(&context, role.as_str()).await;
            let other = if role == Role::Guest { &admin } else { &guest };
            match call(&context, &acting, other, function).await {
                Ok(()) => assert!(role >= least, "{role} was allowed {function}"),
                Err(ServiceError::NotAllowed { username, .. }) => {
                    assert_eq!(username, role.as_str());
                    assert!(role < least, "{role} was refused {function}");
                }
                Err(error) => panic!("{function} by {role}: {error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_leaves_everything_as_it_was() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    let admin = actor(&context, "admin").await;
    let guest = actor(&context, "guest").await;
    let (task, cell) = task_of(&context, &admin).await;
    let whole = "select concat((select jsonb_agg(t) from imagemill.tasks t), (select jsonb_agg(s) from imagemill.subtasks s),
                        (select jsonb_agg(u) from imagemill.users u), (select jsonb_agg(a) from imagemill.audit a),
                        (select count(*) from apalis.jobs))";
    let state = async || sqlx::query_scalar::<_, String>(whole).fetch_one(&context.pool).await.unwrap();
    let before = state().await;
    let refusals = [
        create_task(&context, &guest, &definition(1)).await.map(drop),
        set_rating(&context, &guest, cell, Some(1)).await,
        update_task_status(&context, &guest, task, Status::Processing).await,
        create_user(&context, &guest, "mallory", None, &[Role::Guest]).await.map(drop),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(ServiceError::NotAllowed { .. })), "{refusal:?}");
    }
    assert_eq!(state().await, before);
}

#[tokio::test]
async fn an_inactive_user_is_refused_everything_whatever_its_role() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    let guest = actor(&context, "guest").await;
    sqlx::query("update imagemill.users set is_active = false where username = 'manager'").execute(&database.pool).await.unwrap();
    let admin = actor(&context, "admin").await;
    let users = get_all_users(&context, &admin).await.unwrap();
    let manager = users.into_iter().find(|user| user.username == "manager").unwrap();
    let inactive = Actor::from(manager);
    for (function, _) in TABLE {
        let refused = call(&context, &inactive, &guest, function).await;
        assert!(matches!(refused, Err(ServiceError::NotAllowed { .. })), "{function}: {refused:?}");
    }
}

#[tokio::test]
async fn not_found_is_another_error_than_not_allowed() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    let admin = actor(&context, "admin").await;
    let nowhere = Uuid::now_v7();
    let missing = [
        get_task(&context, &admin, nowhere).await.map(drop),
        list_subtasks(&context, &admin, nowhere).await.map(drop),
        set_rating(&context, &admin, nowhere, Some(5)).await,
        update_task_status(&context, &admin, nowhere, Status::Processing).await,
    ];
    for outcome in missing {
        assert!(matches!(&outcome, Err(ServiceError::NotFound { id, .. }) if *id == nowhere.to_string()), "{outcome:?}");
    }
}

#[tokio::test]
async fn to_give_more_than_one_has_needs_assign_permissions() {
    let database = database().await;
    let context = context_of(&database.pool);
    init(&context).await;
    // No role has the one permission without the other, but permissions may be shared out otherwise one day.
    let mut clerk = actor(&context, "user").await;
    clerk.permissions.insert(Permission::CreateUser);
    create_user(&context, &clerk, "equal", None, &[Role::Guest, Role::User]).await.unwrap();
    let refused = create_user(&context, &clerk, "higher", None, &[Role::Guest, Role::ProUser]).await;
    let permission = Permission::AssignPermissions;
    assert!(
        matches!(&refused, Err(ServiceError::NotAllowed { permission: missing, .. }) if *missing == permission),
        "{refused:?}"
    );
}
