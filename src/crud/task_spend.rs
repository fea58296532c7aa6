//! `imagemill.task_spend`: what tasks cost, summed up from the ledger.

use sqlx::PgConnection;
use uuid::Uuid;

/// Key of the advisory lock under which one at a time sums up ("imagcost" in ASCII).
const SPEND_LOCK: i64 = i64::from_be_bytes(*b"imagcost");

/// Whether it is for this transaction to sum up: no other one is at it. Until its end.
///
/// # Errors
/// What PostgreSQL says.
pub async fn is_ours(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pg_try_advisory_xact_lock($1)").bind(SPEND_LOCK).fetch_one(connection).await
}

/// Tasks that are to be summed up: that have ended and are not, and that run and of which a tenth (and a hundred cells) more have
/// ended. The hidden ones are left out, since a purge may be at them; and the ended ones with an open attempt.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_missing(connection: &mut PgConnection, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select t.id from imagemill.tasks t
         join imagemill.task_counts c on c.task_id = t.id
         left join imagemill.task_spend p on p.task_id = t.id and p.round = t.round
         where not t.is_deleted and t.started_at is not null and case
             when t.completed_at is not null then
                 (p.task_id is null or p.open_cells <> '{}')
                 and t.id <> all (array(select s.task_id from imagemill.attempts a join imagemill.subtasks s on s.id = a.subtask_id
                                        where a.finished_at is null))
             else c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks
                  - case when p.task_id is null then 0
                         else t.total_images - (select coalesce(sum(upper(r) - lower(r)), 0) from unnest(p.open_cells) r) end
                  >= greatest(100, t.total_images / 10)
         end
         order by t.completed_at is null, t.completed_at limit $1",
    )
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Sums up what these tasks cost. The attempts of each cell are looked up by index (each `offset 0` is for that), since the ledger holds
/// those of all tasks that ever were. In a transaction of its own, before anything else in it. A task that somebody is changing just now
/// is left. Returns how many were summed up.
///
/// # Errors
/// What PostgreSQL says.
pub async fn sum_up(connection: &mut PgConnection, ids: &[Uuid]) -> Result<u64, sqlx::Error> {
    // A late answer changes an ended attempt, and forgets the sum: it waits until this one is there to be forgotten.
    sqlx::query(
        "with found as materialized (
             select a.subtask_id, a.ordinal from imagemill.subtasks s
             cross join lateral (select subtask_id, ordinal, state from imagemill.attempts where subtask_id = s.id offset 0) a
             where s.task_id = any ($1) and s.attempt_count > 0 and a.state = 'unknown'
         )
         select 1 from imagemill.attempts a where (a.subtask_id, a.ordinal) in (select subtask_id, ordinal from found)
         order by a.subtask_id, a.ordinal for no key update",
    )
    .bind(ids)
    .execute(&mut *connection)
    .await?;
    // No retry begins, and no purge, until the sum stands.
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "select id from imagemill.tasks where id = any ($1) and completed_at is not null and not is_deleted
           and id <> all (array(select s.task_id from imagemill.attempts a join imagemill.subtasks s on s.id = a.subtask_id
                                where a.finished_at is null))
         order by id for share skip locked",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    // Those that run are not held up: of a round that has passed their sum counts for nothing.
    let running: Vec<Uuid> =
        sqlx::query_scalar("select id from imagemill.tasks where id = any ($1) and completed_at is null and not is_deleted")
            .bind(ids)
            .fetch_all(&mut *connection)
            .await?;
    let done = sqlx::query(
        "with cells as materialized (
             -- While its task runs, a cell is left open whose attempts may still change.
             select s.id, s.task_id, s.cell,
                    s.completed_at is null or s.task_id = any ($2) and exists (
                        select from imagemill.attempts a where a.subtask_id = s.id and (a.finished_at is null or a.state = 'unknown')
                        offset 0) as is_open
             from imagemill.subtasks s where s.task_id = any ($1 || $2)
         ), spent as (
             select s.task_id, (a.submitted_at at time zone 'UTC')::date as day, a.lane,
                    count(*) filter (where a.state <> 'unknown') as accepted, count(*) filter (where a.state = 'unknown') as \"unknown\"
             from cells s
             cross join lateral (select submitted_at, lane, state from imagemill.attempts where subtask_id = s.id offset 0) a
             where not s.is_open and a.state not in ('submitting', 'not_sent', 'turned_away', 'rejected')
             group by 1, 2, 3
         )
         insert into imagemill.task_spend as sums
             (task_id, round, accepted, \"unknown\", days, lanes, accepted_by_day, unknown_by_day, open_cells)
         select t.id, t.round, coalesce(sum(spent.accepted), 0), coalesce(sum(spent.\"unknown\"), 0),
                coalesce(array_agg(day order by day, spent.lane) filter (where day is not null), '{}'),
                coalesce(array_agg(spent.lane order by day, spent.lane) filter (where day is not null), '{}'),
                coalesce(array_agg(spent.accepted order by day, spent.lane) filter (where day is not null), '{}'),
                coalesce(array_agg(spent.\"unknown\" order by day, spent.lane) filter (where day is not null), '{}'),
                coalesce((select range_agg(int4range(cell, cell + 1)) from cells where cells.task_id = t.id and is_open), '{}')
         from imagemill.tasks t left join spent on spent.task_id = t.id
         where t.id = any ($1 || $2)
         group by t.id, t.round order by t.id
         on conflict (task_id) do update
         set round = excluded.round, accepted = excluded.accepted, \"unknown\" = excluded.\"unknown\", days = excluded.days,
             lanes = excluded.lanes, accepted_by_day = excluded.accepted_by_day, unknown_by_day = excluded.unknown_by_day,
             open_cells = excluded.open_cells
         where sums.round <> excluded.round or sums.open_cells <> excluded.open_cells",
    )
    .bind(ended)
    .bind(running)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
