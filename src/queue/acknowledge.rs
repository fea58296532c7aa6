//! The jobs' side of a settle: one statement that fences them and writes what becomes of them.

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{
    enqueue::WAKE_CHANNEL,
    job::{Held, Job},
    outcome::{Outcome, Verdict},
};

/// apalis's word for the job's state afterwards, and after how many seconds a pending one runs again.
pub(super) fn job_state(verdict: Verdict) -> (&'static str, f64) {
    match verdict {
        Verdict::Done => ("Done", 0.0),
        Verdict::Failed => ("Failed", 0.0),
        Verdict::Cancelled => ("Killed", 0.0),
        Verdict::RetryAfter(delay) | Verdict::TurnedAway(delay) | Verdict::ResumeAfter(delay) => ("Pending", delay.as_secs_f64()),
        Verdict::HandedOver | Verdict::LeaseLost => ("Pending", 0.0),
    }
}

/// Locks the jobs in the order of their ids, and writes those whose claim still holds. Returns these claims.
pub(super) async fn acknowledge(connection: &mut PgConnection, settles: &[&(Job, Outcome)]) -> Result<Held, sqlx::Error> {
    macro_rules! column {
        ($job:ident, $outcome:ident => $value:expr) => {
            settles.iter().map(|($job, $outcome)| $value).collect::<Vec<_>>()
        };
    }
    let result = |outcome: &Outcome| match &outcome.error {
        Some(error) => json!({ "Err": error }),
        None => json!({ "Ok": null }),
    };
    // `resume` says that an attempt is open: the next claim takes such a job before any other. An attempt that ends with this
    // very settle is not closed yet here. Whoever asks to resume is claimed as such, though it may be an earlier attempt that it asks
    // for: it submits nothing. Crashes are forgotten by whatever came to an end by itself. `cancel` was said to this
    // claim: the cell's row says it to the next.
    let held: Vec<(String, i32)> = sqlx::query_as(
        "with given as (
             select * from unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::double precision[], $6::jsonb[],
                                  $7::uuid[], $8::boolean[], $9::boolean[])
                           as given (id, worker, claim, status, delay, result, cell, handed_over, resumes)
         ), locked as materialized (
             select id, lock_by, attempts, status from apalis.jobs where id = any ($1) order by id for update
         ), held as materialized (
             select given.* from given join locked using (id)
             where locked.lock_by = given.worker and locked.attempts = given.claim and locked.status = 'Running'
         )
         update apalis.jobs as job
         set status = given.status, lock_by = null, lock_at = null, last_result = given.result,
             run_at = case when given.status = 'Pending' then now() + make_interval(secs => given.delay) else job.run_at end,
             done_at = case when given.status = 'Pending' then null else now() end,
             metadata = case when given.status = 'Pending' and given.cell is not null
                                  and (given.resumes
                                       or (select true from imagemill.attempts
                                           where subtask_id = given.cell and finished_at is null))
                             then case when given.handed_over then delete(job.metadata, 'cancel')
                                       else delete(job.metadata, array['crashes', 'solitary', 'ledger', 'cancel']) end
                                  || hstore('resume', 'true')
                             when given.handed_over then delete(job.metadata, array['resume', 'cancel'])
                             else delete(job.metadata, array['resume', 'crashes', 'solitary', 'ledger', 'cancel']) end
         from held as given where job.id = given.id
         returning job.id, given.claim",
    )
    .bind(column!(job, _outcome => job.id.clone()))
    .bind(column!(job, _outcome => job.worker.to_string()))
    .bind(column!(job, _outcome => job.claim))
    .bind(column!(_job, outcome => job_state(outcome.verdict).0))
    .bind(column!(_job, outcome => job_state(outcome.verdict).1))
    .bind(column!(_job, outcome => result(outcome)) as Vec<Value>)
    // The cell only where an attempt of it may stay open.
    .bind(column!(job, outcome => outcome.attempt.is_none().then(|| job.cell()).flatten()))
    .bind(column!(_job, outcome => outcome.verdict == Verdict::HandedOver))
    .bind(column!(job, outcome => job.is_resumed && matches!(outcome.verdict, Verdict::ResumeAfter(_))))
    .fetch_all(&mut *connection)
    .await?;
    let held: Held = held.into_iter().collect();
    let handed_over = settles.iter().find(|(job, outcome)| outcome.verdict == Verdict::HandedOver && held.has(job));
    if let Some((job, _)) = handed_over {
        sqlx::query("select pg_notify($1, $2)").bind(WAKE_CHANNEL).bind(&*job.queue).execute(connection).await?;
    }
    Ok(held)
}
