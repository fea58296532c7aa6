//! Text on a sheet, in GNU Unifont, since prompts are written in every script.

use image::{Rgb, RgbImage};
use unifont::{Glyph, get_glyph};

/// Pixels of a line.
pub(super) const LINE: usize = 16;
/// Pixels of a narrow letter; a wide one has twice as many.
const NARROW: usize = 8;
/// For what the font does not have.
const MISSING: char = '\u{25a1}';

fn glyph(character: char) -> Option<&'static Glyph> {
    let shown = if character.is_control() { ' ' } else { character };
    get_glyph(shown).or_else(|| get_glyph(MISSING))
}

fn width(character: char) -> usize {
    glyph(character).map_or(NARROW, Glyph::get_width)
}

/// Text in lines of this width at most, broken at spaces where there are some; what is left over ends in an ellipsis.
pub(super) fn lines(text: &str, pixels: usize, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && lines.len() < most {
        let (mut used, mut end, mut space) = (0, rest.len(), None);
        for (at, character) in rest.char_indices() {
            if character.is_whitespace() {
                space = Some(at);
            }
            used += width(character);
            if used > pixels {
                end = space.filter(|at| *at > 0).unwrap_or(at);
                break;
            }
        }
        if end == 0 {
            // Not even one letter fits.
            break;
        }
        let (line, left) = rest.split_at(end);
        lines.push(line.trim_end().to_owned());
        rest = left.trim_start();
    }
    if let Some(last) = lines.last_mut().filter(|_| !rest.is_empty()) {
        while !last.is_empty() && last.chars().map(width).sum::<usize>() + NARROW > pixels {
            last.pop();
        }
        last.push('\u{2026}');
    }
    lines
}

/// Pixels of a line.
pub(super) fn measure(line: &str) -> usize {
    line.chars().map(width).sum()
}

/// Draws one line from its upper left corner. What is outside of the picture is left out.
pub(super) fn draw(picture: &mut RgbImage, line: &str, left: usize, top: usize, colour: Rgb<u8>) {
    let mut x = left;
    for character in line.chars() {
        let Some(glyph) = glyph(character) else { continue };
        for row in 0..LINE {
            for column in 0..glyph.get_width() {
                if glyph.get_pixel(column, row)
                    && let Some(pixel) = picture.get_pixel_mut_checked((x + column) as u32, (top + row) as u32)
                {
                    *pixel = colour;
                }
            }
        }
        x += glyph.get_width();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_at_spaces_and_cut_with_an_ellipsis() {
        assert_eq!(lines("a lighthouse in the fog", 96, 3), ["a lighthouse", "in the fog"]);
        assert_eq!(lines("unbreakableword", 64, 2), ["unbreaka", "bleword"]);
        assert_eq!(lines("one two three four", 56, 2), ["one two", "three\u{2026}"]);
        assert_eq!(lines("", 64, 2), Vec::<String>::new());
        assert_eq!(lines("wide", 4, 2), Vec::<String>::new());
    }

    #[test]
    fn letters_of_many_scripts_are_there_and_wide_ones_take_their_room() {
        for character in ['a', '\u{e9}', '\u{436}', '\u{5d0}', '\u{639}', '\u{6c34}', '\u{d55c}'] {
            assert!(get_glyph(character).is_some(), "{character}");
        }
        assert_eq!(measure("\u{6c34}a"), 24);
    }
}
