//! What every measure stands on: a private PostgreSQL in a directory of its own, with the settings of a production server,
//! and databases on it that are copies of one template.

use std::{path::Path, sync::Arc};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection};

use super::{
    machine::Machine,
    process::{Process, Start},
    scratch::Scratch,
    simulated::Simulated,
};
use crate::{
    commands::{effective::Effective, report::Failure},
    db::{
        bench::{server, statistics},
        migrate, pool,
        private::{PrivateServer, ServerOptions},
    },
    services::{actor::Actor, context::Context, user_service},
};

/// A database with the schema and the first users, to be copied.
const TEMPLATE: &str = "bench_template";

/// Memory of the server for pages, in MiB.
const SHARED_BUFFERS_MIB: u32 = 512;

/// The server, and what is needed to start processes beside it.
pub(super) struct Ground {
    server: PrivateServer,
    pub(super) scratch: Arc<Scratch>,
    /// Settings of all processes.
    pub(super) base: Effective,
    /// Who creates tasks.
    pub(super) actor: Actor,
    /// Whether statements are counted: PostgreSQL's contrib files are there.
    pub(super) counts_statements: bool,
}

/// One database.
pub(super) struct Database {
    name: String,
    /// Where it is.
    pub(super) url: SecretString,
    /// To create tasks in it.
    pub(super) context: Context,
}

impl Ground {
    /// Starts the server and prepares the template. Nothing is left if it cannot be done.
    pub(super) async fn prepare(place: Option<&Path>, settings: &[(String, String)]) -> Result<Self, Failure> {
        let scratch = Arc::new(Scratch::make(place)?);
        let base = base(settings)?;
        let directory = scratch.path().join("postgres");
        let options = ServerOptions { shared_buffers_mib: SHARED_BUFFERS_MIB, ..ServerOptions::default() };
        let first = PrivateServer::acquire_with(Some(&directory), &options).await.map_err(Failure::failed)?;
        let configured = async {
            let mut connection = server::connect(&first.url()).await?;
            let counts_statements = server::configure(&mut connection).await?;
            connection.close().await?;
            Ok::<bool, sqlx::Error>(counts_statements)
        };
        let counts_statements = configured.await.map_err(Failure::failed)?;
        // Some settings count from a start on: the last to let go of the server stops it.
        first.release().await.map_err(Failure::failed)?;
        let server = PrivateServer::acquire_with(Some(&directory), &options).await.map_err(Failure::failed)?;
        if counts_statements {
            let mut connection = connect(&server.url()).await?;
            statistics::prepare(&mut connection).await.map_err(Failure::failed)?;
        }
        let actor = make_template(&server, &base).await?;
        Ok(Self { server, scratch, base, actor, counts_statements })
    }

    /// A session beside the measured databases.
    pub(super) async fn admin(&self) -> Result<PgConnection, Failure> {
        connect(&self.server.url()).await
    }

    /// Looks at the machine.
    pub(super) async fn look(&self) -> Result<Machine, Failure> {
        let mut admin = self.admin().await?;
        let version = server::version(&mut admin).await.map_err(Failure::failed)?;
        let data = server::data_directory(&mut admin).await.map_err(Failure::failed)?;
        admin.close().await.map_err(Failure::failed)?;
        let settings = format!("shared_buffers = {SHARED_BUFFERS_MIB}MB, max_wal_size = 4GB, all else its default");
        let looked = tokio::task::spawn_blocking(move || Machine::look(version, settings, data.as_ref())).await;
        looked.map_err(Failure::failed)?.map_err(Failure::failed)
    }

    /// A new database: the schema, the users, nothing else.
    pub(super) async fn database(&self, name: &str) -> Result<Database, Failure> {
        self.make(name, TEMPLATE).await
    }

    /// A new database with nothing in it.
    pub(super) async fn empty_database(&self, name: &str) -> Result<Database, Failure> {
        self.make(name, "template0").await
    }

    async fn make(&self, name: &str, template: &str) -> Result<Database, Failure> {
        let mut admin = self.admin().await?;
        server::create_database(&mut admin, name, template).await.map_err(Failure::failed)?;
        admin.close().await.map_err(Failure::failed)?;
        let url = url_of(&self.server, name)?;
        let context = context(&url, &self.base).await?;
        Ok(Database { name: name.to_owned(), url, context })
    }

    /// Takes a database away.
    pub(super) async fn drop(&self, database: Database) -> Result<(), Failure> {
        database.context.pool.close().await;
        let mut admin = self.admin().await?;
        server::drop_database(&mut admin, &database.name).await.map_err(Failure::failed)?;
        admin.close().await.map_err(Failure::failed)
    }

