//! Running one cell: the handler's service function.
//!
//! It may run twice, and is cut at any point: what it finds in the ledger says where to go on. An open attempt with an
//! upstream id is polled, never submitted; one without, by another claim, is unknown.

use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;
use tracing::{
    Instrument as _, Span,
    field::{Empty, display},
};
use uuid::Uuid;

use super::{
    cell_outcome::Situation,
    cell_settle::CellResult,
    context::Context,
    load_cells::Found,
    make_image::{self, Accepted, Journal, MadeImage, MakeImageParams, PollEnd, UpstreamClient, make_image},
};
use crate::{
    crud::subtasks::RunRow,
    models::{
        self, Prompt, RequestCell,
        status::{ErrorKind, Status},
    },
    queue::{
        AttemptEnd, Engine, Interrupt, Job, Outcome, QueueError, Verdict,
        ledger::{Acceptance, AttemptState, Evidence, OpenAttempt, Past, Submit},
    },
};

/// Runs one cell to what can be said of it now.
///
/// Enqueued by `create_task`, one a cell; writes the cell's result, its attempts and its task's counts through the settle.
pub async fn run_cell(context: &Context, engine: &Engine, job: &Job, payload: &models::payload::GenerateImage) -> Outcome {
    let cell = payload.subtask_id;
    let task = payload.task_id.map(display);
    let span = tracing::info_span!("generate_image", %cell, claim = job.claim, task, attempt = Empty, upstream_id = Empty);
    find_and_run(context, engine, job, payload).instrument(span).await
}

async fn find_and_run(context: &Context, engine: &Engine, job: &Job, payload: &models::payload::GenerateImage) -> Outcome {
    let cell = payload.subtask_id;
    let Some(client) = &context.upstream else {
        return Outcome::internal("this process has no client of the upstream");
    };
    // A job's first claim comes before any attempt.
    let wanted = (cell, job.claim > 1);
    match Box::pin(engine.persist(|| context.cells.load(engine.connections(), wanted))).await {
        Ok(Some(found)) => {
            if payload.task_id.is_none() {
                // A job of version 1 does not say it.
                Span::current().record("task", display(found.row.task_id));
            }
            run(context, client, engine, job, cell, found).await
        }
        Ok(None) => Outcome::internal("there is no such cell"),
        // The database is away and this worker leaves: the next one reads it.
        Err(error) if engine.is_stopping() => Outcome::new(Verdict::HandedOver).because(error.to_string()),
        Err(error) => Outcome::internal(error.to_string()),
    }
}

