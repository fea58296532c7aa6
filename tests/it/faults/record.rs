//! What PostgreSQL itself writes down: every step of every cell, attempt and task, in the transaction that takes it.

use sqlx::PgPool;

/// Triggers beside the schema. A step that is not committed is not written down either.
const RECORDER: &str = "
create schema faults;
create table faults.steps (
    number     bigint generated always as identity,
    what       text not null,
    id         text not null,
    from_state text not null,
    to_state   text not null,
    own        boolean,
    backend    integer not null default pg_backend_pid(),
    written_by xid8 not null default pg_current_xact_id()
);
create function faults.note() returns trigger language plpgsql as $$
declare
    row_id text;
    is_own boolean;
begin
    if tg_table_name = 'attempts' then
        row_id := new.subtask_id || '/' || new.ordinal;
        -- Whether it is the attempt's own claim that writes, or a later one.
        select j.attempts = new.claim into is_own from apalis.jobs j
        where j.job_type = 'imagemill.generate_image' and j.idempotency_key = new.subtask_id::text;
        insert into faults.steps (what, id, from_state, to_state, own)
        values ('attempt', row_id, case when tg_op = 'INSERT' then '' else old.state end, new.state, is_own);
    elsif tg_table_name = 'subtasks' then
        insert into faults.steps (what, id, from_state, to_state) values ('cell', new.id::text, old.status, new.status);
    else
        insert into faults.steps (what, id, from_state, to_state) values ('task', new.id::text, old.status, new.status);
    end if;
    return null;
end
$$;
create trigger faults_note after insert on imagemill.attempts for each row execute function faults.note();
create trigger faults_note_change after update of state on imagemill.attempts
    for each row when (old.state is distinct from new.state) execute function faults.note();
create trigger faults_note_change after update of status on imagemill.subtasks
    for each row when (old.status is distinct from new.status) execute function faults.note();
create trigger faults_note_change after update of status on imagemill.tasks
    for each row when (old.status is distinct from new.status) execute function faults.note();
";

/// The steps that the state diagrams allow. A retry is not among the faults: nothing goes back from an end, but for a late
/// answer's cell, which the sweep may take up again.
const ALLOWED: [(&str, &str, &[&str]); 12] = [
    ("attempt", "", &["submitting"]),
    ("attempt", "submitting", &["accepted", "not_sent", "turned_away", "rejected", "refused", "unknown", "abandoned"]),
    ("attempt", "accepted", &["succeeded", "failed", "timed_out", "refused", "abandoned"]),
    ("attempt", "unknown", &["abandoned"]),
    ("attempt", "abandoned", &["accepted", "succeeded"]),
    ("cell", "pending", &["processing", "failed", "cancelled"]),
    ("cell", "processing", &["completed", "failed", "cancelled", "pending"]),
    ("cell", "failed", &["pending"]),
    ("task", "pending", &["processing", "completed", "failed", "cancelled"]),
    ("task", "processing", &["completed", "failed", "cancelled"]),
    ("task", "completed", &["processing"]),
    ("task", "failed", &["processing"]),
];

/// Begins to write down.
pub(super) async fn begin(pool: &PgPool) {
    sqlx::raw_sql(RECORDER).execute(pool).await.expect("the recorder");
}

/// Steps that were taken and that no state diagram has.
pub(super) async fn forbidden_steps(pool: &PgPool) -> Vec<String> {
    let steps: Vec<(String, String, String, String)> =
        sqlx::query_as("select what, from_state, to_state, min(id) from faults.steps group by 1, 2, 3 order by 1, 2, 3")
            .fetch_all(pool)
            .await
            .expect("read the steps");
    assert_ne!(steps, [], "nothing was written down");
    let is_allowed = |what: &str, from: &str, to: &str| {
        ALLOWED.iter().any(|allowed| (allowed.0, allowed.1) == (what, from) && allowed.2.contains(&to))
    };
    let forbidden = steps.iter().filter(|(what, from, to, _)| !is_allowed(what, from, to));
    forbidden.map(|(what, from, to, id)| format!("{what} {id}: {from} -> {to}")).collect()
}

/// Tasks that ended another number of times than they have rounds; a round that another one followed before its roll-up (an id came
/// late) ends by that. And those of whose rounds one has no completion that was done.
pub(super) async fn rounds_not_ended_once(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "with ended as (
             select t.id, t.round, count(s.number) as ends
             from imagemill.tasks t
             left join faults.steps s on s.what = 'task' and s.id = t.id::text and s.to_state in ('completed', 'failed', 'cancelled')
             group by t.id, t.round
         ), counted as (
             select ended.*,
                    (select count(*) from imagemill.audit a
                     where a.subject = 'task/' || ended.id and a.what in ('retry_task', 'sweep_late_evidence')
                       and a.old_value ->> 'status' not in ('completed', 'failed', 'cancelled')) as followed,
                    (select count(*) from apalis.jobs j
                     where j.job_type = 'imagemill.complete_task' and j.status = 'Done' and j.idempotency_key like ended.id || ':%') as completions
             from ended
         )
         select format('%s: %s ends, %s followed, %s completions of %s rounds', id, ends, followed, completions, round)
         from counted where ends + followed <> round or completions <> round",
    )
    .fetch_all(pool)
    .await
    .expect("count the ends of rounds")
}

/// Whether a worker process holds anew a cell that the last commit of this backend put back, and has a new attempt of it under way. A
/// server that is away says nothing.
pub(super) async fn is_begun_anew(pool: &PgPool, backend: i32, process: u32) -> bool {
    sqlx::query_scalar(
        "select exists (
             select from faults.steps put_back
             join imagemill.attempts a on a.subtask_id::text = put_back.id and a.finished_at is null
             join imagemill.incarnations i on i.name = a.worker and i.pid = $2
             join apalis.jobs j on j.idempotency_key = put_back.id and j.lock_by = a.worker and j.attempts = a.claim and j.status = 'Running'
             where put_back.written_by = (select written_by from faults.steps where backend = $1 order by number desc limit 1)
               and put_back.what = 'cell' and put_back.to_state = 'pending')",
    )
    .bind(backend)
    .bind(i64::from(process))
    .fetch_one(pool)
    .await
    .unwrap_or(false)
}

/// Attempts that ended as `unknown`, and whether their own claim said so.
pub(super) async fn unknown(pool: &PgPool) -> Vec<(String, bool)> {
    sqlx::query_as(
        "select id, coalesce(own, false) from faults.steps where what = 'attempt' and to_state = 'unknown' order by number",
    )
    .fetch_all(pool)
    .await
    .expect("read the unknown attempts")
}
