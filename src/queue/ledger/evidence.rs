//! The upstream's ids, and what is known of a POST whose claim is lost. Evidence is exempt from the fence: it goes to its own
//! attempt's row only, and never to the cell.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::queue::{connections::Connections, error::QueueError, fault, job::Job};

/// An id that the upstream answered with.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// The cell.
    pub cell: Uuid,
    /// Its attempt.
    pub ordinal: i32,
    /// The id.
    pub upstream_id: String,
    /// Status of the answer.
    pub http_status: u16,
}

/// What became of a submit's evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The attempt is `accepted`, under this claim.
    Accepted,
    /// The claim was lost: the id is in the ledger, the attempt is `abandoned`, or what another worker made of it.
    LeaseLost,
    /// The claim was lost, and no row could take the id: it is known to its worker alone.
    Untaken,
    /// The claim holds, and no such attempt is open: a fault of ours, or a database that has forgotten its last commits.
    NoSuchAttempt,
}

/// Commits the upstream's ids, in one statement. A worker that has lost a claim writes its id as evidence.
///
/// # Errors
/// See [`QueueError`]; the caller repeats it until it stands, since no poll may come before it.
pub async fn accepted(connections: &Connections, acceptances: &[(Job, Acceptance)]) -> Result<Vec<Evidence>, QueueError> {
    let written = connections.statement(async |connection| write(connection, acceptances).await).await?;
    fault::point(fault::ACCEPTED_COMMITTED);
    let of = |acceptance: &Acceptance| written.get(&(acceptance.cell, acceptance.ordinal));
    Ok(acceptances.iter().map(|(_, acceptance)| of(acceptance).copied().unwrap_or(Evidence::NoSuchAttempt)).collect())
}

