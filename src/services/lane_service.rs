//! Lanes: looking at them, pausing them, their limits. The audit is written by the tables themselves, so that what is changed by
//! hand is in it as well.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, Transaction};

use super::{actor::Actor, context::Context, error::ServiceError};
use crate::{
    crud::{
        lanes::{self, LaneRow},
        steering,
    },
    models::Permission,
};

pub use crate::crud::lanes::NewLimits;

/// No lane has more places, nor a larger burst.
const MOST: i32 = 1_000_000;

/// The lanes.
///
/// # Errors
/// See [`ServiceError`].
pub async fn list_lanes(context: &Context, actor: &Actor) -> Result<Vec<LaneRow>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    Ok(lanes::get_all(&mut connection).await?)
}

/// Pauses a lane: nothing is submitted to it; what is accepted is polled on. Until it is resumed, or until a time.
///
/// # Errors
/// See [`ServiceError`].
pub async fn pause_lane(
    context: &Context,
    actor: &Actor,
    lane: &str,
    why: &str,
    until: Option<DateTime<Utc>>,
) -> Result<(), ServiceError> {
    if why.trim().is_empty() {
        return Err(ServiceError::Usage("say why the lane is paused: whoever waits for it reads that".to_owned()));
    }
    let mut transaction = begin(context, actor, lane).await?;
    lanes::pause(&mut transaction, lane, why, until).await?;
    transaction.commit().await?;
    Ok(())
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
    // As the table's own checks: a claim cannot reckon with more.
    let is_rate = |rate: f64| (0.0001..=1_000_000.0).contains(&rate);
    let faults: Vec<&str> = [
        (limits.max_in_flight.is_some_and(|limit| !(0..=MOST).contains(&limit)), "max_in_flight is between 0 and 1000000"),
        (
            limits.submits_per_second.flatten().is_some_and(|rate| !is_rate(rate)),
            "submits_per_second is between 0.0001 and 1000000",
        ),
        (limits.burst.is_some_and(|burst| !(1..=MOST).contains(&burst)), "burst is between 1 and 1000000"),
        (limits.polls_per_second.flatten().is_some_and(|rate| !is_rate(rate)), "polls_per_second is between 0.0001 and 1000000"),
        (limits.max_submits_per_day.flatten().is_some_and(|limit| limit < 0), "max_submits_per_day is 0 or more"),
        (*limits == NewLimits::default(), "name a limit to set"),
    ]
    .into_iter()
    .filter_map(|(is_fault, says)| is_fault.then_some(says))
    .collect();
    if !faults.is_empty() {
        return Err(ServiceError::Usage(faults.join("; ")));
    }
    let mut transaction = begin(context, actor, lane).await?;
    lanes::set_limits(&mut transaction, lane, limits).await?;
    transaction.commit().await?;
    Ok(())
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
