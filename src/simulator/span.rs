//! A number that is fixed or drawn from a range.

use std::{fmt, str::FromStr};

use rand::RngExt;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A number that is fixed (`20`) or drawn evenly from a range, both ends included (`20-80`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    from: u64,
    to: u64,
}

/// Text that is no [`Span`].
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is neither a number nor a range such as 20-80")]
pub struct SpanError {
    text: String,
}

impl Span {
    /// Always this number.
    pub const fn fixed(number: u64) -> Self {
        Self { from: number, to: number }
    }

    /// From the smaller to the larger of the two, both included.
    pub fn range(one: u64, other: u64) -> Self {
        Self { from: one.min(other), to: one.max(other) }
    }

    /// One number of the span.
    pub(super) fn draw(self, random: &mut impl RngExt) -> u64 {
        if self.from == self.to { self.from } else { random.random_range(self.from..=self.to) }
    }
}

impl From<u64> for Span {
    fn from(number: u64) -> Self {
        Self::fixed(number)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to { write!(formatter, "{}", self.from) } else { write!(formatter, "{}-{}", self.from, self.to) }
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| part.trim().parse::<u64>().ok();
        let span = match text.split_once('-') {
            Some((from, to)) => {
                number(from).zip(number(to)).map(|(from, to)| Self { from, to }).filter(|span| span.from <= span.to)
            }
            None => number(text).map(Self::fixed),
        };
        span.ok_or_else(|| SpanError { text: text.to_owned() })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.from == self.to { serializer.serialize_u64(self.from) } else { serializer.collect_str(self) }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(input)? {
            Form::Number(number) => Ok(Self::fixed(number)),
            Form::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read_and_written() {
        for (text, span) in [("20", Span::fixed(20)), ("20-80", Span::range(80, 20))] {
            assert_eq!(text.parse::<Span>().unwrap(), span);
            assert_eq!(span.to_string(), text);
        }
        for text in ["", "-3", "80-20", "fast"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
