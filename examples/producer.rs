//! A producer's own program: a row of its own and a task, in one transaction.
//!
//! It is built without the HTTP client and the command line, as a producer would take the library:
//!
//! ```toml
//! imagemill = { version = "0.1", default-features = false }
//! sqlx      = { version = "0.9", features = ["postgres", "runtime-tokio"] }  # the same 0.9: its connection is passed in
//! ```
//!
//! Run it on a database that `imagemill init-db` and `imagemill init-users` have prepared:
//!
//! ```sh
//! DATABASE_URL=postgres://... cargo run --example producer --no-default-features
//! ```

use imagemill::{
    config::{self, LimitSettings, LoadOptions},
    create_task_in,
    crud::users,
    models::{Prompt, TaskInput},
    services::{actor::Actor, task_service::CreatedTask},
};
use sqlx::{Connection as _, PgConnection};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to the database that imagemill's workers use")?;
    // The limits of a task are settings, so that producers and the command line agree on them.
    let limits = config::load(LoadOptions::default())?.settings.limits;
    let task = open_catalogue(&url, &limits).await?;
    let how = if task.is_new { "created" } else { "stood already" };
    eprintln!("{how}: {} cells", task.total_images);
    println!("{}", task.id);
    Ok(())
}

/// Opens a catalogue: its row, and the task that makes its pictures.
pub(crate) async fn open_catalogue(url: &str, limits: &LimitSettings) -> Result<CreatedTask, Box<dyn std::error::Error>> {
    // Two characters in three styles at two ratios: twelve cells. Every fault of the input is named at once.
    let definition = TaskInput::new("spring catalogue")
        .variable_prompt("character", ["a fox", "a heron"].map(Prompt::freetext))
        .variable_prompt("style", ["woodcut", "watercolour", "pixel art"].map(Prompt::freetext))
        .ratio(["1:1", "16:9"])
        .idempotency_key("catalogue/2026/spring")
        .validate(&limits.into())?;

    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("create table if not exists catalogues (name text primary key, task_id uuid not null)")
        .execute(&mut connection)
        .await?;
    let user = users::get_by_username(&mut connection, "user").await?.ok_or("no user `user`: run `imagemill init-users`")?;
    let actor = Actor::from(user);

    // From here to the commit: both or neither. No worker sees a cell, or is woken for one, before it.
    let mut transaction = connection.begin().await?;
    let task = create_task_in(&mut transaction, limits, &actor, &definition).await?;
    // Run it twice: the idempotency key gives the first task back, and nothing is enqueued again.
    sqlx::query("insert into catalogues (name, task_id) values ($1, $2) on conflict (name) do nothing")
        .bind("spring")
        .bind(task.id)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(task)
}
