//! The benchmark's stock backend: a worker of apalis-postgres as it comes, set as its own documentation does it. It makes
//! pictures by the same call as ours, and keeps no ledger.

use std::time::Duration;

use apalis::prelude::{BackendExt as _, BoxDynError, Data, ParallelizeExt as _, WorkerBuilder, WorkerBuilderExt as _};
use apalis_postgres::{Config, PostgresStorage};
use imagemill::{
    commands::{
        bench::stock::{QUEUE, StockJob, StockSetting},
        report::Failure,
    },
    config::Settings,
    db::pool,
    queue::JobTokens,
    services::make_image::{MadeImage, MakeImageParams, NoJournal, PollEnd, UpstreamClient, make_image},
};
use uuid::Uuid;

use crate::signals::Signals;

/// What the handler needs of its process.
#[derive(Clone)]
struct Call {
    client: UpstreamClient,
    deadline: Duration,
}

/// Runs a worker of the stock backend until it is told to leave.
pub(crate) async fn run(settings: Settings, setting: StockSetting) -> Result<(), Failure> {
    let mut signals = Signals::catch(true).map_err(Failure::failed)?;
    let client = UpstreamClient::new(&settings).map_err(Failure::usage)?;
    let url = settings.database.url.as_ref().ok_or_else(|| Failure::usage("no database is configured"))?;
    let pool = pool::connect(url, &settings.database, "stock").await.map_err(Failure::failed)?;
    let call = Call { client, deadline: settings.generate_image.deadline };
    let name = format!("stock-{}", Uuid::now_v7());
    let config = Config::default().queue(QUEUE);
    let backend = PostgresStorage::<StockJob>::new(&pool);
    let leave = async move {
        signals.first().await;
        Ok::<(), std::io::Error>(())
    };
    let ended = match setting.batch {
        // Its default setting: neither a limit nor a poll strategy.
        None => WorkerBuilder::new(name).backend(backend.with_config(config)).data(call).build(handle).run_until(leave).await,
        Some(batch) => {
            let config = config.batch_size(batch).lock_tasks(!setting.no_lock);
            let backend = backend.with_config(config).poll_with_interval(Duration::from_millis(setting.poll_ms));
            let worker = WorkerBuilder::new(name).backend(backend).data(call).concurrency(setting.concurrency);
            if setting.spawn {
                worker.parallelize(tokio::spawn).build(handle).run_until(leave).await
            } else {
                worker.build(handle).run_until(leave).await
            }
        }
    };
    ended.map_err(Failure::failed)
}

/// Makes one picture; its URL is the job's result.
async fn handle(job: StockJob, call: Data<Call>) -> Result<String, BoxDynError> {
    let made = make_image(MakeImageParams {
        client: &call.client,
        lane: &job.lane,
        body: serde_json::to_vec(&job.body)?,
        resume: None,
        deadline: call.deadline,
        tokens: &JobTokens::default(),
        journal: &NoJournal,
    })
    .await?;
    match made {
        MadeImage::Polled { end: PollEnd::Picture { url }, .. } => Ok(url),
        other => Err(format!("no picture: {other:?}").into()),
    }
}
