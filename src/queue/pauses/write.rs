//! Observations become rows: what comes within a few milliseconds shares a transaction, and what says the same is said once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use sqlx::PgConnection;

use super::{Call, Observation, PauseBackoff, PauseReason, Said, look, rate};
use crate::queue::{
    connections::{Connections, LockWait},
    enqueue::WAKE_CHANNEL,
    error::QueueError,
    group::GroupWork,
};

pub(in crate::queue) struct ObservationWriter {
    pub(in crate::queue) connections: Connections,
}

#[async_trait]
impl GroupWork for ObservationWriter {
    type Member = Observation;
    type Answer = ();
    const WHAT: &'static str = "pauses were not written";

    async fn work(&self, observations: &[Observation], _: LockWait) -> Result<Vec<()>, QueueError> {
        // By lane: rows are locked in this order.
        let mut lanes: BTreeMap<&str, Vec<(&Observation, Duration)>> = BTreeMap::new();
        for observation in observations {
            // Before the transaction begins, whose time is the database's `now()`.
            lanes.entry(&observation.lane).or_default().push((observation, observation.begun.elapsed()));
        }
        let refused = observations.iter().filter(|observation| matches!(observation.said, Said::Refused { .. }));
        let refused: BTreeSet<&str> = refused.map(|observation| &*observation.token_hash).collect();
        self.connections
            .transaction(async |connection| {
                // Before any row: whoever replaces such a token just now does not see the pause, and nobody would end it.
                for token_hash in &refused {
                    look::lock_token(connection, token_hash).await?;
                }
                for (lane, observations) in &lanes {
                    write(connection, lane, observations).await?;
                }
                Ok(())
            })
            .await?;
        Ok(vec![(); observations.len()])
    }
}

/// What one lane is told: each kind once. The locks: its pauses, its health, the lane itself last.
async fn write(connection: &mut PgConnection, lane: &str, observations: &[(&Observation, Duration)]) -> Result<(), QueueError> {
    let mut refusals: BTreeMap<(PauseReason, &str, Call), (&str, Duration)> = BTreeMap::new();
    let mut throttles: Vec<Held<'_>> = Vec::new();
    let mut errors: Vec<(Held<'_>, u32)> = Vec::new();
    let mut works: BTreeMap<(&str, Call, bool), Duration> = BTreeMap::new();
    for &(observation, age) in observations {
        match &observation.said {
            Said::Refused { reason, why, probe_interval } => {
                refusals.insert((*reason, &observation.token_hash, observation.call), (why, *probe_interval));
            }
            Said::Throttled { why, retry_after, backoff } => {
                throttles.push(Held { reason: PauseReason::Throttled, why, retry_after: *retry_after, backoff: *backoff, age });
            }
            Said::Error { why, limit, backoff } => {
                errors.push((Held { reason: PauseReason::Breaker, why, retry_after: None, backoff: *backoff, age }, *limit));
            }
            Said::Works { by_token } => {
                let youngest = works.entry((&observation.token_hash, observation.call, *by_token)).or_insert(age);
                *youngest = age.min(*youngest);
            }
        }
    }
    act_as_engine(connection).await?;
    for ((reason, token_hash, call), (why, probe_interval)) in refusals {
        refuse(connection, lane, reason, token_hash, call, why, probe_interval).await?;
    }
    // Of many that came together the youngest tells whether it is a new strike, and the longest for how long.
    let longest = throttles.into_iter().reduce(|one, other| Held {
        retry_after: one.retry_after.max(other.retry_after),
        age: one.age.min(other.age),
        ..other
    });
    let mut lowered = None;
    if let Some(held) = longest
        && let Some(until) = hold(connection, lane, &held).await?
    {
        lowered = Some((held.why, until, held.age));
    }
    let met = errors.len();
    if let Some((last, limit)) = errors.pop() {
        let in_a_row = count_errors(connection, lane, met, last.why).await?;
        if limit > 0 && in_a_row >= i64::from(limit) {
            let why = format!("{in_a_row} transient errors in a row; the last: {}", last.why);
            hold(connection, lane, &Held { why: &why, ..last }).await?;
        }
    }
    let has_worked = works.keys().any(|(_, call, _)| *call == Call::Submit);
    for ((token_hash, call, by_token), age) in works {
        lift(connection, lane, token_hash, call, by_token, age).await?;
    }
    if has_worked {
        rate::forget_errors(connection, lane).await?;
    }
    match lowered {
        Some((why, until, age)) => rate::lower(connection, lane, why, until, age).await?,
        None if has_worked => rate::raise(connection, lane).await?,
        None => {}
    }
    Ok(())
}

/// A pause that ends by itself.
struct Held<'a> {
    reason: PauseReason,
    why: &'a str,
    retry_after: Option<Duration>,
    backoff: PauseBackoff,
    age: Duration,
}

