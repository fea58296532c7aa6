//! The HTTP client of the upstream: one per process.
//!
//! The token goes only to the configured host; no redirect is followed and nothing is repeated inside the client: a POST
//! that was sent twice would be paid twice.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reqwest::{Response, header::HeaderValue, redirect};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use url::Url;

use super::{
    departure::Departures,
    token::{Token, TokenError, TokenSource},
};
use crate::{
    config::{LaneSettings, Settings, UpstreamSettings},
    queue::Poller,
};

/// An answer is read up to here.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Why the client could not be made, or a lane not be used.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// reqwest refuses.
    #[error("the HTTP client: {0}")]
    Http(#[source] reqwest::Error),
    /// The token cannot stand in a header.
    #[error("the API token cannot stand in a header: it has characters beyond printable ASCII")]
    TokenForm,
    /// The lane has no base URL, or is none.
    #[error("lane {lane} has no base_url: set lanes.{lane}.base_url")]
    NoBaseUrl {
        /// The lane.
        lane: String,
    },
}

/// The client. Cheap to clone: each cell has one.
#[derive(Debug, Clone)]
pub struct UpstreamClient {
    http: reqwest::Client,
    settings: Arc<UpstreamSettings>,
    lanes: Arc<BTreeMap<String, LaneSettings>>,
    token: TokenSource,
    permits: Arc<Permits>,
}

/// The connections of one process, shared out: submits that are answered slowly keep no poll waiting, and pictures neither.
#[derive(Debug)]
struct Permits {
    submits: Arc<Semaphore>,
    polls: Semaphore,
    pictures: Semaphore,
}

impl Permits {
    /// Half to submits, a quarter to polls, a quarter to pictures.
    fn new(connections: usize) -> Self {
        let quarter = (connections / 4).max(1);
        let submits = connections.saturating_sub(2 * quarter).max(1);
        Self { submits: Arc::new(Semaphore::new(submits)), polls: Semaphore::new(quarter), pictures: Semaphore::new(quarter) }
    }
}

/// One of the connections; a POST's ledger row is written with it in hand.
#[derive(Debug)]
pub struct ConnectionPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl UpstreamClient {
    /// The client of these settings.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        let upstream = &settings.upstream;
        let token = TokenSource::new(upstream)?;
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A proxy of the environment would be another host that sees the token.
            .no_proxy()
            .connect_timeout(upstream.connect_timeout)
            // A submit waits for no connection for longer than it may leave.
            .connector_layer(Departures)
            // A keep-alive that the upstream closes under a POST is an unknown: do not keep them for long.
            .pool_idle_timeout(upstream.idle_timeout)
            .tcp_keepalive(Duration::from_secs(15))
            .build()
            .map_err(ClientError::Http)?;
        Ok(Self {
            http,
            settings: Arc::new(upstream.clone()),
            lanes: Arc::new(settings.lanes.clone()),
            token,
            permits: Arc::new(Permits::new(upstream.max_connections)),
        })
    }

    /// A lane's settings and base URL.
    ///
    /// # Errors
    /// [`ClientError::NoBaseUrl`].
    pub fn lane(&self, lane: &str) -> Result<(&LaneSettings, &Url), ClientError> {
        let settings = self.lanes.get(lane);
        settings
            .and_then(|settings| settings.base_url.as_ref().map(|url| (settings, url)))
            .ok_or_else(|| ClientError::NoBaseUrl { lane: lane.to_owned() })
    }

    /// The token's source.
    pub fn token(&self) -> &TokenSource {
        &self.token
    }

    /// Waits for one of the connections of submits.
    pub async fn permit(&self) -> ConnectionPermit {
        // The semaphore is never closed.
        ConnectionPermit { _permit: Arc::clone(&self.permits.submits).acquire_owned().await.ok() }
    }

    /// Waits for the turn of a poll, and then for one of the connections of polls. It leaves when this returns.
    pub(in crate::services) async fn poll_permit(&self, poller: &Poller) -> Option<SemaphorePermit<'_>> {
        // The connection after the turn: thousands may wait for theirs.
        let turn = poller.turn().await;
        let permit = self.permits.polls.acquire().await.ok();
        turn.leave();
        permit
    }

    /// Waits for one of the connections of pictures.
    pub(super) async fn picture_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.pictures.acquire().await.ok()
    }

    /// A request to the lane's own host, with the headers that it wants.
    pub(super) fn request(
        &self,
        method: reqwest::Method,
        url: Url,
        timeout: Duration,
        token: &Token,
    ) -> Result<reqwest::RequestBuilder, ClientError> {
        let token = format!("{}{}", self.settings.token_prefix, token.secret());
        let mut token = HeaderValue::from_str(&token).map_err(|_| ClientError::TokenForm)?;
        token.set_sensitive(true);
        Ok(self
            .http
            .request(method, url)
            .timeout(timeout)
            .header("x-platform", &self.settings.platform)
            .header(&self.settings.token_header, token))
    }

    /// Reads an answer's body, up to 1 MiB. What it says goes into rows and logs: should it repeat the token, that goes no
    /// further.
    pub(super) async fn read_answer(&self, response: Response, token: &Token) -> Result<Vec<u8>, String> {
        let body = read_body(response, MAX_ANSWER_BYTES).await?;
        Ok(without(body, token.secret().as_bytes()))
    }

    /// A request to wherever an answer pointed: without the token.
    pub(super) fn plain_get(&self, url: Url, timeout: Duration) -> reqwest::RequestBuilder {
        self.http.get(url).timeout(timeout)
    }
}

