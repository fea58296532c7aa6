//! The two outcome tables of the upstream call as rows of a test, in their order.

use imagemill::simulator::{Behaviour, IdForm};

/// Where the lane points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// To the simulator.
    Simulator,
    /// To a port that nobody listens on.
    Refused,
    /// To a name that no resolver can answer for.
    NoName,
    /// To a port that speaks no TLS, by https.
    NoTls,
}

/// Which of the two tables a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Submit,
    Poll,
}

/// Settings of a worker: keys and values.
pub(super) type Keys = &'static [(&'static str, &'static str)];

/// When a job that was put back runs again: seconds after the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Retry {
    pub(super) after: usize,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// One cell: what its POSTs meet, and what is to be seen at the end.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) table: Table,
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) settings: Keys,
    /// What its first POST meets, its second, ...; the last stands for all further ones.
    pub(super) posts: Vec<Behaviour>,
    /// Ordinals of the submits in the simulator's ledger.
    pub(super) billed: &'static str,
    /// State and status of each attempt.
    pub(super) attempts: &'static str,
    /// State and kind of error of the cell.
    pub(super) cell: &'static str,
    /// Part of the cell's `error`.
    pub(super) says: &'static str,
    pub(super) retry: Option<Retry>,
    /// Polls of the last attempt: answered by our count, arrived by the simulator's.
    pub(super) polls: Option<(i32, u64)>,
}

impl Row {
    fn new(
        table: Table,
        name: &'static str,
        posts: impl Into<Vec<Behaviour>>,
        attempts: &'static str,
        cell: &'static str,
    ) -> Self {
        Self {
            table,
            name,
            place: Place::Simulator,
            settings: &[],
            posts: posts.into(),
            billed: "",
            attempts,
            cell,
            says: "",
            retry: None,
            polls: None,
        }
    }

    fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    fn with(self, settings: Keys) -> Self {
        Self { settings, ..self }
    }

    fn billed(self, billed: &'static str) -> Self {
        Self { billed, ..self }
    }

    fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }

    fn again(self, after: usize, from: f64, to: f64) -> Self {
        Self { retry: Some(Retry { after, from, to }), ..self }
    }

    fn polls(self, answered: i32, arrived: u64) -> Self {
        Self { polls: Some((answered, arrived)), ..self }
    }
}

/// Both tables.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = submit_rows();
    rows.extend(id_rows());
    rows.extend(poll_rows());
    rows
}

const RESUBMIT_LATER: Keys = &[("generate_image.on_unknown_submit", "resubmit"), ("lanes.prod.submit_timeout", "60s")];
const RESUBMIT_SOON: Keys = &[("generate_image.on_unknown_submit", "resubmit"), ("lanes.prod.submit_timeout", "3s")];
const SHORT_SUBMIT: Keys = &[("lanes.prod.submit_timeout", "1s")];
const OTHER_STATUSES: Keys = &[("lanes.prod.not_accepted_statuses", "[429, 500]")];
// A lane that is paused holds its other cells: each row in a world of its own, by a number of slots that no other has.
const REFUSED_BY_401: Keys = &[("generate_image.slots", "13")];
const REFUSED_BY_403: Keys = &[("generate_image.slots", "12")];
const REFUSED_BY_402: Keys = &[("generate_image.slots", "11")];
const REFUSED_AND_LATER: Keys = &[("generate_image.slots", "10")];
const THROTTLED_TWICE: Keys =
    &[("generate_image.backoff_min", "100ms"), ("generate_image.backoff_max", "10s"), ("generate_image.slots", "15")];
const REFUSED_TWICE: Keys =
    &[("generate_image.backoff_min", "100ms"), ("generate_image.backoff_max", "10s"), ("generate_image.slots", "14")];
