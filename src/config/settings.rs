//! The settings of imagemill, one struct a section of `Config.toml`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{duration, optional};

/// Every setting, validated. Built by [`super::load`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The database, and the private server that stands in for one.
    pub database: DatabaseSettings,
    /// The queue engine.
    pub queue: QueueSettings,
    /// What a task may ask for.
    pub limits: LimitSettings,
    /// The job `imagemill.generate_image`.
    pub generate_image: GenerateImageSettings,
    /// The job `imagemill.complete_task`.
    pub complete_task: CompleteTaskSettings,
    /// What all lanes share when speaking to the upstream.
    pub upstream: UpstreamSettings,
    /// What a worker needs to speak to each lane.
    pub lanes: BTreeMap<String, LaneSettings>,
    /// Where pictures are kept.
    pub results: ResultSettings,
    /// Log files.
    pub logs: LogSettings,
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// Connection URL; none means the private server.
    #[serde(deserialize_with = "optional::secret")]
    pub url: Option<SecretString>,
    /// Whether a pooler in transaction mode stands between: every statement in a transaction, no LISTEN.
    pub pooler: bool,
    /// Largest number of pooled connections of one process.
    pub max_connections: u32,
    /// An idle connection older than this is closed.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stale_timeout: Duration,
    /// How long to wait for a connection before saying that there is none.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// Data directory of the private server; none means the platform's place for data of this user.
    #[serde(deserialize_with = "optional::deserialize")]
    pub private_directory: Option<PathBuf>,
}

/// `[queue]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// A worker says so often that it lives.
    #[serde(deserialize_with = "duration::deserialize")]
    pub beat: Duration,
    /// A worker that was watched without a beat for so long is dead.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lease: Duration,
    /// How often to look for work when nothing wakes the claimer.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_interval: Duration,
    /// Whether to be woken by LISTEN/NOTIFY as well; off where a pooler stands between.
    pub listen: bool,
    /// How long a leaving worker awaits the submits that are out.
    #[serde(deserialize_with = "duration::deserialize")]
    pub grace: Duration,
    /// How often one worker looks for tasks that no job will end.
    #[serde(deserialize_with = "duration::deserialize")]
    pub sweep_interval: Duration,
    /// Finished jobs are kept for so long; cells and attempts stay.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retention: Duration,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Axes a task.
    pub max_axes: usize,
    /// Values an axis.
    pub max_values_per_axis: usize,
    /// Cells a task.
    pub max_cells: usize,
}

/// What to do with a cell whose picture may or may not have been paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UncertainPolicy {
    /// The cell fails and says why.
    Fail,
    /// Submit once more: perhaps a second payment.
    Resubmit,
}

/// `[generate_image]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateImageSettings {
    /// Cells in flight in one worker process.
    pub slots: usize,
    /// New attempts of a cell and round: after FAILURE or TIMEOUT, and as often as the two policies may submit again.
    pub new_attempts: u32,
    /// When the answer to a submit is unknown.
    pub on_unknown_submit: UncertainPolicy,
    /// When the poll limit is reached and the upstream may still be working.
    pub on_poll_limit: UncertainPolicy,
    /// An accepted attempt is given up after so long, whatever its polls say.
    #[serde(deserialize_with = "duration::deserialize")]
    pub deadline: Duration,
    /// First wait of a cell after a submit that was turned away or not sent, and first pause of a lane that is throttled or in
    /// trouble; doubles each time, for cells with jitter.
    #[serde(deserialize_with = "duration::deserialize")]
    pub backoff_min: Duration,
    /// Longest such wait.
    #[serde(deserialize_with = "duration::deserialize")]
    pub backoff_max: Duration,
}

/// `[complete_task]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteTaskSettings {
    /// Completions at once in one worker process, beside the slots of `generate_image`.
    pub slots: usize,
}

/// `[upstream]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// The API token.
    #[serde(deserialize_with = "optional::secret")]
    pub api_token: Option<SecretString>,
    /// A file with the API token; read again when the upstream refuses the token, while a pause names it, and on SIGHUP.
    #[serde(deserialize_with = "optional::deserialize")]
    pub api_token_file: Option<PathBuf>,
    /// So often one worker of the fleet tries whether a token that was refused is taken again.
    #[serde(deserialize_with = "duration::deserialize")]
    pub probe_interval: Duration,
    /// So many transient errors of submits in a row, of all workers, pause their lane; 0: never.
    pub breaker_errors: u32,
    /// Name of the header that carries the token.
    pub token_header: String,
    /// What stands before the token in that header.
    pub token_prefix: String,
    /// Value of `x-platform`.
    pub platform: String,
    /// To connect, for polls and pictures; a submit waits for no longer than it may leave.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// Connections at most, of one process; a POST's ledger row is written with one in hand.
    pub max_connections: usize,
    /// An idle connection is closed after so long.
    #[serde(deserialize_with = "duration::deserialize")]
    pub idle_timeout: Duration,
}

/// `[lanes.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneSettings {
    /// Where the lane's API stands; none means that the lane cannot be used.
    #[serde(deserialize_with = "optional::deserialize")]
    pub base_url: Option<Url>,
    /// Path of the submit, below the base URL.
    pub submit_path: String,
    /// Path of the poll, below the base URL; `{id}` stands for the upstream's id.
    pub poll_path: String,
    /// For the upstream to answer a submit.
    #[serde(deserialize_with = "duration::deserialize")]
    pub submit_timeout: Duration,
    /// For the upstream to answer a poll.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_timeout: Duration,
    /// Polls before the limit is reached.
    pub max_polls: u32,
    /// Between two polls.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_interval: Duration,
    /// Statuses that mean: surely not accepted, come back later.
    pub not_accepted_statuses: Vec<u16>,
    /// Header that carries `subtask/ordinal` with each submit; empty means none.
    pub request_id_header: String,
}

/// `[results]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultSettings {
    /// Where pictures are kept; none means that only their URLs are.
    #[serde(deserialize_with = "optional::deserialize")]
    pub directory: Option<PathBuf>,
    /// Largest picture that is fetched, in bytes.
    pub max_bytes: u64,
    /// For one download.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
}

/// `[logs]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Directory of the daily files; empty means no files.
    pub directory: String,
    /// Files as JSON lines.
    pub json: bool,
    /// Filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}
