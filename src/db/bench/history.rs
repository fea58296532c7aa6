//! Finished tasks, cells, attempts and jobs, as many as a fleet leaves behind in weeks.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

/// Cells of each finished task.
const CELLS: i64 = 1_000;

/// Tasks of one transaction.
const CHUNK: i64 = 50;

/// A version 7 UUID of two hours ago and later, in the order of a number; `$1` is the number of the first task.
macro_rules! uuid_of {
    ($number:literal, $salt:literal) => {
        concat!(
            "(lpad(to_hex((extract(epoch from now() - interval '2 hours') * 1000)::bigint + ",
            $number,
            " / 1000), 12, '0')
              || '7' || substr(md5(",
            $salt,
            " || (",
            $number,
            ")), 1, 3) || '8' || substr(md5(",
            $salt,
            " || (",
            $number,
            ")), 4, 15))::uuid"
        )
    };
}

/// The statements of one chunk: `$1` number of its first task, `$2` of its last, `$3` cells of each, `$4` the owner.
const STATEMENTS: [&str; 7] = [
    concat!(
        "create temporary table chunk on commit drop as
         select task, ", uuid_of!("task * $3", "'t'"), " as task_id, cell, ", uuid_of!("task * $3 + cell", "'c'"), " as id,
                ", uuid_of!("task * $3", "'j'"), " as completion_id,
                now() - interval '1 hour' as at, $4::uuid as user_id
         from generate_series($1::bigint, $2) as task, generate_series(0::bigint, $3 - 1) as cell"
    ),
    "insert into imagemill.tasks (id, user_id, name, status, input_sha256, prompts, settings, axes, total_images, created_at,
                                  updated_at, started_at, completed_at)
     select task_id, user_id, 'finished', 'completed', md5(task_id::text), '[]', '{}', '[]', count(*), at, at, at, at
     from chunk group by task_id, user_id, at",
    "insert into imagemill.task_counts (task_id, completed_subtasks) select task_id, count(*) from chunk group by task_id",
    "insert into imagemill.subtasks (id, task_id, cell, variable_indices, copy, lane, status, seed, ratio, width, height,
                                     use_polish, is_lumina, attempt_count, request_sha256, result, created_at, updated_at,
                                     started_at, completed_at)
     select id, task_id, cell, array[cell / 100, cell % 100], 0, 'prod', 'completed', cell + 1, '1:1', 1024, 1024, false, false,
            1, md5(id::text) || md5(task_id::text), 'http://127.0.0.1/picture/' || id || '.png', at, at, at, at
     from chunk",
    "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, upstream_id, http_status, polls,
                                     submitted_at, answer_until, accepted_at, finished_at)
     select id, 1, 1, 1, 'prod', 'finished', 'succeeded', id::text, 200, 1, at, at + interval '315 seconds', at, at from chunk",
    // As a worker's sweep leaves it.
    "insert into imagemill.task_spend (task_id, round, accepted, \"unknown\", days, lanes, accepted_by_day, unknown_by_day)
     select task_id, 1, count(*), 0, array[(at at time zone 'UTC')::date], array['prod'], array[count(*)], array[0]
     from chunk group by task_id, at",
    "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, last_result, priority, metadata,
                              idempotency_key)
     select id::text, 'imagemill.generate_image', convert_to(format('{\"version\":1,\"subtask_id\":\"%s\"}', id), 'UTF8'), 'Done',
            1, 1, at, at, '{\"Ok\": null}'::jsonb, 0,
            hstore(array['lane', 'group', 'owner'], array['prod', task_id::text, user_id::text]), id::text
     from chunk
     union all
     select completion_id::text, 'imagemill.complete_task',
            convert_to(format('{\"version\":1,\"task_id\":\"%s\",\"round\":1}', task_id), 'UTF8'), 'Done',
            1, 1, at, at, '{\"Ok\": null}'::jsonb, 0,
            hstore(array['lane', 'group', 'owner'], array['', task_id::text, user_id::text]), task_id || ':1'
     from chunk where cell = 0",
];

/// Fills in about so many finished cells, whole tasks of up to a thousand. Returns how many there are.
///
/// # Errors
/// What PostgreSQL says.
pub async fn fill(connection: &mut PgConnection, owner: Uuid, cells: i64) -> Result<i64, sqlx::Error> {
    let each = CELLS.min(cells).max(1);
    let tasks = (cells / each).max(1);
    for first in (0..tasks).step_by(CHUNK as usize) {
        let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
        let last = (first + CHUNK).min(tasks) - 1;
        sqlx::query(STATEMENTS[0]).bind(first).bind(last).bind(each).bind(owner).execute(&mut *transaction).await?;
        for statement in &STATEMENTS[1..] {
            sqlx::query(*statement).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    }
    // As autovacuum leaves it, before anything is measured on it.
    sqlx::query("vacuum analyze").execute(connection).await?;
    Ok(tasks * each)
}

/// Finished jobs that ended longer ago than this retention: all of what was filled in, where it is less than an hour.
///
/// # Errors
/// What PostgreSQL says.
pub async fn jobs_past(connection: &mut PgConnection, retention: Duration) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select count(*) from apalis.jobs
         where job_type like 'imagemill.%' and status in ('Done', 'Failed', 'Killed') and done_at < now() - make_interval(secs => $1)",
    )
    .bind(retention.as_secs_f64())
    .fetch_one(connection)
    .await
}