async fn refuse(
    connection: &mut PgConnection,
    lane: &str,
    reason: PauseReason,
    token_hash: &str,
    call: Call,
    why: &str,
    probe_interval: Duration,
) -> Result<(), QueueError> {
    // A row that stands keeps its beginning and its probe; a refused submit says more than a refused poll. A token that nobody
    // holds any more stops nobody: this answer was late.
    let is_new: Option<bool> = sqlx::query_scalar(
        "insert into imagemill.pauses as p (lane, reason, token_hash, why, call, probe_at)
         select $1, $2, $3, $4, $5, now() + make_interval(secs => $6)
         where exists (select from imagemill.incarnations where token_hash = $3 and ended_at is null)
         on conflict (lane, reason, token_hash) do update
         set why = excluded.why, call = case when 'submit' in (p.call, excluded.call) then 'submit' else p.call end
         returning xmax = 0",
    )
    .bind(lane)
    .bind(reason.as_str())
    .bind(token_hash)
    .bind(why)
    .bind(call.as_str())
    .bind(probe_interval.as_secs_f64())
    .fetch_optional(&mut *connection)
    .await?;
    if is_new == Some(true) {
        tracing::warn!(
            lane,
            reason = reason.as_str(),
            token = token_hash,
            why,
            "the lane is paused for the holders of this token"
        );
        began(connection, lane, reason, token_hash).await?;
    }
    Ok(())
}

/// Holds a lane for everybody. Returns until when, if this is a new strike: an answer to a call that was begun before the last
/// one ended is part of that one, and makes it at most longer.
async fn hold(
    connection: &mut PgConnection,
    lane: &str,
    held: &Held<'_>,
) -> Result<Option<chrono::DateTime<chrono::Utc>>, QueueError> {
    let (until, strikes, is_new): (chrono::DateTime<chrono::Utc>, i32, bool) = sqlx::query_as(
        "insert into imagemill.pauses as p (lane, reason, why, until)
         values ($1, $2, $3, now() + make_interval(secs => coalesce($4, $5)))
         on conflict (lane, reason, token_hash) do update
         set why = excluded.why,
             probe_at = case when now() - make_interval(secs => $7) > p.until then null else p.probe_at end,
             since = case when now() - make_interval(secs => $7) > p.until then now() else p.since end,
             strikes = case when now() - make_interval(secs => $7) > p.until then least(p.strikes + 1, 1000) else p.strikes end,
             until = case when now() - make_interval(secs => $7) > p.until
                          then now() + make_interval(secs => coalesce($4, least($5 * 2 ^ least(p.strikes, 30), $6)))
                          else greatest(p.until, now() + make_interval(secs => coalesce($4, 0))) end
         returning until, strikes, since = now()",
    )
    .bind(lane)
    .bind(held.reason.as_str())
    .bind(held.why)
    .bind(held.retry_after.map(|said| said.as_secs_f64()))
    .bind(held.backoff.shortest.as_secs_f64())
    .bind(held.backoff.longest.as_secs_f64())
    .bind(held.age.as_secs_f64())
    .fetch_one(&mut *connection)
    .await?;
    if !is_new {
        return Ok(None);
    }
    tracing::warn!(lane, reason = held.reason.as_str(), strikes, %until, why = held.why, "the lane is paused for everybody");
    began(connection, lane, held.reason, "").await?;
    Ok(Some(until))
}

