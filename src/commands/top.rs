//! `imagemill top`: workers, lanes and open tasks, refreshed each second.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Write},
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    lane::waits_for,
    output,
    progress::span,
    report::Failure,
    running::Leave,
    summary::{counted, grouped},
    table::fitted,
    terminal::{self, BOLD, DIM, Line, RED, Screen, has_colours},
};
use crate::{
    queue::MOST_COUNTED,
    services::{
        actor::Actor,
        context::Context,
        error::ServiceError,
        overview_service::{self, Overview},
    },
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A look takes a tenth of the time at most, however slow the database is.
const SHARE: u32 = 10;

/// Open tasks that are asked for.
const TASKS: i64 = 100;

/// The rate of a task is that of about so many seconds.
const WINDOW: Duration = Duration::from_secs(10);

/// Shows the fleet until `q`, Escape or Ctrl-C; elsewhere than on a terminal, and as JSON, once.
pub async fn top(context: &Context, actor: &Actor, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let first = overview_service::get_overview(context, actor, TASKS).await?;
    if json {
        return output::json(&first, out);
    }
    let lease = context.settings.queue.lease;
    let mut rates = Rates::default();
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let lines = lines(&first, &mut rates, lease, ("", None)).into_iter().map(|line| line.text).collect::<Vec<_>>();
        return output::text(lines.join("\n").trim_end(), out);
    }
    let mut told = Leave::catch()?;
    let is_coloured = has_colours(&io::stdout());
    let failed = |error: io::Error| Failure::failed(format_args!("the terminal: {error}"));
    let mut screen = Screen::take().map_err(failed)?;
    let mut keys = keys().map_err(failed)?;
    let mut found: Result<Overview, ServiceError> = Ok(first);
    loop {
        let began = Instant::now();
        let mut shown = match &found {
            Ok(overview) => lines(overview, &mut rates, lease, ("    q quits", terminal::width(&io::stdout()))),
            // It comes back: workers wait for it too.
            Err(error) => vec![Line::new(error.to_string().replace(char::is_control, " "), Some(RED))],
        };
        if !is_coloured {
            for line in &mut shown {
                line.colour = None;
            }
        }
        screen.show(&shown).map_err(failed)?;
        let pause = INTERVAL.max(began.elapsed() * SHARE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            key = keys.recv() => match key {
                Some(Key::Again) => {}
                Some(Key::Quit) | None => return Ok(()),
            },
            () = told.asked() => return Ok(()),
        }
        found = overview_service::get_overview(context, actor, TASKS).await;
        if let Err(ServiceError::NotAllowed { .. }) = &found {
            return found.map(|_| ()).map_err(Failure::from);
        }
    }
}

/// What a key asks for.
enum Key {
    Quit,
    /// To look at once: another size.
    Again,
}

