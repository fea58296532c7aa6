//! The grid of a task's pictures as labelled PNG files.

mod draw;
mod layout;
mod lettering;

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
};

use image::{ImageReader, RgbImage};
use thiserror::Error;

use self::{
    draw::Sheet,
    layout::{Layout, Page},
};
use crate::services::grid_service::Grid;

/// Why there is no sheet.
#[derive(Debug, Error)]
pub(super) enum ContactSheetError {
    /// The sheet cannot be written.
    #[error("the contact sheet cannot be written to {path}: {source}; name another file")]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
}

/// Writes the sheet of a grid: the longest axis goes down, the next one across, others are nested in the rows. A cell without a
/// picture says why in its place. What does not fit into one file goes into several, `NAME-1.png` and so on. Returns the files.
pub(super) fn write(grid: &Grid, directory: &Path, file: &Path) -> Result<Vec<PathBuf>, ContactSheetError> {
    let layout = Layout::of(grid);
    let pages = layout.pages();
    let failed = |path: &Path, source: image::ImageError| ContactSheetError::Write { path: path.to_owned(), source };
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent).map_err(|error| failed(file, error.into()))?;
    }
    let mut written = Vec::with_capacity(pages.len());
    for (number, page) in (1..).zip(&pages) {
        let path = if pages.len() == 1 { file.to_owned() } else { numbered(file, number) };
        let sheet = draw_page(grid, &layout, page, directory, &heading(grid, number, pages.len()));
        sheet.save(&path).map_err(|source| failed(&path, source))?;
        written.push(path);
    }
    Ok(written)
}

fn numbered(file: &Path, number: usize) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{stem}-{number}.png"))
}

fn heading(grid: &Grid, number: usize, pages: usize) -> String {
    let task = &grid.task;
    let page = if pages > 1 { format!("; sheet {number} of {pages}") } else { String::new() };
    let (done, all) = (task.completed_subtasks, task.total_images);
    format!("{} ({done} of {all} completed, {} failed{page})", task.name, task.failed_subtasks)
}

fn draw_page(grid: &Grid, layout: &Layout, page: &Page, directory: &Path, heading: &str) -> RgbImage {
    let mut sheet = Sheet::new(layout, page, heading);
    let places: Vec<(usize, usize, usize)> = page
        .rows
        .clone()
        .flat_map(|row| page.columns.clone().map(move |column| (row, column)))
        .filter_map(|(row, column)| layout.cell(row, column).map(|cell| (row, column, cell)))
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(places.len().max(1));
    let next = AtomicUsize::new(0);
    // Pictures are read and made small on every core, and few of them wait to be drawn.
    let (sender, receiver) = sync_channel(4 * threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, places) = (sender.clone(), &next, &places);
            scope.spawn(move || {
                while let Some(&(row, column, cell)) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let file = grid.cells.get(cell).and_then(|cell| cell.result_file.as_deref());
                    let picture = file.and_then(|file| read(&directory.join(file), layout.side));
                    if sender.send((row, column, cell, picture)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (row, column, cell, picture) in receiver {
            if let Some(cell) = grid.cells.get(cell) {
                sheet.cell(layout, row, column, cell, picture.as_ref());
            }
        }
    });
    sheet.finish()
}

/// A picture, made small; none: it is not there, or no picture.
fn read(path: &Path, side: usize) -> Option<RgbImage> {
    let read = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(image::ImageError::from);
    match read.and_then(ImageReader::decode) {
        Ok(picture) => Some(draw::fitted(&picture.to_rgb8(), side)),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "a picture of the contact sheet cannot be read");
            None
        }
    }
}
