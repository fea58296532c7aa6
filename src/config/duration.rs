//! Durations in settings: a number of seconds, or text with a unit (`250ms`, `2s`, `5min`, `24h`).

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// Longer durations are slips of the pen, and would overflow the database's and the clock's arithmetic.
const LONGEST: Duration = Duration::from_hours(366 * 24);

#[derive(Deserialize)]
#[serde(untagged, expecting = "is not a duration; write a number of seconds, or 250ms, 2s, 5min, 24h")]
enum Form {
    Seconds(f64),
    Text(String),
}

/// Reads a duration that is not negative and not longer than a year.
///
/// # Errors
/// Anything else is an error. It leaves the value out, since whoever reports it names it.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = match Form::deserialize(input)? {
        Form::Seconds(seconds) => seconds.to_string(),
        Form::Text(text) => text,
    };
    let duration = parse(&text)
        .ok_or_else(|| D::Error::custom("is not a duration; write a number of seconds, or 250ms, 2s, 5min, 24h; not negative"))?;
    if duration > LONGEST {
        return Err(D::Error::custom("is longer than a year"));
    }
    Ok(duration)
}

/// Reads a text as settings have it: a number of seconds, or one with a unit; none: it is no such text, or is longer than a
/// year.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text).filter(|duration| *duration <= LONGEST)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<Duration, String> {
        super::deserialize(value).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_numbers_and_units() {
        for (value, milliseconds) in [
            (json!(0), 0),
            (json!(2), 2_000),
            (json!(2.5), 2_500),
            (json!("2"), 2_000),
            (json!("2.0"), 2_000),
            (json!("250ms"), 250),
            (json!(" 2 s "), 2_000),
            (json!("5min"), 300_000),
            (json!("5m"), 300_000),
            (json!("1.5h"), 5_400_000),
            (json!("7d"), 604_800_000),
        ] {
            assert_eq!(read(&value), Ok(Duration::from_millis(milliseconds)), "{value}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for value in [
            json!(-1),
            json!("-1s"),
            json!(""),
            json!("s"),
            json!("soon"),
            json!("1 fortnight"),
            json!("1e3"),
            json!("nan"),
            json!("inf"),
            json!(true),
            json!([1]),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains("is not a duration"), "{value}: {error}");
        }
        for value in [json!(1e12), json!("400d")] {
            assert_eq!(read(&value).unwrap_err(), "is longer than a year");
        }
        assert!(read(&json!(1e30)).is_err());
    }
}