const POLLS_REFUSED: Keys = &[("upstream.probe_interval", "1h")];
const THROTTLED_BY_429: Keys = &[("generate_image.slots", "9")];
const THROTTLED_BY_503: Keys = &[("generate_image.slots", "8")];
const THROTTLED_FOR_LONG: Keys = &[("generate_image.slots", "7")];
const THROTTLED_BY_500: Keys = &[("lanes.prod.not_accepted_statuses", "[429, 500]"), ("generate_image.slots", "6")];
const FEW_POLLS: Keys = &[("lanes.prod.max_polls", "3")];
const FEW_POLLS_RESUBMIT: Keys = &[("lanes.prod.max_polls", "3"), ("generate_image.on_poll_limit", "resubmit")];
const SHORT_DEADLINE: Keys = &[("generate_image.deadline", "1s")];
// What of its time does count, from the answer to the first poll, and between the last two, is shorter on a busy machine too.
pub(super) const DEADLINE_WHILE_REFUSED: Keys = &[("generate_image.deadline", "4s"), ("upstream.probe_interval", "1h")];

fn status(status: u16) -> Behaviour {
    Behaviour::status(status)
}

fn later(status: u16, seconds: u64) -> Behaviour {
    Behaviour::Status { status, retry_after: Some(seconds), accepted: false }
}

fn submit_rows() -> Vec<Row> {
    use Behaviour::{HangAfter, HangBefore, ResetAfter, ResetBefore, Success, Unreadable};
    let row = |name, posts: &[Behaviour], attempts, cell| Row::new(Table::Submit, name, posts, attempts, cell);
    let unknown = |name, posts: &[Behaviour], attempts| row(name, posts, attempts, "failed/unknown_submit");
    let unreadable = |answer: &str| [Unreadable { answer: answer.to_owned() }];
    vec![
        // It never stood.
        row("connection refused", &[Success], "not_sent", "pending").at(Place::Refused).says("no connection").again(1, 20., 40.),
        row("no such name", &[Success], "not_sent", "pending").at(Place::NoName).says("no connection").again(1, 20., 40.),
        row("TLS fails", &[Success], "not_sent", "pending").at(Place::NoTls).says("no connection").again(1, 20., 40.),
        // Not taken.
        row("400", &[status(400)], "rejected/400", "failed/rejected").says("the simulator answers with 400"),
        row("404", &[status(404)], "rejected/404", "failed/rejected").says("404"),
        row("422", &[status(422)], "rejected/422", "failed/rejected").says("422"),
        row("302", &[status(302)], "rejected/302", "failed/rejected").says("302"),
        row("418", &[status(418)], "rejected/418", "failed/rejected").says("418"),
        row("451", &[status(451)], "refused/451", "failed/refused").says("the simulator answers with 451"),
        // Turned away.
        row("401", &[status(401)], "turned_away/401", "pending").with(REFUSED_BY_401).says("401").again(1, 20., 40.),
        row("403", &[status(403)], "turned_away/403", "pending").with(REFUSED_BY_403).says("403").again(1, 20., 40.),
        row("402", &[status(402)], "turned_away/402", "pending").with(REFUSED_BY_402).says("402").again(1, 20., 40.),
        row("401, Retry-After does not count", &[later(401, 300)], "turned_away/401", "pending")
            .with(REFUSED_AND_LATER)
            .again(1, 20., 40.),
        // How long the pause lasts is the lane's affair, and not the cell's.
        row("429", &[status(429)], "turned_away/429", "pending").with(THROTTLED_BY_429).says("429").again(1, 20., 40.),
        row("503", &[status(503)], "turned_away/503", "pending").with(THROTTLED_BY_503).says("503").again(1, 20., 40.),
        row("429, Retry-After", &[later(429, 300)], "turned_away/429", "pending").with(THROTTLED_FOR_LONG).again(1, 20., 40.),
        row("500 by setting", &[status(500)], "turned_away/500", "pending").with(THROTTLED_BY_500).again(1, 20., 40.),
        unknown("503 by setting", &[status(503)], "unknown/503").with(OTHER_STATUSES),
        row("429 twice", &[status(429), status(429), Success], "turned_away/429 turned_away/429 succeeded/200", "completed")
            .with(THROTTLED_TWICE)
            .billed("3")
            .again(2, 0.1, 0.2),
        row("401 twice", &[status(401), status(401), Success], "turned_away/401 turned_away/401 succeeded/200", "completed")
            .with(REFUSED_TWICE)
            .billed("3")
            .again(2, 0.1, 0.2),
        // Unknown.
        unknown("2xx unreadable", &unreadable("{\"uuid\": "), "unknown/200").billed("1").says("no id in the answer"),
        unknown("2xx empty", &unreadable(""), "unknown/200").billed("1"),
        unknown("2xx with a number", &unreadable("{\"id\": 5}"), "unknown/200").billed("1"),
        unknown("2xx, NUL in the answer", &unreadable("\"a\\u0000b\""), "unknown/200").billed("1"),
        unknown("2xx, too long", &unreadable(&format!("\"{}\"", "a".repeat(2 << 20))), "unknown/200").billed("1"),
        unknown("408", &[status(408)], "unknown/408").says("408"),
        unknown("500", &[status(500)], "unknown/500").says("the simulator answers with 500"),
        unknown("502", &[status(502)], "unknown/502"),
        unknown("504", &[status(504)], "unknown/504"),
        unknown("500, billed", &[Behaviour::Status { status: 500, retry_after: None, accepted: true }], "unknown/500")
            .billed("1"),
        unknown("500, Retry-After does not count", &[later(500, 300)], "unknown/500"),
        unknown("reset before acceptance", &[ResetBefore], "unknown").says("the connection broke"),
        unknown("reset after acceptance", &[ResetAfter], "unknown").billed("1").says("the connection broke"),
        unknown("time-out before acceptance", &[HangBefore], "unknown").with(SHORT_SUBMIT).says("time-out"),
        unknown("time-out after acceptance", &[HangAfter], "unknown").with(SHORT_SUBMIT).billed("1").says("time-out"),
        // Unknown, and the operator takes the risk: not before its answer can come no more.
        row("500, resubmit", &[status(500), Success], "unknown/500", "pending").with(RESUBMIT_LATER).again(1, 63., 63.),
        row("reset, resubmit", &[ResetAfter, Success], "unknown", "pending").with(RESUBMIT_LATER).billed("1").again(1, 63., 63.),
        row("reset, resubmitted", &[ResetAfter, Success], "unknown succeeded/200", "completed")
            .with(RESUBMIT_SOON)
            .billed("1 2")
            .again(1, 6., 6.),
        row("500, resubmitted", &[status(500), Success], "unknown/500 succeeded/200", "completed")
            .with(RESUBMIT_SOON)
            .billed("2")
            .again(1, 6., 6.),
    ]
}

