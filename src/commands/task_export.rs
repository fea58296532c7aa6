//! `imagemill task export`: a task's cells as CSV or JSON, and its pictures under names that say where they stand.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{report::Failure, stage::kept_pictures, summary::counted};
use crate::{
    models::Axis,
    services::{
        actor::Actor,
        context::Context,
        export::{self, Manifest, ManifestCell},
    },
};

/// How the manifest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A header and a line a cell.
    Csv,
    /// One document: the task, its axes, its cells.
    Json,
}

/// Columns of the CSV before and after those of the axes.
const BEFORE: [&str; 3] = ["cell", "copy", "variable_indices"];
const AFTER: [&str; 19] = [
    "status",
    "error_kind",
    "error",
    "seed",
    "ratio",
    "width",
    "height",
    "lane",
    "prompts",
    "upstream_id",
    "attempts",
    "paid_submits",
    "unknown_submits",
    "rating",
    "result",
    "result_file",
    "sha256",
    "file",
    "task_id",
];

/// Writes the manifest, page by page, and copies the kept pictures where a directory is named.
pub async fn export(
    context: &Context,
    actor: &Actor,
    id: Uuid,
    form: Form,
    pictures: Option<&Path>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut manifest = export::export_task(context, actor, id).await?;
    let pictures = pictures.map(|directory| Pictures::new(context, directory)).transpose()?;
    let mut out = io::BufWriter::new(out);
    let mut writer = Writer::begin(form, &manifest, &mut out)?;
    let mut left: Vec<i32> = Vec::new();
    // Who has read enough of the manifest wants the pictures all the same: they are copied to the end.
    let mut unprinted = None;
    loop {
        let page = manifest.next_page(context).await?;
        if page.is_empty() {
            break;
        }
        for mut cell in page {
            if let Some(pictures) = &pictures
                && !pictures.copy(&cell).await?
            {
                left.extend(cell.file.take().map(|_| cell.cell));
            }
            if unprinted.is_none()
                && let Err(failure) = writer.cell(id, &cell)
            {
                if pictures.is_none() {
                    return Err(failure);
                }
                unprinted = Some(failure);
            }
        }
    }
    if unprinted.is_none() {
        unprinted = writer.end().and_then(|()| out.flush().map_err(|error| cannot_write(&error))).err();
    }
    if !left.is_empty() {
        let told = if left.len() == 1 { "is not where it was kept, and was" } else { "are not where they were kept, and were" };
        let (many, cells) = (counted(left.len() as u64, "kept picture"), listed(&left));
        return Err(Failure::failed(format_args!("{many} {told} not copied ({cells}): see results.directory")));
    }
    unprinted.map_or(Ok(()), Err)
}

/// Where pictures lie, and where they go.
struct Pictures {
    from: PathBuf,
    to: PathBuf,
}

impl Pictures {
    fn new(context: &Context, to: &Path) -> Result<Self, Failure> {
        let from = kept_pictures(&context.settings);
        if context.settings.results.directory.is_none() && !from.is_dir() {
            let place = from.display();
            return Err(Failure::usage(format_args!(
                "results.directory is not set, and there are no kept pictures in {place} either: set it to where they were kept"
            )));
        }
        std::fs::create_dir_all(to)
            .map_err(|error| Failure::failed(format_args!("cannot make the directory {}: {error}", to.display())))?;
        Ok(Self { from, to: to.to_owned() })
    }

    /// Copies a cell's picture, under its name when it is whole: what stood there is replaced, and no link is followed. False:
    /// there is none, or it is gone.
    async fn copy(&self, cell: &ManifestCell) -> Result<bool, Failure> {
        let (Some(kept), Some(file)) = (&cell.result_file, &cell.file) else { return Ok(false) };
        let (from, to) = (self.from.join(kept), self.to.join(file));
        let unfinished = self.to.join(format!(".{}", Uuid::now_v7().simple()));
        let copied = match tokio::fs::copy(&from, &unfinished).await {
            Ok(_) => tokio::fs::rename(&unfinished, &to).await,
            Err(error) => Err(error),
        };
        if copied.is_err() {
            // What is left of it; the error is told.
            drop(tokio::fs::remove_file(&unfinished).await);
        }
        match copied {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Failure::failed(format_args!("cannot copy {} to {}: {error}", from.display(), to.display()))),
        }
    }
}

