//! Purging tasks that ended long ago: all of them goes, what was paid for is still known, and it may be cut short.

use std::time::Duration;

use imagemill::{
    crud::users,
    models::{Permission, Role},
    services::{
        actor::Actor,
        error::ServiceError,
        task_service::{self, Purge, Purged},
    },
};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    commands::{ends_with, json},
    support::{World, eventually},
};

const DAY: Duration = Duration::from_hours(24);

/// A task of this user that ended so many days ago, every state of an attempt in its ledger, over three days and two lanes.
async fn ended(world: &World, actor: &Actor, cells: usize, days_ago: i32) -> Uuid {
    let task = task_service::create_task(&world.context, actor, &world.definition(cells)).await.expect("create the task");
    let statements = [
        "update imagemill.subtasks set status = 'completed', result = 'http://x/1.png', started_at = now() - $2,
                completed_at = now() - $2 where task_id = $1",
        "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, submitted_at, answer_until, finished_at)
         select id, ordinal, 1, 1, (array['prod', 'ops'])[1 + cell % 2], 'test',
                (array['not_sent', 'turned_away', 'rejected', 'succeeded', 'failed', 'refused', 'timed_out', 'abandoned', 'unknown'])
                    [1 + (cell + ordinal) % 9],
                now() - $2 - make_interval(days => cell % 3), now() - $2, now() - $2
         from imagemill.subtasks, generate_series(1, 2) as given (ordinal) where task_id = $1",
        "insert into imagemill.remarks (id, subtask_id, user_id, text)
         select gen_random_uuid(), s.id, t.user_id, 'fine' from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
         where s.task_id = $1 and $2 is not null",
        "insert into imagemill.favourites (user_id, task_id) select user_id, id from imagemill.tasks where id = $1 and $2 is not null",
        "update imagemill.task_counts set completed_subtasks = (select count(*) from imagemill.subtasks where task_id = $1)
         where task_id = $1 and $2 is not null",
        "update imagemill.tasks set status = 'completed', completed_at = now() - $2 where id = $1",
        "update apalis.jobs set status = 'Done', done_at = now() - $2 where metadata -> 'group' = $1::text",
        "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, idempotency_key, metadata)
         values (gen_random_uuid()::text, 'imagemill.complete_task', '{}', 'Done', 1, 1, now(), now() - $2, $1::text || ':1',
                 hstore('group', $1::text))",
    ];
    for statement in statements {
        // As text, so that one statement takes both and no other type is guessed.
        let statement = statement.replace("$1", &format!("'{}'::uuid", task.id));
        let statement = statement.replace("$2", &format!("interval '{days_ago} days'"));
        sqlx::query(AssertSqlSafe(statement.clone()))
            .execute(world.pool())
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    task.id
}

async fn user(world: &World, name: &str, role: Role) -> Actor {
    let mut connection = world.pool().acquire().await.expect("a connection");
    assert!(users::insert(&mut connection, Uuid::now_v7(), name, None, &[role.to_string()]).await.expect("insert"));
    Actor::from(users::get_by_username(&mut connection, name).await.expect("read").expect("the user"))
}

/// What was paid for, or perhaps, by day, owner, task and lane: from the ledger and from the sums together.
async fn spent(world: &World) -> Vec<String> {
    sqlx::query_scalar(
        "select concat_ws(' ', day, user_id, task_id, lane, sum(accepted), sum(unknown))
         from (select day, user_id, task_id, lane, accepted, \"unknown\" from imagemill.spend_sums
               union all
               select (a.submitted_at at time zone 'UTC')::date, t.user_id, t.id, a.lane,
                      case when state in ('accepted', 'succeeded', 'failed', 'refused', 'timed_out', 'abandoned') then 1 else 0 end,
                      case when state = 'unknown' then 1 else 0 end
               from imagemill.attempts a join imagemill.subtasks s on s.id = a.subtask_id join imagemill.tasks t on t.id = s.task_id) as spent
         group by day, user_id, task_id, lane having sum(accepted) + sum(unknown) > 0 order by 1",
    )
    .fetch_all(world.pool())
    .await
    .expect("what was spent")
}

/// Rows of every table that a task has rows in.
async fn rows(world: &World) -> Vec<i64> {
    let tables =
        ["tasks", "task_counts", "subtasks", "attempts", "remarks", "favourites"].map(|table| format!("imagemill.{table}"));
    let mut rows = Vec::new();
    for table in tables.iter().map(String::as_str).chain(["apalis.jobs"]) {
        let statement = AssertSqlSafe(format!("select count(*) from {table}"));
        rows.push(sqlx::query_scalar(statement).fetch_one(world.pool()).await.expect("count"));
    }
    rows
}

async fn purge(world: &World, actor: &Actor, everybody: bool) -> Purged {
    let what = Purge { older_than: 30 * DAY, everybody, dry_run: false };
    task_service::purge_tasks(&world.context, actor, what).await.expect("purge")
}

#[tokio::test]
async fn what_ended_long_ago_goes_with_all_that_hangs_on_it_and_what_was_paid_for_is_still_known() {
    let world = World::new().await;
    let other = user(&world, "painter", Role::User).await;
    let old = [ended(&world, &world.actor, 20, 31).await, ended(&world, &world.actor, 7, 400).await];
    let young = ended(&world, &world.actor, 5, 29).await;
    let others = ended(&world, &other, 3, 90).await;
    // Open for ever, and never purged.
    let open = world.create(4).await.id;
    sqlx::query("update imagemill.tasks set created_at = now() - interval '1 year' where id = $1")
        .bind(open)
        .execute(world.pool())
        .await
        .expect("age it");
    let before = spent(&world).await;
    assert!(before.len() > 10, "{before:?}");

    let purged = purge(&world, &world.actor, false).await;
    assert_eq!(purged, Purged { dry_run: false, tasks: 2, cells: 27, attempts: 54, jobs: 29, left: Vec::new() });
    assert_eq!(spent(&world).await, before);
    // Tasks, counts, cells, attempts, remarks, favourites, jobs of the three others.
    assert_eq!(rows(&world).await, [3, 3, 12, 16, 8, 2, 4 + 6 + 4]);
    let mut left: Vec<Uuid> =
        sqlx::query_scalar("select id from imagemill.tasks").fetch_all(world.pool()).await.expect("the tasks");
    let mut expected = vec![young, others, open];
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    let audited: Vec<(String, String, i64)> = sqlx::query_as(
        "select who, subject, (old_value ->> 'total_images')::bigint from imagemill.audit where what = 'purge_tasks' order by id",
    )
    .fetch_all(world.pool())
    .await
    .expect("the audit");
    let expected = [(old[0], 20), (old[1], 7)].map(|(id, cells)| ("tester".to_owned(), format!("task/{id}"), cells));
    assert_eq!(audited, expected);

    let purged = purge(&world, &world.actor, true).await;
    assert_eq!((purged.tasks, purged.cells), (1, 3));
    assert_eq!(spent(&world).await, before);
    assert_eq!(purge(&world, &world.actor, true).await, Purged::default());
}

#[tokio::test]
async fn a_purge_that_is_killed_in_the_middle_loses_no_sum_and_the_next_one_goes_on() {
    let world = World::new().await;
    let task = ended(&world, &world.actor, 1_200, 31).await;
    let before = spent(&world).await;
    let all = rows(&world).await;
    // It comes as far as this cell, whose ledger it has deleted and whose sums it has not written, and waits.
    let mut second = world.pool().begin().await.expect("a second session");
    sqlx::query(
        "select 1 from imagemill.remarks where subtask_id = (select id from imagemill.subtasks where cell = 700) for update",
    )
    .execute(&mut *second)
    .await
    .expect("lock a remark");
    let log = world.directory.path().join("purge.log");
    let arguments = ["--as", "tester", "task", "purge", "--older-than", "30d"];
    let mut process = crate::support::Process::start(world.command(&arguments), log);
    world
        .until(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                                                           and query like '%subtasks%')",
        )
        .await;
    process.kill();
    // Its session ends when it sees that nobody is there any more.
    second.rollback().await.expect("let go");
    eventually("its session is gone", async || {
        world
            .number("select count(*) from pg_stat_activity where datname = current_database() and application_name = 'imagemill'")
            .await
            == 0
    })
    .await;
    let middle = rows(&world).await;
    assert!(0 < middle[2] && middle[2] < all[2], "not in the middle: {middle:?}");
    assert_eq!(middle[3], 2 * middle[2], "the ledger of the cells that are left");
    assert_eq!(spent(&world).await, before, "in the middle");
    // Nobody sees half a task.
    let listed = task_service::list_tasks(&world.context, &world.actor, true, 10).await.expect("the tasks");
    assert!(listed.is_empty(), "{listed:?}");

    let purged = purge(&world, &world.actor, false).await;
    assert_eq!((purged.tasks, purged.cells), (1, middle[2].unsigned_abs()));
    assert_eq!(spent(&world).await, before, "at the end");
    assert_eq!(rows(&world).await, [0; 7]);
    assert_eq!(world.number("select count(distinct subject) from imagemill.audit where what = 'purge_tasks'").await, 1, "{task}");
}

