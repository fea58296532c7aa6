//! `imagemill psql`, run as a process of its own, as it takes over the signals of its process.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use imagemill::{commands::psql::psql, db::private::PrivateServer};
use secrecy::{ExposeSecret, SecretString};

use crate::{commands::output, support};

const DIRECTORY: &str = "IMAGEMILL_IT_PSQL_DIRECTORY";
const URL: &str = "IMAGEMILL_IT_PSQL_URL";
const STATEMENT: &str = "IMAGEMILL_IT_PSQL_STATEMENT";

/// Not a test: this program run again, as the command.
#[tokio::test]
#[ignore = "a helper of the other tests, which run it as a process"]
async fn command() {
    let Some(statement) = std::env::var_os(STATEMENT) else {
        return;
    };
    let url = std::env::var(URL).ok().map(SecretString::from);
    let directory = std::env::var_os(DIRECTORY).map(PathBuf::from);
    let arguments = ["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c"].map(OsString::from);
    let arguments: Vec<_> = arguments.into_iter().chain([statement]).collect();
    match psql(url.as_ref(), directory.as_deref(), &arguments).await {
        Ok(code) => std::process::exit(code),
        Err(error) => panic!("{error}"),
    }
}

async fn run(url: Option<&SecretString>, directory: &Path, statement: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["psql::command", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(STATEMENT, statement)
        // What libpq would follow if we let it.
        .env("PGHOSTADDR", "127.0.0.2")
        .env("PGSERVICE", "nowhere")
        .envs(url.map(|url| (URL, url.expose_secret())))
        .stdin(Stdio::null());
    output(command).await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn it_reaches_the_private_server_whether_it_runs_or_not_and_gives_the_exit_code() {
    let directory = support::temporary_directory();
    let refused = run(None, &directory, "select 1 / 0").await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let wrote = run(None, &directory, "create table seen as select 'x' || 42 as n").await;
    assert_eq!(wrote.status.code(), Some(0));
    let server = PrivateServer::acquire(Some(&directory)).await.unwrap();
    let read = run(None, &directory, "select n from seen").await;
    assert!(said(&read).contains("x42"), "{read:?}");
    // It used the same server, and left it to us.
    let options = server.url().expose_secret().parse().unwrap();
    let pool = sqlx::PgPool::connect_with(options).await.unwrap();
    let seen: String = sqlx::query_scalar("select n from seen").fetch_one(&pool).await.unwrap();
    assert_eq!(seen, "x42");
    pool.close().await;
    server.release().await.unwrap();
}

#[tokio::test]
async fn a_configured_database_goes_before_the_private_server() {
    let database = support::database().await;
    let directory = support::temporary_directory().join("never made");
    let read = run(Some(&database.url), &directory, "select 'in ' || current_database()").await;
    assert!(said(&read).contains(&format!("in {}", database.name)), "{read:?}");
    assert!(!directory.exists());
}
