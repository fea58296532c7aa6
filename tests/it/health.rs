//! `imagemill health`: what a probe is told.

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    commands::{ends_with, json, output},
    support::{BOUND, World, eventually},
};

#[tokio::test]
async fn a_probe_passes_while_the_workers_of_its_host_beat() {
    let world = World::new().await;
    let (stdout, _) = ends_with(&world, &["health"], 1).await;
    assert!(stdout.starts_with("not alive: no worker process of ") && stdout.lines().count() == 1, "{stdout}");

    let workers = [world.worker(&[]), world.worker(&[])];
    world.until("select count(*) = 2 from apalis.workers").await;
    let (stdout, _) = ends_with(&world, &["health"], 0).await;
    assert!(stdout.starts_with("alive: workers of ") && stdout.lines().count() == 1, "{stdout}");
    let said = json(&world, &["--json", "health"]).await;
    assert_eq!(said["alive"], true);
    let mut processes: Vec<u64> =
        said["workers"].as_array().expect("workers").iter().filter_map(|worker| worker["pid"].as_u64()).collect();
    let mut expected = workers.each_ref().map(|worker| u64::from(worker.id()));
    processes.sort_unstable();
    expected.sort_unstable();
    assert_eq!(processes, expected);

    // One stands still: that the other beats is not enough, with an outage tolerated or not.
    workers[0].signal(Signal::STOP);
    eventually("it is silent for longer than its lease", async || {
        let silent = output(world.command(&["health", "--tolerate-outage"])).await;
        silent.status.code() == Some(1) && String::from_utf8_lossy(&silent.stdout).contains("its lease is 3 s")
            || world.number("select count(*) from imagemill.incarnations where how = 'rescued'").await == 1
    })
    .await;
    workers[0].signal(Signal::CONT);
    // It goes on, under a new name where it was found dead.
    eventually("both beat", async || {
        let both = output(world.command(&["--json", "health"])).await;
        let said: Value = serde_json::from_slice(&both.stdout).expect("JSON");
        said["workers"].as_array().is_some_and(|workers| workers.len() == 2) && both.status.success()
    })
    .await;
}

/// The number that follows these words.
fn number_after(said: &str, words: &str) -> f64 {
    let number = said.split_once(words).and_then(|(_, rest)| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number after `{words}`: {said}"))
}

#[tokio::test]
async fn a_silent_worker_is_named_and_rows_of_others_say_nothing() {
    let mut world = World::new().await;
    // Longer than the command may take after a beat is written.
    world.set("queue.lease", "60s");
    let host = imagemill::queue::host();
    // Of this very process, so that it runs; the beats are old.
    let insert = async |name: &str, host: &str, pid: i32, started: &str, beat: &str, ended: bool| {
        sqlx::query(
            "with worker as (insert into apalis.workers (id, worker_type, storage_name, last_seen)
                             values ($1, 'imagemill', 'imagemill', now() - $5::interval))
             insert into imagemill.incarnations (name, host, pid, version, started_at, ended_at, how)
             values ($1, $2, $3, '0', now() - $4::interval, case when $6 then now() end, case when $6 then 'stopped' end)",
        )
        .bind(name)
        .bind(host)
        .bind(pid)
        .bind(started)
        .bind(beat)
        .bind(ended)
        .execute(world.pool())
        .await
        .expect("insert a worker");
    };
    let own = i32::try_from(std::process::id()).expect("a process id");
    // Of another host, of a process that is gone, one that has ended, and the one that had this process's number before.
    insert("elsewhere", "another-host", 1, "1 hour", "1 hour", false).await;
    insert("gone", &host, i32::MAX, "1 hour", "1 hour", false).await;
    insert("ended", &host, own, "1 minute", "1 hour", true).await;
    insert("before", &host, own, "1 hour", "1 hour", false).await;
    let (stdout, _) = ends_with(&world, &["health"], 1).await;
    assert!(number_after(&stdout, "not alive: before gave its last beat ") >= 3600.0, "{stdout}");
    insert("now", &host, own, "2 minutes", "1 second", false).await;
    let (stdout, _) = ends_with(&world, &["health"], 0).await;
    assert!(number_after(&stdout, ": 1, the last beat ") >= 1.0, "{stdout}");
}

#[tokio::test]
async fn an_outage_of_postgresql_fails_one_probe_and_passes_the_other() {
    let world = World::new().await;
    let away = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none").env("IMAGEMILL_DATABASE__CONNECT_TIMEOUT", "1s");
        command
    };
    let strict = output(away(&["health"])).await;
    assert_eq!(strict.status.code(), Some(1));
    let said = String::from_utf8_lossy(&strict.stderr).into_owned();
    assert!(said.contains("127.0.0.1") && said.lines().count() == 1, "{said}");
    let tolerant = output(away(&["health", "--tolerate-outage"])).await;
    assert!(tolerant.status.success());
    let said = String::from_utf8_lossy(&tolerant.stdout).into_owned();
    assert!(said.starts_with("not known: ") && said.lines().count() == 1, "{said}");
    let tolerant = output(away(&["health", "--tolerate-outage", "--json"])).await;
    assert_eq!(serde_json::from_slice::<Value>(&tolerant.stdout).expect("JSON")["alive"], Value::Null);
    // One that takes the connection and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("postgres://nobody@{}/none", silent.local_addr().expect("an address"));
    let mut command = away(&["health", "--tolerate-outage"]);
    command.env("DATABASE_URL", url);
    let hanging = tokio::time::timeout(BOUND, output(command)).await.expect("it waits for ever");
    assert!(hanging.status.success(), "{}", String::from_utf8_lossy(&hanging.stderr));
    assert!(String::from_utf8_lossy(&hanging.stdout).starts_with("not known: no answer"));
}
