//! `imagemill lane`: the ways into the upstream.

use std::io::Write;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{output, report::Failure, table::table};
use crate::services::{
    actor::Actor,
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
            number(lane.submits_per_second.map(|rate| rate.to_string())),
            lane.burst.to_string(),
            number(lane.polls_per_second.map(|rate| rate.to_string())),
            lane.max_submits_per_day
                .map_or_else(|| lane.submits_today.to_string(), |limit| format!("{} of {limit}", lane.submits_today)),
            if lane.pauses.is_empty() { "-".to_owned() } else { lane.pauses.join("; ") },
        ]
    });
    let header = ["LANE", "MAX IN FLIGHT", "IN FLIGHT", "SUBMITS/S", "BURST", "POLLS/S", "TODAY", "PAUSED"];
    output::text(&table(header, rows), out)
}

/// Pauses a lane, for good or until a time.
pub async fn pause(
    context: &Context,
    actor: &Actor,
    lane: &str,
    why: &str,
    until: Option<DateTime<Utc>>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    lane_service::pause_lane(context, actor, lane, why, until).await?;
    if json {
        return output::json(&json!({ "lane": lane, "paused": true, "why": why, "until": until }), out);
    }
    let end = until.map_or_else(|| "until it is resumed".to_owned(), |until| format!("until {}", output::time(until)));
    output::text(&format!("{lane} is paused {end}"), out)
}

/// Lifts an operator's pause.
pub async fn resume(context: &Context, actor: &Actor, lane: &str, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let was_paused = lane_service::resume_lane(context, actor, lane).await?;
    if json {
        return output::json(&json!({ "lane": lane, "paused": false, "was_paused": was_paused }), out);
    }
    let said = if was_paused { "is resumed" } else { "was not paused by an operator" };
    output::text(&format!("{lane} {said}"), out)
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
