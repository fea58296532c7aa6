//! The paths that the real API does not have: control, ledger and counters.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Behaviour, LedgerEntry, SimulatorOptions, Stats,
    server::{Shared, refusal},
};

/// Where `GET /ledger` begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LedgerQuery {
    #[serde(default)]
    from: u64,
}

pub(super) async fn show_control(State(shared): State<Arc<Shared>>) -> Json<SimulatorOptions> {
    Json(shared.book().options.clone())
}

pub(super) async fn control(State(shared): State<Arc<Shared>>, Json(patch): Json<Map<String, Value>>) -> Response {
    match shared.control(|options| options.patched(patch)) {
        Ok(options) => Json(options).into_response(),
        Err(error) => refusal(422, None, &error.to_string()),
    }
}

pub(super) async fn set_behaviour(
    State(shared): State<Arc<Shared>>,
    Path(upstream_id): Path<String>,
    Json(behaviour): Json<Behaviour>,
) -> Response {
    if let Some(fault) = behaviour.fault() {
        return refusal(422, None, &fault);
    }
    if shared.book().set_behaviour(&upstream_id, behaviour) {
        axum::http::StatusCode::NO_CONTENT.into_response()
    } else {
        refusal(404, None, "the simulator has no such job")
    }
}

pub(super) async fn ledger(State(shared): State<Arc<Shared>>, Query(query): Query<LedgerQuery>) -> Json<Vec<LedgerEntry>> {
    Json(shared.book().ledger(query.from))
}

pub(super) async fn stats(State(shared): State<Arc<Shared>>) -> Json<Stats> {
    Json(shared.book().stats.clone())
}