/// `base` with a path below it.
pub(super) fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/')));
    url
}

/// Reads a body up to a limit.
///
/// # Errors
/// A line that says what went wrong.
pub(super) async fn read_body(mut response: Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
        if body.len() + chunk.len() > limit {
            return Err(format!("the answer is longer than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A body in which a secret is covered, wherever it stands. One of a few characters is no secret, and would be found by chance.
fn without(body: Vec<u8>, secret: &[u8]) -> Vec<u8> {
    if secret.len() < 8 || !body.windows(secret.len()).any(|part| part == secret) {
        return body;
    }
    let mut covered = Vec::with_capacity(body.len());
    let mut rest = body.as_slice();
    while let Some(place) = rest.windows(secret.len()).position(|part| part == secret) {
        covered.extend_from_slice(&rest[..place]);
        covered.extend_from_slice(b"[token]");
        rest = &rest[place + secret.len()..];
    }
    covered.extend_from_slice(rest);
    covered
}

/// An error of the HTTP client in one line, with its causes and without the URL.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    let what = if error.is_timeout() {
        "time-out"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    if causes.is_empty() { what.to_owned() } else { format!("{what}: {}", causes.join(": ")) }
}

/// What an upstream says of itself in an error, shortened; never our request.
pub(super) fn message_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let said = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|json| {
        ["err_msg", "msg", "message", "detail", "error"]
            .iter()
            .find_map(|key| json.get(key).and_then(|value| value.as_str()).filter(|value| !value.is_empty()).map(str::to_owned))
    });
    let said = said.unwrap_or_else(|| text.trim().to_owned());
    clean(&said, 500)
}

/// The upstream's own words as a row can hold them: no longer than so many characters, and without NUL, which PostgreSQL's
/// text cannot hold: it would refuse the whole settle, and a cell would fail for how its failure was spelt.
pub(super) fn clean(text: &str, longest: usize) -> String {
    text.chars().take(longest).map(|character| if character == '\0' { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_covered_wherever_it_stands() {
        for (body, covered) in [
            ("", ""),
            ("no such thing", "no such thing"),
            ("12345678", "[token]"),
            ("a12345678b12345678", "a[token]b[token]"),
            ("1234567", "1234567"),
        ] {
            assert_eq!(String::from_utf8(without(body.into(), b"12345678")).unwrap(), covered);
        }
        assert_eq!(without(b"abc".to_vec(), b""), b"abc");
        assert_eq!(without(b"abc".to_vec(), b"b"), b"abc");
    }

    #[test]
    fn words_are_what_a_row_can_hold() {
        assert_eq!(clean("a\0b", 3), "a\u{fffd}b");
        assert_eq!(clean("\u{e4}\u{f6}\u{fc}", 2), "\u{e4}\u{f6}");
        assert_eq!(message_of(br#"{"err_msg": "", "detail": "no"}"#), "no");
        assert_eq!(message_of(b" plain \xff"), "plain \u{fffd}");
    }
}
