//! `GET /v1/artifact/task/{id}` and `GET /picture/{id}.png`

use std::sync::Arc;

use axum::{
    Json,
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    connection::Connection,
    job::PollAnswer,
    picture,
    server::{Shared, no_answer, refusal, token},
};

/// Tells how a job stands.
pub(super) async fn artifact(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    Path(upstream_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let (refusal_status, plan) = {
        let mut book = shared.book();
        let refusal_status = book.refusal(token(&headers));
        let plan = book.poll(&upstream_id, refusal_status.is_none());
        (refusal_status, plan)
    };
    shared.delay(plan.latency, |options| options.hold_polls).await;
    let answer = match refusal_status {
        // Decided after the wait, so that a poll whose client went away has ended nothing.
        None => shared.book().answer_poll(&upstream_id, plan.number),
        Some(status) => PollAnswer::Error(status, None),
    };
    let response = match answer {
        PollAnswer::Reset => {
            shared.book().stats.poll_resets += 1;
            return no_answer(connection.cut_and_wait().await);
        }
        PollAnswer::NotFound => refusal(404, None, "the simulator has no such job"),
        PollAnswer::Error(status, retry_after) => refusal(status, retry_after, &format!("the simulator answers with {status}")),
        PollAnswer::Status { status, message, picture } => {
            let artifacts: Vec<Value> = picture
                .iter()
                .map(|(width, height)| {
                    json!({
                        "uuid": format!("{upstream_id}-1"),
                        "status": "SUCCESS",
                        "url": format!("{}/picture/{upstream_id}.png", shared.url),
                        "modality": "PICTURE",
                        "detail_url": null,
                        "text": null,
                        "image_detail": { "width": width, "height": height },
                    })
                })
                .collect();
            Json(json!({
                "task_uuid": upstream_id,
                "task_status": status,
                "artifacts": artifacts,
                "err_msg": message,
                "msg": null,
            }))
            .into_response()
        }
    };
    *shared.book().stats.poll_statuses.entry(response.status().as_u16()).or_default() += 1;
    response
}

/// Draws the picture of a job that has been reported as done.
pub(super) async fn picture(State(shared): State<Arc<Shared>>, Path(file): Path<String>) -> Response {
    let (body, side, status) = {
        let book = shared.book();
        let body = file.strip_suffix(".png").and_then(|upstream_id| book.finished_body(upstream_id));
        (body, book.options.picture_side, book.options.picture_status)
    };
    if let Some(status) = status {
        return refusal(status, None, &format!("the simulator answers with {status}"));
    }
    let Some(body) = body else {
        return refusal(404, None, "the simulator has no such picture");
    };
    // Drawing takes milliseconds, which the answers to other requests should not wait for.
    match tokio::task::spawn_blocking(move || picture::draw(&body, side)).await {
        Ok(Ok(png)) => ([(header::CONTENT_TYPE, "image/png")], png).into_response(),
        Ok(Err(error)) => refusal(500, None, &error.to_string()),
        Err(error) => refusal(500, None, &error.to_string()),
    }
}