#[tokio::test]
async fn two_purges_at_once_count_everything_once() {
    let world = World::new().await;
    for days in [31, 40, 50] {
        ended(&world, &world.actor, 600, days).await;
    }
    let before = spent(&world).await;
    let (one, other) = tokio::join!(purge(&world, &world.actor, false), purge(&world, &world.actor, false));
    assert_eq!(one.tasks + other.tasks, 3);
    assert_eq!((one.cells + other.cells, one.attempts + other.attempts), (1_800, 3_600));
    assert_eq!(spent(&world).await, before);
    assert_eq!(rows(&world).await, [0; 7]);
}

#[tokio::test]
async fn what_the_upstream_may_still_work_on_and_what_is_open_is_left() {
    let world = World::new().await;
    let task = ended(&world, &world.actor, 9, 31).await;
    let ended = rows(&world).await;
    let change = async |statement: &'static str| {
        assert_eq!(sqlx::query(statement).execute(world.pool()).await.expect(statement).rows_affected(), 1, "{statement}");
    };
    let is_left = async || {
        let dry = Purge { older_than: DAY, everybody: false, dry_run: true };
        let planned = task_service::purge_tasks(&world.context, &world.actor, dry).await.expect("plan");
        assert_eq!((planned.tasks, planned.cells, planned.left.len()), (0, 0, 1), "{planned:?}");
        let purged = purge(&world, &world.actor, false).await;
        assert_eq!((purged.tasks, purged.cells, purged.left.len()), (0, 0, 1), "{purged:?}");
        assert_eq!(purged.left[0].id, task);
        assert_eq!(rows(&world).await, ended);
        assert!(task_service::get_task(&world.context, &world.actor, task).await.is_ok(), "it is hidden");
    };
    // Given up a minute ago: it takes a place of its lane for five.
    change(
        "update imagemill.attempts set finished_at = now() - interval '1 minute'
            where (subtask_id, ordinal) = (select subtask_id, ordinal from imagemill.attempts where state = 'unknown' limit 1)",
    )
    .await;
    is_left().await;
    change("update imagemill.attempts set finished_at = now() - interval '1 hour' where finished_at > now() - interval '1 day'")
        .await;
    change("update apalis.jobs set status = 'Pending' where id = (select min(id) from apalis.jobs)").await;
    is_left().await;
    change("update apalis.jobs set status = 'Done' where status = 'Pending'").await;
    change("update imagemill.subtasks set status = 'pending', completed_at = null where cell = 3").await;
    is_left().await;
    change("update imagemill.subtasks set status = 'completed', completed_at = now() where cell = 3").await;
    assert_eq!(purge(&world, &world.actor, false).await.tasks, 1);
    assert_eq!(rows(&world).await, [0; 7]);
}

