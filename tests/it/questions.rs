//! The README's ten questions: each query is run on a database whose content is known, and its answer is the README's.

use imagemill::{
    crud::users,
    models::{Prompt, TaskInput},
    services::{actor::Actor, task_service},
};
use sqlx::{AssertSqlSafe, Column as _, Executor as _, Row as _, TypeInfo as _, ValueRef as _};
use uuid::Uuid;

use crate::support::World;

/// Columns of which only that there is something can be compared: they change with each run.
const CHANGING: [&str; 4] = ["UUID", "TIMESTAMPTZ", "INTERVAL", "DATE"];

/// What the README tells of: two owners, two tasks, two workers.
async fn known_content() -> World {
    let world = World::new().await;
    world.limit_lanes().await;
    let input = TaskInput::new("lantern market")
        .prompt(Prompt::freetext("a night market"))
        .variable_prompt("light", ["lanterns", "moon"].map(Prompt::freetext))
        .variable_prompt("weather", ["clear", "rain", "fog"].map(Prompt::freetext))
        .seed(7);
    create(&world, "ann", &input).await;
    let input = TaskInput::new("fox study")
        .variable_prompt("pose", ["asleep", "leaping", "hunting", "at bay"].map(Prompt::freetext))
        .ratio("3:4")
        .seed(11);
    create(&world, "ben", &input).await;
    world.pool().execute(sqlx::raw_sql(CONTENT)).await.expect("the known content");
    world
}

const CONTENT: &str = "
    insert into imagemill.incarnations (name, host, pid, version, started_at, ended_at, how, rescued_by, lease) values
        ('atelier-1', 'atelier', 4711, '0.1.0', now() - interval '2 hours', now() - interval '1 hour', 'rescued', 'atelier-2', '15 s'),
        ('atelier-2', 'atelier', 4712, '0.1.0', now() - interval '2 hours', null, null, null, '1 hour');
    insert into apalis.workers (id, worker_type, storage_name, layers, last_seen, started_at)
        values ('atelier-2', 'imagemill', 'imagemill', '', now(), now() - interval '2 hours');
    insert into imagemill.pauses (lane, reason, why, until)
        values ('prod', 'throttled', '429 Too Many Requests', '2999-01-01 00:00:00+00');
    create temporary table story as
    select s.id, given.* from (values
        ('lantern market', 0, 1, 'succeeded', 'up-1', null, null), ('lantern market', 1, 1, 'succeeded', 'up-2', null, null),
        ('lantern market', 2, 1, 'refused', 'up-3', 'refused', 'ILLEGAL_IMAGE'), ('lantern market', 3, 1, 'succeeded', 'up-4', null, null),
        ('lantern market', 4, 1, 'unknown', null, 'unknown_submit', 'connection reset'),
        ('lantern market', 5, 1, 'failed', 'up-5', null, 'out of memory'), ('lantern market', 5, 2, 'failed', 'up-6', 'upstream_failure', 'out of memory'),
        ('fox study', 0, 1, 'accepted', 'up-7', null, null), ('fox study', 1, 1, 'turned_away', null, null, 'HTTP 429: slow down')
    ) as given (task, cell, ordinal, state, upstream_id, kind, error)
    join imagemill.tasks t on t.name = given.task join imagemill.subtasks s on s.task_id = t.id and s.cell = given.cell;
    insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, upstream_id, http_status, error, polls,
                                    submitted_at, answer_until, accepted_at, finished_at)
    select id, ordinal, 1, ordinal, 'prod', case when task = 'fox study' then 'atelier-2' else 'atelier-1' end, state, upstream_id,
           case state when 'unknown' then null when 'turned_away' then 429 else 200 end, error, case when upstream_id is null then 0 else 9 end,
           at, at + interval '45 seconds', case when upstream_id is not null then at + interval '1 second' end,
           case when state <> 'accepted' then at + interval '1 minute' end
    from story, lateral (select now() - interval '4 minutes' + (ordinal - 1) * interval '90 seconds' as at) as began;
    update imagemill.subtasks s set status = 'completed', result = 'http://pictures/' || cell, started_at = now(), completed_at = now()
    where exists (select from story where story.id = s.id and state = 'succeeded');
    update imagemill.subtasks s set status = 'failed', error_kind = kind, error = story.error, started_at = now(), completed_at = now()
    from story where story.id = s.id and kind is not null;
    update imagemill.subtasks s set status = 'processing', started_at = now() from story where story.id = s.id and state = 'accepted';
    update imagemill.subtasks s set error = story.error from story where story.id = s.id and state = 'turned_away';
    update imagemill.subtasks set rating = case cell when 0 then 5 when 1 then 4 else 2 end where status = 'completed';
    update imagemill.task_counts c set completed_subtasks = 3, failed_subtasks = 3 from imagemill.tasks t where t.id = c.task_id and t.name = 'lantern market';
    update imagemill.tasks set status = 'completed', started_at = now(), completed_at = now() where name = 'lantern market';
    update imagemill.tasks set status = 'processing', started_at = now() where name = 'fox study';
    update apalis.jobs j set status = 'Done', done_at = now() from imagemill.tasks t
    where t.name = 'lantern market' and j.metadata -> 'group' = t.id::text;
    update apalis.jobs j set status = 'Running', lock_by = 'atelier-2', lock_at = now(), attempts = 1
    from story where story.state = 'accepted' and j.idempotency_key = story.id::text;