/// The first of them.
fn listed(cells: &[i32]) -> String {
    let first: Vec<String> = cells.iter().take(10).map(ToString::to_string).collect();
    let more = if cells.len() > first.len() { format!(" and {} more", cells.len() - first.len()) } else { String::new() };
    format!("cell {}{more}", first.join(", "))
}

/// Writes cells as they come, and keeps none.
enum Writer<'o, W: Write> {
    Csv(Box<csv::Writer<&'o mut W>>),
    Json { out: &'o mut W, is_first: bool },
}

impl<'o, W: Write> Writer<'o, W> {
    fn begin(form: Form, manifest: &Manifest, out: &'o mut W) -> Result<Self, Failure> {
        match form {
            Form::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                let axes = axis_columns(&manifest.axes);
                let columns = BEFORE.iter().copied().chain(axes.iter().map(String::as_str)).chain(AFTER);
                writer.write_record(columns).map_err(cannot_write_row)?;
                Ok(Self::Csv(Box::new(writer)))
            }
            Form::Json => {
                let write = |out: &mut W| -> io::Result<()> {
                    write!(out, "{{\n\"task\": ")?;
                    serde_json::to_writer(&mut *out, &manifest.task)?;
                    write!(out, ",\n\"axes\": ")?;
                    serde_json::to_writer(&mut *out, &manifest.axes)?;
                    write!(out, ",\n\"cells\": [")
                };
                write(out).map_err(|error| cannot_write(&error))?;
                Ok(Self::Json { out, is_first: true })
            }
        }
    }

    fn cell(&mut self, task_id: Uuid, cell: &ManifestCell) -> Result<(), Failure> {
        match self {
            Self::Csv(writer) => writer.write_record(record(task_id, cell)).map_err(cannot_write_row),
            Self::Json { out, is_first } => {
                let begin = if std::mem::take(is_first) { "\n" } else { ",\n" };
                let written = out.write_all(begin.as_bytes()).and_then(|()| Ok(serde_json::to_writer(&mut **out, cell)?));
                written.map_err(|error| cannot_write(&error))
            }
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self {
            Self::Csv(mut writer) => writer.flush().map_err(|error| cannot_write(&error)),
            Self::Json { out, .. } => writeln!(out, "\n]\n}}").map_err(|error| cannot_write(&error)),
        }
    }
}

fn record(task_id: Uuid, cell: &ManifestCell) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let indices: Vec<String> = cell.variable_indices.iter().map(ToString::to_string).collect();
    let mut record = vec![cell.cell.to_string(), cell.copy.to_string(), indices.join(";")];
    record.extend(cell.axis_values.iter().cloned());
    record.extend([
        cell.status.to_string(),
        text(&cell.error_kind),
        text(&cell.error),
        cell.seed.to_string(),
        cell.ratio.clone(),
        cell.width.to_string(),
        cell.height.to_string(),
        cell.lane.clone(),
        serde_json::Value::Array(cell.prompts.clone()).to_string(),
        text(&cell.upstream_id),
        cell.attempts.to_string(),
        cell.paid_submits.to_string(),
        cell.unknown_submits.to_string(),
        cell.rating.map(|rating| rating.to_string()).unwrap_or_default(),
        text(&cell.result),
        text(&cell.result_file),
        text(&cell.sha256),
        text(&cell.file),
        task_id.to_string(),
    ]);
    record
}

/// One column an axis; two axes of one name stay apart.
fn axis_columns(axes: &[Axis]) -> Vec<String> {
    axes.iter().map(|axis| format!("axis {}: {}", axis.number, axis.name)).collect()
}

fn cannot_write(error: &io::Error) -> Failure {
    Failure::unprinted("write the manifest", error)
}

fn cannot_write_row(error: csv::Error) -> Failure {
    let told = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => cannot_write(&error),
        _ => Failure::failed(format_args!("cannot write the manifest: {told}")),
    }
}
