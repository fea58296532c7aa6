//! What people do with pictures: rate them, say something of them, keep tasks at hand, delete, restore, use again, take away.

use imagemill::{
    crud::users,
    models::{CellRating, MatrixQuery, Permission, Prompt, Role, TaskDefinition, TaskInput},
    services::{
        actor::Actor,
        error::ServiceError,
        favourites, grid_service, ratings, remarks, reuse, subtask_service, task_deletion,
        task_service::{self, Purge},
    },
};
use serde_json::{Value, json};
use sqlx::Executor as _;
use uuid::Uuid;

use crate::{
    commands::{ends_with, json as printed},
    support::World,
};

async fn user(world: &World, name: &str, role: Role) -> Actor {
    let mut connection = world.pool().acquire().await.expect("a connection");
    assert!(users::insert(&mut connection, Uuid::now_v7(), name, None, &[role.to_string()]).await.expect("insert"));
    Actor::from(users::get_by_username(&mut connection, name).await.expect("read").expect("the user"))
}

fn rating(cell: i32, rating: Option<i16>) -> CellRating {
    CellRating { cell, rating }
}

/// The ratings of the cells, in the order of the grid.
async fn rated(world: &World) -> Vec<Option<i16>> {
    sqlx::query_scalar("select rating from imagemill.subtasks order by cell").fetch_all(world.pool()).await.expect("the ratings")
}

/// A drained task whose cell 1 failed.
async fn ended(world: &World) -> Uuid {
    let task = world.create(4).await.id;
    world.drain().await;
    let fail =
        "update imagemill.subtasks set status = 'failed', error_kind = 'refused', error = 'no', result = null where cell = 1";
    world.pool().execute(fail).await.expect("fail a cell");
    task
}

fn is_not_allowed(result: &Result<impl std::fmt::Debug, ServiceError>, missing: Permission) -> bool {
    matches!(result, Err(ServiceError::NotAllowed { permission, .. }) if *permission == missing)
}

#[tokio::test]
async fn ratings_are_all_taken_or_every_fault_is_told_and_none_is() {
    let world = World::new().await;
    let task = ended(&world).await;
    let context = &world.context;
    let done = ratings::rate_task(context, &world.actor, task, &[rating(3, Some(5)), rating(0, Some(2))]).await;
    assert_eq!(done.expect("rate"), 2);
    assert_eq!(rated(&world).await, [Some(2), None, None, Some(5)]);

    let wrong =
        [rating(0, Some(1)), rating(1, Some(3)), rating(2, Some(6)), rating(0, None), rating(9, Some(4)), rating(-1, None)];
    let error = ratings::rate_task(context, &world.actor, task, &wrong).await.expect_err("faults");
    let ServiceError::Input(faults) = error else { panic!("{error}") };
    let paths: Vec<&str> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["ratings[1].cell", "ratings[2].rating", "ratings[3].cell", "ratings[4].cell", "ratings[5].cell"]);
    assert_eq!(rated(&world).await, [Some(2), None, None, Some(5)], "something was changed");

    ratings::rate_task(context, &world.actor, task, &[rating(3, None)]).await.expect("take it away");
    assert_eq!(rated(&world).await, [Some(2), None, None, None]);
    let painter = user(&world, "painter", Role::User).await;
    let refused = ratings::rate_task(context, &painter, task, &[rating(0, Some(1))]).await;
    assert!(is_not_allowed(&refused, Permission::ManageAny), "{refused:?}");
    let nowhere = ratings::rate_task(context, &world.actor, Uuid::now_v7(), &[]).await;
    assert!(matches!(nowhere, Err(ServiceError::NotFound { .. })), "{nowhere:?}");
    let average: f64 = sqlx::query_scalar("select average_rating::float8 from imagemill.axis_overview where value = 'first 0'")
        .fetch_one(world.pool())
        .await
        .expect("the average");
    assert!((average - 2.0).abs() < 1e-9);
}

