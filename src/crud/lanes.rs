//! `imagemill.lanes` and the operators' pauses of them, as people see and set them.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, prelude::FromRow};

/// A lane as people see it.
#[derive(Debug, Clone, PartialEq, FromRow, serde::Serialize)]
pub struct LaneRow {
    /// `prod`, `ops` or `dev`.
    pub lane: String,
    /// Cells in flight over all workers, at most.
    pub max_in_flight: i32,
    /// Submits a second over all workers; none: no limit.
    pub submits_per_second: Option<f64>,
    /// Submits that may come at once.
    pub burst: i32,
    /// Polls a second over all workers; none: no limit.
    pub polls_per_second: Option<f64>,
    /// Submits a day (UTC); none: no limit.
    pub max_submits_per_day: Option<i64>,
    /// Submits of today (UTC), without those that were surely not billed.
    pub submits_today: i64,
    /// Open attempts, and those given up on which the upstream may still be working: each takes a place.
    pub in_flight: i64,
    /// Why it does not submit; none: it does.
    pub pauses: Vec<String>,
}

/// The lanes, by name.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_all(connection: &mut PgConnection) -> Result<Vec<LaneRow>, sqlx::Error> {
    sqlx::query_as(
        "select l.lane, l.max_in_flight, l.submits_per_second, l.burst, l.polls_per_second, l.max_submits_per_day,
                (select coalesce(sum(d.submits), 0) from imagemill.lane_days d
                 where d.lane = l.lane and d.day = (now() at time zone 'UTC')::date)::bigint
                + (select count(*) from imagemill.attempts a where a.lane = l.lane and a.finished_at is null
                   and a.submitted_at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC') as submits_today,
                (select count(*) from imagemill.attempts a where a.lane = l.lane and a.finished_at is null)
                + (select count(*) from imagemill.attempts a
                   where a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time) as in_flight,
                array(select concat_ws(' ', p.reason, nullif(p.token_hash, ''))
                             || ': ' || p.why || coalesce(' (until ' || to_char(p.until at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS\"Z\"') || ')', '')
                      from imagemill.pauses p
                      where p.lane = l.lane and (p.until is null or p.until > now()) order by p.since, p.reason) as pauses
         from imagemill.lanes l order by l.lane",
    )
    .fetch_all(connection)
    .await
}

/// When the next day of the lanes' budgets begins: midnight UTC.
///
/// # Errors
/// What PostgreSQL says.
pub async fn next_day(connection: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar("select (date_trunc('day', now() at time zone 'UTC') + interval '1 day') at time zone 'UTC'")
        .fetch_one(connection)
        .await
}

/// Pauses a lane as an operator; a pause that stands gets these words and this end.
///
/// # Errors
/// What PostgreSQL says; there must be such a lane.
pub async fn pause(
    connection: &mut PgConnection,
    lane: &str,
    why: &str,
    until: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into imagemill.pauses (lane, reason, why, until) values ($1, 'operator', $2, $3)
         on conflict on constraint pauses_pkey do update set why = excluded.why, until = excluded.until",
    )
    .bind(lane)
    .bind(why)
    .bind(until)
    .execute(connection)
    .await?;
    Ok(())
}

/// Lifts an operator's pause. False: there is none.
///
/// # Errors
/// What PostgreSQL says.
pub async fn resume(connection: &mut PgConnection, lane: &str) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query("delete from imagemill.pauses where lane = $1 and reason = 'operator' and token_hash = ''")
        .bind(lane)
        .execute(connection)
        .await?
        .rows_affected();
    Ok(rows > 0)
}

/// What is to be changed of a lane: the outer none leaves a limit as it is, the inner one takes it away.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NewLimits {
    /// See [`LaneRow::max_in_flight`].
    pub max_in_flight: Option<i32>,
    /// See [`LaneRow::submits_per_second`].
    pub submits_per_second: Option<Option<f64>>,
    /// See [`LaneRow::burst`].
    pub burst: Option<i32>,
    /// See [`LaneRow::polls_per_second`].
    pub polls_per_second: Option<Option<f64>>,
    /// See [`LaneRow::max_submits_per_day`].
    pub max_submits_per_day: Option<Option<i64>>,
}

/// Changes a lane's limits. False: there is no such lane.
///
/// # Errors
/// What PostgreSQL says.
pub async fn set_limits(connection: &mut PgConnection, lane: &str, limits: &NewLimits) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "update imagemill.lanes
         set max_in_flight = coalesce($2, max_in_flight), burst = coalesce($3, burst),
             submits_per_second = case when $4 then $5 else submits_per_second end,
             polls_per_second = case when $6 then $7 else polls_per_second end,
             max_submits_per_day = case when $8 then $9 else max_submits_per_day end, updated_at = now()
         where lane = $1",
    )
    .bind(lane)
    .bind(limits.max_in_flight)
    .bind(limits.burst)
    .bind(limits.submits_per_second.is_some())
    .bind(limits.submits_per_second.flatten())
    .bind(limits.polls_per_second.is_some())
    .bind(limits.polls_per_second.flatten())
    .bind(limits.max_submits_per_day.is_some())
    .bind(limits.max_submits_per_day.flatten())
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Whether there is such a lane.
///
/// # Errors
/// What PostgreSQL says.
pub async fn exists(connection: &mut PgConnection, lane: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from imagemill.lanes where lane = $1)").bind(lane).fetch_one(connection).await
}
