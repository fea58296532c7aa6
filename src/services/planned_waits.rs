//! What of a task that is to be created would wait: for its own budget, and for those of the lanes' days.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{actor::Actor, context::Context, create_task::PlannedTask, error::ServiceError};
use crate::{
    crud::{bounds::BoundsRow, lanes},
    models::Permission,
};

/// What bounds a task that is to be created.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlannedWaits {
    /// The task's own.
    #[serde(flatten)]
    pub bounds: BoundsRow,
    /// Cells that are to be paid for and for which its budget does not suffice, if each needs one submit.
    pub over_budget: i64,
    /// What the days of its lanes leave, where they have a budget; none: no database was asked.
    pub days: Option<BTreeMap<String, PlannedDay>>,
}

/// What is left of a lane's day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct PlannedDay {
    /// Submits that the day allows.
    pub max_submits_per_day: i64,
    /// Submits that are left of it; all tasks share them.
    pub left: i64,
    /// Cells of the task that could not be submitted today even if it got all of them.
    pub over_day: i64,
    /// When the next day begins: midnight UTC.
    pub until: DateTime<Utc>,
}

/// What the task's own bounds make of it; the lanes are not known.
pub fn of_task(plan: &PlannedTask, bounds: BoundsRow) -> PlannedWaits {
    let over_budget = bounds.max_submits.map_or(0, |budget| (i64::from(to_be_paid(plan)) - budget).max(0));
    PlannedWaits { bounds, over_budget, days: None }
}

fn to_be_paid(plan: &PlannedTask) -> i32 {
    plan.reuse.map_or(plan.total_images, |reuse| reuse.new_images)
}

/// What the days of its lanes leave now.
///
/// # Errors
/// See [`ServiceError`].
pub async fn days(context: &Context, actor: &Actor, plan: &PlannedTask) -> Result<BTreeMap<String, PlannedDay>, ServiceError> {
    actor.require(Permission::ViewResults)?;
    let mut connection = context.reader().await?;
    let until = lanes::next_day(&mut connection).await?;
    let mut days = BTreeMap::new();
    for lane in lanes::get_all(&mut connection).await? {
        let (Some(cells), Some(limit)) = (plan.lanes.get(&lane.lane), lane.max_submits_per_day) else { continue };
        let left = (limit - lane.submits_today).max(0);
        let over_day = (i64::from((*cells).min(to_be_paid(plan))) - left).max(0);
        days.insert(lane.lane, PlannedDay { max_submits_per_day: limit, left, over_day, until });
    }
    Ok(days)
}