#[tokio::test]
async fn the_command_rates_one_cell_or_a_file_and_tells_what_is_wrong_with_it() {
    let world = World::new().await;
    let task = ended(&world).await.to_string();
    let base = ["--as", "tester", "task", "rate", &task];
    let with = |rest: &[&'static str]| -> Vec<String> { base.iter().chain(rest).map(ToString::to_string).collect() };
    let run = async |rest: &[&'static str], code: i32| {
        let arguments = with(rest);
        ends_with(&world, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), code).await
    };
    assert_eq!(run(&["--cell", "0", "--rating", "4"], 0).await.0, "rated: cells 1\n");
    let (stdout, _) = run(&["--cell", "2", "--rating", "1", "--json"], 0).await;
    assert_eq!(serde_json::from_str::<Value>(&stdout).expect("JSON"), json!({ "task_id": task, "rated": 1 }));
    run(&["--cell", "2", "--rating", "none"], 0).await;
    let (_, told) = run(&["--cell", "11", "--rating", "4"], 2).await;
    assert_eq!(told, "imagemill: cell 11 is not there: the task has the cells 0 to 3\n");
    for wrong in [&["--cell", "0", "--rating", "6"][..], &["--cell", "0"], &[], &["--from", "no-such-file.json"]] {
        run(wrong, 2).await;
    }
    let write = |value: Value| std::fs::write(world.directory.path().join("ratings.json"), value.to_string()).expect("write");
    write(json!({ "task_id": task, "ratings": [{ "cell": 3, "rating": 5 }, { "cell": 0, "rating": null }] }));
    run(&["--from", "ratings.json"], 0).await;
    assert_eq!(rated(&world).await, [None, None, None, Some(5)]);
    for (wrong, told) in [
        (json!({ "task_id": Uuid::now_v7(), "ratings": [] }), "rates task"),
        (
            json!({ "task_id": task, "ratings": [{ "cell": 3 }] }),
            "has 1 fault, and nothing was rated: ratings[0].rating: is missing",
        ),
        (json!({ "task_id": task, "ratings": [{ "cell": 3, "rating": 0 }, { "cell": 1, "rating": 1 }] }), "ratings[1].cell"),
        (json!([]), "must be an object"),
        (
            json!({ "task_id": task, "ratings": [{ "cell": "0", "rating": 9 }, { "cell": 1, "rating": 1 }, { "cell": 99, "rating": null }, 7], "by": "me" }),
            "has 6 faults, and nothing was rated: by: is not a known key; ratings[0].cell: must be the number of a cell, from 0, not \"0\"; \
             ratings[0].rating: must be 1 to 5, or null, not 9; ratings[1].cell: 1 is failed and has no picture; \
             ratings[2].cell: 99 is not there: the task has the cells 0 to 3; ratings[3]: must be an object, not 7",
        ),
    ] {
        write(wrong);
        let (_, stderr) = run(&["--from", "ratings.json"], 2).await;
        assert!(stderr.contains(told), "{stderr}");
    }
    assert_eq!(rated(&world).await, [None, None, None, Some(5)]);
}

