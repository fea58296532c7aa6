//! What bounds a task's submits: how many there may be, and between which times.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::{
    config,
    crud::{
        bounds::{self, BoundsRow},
        steering,
    },
    models::{Fault, Faults},
};

/// A time, or so long from now by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// That time.
    At(DateTime<Utc>),
    /// So long from now.
    In(Duration),
}

impl Moment {
    /// Reads a time (RFC 3339), or a duration as settings have it; none: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let at = DateTime::parse_from_rfc3339(text).ok().map(|time| Self::At(time.to_utc()));
        at.or_else(|| config::parse_duration(text).map(Self::In))
    }

    pub(super) fn resolve(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(time) => time,
            Self::In(duration) => {
                TimeDelta::from_std(duration).ok().and_then(|delta| now.checked_add_signed(delta)).unwrap_or(now)
            }
        }
    }
}

/// What is to be set of a task's bounds: the outer none leaves one as it is, which for a new task is none; the inner one takes it
/// away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewBounds {
    /// Submits, those that may have been billed included; 0 or more.
    pub max_submits: Option<Option<i64>>,
    /// No submit before it.
    pub not_before: Option<Option<Moment>>,
    /// No submit after it: what is pending then is cancelled.
    pub not_after: Option<Option<Moment>>,
}

impl NewBounds {
    /// Reads them as people write them: a number, a time or a duration from now, or `none`.
    ///
    /// # Errors
    /// Every text that is none of these.
    pub fn read(max_submits: Option<&str>, not_before: Option<&str>, not_after: Option<&str>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let read = Self {
            max_submits: read("max_submits", max_submits, "a whole number", |text| text.parse().ok(), &mut faults),
            not_before: read("not_before", not_before, TIMES, Moment::parse, &mut faults),
            not_after: read("not_after", not_after, TIMES, Moment::parse, &mut faults),
        };
        if faults.is_empty() {
            return Ok(read);
        }
        // What could be read may have faults of its own. A database of another clock has the last word.
        if let Err(Faults(others)) = read.apply(BoundsRow::default(), Utc::now()) {
            faults.extend(others);
        }
        Err(Faults(faults))
    }

    /// What they make of these bounds, now.
    ///
    /// # Errors
    /// Every fault: a negative budget, a last moment that is over or comes before the first.
    pub fn apply(&self, before: BoundsRow, now: DateTime<Utc>) -> Result<BoundsRow, Faults> {
        let time = |new: Option<Option<Moment>>, old| new.map_or(old, |moment| moment.map(|moment| moment.resolve(now)));
        let after = BoundsRow {
            max_submits: self.max_submits.unwrap_or(before.max_submits),
            not_before: time(self.not_before, before.not_before),
            not_after: time(self.not_after, before.not_after),
        };
        let shown = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut faults = Vec::new();
        let mut fault = |path: &str, message: String| faults.push(Fault { path: path.to_owned(), message });
        if let Some(Some(max_submits)) = self.max_submits
            && max_submits < 0
        {
            fault("max_submits", format!("must be 0 or more, not {max_submits}"));
        }
        if let (Some(Some(_)), Some(not_after)) = (self.not_after, after.not_after)
            && not_after <= now
        {
            fault("not_after", format!("{} is over: nothing would be submitted", shown(not_after)));
        }
        if let (Some(not_before), Some(not_after)) = (after.not_before, after.not_after)
            && (self.not_before.is_some() || self.not_after.is_some())
            && not_after <= not_before
        {
            fault("not_after", format!("{} is not after not_before, {}", shown(not_after), shown(not_before)));
        }
        if faults.is_empty() { Ok(after) } else { Err(Faults(faults)) }
    }
}

const TIMES: &str = "a time (2026-12-24T18:00:00Z) or a duration from now (2h)";

