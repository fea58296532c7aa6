//! `imagemill.lanes` and the operators' pauses of them, as people see and set them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, prelude::FromRow};

/// What holds a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanePause {
    /// `auth`, `payment`, `throttled`, `breaker` or `operator`.
    pub reason: String,
    /// Whom it holds: the holders of this token. None: everybody.
    pub token_hash: Option<String>,
    /// What the upstream or the operator said.
    pub why: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Until when. None: until a probe is answered, or a person lifts it.
    pub until: Option<DateTime<Utc>>,
}

/// A lane as people see it.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize)]
pub struct LaneRow {
    /// `prod`, `ops` or `dev`.
    pub lane: String,
    /// Cells in flight over all workers, at most.
    pub max_in_flight: i32,
    /// Submits a second over all workers; none: no limit.
    pub submits_per_second: Option<f64>,
    /// Submits a second after repeated throttling, where that is less; none: it was not lowered.
    pub current_rate: Option<f64>,
    /// Whether workers lower and raise it.
    pub rate_adapts: bool,
    /// They do not lower it below this.
    pub rate_floor: f64,
    /// Submits that may come at once.
    pub burst: i32,
    /// Polls a second over all workers; none: no limit.
    pub polls_per_second: Option<f64>,
    /// Places of a lane that starts cold; none: it has no ramp.
    pub ramp_start: Option<i32>,
    /// Places that are added every interval.
    pub ramp_step: Option<i32>,
    /// That interval, in seconds.
    pub ramp_interval: Option<f64>,
    /// A lane that was idle for so many seconds starts cold again; none: it never does.
    pub ramp_idle_reset: Option<f64>,
    /// An attempt that was given up counts as in flight for so many seconds.
    pub max_job_time: f64,
    /// Submits a day (UTC); none: no limit.
    pub max_submits_per_day: Option<i64>,
    /// Submits of today (UTC), without those that were surely not billed.
    pub submits_today: i64,
    /// Open attempts, and those given up on which the upstream may still be working: each takes a place.
    pub in_flight: i64,
    /// Its pauses that hold, the oldest first.
    #[sqlx(json)]
    pub pauses: Vec<LanePause>,
}

/// The lanes, by name.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_all(connection: &mut PgConnection) -> Result<Vec<LaneRow>, sqlx::Error> {
    sqlx::query_as(
        "select l.lane, l.max_in_flight, l.submits_per_second, l.current_rate, l.rate_adapts, l.rate_floor, l.burst,
                l.polls_per_second, l.ramp_start, l.ramp_step, extract(epoch from l.ramp_interval)::float8 as ramp_interval,
                extract(epoch from l.ramp_idle_reset)::float8 as ramp_idle_reset,
                extract(epoch from l.max_job_time)::float8 as max_job_time, l.max_submits_per_day,
                (select coalesce(sum(d.submits), 0) from imagemill.lane_days d
                 where d.lane = l.lane and d.day = (now() at time zone 'UTC')::date)::bigint
                + (select count(*) from imagemill.attempts a where a.lane = l.lane and a.finished_at is null
                   and a.submitted_at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC') as submits_today,
                (select count(*) from imagemill.attempts a where a.lane = l.lane and a.finished_at is null)
                + (select count(*) from imagemill.attempts a
                   where a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time) as in_flight,
                (select coalesce(jsonb_agg(jsonb_build_object('reason', p.reason, 'token_hash', nullif(p.token_hash, ''), 'why', p.why,
                                                              'since', p.since, 'until', nullif(p.until, 'infinity')) order by p.since, p.reason), '[]')
                 from imagemill.pauses p where p.lane = l.lane and (p.until is null or p.until > now())) as pauses
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
    /// See [`LaneRow::current_rate`].
    pub current_rate: Option<Option<f64>>,
    /// See [`LaneRow::rate_adapts`].
    pub rate_adapts: Option<bool>,
    /// See [`LaneRow::rate_floor`].
    pub rate_floor: Option<f64>,
    /// See [`LaneRow::burst`].
    pub burst: Option<i32>,
    /// See [`LaneRow::polls_per_second`].
    pub polls_per_second: Option<Option<f64>>,
    /// See [`LaneRow::ramp_start`]; none takes the whole ramp away.
    pub ramp_start: Option<Option<i32>>,
    /// See [`LaneRow::ramp_step`].
    pub ramp_step: Option<i32>,
    /// See [`LaneRow::ramp_interval`].
    pub ramp_interval: Option<Duration>,
    /// See [`LaneRow::ramp_idle_reset`].
    pub ramp_idle_reset: Option<Option<Duration>>,
    /// See [`LaneRow::max_job_time`].
    pub max_job_time: Option<Duration>,
    /// See [`LaneRow::max_submits_per_day`].
    pub max_submits_per_day: Option<Option<i64>>,
}

/// Whether a lane has a ramp; its row is locked.
///
/// # Errors
/// What PostgreSQL says; there must be such a lane.
pub async fn has_ramp(connection: &mut PgConnection, lane: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select ramp_start is not null from imagemill.lanes where lane = $1 for no key update")
        .bind(lane)
        .fetch_one(connection)
        .await
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
             max_submits_per_day = case when $8 then $9 else max_submits_per_day end,
             current_rate = case when $10 then $11 else current_rate end,
             rate_adapts = coalesce($12, rate_adapts), rate_floor = coalesce($13, rate_floor),
             ramp_start = case when $14 then $15 else ramp_start end,
             ramp_step = case when not $14 or $15 is not null then coalesce($16, ramp_step) end,
             ramp_interval = case when not $14 or $15 is not null then coalesce(make_interval(secs => $17), ramp_interval) end,
             ramp_idle_reset = case when $18 then make_interval(secs => $19) else ramp_idle_reset end,
             max_job_time = coalesce(make_interval(secs => $20), max_job_time), updated_at = now()
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
    .bind(limits.current_rate.is_some())
    .bind(limits.current_rate.flatten())
    .bind(limits.rate_adapts)
    .bind(limits.rate_floor)
    .bind(limits.ramp_start.is_some())
    .bind(limits.ramp_start.flatten())
    .bind(limits.ramp_step)
    .bind(limits.ramp_interval.map(|interval| interval.as_secs_f64()))
    .bind(limits.ramp_idle_reset.is_some())
    .bind(limits.ramp_idle_reset.flatten().map(|idle| idle.as_secs_f64()))
    .bind(limits.max_job_time.map(|time| time.as_secs_f64()))
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
