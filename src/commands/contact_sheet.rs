//! The grid of a task's pictures as one PNG.

use std::path::{Path, PathBuf};

use embedded_graphics::{
    Drawable,
    geometry::Point,
    mono_font::{MonoTextStyle, ascii::FONT_6X10},
    pixelcolor::{Rgb888, RgbColor},
    text::{Baseline, Text},
};
use image::{ImageReader, Rgb, RgbImage, imageops::FilterType};
use thiserror::Error;

use crate::{canvas::Canvas, crud::subtasks::SubtaskRow};

/// Pixels of a picture's longer side, of the space around it, and of the line below it.
const SIDE: u32 = 160;
const GAP: u32 = 8;
const LINE: u32 = 12;

/// Columns at most.
const MOST_COLUMNS: usize = 8;

/// Why there is no sheet.
#[derive(Debug, Error)]
pub(super) enum ContactSheetError {
    /// A picture cannot be read.
    #[error("the picture {path} cannot be read: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// The sheet cannot be written.
    #[error("the grid of pictures cannot be written to {path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
}

/// Writes the sheet of these cells, in their order; a cell without a picture says why in its place. `axes` are the numbers of
/// values an axis: a row holds whole runs of the last ones.
pub(super) fn write(cells: &[SubtaskRow], axes: &[usize], directory: &Path, sheet: &Path) -> Result<(), ContactSheetError> {
    let columns = columns(axes) as u32;
    let rows = (cells.len() as u32).div_ceil(columns);
    let (width, height) = (columns * (SIDE + GAP) + GAP, rows * (SIDE + LINE + GAP) + GAP);
    let mut canvas = Canvas(RgbImage::from_pixel(width, height, Rgb([0xff; 3])));
    for (index, cell) in (0_u32..).zip(cells) {
        let left = GAP + (index % columns) * (SIDE + GAP);
        let top = GAP + (index / columns) * (SIDE + LINE + GAP);
        let label = if let Some(file) = &cell.result_file {
            canvas.place(&read(&directory.join(file))?, left, top);
            format!("cell {}", cell.cell)
        } else {
            canvas.blank(left, top);
            format!("cell {}: {}", cell.cell, cell.error_kind.as_deref().unwrap_or(cell.status.as_str()))
        };
        canvas.write(&label, left, top + SIDE + 1);
    }
    if let Some(parent) = sheet.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| ContactSheetError::Write { path: sheet.to_owned(), source: error.into() })?;
    }
    canvas.0.save(sheet).map_err(|source| ContactSheetError::Write { path: sheet.to_owned(), source })
}

fn read(path: &Path) -> Result<RgbImage, ContactSheetError> {
    let failed = |source| ContactSheetError::Read { path: path.to_owned(), source };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|error| failed(error.into()))?;
    Ok(reader.decode().map_err(failed)?.to_rgb8())
}

/// The last axes together, as far as they fit.
fn columns(axes: &[usize]) -> usize {
    let mut columns = 1;
    for values in axes.iter().rev() {
        if columns * values > MOST_COLUMNS {
            break;
        }
        columns *= values;
    }
    // No axis, or a wide one: rows as they come.
    if columns == 1 { MOST_COLUMNS } else { columns }
}

impl Canvas {
    /// Fits a picture into its place.
    fn place(&mut self, picture: &RgbImage, left: u32, top: u32) {
        let (width, height) = picture.dimensions();
        let longer = width.max(height).max(1);
        let scaled = |side: u32| (side * SIDE / longer).max(1);
        let fitted = image::imageops::resize(picture, scaled(width), scaled(height), FilterType::Triangle);
        let middle = |side: u32| (SIDE - side) / 2;
        let (x, y) = (left + middle(fitted.width()), top + middle(fitted.height()));
        image::imageops::replace(&mut self.0, &fitted, x.into(), y.into());
    }

    fn blank(&mut self, left: u32, top: u32) {
        let grey = RgbImage::from_pixel(SIDE, SIDE, Rgb([0xdd; 3]));
        image::imageops::replace(&mut self.0, &grey, left.into(), top.into());
    }

    fn write(&mut self, text: &str, left: u32, top: u32) {
        let style = MonoTextStyle::new(&FONT_6X10, Rgb888::BLACK);
        let fitting: String = text.chars().take((SIDE / 6) as usize).collect();
        let place = Point::new(left.cast_signed(), top.cast_signed());
        // A canvas in memory takes every pixel.
        let _ = Text::with_baseline(&fitting, place, style, Baseline::Top).draw(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_whole_runs_of_the_last_axes() {
        assert_eq!(columns(&[4, 2, 3]), 6);
        assert_eq!(columns(&[42, 24, 3]), 3);
        assert_eq!(columns(&[24]), MOST_COLUMNS);
        assert_eq!(columns(&[]), MOST_COLUMNS);
    }
}
