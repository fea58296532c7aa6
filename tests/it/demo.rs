//! `imagemill demo`, as anybody would run it: nothing but the program and PostgreSQL's binaries.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{
    commands::{example, output},
    support::{Process, temporary_directory},
};

/// A shell in which everything that the demo must not look at is configured, and wrong.
fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagemill"));
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .env("IMAGEMILL_DATABASE__PRIVATE_DIRECTORY", directory.join("postgres"))
        .env("IMAGEMILL_LOGS__DIRECTORY", directory.join("logs"));
    command
}

fn hostile(directory: &Path) -> Command {
    let mut command = command(directory, &["demo", "--json"]);
    command
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .env("TEST_MAKE_API_TOKEN", "a-token-that-pays")
        .env("IMAGEMILL_LANES__PROD__BASE_URL", "http://127.0.0.1:1")
        .env("IMAGEMILL_LANES__PROD__MAX_POLLS", "many")
        .env("IMAGEMILL_RESULTS__DIRECTORY", "/proc/nowhere")
        .env("IMAGEMILL_GENERATE_IMAGE__SLOTS", "1")
        .env("IMAGEMILL_USER", "nobody")
        .env("HTTP_PROXY", "http://127.0.0.1:1");
    command
}

/// One value of SQL, by the program's own psql.
async fn value(directory: &Path, statement: &str) -> String {
    let shown = output(command(directory, &["psql", "-X", "-t", "-A", "-c", statement])).await;
    assert!(shown.status.success(), "{statement}: {}", String::from_utf8_lossy(&shown.stderr));
    String::from_utf8_lossy(&shown.stdout).trim().to_owned()
}

#[tokio::test]
async fn the_demo_has_its_numbers_whatever_is_configured() {
    let directory = temporary_directory();
    let demo = output(hostile(&directory)).await;
    let said = String::from_utf8_lossy(&demo.stderr).into_owned();
    assert!(demo.status.success(), "{said}{}", String::from_utf8_lossy(&demo.stdout));
    let document: Value = serde_json::from_slice(&demo.stdout).unwrap();
    let id = document["task"]["id"].as_str().unwrap();
    assert_eq!(document["checks"].as_array().map(Vec::len), Some(14));

    let outcomes = format!(
        "select string_agg(row, ', ' order by row) from (select status || coalesce('/' || error_kind, '') || ' ' || count(*) as row
         from imagemill.subtasks where task_id = '{id}' group by status, error_kind) as counted"
    );
    assert_eq!(value(&directory, &outcomes).await, "completed 21, failed/refused 2, failed/unknown_submit 1");
    let attempts = format!(
        "select string_agg(row, ', ' order by row) from (select a.state || ' ' || count(*) as row from imagemill.attempts a
         join imagemill.subtasks s on s.id = a.subtask_id where s.task_id = '{id}' group by a.state) as counted"
    );
    assert_eq!(value(&directory, &attempts).await, "failed 1, refused 2, succeeded 21, turned_away 1, unknown 1");
    let overview = format!("select status, completed_subtasks, failed_subtasks from imagemill.task_overview where id = '{id}'");
    assert_eq!(value(&directory, &overview).await, "completed|21|3");
    let open = "select count(*) from apalis.jobs where status in ('Pending', 'Running') or lock_by is not null";
    assert_eq!(value(&directory, open).await, "0");

    let sheet = image::open(document["contact_sheet"].as_str().unwrap()).expect("a picture");
    assert!(sheet.width() > 600 && sheet.height() > 1000, "three columns and eight rows, with their labels");
    let pictures = std::fs::read_dir(document["pictures"].as_str().unwrap()).unwrap().count();
    assert_eq!(pictures, 22, "21 pictures and the sheet");
    // The shell names a database, so these lines say that it is not meant.
    let query = document["queries"][0].as_str().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", query])
        .current_dir(&directory)
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .env("IMAGEMILL_DATABASE__PRIVATE_DIRECTORY", directory.join("postgres"))
        .env("PSQL_PAGER", "cat");
    let shown = output(shell).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("unknown_submit"), "{}", String::from_utf8_lossy(&shown.stderr));
}

#[tokio::test]
async fn two_demos_at_once_share_the_server_and_not_their_cells() {
    let directory = temporary_directory();
    let start = |name: &str| Process::start(command(&directory, &["demo"]), directory.join(name));
    let (mut first, mut second) = (start("first.log"), start("second.log"));
    let (first_ended, second_ended) = (first.wait().await, second.wait().await);
    assert!(first_ended.success(), "{}", first.log());
    assert!(second_ended.success(), "{}", second.log());
    assert_eq!(value(&directory, "select count(*) from imagemill.subtasks where status = 'completed'").await, "42");
}

#[tokio::test]
async fn a_dry_run_asks_the_private_server_where_there_is_one() {
    let directory = temporary_directory();
    let file = example("front-end-form.json");
    let plan = async || {
        let planned = output(command(&directory, &["task", "create", "--dry-run", &file])).await;
        let (said, noted) = (String::from_utf8_lossy(&planned.stdout), String::from_utf8_lossy(&planned.stderr));
        assert!(planned.status.success(), "{noted}");
        (said.into_owned(), noted.into_owned())
    };
    let (said, noted) = plan().await;
    assert!(said.contains("12 pictures") && noted.contains("there is no database yet"), "{said}{noted}");
    assert!(!directory.join("postgres").exists(), "a plan makes none");
    let init = output(command(&directory, &["init-db"])).await;
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let users = output(command(&directory, &["init-users"])).await;
    assert!(users.status.success(), "{}", String::from_utf8_lossy(&users.stderr));
    let limited = output(command(&directory, &["lane", "limit", "prod", "--max-submits-per-day", "5"])).await;
    assert!(limited.status.success(), "{}", String::from_utf8_lossy(&limited.stderr));
    let (said, _) = plan().await;
    assert!(said.contains("the day of lane prod leaves 5 of 5 submits to all tasks: 7 cells would wait until "), "{said}");
}
