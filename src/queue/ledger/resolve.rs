//! Attempts of which it is not known whether they were taken, and what a person who has seen the bill says of them.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// An attempt of which it is not known whether it was taken.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct UnknownAttempt {
    /// The cell.
    pub cell: Uuid,
    /// From 1.
    pub ordinal: i32,
    /// The lane.
    pub lane: String,
    /// When its row was committed.
    pub submitted_at: DateTime<Utc>,
    /// An answer to it may come until then.
    pub answer_until: DateTime<Utc>,
    /// Status of its answer, where one came.
    pub http_status: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
}

/// What a person says of an unknown attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// It was taken, under this id of the upstream.
    UpstreamId(String),
    /// It was not billed.
    NotBilled,
    /// It was billed, and its id is not known.
    Billed,
}

/// Unknown attempts, oldest first; of one group's cells, if these are given.
///
/// # Errors
/// What PostgreSQL says.
pub async fn unknown(
    connection: &mut PgConnection,
    cells: Option<&[Uuid]>,
    limit: i64,
) -> Result<Vec<UnknownAttempt>, sqlx::Error> {
    // may_be_alive says that the index of such attempts serves.
    sqlx::query_as(
        "select subtask_id as cell, ordinal, lane, submitted_at, answer_until, http_status, error from imagemill.attempts
         where may_be_alive and state = 'unknown' and ($1::uuid[] is null or subtask_id = any ($1))
         order by submitted_at, subtask_id, ordinal limit $2",
    )
    .bind(cells)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Resolves an unknown attempt. An id makes it `abandoned`, which can be polled; not billed makes it `not_sent`; billed makes it
/// `abandoned` without an id. False: there is no such unknown attempt.
///
/// # Errors
/// What PostgreSQL says.
pub async fn resolve(
    connection: &mut PgConnection,
    cell: Uuid,
    ordinal: i32,
    resolution: &Resolution,
    note: &str,
) -> Result<bool, sqlx::Error> {
    let (state, upstream_id) = match resolution {
        Resolution::UpstreamId(id) => ("abandoned", Some(id.as_str())),
        Resolution::NotBilled => ("not_sent", None),
        Resolution::Billed => ("abandoned", None),
    };
    let rows = sqlx::query(
        "update imagemill.attempts
         set state = $3, upstream_id = $4, accepted_at = case when $4::text is not null then now() else accepted_at end,
             error = concat_ws('; ', error, $5::text), resolved_at = now()
         where subtask_id = $1 and ordinal = $2 and state = 'unknown'",
    )
    .bind(cell)
    .bind(ordinal)
    .bind(state)
    .bind(upstream_id)
    .bind(note)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if rows == 1 && state == "not_sent" {
        // No budget has to bear it.
        sqlx::query("select imagemill.move_submits(array[$1], -1)").bind(cell).execute(connection).await?;
    }
    Ok(rows == 1)
}

/// Another attempt of this one's lane that has the id; none: it may be this one's. Whoever asks for the same id waits until the
/// transaction has ended.
///
/// # Errors
/// What PostgreSQL says.
pub async fn holder_of(
    connection: &mut PgConnection,
    cell: Uuid,
    ordinal: i32,
    upstream_id: &str,
) -> Result<Option<(Uuid, i32)>, sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('imagemill.upstream_id/' || $1, 0))")
        .bind(upstream_id)
        .execute(&mut *connection)
        .await?;
    // No index has the ids, which would cost every submit: a person asks for this now and then.
    sqlx::query_as(
        "select other.subtask_id, other.ordinal from imagemill.attempts this join imagemill.attempts other using (lane)
         where this.subtask_id = $1 and this.ordinal = $2 and other.upstream_id = $3
           and (other.subtask_id, other.ordinal) <> ($1, $2) limit 1",
    )
    .bind(cell)
    .bind(ordinal)
    .bind(upstream_id)
    .fetch_optional(connection)
    .await
}

/// Until when an answer to this attempt may come; none: no more.
///
/// # Errors
/// What PostgreSQL says.
pub async fn answer_until(connection: &mut PgConnection, cell: Uuid, ordinal: i32) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar(
        "select answer_until from imagemill.attempts where subtask_id = $1 and ordinal = $2 and answer_until > now()",
    )
    .bind(cell)
    .bind(ordinal)
    .fetch_optional(connection)
    .await
}

/// What stands in the way of running these cells again.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct EarlierSubmit {
    /// The cell.
    pub cell: Uuid,
    /// Until when such a POST of it may still be answered; none: no more.
    pub answer_until: Option<DateTime<Utc>>,
}

/// Of these cells, those with an unknown POST that may still be answered, also one that somebody said was not billed, or an open
/// attempt.
///
/// # Errors
/// What PostgreSQL says.
pub async fn may_be_answered(connection: &mut PgConnection, cells: &[Uuid]) -> Result<Vec<EarlierSubmit>, sqlx::Error> {
    sqlx::query_as(
        "select subtask_id as cell, max(answer_until) filter (where finished_at is null or answer_until > now()) as answer_until
         from imagemill.attempts
         where subtask_id = any ($1)
           and (finished_at is null or state = 'unknown' or (state = 'not_sent' and resolved_at is not null and answer_until > now()))
         group by subtask_id",
    )
    .bind(cells)
    .fetch_all(connection)
    .await
}

/// Of these cells, those whose last attempt that counts was given up under an id: it can be asked for.
///
/// # Errors
/// What PostgreSQL says.
pub async fn given_up(connection: &mut PgConnection, cells: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select given.cell from unnest($1::uuid[]) as given (cell)
         cross join lateral (select state, upstream_id from imagemill.attempts
                             where subtask_id = given.cell and state not in ('not_sent', 'turned_away')
                             order by ordinal desc limit 1) as last
         where last.state = 'abandoned' and last.upstream_id is not null",
    )
    .bind(cells)
    .fetch_all(connection)
    .await
}

/// Of these cells, those whose last attempt was unknown and got its upstream's id late.
///
/// # Errors
/// What PostgreSQL says.
pub async fn with_late_ids(connection: &mut PgConnection, cells: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select given.cell from unnest($1::uuid[]) as given (cell)
         cross join lateral (select state, upstream_id, finished_at from imagemill.attempts
                             where subtask_id = given.cell order by ordinal desc limit 1) as last
         where last.state = 'abandoned' and last.upstream_id is not null",
    )
    .bind(cells)
    .fetch_all(connection)
    .await
}
