//! The submit ledger: `imagemill.attempts`, whose SQL stands here alone.
//!
//! A row is committed before its POST leaves, and the upstream's id before the first poll; so whatever dies, what was
//! paid for is known by id, or known to be unknown.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use super::{error::QueueError, fault, job::Job, outcome::AttemptEnd, settle::Settle};

/// State of an attempt (design, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum AttemptState {
    /// Open: the row stands, the POST may be out.
    Submitting,
    /// Open: the upstream has it, under an id.
    Accepted,
    /// The POST never left.
    NotSent,
    /// 401 402 403 429 503: surely not taken.
    TurnedAway,
    /// The upstream did not take the request.
    Rejected,
    /// A picture.
    Succeeded,
    /// The upstream failed.
    Failed,
    /// The content was refused.
    Refused,
    /// The upstream gave up.
    TimedOut,
    /// Given up or cancelled while the upstream had not said the end.
    Abandoned,
    /// Whether it was taken is not known.
    Unknown,
}

impl AttemptState {
    /// Whether `attempt_count` leaves it out: nothing was paid for, or could have been.
    pub const fn is_uncounted(self) -> bool {
        matches!(self, Self::NotSent | Self::TurnedAway)
    }
}

/// What is about to be submitted.
#[derive(Debug, Clone)]
pub struct Submit<'a> {
    /// The cell.
    pub cell: Uuid,
    /// The group's round.
    pub round: i32,
    /// The lane.
    pub lane: &'a str,
    /// Hash of the body.
    pub request_sha256: &'a str,
    /// An answer may come within so long: the submit's time-out and the lease.
    pub answer_within: Duration,
}

/// The open attempt of a cell.
#[derive(Debug, Clone)]
pub struct OpenAttempt {
    /// Its number.
    pub ordinal: i32,
    /// The claim that submitted it.
    pub claim: i32,
    /// `submitting` or `accepted`.
    pub state: AttemptState,
    /// The upstream's id.
    pub upstream_id: Option<String>,
    /// Since it was accepted, or opened again.
    pub age: Duration,
}

/// What the ledger says of a cell's past.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Attempts of this round that the upstream failed or gave up.
    pub failures_in_round: i64,
    /// Attempts of this round that were given up, or of which it is not known whether they were taken.
    pub uncertain_in_round: i64,
    /// Attempts since the last one that counts: turned away or not sent, one after another.
    pub turned_away_in_a_row: i64,
    /// Longest time until which the answer to an earlier, unknown POST may still come; zero when it cannot any more.
    pub answer_in: Duration,
}

/// What became of a submit's evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The attempt is `accepted`, under this claim.
    Accepted,
    /// The claim was lost: the id is in the ledger, the attempt is `abandoned`.
    LeaseLost,
}

/// Commits the row of a POST that has not left: fence, the cell's side, the row. Returns its ordinal; none: the cell
/// does not want a submit any more, or the claim is lost.
///
/// # Errors
/// See [`QueueError`]. Whether the row stands is then not known: the settle of the job closes it as `not_sent`.
pub async fn begin(pool: &PgPool, hook: &dyn Settle, job: &Job, submit: &Submit<'_>) -> Result<Option<i32>, QueueError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    if !job.fence(&mut transaction).await? {
        return Ok(None);
    }
    let Some(group) = hook.open_cell(&mut transaction, job, submit).await? else {
        return Ok(None);
    };
    let ordinal: i32 = sqlx::query_scalar(
        "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until)
         select $1, coalesce(max(ordinal), 0) + 1, $2, $3, $4, $5, 'submitting', now() + make_interval(secs => $6)
         from imagemill.attempts where subtask_id = $1
         returning ordinal",
    )
    .bind(submit.cell)
    .bind(submit.round)
    .bind(job.claim)
    .bind(submit.lane)
    .bind(&*job.worker)
    .bind(submit.answer_within.as_secs_f64())
    .fetch_one(&mut *transaction)
    .await?;
    hook.open_group(&mut transaction, job, &group).await?;
    transaction.commit().await?;
    fault::point(fault::LEDGER_COMMITTED);
    Ok(Some(ordinal))
}

/// Commits the upstream's id. A worker that has lost the claim writes it as evidence, to its own attempt's row only and
/// never to the cell.
///
/// # Errors
/// See [`QueueError`]; the caller repeats it until it stands, since no poll may come before it.
pub async fn accepted(
    pool: &PgPool,
    job: &Job,
    cell: Uuid,
    ordinal: i32,
    upstream_id: &str,
    http_status: u16,
) -> Result<Evidence, QueueError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let held = job.fence(&mut transaction).await?;
    // `claim` tells a row of ours from a later one under the same ordinal, which cannot be, and a repeat of this very
    // statement after a lost answer finds `accepted` with the same id.
    let statement = if held {
        "update imagemill.attempts
         set state = 'accepted', upstream_id = $3, accepted_at = coalesce(accepted_at, now()), http_status = $4
         where subtask_id = $1 and ordinal = $2 and claim = $5
           and (state = 'submitting' or (state = 'accepted' and upstream_id = $3))"
    } else {
        "update imagemill.attempts
         set state = 'abandoned', upstream_id = $3, accepted_at = coalesce(accepted_at, now()), http_status = $4,
             finished_at = coalesce(finished_at, now())
         where subtask_id = $1 and ordinal = $2 and claim = $5 and state in ('submitting', 'unknown')"
    };
    let rows = sqlx::query(statement)
        .bind(cell)
        .bind(ordinal)
        .bind(upstream_id)
        .bind(i32::from(http_status))
        .bind(job.claim)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    transaction.commit().await?;
    fault::point(fault::ACCEPTED_COMMITTED);
    match (held, rows) {
        (true, 1) => Ok(Evidence::Accepted),
        (true, _) => {
            Err(QueueError::Ledger { cell, message: format!("attempt {ordinal} is not open for upstream id {upstream_id}") })
        }
        (false, _) => Ok(Evidence::LeaseLost),
    }
}

