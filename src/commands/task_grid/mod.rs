//! `imagemill task grid`: a task's grid as one HTML page that needs nothing else, and as a labelled contact sheet.

mod document;
mod page;
mod pictures;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use chrono::Utc;
use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use self::{document::Document, pictures::Pictures};
use super::{
    contact_sheet, output,
    report::Failure,
    stage::kept_pictures,
    summary::{counted, grouped},
};
use crate::services::{
    actor::Actor,
    context::Context,
    grid_service::{self, Grid},
};

/// Where things are, and where they go.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The page; none: `grid-ID.html` in the current directory.
    pub output: Option<PathBuf>,
    /// The contact sheet; none: no sheet is drawn.
    pub png: Option<PathBuf>,
    /// Where kept pictures are; none: as the settings say.
    pub pictures: Option<PathBuf>,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub(super) enum GridError {
    /// A place that is none.
    #[error("{path} cannot be used: {source}; name another place")]
    Place {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is no name of a file.
    #[error("{option} takes a file, and {path} is none: the page is written beside what it links to")]
    NoFile {
        /// The option.
        option: String,
        /// What was named.
        path: PathBuf,
    },
    /// Page and sheet would overwrite each other.
    #[error("--output and --png name one file, {path}: name two")]
    OneFile {
        /// Which.
        path: PathBuf,
    },
    /// Kept pictures are looked for where none can be.
    #[error("--pictures takes the directory in which pictures were kept, and {path} is none")]
    NoPictures {
        /// What was named.
        path: PathBuf,
    },
    /// The page cannot be written.
    #[error("the page cannot be written to {path}: {source}; name another file with --output")]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The data cannot be written as JSON.
    #[error("the grid cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    task_id: Uuid,
    page: PathBuf,
    page_bytes: usize,
    cells: usize,
    /// Pictures that are linked as files, and by their URL.
    files: usize,
    urls: usize,
    sheets: Vec<PathBuf>,
}

/// Writes the page, and the sheet where one is asked for.
pub async fn grid(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    places: &Places,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let page = places.output.clone().unwrap_or_else(|| PathBuf::from(format!("grid-{id}.html")));
    check(places, &page).map_err(Failure::usage)?;
    let grid = grid_service::get_grid(context, actor, id).await?;
    let kept = places.pictures.clone().unwrap_or_else(|| kept_pictures(&context.settings));
    let png = places.png.clone();
    let write = move || write(&grid, &kept, page, png.as_deref());
    let written = tokio::task::spawn_blocking(write).await.map_err(Failure::failed)??;
    if json {
        return output::json(&written, out);
    }
    let mut lines = vec![written.page.display().to_string()];
    lines.extend(written.sheets.iter().map(|sheet| sheet.display().to_string()));
    let (cells, files, urls) = (written.cells as i64, written.files as i64, written.urls as i64);
    output::note(&format!(
        "{}: {} kept as {}, {} named by {} URL, {} kB of page without them",
        counted(cells, "cell"),
        counted(files, "picture"),
        if files == 1 { "a file" } else { "files" },
        grouped(urls),
        if urls == 1 { "its" } else { "their" },
        grouped(written.page_bytes.div_ceil(1_000) as i64)
    ));
    output::text(&lines.join("\n"), out)
}

fn write(grid: &Grid, kept: &Path, page: PathBuf, png: Option<&Path>) -> Result<Written, Failure> {
    let directory = directory_of(&page).map_err(Failure::failed)?;
    let pictures = Pictures::find(&grid.cells, kept, &directory).map_err(Failure::failed)?;
    let document = Document::of(grid, &pictures, Utc::now());
    let html = page::html(&grid.task.name, &document, &pictures.sources).map_err(Failure::failed)?;
    std::fs::write(&page, &html).map_err(|source| Failure::failed(GridError::Write { path: page.clone(), source }))?;
    let sheets = match png {
        Some(png) => contact_sheet::write(grid, kept, png).map_err(Failure::failed)?,
        None => Vec::new(),
    };
    Ok(Written {
        task_id: grid.task.id,
        page,
        page_bytes: html.len(),
        cells: grid.cells.len(),
        files: pictures.files,
        urls: pictures.urls,
        sheets,
    })
}

/// Looks at the places before anything is read: a word that was mistyped makes no directory, and no page without pictures.
fn check(places: &Places, page: &Path) -> Result<(), GridError> {
    let place = |option: &str, file: &Path| -> Result<PathBuf, GridError> {
        match file.file_name() {
            Some(name) if file != Path::new("-") => Ok(directory_of(file)?.join(name)),
            _ => Err(GridError::NoFile { option: option.to_owned(), path: file.to_owned() }),
        }
    };
    let page = place("--output", page)?;
    if let Some(png) = &places.png
        && place("--png", png)? == page
    {
        return Err(GridError::OneFile { path: png.clone() });
    }
    match &places.pictures {
        Some(pictures) if !pictures.is_dir() => Err(GridError::NoPictures { path: pictures.clone() }),
        _ => Ok(()),
    }
}

/// The directory of a file: links in the page begin there.
fn directory_of(file: &Path) -> Result<PathBuf, GridError> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parent.canonicalize().map_err(|source| GridError::Place { path: parent.to_owned(), source })
}