#[tokio::test]
async fn remarks_have_an_author_and_go_by_their_id() {
    let world = World::new().await;
    let task = world.create(2).await.id;
    let (guest, painter) = (user(&world, "looker", Role::Guest).await, user(&world, "painter", Role::User).await);
    let context = &world.context;
    let first = remarks::add_remark(context, &guest, task, 1, "  the hands  ").await.expect("say it");
    let second = remarks::add_remark(context, &painter, task, 1, "the light").await.expect("say it");
    let long = "x".repeat(2_001);
    for wrong in ["", " \n", "a\0b", &long] {
        let refused = remarks::add_remark(context, &guest, task, 0, wrong).await;
        assert!(matches!(refused, Err(ServiceError::Input(_))), "{refused:?}");
    }
    let nowhere = remarks::add_remark(context, &guest, task, 2, "where?").await.expect_err("no such cell");
    assert_eq!(nowhere.to_string(), format!("task {task} has no cell 2: its cells are 0 to 1"));
    let listed = remarks::list_remarks(context, &guest, task, None).await.expect("list");
    let said: Vec<(i32, &str, &str)> =
        listed.iter().map(|remark| (remark.cell, remark.author.as_str(), remark.text.as_str())).collect();
    assert_eq!(said, [(1, "looker", "the hands"), (1, "painter", "the light")]);
    let refused = remarks::remove_remark(context, &painter, task, first).await;
    assert!(is_not_allowed(&refused, Permission::ManageAny), "{refused:?}");
    remarks::remove_remark(context, &guest, task, first).await.expect("one's own");
    assert!(matches!(remarks::remove_remark(context, &guest, task, first).await, Err(ServiceError::NotFound { .. })));
    remarks::remove_remark(context, &world.actor, task, second).await.expect("anybody's");

    let task = task.to_string();
    let added = printed(&world, &["--as", "looker", "task", "remark", &task, "--cell", "0", "again", "--json"]).await;
    let id = added["id"].as_str().expect("an id");
    let listed = printed(&world, &["--as", "looker", "task", "remark", &task, "--json"]).await;
    assert_eq!((listed[0]["id"].as_str(), listed[0]["text"].as_str()), (Some(id), Some("again")));
    // Without a text those of the cell are shown.
    for (cell, count) in [("0", 1), ("1", 0)] {
        let listed = printed(&world, &["--as", "looker", "task", "remark", &task, "--cell", cell, "--json"]).await;
        assert_eq!(listed.as_array().map(Vec::len), Some(count), "{cell}");
    }
    for (command, text) in [("remark", None), ("remark", Some("where?")), ("why", None)] {
        let mut arguments = vec!["--as", "looker", "task", command, &task, "--cell", "99"];
        arguments.extend(text);
        let (_, told) = ends_with(&world, &arguments, 2).await;
        assert_eq!(told, format!("imagemill: task {task} has no cell 99: its cells are 0 to 1\n"));
    }
    ends_with(&world, &["--as", "looker", "task", "remark", &task, "--remove", id], 0).await;
    assert_eq!(world.number("select count(*) from imagemill.remarks").await, 0);
    ends_with(&world, &["--as", "looker", "task", "remark", &task, "without a cell"], 2).await;
}

#[tokio::test]
async fn favourites_are_each_users_own() {
    let world = World::new().await;
    let (one, other) = (world.create(1).await.id, world.create(1).await.id);
    let guest = user(&world, "looker", Role::Guest).await;
    let context = &world.context;
    for (task, changed) in [(one, true), (other, true), (one, false)] {
        assert_eq!(favourites::set_favourite(context, &guest, task, true).await.expect("keep"), changed);
    }
    let listed = favourites::list_favourites(context, &guest).await.expect("list");
    assert_eq!(listed.iter().map(|task| task.id).collect::<Vec<_>>(), [other, one]);
    assert!(favourites::list_favourites(context, &world.actor).await.expect("list").is_empty());
    let (one, other) = (one.to_string(), other.to_string());
    ends_with(&world, &["--as", "looker", "task", "favourite", &other, "--remove"], 0).await;
    let listed = printed(&world, &["--as", "looker", "task", "favourite", "--json"]).await;
    assert_eq!(
        listed.as_array().map(|tasks| tasks.iter().map(|task| task["id"].clone()).collect::<Vec<_>>()),
        Some(vec![json!(one)])
    );
    ends_with(&world, &["--as", "looker", "task", "favourite", &Uuid::now_v7().to_string()], 1).await;
}