#[allow(clippy::option_option, reason = "outer: is it to be set, inner: to what")]
fn read<T>(
    path: &str,
    text: Option<&str>,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
    faults: &mut Vec<Fault>,
) -> Option<Option<T>> {
    let text = text?;
    if text == "none" {
        return Some(None);
    }
    let parsed = parse(text);
    if parsed.is_none() {
        faults.push(Fault { path: path.to_owned(), message: format!("must be {what}, or none, not {text:?}") });
    }
    parsed.map(Some)
}

/// Sets what bounds a task's submits; the table itself writes the audit. A budget that is raised is gone on with at once. What was
/// cancelled when `not_after` came stays cancelled: a retry opens it again.
///
/// # Errors
/// See [`ServiceError`]; every fault at once, and nothing is changed then.
pub async fn limit_task(context: &Context, actor: &Actor, id: Uuid, new: &NewBounds) -> Result<BoundsRow, ServiceError> {
    if *new == NewBounds::default() {
        return Err(ServiceError::Usage("name what is to be set: --max-submits, --not-before or --not-after".to_owned()));
    }
    let missing = || ServiceError::NotFound { what: "task", id: id.to_string() };
    let mut transaction = context.begin().await?;
    let task = task_service::get_or_say_why_not(&mut transaction, id).await?;
    actor.require_manage(task.user_id)?;
    let before = bounds::lock(&mut transaction, id).await?.ok_or_else(missing)?;
    let now = bounds::now(&mut transaction).await?;
    let after = new.apply(before, now)?;
    steering::act_as(&mut transaction, &actor.username).await?;
    bounds::set(&mut transaction, id, &after).await?;
    transaction.commit().await?;
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000, 0).unwrap()
    }

    fn apply(new: NewBounds) -> Result<BoundsRow, String> {
        let before = BoundsRow { max_submits: Some(3), not_before: None, not_after: DateTime::from_timestamp(1_000_500, 0) };
        new.apply(before, now()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn times_and_durations_are_read_and_everything_else_is_named() {
        let read = NewBounds::read(Some("7"), Some("2h"), Some("2026-12-24T18:00:00+01:00")).unwrap();
        assert_eq!(read.not_before, Some(Some(Moment::In(Duration::from_hours(2)))));
        assert_eq!(read.not_after, Some(Some(Moment::At("2026-12-24T17:00:00Z".parse().unwrap()))));
        assert_eq!(NewBounds::read(Some("none"), None, None).unwrap().max_submits, Some(None));
        let faults = NewBounds::read(Some("-1"), Some("soon"), None).unwrap_err();
        assert_eq!(faults.0.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["not_before", "max_submits"]);
        let faults = NewBounds::read(Some("many"), Some("soon"), Some("")).unwrap_err();
        assert_eq!(
            faults.0.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(),
            ["max_submits", "not_before", "not_after"]
        );
    }

    #[test]
    fn every_fault_is_named_at_once_and_what_is_not_named_stays() {
        let at = |seconds| Some(Some(Moment::At(DateTime::from_timestamp(seconds, 0).unwrap())));
        let all =
            apply(NewBounds { max_submits: Some(Some(-1)), not_before: at(1_000_100), not_after: at(999_999) }).unwrap_err();
        assert_eq!(
            all,
            "max_submits: must be 0 or more, not -1; not_after: 1970-01-12T13:46:39Z is over: nothing would be submitted; \
             not_after: 1970-01-12T13:46:39Z is not after not_before, 1970-01-12T13:48:20Z"
        );
        // It is compared with what stands already.
        assert!(apply(NewBounds { not_before: at(1_000_500), ..NewBounds::default() }).is_err());
        let moved = apply(NewBounds { not_before: at(1_000_500), not_after: Some(None), max_submits: None }).unwrap();
        assert_eq!((moved.max_submits, moved.not_after), (Some(3), None));
        let soon =
            apply(NewBounds { not_before: Some(Some(Moment::In(Duration::from_secs(5)))), ..NewBounds::default() }).unwrap();
        assert_eq!(soon.not_before, DateTime::from_timestamp(1_000_005, 0));
    }
}
