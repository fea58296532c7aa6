//! Why a cell is not running: a cell is put into each state, and the code compared.

use chrono::{DateTime, Utc};
use imagemill::{
    crud::why::{self, WhyNotRunning},
    services::{overview_service, task_progress},
    simulator::{Behaviour, SimulatorOptions},
};
use secrecy::ExposeSecret as _;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::{
    commands::{ends_with, json as printed},
    support::{World, eventually},
};

/// A worker that is alive as far as rows say it: it takes cells of `prod`.
const WORKER: &str = "
    insert into imagemill.incarnations (name, host, pid, version, lease, token_hash, lanes)
        values ('one', 'atelier', 1, '0.1.0', '1 hour', 'aaaaaaaa', array['prod']);
    insert into apalis.workers (id, worker_type, storage_name, layers, last_seen, started_at)
        values ('one', 'imagemill', 'imagemill', '', now(), now())";

/// The second task's cell is held, has an open attempt, and takes a place.
const HELD: &str = "
    update apalis.jobs set status = 'Running', lock_by = 'one', lock_at = now(), attempts = 1
    where idempotency_key = (select id::text from imagemill.subtasks where cell = 1)";

async fn why(world: &World, cell: i32) -> WhyNotRunning {
    let mut connection = world.pool().acquire().await.expect("a connection");
    let statement = "select id from imagemill.subtasks where cell = $1";
    let id: Uuid = sqlx::query_scalar(statement).bind(cell).fetch_one(&mut *connection).await.expect("the cell");
    why::why_not_running(&mut connection, id).await.expect("ask").expect("a reason")
}

async fn run(world: &World, statements: &str) {
    world
        .pool()
        .execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned())))
        .await
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
}

async fn time(world: &World, statement: &str) -> Option<DateTime<Utc>> {
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(world.pool()).await.expect("a time")
}

/// A task of three cells and a worker; then this is so, and cell 0 says that, until then.
async fn says(states: &str, code: &str, until: Option<&str>) {
    let world = World::new().await;
    world.create(3).await;
    run(&world, WORKER).await;
    assert_eq!(why(&world, 0).await.code, "turn", "before: {states}");
    run(&world, states).await;
    let found = why(&world, 0).await;
    assert_eq!(found.code, code, "{states}: {}", found.why);
    let expected = match until {
        Some(until) => time(&world, &format!("select {until}")).await,
        None => None,
    };
    assert_eq!(found.until, expected, "{states}: {}", found.why);
    assert!(!found.why.is_empty());
}

const CELL: &str = "(select id::text from imagemill.subtasks where cell = 0)";

#[tokio::test]
async fn a_pause_says_so_with_its_end() {
    let until = "(select max(until) from imagemill.pauses)";
    let pause = |token: &str, until: &str| {
        format!(
            "insert into imagemill.pauses (lane, reason, token_hash, why, until) values ('prod', 'throttled', '{token}', '429', {until})"
        )
    };
    says(&pause("", "now() + interval '1 minute'"), "pause", Some(until)).await;
    says(&pause("aaaaaaaa", "null"), "pause", None).await;
    // Of another token: the worker goes on. One that is over holds nobody.
    says(&pause("bbbbbbbb", "null"), "turn", None).await;
    says(&pause("", "now() - interval '1 minute'"), "turn", None).await;
    // It is over, and another cell was taken to see whether the lane works again.
    let tried = format!(
        "{}; update imagemill.pauses set probe_at = now() + interval '5 seconds'",
        pause("", "now() - interval '1 minute'")
    );
    says(&tried, "pause", Some("(select max(probe_at) from imagemill.pauses)")).await;
    let other_lane = "insert into imagemill.pauses (lane, reason, why) values ('ops', 'operator', 'a look')";
    says(other_lane, "turn", None).await;
}

