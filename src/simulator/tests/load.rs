//! Many jobs at once.

use futures::{StreamExt, stream};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_jobs_are_in_flight_at_once_and_all_end() {
    const JOBS: u64 = 10_000;
    let simulator = start(|options| options.pending_polls = Span::fixed(0)).await;
    let client = client();
    let ids: Vec<String> = stream::iter(0..JOBS).map(|_| accepted(&client, &simulator, "a")).buffer_unordered(64).collect().await;
    assert_eq!(simulator.stats().in_flight, JOBS);
    let ended = stream::iter(&ids)
        .map(|id| told(&client, &simulator, id))
        .buffer_unordered(64)
        .filter(|answer| std::future::ready(answer["task_status"] == "SUCCESS"))
        .count()
        .await;
    assert_eq!(ended as u64, JOBS);
    let stats = simulator.stats();
    assert_eq!((stats.in_flight, stats.max_in_flight), (0, JOBS));
    let mut ledger: Vec<String> = simulator.ledger().into_iter().map(|entry| entry.upstream_id).collect();
    let mut ids = ids;
    ids.sort_unstable();
    ledger.sort_unstable();
    assert_eq!(ids, ledger);
}
