//! `imagemill init-db`: the schema, brought up to date.

use std::io::Write;

use serde_json::json;

use super::{output, report::Failure};
use crate::{app::Database, config::Settings};

/// Brings the schema up to date; safe to run again, and from two processes at once.
pub async fn init_db(settings: &Settings, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let database = Database::acquire(settings).await.map_err(Failure::failed)?;
    let is_private = database.is_private();
    let done = database.init_db().await;
    let released = database.release().await;
    done.map_err(Failure::failed)?;
    released.map_err(Failure::failed)?;
    if json {
        return output::json(&json!({ "schema": "up to date", "private": is_private }), out);
    }
    let place = if is_private { "the private PostgreSQL" } else { "the configured database" };
    output::text(&format!("the schema in {place} is up to date"), out)
}