    /// Counts statements from here on, where they are counted.
    pub(super) async fn forget_statements(&self, admin: &mut PgConnection) -> Result<(), Failure> {
        if self.counts_statements {
            statistics::forget_statements(admin).await.map_err(Failure::failed)?;
        }
        Ok(())
    }

    /// Statements of a database since then; none where they are not counted.
    pub(super) async fn statements(&self, admin: &mut PgConnection, name: &str) -> Result<Option<i64>, Failure> {
        if !self.counts_statements {
            return Ok(None);
        }
        statistics::statements(admin, name).await.map(Some).map_err(Failure::failed)
    }

    /// Settings of processes that work on this database against this simulator.
    pub(super) fn settings(&self, database: &Database, simulated: &Simulated, poll_interval: &str) -> Result<Effective, Failure> {
        let mut effective = self.base.clone();
        effective.set("database.url", database.url.expose_secret());
        simulated.lead(&mut effective, poll_interval)?;
        Ok(effective)
    }

    /// A worker process.
    pub(super) fn worker(&self, effective: &Effective, arguments: &[&str]) -> Result<Process, Failure> {
        self.worker_with(effective, arguments, None)
    }

    /// The same under a limit of open files.
    pub(super) fn worker_with(
        &self,
        effective: &Effective,
        arguments: &[&str],
        open_files: Option<u32>,
    ) -> Result<Process, Failure> {
        let arguments = ["worker", "--with-parent"].iter().chain(arguments).map(Into::into).collect();
        let environment = effective.environment();
        Process::start(&self.scratch, Start { what: "worker", arguments, environment: &environment, open_files })
    }

    /// Stops the server and removes the directory.
    pub(super) async fn clear(self) {
        if let Err(error) = self.server.release().await {
            tracing::warn!(%error, "the benchmark's PostgreSQL could not be stopped in order");
        }
        // Its end removes the directory, which takes a while.
        let scratch = self.scratch;
        if let Err(error) = tokio::task::spawn_blocking(move || drop(scratch)).await {
            tracing::warn!(%error, "the benchmark's directory may be left");
        }
    }
}

impl Database {
    /// A session in it.
    pub(super) async fn connect(&self) -> Result<PgConnection, Failure> {
        connect(&self.url).await
    }
}

/// The built-in settings, without files of logs and pictures, and what `--set` says.
fn base(settings: &[(String, String)]) -> Result<Effective, Failure> {
    let mut base = Effective::built_in();
    base.without_proxies();
    base.set("logs.directory", "");
    base.set("logs.filter", "warn");
    base.set("results.directory", "");
    for (key, value) in settings {
        base.set(key, value);
    }
    base.settings()?;
    Ok(base)
}

async fn make_template(server: &PrivateServer, base: &Effective) -> Result<Actor, Failure> {
    let mut admin = connect(&server.url()).await?;
    server::create_database(&mut admin, TEMPLATE, "template0").await.map_err(Failure::failed)?;
    admin.close().await.map_err(Failure::failed)?;
    let context = context(&url_of(server, TEMPLATE)?, base).await?;
    let mut connection = context.pool.acquire().await.map_err(Failure::failed)?;
    migrate::init_db(&mut connection).await.map_err(Failure::failed)?;
    server::unlimit_lanes(&mut connection).await.map_err(Failure::failed)?;
    drop(connection);
    // With random passwords, which nobody needs: the data goes with the benchmark.
    user_service::init_users(&context, |_| None).await?;
    let actor = user_service::resolve_actor(&context, None, None, true).await?;
    // A database with a connection cannot be copied.
    context.pool.close().await;
    Ok(actor)
}

/// What services need, with a pool as large as a worker's: in a smaller one claims have no connection of their own, and each may come to
/// one that has not planned it yet.
async fn context(url: &SecretString, base: &Effective) -> Result<Context, Failure> {
    let settings = base.settings()?;
    let pool = pool::connect(url, &settings.database, server::APPLICATION).await.map_err(Failure::failed)?;
    Ok(Context::new(pool, settings))
}

async fn connect(url: &SecretString) -> Result<PgConnection, Failure> {
    server::connect(url).await.map_err(Failure::failed)
}

fn url_of(server: &PrivateServer, name: &str) -> Result<SecretString, Failure> {
    server::url_of(&server.url(), name).ok_or_else(|| Failure::failed("the private PostgreSQL has no URL that can be read"))
}
