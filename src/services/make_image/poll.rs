//! The poll: one GET, and what its answer means (upstream: poll).

use reqwest::Method;
use serde_json::Value;

use super::{
    client::{ClientError, UpstreamClient, clean, describe, join, message_of},
    token::Token,
};

/// What one poll says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::services) enum PollAnswer {
    /// PENDING, MODERATION, or a word that we do not know: go on.
    Working {
        /// The word.
        status: String,
    },
    /// SUCCESS with a picture.
    Picture {
        /// Its URL.
        url: String,
    },
    /// SUCCESS, and the list is still empty.
    EmptySuccess,
    /// FAILURE.
    Failed {
        /// The upstream's reason.
        error: String,
    },
    /// TIMEOUT: the upstream gave up.
    TimedOut {
        /// The upstream's reason.
        error: String,
    },
    /// `ILLEGAL_IMAGE`, `DELETED`.
    Refused {
        /// The upstream's reason.
        error: String,
    },
    /// 404.
    NotFound,
    /// No answer to the question: network, 5xx, 429, 401, 402, 403, unreadable.
    Trouble {
        /// Its status, where one came.
        status: Option<u16>,
        /// What went wrong.
        error: String,
    },
}

impl PollAnswer {
    /// Status and message, where it is the token that was refused.
    pub(super) fn refusal(&self) -> Option<(u16, &str)> {
        match self {
            Self::Trouble { status: Some(status @ 401..=403), error } => Some((*status, error)),
            _ => None,
        }
    }
}

/// What a poll tells of the token that it was made with, whatever it says of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It is taken.
    Answered,
    /// It is not: 401, 402, 403.
    Refused {
        /// Status.
        status: u16,
        /// Status and message.
        error: String,
    },
    /// Nothing: there was no answer to the question.
    NotAnswered,
}

/// Asks once for an id that somebody else polls for. Call it with a permit of polls in hand.
pub async fn ask(client: &UpstreamClient, lane: &str, token: &Token, upstream_id: &str) -> Asked {
    let answer = poll(client, lane, token, upstream_id).await;
    match (answer.refusal(), &answer) {
        (Some((status, error)), _) => Asked::Refused { status, error: error.to_owned() },
        (None, PollAnswer::Trouble { .. }) => Asked::NotAnswered,
        (None, _) => Asked::Answered,
    }
}

/// Asks once. Whatever happens is an answer: the attempt is open, so even a request that cannot be made only waits.
pub(in crate::services) async fn poll(client: &UpstreamClient, lane: &str, token: &Token, upstream_id: &str) -> PollAnswer {
    match send(client, lane, token, upstream_id).await {
        Ok(answer) => answer,
        Err(error) => PollAnswer::Trouble { status: None, error: error.to_string() },
    }
}

async fn send(client: &UpstreamClient, lane: &str, token: &Token, upstream_id: &str) -> Result<PollAnswer, ClientError> {
    let (settings, base) = client.lane(lane)?;
    let url = join(base, &settings.poll_path.replace("{id}", &encode(upstream_id)));
    let response = match client.request(Method::GET, url, settings.poll_timeout, token)?.send().await {
        Ok(response) => response,
        Err(error) => return Ok(PollAnswer::Trouble { status: None, error: describe(&error) }),
    };
    let status = response.status();
    let body = match client.read_answer(response, token).await {
        Ok(body) => body,
        Err(error) => return Ok(PollAnswer::Trouble { status: Some(status.as_u16()), error }),
    };
    if status == 404 {
        return Ok(PollAnswer::NotFound);
    }
    if !status.is_success() {
        return Ok(PollAnswer::Trouble { status: Some(status.as_u16()), error: format!("HTTP {status}: {}", message_of(&body)) });
    }
    Ok(judge(&body))
}

/// An id as one segment of a path.
fn encode(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
}

fn judge(body: &[u8]) -> PollAnswer {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return PollAnswer::Trouble { status: Some(200), error: format!("not JSON: {}", message_of(body)) };
    };
    let Some(status) = json.get("task_status").and_then(Value::as_str) else {
        return PollAnswer::Trouble { status: Some(200), error: format!("no task_status: {}", message_of(body)) };
    };
    let said = ["err_msg", "msg"]
        .iter()
        .find_map(|key| json.get(key).and_then(Value::as_str).filter(|said| !said.trim().is_empty()))
        .map(|said| clean(said, 2000));
    let error = || said.clone().unwrap_or_else(|| status.to_owned());
    match status {
        "SUCCESS" => picture_of(&json).map_or(PollAnswer::EmptySuccess, |url| PollAnswer::Picture { url }),
        "FAILURE" => PollAnswer::Failed { error: error() },
        "TIMEOUT" => PollAnswer::TimedOut { error: error() },
        "ILLEGAL_IMAGE" | "DELETED" => {
            PollAnswer::Refused { error: said.map_or_else(|| status.to_owned(), |said| format!("{status}: {said}")) }
        }
        other => PollAnswer::Working { status: clean(other, 100) },
    }
}

/// The first artifact with a URL; else `result_image_url`, which some clients look at.
fn picture_of(json: &Value) -> Option<String> {
    let artifacts = json.get("artifacts").and_then(Value::as_array);
    let first = artifacts.and_then(|artifacts| artifacts.iter().find_map(|artifact| artifact.get("url").and_then(url_of)));
    first.or_else(|| json.get("result_image_url").and_then(url_of))
}

fn url_of(value: &Value) -> Option<String> {
    value.as_str().map(|url| clean(url.trim(), 8000)).filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_artifact_with_a_url_is_the_picture() {
        let body = br#"{"task_status":"SUCCESS","artifacts":[{"url":""},{"uuid":"a"},{"url":"http://x/2.png"}]}"#;
        assert_eq!(judge(body), PollAnswer::Picture { url: "http://x/2.png".to_owned() });
    }

    #[test]
    fn the_reason_is_err_msg_else_msg() {
        let both = br#"{"task_status":"FAILURE","err_msg":"out of memory","msg":"x"}"#;
        assert_eq!(judge(both), PollAnswer::Failed { error: "out of memory".to_owned() });
        let one = br#"{"task_status":"FAILURE","err_msg":"","msg":"busy"}"#;
        assert_eq!(judge(one), PollAnswer::Failed { error: "busy".to_owned() });
    }

    #[test]
    fn a_refusal_names_its_state_and_the_reason_where_one_is_given() {
        let bare = br#"{"task_status":"DELETED","err_msg":null}"#;
        assert_eq!(judge(bare), PollAnswer::Refused { error: "DELETED".to_owned() });
        let told = br#"{"task_status":"ILLEGAL_IMAGE","msg":"nudity"}"#;
        assert_eq!(judge(told), PollAnswer::Refused { error: "ILLEGAL_IMAGE: nudity".to_owned() });
    }

    #[test]
    fn an_unknown_word_means_go_on() {
        assert!(matches!(judge(br#"{"task_status":"WARMING_UP"}"#), PollAnswer::Working { .. }));
    }

    #[test]
    fn what_is_no_answer_is_trouble() {
        for body in [&b""[..], b"<html>", b"{}", b"[]", br#"{"task_status":5}"#] {
            assert!(matches!(judge(body), PollAnswer::Trouble { .. }));
        }
    }
}
