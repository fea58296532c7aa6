//! The progress of a task: a bar on a terminal, plain lines elsewhere. On standard error, so that data on standard output
//! stays alone.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{output, terminal};
use crate::{
    crud::overview::{FailedCell, LaneCells},
    services::task_progress::TaskProgress,
};

/// The rate is that of the last so many seconds.
const WINDOW: Duration = Duration::from_secs(20);

/// Columns of a bar, and how few of them may be left where there is no room.
const BAR: usize = 30;
const LEAST_BAR: usize = 6;

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
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// What a terminal shows: the task's bar, and what may stand below it.
#[derive(Debug)]
struct Screen {
    all: MultiProgress,
    bar: ProgressBar,
    lanes: BTreeMap<String, ProgressBar>,
    failures: Option<ProgressBar>,
}

/// A bar with a name before it and a message after it: shorter where the terminal has no room for all of it.
fn style(name: &str, total: u64, message: &str) -> ProgressStyle {
    let colour = if terminal::has_colours(&std::io::stderr()) { ".green" } else { "" };
    let bar = bar_width(terminal::width(&std::io::stderr()), name.len() + 2 * total.to_string().len() + 4 + message.len());
    let template = format!("{name}{{bar:{bar}{colour}}} {{pos}}/{{len}}  {{wide_msg}}");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What the bar has where all else takes so many columns. Not the last one: a terminal may break the line there.
fn bar_width(columns: Option<u16>, others: usize) -> usize {
    columns.map_or(BAR, |columns| usize::from(columns).saturating_sub(others + 1).clamp(LEAST_BAR, BAR))
}

/// Shows how a task gets on.
#[derive(Debug)]
pub struct Progress {
    screen: Option<Screen>,
    samples: VecDeque<(Instant, u64)>,
    last_line: Option<(Instant, Snapshot)>,
    last_reason: Option<String>,
}

impl Progress {
    /// A bar on a terminal, else lines; no colours where `NO_COLOR` is set.
    pub fn start() -> Self {
        let screen = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let bar = all.add(ProgressBar::no_length().with_style(style("", 0, "")));
            Screen { all, bar, lanes: BTreeMap::new(), failures: None }
        });
        Self { screen, samples: VecDeque::new(), last_line: None, last_reason: None }
    }

    /// Shows these numbers.
    pub fn update(&mut self, snapshot: Snapshot) {
        let now = Instant::now();
        let rate = self.rate(now, snapshot.ended());
        let text = snapshot.text(rate);
        if let Some(Screen { bar, .. }) = &self.screen {
            bar.set_style(style("", snapshot.total, &text));
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
        let text = format!("cells wait: {}", reason.as_deref().unwrap_or_default().replace(char::is_control, " "));
        match &self.screen {
            Some(screen) => screen.bar.println(text),
            None => output::note(&text),
        }
        self.last_reason = reason;
    }

    /// Shows the lanes of a task that has several: all its cells, and those that are open. Elsewhere than on a terminal nothing.
    pub fn lanes(&mut self, all: &[LaneCells], open: &[LaneCells]) {
        let Some(screen) = self.screen.as_mut().filter(|_| all.len() > 1) else { return };
        let count = |cells: i64| u64::try_from(cells).unwrap_or_default();
        for lane in all {
            let left = open.iter().find(|left| left.lane == lane.lane);
            let bar = screen.lanes.entry(lane.lane.clone()).or_insert_with(|| {
                let bar = ProgressBar::no_length();
                match &screen.failures {
                    Some(failures) => screen.all.insert_before(failures, bar),
                    None => screen.all.add(bar),
                }
            });
            let message = format!("{} in flight", left.map_or(0, |left| left.in_flight));
            bar.set_style(style(&format!("{:5} ", lane.lane), count(lane.cells), &message));
            bar.set_length(count(lane.cells));
            bar.set_position(count(lane.cells - left.map_or(0, |left| left.cells)));
            bar.set_message(message);
        }
    }

    /// Shows the cells that failed last, newest first: below the bars, elsewhere the new ones of them as lines.
    pub fn failures(&mut self, failures: &[FailedCell], new: usize) {
        let line = |failed: &FailedCell| {
            let why = failed.error.as_deref().unwrap_or_default().replace(char::is_control, " ");
            format!("cell {} failed, {}: {why}", failed.cell, failed.error_kind)
        };
        let Some(screen) = &mut self.screen else {
            for failed in failures.iter().take(new).rev() {
                output::note(&line(failed));
            }
            return;
        };
        let bar = screen.failures.get_or_insert_with(|| {
            let plain = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            screen.all.add(ProgressBar::no_length().with_style(plain))
        });
        let columns = terminal::width(&std::io::stderr()).map_or(u16::MAX, |columns| columns.saturating_sub(1));
        let lines = failures.iter().map(|failed| terminal::cut(&line(failed), columns).into_owned());
        bar.set_message(lines.collect::<Vec<_>>().join("\n"));
    }

    /// Leaves the last numbers on the screen.
    pub fn finish(&mut self) {
        if let Some(screen) = self.screen.take() {
            for bar in screen.lanes.values().chain(&screen.failures).chain([&screen.bar]) {
                bar.abandon();
            }
        }
    }

    fn rate(&mut self, now: Instant, ended: u64) -> Option<f64> {
        if self.samples.back().is_some_and(|(_, before)| *before > ended) {
            // Cells were opened again: a round of its own.
            self.samples.clear();
        }
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
    fn a_bar_is_shorter_where_the_terminal_has_no_room() {
        assert_eq!(bar_width(None, 200), BAR);
        assert_eq!(bar_width(Some(200), 60), BAR);
        assert_eq!(bar_width(Some(80), 61), 18);
        assert_eq!(bar_width(Some(60), 61), LEAST_BAR);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut progress = Progress { screen: None, samples: VecDeque::new(), last_line: None, last_reason: None };
        let began = Instant::now();
        assert_eq!(progress.rate(began, 0), None);
        let rates: Vec<Option<f64>> = (1..=60)
            .map(|second| progress.rate(began + Duration::from_secs(second), if second > 30 { 2 * (second - 30) } else { 0 }))
            .collect();
        assert_eq!(rates[9], Some(0.0));
        assert_eq!(rates[59], Some(2.0));
        // A retry opens fifty of them again.
        assert_eq!(progress.rate(began + Duration::from_secs(61), 10), None);
        assert_eq!(progress.rate(began + Duration::from_secs(63), 18), Some(4.0));
    }
}
