//! The views with a million cells in all states: how long each look takes, beside what is promised. Times belong to a machine
//! that does nothing else: so it is run by hand, by itself, and no time fails it.

use imagemill::services::task_service;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _, PgPool};

use crate::support::World;

/// Looks of which the middle one counts.
const LOOKS: usize = 5;

/// Shapes of tasks: how many of them, cells of each, permille of their cells that have ended, whether the task has ended.
const SHAPES: [(i32, i32, i32, bool); 7] = [
    (4, 50_000, 1_000, true),
    (4, 50_000, 600, false),
    (1, 50_000, 100, false),
    (1, 50_000, 0, false),
    (400, 1_000, 1_000, true),
    (60, 1_000, 500, false),
    (40, 1_000, 0, false),
];

/// The statements that fill in what `shape` says.
const STATEMENTS: [&str; 8] = [
    "insert into imagemill.users (id, username, roles) select gen_random_uuid(), 'owner ' || n, '{user}' from generate_series(0, 19) n",
    "alter table public.shape add column task_id uuid, add column user_id uuid;
     update public.shape s set task_id = gen_random_uuid(), user_id = (select id from imagemill.users u where u.username = 'owner ' || s.number % 20);
     insert into imagemill.tasks (id, user_id, name, status, input_sha256, prompts, settings, axes, total_images, created_at, updated_at, started_at, completed_at)
     select task_id, user_id, 'task ' || number, case when has_ended then 'completed' when ended = 0 then 'pending' else 'processing' end, md5(number::text),
            '[{\"type\": \"freetext\", \"value\": \"a lantern\", \"weight\": 1.0}]', '{}',
            jsonb_build_array(jsonb_build_object('number', 0, 'kind', 'prompt', 'name', 'style', 'values', (select jsonb_agg(jsonb_build_object('value', 'style ' || n)) from generate_series(0, 99) n)),
                              jsonb_build_object('number', 1, 'kind', 'prompt', 'name', 'light', 'values', (select jsonb_agg(jsonb_build_object('value', 'light ' || n)) from generate_series(0, 499) n))),
            cells, now() - interval '20 days' + number * interval '50 minutes', now(), case when ended > 0 then now() - interval '20 days' + number * interval '50 minutes' end,
            case when has_ended then now() - interval '19 days' + number * interval '50 minutes' end
     from public.shape",
    // In the order of the claim: what has ended, then forty in flight, then what waits.
    "create table public.filled as
     select (lpad(to_hex(1700000000000 + s.number * 50000 + c), 12, '0') || '7' || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid as id,
            s.task_id, s.user_id, s.has_ended, c as cell,
            case when c >= s.cells * s.ended / 1000 + 40 then 'pending' when c >= s.cells * s.ended / 1000 then case when s.ended = 0 then 'pending' else 'processing' end
                 when c % 20 = 7 then 'failed' when c % 997 = 5 then 'cancelled' else 'completed' end as status,
            s.number, now() - interval '20 days' + s.number * interval '50 minutes' + c * interval '1 second' as at
     from public.shape s, generate_series(0, s.cells - 1) c, lateral (select md5(s.number || '/' || c) as hash) as hashed;
     create index on public.filled (id)",
    "insert into imagemill.subtasks (id, task_id, cell, variable_indices, copy, lane, status, seed, ratio, width, height, use_polish, is_lumina, attempt_count,
                                     request_sha256, result, error_kind, error, created_at, updated_at, started_at, completed_at)
     select id, task_id, cell, array[cell % 100, cell / 100], 0, case when number % 5 = 0 then 'ops' else 'prod' end, status, cell + 1, '1:1', 1024, 1024, false, false,
            case when status = 'pending' then 0 when cell % 50 = 7 then 2 else 1 end, md5(id::text) || md5(id::text), case when status = 'completed' then 'http://127.0.0.1/picture/' || id || '.png' end,
            case when status = 'failed' then (array['refused', 'upstream_failure', 'unknown_submit'])[1 + cell % 3] end,
            case when status = 'failed' then 'out of memory' end, at, at, case when status <> 'pending' then at end,
            case when status in ('completed', 'failed', 'cancelled') then at + interval '1 minute' end
     from public.filled",
    "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, upstream_id, http_status, polls, submitted_at, answer_until, accepted_at, finished_at)
     select id, o, 1, o, case when number % 5 = 0 then 'ops' else 'prod' end, 'worker 1',
            case when o < of then 'failed' when status = 'completed' then 'succeeded' when status = 'processing' then 'accepted' when status = 'cancelled' then 'abandoned'
                 when cell % 3 = 2 then 'unknown' else 'failed' end,
            case when o < of or cell % 3 <> 2 or status <> 'failed' then id || '/' || o end, 200, 9, t, t + interval '5 minutes', t + interval '1 second',
            case when status <> 'processing' or o < of then t + interval '1 minute' end
     from (select f.*, case when cell % 50 = 7 then 2 else 1 end as of from public.filled f where status <> 'pending') f,
          generate_series(1, of) o, lateral (select case when status = 'processing' then now() - interval '1 minute' else at + o * interval '10 seconds' end as t) as given",
    "insert into imagemill.task_counts (task_id, completed_subtasks, failed_subtasks, cancelled_subtasks)
     select task_id, count(*) filter (where status = 'completed'), count(*) filter (where status = 'failed'), count(*) filter (where status = 'cancelled')
     from public.filled group by task_id;
     insert into imagemill.incarnations (name, host, pid, version, started_at, ended_at, how, lease)
     select 'worker ' || n, 'host ' || n % 20, n, '0.1.0', now() - interval '10 days', case when n > 8 then now() - interval '1 day' end, case when n > 8 then 'rescued' end, '15 s'
     from generate_series(1, 2000) n;
     insert into apalis.workers (id, worker_type, storage_name, layers, last_seen, started_at)
     select 'worker ' || n, 'imagemill', 'imagemill', '', now() + interval '1 hour', now() from generate_series(1, 8) n",
    "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, lock_by, lock_at, done_at, last_result, priority, metadata, idempotency_key)
     select id::text, 'imagemill.generate_image', convert_to(format('{\"version\":1,\"subtask_id\":\"%s\"}', id), 'UTF8'),
            case status when 'pending' then 'Pending' when 'processing' then 'Running' else 'Done' end, 1, 1, at, case when status = 'processing' then 'worker ' || 1 + cell % 8 end,
            case when status = 'processing' then now() end, case when status not in ('pending', 'processing') then at + interval '1 minute' end, '{\"Ok\": null}'::jsonb, 0,
            hstore(array['lane', 'group', 'owner'], array[case when number % 5 = 0 then 'ops' else 'prod' end, task_id::text, user_id::text]), id::text
     from public.filled",
    "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, last_result, priority, metadata, idempotency_key)
     select 'c' || task_id, 'imagemill.complete_task', convert_to(format('{\"version\":1,\"task_id\":\"%s\",\"round\":1}', task_id), 'UTF8'), 'Done', 1, 1, now(), now(),
            '{\"Ok\": null}'::jsonb, 0, hstore(array['lane', 'group', 'owner'], array['', task_id::text, user_id::text]), task_id || ':1'
     from public.shape where has_ended",
];