async fn run(context: &Context, client: &UpstreamClient, engine: &Engine, job: &Job, cell: Uuid, found: Found) -> Outcome {
    let Found { row, prompts, past: Past { open, last, history } } = found;
    if row.status.is_terminal() {
        // An earlier claim ended it; the settle closes what it left open.
        return Outcome::done();
    }
    let settings = &context.settings.generate_image;
    let submit_timeout = context.settings.lanes.get(&row.lane).map_or(Duration::ZERO, |lane| lane.submit_timeout);
    let answer_within = submit_timeout + context.settings.queue.lease;
    let ordinal = open.as_ref().map(|open| open.ordinal);
    let situation = Situation { settings, history: &history, ordinal, answer_within };
    let resume = match open {
        Some(OpenAttempt { state: AttemptState::Accepted, upstream_id: Some(upstream_id), age, .. }) => {
            Span::current().record("attempt", ordinal).record("upstream_id", &upstream_id);
            let since = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
            Some(Accepted { upstream_id, since, ask_at_once: true })
        }
        // The row was written by a claim that is gone: whether its POST left, nobody knows.
        Some(open) => return situation.unknown(format!("the worker of attempt {} ended before its answer", open.ordinal), None),
        None => None,
    };
    if resume.is_none() && row.status == Status::Processing {
        // The attempt was closed by a worker that had lost its claim, and the cell does not know.
        return match last {
            Some(last) if last.state.is_uncounted() => {
                situation.come_back(None).because("the POST of its last attempt never left")
            }
            // It was paid for, or may have been. Not even a policy submits again what has an id: it can be polled.
            _ => Outcome::failed(ErrorKind::UnknownSubmit.as_str(), "the answer came after the claim was lost; see its attempts"),
        };
    }
    if resume.is_none() {
        if row.is_cancel_requested {
            return Outcome::new(Verdict::Cancelled).because("cancelled before it was submitted");
        }
        if history.answer_in > Duration::ZERO {
            return Outcome::new(Verdict::RetryAfter(history.answer_in)).because("an earlier submit may still be answered");
        }
    }
    // A cell that is polled on sends none, and must not fail for one either: it is paid for.
    let body = if resume.is_some() { Ok((Vec::new(), String::new())) } else { body_of(&row, &prompts) };
    let (body, sha256) = match body {
        Ok(body) => body,
        Err(error) => return Outcome::internal(error),
    };
    let journal = CellJournal { engine, job, cell, row: &row, sha256, answer_within, ordinal: std::sync::OnceLock::new() };
    let params = MakeImageParams {
        client,
        lane: &row.lane,
        body,
        resume,
        deadline: settings.deadline,
        tokens: &job.tokens,
        journal: &journal,
    };
    let made = make_image(params).await;
    let ordinal = ordinal.or_else(|| journal.ordinal.get().copied());
    let situation = Situation { ordinal, ..situation };
    match made {
        // A lane without an address: somebody must set it.
        Err(error) => situation.unusable(error.to_string()),
        Ok(MadeImage::NotBegun) => not_begun(engine, job, &situation),
        Ok(MadeImage::NotWritten(error)) => situation.not_sent(&format!("its row was not written: {error}")),
        Ok(MadeImage::HeldBack) => situation.not_sent("the worker leaves, or its lease ran short"),
        Ok(MadeImage::NotAccepted(answer)) => {
            reload_token(client, &answer);
            situation.after_submit(answer)
        }
        Ok(MadeImage::GivenUp) => situation.unknown("the worker left before the answer came".to_owned(), None),
        Ok(MadeImage::LeaseLost) => Outcome::new(Verdict::LeaseLost),
        Ok(MadeImage::IdNotWritten { upstream_id, error }) => {
            tracing::error!(%cell, upstream_id, %error, "ACCEPTED, and the id could not be written: it is known here only");
            situation.unknown(format!("accepted as {upstream_id}, which could not be written: {error}"), None)
        }
        Ok(MadeImage::Polled { end: PollEnd::Picture { url }, polls, since }) => {
            let end = AttemptEnd { ordinal, state: AttemptState::Succeeded, http_status: None, error: None, polls: polls as i32 };
            Box::pin(complete(context, client, job, &row, url, since, end)).await
        }
        Ok(MadeImage::Polled { end, polls, .. }) => situation.after_polls(end, polls),
    }
}

/// The body, and its hash.
fn body_of(row: &RunRow, prompts: &Result<Vec<Prompt>, String>) -> Result<(Vec<u8>, String), String> {
    let prompts = prompts.as_ref().map_err(Clone::clone)?;
    let cell = RequestCell {
        variable_indices: &row.variable_indices,
        seed: row.seed,
        width: row.width,
        height: row.height,
        use_polish: row.use_polish,
        is_lumina: row.is_lumina,
        lumina_model_name: row.lumina_model_name.as_deref(),
        lumina_cfg: row.lumina_cfg,
        lumina_step: row.lumina_step,
    };
    let body = models::request_body(prompts, &cell).map_err(|error| error.to_string())?;
    let bytes = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
    Ok((bytes, models::request_sha256(&body)))
}

/// No row, no POST: by a token, because the worker leaves, because its lease runs short, or because the cell wants none.
fn not_begun(engine: &Engine, job: &Job, situation: &Situation<'_>) -> Outcome {
    match job.tokens.interrupt() {
        Some(Interrupt::LeaseLost) => Outcome::new(Verdict::LeaseLost),
        Some(Interrupt::Cancel) => Outcome::new(Verdict::Cancelled).because("cancelled before it was submitted"),
        Some(Interrupt::Handover) => Outcome::new(Verdict::HandedOver),
        None if engine.is_stopping() => Outcome::new(Verdict::HandedOver),
        None => {
            situation.come_back(None).because("not submitted: the lease ran short, or the cell was cancelled or ended meanwhile")
        }
    }
}

