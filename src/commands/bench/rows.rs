//! What is printed: one row for each number that was to be reached.

use serde::Serialize;

use crate::commands::table::table;

/// What a number must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Must {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Must {
    fn holds(self, reached: f64) -> bool {
        match self {
            Self::AtLeast(bound) => reached >= bound,
            Self::AtMost(bound) => reached <= bound,
        }
    }
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// The measure that it belongs to.
    pub(super) measure: &'static str,
    /// What it is.
    pub(super) what: String,
    /// What was reached; none: it could not be taken, see the note.
    pub(super) reached: Option<f64>,
    /// Its unit.
    pub(super) unit: &'static str,
    /// What must be; none: it is there to be compared with.
    pub(super) must: Option<Must>,
    /// Whether it is; none where nothing must be, or nothing was reached.
    pub(super) ok: Option<bool>,
    /// How it was taken, where that is not plain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) note: String,
    /// The measure failed, which is more than that this machine cannot take it.
    #[serde(skip)]
    pub(super) has_failed: bool,
}

impl Row {
    /// A number that must be something.
    pub(super) fn new(measure: &'static str, what: impl Into<String>, reached: f64, unit: &'static str, must: Must) -> Self {
        Self {
            measure,
            what: what.into(),
            reached: Some(reached),
            unit,
            must: Some(must),
            ok: Some(must.holds(reached)),
            note: String::new(),
            has_failed: false,
        }
    }

    /// A number to compare with.
    pub(super) fn beside(measure: &'static str, what: impl Into<String>, reached: f64, unit: &'static str) -> Self {
        Self {
            measure,
            what: what.into(),
            reached: Some(reached),
            unit,
            must: None,
            ok: None,
            note: String::new(),
            has_failed: false,
        }
    }

    /// A number that this machine cannot take.
    pub(super) fn missing(measure: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        let note = why.into();
        Self { measure, what: what.into(), reached: None, unit: "", must: None, ok: None, note, has_failed: false }
    }

    /// A measure that failed.
    pub(super) fn failed(measure: &'static str, why: impl Into<String>) -> Self {
        Self { has_failed: true, ok: Some(false), ..Self::missing(measure, "could not be taken", why) }
    }

    /// With a note.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn reached_text(&self) -> String {
        self.reached.map_or_else(|| "-".to_owned(), |reached| format!("{} {}", number(reached), self.unit).trim_end().to_owned())
    }

    fn must_text(&self) -> String {
        match self.must {
            Some(Must::AtLeast(bound)) => format!(">= {}", number(bound)),
            Some(Must::AtMost(bound)) => format!("<= {}", number(bound)),
            None => String::new(),
        }
    }
}

/// The rows for people.
pub(super) fn text(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let ok = match row.ok {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        [row.measure.to_owned(), row.what.clone(), row.reached_text(), row.must_text(), ok.to_owned(), row.note.clone()]
    });
    table(["MEASURE", "WHAT", "REACHED", "MUST", "OK", "NOTE"], cells)
}

/// With as many digits as mean something.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        let digits = format!("{value:.0}");
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
        let mut grouped = String::from(sign);
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return grouped;
    }
    let text = if size >= 10.0 { format!("{value:.1}") } else { format!("{value:.3}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The middle one; of two the mean. None of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(sorted.len() / 2 - 1).map(|lower| f64::midpoint(*lower, upper))
}

/// The value that so many per cent do not exceed, by nearest rank. None of nothing.
pub(super) fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_of_the_sorted_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(&hundred, 50.0), percentile(&hundred, 99.0)), (Some(50.0), Some(99.0)));
        assert_eq!(percentile(&[7.0, 5.0], 99.0), Some(7.0));
        assert_eq!(percentile(&[], 99.0), None);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(6000.4, "6,000"), (1_000_000.0, "1,000,000"), (-1234.0, "-1,234"), (123.4, "123"), (0.95, "0.95")]
        {
            assert_eq!(number(value), text);
        }
        for (value, text) in [(14.14, "14.1"), (10.0, "10"), (0.2351, "0.235"), (0.0, "0")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_row_says_whether_it_holds() {
        assert_eq!(Row::new("a", "b", 5.0, "", Must::AtLeast(5.0)).ok, Some(true));
        assert_eq!(Row::new("a", "b", 5.0, "", Must::AtMost(4.9)).ok, Some(false));
        let text = text(&[Row::missing("a", "b", "no such thing")]);
        assert!(text.contains("no such thing"), "{text}");
    }
}