/// Keys are read on a thread: a read that never ends must not keep the command from leaving.
fn keys() -> io::Result<mpsc::Receiver<Key>> {
    use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
    let (sender, receiver) = mpsc::channel(16);
    std::thread::Builder::new().name("imagemill-keys".to_owned()).spawn(move || {
        // Its end is that of the terminal.
        while let Ok(event) = read() {
            let key = match event {
                Event::Key(key) if key.kind == KeyEventKind::Release => continue,
                Event::Key(key) => {
                    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Key::Quit,
                        _ if is_interrupt => Key::Quit,
                        _ => continue,
                    }
                }
                Event::Resize(..) => Key::Again,
                _ => continue,
            };
            if sender.blocking_send(key).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Ended cells of the tasks at the looks of the last seconds.
#[derive(Debug, Default)]
struct Rates(HashMap<Uuid, Vec<(Instant, i32)>>);

impl Rates {
    /// Cells a second of a task; none: it is too early to say.
    fn of(&mut self, task: Uuid, ended: i32, now: Instant) -> Option<f64> {
        let samples = self.0.entry(task).or_default();
        if samples.last().is_some_and(|(_, before)| *before > ended) {
            // Cells were opened again: a round of its own.
            samples.clear();
        }
        samples.push((now, ended));
        while samples.len() > 2 && samples.get(1).is_some_and(|(when, _)| now.duration_since(*when) >= WINDOW) {
            samples.remove(0);
        }
        let (since, before) = samples.first()?;
        let seconds = now.duration_since(*since).as_secs_f64();
        (seconds > 0.5).then(|| f64::from(ended.saturating_sub(*before).max(0)) / seconds)
    }
}

/// The whole screen: its first line ends in what keys do, and no table is wider than it.
fn lines(overview: &Overview, rates: &mut Rates, lease: Duration, (keys, columns): (&str, Option<u16>)) -> Vec<Line> {
    let now = Instant::now();
    let in_flight: i64 = overview.lanes.iter().map(|lane| lane.in_flight).sum();
    let mut lines = vec![
        Line::new(
            format!(
                "imagemill  {}  {}, {} in flight, {}{keys}",
                output::time(Utc::now()),
                counted(overview.workers.len(), "worker"),
                grouped(in_flight),
                counted(overview.tasks.len(), "open task")
            ),
            Some(BOLD),
        ),
        Line::new("", None),
    ];
    let seconds = |seconds: f64| span(seconds.max(0.0));
    let workers = overview.workers.iter().map(|worker| {
        [
            worker.host.clone(),
            worker.pid.to_string(),
            worker.version.clone(),
            worker.jobs.to_string(),
            format!("{:.1} s ago", worker.beat_seconds.max(0.0)),
            seconds(worker.up_seconds),
        ]
    });
    let silent = overview.workers.iter().map(|worker| (worker.beat_seconds > lease.as_secs_f64()).then_some(RED));
    push(
        &mut lines,
        &fitted(["WORKER", "PID", "VERSION", "JOBS", "BEAT", "UP"], workers, &["VERSION", "PID"], columns),
        silent,
        "no worker runs",
    );
    let ways = overview.lanes.iter().map(|lane| {
        let waiting = grouped(lane.waiting);
        [
            lane.lane.lane.clone(),
            lane.in_flight.to_string(),
            lane.lane.max_in_flight.to_string(),
            if lane.waiting >= MOST_COUNTED { format!("{waiting} or more") } else { waiting },
            waits_for(lane.lane.paused.as_deref().unwrap_or_default(), lane.in_flight, lane.lane.max_in_flight)
                .unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let paused = overview.lanes.iter().map(|lane| lane.lane.paused.is_some().then_some(RED));
    push(&mut lines, &fitted(["LANE", "IN FLIGHT", "LIMIT", "WAITING", "WAITS FOR"], ways, &[], columns), paused, "no lane");
    let tasks = overview.tasks.iter().map(|task| {
        let ended = task.processed_images();
        let rate = rates.of(task.id, ended, now).filter(|rate| *rate > 0.0);
        let left = rate.map(|rate| span(f64::from(task.total_images - ended) / rate));
        [
            task.id.to_string(),
            task.owner.clone(),
            bar(task.progress()),
            format!("{}/{}", grouped(ended.into()), grouped(task.total_images.into())),
            task.failed_subtasks.to_string(),
            rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s")),
            left.unwrap_or_else(|| "-".to_owned()),
            task.name.clone(),
        ]
    });
    let header = ["TASK", "OWNER", "PROGRESS", "ENDED", "FAILED", "RATE", "LEFT", "NAME"];
    // How far it is also stands in what has ended of it.
    let goes = ["OWNER", "PROGRESS", "FAILED", "ENDED"];
    push(&mut lines, &fitted(header, tasks, &goes, columns), std::iter::repeat(None), "no task is open");
    lines
}

/// A table with its header in bold, or what there is none of.
fn push(lines: &mut Vec<Line>, table: &str, colours: impl Iterator<Item = Option<&'static str>>, none: &str) {
    let mut rows = table.lines();
    lines.extend(rows.next().map(|header| Line::new(header, Some(BOLD))));
    let before = lines.len();
    lines.extend(rows.zip(colours).map(|(row, colour)| Line::new(row, colour)));
    if lines.len() == before {
        lines.push(Line::new(none, Some(DIM)));
    }
    lines.push(Line::new("", None));
}

/// Percent as a bar of ten letters.
fn bar(percent: i32) -> String {
    let full = usize::try_from(percent.clamp(0, 100) / 10).unwrap_or_default();
    format!("{}{} {percent:3}%", "\u{2588}".repeat(full), "\u{2591}".repeat(10 - full))
}

#[cfg(test)]
mod tests {
    use super::{super::table::table, *};

    #[test]
    fn a_bar_is_as_full_as_its_percent() {
        assert_eq!(bar(0), "\u{2591}".repeat(10) + "   0%");
        assert_eq!(bar(47), "\u{2588}".repeat(4) + &"\u{2591}".repeat(6) + "  47%");
        assert_eq!(bar(100), "\u{2588}".repeat(10) + " 100%");
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let (mut rates, task, began) = (Rates::default(), Uuid::nil(), Instant::now());
        assert_eq!(rates.of(task, 0, began), None);
        assert_eq!(rates.of(task, 10, began + Duration::from_secs(1)), Some(10.0));
        for second in 2..60 {
            rates.of(task, 10, began + Duration::from_secs(second));
        }
        assert_eq!(rates.of(task, 10, began + Duration::from_mins(1)), Some(0.0));
        // A retry opens eight of them again.
        assert_eq!(rates.of(task, 2, began + Duration::from_secs(61)), None);
        assert_eq!(rates.of(task, 6, began + Duration::from_secs(63)), Some(2.0));
    }

    #[test]
    fn an_empty_table_says_so() {
        let mut lines = Vec::new();
        push(&mut lines, &table(["A"], []), std::iter::empty(), "nothing");
        assert_eq!(lines.iter().map(|line| line.text.trim()).collect::<Vec<_>>(), ["A", "nothing", ""]);
    }
}