#[tokio::test]
async fn limits_and_rates_say_so() {
    says(&format!("update imagemill.lanes set max_in_flight = 1; {HELD}"), "limit", None).await;
    says(&format!("update imagemill.lanes set max_in_flight = 2; {HELD}"), "turn", None).await;
    says("update imagemill.lanes set max_in_flight = 0", "limit", None).await;
    let ramp = "update imagemill.lanes set ramp_start = 1, ramp_step = 1, ramp_interval = '1 hour', ramp_idle_reset = '1 hour';
                update imagemill.lane_states set ramp_since = now(), active_at = now();";
    says(&format!("{ramp} {HELD}"), "limit", None).await;
    // Given up, and perhaps still at work: it takes a place for as long as a job may take.
    let alive = "update imagemill.lanes set max_in_flight = 1;
                 insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until, finished_at)
                 select id, 1, 1, 1, 'prod', 'one', 'unknown', now(), now() from imagemill.subtasks where cell = 1";
    let over = "a.finished_at + l.max_job_time from imagemill.attempts a join imagemill.lanes l using (lane)";
    says(alive, "limit", Some(over)).await;
    // Beside one that may end at any moment nobody knows.
    says(&format!("{alive}; {HELD}"), "limit", None).await;
    let rate = "update imagemill.lanes set submits_per_second = 0.5, burst = 1;
                update imagemill.lane_states set next_submit_at = now() + interval '20 seconds'";
    says(rate, "rate", Some("next_submit_at - interval '0.25 seconds' from imagemill.lane_states where lane = 'prod'")).await;
    says("update imagemill.lane_states set next_submit_at = now() + interval '20 seconds'", "turn", None).await;
}

#[tokio::test]
async fn everybody_who_looks_counts_what_was_given_up_and_may_be_alive_as_in_flight() {
    let world = World::new().await;
    let task = world.create(3).await.id;
    let waits_for = async || -> Vec<String> {
        let statement = "select distinct waits_for from imagemill.jobs where status = 'Pending' and lane = 'prod'";
        sqlx::query_scalar(statement).fetch_all(world.pool()).await.expect("look")
    };
    assert_eq!(waits_for().await, ["its turn"]);
    let given_up = "update imagemill.lanes set max_in_flight = 1;
                    update imagemill.subtasks set lane = 'prod';
                    insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until, finished_at)
                    select id, 1, 1, 1, 'prod', 'one', 'unknown', now(), now() from imagemill.subtasks where cell = 1";
    run(&world, given_up).await;
    assert_eq!(waits_for().await, ["a place: all 1 of its lane are taken"]);
    assert_eq!(world.number("select in_flight from imagemill.lane_overview where lane = 'prod'").await, 1);
    let prod = |lanes: serde_json::Value| {
        let lanes = lanes.as_array().expect("lanes").clone();
        lanes.into_iter().find(|lane| lane["lane"] == "prod").expect("the lane")["in_flight"].clone()
    };
    assert_eq!(prod(printed(&world, &["--as", "tester", "--json", "lane", "list"]).await), 1);
    assert_eq!(prod(printed(&world, &["--as", "tester", "--json", "top"]).await["lanes"].clone()), 1);
    // And why none of the lane leaves.
    let lane_waits_for = async || -> Option<String> {
        sqlx::query_scalar(sqlx::AssertSqlSafe("select waits_for from imagemill.lane_overview where lane = 'prod'"))
            .fetch_one(world.pool())
            .await
            .expect("look")
    };
    assert_eq!(
        lane_waits_for().await.as_deref(),
        Some("a place: all 1 are taken, 1 by cells that were given up within 00:05:00")
    );
    for command in [&["lane", "list"][..], &["top"]] {
        let (shown, _) = ends_with(&world, &[&["--as", "tester"], command].concat(), 0).await;
        let line = shown.lines().find(|line| line.trim_start().starts_with("prod")).expect("the lane");
        assert!(line.contains("a place: all 1 are taken"), "{command:?}: {shown}");
    }
    let progress = task_progress::get_progress(&world.context, &world.actor, task).await.expect("the progress");
    assert_eq!(progress.in_flight, 1);
    let open = overview_service::get_open_of_task(&world.context, &world.actor, task).await.expect("the lanes");
    assert_eq!(open.iter().map(|lane| (lane.cells, lane.in_flight)).collect::<Vec<_>>(), [(3, 1)]);
    // A cell whose attempt is open takes no new place.
    run(&world, "update apalis.jobs set metadata = metadata || 'resume=>true'").await;
    assert_eq!(waits_for().await, ["its turn"]);
    // The upstream is not at work on anything for longer than this.
    run(&world, "update imagemill.attempts set finished_at = now() - interval '1 day'; update apalis.jobs set metadata = metadata - 'resume'::text")
        .await;
    assert_eq!(waits_for().await, ["its turn"]);
    assert_eq!(prod(printed(&world, &["--as", "tester", "--json", "lane", "list"]).await), 0);
}