fn id_rows() -> Vec<Row> {
    let row = |name, post| Row::new(Table::Submit, name, [post], "succeeded/200", "completed").billed("1").polls(2, 2);
    let form = |name, form| row(name, Behaviour::ObjectId { form });
    vec![
        row("the bare id", Behaviour::Success),
        form("uuid", IdForm::Uuid),
        form("task_uuid", IdForm::TaskUuid),
        form("id", IdForm::Id),
        form("task_id", IdForm::TaskId),
        form("data.uuid", IdForm::DataUuid),
        form("data.task_uuid", IdForm::DataTaskUuid),
        form("data.id", IdForm::DataId),
        form("data.task_id", IdForm::DataTaskId),
    ]
}

fn poll_rows() -> Vec<Row> {
    use Behaviour::{
        Deleted, EmptySuccess, IllegalImage, Lost, ModerationFirst, PendingForever, PollError, PollReset, Success, Timeout,
    };
    let row = |name, posts: &[Behaviour], attempts, cell| Row::new(Table::Poll, name, posts, attempts, cell).billed("1");
    let fails = |message: &str| Behaviour::Failure { message: message.to_owned() };
    let no_gpu = || fails("no GPU");
    let trouble = |status| PollError { polls: 2, status, retry_after: Some(1) };
    let always = |status| PollError { polls: u64::MAX, status, retry_after: None };
    let found = |name, post| row(name, &[post], "succeeded/200", "completed");
    vec![
        // SUCCESS.
        found("MODERATION first", ModerationFirst { polls: 2 }).polls(4, 4),
        found("empty, then the picture", EmptySuccess { polls: Some(3) }).polls(5, 5),
        row("still empty after 3 more polls", &[EmptySuccess { polls: None }], "failed/200", "failed/upstream_failure")
            .polls(5, 5)
            .says("without a picture"),
        // FAILURE and TIMEOUT: two new attempts a round.
        row("FAILURE", &[no_gpu()], "failed/200 failed/200 failed/200", "failed/upstream_failure")
            .billed("1 2 3")
            .says("no GPU")
            .again(2, 0., 0.),
        row("FAILURE, then SUCCESS", &[no_gpu(), Success], "failed/200 succeeded/200", "completed")
            .billed("1 2")
            .again(1, 0., 0.),
        row("FAILURE with a NUL", &[fails("a\0b")], "failed/200 failed/200 failed/200", "failed/upstream_failure")
            .billed("1 2 3")
            .says("a\u{fffd}b"),
        row("TIMEOUT", &[Timeout], "timed_out/200 timed_out/200 timed_out/200", "failed/upstream_timeout")
            .billed("1 2 3")
            .says("TIMEOUT")
            .again(2, 0., 0.),
        row(
            "FAILURE, TIMEOUT, FAILURE",
            &[no_gpu(), Timeout, no_gpu()],
            "failed/200 timed_out/200 failed/200",
            "failed/upstream_failure",
        )
        .billed("1 2 3"),
        row("FAILURE, 451", &[no_gpu(), status(451)], "failed/200 refused/451", "failed/refused").again(1, 0., 0.),
        // Refused.
        row("ILLEGAL_IMAGE", &[IllegalImage], "refused/200", "failed/refused").polls(2, 2).says("ILLEGAL_IMAGE"),
        row("DELETED", &[Deleted], "refused/200", "failed/refused").polls(2, 2).says("DELETED"),
        // The limit.
        row("poll limit", &[PendingForever], "abandoned/200", "failed/poll_limit").with(FEW_POLLS).says("poll limit"),
        row("poll limit, resubmit", &[PendingForever, Success], "abandoned/200 succeeded/200", "completed")
            .with(FEW_POLLS_RESUBMIT)
            .billed("1 2")
            .again(1, 0., 0.),
        // The deadline.
        row("deadline, PENDING", &[PendingForever], "abandoned/200", "failed/deadline").with(SHORT_DEADLINE).says("PENDING"),
        row("deadline, 500 at every poll", &[always(500)], "abandoned/200", "failed/deadline").with(SHORT_DEADLINE).says("500"),
        // A token that is refused is no fault of the cell.
        found("deadline, 401 for longer than it", PollError { polls: 8, status: 401, retry_after: None })
            .with(DEADLINE_WHILE_REFUSED)
            .polls(2, 10),
        // 404.
        row("404, five in a row", &[Lost], "abandoned/200", "failed/upstream_lost").polls(5, 5).says("404"),
        found("404, four in a row", PollError { polls: 4, status: 404, retry_after: None }).polls(6, 6),
        // Polls that fail only wait.
        found("poll 500", trouble(500)).polls(2, 4),
        found("poll 429", trouble(429)).polls(2, 4),
        found("poll 401", trouble(401)).with(POLLS_REFUSED).polls(2, 4),
        found("poll 402", trouble(402)).with(POLLS_REFUSED).polls(2, 4),
        found("poll 403", trouble(403)).with(POLLS_REFUSED).polls(2, 4),
        found("poll 302", trouble(302)).polls(2, 4),
        found("poll reset", PollReset { polls: 2 }).polls(2, 4),
    ]
}