#[tokio::test]
async fn a_deleted_task_is_out_of_sight_and_comes_back_unless_a_purge_has_begun() {
    let world = World::new().await;
    let (context, actor) = (&world.context, &world.actor);
    let open = world.create(3).await.id;
    let refused = task_deletion::delete_task(context, actor, open).await.expect_err("it is open");
    assert!(matches!(&refused, ServiceError::Usage(why) if why.contains("pending")), "{refused}");
    world.drain().await;
    let painter = user(&world, "painter", Role::User).await;
    assert!(is_not_allowed(&task_deletion::delete_task(context, &painter, open).await, Permission::ManageAny));
    let spent = world.number("select sum(accepted)::bigint from imagemill.spend").await;
    let id = open.to_string();
    ends_with(&world, &["--as", "tester", "task", "delete", &id], 0).await;
    let told = format!("imagemill: task {id} is deleted; `imagemill task restore {id}` brings it back\n");
    let ways: [&[&str]; 19] = [
        &["task", "show"],
        &["task", "delete"],
        &["task", "reuse"],
        &["task", "watch"],
        &["task", "wait"],
        &["task", "grid"],
        &["task", "cancel"],
        &["task", "cancel", "--cell", "0"],
        &["task", "retry"],
        &["task", "force-complete"],
        &["task", "limit", "--max-submits", "5"],
        &["task", "export", "--csv"],
        &["task", "why", "--cell", "0"],
        &["task", "rate", "--cell", "0", "--rating", "5"],
        &["task", "remark"],
        &["task", "remark", "--cell", "0"],
        &["task", "favourite"],
        &["task", "favourite", "--remove"],
        &["attempt", "list", "--unknown", "--task"],
    ];
    for way in ways {
        let arguments: Vec<&str> = ["--as", "tester"].iter().chain(way).copied().chain([id.as_str()]).collect();
        assert_eq!(ends_with(&world, &arguments, 1).await.1, told, "{way:?}");
    }
    let refused = grid_service::task_matrix(context, actor, open, &MatrixQuery::default()).await;
    assert!(matches!(&refused, Err(ServiceError::Deleted(deleted)) if *deleted == open), "{refused:?}");
    let cell: Uuid =
        sqlx::query_scalar("select id from imagemill.subtasks where cell = 0").fetch_one(world.pool()).await.expect("a cell");
    let refused = subtask_service::set_rating(context, actor, cell, Some(5)).await;
    assert!(matches!(&refused, Err(ServiceError::Deleted(deleted)) if *deleted == open), "{refused:?}");
    let refused = grid_service::get_axes(context, actor, open).await;
    assert!(matches!(&refused, Err(ServiceError::Deleted(_))), "{refused:?}");
    let refused = sqlx::query("select * from imagemill.task_matrix($1)")
        .bind(open)
        .fetch_all(world.pool())
        .await
        .expect_err("it is deleted");
    let refused = refused.as_database_error().expect("the database's own words").message();
    assert_eq!(format!("imagemill: {refused}\n"), told);
    let deleted = printed(&world, &["--as", "tester", "task", "list", "--deleted", "--json"]).await;
    assert_eq!(
        deleted.as_array().map(|tasks| tasks.iter().map(|task| task["id"].clone()).collect::<Vec<_>>()),
        Some(vec![json!(id)])
    );
    assert!(task_service::list_tasks(context, actor, true, 10).await.expect("list").is_empty());
    assert_eq!(world.number("select count(*) from imagemill.task_overview").await, 0);
    assert_eq!(world.number("select sum(accepted)::bigint from imagemill.spend").await, spent);
    let restored = printed(&world, &["--as", "tester", "task", "restore", &id, "--json"]).await;
    assert_eq!(restored, json!({ "task_id": id, "is_deleted": false }));
    task_service::get_task(context, actor, open).await.expect("it is back");
    assert!(matches!(task_deletion::restore_task(context, actor, open).await, Err(ServiceError::Usage(_))));
    let audited: Vec<String> = sqlx::query_scalar("select what from imagemill.audit where what like '%_task' order by id")
        .fetch_all(world.pool())
        .await
        .expect("the audit");
    assert_eq!(audited, ["delete_task", "restore_task"]);

    task_deletion::delete_task(context, actor, open).await.expect("delete");
    let begun = "delete from imagemill.attempts where subtask_id = (select id from imagemill.subtasks where cell = 0);
                 delete from imagemill.subtasks where cell = 0";
    world.pool().execute(sqlx::raw_sql(begun)).await.expect("a purge begins");
    let refused = task_deletion::restore_task(context, actor, open).await.expect_err("half of it is gone");
    assert!(matches!(&refused, ServiceError::Usage(why) if why.contains("purge")), "{refused}");
}