/// Each look, and the milliseconds that are promised.
const QUERIES: [(&str, &str, f64); 15] = [
    ("jobs", "select * from imagemill.jobs limit 100", 50.0),
    ("jobs, what is running", "select * from imagemill.jobs where worker is not null limit 100", 50.0),
    ("workers", "select * from imagemill.workers limit 100", 50.0),
    ("stuck", "select * from imagemill.stuck limit 100", 50.0),
    ("failures", "select * from imagemill.failures limit 100", 50.0),
    ("task_overview of one owner", "select * from imagemill.task_overview where owner = 'owner 5'", 50.0),
    (
        "task_overview of one owner with a large task at work",
        "select * from imagemill.task_overview where owner = 'owner 6'",
        50.0,
    ),
    (
        "subtask_details of one cell",
        "select * from imagemill.subtask_details where task_id = (select task_id from public.shape where number = 2) and cell = 49999",
        50.0,
    ),
    (
        "attempts_timeline of one cell",
        "select * from imagemill.attempts_timeline where subtask_id = (select id from public.filled limit 1) order by ordinal, at",
        50.0,
    ),
    ("lane_overview", "select * from imagemill.lane_overview", 300.0),
    (
        "spend of 31 days",
        "select day, owner, sum(accepted), sum(\"unknown\") from imagemill.spend where day > current_date - 31 group by 1, 2",
        300.0,
    ),
    (
        "spend of one task",
        "select day, sum(accepted) from imagemill.spend where task_id = (select task_id from public.shape where number = 6) group by 1",
        300.0,
    ),
    ("double_paid", "select * from imagemill.double_paid limit 100", 300.0),
    ("double_paid of one task", "select * from imagemill.double_paid where task = 'task 2'", 300.0),
    ("axis_overview of one task", "select * from imagemill.axis_overview where task = 'task 2'", 300.0),
];

