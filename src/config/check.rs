//! What the form of a value alone cannot tell: ranges, and settings that must fit one another.

use std::time::Duration;

use secrecy::ExposeSecret;
use url::Url;

use super::settings::{LaneSettings, Settings};

/// A setting that is wrong.
pub(super) struct Finding {
    /// The setting, then the others that the reason speaks of.
    pub(super) keys: Vec<String>,
    /// What is wrong.
    pub(super) reason: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn require(&mut self, holds: bool, key: impl Into<String>, reason: &str) {
        self.require_pair(holds, key, None, reason);
    }

    fn require_pair(&mut self, holds: bool, key: impl Into<String>, other: Option<&str>, reason: &str) {
        if !holds {
            let mut keys = vec![key.into()];
            keys.extend(other.map(str::to_owned));
            let reason = reason.to_owned();
            self.0.push(Finding { keys, reason });
        }
    }

    fn not_zero(&mut self, number: impl TryInto<u64>, key: impl Into<String>) {
        let holds = number.try_into().is_ok_and(|number| number > 0);
        self.require(holds, key, "must be 1 or more");
    }

    fn lasts(&mut self, duration: Duration, key: impl Into<String>) {
        let holds = duration >= Duration::from_millis(1);
        self.require(holds, key, "must be 1ms or more");
    }
}

/// Everything that is wrong with settings whose values are well formed.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = Findings::default();
    database(settings, &mut findings);
    queue(settings, &mut findings);
    jobs(settings, &mut findings);
    upstream(settings, &mut findings);
    for (name, lane) in &settings.lanes {
        check_lane(name, lane, &mut findings);
    }
    findings.not_zero(settings.results.max_bytes, "results.max_bytes");
    findings.lasts(settings.results.timeout, "results.timeout");
    #[cfg(feature = "cli")]
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&settings.logs.filter) {
        findings.require(false, "logs.filter", &error.to_string());
    }
    findings.0
}

fn database(settings: &Settings, findings: &mut Findings) {
    let database = &settings.database;
    if let Some(url) = &database.url {
        let scheme = Url::parse(url.expose_secret()).map(|url| url.scheme().to_owned());
        findings.require(
            scheme.is_ok_and(|scheme| scheme == "postgres" || scheme == "postgresql"),
            "database.url",
            "must be postgres://user:password@host:port/name, percent-encoded",
        );
    }
    // One listens; the others work.
    findings.require(database.max_connections >= 3, "database.max_connections", "must be at least 3");
    findings.lasts(database.stale_timeout, "database.stale_timeout");
    findings.lasts(database.connect_timeout, "database.connect_timeout");
}

fn queue(settings: &Settings, findings: &mut Findings) {
    let queue = &settings.queue;
    findings.lasts(queue.beat, "queue.beat");
    findings.require_pair(
        queue.lease > queue.beat * 2,
        "queue.lease",
        Some("queue.beat"),
        &format!("must be more than twice queue.beat, which is {:?}", queue.beat),
    );
    findings.lasts(queue.poll_interval, "queue.poll_interval");
    findings.lasts(queue.sweep_interval, "queue.sweep_interval");
    // A settle whose answer was lost is repeated, and asks its job whether it was written.
    findings.require_pair(
        queue.retention >= queue.lease,
        "queue.retention",
        Some("queue.lease"),
        &format!("must be queue.lease or more, which is {:?}", queue.lease),
    );
}

fn jobs(settings: &Settings, findings: &mut Findings) {
    let limits = &settings.limits;
    findings.not_zero(limits.max_axes, "limits.max_axes");
    findings.not_zero(limits.max_values_per_axis, "limits.max_values_per_axis");
    findings.not_zero(limits.max_cells, "limits.max_cells");
    findings.require(i32::try_from(limits.max_cells).is_ok(), "limits.max_cells", "must be 2147483647 or less");
    let image = &settings.generate_image;
    findings.not_zero(image.slots, "generate_image.slots");
    findings.lasts(image.deadline, "generate_image.deadline");
    findings.lasts(image.backoff_min, "generate_image.backoff_min");
    findings.require_pair(
        image.backoff_max >= image.backoff_min,
        "generate_image.backoff_max",
        Some("generate_image.backoff_min"),
        &format!("must be generate_image.backoff_min or more, which is {:?}", image.backoff_min),
    );
    findings.not_zero(settings.complete_task.slots, "complete_task.slots");
}

fn upstream(settings: &Settings, findings: &mut Findings) {
    let upstream = &settings.upstream;
    if let Some(token) = &upstream.api_token {
        findings.require(
            is_header_value(token.expose_secret()),
            "upstream.api_token",
            "must be printable ASCII without line breaks",
        );
        findings.require_pair(
            upstream.api_token_file.is_none(),
            "upstream.api_token_file",
            Some("upstream.api_token"),
            "stands beside upstream.api_token (TEST_MAKE_API_TOKEN); set one of the two",
        );
    }
    findings.require(is_header_name(&upstream.token_header), "upstream.token_header", "is not the name of an HTTP header");
    for (value, key) in [(&upstream.token_prefix, "upstream.token_prefix"), (&upstream.platform, "upstream.platform")] {
        findings.require(is_header_value(value), key, "must be printable ASCII without line breaks");
    }
    findings.lasts(upstream.connect_timeout, "upstream.connect_timeout");
    findings.lasts(upstream.probe_interval, "upstream.probe_interval");
    findings.not_zero(upstream.max_connections, "upstream.max_connections");
}

fn check_lane(name: &str, lane: &LaneSettings, findings: &mut Findings) {
    let key = |setting: &str| format!("lanes.{name}.{setting}");
    if let Some(url) = &lane.base_url {
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        findings.require(
            ["http", "https"].contains(&url.scheme()) && url.has_host() && plain,
            key("base_url"),
            "must be http://host or https://host, without user, query or fragment",
        );
    }
    findings.require(lane.submit_path.starts_with('/'), key("submit_path"), "must begin with /");
    findings.require(
        lane.poll_path.starts_with('/') && lane.poll_path.contains("{id}"),
        key("poll_path"),
        "must begin with / and hold {id}",
    );
    findings.lasts(lane.submit_timeout, key("submit_timeout"));
    findings.lasts(lane.poll_timeout, key("poll_timeout"));
    findings.not_zero(lane.max_polls, key("max_polls"));
    findings.lasts(lane.poll_interval, key("poll_interval"));
    let errors = |statuses: &[u16]| statuses.iter().all(|status| (400..600).contains(status));
    findings.require(errors(&lane.not_accepted_statuses), key("not_accepted_statuses"), "must be HTTP statuses from 400 to 599");
    findings.require(
        lane.request_id_header.is_empty() || is_header_name(&lane.request_id_header),
        key("request_id_header"),
        "is not the name of an HTTP header",
    );
}

/// A token of RFC 9110.
fn is_header_name(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}
