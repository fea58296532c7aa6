//! Small pictures that say what was asked for.

use std::io::Cursor;

use embedded_graphics::{
    Drawable,
    geometry::Point,
    mono_font::{MonoTextStyle, ascii::FONT_5X8},
    pixelcolor::{Rgb888, RgbColor},
    text::{Baseline, Text},
};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::job;
use crate::canvas::Canvas;

/// A picture that could not be drawn.
#[derive(Debug, thiserror::Error)]
pub(super) enum PictureError {
    /// The body asks for no size.
    #[error("the submit's body has no width and height")]
    NoSize,
    /// The PNG encoder failed.
    #[error("the picture could not be written as PNG: {0}")]
    Encode(#[from] image::ImageError),
}

const GLYPH_WIDTH: u32 = 5;
const LINE_HEIGHT: u32 = 9;
const FRAME: u32 = 4;

/// Draws the picture of a submit's body as PNG, its longer side having `side` pixels. Colours come from the body's hash,
/// so that two cells look different and one cell always looks the same.
pub(super) fn draw(body: &Value, side: u32) -> Result<Vec<u8>, PictureError> {
    let (width, height) = job::size(body).ok_or(PictureError::NoSize)?;
    let longer = width.max(height);
    // At least one pixel, however narrow the ratio; the product fits, since each side is at most 65,535.
    let scaled = |length: u64| ((length * u64::from(side) + longer / 2) / longer).max(1) as u32;
    let (columns, rows) = (scaled(width), scaled(height));

    let hash = Sha256::digest(body.to_string().as_bytes());
    // A light background and a dark frame: black text is readable on the one, and both vary.
    let ground = Rgb([hash[0] | 0x80, hash[1] | 0x80, hash[2] | 0x80]);
    let frame = Rgb([hash[3] & 0x7f, hash[4] & 0x7f, hash[5] & 0x7f]);
    let mut canvas = Canvas(RgbImage::from_fn(columns, rows, |x, y| {
        let is_frame = x < FRAME || y < FRAME || x + FRAME >= columns || y + FRAME >= rows;
        if is_frame { frame } else { ground }
    }));

    let letters = (columns.saturating_sub(2 * FRAME + 2) / GLYPH_WIDTH).max(1) as usize;
    let room = (rows.saturating_sub(2 * FRAME + 2) / LINE_HEIGHT) as usize;
    let seed = body.get("seed").map_or_else(|| "no seed".to_owned(), |seed| format!("seed {seed}"));
    let mut foot = wrap(&format!("{width}x{height}"), letters);
    foot.extend(wrap(&seed, letters));
    let mut lines = wrap(&prompt_text(body), letters);
    lines.truncate(room.saturating_sub(foot.len()));
    lines.extend(foot);
    let style = MonoTextStyle::new(&FONT_5X8, Rgb888::BLACK);
    for (number, line) in (0_u32..).zip(&lines) {
        let corner = Point::new((FRAME + 1) as i32, (FRAME + 1 + number * LINE_HEIGHT) as i32);
        match Text::with_baseline(line, corner, style, Baseline::Top).draw(&mut canvas) {
            Ok(_) => {}
        }
    }

    let mut png = Cursor::new(Vec::new());
    canvas.0.write_to(&mut png, ImageFormat::Png)?;
    Ok(png.into_inner())
}

/// What the prompts say: a character's or style's name, else the value.
fn prompt_text(body: &Value) -> String {
    let prompts = body.get("rawPrompt").and_then(Value::as_array);
    let texts = prompts.into_iter().flatten().filter_map(|prompt| {
        let text = |key| prompt.get(key)?.as_str().filter(|text| !text.is_empty());
        text("name").or_else(|| text("value"))
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// Lines of at most so many letters, broken at spaces where there are any.
fn wrap(text: &str, letters: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let used = line.chars().count();
        if used > 0 && used + 1 + word.len() > letters {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > letters {
            let rest = word.split_off(letters);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_broken_and_short_ones_kept_together() {
        assert_eq!(wrap("a cat sits", 5), ["a cat", "sits"]);
        assert_eq!(wrap("ab 1234567", 3), ["ab", "123", "456", "7"]);
        assert!(wrap("  ", 3).is_empty());
    }
}