#[tokio::test]
#[ignore = "it measures, for minutes: run it by itself on a machine that does nothing else"]
async fn how_long_every_view_takes_with_a_million_cells_in_all_states() {
    let world = World::new().await;
    fill(world.pool()).await;
    let cells = world.number("select count(*) from imagemill.subtasks").await;
    eprintln!(
        "{cells} cells, {} attempts, {} jobs; nothing is summed up",
        world.number("select count(*) from imagemill.attempts").await,
        world.number("select count(*) from apalis.jobs").await
    );
    let before = totals(world.pool()).await;
    for (name, query, _) in QUERIES.iter().filter(|(name, ..)| name.starts_with("task_overview") || name.starts_with("spend")) {
        eprintln!("{name:<56} {:>8.1} ms", look(world.pool(), query, 1).await);
    }
    let began = std::time::Instant::now();
    let summed_up = task_service::sum_up_spend(&world.context, 0).await.expect("sum up");
    eprintln!(
        "as a worker's sweep leaves it: {summed_up} tasks were summed up, which took {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(totals(world.pool()).await, before, "the sums are not those of the ledger");
    for (name, query, promised) in QUERIES {
        let reached = look(world.pool(), query, LOOKS).await;
        let over = if reached > promised { ", OVER" } else { "" };
        eprintln!("{name:<56} {reached:>8.1} ms (promised: {promised:.0}{over})");
    }
}

async fn fill(pool: &PgPool) {
    let shapes: Vec<String> =
        SHAPES.iter().map(|(tasks, cells, ended, has_ended)| format!("({tasks}, {cells}, {ended}, {has_ended})")).collect();
    let shapes = format!(
        "create table public.shape as
         select row_number() over () as number, cells, ended, has_ended
         from (values {}) as given (tasks, cells, ended, has_ended), lateral generate_series(1, tasks)",
        shapes.join(", ")
    );
    for statement in std::iter::once(shapes.as_str()).chain(STATEMENTS) {
        let done = pool.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    pool.execute("vacuum analyze").await.expect("as autovacuum leaves it");
}

/// What was spent, by both views that say it.
async fn totals(pool: &PgPool) -> Vec<(i64, i64)> {
    sqlx::query_as(
        "select sum(accepted)::bigint, sum(\"unknown\")::bigint from imagemill.spend
         union all select sum(paid_submits)::bigint, sum(unknown_submits)::bigint from imagemill.task_overview",
    )
    .fetch_all(pool)
    .await
    .expect("the totals")
}

/// Milliseconds of planning and running it, by PostgreSQL's own account; the middle of some.
async fn look(pool: &PgPool, query: &str, looks: usize) -> f64 {
    let mut times = Vec::with_capacity(looks);
    for _ in 0..looks {
        let explain = format!("explain (analyze, format json) {query}");
        let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(pool).await.expect("explain");
        times.push(plan[0]["Planning Time"].as_f64().expect("a time") + plan[0]["Execution Time"].as_f64().expect("a time"));
    }
    if std::env::var_os("IMAGEMILL_MILLION_PLANS").is_some() {
        let explain = format!("explain (analyze, costs off, timing off) {query}");
        let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(pool).await.expect("explain");
        println!("{query}\n  {}", lines.join("\n  "));
    }
    times.sort_by(f64::total_cmp);
    times[looks / 2]
}
