//! A sheet being drawn: its labels, and each cell's picture or why there is none.

use image::{Rgb, RgbImage, imageops, imageops::FilterType};

use super::{
    layout::{GAP, Layout, Page, TOP},
    lettering::{self, LINE},
};
use crate::{crud::grid::GridCell, models::status::Status};

const PAPER: Rgb<u8> = Rgb([0xff; 3]);
const INK: Rgb<u8> = Rgb([0x15, 0x18, 0x1c]);
const SOFT: Rgb<u8> = Rgb([0x56, 0x5f, 0x6b]);
const MAT: Rgb<u8> = Rgb([0xec, 0xee, 0xf1]);
const FAILED: Rgb<u8> = Rgb([0xa3, 0x27, 0x1b]);
const FAILED_GROUND: Rgb<u8> = Rgb([0xfc, 0xf0, 0xee]);
const FAILED_LINE: Rgb<u8> = Rgb([0xf2, 0xd5, 0xd0]);

/// One sheet.
pub(super) struct Sheet {
    picture: RgbImage,
    /// The page's own first row and column.
    first: (usize, usize),
    left: usize,
    /// Pixels of a picture's longer side.
    side: usize,
}

impl Sheet {
    /// An empty sheet with its labels.
    pub(super) fn new(layout: &Layout, page: &Page, heading: &str) -> Self {
        let left = layout.left();
        let (width, height) = (left + page.columns.len() * layout.pitch(), TOP + page.rows.len() * layout.pitch());
        let picture = RgbImage::from_pixel(width as u32, height as u32, PAPER);
        let mut sheet = Self { picture, first: (page.rows.start, page.columns.start), left, side: layout.side };
        // Above cells that flow stands nothing else.
        let names = layout.axis_names();
        sheet.text(heading, GAP, GAP, width.saturating_sub(2 * GAP), if names.is_some() { 1 } else { 4 }, INK);
        if let Some((across, down)) = names {
            for (number, (arrow, names)) in [("\u{2192}", across), ("\u{2193}", &down.join(", "))].into_iter().enumerate() {
                let top = TOP - GAP - (2 - number) * LINE;
                sheet.text(arrow, GAP, top, LINE, 1, SOFT);
                sheet.text(names, GAP + LINE, top, left - 2 * GAP - LINE, 1, SOFT);
            }
        }
        for column in page.columns.clone() {
            let at = left + (column - page.columns.start) * layout.pitch();
            let lines = lettering::lines(layout.column_label(column), layout.side, 3);
            // They stand on the first row.
            let top = TOP - GAP - lines.len() * LINE;
            for (number, line) in lines.iter().enumerate() {
                let middle = layout.side.saturating_sub(lettering::measure(line)) / 2;
                lettering::draw(&mut sheet.picture, line, at + middle, top + number * LINE, INK);
            }
        }
        for row in page.rows.clone() {
            let mut top = TOP + (row - page.rows.start) * layout.pitch();
            for (number, label) in layout.row_labels(row).into_iter().enumerate() {
                let (most, colour) = if number == 0 { (4, INK) } else { (2, SOFT) };
                top += LINE * sheet.text(label, GAP, top, left - 2 * GAP, most, colour);
            }
        }
        sheet
    }

    /// Draws a cell: its picture, or why there is none.
    pub(super) fn cell(&mut self, layout: &Layout, row: usize, column: usize, cell: &GridCell, picture: Option<&RgbImage>) {
        let left = self.left + (column - self.first.1) * layout.pitch();
        let top = TOP + (row - self.first.0) * layout.pitch();
        let caption = layout.caption(cell.cell as usize);
        if let Some(picture) = picture {
            let middle = |pixels: u32| (self.side - pixels as usize) / 2;
            let (x, y) = (left + middle(picture.width()), top + middle(picture.height()));
            imageops::replace(&mut self.picture, picture, x as i64, y as i64);
        } else {
            self.why(cell, left, top);
        }
        if !caption.is_empty() {
            let band = RgbImage::from_pixel(self.side as u32, (LINE + 2) as u32, PAPER);
            imageops::replace(&mut self.picture, &band, left as i64, (top + self.side - LINE - 2) as i64);
            self.text(caption, left + 2, top + self.side - LINE - 1, self.side - 4, 1, INK);
        }
    }

    pub(super) fn finish(self) -> RgbImage {
        self.picture
    }

    fn why(&mut self, cell: &GridCell, left: usize, top: usize) {
        let is_failed = cell.status == Status::Failed;
        let ground = RgbImage::from_fn(self.side as u32, self.side as u32, |x, y| match is_failed {
            true if (x + y) % 12 == 0 => FAILED_LINE,
            true => FAILED_GROUND,
            false => MAT,
        });
        imageops::replace(&mut self.picture, &ground, left as i64, top as i64);
        let (word, colour) = match (cell.status, &cell.error_kind) {
            (_, Some(kind)) => (kind.replace('_', " "), FAILED),
            (Status::Completed, None) => ("no file".to_owned(), SOFT),
            (status, None) => (status.to_string(), SOFT),
        };
        let used = self.text(&word, left + GAP, top + GAP, self.side - 2 * GAP, 2, colour);
        if let Some(error) = &cell.error {
            self.text(error, left + GAP, top + GAP + (used + 1) * LINE - LINE / 2, self.side - 2 * GAP, 6, INK);
        }
    }

    /// Writes text in lines; returns how many.
    fn text(&mut self, text: &str, left: usize, top: usize, pixels: usize, most: usize, colour: Rgb<u8>) -> usize {
        let lines = lettering::lines(text, pixels, most);
        for (number, line) in lines.iter().enumerate() {
            lettering::draw(&mut self.picture, line, left, top + number * LINE, colour);
        }
        lines.len()
    }
}

/// A picture so small that its longer side is that of a cell.
pub(super) fn fitted(picture: &RgbImage, side: usize) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longer = width.max(height).max(1);
    let scaled = |pixels: u32| (u64::from(pixels) * side as u64 / u64::from(longer)).max(1) as u32;
    imageops::resize(picture, scaled(width), scaled(height), FilterType::Triangle)
}
