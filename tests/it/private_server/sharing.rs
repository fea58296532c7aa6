//! What commands that use the server get, one after another and at once.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
};

use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};

use super::{Holder, acquire, execute, number, pid_file, postmaster};
use crate::support;

#[tokio::test]
async fn rows_and_port_survive_a_stop_and_only_this_user_can_read_the_password() {
    let directory = support::temporary_directory();
    let path = directory.as_path().join("a/b");
    let server = acquire(&path).await;
    execute(&server.url(), "create table kept (n bigint); insert into kept values (42)").await;
    let (url, port) = (server.url(), server.port());
    server.release().await.unwrap();
    assert_eq!(pid_file(&path), None, "the last one to end stops the server");
    assert!(PgConnection::connect(url.expose_secret()).await.is_err());
    let mode = fs::metadata(path.join("password")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let server = acquire(&path).await;
    assert_eq!(number(&server.url(), "select n from kept").await, 42);
    assert_eq!(server.port(), port);
    drop(server);
    assert_eq!(pid_file(&path), None, "a drop releases as well");
}

#[tokio::test]
async fn it_listens_on_loopback_alone_and_wants_the_password_there_and_on_the_socket() {
    let directory = support::temporary_directory();
    let server = acquire(directory.as_path()).await;
    let url = server.url();
    let listens = "select count(*) from pg_settings \
                   where name = 'listen_addresses' and setting = '127.0.0.1'";
    assert_eq!(number(&url, listens).await, 1);
    assert_eq!(number(&url, "select count(*) from pg_settings where name = 'fsync' and setting = 'on'").await, 1);
    let url = url.expose_secret();
    let password = fs::read_to_string(directory.as_path().join("password")).unwrap();
    let (before, host) = url.split_once(&password).unwrap();
    let wrong = format!("{before}wrong{host}");
    let refused = PgConnection::connect(&wrong).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "28P01");
    let loopback = format!("postgres://imagemill:{password}@127.0.0.1:{}/imagemill", server.port());
    PgConnection::connect(&loopback).await.unwrap().close().await.unwrap();
    let refused = PgConnection::connect(&loopback.replace(&password, "wrong")).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "28P01");
    server.release().await.unwrap();
}

#[tokio::test]
async fn commands_started_at_once_share_one_server_and_the_last_to_end_stops_it() {
    let directory = support::temporary_directory();
    let path = directory.as_path();
    // Their current directory is closed to everybody else, as a checkout of root's may be.
    let closed = path.join("checkout");
    fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let begun = [Holder::begin(path, &closed), Holder::begin(path, &closed), Holder::begin(path, &closed)];
    let [first, second, third] = begun.map(Holder::ready);
    assert_eq!((first.port, first.port), (second.port, third.port));
    let process = postmaster(path);
    first.end();
    third.end();
    assert_eq!(postmaster(path), process, "one command still uses it");
    let server = acquire(path).await;
    assert_eq!(server.port(), second.port);
    server.release().await.unwrap();
    assert_eq!(postmaster(path), process);
    second.end();
    assert_eq!(pid_file(path), None);
}

#[tokio::test]
async fn a_long_path_is_no_obstacle_and_a_taken_port_is_replaced() {
    let directory = support::temporary_directory();
    let path = directory.join("with a space and 'quotes' $HOME").join("x".repeat(100));
    let server = acquire(&path).await;
    let port = server.port();
    server.release().await.unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let server = acquire(&path).await;
    assert_ne!(server.port(), port);
    let url = url::Url::parse(server.url().expose_secret()).unwrap();
    let sockets = PathBuf::from(url.host_str().unwrap().replace("%2F", "/"));
    server.release().await.unwrap();
    drop(taken);
    assert!(sockets.exists() && !sockets.starts_with(&directory));
    fs::remove_dir_all(sockets).unwrap();
}