/// The state of a cell's last attempt, and whether its upstream's id is known.
///
/// # Errors
/// What PostgreSQL says.
pub async fn last_attempt(connection: &mut PgConnection, cell: Uuid) -> Result<Option<(AttemptState, bool)>, sqlx::Error> {
    sqlx::query_as(
        "select state, upstream_id is not null from imagemill.attempts where subtask_id = $1 order by ordinal desc limit 1",
    )
    .bind(cell)
    .fetch_optional(connection)
    .await
}

/// Evidence of a worker that has lost its claim: the POST of its own row never left. To its own attempt's row only, and
/// never to the cell.
pub(super) async fn never_left(
    connection: &mut PgConnection,
    job: &Job,
    cell: Uuid,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update imagemill.attempts set state = 'not_sent', error = $3, finished_at = now()
         where subtask_id = $1 and claim = $2 and state = 'submitting'",
    )
    .bind(cell)
    .bind(job.claim)
    .bind(error)
    .execute(connection)
    .await?;
    Ok(())
}

/// The open attempt of a cell, if there is one.
///
/// # Errors
/// What PostgreSQL says.
pub async fn open_attempt(connection: &mut PgConnection, cell: Uuid) -> Result<Option<OpenAttempt>, sqlx::Error> {
    let row: Option<(i32, i32, AttemptState, Option<String>, f64)> = sqlx::query_as(
        "select ordinal, claim, state, upstream_id,
                extract(epoch from now() - coalesce(reopened_at, accepted_at, submitted_at))::float8
         from imagemill.attempts
         where subtask_id = $1 and finished_at is null",
    )
    .bind(cell)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(ordinal, claim, state, upstream_id, age)| OpenAttempt {
        ordinal,
        claim,
        state,
        upstream_id,
        age: Duration::from_secs_f64(age.max(0.0)),
    }))
}

/// What the ledger says of a cell's past, in this round and before.
///
/// # Errors
/// What PostgreSQL says.
pub async fn history(connection: &mut PgConnection, cell: Uuid, round: i32) -> Result<History, sqlx::Error> {
    let (failures_in_round, uncertain_in_round, turned_away_in_a_row, answer_in): (i64, i64, i64, f64) = sqlx::query_as(
        "select count(*) filter (where round = $2 and state in ('failed', 'timed_out')),
                count(*) filter (where round = $2 and may_be_alive),
                count(*) filter (where state in ('not_sent', 'turned_away')
                                   and ordinal > coalesce((select max(ordinal) from imagemill.attempts
                                                           where subtask_id = $1 and state not in ('not_sent', 'turned_away')), 0)),
                coalesce(greatest(extract(epoch from max(answer_until) filter (where state = 'unknown') - now()), 0), 0)::float8
         from imagemill.attempts where subtask_id = $1",
    )
    .bind(cell)
    .bind(round)
    .fetch_one(connection)
    .await?;
    Ok(History { failures_in_round, uncertain_in_round, turned_away_in_a_row, answer_in: Duration::from_secs_f64(answer_in) })
}

/// Closes the open attempt of a cell; under the fence of its job that can only be the job's own. Returns whether one
/// was open.
pub(super) async fn close(
    connection: &mut PgConnection,
    cell: Uuid,
    end: &AttemptEnd,
    error_kind: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "update imagemill.attempts
         set state = $2, http_status = coalesce($3, http_status), error = $4, polls = polls + $5, error_kind = $7,
             finished_at = now()
         where subtask_id = $1 and finished_at is null and ($6::int is null or ordinal = $6)",
    )
    .bind(cell)
    .bind(end.state)
    .bind(end.http_status.map(i32::from))
    .bind(&end.error)
    .bind(end.polls)
    .bind(end.ordinal)
    .bind(error_kind)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Closes what a fault of ours left open: `submitting` as `unknown`, `accepted` as `abandoned`.
pub(super) async fn close_leftover(connection: &mut PgConnection, cell: Uuid, error: Option<&str>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update imagemill.attempts
         set state = case state when 'submitting' then 'unknown' else 'abandoned' end, error = $2, finished_at = now()
         where subtask_id = $1 and finished_at is null",
    )
    .bind(cell)
    .bind(error)
    .execute(connection)
    .await?;
    Ok(())
}

/// State of one attempt, to tell a settle that was written from one that was not.
pub(super) async fn state_of(
    connection: &mut PgConnection,
    cell: Uuid,
    ordinal: i32,
) -> Result<Option<AttemptState>, sqlx::Error> {
    sqlx::query_scalar("select state from imagemill.attempts where subtask_id = $1 and ordinal = $2")
        .bind(cell)
        .bind(ordinal)
        .fetch_optional(connection)
        .await
}

/// A row of the ledger as people compare it with the upstream's bill.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AttemptRow {
    /// The cell.
    pub cell: Uuid,
    /// From 1; with the cell it is the request id of the submit.
    pub ordinal: i32,
    /// Its state.
    pub state: AttemptState,
    /// The id that the upstream answered with.
    pub upstream_id: Option<String>,
}

/// The attempts of these cells.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_cells(connection: &mut PgConnection, cells: &[Uuid]) -> Result<Vec<AttemptRow>, sqlx::Error> {
    sqlx::query_as(
        "select subtask_id as cell, ordinal, state, upstream_id from imagemill.attempts
         where subtask_id = any ($1) order by subtask_id, ordinal",
    )
    .bind(cells)
    .fetch_all(connection)
    .await
}