#[tokio::test]
async fn a_reused_task_makes_the_same_grid_again() {
    let world = World::new().await;
    let input = TaskInput::new("first")
        .prompt(Prompt::character("0123", "Mia").weight(0.5))
        .variable_prompt("light", [Prompt::freetext(""), Prompt::freetext("moon")])
        .ratio(["1:1", "3:4"])
        .seed([7, 8])
        .batch_size(2)
        .priority(3)
        .lane("ops")
        .idempotency_key("once");
    let limits = (&world.context.settings.limits).into();
    let definition = input.validate(&limits).expect("a sound input");
    let first = task_service::create_task(&world.context, &world.actor, &definition).await.expect("create");
    let again = reuse::reuse_task(&world.context, &world.actor, first.id).await.expect("reuse");
    assert_eq!(again.get("idempotency_key"), None);
    let file = world.directory.path().join("again.json").display().to_string();
    let printed = printed(&world, &["--as", "tester", "task", "reuse", &first.id.to_string()]).await;
    assert_eq!(printed, again);
    std::fs::write(&file, printed.to_string()).expect("write");
    TaskDefinition::from_json(&again, &limits).expect("it is an input");
    let (second, _) = ends_with(&world, &["--as", "tester", "task", "create", &file], 0).await;
    let grid = async |task: Uuid| -> Vec<Value> {
        sqlx::query_scalar(
            "select to_jsonb(s) - '{id,task_id,created_at,updated_at}'::text[] || jsonb_build_object('prompts', t.prompts, 'priority', t.priority)
             from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id where t.id = $1 order by cell",
        )
        .bind(task)
        .fetch_all(world.pool())
        .await
        .expect("the grid")
    };
    let (one, other) = (grid(first.id).await, grid(second.trim().parse().expect("an id")).await);
    assert_eq!(one.len(), 16);
    assert_eq!(one, other);
}

#[tokio::test]
async fn what_ended_tasks_cost_is_summed_up_once_and_again_when_an_answer_comes_late() {
    let world = World::new().await;
    let (context, actor) = (&world.context, &world.actor);
    let task = world.create(6).await.id;
    let spent = async || -> Vec<(i64, i64)> {
        sqlx::query_as(
            "select coalesce(sum(accepted), 0)::bigint, coalesce(sum(\"unknown\"), 0)::bigint from imagemill.spend
             union all
             select coalesce(sum(paid_submits), 0)::bigint, coalesce(sum(unknown_submits), 0)::bigint from imagemill.task_overview",
        )
        .fetch_all(world.pool())
        .await
        .expect("what was spent")
    };
    assert_eq!(task_service::sum_up_spend(context, 0).await.expect("nothing has ended"), 0);
    world.drain().await;
    let late = "delete from imagemill.task_spend;
                update imagemill.attempts set state = 'unknown', upstream_id = null
                where subtask_id in (select id from imagemill.subtasks where cell < 2)";
    world.pool().execute(sqlx::raw_sql(late)).await.expect("two are unknown");
    assert_eq!(spent().await, [(4, 2), (4, 2)]);
    assert_eq!(task_service::sum_up_spend(context, 0).await.expect("sum up"), 1);
    assert_eq!(task_service::sum_up_spend(context, 0).await.expect("sum up again"), 0);
    assert_eq!(world.number("select accepted * 10 + \"unknown\" from imagemill.task_spend").await, 42);
    assert_eq!(spent().await, [(4, 2), (4, 2)]);
    let late = "update imagemill.attempts set state = 'abandoned', upstream_id = 'late'
                where subtask_id in (select id from imagemill.subtasks where cell = 0)";
    world.pool().execute(late).await.expect("an id comes late");
    assert_eq!(world.number("select count(*) from imagemill.task_spend").await, 0, "an old sum stands");
    assert_eq!(spent().await, [(5, 1), (5, 1)]);
    task_service::sum_up_spend(context, 0).await.expect("sum up");
    assert_eq!(spent().await, [(5, 1), (5, 1)]);
    // Of a new round the sum says nothing.
    let retried = "update imagemill.tasks set round = 2, status = 'processing', completed_at = null;
                   update imagemill.subtasks set status = 'processing', completed_at = null, result = null where cell = 5;
                   insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until, upstream_id, accepted_at)
                   select id, 2, 2, 2, lane, 'test', 'accepted', now(), 'second', now() from imagemill.subtasks where cell = 5";
    world.pool().execute(sqlx::raw_sql(retried)).await.expect("a retry");
    assert_eq!(spent().await, [(6, 1), (6, 1)]);
    let ended = "update imagemill.attempts set state = 'succeeded', finished_at = now() where state = 'accepted';
                 update imagemill.subtasks set status = 'completed', completed_at = now(), result = 'http://x' where cell = 5;
                 update imagemill.attempts set finished_at = now() - interval '1 day' where may_be_alive;
                 update imagemill.tasks set status = 'completed', completed_at = now()";
    world.pool().execute(sqlx::raw_sql(ended)).await.expect("it ends again");
    assert_eq!(task_service::sum_up_spend(context, 0).await.expect("sum up"), 1);
    assert_eq!(spent().await, [(6, 1), (6, 1)]);
    let what = Purge { older_than: std::time::Duration::ZERO, everybody: false, dry_run: false };
    assert_eq!(task_service::purge_tasks(context, actor, what).await.expect("purge").tasks, 1, "{task}");
    assert_eq!(spent().await[0], (6, 1));
}