#[tokio::test]
async fn budgets_and_times_say_so() {
    says("update imagemill.tasks set max_submits = 5; update imagemill.task_counts set submits = 5", "budget", None).await;
    says(
        &format!("update imagemill.tasks set max_submits = 6; update imagemill.task_counts set submits = 5; {HELD}"),
        "budget",
        None,
    )
    .await;
    says("update imagemill.tasks set max_submits = 6; update imagemill.task_counts set submits = 5", "turn", None).await;
    says(
        "update imagemill.tasks set not_before = now() + interval '1 hour'",
        "not_before",
        Some("not_before from imagemill.tasks"),
    )
    .await;
    says("update imagemill.tasks set not_after = now() - interval '1 second'", "not_after", None).await;
    says("update imagemill.tasks set not_after = now() + interval '1 hour'", "turn", None).await;
    let due = format!(
        "update apalis.jobs set run_at = now() + interval '1 minute' where idempotency_key = {CELL};
                       update imagemill.subtasks set error = 'HTTP 503'"
    );
    says(&due, "not_due", Some(&format!("run_at from apalis.jobs where idempotency_key = {CELL}"))).await;
}

#[tokio::test]
async fn the_budget_of_a_day_says_so_with_its_end() {
    let spent = |limit: &str, days_ago: i32| {
        format!(
            "update imagemill.lanes set max_submits_per_day = {limit};
             insert into imagemill.lane_days (lane, day, submits)
             select 'prod', (now() at time zone 'UTC')::date - {days_ago}, submits from unnest(array[7, -2]) as submits"
        )
    };
    let midnight = "(date_trunc('day', now() at time zone 'UTC') + interval '1 day') at time zone 'UTC'";
    says(&spent("5", 0), "day_budget", Some(midnight)).await;
    says(&spent("6", 0), "turn", None).await;
    says(&spent("5", 1), "turn", None).await;
    // A cell in flight may turn out not to be billed: it need not be midnight.
    says(&format!("{}; {HELD}", spent("6", 0)), "day_budget", None).await;
    says("update imagemill.lanes set max_submits_per_day = 0", "day_budget", None).await;
}

#[tokio::test]
async fn workers_say_so() {
    says("update apalis.workers set last_seen = now() - interval '2 hours'", "no_worker", None).await;
    says("update imagemill.incarnations set lanes = array['ops', 'dev']", "no_worker", None).await;
    says("update imagemill.incarnations set lanes = null", "turn", None).await;
    says("update imagemill.incarnations set only_group = 'another task'", "no_worker", None).await;
    let alone = "update apalis.jobs set metadata = metadata || hstore('alone', 'true')";
    says(alone, "no_worker", None).await;
    let mine = "update imagemill.incarnations set only_group = (select id::text from imagemill.tasks)";
    says(&format!("{alone}; {mine}"), "turn", None).await;
    let held =
        format!("update apalis.jobs set status = 'Running', lock_by = 'one', lock_at = now() where idempotency_key = {CELL}");
    says(&held, "running", None).await;
    says(&format!("{held}; update apalis.workers set last_seen = now() - interval '2 hours'"), "dead_worker", None).await;
    let resume = format!(
        "update apalis.jobs set metadata = metadata || hstore('resume', 'true') where idempotency_key = {CELL};
                          insert into imagemill.pauses (lane, reason, why) values ('prod', 'operator', 'a look')"
    );
    says(&resume, "resume", None).await;
    says(&format!("delete from apalis.jobs where idempotency_key = {CELL}"), "no_job", None).await;
}

#[tokio::test]
async fn ends_say_so() {
    for (status, code) in [("completed", "finished"), ("failed", "finished"), ("cancelled", "cancelled")] {
        let ended = format!(
            "update imagemill.subtasks set status = '{status}', completed_at = now(), result = 'http://pictures/1',
                    error_kind = case '{status}' when 'failed' then 'refused' end where cell = 0;
             insert into imagemill.pauses (lane, reason, why) values ('prod', 'operator', 'a look')"
        );
        says(&ended, code, None).await;
    }
}

