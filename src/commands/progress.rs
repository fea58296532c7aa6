//! The progress of a task: a bar on a terminal, plain lines elsewhere. On standard error, so that data on standard output
//! stays alone.

use std::{
    collections::VecDeque,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::services::task_progress::TaskProgress;

/// The rate is that of the last so many seconds.
const WINDOW: Duration = Duration::from_secs(20);

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Cells of a task at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    total: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    in_flight: u64,
}

impl From<&TaskProgress> for Snapshot {
    fn from(progress: &TaskProgress) -> Self {
        let count = |cells: i32| u64::try_from(cells).unwrap_or_default();
        Self {
            total: count(progress.task.total_images),
            completed: count(progress.task.completed_subtasks),
            failed: count(progress.task.failed_subtasks),
            cancelled: count(progress.task.cancelled_subtasks),
            in_flight: u64::try_from(progress.in_flight).unwrap_or_default(),
        }
    }
}

impl Snapshot {
    fn ended(&self) -> u64 {
        self.completed + self.failed + self.cancelled
    }

    /// The numbers in words; the rate is in cells a second.
    fn text(&self, rate: Option<f64>) -> String {
        let mut parts = vec![format!("{} done", self.completed), format!("{} failed", self.failed)];
        if self.cancelled > 0 {
            parts.push(format!("{} cancelled", self.cancelled));
        }
        parts.push(format!("{} in flight", self.in_flight));
        if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
            parts.push(format!("{rate:.1}/s"));
            let left = self.total.saturating_sub(self.ended());
            if left > 0 {
                parts.push(format!("{} left", span(left as f64 / rate)));
            }
        }
        parts.join(", ")
    }
}

/// Seconds as people read them.
fn span(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Shows how a task gets on.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    samples: VecDeque<(Instant, u64)>,
    last_line: Option<(Instant, Snapshot)>,
    last_reason: Option<String>,
}

impl Progress {
    /// A bar on a terminal, else lines; no colours where `NO_COLOR` is set.
    pub fn start() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let colour = if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) { "" } else { ".green" };
            let template = format!("{{bar:30{colour}}} {{pos}}/{{len}}  {{msg}}");
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style);
            bar
        });
        Self { bar, samples: VecDeque::new(), last_line: None, last_reason: None }
    }

    /// Shows these numbers.
    pub fn update(&mut self, snapshot: Snapshot) {
        let now = Instant::now();
        let rate = self.rate(now, snapshot.ended());
        let text = snapshot.text(rate);
        if let Some(bar) = &self.bar {
            bar.set_length(snapshot.total);
            bar.set_position(snapshot.ended());
            bar.set_message(text);
            return;
        }
        let is_end = snapshot.ended() == snapshot.total;
        let is_due =
            self.last_line.is_none_or(|(when, last)| last != snapshot && (is_end || now.duration_since(when) >= LINE_EVERY));
        if is_due {
            output::note(&format!("{}/{}  {text}", snapshot.ended(), snapshot.total));
            self.last_line = Some((now, snapshot));
        }
    }

    /// Says why cells wait, whenever it is another reason than before.
    pub fn waits_for(&mut self, reason: Option<String>) {
        if reason.is_none() || reason == self.last_reason {
            return;
        }
        let text =
            format!("cells wait, and come again: {}", reason.as_deref().unwrap_or_default().replace(char::is_control, " "));
        match &self.bar {
            Some(bar) => bar.println(text),
            None => output::note(&text),
        }
        self.last_reason = reason;
    }

    /// Leaves the last numbers on the screen.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }

    fn rate(&mut self, now: Instant, ended: u64) -> Option<f64> {
        self.samples.push_back((now, ended));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(when, _)| now.duration_since(*when) > WINDOW) {
            self.samples.pop_front();
        }
        let (since, before) = self.samples.front()?;
        let seconds = now.duration_since(*since).as_secs_f64();
        (seconds > 0.5).then(|| ended.saturating_sub(*before) as f64 / seconds)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Snapshot = Snapshot { total: 200, completed: 90, failed: 10, cancelled: 0, in_flight: 8 };

    #[test]
    fn says_done_failed_in_flight_rate_and_time_left() {
        assert_eq!(HALF.text(None), "90 done, 10 failed, 8 in flight");
        assert_eq!(HALF.text(Some(0.0)), "90 done, 10 failed, 8 in flight");
        assert_eq!(HALF.text(Some(2.5)), "90 done, 10 failed, 8 in flight, 2.5/s, 40 s left");
        assert_eq!(HALF.text(Some(0.5)), "90 done, 10 failed, 8 in flight, 0.5/s, 3 min 20 s left");
        let end = Snapshot { completed: 180, failed: 10, cancelled: 10, in_flight: 0, ..HALF };
        assert_eq!(end.text(Some(2.0)), "180 done, 10 failed, 10 cancelled, 0 in flight, 2.0/s");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut progress = Progress { bar: None, samples: VecDeque::new(), last_line: None, last_reason: None };
        let began = Instant::now();
        assert_eq!(progress.rate(began, 0), None);
        let rates: Vec<Option<f64>> = (1..=60)
            .map(|second| progress.rate(began + Duration::from_secs(second), if second > 30 { 2 * (second - 30) } else { 0 }))
            .collect();
        assert_eq!(rates[9], Some(0.0));
        assert_eq!(rates[59], Some(2.0));
    }
}
