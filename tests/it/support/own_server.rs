//! A PostgreSQL that one test has for itself, to stop it, start it again, and lose its last commits.
//!
//! Its commits survive every stop, the immediate one as well, since the machine goes on: they are written, if not synced.
//! All sessions go through proxies, so that its address stays the same whatever port it gets when it is started again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use imagemill::db::private::{PrivateServer, ServerOptions};
use rustix::process::{Pid, Signal};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::{
    eventually,
    postgres::TestDatabase,
    proxy::{Orders, Proxy, Server},
    run_directory::temporary_directory,
};

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// In order, without waiting for the sessions.
    Fast,
    /// At once, as after a fault of its own: it recovers when it starts.
    Immediate,
}

/// See the module. It ends with the run, or when it is dropped.
pub(crate) struct OwnServer {
    directory: PathBuf,
    options: ServerOptions,
    server: PrivateServer,
    /// A process of it that stands still.
    halted: Option<Pid>,
    /// The way to it, for the proxies of workers.
    pub(crate) way: Server,
    /// The way of the test itself.
    proxy: Proxy,
}

impl OwnServer {
    /// A new server, and a database on it with everything that the library needs.
    pub(crate) async fn start() -> (Self, TestDatabase) {
        let directory = temporary_directory();
        let options = ServerOptions { max_connections: 300, shared_buffers_mib: 64, ..ServerOptions::throw_away() };
        let server = PrivateServer::acquire_with(Some(&directory), &options).await.expect("start a PostgreSQL of one's own");
        let way = Server::of(&server.url());
        let proxy = Proxy::start(way.clone(), Arc::<Orders>::default()).await;
        let own = Self { directory, options, server, halted: None, way, proxy };
        own.set("synchronous_commit", "on").await;
        let database = TestDatabase::own(own.proxy.url(&own.server.url())).await;
        let mut connection = database.pool.acquire().await.expect("a connection");
        imagemill::db::migrate::init_db(&mut connection).await.expect("the schema");
        drop(connection);
        (own, database)
    }

    /// Sets a setting of the server, now and for every later start.
    pub(crate) async fn set(&self, setting: &str, value: &str) {
        self.execute(&format!("alter system set {setting} = '{value}'")).await;
        self.execute("select pg_reload_conf()").await;
        eventually("the server has read its settings", || async {
            let mut connection = PgConnection::connect(self.server.url().expose_secret()).await.expect("connect");
            let now: String =
                sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&mut connection).await.expect("look");
            now == value
        })
        .await;
    }

    /// From now on commits are lost when it is stopped at once: none reaches the disk any more. Returns when all that was
    /// committed before has.
    pub(crate) async fn lose_commits_from_now(&mut self) {
        for (setting, value) in [("synchronous_commit", "off"), ("autovacuum", "off"), ("bgwriter_lru_maxpages", "0")] {
            self.set(setting, value).await;
        }
        self.execute("checkpoint").await;
        let writer = self.number("select pid::bigint from pg_stat_activity where backend_type = 'walwriter'").await;
        let writer = i32::try_from(writer).ok().and_then(Pid::from_raw).expect("the WAL writer's process");
        rustix::process::kill_process(writer, Signal::STOP).expect("stop the WAL writer");
        self.halted = Some(writer);
    }

    /// Stops it; it is away when this returns.
    pub(crate) async fn stop(&mut self, how: Stop) {
        self.way.close();
        let signal = if how == Stop::Fast { Signal::INT } else { Signal::QUIT };
        let file = pid_file(&self.directory);
        let number = fs::read_to_string(&file).expect("a running server");
        let process = number.lines().next().and_then(|line| Pid::from_raw(line.trim().parse().ok()?)).expect("a process");
        rustix::process::kill_process(process, signal).expect("stop the server");
        if let Some(writer) = self.halted.take() {
            // What the server tells it comes first when it goes on: it ends, and writes nothing.
            rustix::process::kill_process(writer, signal).expect("end the WAL writer");
            rustix::process::kill_process(writer, Signal::CONT).expect("let the WAL writer end");
        }
        // Its process may stay on as a zombie where nobody reaps orphans; its file goes with it.
        eventually("the server has stopped", || async { !file.exists() }).await;
    }

    /// Starts it again on the same data; it takes connections when this returns.
    pub(crate) async fn start_again(&mut self) {
        self.start_again_alone().await;
        self.let_in();
    }

    /// The same, but nobody is let in yet who comes through a proxy.
    pub(crate) async fn start_again_alone(&mut self) {
        let server = PrivateServer::acquire_with(Some(&self.directory), &self.options).await.expect("start it again");
        // The former share ends while the new one is held: nothing is stopped.
        let former = std::mem::replace(&mut self.server, server);
        former.release().await.expect("give the former share back");
        self.set("synchronous_commit", "on").await;
    }

    /// Lets the proxies through.
    pub(crate) fn let_in(&self) {
        self.way.open(&self.server.url());
    }

    /// One number of SQL, by no proxy.
    pub(crate) async fn number(&self, statement: &'static str) -> i64 {
        let mut connection = PgConnection::connect(self.server.url().expose_secret()).await.expect("connect to the server");
        let number = sqlx::query_scalar(statement).fetch_one(&mut connection).await;
        number.unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// One column of texts of SQL, by no proxy.
    pub(crate) async fn texts(&self, statement: &'static str) -> Vec<String> {
        let mut connection = PgConnection::connect(self.server.url().expose_secret()).await.expect("connect to the server");
        let texts = sqlx::query_scalar(statement).fetch_all(&mut connection).await;
        texts.unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// Runs a statement, on a connection of its own.
    pub(crate) async fn execute(&self, statement: &str) {
        let mut connection = PgConnection::connect(self.server.url().expose_secret()).await.expect("connect to the server");
        connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        connection.close().await.expect("close the connection");
    }
}

fn pid_file(directory: &Path) -> PathBuf {
    let mut entries = fs::read_dir(directory).expect("list the server's directory").map(|entry| entry.expect("an entry").path());
    let data = entries.find(|path| path.to_string_lossy().contains("/data-")).expect("the server's data");
    data.join("postmaster.pid")
}
