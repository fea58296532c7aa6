//! Running one cell: the handler's service function.
//!
//! It may run twice, and is cut at any point: what it finds in the ledger says where to go on. An open attempt with an
//! upstream id is polled, never submitted; one without, by another claim, is unknown.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{
    Instrument as _, Span,
    field::{Empty, display},
};
use uuid::Uuid;

use super::{
    cell_journal::CellJournal,
    cell_outcome::Situation,
    cell_picture::complete,
    context::Context,
    load_cells::{Found, Wanted},
    make_image::{Accepted, MadeImage, MakeImageParams, PollEnd, UpstreamClient, make_image},
    pauses::LaneCalls,
    take_up::{TakenUp, Taker},
};
use crate::{
    crud::subtasks::RunRow,
    models::{
        self, Prompt, RequestCell,
        status::{ErrorKind, RetryMode, Status},
    },
    queue::{
        AttemptEnd, Engine, Interrupt, Job, Outcome, Verdict,
        ledger::{AttemptState, OpenAttempt, Past},
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
    let wanted = Wanted { cell, task: payload.task_id, may_have_past: job.claim > 1 };
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
    let Found { row, prompts, past: Past { open, last, given_up, last_round, history }, asked } = found;
    if row.status.is_terminal() {
        // An earlier claim ended it; the settle closes what it left open.
        return Outcome::done();
    }
    let settings = &context.settings.generate_image;
    let submit_timeout = context.settings.lanes.get(&row.lane).map_or(Duration::ZERO, |lane| lane.submit_timeout);
    let answer_within = submit_timeout + context.settings.queue.lease;
    let ordinal = open.as_ref().map(|open| open.ordinal);
    let may_pay = row.retry.mode != Some(RetryMode::Evidence);
    let submits_for = row.submits_for.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX));
    let submits_until = submits_for.and_then(|left| asked.checked_add(left));
    let situation = Situation { settings, history: &history, ordinal, answer_within, may_pay };
    if row.is_cancel_requested {
        return situation.cancelled(open);
    }
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
            Some(last) if last.state.is_uncounted() => situation.come_back().because("the POST of its last attempt never left"),
            // It was paid for, or may have been. Not even a policy submits again what has an id: it can be polled.
            _ => Outcome::failed(ErrorKind::UnknownSubmit.as_str(), "the answer came after the claim was lost; see its attempts"),
        };
    }
    let mut resume = resume;
    let mut ordinal = ordinal;
    if resume.is_none() {
        // Before anything is paid: what was given up in an earlier round may have its picture by now.
        let earlier = given_up.filter(|_| row.retry.round.is_some_and(|round| last_round < round));
        let taker = Taker { client, engine, job, row: &row, situation: &situation };
        // In a box of its own, as all that few cells ever do: it would be the largest part of each of thousands.
        match Box::pin(taker.take_up(earlier)).await {
            TakenUp::Nothing => {}
            TakenUp::Outcome(outcome) => return outcome,
            TakenUp::Working { accepted, ordinal: reopened } => {
                Span::current().record("attempt", reopened).record("upstream_id", &accepted.upstream_id);
                resume = Some(accepted);
                ordinal = Some(reopened);
            }
            TakenUp::Picture { url, ordinal } => {
                let end = AttemptEnd {
                    ordinal: Some(ordinal),
                    state: AttemptState::Succeeded,
                    http_status: None,
                    error: None,
                    polls: 1,
                };
                return Box::pin(complete(context, client, job, &row, url, Instant::now(), end)).await;
            }
        }
    }
    if resume.is_none() && job.is_resumed {
        // Its claim passed by all limits, since it was to be asked for only.
        return Outcome::new(Verdict::RetryAfter(Duration::ZERO))
            .because("its earlier attempt is over: a new one waits its turn");
    }
    if resume.is_none() {
        let answer_in = if row.retry.mode == Some(RetryMode::Now) { history.answer_in_of_round } else { history.answer_in };
        if answer_in > Duration::ZERO {
            return Outcome::new(Verdict::RetryAfter(answer_in)).because("an earlier submit may still be answered");
        }
    }
    // A cell that is polled on sends none, and must not fail for one either: it is paid for.
    let body = if resume.is_some() { Ok((Vec::new(), String::new())) } else { body_of(&row, &prompts) };
    let (body, sha256) = match body {
        Ok(body) => body,
        Err(error) => return Outcome::internal(error),
    };
    let calls = LaneCalls { engine, client, settings: &context.settings, lane: &row.lane };
    let journal = CellJournal::new(job, &row, sha256, answer_within, calls).until(submits_until);
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
    let ordinal = ordinal.or_else(|| journal.ordinal());
    let situation = Situation { ordinal, ..situation };
    match made {
        // A lane without an address: somebody must set it.
        Err(error) => situation.unusable(error.to_string()),
        Ok(MadeImage::NotBegun) => not_begun(engine, job, &situation, journal.held()),
        Ok(MadeImage::NotWritten(error)) => situation.not_sent(&format!("its row was not written: {error}")),
        Ok(MadeImage::HeldBack) if journal.is_stopped() && engine.may_submit(job) => situation.held("it was while this began"),
        Ok(MadeImage::HeldBack) => situation
            .not_sent("the worker leaves, its lease ran short, its row is too old, its task's time is over, or it was cancelled"),
        Ok(MadeImage::NotAccepted(answer)) => situation.after_submit(answer),
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

/// No row, no POST: by a token, because the worker leaves, because the lane is paused, because the lease runs short, or because
/// the cell wants none.
fn not_begun(engine: &Engine, job: &Job, situation: &Situation<'_>, held: Option<&str>) -> Outcome {
    match job.tokens.interrupt() {
        Some(Interrupt::LeaseLost) => Outcome::new(Verdict::LeaseLost),
        Some(Interrupt::Cancel) => Outcome::new(Verdict::Cancelled).because("cancelled before it was submitted"),
        Some(Interrupt::Handover) => Outcome::new(Verdict::HandedOver),
        None if engine.is_stopping() => Outcome::new(Verdict::HandedOver),
        None if held.is_some() => situation.held(held.unwrap_or_default()),
        None => situation
            .come_back()
            .because("not submitted: the lease ran short, its task's time is over, or the cell was cancelled or ended meanwhile"),
    }
}
