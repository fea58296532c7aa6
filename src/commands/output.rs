//! Writing data: as JSON, or as lines.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};

use super::{report::Failure, table::fitted, terminal};
use crate::crud::tasks::TaskRow;

/// Writes a document as indented JSON.
pub(super) fn json(document: &impl serde::Serialize, output: &mut impl Write) -> Result<(), Failure> {
    write_json(document, output).map_err(|error| cannot_print(&error))
}

fn write_json(document: &impl serde::Serialize, output: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *output, document)?;
    writeln!(output)?;
    output.flush()
}

/// Writes a line, or several.
pub(super) fn text(text: &str, output: &mut impl Write) -> Result<(), Failure> {
    writeln!(output, "{text}").and_then(|()| output.flush()).map_err(|error| cannot_print(&error))
}

fn cannot_print(error: &io::Error) -> Failure {
    Failure::unprinted("print", error)
}

/// A time as people read it.
pub(super) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Tasks as a table, as wide as standard output is.
pub(super) fn tasks(tasks: &[TaskRow]) -> String {
    let rows = tasks.iter().map(|task| {
        [
            task.id.to_string(),
            task.owner.clone(),
            task.status.to_string(),
            format!("{}%", task.progress()),
            task.total_images.to_string(),
            task.completed_subtasks.to_string(),
            task.failed_subtasks.to_string(),
            task.cancelled_subtasks.to_string(),
            time(task.created_at),
            task.name.clone(),
        ]
    });
    let header = ["TASK", "OWNER", "STATUS", "ENDED", "CELLS", "COMPLETED", "FAILED", "CANCELLED", "CREATED", "NAME"];
    // Its id is what commands take, and its state what is looked for.
    let goes = ["CREATED", "OWNER", "CANCELLED", "CELLS", "COMPLETED", "FAILED", "ENDED", "STATUS"];
    fitted(header, rows, &goes, terminal::width(&io::stdout()))
}

/// A note to people, beside the data: on standard error. That it cannot be written changes nothing.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
