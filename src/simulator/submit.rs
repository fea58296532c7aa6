//! `POST /v3/make_image`

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    Behaviour,
    connection::Connection,
    job,
    server::{Shared, no_answer, refusal, token},
};

/// An accepted submit whose answer is not written yet. Dropped with its handler when the client goes away.
struct Unanswered {
    shared: Arc<Shared>,
    upstream_id: String,
    answered: bool,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.shared.book().submit_ended(&self.upstream_id, self.answered);
    }
}

/// Takes a submit and does with it what was chosen for it.
pub(super) async fn make_image(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let body = serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string());
    let fault = match &body {
        Ok(body) => fault(body).map(str::to_owned),
        Err(error) => Some(error.clone()),
    };
    let (plan, mut pending) = {
        let mut book = shared.book();
        let refused = book.refusal(token(&headers)).or_else(|| fault.as_ref().map(|_| 422));
        let request_id = headers.get(&book.options.request_id_header).and_then(|value| value.to_str().ok());
        let plan = book.submit(refused, request_id, body.unwrap_or_default());
        let pending =
            plan.upstream_id.clone().map(|upstream_id| Unanswered { shared: Arc::clone(&shared), upstream_id, answered: false });
        (plan, pending)
    };
    if pending.is_some() {
        shared.delay(plan.latency, |options| options.hold_submits).await;
    } else {
        shared.delay(plan.latency, |_| false).await;
    }

    let upstream_id = plan.upstream_id.as_deref().unwrap_or_default();
    let response = match &plan.behaviour {
        Behaviour::ResetBefore | Behaviour::ResetAfter => {
            drop(pending);
            shared.book().stats.submit_resets += 1;
            return no_answer(connection.cut_and_wait().await);
        }
        // Ends when the client does, or the simulator.
        Behaviour::HangBefore | Behaviour::HangAfter => {
            return no_answer(std::future::pending().await);
        }
        Behaviour::Status { status, retry_after, .. } => {
            let detail = fault.filter(|_| *status == 422).unwrap_or_else(|| format!("the simulator answers with {status}"));
            refusal(*status, *retry_after, &detail)
        }
        Behaviour::Unreadable { answer } => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], answer.clone()).into_response()
        }
        Behaviour::ObjectId { form } => Json(form.answer(upstream_id)).into_response(),
        _ => Json(upstream_id).into_response(),
    };
    *shared.book().stats.submit_statuses.entry(response.status().as_u16()).or_default() += 1;
    if let Some(pending) = &mut pending {
        pending.answered = true;
    }
    response
}

/// What is wrong with a submit's body. Only what the simulator itself needs is asked for.
fn fault(body: &Value) -> Option<&'static str> {
    if job::size(body).is_none() {
        return Some("width and height must be numbers from 1 to 65535");
    }
    match body.get("rawPrompt") {
        Some(Value::Array(_)) => None,
        _ => Some("rawPrompt must be a list"),
    }
}
