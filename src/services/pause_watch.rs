//! Looks after the pauses that name this process's token: it reads the token's file again, and takes the fleet's probe when it
//! is due. Pauses of other kinds end by themselves, or by a person.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    context::Context,
    make_image::{self, Asked, UpstreamClient},
    pauses::{LaneCalls, reload_token},
    run_cell::run_cell,
};
use crate::{
    models::payload::GenerateImage,
    queue::{Call, Engine, QueueError, decoded},
};

/// While a pause names this token, its file is read so often.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Watches until the engine leaves. Each worker does; the rows say whose turn a probe is.
pub async fn watch(context: &Context, engine: &Engine) {
    let Some(client) = &context.upstream else { return };
    let interval = context.settings.upstream.probe_interval;
    while !engine.is_stopping() {
        let wait = match round(context, client, engine, interval).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "pauses were not looked at; again soon");
                READ_AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = engine.pause_met() => {
                // Many are met at once, and each of them tells.
                tokio::time::sleep(READ_AGAIN.min(interval) / 10).await;
            }
            () = engine.stopping() => return,
        }
    }
}

/// Looks once. Returns when to look again.
async fn round(context: &Context, client: &UpstreamClient, engine: &Engine, interval: Duration) -> Result<Duration, QueueError> {
    engine.forget_stale_pauses().await?;
    if engine.own_pauses().await?.is_empty() {
        return Ok(interval);
    }
    reload_token(client, engine).await;
    // Of the token as it is now.
    let mut lanes: BTreeMap<String, (Duration, Call)> = BTreeMap::new();
    for pause in engine.own_pauses().await? {
        let lane = lanes.entry(pause.lane.clone()).or_insert((pause.probe_in(), pause.call));
        *lane = (lane.0.max(pause.probe_in()), lane.1.min(pause.call));
    }
    let mut wait = interval;
    for (lane, (probe_in, call)) in lanes {
        if client.lane(&lane).is_err() {
            // Without an address nothing can be tried here.
            continue;
        }
        if probe_in.is_zero() && engine.take_probe(&lane, interval).await? {
            probe(context, client, engine, &lane, call).await?;
        } else {
            wait = wait.min(probe_in.max(Duration::from_millis(50)));
        }
    }
    Ok(if client.token().is_file() { wait.min(READ_AGAIN) } else { wait })
}

/// Polls an id that the upstream knows, where there is one; that costs nothing. Only if that is answered, or there is none, one
/// cell is submitted: an upstream that asks no token of polls must not let a whole volley go.
async fn probe(context: &Context, client: &UpstreamClient, engine: &Engine, lane: &str, refused: Call) -> Result<(), QueueError> {
    let calls = LaneCalls { engine, client, settings: &context.settings, lane };
    if let Some(upstream_id) = engine.known_id(lane).await? {
        let poller = engine.poller(lane);
        let permit = tokio::select! {
            permit = client.poll_permit(&poller) => permit,
            () = engine.stopping() => return Ok(()),
        };
        let (token, begun) = (client.token().current(), Instant::now());
        let asked = make_image::ask(client, lane, &token, &upstream_id).await;
        drop(permit);
        match asked {
            Asked::Refused { status, error } => {
                tracing::info!(lane, error, "probed by a poll: refused");
                calls.poll_refused(token.hash(), begun, status, &error).await;
                return Ok(());
            }
            Asked::NotAnswered => return Ok(()),
            Asked::Answered => calls.poll_answered(token.hash(), begun).await,
        }
        if refused == Call::Poll {
            return Ok(());
        }
    }
    if let Some(job) = engine.claim_probe(GenerateImage::QUEUE, lane).await? {
        tracing::info!(lane, cell = job.key, "probing: one cell is submitted");
        let (context, handling, cell) = (context.clone(), engine.clone(), job.clone());
        let run = decoded(&job, GenerateImage::VERSION, move |payload: GenerateImage| async move {
            run_cell(&context, &handling, &cell, &payload).await
        });
        // It settles itself, whatever it says; its answer ends the pause, or does not.
        drop(engine.execute(job, run));
    }
    Ok(())
}
