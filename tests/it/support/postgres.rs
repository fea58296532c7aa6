//! One throw-away PostgreSQL for the run, and a database of its own for each test, copied from a template.

use std::sync::{
    atomic::{AtomicU32, Ordering},
    mpsc::{Sender, channel},
};

use imagemill::db::private::{PrivateServer, ServerOptions};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::{Mutex, OnceCell};

use super::run_directory::temporary_directory;

const TEMPLATE: &str = "imagemill_template";

/// A database that one test has for itself. It is dropped some time after this is.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    /// Where it is, also for child processes.
    pub(crate) url: SecretString,
    /// Connections of this test; no other runtime may use them.
    pub(crate) pool: PgPool,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is on the run's server, which drops it.
    is_of_run: bool,
}

impl TestDatabase {
    /// The database of a server that a test has for itself.
    pub(super) async fn own(url: SecretString) -> Self {
        let name = options_of(&url).get_database().unwrap_or_default().to_owned();
        let pool = PgPoolOptions::new().max_connections(8).connect_with(options_of(&url)).await.expect("connect to the database");
        Self { url, pool, name, is_of_run: false }
    }
}

/// The server of this run.
struct Run {
    /// Never released, as statics are never dropped; it ends with the run's directory.
    server: PrivateServer,
    /// One copy of the template at a time.
    copying: Mutex<()>,
    /// Names of databases to drop.
    dropped: Sender<String>,
}

static RUN: OnceCell<Run> = OnceCell::const_new();

/// Databases of this run so far.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// A new database with everything that the library needs in it. Starts the server when it is the first.
pub(crate) async fn database() -> TestDatabase {
    copy_of(TEMPLATE).await
}

/// A new database with nothing in it.
pub(crate) async fn empty_database() -> TestDatabase {
    copy_of("template0").await
}

async fn copy_of(template: &str) -> TestDatabase {
    let run = RUN.get_or_init(start).await;
    let name = format!("t_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let copying = run.copying.lock().await;
    let create = format!("create database {name} template {template}");
    execute(&run.server, &create).await;
    drop(copying);
    let url = url_of(&run.server, &name);
    // The pool belongs to the runtime of this test; small, as there are many tests at once.
    let pool =
        PgPoolOptions::new().max_connections(8).connect_with(options_of(&url)).await.expect("connect to the test's database");
    TestDatabase { url, pool, name, is_of_run: true }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some(run) = RUN.get().filter(|_| self.is_of_run) {
            // The thread that receives lives as long as the process.
            let _ = run.dropped.send(self.name.clone());
        }
    }
}

/// What every test's database begins with: the schema. Runs once, on the template.
async fn prepare_template(pool: &PgPool) {
    let mut connection = pool.acquire().await.expect("a connection to the template");
    imagemill::db::migrate::init_db(&mut connection).await.expect("the schema");
}

async fn start() -> Run {
    let place = temporary_directory();
    let server =
        PrivateServer::acquire_with(Some(&place), &ServerOptions::throw_away()).await.expect("start the run's PostgreSQL");
    execute(&server, &format!("create database {TEMPLATE}")).await;
    let pool = PgPoolOptions::new().connect_with(options_of(&url_of(&server, TEMPLATE))).await.expect("connect to the template");
    prepare_template(&pool).await;
    pool.close().await;
    // A database with a connection cannot be copied.
    execute(&server, &format!("alter database {TEMPLATE} with is_template true allow_connections false")).await;
    Run { dropped: start_dropping(options_of(&server.url())), server, copying: Mutex::new(()) }
}

/// A thread that drops what tests are done with, so that a run does not fill the disk.
fn start_dropping(options: PgConnectOptions) -> Sender<String> {
    let (sender, names) = channel::<String>();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for dropping databases");
        for name in names {
            let ended = runtime.block_on(async {
                let mut connection = PgConnection::connect_with(&options).await?;
                let statement = format!("drop database if exists {name} with (force)");
                connection.execute(AssertSqlSafe(statement)).await?;
                connection.close().await
            });
            if let Err(error) = ended {
                eprintln!("database {name} is left until the run ends: {error}");
            }
        }
    });
    sender
}

fn url_of(server: &PrivateServer, database: &str) -> SecretString {
    let mut url = url::Url::parse(server.url().expose_secret()).expect("the server's URL");
    url.set_path(database);
    SecretString::from(String::from(url))
}

fn options_of(url: &SecretString) -> PgConnectOptions {
    url.expose_secret().parse().expect("a URL for sqlx")
}

async fn execute(server: &PrivateServer, statement: &str) {
    let options = options_of(&server.url());
    let mut connection = PgConnection::connect_with(&options).await.expect("connect to the run's PostgreSQL");
    connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    connection.close().await.expect("close the connection");
}
