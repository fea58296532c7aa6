//! What is said when there can be no server.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use imagemill::db::private::{PrivateServer, PrivateServerError, SearchPath, ServerOptions};

use super::small;
use crate::support;

/// A search path with nothing but one installation of our making: its programs are shell scripts.
fn made_up(directory: &Path, version: &str) -> SearchPath {
    let bin = directory.join(format!("postgresql/{version}/bin"));
    fs::create_dir_all(&bin).unwrap();
    for program in ["postgres", "initdb", "pg_ctl"] {
        let file = bin.join(program);
        fs::write(&file, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    SearchPath { path: None, places: vec![directory.join("postgresql/*/bin")] }
}

async fn refusal(directory: &Path, search: SearchPath) -> String {
    let options = ServerOptions { search, ..small() };
    let error = PrivateServer::acquire_with(Some(directory), &options).await.unwrap_err();
    let said = error.to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    for line in ["sudo apt-get install postgresql", "sudo dnf install postgresql", "macOS: `brew "] {
        assert!(said.contains(line), "{said}");
    }
    said
}

#[tokio::test]
async fn missing_programs_and_contrib_files_are_errors_with_the_install_line() {
    let directory = support::temporary_directory();
    let (place, programs) = (directory.as_path().join("server"), directory.as_path());
    let nothing = SearchPath { path: Some("/nonexistent".into()), places: Vec::new() };
    assert!(refusal(&place, nothing.clone()).await.starts_with("no PostgreSQL 14 or later"));

    let search = made_up(programs, "13.2");
    assert!(refusal(&place, search).await.contains("only version 13 in "));

    let search = made_up(programs, "17.1");
    let said = refusal(&place, search.clone()).await;
    assert!(said.starts_with("PostgreSQL 17 in ") && said.contains("hstore.control"), "{said}");

    // Data that is there decides: no other version is taken for it.
    fs::create_dir(place.join("data-16")).unwrap();
    let said = refusal(&place, search).await;
    assert!(said.contains("is of PostgreSQL 16") && said.contains("postgresql-16"), "{said}");
}

#[tokio::test]
async fn a_directory_that_the_account_of_the_server_cannot_enter_is_named() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: the server runs under this account, which can enter what it made (run it as root)");
        return;
    }
    let closed = support::temporary_directory().join("closed");
    fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let directory = closed.join("server");
    let error = PrivateServer::acquire_with(Some(&directory), &small()).await.unwrap_err();
    assert!(matches!(error, PrivateServerError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(directory.to_str().unwrap()));
}