async fn count_errors(connection: &mut PgConnection, lane: &str, met: usize, why: &str) -> Result<i64, QueueError> {
    let in_a_row: i32 = sqlx::query_scalar(
        "insert into imagemill.lane_health as h (lane, errors_in_a_row, last_error) values ($1, $2, $3)
         on conflict (lane) do update
         set errors_in_a_row = least(h.errors_in_a_row + $2, 1000000), last_error = excluded.last_error
         returning errors_in_a_row",
    )
    .bind(lane)
    .bind(i32::try_from(met).unwrap_or(i32::MAX))
    .bind(why)
    .fetch_one(connection)
    .await?;
    Ok(in_a_row.into())
}

/// Ends the pauses that a call proves wrong: it was begun after they were, or after their time was over.
async fn lift(
    connection: &mut PgConnection,
    lane: &str,
    token_hash: &str,
    call: Call,
    by_token: bool,
    age: Duration,
) -> Result<(), QueueError> {
    let lifted: Vec<(String, String)> = sqlx::query_as(
        "with begun as (
             select now() - make_interval(secs => $5) as at
         ), lifted as (
             delete from imagemill.pauses p using begun
             where p.lane = $1
               and case when p.reason in ('auth', 'payment')
                        then p.token_hash = $2 and $4 and $3 in ('submit', p.call) and p.since < begun.at
                        else p.reason in ('throttled', 'breaker') and $3 = 'submit' and p.until <= begun.at end
             returning p.*
         ), told as (
             insert into imagemill.audit (who, what, subject, old_value)
             select 'system', 'resume_lane', 'lane/' || lane, to_jsonb(lifted) || '{\"ended_by\": \"a success\"}' from lifted
         ), woken as (
             select pg_notify($6, '') where exists (select from lifted)
         )
         select reason, token_hash from lifted left join woken on true",
    )
    .bind(lane)
    .bind(token_hash)
    .bind(call.as_str())
    .bind(by_token)
    .bind(age.as_secs_f64())
    .bind(WAKE_CHANNEL)
    .fetch_all(connection)
    .await?;
    for (reason, token) in lifted {
        tracing::info!(lane, reason, token, "the lane goes on");
    }
    Ok(())
}

/// For the rest of the transaction: what the tables' own triggers would write into the audit as a person's is written here.
pub(super) async fn act_as_engine(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select set_config('imagemill.engine', 'on', true)").execute(connection).await?;
    Ok(())
}

/// The trace that stays.
async fn began(connection: &mut PgConnection, lane: &str, reason: PauseReason, token_hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into imagemill.audit (who, what, subject, new_value)
         select 'system', 'pause_lane', 'lane/' || lane, to_jsonb(p) from imagemill.pauses p
         where lane = $1 and reason = $2 and token_hash = $3",
    )
    .bind(lane)
    .bind(reason.as_str())
    .bind(token_hash)
    .execute(connection)
    .await?;
    Ok(())
}

/// A change of a lane's rate, as the audit has it.
pub(super) async fn rate_changed(
    connection: &mut PgConnection,
    lane: &str,
    what: &str,
    old: Option<f64>,
    new: Option<f64>,
    why: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("insert into imagemill.audit (who, what, subject, old_value, new_value) values ('system', $1, $2, $3, $4)")
        .bind(what)
        .bind(format!("lane/{lane}"))
        .bind(json!({ "current_rate": old }))
        .bind(json!({ "current_rate": new, "why": why }))
        .execute(connection)
        .await?;
    Ok(())
}
