//! `imagemill task rate`: ratings of pictures, one or a file of them.

use std::{io::Write, path::Path};

use serde_json::json;
use uuid::Uuid;

use super::{output, report::Failure};
use crate::services::{
    actor::Actor,
    context::Context,
    ratings::{self, CellRating, RatingFile},
};

/// Rates these cells of a task.
pub async fn rate(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    given: &[CellRating],
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let rated = ratings::rate_task(context, actor, id, given).await?;
    if json {
        return output::json(&json!({ "task_id": id, "rated": rated }), out);
    }
    output::text(&format!("rated: cells {rated}"), out)
}

/// Reads what the page of a grid exports; `-` means standard input.
pub fn read(file: &Path, id: Uuid) -> Result<Vec<CellRating>, Failure> {
    let (name, text) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::read_to_string(std::io::stdin()))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    let form = r#"{"task_id": "...", "ratings": [{"cell": 0, "rating": 5}]}, with a rating of 1 to 5 or null"#;
    let text =
        text.map_err(|error| Failure::usage(format_args!("cannot read {name}: {error}; name a file of ratings (JSON)")))?;
    let read: RatingFile = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| Failure::usage(format_args!("{name} holds no ratings: {error}; they look like {form}")))?;
    if read.task_id != id {
        return Err(Failure::usage(format_args!("{name} rates task {}, and not {id}: name that one", read.task_id)));
    }
    Ok(read.ratings)
}