#[tokio::test]
async fn of_two_reasons_the_one_that_ends_last_is_named() {
    let due = format!("update apalis.jobs set run_at = now() + interval '5 minutes' where idempotency_key = {CELL}");
    let pause = |until: &str| {
        format!("insert into imagemill.pauses (lane, reason, why, until) values ('prod', 'throttled', '429', {until})")
    };
    let run_at = format!("run_at from apalis.jobs where idempotency_key = {CELL}");
    says(&format!("{due}; {}", pause("now() + interval '1 minute'")), "not_due", Some(&run_at)).await;
    says(&format!("{due}; {}", pause("now() + interval '9 minutes'")), "pause", Some("until from imagemill.pauses")).await;
    // Without an end it ends after all others.
    says(&format!("{due}; {}", pause("null")), "pause", None).await;
    // A place is free as soon as a cell ends: the time of the next try is later.
    says(&format!("{due}; update imagemill.lanes set max_in_flight = 1; {HELD}"), "not_due", Some(&run_at)).await;
    says(&format!("{due}; update imagemill.lanes set max_in_flight = 0"), "limit", None).await;
    let not_before = "update imagemill.tasks set not_before = now() + interval '1 hour'";
    says(&format!("{due}; {not_before}"), "not_before", Some("not_before from imagemill.tasks")).await;
    // Of two pauses of one worker the longer.
    let own = "insert into imagemill.pauses (lane, reason, token_hash, why, until) values ('prod', 'auth', 'aaaaaaaa', '401', now() + interval '1 minute')";
    says(&format!("{own}; {}", pause("now() + interval '9 minutes'")), "pause", Some("max(until) from imagemill.pauses")).await;
}

/// Processes, and the command; a reader may ask, a stranger may not.
#[tokio::test]
async fn the_command_says_it_of_real_workers() {
    let mut options = SimulatorOptions::default();
    options.script.insert(1, Behaviour::PendingForever);
    let mut world = World::with(options).await;
    world.set("lanes.prod.max_polls", 10_000);
    world.environment.insert("IMAGEMILL_USER".to_owned(), "tester".to_owned());
    let task = world.create(1).await.id.to_string();
    let asked = ["task", "why", &task, "--cell", "0", "--json"];
    assert_eq!(printed(&world, &asked).await["code"], json!("no_worker"));
    let elsewhere = world.worker(&["--lanes", "ops"]);
    world.until("select exists (select from imagemill.incarnations where lanes = array['ops'])").await;
    assert_eq!(printed(&world, &asked).await["code"], json!("no_worker"), "it takes cells of ops alone");
    let _worker = world.worker(&[]);
    eventually("it runs", || async { printed(&world, &asked).await["code"] == json!("running") }).await;
    let (said, _) = ends_with(&world, &asked[..5], 0).await;
    assert!(said.starts_with("running: it is running: worker "), "{said}");
    let (_, refused) = ends_with(&world, &["task", "why", &task, "--cell", "7"], 2).await;
    assert!(refused.contains("has no cell 7"), "{refused}");
    drop(elsewhere);
    let mut reader = PgConnection::connect(world.database.url.expose_secret()).await.expect("connect");
    reader.execute("set role imagemill_reader").await.expect("take the role");
    let ask = "select code from imagemill.subtask_details s, imagemill.why_not_running(s.id)";
    let code: String = sqlx::query_scalar(ask).fetch_one(&mut reader).await.expect("a reader may ask");
    assert_eq!(code, "running");
    let everybody = "select has_function_privilege('public', 'imagemill.why_not_running(uuid)', 'execute')";
    let may: bool = sqlx::query_scalar(everybody).fetch_one(world.pool()).await.expect("look");
    assert!(!may);
}

#[tokio::test]
async fn what_was_asked_to_end_is_not_said_to_be_polled_on() {
    let world = World::new().await;
    world.create(1).await;
    run(&world, WORKER).await;
    let asked = "update imagemill.subtasks set status = 'processing', cancel_requested_at = now();
                 update apalis.jobs set metadata = metadata || hstore('resume', 'true')";
    run(&world, asked).await;
    assert!(why(&world, 0).await.why.starts_with("it was asked to end"), "{}", why(&world, 0).await.why);
    let held = "update apalis.jobs set status = 'Running', lock_by = 'one', lock_at = now();
                update apalis.workers set last_seen = now() - interval '2 hours'";
    run(&world, held).await;
    let found = why(&world, 0).await;
    assert!(found.code == "dead_worker" && found.why.ends_with("and ends this one, as it was asked to"), "{}", found.why);
}
