//! Durations in settings: a number of seconds, or text with a unit (`250ms`, `2s`, `5min`, `24h`).

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Seconds(f64),
    Text(String),
}

/// Reads a duration that is not negative.
///
/// # Errors
/// Anything else is an error that names the value.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = match Form::deserialize(input)? {
        Form::Seconds(seconds) => seconds.to_string(),
        Form::Text(text) => text,
    };
    parse(&text).ok_or_else(|| {
        D::Error::custom(format!("`{text}` is not a duration; write a number of seconds, or 250ms, 2s, 5min, 24h"))
    })
}

fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.trim().parse().ok()?;
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}
