//! A task as data to take away: one row a cell, read page by page, so that 50,000 cells need no more memory than 500.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, task_service};
use crate::{
    crud::{
        manifest::{self, ManifestRow},
        tasks::TaskRow,
    },
    models::{self, Axis, Prompt, status::Status},
};

/// Cells of one page.
const PAGE: i64 = 500;
/// Characters of an axis's value in a file's name.
const VALUE_CHARACTERS: usize = 40;
/// Bytes of a file's name, without its ending; file systems take 255.
const NAME_BYTES: usize = 200;

/// One cell of an export.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ManifestCell {
    /// 0-based ordinal, copies counted.
    pub cell: i32,
    /// 0-based copy of its combination.
    pub copy: i32,
    /// One 0-based value index per axis.
    pub variable_indices: Vec<i32>,
    /// The values of the axes as people call them, in axis order.
    pub axis_values: Vec<String>,
    /// Its state.
    pub status: Status,
    /// Why it failed, as a word.
    pub error_kind: Option<String>,
    /// Why, in words.
    pub error: Option<String>,
    /// The one really used.
    pub seed: i64,
    /// Of the sides.
    pub ratio: String,
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
    /// The way into the upstream.
    pub lane: String,
    /// Its prompts as they are sent.
    pub prompts: Vec<Value>,
    /// Of its last attempt.
    pub upstream_id: Option<String>,
    /// Attempts, without those that were not sent or turned away.
    pub attempts: i32,
    /// Submits that the upstream had accepted.
    pub paid_submits: i64,
    /// Submits of which that is not known.
    pub unknown_submits: i64,
    /// 1 to 5.
    pub rating: Option<i16>,
    /// URL of the picture.
    pub result: Option<String>,
    /// Path of the kept picture below the results directory.
    pub result_file: Option<String>,
    /// SHA-256 of the kept picture.
    pub sha256: Option<String>,
    /// What the picture is called in an export: by its place in the grid. None: it was not kept.
    pub file: Option<String>,
}

/// An export under way.
#[derive(Debug)]
pub struct Manifest {
    /// The task.
    pub task: TaskRow,
    /// Its axes.
    pub axes: Vec<Axis>,
    prompts: Vec<Prompt>,
    after: i32,
}

/// Begins the export of a task. Needs `view_results`.
///
/// # Errors
/// See [`ServiceError`].
pub async fn export_task(context: &Context, actor: &Actor, id: Uuid) -> Result<Manifest, ServiceError> {
    let task = task_service::get_task(context, actor, id).await?;
    let mut connection = context.reader().await?;
    let missing = || ServiceError::NotFound { what: "task", id: id.to_string() };
    let given = manifest::get_given(&mut connection, id).await?.ok_or_else(missing)?;
    let prompts = models::validate_prompts(&given.prompts)?;
    let axes = serde_json::from_value(given.axes).map_err(|error| ServiceError::Usage(format!("the task's axes: {error}")))?;
    Ok(Manifest { task, axes, prompts, after: -1 })
}

impl Manifest {
    /// The next cells, in the order of the grid; none: that was all. Each page is as the task is when it is read.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub async fn next_page(&mut self, context: &Context) -> Result<Vec<ManifestCell>, ServiceError> {
        let mut connection = context.reader().await?;
        let rows = manifest::get_page(&mut connection, self.task.id, self.after, PAGE).await?;
        drop(connection);
        if let Some(last) = rows.last() {
            self.after = last.cell;
        }
        rows.into_iter().map(|row| self.cell(row)).collect()
    }

    fn cell(&self, row: ManifestRow) -> Result<ManifestCell, ServiceError> {
        let prompts = models::expanded_prompts(&self.prompts, &row.variable_indices)
            .map_err(|error| ServiceError::Usage(format!("cell {}: {error}", row.cell)))?;
        let places = self.axes.iter().zip(&row.variable_indices);
        let axis_values: Vec<String> = places
            .map(|(axis, index)| {
                usize::try_from(*index).ok().and_then(|index| axis.values.get(index)).map_or_else(String::new, label)
            })
            .collect();
        let file = row.result_file.as_deref().map(|kept| file_name(row.cell, self.task.total_images, &axis_values, kept));
        Ok(ManifestCell {
            cell: row.cell,
            copy: row.copy,
            variable_indices: row.variable_indices,
            axis_values,
            status: row.status,
            error_kind: row.error_kind,
            error: row.error,
            seed: row.seed,
            ratio: row.ratio,
            width: row.width,
            height: row.height,
            lane: row.lane,
            prompts,
            upstream_id: row.upstream_id,
            attempts: row.attempt_count,
            paid_submits: row.paid_submits,
            unknown_submits: row.unknown_submits,
            rating: row.rating,
            result: row.result,
            result_file: row.result_file,
            sha256: row.result_sha256,
            file,
        })
    }
}

