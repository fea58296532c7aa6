//! From a ratio of sides to a size in pixels.

use serde::{Serialize, Serializer};

/// Both sides are multiples of this.
const STEP: f64 = 8.0;
/// Side of the square that has the area of every picture.
const SQUARE: f64 = 1024.0;
const SMALLEST_SIDE: f64 = 64.0;
const LARGEST_SIDE: f64 = 4096.0;

/// A ratio `a:b` of width to height that gives a picture of a size that can be made. Serializes as its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ratio {
    text: String,
    width: i32,
    height: i32,
}

/// Why a text is no ratio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RatioError {
    /// Not two numbers with a colon between them.
    #[error("must be two numbers such as 3:4")]
    Form,
    /// A number is 0.
    #[error("both numbers must be positive")]
    NotPositive,
    /// Too long and thin.
    #[error("gives {width}x{height} pixels; each side must have 64 to 4096")]
    Size {
        /// Pixels.
        width: u64,
        /// Pixels.
        height: u64,
    },
}

impl Ratio {
    /// Reads `a:b`, two positive decimal numbers without sign or exponent.
    pub fn parse(text: &str) -> Result<Self, RatioError> {
        let (across, down) = text.split_once(':').ok_or(RatioError::Form)?;
        let across = number(across).ok_or(RatioError::Form)?;
        let down = number(down).ok_or(RatioError::Form)?;
        if across <= 0.0 || down <= 0.0 {
            return Err(RatioError::NotPositive);
        }
        // sqrt(area / (a * b)) * a, without the product that could overflow or lose the exact halves.
        let width = rounded(SQUARE * (across / down).sqrt());
        let height = rounded(SQUARE * (down / across).sqrt());
        let sides = SMALLEST_SIDE..=LARGEST_SIDE;
        if !sides.contains(&width) || !sides.contains(&height) {
            return Err(RatioError::Size { width: width as u64, height: height as u64 });
        }
        Ok(Self { text: text.to_owned(), width: width as i32, height: height as i32 })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Pixels, a multiple of 8.
    pub fn width(&self) -> i32 {
        self.width
    }

    /// Pixels, a multiple of 8.
    pub fn height(&self) -> i32 {
        self.height
    }

    pub(super) fn square() -> Self {
        Self { text: "1:1".to_owned(), width: SQUARE as i32, height: SQUARE as i32 }
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Digits, perhaps with a fraction; `f64`'s own parser also takes signs, exponents and `inf`.
fn number(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn rounded(side: f64) -> f64 {
    (side / STEP).round_ties_even() * STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_follows_from_the_ratio() {
        let sizes = [
            ("1:1", 1024, 1024),
            ("2:3", 840, 1256),
            ("3:2", 1256, 840),
            ("3:4", 888, 1184),
            ("4:3", 1184, 888),
            ("3:5", 792, 1320),
            ("5:3", 1320, 792),
            ("16:9", 1368, 768),
            ("9:16", 768, 1368),
            ("21:9", 1568, 672),
            ("1.0:1", 1024, 1024),
            ("2.39:1", 1584, 664),
            ("1:16", 256, 4096),
        ];
        for (text, width, height) in sizes {
            let ratio = Ratio::parse(text).unwrap();
            assert_eq!((ratio.width(), ratio.height()), (width, height), "{text}");
            assert_eq!(ratio.as_str(), text);
        }
        assert_eq!(Ratio::square(), Ratio::parse("1:1").unwrap());
    }

    #[test]
    fn a_side_just_between_two_multiples_goes_to_the_even_one() {
        // sqrt(257^2 / 256^2) * 128 = 128.5, sqrt(259^2 / 256^2) * 128 = 129.5
        assert_eq!(Ratio::parse("66049:65536").unwrap().width(), 128 * 8);
        assert_eq!(Ratio::parse("67081:65536").unwrap().width(), 130 * 8);
    }

    #[test]
    fn what_is_no_ratio_is_an_error() {
        let forms = [
            "", ":", "1", "1:", ":1", "1:2:3", "a:b", "1 : 1", "-1:1", "+1:1", "1e3:1", "inf:1", "NaN:1", "1.:1", ".5:1", "16/9",
            "1.2.3:1",
        ];
        for text in forms {
            assert_eq!(Ratio::parse(text), Err(RatioError::Form), "{text:?}");
        }
        for text in ["0:1", "1:0", "0.0:1"] {
            assert_eq!(Ratio::parse(text), Err(RatioError::NotPositive), "{text}");
        }
        let huge = format!("1{}:1", "0".repeat(200));
        for text in ["17:1", "1:17", "300:1", "1:300", "99999999999:1", &huge] {
            assert!(matches!(Ratio::parse(text), Err(RatioError::Size { .. })), "{text}");
        }
    }
}