async fn write(
    connection: &mut PgConnection,
    acceptances: &[(Job, Acceptance)],
) -> Result<HashMap<(Uuid, i32), Evidence>, QueueError> {
    let mut sorted: Vec<&(Job, Acceptance)> = acceptances.iter().collect();
    sorted.sort_by_key(|(job, _)| &job.id);
    macro_rules! column {
        ($job:ident, $acceptance:ident => $value:expr) => {
            sorted.iter().map(|($job, $acceptance)| $value).collect::<Vec<_>>()
        };
    }
    // Claim and worker tell a row of ours from a later one under the same ordinal, which a database that has forgotten its last
    // commits could have; and a repeat of this very statement after a lost answer finds `accepted` with the same id. One statement holds no lock while a client stands still.
    let rows: Vec<(Uuid, i32, bool, bool, bool)> = sqlx::query_as(
        "with given as (
             select * from unnest($1::text[], $2::text[], $3::integer[], $4::uuid[], $5::integer[], $6::text[], $7::integer[])
                           as given (job, worker, claim, cell, ordinal, upstream_id, http_status)
         ), locked as materialized (
             select id, lock_by, attempts, status from apalis.jobs where id = any ($1) order by id for update
         ), held as materialized (
             select id, claim from locked join given on given.job = locked.id
             where lock_by = worker and attempts = claim and status = 'Running'
         ), written as (
             update imagemill.attempts as attempt
             set state = 'accepted', upstream_id = given.upstream_id, accepted_at = coalesce(accepted_at, now()),
                 http_status = given.http_status
             from given where (given.job, given.claim) in (select id, claim from held)
               and attempt.subtask_id = given.cell and attempt.ordinal = given.ordinal
               and attempt.claim = given.claim and attempt.worker = given.worker
               and (state = 'submitting' or (state = 'accepted' and attempt.upstream_id = given.upstream_id))
             returning attempt.subtask_id, attempt.ordinal
         ), late as materialized (
             -- What a person has said of an unknown attempt meanwhile is corrected: the upstream itself says that it was taken.
             -- Each by its key, whatever the tables' size was when this was planned.
             select own.subtask_id, own.ordinal, own.state, given.upstream_id, given.http_status
             from given cross join lateral (
                 select attempt.subtask_id, attempt.ordinal, attempt.state from imagemill.attempts as attempt
                 where attempt.subtask_id = given.cell and attempt.ordinal = given.ordinal
                   and attempt.claim = given.claim and attempt.worker = given.worker
                   and (attempt.state in ('submitting', 'unknown')
                        or (attempt.state in ('not_sent', 'abandoned') and attempt.upstream_id is null))
                 for update) as own
             where (given.job, given.claim) not in (select id, claim from held)
         ), evidence as (
             update imagemill.attempts as attempt
             set state = 'abandoned', upstream_id = late.upstream_id, accepted_at = coalesce(accepted_at, now()),
                 http_status = late.http_status, finished_at = coalesce(finished_at, now()),
                 error = case when late.state in ('not_sent', 'abandoned') then concat_ws('; ', error, 'its id came late')
                              else error end
             from late where attempt.subtask_id = late.subtask_id and attempt.ordinal = late.ordinal
             returning attempt.subtask_id, attempt.ordinal, attempt.upstream_id, late.state as was
         ), counted as (
             -- What was unknown before, or said to be billed, has been counted.
             select imagemill.move_submits(array_agg(subtask_id), 1)
             from evidence where was in ('submitting', 'not_sent') having count(*) > 0
         ), counted_again as (
             select imagemill.count_attempts(array_agg(subtask_id)) from evidence where was = 'not_sent' having count(*) > 0
         ), audited as (
             insert into imagemill.audit (who, what, subject, old_value, new_value)
             select 'system', 'resolve_attempt', 'subtask/' || subtask_id, jsonb_build_object('ordinal', ordinal, 'state', was),
                    jsonb_build_object('upstream_id', upstream_id)
             from evidence where was in ('not_sent', 'abandoned')
         )
         select given.cell, given.ordinal, (given.job, given.claim) in (select id, claim from held),
                exists (select from written where written.subtask_id = given.cell and written.ordinal = given.ordinal),
                exists (select from evidence where evidence.subtask_id = given.cell and evidence.ordinal = given.ordinal)
                or coalesce((select attempt.upstream_id = given.upstream_id from imagemill.attempts as attempt
                             where attempt.subtask_id = given.cell and attempt.ordinal = given.ordinal), false)
         from given where (select count(*) from counted) >= 0 and (select count(*) from counted_again) >= 0",
    )
    .bind(column!(job, _acceptance => job.id.clone()))
    .bind(column!(job, _acceptance => job.worker.to_string()))
    .bind(column!(job, _acceptance => job.claim))
    .bind(column!(_job, acceptance => acceptance.cell))
    .bind(column!(_job, acceptance => acceptance.ordinal))
    .bind(column!(_job, acceptance => acceptance.upstream_id.clone()))
    .bind(column!(_job, acceptance => i32::from(acceptance.http_status)))
    .fetch_all(connection)
    .await?;
    let evidence = |is_held, is_written, is_kept| match (is_held, is_written, is_kept) {
        (true, true, _) => Evidence::Accepted,
        (true, false, _) => Evidence::NoSuchAttempt,
        (false, _, true) => Evidence::LeaseLost,
        (false, _, false) => Evidence::Untaken,
    };
    let of = |(cell, ordinal, held, written, kept)| ((cell, ordinal), evidence(held, written, kept));
    Ok(rows.into_iter().map(of).collect())
}

/// Evidence of a worker that has lost its claim: the POST of its own row never left. To its own attempt's row only, and
/// never to the cell.
pub(in crate::queue) async fn never_left(
    connection: &mut PgConnection,
    job: &Job,
    cell: Uuid,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update imagemill.attempts set state = 'not_sent', error = $3, finished_at = now()
         where subtask_id = $1 and claim = $2 and worker = $4 and state = 'submitting'",
    )
    .bind(cell)
    .bind(job.claim)
    .bind(error)
    .bind(&*job.worker)
    .execute(connection)
    .await?;
    Ok(())
}
