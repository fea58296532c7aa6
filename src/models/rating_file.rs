//! A file of ratings, as the page of a grid exports it: read as far as it can be, with every fault beside.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Fault, Faults,
    reader::{Reader, shown},
};

/// The rating of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CellRating {
    /// Its ordinal in the task, from 0.
    pub cell: i32,
    /// 1 to 5; none takes the rating away.
    pub rating: Option<i16>,
}

/// An entry of the file, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatingEntry {
    /// Its ordinal in the task; none: it could not be read.
    pub cell: Option<i32>,
    /// 1 to 5; none takes the rating away. What is wrong with it is a fault.
    pub rating: Option<i16>,
    /// What is wrong with this entry.
    pub faults: Vec<Fault>,
}

/// What the page of a grid exports, and `task rate --from` reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatingFile {
    /// The task; none: it could not be read.
    pub task_id: Option<Uuid>,
    /// In the order of the file.
    pub entries: Vec<RatingEntry>,
    /// What is wrong with the file as a whole.
    pub faults: Vec<Fault>,
}

impl RatingFile {
    /// Reads `{"task_id": "...", "ratings": [{"cell": 0, "rating": 5}]}`.
    ///
    /// # Errors
    /// Where it is not even an object.
    pub fn from_json(value: &Value) -> Result<Self, Faults> {
        let mut reader = Reader::default();
        let Some(map) = reader.object("file", value) else { return reader.finish(None) };
        reader.known_keys("", map, &["task_id", "ratings"]);
        let text = reader.needed_text("", map, "task_id");
        let task_id = text.as_deref().and_then(|text| Uuid::parse_str(text).ok());
        if let (Some(text), None) = (&text, task_id) {
            reader.fault("task_id", format!("must be the id of a task, not {}", shown(&Value::from(text.as_str()))));
        }
        let entries = match map.get("ratings") {
            Some(Value::Array(list)) => list.iter().enumerate().map(|(place, value)| RatingEntry::read(place, value)).collect(),
            None => {
                reader.fault("ratings", "is missing");
                Vec::new()
            }
            Some(other) => {
                reader.fault("ratings", format!("must be a list, not {}", shown(other)));
                Vec::new()
            }
        };
        Ok(Self { task_id, entries, faults: reader.into_faults() })
    }
}

impl RatingEntry {
    fn read(place: usize, value: &Value) -> Self {
        let path = format!("ratings[{place}]");
        let mut reader = Reader::default();
        let Some(map) = reader.object(&path, value) else {
            return Self { cell: None, rating: None, faults: reader.into_faults() };
        };
        reader.known_keys(&path, map, &["cell", "rating"]);
        let cell = read_cell(&mut reader, &path, map);
        let rating = read_rating(&mut reader, &path, map);
        Self { cell, rating, faults: reader.into_faults() }
    }
}

impl From<(usize, CellRating)> for RatingEntry {
    /// The same checks for a rating that was given as data, at this place.
    fn from((place, given): (usize, CellRating)) -> Self {
        let mut reader = Reader::default();
        if let Some(rating) = given.rating.filter(|rating| !is_rating(i64::from(*rating))) {
            reader.fault(format!("ratings[{place}].rating"), not_a_rating(&Value::from(rating)));
        }
        Self { cell: Some(given.cell), rating: given.rating, faults: reader.into_faults() }
    }
}

fn read_cell(reader: &mut Reader, path: &str, map: &Map<String, Value>) -> Option<i32> {
    let Some(value) = map.get("cell") else {
        reader.fault(format!("{path}.cell"), "is missing");
        return None;
    };
    let cell = value.as_i64().and_then(|cell| i32::try_from(cell).ok());
    if cell.is_none() {
        reader.fault(format!("{path}.cell"), format!("must be the number of a cell, from 0, not {}", shown(value)));
    }
    cell
}

/// Null says that a rating is to go; where nothing is said, something was forgotten.
fn read_rating(reader: &mut Reader, path: &str, map: &Map<String, Value>) -> Option<i16> {
    match map.get("rating") {
        Some(Value::Null) => {}
        None => reader.fault(format!("{path}.rating"), "is missing; null takes a rating away"),
        Some(value) => match value.as_i64().filter(|rating| is_rating(*rating)) {
            Some(rating) => return i16::try_from(rating).ok(),
            None => reader.fault(format!("{path}.rating"), not_a_rating(value)),
        },
    }
    None
}

fn is_rating(rating: i64) -> bool {
    (1..=5).contains(&rating)
}

fn not_a_rating(value: &Value) -> String {
    format!("must be 1 to 5, or null, not {}", shown(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_of_a_file_has_its_place() {
        let file = json!({ "task": "x", "task_id": "x", "ratings": [
            { "cell": "1", "rating": 9 }, { "cell": 2 }, { "rating": 1.5 }, 5, { "cell": 0, "rating": null, "note": "" }, { "cell": 7, "rating": 5 }] });
        let read = RatingFile::from_json(&file).expect("an object");
        let paths = |faults: &[Fault]| faults.iter().map(|fault| fault.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&read.faults), ["task", "task_id"]);
        let entries: Vec<Vec<String>> = read.entries.iter().map(|entry| paths(&entry.faults)).collect();
        assert_eq!(
            entries,
            [
                &["ratings[0].cell", "ratings[0].rating"][..],
                &["ratings[1].rating"],
                &["ratings[2].cell", "ratings[2].rating"],
                &["ratings[3]"],
                &["ratings[4].note"],
                &[]
            ]
        );
        assert_eq!((read.entries[5].cell, read.entries[5].rating), (Some(7), Some(5)));
        assert!(RatingFile::from_json(&json!([])).is_err());
        assert_eq!(paths(&RatingFile::from_json(&json!({})).expect("an object").faults), ["task_id", "ratings"]);
    }
}