";

async fn create(world: &World, owner: &str, input: &TaskInput) {
    let mut connection = world.pool().acquire().await.expect("a connection");
    assert!(users::insert(&mut connection, Uuid::now_v7(), owner, None, &["user".to_owned()]).await.expect("insert"));
    let actor = Actor::from(users::get_by_username(&mut connection, owner).await.expect("read").expect("the user"));
    drop(connection);
    let definition = input.validate(&(&world.context.settings.limits).into()).expect("a sound input");
    task_service::create_task(&world.context, &actor, &definition).await.expect("create the task");
}

/// A question of the README: what is asked, how, and the answer's rows; the first is that of the names.
struct Question {
    asked: String,
    query: String,
    answer: Vec<Vec<String>>,
}

fn questions() -> Vec<Question> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let (_, section) = readme.split_once("\n### Ten questions\n").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let parts = section.split("\n```sql\n").skip(1);
    let parts = parts.map(|part| {
        let (query, rest) = part.split_once("\n```\n").expect("the query's end");
        let asked = query.lines().next().unwrap_or_default().trim_start_matches("-- ").to_owned();
        let answer = rest.split_once("```text\n").and_then(|(_, rest)| rest.split_once("\n```")).expect("an answer").0;
        let lines = answer.lines().filter(|line| !line.starts_with("--"));
        let answer = lines.map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect()).collect();
        Question { asked, query: query.to_owned(), answer }
    });
    parts.collect()
}

#[tokio::test]
async fn each_has_the_answer_that_the_readme_gives() {
    let world = known_content().await;
    let questions = questions();
    assert_eq!(questions.len(), 10);
    let mut wrong = Vec::new();
    for question in questions {
        let rows = sqlx::raw_sql(AssertSqlSafe(question.query.clone())).fetch_all(world.pool()).await;
        let rows = rows.unwrap_or_else(|error| panic!("{}: {error}", question.asked));
        assert!(!rows.is_empty(), "{}: no answer", question.asked);
        let mut found = vec![rows[0].columns().iter().map(|column| column.name().to_owned()).collect::<Vec<_>>()];
        for (number, row) in rows.iter().enumerate() {
            let cells = row.columns().iter().enumerate().map(|(place, column)| {
                let value = row.try_get_raw(place).expect("a value");
                let told = question.answer.get(number + 1).and_then(|cells| cells.get(place));
                match told {
                    Some(told) if !value.is_null() && !told.is_empty() && CHANGING.contains(&column.type_info().name()) => {
                        told.clone()
                    }
                    _ if value.is_null() => String::new(),
                    _ => value.as_str().expect("text").to_owned(),
                }
            });
            found.push(cells.collect());
        }
        if found != question.answer {
            wrong.push(format!("{}\n{}", question.asked, table(&found)));
        }
    }
    assert!(wrong.is_empty(), "the README has other answers than these:\n{}", wrong.join("\n\n"));
}

/// As psql prints it.
fn table(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|place| rows.iter().map(|row| row[place].chars().count()).max().unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join(" | ").trim_end().to_owned()
    };
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("-+-");
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, rule);
    lines.join("\n")
}

