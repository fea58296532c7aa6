//! `imagemill lane`: the ways into the upstream.

use std::io::Write;

use serde_json::json;

use super::{output, report::Failure, table::table};
use crate::crud::lanes::{LanePause, LaneRow};
use crate::services::{
    actor::Actor,
    bounds::Moment,
    context::Context,
    lane_service::{self, NewLimits},
};

/// Prints the lanes.
pub async fn list(context: &Context, actor: &Actor, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let lanes = lane_service::list_lanes(context, actor).await?;
    if json {
        return output::json(&lanes, out);
    }
    let number = |limit: Option<String>| limit.unwrap_or_else(|| "-".to_owned());
    let rows = lanes.iter().map(|lane| {
        [
            lane.lane.clone(),
            lane.max_in_flight.to_string(),
            lane.in_flight.to_string(),
            rate(lane),
            lane.burst.to_string(),
            number(lane.polls_per_second.map(|rate| rate.to_string())),
            ramp(lane),
            seconds(lane.max_job_time),
            lane.max_submits_per_day
                .map_or_else(|| lane.submits_today.to_string(), |limit| format!("{} of {limit}", lane.submits_today)),
            number(waits_for(&line(&lane.pauses), lane.in_flight, lane.max_in_flight).or_else(|| spent(lane))),
        ]
    });
    let header =
        ["LANE", "MAX IN FLIGHT", "IN FLIGHT", "SUBMITS/S", "BURST", "POLLS/S", "RAMP", "JOB TIME", "TODAY", "WAITS FOR"];
    output::text(&table(header, rows), out)
}

/// Why no cell of a lane is begun: its pauses, and that all places are taken, in the words of the view. None: neither.
pub(super) fn waits_for(pauses: &str, in_flight: i64, max_in_flight: i32) -> Option<String> {
    let place = match max_in_flight {
        0 => "a place: it has none".to_owned(),
        places if in_flight >= i64::from(places) => format!("a place: all {places} are taken"),
        _ => String::new(),
    };
    let reasons: Vec<&str> = [pauses, &place].into_iter().filter(|why| !why.is_empty()).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Pauses as one line.
fn line(pauses: &[LanePause]) -> String {
    let said = pauses.iter().map(|pause| {
        let token = pause.token_hash.as_ref().map_or_else(String::new, |token| format!(" {token}"));
        let end = pause.until.map_or_else(String::new, |until| format!(" (until {})", output::time(until)));
        format!("{}{token}: {}{end}", pause.reason, pause.why)
    });
    said.collect::<Vec<_>>().join("; ")
}

/// That its submits of today are made.
fn spent(lane: &LaneRow) -> Option<String> {
    let limit = lane.max_submits_per_day.filter(|limit| lane.submits_today >= *limit)?;
    Some(format!("tomorrow (UTC): its {limit} submits of today are made"))
}

/// Its rate, and what it was lowered to.
fn rate(lane: &LaneRow) -> String {
    let whole = lane.submits_per_second.map_or_else(|| "-".to_owned(), |rate| rate.to_string());
    lane.current_rate.map_or_else(|| whole.clone(), |rate| format!("{whole}, now {rate}"))
}

fn ramp(lane: &LaneRow) -> String {
    let ramp = lane.ramp_start.zip(lane.ramp_step).zip(lane.ramp_interval);
    let Some(((start, step), interval)) = ramp else { return "-".to_owned() };
    let idle = lane.ramp_idle_reset.map_or_else(String::new, |idle| format!(", anew when idle for {}", seconds(idle)));
    format!("{start} + {step} every {}{idle}", seconds(interval))
}

/// As it is written, too.
fn seconds(seconds: f64) -> String {
    [(86_400.0, "d"), (3600.0, "h"), (60.0, "min")]
        .into_iter()
        .find(|(unit, _)| seconds >= *unit && seconds % unit == 0.0)
        .map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}

/// Pauses a lane, for good or until a time.
pub async fn pause(
    context: &Context,
    actor: &Actor,
    lane: &str,
    why: &str,
    until: Option<Moment>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let until = lane_service::pause_lane(context, actor, lane, why, until).await?;
    if json {
        return output::json(&json!({ "lane": lane, "paused": true, "why": why, "until": until }), out);
    }
    let end = until.map_or_else(|| "until it is resumed".to_owned(), |until| format!("until {}", output::time(until)));
    output::text(&format!("{lane} is paused {end}"), out)
}

/// Lifts an operator's pause.
pub async fn resume(context: &Context, actor: &Actor, lane: &str, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let was_paused = lane_service::resume_lane(context, actor, lane).await?;
    // What the upstream said of it is no operator's to lift.
    let lanes = lane_service::list_lanes(context, actor).await?;
    let pauses: Vec<LanePause> = lanes.into_iter().filter(|row| row.lane == lane).flat_map(|row| row.pauses).collect();
    if json {
        let document = json!({ "lane": lane, "paused": !pauses.is_empty(), "was_paused": was_paused, "pauses": pauses });
        return output::json(&document, out);
    }
    let said = if was_paused { "is resumed" } else { "was not paused by an operator" };
    let rest = if pauses.is_empty() { String::new() } else { format!("; it is still paused: {}", line(&pauses)) };
    output::text(&format!("{lane} {said}{rest}"), out)
}

/// Sets limits of a lane, and prints the lanes.
pub async fn limit(
    context: &Context,
    actor: &Actor,
    lane: &str,
    limits: &NewLimits,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    lane_service::set_lane_limits(context, actor, lane, limits).await?;
    list(context, actor, json, out).await
}