/// An axis's value as people call it: of a prompt its name, else its words.
fn label(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Object(prompt) => {
            let texts = ["name", "value"].iter().filter_map(|key| prompt.get(*key)?.as_str());
            texts.map(str::to_owned).find(|text| !text.is_empty()).unwrap_or_else(|| "(without)".to_owned())
        }
        other => other.to_string(),
    }
}

/// A name that every file system takes: the cell's ordinal, which no other cell of the task has, then the values of the axes.
fn file_name(cell: i32, total_images: i32, axis_values: &[String], kept: &str) -> String {
    let width = (total_images - 1).max(0).to_string().len();
    let mut name = format!("{cell:0width$}");
    for value in axis_values {
        let words =
            value.chars().take(VALUE_CHARACTERS).map(|character| if character.is_alphanumeric() { character } else { '-' });
        let words: String = words.collect();
        let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
        let place = format!("_{}", if words.is_empty() { "x".to_owned() } else { words.join("-") });
        let room = NAME_BYTES.saturating_sub(name.len());
        let end = (0..=room.min(place.len())).rev().find(|end| place.is_char_boundary(*end)).unwrap_or_default();
        name.push_str(&place[..end]);
    }
    let ending = kept.rsplit_once('.').map(|(_, ending)| ending);
    match ending.filter(|ending| !ending.is_empty() && ending.len() <= 5 && ending.chars().all(|c| c.is_ascii_alphanumeric())) {
        Some(ending) => format!("{name}.{ending}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(values: &[&str], kept: &str) -> String {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        file_name(7, 3_024, &values, kept)
    }

    #[test]
    fn a_name_is_safe_whatever_the_values_are() {
        assert_eq!(named(&["Mia", "wood cut", "3:4"], "ab/7.png"), "0007_Mia_wood-cut_3-4.png");
        assert_eq!(named(&["../../etc/passwd", "", "?*\u{0}"], "7.webp"), "0007_etc-passwd_x_x.webp");
        assert_eq!(named(&["con", "月の下"], "no ending"), "0007_con_月の下");
        assert_eq!(named(&[], "x.not an ending"), "0007");
        let long = "é".repeat(100);
        let name = named(&[&long, &long, &long, &long, &long, &long], "7.jpeg");
        assert!(name.len() <= 206 && name.is_char_boundary(200), "{} {name}", name.len());
    }

    #[test]
    fn equal_values_of_two_cells_have_two_names_also_where_case_is_nothing() {
        let names =
            [(1, "Moon"), (2, "moon"), (12, "moon")].map(|(cell, value)| file_name(cell, 13, &[value.to_owned()], "a.png"));
        assert_eq!(names, ["01_Moon.png", "02_moon.png", "12_moon.png"]);
    }

    #[test]
    fn a_value_is_called_as_people_call_it() {
        for (value, called) in [
            (json!({ "type": "elementum", "value": "0123", "name": "woodcut" }), "woodcut"),
            (json!({ "type": "freetext", "value": "fog" }), "fog"),
            (json!({ "type": "freetext", "value": "" }), "(without)"),
            (json!("3:4"), "3:4"),
            (json!(true), "true"),
            (json!(null), "none"),
            (json!(2.5), "2.5"),
        ] {
            assert_eq!(label(&value), called);
        }
    }
}
