//! Lanes: looking at them, pausing them, their limits. The audit is written by the tables themselves, so that what is changed by
//! hand is in it as well.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::{Postgres, Transaction};

use super::{actor::Actor, bounds::Moment, context::Context, error::ServiceError};
use crate::{
    crud::{
        bounds,
        lanes::{self, LaneRow},
        steering,
    },
    models::Permission,
};

pub use crate::crud::lanes::NewLimits;

/// No lane has more places, nor a larger burst.
const MOST: i32 = 1_000_000;

/// Submits, or polls, a second.
const RATES: std::ops::RangeInclusive<f64> = 0.0001..=1_000_000.0;

/// The lanes.
///
/// # Errors
/// See [`ServiceError`].
pub async fn list_lanes(context: &Context, actor: &Actor) -> Result<Vec<LaneRow>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(lanes::get_all(&mut connection).await?)
}

/// Pauses a lane: nothing is submitted to it; what is accepted is polled on. Until it is resumed, or until a time, which is returned.
///
/// # Errors
/// See [`ServiceError`].
pub async fn pause_lane(
    context: &Context,
    actor: &Actor,
    lane: &str,
    why: &str,
    until: Option<Moment>,
) -> Result<Option<DateTime<Utc>>, ServiceError> {
    if why.trim().is_empty() {
        return Err(ServiceError::Usage("say why the lane is paused: whoever waits for it reads that".to_owned()));
    }
    if why.chars().any(char::is_control) {
        return Err(ServiceError::Usage("say why the lane is paused in one line".to_owned()));
    }
    let mut transaction = begin(context, actor, lane).await?;
    let now = bounds::now(&mut transaction).await?;
    let until = until.map(|until| until.resolve(now));
    if let Some(until) = until.filter(|until| *until <= now) {
        let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
        return Err(ServiceError::Usage(format!("until: {until} is over: nothing would be paused")));
    }
    lanes::pause(&mut transaction, lane, why, until).await?;
    transaction.commit().await?;
    Ok(until)
}

/// Lifts an operator's pause. False: there was none; a pause for another reason ends by itself.
///
/// # Errors
/// See [`ServiceError`].
pub async fn resume_lane(context: &Context, actor: &Actor, lane: &str) -> Result<bool, ServiceError> {
    let mut transaction = begin(context, actor, lane).await?;
    let was_paused = lanes::resume(&mut transaction, lane).await?;
    transaction.commit().await?;
    Ok(was_paused)
}

/// Changes a lane's limits.
///
/// # Errors
/// See [`ServiceError`]; every fault of them at once.
pub async fn set_lane_limits(context: &Context, actor: &Actor, lane: &str, limits: &NewLimits) -> Result<(), ServiceError> {
    let faults = faults(limits);
    if !faults.is_empty() {
        return Err(ServiceError::Usage(faults.join("; ")));
    }
    let mut transaction = begin(context, actor, lane).await?;
    let is_part = limits.ramp_start.flatten().is_none() || limits.ramp_step.is_none() || limits.ramp_interval.is_none();
    if has_ramp(limits) && is_part && !lanes::has_ramp(&mut transaction, lane).await? {
        let message = format!("{lane} has no ramp: name its ramp_start, ramp_step and ramp_interval together");
        return Err(ServiceError::Usage(message));
    }
    lanes::set_limits(&mut transaction, lane, limits).await?;
    transaction.commit().await?;
    Ok(())
}

/// Whether something of a ramp is to be set.
fn has_ramp(limits: &NewLimits) -> bool {
    limits.ramp_start.flatten().is_some() || limits.ramp_step.is_some() || limits.ramp_interval.is_some()
}

/// What the table's own checks would refuse: a claim cannot reckon with more.
fn faults(limits: &NewLimits) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |is_right: bool, says: &str| {
        if !is_right {
            faults.push(says.to_owned());
        }
    };
    check(*limits != NewLimits::default(), "name a limit to set");
    check(limits.max_in_flight.is_none_or(|limit| (0..=MOST).contains(&limit)), "max_in_flight is between 0 and 1000000");
    check(limits.burst.is_none_or(|burst| (1..=MOST).contains(&burst)), "burst is between 1 and 1000000");
    check(limits.max_submits_per_day.flatten().is_none_or(|limit| limit >= 0), "max_submits_per_day is 0 or more");
    for (name, rate) in [
        ("submits_per_second", limits.submits_per_second.flatten()),
        ("polls_per_second", limits.polls_per_second.flatten()),
        ("current_rate", limits.current_rate.flatten()),
        ("rate_floor", limits.rate_floor),
    ] {
        check(rate.is_none_or(|rate| RATES.contains(&rate)), &format!("{name} is between 0.0001 and 1000000"));
    }
    let is_gone = limits.ramp_start == Some(None);
    check(!is_gone || !has_ramp(limits), "a ramp that is taken away has neither a step nor an interval");
    check(limits.ramp_start.flatten().is_none_or(|start| (1..=MOST).contains(&start)), "ramp_start is between 1 and 1000000");
    check(limits.ramp_step.is_none_or(|step| (1..=10_000).contains(&step)), "ramp_step is between 1 and 10000");
    let intervals = Duration::from_millis(1)..=Duration::from_hours(24);
    check(limits.ramp_interval.is_none_or(|interval| intervals.contains(&interval)), "ramp_interval is between 1ms and 24h");
    check(limits.max_job_time.is_none_or(|time| time <= Duration::from_hours(7 * 24)), "max_job_time is 7d at most");
    faults
}

/// A transaction in which the actor is the one whom the audit names.
async fn begin(context: &Context, actor: &Actor, lane: &str) -> Result<Transaction<'static, Postgres>, ServiceError> {
    actor.require(Permission::ManageLanes)?;
    let mut transaction = context.begin().await?;
    if !lanes::exists(&mut transaction, lane).await? {
        return Err(ServiceError::NotFound { what: "lane", id: lane.to_owned() });
    }
    steering::act_as(&mut transaction, &actor.username).await?;
    Ok(transaction)
}
