//! What is said at the end of a run: counts by outcome, where the pictures are, and queries to go on with.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use super::{report::Failure, stage::Stage, table::table};
use crate::{
    crud::{task_outcomes::OutcomeRow, tasks::TaskRow},
    services::task_progress,
};

/// The end of a run.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// The task.
    pub(super) task: TaskRow,
    /// Its cells by state and kind of error.
    pub(super) outcomes: Vec<OutcomeRow>,
    /// Seconds from the first worker's start.
    pub(super) seconds: f64,
    /// Where its pictures are.
    pub(super) pictures: PathBuf,
    /// Completed cells whose picture is not there: only its URL is known.
    pub(super) not_kept: i64,
    /// Where its workers' logs are.
    pub(super) logs: Option<PathBuf>,
    /// Commands that show the task, and its pictures.
    pub(super) commands: Vec<String>,
    /// Queries of the views that show more.
    pub(super) queries: Vec<String>,
}

impl Summary {
    /// Reads what became of the task. `program` is how this one is called.
    pub(super) async fn of(stage: &Stage, task: TaskRow, took: Duration, program: &str) -> Result<Self, Failure> {
        let (context, actor) = (stage.session.context(), &stage.session.actor);
        let outcomes = task_progress::get_outcomes(context, actor, task.id).await?;
        let not_kept = task_progress::count_not_kept(context, actor, task.id).await?;
        Ok(Self {
            outcomes,
            not_kept,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            pictures: stage.pictures.join(task.id.to_string()),
            logs: stage.logs.clone(),
            commands: ["show", "grid"].map(|what| format!("{program} task {what} {}", task.id)).into(),
            queries: queries(&task, program),
            task,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let name = self.task.name.replace(char::is_control, " ");
        let rows = self
            .outcomes
            .iter()
            .map(|row| [row.status.to_string(), row.error_kind.clone().unwrap_or_else(|| "-".to_owned()), row.cells.to_string()]);
        let logs = self.logs.as_ref().map_or_else(|| "none".to_owned(), |logs| logs.display().to_string());
        let not_kept = match self.not_kept {
            0 => String::new(),
            not_kept => format!(" ({not_kept} were not kept: the error of their cells says why)"),
        };
        format!(
            "task {} ({name}): {} after {} s\n\n{}\n\npictures  {}{not_kept}\nlogs      {logs}\n\nto see more\n  {}",
            self.task.id,
            self.task.status,
            self.seconds,
            table(["STATUS", "WHY", "CELLS"], rows),
            self.pictures.display(),
            [&self.commands[..], &self.queries].concat().join("\n  "),
        )
    }
}

/// Why some cells failed, where each stands and how it ended, and what was sent: each a line for a shell.
fn queries(task: &TaskRow, program: &str) -> Vec<String> {
    let id = task.id;
    [
        format!(
            "select error_kind, cells, latest_error, examples from imagemill.failures where task_id = '{id}' order by cells desc"
        ),
        format!(
            "select cell, status, position, seed, result_file, error_kind, error \
             from imagemill.subtask_details where task_id = '{id}' order by cell"
        ),
        format!(
            "select cell, ordinal, at, event, after, upstream_id, polls, error \
             from imagemill.attempts_timeline where task_id = '{id}' order by cell, ordinal, at"
        ),
    ]
    .map(|query| format!("{program} psql -c \"{query}\""))
    .into()
}

/// So many of something, whose plural has an s.
pub(super) fn counted(number: impl TryInto<i64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(i64::MAX);
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A number with commas.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 24, 999, 1_000, 3_024, 50_000, 1_234_567, -1_000].map(grouped);
        assert_eq!(texts, ["0", "24", "999", "1,000", "3,024", "50,000", "1,234,567", "-1,000"]);
    }
}
