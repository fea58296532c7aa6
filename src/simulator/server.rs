//! The simulator's paths and what they share.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{OptionsError, SimulatorOptions, admin, book::Book, poll, submit};

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    book: Mutex<Book>,
    changed: watch::Sender<()>,
    /// Where the simulator stands, without a slash at the end.
    pub(super) url: String,
}

impl Shared {
    pub(super) fn new(options: SimulatorOptions, url: String) -> Self {
        Self { book: Mutex::new(Book::new(options)), changed: watch::Sender::new(()), url }
    }

    /// The state, alone. Never kept across an await.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        // A panic in a handler leaves counters at worst a step behind, which is no reason to stop answering.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the options by what `change` makes of them, if that is valid, and wakes the answers that wait.
    pub(super) fn control(
        &self,
        change: impl FnOnce(&SimulatorOptions) -> Result<SimulatorOptions, OptionsError>,
    ) -> Result<SimulatorOptions, OptionsError> {
        let next = {
            let mut book = self.book();
            let next = change(&book.options)?;
            next.validate()?;
            if next.port != book.options.port {
                return Err(OptionsError::Invalid("port cannot be changed while the simulator runs".to_owned()));
            }
            book.options = next.clone();
            next
        };
        self.changed.send_replace(());
        Ok(next)
    }

    /// Waits for the latency, then while `holds` says that the options hold this answer back.
    pub(super) async fn delay(&self, latency: Duration, holds: fn(&SimulatorOptions) -> bool) {
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut changed = self.changed.subscribe();
        while holds(&self.book().options) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The token that a request brought: `X-Token`, else `Authorization: Bearer`.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text("x-token").or_else(|| text(header::AUTHORIZATION.as_str())?.strip_prefix("Bearer "))
}

/// An answer that is only a status, with the reason in words.
pub(super) fn refusal(status: u16, retry_after: Option<u64>, detail: &str) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (code, Json(json!({ "detail": detail }))).into_response();
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code.is_redirection() {
        headers.insert(header::LOCATION, HeaderValue::from_static("/redirected-by-the-simulator"));
    }
    response
}

/// The future of a handler that ends without an answer.
pub(super) fn no_answer(never: Infallible) -> Response {
    match never {}
}

/// All paths.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/v3/make_image", post(submit::make_image))
        .route("/v1/artifact/task/{upstream_id}", get(poll::artifact))
        .route("/picture/{file}", get(poll::picture))
        .route("/control", get(admin::show_control).post(admin::control))
        .route("/jobs/{upstream_id}/behaviour", put(admin::set_behaviour))
        .route("/ledger", get(admin::ledger))
        .route("/stats", get(admin::stats))
        .fallback(async || refusal(404, None, "the simulator has no such path"))
        .layer(DefaultBodyLimit::max(16 << 20))
        .layer(map_response(mark))
        .with_state(shared)
}

async fn mark(mut response: Response) -> Response {
    response.headers_mut().insert("x-imagemill-simulator", HeaderValue::from_static("test double"));
    response
}

async fn about() -> Json<Value> {
    Json(json!({
        "simulator": "test double",
        "about": super::ABOUT,
        "paths": [
            "POST /v3/make_image", "GET /v1/artifact/task/{id}", "GET /picture/{id}.png",
            "GET /control", "POST /control", "PUT /jobs/{id}/behaviour", "GET /ledger?from=N", "GET /stats",
        ],
    }))
}
