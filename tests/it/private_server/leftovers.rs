//! What killed commands and killed servers leave behind.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    process::Command,
};

use imagemill::db::private::{PrivateServer, PrivateServerError};

use super::{Holder, acquire, execute, number, pid_file, postmaster, small, wait_until};
use crate::support;

#[tokio::test]
async fn what_a_killed_command_left_running_is_adopted_and_stopped() {
    let directory = support::temporary_directory();
    let path = directory.as_path();
    let holder = Holder::start(path);
    let process = postmaster(path);
    holder.kill();
    let server = acquire(path).await;
    assert_eq!(postmaster(path), process);
    server.release().await.unwrap();
    assert_eq!(pid_file(path), None);
}

#[tokio::test]
async fn an_interrupt_from_the_terminal_does_not_reach_the_server() {
    let directory = support::temporary_directory();
    let path = directory.as_path();
    let mut holder = Holder::start(path);
    let process = postmaster(path);
    let group = rustix::process::Pid::from_child(&holder.child);
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    let mut status = None;
    // Not `wait`, which would close its input, and so end it in order.
    wait_until("the holder ends by the signal", || {
        status = holder.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    let server = acquire(path).await;
    assert_eq!(postmaster(path), process);
    server.release().await.unwrap();
}

#[tokio::test]
async fn what_a_killed_server_left_is_cleaned_up_and_no_commit_is_lost() {
    let directory = support::temporary_directory();
    let path = directory.as_path();
    let server = acquire(path).await;
    execute(&server.url(), "create table kept (n bigint); insert into kept values (7)").await;
    let (killed, file) = (postmaster(path), pid_file(path).unwrap());
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    wait_until("the killed server no longer answers", || std::net::TcpStream::connect(("127.0.0.1", server.port())).is_err());
    assert!(file.exists(), "it had no chance to remove its file");
    // The first command still holds its share, as one that noticed nothing would.
    let next = acquire(path).await;
    assert_ne!(postmaster(path), killed);
    assert_eq!(number(&next.url(), "select n from kept").await, 7);
    next.release().await.unwrap();
    assert!(file.exists(), "the first command counts still");
    server.release().await.unwrap();
    assert_eq!(pid_file(path), None);
}

#[tokio::test]
async fn a_left_file_whose_number_is_another_process_by_now_does_not_keep_the_server_down() {
    let directory = support::temporary_directory();
    let path = directory.as_path();
    let server = acquire(path).await;
    let (file, port) = (pid_file(path).unwrap(), server.port());
    let text = fs::read_to_string(&file).unwrap();
    server.release().await.unwrap();
    // A process of the server's own account, which PostgreSQL would take for a server.
    let owner = file.parent().unwrap().metadata().unwrap();
    let (user, group) = (owner.uid(), owner.gid());
    let mut other = Command::new("sleep");
    other.arg("600");
    if rustix::process::geteuid().is_root() {
        other.uid(user).gid(group);
    }
    let mut other = other.spawn().unwrap();
    let (number, rest) = (other.id(), text.split_once('\n').unwrap().1);
    let socket_lock = path.join(format!("socket/.s.PGSQL.{port}.lock"));
    for left in [&file, &socket_lock] {
        fs::write(left, format!("{number}\n{rest}")).unwrap();
        chown(left, Some(user), Some(group)).unwrap();
    }
    let started = PrivateServer::acquire_with(Some(path), &small()).await;
    other.kill().unwrap();
    other.wait().unwrap();
    started.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_lost_password_is_replaced_while_nobody_uses_the_server() {
    let directory = support::temporary_directory();
    let path = directory.as_path();
    let server = acquire(path).await;
    execute(&server.url(), "create table kept (n bigint); insert into kept values (3)").await;
    let password = path.join("password");
    let lost = fs::read_to_string(&password).unwrap();
    fs::remove_file(&password).unwrap();
    let refused = PrivateServer::acquire_with(Some(path), &small()).await.unwrap_err();
    assert!(matches!(refused, PrivateServerError::PasswordGone { .. }), "{refused}");
    server.release().await.unwrap();
    let server = acquire(path).await;
    assert_eq!(number(&server.url(), "select n from kept").await, 3);
    let log = fs::read_to_string(path.join("log")).unwrap();
    let found = fs::read_to_string(&password).unwrap();
    assert_ne!(found, lost);
    assert!(!log.contains(&found), "no secret in the log");
    server.release().await.unwrap();
}