#[tokio::test]
async fn what_a_task_costs_is_summed_up_while_it_runs() {
    let world = World::new().await;
    let context = &world.context;
    world.create(150).await;
    let spent = async || -> (i64, i64) {
        let both: Vec<(i64, i64)> = sqlx::query_as(
            "select coalesce(sum(accepted), 0)::bigint, coalesce(sum(\"unknown\"), 0)::bigint from imagemill.spend
             union all
             select coalesce(sum(paid_submits), 0)::bigint, coalesce(sum(unknown_submits), 0)::bigint from imagemill.task_overview",
        )
        .fetch_all(world.pool())
        .await
        .expect("what was spent");
        assert_eq!(both[0], both[1], "the views disagree");
        both[0]
    };
    let execute = async |statement: &'static str| {
        world.pool().execute(sqlx::raw_sql(statement)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    };
    // 120 cells have ended, 2 of them unknown and 1 with an attempt that is still open; 10 are at work, 20 wait.
    execute(
        "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until, upstream_id, accepted_at, finished_at)
         select id, 1, 1, 1, lane, 'test', case when cell >= 120 or cell = 60 then 'accepted' when cell in (5, 50) then 'unknown' else 'succeeded' end,
                now(), case when cell not in (5, 50) then 'up-' || cell end, now(), case when cell < 120 and cell <> 60 then now() end
         from imagemill.subtasks where cell < 130;
         update imagemill.subtasks set started_at = now(), status = 'processing' where cell < 130;
         update imagemill.subtasks set status = 'cancelled', completed_at = now() where cell < 120;
         update imagemill.task_counts set cancelled_subtasks = 120;
         update imagemill.tasks set status = 'processing', started_at = now()",
    )
    .await;
    assert_eq!(spent().await, (128, 2));
    assert_eq!(task_service::sum_up_spend(context, 0).await.expect("sum up"), 1);
    assert_eq!(task_service::sum_up_spend(context, 0).await.expect("sum up again"), 0);
    let summed_up = "select accepted from imagemill.task_spend where open_cells = '{[5,6), [50,51), [60,61), [120,150)}'";
    assert_eq!(world.number(summed_up).await, 117);
    assert_eq!(spent().await, (128, 2));
    // What was left open may change, and new attempts come: both are counted beside the sum.
    execute("update imagemill.attempts set state = 'not_sent' from imagemill.subtasks s where s.id = subtask_id and cell = 5")
        .await;
    execute(
        "update imagemill.attempts set state = 'failed', finished_at = now() where finished_at is null;
         insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until, upstream_id, accepted_at)
         select id, 2, 1, 2, lane, 'test', 'accepted', now(), 'again', now() from imagemill.subtasks where cell between 125 and 127",
    )
    .await;
    assert_eq!(spent().await, (131, 1));
    task_service::sum_up_spend(context, 0).await.expect("sum up");
    assert_eq!(spent().await, (131, 1));
    execute(
        "update imagemill.attempts set state = 'succeeded', finished_at = now() where finished_at is null;
         update imagemill.subtasks set status = 'cancelled', completed_at = now() where completed_at is null;
         update imagemill.tasks set status = 'cancelled', completed_at = now()",
    )
    .await;
    assert_eq!(spent().await, (131, 1));
    assert_eq!(task_service::sum_up_spend(context, 0).await.expect("it has ended"), 1);
    assert_eq!(world.number("select accepted * 10 + \"unknown\" from imagemill.task_spend where open_cells = '{}'").await, 1311);
    assert_eq!(spent().await, (131, 1));
}
