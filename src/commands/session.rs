//! What most commands begin with: a database, and somebody who acts.

use super::report::Failure;
use crate::{
    app::{self, App},
    config::Settings,
    services::{actor::Actor, context::Context, user_service},
};

/// Who acts: as an argument says, else as the environment does.
#[derive(Debug, Clone, Default)]
pub struct Who {
    /// `--as`
    pub argument: Option<String>,
    /// `IMAGEMILL_USER`
    pub environment: Option<String>,
}

impl Who {
    /// The user, on this database.
    pub(super) async fn resolve(&self, context: &Context, is_private: bool) -> Result<Actor, Failure> {
        let actor = user_service::resolve_actor(context, self.argument.as_deref(), self.environment.as_deref(), is_private);
        actor.await.map_err(Failure::from)
    }
}

/// A program that is running, and who acts in it.
pub struct Session {
    app: App,
    /// Who acts.
    pub actor: Actor,
}

impl Session {
    /// Connects, starting the private server where no database is configured. To be closed whatever happens in between.
    pub async fn open(settings: Settings, who: &Who) -> Result<Self, Failure> {
        Self::begin(app::initialize_app(settings).await.map_err(Failure::failed)?, who).await
    }

    /// The same with a program that runs already.
    pub(super) async fn begin(app: App, who: &Who) -> Result<Self, Failure> {
        match who.resolve(&app.context, app.database().is_private()).await {
            Ok(actor) => Ok(Self { app, actor }),
            Err(failure) => {
                shut_down(app).await;
                Err(failure)
            }
        }
    }

    /// Lets go of a program that goes no further.
    pub(super) async fn abandon(app: App) {
        shut_down(app).await;
    }

    /// What the services get.
    pub fn context(&self) -> &Context {
        &self.app.context
    }

    /// Lets go of the database. What the command has done stands, whatever becomes of this.
    pub async fn close(self) {
        shut_down(self.app).await;
    }
}

async fn shut_down(app: App) {
    if let Err(error) = app::shutdown_app(app).await {
        tracing::warn!(%error, "the database could not be let go of; the next command looks after it");
    }
}
