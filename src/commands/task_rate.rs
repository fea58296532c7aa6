//! `imagemill task rate`: ratings of pictures, one or a file of them.

use std::{io::Write, path::Path};

use serde_json::json;
use uuid::Uuid;

use super::{output, report::Failure};
use crate::{
    models::{CellRating, RatingFile},
    services::{actor::Actor, context::Context, error::ServiceError, ratings},
};

/// What a file of ratings looks like.
const FORM: &str = r#"{"task_id": "...", "ratings": [{"cell": 0, "rating": 5}]}, with a rating of 1 to 5 or null"#;

/// What is to be rated.
#[derive(Debug)]
pub enum Given {
    /// One picture.
    Cell(CellRating),
    /// Those of a file, and how it is called.
    File(String, RatingFile),
}

/// Reads what the page of a grid exports; `-` means standard input.
pub fn read(file: &Path) -> Result<Given, Failure> {
    let (name, text) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::read_to_string(std::io::stdin()))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    let text =
        text.map_err(|error| Failure::usage(format_args!("cannot read {name}: {error}; name a file of ratings (JSON)")))?;
    let value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| Failure::usage(format_args!("{name} is not JSON: {error}; ratings look like {FORM}")))?;
    let read = RatingFile::from_json(&value)
        .map_err(|faults| Failure::usage(format_args!("{name} holds no ratings: {faults}; they look like {FORM}")))?;
    Ok(Given::File(name, read))
}

/// Rates pictures of a task. Every fault of a file is named at once, and then nothing is rated.
pub async fn rate(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    given: &Given,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let rated = match given {
        Given::Cell(rating) => match ratings::rate_task(context, actor, id, &[*rating]).await {
            // Nobody gave a list: each says by itself which cell it is.
            Err(ServiceError::Input(faults)) => {
                let told: Vec<String> = faults.0.into_iter().map(|fault| format!("cell {}", fault.message)).collect();
                return Err(Failure::usage(told.join("; ")));
            }
            done => done?,
        },
        Given::File(name, file) => match ratings::rate_file(context, actor, id, file).await {
            Err(ServiceError::Input(faults)) => {
                let count = faults.0.len();
                let noun = if count == 1 { "fault" } else { "faults" };
                return Err(Failure::usage(format_args!("{name} has {count} {noun}, and nothing was rated: {faults}")));
            }
            done => done?,
        },
    };
    if json {
        return output::json(&json!({ "task_id": id, "rated": rated }), out);
    }
    output::text(&format!("rated: cells {rated}"), out)
}