#[tokio::test]
async fn an_owner_is_a_name_and_a_value_of_null_the_same_word_wherever_it_stands() {
    let world = known_content().await;
    let owners: Vec<String> =
        sqlx::query_scalar("select distinct owner from imagemill.jobs order by 1").fetch_all(world.pool()).await.expect("look");
    assert_eq!(owners, ["ann", "ben"]);
    let words: (String, Vec<String>) = sqlx::query_as(
        "select imagemill.value_label('null'), imagemill.axis_labels('[{\"kind\": \"lumina_step\", \"values\": [null]}]', 1, '0')",
    )
    .fetch_one(world.pool())
    .await
    .expect("ask");
    assert_eq!(
        (words.0.as_str(), words.1),
        (imagemill::models::value_label(&serde_json::Value::Null).as_str(), vec![words.0.clone()])
    );
}

#[tokio::test]
async fn what_is_stuck_is_told_with_its_reason_and_else_there_is_nothing() {
    let world = known_content().await;
    let reasons = async || -> Vec<String> {
        sqlx::query_scalar("select reason || coalesce(' ' || cell, '') from imagemill.stuck order by 1")
            .fetch_all(world.pool())
            .await
            .expect("look")
    };
    assert_eq!(reasons().await, Vec::<String>::new());
    let faults = "
        delete from apalis.jobs where idempotency_key = (select s.id::text from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
                                                         where t.name = 'fox study' and cell = 2);
        update apalis.jobs set metadata = metadata || hstore(array['solitary', 'crashes'], array['true', '3'])
        where idempotency_key = (select s.id::text from imagemill.subtasks s join imagemill.tasks t on t.id = s.task_id
                                 where t.name = 'fox study' and cell = 3);
        update apalis.jobs set status = 'Done', lock_by = null where status = 'Running';
        update imagemill.attempts set state = 'submitting', accepted_at = null, upstream_id = null, answer_until = now() - interval '1 hour'
        where state = 'accepted';
        update imagemill.tasks set status = 'processing', completed_at = null where name = 'lantern market';
        update apalis.workers set last_seen = now() - interval '1 day'";
    world.pool().execute(sqlx::raw_sql(faults)).await.expect("make it wrong");
    assert_eq!(
        reasons().await,
        [
            "a worker has given no beat for two leases, and none has rescued it",
            "all its cells have ended, and nothing will complete the task",
            "an attempt is open, and no job will go on with it 0",
            "an open cell has no open job: nobody will run it 0",
            "an open cell has no open job: nobody will run it 2",
            "cells wait, and no worker is alive",
            "its job has ended 3 workers: at 5 it fails as crash_loop 3",
            "the answer to a submit is overdue, and its attempt is still open 0",
        ]
    );
    let ended = "update imagemill.tasks set status = 'failed', completed_at = now() where name = 'fox study'";
    world.pool().execute(sqlx::raw_sql(ended)).await.expect("end it");
    assert_eq!(
        reasons().await.iter().filter(|reason| reason.starts_with("an open cell belongs to a task that has ended")).count(),
        4
    );
}

#[tokio::test]
async fn of_a_large_task_a_cell_without_a_job_shows_when_few_are_left_and_all_when_none_has_one() {
    let world = World::new().await;
    world.create(2_500).await;
    let reasons = async || -> Vec<String> {
        sqlx::query_scalar("select reason from imagemill.stuck where reason like '%open job%' order by 1")
            .fetch_all(world.pool())
            .await
            .expect("look")
    };
    let without_job = async |cells: &'static str| {
        world.pool().execute(cells).await.expect("delete jobs");
    };
    without_job(
        "delete from apalis.jobs where idempotency_key in (select id::text from imagemill.subtasks where cell between 1 and 1000)",
    )
    .await;
    assert_eq!(reasons().await, Vec::<String>::new());
    without_job("delete from apalis.jobs where job_type = 'imagemill.generate_image'").await;
    assert_eq!(reasons().await, ["none of its 2500 open cells has an open job: nobody will run them"]);
    let cancelled = "select imagemill.cancel_subtask(id) from imagemill.subtasks where cell >= 3";
    world.pool().execute(cancelled).await.expect("cancel");
    assert_eq!(reasons().await, ["an open cell has no open job: nobody will run it"; 3]);
}
