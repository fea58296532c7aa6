//! A command's share in the server: the locks that it holds, what begins with the first and ends with the last.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use super::{
    ServerOptions,
    cluster::{Cluster, NAME, PATIENCE},
    directory::Directory,
    error::{PrivateServerError, file_error},
    lock::{self, Hold},
    postmaster::Endpoint,
};

/// What a command holds while it uses the server.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) cluster: Cluster,
    /// Locked, shared.
    users: File,
    /// Locked while the server is being made ready, so that a release need not take it.
    start: Option<File>,
}

impl Share {
    /// Takes a share in the server of that directory, before it is known to run. Blocks.
    pub(super) fn take(directory: Option<&Path>, options: &ServerOptions) -> Result<Self, PrivateServerError> {
        let directory = Directory::open(directory)?;
        let start = lock::take(&directory.start_lock(), Hold::Exclusive)?;
        let users = lock::take(&directory.users_lock(), Hold::Shared)?;
        Ok(Self { cluster: Cluster::choose(directory, options)?, users, start: Some(start) })
    }

    /// Waits until the server takes connections, makes the database if it is missing, and lets other
    /// commands begin.
    pub(super) async fn make_ready(&mut self, options: PgConnectOptions) -> Result<(), PrivateServerError> {
        let cluster = &self.cluster;
        let refused = |source| PrivateServerError::Refused {
            log: cluster.directory.log(),
            password: cluster.directory.password_file(),
            source,
        };
        let options = options.database("postgres");
        let patience_ends = Instant::now() + PATIENCE;
        let mut connection = loop {
            match PgConnection::connect_with(&options).await {
                Ok(connection) => break connection,
                Err(error) if !is_starting(&error) => return Err(refused(error)),
                Err(_) if Instant::now() < patience_ends => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(_) => return Err(cluster.not_ready()),
            }
        };
        let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(NAME)
            .fetch_one(&mut connection)
            .await
            .map_err(refused)?;
        if !exists {
            sqlx::query("create database imagemill").execute(&mut connection).await.map_err(refused)?;
        }
        connection.close().await.map_err(refused)?;
        self.start = None;
        Ok(())
    }

    /// Finds the server running, or starts it.
    pub(super) fn begin(&self) -> Result<(Endpoint, String), PrivateServerError> {
        let cluster = &self.cluster;
        let Some(endpoint) = cluster.running()? else {
            return cluster.start();
        };
        if let Some(password) = cluster.directory.password()? {
            return Ok((endpoint, password));
        }
        // Nobody can join a server whose password is gone; a new one can be set while it is stopped.
        if !self.is_last()? {
            return Err(PrivateServerError::PasswordGone { password: cluster.directory.password_file() });
        }
        cluster.stop()?;
        let started = cluster.start();
        let path = cluster.directory.users_lock();
        self.users.lock_shared().map_err(file_error("lock", &path))?;
        started
    }

    /// Gives the share back under the start lock, so that nobody begins meanwhile.
    pub(super) fn end(mut self) -> Result<(), PrivateServerError> {
        let directory = &self.cluster.directory;
        let start = match self.start.take() {
            Some(start) => start,
            None => lock::take(&directory.start_lock(), Hold::Exclusive)?,
        };
        let stopped = match self.is_last() {
            Ok(true) => self.cluster.stop(),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        // Unlocked, not merely closed: a child that was just forked may hold a copy of the file.
        let path = self.cluster.directory.users_lock();
        let unlocked = self.users.unlock().map_err(file_error("unlock", &path));
        let path: PathBuf = self.cluster.directory.start_lock();
        let opened = start.unlock().map_err(file_error("unlock", &path));
        stopped.and(unlocked).and(opened)
    }

    /// Does nobody else hold a share? If so the lock is exclusive now, and if not it is gone.
    fn is_last(&self) -> Result<bool, PrivateServerError> {
        match self.users.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => {
                let path = self.cluster.directory.users_lock();
                Err(file_error("lock", &path)(error))
            }
        }
    }
}

/// Does the server answer that it is coming up or going down (57P03)?
fn is_starting(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "57P03")
}
