//! A lane's rate: lowered by half when the upstream throttles again, raised by a step while it does not (additive increase,
//! multiplicative decrease). It is the lane's `current_rate`, which the claim keeps to.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::write::rate_changed;
use crate::queue::error::QueueError;

/// A throttling so soon after the last one ended is one of a row.
const REPEATED: &str = "1 minute";

/// Halves the rate, down to the floor, if the lane was throttled shortly before. Submits that were out together lower it once,
/// however late one of them is answered: what was begun so long ago, before the last throttling ended, is part of that. A lane without a rate of its own is taken as
/// one that fills its places once a second.
pub(super) async fn lower(
    connection: &mut PgConnection,
    lane: &str,
    why: &str,
    until: DateTime<Utc>,
    age: Duration,
) -> Result<(), QueueError> {
    let is_repeated: bool = sqlx::query_scalar(
        "with before as (
             select throttled_until > now() - $3::interval and throttled_until < now() - make_interval(secs => $4) as is_repeated
             from imagemill.lane_health where lane = $1 for update
         ), noted as (
             insert into imagemill.lane_health (lane, throttled_until) values ($1, $2)
             on conflict (lane) do update set throttled_until = excluded.throttled_until
         )
         select coalesce((select is_repeated from before), false)",
    )
    .bind(lane)
    .bind(until)
    .bind(REPEATED)
    .bind(age.as_secs_f64())
    .fetch_one(&mut *connection)
    .await?;
    if !is_repeated {
        return Ok(());
    }
    let changed: Option<(Option<f64>, f64)> = sqlx::query_as(
        "with before as (
             select lane, current_rate, least(coalesce(current_rate, full_rate), full_rate) as rate
             from (select *, coalesce(submits_per_second, greatest(max_in_flight, 1)) as full_rate
                   from imagemill.lanes where lane = $1 and rate_adapts for no key update) as given
         )
         update imagemill.lanes l set current_rate = greatest(before.rate / 2, l.rate_floor), updated_at = now()
         from before where l.lane = before.lane and before.rate > l.rate_floor
         returning before.current_rate, l.current_rate",
    )
    .bind(lane)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some((old, new)) = changed {
        tracing::warn!(lane, ?old, new, why, "throttled again: the lane's rate is lowered");
        note(connection, lane, &format!("lowered: throttled again: {why}")).await?;
        rate_changed(connection, lane, "lower_rate", old, Some(new), why).await?;
    }
    Ok(())
}

/// Raises the rate by a step, if it was lowered and an interval has passed since the last change and the last throttling.
pub(super) async fn raise(connection: &mut PgConnection, lane: &str) -> Result<(), QueueError> {
    // First, as everybody who changes a rate does.
    sqlx::query("select from imagemill.lane_health where lane = $1 for update").bind(lane).execute(&mut *connection).await?;
    let changed: Option<(f64, Option<f64>)> = sqlx::query_as(
        "with before as (
             select l.lane, l.current_rate, l.current_rate + l.rate_step as rate,
                    coalesce(l.submits_per_second, greatest(l.max_in_flight, 1)) as full_rate
             from imagemill.lanes l
             left join imagemill.lane_health h on h.lane = l.lane
             where l.lane = $1 and l.rate_adapts and l.current_rate is not null
               and now() - l.rate_interval >= greatest(h.rate_changed_at, h.throttled_until, '-infinity')
             for no key update of l
         )
         update imagemill.lanes l
         set current_rate = case when before.rate < before.full_rate then before.rate end, updated_at = now()
         from before where l.lane = before.lane and l.current_rate = before.current_rate
         returning before.current_rate, l.current_rate",
    )
    .bind(lane)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some((old, new)) = changed {
        tracing::info!(lane, old, ?new, "the lane's rate is raised");
        note(connection, lane, "raised: submits are taken").await?;
        if new.is_none() {
            rate_changed(connection, lane, "restore_rate", Some(old), None, "submits are taken").await?;
        }
    }
    Ok(())
}

/// A submit was taken: errors are in a row no longer.
pub(super) async fn forget_errors(connection: &mut PgConnection, lane: &str) -> Result<(), QueueError> {
    sqlx::query("update imagemill.lane_health set errors_in_a_row = 0 where lane = $1 and errors_in_a_row > 0")
        .bind(lane)
        .execute(connection)
        .await?;
    Ok(())
}

async fn note(connection: &mut PgConnection, lane: &str, why: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into imagemill.lane_health (lane, rate_changed_at, rate_why) values ($1, now(), $2)
         on conflict (lane) do update set rate_changed_at = now(), rate_why = excluded.rate_why",
    )
    .bind(lane)
    .bind(why)
    .execute(connection)
    .await?;
    Ok(())
}