#[tokio::test]
async fn who_may_not_purge_is_told_so_and_nothing_changes() {
    let world = World::new().await;
    let guest = user(&world, "looker", Role::Guest).await;
    let painter = user(&world, "painter", Role::User).await;
    ended(&world, &world.actor, 2, 31).await;
    let before = rows(&world).await;
    for (actor, everybody, missing) in
        [(&guest, false, Permission::ManageOwn), (&guest, true, Permission::ManageAny), (&painter, true, Permission::ManageAny)]
    {
        for dry_run in [true, false] {
            let what = Purge { older_than: DAY, everybody, dry_run };
            let refused = task_service::purge_tasks(&world.context, actor, what).await.expect_err("not allowed");
            assert!(matches!(&refused, ServiceError::NotAllowed { permission, .. } if *permission == missing), "{refused}");
        }
    }
    let (_, stderr) = ends_with(&world, &["--as", "painter", "task", "purge", "--older-than", "1d", "--all"], 1).await;
    assert!(stderr.contains("manage_any"), "{stderr}");
    assert_eq!(purge(&world, &painter, false).await, Purged::default(), "it is somebody else's");
    assert_eq!(rows(&world).await, before);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_both_print_json() {
    let world = World::new().await;
    ended(&world, &world.actor, 12, 31).await;
    ended(&world, &world.actor, 3, 2).await;
    let before = (rows(&world).await, spent(&world).await);
    let base = ["--as", "tester", "task", "purge", "--older-than"];
    let with = |rest: &[&'static str]| -> Vec<&str> { base.iter().chain(rest).copied().collect() };
    let (stdout, _) = ends_with(&world, &with(&["30d", "--dry-run"]), 0).await;
    assert_eq!(stdout, "would purge: tasks 1, cells 12\n");
    let planned = json(&world, &with(&["30d", "--dry-run", "--json"])).await;
    assert_eq!(planned, serde_json::json!({ "dry_run": true, "tasks": 1, "cells": 12, "attempts": 0, "jobs": 0, "left": [] }));
    assert_eq!((rows(&world).await, spent(&world).await), before);
    assert_eq!(world.number("select count(*) from imagemill.audit where what = 'purge_tasks'").await, 0);

    let purged: Value = json(&world, &with(&["30d", "--all", "--json"])).await;
    assert_eq!(purged["cells"], 12);
    let (stdout, _) = ends_with(&world, &with(&["24h"]), 0).await;
    assert_eq!(stdout, "purged: tasks 1, cells 3, attempts 6, finished jobs 4\n");
    assert_eq!(spent(&world).await, before.1);
    for wrong in ["soon", "-1d", "400d", ""] {
        let (_, stderr) = ends_with(&world, &["--as", "tester", "task", "purge", "--older-than", wrong], 2).await;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    ends_with(&world, &["--as", "tester", "task", "purge"], 2).await;
}

#[tokio::test]
async fn a_task_that_a_worker_drained_is_purged() {
    let world = World::new().await;
    world.create(25).await;
    world.drain().await;
    let before = spent(&world).await;
    let what = Purge { older_than: Duration::ZERO, everybody: false, dry_run: false };
    let purged = task_service::purge_tasks(&world.context, &world.actor, what).await.expect("purge");
    assert_eq!((purged.tasks, purged.cells, purged.attempts, purged.jobs), (1, 25, 25, 26));
    assert_eq!(spent(&world).await, before);
    assert_eq!(rows(&world).await, [0; 7]);
}