/// 401: the token may have been replaced in its file.
fn reload_token(client: &UpstreamClient, answer: &make_image::SubmitAnswer) {
    if let make_image::SubmitAnswer::TurnedAway { status: 401, error, .. } = answer {
        tracing::warn!(error, "the upstream does not take the token");
        match client.token().reload() {
            Ok(true) => tracing::info!("the token was read again, and is another one"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the token was not read again"),
        }
    }
}

/// Keeps the picture, if that is asked for, and completes the cell. A download that fails is tried again until the deadline
/// and costs no attempt; then the cell is completed with its URL alone.
async fn complete(
    context: &Context,
    client: &UpstreamClient,
    job: &Job,
    row: &RunRow,
    url: String,
    since: Instant,
    end: AttemptEnd,
) -> Outcome {
    let results = &context.settings.results;
    let mut result = CellResult { url, file: None, sha256: None, note: None };
    if let Some(directory) = &results.directory {
        let stem = format!("{}/{:05}", row.task_id, row.cell);
        let longest = Duration::from_mins(1);
        let mut delays = ExponentialBuilder::default().with_max_delay(longest).with_jitter().without_max_times().build();
        loop {
            // A download can be left at any point: the next worker begins it anew.
            let fetched = tokio::select! {
                biased;
                () = job.tokens.lease_lost.cancelled() => return Outcome::new(Verdict::LeaseLost),
                () = job.tokens.handover.cancelled() => return Outcome::new(Verdict::HandedOver),
                fetched = make_image::fetch(client, results, &result.url) => fetched,
            };
            let kept = match fetched {
                Ok(fetched) => make_image::keep(directory, &stem, &fetched).await,
                Err(error) => Err(error),
            };
            match kept {
                Ok(kept) => {
                    result.file = Some(kept.file);
                    result.sha256 = Some(kept.sha256);
                    break;
                }
                Err(error) => {
                    let delay = delays.next().unwrap_or(longest);
                    if since.elapsed() + delay >= context.settings.generate_image.deadline {
                        tracing::error!(task = %row.task_id, cell = row.cell, %error, "the picture was not kept");
                        result.note = Some(error.to_string());
                        break;
                    }
                    tracing::warn!(task = %row.task_id, cell = row.cell, %error, "the picture is not kept yet; again in {delay:?}");
                    tokio::select! {
                        () = job.tokens.lease_lost.cancelled() => return Outcome::new(Verdict::LeaseLost),
                        () = job.tokens.handover.cancelled() => return Outcome::new(Verdict::HandedOver),
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
    }
    match serde_json::to_value(&result) {
        Ok(result) => Outcome::done().ending(end).leaving(result),
        Err(error) => Outcome::internal(error.to_string()),
    }
}

/// The ledger of one run.
struct CellJournal<'a> {
    engine: &'a Engine,
    job: &'a Job,
    cell: Uuid,
    row: &'a RunRow,
    sha256: String,
    answer_within: Duration,
    /// The attempt that this run began.
    ordinal: std::sync::OnceLock<i32>,
}

#[async_trait]
impl Journal for CellJournal<'_> {
    async fn submitting(&self) -> Result<Option<String>, QueueError> {
        let submit = Submit {
            cell: self.cell,
            round: self.row.round,
            lane: self.row.lane.clone(),
            request_sha256: self.sha256.clone(),
            answer_within: self.answer_within,
        };
        let begun = self.engine.begin_attempt(self.job, submit).await?;
        Ok(begun.map(|ordinal| {
            // Set once: a run begins one attempt at most.
            let ordinal = *self.ordinal.get_or_init(|| ordinal);
            Span::current().record("attempt", ordinal);
            format!("{}/{ordinal}", self.cell)
        }))
    }

    fn may_submit(&self) -> bool {
        self.engine.may_submit(self.job)
    }

    async fn give_up(&self) {
        self.engine.grace_over().await;
    }

    async fn accepted(&self, upstream_id: &str, http_status: u16) -> Result<bool, QueueError> {
        let Some(ordinal) = self.ordinal.get().copied() else {
            return Err(QueueError::Ledger { cell: self.cell, message: "accepted without an attempt".to_owned() });
        };
        Span::current().record("upstream_id", upstream_id);
        let upstream_id = upstream_id.to_owned();
        let acceptance = Acceptance { cell: self.cell, ordinal, upstream_id, http_status };
        let evidence = self.engine.accepted(self.job, acceptance).await?;
        if evidence == Evidence::NoSuchAttempt {
            let message = format!("attempt {ordinal} is not open");
            return Err(QueueError::Ledger { cell: self.cell, message });
        }
        tracing::debug!("accepted");
        Ok(evidence == Evidence::Accepted)
    }
}
