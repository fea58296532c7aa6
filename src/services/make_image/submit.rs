//! The submit: one POST, and what its answer means (design, section 9, first table).

use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use serde_json::Value;

use super::{
    client::{ClientError, UpstreamClient, describe, join, message_of},
    token::Token,
};

/// A `Retry-After` beyond this is taken as this: a lane must not sleep for years by one header.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);

/// What happened at submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmitAnswer {
    /// The connection never stood: connection refused, DNS, TLS.
    NotSent {
        /// Why.
        error: String,
    },
    /// The upstream did not take the request: 3xx, 400, 404, 422 and other 4xx.
    Rejected {
        /// Its status.
        status: u16,
        /// Its message.
        error: String,
    },
    /// The content was refused: 451.
    Refused {
        /// Its status.
        status: u16,
        /// Its message.
        error: String,
    },
    /// Surely not taken: 401, 402, 403, and the lane's `not_accepted_statuses` (429, 503).
    TurnedAway {
        /// Its status.
        status: u16,
        /// Its message.
        error: String,
        /// `Retry-After`, which counts only on 429 and 503.
        retry_after: Option<Duration>,
    },
    /// 2xx with an id.
    Accepted {
        /// Its status.
        status: u16,
        /// The id.
        upstream_id: String,
    },
    /// 2xx unreadable, 408, other 5xx, reset or time-out after the connection stood.
    Unknown {
        /// Its status, where one came.
        status: Option<u16>,
        /// What came instead.
        error: String,
    },
}

/// Sends one POST. Whatever happens is an answer: its row stands, so even a request that cannot be made says so.
pub(super) async fn submit(
    client: &UpstreamClient,
    lane: &str,
    token: &Token,
    body: Vec<u8>,
    request_id: Option<&str>,
) -> SubmitAnswer {
    match send(client, lane, token, body, request_id).await {
        Ok(answer) => answer,
        Err(error) => SubmitAnswer::NotSent { error: error.to_string() },
    }
}

async fn send(
    client: &UpstreamClient,
    lane: &str,
    token: &Token,
    body: Vec<u8>,
    request_id: Option<&str>,
) -> Result<SubmitAnswer, ClientError> {
    let (settings, base) = client.lane(lane)?;
    let request = client.request(Method::POST, join(base, &settings.submit_path), settings.submit_timeout, token)?;
    let mut request = request.header(header::CONTENT_TYPE, "application/json").body(body);
    if let Some(request_id) = request_id.filter(|_| !settings.request_id_header.is_empty()) {
        request = request.header(&settings.request_id_header, request_id);
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() || error.is_builder() => return Ok(SubmitAnswer::NotSent { error: describe(&error) }),
        Err(error) => return Ok(SubmitAnswer::Unknown { status: None, error: describe(&error) }),
    };
    let status = response.status();
    let retry_after = retry_after(&response);
    let body = match client.read_answer(response, token).await {
        Ok(body) => body,
        // A status that says "not taken" says so without its body.
        Err(error) if status.is_success() => return Ok(SubmitAnswer::Unknown { status: Some(status.as_u16()), error }),
        Err(_) => Vec::new(),
    };
    Ok(judge(status, &body, retry_after, &settings.not_accepted_statuses))
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    // Seconds; the form with a date depends on two clocks and is taken as "not said".
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

fn judge(status: StatusCode, body: &[u8], retry_after: Option<Duration>, not_accepted: &[u16]) -> SubmitAnswer {
    let code = status.as_u16();
    let error = || {
        let said = message_of(body);
        if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {said}") }
    };
    if not_accepted.contains(&code) {
        return SubmitAnswer::TurnedAway { status: code, error: error(), retry_after };
    }
    match code {
        200..=299 => match id_of(body) {
            Some(upstream_id) => SubmitAnswer::Accepted { status: code, upstream_id },
            None => SubmitAnswer::Unknown { status: Some(code), error: format!("no id in the answer: {}", message_of(body)) },
        },
        401..=403 => SubmitAnswer::TurnedAway { status: code, error: error(), retry_after: None },
        451 => SubmitAnswer::Refused { status: code, error: error() },
        408 => SubmitAnswer::Unknown { status: Some(code), error: error() },
        300..=499 => SubmitAnswer::Rejected { status: code, error: error() },
        _ => SubmitAnswer::Unknown { status: Some(code), error: error() },
    }
}

/// The job's id: a bare JSON string, or `uuid`, `task_uuid`, `id` or `task_id` at the top or under `data` (upstream: submit).
fn id_of(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let named = |object: &Value| {
        ["uuid", "task_uuid", "id", "task_id"].iter().find_map(|key| object.get(key).and_then(Value::as_str).map(str::to_owned))
    };
    let id = match &json {
        Value::String(id) => Some(id.clone()),
        Value::Object(_) => {
            named(&json).or_else(|| json.get("data").and_then(|data| data.as_str().map(str::to_owned).or_else(|| named(data))))
        }
        _ => None,
    }?;
    let id = id.trim();
    // An id goes into a path and a row: printable, and of a sane length. Anything else is not an id.
    (!id.is_empty() && id.len() <= 200 && id.chars().all(|c| c.is_ascii_graphic())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_id_is_read() {
        for body in [
            r#""u-1""#,
            r#"{"uuid":"u-1"}"#,
            r#"{"task_uuid":"u-1"}"#,
            r#"{"id":"u-1"}"#,
            r#"{"task_id":"u-1"}"#,
            r#"{"data":{"task_uuid":"u-1"}}"#,
            r#"{"code":0,"data":{"id":"u-1"}}"#,
        ] {
            assert_eq!(id_of(body.as_bytes()).as_deref(), Some("u-1"), "{body}");
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        for body in ["", "{", "null", "[]", r#""""#, r#"" ""#, r#"{"id":5}"#, r#"{"error":"x"}"#, "\"a b\"", "\"a\\u0000b\""] {
            assert_eq!(id_of(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn the_text_451_in_a_message_is_not_a_refusal() {
        let answer = judge(StatusCode::BAD_REQUEST, br#"{"msg":"job 451 is unknown"}"#, None, &[429, 503]);
        assert!(matches!(answer, SubmitAnswer::Rejected { status: 400, .. }), "{answer:?}");
    }
}
