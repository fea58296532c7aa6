//! What a run needs around it: a database with its schema and users, a place for pictures, a place for logs.

use std::path::{Path, PathBuf};

use super::{
    effective::Effective,
    init_users, output,
    report::Failure,
    session::{Session, Who},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    app::{self, Database},
    config::{Loaded, Settings},
};

/// Where kept pictures are: where `run` keeps them if nothing is set.
pub(super) fn kept_pictures(settings: &Settings) -> PathBuf {
    settings.results.directory.clone().unwrap_or_else(|| PathBuf::from("pictures"))
}

/// Everything that is there before a task is created. To be closed whatever happens.
pub(super) struct Stage {
    /// The database, and who acts.
    pub(super) session: Session,
    /// The settings for worker processes.
    pub(super) effective: Effective,
    /// Where pictures are kept.
    pub(super) pictures: PathBuf,
    /// Where logs are; none: no files.
    pub(super) logs: Option<PathBuf>,
}

impl Stage {
    /// Starts what is not there. `variables` has the passwords of the first users.
    pub(super) async fn set(mut effective: Effective, who: &Who, variables: &Loaded) -> Result<Self, Failure> {
        let settings = effective.settings()?;
        let pictures = absolute(&kept_pictures(&settings))?;
        std::fs::create_dir_all(&pictures).map_err(|error| {
            let place = pictures.display();
            Failure::failed(format_args!("cannot keep pictures in {place}: {error}; set results.directory to another place"))
        })?;
        effective.set("results.directory", &pictures);
        let logs = match settings.logs.directory.as_str() {
            "" => None,
            directory => Some(absolute(Path::new(directory))?),
        };
        if let Some(logs) = &logs {
            effective.set("logs.directory", logs);
        }
        let database = Database::acquire(&settings).await.map_err(Failure::failed)?;
        effective.set("database.url", database.url.expose_secret());
        let schema = database.init_db().await;
        if let Err(error) = schema {
            release(database).await;
            return Err(Failure::failed(error));
        }
        let settings = effective.settings()?;
        let app = app::initialize_with(settings, database).await.map_err(Failure::failed)?;
        let passwords = |name: &str| variables.variable(name).cloned();
        let mut said = Vec::new();
        let users = init_users::init_users(&app.context, passwords, false, &mut said).await;
        if let Err(failure) = users {
            Session::abandon(app).await;
            return Err(failure);
        }
        tell_passwords(&said);
        Ok(Self { session: Session::begin(app, who).await?, effective, pictures, logs })
    }

    /// Lets go of everything.
    pub(super) async fn close(self) {
        self.session.close().await;
    }
}

async fn release(database: Database) {
    if let Err(error) = database.release().await {
        tracing::warn!(%error, "the database could not be let go of; the next command looks after it");
    }
}

/// Random passwords are shown once, and nothing where there are none.
fn tell_passwords(said: &[u8]) {
    let said = SecretString::from(String::from_utf8_lossy(said).into_owned());
    if said.expose_secret().contains("random") {
        output::note(&format!("the first users were made\n{}", said.expose_secret()));
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::failed(format_args!("{}: {error}; name another directory", path.display())))
}
